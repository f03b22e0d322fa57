//! Steps as child processes of the agent's host: the embedded runtime, for one machine and for trying things out.
//!
//! A container's image is not used: command, arguments, environment, working directory and script run on the host's
//! own programs. Where the kernel allows it, each step has private mount and pid namespaces with its own `/tmp`;
//! else it is a plain process group, which the log says. What the runtime cannot give (volumes, sidecars, Secrets, another
//! template type) makes the attempt an error that names it; nothing is left out in silence.
//!
//! Each attempt has a directory `attempts/FENCE` under the agent's data directory: `state.json` (process id and start time,
//! holder), `log` (both outputs), `outcome.json` (left by the executor), `work` and `tmp`. It is made before the process
//! and so names everything that may run; after a restart the agent adopts what lives and reads what ended.
//! Released attempts keep their log for a while (`Options::released_kept_max`).
//!
//! Invariants: at most one process per directory, and one directory per fence; a process is signalled only while its id
//! and start time are those that were recorded.
//!
//! Failure model: the agent may be killed at any instant and steps go on; they stay in the agent's process group, so that
//! killing the whole group is the loss of the cluster. Exclusive steps are not enforced.

mod command;
mod directory;
mod keeper;
mod logs;

use argosy_agent_runtime::server::Executors;
use argosy_agent_runtime::{Error, LogOptions, LogStream, Runtime, RuntimeAction, RuntimeEvent};
use argosy_model::display_fence;
use argosy_proto::common::{Fence, Resources};
use async_trait::async_trait;
use directory::AttemptDirectory;
use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// How to run steps.
#[derive(Clone, Debug)]
pub struct Options {
    /// The agent's data directory.
    pub data_directory: PathBuf,
    /// The executor's binary.
    pub executor: PathBuf,
    /// What the host has for steps.
    pub allocatable: Resources,
    /// Actions that wait; beyond, they are dropped (the reconciler repeats them).
    pub actions_waiting_max: usize,
    /// Released attempts whose logs are kept; the oldest go first.
    pub released_kept_max: usize,
    /// Try private namespaces.
    pub isolate: bool,
}

impl Options {
    /// Defaults for a directory and an executor.
    #[must_use]
    pub fn new(data_directory: impl Into<PathBuf>, executor: impl Into<PathBuf>) -> Self {
        Self {
            data_directory: data_directory.into(),
            executor: executor.into(),
            allocatable: host_resources(),
            actions_waiting_max: 65_536,
            released_kept_max: 1_000,
            isolate: true,
        }
    }
}

/// Processors and memory of this host, and room for 256 steps.
#[must_use]
pub fn host_resources() -> Resources {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<i64>().ok())
        .unwrap_or(0);
    Resources {
        cpu_milli: i64::try_from(processors).unwrap_or(1) * 1000,
        memory_bytes: kibibytes * 1024,
        pods: 256,
        ..Resources::default()
    }
}

/// The runtime. Dropping it ends nothing: steps go on and the next one adopts them.
#[derive(Debug)]
pub struct ProcessRuntime {
    actions: mpsc::Sender<RuntimeAction>,
    attempts_directory: PathBuf,
    running: Running,
    is_isolating: bool,
    keeper: tokio::task::JoinHandle<()>,
}

type Running = Arc<Mutex<BTreeSet<Fence>>>;

impl ProcessRuntime {
    /// Lists what exists, then takes actions. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the directory cannot be made or the executor is not there.
    pub fn start(
        options: Options,
        executors: Executors,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Result<Self, Error> {
        let attempts_directory = options.data_directory.join("attempts");
        // Logs, results and holders of steps are for this user only.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&attempts_directory);
        made.map_err(|error| Error::Setup(format!("cannot make {}: {error}", attempts_directory.display())))?;
        if !options.executor.is_file() {
            return Err(Error::Setup(format!(
                "there is no executor at {}; name its binary with --executor",
                options.executor.display()
            )));
        }
        let is_isolating = options.isolate && can_isolate(&options);
        if !is_isolating {
            tracing::warn!(
                "steps run as plain process groups: private mount and pid namespaces are not allowed here, or switched off"
            );
        }
        let (actions, queue) = mpsc::channel(options.actions_waiting_max);
        let running = Running::default();
        let keeper = keeper::Keeper::new(
            options,
            attempts_directory.clone(),
            is_isolating,
            executors,
            events,
            Arc::clone(&running),
        );
        let keeper = tokio::spawn(keeper.run(queue));
        Ok(Self { actions, attempts_directory, running, is_isolating, keeper })
    }

    /// Steps have namespaces of their own.
    #[must_use]
    pub fn is_isolating(&self) -> bool {
        self.is_isolating
    }
}

impl Drop for ProcessRuntime {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

fn can_isolate(options: &Options) -> bool {
    let temporary = options.data_directory.join("isolation-probe").join("tmp");
    if std::fs::create_dir_all(&temporary).is_err() {
        return false;
    }
    let mut probe = Command::new(&options.executor);
    probe.arg("can-isolate").arg(temporary).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn act(&self, action: RuntimeAction) {
        if let Err(error) = self.actions.try_send(action) {
            tracing::error!(%error, "an action is dropped; the reconciler repeats it");
        }
    }

    /// The executor is the first process of the step's own namespace: nothing in it outlives the executor.
    fn enforces_exclusive(&self) -> bool {
        self.is_isolating
    }

    async fn logs(&self, fence: Fence, options: LogOptions) -> Result<LogStream, Error> {
        let directory = AttemptDirectory::new(&self.attempts_directory, fence);
        if !directory.log().is_file() {
            return Err(Error::UnknownAttempt(display_fence(&fence)));
        }
        logs::read(&directory, fence, &options, Arc::clone(&self.running))
    }
}
