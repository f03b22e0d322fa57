//! The agent's reconciler and the interface of its runtimes.
//!
//! The reconciler is a machine without input or output: it joins the session with the control plane
//! (`argosy_link::agent`), the table of attempts held by this cluster and the ledger, and says what a runtime shall
//! make, stop or release. Shells (Kubernetes, processes, simulation) carry it out behind [`Runtime`].
//!
//! It decides nothing about workflows and knows no cluster but its own.
//!
//! Invariants: no start permit without a live lease and a held, current attempt; a permit has one holder for ever; a
//! terminal result stays until the control plane's verdict, over restarts too (ledger); a permitted attempt is never
//! made a second time; nothing is made of what the cluster owner's [`Policy`] refuses.
//!
//! Failure model: frames and events may be lost, repeated or reordered; the agent may be killed at any instant; what
//! the ledger returned as durable survives that.

mod attempt;
pub mod election;
mod io;
pub mod ledger;
pub mod policy;
mod reconciler;
mod runtime;
#[cfg(feature = "server")]
pub mod server;

pub use attempt::{container_phase, observe_outcome};
pub use io::{Counters, Input, Limits, Output};
pub use policy::Policy;
pub use reconciler::Reconciler;
pub use runtime::{
    AttemptObservation, Error, ExecutorAnswer, Figure, LogOptions, LogStream, Runtime, RuntimeAction,
    RuntimeEvent, StoreVerdict, is_over, is_terminal,
};
