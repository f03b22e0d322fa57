//! The executor's binary against the agent's real server over TLS.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    dead_code,
    reason = "tests; each uses its part of support"
)]

mod support;

use argosy_agent_runtime::server::Executors;
use argosy_agent_runtime::{ExecutorAnswer, RuntimeEvent};
use argosy_executor::protocol::{
    ENV_AGENT_CERTIFICATE, ENV_HOLDER, ENV_TOKEN, EXIT_REFUSED, ParameterSource, Task,
};
use argosy_proto::common::Fence;
use std::path::Path;
use std::process::{Output, Stdio};
use support::{EXECUTOR, fence, record, server};
use tokio::process::{Child, Command};

fn start(executors: &Executors, of: Fence, task: &Task, command: &[&str]) -> Command {
    let mut executor = Command::new(EXECUTOR);
    // The step's environment is compared, and must not hold what the test's own happens to.
    executor.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    executor.arg("--").args(command).envs(executors.environment(&of, task)).env(ENV_HOLDER, "pod-1");
    executor.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    executor
}

fn staged(directory: &Path) -> Task {
    Task { staging_directory: Some(directory.display().to_string()), ..Task::default() }
}

async fn end(child: Child) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test]
async fn a_permitted_command_runs_and_its_outputs_arrive() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, executors, _sender, mut events) = server(directory.path()).await;
    let path = directory.path().join("out").display().to_string();
    let mut task = staged(directory.path());
    let parameter = |name: &str, path: &str, default: Option<&str>| ParameterSource {
        name: name.to_owned(),
        path: path.to_owned(),
        default: default.map(str::to_owned),
    };
    task.parameters = vec![parameter("o", &path, None), parameter("d", "/not/there", Some("given"))];
    let message = directory.path().join("message");
    task.termination_message_file = Some(message.display().to_string());
    let line = format!(
        "echo hello; echo aside >&2; printf 'v\\n\\n' > {path}; echo $ARGOSY_FENCE; env | grep -c ARGOSY_; exit 7"
    );
    let child = start(&executors, fence(1), &task, &["sh", "-c", &line]).spawn().unwrap();
    let holder = events.permit_asked(fence(1)).await;
    assert_eq!(holder, "pod-1");
    assert!(!Path::new(&path).exists(), "nothing runs before the permit");
    executors.grant(fence(1), &holder);
    let outcome = record(&executors, &mut events, fence(1)).await;
    let (code, stdout, stderr) = end(child).await;
    assert_eq!((code, stderr.as_str()), (Some(7), "aside\n"));
    assert_eq!(stdout, "hello\n1.1.0\n1\n");
    assert_eq!(outcome.result.as_deref(), Some("hello\n1.1.0\n1"));
    assert_eq!((outcome.exit_code, outcome.output_error.as_str()), (7, ""));
    let values: Vec<_> =
        outcome.parameters.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
    assert_eq!(values, [("o", "v\n"), ("d", "given")]);
    let left = std::fs::read_to_string(message).unwrap();
    assert!(left.contains("\"exit_code\":7"), "{left}");
}

#[tokio::test]
async fn a_refused_executor_runs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, executors, _sender, mut events) = server(directory.path()).await;
    let mark = directory.path().join("mark");
    let command = ["touch", mark.to_str().unwrap()];
    let child = start(&executors, fence(1), &staged(directory.path()), &command).spawn().unwrap();
    let holder = events.permit_asked(fence(1)).await;
    // A put-off question is asked again.
    executors.answer(&ExecutorAnswer::AskAgain { fence: fence(1), holder });
    let holder = events.permit_asked(fence(1)).await;
    executors.answer(&ExecutorAnswer::Refused { fence: fence(1), holder, reason: "it is over".to_owned() });
    let (code, _, stderr) = end(child).await;
    assert_eq!(code, Some(EXIT_REFUSED));
    assert!(stderr.contains("no live lease") && stderr.contains("not started: it is over"), "{stderr}");
    assert!(!mark.exists());
}

#[tokio::test]
async fn a_permit_whose_lease_has_ended_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, executors, _sender, mut events) = server(directory.path()).await;
    let mark = directory.path().join("mark");
    let command = ["touch", mark.to_str().unwrap()];
    let child = start(&executors, fence(1), &staged(directory.path()), &command).spawn().unwrap();
    let holder = events.permit_asked(fence(1)).await;
    // Given under a lease, bound after its end; the same permit is no good a second time.
    executors.permit_until(fence(1), &holder, 1);
    executors.grant(fence(1), &holder);
    let holder = events.permit_asked(fence(1)).await;
    executors.grant(fence(1), &holder);
    let holder = events.permit_asked(fence(1)).await;
    assert!(!mark.exists());
    executors.permit_until(fence(1), &holder, u64::MAX);
    executors.grant(fence(1), &holder);
    record(&executors, &mut events, fence(1)).await;
    assert_eq!(end(child).await.0, Some(0));
    assert!(mark.exists());
}

