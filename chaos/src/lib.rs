//! A whole federation in one thread, from one seed: members, agents, clusters, users, their network, disks and clocks.
//!
//! The members, agents and the engine are the product's own machines; only what is around them is simulated, and every
//! accident in it (latency, loss, cuts, crashes, lost writes, drifting clocks) is drawn from the seed. So a run can be
//! repeated byte for byte: [`World`] appends everything that happens to a [`Trace`], whose digest is compared.
//!
//! Certificates live for hours, and agents are away for days: [`identities`] has a world of its own, of weeks.
//!
//! Not here: threads, sockets, TLS, RocksDB, Kubernetes. Tests with real processes and real clusters cover those.
//!
//! Invariants: the same seed gives the same trace; nothing reads a clock, an environment or a random source of the host;
//! a checker never changes what it observes.
//!
//! Failure model: a violated invariant or a machine's error ends the run with the trace's tail and the command that
//! repeats it.

mod agents;
pub mod checkers;
mod clocks;
mod drills;
mod fault;
mod faults;
mod handovers;
pub mod identities;
mod judge;
mod links;
mod members;
mod nemesis;
mod network;
mod operators;
mod options;
mod people;
#[cfg(feature = "planted")]
pub mod planted;
mod queue;
mod random;
mod rarities;
mod replicas;
mod restores;
mod schedules;
mod trace;
mod users;
mod witness;
mod workloads;
mod world;

pub use clocks::{HostClock, WALL_START_MS};
pub use drills::Plan as DrillPlan;
pub use fault::{Fault, Way};
pub use nemesis::{Intensity, Targets};
pub use network::{Carried, End, Lane, Network, Quality};
pub use operators::{Operator, Order, Standing};
pub use options::{Circumstances, Options, Planted};
pub use queue::Queue;
pub use random::Random;
pub use trace::Trace;
pub use users::{User, Wish};
pub use workloads::{Workload, generate};
pub use world::{Counts, Report, World};
