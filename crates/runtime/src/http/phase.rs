//! Where the node is in its life, as health checks see it.

use std::sync::{Mutex, MutexGuard};

/// Part of a node's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading its files.
    Recovering,
    /// Serving clients.
    Serving,
    /// Finishing what it had taken.
    Draining,
}

/// The node's stage, shared.
#[derive(Debug)]
pub struct Phase {
    stage: Mutex<Stage>,
}

impl Phase {
    /// Recovering.
    pub fn new() -> Phase {
        Phase { stage: Mutex::new(Stage::Recovering) }
    }

    /// Goes on to another stage.
    pub fn enter(&self, stage: Stage) {
        *self.lock() = stage;
    }

    /// The present stage.
    pub fn stage(&self) -> Stage {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        // A stage is replaced as a whole.
        self.stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Stage {
    /// Why a node in this stage serves nobody; `None` if it does.
    pub fn obstacle(&self) -> Option<&'static str> {
        match self {
            Stage::Recovering => Some("recovering: reading the data directory"),
            Stage::Serving => None,
            Stage::Draining => Some("draining: finishing what was taken before the node stops"),
        }
    }
}
