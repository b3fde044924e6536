//! The simulator: a whole node of production shards in one thread, driven by raw client bytes on an imagined disk and
//! clock, from one seed.
//!
//! In: a seed. Out: the first promise that was broken, or none; a digest that is equal whenever the seed is. It knows
//! nothing of the inside of what it tests: what it checks is what clients see ([`ledger`]) and what the disk is asked
//! ([`disk`]).

pub mod client;
pub mod cuts;
pub mod disk;
pub mod kafka;
pub mod ledger;
pub mod life;
pub mod node;
pub mod plan;
#[cfg(planted)]
pub mod planted;
pub mod room;
pub mod tally;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use life::{Life, Outcome};
pub use tally::Tally;

/// Lives the life of a seed; a panic is a broken promise.
pub fn run(seed: u64, is_loud: bool) -> Outcome {
    let hash = password_hash();
    let lived = catch_unwind(AssertUnwindSafe(|| Life::new(seed, &hash, is_loud).run()));
    lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let broken = Some(format!("panic: {}", text.unwrap_or_default()));
        Outcome { broken, trace: 0, tally: Tally::default() }
    })
}

pub(crate) fn password_hash() -> String {
    auth::hash(node::USER.1.as_bytes(), b"salt", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_dozen_lives_break_no_promise() {
        let mut tally = Tally::default();
        for seed in 1..=60 {
            let outcome = run(seed, false);
            assert_eq!(outcome.broken, None, "cargo run --release -p sim -- --seed {seed} --trace");
            tally += outcome.tally;
        }
        assert!(tally.confirmed > 0 && tally.redeliveries > 0 && tally.lost_writes > 0, "{tally}");
    }

    #[test]
    fn the_same_seed_is_the_same_life() {
        for seed in 100..110 {
            assert_eq!(run(seed, false), run(seed, false));
        }
    }

    #[cfg(planted)]
    #[test]
    fn planted_bugs_are_found() {
        for bug in planted::WITHIN_SIGHT.iter().copied() {
            assert!(planted::find(bug, 3000).is_some(), "{bug:?}");
        }
    }
}
