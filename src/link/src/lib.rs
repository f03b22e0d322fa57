//! The agent link: the protocol between the leader of the control plane and the agent of each cluster, both ends.
//!
//! [`control::Sessions`] is the leader's end: sessions, leases, take-over clocks, dispatch under a credit window, reports
//! on their way to the engine. [`agent::Session`] is the agent's end: greeting, resync, lease, reports until acknowledged.
//! Both are state machines `step(now, input) -> outputs`; whoever owns them carries frames and asks the clock.
//!
//! What it does not do: no input or output, no clock, no randomness (time and a seed are given), no certificates, no
//! decision about workflows (the engine decides; this crate asks it), no start of Pods (the reconciler does).
//!
//! Invariants:
//! - A renewal is acknowledged only after a quorum round that began after its receipt, so a deposed leader extends nothing.
//! - The agent counts its lease from the moment it *sent* the acknowledged renewal; the leader takes over at the receipt
//!   of that renewal plus lease plus margin at the earliest. With clocks that drift less than margin/lease, no agent
//!   believes in its lease when its attempts are taken over.
//! - In a new session a lease allows start permits only after every held attempt has its resync verdict.
//! - A verdict leaves the control plane only when the engine's answer arrived, that is after commit.
//! - At most the agent's credit of assignments is sent and unanswered; an assignment is acted on once.
//!
//! Failure model: frames may be lost, late or doubled, on the connection's relay between members as well; connections and
//! leaders may change at any time. Everything is repeated until answered, compared by session epoch and revision, and
//! rebuilt from state and resync. Frames of an older epoch are counted and refused. Content of frames is never trusted:
//! nothing here panics on it and every list has a limit ([`Limits`]).

pub mod agent;
pub mod control;
mod error;
mod limits;

pub use error::{Error, code};
pub use limits::{Limits, Times};

/// Version of every frame of this protocol.
pub const FRAME_VERSION: u32 = 1;

/// Milliseconds of a clock that never goes back and goes on during suspension (CLOCK_BOOTTIME), of the process that owns
/// the machine. Values of two processes can't be compared.
pub type Millis = u64;

/// Whether no later report of the attempt can follow.
#[must_use]
pub fn is_terminal(phase: argosy_proto::common::AttemptPhase) -> bool {
    use argosy_proto::common::AttemptPhase as Phase;
    match phase {
        Phase::Succeeded | Phase::Failed | Phase::Error | Phase::Stopped => true,
        Phase::Unspecified | Phase::Received | Phase::Pending | Phase::Running => false,
    }
}
