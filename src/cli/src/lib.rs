//! The command-line interface of a user: the verbs, flags and tables that Argo's users know.
//!
//! It sees the API's types and the manifest parser only. The binary `argosy` lives in the server crate: it merges
//! [`Command`] with the commands that run servers, and hands a user's command to [`run`].
//!
//! Invariants:
//! - Results go to standard output, all else to standard error; nothing but results is printed when piped with `-o`.
//! - Every change carries an idempotency key, so that its repeats, which happen when a member is lost, count once.
//! - Manifests are checked before anything is submitted: with a problem in any file, nothing is.
//!
//! Failure model: a member that does not answer is passed over; when none answers within a few seconds the command
//! fails with exit code 1. A broken stream is taken up again where the workflow stands.

mod archive_args;
mod args;
pub mod client;
mod cluster_args;
mod commands;
mod console;
pub mod context;
mod cron_args;
mod details;
mod drill_args;
mod failover_args;
mod model;
mod operator_args;
mod style;
mod table;
mod time;
mod tree;

pub use args::{
    AddMember, Cli, Cluster, ClusterDrain, ClusterGet, ClusterMarks, ClusterName, ClusterRemove, Command,
    Completion, Copy, Delete, Format, Get, GlobalArguments, Invite, LeadMember, Lint, LintOutput, List, Logs,
    Member, Names, Output, Recovery, RemoveMember, Stop, Submit, Version, WaitMember, Watch,
};
pub use commands::{completion, run, run_with};
pub use console::Console;
pub use details::text as workflow_text;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The context file is of no use.
    #[error("context file {path}: {reason}")]
    Context {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// The client can't be made.
    #[error("cannot set up the connection: {0}")]
    Setup(String),
    /// Nobody answers.
    #[error(
        "no server answers at {servers}: {reason}; start one with `argosy dev`, or name one with --argo-server"
    )]
    Unreachable {
        /// Who was asked.
        servers: String,
        /// What the last one did.
        reason: String,
    },
    /// The server is not the one that is trusted.
    #[error("the server's certificate is not trusted: {0}; name its authority with --certificate-authority")]
    Certificate(String),
    /// The server said no.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// The answer makes no sense.
    #[error("the server's answer cannot be read: {0}; are client and server of the same version?")]
    Answer(String),
    /// A stream broke off.
    #[error("the connection broke off: {0}")]
    Interrupted(String),
    /// A file can't be read.
    #[error("{path}: {reason}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// Manifests have problems; they have been printed.
    #[error("{0}")]
    Manifest(String),
    /// The arguments don't make sense together.
    #[error("{0}")]
    Usage(String),
    /// The output can't be written; a closed pipe is no error.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}
