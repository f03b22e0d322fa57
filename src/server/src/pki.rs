//! This member's certificates and the signing of agents'. Members issue their own from the cell's CA key, without a
//! quorum, and replace them at half life.

use crate::core::clock;
use arc_swap::ArcSwap;
use argosy_pki::{
    Authority, ClientRole, Credentials, Error, Lifetimes, SharedClientTls, SharedServerTls,
    api_server_config, client_config, server_config,
};
use argosy_proto::agent::EnrolResponse;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long after its end an agent's certificate may still ask for the next one.
const RENEWAL_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Life of the API's server certificate.
const API_LIFETIME_MS: i64 = 90 * 24 * 3600 * 1000;

/// Signs agents' requests.
pub struct Signer {
    authority: Authority,
    leaf_ms: i64,
    member_addresses: ArcSwap<Vec<String>>,
}

impl Signer {
    /// A signer that tells agents where the members are.
    #[must_use]
    pub fn new(authority: Authority, lifetimes: Lifetimes, member_addresses: Vec<String>) -> Self {
        Self {
            authority,
            leaf_ms: lifetimes.leaf_ms,
            member_addresses: ArcSwap::from_pointee(member_addresses),
        }
    }

    /// The cell's authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
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

    /// Whether [`Self::sign`] would sign.
    ///
    /// # Errors
    /// The request is no valid signing request.
    pub fn check(&self, request_der: &[u8], cluster: &str) -> Result<(), Error> {
        self.authority.check_request(request_der, cluster)
    }

    /// A certificate for the agent of `cluster`.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn sign(&self, request_der: &[u8], cluster: &str) -> Result<EnrolResponse, Error> {
        let signed = self.authority.sign_agent(request_der, cluster, clock().wall_ms, self.leaf_ms)?;
        Ok(EnrolResponse {
            certificate_chain_der: signed.chain.iter().map(|certificate| certificate.to_vec()).collect(),
            trust_roots_der: self.authority.roots().iter().map(|root| root.to_vec()).collect(),
            not_after_ms: signed.validity.not_after_s.saturating_mul(1_000),
            member_addresses: self.member_addresses(),
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
    pub fn start(
        signer: &Arc<Signer>,
        member: u64,
        api_names: Vec<String>,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let first = Issued::new(signer, member, &api_names)?;
        let renew_at_ms = first.renew_at_ms;
        let tls = Self {
            peer_server: Arc::new(ArcSwap::from_pointee(first.peer_server)),
            agent_server: Arc::new(ArcSwap::from_pointee(first.agent_server)),
            api_server: Arc::new(ArcSwap::from_pointee(first.api_server)),
            client: Arc::new(ArcSwap::from_pointee(first.client)),
        };
        tokio::spawn(tls.clone().renew(Arc::clone(signer), member, api_names, renew_at_ms, stop));
        Ok(tls)
    }

    async fn renew(
        self,
        signer: Arc<Signer>,
        member: u64,
        api_names: Vec<String>,
        mut renew_at_ms: i64,
        stop: CancellationToken,
    ) {
        loop {
            // The wall clock may jump: it is looked at often instead of slept on once.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
            }
            if clock().wall_ms < renew_at_ms {
                continue;
            }
            match Issued::new(&signer, member, &api_names) {
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

struct Issued {
    peer_server: rustls::ServerConfig,
    agent_server: rustls::ServerConfig,
    api_server: rustls::ServerConfig,
    client: rustls::ClientConfig,
    renew_at_ms: i64,
}

impl Issued {
    fn new(signer: &Signer, member: u64, api_names: &[String]) -> Result<Self, Error> {
        let (authority, now_ms) = (&signer.authority, clock().wall_ms);
        let credentials: Credentials = authority.issue_member(member, &[], now_ms)?;
        let api = authority.issue_server(api_names, API_LIFETIME_MS, now_ms)?;
        let (roots, domain) = (authority.roots(), authority.trust_domain());
        let agents = ClientRole::AgentsEnrolling { renewal_grace: RENEWAL_GRACE };
        Ok(Self {
            peer_server: server_config(&credentials, &roots, domain, ClientRole::Members)?,
            agent_server: server_config(&credentials, &roots, domain, agents)?,
            api_server: api_server_config(&api)?,
            client: client_config(&credentials, &roots, domain)?,
            renew_at_ms: credentials.validity.renew_at_ms(),
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
