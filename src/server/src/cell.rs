//! The gateway's view of this member.

use crate::connect::Dialer;
use crate::core::Published;
use crate::directory::Directory;
use crate::logs::LogRegistry;
use crate::mailbox::Mailbox;
use crate::peers::peer_logs;
use crate::pki::Signer;
use argosy_engine::State;
use argosy_gateway::{
    ArchiveError, Behind, Cell, CellStatus, Change, CommandError, Consistency, Invite, InviteRequest,
    LogError, LogQuery, ReadError,
};
use argosy_member::Outcome;
use argosy_model::MemberId;
use argosy_pki::{AuthorityFiles, Lifetimes};
use argosy_proto::agent::{LogChunk, LogRequest};
use argosy_proto::command::{
    Command, CreateInvite, IdempotencyKey, Reply, RollAction, RollAuthority, command, reply,
};
use argosy_proto::peer::LogsRequest;
use argosy_telemetry::Metrics;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

/// How long a command waits for a leader: an election takes a second at most as a rule, and callers need not know of it.
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// Between two tries of a command.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Turns an outcome into the gateway's terms.
///
/// # Errors
/// Everything but a committed reply.
pub fn into_result(outcome: Outcome) -> Result<Reply, CommandError> {
    match outcome {
        Outcome::Done(reply) => Ok(reply),
        Outcome::Refused(refusal) => Err(CommandError::Refused(refusal)),
        Outcome::NotLeader => Err(CommandError::NotLeader),
        Outcome::Overloaded => Err(CommandError::Overloaded),
        Outcome::Unknown => Err(CommandError::Unknown),
    }
}

