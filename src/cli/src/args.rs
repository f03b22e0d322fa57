use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

pub use crate::archive_args::Archive;
pub use crate::cluster_args::{
    AddMember, Authority, Cluster, ClusterDrain, ClusterGet, ClusterMarks, ClusterName, ClusterRemove,
    Invite, LeadMember, Member, Recovery, RemoveMember, WaitMember,
};
pub use crate::cron_args::Cron;
pub use crate::drill_args::{
    Drill, DrillAbort, DrillCompare, DrillGet, DrillLoss, DrillRun, DrillSchedule, DrillScheduleCreate,
};
pub use crate::failover_args::{Failover, FailoverResume};
pub use crate::operator_args::{
    ConfigMap, ConfigMapFiles, ConfigMapGet, ConfigMapNames, Node, NodeSet, Resubmit, Resume, Retry, Sync,
    SyncKind, SyncLimit, SyncSet, Template, TemplateFiles, TemplateGet, TemplateNames, Then,
};

/// Flags that every command takes. Each can also come from the environment, or from the context file that
/// `argosy dev` writes.
#[derive(Args, Clone, Debug, Default)]
pub struct GlobalArguments {
    /// Address of the API: host:port, or several with commas between them. Also ARGO_SERVER.
    #[arg(
        short = 's',
        long,
        visible_alias = "server",
        global = true,
        env = "ARGOSY_SERVER",
        value_name = "HOST:PORT",
        help_heading = "Global options"
    )]
    pub argo_server: Option<String>,
    /// Bearer token. Also ARGO_TOKEN.
    #[arg(
        long,
        global = true,
        env = "ARGOSY_TOKEN",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    pub token: Option<String>,
    /// Do not check the server's certificate. Also ARGO_INSECURE_SKIP_VERIFY.
    #[arg(short = 'k', long, global = true, help_heading = "Global options")]
    pub insecure_skip_verify: bool,
    /// File with the certificate authority of the server's certificate, PEM.
    #[arg(
        long,
        global = true,
        env = "ARGOSY_CERTIFICATE_AUTHORITY",
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub certificate_authority: Option<PathBuf>,
    /// Speak TLS with the server. Also ARGO_SECURE. [default: true]
    #[arg(short = 'e', long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Global options")]
    pub secure: Option<bool>,
    /// Namespace of the workflows. [default: default]
    #[arg(short = 'n', long, global = true, env = "ARGO_NAMESPACE", help_heading = "Global options")]
    pub namespace: Option<String>,
}

/// A user's whole command line.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "argosy", version, about = "Runs Argo workflows over many clusters")]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: GlobalArguments,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of a user. The binary adds those that run a server.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Submit workflows from files, or from standard input with -
    Submit(Submit),
    /// List workflows
    List(List),
    /// Show a workflow and its steps
    Get(Get),
    /// Show a workflow and follow it until it ends
    Watch(Watch),
    /// Wait until workflows end; fails if one of them failed
    Wait(Names),
    /// Print the output of a workflow's steps
    Logs(Logs),
    /// Copy artifacts of a workflow to this machine
    #[command(name = "cp")]
    Copy(Copy),
    /// Stop workflows; their exit handlers still run
    Stop(Stop),
    /// Terminate workflows at once, without exit handlers
    Terminate(Stop),
    /// Suspend workflows: what runs goes on, nothing new starts
    Suspend(Names),
    /// Resume suspended workflows, or their waiting steps
    Resume(Resume),
    /// Run failed workflows again from where they failed
    Retry(Retry),
    /// Submit workflows again
    Resubmit(Resubmit),
    /// Steps of a workflow
    #[command(subcommand)]
    Node(Node),
    /// Workflow templates
    #[command(subcommand)]
    Template(Template),
    /// Workflow templates of all namespaces
    #[command(subcommand)]
    ClusterTemplate(Template),
    /// Limits of semaphores
    #[command(subcommand)]
    Sync(Sync),
    /// ConfigMaps that workflows read: parameters, limits of semaphores, artifact repositories
    #[command(subcommand, name = "configmap", visible_alias = "cm")]
    ConfigMap(ConfigMap),
    /// Cron workflows
    #[command(subcommand)]
    Cron(Cron),
    /// Archived workflows
    #[command(subcommand)]
    Archive(Archive),
    /// Delete workflows
    Delete(Delete),
    /// Check manifests without submitting them; needs no server
    Lint(Lint),
    /// Print the JSON schema of manifests, for editors
    Schema,
    /// Clusters that steps run on
    #[command(subcommand)]
    Cluster(Cluster),
    /// Lose a cluster on purpose, for a time, and see what becomes of its steps
    #[command(subcommand)]
    Drill(Drill),
    /// Take-overs of silent clusters, and what holds them
    #[command(subcommand)]
    Failover(Failover),
    /// The certificate authority of the cell
    #[command(subcommand)]
    Ca(Authority),
    /// Members of the control plane
    #[command(subcommand)]
    Member(Member),
    /// What a recovery came to: who has told what runs there, what is run again
    Recovery(Recovery),
    /// Print the versions of client and server
    Version(Version),
    /// Print the completion script of a shell
    Completion(Completion),
}

