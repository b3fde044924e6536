//! Each bug of the log, planted, is found by the random runs, and by one that finds nothing without it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use base::Bug;
use base::planted::plant;

use super::model::{Driver, Mix};
use super::random::{CRASHES, FAILURES, FLIPS, MOVES};

const BUGS: [(Bug, Mix, u64); 14] = [
    (Bug::AckBeforeSync, CRASHES, 20),
    (Bug::ConfirmAfterFailedSync, FAILURES, 20),
    (Bug::CutIsNotRemembered, CRASHES, 50),
    (Bug::ResurrectCutSuffix, CRASHES, 50),
    (Bug::DamageTakenForTornTail, FLIPS, 400),
    (Bug::SkipChecksum, FLIPS, 400),
    (Bug::ForgetVoteOnRecycle, CRASHES, 1500),
    (Bug::RecycleOnUnsyncedSettle, CRASHES, 1500),
    (Bug::StaleGenerationAccepted, CRASHES, 1500),
    (Bug::ReuseBeforeManifest, MOVES, 300),
    (Bug::PunchReused, MOVES, 300),
    (Bug::ReuseAdoptedBeforeManifest, MOVES, 300),
    (Bug::TrimUnsettled, MOVES, 300),
    (Bug::AdoptWithoutIndexSync, MOVES, 300),
];

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for (bug, mix, seeds) in BUGS {
        let breaks = |seed: u64, bug: Option<Bug>| {
            plant(None);
            let mut driver = Driver::new(seed);
            plant(bug);
            catch_unwind(AssertUnwindSafe(|| driver.run(mix))).is_err()
        };
        let found = (0..seeds).find(|seed| breaks(*seed, Some(bug)) && !breaks(*seed, None));
        plant(None);
        eprintln!("{bug:?}: found by seed {found:?}");
        if found.is_none() {
            missed.push(bug);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
