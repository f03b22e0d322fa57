//! Who this agent is: enrolment at the first start, renewal at half-life.

use crate::Config;
use crate::connection::{client, dial, explain, explain_status};
use anyhow::{Context, bail, ensure};
use arc_swap::ArcSwap;
use argosy_pki::{AgentIdentity, AgentKey, Invite, SharedClientTls, client_config, pinned_client_config};
use argosy_proto::agent::{EnrolRequest, EnrolResponse, RenewCertificateRequest};
use rustls::ClientConfig;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Between two tries to enrol while no member can be reached.
const ENROL_RETRY: Duration = Duration::from_secs(2);
/// Between two looks at the certificate's age, and two tries to renew it.
const RENEWAL_LOOK: Duration = Duration::from_secs(10);
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(10);
const MEMBERS_FILE: &str = "members.json";

/// An enrolled agent.
pub struct Enrolled {
    pub cluster: String,
    /// The cell's name.
    pub cell: String,
    pub members: Vec<String>,
    pub tls: SharedClientTls,
    directory: PathBuf,
    renew_at_ms: i64,
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
        return Enrolled::new(config, directory, &identity);
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
    let EnrolResponse {
        certificate_chain_der,
        trust_roots_der,
        not_after_ms: _,
        member_addresses,
        trust_domain: _,
    } = answer;
    let identity = AgentIdentity::new(&key, certificate_chain_der, trust_roots_der)?;
    ensure!(
        identity.cluster == invite.cluster,
        "the control plane answered with a certificate for cluster {}",
        identity.cluster
    );
    save_members(&directory, &member_addresses)?;
    identity.save(&directory)?;
    tracing::info!(cluster = identity.cluster, cell = identity.trust_domain, "enrolled");
    Enrolled::new(config, directory, &identity)
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
        for address in members {
            let problem = match dial(Arc::clone(tls), address).await {
                Err(error) => explain(&error),
                Ok(channel) => match client(channel).enrol(request.clone()).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) if is_passing(status.code()) => explain_status(&status),
                    Err(status) => {
                        bail!("the control plane refused to enrol this agent: {}", status.message())
                    }
                },
            };
            let problem = format!("member {address}: {problem}");
            if problem != last_problem {
                tracing::warn!(problem, "cannot enrol yet");
                last_problem = problem;
            }
        }
        tokio::time::sleep(ENROL_RETRY).await;
    }
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
    fn new(config: &Config, directory: PathBuf, identity: &AgentIdentity) -> anyhow::Result<Self> {
        let mut members =
            if config.members.is_empty() { load_members(&directory) } else { config.members.clone() };
        if members.is_empty()
            && let Ok(invite) = read_invite(config)
        {
            members = invite.member_addresses;
        }
        ensure!(!members.is_empty(), "no members are known: give them with --members host:port,...");
        let tls = client_config(&identity.credentials, &identity.roots, &identity.trust_domain)?;
        Ok(Self {
            cluster: identity.cluster.clone(),
            cell: identity.trust_domain.clone(),
            members,
            tls: Arc::new(ArcSwap::from_pointee(tls)),
            renew_at_ms: identity.credentials.validity.renew_at_ms(),
            directory,
        })
    }

    /// Renews the certificate at half of its life, for ever. New connections use the new one.
    pub async fn keep_renewed(mut self) {
        loop {
            if wall_clock_ms() >= self.renew_at_ms {
                match self.renew().await {
                    Ok(()) => tracing::info!("renewed the certificate"),
                    Err(error) => tracing::warn!("cannot renew the certificate, trying again: {error:#}"),
                }
            }
            tokio::time::sleep(RENEWAL_LOOK).await;
        }
    }

    async fn renew(&mut self) -> anyhow::Result<()> {
        let key = AgentKey::load_or_create(&self.directory)?;
        let request = RenewCertificateRequest { signing_request_der: key.signing_request()? };
        let mut problem = anyhow::anyhow!("no members are known");
        for address in &self.members {
            let asked = async {
                let channel = dial(self.tls.load_full(), address).await.map_err(|error| explain(&error))?;
                client(channel)
                    .renew_certificate(request.clone())
                    .await
                    .map_err(|status| explain_status(&status))
            };
            let answer = match tokio::time::timeout(RENEWAL_TIMEOUT, asked).await {
                Ok(Ok(answer)) => answer.into_inner(),
                Ok(Err(reason)) => {
                    problem = anyhow::anyhow!("member {address}: {reason}");
                    continue;
                }
                Err(_) => {
                    problem = anyhow::anyhow!("member {address}: no answer in time");
                    continue;
                }
            };
            let identity = AgentIdentity::new(&key, answer.certificate_chain_der, answer.trust_roots_der)?;
            ensure!(
                identity.cluster == self.cluster,
                "the new certificate is for cluster {}",
                identity.cluster
            );
            identity.save(&self.directory)?;
            save_members(&self.directory, &answer.member_addresses)?;
            let tls = client_config(&identity.credentials, &identity.roots, &identity.trust_domain)?;
            self.tls.store(Arc::new(tls));
            self.renew_at_ms = identity.credentials.validity.renew_at_ms();
            return Ok(());
        }
        Err(problem)
    }
}
