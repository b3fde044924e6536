//! The side door for people and their monitoring: health, metrics and status over HTTP; and what must be watched
//! while the node runs, the process's signals and the room on its disk.
//!
//! One thread with one small asynchronous runtime. It asks shards through their mailboxes, like everybody else, and
//! has no other way into them.

mod meanings;
mod metrics;
mod pages;
mod phase;
mod room;
mod signals;

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use pages::Front;
pub use phase::{Phase, Stage};
pub use room::Room;

use crate::supervise::{Notices, spawn};

/// The near end of the thread. Dropping it closes the listeners.
#[derive(Debug)]
pub struct SideDoor {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SideDoor {
    /// Starts serving `front`; with `watch_signals` also listens for the process being asked to end.
    pub fn start(
        listeners: Vec<TcpListener>,
        front: Arc<Front>,
        room: Room,
        notices: &Notices,
        watch_signals: bool,
    ) -> Result<SideDoor, String> {
        let told = |error: std::io::Error| format!("cannot start the HTTP server: {error}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(told)?;
        let (stop, stopped) = oneshot::channel();
        let own_notices = notices.clone();
        let run = move || {
            runtime.block_on(async move {
                if watch_signals {
                    tokio::spawn(signals::watch(own_notices));
                }
                tokio::spawn(room.watch(front.mailboxes.clone()));
                for listener in listeners {
                    tokio::spawn(serve(listener, front.clone()));
                }
                // Either way of ending is the end.
                let _ = stopped.await;
            });
        };
        let thread = spawn("http", notices, run)?;
        Ok(SideDoor { stop: Some(stop), thread: Some(thread) })
    }
}

async fn serve(listener: TcpListener, front: Arc<Front>) {
    let served = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => axum::serve(listener, pages::router(front)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::error!("the HTTP server has ended: {error}");
    }
}

impl Drop for SideDoor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there has already been reported by the supervisor.
            let _ = thread.join();
        }
    }
}
