//! Step logs: requests to agents connected here and the streams that wait for their chunks.
//!
//! Logs never pass through the member's thread: a slow reader fills its own bounded queue, and its request is then
//! cancelled, so that neither the agent's session nor the control plane waits for it. A stream that ends before its log does
//! says so in its last chunk.

use argosy_link::control::log_request_frame;
use argosy_proto::agent::{ControlFrame, LogChunk, LogRequest};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Chunks that wait for one reader; the last place is kept for the reason of an early end.
const READER_QUEUE_MAX: usize = 256;
/// A reader that fell behind by the whole queue.
const TOO_SLOW: &str =
    "the log is read more slowly than it comes and was cut off here: read the rest again, with --tail";
/// The log's agent is not there any more, or greeted anew.
const CONNECTION_ENDED: &str =
    "the connection to the cluster's agent ended and the log was cut off here: read it again";
/// Readers of one cluster at a time.
const READERS_PER_CLUSTER_MAX: usize = 256;

/// A way to send frames to a connected agent; fails when its queue is full or it is gone.
pub type AgentSender = mpsc::Sender<Result<ControlFrame, tonic::Status>>;

#[derive(Default)]
struct Registry {
    agents: BTreeMap<String, Agent>,
    next_request: u64,
    /// A cluster that a drill keeps apart.
    cut_off: Option<String>,
}

struct Agent {
    connection: u64,
    sender: AgentSender,
    readers: BTreeMap<u64, mpsc::Sender<LogChunk>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        for (request, reader) in &self.readers {
            cut_off(reader, *request, CONNECTION_ENDED);
        }
    }
}

/// Tells a reader that its log ends early, in the place that is kept for it.
fn cut_off(reader: &mpsc::Sender<LogChunk>, request: u64, why: &str) {
    // Whoever does not read any more needs no reason.
    let _ = reader.try_send(LogChunk { request, data: Vec::new(), end: true, error: why.to_owned() });
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

    /// A drill keeps this cluster apart: its readers' streams end, and nothing is asked of it.
    pub fn cut_off(&self, cluster: Option<String>) {
        let mut registry = self.lock();
        if let Some(agent) = cluster.as_ref().and_then(|cluster| registry.agents.get_mut(cluster)) {
            for (request, reader) in std::mem::take(&mut agent.readers) {
                cut_off(&reader, request, CONNECTION_ENDED);
            }
        }
        registry.cut_off = cluster;
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
        if registry.cut_off.as_deref() == Some(cluster) {
            return None;
        }
        let Registry { agents, next_request, cut_off: _ } = &mut *registry;
        let agent = agents.get_mut(cluster)?;
        if agent.readers.len() >= READERS_PER_CLUSTER_MAX {
            return None;
        }
        *next_request += 1;
        let number = *next_request;
        request.request = number;
        let (sender, receiver) = mpsc::channel(READER_QUEUE_MAX);
        agent.send(request).then(|| agent.readers.insert(number, sender))?;
        Some(ReceiverStream::new(receiver))
    }

    /// A chunk arrived from the agent. A reader that is gone or too slow loses its request.
    pub fn chunk(&self, cluster: &str, chunk: LogChunk) {
        let mut registry = self.lock();
        if registry.cut_off.as_deref() == Some(cluster) {
            return;
        }
        let Some(agent) = registry.agents.get_mut(cluster) else { return };
        let (number, end) = (chunk.request, chunk.end);
        let Some(reader) = agent.readers.get(&number) else { return };
        let delivered = (end || reader.capacity() > 1) && reader.try_send(chunk).is_ok();
        if !delivered {
            cut_off(reader, number, TOO_SLOW);
        }
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
        let chunks = slow.collect::<Vec<_>>().await;
        assert_eq!(chunks.len(), READER_QUEUE_MAX);
        assert_eq!(chunks.iter().filter(|chunk| chunk.error == TOO_SLOW).count(), 1);
        assert_eq!(chunks.last().map(|chunk| (chunk.end, chunk.error.as_str())), Some((true, TOO_SLOW)));
    }

    #[tokio::test]
    async fn a_log_that_loses_its_agent_says_so() {
        let registry = LogRegistry::default();
        let (sender, mut frames) = mpsc::channel(8);
        registry.connected("eu", 1, sender);
        let reader = registry.open("eu", LogRequest::default()).unwrap();
        registry.chunk("eu", chunk(1, false));
        registry.closed("eu", 1);
        let errors: Vec<_> = reader.map(|chunk| chunk.error).collect().await;
        assert_eq!(errors, ["", CONNECTION_ENDED]);
        frames.recv().await.unwrap().unwrap();
        assert!(frames.recv().await.is_none(), "nobody can send to the agent any more");
    }

    #[tokio::test]
    async fn a_cluster_that_a_drill_keeps_apart_is_not_asked() {
        let registry = LogRegistry::default();
        let (sender, mut frames) = mpsc::channel(8);
        registry.connected("eu", 1, sender);
        let reader = registry.open("eu", LogRequest::default()).unwrap();
        frames.recv().await.unwrap().unwrap();
        registry.cut_off(Some("eu".to_owned()));
        registry.chunk("eu", chunk(1, false));
        let errors: Vec<_> = reader.map(|chunk| chunk.error).collect().await;
        assert_eq!(errors, [CONNECTION_ENDED]);
        assert!(registry.open("eu", LogRequest::default()).is_none());
        registry.cut_off(None);
        assert!(registry.open("eu", LogRequest::default()).is_some(), "the connection was there all along");
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
