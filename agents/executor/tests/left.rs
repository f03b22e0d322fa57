//! What becomes of a result when its agent can't be reached: the executor's binary, the agent's real server and a small store.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    dead_code,
    reason = "tests; each uses its part of support"
)]

mod support;

use argosy_agent_runtime::ExecutorAnswer;
use argosy_agent_runtime::server::{Artifacts, Executors, Left, Unread};
use argosy_executor::artifacts::{Answer, Operation, Signed, Ticket};
use argosy_executor::protocol::{ENV_HOLDER, ResultObject, ResultReference, Task};
use argosy_model::result_key;
use argosy_proto::common::{Assignment, Fence};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{EXECUTOR, fence, record, server, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const SECRET: &str = "of-nobody-else";

/// Objects by key, behind HTTP; what is asked for without the signature of the hour is refused.
#[derive(Default)]
struct Store {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    is_down: AtomicBool,
    /// Signatures count up; older ones have run out.
    signed: AtomicUsize,
    refused: AtomicUsize,
}

impl Store {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((socket, _)) = listener.accept().await {
            let store = Arc::clone(&self);
            tokio::spawn(async move { store.answer(socket).await });
        }
    }

    async fn answer(&self, mut socket: TcpStream) -> Option<()> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).await.ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        socket.read_exact(&mut body).await.ok()?;
        let (key, query) = head.split(' ').nth(1).unwrap().split_once('?').unwrap();
        // The answer with the newest one may have been lost with the agent.
        let newest = self.signed.load(Ordering::SeqCst);
        let is_signed = [newest, newest - 1].iter().any(|number| query == format!("{SECRET}-{number}"));
        let status = match (self.is_down.load(Ordering::SeqCst), is_signed) {
            (true, _) => "503 Service Unavailable",
            (false, false) => "403 Forbidden",
            (false, true) => "200 OK",
        };
        if status == "200 OK" {
            self.objects.lock().unwrap().insert(key.trim_start_matches('/').to_owned(), body);
        } else {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        socket.write_all(answer.as_bytes()).await.ok()
    }
}

/// The agent's way to it.
struct Way {
    store: Arc<Store>,
    address: String,
    renew_after_ms: u64,
}

#[async_trait]
impl Artifacts for Way {
    async fn answer(
        &self,
        fence: &Fence,
        ticket: &Ticket,
        operation: Operation,
    ) -> Result<Answer, (String, bool)> {
        assert_eq!(operation, Operation::ResultObject);
        let key = result_key(&ticket.prefix, fence);
        let number = self.store.signed.fetch_add(1, Ordering::SeqCst) + 1;
        let url = format!("http://{}/{key}?{SECRET}-{number}", self.address);
        let request = Signed { url, addresses: vec![self.address.clone()], ..Signed::default() };
        let object = ResultObject { key, request, renew_after_ms: self.renew_after_ms, outage_ms: 200 };
        Ok(Answer::ResultObject { object: Some(object) })
    }

    async fn read_file(&self, _: &Ticket, _: &str, _: u64) -> Result<Vec<u8>, (String, bool)> {
        unreachable!("no step of these reads files")
    }

    async fn archive(&self, _: &Fence, _: &Ticket, _: &str) -> Result<(std::fs::File, u64), (String, bool)> {
        unreachable!("no step of these has repositories")
    }

    async fn read_result(
        &self,
        fence: &Fence,
        ticket: &Ticket,
        _: u64,
    ) -> Result<(String, Vec<u8>), (String, bool)> {
        let key = result_key(&ticket.prefix, fence);
        if self.store.is_down.load(Ordering::SeqCst) {
            return Err(("the store does not answer".to_owned(), false));
        }
        let found = self.store.objects.lock().unwrap().get(&key).cloned();
        found.map(|bytes| (key, bytes)).ok_or_else(|| ("nothing is there".to_owned(), true))
    }

    async fn delete_result(&self, fence: &Fence, ticket: &Ticket) -> Result<(), (String, bool)> {
        self.store.objects.lock().unwrap().remove(&result_key(&ticket.prefix, fence));
        Ok(())
    }
}

