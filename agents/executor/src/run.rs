//! The executor's life.

use crate::client::Client;
use crate::isolation;
use crate::outputs;
use crate::protocol::{
    self, EXIT_EXECUTOR_ERROR, EXIT_REFUSED, OutcomeRequest, PermitRequest, RESULT_BYTES_MAX, Task,
    TaskOutcome,
};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::env::{self, var};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long an outcome that is also left in a file is offered to an agent that does not take it.
const OFFER_OUTCOME_MAX: Duration = Duration::from_secs(20);
/// How long output is read that processes left behind by the command hold open.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Signals kept while nobody looks.
const SIGNALS_WAITING_MAX: usize = 64;
/// Signals that are passed on to the command.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];
/// Not for the user's command to see.
const PRIVATE: [&str; 4] =
    [protocol::ENV_AGENT, protocol::ENV_TOKEN, protocol::ENV_AGENT_CERTIFICATE, protocol::ENV_HOLDER];

const USAGE: &str = "usage: argosy-executor [isolated DIRECTORY] -- COMMAND [ARGUMENT...]\n       \
                     argosy-executor install DIRECTORY\n       argosy-executor can-isolate DIRECTORY";

/// Runs the executor with these arguments (without the program's name) and gives its exit code.
///
/// `-- COMMAND...` runs a step as the environment tells (see [`protocol`]); `isolated DIRECTORY -- COMMAND...` does so in
/// private mount and pid namespaces with the directory as `/tmp`; `can-isolate DIRECTORY` says by its exit code whether
/// the kernel allows that; `install DIRECTORY` copies the executor there.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let code = match words.as_slice() {
        ["--", _, ..] => step(&arguments[1..]),
        ["install", directory] => install(Path::new(directory)),
        ["can-isolate", directory] => {
            isolated(Path::new(directory), &["inside-isolation".into(), (*directory).into(), "probe".into()])
        }
        ["isolated", directory, "--", _, ..] => {
            let mut inner: Vec<OsString> = vec!["inside-isolation".into(), (*directory).into()];
            inner.extend_from_slice(&arguments[2..]);
            isolated(Path::new(directory), &inner)
        }
        ["inside-isolation", directory, rest @ ..] => {
            match (isolation::furnish(Path::new(directory)), rest) {
                (Ok(()), ["--", _, ..]) => step(&arguments[3..]),
                (Ok(()), _) => 0,
                (Err(error), _) => fail(&format!("cannot set up private namespaces: {error}")),
            }
        }
        _ => {
            eprintln!("{USAGE}");
            EXIT_EXECUTOR_ERROR
        }
    };
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

fn fail(message: &str) -> i32 {
    eprintln!("argosy-executor: {message}");
    EXIT_EXECUTOR_ERROR
}

fn install(directory: &Path) -> i32 {
    let target = directory.join("argosy-executor");
    let copied = env::current_exe()
        .and_then(|executor| std::fs::copy(executor, &target))
        .and_then(|_| std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755)));
    match copied {
        Ok(()) => 0,
        Err(error) => fail(&format!("cannot install to {}: {error}", target.display())),
    }
}

/// Starts this program again as the first process of new namespaces, and ends as it ends.
fn isolated(directory: &Path, inner: &[OsString]) -> i32 {
    let refused =
        |error| fail(&format!("cannot make private namespaces for {}: {error}", directory.display()));
    if let Err(error) = isolation::leave_mounts() {
        return refused(error);
    }
    let signals = Signals::block();
    let (sender, started) = mpsc::sync_channel::<Pid>(1);
    // The first process of the namespaces is told, and keeps the grace.
    thread::spawn(move || {
        let Ok(inner) = started.recv() else { return };
        for signal in &signals.0 {
            // It may have ended just now.
            let _ = kill(inner, signal);
        }
    });
    if let Err(error) = isolation::leave_processes() {
        return refused(error);
    }
    let Ok(executor) = env::current_exe() else { return fail("cannot find the executor itself") };
    let mut command = Command::new(executor);
    command.args(inner);
    match Child::start(command, false) {
        Ok(child) => {
            let _ = sender.send(child.pid);
            match child.wait() {
                Ended::Code(code) => code,
                Ended::Signal(signal) => 128 + signal,
            }
        }
        Err(error) => fail(&format!("cannot start in private namespaces: {error}")),
    }
}

fn lookup(name: &str) -> Option<String> {
    var(name).ok()
}

