//! Threads of the node and what they have to say to it: a thread that panics stops the node, never silently.

use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use model::ShardId;

/// Something the node must act upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The shard has recovered from its files and can serve clients.
    Ready(ShardId),
    /// The shard has finished what it had taken.
    Drained(ShardId),
    /// A shard cannot be started from its files; why.
    Unusable(String),
    /// The node must stop; why.
    Halt(String),
    /// Somebody asked the process to end.
    Terminate,
}

/// Where threads send their notices.
pub type Notices = Sender<Notice>;

/// Starts a named thread; if it panics, the node halts.
pub fn spawn(
    name: &str,
    notices: &Notices,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, String> {
    let watch = Watch { name: name.to_owned(), notices: notices.clone() };
    let body = move || {
        let _watch = watch;
        run();
    };
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(body).map_err(|error| format!("cannot start thread {name}: {error}"))
}

struct Watch {
    name: String,
    notices: Notices,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = format!("thread {} panicked; its message is above", self.name);
            // Nobody listens when the node is already gone.
            let _ = self.notices.send(Notice::Halt(reason));
        }
    }
}
