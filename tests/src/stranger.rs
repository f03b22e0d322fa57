//! Clients made by hand, for what the real ones never do: the wrong certificate, an old fence, a frame of somebody else.

use anyhow::{Context, bail, ensure};
use argosy_pki::{
    AgentIdentity, AgentKey, Authority, Invite, client_config, pinned_client_config, server_name,
};
use argosy_proto::agent::agent_link_client::AgentLinkClient;
use argosy_proto::agent::{
    AgentFrame, ControlFrame, EnrolRequest, EnrolResponse, Hello, RenewLease, Report, Resync, agent_frame,
    control_frame,
};
use argosy_proto::common::{AttemptPhase, AttemptReport, Fence, Resources, Runtime, Verdict};
use argosy_server::core::clock;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long a hand-made client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A gRPC channel over TLS with this configuration.
///
/// # Errors
/// Nobody answers, or the handshake fails. A server that refuses the client's certificate may be noticed only with the
/// first call.
pub async fn dial(tls: ClientConfig, address: SocketAddr) -> anyhow::Result<Channel> {
    let tls = TlsConnector::from(Arc::new(tls));
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(server_name(), stream).await?))
        }
    });
    let endpoint = Endpoint::from_static("http://member.argosy.invalid").connect_timeout(ANSWER_TIMEOUT);
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// The TLS of a client that shows no certificate.
///
/// # Errors
/// The cryptographic library refused.
pub fn without_certificate(authority: &Authority) -> anyhow::Result<ClientConfig> {
    Ok(pinned_client_config(authority.fingerprint())?)
}

/// The TLS of member `member`, with a certificate of `issuer`, towards a cell of `authority`.
///
/// # Errors
/// The certificate can't be made.
pub fn member_tls(issuer: &Authority, member: u64, authority: &Authority) -> anyhow::Result<ClientConfig> {
    let credentials = issuer.issue_member(member, &[], clock().wall_ms)?;
    Ok(client_config(&credentials, &authority.roots(), authority.trust_domain())?)
}

