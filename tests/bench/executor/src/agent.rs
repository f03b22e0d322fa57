//! The agent's end of an executor: its server, a permit for whoever asks, and signed requests.

use anyhow::{Context, bail};
use argosy_agent_runtime::server::{Artifacts, ExecutorServer, Executors, Options};
use argosy_agent_runtime::{ExecutorAnswer, RuntimeEvent};
use argosy_artifacts::Stores;
use argosy_executor::artifacts::{Answer, Operation, Ticket};
use argosy_executor::protocol::{ENV_HOLDER, Task, TaskOutcome};
use argosy_proto::common::{Assignment, Fence};
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const HOLDER: &str = "pod-1";
/// Nothing here takes longer.
const RUN_MAX: Duration = Duration::from_secs(600);

/// Signs for whoever asks.
struct Signer(Arc<Stores>);

#[async_trait]
impl Artifacts for Signer {
    async fn answer(
        &self,
        fence: &Fence,
        ticket: &Ticket,
        operation: Operation,
    ) -> Result<Answer, (String, bool)> {
        let answered = argosy_artifacts::answer(&self.0, fence, ticket, operation).await;
        answered.map_err(|refusal| (refusal.message, refusal.permanent))
    }

    async fn read_file(&self, _: &Ticket, _: &str, _: u64) -> Result<Vec<u8>, (String, bool)> {
        Err(("no files here".to_owned(), true))
    }

    async fn archive(&self, _: &Fence, _: &Ticket, _: &str) -> Result<(std::fs::File, u64), (String, bool)> {
        Err(("no repositories here".to_owned(), true))
    }

    async fn read_result(&self, _: &Fence, _: &Ticket, _: u64) -> Result<(String, Vec<u8>), (String, bool)> {
        Err(("no results are left here".to_owned(), true))
    }

    async fn delete_result(&self, _: &Fence, _: &Ticket) -> Result<(), (String, bool)> {
        Err(("no results are left here".to_owned(), true))
    }
}

/// An agent for one executor after the other.
pub struct Agent {
    pub directory: tempfile::TempDir,
    executors: Executors,
    events: mpsc::Receiver<RuntimeEvent>,
    executor: PathBuf,
    _serving: JoinSet<()>,
}

/// One run of an executor.
pub struct Run {
    /// CLOCK_MONOTONIC, nanoseconds, just before it was started.
    pub started: i128,
    /// From there until its outcome arrived.
    pub time: Duration,
    /// The most memory it had, bytes.
    pub resident_bytes_max: u64,
    /// What it reported.
    pub outcome: TaskOutcome,
    /// What its command wrote.
    pub output: String,
}

impl Agent {
    pub async fn start(executor: &Path, stores: Option<Arc<Stores>>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (sender, events) = mpsc::channel(256);
        let options = Options::new("127.0.0.1:0".parse().context("an address")?, directory.path());
        let server = ExecutorServer::start(options, sender).await?;
        let executors = server.executors();
        if let Some(stores) = stores {
            executors.set_artifacts(Arc::new(Signer(stores)));
        }
        executors.lease_until(u64::MAX);
        let mut serving = JoinSet::new();
        serving.spawn(server.run());
        Ok(Self { directory, executors, events, executor: executor.to_owned(), _serving: serving })
    }

    /// Runs a command under an executor, with the artifacts of an assignment.
    pub async fn run(&mut self, assignment: &Assignment, command: &[&str]) -> anyhow::Result<Run> {
        let fence = assignment.fence.context("an assignment has a fence")?;
        let staging = self.directory.path().display().to_string();
        let mut task = Task { staging_directory: Some(staging), ..Task::default() };
        self.executors.furnish(assignment, &mut task).map_err(anyhow::Error::msg)?;
        let mut program = Command::new(&self.executor);
        program.env_clear().env("PATH", "/usr/bin:/bin").env(ENV_HOLDER, HOLDER);
        program.envs(self.executors.environment(&fence, &task)).arg("--").args(command);
        program.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let (started, begun) = (crate::stamp(), Instant::now());
        let child = program.spawn()?;
        let pid = child.id().context("it runs")?;
        let ended = tokio::time::timeout(RUN_MAX, self.outcome(fence, pid)).await;
        let (outcome, resident_bytes_max, at) = ended.context("the executor is too slow")??;
        let output = child.wait_with_output().await?;
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Run { started, time: at - begun, resident_bytes_max, outcome, output })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "of all that executors tell, two things count here")]
    async fn outcome(&mut self, of: Fence, pid: u32) -> anyhow::Result<(TaskOutcome, u64, Instant)> {
        while let Some(event) = self.events.recv().await {
            match event {
                RuntimeEvent::PermitAsked { fence, holder } if fence == of => {
                    self.executors.grant(fence, &holder);
                }
                RuntimeEvent::Outcome { fence, holder, outcome } if fence == of => {
                    let at = Instant::now();
                    let memory = resident_bytes_max(pid)?;
                    self.executors.answer(&ExecutorAnswer::OutcomeRecorded { fence, holder });
                    return Ok((outcome, memory, at));
                }
                _ => {}
            }
        }
        bail!("the server ended")
    }
}

fn resident_bytes_max(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}
