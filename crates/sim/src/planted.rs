//! The proof that the checkers bite: bugs that are planted in the product, and the seeds that find them.

use base::Bug;
use base::planted::plant;

/// The bugs that a whole node with one voter can show. The others need a second replica: a voter that is alone never
/// cuts a suffix (`CutIsNotRemembered`, `ResurrectCutSuffix`) and never meets a term it could have forgotten its vote
/// of (`ForgetVoteOnRecycle`); the commit log's own tests find those. A group that leads for ever is sent no operation
/// twice (`CommitGoesBack`); the tests of `queue` find that, and `CommitByTime` breaks the same promise in sight.
pub const WITHIN_SIGHT: &[Bug] = &[
    Bug::AcceptSequenceGap,
    Bug::AckBeforeSync,
    Bug::AckCommitBeforeApply,
    Bug::AdoptWithoutIndexSync,
    Bug::ApplyBeforeCommit,
    Bug::BeginTransaction,
    Bug::CommitByStaleGeneration,
    Bug::CommitByTime,
    Bug::CompactNewest,
    Bug::ConfirmAfterFailedSync,
    Bug::DamageTakenForTornTail,
    Bug::DeletedComesBack,
    Bug::DeliverAboveHandedOutBound,
    Bug::DropMarkBeforeValue,
    Bug::EndIsOutOfRange,
    Bug::FetchLeapsWithin,
    Bug::FetchSessionForgetsPlace,
    Bug::FetchSessionTellsOnce,
    Bug::FetchSkipsUnread,
    Bug::ForgetChunkOnCheckpoint,
    Bug::ForgetOffsetOnCheckpoint,
    Bug::ForgetProducerOnCheckpoint,
    Bug::ForgetRemovedOnCheckpoint,
    Bug::FullForEver,
    Bug::GatherForEver,
    Bug::GenerationStays,
    Bug::KeepClientTime,
    Bug::LastIsLatest,
    Bug::LoadingIsNoOffset,
    Bug::LookUpTakesNext,
    Bug::LoseDeliveryCountOnCheckpoint,
    Bug::LoseSettlementOnCheckpoint,
    Bug::OpenCompressed,
    Bug::PunchReused,
    Bug::ReadWhileFull,
    Bug::RecycleOnUnsyncedSettle,
    Bug::RequeueToTail,
    Bug::ResurrectTrimmed,
    Bug::ReuseAdoptedBeforeManifest,
    Bug::ReuseBeforeManifest,
    Bug::RewriteDropsLive,
    Bug::SessionForEver,
    Bug::SettleNeighbour,
    Bug::ShareOfLeader,
    Bug::SkipChecksum,
    Bug::StaleGenerationAccepted,
    Bug::StaticLosesPlace,
    Bug::StaticNotFenced,
    Bug::StreamBeginsBehind,
    Bug::StreamSkipsRest,
    Bug::TakeTransactional,
    Bug::TakeWhileFull,
    Bug::TopicIdStays,
    Bug::TrimOneMore,
    Bug::TrimUnsettled,
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
