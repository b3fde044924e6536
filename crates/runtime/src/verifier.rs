//! The pool where passwords are checked: deliberately slow work that no shard may wait for.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use shard::AuthJob;

use crate::mailbox::{Letter, Mailbox};
use crate::supervise::{Notices, spawn};

/// Threads of the pool.
const THREADS: usize = 2;

type Job = (Arc<Mailbox>, AuthJob);

/// The near end of the pool; the threads end with the last clone.
#[derive(Clone, Debug)]
pub struct Verifier {
    jobs: Sender<Job>,
}

impl Verifier {
    /// Starts the threads.
    pub fn start(notices: &Notices) -> Result<Verifier, String> {
        let (jobs, todo) = channel::<Job>();
        let todo = Arc::new(Mutex::new(todo));
        for number in 0..THREADS {
            let todo = todo.clone();
            spawn(&format!("verifier-{number}"), notices, move || run(&todo))?;
        }
        Ok(Verifier { jobs })
    }

    /// Checks a password and puts the answer into the mailbox.
    pub fn verify(&self, answer_to: Arc<Mailbox>, job: AuthJob) {
        // The threads live as long as this sender, or the node has already been halted.
        let _ = self.jobs.send((answer_to, job));
    }
}

fn run(todo: &Mutex<Receiver<Job>>) {
    loop {
        let next = todo.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
        let Ok((mailbox, job)) = next else { return };
        let matches = auth::verify(&job.password, &job.password_hash);
        mailbox.push(Letter::Verified(job.conn, matches));
    }
}
