//! The executor's life.

use crate::client::Client;
use crate::files::{self, Session};
use crate::lease::{Lease, boot_time_ms};
use crate::left::Place;
use crate::neighbours::{Hindrance, Neighbours};
use crate::process::{Child, Ended, Finished, Signals};
use crate::protocol::{
    self, EXIT_EXECUTOR_ERROR, EXIT_REFUSED, OutcomeRequest, PermitAnswer, PermitRequest, REASON_DEADLINE,
    RenewRequest, ResultObject, Task, TaskOutcome,
};
use crate::{driver, isolation, memory, outputs, program, progress, work};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::env::{self, var};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long an outcome that is also left in a file is offered to an agent that does not take it.
const OFFER_OUTCOME_MAX: Duration = Duration::from_secs(20);
/// Exit code of a process that was killed for want of memory.
const EXIT_KILLED: i32 = 137;
/// Kubernetes' word for it.
const OUT_OF_MEMORY: &str = "OOMKilled";
/// Where the kubelet reads why a container ended.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Not for the user's command to see.
const PRIVATE: [&str; 4] =
    [protocol::ENV_AGENT, protocol::ENV_TOKEN, protocol::ENV_AGENT_CERTIFICATE, protocol::ENV_HOLDER];

const USAGE: &str = "usage: argosy-executor [isolated DIRECTORY] -- COMMAND [ARGUMENT...]\n       \
                     argosy-executor [await-permit] [install DIRECTORY] [load]\n       \
                     argosy-executor driver-load | driver-save | driver-delete\n       \
                     argosy-executor plugin-tokens DIRECTORY NAME...\n       \
                     argosy-executor can-isolate DIRECTORY";

/// Runs the executor with these arguments (without the program's name) and gives its exit code.
///
/// `-- COMMAND...` runs a step as the environment tells (see [`protocol`]); `isolated DIRECTORY -- COMMAND...` does so in
/// private mount and pid namespaces with the directory as `/tmp`; `can-isolate DIRECTORY` says by its exit code whether
/// the kernel allows that; `driver-load`, `driver-save` and `driver-delete` speak to an artifact driver in the same Pod; `plugin-tokens DIRECTORY NAME...` makes the tokens of executor plugins. In an init container, one
/// after the other: `await-permit` waits for the start permit, so that what comes after it may run; `install DIRECTORY` copies
/// the executor there; `load` loads the task's input artifacts.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let code = match words.as_slice() {
        ["--", ..] => step(&arguments[1..]),
        ["await-permit" | "install" | "load", ..] => prepare_pod(&words),
        ["driver-load"] => with_driver(driver::load),
        ["driver-delete"] => with_driver(driver::delete),
        ["driver-save"] => driver_save(),
        ["plugin-tokens", directory, plugins @ ..] => {
            match work::make_tokens(Path::new(directory), plugins) {
                Ok(()) => 0,
                Err(error) => fail(&format!("cannot make the plugins' tokens in {directory}: {error}")),
            }
        }
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

/// What an init container does, one thing after the other.
fn prepare_pod(words: &[&str]) -> i32 {
    let (code, rest) = match words {
        [] => return 0,
        ["await-permit", rest @ ..] => (await_permit(), rest),
        ["install", directory, rest @ ..] => (install(Path::new(directory)), rest),
        ["load", rest @ ..] => (load(), rest),
        [..] => {
            eprintln!("{USAGE}");
            return EXIT_EXECUTOR_ERROR;
        }
    };
    if code == 0 { prepare_pod(rest) } else { code }
}

/// Loads the inputs; why it could not goes into the termination message.
fn load() -> i32 {
    let (task, client) = match (Task::from_environment(lookup), Client::new(lookup)) {
        (Ok(task), Ok(client)) => (task, Arc::new(client)),
        (Err(error), _) => return fail(&error.to_string()),
        (_, Err(error)) => return fail(&error.to_string()),
    };
    let PermitRequest { fence, holder, .. } = identity();
    let session = files::session(&task, &client, &fence, &holder);
    match files::load_inputs(&task, session.as_deref()) {
        Ok(()) => 0,
        Err(outcome) => {
            let _ = std::fs::write(TERMINATION_LOG, &outcome.input_error);
            fail(&outcome.input_error)
        }
    }
}

