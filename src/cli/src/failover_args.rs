//! Arguments of `argosy failover`.

use clap::{Args, Subcommand};

use crate::args::{Format, Output};

/// `argosy failover`.
#[derive(Subcommand, Clone, Debug)]
pub enum Failover {
    /// Show which clusters are silent, lost or degraded, and what each waiting step waits for
    Status(Format),
    /// Let take-overs go on that the storm brake holds
    Resume(FailoverResume),
}

/// `argosy failover resume`.
#[derive(Args, Clone, Debug)]
pub struct FailoverResume {
    /// Only of this cluster [default: all that are held].
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}
