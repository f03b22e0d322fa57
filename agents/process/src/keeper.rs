//! The task that makes, watches, stops and releases processes.

use crate::command;
use crate::directory::{AttemptDirectory, State, process_start};
use crate::{Options, Running};
use argosy_agent_runtime::server::Executors;
use argosy_agent_runtime::{AttemptObservation, ExecutorAnswer, RuntimeAction, RuntimeEvent};
use argosy_executor::protocol::{ENV_HOLDER, EXIT_REFUSED};
use argosy_model::display_fence;
use argosy_proto::common::{Assignment, AttemptPhase, Fence};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::PoisonError;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// How often adopted processes are looked at: only own children announce their end.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Beyond the grace, for the executor to hand over what it captured.
const HAND_OVER: Duration = Duration::from_secs(3);
/// Ends that wait to be told.
const ENDED_WAITING_MAX: usize = 4_096;

/// Releases between two looks at how many are kept.
const TRIM_EVERY: u64 = 64;

/// A process ended; the status is known of own children only.
type Ended = (Fence, Option<ExitStatus>);

pub struct Keeper {
    options: Options,
    attempts_directory: PathBuf,
    is_isolating: bool,
    executors: Executors,
    events: mpsc::Sender<RuntimeEvent>,
    running: Running,
    /// The state of what runs.
    processes: BTreeMap<Fence, State>,
    host: String,
    released: u64,
    tasks: tokio::task::JoinSet<()>,
}

