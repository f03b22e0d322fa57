//! Member-to-member transport: one outgoing stream per peer, frames in order, bounded, dropped when the peer is slow.

use crate::identity::peer_identity;
use crate::mailbox::{Mail, Mailbox};
use argosy_model::MemberId;
use argosy_pki::{AuthorityFiles, Identity};
use argosy_proto::peer::peer_client::PeerClient;
use argosy_proto::peer::peer_server::Peer;
use argosy_proto::peer::{AuthorityKey, AuthorityRequest, ExchangeClosed, LogsRequest, PeerFrame};
use argosy_telemetry::Metrics;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::connect::Dialer;
use crate::core::Published;
use crate::directory::Directory;
use crate::logs::LogRegistry;
use argosy_proto::agent::LogChunk;

/// Frames that wait for one peer; more are dropped and counted (consensus and relays repeat what matters).
const PEER_QUEUE_MAX: usize = 4_096;
/// Pause between two attempts to reach a peer.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// Longest frame that is accepted: a full batch, or a snapshot chunk, with room to spare.
pub(crate) const PEER_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The outgoing side: frames for each peer. Cheap to clone.
#[derive(Clone)]
pub struct PeerLinks {
    links: Arc<RwLock<BTreeMap<MemberId, Link>>>,
    own: MemberId,
    dialer: Dialer,
    mailbox: Mailbox,
    metrics: Metrics,
    stop: CancellationToken,
}

/// The way to one peer.
struct Link {
    address: String,
    sender: mpsc::Sender<PeerFrame>,
    connected: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl PeerLinks {
    /// No links yet: [`Self::keep`] makes them. All end with `stop`.
    #[must_use]
    pub fn new(
        own: MemberId,
        dialer: &Dialer,
        mailbox: &Mailbox,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            links: Arc::default(),
            own,
            dialer: dialer.clone(),
            mailbox: mailbox.clone(),
            metrics: metrics.clone(),
            stop: stop.clone(),
        }
    }

    /// Keeps a stream open to each of these peers, and to no others.
    pub fn keep(&self, peers: &BTreeMap<MemberId, String>) {
        let unchanged = |links: &BTreeMap<MemberId, Link>| {
            let others = peers.iter().filter(|(member, _)| **member != self.own);
            others
                .map(|(member, address)| (*member, address.as_str()))
                .eq(links.iter().map(|(member, link)| (*member, link.address.as_str())))
        };
        if unchanged(&self.links.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.retain(|member, link| {
            let stays = peers.get(member) == Some(&link.address);
            if !stays {
                link.stop.cancel();
            }
            stays
        });
        for (member, address) in peers.iter().filter(|(member, _)| **member != self.own) {
            links.entry(*member).or_insert_with(|| self.start(*member, address));
        }
    }

    /// A task that keeps a stream to the peer open.
    fn start(&self, member: MemberId, address: &str) -> Link {
        let (sender, receiver) = mpsc::channel(PEER_QUEUE_MAX);
        let (connected, stop) = (Arc::new(AtomicBool::new(false)), self.stop.child_token());
        let link = PeerLink {
            member,
            address: address.to_owned(),
            dialer: self.dialer.clone(),
            mailbox: self.mailbox.clone(),
            metrics: self.metrics.clone(),
            connected: Arc::clone(&connected),
        };
        tokio::spawn(link.run(receiver, stop.clone()));
        Link { address: address.to_owned(), sender, connected, stop }
    }

    /// Whether the stream to the peer stands.
    #[must_use]
    pub fn is_connected(&self, member: MemberId) -> bool {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&member).is_some_and(|link| link.connected.load(Ordering::Relaxed))
    }

    /// Queues a frame, or drops it when the peer's queue is full.
    pub fn send(&self, to: MemberId, frame: PeerFrame) {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        let Some(link) = links.get(&to) else { return };
        if link.sender.try_send(frame).is_ok() {
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
    connected: Arc<AtomicBool>,
}

impl PeerLink {
    async fn run(self, mut queue: mpsc::Receiver<PeerFrame>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.connected.store(false, Ordering::Relaxed),
                ended = self.exchange(&mut queue) => {
                    if let Err(error) = ended {
                        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                        tracing::debug!(peer = self.member, %error, source, "the stream to a peer ended");
                    }
                }
            }
            self.connected.store(false, Ordering::Relaxed);
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
        self.connected.store(true, Ordering::Relaxed);
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
    /// The members; a certificate for another id is refused.
    pub directory: Directory,
    /// Where frames go.
    pub mailbox: Mailbox,
    /// Logs of agents connected here.
    pub logs: LogRegistry,
    /// Counters.
    pub metrics: Metrics,
    /// Committed state.
    pub published: watch::Receiver<Published>,
    /// This member's certificate authorities.
    pub files: Arc<AuthorityFiles>,
}

impl PeerService {
    fn authenticate<T>(&self, request: &Request<T>) -> Result<MemberId, Status> {
        let refuse = |reason: &'static str, message: String| {
            self.metrics.peer_frames_dropped.with_label_values(&[reason]).inc();
            tracing::warn!(reason, message, "refused a peer");
            Status::permission_denied(message)
        };
        match peer_identity(request).map(|peer| peer.identity) {
            Ok(Identity::Member(member)) if self.directory.members().contains_key(&member) => Ok(member),
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

    /// Whoever may ask has the key of the present authority already, and so may be any member.
    async fn authority(&self, request: Request<AuthorityRequest>) -> Result<Response<AuthorityKey>, Status> {
        let from = self.authenticate(&request)?;
        let fingerprint = request.into_inner().fingerprint;
        let row = self.published.borrow().state.authorities().cloned();
        let row = row.filter(|row| !row.next.is_empty() && row.next == fingerprint);
        let row = row.ok_or_else(|| Status::not_found("no roll to such an authority is under way"))?;
        let found = self.files.find(&row.next_der).map_err(|error| Status::internal(error.to_string()))?;
        let authority = found.ok_or_else(|| Status::not_found("this member has no such key"))?;
        tracing::info!(from, "gave the key of the next certificate authority to a member");
        Ok(Response::new(AuthorityKey { key_der: authority.key_der() }))
    }
}

/// Asks a peer for the key of a certificate authority.
///
/// # Errors
/// The peer has none of it.
pub async fn peer_authority(channel: Channel, fingerprint: Vec<u8>) -> Result<Vec<u8>, Status> {
    let answer = PeerClient::new(channel).authority(AuthorityRequest { fingerprint }).await?;
    Ok(answer.into_inner().key_der)
}

/// Asks a peer for the logs of an attempt on a cluster that may be connected there.
pub async fn peer_logs(channel: Channel, request: LogsRequest) -> Result<Streaming<LogChunk>, Status> {
    PeerClient::new(channel).logs(request).await.map(Response::into_inner)
}
