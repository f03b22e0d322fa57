//! The agent as a whole against a control plane that the test plays over real TLS: enrolment, renewal, and one step.
#![allow(clippy::unwrap_used, reason = "a test")]

use argosy_agent::Config;
use argosy_pki::{AgentIdentity, Authority, ClientRole, Invite, Lifetimes, NoneRevoked, server_config};
use argosy_proto::agent::agent_frame::Body as Up;
use argosy_proto::agent::agent_link_server::{AgentLink, AgentLinkServer};
use argosy_proto::agent::control_frame::Body as Down;
use argosy_proto::agent::{
    AgentFrame, Assign, AttemptVerdict, CertificateRenewed, ControlFrame, EnrolRequest, EnrolResponse,
    LeaseRenewed, RenewCertificateRequest, ReportVerdict, ResyncVerdicts, Welcome,
};
use argosy_proto::common::{Assignment, AttemptReport, Fence, Verdict};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

const WAIT: Duration = Duration::from_secs(20);
/// Leaves are back-dated by as much: they are past their half when they are made.
const LEAF_MS: i64 = 60_000;
const LIFETIMES: Lifetimes =
    Lifetimes { authority_ms: 3_600_000, leaf_ms: LEAF_MS, backdate_ms: LEAF_MS + 5_000 };

#[expect(clippy::large_enum_variant, reason = "a few of them in a test")]
enum Seen {
    Enrolled(String),
    Renewed,
    /// A certificate was asked for over the session, and the answer was no certificate.
    Spoilt,
    /// The agent has kept a certificate of this generation.
    Taken(u64),
    Reported(AttemptReport),
}

#[derive(Clone)]
struct ControlPlane {
    authority: Arc<Authority>,
    address: String,
    seen: mpsc::Sender<Seen>,
    asked: Arc<AtomicU64>,
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

impl ControlPlane {
    fn sign(&self, request: &[u8], generation: u64, life_ms: i64) -> EnrolResponse {
        let signed = self.authority.sign_agent(request, "here", generation, now_ms(), life_ms).unwrap();
        EnrolResponse {
            certificate_chain_der: signed.chain.iter().map(|one| one.to_vec()).collect(),
            trust_roots_der: self.authority.roots().iter().map(|one| one.to_vec()).collect(),
            not_after_ms: signed.validity.not_after_s * 1000,
            member_addresses: vec![self.address.clone()],
            trust_domain: "cell".to_owned(),
        }
    }
}

impl ControlPlane {
    /// Over the session: nonsense at first, then a certificate that is young.
    async fn renew(&self, request: RenewCertificateRequest) -> Down {
        let mut certificate = self.sign(&request.signing_request_der, request.generation + 1, 3_600_000);
        if self.asked.fetch_add(1, Ordering::Relaxed) == 0 {
            certificate.certificate_chain_der[0].truncate(100);
            self.seen.send(Seen::Spoilt).await.unwrap();
        } else {
            self.seen.send(Seen::Renewed).await.unwrap();
        }
        Down::CertificateRenewed(CertificateRenewed {
            request: request.request,
            certificate: Some(certificate),
            ..CertificateRenewed::default()
        })
    }
}

/// Keeps everything, assigns one step after each resync, accepts every report.
fn answer(frame: AgentFrame) -> (Vec<Down>, Option<AttemptReport>) {
    match frame.body {
        Some(Up::Hello(_)) => {
            let welcome =
                Welcome { cell: "cell".into(), incarnation: 1, lease_ms: 15_000, renew_every_ms: 5_000 };
            (vec![Down::Welcome(welcome)], None)
        }
        Some(Up::RenewLease(renewal)) => {
            (vec![Down::LeaseRenewed(LeaseRenewed { sequence: renewal.sequence })], None)
        }
        Some(Up::Resync(page)) => {
            let template_json = r#"{"container":{"args":["duration-ms=20","exit-code=4"]}}"#.to_owned();
            let fence = Some(Fence { incarnation: 1, index: 8, ordinal: 0 });
            let assignment = Some(Assignment { fence, template_json, ..Assignment::default() });
            let verdicts =
                page.held.iter().map(|held| AttemptVerdict { fence: held.fence, keep: true }).collect();
            let verdicts = ResyncVerdicts { verdicts, last: true };
            (vec![Down::ResyncVerdicts(verdicts), Down::Assign(Assign { assignment })], None)
        }
        Some(Up::Report(report)) => {
            let report = report.attempt.unwrap();
            let verdict = ReportVerdict {
                fence: report.fence,
                revision: report.revision,
                verdict: Verdict::Accepted.into(),
            };
            (vec![Down::ReportVerdict(verdict)], Some(report))
        }
        Some(
            Up::Credit(_)
            | Up::AskPermit(_)
            | Up::LogChunk(_)
            | Up::WorkflowsAsked(_)
            | Up::PrerequisitesFound(_)
            | Up::ConfigMapsReported(_)
            | Up::RenewCertificate(_)
            | Up::CertificateTaken(_),
        )
        | None => (Vec::new(), None),
    }
}

#[tonic::async_trait]
impl AgentLink for ControlPlane {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ControlFrame, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (sender, receiver) = mpsc::channel(64);
        let (seen, plane) = (self.seen.clone(), self.clone());
        let mut frames = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = frames.next().await {
                let (answers, report) = match frame.body {
                    Some(Up::RenewCertificate(request)) => (vec![plane.renew(request).await], None),
                    Some(Up::CertificateTaken(taken)) => {
                        let _ = seen.send(Seen::Taken(taken.generation)).await;
                        (Vec::new(), None)
                    }
                    body => answer(AgentFrame { body, ..frame }),
                };
                for body in answers {
                    let frame = ControlFrame { version: 1, session_epoch: 3, body: Some(body) };
                    // The agent may just have ended.
                    let _ = sender.send(Ok(frame)).await;
                }
                if let Some(report) = report {
                    let _ = seen.send(Seen::Reported(report)).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        self.seen.send(Seen::Enrolled(request.invite)).await.unwrap();
        Ok(Response::new(self.sign(&request.signing_request_der, 1, LEAF_MS)))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        self.seen.send(Seen::Renewed).await.unwrap();
        Ok(Response::new(self.sign(&request.signing_request_der, request.generation + 1, 3_600_000)))
    }
}

/// Serves on any port; gives the invite.
async fn control_plane(seen: mpsc::Sender<Seen>) -> Invite {
    let authority = Authority::create("cell", now_ms(), LIFETIMES).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let credentials = authority.issue_member(1, &["127.0.0.1".to_owned()], now_ms()).unwrap();
    let role = ClientRole::AgentsEnrolling {
        renewal_grace: Duration::from_secs(60),
        revocations: Arc::new(NoneRevoked),
    };
    let tls = server_config(&credentials, &authority.roots(), "cell", role).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let invite = Invite::new("here", authority.fingerprint(), vec![address.clone()], [7; 32]).unwrap();
    let (sender, streams) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // A handshake that fails is the client's affair.
            if let Ok(stream) = acceptor.accept(socket).await {
                sender.send(Ok::<_, std::io::Error>(stream)).await.unwrap();
            }
        }
    });
    let service = AgentLinkServer::new(ControlPlane {
        authority: Arc::new(authority),
        address,
        seen,
        asked: Arc::default(),
    });
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(streams)));
    invite
}