impl Keeper {
    pub fn new(
        options: Options,
        attempts_directory: PathBuf,
        is_isolating: bool,
        executors: Executors,
        events: mpsc::Sender<RuntimeEvent>,
        running: Running,
    ) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        Self {
            options,
            attempts_directory,
            is_isolating,
            executors,
            events,
            running,
            processes: BTreeMap::new(),
            host,
            released: 0,
            tasks: tokio::task::JoinSet::new(),
        }
    }

    pub async fn run(mut self, mut actions: mpsc::Receiver<RuntimeAction>) {
        let (ended_sender, mut ended) = mpsc::channel(ENDED_WAITING_MAX);
        self.adopt(&ended_sender).await;
        let allocatable = self.options.allocatable.clone();
        self.tell(RuntimeEvent::Capacity { allocatable, healthy: true }).await;
        loop {
            while self.tasks.try_join_next().is_some() {}
            tokio::select! {
                action = actions.recv() => match action {
                    Some(action) => self.act(action, &ended_sender).await,
                    None => return,
                },
                Some((fence, status)) = ended.recv() => self.ended(fence, status).await,
            }
        }
    }

    async fn tell(&self, event: RuntimeEvent) {
        // Nobody listens only when the agent ends.
        let _ = self.events.send(event).await;
    }

    /// Lists what an earlier agent left: what lives is watched, what ended is told after the list.
    async fn adopt(&mut self, ended: &mpsc::Sender<Ended>) {
        let mut seen = Vec::new();
        let mut over = Vec::new();
        for (fence, directory, is_released) in AttemptDirectory::list(&self.attempts_directory) {
            if is_released {
                continue;
            }
            let Some(state) = directory.state().filter(|state| state.process > 0) else {
                // Never started as far as is known: without its recorded holder it gets no permit.
                directory.remove();
                continue;
            };
            seen.push(self.observe(fence, &state));
            if state.is_alive() {
                self.watch(fence, state, None, ended.clone());
            } else {
                over.push(fence);
            }
        }
        self.tell(RuntimeEvent::Listed(seen)).await;
        for fence in over {
            self.ended(fence, None).await;
        }
        self.trim_released();
    }

    fn observe(&self, fence: Fence, state: &State) -> AttemptObservation {
        AttemptObservation {
            host: self.host.clone(),
            handle: state.process.to_string(),
            ..AttemptObservation::new(fence, AttemptPhase::Pending, "")
        }
    }

    fn watch(&mut self, fence: Fence, state: State, child: Option<Child>, ended: mpsc::Sender<Ended>) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(fence);
        self.processes.insert(fence, state.clone());
        self.tasks.spawn(async move {
            let status = match child {
                Some(mut child) => child.wait().await.ok(),
                None => {
                    while state.is_alive() {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                    None
                }
            };
            let _ = ended.send((fence, status)).await;
        });
    }

    async fn act(&mut self, action: RuntimeAction, ended: &mpsc::Sender<Ended>) {
        match action {
            RuntimeAction::Ensure(assignment) => self.ensure(&assignment, ended).await,
            RuntimeAction::GrantPermit { fence, holder } => self.grant(fence, holder).await,
            RuntimeAction::Stop { fence, grace_ms } => self.stop(fence, grace_ms).await,
            RuntimeAction::Kill(fence) => {
                // Takes the command with it: it dies with its executor.
                if let Some(state) = self.processes.get(&fence) {
                    state.signal(Signal::SIGKILL);
                }
            }
            RuntimeAction::Release(fence) => self.release(fence),
            // It keeps nothing for workflows, and has nothing that could be asked for.
            RuntimeAction::Recorded(_)
            | RuntimeAction::WorkflowsTold(_)
            | RuntimeAction::CheckPrerequisites(_) => {}
        }
    }

    async fn ensure(&mut self, assignment: &Assignment, ended: &mpsc::Sender<Ended>) {
        let fence = assignment.fence.unwrap_or_default();
        let directory = AttemptDirectory::new(&self.attempts_directory, fence);
        if let Some(state) = directory.state() {
            return self.tell(RuntimeEvent::Observed(self.observe(fence, &state))).await;
        }
        let event = match self.start(fence, &directory, assignment) {
            Ok((state, child)) => {
                let seen = self.observe(fence, &state);
                self.watch(fence, state, Some(child), ended.clone());
                seen
            }
            Err(message) => {
                directory.remove();
                AttemptObservation::new(fence, AttemptPhase::Error, message)
            }
        };
        self.tell(RuntimeEvent::Observed(event)).await;
    }

    fn start(
        &self,
        fence: Fence,
        directory: &AttemptDirectory,
        assignment: &Assignment,
    ) -> Result<(State, Child), String> {
        let mut step = command::step(assignment)?;
        let place = directory.root().display();
        let problem = |error: std::io::Error| format!("cannot start the step in {place}: {error}");
        let mut state = State::new(uuid::Uuid::new_v4().to_string());
        directory.make(&state).map_err(problem)?;
        self.executors.furnish(assignment, &mut step.task)?;
        step.task.outcome_file = Some(directory.outcome().display().to_string());
        step.task.staging_directory = Some(directory.root().display().to_string());
        let working_directory = step.working_directory.map_or_else(|| directory.work(), PathBuf::from);
        if !working_directory.is_dir() {
            return Err(format!("there is no working directory {}", working_directory.display()));
        }
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(directory.log()).map_err(problem)?;
        let mut command = Command::new(&self.options.executor);
        if self.is_isolating {
            command.arg("isolated").arg(directory.temporary());
        }
        command.arg("--").args(&step.arguments);
        command.env_clear().envs(step.environment).env("TMPDIR", self.temporary_for_step(directory));
        command.envs(self.executors.environment(&fence, &step.task)).env(ENV_HOLDER, &state.holder);
        command.current_dir(working_directory).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(problem)?).stderr(log);
        let child = command.spawn().map_err(problem)?;
        state.process = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
        state.process_start = process_start(state.process).unwrap_or_default();
        directory.write_state(&state).map_err(problem)?;
        Ok((state, child))
    }

    fn temporary_for_step(&self, directory: &AttemptDirectory) -> PathBuf {
        if self.is_isolating { PathBuf::from("/tmp") } else { directory.temporary() }
    }

    /// The directory names the one holder, so the swap is a comparison.
    async fn grant(&self, fence: Fence, holder: String) {
        let state = AttemptDirectory::new(&self.attempts_directory, fence).state();
        if let Some(state) = state.filter(|state| state.holder == holder) {
            self.executors.grant(fence, &holder);
            // A process has no probes: it is ready as soon as it may run, and reached where its host is.
            let seen = AttemptObservation {
                ready: true,
                pod_ip: std::net::Ipv4Addr::LOCALHOST.to_string(),
                ..self.observe(fence, &state)
            };
            self.tell(RuntimeEvent::Observed(seen)).await;
        } else {
            let reason = "this process is not the one that was made for the attempt".to_owned();
            self.executors.answer(&ExecutorAnswer::Refused { fence, holder, reason });
        }
    }

    async fn stop(&mut self, fence: Fence, grace_ms: i64) {
        let Some(state) = self.processes.get(&fence).cloned() else {
            return self.tell(RuntimeEvent::Gone(fence)).await;
        };
        state.signal(Signal::SIGTERM);
        let grace = Duration::from_millis(u64::try_from(grace_ms).unwrap_or_default());
        self.tasks.spawn(async move {
            tokio::time::sleep(grace).await;
            // The executor ends the command at its own grace; here it is given time to say so.
            for _ in 0..HAND_OVER.as_millis() / LOOK_EVERY.as_millis() {
                if !state.is_alive() || grace.is_zero() {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            // Takes the command with it: it dies with its executor.
            state.signal(Signal::SIGKILL);
        });
    }

    fn release(&mut self, fence: Fence) {
        if let Some(state) = self.processes.get(&fence) {
            state.signal(Signal::SIGKILL);
        }
        AttemptDirectory::new(&self.attempts_directory, fence).release();
        self.released += 1;
        if self.released.is_multiple_of(TRIM_EVERY) {
            self.trim_released();
        }
    }

    fn trim_released(&self) {
        let released = AttemptDirectory::list(&self.attempts_directory);
        let released: Vec<_> = released.into_iter().filter(|(_, _, is_released)| *is_released).collect();
        let surplus = released.len().saturating_sub(self.options.released_kept_max);
        released.iter().take(surplus).for_each(|(_, directory, _)| directory.remove());
    }

    async fn ended(&mut self, fence: Fence, status: Option<ExitStatus>) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&fence);
        self.processes.remove(&fence);
        let directory = AttemptDirectory::new(&self.attempts_directory, fence);
        // Nothing of a released attempt is told any more.
        let Some(state) = directory.state().filter(|_| !directory.is_released()) else { return };
        if let Some(outcome) = directory.read_outcome() {
            return self.tell(RuntimeEvent::Outcome { fence, holder: state.holder, outcome }).await;
        }
        tracing::debug!(fence = display_fence(&fence), ?status, "a step's process ended without an outcome");
        self.tell(RuntimeEvent::Observed(without_outcome(fence, status))).await;
    }
}

/// An executor that was killed, or never ran its command.
fn without_outcome(fence: Fence, status: Option<ExitStatus>) -> AttemptObservation {
    let code = status.and_then(|status| status.code().or_else(|| status.signal().map(|signal| 128 + signal)));
    let (phase, message) = match code {
        Some(EXIT_REFUSED) | None => {
            (AttemptPhase::Error, "the step's process is gone and left no outcome".to_owned())
        }
        Some(code) => (AttemptPhase::Failed, format!("main: Error (exit code {code})")),
    };
    AttemptObservation { exit_code: code, ..AttemptObservation::new(fence, phase, message) }
}