/// The TLS of an agent, with a certificate of `issuer`, towards a cell of `authority`.
///
/// # Errors
/// The certificate can't be made.
pub fn agent_tls(issuer: &Authority, cluster: &str, authority: &Authority) -> anyhow::Result<ClientConfig> {
    let directory = tempfile::tempdir()?;
    let key = AgentKey::load_or_create(directory.path())?;
    let signed = issuer.sign_agent(&key.signing_request()?, cluster, 1, clock().wall_ms, 3_600_000)?;
    let plain =
        |chain: &[argosy_pki::CertificateDer<'static>]| chain.iter().map(|one| one.to_vec()).collect();
    let identity = AgentIdentity::new(&key, plain(&signed.chain), plain(&issuer.roots()))?;
    Ok(client_config(&identity.credentials, &authority.roots(), authority.trust_domain())?)
}

/// Presents an invite for `cluster` as a new agent would; returns the TLS of the enrolled agent.
///
/// # Errors
/// The member's refusal, or no answer.
pub async fn enrol(address: SocketAddr, token: &str, cluster: &str) -> Result<ClientConfig, tonic::Status> {
    let internal = |error: anyhow::Error| tonic::Status::internal(format!("test client: {error:#}"));
    let asked = async {
        let invite = Invite::parse(token)?;
        let directory = tempfile::tempdir()?;
        let key = AgentKey::load_or_create(directory.path())?;
        let request = EnrolRequest {
            cluster: cluster.to_owned(),
            cluster_uid: format!("uid-of-{cluster}"),
            invite: token.to_owned(),
            signing_request_der: key.signing_request()?,
        };
        let channel = dial(pinned_client_config(invite.authority_fingerprint)?, address).await?;
        anyhow::Ok((key, channel, request))
    };
    let (key, channel, request) = asked.await.map_err(internal)?;
    let EnrolResponse { certificate_chain_der, trust_roots_der, .. } =
        AgentLinkClient::new(channel).enrol(request).await?.into_inner();
    let identity = AgentIdentity::new(&key, certificate_chain_der, trust_roots_der);
    let identity = identity.map_err(|error| internal(error.into()))?;
    client_config(&identity.credentials, &identity.roots, &identity.trust_domain)
        .map_err(|error| internal(error.into()))
}

/// An open session of a hand-made agent.
pub struct HandAgent {
    sender: mpsc::Sender<AgentFrame>,
    frames: tonic::Streaming<ControlFrame>,
    epoch: u64,
}

impl HandAgent {
    /// Connects and sends `Hello` in the name of `claimed`.
    ///
    /// # Errors
    /// The member refuses the connection.
    pub async fn greet(tls: ClientConfig, address: SocketAddr, claimed: &str) -> anyhow::Result<Self> {
        let (sender, receiver) = mpsc::channel(64);
        let mut client = AgentLinkClient::new(dial(tls, address).await?);
        let call = client.session(ReceiverStream::new(receiver));
        let frames =
            tokio::time::timeout(ANSWER_TIMEOUT, call).await.context("no session in time")??.into_inner();
        let agent = Self { sender, frames, epoch: 0 };
        let hello = Hello {
            cluster: claimed.to_owned(),
            cluster_uid: format!("uid-of-{claimed}"),
            agent_version: "by-hand".to_owned(),
            agent_instance: rand::random(),
            runtime: Runtime::Process.into(),
            allocatable: Some(Resources {
                cpu_milli: 8_000,
                memory_bytes: 1 << 34,
                pods: 100,
                ..Resources::default()
            }),
            wall_clock_ms: clock().wall_ms,
            credit: 16,
            ..Hello::default()
        };
        agent.send(agent_frame::Body::Hello(hello)).await?;
        Ok(agent)
    }

    /// Greets, is welcomed, and lists what it holds.
    ///
    /// # Errors
    /// Refused, or no answer.
    pub async fn open(
        tls: ClientConfig,
        address: SocketAddr,
        cluster: &str,
        held: Vec<AttemptReport>,
    ) -> anyhow::Result<Self> {
        let mut agent = Self::greet(tls, address, cluster).await?;
        agent.epoch = agent
            .wait("a welcome", |frame| {
                matches!(frame.body, Some(control_frame::Body::Welcome(_))).then_some(frame.session_epoch)
            })
            .await?;
        let renew = RenewLease {
            sequence: 1,
            wall_clock_ms: clock().wall_ms,
            allocatable: None,
            runtime_healthy: true,
        };
        agent.send(agent_frame::Body::RenewLease(renew)).await?;
        agent.send(agent_frame::Body::Resync(Resync { held, last: true, round: 1, page: 0 })).await?;
        agent
            .wait("the answer to its list", |frame| {
                matches!(frame.body, Some(control_frame::Body::ResyncVerdicts(_))).then_some(())
            })
            .await?;
        Ok(agent)
    }

    /// Sends a frame of this session.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&self, body: agent_frame::Body) -> anyhow::Result<()> {
        let frame = AgentFrame { version: 1, session_epoch: self.epoch, body: Some(body) };
        self.sender.send(frame).await.context("the session is over")
    }

    /// The first frame that `look` takes.
    ///
    /// # Errors
    /// The session ends before, or nothing comes in time.
    pub async fn wait<T>(
        &mut self,
        what: &str,
        look: impl Fn(&ControlFrame) -> Option<T>,
    ) -> anyhow::Result<T> {
        let found = async {
            while let Some(frame) = self.frames.message().await? {
                if let Some(found) = look(&frame) {
                    return Ok(found);
                }
            }
            bail!("the session ended before {what} came")
        };
        tokio::time::timeout(ANSWER_TIMEOUT, found)
            .await
            .with_context(|| format!("waited in vain for {what}"))?
    }

    /// The member's refusal: code and message.
    ///
    /// # Errors
    /// None came.
    pub async fn refusal(&mut self) -> anyhow::Result<(String, String)> {
        let refused = |frame: &ControlFrame| match &frame.body {
            Some(control_frame::Body::Refused(refused)) => {
                Some((refused.code.clone(), refused.message.clone()))
            }
            _ => None,
        };
        self.wait("a refusal", refused).await
    }

    /// The fence of the next assignment.
    ///
    /// # Errors
    /// None came.
    pub async fn assigned(&mut self) -> anyhow::Result<Fence> {
        let fence = |frame: &ControlFrame| match &frame.body {
            Some(control_frame::Body::Assign(assign)) => assign.assignment.as_ref().and_then(|one| one.fence),
            _ => None,
        };
        self.wait("an assignment", fence).await
    }

    /// Reports and waits for the verdict.
    ///
    /// # Errors
    /// No verdict came.
    pub async fn report(&mut self, report: AttemptReport) -> anyhow::Result<Verdict> {
        let (fence, revision) = (report.fence, report.revision);
        ensure!(fence.is_some(), "a report has a fence");
        self.send(agent_frame::Body::Report(Report { attempt: Some(report) })).await?;
        let verdict = move |frame: &ControlFrame| match &frame.body {
            Some(control_frame::Body::ReportVerdict(one))
                if one.fence == fence && one.revision == revision =>
            {
                Some(one.verdict())
            }
            _ => None,
        };
        self.wait("a verdict", verdict).await
    }
}

/// A report of an attempt.
#[must_use]
pub fn report(fence: Fence, revision: u64, phase: AttemptPhase, result: Option<&str>) -> AttemptReport {
    AttemptReport {
        fence: Some(fence),
        revision,
        phase: phase.into(),
        permitted: true,
        result: result.map(str::to_owned),
        started_at_ms: clock().wall_ms,
        ..AttemptReport::default()
    }
}
