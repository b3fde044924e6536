//! Bugs that can be switched on to prove that the checkers bite.
//!
//! They exist only in builds with `--cfg planted` (the simulator's own proof run); in every other build
//! [`planted`] is the constant `false` and the code behind it is gone.

/// A planted bug; each is described where it is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it; the place where one is planted says the rest.
pub enum Bug {
    AcceptSequenceGap,
    AckBeforeSync,
    AckCommitBeforeApply,
    AdoptWithoutIndexSync,
    ApplyBeforeCommit,
    BeginTransaction,
    CommitByStaleGeneration,
    CommitByTime,
    CommitGoesBack,
    CompactNewest,
    ConfirmAfterFailedSync,
    CutIsNotRemembered,
    DamageTakenForTornTail,
    DeletedComesBack,
    DeliverAboveHandedOutBound,
    DropMarkBeforeValue,
    EndIsOutOfRange,
    FetchLeapsWithin,
    FetchSessionForgetsPlace,
    FetchSessionTellsOnce,
    FetchSkipsUnread,
    ForgetChunkOnCheckpoint,
    ForgetOffsetOnCheckpoint,
    ForgetProducerOnCheckpoint,
    ForgetRemovedOnCheckpoint,
    ForgetVoteOnRecycle,
    FullForEver,
    GatherForEver,
    GenerationStays,
    KeepClientTime,
    LastIsLatest,
    LoadingIsNoOffset,
    LookUpTakesNext,
    LoseDeliveryCountOnCheckpoint,
    LoseSettlementOnCheckpoint,
    OpenCompressed,
    PunchReused,
    ReadWhileFull,
    RecycleOnUnsyncedSettle,
    RequeueToTail,
    ResurrectCutSuffix,
    ResurrectTrimmed,
    ReuseAdoptedBeforeManifest,
    ReuseBeforeManifest,
    RewriteDropsLive,
    RewriteForgottenByTrim,
    SessionForEver,
    SettleNeighbour,
    ShareOfLeader,
    SkipChecksum,
    StaleGenerationAccepted,
    StaticLosesPlace,
    StaticNotFenced,
    StreamBeginsBehind,
    StreamSkipsRest,
    TakeTransactional,
    TakeWhileFull,
    TopicIdStays,
    TrimOneMore,
    TrimUnsettled,
}

#[cfg(planted)]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local!(static ON: Cell<Option<Bug>> = const { Cell::new(None) });

    /// Switches one bug on in this thread, or all off.
    pub fn plant(bug: Option<Bug>) {
        ON.with(|on| on.set(bug));
    }

    /// Whether `bug` is switched on.
    pub fn planted(bug: Bug) -> bool {
        ON.with(|on| on.get() == Some(bug))
    }
}

#[cfg(planted)]
pub use switch::{plant, planted};

/// Whether `bug` is switched on: never, in this build.
#[cfg(not(planted))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}
