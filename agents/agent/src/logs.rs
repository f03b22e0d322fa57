//! Serves log requests beside the session.

use argosy_agent_runtime::{LogOptions, Runtime};
use argosy_proto::agent::{LogChunk, LogRequest};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// Logs read at one time.
const READERS_MAX: usize = 64;
/// Pieces that wait for the session; beyond, reading pauses.
const PIECES_WAITING_MAX: usize = 64;

/// The readers of one agent.
pub struct LogReaders {
    runtime: Arc<dyn Runtime>,
    readers: JoinSet<()>,
    by_request: BTreeMap<u64, AbortHandle>,
    pieces: mpsc::Sender<LogChunk>,
}

impl LogReaders {
    /// Nobody reads; pieces come out of the receiver.
    pub fn new(runtime: Arc<dyn Runtime>) -> (Self, mpsc::Receiver<LogChunk>) {
        let (pieces, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        (Self { runtime, readers: JoinSet::new(), by_request: BTreeMap::new(), pieces }, receiver)
    }

    /// Begins or cancels.
    pub fn request(&mut self, request: LogRequest) {
        while self.readers.try_join_next().is_some() {}
        self.by_request.retain(|_, reader| !reader.is_finished());
        let LogRequest { request: number, fence, follow, tail_lines, cancel, container } = request;
        if let Some(reader) = self.by_request.remove(&number) {
            reader.abort();
        }
        if cancel {
            return;
        }
        let pieces = self.pieces.clone();
        if self.by_request.len() >= READERS_MAX {
            let error = format!("this cluster's agent reads {READERS_MAX} logs already: try again later");
            self.readers.spawn(async move { end(&pieces, number, error).await });
            return;
        }
        let runtime = Arc::clone(&self.runtime);
        let options = LogOptions { follow, tail_lines, container };
        let reader = self.readers.spawn(async move {
            let error = match runtime.logs(fence.unwrap_or_default(), options).await {
                Err(error) => error.to_string(),
                Ok(mut log) => loop {
                    let data = match log.next().await {
                        None => break String::new(),
                        Some(Err(error)) => break error.to_string(),
                        Some(Ok(data)) => data,
                    };
                    let piece =
                        LogChunk { request: number, data: data.into(), end: false, error: String::new() };
                    if pieces.send(piece).await.is_err() {
                        return;
                    }
                },
            };
            end(&pieces, number, error).await;
        });
        self.by_request.insert(number, reader);
    }

    /// The connection that asked is gone, and with it who would read.
    pub fn clear(&mut self) {
        self.readers.abort_all();
        self.by_request.clear();
    }
}

async fn end(pieces: &mpsc::Sender<LogChunk>, request: u64, error: String) {
    // Nobody listens only when the agent ends.
    let _ = pieces.send(LogChunk { request, data: Vec::new(), end: true, error }).await;
}
