//! The agent of one cluster: the shell around the reconciler.
//!
//! Enrols with an invite, keeps a session with any member of the control plane, renews its certificate, serves the
//! executors of its cluster and drives one runtime. All decisions are the reconciler's
//! (`argosy_agent_runtime::Reconciler`), which runs on one task; this crate carries bytes, time and signals.
//!
//! Invariants: nothing the reconciler says leaves the process before its ledger is durable; a connection's frames are
//! dropped once another connection was asked for; the private key never leaves the data directory.
//!
//! Failure model: members, the network and the cluster's API may be away for any time (retries with jitter); the agent may
//! be killed at any instant, steps go on and are adopted; a data directory serves one agent at a time (the ledger's lock).
//! Of several replicas with one directory the holder of a Lease acts (src/decisions/0044-replicas.md).
//! A disk that takes no writes silences the agent: its lease runs out and the control plane takes its steps over.

pub mod artifacts;
mod config;
mod connection;
mod identity;
mod logs;
mod page;
mod policy;
mod replica;
mod runtimes;
mod service;
mod simulated;

pub use config::Config;
pub use runtimes::locate;
pub use service::run;