/// Has a driver do what the task says; why it could not goes into the termination message.
fn with_driver(act: fn(&Task) -> Result<(), String>) -> i32 {
    let task = Task::from_environment(lookup).map_err(|error| error.to_string());
    match task.and_then(|task| act(&task)) {
        Ok(()) => 0,
        Err(message) => {
            let _ = std::fs::write(TERMINATION_LOG, &message);
            fail(&message)
        }
    }
}

/// Saves outputs with a driver whenever the step's executor asks, until a signal comes.
fn driver_save() -> i32 {
    let (task, client) = match (Task::from_environment(lookup), Client::new(lookup)) {
        (Ok(task), Ok(client)) => (task, Arc::new(client)),
        (Err(error), _) => return fail(&error.to_string()),
        (_, Err(error)) => return fail(&error.to_string()),
    };
    let signals = Signals::block();
    let PermitRequest { fence, holder, .. } = identity();
    let session = files::session(&task, &client, &fence, &holder);
    let (Some(driver), Some(shared), Some(session)) = (&task.driver, &task.shared_directory, session) else {
        return fail("the task names no driver");
    };
    match driver::save(driver, Path::new(shared), session, &signals) {
        Ok(()) => 0,
        Err(error) => fail(&format!("cannot listen in {shared}: {error}")),
    }
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
        loop {
            if let Some(signal) = signals.within(Duration::from_secs(3600)) {
                // It may have ended just now.
                let _ = kill(inner, signal);
            }
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

/// The attempt and who asks for it, as the environment tells.
fn identity() -> PermitRequest {
    PermitRequest {
        fence: lookup(protocol::ENV_FENCE).unwrap_or_default(),
        holder: lookup(protocol::ENV_HOLDER).unwrap_or_default(),
        ticket: String::new(),
    }
}

fn await_permit() -> i32 {
    let client = match Client::new(lookup) {
        Ok(client) => client,
        Err(error) => return fail(&error.to_string()),
    };
    match ask_permit(&client, &identity(), &Signals::block()) {
        Permit::Granted { .. } => 0,
        Permit::Refused(reason) => {
            eprintln!("argosy-executor: not started: {reason}");
            EXIT_REFUSED
        }
        Permit::Stopped(signal) => 128 + signal,
    }
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
    let signals = Signals::block();
    let neighbours = match Neighbours::enter(&task) {
        Ok(neighbours) => neighbours,
        Err(error) => return fail(&format!("cannot use the directory shared by the containers: {error}")),
    };
    let mut request = identity();
    if task.outcome_file.is_none() {
        request.ticket.clone_from(&task.ticket);
    }
    let (asked_at_ms, result_object) = match ask_permit(&client, &request, &signals) {
        Permit::Granted { asked_at_ms, result_object } => (asked_at_ms, result_object),
        Permit::Refused(reason) => {
            eprintln!("argosy-executor: not started: {reason}");
            return EXIT_REFUSED;
        }
        Permit::Stopped(signal) => return 128 + signal,
    };
    let PermitRequest { fence, holder, .. } = request;
    let client = Arc::new(client);
    let lease = task.exclusive_lease_ms.map(|lease_ms| {
        let renewal = RenewRequest { fence: fence.clone(), holder: holder.clone() };
        Lease::begin(asked_at_ms, lease_ms, task.stop_grace_ms, Arc::clone(&client), renewal)
    });
    let (over, is_over) = mpsc::sync_channel::<()>(0);
    let session = files::session(&task, &client, &fence, &holder);
    let place = Place::new(&task, session.as_ref(), result_object.map(|object| *object));
    let outcome = thread::scope(|scope| {
        if let Some(file) = &task.progress_file {
            let (client, fence, holder) = (&client, &fence, &holder);
            scope.spawn(move || progress::tell(file, client, fence, holder, &is_over));
        }
        let outcome = match files::load_inputs(&task, session.as_deref()) {
            Err(unloaded) => *unloaded,
            Ok(()) => {
                let keeper = files::LogKeeper::start(&task);
                let stores = session.as_ref();
                let mut outcome =
                    run(&task, arguments, stores, &signals, neighbours.as_ref(), lease.as_ref());
                let log = keeper.and_then(files::LogKeeper::finish);
                files::save_outputs(&task, session.as_deref(), log.as_deref(), &mut outcome);
                outcome
            }
        };
        drop(over);
        outcome
    });
    outputs::leave(&task, &outcome);
    let exit_code = outcome.exit_code;
    let outcome = match &neighbours {
        None => Some(outcome),
        Some(neighbours) => {
            neighbours.leave(&outcome);
            neighbours.gather()
        }
    };
    if let Some(outcome) = outcome {
        // What every container has left for itself is all of it, if all of it would have been small enough.
        let is_left = outputs::is_left(&task, &outcome);
        hand_over(&client, &OutcomeRequest { fence, holder, outcome }, is_left, place.as_ref());
    }
    exit_code
}

enum Permit {
    /// When the question that was answered so was sent (CLOCK_BOOTTIME).
    Granted {
        asked_at_ms: u64,
        /// Where the result may be left.
        result_object: Option<Box<ResultObject>>,
    },
    Refused(String),
    Stopped(i32),
}

fn ask_permit(client: &Client, request: &PermitRequest, signals: &Signals) -> Permit {
    let mut wait = RETRY_FIRST;
    let mut last_problem = String::new();
    loop {
        let asked_at_ms = boot_time_ms();
        let problem = match client.post("/v1/permit", request) {
            Ok(answer) if answer.status == 200 => {
                let said = serde_json::from_str::<PermitAnswer>(&answer.body).unwrap_or_default();
                return Permit::Granted { asked_at_ms, result_object: said.result_object.map(Box::new) };
            }
            Ok(answer) if answer.status == 403 => return Permit::Refused(answer.body),
            Ok(answer) => format!("the agent answered {}: {}", answer.status, answer.body),
            Err(error) => error.to_string(),
        };
        if problem != last_problem {
            eprintln!("argosy-executor: waiting for the start permit: {problem}");
            last_problem = problem;
        }
        if let Some(signal) = signals.within(wait) {
            return Permit::Stopped(signal as i32);
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Offers the outcome until the agent has taken it. One that is left elsewhere is offered for a while only; one that may be left
/// in an object is, once the agent can't be reached for too long.
fn hand_over(client: &Client, request: &OutcomeRequest, is_left: bool, place: Option<&Place>) {
    let begun = Instant::now();
    let mut wait = RETRY_FIRST;
    let mut last_problem = String::new();
    loop {
        let problem = match client.post("/v1/outcome", request) {
            Ok(answer) if answer.status == 200 => return,
            Ok(answer) if answer.status == 409 => {
                return eprintln!("argosy-executor: the outcome is not wanted: {}", answer.body);
            }
            Ok(answer) => format!("the agent answered {}: {}", answer.status, answer.body),
            Err(error) => error.to_string(),
        };
        if is_left && begun.elapsed() >= OFFER_OUTCOME_MAX {
            return eprintln!("argosy-executor: the outcome is left in a file: {problem}");
        }
        let place = place.filter(|_| !is_left);
        if let Some(place) =
            place.filter(|place| place.outage().is_some_and(|limit| begun.elapsed() >= limit))
        {
            match place.leave(request) {
                Ok(()) => {
                    return eprintln!("argosy-executor: the outcome is left in the object store: {problem}");
                }
                Err(reason) if reason != last_problem => {
                    eprintln!(
                        "argosy-executor: the outcome is offered again: {problem}; it can't be left: {reason}"
                    );
                    last_problem = reason;
                }
                Err(_) => {}
            }
        }
        thread::sleep(wait);
        wait = (wait * 2).min(RETRY_MAX);
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Runs the command, as often as the task says, and captures what is left of it.
fn run(
    task: &Task,
    arguments: &[OsString],
    stores: Option<&Arc<Session>>,
    signals: &Signals,
    neighbours: Option<&Neighbours<'_>>,
    lease: Option<&Lease>,
) -> TaskOutcome {
    let mut outcome = TaskOutcome { started_at_ms: now_ms(), ..TaskOutcome::default() };
    if let Some(work) = &task.work {
        work::run(work, stores, signals, &mut outcome);
        outcome.finished_at_ms = now_ms();
        return outcome;
    }
    match neighbours.map_or(Ok(()), |neighbours| neighbours.await_dependencies(signals)) {
        Ok(()) => run_tries(task, arguments, signals, neighbours, lease, &mut outcome),
        Err(Hindrance::Stopped(signal)) => outcome.exit_code = 128 + signal,
        Err(Hindrance::Failed(message)) => {
            outcome.exit_code = EXIT_EXECUTOR_ERROR;
            outcome.message = message;
        }
    }
    if let Some(lease) = lease {
        lease.release();
        outcome.lease_lost = lease.is_lost();
    }
    outputs::read_parameters(&task.parameters, &mut outcome);
    if let Some(file) = &task.progress_file {
        outcome.progress = progress::last(file);
    }
    outcome.finished_at_ms = now_ms();
    outcome
}

fn run_tries(
    task: &Task,
    arguments: &[OsString],
    signals: &Signals,
    neighbours: Option<&Neighbours<'_>>,
    lease: Option<&Lease>,
    outcome: &mut TaskOutcome,
) {
    let tries_max = task.tries_max.max(1);
    let overdue = watch_deadline(task);
    for number in 1..=tries_max {
        let kills = memory::kills();
        let ended = prepare(task, arguments).and_then(|command| {
            let child =
                Child::start(command, true).map_err(|error| format!("failed to start command: {error}"))?;
            if let Some(lease) = lease {
                lease.enforce(child.pid);
            }
            let mains_over = || neighbours.is_some_and(Neighbours::mains_over);
            let is_sidecar = neighbours.is_some_and(Neighbours::is_sidecar);
            let grace = Duration::from_millis(task.stop_grace_ms);
            Ok(child.supervise(grace, signals, is_sidecar.then_some(&mains_over)))
        });
        let stopped = match ended {
            Ok(finished) => {
                // Elsewhere the count is the whole host's.
                let out_of_memory = task.shared_directory.is_some() && memory::kills() > kills;
                (outcome.exit_code, outcome.reason) = exit_code(&finished, out_of_memory);
                outcome.message = outputs::termination_message(task);
                // Only of a Pod can more be known.
                outcome.told_to_stop = finished.asked_to_stop != 0 && task.shared_directory.is_some();
                outcome.result = task.capture_result.then(|| outputs::result_text(&finished.output));
                if finished.asked_to_stop != 0 && overdue.load(Ordering::SeqCst) {
                    REASON_DEADLINE.clone_into(&mut outcome.reason);
                }
                finished.asked_to_stop != 0
            }
            Err(message) => {
                outcome.exit_code = EXIT_EXECUTOR_ERROR;
                outcome.message = message;
                false
            }
        };
        let is_lost = lease.is_some_and(Lease::is_lost);
        if outcome.exit_code == 0 || stopped || is_lost || number == tries_max {
            return;
        }
        eprintln!("argosy-executor: try {number} of {tries_max} ended with exit code {}", outcome.exit_code);
        if let Some(signal) = signals.within(Duration::from_millis(task.retry_wait_ms)) {
            outcome.exit_code = 128 + signal as i32;
            return;
        }
    }
}

/// Asks this process to stop once the step was active for too long, as a kubelet would; tells whether it did.
fn watch_deadline(task: &Task) -> Arc<AtomicBool> {
    let overdue = Arc::new(AtomicBool::new(false));
    if task.active_deadline_ms > 0 {
        let (limit, overdue) = (Duration::from_millis(task.active_deadline_ms), Arc::clone(&overdue));
        std::thread::spawn(move || {
            std::thread::sleep(limit);
            overdue.store(true, Ordering::SeqCst);
            // Blocked and waited for, like every signal: it is passed on to the command.
            let _ = kill(Pid::this(), Signal::SIGTERM);
        });
    }
    overdue
}

/// Argo's exit code for an end, and Kubernetes' reason where it is not `Error`.
fn exit_code(finished: &Finished, out_of_memory: bool) -> (i32, String) {
    match finished.ended {
        // A shell passes the end of what it ran on; Kubernetes tells of the container, whichever process it was.
        Ended::Code(code) if out_of_memory && code != 0 => (code, OUT_OF_MEMORY.to_owned()),
        Ended::Code(code) => (code, String::new()),
        Ended::Signal(_) if finished.asked_to_stop != 0 => (128 + finished.asked_to_stop, String::new()),
        Ended::Signal(signal) if out_of_memory && signal == Signal::SIGKILL as i32 => {
            (EXIT_KILLED, OUT_OF_MEMORY.to_owned())
        }
        // Argo reports a command that died of a signal nobody sent through it as exit code 1.
        Ended::Signal(_) => (1, String::new()),
    }
}

/// The user's command, with the script's path as its last argument.
fn prepare(task: &Task, arguments: &[OsString]) -> Result<Command, String> {
    let (name, rest) = arguments.split_first().ok_or("no command given")?;
    let mut command = Command::new(program::find(Path::new(name))?);
    command.arg0(name).args(rest);
    if let Some(source) = &task.script {
        let path = program::write_script(task, source);
        command.arg(path.map_err(|error| format!("failed to write the script: {error}"))?);
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
