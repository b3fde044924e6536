//! The proof that the checkers bite: bugs that are planted in the product, and the seeds that find them.

use base::Bug;
use base::planted::plant;

/// The bugs that a whole node with one voter can show. The others need a second replica: a voter that is alone never
/// cuts a suffix (`CutIsNotRemembered`, `ResurrectCutSuffix`) and never meets a term it could have forgotten its vote
/// of (`ForgetVoteOnRecycle`); the commit log's own tests find those.
pub const WITHIN_SIGHT: [Bug; 12] = [
    Bug::AckBeforeSync,
    Bug::ApplyBeforeCommit,
    Bug::ConfirmAfterFailedSync,
    Bug::DamageTakenForTornTail,
    Bug::DeliverAboveHandedOutBound,
    Bug::LoseDeliveryCountOnCheckpoint,
    Bug::LoseSettlementOnCheckpoint,
    Bug::RecycleOnUnsyncedSettle,
    Bug::RequeueToTail,
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
