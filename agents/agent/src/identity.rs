//! Who this agent is: enrolment at the first start, renewal at half-life, a new invite when the old identity is no good.

use crate::Config;
use crate::connection::{client, dial, explain, explain_status};
use crate::replica::Right;
use anyhow::{Context, bail, ensure};
use arc_swap::ArcSwap;
use argosy_pki::{
    AgentIdentity, AgentKey, Invite, Keeper, SharedClientTls, Way, client_config, pinned_client_config,
};
use argosy_proto::agent::{
    CertificateRenewed, CertificateTaken, EnrolRequest, EnrolResponse, RenewCertificateRequest, TrustRoots,
};
use rustls::ClientConfig;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};

/// Between two tries to enrol while no member can be reached.
const ENROL_RETRY: Duration = Duration::from_secs(2);
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(10);
const MEMBERS_FILE: &str = "members.json";
/// SHA-256 of the invite that was redeemed: another one is a new invite.
const INVITE_FILE: &str = "invite.sha256";

/// An enrolled agent.
pub struct Enrolled {
    pub cluster: String,
    /// The cell's name.
    pub cell: String,
    pub members: Vec<String>,
    pub tls: SharedClientTls,
    /// SHA-256 of the authorities that the present identity trusts, for greetings.
    pub trusts: SharedTrusts,
    directory: PathBuf,
    keeper: Keeper,
    requests: u64,
    cluster_uid: String,
}

/// Digests of certificate authorities.
pub type SharedTrusts = Arc<ArcSwap<Vec<Vec<u8>>>>;

/// What the identity's task asks of the one that owns the connection.
pub enum Wish {
    /// Send this over the session, and give the answer; dropped if there is no session.
    Renew(RenewCertificateRequest, oneshot::Sender<CertificateRenewed>),
    /// Send this, if there is a session.
    Taken(CertificateTaken),
    /// The identity is another one: connect anew.
    Reconnect,
}

/// Between the identity's task and the connection's.
pub struct Session {
    pub wishes: mpsc::Sender<Wish>,
    /// Authorities that the control plane tells.
    pub roots: mpsc::Receiver<TrustRoots>,
    /// Of this process.
    pub agent_instance: u64,
    /// A replica that lost it must not use the key any more: it would look like a stolen one.
    pub right: Right,
}

/// Why there is no new certificate.
enum Failure {
    /// Nobody could be asked.
    Passing(anyhow::Error),
    /// The control plane does not accept this identity any more.
    Refused(String),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Passing(error)
    }
}

/// Wall clock in milliseconds since 1970.
pub fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Loads the identity of an earlier start, or enrols with the invite.
pub async fn establish(config: &Config, cluster_uid: &str) -> anyhow::Result<Enrolled> {
    let directory = config.data_dir.join("identity");
    if let Some(identity) = AgentIdentity::load(&directory)? {
        if let Some(cluster) = config.cluster.as_ref().filter(|cluster| **cluster != identity.cluster) {
            bail!(
                "{} holds the identity of cluster {}, not of {cluster}: give each cluster a data directory of its own",
                directory.display(),
                identity.cluster
            );
        }
        return Enrolled::new(config, directory, &identity, cluster_uid);
    }
    let invite = read_invite(config)?;
    if let Some(cluster) = config.cluster.as_ref().filter(|cluster| **cluster != invite.cluster) {
        bail!("the invite is for cluster {}, not for {cluster}", invite.cluster);
    }
    let key = AgentKey::load_or_create(&directory)?;
    let request = EnrolRequest {
        cluster: invite.cluster.clone(),
        cluster_uid: cluster_uid.to_owned(),
        invite: invite.token(),
        signing_request_der: key.signing_request()?,
    };
    let members = if config.members.is_empty() { &invite.member_addresses } else { &config.members };
    ensure!(!members.is_empty(), "the invite names no members: give them with --members host:port,...");
    let tls = Arc::new(pinned_client_config(invite.authority_fingerprint)?);
    let answer = enrol(&tls, members, &request).await?;
    let (identity, member_addresses) = identity_of(&key, answer, &invite.cluster)?;
    save_members(&directory, &member_addresses)?;
    save_redeemed(&directory, &invite)?;
    identity.save(&directory)?;
    tracing::info!(cluster = identity.cluster, cell = identity.trust_domain, "enrolled");
    Enrolled::new(config, directory, &identity, cluster_uid)
}

