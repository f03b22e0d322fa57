//! What happens around a task's command.

use super::{Session, load, log_output, save};
use crate::artifacts::{OutputFile, parts_at_once};
use crate::client::Client;
use crate::protocol::{EXIT_EXECUTOR_ERROR, Task, TaskOutcome};
use nix::unistd::{dup, dup2_stderr, dup2_stdout, pipe};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes of a log that are kept as an artifact; what follows is only in the container's own log.
const LOG_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How long a log is read on that processes left behind hold open.
const LOG_DRAIN_MAX: Duration = Duration::from_secs(2);

/// Asks the agent about artifacts, if the task has any.
pub fn session(task: &Task, client: &Arc<Client>, fence: &str, holder: &str) -> Option<Arc<Session>> {
    let (ticket, parts) = (task.ticket.clone(), parts_at_once(task.parts_at_once));
    let (fence, holder) = (fence.to_owned(), holder.to_owned());
    (!ticket.is_empty()).then(|| Arc::new(Session::new(Arc::clone(client), fence, holder, ticket, parts)))
}

/// Loads the inputs to their paths; the outcome of a task that can't have them otherwise.
pub fn load_inputs(task: &Task, session: Option<&Session>) -> Result<(), Box<TaskOutcome>> {
    load(session, &task.input_files, |input| PathBuf::from(&input.path)).map_err(|problem| {
        Box::new(TaskOutcome {
            exit_code: EXIT_EXECUTOR_ERROR,
            input_error: problem.message,
            missing_inputs: problem.missing,
            unreached_inputs: problem.unreached,
            ..TaskOutcome::default()
        })
    })
}

/// Saves the outputs, and the log if it was kept; what went wrong follows what did before.
pub fn save_outputs(task: &Task, session: Option<&Session>, log: Option<&Path>, outcome: &mut TaskOutcome) {
    let Some(session) = session else { return };
    let spool = spool(task);
    let mut outputs: Vec<OutputFile> = task.output_files.clone();
    outputs.extend(log.map(|log| log_output(&container(task), log, &task.log_driver)));
    let saved = save(session, &outputs, &spool);
    outcome.artifacts = saved.artifacts;
    if !saved.problems.is_empty() {
        if !outcome.output_error.is_empty() {
            outcome.output_error.push_str("; ");
        }
        outcome.output_error.push_str(&saved.problems);
    }
    if let Some(log) = log {
        let _ = std::fs::remove_file(log);
    }
}

fn container(task: &Task) -> String {
    if task.container.is_empty() { "main".to_owned() } else { task.container.clone() }
}

/// A directory for what is on its way.
fn spool(task: &Task) -> PathBuf {
    let beside = || std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let given = task.shared_directory.as_ref().or(task.staging_directory.as_ref());
    given.map(PathBuf::from).or_else(beside).unwrap_or_else(std::env::temp_dir)
}

/// Everything that goes to the executor's outputs, and so everything the command writes, kept in a file as well.
pub struct LogKeeper {
    path: PathBuf,
    stdout: OwnedFd,
    stderr: OwnedFd,
    copying: JoinHandle<()>,
    drained: mpsc::Receiver<()>,
}

impl LogKeeper {
    /// Begins to keep the log, where the task asks for it. A log that can't be kept must not stop the step.
    pub fn start(task: &Task) -> Option<Self> {
        if !task.archive_logs {
            return None;
        }
        match Self::begin(&spool(task).join(format!("{}.log", container(task)))) {
            Ok(keeper) => Some(keeper),
            Err(error) => {
                eprintln!("argosy-executor: the log is not kept: {error}");
                None
            }
        }
    }

    fn begin(path: &Path) -> std::io::Result<Self> {
        let file = File::create(path)?;
        let (stdout, stderr) = (dup(std::io::stdout())?, dup(std::io::stderr())?);
        let (from, to) = pipe()?;
        let own = stdout.try_clone()?;
        dup2_stdout(&to)?;
        dup2_stderr(&to)?;
        drop(to);
        let (sender, drained) = mpsc::sync_channel(1);
        let copying = thread::spawn(move || {
            copy(File::from(from), File::from(own), file);
            let _ = sender.send(());
        });
        Ok(Self { path: path.to_owned(), stdout, stderr, copying, drained })
    }

    /// The log's file, whole.
    pub fn finish(self) -> Option<PathBuf> {
        let _ = std::io::stdout().flush();
        // The last writers of the pipe, unless something of the command's is left.
        let restored = dup2_stdout(&self.stdout).and_then(|()| dup2_stderr(&self.stderr));
        if restored.is_ok() && self.drained.recv_timeout(LOG_DRAIN_MAX).is_ok() {
            let _ = self.copying.join();
        }
        Some(self.path)
    }
}

fn copy(mut from: File, mut own: File, mut file: File) {
    let mut buffer = [0; 16 * 1024];
    let mut room = LOG_BYTES_MAX;
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let part = &buffer[..length];
        let _ = own.write_all(part);
        let kept = usize::try_from(room).unwrap_or(usize::MAX).min(length);
        if file.write_all(&part[..kept]).is_ok() {
            room -= kept as u64;
        }
    }
}
