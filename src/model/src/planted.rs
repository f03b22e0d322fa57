//! Bugs planted on purpose, to show that the simulator finds them. Without the feature `planted`, which only the simulator's
//! own tests switch on, the question is a constant and nothing of this is compiled in.

/// A rule that the product breaks while this bug is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A renewal is acknowledged without a quorum round.
    RenewalWithoutQuorum,
    /// The agent counts its lease from the acknowledgement's receipt.
    LeaseFromReceipt,
    /// A new leader forgets the take-over clocks.
    TimersForgotten,
    /// Steps are taken over while their cluster's lease may be live.
    TakeOverInsideLease,
    /// A lease counts before the session is in step.
    LeaseBeforeResync,
    /// Start permits are given without a live lease.
    PermitWithoutLease,
    /// Exclusive steps are renewed without a live lease.
    RenewalWithoutLease,
    /// What an attempt holds is released before its result is committed.
    ReleasedBeforeCommit,
    /// Results of fenced attempts are taken.
    FenceUnchecked,
    /// Exclusive steps are taken over without waiting for their lease.
    ExclusiveNotAwaited,
    /// Attempts that a lost ledger may have run are sent again.
    LostLedgerIgnored,
    /// Replies leave before their commit.
    ReplyBeforeCommit,
    /// Reads are served without asking a quorum.
    ReadWithoutQuorum,
    /// An exclusive step whose end nobody saw is not listed in a resync.
    WithheldUnlisted,
    /// A removed cluster's steps are given up before its agent's lease is over.
    ForgottenAtOnce,
    /// A mutex has room for two.
    LockForTwo,
    /// Placement does not count what is on a cluster already.
    RoomNotCounted,
    /// Members that follow make another state of a batch than the leader.
    FollowersDiffer,
    /// A start permit is given to a second holder.
    PermitTwice,
    /// Artifacts of fenced attempts are taken.
    ArtifactFenceUnchecked,
    /// A session's epoch stands for its attempts' fences.
    EpochAsFence,
    /// A batch that was dropped stays in the leader's overlay.
    DroppedStays,
    /// A snapshot's installation overwrites the vote.
    VoteOverwritten,
    /// The timer of a drill ends nothing.
    DrillGoesOn,
    /// A restored cell goes on under the incarnation of its backup.
    IncarnationKept,
}

impl Bug {
    /// Every one.
    pub const ALL: [Self; 25] = [
        Self::RenewalWithoutQuorum,
        Self::LeaseFromReceipt,
        Self::TimersForgotten,
        Self::TakeOverInsideLease,
        Self::LeaseBeforeResync,
        Self::PermitWithoutLease,
        Self::RenewalWithoutLease,
        Self::ReleasedBeforeCommit,
        Self::FenceUnchecked,
        Self::ExclusiveNotAwaited,
        Self::LostLedgerIgnored,
        Self::ReplyBeforeCommit,
        Self::ReadWithoutQuorum,
        Self::WithheldUnlisted,
        Self::ForgottenAtOnce,
        Self::LockForTwo,
        Self::RoomNotCounted,
        Self::FollowersDiffer,
        Self::PermitTwice,
        Self::ArtifactFenceUnchecked,
        Self::EpochAsFence,
        Self::DroppedStays,
        Self::VoteOverwritten,
        Self::DrillGoesOn,
        Self::IncarnationKept,
    ];

    /// The rule that is broken, in a sentence.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::RenewalWithoutQuorum => "a renewal is acknowledged only after a quorum round",
            Self::LeaseFromReceipt => "an agent counts its lease from when it sent the renewal",
            Self::TimersForgotten => "a new leader starts every take-over clock",
            Self::TakeOverInsideLease => "nothing is taken over while its cluster's lease may be live",
            Self::LeaseBeforeResync => "a lease counts only in a session that is in step",
            Self::PermitWithoutLease => "a start permit needs a live lease",
            Self::RenewalWithoutLease => "an exclusive step is renewed under a live lease only",
            Self::ReleasedBeforeCommit => "what an attempt holds is kept until its result is committed",
            Self::FenceUnchecked => "the result of a fenced attempt is dropped",
            Self::ExclusiveNotAwaited => "an exclusive step is taken over after its own lease",
            Self::LostLedgerIgnored => "what a lost ledger may have run is not sent again",
            Self::ReplyBeforeCommit => "a reply waits for its commit",
            Self::ReadWithoutQuorum => "a read asks a quorum",
            Self::WithheldUnlisted => "a resync lists what may still run",
            Self::ForgottenAtOnce => "a removed cluster's steps wait for its agent's lease",
            Self::LockForTwo => "a mutex has one holder",
            Self::RoomNotCounted => "no cluster is given more than it has",
            Self::FollowersDiffer => "every member makes the same state of the log",
            Self::PermitTwice => "an attempt's start permit has one holder",
            Self::ArtifactFenceUnchecked => "the artifacts of a fenced attempt are dropped",
            Self::EpochAsFence => "the fence of an attempt decides, not its session's epoch",
            Self::DroppedStays => "what is dropped leaves the leader's overlay",
            Self::VoteOverwritten => "installing a snapshot keeps term and vote",
            Self::DrillGoesOn => "a drill ends in time, whatever becomes of leaders",
            Self::IncarnationKept => "a restore raises the incarnation",
        }
    }
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in this thread, or takes it out again.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted.
#[cfg(feature = "planted")]
#[must_use]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted: never.
#[cfg(not(feature = "planted"))]
#[inline]
#[must_use]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}
