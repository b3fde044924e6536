//! The process is asked to end: once politely, twice at once.

use std::future::poll_fn;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervise::{Notice, Notices};

/// Exit code of a process that did not finish what it had taken.
const IMPATIENT: i32 = 130;

/// Reports the first SIGTERM or SIGINT, and ends the process at the second.
pub async fn watch(notices: Notices) {
    let (terminate, interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!("signals will end the process without draining: {error}");
            return;
        }
    };
    let mut signals = [terminate, interrupt];
    next(&mut signals).await;
    // When nobody listens, the node is on its way out already.
    let _ = notices.send(Notice::Terminate);
    next(&mut signals).await;
    tracing::warn!("asked to end twice: ending at once");
    std::process::exit(IMPATIENT);
}

async fn next(signals: &mut [Signal]) {
    poll_fn(|context| match signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}
