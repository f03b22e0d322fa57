//! Step logs: requests to agents connected here and the streams that wait for their chunks.
//!
//! Logs never pass through the member's thread: a slow reader fills its own bounded queue, and its request is then
//! cancelled, so that neither the agent's session nor the control plane waits for it.

use argosy_link::control::log_request_frame;
use argosy_proto::agent::{ControlFrame, LogChunk, LogRequest};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Chunks that wait for one reader.
const READER_QUEUE_MAX: usize = 256;
/// Readers of one cluster at a time.
const READERS_PER_CLUSTER_MAX: usize = 256;

/// A way to send frames to a connected agent; fails when its queue is full or it is gone.
pub type AgentSender = mpsc::Sender<Result<ControlFrame, tonic::Status>>;

#[derive(Default)]
struct Registry {
    agents: BTreeMap<String, Agent>,
    next_request: u64,
}

struct Agent {
    connection: u64,
    sender: AgentSender,
    readers: BTreeMap<u64, mpsc::Sender<LogChunk>>,
}

/// The agents connected to this member, as far as logs are concerned.
#[derive(Clone, Default)]
pub struct LogRegistry(Arc<Mutex<Registry>>);

impl LogRegistry {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// An agent's session was welcomed.
    pub fn connected(&self, cluster: &str, connection: u64, sender: AgentSender) {
        let agent = Agent { connection, sender, readers: BTreeMap::new() };
        self.lock().agents.insert(cluster.to_owned(), agent);
    }

    /// The connection is gone; its readers' streams end.
    pub fn closed(&self, cluster: &str, connection: u64) {
        let mut registry = self.lock();
        if registry.agents.get(cluster).is_some_and(|agent| agent.connection == connection) {
            registry.agents.remove(cluster);
        }
    }

    /// Asks the agent of `cluster`; `None` when it is not connected here or has too many readers.
    pub fn open(&self, cluster: &str, mut request: LogRequest) -> Option<ReceiverStream<LogChunk>> {
        let mut registry = self.lock();
        registry.next_request += 1;
        let number = registry.next_request;
        let agent = registry.agents.get_mut(cluster)?;
        if agent.readers.len() >= READERS_PER_CLUSTER_MAX {
            return None;
        }
        request.request = number;
        let (sender, receiver) = mpsc::channel(READER_QUEUE_MAX);
        agent.send(request).then(|| agent.readers.insert(number, sender))?;
        Some(ReceiverStream::new(receiver))
    }

    /// A chunk arrived from the agent. A reader that is gone or too slow loses its request.
    pub fn chunk(&self, cluster: &str, chunk: LogChunk) {
        let mut registry = self.lock();
        let Some(agent) = registry.agents.get_mut(cluster) else { return };
        let (number, end) = (chunk.request, chunk.end);
        let Some(reader) = agent.readers.get(&number) else { return };
        let delivered = reader.try_send(chunk).is_ok();
        if end || !delivered {
            agent.readers.remove(&number);
        }
        if !delivered && !end {
            agent.send(LogRequest { request: number, cancel: true, ..LogRequest::default() });
        }
    }
}

impl Agent {
    fn send(&self, request: LogRequest) -> bool {
        self.sender.try_send(Ok(log_request_frame(request))).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argosy_proto::agent::control_frame;
    use tokio_stream::StreamExt;

    fn chunk(request: u64, end: bool) -> LogChunk {
        LogChunk { request, data: b"x".to_vec(), end, error: String::new() }
    }

    #[tokio::test]
    async fn chunks_reach_their_reader_until_the_end() {
        let registry = LogRegistry::default();
        let (sender, mut frames) = mpsc::channel(4);
        assert!(registry.open("eu", LogRequest::default()).is_none(), "no agent yet");
        registry.connected("eu", 1, sender);
        let reader = registry.open("eu", LogRequest::default()).unwrap();
        frames.recv().await.unwrap().unwrap();
        registry.chunk("eu", chunk(1, false));
        registry.chunk("eu", chunk(9, false));
        registry.chunk("eu", chunk(1, true));
        assert_eq!(reader.collect::<Vec<_>>().await.len(), 2);
    }

    #[tokio::test]
    async fn a_slow_reader_is_cancelled_and_holds_up_nobody() {
        let registry = LogRegistry::default();
        let (sender, mut frames) = mpsc::channel(8);
        registry.connected("eu", 1, sender);
        let slow = registry.open("eu", LogRequest::default()).unwrap();
        frames.recv().await.unwrap().unwrap();
        for _ in 0..=READER_QUEUE_MAX {
            registry.chunk("eu", chunk(1, false));
        }
        let Some(control_frame::Body::LogRequest(cancel)) = frames.recv().await.unwrap().unwrap().body else {
            panic!("expected a cancellation")
        };
        assert!(cancel.cancel && cancel.request == 1);
        assert_eq!(slow.collect::<Vec<_>>().await.len(), READER_QUEUE_MAX);
    }

    #[tokio::test]
    async fn an_older_connections_end_leaves_the_newer_one() {
        let registry = LogRegistry::default();
        let (old, _old_frames) = mpsc::channel(4);
        let (new, _new_frames) = mpsc::channel(4);
        registry.connected("eu", 1, old);
        registry.connected("eu", 2, new);
        registry.closed("eu", 1);
        assert!(registry.open("eu", LogRequest::default()).is_some());
    }
}