fn config(directory: &Path, invite: &Invite, more: &[&str]) -> Config {
    let (directory, token) = (directory.to_str().unwrap(), invite.token());
    let arguments = [
        "argosy-agent",
        "--runtime",
        "simulated",
        "--metrics-listen",
        "127.0.0.1:0",
        "--data-dir",
        directory,
        "--invite",
        &token,
    ];
    Config::from_arguments(arguments.iter().chain(more).map(std::ffi::OsString::from)).unwrap()
}

#[tokio::test]
async fn it_enrols_once_renews_and_runs_a_step() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, mut seen) = mpsc::channel(64);
    let invite = control_plane(sender).await;
    let config = config(directory.path(), &invite, &[]);
    for expected in [1, 0] {
        let agent = tokio::spawn(argosy_agent::run(config.clone()));
        let (mut enrolled, mut renewed, mut last) = (0, 0, None);
        let (mut spoilt, mut taken) = (0, 0);
        let is_over =
            |report: &Option<AttemptReport>| report.as_ref().is_some_and(argosy_agent_runtime::is_over);
        while !is_over(&last) || renewed < expected || taken < expected {
            match tokio::time::timeout(WAIT, seen.recv()).await.expect("the agent goes on").unwrap() {
                Seen::Enrolled(token) => {
                    assert_eq!(token, invite.token());
                    enrolled += 1;
                }
                Seen::Renewed => renewed += 1,
                Seen::Spoilt => spoilt += 1,
                Seen::Taken(generation) => taken = generation.saturating_sub(1),
                Seen::Reported(report) => last = Some(report),
            }
        }
        assert_eq!(
            (enrolled, renewed),
            (expected, expected),
            "an invite is used once, a young certificate kept"
        );
        assert!(spoilt <= expected, "after nonsense it keeps what it has and asks again");
        let last = last.unwrap();
        assert_eq!((last.exit_code, last.permitted, last.result.as_deref()), (Some(4), true, Some("1.8.0")));
        let is_young = || {
            let identity = AgentIdentity::load(&directory.path().join("identity")).unwrap().unwrap();
            identity.credentials.validity.renew_at_ms() > now_ms()
        };
        let saved = async {
            while !is_young() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(WAIT, saved).await.is_ok(), "the renewed certificate is kept");
        agent.abort();
        assert!(agent.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test]
async fn an_invite_of_another_cluster_or_cell_does_not_enrol() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, mut seen) = mpsc::channel(64);
    let ours = control_plane(sender).await;
    let error =
        argosy_agent::run(config(directory.path(), &ours, &["--cluster", "there"])).await.unwrap_err();
    assert_eq!(error.to_string(), "the invite is for cluster here, not for there");
    // It pins another authority: the agent keeps trying, and never shows its request.
    let foreign = Invite::new("here", [1; 32], ours.member_addresses, [7; 32]).unwrap();
    let agent = tokio::spawn(argosy_agent::run(config(directory.path(), &foreign, &[])));
    assert!(tokio::time::timeout(Duration::from_millis(500), seen.recv()).await.is_err());
    assert!(!agent.is_finished() && !directory.path().join("identity/cert.pem").exists());
    agent.abort();
}
