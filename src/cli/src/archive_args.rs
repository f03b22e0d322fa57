//! Arguments of `argosy archive`.

use clap::{Args, Subcommand};

use crate::Output;

/// `argosy archive`.
#[derive(Subcommand, Clone, Debug)]
pub enum Archive {
    /// List archived workflows
    List(ArchiveList),
    /// Show an archived workflow
    Get(ArchiveGet),
    /// Delete archived workflows for good
    Delete(ArchiveNames),
    /// Make archived workflows live again, and retry them
    Retry(ArchiveRetry),
    /// Submit archived workflows again
    Resubmit(ArchiveResubmit),
    /// List the keys of labels of archived workflows
    ListLabelKeys,
    /// List the values of a label of archived workflows
    ListLabelValues(ArchiveLabel),
}

/// `argosy archive list`.
#[derive(Args, Clone, Debug)]
pub struct ArchiveList {
    /// Label selector.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Workflows asked for in one request.
    #[arg(long, default_value_t = 500)]
    pub chunk_size: u32,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// Which archived workflows are meant.
#[derive(Args, Clone, Debug)]
pub struct ArchiveNames {
    /// Uids or names of archived workflows; of several with a name the one that was made last.
    #[arg(required = true, value_name = "UID|NAME")]
    pub names: Vec<String>,
}

/// `argosy archive get`.
#[derive(Args, Clone, Debug)]
pub struct ArchiveGet {
    /// Which.
    #[command(flatten)]
    pub which: ArchiveNames,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy archive retry`.
#[derive(Args, Clone, Debug)]
pub struct ArchiveRetry {
    /// Which.
    #[command(flatten)]
    pub which: ArchiveNames,
    /// Also run nodes again that succeeded, chosen by --node-field-selector.
    #[arg(long)]
    pub restart_successful: bool,
    /// Nodes to run again, as in displayName=build.
    #[arg(long, default_value = "")]
    pub node_field_selector: String,
    /// Set a parameter of the workflow: NAME=VALUE.
    #[arg(short, long = "parameter", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy archive resubmit`.
#[derive(Args, Clone, Debug)]
pub struct ArchiveResubmit {
    /// Which.
    #[command(flatten)]
    pub which: ArchiveNames,
    /// Do not run again what succeeded.
    #[arg(long)]
    pub memoized: bool,
    /// Set a parameter of the workflow: NAME=VALUE.
    #[arg(short, long = "parameter", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy archive list-label-values`.
#[derive(Args, Clone, Debug)]
pub struct ArchiveLabel {
    /// The label's key.
    #[arg(short = 'l', long)]
    pub selector: String,
}
