//! Several executors that share a directory, as the containers of one Pod do.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    dead_code,
    reason = "tests; each uses its part of support"
)]

mod support;

use argosy_agent_runtime::server::Executors;
use argosy_agent_runtime::{ExecutorAnswer, RuntimeEvent};
use argosy_executor::protocol::{ENV_HOLDER, Neighbour, Task, TaskOutcome};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use support::{EXECUTOR, fence, server};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// Grants every permit, records every outcome, and passes outcomes and progress on.
struct Agent {
    executors: Executors,
    outcomes: mpsc::Receiver<TaskOutcome>,
    progress: mpsc::Receiver<String>,
    _tasks: tokio::task::JoinSet<()>,
}

impl Agent {
    async fn start(directory: &Path) -> Self {
        let (serving, executors, sender, mut events) = server(directory).await;
        let (told, outcomes) = mpsc::channel(16);
        let (stepped, progress) = mpsc::channel(16);
        let mut tasks = tokio::task::JoinSet::new();
        let answering = executors.clone();
        tasks.spawn(async move {
            let _kept = sender;
            while let Some(event) = events.0.recv().await {
                match event {
                    RuntimeEvent::PermitAsked { fence, holder } => answering.grant(fence, &holder),
                    RuntimeEvent::Outcome { fence, holder, outcome } => {
                        answering.answer(&ExecutorAnswer::OutcomeRecorded { fence, holder });
                        told.send(outcome).await.unwrap();
                    }
                    RuntimeEvent::Progress { progress, .. } => stepped.send(progress).await.unwrap(),
                    _ => {}
                }
            }
        });
        tasks.spawn(async move { drop(serving.await) });
        Self { executors, outcomes, progress, _tasks: tasks }
    }

    fn run(&self, task: &Task, line: &str) -> Child {
        let mut command = Command::new(EXECUTOR);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.args(["--", "sh", "-c", line]);
        command.envs(self.executors.environment(&fence(1), task)).env(ENV_HOLDER, "pod-1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().unwrap()
    }

    async fn outcome(&mut self) -> TaskOutcome {
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), self.outcomes.recv());
        waited.await.expect("the outcome comes").unwrap()
    }
}

fn task(directory: &Path, name: &str, all: &[(&str, bool)]) -> Task {
    let containers =
        all.iter().map(|(name, sidecar)| Neighbour { name: (*name).to_owned(), sidecar: *sidecar }).collect();
    Task {
        capture_result: name == "main",
        stop_grace_ms: 2_000,
        container: name.to_owned(),
        containers,
        shared_directory: Some(directory.display().to_string()),
        ..Task::default()
    }
}

async fn code(child: &mut Child) -> i32 {
    child.wait().await.unwrap().code().unwrap()
}

#[tokio::test]
async fn a_container_starts_after_those_it_depends_on_and_one_outcome_is_handed_over() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(directory.path()).await;
    let all = [("a", false), ("main", false)];
    let shared = directory.path().join("shared");
    let file = directory.path().join("from-a").display().to_string();
    let dependent = Task { dependencies: vec!["a".into()], ..task(&shared, "main", &all) };
    let mut main = agent.run(&dependent, &format!("cat {file}"));
    let mut first = agent.run(&task(&shared, "a", &all), &format!("sleep 0.3; echo passed > {file}"));
    assert_eq!((code(&mut first).await, code(&mut main).await), (0, 0));
    let outcome = agent.outcome().await;
    assert_eq!(outcome.result.as_deref(), Some("passed"));
    let ends: Vec<_> = outcome.containers.iter().map(|one| (one.name.as_str(), one.exit_code)).collect();
    assert_eq!(ends, [("a", 0), ("main", 0)]);
    assert!(agent.outcomes.try_recv().is_err(), "one outcome for both");
}

#[tokio::test]
async fn a_dependent_of_a_failed_container_is_an_error_in_argos_words() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(directory.path()).await;
    let all = [("a", false), ("b", false)];
    let mark = directory.path().join("mark");
    let dependent = Task { dependencies: vec!["a".into()], ..task(directory.path(), "b", &all) };
    let mut second = agent.run(&dependent, &format!("touch {}", mark.display()));
    let mut first = agent.run(&task(directory.path(), "a", &all), "exit 3");
    assert_eq!((code(&mut first).await, code(&mut second).await), (3, 64));
    let outcome = agent.outcome().await;
    assert_eq!(outcome.containers[1].message, "dependency \"a\" exited with non-zero code: 3");
    assert!(!mark.exists());
}

