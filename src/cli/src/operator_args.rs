//! Arguments of what operators do to workflows, and of stored templates.

use clap::{Args, Subcommand};
use std::path::PathBuf;

use crate::args::{Format, Output};

/// `argosy resume`.
#[derive(Args, Clone, Debug, Default)]
pub struct Resume {
    /// Names of workflows; @latest is the newest.
    #[arg(required = true, value_name = "WORKFLOW")]
    pub names: Vec<String>,
    /// Only the waiting steps with these fields, as in displayName=approve.
    #[arg(long, default_value = "")]
    pub node_field_selector: String,
}

/// `argosy retry`.
#[derive(Args, Clone, Debug, Default)]
pub struct Retry {
    /// Names of workflows; @latest is the newest.
    #[arg(required = true, value_name = "WORKFLOW")]
    pub names: Vec<String>,
    /// Run steps again that succeeded: those that --node-field-selector names.
    #[arg(long)]
    pub restart_successful: bool,
    /// Steps with these fields, as in displayName=build.
    #[arg(long, default_value = "")]
    pub node_field_selector: String,
    /// Set a parameter of the workflow: NAME=VALUE.
    #[arg(short, long = "parameter", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// What to do then.
    #[command(flatten)]
    pub then: Then,
}

/// `argosy resubmit`.
#[derive(Args, Clone, Debug, Default)]
pub struct Resubmit {
    /// Names of workflows; @latest is the newest.
    #[arg(required = true, value_name = "WORKFLOW")]
    pub names: Vec<String>,
    /// Don't run steps again that succeeded.
    #[arg(long)]
    pub memoized: bool,
    /// Set a parameter of the workflow: NAME=VALUE.
    #[arg(short, long = "parameter", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// What to do then.
    #[command(flatten)]
    pub then: Then,
}

/// How a workflow that was set going is followed.
#[derive(Args, Clone, Debug, Default)]
pub struct Then {
    /// Show the workflow and follow it until it ends.
    #[arg(long)]
    pub watch: bool,
    /// Wait until the workflow ends.
    #[arg(short, long)]
    pub wait: bool,
    /// Print the output of its steps until it ends.
    #[arg(long)]
    pub log: bool,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy node`.
#[derive(Subcommand, Clone, Debug)]
pub enum Node {
    /// Set phase, message or outputs of steps that wait
    Set(NodeSet),
}

/// `argosy node set`.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeSet {
    /// Name of the workflow; @latest is the newest.
    #[arg(value_name = "WORKFLOW")]
    pub name: String,
    /// Steps with these fields, as in displayName=approve.
    #[arg(long, default_value = "")]
    pub node_field_selector: String,
    /// Phase that ends the step: Succeeded, Failed or Error.
    #[arg(long, default_value = "")]
    pub phase: String,
    /// Message of the step.
    #[arg(short, long, default_value = "")]
    pub message: String,
    /// Set an output parameter that the step waits for: NAME=VALUE.
    #[arg(short = 'p', long = "output-parameter", value_name = "NAME=VALUE")]
    pub output_parameters: Vec<String>,
}

/// `argosy template`, `argosy cluster-template`.
#[derive(Subcommand, Clone, Debug)]
pub enum Template {
    /// List templates
    List(Format),
    /// Show a template
    Get(TemplateGet),
    /// Create templates from files
    Create(TemplateFiles),
    /// Put another version in place of templates
    Update(TemplateFiles),
    /// Delete templates
    Delete(TemplateNames),
    /// Have the server check templates
    Lint(TemplateFiles),
}

/// `argosy template get`.
#[derive(Args, Clone, Debug)]
pub struct TemplateGet {
    /// Name of the template.
    pub name: String,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// Files with templates.
#[derive(Args, Clone, Debug)]
pub struct TemplateFiles {
    /// Files with templates; - for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// Names of templates.
#[derive(Args, Clone, Debug)]
pub struct TemplateNames {
    /// Names of templates.
    #[arg(required = true, value_name = "TEMPLATE")]
    pub names: Vec<String>,
}

/// `argosy configmap`.
#[derive(Subcommand, Clone, Debug)]
pub enum ConfigMap {
    /// Create or update ConfigMaps from files, or from standard input with -
    Apply(ConfigMapFiles),
    /// List the ConfigMaps that workflows of the namespace read
    List(Format),
    /// Print a ConfigMap
    Get(ConfigMapGet),
    /// Delete ConfigMaps
    Delete(ConfigMapNames),
}

/// `argosy configmap apply`.
#[derive(Args, Clone, Debug)]
pub struct ConfigMapFiles {
    /// Files with ConfigMaps; - for standard input.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy configmap get`.
#[derive(Args, Clone, Debug)]
pub struct ConfigMapGet {
    /// Name of the ConfigMap.
    pub name: String,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy configmap delete`.
#[derive(Args, Clone, Debug)]
pub struct ConfigMapNames {
    /// Names of ConfigMaps.
    #[arg(required = true, value_name = "CONFIGMAP")]
    pub names: Vec<String>,
}

/// `argosy sync`.
#[derive(Subcommand, Clone, Debug)]
pub enum Sync {
    /// Create a limit
    Create(SyncSet),
    /// Show a limit
    Get(SyncLimit),
    /// Change a limit
    Update(SyncSet),
    /// Delete a limit
    Delete(SyncLimit),
}

/// Where a semaphore's limit is kept.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncKind {
    /// In a ConfigMap.
    #[default]
    #[value(alias = "CONFIGMAP", alias = "CONFIG_MAP")]
    Configmap,
    /// By the control plane.
    #[value(alias = "DATABASE")]
    Database,
}

/// `argosy sync get`, `argosy sync delete`.
#[derive(Args, Clone, Debug)]
pub struct SyncLimit {
    /// Key of the limit.
    pub key: String,
    /// Where it is kept.
    #[arg(long = "type", value_enum, default_value_t)]
    pub kind: SyncKind,
    /// Name of the ConfigMap.
    #[arg(long, default_value = "", required_if_eq("kind", "configmap"))]
    pub cm_name: String,
}

/// `argosy sync create`, `argosy sync update`.
#[derive(Args, Clone, Debug)]
pub struct SyncSet {
    /// Which limit.
    #[command(flatten)]
    pub place: SyncLimit,
    /// How many may hold the semaphore at a time.
    #[arg(long)]
    pub limit: i32,
}