/// Flags of `cp`.
#[derive(Args, Clone, Debug)]
pub struct Copy {
    /// The workflow; @latest for the newest
    pub name: String,
    /// Where to
    pub directory: PathBuf,
    /// Only artifacts of this name
    #[arg(long)]
    pub artifact_name: Option<String>,
    /// Only those of this step's id
    #[arg(long)]
    pub node_id: Option<String>,
    /// Only those of steps of this template
    #[arg(long)]
    pub template_name: Option<String>,
    /// Path below the directory
    #[arg(long, default_value = "{namespace}/{workflowName}/{nodeId}/outputs/{artifactName}")]
    pub path: String,
}

/// How results are printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The object as JSON.
    Json,
    /// The object as YAML.
    Yaml,
    /// The name alone.
    Name,
    /// The usual table with more columns.
    Wide,
}

/// `argosy submit`.
#[derive(Args, Clone, Debug, Default)]
pub struct Submit {
    /// Files with workflows; - for standard input.
    #[arg(required_unless_present = "from", conflicts_with = "from", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Submit a stored template instead of files: workflowtemplate/NAME or clusterworkflowtemplate/NAME.
    #[arg(long, value_name = "KIND/NAME")]
    pub from: Option<String>,
    /// Show the workflow and follow it until it ends.
    #[arg(long)]
    pub watch: bool,
    /// Wait until the workflow ends.
    #[arg(short, long)]
    pub wait: bool,
    /// Print the output of its steps until it ends.
    #[arg(long)]
    pub log: bool,
    /// Set a parameter of the workflow: NAME=VALUE.
    #[arg(short, long = "parameter", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// File with parameters: a YAML or JSON object.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub parameter_file: Option<PathBuf>,
    /// Name instead of the manifest's.
    #[arg(long)]
    pub name: Option<String>,
    /// Prefix of a drawn name instead of the manifest's name.
    #[arg(long, conflicts_with = "name")]
    pub generate_name: Option<String>,
    /// Entrypoint instead of the manifest's.
    #[arg(long)]
    pub entrypoint: Option<String>,
    /// Labels to add: KEY=VALUE, with commas between them.
    #[arg(short, long)]
    pub labels: Option<String>,
    /// Service account of the Pods.
    #[arg(long)]
    pub serviceaccount: Option<String>,
    /// Only check, and print what would be submitted.
    #[arg(long)]
    pub dry_run: bool,
    /// Have the server check, and print what it would accept.
    #[arg(long)]
    pub server_dry_run: bool,
    /// Accepted for Argo's sake: unknown fields are always errors.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub strict: Option<bool>,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy list`.
#[derive(Args, Clone, Debug, Default)]
pub struct List {
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Label selector.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Field selector.
    #[arg(long)]
    pub field_selector: Option<String>,
    /// Only names that begin so.
    #[arg(long)]
    pub prefix: Option<String>,
    /// Only these phases, with commas between them.
    #[arg(long, value_delimiter = ',')]
    pub status: Vec<String>,
    /// Only running ones.
    #[arg(long)]
    pub running: bool,
    /// Only completed ones.
    #[arg(long)]
    pub completed: bool,
    /// Only ones created within this time, as in 30s, 10m, 3h, 1d.
    #[arg(long, value_parser = crate::time::parse_span)]
    pub since: Option<Duration>,
    /// Only ones that finished longer ago, as in 10m, 3h, 1d.
    #[arg(long, value_parser = crate::time::parse_span)]
    pub older: Option<Duration>,
    /// No header line.
    #[arg(long)]
    pub no_headers: bool,
    /// Workflows asked for in one request.
    #[arg(long, default_value_t = 500)]
    pub chunk_size: u32,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy get`.
#[derive(Args, Clone, Debug, Default)]
pub struct Get {
    /// Names of workflows; @latest is the newest.
    #[arg(required = true, value_name = "WORKFLOW")]
    pub names: Vec<String>,
    /// Letters of ASCII instead of symbols.
    #[arg(long)]
    pub no_utf8: bool,
    /// Only steps in this phase.
    #[arg(long)]
    pub status: Option<String>,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy watch`.
#[derive(Args, Clone, Debug, Default)]
pub struct Watch {
    /// Name of the workflow; @latest is the newest.
    #[arg(value_name = "WORKFLOW", default_value = "@latest")]
    pub name: String,
    /// Letters of ASCII instead of symbols.
    #[arg(long)]
    pub no_utf8: bool,
}

/// Names of workflows.
#[derive(Args, Clone, Debug, Default)]
pub struct Names {
    /// Names of workflows; @latest is the newest.
    #[arg(required = true, value_name = "WORKFLOW")]
    pub names: Vec<String>,
}

/// `argosy logs`.
#[derive(Args, Clone, Debug, Default)]
pub struct Logs {
    /// Name of the workflow; @latest is the newest.
    #[arg(value_name = "WORKFLOW", default_value = "@latest")]
    pub name: String,
    /// Only of this pod, or of the node with this id.
    #[arg(value_name = "POD")]
    pub pod: Option<String>,
    /// Only of pods with these labels.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Go on until the workflow ends.
    #[arg(short, long)]
    pub follow: bool,
    /// Only so many last lines of each step.
    #[arg(long)]
    pub tail: Option<u64>,
    /// Only lines that match the regular expression.
    #[arg(long)]
    pub grep: Option<String>,
    /// Only what was written in the last so much time, as in 90s, 5m, 2h.
    #[arg(long, value_parser = crate::time::parse_span, conflicts_with = "since_time")]
    pub since: Option<std::time::Duration>,
    /// Only what was written since this time (RFC 3339).
    #[arg(long)]
    pub since_time: Option<String>,
    /// Begin each line with the time at which it was written, where that is known.
    #[arg(long)]
    pub timestamps: bool,
    /// At most so many bytes of each step.
    #[arg(long)]
    pub limit_bytes: Option<u64>,
    /// The output of the container's run before this one.
    #[arg(short, long)]
    pub previous: bool,
    /// Container.
    #[arg(short, long, default_value = "main")]
    pub container: String,
    /// Accepted for Argo's sake: NO_COLOR does the same.
    #[arg(long, hide = true)]
    pub no_color: bool,
}

/// `argosy stop`, `argosy terminate`.
#[derive(Args, Clone, Debug, Default)]
pub struct Stop {
    /// Names of workflows; @latest is the newest.
    #[arg(value_name = "WORKFLOW")]
    pub names: Vec<String>,
    /// All workflows with these labels.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Why, for those who look at the workflow later.
    #[arg(short, long, default_value = "")]
    pub message: String,
    /// Only fail the waiting steps with these fields, as in displayName=approve; the workflow goes on.
    #[arg(long, default_value = "")]
    pub node_field_selector: String,
    /// Only print what would be stopped.
    #[arg(long)]
    pub dry_run: bool,
}

/// `argosy delete`.
#[derive(Args, Clone, Debug, Default)]
pub struct Delete {
    /// Names of workflows; @latest is the newest.
    #[arg(value_name = "WORKFLOW")]
    pub names: Vec<String>,
    /// All workflows of the namespace.
    #[arg(long)]
    pub all: bool,
    /// Of all namespaces, with --all or a selector.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// All completed workflows.
    #[arg(long)]
    pub completed: bool,
    /// All workflows with these labels.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// All workflows whose names begin so.
    #[arg(long)]
    pub prefix: Option<String>,
    /// All workflows that finished longer ago, as in 10m, 3h, 1d.
    #[arg(long, value_parser = crate::time::parse_span)]
    pub older: Option<Duration>,
    /// Only print what would be deleted.
    #[arg(long)]
    pub dry_run: bool,
}

/// How `argosy lint` prints what it finds.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LintOutput {
    /// Each problem with its line and what to do about it.
    #[default]
    Pretty,
    /// A line for each problem.
    Simple,
    /// One JSON object, for editors and scripts.
    Json,
}

/// `argosy lint`.
#[derive(Args, Clone, Debug, Default)]
pub struct Lint {
    /// Files or directories with manifests; - for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Warnings count as errors; with =false, unknown fields are only warned of.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub strict: Option<bool>,
    /// Only these kinds, with commas between them: workflows, workflowtemplates, clusterworkflowtemplates, cronworkflows,
    /// workfloweventbindings.
    #[arg(long, value_delimiter = ',')]
    pub kinds: Vec<String>,
    /// Output format.
    #[arg(short, long, default_value = "pretty")]
    pub output: LintOutput,
    /// Ask no server which clusters have joined.
    #[arg(long)]
    pub offline: bool,
    /// Accepted for Argo's sake: NO_COLOR does the same.
    #[arg(long, hide = true)]
    pub no_color: bool,
}

/// Only an output format.
#[derive(Args, Clone, Debug, Default)]
pub struct Format {
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy version`.
#[derive(Args, Clone, Debug, Default)]
pub struct Version {
    /// Only the client's version number.
    #[arg(long)]
    pub short: bool,
}

/// `argosy completion`.
#[derive(Args, Clone, Debug)]
pub struct Completion {
    /// bash, zsh or fish.
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn argos_habits_are_understood() {
        let root = Cli::try_parse_from([
            "argosy", "-n", "ci", "submit", "a.yaml", "-p", "x=1", "-p", "y=a=b", "--watch", "-o", "name",
        ]);
        let root = root.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(root.global.namespace.as_deref(), Some("ci"));
        let Command::Submit(submit) = root.command else { panic!("submit") };
        assert_eq!(submit.parameters, ["x=1", "y=a=b"]);
        assert_eq!((submit.watch, submit.output), (true, Some(Output::Name)));
    }

    #[test]
    fn global_flags_go_anywhere() {
        let root = Cli::try_parse_from([
            "argosy",
            "logs",
            "w",
            "-f",
            "-k",
            "-s",
            "localhost:1",
            "--secure=false",
            "--tail",
            "3",
        ]);
        let root = root.unwrap_or_else(|error| panic!("{error}"));
        assert!(root.global.insecure_skip_verify);
        assert_eq!(
            (root.global.argo_server.as_deref(), root.global.secure),
            (Some("localhost:1"), Some(false))
        );
        let Command::Logs(logs) = root.command else { panic!("logs") };
        assert_eq!((logs.follow, logs.tail, logs.name.as_str()), (true, Some(3), "w"));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for wrong in [
            &["argosy", "submit"][..],
            &["argosy", "get"],
            &["argosy", "cluster", "invite", "a", "--ttl", "soon"],
            &["argosy", "submit", "a", "--name", "x", "--generate-name", "y"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
