//! Arguments of `argosy cron`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

use crate::Output;

/// `argosy cron`.
#[derive(Subcommand, Clone, Debug)]
pub enum Cron {
    /// List cron workflows
    List(CronList),
    /// Show cron workflows
    Get(CronGet),
    /// Create cron workflows from files
    Create(CronFiles),
    /// Put another version in place of cron workflows
    Update(CronFiles),
    /// Delete cron workflows, and the workflows that they made
    Delete(CronDelete),
    /// Have the server check cron workflows
    Lint(CronLint),
    /// Suspend cron workflows: nothing starts
    Suspend(CronNames),
    /// Resume suspended cron workflows
    Resume(CronNames),
    /// Make the workflows of a period that has passed
    Backfill(CronBackfill),
}

/// `argosy cron list`.
#[derive(Args, Clone, Debug)]
pub struct CronList {
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Label selector.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy cron get`.
#[derive(Args, Clone, Debug)]
pub struct CronGet {
    /// Names of cron workflows.
    #[arg(required = true, value_name = "CRON_WORKFLOW")]
    pub names: Vec<String>,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy cron create`, `argosy cron update`.
#[derive(Args, Clone, Debug)]
pub struct CronFiles {
    /// Files with cron workflows; - for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Name instead of the manifest's.
    #[arg(long)]
    pub name: Option<String>,
    /// Prefix of a drawn name instead of the manifest's name.
    #[arg(long, conflicts_with = "name")]
    pub generate_name: Option<String>,
    /// Schedule instead of the manifest's.
    #[arg(long)]
    pub schedule: Option<String>,
    /// Entrypoint instead of the manifest's.
    #[arg(long)]
    pub entrypoint: Option<String>,
    /// Labels to add: KEY=VALUE, with commas between them.
    #[arg(short, long)]
    pub labels: Option<String>,
    /// Set a parameter of its workflows: NAME=VALUE.
    #[arg(short, long = "parameter", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// File with parameters: a YAML or JSON object.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub parameter_file: Option<PathBuf>,
    /// Service account of the Pods.
    #[arg(long)]
    pub serviceaccount: Option<String>,
    /// Accepted for Argo's sake: unknown fields are always errors.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub strict: Option<bool>,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy cron delete`.
#[derive(Args, Clone, Debug)]
pub struct CronDelete {
    /// Names of cron workflows.
    #[arg(required_unless_present = "all", value_name = "CRON_WORKFLOW")]
    pub names: Vec<String>,
    /// All cron workflows of the namespace.
    #[arg(long)]
    pub all: bool,
}

/// `argosy cron lint`.
#[derive(Args, Clone, Debug)]
pub struct CronLint {
    /// Files with cron workflows; - for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Accepted for Argo's sake: unknown fields are always errors.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub strict: Option<bool>,
}

/// Names of cron workflows.
#[derive(Args, Clone, Debug)]
pub struct CronNames {
    /// Names of cron workflows.
    #[arg(required = true, value_name = "CRON_WORKFLOW")]
    pub names: Vec<String>,
}

/// `argosy cron backfill`.
#[derive(Args, Clone, Debug)]
pub struct CronBackfill {
    /// Name of the cron workflow.
    #[arg(value_name = "CRON_WORKFLOW")]
    pub cron: String,
    /// Name of the backfill: the same again makes nothing twice. Drawn from the period when left out.
    #[arg(long)]
    pub name: Option<String>,
    /// Beginning of the period.
    #[arg(long)]
    pub start: String,
    /// End of the period.
    #[arg(long)]
    pub end: String,
    /// How the two are written, as Go has it.
    #[arg(long, default_value = "Mon, 02 Jan 2006 15:04:05 MST")]
    pub format: String,
    /// Parameter of the workflows that gets the time.
    #[arg(long, default_value = "cronScheduleTime")]
    pub argname: String,
    /// All at once, instead of one after the other.
    #[arg(long)]
    pub parallel: bool,
    /// Refuse a period with more times than this.
    #[arg(long, default_value_t = 1_000)]
    pub maxworkflowcount: u32,
}
