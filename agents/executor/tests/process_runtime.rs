//! The process runtime with real processes. It is tested here since cargo tells a binary's place to its own package only.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    dead_code,
    reason = "tests; each uses its part of support"
)]

mod support;

use argosy_agent_runtime::server::Executors;
use argosy_agent_runtime::{ExecutorAnswer, LogOptions, Runtime, RuntimeAction, RuntimeEvent};
use argosy_process::{Options, ProcessRuntime};
use argosy_proto::common::{Assignment, AttemptPhase, Fence};
use futures::StreamExt;
use std::path::Path;
use support::{Cleanup, EXECUTOR, Events, fence, record, server, until};
use tokio::sync::mpsc;

fn runtime(
    directory: &Path,
    executors: &Executors,
    events: &mpsc::Sender<RuntimeEvent>,
    isolate: bool,
) -> ProcessRuntime {
    let options = Options { isolate, ..Options::new(directory, EXECUTOR) };
    ProcessRuntime::start(options, executors.clone(), events.clone()).unwrap()
}

fn ensure(index: u64, line: &str) -> RuntimeAction {
    let script = serde_json_escape(line);
    let template_json =
        format!(r#"{{"container":{{"image":"any","command":["sh","-c"],"args":["{script}"]}}}}"#);
    RuntimeAction::Ensure(Assignment { fence: Some(fence(index)), template_json, ..Assignment::default() })
}

fn serde_json_escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Grants the one attempt that a test has.
async fn permit(runtime: &ProcessRuntime, events: &mut Events, of: Fence) -> String {
    let holder = events.permit_asked(of).await;
    runtime.act(RuntimeAction::GrantPermit { fence: of, holder: holder.clone() });
    holder
}

async fn log(runtime: &ProcessRuntime, of: Fence, follow: bool, tail_lines: i64) -> String {
    let options = LogOptions { follow, tail_lines, ..LogOptions::default() };
    let mut stream = runtime.logs(of, options).await.unwrap();
    let mut text = String::new();
    while let Some(piece) = stream.next().await {
        text.push_str(&String::from_utf8_lossy(&piece.unwrap()));
    }
    text
}

async fn listed(events: &mut Events) -> Vec<argosy_agent_runtime::AttemptObservation> {
    events
        .find(|event| match event {
            RuntimeEvent::Listed(listed) => Some(listed),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_step_runs_isolated_and_its_log_can_be_followed() {
    let directory = tempfile::tempdir().unwrap();
    let _cleanup = Cleanup(directory.path());
    let (_server, executors, sender, mut events) = server(directory.path()).await;
    let runtime = runtime(directory.path(), &executors, &sender, true);
    assert!(listed(&mut events).await.is_empty());
    runtime.act(ensure(
        1,
        "echo one; echo two >&2; cut -d' ' -f1 < /proc/self/stat | tee /tmp/argosy-own-$PPID; exit 3",
    ));
    runtime.act(ensure(1, "echo twice"));
    permit(&runtime, &mut events, fence(1)).await;
    let followed = log(&runtime, fence(1), true, 0);
    let (text, outcome) = tokio::join!(followed, record(&executors, &mut events, fence(1)));
    assert_eq!(outcome.exit_code, 3);
    assert!(text.contains("one\n") && text.contains("two\n"), "{text}");
    if runtime.is_isolating() {
        let place = directory.path().join("attempts/1.1.0/tmp");
        let own = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("argosy-own-");
        assert!(std::fs::read_dir(place).unwrap().flatten().any(own), "its /tmp is its own");
        let own: u32 = text.lines().find_map(|line| line.parse().ok()).expect("a process id was printed");
        assert!(own < 20, "its process ids are its own: {own}");
    } else {
        println!("skipped: namespaces are not permitted here");
    }
    assert_eq!(log(&runtime, fence(1), false, 1).await.lines().count(), 1);
    runtime.act(RuntimeAction::Release(fence(1)));
    runtime.act(RuntimeAction::Stop { fence: fence(1), grace_ms: 0 });
    events.find(|event| (event == RuntimeEvent::Gone(fence(1))).then_some(())).await;
    assert!(log(&runtime, fence(1), false, 0).await.contains("one\n"), "the log stays for a while");
    assert!(runtime.logs(fence(9), LogOptions::default()).await.is_err());
}

#[tokio::test]
async fn without_namespaces_it_is_a_process_group_that_is_stopped_whole() {
    let directory = tempfile::tempdir().unwrap();
    let _cleanup = Cleanup(directory.path());
    let (_server, executors, sender, mut events) = server(directory.path()).await;
    let runtime = runtime(directory.path(), &executors, &sender, false);
    assert!(!runtime.is_isolating());
    let child_file = directory.path().join("child");
    runtime.act(ensure(
        1,
        &format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", child_file.display()),
    ));
    permit(&runtime, &mut events, fence(1)).await;
    until("the child is up", async || child_file.exists()).await;
    runtime.act(RuntimeAction::Stop { fence: fence(1), grace_ms: 10_000 });
    let outcome = record(&executors, &mut events, fence(1)).await;
    assert_eq!(outcome.exit_code, 143);
    let child = std::fs::read_to_string(child_file).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    assert!(
        std::fs::read_to_string(stat).is_ok_and(|stat| stat.contains(") Z"))
            || !Path::new(&format!("/proc/{}", child.trim())).exists()
    );
}

#[tokio::test]
async fn a_stubborn_step_is_killed_at_the_end_of_its_grace() {
    let directory = tempfile::tempdir().unwrap();
    let _cleanup = Cleanup(directory.path());
    let (_server, executors, sender, mut events) = server(directory.path()).await;
    let runtime = runtime(directory.path(), &executors, &sender, true);
    runtime.act(ensure(1, "trap '' TERM; echo up; while true; do sleep 600; done"));
    permit(&runtime, &mut events, fence(1)).await;
    until("the step is up", async || log(&runtime, fence(1), false, 0).await.contains("up")).await;
    runtime.act(RuntimeAction::Stop { fence: fence(1), grace_ms: 0 });
    let seen = events
        .find(|event| match event {
            RuntimeEvent::Observed(seen) if seen.exit_code.is_some() => Some(seen),
            _ => None,
        })
        .await;
    assert_eq!((seen.phase, seen.message.as_str()), (AttemptPhase::Failed, "main: Error (exit code 137)"));
}

#[tokio::test]
async fn a_new_runtime_adopts_what_runs_and_reads_what_ended() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let _cleanup = Cleanup(directory.path());
    let (first_server, executors, sender, mut events) = server(directory.path()).await;
    let first = runtime(directory.path(), &executors, &sender, true);
    let place = |name: &str| directory.path().join(name);
    let wait_for = |name: &str| {
        format!(
            "touch {0}/up-{name}; until [ -e {0}/go-{name} ]; do sleep 0.02; done; echo {name}",
            directory.path().display()
        )
    };
    first.act(ensure(1, &wait_for("long")));
    first.act(ensure(2, &wait_for("short")));
    first.act(ensure(3, "echo never"));
    // In the order of asking, which is any.
    let mut asked = std::collections::BTreeMap::new();
    while asked.len() < 3 {
        let (fence, holder) = events
            .find(|event| match event {
                RuntimeEvent::PermitAsked { fence, holder } => Some((fence, holder)),
                _ => None,
            })
            .await;
        if fence.index < 3 {
            first.act(RuntimeAction::GrantPermit { fence, holder: holder.clone() });
        }
        asked.insert(fence.index, holder);
    }
    let (holder, waiting) = (asked[&1].clone(), asked[&3].clone());
    until("both are up", async || place("up-long").exists() && place("up-short").exists()).await;
    drop(first);
    first_server.abort();
    assert!(first_server.await.unwrap_err().is_cancelled());
    // The first agent is gone; the second step ends meanwhile and leaves its outcome.
    std::fs::write(place("go-short"), "").unwrap();
    until("the outcome is left", async || place("attempts/1.2.0/outcome.json").exists()).await;
    let (sender, receiver) = mpsc::channel(256);
    let mut events = Events(receiver);
    let options = argosy_agent_runtime::server::Options::new(executors.address(), directory.path());
    let server = argosy_agent_runtime::server::ExecutorServer::start(options, sender.clone()).await.unwrap();
    let executors = server.executors();
    let _server = tokio::spawn(server.run());
    let second = runtime(directory.path(), &executors, &sender, true);
    let fences: Vec<_> = listed(&mut events).await.into_iter().map(|seen| seen.fence).collect();
    assert_eq!(fences, [fence(1), fence(2), fence(3)]);
    let (_, outcome) = events.outcome(fence(2)).await;
    assert_eq!(outcome.result.as_deref(), Some("short"));
    assert_eq!(events.permit_asked(fence(3)).await, waiting, "the executor found its agent again");
    executors.answer(&ExecutorAnswer::Refused {
        fence: fence(3),
        holder: waiting,
        reason: "over".to_owned(),
    });
    std::fs::write(place("go-long"), "").unwrap();
    let (same, outcome) = events.outcome(fence(1)).await;
    assert_eq!((same, outcome.result.as_deref()), (holder, Some("long")));
    executors.answer(&ExecutorAnswer::OutcomeRecorded { fence: fence(1), holder: outcome.message });
    [1, 2, 3].into_iter().for_each(|index| second.act(RuntimeAction::Release(fence(index))));
}

#[tokio::test]
async fn what_cannot_be_run_is_an_error_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let _cleanup = Cleanup(directory.path());
    let (_server, executors, sender, mut events) = server(directory.path()).await;
    let runtime = runtime(directory.path(), &executors, &sender, false);
    let template_json = r#"{"container":{"image":"any"}}"#.to_owned();
    runtime.act(RuntimeAction::Ensure(Assignment {
        fence: Some(fence(1)),
        template_json,
        ..Assignment::default()
    }));
    let seen = events
        .find(|event| match event {
            RuntimeEvent::Observed(seen) => Some(seen),
            _ => None,
        })
        .await;
    assert_eq!(seen.phase, AttemptPhase::Error);
    assert!(seen.message.contains("command must be set"), "{}", seen.message);
}

#[tokio::test]
async fn a_request_runs_without_a_command_and_its_answer_is_the_result() {
    let directory = tempfile::tempdir().unwrap();
    let _cleanup = Cleanup(directory.path());
    let (_server, executors, sender, mut events) = server(directory.path()).await;
    let runtime = runtime(directory.path(), &executors, &sender, true);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut question = [0; 4096];
            let length = socket.read(&mut question).await.unwrap_or(0);
            let code = if question[..length].starts_with(b"GET /ok ") { 200 } else { 500 };
            let answer = format!("HTTP/1.1 {code} X\r\nContent-Length: 4\r\n\r\nbody");
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    for (index, path, told) in [(1, "ok", ""), (2, "no", "received non-2xx response code: 500")] {
        let template_json = format!(r#"{{"name":"t","http":{{"url":"http://{address}/{path}"}}}}"#);
        runtime.act(RuntimeAction::Ensure(Assignment {
            fence: Some(fence(index)),
            template_json,
            ..Assignment::default()
        }));
        permit(&runtime, &mut events, fence(index)).await;
        let outcome = record(&executors, &mut events, fence(index)).await;
        let verdict = outcome.verdict.unwrap();
        assert_eq!((outcome.result.as_deref(), verdict.message.as_str()), (Some("body"), told));
        assert_eq!((outcome.exit_code, verdict.failed), (0, !told.is_empty()));
    }
}

#[tokio::test]
async fn a_process_is_ready_once_it_may_run() {
    let directory = tempfile::tempdir().unwrap();
    let _cleanup = Cleanup(directory.path());
    let (_server, executors, sender, mut events) = server(directory.path()).await;
    let runtime = runtime(directory.path(), &executors, &sender, true);
    runtime.act(ensure(1, "sleep 600"));
    permit(&runtime, &mut events, fence(1)).await;
    let ready = events
        .find(|event| match event {
            RuntimeEvent::Observed(seen) if seen.ready => Some(seen),
            _ => None,
        })
        .await;
    assert_eq!((ready.fence, ready.pod_ip.as_str()), (fence(1), "127.0.0.1"));
    runtime.act(RuntimeAction::Stop { fence: fence(1), grace_ms: 10_000 });
    record(&executors, &mut events, fence(1)).await;
}
