//! The other containers of the same Pod: each has a folder in the shared directory, in which a locked file says that its
//! executor lives, and another how its command ended.

use crate::process::Signals;
use crate::protocol::{ContainerOutcome, Task, TaskOutcome};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FOLDER: &str = "ctr";
const ALIVE: &str = "alive";
const OUTCOME: &str = "outcome.json";
const CLAIM: &str = "handed-over";
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Beyond a sidecar's grace, until an outcome is handed over without it.
const SIDECAR_WAIT: Duration = Duration::from_secs(5);
/// What a container counts that was killed together with its executor.
const KILLED: i32 = 137;
/// The container whose outputs are the step's.
const MAIN: &str = "main";

/// How far another container is.
enum State {
    /// Not started, or running.
    Open,
    /// Its command has ended.
    Over(Box<TaskOutcome>),
    /// Killed together with its executor.
    Died,
}

/// Why a container does not run its command.
pub enum Hindrance {
    /// A container that it depends on failed; Argo's words.
    Failed(String),
    /// It was told to end: the signal.
    Stopped(i32),
}

/// This container among the others.
pub struct Neighbours<'a> {
    task: &'a Task,
    folder: PathBuf,
    /// Held until the process ends, however it ends.
    _alive: Flock<File>,
}

impl<'a> Neighbours<'a> {
    /// Takes its place; nothing when it is alone.
    pub fn enter(task: &'a Task) -> io::Result<Option<Self>> {
        let Some(shared) = task.shared_directory.as_ref().filter(|_| !task.containers.is_empty()) else {
            return Ok(None);
        };
        let folder = Path::new(shared).join(FOLDER);
        let own = folder.join(&task.container);
        std::fs::create_dir_all(&own)?;
        // Containers may run as different users. Only the first can open the common folder for them.
        let _ = std::fs::set_permissions(&folder, Permissions::from_mode(0o777));
        std::fs::set_permissions(&own, Permissions::from_mode(0o755))?;
        // Locked before it can be seen: a file that is there without a lock belongs to the dead.
        let hidden = own.join("starting");
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&hidden)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        let alive =
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| io::Error::from(error))?;
        std::fs::rename(hidden, own.join(ALIVE))?;
        Ok(Some(Self { task, folder, _alive: alive }))
    }

    fn state(&self, container: &str) -> State {
        let own = self.folder.join(container);
        let read = || serde_json::from_slice(&std::fs::read(own.join(OUTCOME)).ok()?).ok();
        if let Some(outcome) = read() {
            return State::Over(outcome);
        }
        let Ok(file) = File::open(own.join(ALIVE)) else { return State::Open };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err(_) => State::Open,
            // It may have left its outcome since.
            Ok(_) => read().map_or(State::Died, State::Over),
        }
    }

    /// Waits until all that this one depends on have ended well.
    pub fn await_dependencies(&self, signals: &Signals) -> Result<(), Hindrance> {
        for dependency in &self.task.dependencies {
            let code = loop {
                match self.state(dependency) {
                    State::Open => {}
                    State::Over(outcome) => break outcome.exit_code,
                    State::Died => break KILLED,
                }
                if let Some(signal) = signals.within(LOOK_EVERY) {
                    return Err(Hindrance::Stopped(signal as i32));
                }
            };
            if code != 0 {
                return Err(Hindrance::Failed(format!(
                    "dependency \"{dependency}\" exited with non-zero code: {code}"
                )));
            }
        }
        Ok(())
    }

    pub fn is_sidecar(&self) -> bool {
        self.task.containers.iter().any(|one| one.sidecar && one.name == self.task.container)
    }

    /// All main containers have ended.
    pub fn mains_over(&self) -> bool {
        let mut mains = self.task.containers.iter().filter(|one| !one.sidecar);
        mains.all(|main| match self.state(&main.name) {
            State::Open => false,
            State::Over(_) | State::Died => true,
        })
    }

    /// Leaves how this one ended, for the others.
    pub fn leave(&self, outcome: &TaskOutcome) {
        let own = self.folder.join(&self.task.container);
        let written = || -> io::Result<()> {
            let hidden = own.join("ending");
            std::fs::write(&hidden, serde_json::to_vec(outcome)?)?;
            std::fs::set_permissions(&hidden, Permissions::from_mode(0o644))?;
            std::fs::rename(hidden, own.join(OUTCOME))
        };
        if let Err(error) = written() {
            eprintln!("argosy-executor: the other containers cannot be told of this one's end: {error}");
        }
    }

    /// The outcome of all, if it is this container's to hand over: it is the last main one, and none was killed. Waits for
    /// the sidecars, which end now.
    pub fn gather(&self) -> Option<TaskOutcome> {
        if self.is_sidecar() {
            return None;
        }
        let mut ended = Vec::new();
        for main in self.task.containers.iter().filter(|one| !one.sidecar) {
            let State::Over(outcome) = self.state(&main.name) else { return None };
            ended.push((main, outcome));
        }
        // Two may find at the same time that they are the last.
        OpenOptions::new().create_new(true).write(true).open(self.folder.join(CLAIM)).ok()?;
        let begun = Instant::now();
        let patience = Duration::from_millis(self.task.stop_grace_ms) + SIDECAR_WAIT;
        for sidecar in self.task.containers.iter().filter(|one| one.sidecar) {
            loop {
                match self.state(&sidecar.name) {
                    State::Over(outcome) => ended.push((sidecar, outcome)),
                    State::Died => {}
                    // Perhaps it never started: its image may be missing.
                    State::Open if begun.elapsed() >= patience => {}
                    State::Open => {
                        std::thread::sleep(LOOK_EVERY);
                        continue;
                    }
                }
                break;
            }
        }
        let mut all = TaskOutcome::default();
        let (mut logs, mut problems) = (Vec::new(), Vec::new());
        for (container, outcome) in ended {
            all.containers.push(ContainerOutcome::new(&container.name, container.sidecar, &outcome));
            let (started_at_ms, finished_at_ms) = (all.started_at_ms, all.finished_at_ms);
            let (own_start, own_end) = (outcome.started_at_ms, outcome.finished_at_ms);
            let was_told = outcome.told_to_stop || all.told_to_stop;
            if container.name == MAIN && !container.sidecar {
                all = TaskOutcome { containers: std::mem::take(&mut all.containers), ..*outcome };
            } else if !container.sidecar {
                logs.extend(outcome.artifacts);
                problems.push(outcome.output_error);
            }
            if !container.sidecar {
                all.told_to_stop |= was_told;
                all.started_at_ms = if started_at_ms == 0 { own_start } else { started_at_ms.min(own_start) };
                all.finished_at_ms = finished_at_ms.max(own_end);
            }
        }
        // The step's outputs are main's; of the others, what is kept are their logs.
        all.artifacts.extend(logs);
        problems.insert(0, std::mem::take(&mut all.output_error));
        problems.retain(|problem| !problem.is_empty());
        all.output_error = problems.join("; ");
        Some(all)
    }
}
