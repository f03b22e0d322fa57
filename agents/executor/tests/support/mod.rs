//! A stand-in for the reconciler: notes events, grants permits and records outcomes unless told otherwise.

use argosy_agent_runtime::server::{ExecutorServer, Executors, Options};
use argosy_agent_runtime::{ExecutorAnswer, RuntimeEvent, StoreVerdict};
use argosy_proto::common::Fence;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::sync::mpsc;

pub const EXECUTOR: &str = env!("CARGO_BIN_EXE_argosy-executor");
const WAIT: Duration = Duration::from_secs(15);

pub fn fence(index: u64) -> Fence {
    Fence { incarnation: 1, index, ordinal: 0 }
}

/// The events' receiving end.
pub struct Events(pub mpsc::Receiver<RuntimeEvent>);

impl Events {
    /// The next event that this function makes something of; others are passed over.
    pub async fn find<T>(&mut self, mut wanted: impl FnMut(RuntimeEvent) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.0.recv().await.expect("the sender is kept");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(WAIT, search).await.expect("the event comes within the time")
    }

    pub async fn permit_asked(&mut self, of: Fence) -> String {
        self.find(|event| match event {
            RuntimeEvent::PermitAsked { fence, holder } if fence == of => Some(holder),
            _ => None,
        })
        .await
    }

    pub async fn outcome(&mut self, of: Fence) -> (String, argosy_executor::protocol::TaskOutcome) {
        self.find(|event| match event {
            RuntimeEvent::Outcome { fence, holder, outcome } if fence == of => Some((holder, outcome)),
            _ => None,
        })
        .await
    }
}

/// A server in a directory, its handle and its events.
pub async fn server(
    directory: &Path,
) -> (tokio::task::JoinHandle<()>, Executors, mpsc::Sender<RuntimeEvent>, Events) {
    let (sender, receiver) = mpsc::channel(256);
    let options = Options { answer_wait_ms: 500, ..Options::new("127.0.0.1:0".parse().unwrap(), directory) };
    let server = ExecutorServer::start(options, sender.clone()).await.unwrap();
    let executors = server.executors();
    (tokio::spawn(server.run()), executors, sender, Events(receiver))
}

/// Takes the outcome of an attempt and has its executor end.
pub async fn record(
    executors: &Executors,
    events: &mut Events,
    of: Fence,
) -> argosy_executor::protocol::TaskOutcome {
    let found = events.find(|event| match event {
        RuntimeEvent::StoreAsked { fence, holder } if fence == of => {
            let verdict = StoreVerdict::Granted;
            executors.answer(&ExecutorAnswer::Store { fence, holder, verdict });
            None
        }
        RuntimeEvent::Outcome { fence, holder, outcome } if fence == of => Some((holder, outcome)),
        _ => None,
    });
    let (holder, outcome) = found.await;
    executors.answer(&ExecutorAnswer::OutcomeRecorded { fence: of, holder });
    outcome
}

/// Ends the steps that a test leaves behind when it fails.
pub struct Cleanup<'a>(pub &'a Path);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.0.join("attempts")).into_iter().flatten().flatten() {
            let state = std::fs::read_to_string(entry.path().join("state.json")).unwrap_or_default();
            let process = state.split("\"process\":").nth(1).and_then(|rest| rest.split(',').next());
            if let Some(process) = process.filter(|process| *process != "0") {
                let _ = std::process::Command::new("kill")
                    .args(["-KILL", process])
                    .stderr(Stdio::null())
                    .status();
            }
        }
    }
}

/// Waits for something outside of the program.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(WAIT, wait).await.is_ok(), "{what} within the time");
}