/// What the answer to a signing request makes of the agent, if it is any good.
fn identity_of(
    key: &AgentKey,
    answer: EnrolResponse,
    cluster: &str,
) -> anyhow::Result<(AgentIdentity, Vec<String>)> {
    let EnrolResponse {
        certificate_chain_der,
        trust_roots_der,
        not_after_ms: _,
        member_addresses,
        trust_domain: _,
    } = answer;
    let identity = Keeper::check(key, certificate_chain_der, trust_roots_der, cluster, wall_clock_ms())
        .context("the new certificate is no good")?;
    Ok((identity, member_addresses))
}

fn save_redeemed(directory: &Path, invite: &Invite) -> anyhow::Result<()> {
    let path = directory.join(INVITE_FILE);
    let hash: String = invite.hash().iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&path, hash).with_context(|| format!("cannot write {}", path.display()))
}

fn read_invite(config: &Config) -> anyhow::Result<Invite> {
    let token = match (&config.invite, &config.invite_file) {
        (Some(invite), _) => invite.clone(),
        (None, Some(path)) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the invite in {}", path.display()))?,
        (None, None) => bail!(
            "this agent is not enrolled: make an invite with `argosy cluster invite NAME` and pass it with --invite"
        ),
    };
    Ok(Invite::parse(&token)?)
}

/// Asks one member after the other, again and again, until one answers; a refusal is final.
async fn enrol(
    tls: &Arc<ClientConfig>,
    members: &[String],
    request: &EnrolRequest,
) -> anyhow::Result<EnrolResponse> {
    let mut last_problem = String::new();
    loop {
        match enrol_once(tls, members, request).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Refused(message)) => {
                bail!("the control plane refused to enrol this agent: {message}")
            }
            Err(Failure::Passing(problem)) => {
                let problem = format!("{problem:#}");
                if problem != last_problem {
                    tracing::warn!(problem, "cannot enrol yet");
                    last_problem = problem;
                }
            }
        }
        tokio::time::sleep(ENROL_RETRY).await;
    }
}

/// Asks one member after the other until one answers.
async fn enrol_once(
    tls: &Arc<ClientConfig>,
    members: &[String],
    request: &EnrolRequest,
) -> Result<EnrolResponse, Failure> {
    let mut problem = anyhow::anyhow!("no members are known");
    for address in members {
        let reason = match dial(Arc::clone(tls), address).await {
            Err(error) => explain(&error),
            Ok(channel) => match client(channel).enrol(request.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if is_passing(status.code()) => explain_status(&status),
                Err(status) => return Err(Failure::Refused(status.message().to_owned())),
            },
        };
        problem = anyhow::anyhow!("member {address}: {reason}");
    }
    Err(Failure::Passing(problem))
}

fn is_passing(code: tonic::Code) -> bool {
    use tonic::Code;
    matches!(
        code,
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled | Code::Aborted
    )
}