#[tokio::test]
async fn sidecars_end_after_the_main_container_and_get_their_grace() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(directory.path()).await;
    let all = [("main", false), ("side", true)];
    let up = directory.path().join("up");
    let line = format!("trap 'exit 9' TERM; touch {}; sleep 60 & wait", up.display());
    let mut side = agent.run(&task(directory.path(), "side", &all), &line);
    support::until("the sidecar to listen to signals", async || up.exists()).await;
    let mut main = agent.run(&task(directory.path(), "main", &all), "sleep 0.5; echo done");
    // The kubelet's signal reaches all containers at once: a sidecar keeps it until the main ones are over.
    let id = side.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!((code(&mut main).await, code(&mut side).await), (0, 9));
    let outcome = agent.outcome().await;
    assert_eq!(outcome.result.as_deref(), Some("done"), "the main container was not told to end");
    let ends: Vec<_> = outcome.containers.iter().map(|one| (one.sidecar, one.exit_code)).collect();
    assert_eq!(ends, [(false, 0), (true, 9)]);
}

#[tokio::test]
async fn a_container_killed_with_its_executor_leaves_the_outcome_to_the_kubelet() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(directory.path()).await;
    let all = [("a", false), ("b", false)];
    let dependent = Task { dependencies: vec!["a".into()], ..task(directory.path(), "b", &all) };
    let mut second = agent.run(&dependent, "true");
    let up = directory.path().join("up");
    let mut first =
        agent.run(&task(directory.path(), "a", &all), &format!("touch {}; sleep 60", up.display()));
    while !up.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    first.kill().await.unwrap();
    assert_eq!(code(&mut second).await, 64, "its dependency counts as killed");
    assert!(agent.outcomes.try_recv().is_err());
}

#[tokio::test]
async fn a_failing_command_is_tried_again_as_often_as_said() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(directory.path()).await;
    let file = directory.path().join("n").display().to_string();
    let tries = |tries_max| Task { tries_max, retry_wait_ms: 10, ..task(directory.path(), "main", &[]) };
    let line = |least| format!("echo x >> {file}; test $(wc -l < {file}) -ge {least}");
    assert_eq!(code(&mut agent.run(&tries(3), &line(2))).await, 0);
    assert_eq!(agent.outcome().await.exit_code, 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 2, "a try that succeeds is the last");
    assert_eq!(code(&mut agent.run(&tries(2), &line(9))).await, 1);
    assert_eq!(agent.outcome().await.exit_code, 1);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 4);
}

#[tokio::test]
async fn progress_and_the_termination_message_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(directory.path()).await;
    let path = |name: &str| Some(directory.path().join(name).display().to_string());
    let task = Task {
        progress_file: path("progress"),
        termination_message_file: path("message"),
        ..task(directory.path(), "main", &[])
    };
    let (progress, message) =
        (task.progress_file.clone().unwrap(), task.termination_message_file.clone().unwrap());
    let go = directory.path().join("go");
    let line = format!(
        "echo 1/10 > {progress}; while [ ! -e {} ]; do sleep 0.1; done; echo 7/10 > {progress}; printf why > {message}; exit 1",
        go.display()
    );
    let mut child = agent.run(&task, &line);
    assert_eq!(agent.progress.recv().await.as_deref(), Some("1/10"));
    std::fs::write(go, "").unwrap();
    assert_eq!(code(&mut child).await, 1);
    let outcome = agent.outcome().await;
    assert_eq!((outcome.progress.as_str(), outcome.message.as_str()), ("7/10", "why"));
    assert!(std::fs::read_to_string(message).unwrap().contains("\"message\":\"why\""));
}

#[tokio::test]
async fn what_comes_after_the_permit_may_wait_for_it_alone() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(directory.path()).await;
    let mut command = Command::new(EXECUTOR);
    command.args(["await-permit", "install"]).arg(directory.path());
    command.envs(agent.executors.environment(&fence(1), &Task::default())).env(ENV_HOLDER, "pod-1");
    assert!(command.status().await.unwrap().success());
    assert!(directory.path().join("argosy-executor").exists());
}

/// Start-up and memory: the executor is in every step. The best of some tries, since other work shares the machine.
#[tokio::test]
async fn it_is_small_and_starts_at_once() {
    const TRIES: usize = 20;
    const START_MAX: std::time::Duration = std::time::Duration::from_millis(20);
    const MEMORY_KIB_MAX: u64 = 15 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let (_server, executors, _sender, mut events) = server(directory.path()).await;
    let executors = Arc::new(executors);
    let mut best = std::time::Duration::MAX;
    for number in 1..=TRIES {
        let of = fence(number as u64);
        let mut command = Command::new(EXECUTOR);
        command.args(["--", "sleep", "60"]).envs(executors.environment(&of, &Task::default()));
        command.env(ENV_HOLDER, "pod-1").stderr(Stdio::null()).kill_on_drop(true);
        let begun = std::time::Instant::now();
        let child = command.spawn().unwrap();
        events.permit_asked(of).await;
        best = best.min(begun.elapsed());
        executors.grant(of, "pod-1");
        if number == TRIES {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
            let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
            println!("start to permit request {best:?}, peak memory {peak} KiB");
            assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");
        }
    }
    assert!(best < START_MAX, "{best:?}");
}