fn step(arguments: &[OsString]) -> i32 {
    let task = match Task::from_environment(lookup) {
        Ok(task) => task,
        Err(error) => return fail(&error.to_string()),
    };
    let client = match Client::new(lookup) {
        Ok(client) => client,
        Err(error) => return fail(&error.to_string()),
    };
    let fence = lookup(protocol::ENV_FENCE).unwrap_or_default();
    let holder = lookup(protocol::ENV_HOLDER).unwrap_or_default();
    let stopping = Signals::block();
    match ask_permit(&client, &PermitRequest { fence: fence.clone(), holder: holder.clone() }, &stopping) {
        Permit::Granted => {}
        Permit::Refused(reason) => {
            eprintln!("argosy-executor: not started: {reason}");
            return EXIT_REFUSED;
        }
        Permit::Stopped(signal) => return 128 + signal,
    }
    let outcome = run(&task, arguments, stopping);
    outputs::leave(&task, &outcome);
    let exit_code = outcome.exit_code;
    let is_left = outputs::is_left(&task, &outcome);
    hand_over(&client, &OutcomeRequest { fence, holder, outcome }, is_left);
    exit_code
}

enum Permit {
    Granted,
    Refused(String),
    Stopped(i32),
}

fn ask_permit(client: &Client, request: &PermitRequest, signals: &Signals) -> Permit {
    let mut wait = RETRY_FIRST;
    let mut last_problem = String::new();
    loop {
        let problem = match client.post("/v1/permit", request) {
            Ok(answer) if answer.status == 200 => return Permit::Granted,
            Ok(answer) if answer.status == 403 => return Permit::Refused(answer.body),
            Ok(answer) => format!("the agent answered {}: {}", answer.status, answer.body),
            Err(error) => error.to_string(),
        };
        if problem != last_problem {
            eprintln!("argosy-executor: waiting for the start permit: {problem}");
            last_problem = problem;
        }
        if let Some(signal) = signals.within(wait) {
            return Permit::Stopped(signal);
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

fn hand_over(client: &Client, request: &OutcomeRequest, is_left: bool) {
    let mut wait = RETRY_FIRST;
    let mut waited = Duration::ZERO;
    loop {
        let problem = match client.post("/v1/outcome", request) {
            Ok(answer) if answer.status == 200 => return,
            Ok(answer) if answer.status == 409 => {
                return eprintln!("argosy-executor: the outcome is not wanted: {}", answer.body);
            }
            Ok(answer) => format!("the agent answered {}: {}", answer.status, answer.body),
            Err(error) => error.to_string(),
        };
        if is_left && waited >= OFFER_OUTCOME_MAX {
            return eprintln!("argosy-executor: the outcome is left in a file: {problem}");
        }
        thread::sleep(wait);
        waited += wait;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn run(task: &Task, arguments: &[OsString], signals: Signals) -> TaskOutcome {
    let mut outcome = TaskOutcome { started_at_ms: now_ms(), ..TaskOutcome::default() };
    let ended = prepare(task, arguments).and_then(|command| {
        let child =
            Child::start(command, true).map_err(|error| format!("failed to start command: {error}"))?;
        Ok(child.supervise(task, signals))
    });
    match ended {
        Ok((code, result)) => {
            outcome.exit_code = code;
            outcome.result = task.capture_result.then(|| outputs::result_text(&result));
        }
        Err(message) => {
            outcome.exit_code = EXIT_EXECUTOR_ERROR;
            outcome.message = message;
        }
    }
    (outcome.parameters, outcome.output_error) = outputs::read_parameters(&task.parameters);
    outcome.finished_at_ms = now_ms();
    outcome
}

/// The user's command, with the script's path as its last argument.
fn prepare(task: &Task, arguments: &[OsString]) -> Result<Command, String> {
    let (name, rest) = arguments.split_first().ok_or("no command given")?;
    let mut command = Command::new(find_program(Path::new(name))?);
    command.arg0(name).args(rest);
    if let Some(source) = &task.script {
        command
            .arg(write_script(task, source).map_err(|error| format!("failed to write the script: {error}"))?);
    }
    for variable in PRIVATE {
        command.env_remove(variable);
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with(protocol::ENV_TASK)) {
            command.env_remove(name);
        }
    }
    if task.capture_result {
        command.stdout(Stdio::piped());
    }
    Ok(command)
}

fn write_script(task: &Task, source: &str) -> std::io::Result<PathBuf> {
    let directory = match &task.staging_directory {
        Some(directory) => PathBuf::from(directory),
        None => env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let path = directory.join("script");
    std::fs::write(&path, source)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Finds a program as a shell does, and says in Argo's words why not.
fn find_program(name: &Path) -> Result<PathBuf, String> {
    let problem =
        |reason: &str| format!("failed to find name in PATH: exec: \"{}\": {reason}", name.display());
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if name.components().count() > 1 || name.is_absolute() {
        return match (name.exists(), is_program(name)) {
            (false, _) => Err(problem(&format!("stat {}: no such file or directory", name.display()))),
            (true, false) => Err(problem("permission denied")),
            (true, true) => Ok(name.to_owned()),
        };
    }
    let path = env::var_os("PATH")
        .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    let found =
        env::split_paths(&path).map(|directory| directory.join(name)).find(|program| is_program(program));
    found.ok_or_else(|| problem("executable file not found in $PATH"))
}

/// The signals of [`PASSED_ON`], taken from this process: they wait until somebody looks.
struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    /// Must run before any other thread starts: threads inherit the mask.
    fn block() -> Self {
        let set: SigSet = PASSED_ON.into_iter().collect();
        if let Err(error) = set.thread_block() {
            eprintln!("argosy-executor: signals will not be passed on: {error}");
        }
        let (sender, receiver) = mpsc::sync_channel(SIGNALS_WAITING_MAX);
        thread::spawn(move || {
            while let Ok(signal) = set.wait() {
                // Only a storm of signals overflows; the first ones count.
                let _ = sender.try_send(signal);
            }
        });
        Self(receiver)
    }

    /// The number of a signal that arrives within this time.
    fn within(&self, span: Duration) -> Option<i32> {
        self.0.recv_timeout(span).ok().map(|signal| signal as i32)
    }
}

enum Ended {
    Code(i32),
    Signal(i32),
}

struct Child {
    pid: Pid,
    stdout: Option<ChildStdout>,
}

impl Child {
    #[expect(
        unsafe_code,
        reason = "between fork and exec: resets the signal mask, asks to die with the executor"
    )]
    fn start(mut command: Command, is_user: bool) -> std::io::Result<Self> {
        if is_user {
            command.process_group(0);
        }
        // SAFETY: both calls are async-signal-safe system calls without allocation.
        unsafe {
            command.pre_exec(move || {
                // An executor keeps the mask, so that no signal is lost before it looks.
                if is_user {
                    SigSet::empty().thread_set_mask()?;
                }
                // What the executor started must not outlive it: nobody else would end it or report on it.
                set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        Ok(Self {
            pid: Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?),
            stdout: child.stdout.take(),
        })
    }

    /// Waits for the child; reaps whatever else ends meanwhile, as the first process of a container must.
    fn wait(&self) -> Ended {
        loop {
            match waitpid(None, None) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.pid => return Ended::Code(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.pid => {
                    return Ended::Signal(signal as i32);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                // The child cannot be waited for any more: it was there a moment ago.
                Err(_) => return Ended::Signal(Signal::SIGKILL as i32),
            }
        }
    }

    /// Runs to the end: passes signals on, keeps standard output. Gives Argo's exit code and the output.
    fn supervise(mut self, task: &Task, signals: Signals) -> (i32, Vec<u8>) {
        let asked_to_stop = Arc::new(AtomicI32::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let group = self.pid;
        let grace = Duration::from_millis(task.stop_grace_ms);
        {
            let (asked_to_stop, over) = (Arc::clone(&asked_to_stop), Arc::clone(&over));
            thread::spawn(move || pass_on(&signals, group, grace, &asked_to_stop, &over));
        }
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (sender, drained) = mpsc::sync_channel(1);
        if let Some(stdout) = self.stdout.take() {
            let kept = Arc::clone(&kept);
            thread::spawn(move || {
                tee(stdout, &kept);
                sender.send(())
            });
        } else {
            drop(sender);
        }
        let ended = self.wait();
        over.store(true, Ordering::SeqCst);
        // As a container's: what the command left running ends with it.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = drained.recv_timeout(DRAIN_MAX);
        let kept = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
        let asked = asked_to_stop.load(Ordering::SeqCst);
        let code = match ended {
            Ended::Code(code) => code,
            Ended::Signal(_) if asked != 0 => 128 + asked,
            // Argo reports a command that died of a signal nobody sent through it as exit code 1.
            Ended::Signal(_) => 1,
        };
        (code, kept)
    }
}

fn pass_on(
    signals: &Signals,
    group: Pid,
    grace: Duration,
    asked_to_stop: &AtomicI32,
    over: &Arc<AtomicBool>,
) {
    for signal in &signals.0 {
        if over.load(Ordering::SeqCst) {
            continue;
        }
        if matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT)
            && asked_to_stop.load(Ordering::SeqCst) == 0
        {
            asked_to_stop.store(signal as i32, Ordering::SeqCst);
            let over = Arc::clone(over);
            thread::spawn(move || {
                thread::sleep(grace);
                if !over.load(Ordering::SeqCst) {
                    let _ = killpg(group, Signal::SIGKILL);
                }
            });
        }
        // The group may not be there yet or no more: then the process itself.
        if killpg(group, signal).is_err() {
            let _ = kill(group, signal);
        }
    }
}

/// Copies to the executor's own standard output; keeps the first part.
fn tee(mut from: ChildStdout, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 16 * 1024];
    let mut stdout = std::io::stdout().lock();
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let part = &buffer[..length];
        {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let room = RESULT_BYTES_MAX - kept.len();
            kept.extend_from_slice(&part[..length.min(room)]);
        }
        // A log that cannot be written must not stop the command.
        let _ = stdout.write_all(part);
        let _ = stdout.flush();
    }
}
