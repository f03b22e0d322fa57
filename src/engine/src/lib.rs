//! The engine: commands and time in, facts out ([`Draft`]); facts in, state out ([`evolve`]).
//!
//! Deciding happens on the leader only and may be clever; its outcome is replicated as facts. Evolving happens on every
//! member, is small and total, and is the only code that changes [`State`]. A draft evolves its own state with the same
//! function as it makes facts, so each decision sees the ones before it, and followers arrive at the same state.
//!
//! It does not read clocks, draw random numbers, do input or output, know Raft, sessions or leases, or keep anything
//! outside [`State`] but caches ([`Leader`]) that can be rebuilt from it.
//!
//! Invariants:
//! - A node commits at most one result: a report whose fence is not the node's current one is dropped, at one place
//!   (`commands/report_attempt.rs`).
//! - Equal sequences of batches give equal states and equal hashes.
//! - One decision costs O(nodes affected), counted as work and bounded by [`argosy_model::Limits`]; a longer cascade
//!   stays on the agenda, which is part of state.
//! - A refused command leaves the draft as it was.
//!
//! Failure model: an unknown or unfitting fact, and a row that can't be read, are errors on which the member halts. A
//! batch that doesn't follow the state's sequence or stands at another index than it was made for is void.

mod advance;
mod archive;
mod artifacts;
mod commands;
mod config_maps;
mod counts;
mod cron;
mod dispatch;
mod draft;
mod drill;
mod drill_plan;
mod evolve;
mod evolve_archive;
mod evolve_artifacts;
mod evolve_cron;
mod evolve_drill;
mod evolve_failover;
mod evolve_hold;
mod evolve_leaf;
mod evolve_operator;
mod evolve_reproduce;
mod evolve_work;
mod express;
mod identity;
mod inspect;
mod key;
mod leader;
mod locks;
mod loss;
mod lost_group;
mod memo_prepared;
mod metrics;
mod phases;
mod place;
mod prerequisites;
mod recall;
mod reconnect;
mod recovery;
mod references;
mod refusal;
mod reproduce;
mod resources;
mod retire;
mod rows;
mod scope;
mod state;
mod take_over_wait;
pub mod view;

pub use archive::{archive_range, archived_state};
pub use argosy_spec::Artifact;
pub use draft::Draft;
pub use drill_plan::{DrillPlan, PlannedStep};
pub use evolve::{ArchiveChange, BATCH_VERSION, Changes, Position, evolve};
pub use inspect::Difference;
pub use key::Key;
pub use leader::{Leader, check_defaults};
pub use metrics::{Change, Reading, readings};
pub use place::check_clusters;
pub use reconnect::REPLACED_BY_ORIGINAL;
pub use recovery::ClusterRecovery;
pub use references::check_references;
pub use refusal::Code;
pub use state::{DesiredAttempt, State, workflow_phase};
pub use take_over_wait::{TakeOverWait, WaitingAttempt, WaitingNode};

pub use argosy_proto::command::{Command, Refusal, Reply};
pub use argosy_proto::fact::{Batch, Fact};

/// Why a member can't go on. Every variant means: halt, and look at versions and disks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The batch has a version that this code doesn't know.
    #[error("batch at index {index} has version {version}, this member reads version 1: upgrade this member")]
    BatchVersion {
        /// Its version.
        version: u32,
        /// Its log index.
        index: u64,
    },
    /// A fact without a body that this code knows.
    #[error("fact {ordinal} of the batch at index {index} is unknown to this member: upgrade this member")]
    UnknownFact {
        /// Log index of the batch.
        index: u64,
        /// Its place in the batch.
        ordinal: u32,
    },
    /// A fact about something that state doesn't have.
    #[error(
        "a fact names a {what} (of {id}) that the state does not have: the log or the state is damaged, restore this member"
    )]
    Misfit {
        /// Kind of thing.
        what: &'static str,
        /// Workflow or log index.
        id: u64,
    },
    /// A stored row that can't be read.
    #[error("row {key:02x?} cannot be read: upgrade this member, or restore it")]
    Row {
        /// The row's key.
        key: Vec<u8>,
    },
}
