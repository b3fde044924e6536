//! The proof that the checkers bite: bugs that are planted in the product, and the seeds that find them.

use base::Bug;
use base::planted::plant;

/// The bugs that a whole node with one voter can show.
pub const WITHIN_SIGHT: [Bug; 15] = [
    Bug::AckBeforeSync,
    Bug::ApplyBeforeCommit,
    Bug::ConfirmAfterFailedSync,
    Bug::CutIsNotRemembered,
    Bug::DamageTakenForTornTail,
    Bug::DeliverAboveHandedOutBound,
    Bug::ForgetVoteOnRecycle,
    Bug::LoseDeliveryCountOnCheckpoint,
    Bug::LoseSettlementOnCheckpoint,
    Bug::RecycleOnUnsyncedSettle,
    Bug::RequeueToTail,
    Bug::ResurrectCutSuffix,
    Bug::SettleNeighbour,
    Bug::SkipChecksum,
    Bug::StaleGenerationAccepted,
];

/// The first of the seeds from 1 on that notices the bug and nothing without it, and what it says.
pub fn find(bug: Bug, seeds: u64) -> Option<(u64, String)> {
    (1..=seeds).find_map(|seed| {
        plant(Some(bug));
        let broken = crate::run(seed, false).broken;
        plant(None);
        let broken = broken?;
        crate::run(seed, false).broken.is_none().then_some((seed, broken))
    })
}
