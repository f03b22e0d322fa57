//! Bugs planted in the product, one at a time, and the seeds that find them (docs/proof.md).

use std::sync::atomic::{AtomicUsize, Ordering};

use argosy_model::planted::Bug;

use crate::checkers::Invariant;
use crate::{Circumstances, Intensity, Options, World};

/// A bug, the invariants that it may be seen to break, and how many seeds are enough to see it.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Which.
    pub bug: Bug,
    /// One of them is broken first.
    pub invariants: &'static [Invariant],
    /// Seeds with faults, from the first one on.
    pub seeds_max: u64,
}

/// The seed that showed a bug.
#[derive(Clone, Debug)]
pub struct Found {
    /// Seeds with faults that were run, this one included.
    pub tried: u64,
    /// The seed.
    pub seed: u64,
    /// What it broke.
    pub invariant: Invariant,
    /// In which way.
    pub how: String,
}

/// Every planted bug that the simulator is known to find.
pub const EXPECTED: &[Expected] = &[
    Expected { bug: Bug::LockForTwo, invariants: &[Invariant::Bounds], seeds_max: 2 },
    Expected { bug: Bug::RoomNotCounted, invariants: &[Invariant::Bounds], seeds_max: 2 },
    Expected { bug: Bug::FollowersDiffer, invariants: &[Invariant::Agreement], seeds_max: 2 },
    Expected { bug: Bug::ReplyBeforeCommit, invariants: &[Invariant::Durable], seeds_max: 2 },
    Expected { bug: Bug::RenewalWithoutQuorum, invariants: &[Invariant::OneResult], seeds_max: 1 },
    Expected { bug: Bug::LeaseFromReceipt, invariants: &[Invariant::OneResult], seeds_max: 1 },
    Expected { bug: Bug::LeaseBeforeResync, invariants: &[Invariant::OneResult], seeds_max: 1 },
    Expected { bug: Bug::PermitTwice, invariants: &[Invariant::OneResult], seeds_max: 2 },
    Expected { bug: Bug::ArtifactFenceUnchecked, invariants: &[Invariant::OneResult], seeds_max: 2 },
    Expected {
        bug: Bug::EpochAsFence,
        invariants: &[Invariant::OneResult, Invariant::Bounds, Invariant::Ending],
        seeds_max: 3,
    },
    Expected { bug: Bug::ExclusiveNotAwaited, invariants: &[Invariant::Exclusive], seeds_max: 3 },
    Expected {
        bug: Bug::LostLedgerIgnored,
        invariants: &[Invariant::Exclusive, Invariant::OneResult],
        seeds_max: 3,
    },
    Expected { bug: Bug::DroppedStays, invariants: &[Invariant::Agreement], seeds_max: 5 },
    Expected { bug: Bug::VoteOverwritten, invariants: &[Invariant::Agreement], seeds_max: 5 },
    Expected { bug: Bug::RenewalWithoutLease, invariants: &[Invariant::Exclusive], seeds_max: 8 },
    Expected { bug: Bug::ForgottenAtOnce, invariants: &[Invariant::OneResult], seeds_max: 8 },
    Expected {
        bug: Bug::ReleasedBeforeCommit,
        invariants: &[Invariant::Outage, Invariant::Ending],
        seeds_max: 5,
    },
    Expected {
        bug: Bug::TakeOverInsideLease,
        invariants: &[Invariant::OneResult, Invariant::Outage],
        seeds_max: 6,
    },
    Expected {
        bug: Bug::ReadWithoutQuorum,
        invariants: &[Invariant::Durable, Invariant::Ending],
        seeds_max: 10,
    },
    Expected {
        bug: Bug::FenceUnchecked,
        invariants: &[Invariant::OneResult, Invariant::Bounds, Invariant::Ending],
        seeds_max: 6,
    },
    Expected {
        bug: Bug::WithheldUnlisted,
        invariants: &[Invariant::Exclusive, Invariant::OneResult],
        seeds_max: 20,
    },
    Expected {
        bug: Bug::PermitWithoutLease,
        invariants: &[Invariant::OneResult, Invariant::Ending],
        seeds_max: 20,
    },
    Expected { bug: Bug::IncarnationKept, invariants: &[Invariant::OneResult], seeds_max: 4 },
    Expected { bug: Bug::DrillGoesOn, invariants: &[Invariant::Ending], seeds_max: 8 },
    Expected { bug: Bug::TimersForgotten, invariants: &[Invariant::Ending], seeds_max: 40 },
];

/// Longer than in other runs: more pods ask for permits that they may not have.
const HELD_BEFORE_MS: u64 = 10_000;

/// What a seed stands for when a bug is looked for: the circumstances that the bug needs come more often.
fn options(bug: Bug, seed: u64) -> Options {
    let drawn = if bug == Bug::ArtifactFenceUnchecked {
        Options::of_handovers(seed, true)
    } else if bug == Bug::IncarnationKept {
        Options::of_restores(seed)
    } else {
        Options::of_seed(seed)
    };
    let circumstances = Circumstances {
        exclusive_ms: matches!(bug, Bug::RenewalWithoutLease | Bug::WithheldUnlisted).then_some(EXCLUSIVE_MS),
        forgets: bug == Bug::ForgottenAtOnce,
        starts_again: bug == Bug::PermitTwice,
        hands_over: bug == Bug::DroppedStays,
        lags: bug == Bug::VoteOverwritten,
        drills: bug == Bug::DrillGoesOn,
        unseen: bug == Bug::WithheldUnlisted,
        cuts: bug == Bug::ArtifactFenceUnchecked,
    };
    // What came to the world later is left out, but for the bug that needs it: the others are found as they were.
    let restores = bug == Bug::IncarnationKept;
    let (replicas, kills_executors) = (false, false);
    // Who is to be cut off runs something by then.
    let held_before_ms = if circumstances.cuts { drawn.held_before_ms } else { HELD_BEFORE_MS };
    let log_entries_kept = if circumstances.lags { FEW_ENTRIES } else { drawn.log_entries_kept };
    Options {
        bug: Some(bug),
        held_before_ms,
        circumstances,
        log_entries_kept,
        restores,
        replicas,
        kills_executors,
        ..drawn
    }
}

/// Fewer than are written while a member is down.
const FEW_ENTRIES: u64 = 10;

/// Longer than a lease, its margin and an exclusive step's own lease together.
const EXCLUSIVE_MS: u64 = 60_000;

/// Runs seeds until one breaks an invariant that it keeps without the bug. Calm federations are left out: they show nothing.
#[must_use]
pub fn find(bug: Bug, seeds_max: u64) -> Option<Found> {
    let faulty = (1..).filter(|seed| Options::of_seed(*seed).intensity != Intensity::none());
    for (tried, seed) in (1..=seeds_max).zip(faulty) {
        let report = World::run(options(bug, seed));
        let is_whole = || World::run(Options { bug: None, ..options(bug, seed) }).violations.is_empty();
        if let Some(violation) = report.violations.first()
            && is_whole()
        {
            let (invariant, how) = (violation.invariant, violation.text.clone());
            return Some(Found { tried, seed, invariant, how });
        }
    }
    None
}

/// Looks for bugs on two threads; a bug is planted in one thread alone.
#[must_use]
pub fn find_all(bugs: &[(Bug, u64)]) -> Vec<(Bug, Option<Found>)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some((bug, seeds_max)) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.push((*bug, find(*bug, *seeds_max)));
        }
        found
    };
    let mut found = std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut found = work();
        found.extend(other.join().unwrap_or_default());
        found
    });
    found.sort_by_key(|(bug, _)| *bug);
    found
}
