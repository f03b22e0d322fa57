//! Arguments of `argosy drill`.

use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

use crate::args::{Format, Output};

/// `argosy drill`.
#[derive(Subcommand, Clone, Debug)]
pub enum Drill {
    /// Lose a cluster on purpose; it comes back by itself
    Run(DrillRun),
    /// List drills, newest first
    List(Format),
    /// Show a drill and its report
    Get(DrillGet),
    /// Follow the drill under way to its verdict: exit code 0 if it passes
    Wait(DrillGet),
    /// Show reports side by side
    Compare(DrillCompare),
    /// End the loss of the drill under way now
    Abort(DrillAbort),
    /// Drills that begin by themselves
    #[command(subcommand)]
    Schedule(DrillSchedule),
}

/// How a cluster is lost.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrillMode {
    /// No member passes frames of the cluster's agent, either way
    #[default]
    Block,
    /// The agent serves nobody, and comes back by itself
    KillAgent,
    /// Pods and processes of running steps are killed
    KillPods,
}

impl DrillMode {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::KillAgent => "kill-agent",
            Self::KillPods => "kill-pods",
        }
    }
}

/// What is lost, and how.
#[derive(Args, Clone, Debug)]
pub struct DrillLoss {
    /// The cluster that is lost.
    #[arg(long, value_name = "CLUSTER")]
    pub lose: String,
    /// How long, as in 2m.
    #[arg(long = "for", value_name = "SPAN", default_value = "2m", value_parser = crate::time::parse_span)]
    pub span: Duration,
    /// How it is lost.
    #[arg(long, value_enum, default_value_t)]
    pub mode: DrillMode,
    /// With kill-pods: only steps of workflows with these labels, as in team=data,tier!=gold.
    #[arg(long, value_name = "LABELS", default_value = "")]
    pub scope: String,
    /// What the drill has to reach to pass: recover-p99=60s [default: the server's].
    #[arg(long, value_parser = objective)]
    pub objective: Option<Duration>,
}

/// `recover-p99=60s`.
fn objective(text: &str) -> Result<Duration, String> {
    let span = text
        .strip_prefix("recover-p99=")
        .ok_or_else(|| format!("{text:?} is no objective: write it as in recover-p99=60s"))?;
    let span = crate::time::parse_span(span)?;
    if span.is_zero() { Err("an objective is longer than 0 s".to_owned()) } else { Ok(span) }
}

/// `argosy drill run`.
#[derive(Args, Clone, Debug)]
pub struct DrillRun {
    #[command(flatten)]
    pub loss: DrillLoss,
    /// Lose nothing: print what would be touched, and where each step could go.
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Follow it to its verdict: exit code 0 if it passes.
    #[arg(short, long)]
    pub wait: bool,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy drill get` and `argosy drill wait`.
#[derive(Args, Clone, Debug)]
pub struct DrillGet {
    /// Number of the drill; @latest is the newest.
    #[arg(default_value = "@latest")]
    pub drill: String,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy drill compare`.
#[derive(Args, Clone, Debug)]
pub struct DrillCompare {
    /// Numbers of drills; @latest is the newest.
    #[arg(required = true, num_args = 2.., value_name = "DRILL")]
    pub drills: Vec<String>,
}

/// `argosy drill abort`.
#[derive(Args, Clone, Debug)]
pub struct DrillAbort {
    /// Number of the drill [default: the one under way].
    #[arg(default_value_t = 0, hide_default_value = true)]
    pub drill: u64,
    /// For the report.
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// `argosy drill schedule`.
#[derive(Subcommand, Clone, Debug)]
pub enum DrillSchedule {
    /// Begin drills by a schedule
    Create(DrillScheduleCreate),
    /// List schedules of drills
    List(Format),
    /// Delete a schedule of drills
    Delete(DrillScheduleName),
}

/// `argosy drill schedule create`.
#[derive(Args, Clone, Debug)]
pub struct DrillScheduleCreate {
    /// Name of the schedule.
    pub name: String,
    /// When, as of a CronWorkflow: "0 4 * * 1", "@daily", "@every 12h".
    #[arg(long)]
    pub cron: String,
    /// Time zone of the schedule [default: UTC]
    #[arg(long)]
    pub timezone: Option<String>,
    #[command(flatten)]
    pub loss: DrillLoss,
}

/// `argosy drill schedule delete`.
#[derive(Args, Clone, Debug)]
pub struct DrillScheduleName {
    /// Name of the schedule.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::objective;
    use std::time::Duration;

    #[test]
    fn objectives_read_and_refuse() {
        assert_eq!(objective("recover-p99=1m30s"), Ok(Duration::from_secs(90)));
        for bad in ["60s", "recover-p50=60s", "recover-p99=", "recover-p99=0s"] {
            assert!(objective(bad).is_err(), "{bad}");
        }
    }
}
