//! The agent listener: enrolment with an invite, certificate renewal, and sessions.

use crate::cell::into_result;
use crate::core::clock;
use crate::identity::{Peer, peer_identity};
use crate::logs::LogRegistry;
use crate::mailbox::{AgentConnection, Mail, Mailbox};
use crate::pki::Signer;
use argosy_gateway::CommandError;
use argosy_pki::Identity;
use argosy_proto::agent::agent_link_server::AgentLink;
use argosy_proto::agent::{
    AgentFrame, ControlFrame, EnrolRequest, EnrolResponse, RenewCertificateRequest, agent_frame,
};
use argosy_proto::command::{Command, RedeemInvite, Reply, command, reply};
use argosy_telemetry::Metrics;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// A command's failure as gRPC tells it.
fn status_of(error: CommandError) -> Status {
    match error {
        CommandError::Refused(refusal) => {
            let code = tonic::Code::from(i32::try_from(refusal.grpc_code).unwrap_or(2));
            Status::new(code, format!("{}: {}", refusal.code, refusal.message))
        }
        CommandError::NotLeader | CommandError::Overloaded => Status::unavailable(error.to_string()),
        CommandError::Unknown => Status::unavailable(
            "the outcome is unknown: try again; if the invite counts as used then, make a new one",
        ),
    }
}

/// Why an invite was not redeemed, for the metrics.
fn invite_outcome(error: &CommandError) -> &'static str {
    match error {
        CommandError::Refused(refusal) => match refusal.code.as_str() {
            "ARG1013" => "refused_unknown",
            "ARG1014" => "refused_expired",
            "ARG1015" => "refused_used",
            "ARG1016" => "refused_cluster",
            _ => "refused",
        },
        CommandError::NotLeader | CommandError::Overloaded | CommandError::Unknown => "failed",
    }
}

/// Frames that wait for one agent; an agent that is slower than this loses its connection and resyncs.
const AGENT_QUEUE_MAX: usize = 4_096;
/// Longest frame of an agent: a page of its resync.
pub(crate) const AGENT_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The gRPC service for agents.
pub struct AgentService {
    /// Where frames and commands go.
    pub mailbox: Mailbox,
    /// Signs certificates.
    pub signer: Arc<Signer>,
    /// Logs of agents connected here.
    pub logs: LogRegistry,
    /// Counters.
    pub metrics: Metrics,
    /// Numbers connections within this process.
    pub connections: Arc<AtomicU64>,
}

impl AgentService {
    /// The cluster in the client's certificate. One that has run out may renew, and nothing else.
    fn cluster_of<T>(&self, request: &Request<T>, expired_too: bool) -> Result<String, Status> {
        let refuse = |reason: &'static str, message: String| {
            self.metrics.agent_frames_refused.with_label_values(&[reason]).inc();
            tracing::warn!(reason, message, "refused an agent");
            Status::unauthenticated(message)
        };
        match peer_identity(request) {
            Ok(Peer { validity, .. }) if !expired_too && validity.is_over(clock().wall_ms) => {
                Err(refuse("expired", "the certificate has expired: renew it first".to_owned()))
            }
            Ok(Peer { identity: Identity::Cluster(cluster), .. }) => Ok(cluster),
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
        let cluster = self.cluster_of(&request, false)?;
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(AGENT_QUEUE_MAX);
        let opened = AgentConnection { connection, cluster: cluster.clone(), sender };
        self.mailbox.send(Mail::AgentOpened(opened)).await;
        let (mailbox, logs) = (self.mailbox.clone(), self.logs.clone());
        let mut frames = request.into_inner();
        tokio::spawn(async move {
            // A broken or oversized frame ends the connection; the agent comes back and resyncs.
            while let Some(Ok(frame)) = frames.next().await {
                match frame.body {
                    Some(agent_frame::Body::LogChunk(chunk)) => logs.chunk(&cluster, chunk),
                    _ => mailbox.send(Mail::AgentFrame { connection, frame }).await,
                }
            }
            logs.closed(&cluster, connection);
            mailbox.send(Mail::AgentClosed { connection }).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let EnrolRequest { cluster, cluster_uid, invite, signing_request_der } = request.into_inner();
        // Before the invite is used up: a request that can't be signed must not cost it.
        self.signer
            .check(&signing_request_der, &cluster)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let redeem = RedeemInvite {
            cluster: cluster.clone(),
            cluster_uid,
            token_hash: argosy_pki::invite_hash(&invite).to_vec(),
        };
        let command =
            Command { version: 1, idempotency_key: None, body: Some(command::Body::RedeemInvite(redeem)) };
        match into_result(self.mailbox.command(command).await) {
            Ok(Reply { body: Some(reply::Body::InviteRedeemed(_)) }) => {
                self.metrics.invites.with_label_values(&["redeemed"]).inc();
            }
            Ok(_) => return Err(Status::internal("unexpected answer to an invite")),
            Err(error) => {
                self.metrics.agent_frames_refused.with_label_values(&["invite"]).inc();
                self.metrics.invites.with_label_values(&[invite_outcome(&error)]).inc();
                return Err(status_of(error));
            }
        }
        let response = self
            .signer
            .sign(&signing_request_der, &cluster)
            .map_err(|error| Status::internal(error.to_string()))?;
        tracing::info!(cluster, "enrolled a cluster");
        Ok(Response::new(response))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        let cluster = self.cluster_of(&request, true)?;
        let request = request.into_inner().signing_request_der;
        let response = self
            .signer
            .sign(&request, &cluster)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        tracing::debug!(cluster, "renewed an agent's certificate");
        Ok(Response::new(response))
    }
}