/// Carries out a command, again if it was lost to an election: where nothing was done, and where a repeat under the same
/// idempotency key has the outcome of the first try.
///
/// # Errors
/// Everything but a committed reply.
pub async fn carry_out(mailbox: &Mailbox, command: Command) -> Result<Reply, CommandError> {
    let deadline = tokio::time::Instant::now() + LEADER_WAIT;
    loop {
        let outcome = mailbox.command(command.clone()).await;
        let repeat = match outcome {
            Outcome::NotLeader => true,
            Outcome::Unknown => command.idempotency_key.is_some(),
            Outcome::Done(_) | Outcome::Refused(_) | Outcome::Overloaded => false,
        };
        if !repeat || tokio::time::Instant::now() >= deadline {
            return into_result(outcome);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// A member as the gateway sees it; cheap to clone.
#[derive(Clone)]
pub struct MemberCell {
    /// The way to the member's thread.
    pub mailbox: Mailbox,
    /// The newest committed state.
    pub published: watch::Receiver<Published>,
    /// Committed changes.
    pub changes: broadcast::Sender<Arc<Change<State>>>,
    /// Logs of agents connected here.
    pub logs: LogRegistry,
    /// This member.
    pub own: MemberId,
    /// Where the members are.
    pub directory: Directory,
    /// Connections to them.
    pub dialer: Dialer,
    /// For invites.
    pub signer: Arc<Signer>,
    /// This member's certificate authorities.
    pub files: Arc<AuthorityFiles>,
    /// For new ones.
    pub lifetimes: Lifetimes,
    /// Counters.
    pub metrics: Metrics,
    /// Kept up to date by the status task.
    pub status: watch::Receiver<CellStatus>,
}

impl MemberCell {
    /// Asks a cluster's agent, wherever it is connected.
    async fn ask_agent(
        &self,
        cluster: String,
        request: LogRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, LogError>>, LogError> {
        if let Some(chunks) = self.logs.open(&cluster, request.clone()) {
            return Ok(bytes_of(chunks.map(Ok).boxed()));
        }
        let elsewhere = LogsRequest { cluster: cluster.clone(), request: Some(request) };
        let chunks = self.logs_elsewhere(elsewhere).await.ok_or(LogError::Disconnected(cluster))?;
        Ok(bytes_of(chunks))
    }

    /// Logs of a cluster whose agent is connected to another member.
    async fn logs_elsewhere(
        &self,
        request: LogsRequest,
    ) -> Option<BoxStream<'static, Result<LogChunk, LogError>>> {
        let others = self.directory.staying().into_iter().filter(|(member, _)| *member != self.own);
        for (member, addresses) in others {
            let Ok(channel) = self.dialer.peer(member, &addresses.peer).await else { continue };
            if let Ok(chunks) = peer_logs(channel, request.clone()).await {
                let failed = |status: tonic::Status| LogError::Agent(status.message().to_owned());
                return Some(chunks.map(move |chunk| chunk.map_err(failed)).boxed());
            }
        }
        None
    }
}

/// The bytes of a stream of chunks; an error of the agent ends it.
fn bytes_of(
    chunks: BoxStream<'static, Result<LogChunk, LogError>>,
) -> BoxStream<'static, Result<Bytes, LogError>> {
    let bytes = |chunk: Result<LogChunk, LogError>| match chunk {
        Ok(chunk) if !chunk.error.is_empty() => Some(Err(LogError::Agent(chunk.error))),
        Ok(chunk) if chunk.data.is_empty() => None,
        Ok(chunk) => Some(Ok(Bytes::from(chunk.data))),
        Err(error) => Some(Err(error)),
    };
    chunks.filter_map(move |chunk| std::future::ready(bytes(chunk))).boxed()
}

impl Cell for MemberCell {
    type View = State;

    async fn command(&self, command: Command) -> Result<Reply, CommandError> {
        carry_out(&self.mailbox, command).await
    }

    async fn read(&self, consistency: Consistency) -> Result<State, ReadError> {
        match consistency {
            Consistency::Stale => Ok(self.published.borrow().state.clone()),
            Consistency::Linearizable => self.mailbox.read().await.ok_or(ReadError::NotLeader),
        }
    }

    async fn archived(&self, workflow: u64) -> Result<State, ArchiveError> {
        let records = self.mailbox.archived(workflow).await.ok_or(ArchiveError::Gone)?;
        argosy_gateway::archived_view(records)
    }

    fn changes(&self) -> BoxStream<'static, Result<Change<State>, Behind>> {
        let changes = BroadcastStream::new(self.changes.subscribe());
        let change =
            |item: Result<Arc<Change<State>>, _>| item.map(|change| (*change).clone()).map_err(|_| Behind);
        // Nothing follows the news that something was missed.
        let until_behind = stream::unfold(Some(changes.map(change).boxed()), |changes| async move {
            let mut changes = changes?;
            let item = changes.next().await?;
            let rest = item.is_ok().then_some(changes);
            Some((item, rest))
        });
        until_behind.boxed()
    }

    async fn logs(&self, query: LogQuery) -> Result<BoxStream<'static, Result<Bytes, LogError>>, LogError> {
        let LogQuery { cluster, fence, follow, tail_lines, container, since_ms, previous, timestamps } =
            query;
        let request = LogRequest {
            request: 0,
            fence: Some(fence),
            follow,
            tail_lines: match tail_lines {
                None => 0,
                Some(0) => -1,
                Some(lines) => i64::try_from(lines).unwrap_or(i64::MAX),
            },
            cancel: false,
            container,
            since_ms: since_ms.unwrap_or(0),
            previous,
            timestamps,
            artifact: String::new(),
        };
        self.ask_agent(cluster, request).await
    }

    async fn operate(
        &self,
        cluster: &str,
        operation: String,
    ) -> Result<BoxStream<'static, Result<Bytes, LogError>>, LogError> {
        let request = LogRequest { artifact: operation, ..LogRequest::default() };
        self.ask_agent(cluster.to_owned(), request).await
    }

    async fn invite(&self, request: InviteRequest) -> Result<Invite, CommandError> {
        let invite = argosy_pki::Invite::new(
            &request.cluster,
            self.signer.signing().pin(),
            self.signer.member_addresses(),
            rand::random::<[u8; 32]>(),
        );
        let invite = invite.map_err(|error| CommandError::Refused(invalid(&error.to_string())))?;
        let create = CreateInvite {
            cluster: request.cluster,
            token_hash: invite.hash().to_vec(),
            ttl_ms: request.ttl_ms,
        };
        // A key of its own: state does not hold the token, so a repeat of the caller's gets a fresh invite and not the answer
        // to another one. The first one expires.
        let hash = invite.hash().to_vec();
        let idempotency_key = request.idempotency_key.map(|key| IdempotencyKey {
            tenant: key.tenant,
            key: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            digest: hash,
        });
        let body = Some(command::Body::CreateInvite(create));
        let command = Command { version: 1, idempotency_key, body };
        match carry_out(&self.mailbox, command).await?.body {
            Some(reply::Body::InviteCreated(created)) => {
                self.metrics.invites.with_label_values(&["created"]).inc();
                Ok(Invite {
                    token: invite.token(),
                    expires_at_ms: i64::try_from(created.expires_at_ms).unwrap_or(i64::MAX),
                })
            }
            _ => Err(CommandError::Unknown),
        }
    }

    async fn begin_roll(&self, actor: String) -> Result<(), CommandError> {
        let members = self.status.borrow().members.iter().map(|member| member.id).collect();
        let rolling = self.published.borrow().state.authorities().is_some_and(|row| !row.next.is_empty());
        // The refusal is state's: a key is made only where it may be needed.
        let roll = if rolling {
            RollAuthority { action: RollAction::Begin.into(), actor, ..RollAuthority::default() }
        } else {
            crate::authority::begin(&self.files, &self.signer, self.lifetimes, members, actor).map_err(
                |error| {
                    tracing::error!(error = format!("{error:#}"), "no roll of the certificate authority");
                    CommandError::Refused(invalid(&format!("{error:#}")))
                },
            )?
        };
        let body = Some(command::Body::RollAuthority(roll));
        carry_out(&self.mailbox, Command { version: 1, idempotency_key: None, body }).await.map(drop)
    }

    fn trust_roots_pem(&self) -> String {
        self.signer.issuers().pem()
    }

    async fn backup(&self) -> Result<BoxStream<'static, std::io::Result<Bytes>>, CommandError> {
        crate::backup::stream(&self.mailbox).await
    }

    fn status(&self) -> CellStatus {
        self.status.borrow().clone()
    }
}

fn invalid(message: &str) -> argosy_proto::command::Refusal {
    argosy_proto::command::Refusal {
        code: "ARG1009".to_owned(),
        grpc_code: 3,
        http_status: 400,
        message: message.to_owned(),
    }
}
