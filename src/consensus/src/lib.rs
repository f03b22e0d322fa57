//! The replicated log of a cell: a driver around the Raft library that does no input or output of its own but the
//! store's, so that one thread and one seed can run a whole cell.
//!
//! Bytes are proposed on the leader, replicated, and handed to a [`StateMachine`] in the same order on every member;
//! its rows are written together with the applied index. Messages come in by [`Consensus::receive`] and go out as
//! [`Output::Send`]. Time comes in as [`Consensus::tick`]. [`Consensus::process`] does the work.
//!
//! Not here: connections, authentication (the shell says who sent a message), clocks, and what the entries mean.
//!
//! # Invariants
//! - Nothing that a vote or an acknowledgement promises is sent before it is synced to the store.
//! - Only committed entries reach the state machine, each once per state of the store, in order, and
//!   `applied <= commit` in every state that a crash can leave.
//! - The log is never compacted past the durable applied index.
//! - A vote is never forgotten: installing a snapshot touches the data families and the log, not the vote.
//! - The same inputs and seed give the same outputs: no clock, no randomness, no unordered maps.
//!
//! # Threads
//! One. The Raft library panics when its invariants break; the thread's owner must abort the process then.
//!
//! # Failure model
//! Messages may be lost, delayed, repeated and reordered; bytes from a peer may be anything and are refused with a
//! counted [`Refused`]. A failing read of the log makes the library panic, which ends the process. A failing write stops the driver for good ([`Error::Stopped`]): open the store again. Losing
//! power loses a suffix of un-synced batches; what is lost is rebuilt from the log. A proposal whose leader steps down
//! is *unknown*, not failed ([`Output::ProposalLost`]). A half-installed snapshot is finished when the store is opened
//! again, or asked for anew if what was received is damaged; until then the member serves nothing.

mod config;
mod driver;
mod error;
mod guard;
mod install;
mod jitter;
mod log;
mod logger;
mod marks;
mod membership;
mod ready;
mod receive;
mod recovery;
mod send;
mod status;
mod wire;

pub use config::{Config, Limits, LogTarget};
pub use driver::{Consensus, LogPosition, Output, RoleChange};
pub use error::{Error, ProposeError, Refused};
pub use jitter::TickClock;
pub use membership::MembershipChange;
pub use recovery::{Outlived, found_restored, history_floor, outlive, survey};
pub use status::{Counters, PeerProgress, PeerState, Role, Status};

use argosy_store::{Batch, Kv};

/// Number of a member in its cell; not 0.
pub type MemberId = u64;

/// A committed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied<'a> {
    /// Its place in the log; grows by at least one from entry to entry.
    pub index: u64,
    /// Term of the leader that proposed it.
    pub term: u64,
    /// The proposed bytes; never empty.
    pub data: &'a [u8],
}

/// What the log is applied to.
pub trait StateMachine {
    /// Takes the next committed entry and puts the rows it changes in `batch`, in the families of
    /// [`argosy_store::Family::DATA`] only. The driver adds the applied index and writes the batch. The batch may hold
    /// rows of earlier entries; rows are not yet in the store when the next entry comes.
    fn apply(&mut self, entry: Applied<'_>, batch: &mut Batch);
    /// Forgets everything and reads the rows of `kv` anew: a snapshot was installed.
    fn reload(&mut self, kv: &dyn Kv) -> Result<(), Error>;
}
