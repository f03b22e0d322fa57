//! This member's certificates and the signing of agents'. Members issue their own from the cell's CA key, without a
//! quorum, and replace them at half life.

use crate::core::clock;
use arc_swap::ArcSwap;
use argosy_pki::{
    Authority, ClientRole, Credentials, Error, Lifetimes, Revocations, SharedClientTls, SharedServerTls,
    api_server_config, client_config, server_config,
};
use argosy_proto::agent::EnrolResponse;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Life of the API's server certificate.
const API_LIFETIME_MS: i64 = 90 * 24 * 3600 * 1000;

/// Signs agents' requests.
pub struct Signer {
    authority: ArcSwap<Authority>,
    leaf_ms: i64,
    member_addresses: ArcSwap<Vec<String>>,
}

/// What signs at one moment: an answer is signed by the authority that was told to state before.
pub struct Signing<'a> {
    authority: Arc<Authority>,
    signer: &'a Signer,
}

impl Signer {
    /// A signer that tells agents where the members are.
    #[must_use]
    pub fn new(authority: Authority, lifetimes: Lifetimes, member_addresses: Vec<String>) -> Self {
        Self {
            authority: ArcSwap::from_pointee(authority),
            leaf_ms: lifetimes.leaf_ms,
            member_addresses: ArcSwap::from_pointee(member_addresses),
        }
    }

    /// What signs now.
    #[must_use]
    pub fn signing(&self) -> Signing<'_> {
        Signing { authority: self.authority.load_full(), signer: self }
    }

    /// The cell's authority.
    #[must_use]
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.load_full()
    }

    /// Where agents reach the members.
    #[must_use]
    pub fn member_addresses(&self) -> Vec<String> {
        self.member_addresses.load().to_vec()
    }

    /// Members have come or gone: agents are told with their next certificate.
    pub fn set_member_addresses(&self, addresses: Vec<String>) {
        if **self.member_addresses.load() != addresses {
            self.member_addresses.store(Arc::new(addresses));
        }
    }
}

impl Signing<'_> {
    /// The SHA-256 of the request's public key, if [`Self::sign`] would sign.
    ///
    /// # Errors
    /// The request is no valid signing request.
    pub fn check(&self, request_der: &[u8], cluster: &str) -> Result<[u8; 32], Error> {
        self.authority.check_request(request_der, cluster)
    }

    /// SHA-256 of the authority's certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Vec<u8> {
        self.pin().to_vec()
    }

    /// As [`Self::fingerprint`]: what invites pin.
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        self.authority.fingerprint()
    }

    /// A certificate for the agent of `cluster`.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn sign(&self, request_der: &[u8], cluster: &str, generation: u64) -> Result<EnrolResponse, Error> {
        let leaf_ms = self.signer.leaf_ms;
        let signed = self.authority.sign_agent(request_der, cluster, generation, clock().wall_ms, leaf_ms)?;
        Ok(EnrolResponse {
            certificate_chain_der: signed.chain.iter().map(|certificate| certificate.to_vec()).collect(),
            trust_roots_der: self.authority.roots().iter().map(|root| root.to_vec()).collect(),
            not_after_ms: signed.validity.not_after_s.saturating_mul(1_000),
            member_addresses: self.signer.member_addresses(),
            trust_domain: self.authority.trust_domain().to_owned(),
        })
    }
}

/// The TLS configurations of a member; each is replaced while connections go on.
#[derive(Clone)]
pub struct MemberTls {
    /// Listener for members.
    pub peer_server: SharedServerTls,
    /// Listener for agents.
    pub agent_server: SharedServerTls,
    /// Listener for users.
    pub api_server: SharedServerTls,
    /// Connections to members.
    pub client: SharedClientTls,
}

