//! Member-to-member transport: one outgoing stream per peer, frames in order, bounded, dropped when the peer is slow.

use crate::identity::peer_identity;
use crate::mailbox::{Mail, Mailbox};
use argosy_model::MemberId;
use argosy_pki::Identity;
use argosy_proto::peer::peer_client::PeerClient;
use argosy_proto::peer::peer_server::Peer;
use argosy_proto::peer::{ExchangeClosed, LogsRequest, PeerFrame};
use argosy_telemetry::Metrics;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::connect::Dialer;
use crate::logs::LogRegistry;
use argosy_proto::agent::LogChunk;

/// Frames that wait for one peer; more are dropped and counted (consensus and relays repeat what matters).
const PEER_QUEUE_MAX: usize = 4_096;
/// Pause between two attempts to reach a peer.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// Longest frame that is accepted: a full batch, or a snapshot chunk, with room to spare.
pub(crate) const PEER_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whether the stream to each peer stands.
pub type Connected = Arc<BTreeMap<MemberId, AtomicBool>>;

/// The outgoing side: frames for each peer.
#[derive(Clone)]
pub struct PeerLinks {
    senders: BTreeMap<MemberId, mpsc::Sender<PeerFrame>>,
    connected: Connected,
    metrics: Metrics,
}

impl PeerLinks {
    /// Starts one task per peer that keeps a stream to it open until `stop`.
    pub fn start(
        peers: &BTreeMap<MemberId, String>,
        own: MemberId,
        dialer: &Dialer,
        mailbox: &Mailbox,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> Self {
        let mut senders = BTreeMap::new();
        let others = || peers.iter().filter(|(member, _)| **member != own);
        let connected: Connected =
            Arc::new(others().map(|(member, _)| (*member, AtomicBool::new(false))).collect());
        for (member, address) in others() {
            let (sender, receiver) = mpsc::channel(PEER_QUEUE_MAX);
            senders.insert(*member, sender);
            let link = PeerLink {
                member: *member,
                address: address.clone(),
                dialer: dialer.clone(),
                mailbox: mailbox.clone(),
                metrics: metrics.clone(),
                connected: Arc::clone(&connected),
            };
            tokio::spawn(link.run(receiver, stop.clone()));
        }
        Self { senders, connected, metrics: metrics.clone() }
    }

    /// Whether the stream to each peer stands.
    #[must_use]
    pub fn connected(&self) -> Connected {
        Arc::clone(&self.connected)
    }

    /// Queues a frame, or drops it when the peer's queue is full.
    pub fn send(&self, to: MemberId, frame: PeerFrame) {
        let Some(sender) = self.senders.get(&to) else { return };
        if sender.try_send(frame).is_ok() {
            self.metrics.peer_frames.with_label_values(&["sent"]).inc();
        } else {
            self.metrics.limit_hit("peer_queue_max");
            self.metrics.peer_frames_dropped.with_label_values(&["queue_full"]).inc();
        }
    }
}

struct PeerLink {
    member: MemberId,
    address: String,
    dialer: Dialer,
    mailbox: Mailbox,
    metrics: Metrics,
    connected: Connected,
}

impl PeerLink {
    fn note(&self, connected: bool) {
        if let Some(flag) = self.connected.get(&self.member) {
            flag.store(connected, Ordering::Relaxed);
        }
    }

