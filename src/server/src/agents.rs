//! The agent listener: enrolment with an invite, certificate renewal, and sessions.

use crate::core::clock;
use crate::identities::{Identities, Shown};
use crate::identity::{Peer, peer_identity};
use crate::logs::LogRegistry;
use crate::mailbox::{AgentConnection, Mail, Mailbox};
use argosy_pki::{Identity, fingerprint};
use argosy_proto::agent::agent_link_server::AgentLink;
use argosy_proto::agent::{
    AgentFrame, CertificateTaken, ControlFrame, EnrolRequest, EnrolResponse, RenewCertificateRequest,
    agent_frame, control_frame,
};
use argosy_telemetry::Metrics;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Frames that wait for one agent; an agent that is slower than this loses its connection and resyncs.
const AGENT_QUEUE_MAX: usize = 4_096;
/// Longest frame of an agent: a page of its resync.
pub(crate) const AGENT_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Questions about certificates of one connection that are being decided; further ones are dropped, and asked again.
const CERTIFICATE_QUESTIONS_MAX: usize = 4;

/// What an agent asks about its certificates over its session.
struct Certificates {
    identities: Identities,
    shown: Shown,
    answers: mpsc::WeakSender<Result<ControlFrame, Status>>,
    free: Arc<Semaphore>,
}

impl Certificates {
    fn renew(&self, request: RenewCertificateRequest) {
        let Ok(place) = Arc::clone(&self.free).try_acquire_owned() else { return };
        let (identities, shown, answers) =
            (self.identities.clone(), self.shown.clone(), self.answers.clone());
        tokio::spawn(async move {
            let frame = identities.renew_in_session(&shown, request).await;
            if let Some(answers) = answers.upgrade() {
                // A full queue ends the connection elsewhere; the agent asks again.
                let _ = answers.try_send(Ok(frame));
            }
            drop(place);
        });
    }

    /// An agent that says whom it trusts is told if that is not right any more.
    fn compare_roots(&self, trusts: &[Vec<u8>]) {
        let roots = self.identities.signer.trust_roots();
        let digests: Vec<Vec<u8>> = roots.roots_der.iter().map(|root| fingerprint(root).to_vec()).collect();
        if !trusts.is_empty() && trusts != digests {
            self.tell_roots();
        }
    }

    fn tell_roots(&self) {
        let body = control_frame::Body::TrustRoots(self.identities.signer.trust_roots());
        if let Some(answers) = self.answers.upgrade() {
            // Told again with the next session, if it gets lost.
            let _ = answers.try_send(Ok(ControlFrame { version: 1, session_epoch: 0, body: Some(body) }));
        }
    }

    fn taken(&self, taken: CertificateTaken) {
        let Ok(place) = Arc::clone(&self.free).try_acquire_owned() else { return };
        let (identities, shown) = (self.identities.clone(), self.shown.clone());
        tokio::spawn(async move {
            identities.taken(&shown, taken).await;
            drop(place);
        });
    }
}

/// The gRPC service for agents.
pub struct AgentService {
    /// Where frames and commands go.
    pub mailbox: Mailbox,
    /// Issues certificates.
    pub identities: Identities,
    /// Logs of agents connected here.
    pub logs: LogRegistry,
    /// Counters.
    pub metrics: Metrics,
    /// Numbers connections within this process.
    pub connections: Arc<AtomicU64>,
}

impl AgentService {
    /// Who the client's certificate shows. One that has run out may renew, and nothing else.
    fn shown<T>(&self, request: &Request<T>, expired_too: bool) -> Result<Shown, Status> {
        let refuse = |reason: &'static str, message: String| {
            self.metrics.agent_frames_refused.with_label_values(&[reason]).inc();
            tracing::warn!(reason, message, "refused an agent");
            Status::unauthenticated(message)
        };
        match peer_identity(request) {
            Ok(Peer { validity, .. }) if !expired_too && validity.is_over(clock().wall_ms) => {
                Err(refuse("expired", "the certificate has expired: renew it first".to_owned()))
            }
            Ok(Peer { identity: Identity::Cluster(cluster), generation, .. }) => {
                Ok(Shown { cluster, generation })
            }
            Ok(Peer { identity: Identity::Member(member), .. }) => {
                Err(refuse("not_an_agent", format!("member {member} is no agent")))
            }
            Err(error) => Err(refuse("no_identity", error)),
        }
    }
}

#[tonic::async_trait]
impl AgentLink for AgentService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ControlFrame, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let shown = self.shown(&request, false)?;
        let cluster = shown.cluster.clone();
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(AGENT_QUEUE_MAX);
        // Weak: the stream ends once the member drops its end.
        let certificates = Certificates {
            identities: self.identities.clone(),
            shown,
            answers: sender.downgrade(),
            free: Arc::new(Semaphore::new(CERTIFICATE_QUESTIONS_MAX)),
        };
        let opened = AgentConnection { connection, cluster: cluster.clone(), sender };
        self.mailbox.send(Mail::AgentOpened(opened)).await;
        let (mailbox, logs) = (self.mailbox.clone(), self.logs.clone());
        let mut frames = request.into_inner();
        tokio::spawn(async move {
            // A broken or oversized frame ends the connection; the agent comes back and resyncs.
            let mut authorities = certificates.identities.signer.changes();
            loop {
                let next = tokio::select! {
                    next = frames.next() => next,
                    Ok(()) = authorities.changed() => {
                        certificates.tell_roots();
                        continue;
                    }
                };
                let Some(Ok(mut frame)) = next else { break };
                match &mut frame.body {
                    Some(agent_frame::Body::LogChunk(chunk)) => logs.chunk(&cluster, std::mem::take(chunk)),
                    Some(agent_frame::Body::RenewCertificate(request)) => {
                        certificates.renew(std::mem::take(request));
                    }
                    Some(agent_frame::Body::CertificateTaken(taken)) => {
                        certificates.taken(std::mem::take(taken));
                    }
                    body => {
                        if let Some(agent_frame::Body::Hello(hello)) = body {
                            // What the connection shows counts, not what the agent says.
                            hello.certificate = certificates.shown.generation;
                            certificates.compare_roots(&hello.trusts);
                        }
                        mailbox.send(Mail::AgentFrame { connection, frame }).await;
                    }
                }
            }
            logs.closed(&cluster, connection);
            mailbox.send(Mail::AgentClosed { connection }).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        Ok(Response::new(self.identities.enrol(request.into_inner()).await?))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        let shown = self.shown(&request, true)?;
        Ok(Response::new(self.identities.renew(&shown, request.into_inner()).await?))
    }
}
