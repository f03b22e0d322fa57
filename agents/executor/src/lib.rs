//! The first process of a step: asks its cluster's agent for the start permit, runs the user's command, captures exit
//! code, result and output parameters, and hands them to the agent.
//!
//! Artifacts are loaded before the command and saved after it, by requests that the agent signs.
//!
//! It does not know the control plane, has no credentials of an object store, and never runs anything without a permit: an agent
//! that cannot be reached is asked again for as long as the Pod lives.
//!
//! Invariants: the user's command starts at most once per executor, after a permit for this fence and holder; the
//! executor ends with the user's exit code; the outcome is handed over before it ends, or left: in the outcome file where the
//! runtime names one, else in the termination message, else, where it is too long for that, in an object of the attempt's own.
//!
//! Several containers of one Pod find each other in a shared directory: a container waits there for those it depends
//! on, sidecars for the end of the main containers, and the last main container hands the outcome of all over. One that was
//! killed together with its executor leaves nothing there; then nobody hands over, and the agent reads the Pod's status.
//! It is static and small: no name resolution (the agent is an address), one thread per pipe. Beside a step's command it needs
//! no tokio; the containers that speak to artifact drivers run it on one thread (HTTP/2).
//! Built for images with `cargo rustc -p argosy-executor --profile executor -- -C target-feature=+crt-static`.
//!
//! Failure model: the agent may be away or restart at any time (retries with backoff); signals to the executor reach the
//! whole process group of the command, and what outlives the grace is killed.

pub mod artifacts;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod driver;
#[cfg(feature = "client")]
mod files;
#[cfg(feature = "client")]
mod isolation;
#[cfg(feature = "client")]
mod lease;
#[cfg(feature = "client")]
mod left;
#[cfg(feature = "client")]
mod memory;
#[cfg(feature = "client")]
mod neighbours;
#[cfg(feature = "client")]
mod outputs;
#[cfg(feature = "client")]
mod process;
#[cfg(feature = "client")]
mod program;
#[cfg(feature = "client")]
mod progress;
pub mod protocol;
#[cfg(feature = "client")]
mod run;
#[cfg(feature = "client")]
mod web;
#[cfg(feature = "client")]
mod work;

#[cfg(feature = "client")]
pub use run::main;