impl MemberTls {
    /// Issues this member's certificates and keeps them fresh until `stop`.
    ///
    /// # Errors
    /// A certificate can't be made.
    pub fn start(signer: &Arc<Signer>, issue: Issue, stop: CancellationToken) -> Result<Self, Error> {
        let first = issue.now(signer)?;
        let renew_at_ms = first.renew_at_ms;
        let tls = Self {
            peer_server: Arc::new(ArcSwap::from_pointee(first.peer_server)),
            agent_server: Arc::new(ArcSwap::from_pointee(first.agent_server)),
            api_server: Arc::new(ArcSwap::from_pointee(first.api_server)),
            client: Arc::new(ArcSwap::from_pointee(first.client)),
        };
        tokio::spawn(tls.clone().renew(Arc::clone(signer), issue, renew_at_ms, stop));
        Ok(tls)
    }

    async fn renew(self, signer: Arc<Signer>, issue: Issue, mut renew_at_ms: i64, stop: CancellationToken) {
        loop {
            // The wall clock may jump: it is looked at often instead of slept on once.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(issue.look_every) => {}
            }
            if clock().wall_ms < renew_at_ms {
                continue;
            }
            match issue.now(&signer) {
                Ok(issued) => {
                    renew_at_ms = issued.renew_at_ms;
                    self.peer_server.store(Arc::new(issued.peer_server));
                    self.agent_server.store(Arc::new(issued.agent_server));
                    self.api_server.store(Arc::new(issued.api_server));
                    self.client.store(Arc::new(issued.client));
                    tracing::debug!("renewed this member's certificates");
                }
                Err(error) => tracing::error!(%error, "this member's certificates could not be renewed"),
            }
        }
    }
}

/// What a member's certificates say, and whom its listeners let in.
pub struct Issue {
    /// The member.
    pub member: u64,
    /// Names in the API's certificate.
    pub api_names: Vec<String>,
    /// How long after its end an agent's certificate may still ask for the next one.
    pub renewal_grace: Duration,
    /// Agents' certificates that don't count any more.
    pub revocations: Arc<dyn Revocations>,
    /// Between two looks at the certificates' age.
    pub look_every: Duration,
}

struct Issued {
    peer_server: rustls::ServerConfig,
    agent_server: rustls::ServerConfig,
    api_server: rustls::ServerConfig,
    client: rustls::ClientConfig,
    renew_at_ms: i64,
}

impl Issue {
    fn now(&self, signer: &Signer) -> Result<Issued, Error> {
        let (authority, now_ms) = (signer.authority(), clock().wall_ms);
        let credentials: Credentials = authority.issue_member(self.member, &[], now_ms)?;
        let api = authority.issue_server(&self.api_names, API_LIFETIME_MS, now_ms)?;
        let (roots, domain) = (authority.roots(), authority.trust_domain());
        let agents = ClientRole::AgentsEnrolling {
            renewal_grace: self.renewal_grace,
            revocations: Arc::clone(&self.revocations),
        };
        Ok(Issued {
            peer_server: server_config(&credentials, &roots, domain, ClientRole::Members)?,
            agent_server: server_config(&credentials, &roots, domain, agents)?,
            api_server: api_server_config(&api)?,
            client: client_config(&credentials, &roots, domain)?,
            renew_at_ms: credentials.validity.renew_at_jittered_ms(rand::random()),
        })
    }
}

/// The cell's authority from its directory.
///
/// # Errors
/// The directory holds none, or that of another cell.
pub fn load_authority(directory: &Path, cell: &str, lifetimes: Lifetimes) -> anyhow::Result<Authority> {
    let authority = Authority::load(directory, lifetimes)?.ok_or_else(|| {
        anyhow::anyhow!("{} holds no certificate authority: make it once with `argosy pki init --cell {cell} --dir {}` and copy it to every member", directory.display(), directory.display())
    })?;
    anyhow::ensure!(
        authority.trust_domain() == cell,
        "{} holds the authority of cell {}, not of {cell}",
        directory.display(),
        authority.trust_domain()
    );
    Ok(authority)
}
