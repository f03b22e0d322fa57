//! Serves log requests, and what is asked of object stores, beside the session.

use crate::artifacts;
use argosy_agent_runtime::{LogOptions, Policy, Runtime};
use argosy_artifacts::Stores;
use argosy_proto::agent::{LogChunk, LogRequest};
use bytes::Bytes;
use futures::{Stream, StreamExt};
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
    stores: Arc<Stores>,
    policy: Option<Arc<Policy>>,
    readers: JoinSet<()>,
    by_request: BTreeMap<u64, AbortHandle>,
    pieces: mpsc::Sender<LogChunk>,
}

impl LogReaders {
    /// Nobody reads; pieces come out of the receiver.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        stores: Arc<Stores>,
        policy: Option<Arc<Policy>>,
    ) -> (Self, mpsc::Receiver<LogChunk>) {
        let (pieces, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        let (readers, by_request) = (JoinSet::new(), BTreeMap::new());
        (Self { runtime, stores, policy, readers, by_request, pieces }, receiver)
    }

    /// Begins or cancels.
    pub fn request(&mut self, request: LogRequest) {
        while self.readers.try_join_next().is_some() {}
        self.by_request.retain(|_, reader| !reader.is_finished());
        let LogRequest {
            request: number,
            fence,
            follow,
            tail_lines,
            cancel,
            container,
            artifact,
            since_ms,
            previous,
            timestamps,
        } = request;
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
        if !artifact.is_empty() {
            let (stores, policy) = (Arc::clone(&self.stores), self.policy.clone());
            let runtime = Arc::clone(&self.runtime);
            let work = self.readers.spawn(async move {
                let outcome = artifacts::carry_out(&stores, &*runtime, policy.as_deref(), &artifact).await;
                let error = match outcome {
                    Ok(outcome) => pass_on(&pieces, number, outcome).await,
                    Err(error) => Some(error),
                };
                if let Some(error) = error {
                    end(&pieces, number, error).await;
                }
            });
            self.by_request.insert(number, work);
            return;
        }
        let runtime = Arc::clone(&self.runtime);
        let options = LogOptions { follow, tail_lines, container, since_ms, previous, timestamps };
        let reader = self.readers.spawn(async move {
            let error = match runtime.logs(fence.unwrap_or_default(), options).await {
                Err(error) => Some(error.to_string()),
                Ok(log) => {
                    pass_on(&pieces, number, log.map(|part| part.map_err(|error| error.to_string()))).await
                }
            };
            if let Some(error) = error {
                end(&pieces, number, error).await;
            }
        });
        self.by_request.insert(number, reader);
    }

    /// The connection that asked is gone, and with it who would read.
    pub fn clear(&mut self) {
        self.readers.abort_all();
        self.by_request.clear();
    }
}

/// Passes a stream on; gives what its end tells, `None` when nobody listens any more.
async fn pass_on(
    pieces: &mpsc::Sender<LogChunk>,
    request: u64,
    parts: impl Stream<Item = Result<Bytes, String>>,
) -> Option<String> {
    let mut parts = std::pin::pin!(parts);
    loop {
        let data = match parts.next().await {
            None => return Some(String::new()),
            Some(Err(error)) => return Some(error),
            Some(Ok(data)) => data,
        };
        let piece = LogChunk { request, data: data.into(), end: false, error: String::new() };
        pieces.send(piece).await.ok()?;
    }
}

async fn end(pieces: &mpsc::Sender<LogChunk>, request: u64, error: String) {
    // Nobody listens only when the agent ends.
    let _ = pieces.send(LogChunk { request, data: Vec::new(), end: true, error }).await;
}
