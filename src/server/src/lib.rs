//! The shell around a member: sockets, certificates, threads, configuration, and `argosy dev`.
//!
//! `run` opens the store, starts the member on a thread of its own and serves its listeners: peers and agents over mTLS
//! gRPC, users over REST with TLS, metrics and health in the clear. `dev` starts a whole cell with process clusters as
//! child processes on one machine.
//!
//! What it does not do: no decision about workflows, consensus or leases: those are the machines below `member`.
//!
//! Invariants: nothing blocks the member's thread but its own disk; every queue towards it and from it is bounded; a
//! slow peer, agent, watcher or log reader is cut off and comes back, and holds up nobody else.
//!
//! Failure model: an error or panic of the member's thread ends the process with a message; a supervisor starts it
//! again, and it goes on from what is durable. Connections are rebuilt by their other end.

pub mod agents;
mod alarms;
mod artifacts;
pub mod authority;
pub mod backup;
pub mod backup_place;
pub mod cell;
pub mod config;
pub mod connect;
pub mod core;
pub mod demo;
pub mod dev;
mod dev_clusters;
pub mod directory;
mod drills;
pub mod identities;
pub mod identity;
pub mod listener;
pub mod local;
pub mod logs;
pub mod mailbox;
pub mod peers;
pub mod pki;
pub mod processes;
mod revocations;
pub mod run;
pub mod seal;
pub mod status;
pub mod timed;
