//! One checker for each invariant of the design. A checker is fed with what the world sees and knows nothing of the
//! world; each counts how often it had something to judge, so that a run can say what it did not exercise.

mod agreement;
mod bounds;
mod durability;
mod ending;
mod exclusive;
mod handovers;
mod leases;
mod outage;
mod results;
mod rounds;
mod schedules;
mod votes;

pub use agreement::Agreement;
pub use bounds::{Bounds, ClusterUse};
pub use durability::{Durability, Found, Operation, Read};
pub use ending::Ending;
pub use exclusive::Exclusive;
pub use handovers::Handovers;
pub use leases::Leases;
pub use outage::Outage;
pub use results::{AttemptSeen, NodeSeen, Results};
pub use rounds::{RenewalKey, Rounds, Stamp};
pub use schedules::{CronSeen, Schedules};
pub use votes::Votes;

use std::fmt;

/// The invariants, numbered as in the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// At most one committed result per node and try.
    OneResult = 1,
    /// What was acknowledged survives.
    Durable = 2,
    /// Exclusive steps never overlap.
    Exclusive = 3,
    /// An outage of the control plane expires nothing.
    Outage = 4,
    /// Replicas agree.
    Agreement = 5,
    /// Everything ends.
    Ending = 6,
    /// Bounds hold.
    Bounds = 7,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::OneResult,
        Self::Durable,
        Self::Exclusive,
        Self::Outage,
        Self::Agreement,
        Self::Ending,
        Self::Bounds,
    ];

    /// In a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::OneResult => "at most one committed result per node and try",
            Self::Durable => "what was acknowledged survives",
            Self::Exclusive => "exclusive steps never overlap",
            Self::Outage => "an outage of the control plane expires nothing",
            Self::Agreement => "replicas agree",
            Self::Ending => "everything ends",
            Self::Bounds => "bounds hold",
        }
    }
}

/// An invariant that was seen broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Virtual time.
    pub at_ms: u64,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, at_ms, text } = self;
        let (number, title) = (*invariant as u8, invariant.title());
        write!(
            formatter,
            "invariant {number} ({title}) broken at {}.{:03} s: {text}",
            at_ms / 1_000,
            at_ms % 1_000
        )
    }
}

/// What a check found: nothing, or what is wrong.
pub type Check = Result<(), String>;

/// All checkers of a run.
#[derive(Debug, Default)]
pub struct Checkers {
    /// Invariant 1.
    pub results: Results,
    /// Invariant 2.
    pub durability: Durability,
    /// Invariant 3.
    pub exclusive: Exclusive,
    /// Invariant 4.
    pub outage: Outage,
    /// Invariant 5.
    pub agreement: Agreement,
    /// Invariant 6.
    pub ending: Ending,
    /// Invariant 7.
    pub bounds: Bounds,
    /// Invariants 1, 2 and 6 for what CronWorkflows start.
    pub schedules: Schedules,
    /// Invariants 1 and 2 for artifacts that are made again.
    pub handovers: Handovers,
    /// Invariants 1 and 3, in what the protocol of leases promises for them.
    pub leases: Leases,
    /// Invariant 1, in quorum rounds.
    pub rounds: Rounds,
    /// Invariant 5, in terms and votes.
    pub votes: Votes,
    /// What was found; the world stops at the first.
    pub violations: Vec<Violation>,
}

impl Checkers {
    /// Notes the outcome of a check.
    pub fn note(&mut self, invariant: Invariant, at_ms: u64, check: Check) {
        if let Err(text) = check {
            self.violations.push(Violation { invariant, at_ms, text });
        }
    }

    /// How often each invariant was judged; 0 = not exercised.
    #[must_use]
    pub fn exercised(&self) -> [u64; 7] {
        [
            self.results.exercised() + self.leases.exercised() + self.rounds.exercised(),
            self.durability.exercised(),
            self.exclusive.exercised(),
            self.outage.exercised(),
            self.agreement.exercised() + self.votes.exercised(),
            self.ending.exercised(),
            self.bounds.exercised(),
        ]
    }
}