    async fn run(self, mut queue: mpsc::Receiver<PeerFrame>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                ended = self.exchange(&mut queue) => {
                    if let Err(error) = ended {
                        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                        tracing::debug!(peer = self.member, %error, source, "the stream to a peer ended");
                    }
                }
            }
            self.note(false);
            self.mailbox.send(Mail::PeerUnreachable(self.member)).await;
            // What waits is old news by the time the peer is back.
            while queue.try_recv().is_ok() {
                self.metrics.peer_frames_dropped.with_label_values(&["unreachable"]).inc();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RECONNECT_PAUSE) => {}
            }
        }
    }

    /// One connection's life: forwards the queue until either side ends.
    async fn exchange(&self, queue: &mut mpsc::Receiver<PeerFrame>) -> Result<(), Status> {
        let channel = self
            .dialer
            .peer(self.member, &self.address)
            .await
            .map_err(|error| Status::from_error(error.into()))?;
        self.note(true);
        let mut client = PeerClient::new(channel).max_decoding_message_size(PEER_FRAME_BYTES_MAX);
        let (sender, receiver) = mpsc::channel::<PeerFrame>(256);
        let call = client.exchange(ReceiverStream::new(receiver));
        tokio::pin!(call);
        loop {
            tokio::select! {
                answer = &mut call => return answer.map(|_| ()),
                frame = queue.recv() => {
                    let Some(frame) = frame else { return Ok(()) };
                    tokio::select! {
                        answer = &mut call => return answer.map(|_| ()),
                        sent = sender.send(frame) => if sent.is_err() { return Ok(()) },
                    }
                }
            }
        }
    }
}

/// The incoming side.
pub struct PeerService {
    /// This cell; frames of another are dropped.
    pub cell: String,
    /// This member.
    pub own: MemberId,
    /// The members by configuration; a certificate for another id is refused.
    pub members: Vec<MemberId>,
    /// Where frames go.
    pub mailbox: Mailbox,
    /// Logs of agents connected here.
    pub logs: LogRegistry,
    /// Counters.
    pub metrics: Metrics,
}

impl PeerService {
    fn authenticate<T>(&self, request: &Request<T>) -> Result<MemberId, Status> {
        let refuse = |reason: &'static str, message: String| {
            self.metrics.peer_frames_dropped.with_label_values(&[reason]).inc();
            tracing::warn!(reason, message, "refused a peer");
            Status::permission_denied(message)
        };
        match peer_identity(request).map(|peer| peer.identity) {
            Ok(Identity::Member(member)) if self.members.contains(&member) => Ok(member),
            Ok(Identity::Member(member)) => {
                Err(refuse("not_member", format!("member {member} is not of this cell")))
            }
            Ok(Identity::Cluster(cluster)) => Err(refuse(
                "not_member",
                format!("cluster {cluster} is no member: agents use the agent listener"),
            )),
            Err(error) => Err(refuse("no_identity", error)),
        }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn exchange(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<ExchangeClosed>, Status> {
        let from = self.authenticate(&request)?;
        let mut frames = request.into_inner();
        while let Some(frame) = frames.next().await {
            let frame = frame?;
            let reason = if frame.version != 1 {
                Some("version")
            } else if frame.cell != self.cell {
                Some("wrong_cell")
            } else if frame.from != from || frame.to != self.own {
                Some("wrong_address")
            } else {
                None
            };
            match reason {
                None => {
                    self.metrics.peer_frames.with_label_values(&["received"]).inc();
                    self.mailbox.send(Mail::Peer { from, frame }).await;
                }
                Some(reason) => self.metrics.peer_frames_dropped.with_label_values(&[reason]).inc(),
            }
        }
        Ok(Response::new(ExchangeClosed {}))
    }

    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogChunk, Status>> + Send>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        self.authenticate(&request)?;
        let LogsRequest { cluster, request } = request.into_inner();
        let request = request.ok_or_else(|| Status::invalid_argument("a log request without its attempt"))?;
        let chunks = self.logs.open(&cluster, request).ok_or_else(|| {
            Status::not_found(format!(
                "the agent of cluster {cluster} is not connected to member {}",
                self.own
            ))
        })?;
        Ok(Response::new(Box::pin(chunks.map(Ok))))
    }
}

/// Asks a peer for the logs of an attempt on a cluster that may be connected there.
pub async fn peer_logs(channel: Channel, request: LogsRequest) -> Result<Streaming<LogChunk>, Status> {
    PeerClient::new(channel).logs(request).await.map(Response::into_inner)
}