fn save_members(directory: &Path, members: &[String]) -> anyhow::Result<()> {
    if members.is_empty() {
        return Ok(());
    }
    let (path, temporary) = (directory.join(MEMBERS_FILE), directory.join("members.new"));
    let written = std::fs::write(&temporary, serde_json::to_vec(members)?)
        .and_then(|()| std::fs::rename(&temporary, &path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn load_members(directory: &Path) -> Vec<String> {
    let text = std::fs::read(directory.join(MEMBERS_FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

impl Enrolled {
    fn new(
        config: &Config,
        directory: PathBuf,
        identity: &AgentIdentity,
        cluster_uid: &str,
    ) -> anyhow::Result<Self> {
        let mut members =
            if config.members.is_empty() { load_members(&directory) } else { config.members.clone() };
        if members.is_empty()
            && let Ok(invite) = read_invite(config)
        {
            members = invite.member_addresses;
        }
        ensure!(!members.is_empty(), "no members are known: give them with --members host:port,...");
        let tls = client_config(&identity.credentials, &identity.roots, &identity.trust_domain)?;
        if let Ok(invite) = read_invite(config)
            && !directory.join(INVITE_FILE).exists()
        {
            // Of an agent that did not write it down yet: the invite that it has is the one that it had.
            save_redeemed(&directory, &invite)?;
        }
        Ok(Self {
            cluster: identity.cluster.clone(),
            cell: identity.trust_domain.clone(),
            members,
            tls: Arc::new(ArcSwap::from_pointee(tls)),
            trusts: Arc::new(ArcSwap::from_pointee(identity.trusts())),
            keeper: Keeper::new(identity.clone(), draw()),
            requests: 0,
            cluster_uid: cluster_uid.to_owned(),
            directory,
        })
    }

    /// Renews the certificate at about half of its life, for ever; new connections use the new one. Takes authorities that the
    /// control plane tells, and a new invite when there is one.
    pub async fn keep(mut self, config: Config, mut session: Session) {
        let mut refused_invite = None;
        loop {
            let pause_ms = self.keeper.look_after_ms(draw());
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
                Some(roots) = session.roots.recv() => {
                    self.trust(roots, &session).await;
                    continue;
                }
            }
            if !session.right.is_held() {
                // The process is about to end.
                continue;
            }
            self.take_new_invite(&config, &session, &mut refused_invite).await;
            let Some(way) = self.keeper.is_due(wall_clock_ms()) else { continue };
            match self.renew(way, &session).await {
                Ok(()) => tracing::info!("renewed the certificate"),
                Err(Failure::Passing(error)) => {
                    tracing::warn!("cannot renew the certificate, trying again: {error:#}");
                }
                Err(Failure::Refused(message)) => {
                    tracing::error!(message, "the control plane does not renew this identity any more");
                    self.keeper.refused(wall_clock_ms());
                }
            }
        }
    }

    async fn renew(&mut self, way: Way, session: &Session) -> Result<(), Failure> {
        let key = AgentKey::load_or_create(&self.directory).map_err(anyhow::Error::from)?;
        self.requests += 1;
        let request = RenewCertificateRequest {
            signing_request_der: key.signing_request().map_err(anyhow::Error::from)?,
            agent_instance: session.agent_instance,
            request: self.requests,
            generation: self.keeper.identity().generation().map_err(anyhow::Error::from)?,
        };
        let answer = match way {
            Way::Session => self.ask_in_session(session, &request).await,
            Way::Anew => None,
        };
        let answer = match answer {
            Some(answer) => answer?,
            None => self.ask_anew(&request).await?,
        };
        let (identity, members) = identity_of(&key, answer, &self.cluster)?;
        self.take(identity, &members)?;
        self.tell(session).await;
        Ok(())
    }

    /// Over the session; nothing if there is none, or if it does not answer.
    async fn ask_in_session(
        &self,
        session: &Session,
        request: &RenewCertificateRequest,
    ) -> Option<Result<EnrolResponse, Failure>> {
        let (sender, answer) = oneshot::channel();
        session.wishes.send(Wish::Renew(request.clone(), sender)).await.ok()?;
        let renewed = tokio::time::timeout(RENEWAL_TIMEOUT, answer).await.ok()?.ok()?;
        let CertificateRenewed { request: _, certificate, code, message } = renewed;
        match certificate {
            Some(certificate) => Some(Ok(certificate)),
            None if is_final(&code) => Some(Err(Failure::Refused(format!("{code}: {message}")))),
            None => None,
        }
    }

    /// Over a connection of its own, to any member that answers.
    async fn ask_anew(&self, request: &RenewCertificateRequest) -> Result<EnrolResponse, Failure> {
        let mut problem = anyhow::anyhow!("no members are known");
        for address in &self.members {
            let asked = async {
                let channel = dial(self.tls.load_full(), address).await.map_err(|error| explain(&error))?;
                Ok::<_, String>(client(channel).renew_certificate(request.clone()).await)
            };
            match tokio::time::timeout(RENEWAL_TIMEOUT, asked).await {
                Ok(Ok(Ok(answer))) => return Ok(answer.into_inner()),
                Ok(Ok(Err(status))) if is_final(status.message()) => {
                    return Err(Failure::Refused(status.message().to_owned()));
                }
                Ok(Ok(Err(status))) => {
                    problem = anyhow::anyhow!("member {address}: {}", explain_status(&status));
                }
                Ok(Err(reason)) => problem = anyhow::anyhow!("member {address}: {reason}"),
                Err(_) => problem = anyhow::anyhow!("member {address}: no answer in time"),
            }
        }
        Err(Failure::Passing(problem))
    }

    /// Uses the identity from here on. What can't be used or kept leaves the one that there was.
    fn take(&mut self, identity: AgentIdentity, members: &[String]) -> anyhow::Result<()> {
        save_members(&self.directory, members)?;
        self.keep_files(&identity)?;
        self.keeper.take(identity, draw());
        Ok(())
    }

    fn keep_files(&self, identity: &AgentIdentity) -> anyhow::Result<()> {
        let tls = client_config(&identity.credentials, &identity.roots, &identity.trust_domain)?;
        identity.save(&self.directory)?;
        self.tls.store(Arc::new(tls));
        self.trusts.store(Arc::new(identity.trusts()));
        Ok(())
    }

    /// Says over the session which certificate and which authorities are kept.
    async fn tell(&self, session: &Session) {
        let taken = CertificateTaken {
            agent_instance: session.agent_instance,
            generation: self.keeper.identity().generation().unwrap_or(0),
            trusts: self.keeper.identity().trusts(),
        };
        let _ = session.wishes.send(Wish::Taken(taken)).await;
    }

    /// The authorities of the cell have changed. Those that don't vouch for the present certificate are no authorities of ours.
    async fn trust(&mut self, roots: TrustRoots, session: &Session) {
        if !session.right.is_held() {
            return;
        }
        let told = self.keeper.with_roots(roots.roots_der, wall_clock_ms()).map_err(anyhow::Error::from);
        let taken = told.and_then(|identity| {
            let Some(identity) = identity else { return Ok(()) };
            self.keep_files(&identity)?;
            tracing::info!(
                authorities = identity.roots.len(),
                "the cell's certificate authorities have changed"
            );
            self.keeper.trust(identity);
            Ok(())
        });
        if let Err(error) = taken {
            tracing::warn!(
                "the certificate authorities that the control plane tells are not taken: {error:#}"
            );
            return;
        }
        self.tell(session).await;
    }

    /// Another invite than the one that was redeemed: an operator lets the agent in anew, with a new key.
    async fn take_new_invite(&mut self, config: &Config, session: &Session, refused: &mut Option<Vec<u8>>) {
        let Ok(invite) = read_invite(config) else { return };
        let hash = invite.hash().to_vec();
        let text: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let redeemed = std::fs::read_to_string(self.directory.join(INVITE_FILE)).unwrap_or_default();
        if redeemed.trim() == text || refused.as_ref() == Some(&hash) {
            return;
        }
        match self.enrol_again(&invite, session).await {
            Ok(()) => tracing::info!("enrolled again with a new invite, and with a new key"),
            Err(Failure::Passing(error)) => tracing::warn!("cannot enrol again yet: {error:#}"),
            Err(Failure::Refused(message)) => {
                tracing::warn!(message, "the new invite was refused: going on as before");
                *refused = Some(hash);
            }
        }
    }

    async fn enrol_again(&mut self, invite: &Invite, session: &Session) -> Result<(), Failure> {
        if invite.cluster != self.cluster {
            let message = format!("it is for cluster {}, not for {}", invite.cluster, self.cluster);
            return Err(Failure::Refused(message));
        }
        let key = AgentKey::generate().map_err(anyhow::Error::from)?;
        let request = EnrolRequest {
            cluster: self.cluster.clone(),
            cluster_uid: self.cluster_uid.clone(),
            invite: invite.token(),
            signing_request_der: key.signing_request().map_err(anyhow::Error::from)?,
        };
        let tls = Arc::new(pinned_client_config(invite.authority_fingerprint).map_err(anyhow::Error::from)?);
        let answer = enrol_once(&tls, &invite.member_addresses, &request).await?;
        let (identity, members) = identity_of(&key, answer, &self.cluster)?;
        key.save(&self.directory).map_err(anyhow::Error::from)?;
        self.take(identity, &members)?;
        save_redeemed(&self.directory, invite)?;
        let _ = session.wishes.send(Wish::Reconnect).await;
        Ok(())
    }
}

/// Any number.
fn draw() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// Whether a refusal begins with a code that only an operator can do something about: revoked, locked, removed, key refused.
fn is_final(message: &str) -> bool {
    ["ARG1183", "ARG1184", "ARG1185", "ARG1010", "ARG1221"].iter().any(|code| message.starts_with(code))
}