#[tokio::test]
async fn a_foreign_token_or_another_certificate_gets_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, executors, _sender, mut events) = server(directory.path()).await;
    let other: Vec<_> = executors.environment(&fence(2), &Task::default());
    let token = &other.iter().find(|(name, _)| name == ENV_TOKEN).unwrap().1;
    let mut foreign = start(&executors, fence(1), &staged(directory.path()), &["true"]);
    let foreign = foreign.env(ENV_TOKEN, token).spawn().unwrap();
    let mut deceived = start(&executors, fence(1), &staged(directory.path()), &["true"]);
    let deceived = deceived.env(ENV_AGENT_CERTIFICATE, "00".repeat(32)).spawn().unwrap();
    // A third one shows that the server has seen their time pass.
    let third = start(&executors, fence(3), &staged(directory.path()), &["sleep", "0.5"]).spawn().unwrap();
    let event = events.0.recv().await.unwrap();
    assert_eq!(event, RuntimeEvent::PermitAsked { fence: fence(3), holder: "pod-1".to_owned() });
    executors.grant(fence(3), "pod-1");
    record(&executors, &mut events, fence(3)).await;
    assert_eq!(end(third).await.0, Some(0));
    for (child, word) in
        [(foreign, "401: the token is not this attempt's"), (deceived, "another certificate")]
    {
        nix_terminate(&child);
        let (code, _, stderr) = end(child).await;
        assert_eq!(code, Some(143), "it waits for a permit until it is told to end");
        assert!(stderr.contains(word), "{stderr}");
    }
}

fn nix_terminate(child: &Child) {
    let id = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
}

#[tokio::test]
async fn commands_that_cannot_start_are_exit_64_in_argos_words() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, executors, _sender, mut events) = server(directory.path()).await;
    let task = Task {
        parameters: vec![ParameterSource { name: "o".into(), path: "/tmp/none".into(), default: None }],
        ..staged(directory.path())
    };
    let child = start(&executors, fence(1), &task, &["no-such-command", "x"]).spawn().unwrap();
    let holder = events.permit_asked(fence(1)).await;
    executors.grant(fence(1), &holder);
    let outcome = record(&executors, &mut events, fence(1)).await;
    assert_eq!(end(child).await.0, Some(64));
    assert_eq!(
        outcome.message,
        "failed to find name in PATH: exec: \"no-such-command\": executable file not found in $PATH"
    );
    assert_eq!(
        outcome.output_error,
        "open /var/run/argo/outputs/parameters/tmp/none: no such file or directory"
    );
}

#[tokio::test]
async fn stopping_reaches_the_whole_group_and_gives_argos_codes() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, executors, _sender, mut events) = server(directory.path()).await;
    let task = Task { stop_grace_ms: 300, ..staged(directory.path()) };
    // Dies of the signal; ends well on it; ignores it; kills itself.
    let lines = [
        "echo up; sleep 60",
        "trap 'exit 5' TERM; echo up; sleep 60 & wait",
        "trap '' TERM; echo up; sleep 60 & wait; wait; wait",
        "kill -9 $$",
    ];
    for (number, (line, code)) in lines.into_iter().zip([143, 5, 143, 1]).enumerate() {
        let of = fence(number as u64 + 1);
        let mut child = start(&executors, of, &task, &["sh", "-c", line]).spawn().unwrap();
        let holder = events.permit_asked(of).await;
        executors.grant(of, &holder);
        if code != 1 {
            let mut up = [0; 3];
            tokio::io::AsyncReadExt::read_exact(child.stdout.as_mut().unwrap(), &mut up).await.unwrap();
            nix_terminate(&child);
        }
        let outcome = record(&executors, &mut events, of).await;
        assert_eq!((end(child).await.0, outcome.exit_code), (Some(code), code), "{line}");
    }
}

#[tokio::test]
async fn a_script_is_the_last_argument_and_large_results_are_cut() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, executors, _sender, mut events) = server(directory.path()).await;
    let script = format!("# {}\nhead -c 300000 /dev/zero | tr '\\0' x\n", "é".repeat(150_000));
    let task = Task { script: Some(script), ..staged(directory.path()) };
    let child = start(&executors, fence(1), &task, &["sh"]).spawn().unwrap();
    // Read meanwhile, or the pipe would hold the command up.
    let reading = tokio::spawn(end(child));
    let holder = events.permit_asked(fence(1)).await;
    executors.grant(fence(1), &holder);
    // Without an answer the outcome is sent again.
    events.outcome(fence(1)).await;
    let outcome = record(&executors, &mut events, fence(1)).await;
    let (code, stdout, _) = reading.await.unwrap();
    assert_eq!((code, stdout.len()), (Some(0), 300_000));
    assert_eq!(outcome.result.unwrap().len(), argosy_executor::protocol::RESULT_BYTES_MAX);
}

#[tokio::test]
async fn it_installs_itself() {
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new(EXECUTOR).arg("install").arg(directory.path()).status().await.unwrap();
    assert!(status.success());
    let copy = Command::new(directory.path().join("argosy-executor")).output().await.unwrap();
    assert!(String::from_utf8_lossy(&copy.stderr).starts_with("usage: "), "{copy:?}");
}