async fn way(executors: &Executors, renew_after_ms: u64) -> Arc<Store> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (store, address) = (Arc::new(Store::default()), listener.local_addr().unwrap().to_string());
    tokio::spawn(Arc::clone(&store).serve(listener));
    executors.set_artifacts(Arc::new(Way { store: Arc::clone(&store), address, renew_after_ms }));
    executors.lease_until(u64::MAX);
    store
}

fn task(executors: &Executors, directory: &Path, of: Fence) -> (Task, PathBuf) {
    let assignment = Assignment {
        fence: Some(of),
        namespace: "default".to_owned(),
        template_json: r#"{"archiveLocation": {"s3": {"bucket": "b", "key": "k"}}}"#.to_owned(),
        artifact_prefix: "own/".to_owned(),
        ..Assignment::default()
    };
    let message = directory.join(format!("message-{}", of.index));
    let mut task = Task {
        staging_directory: Some(directory.display().to_string()),
        termination_message_file: Some(message.display().to_string()),
        ..Task::default()
    };
    executors.give_ticket(&assignment, &mut task);
    assert!(!task.ticket.is_empty(), "a store is enough for a ticket");
    (task, message)
}

/// The permit has arrived.
async fn begun(gate: &Path) {
    until("the command begins", async || gate.with_extension("begun").exists()).await;
}

/// Writes ten thousand characters once it may.
fn start(executors: &Executors, of: Fence, task: &Task, gate: &Path) -> Child {
    let script = format!(
        "touch {0}.begun; until test -e {0}; do sleep 0.02; done; head -c 10000 /dev/zero | tr '\\0' x",
        gate.display()
    );
    let mut executor = Command::new(EXECUTOR);
    executor.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    executor
        .args(["--", "sh", "-c", &script])
        .envs(executors.environment(&of, task))
        .env(ENV_HOLDER, "pod-1");
    executor.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    executor.spawn().unwrap()
}

fn reference(message: &Path) -> ResultReference {
    serde_json::from_slice(&std::fs::read(message).unwrap()).unwrap()
}

async fn said(child: Child) -> (Option<i32>, String) {
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    let output = output.expect("the executor ends").unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_long_result_is_left_in_the_store_and_read_once_it_is_what_was_told() {
    let directory = tempfile::tempdir().unwrap();
    let (serving, executors, _sender, mut events) = server(directory.path()).await;
    let store = way(&executors, 600_000).await;
    let (task, message) = task(&executors, directory.path(), fence(1));
    let gate = directory.path().join("gate");
    let child = start(&executors, fence(1), &task, &gate);
    let holder = events.permit_asked(fence(1)).await;
    executors.grant(fence(1), &holder);
    // The agent is gone when the command ends; so is the store at first.
    store.is_down.store(true, Ordering::SeqCst);
    begun(&gate).await;
    serving.abort();
    std::fs::write(&gate, "").unwrap();
    until("a try fails", async || store.refused.load(Ordering::SeqCst) > 0).await;
    assert!(!message.exists(), "nothing is told that is not there");
    store.is_down.store(false, Ordering::SeqCst);
    let (code, stderr) = said(child).await;
    assert_eq!(code, Some(0));
    assert!(stderr.contains("left in the object store") && !stderr.contains(SECRET), "{stderr}");
    let text = std::fs::read_to_string(&message).unwrap();
    assert!(!text.contains(SECRET) && text.len() < 400, "{text}");

    let left = Left { reference: reference(&message), ticket: task.ticket.clone() };
    assert_eq!(left.reference.key, "own/1.1.0.result.json");
    let read = executors.read_left(&fence(1), "pod-1", &left).await.unwrap();
    assert_eq!((read.exit_code, read.result.unwrap().len()), (0, 10_000));
    let never = async |of: u64, holder: &str, left: &Left, why: &str| match executors
        .read_left(&fence(of), holder, left)
        .await
    {
        Err(Unread::Never(reason)) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{why}: {other:?}"),
    };
    // Neither another attempt's ticket nor another one's object or holder will do.
    never(2, "pod-1", &left, "ticket").await;
    never(1, "pod-2", &left, "another attempt").await;
    let other_key = ResultReference { key: "own/1.2.0.result.json".to_owned(), ..left.reference.clone() };
    never(1, "pod-1", &Left { reference: other_key, ..left.clone() }, "another attempt's object").await;
    let newer = ResultReference { result_object: 2, ..left.reference.clone() };
    never(1, "pod-1", &Left { reference: newer, ..left.clone() }, "version").await;
    let huge = ResultReference { bytes: u64::MAX, ..left.reference.clone() };
    never(1, "pod-1", &Left { reference: huge, ..left.clone() }, "larger").await;
    store.is_down.store(true, Ordering::SeqCst);
    let later = executors.read_left(&fence(1), "pod-1", &left).await;
    assert!(matches!(later, Err(Unread::Later(_))), "{later:?}");
    store.is_down.store(false, Ordering::SeqCst);
    store.objects.lock().unwrap().values_mut().for_each(|object| object[100] ^= 1);
    never(1, "pod-1", &left, "another digest").await;
    executors.delete_left(&fence(1), &left).await.unwrap();
    assert!(store.objects.lock().unwrap().is_empty());
    never(1, "pod-1", &left, "nothing is there").await;
}

#[tokio::test]
async fn a_request_for_the_result_is_renewed_while_the_command_runs() {
    let directory = tempfile::tempdir().unwrap();
    let (serving, executors, _sender, mut events) = server(directory.path()).await;
    let store = way(&executors, 100).await;
    let (task, message) = task(&executors, directory.path(), fence(1));
    let gate = directory.path().join("gate");
    let child = start(&executors, fence(1), &task, &gate);
    let holder = events.permit_asked(fence(1)).await;
    executors.grant(fence(1), &holder);
    begun(&gate).await;
    // The one that came with the permit has run out by then.
    until("another request", async || store.signed.load(Ordering::SeqCst) > 3).await;
    serving.abort();
    std::fs::write(&gate, "").unwrap();
    assert_eq!(said(child).await.0, Some(0));
    assert_eq!(
        reference(&message).bytes as usize,
        store.objects.lock().unwrap()["own/1.1.0.result.json"].len()
    );
}

#[tokio::test]
async fn an_agent_that_is_back_in_time_takes_the_result_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let (_serving, executors, _sender, mut events) = server(directory.path()).await;
    let store = way(&executors, 600_000).await;
    store.is_down.store(true, Ordering::SeqCst);
    let (task, message) = task(&executors, directory.path(), fence(1));
    let gate = directory.path().join("gate");
    std::fs::write(&gate, "").unwrap();
    let child = start(&executors, fence(1), &task, &gate);
    let holder = events.permit_asked(fence(1)).await;
    executors.grant(fence(1), &holder);
    // Without answers it is offered again, and the store does not take it either.
    until("a try fails", async || store.refused.load(Ordering::SeqCst) > 0).await;
    let mut saying = tokio::spawn(said(child));
    // What waits here is partly of tries that nobody listens to any more.
    let (code, _) = loop {
        tokio::select! {
            said = &mut saying => break said.unwrap(),
            outcome = record(&executors, &mut events, fence(1)) => {
                assert_eq!(outcome.result.unwrap().len(), 10_000);
            }
        }
    };
    assert_eq!(code, Some(0));
    assert!(!message.exists() && store.objects.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_store_the_result_waits_for_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let (_serving, executors, _sender, mut events) = server(directory.path()).await;
    let (mut task, message) = task(&executors, directory.path(), fence(1));
    task.ticket = String::new();
    let gate = directory.path().join("gate");
    std::fs::write(&gate, "").unwrap();
    let child = start(&executors, fence(1), &task, &gate);
    let holder = events.permit_asked(fence(1)).await;
    executors.grant(fence(1), &holder);
    for _ in 0..3 {
        events.outcome(fence(1)).await;
    }
    let (holder, outcome) = events.outcome(fence(1)).await;
    executors.answer(&ExecutorAnswer::OutcomeRecorded { fence: fence(1), holder });
    assert_eq!(outcome.result.unwrap().len(), 10_000);
    assert_eq!(said(child).await.0, Some(0));
    assert!(!message.exists());
}
