//! This member's certificates and the signing of agents'. Members issue their own from the cell's CA key, without a
//! quorum, and replace them at half life.

use crate::core::clock;
use arc_swap::ArcSwap;
use argosy_pki::{
    Authority, AuthorityFiles, CertificateDer, ClientRole, Credentials, Error, Lifetimes, Loaded,
    Revocations, SharedClientTls, SharedServerTls, api_server_config, client_config, server_config,
};
use argosy_proto::agent::{EnrolResponse, TrustRoots};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Life of the API's server certificate.
const API_LIFETIME_MS: i64 = 90 * 24 * 3600 * 1000;

/// Signs agents' requests.
pub struct Signer {
    issuers: ArcSwap<Issuers>,
    /// Told when they change.
    changes: watch::Sender<u64>,
    leaf_ms: i64,
    member_addresses: ArcSwap<Vec<String>>,
}

/// The authorities of the cell, as this member has them.
pub struct Issuers {
    /// Issues certificates of members and agents.
    pub issuing: Arc<Authority>,
    /// Others whose key is here.
    pub others: Vec<Authority>,
    /// All that are trusted, the one that issues first.
    pub trusted: Vec<CertificateDer<'static>>,
}

impl Issuers {
    /// All that are trusted, as PEM, for clients of the API.
    #[must_use]
    pub fn pem(&self) -> String {
        argosy_pki::to_pem(&self.trusted)
    }

    /// The API's certificate is from the authority that everybody knows: users keep its certificate in files of their own, so
    /// it changes last.
    fn for_users(&self) -> &Authority {
        // While the next one only waits, it stands among the others as well: the older of the two is the present one.
        let older = |other: &&Authority| other.not_before_s() < self.issuing.not_before_s();
        self.others.iter().find(older).unwrap_or(&self.issuing)
    }
}

/// What signs at one moment: an answer is signed by the authority that was told to state before.
pub struct Signing<'a> {
    issuers: Arc<Issuers>,
    signer: &'a Signer,
}

impl Signer {
    /// A signer that tells agents where the members are.
    #[must_use]
    pub fn new(loaded: Loaded, lifetimes: Lifetimes, member_addresses: Vec<String>) -> Self {
        let Loaded { issuing, others, trusted } = loaded;
        Self {
            issuers: ArcSwap::from_pointee(Issuers { issuing: Arc::new(issuing), others, trusted }),
            changes: watch::channel(0).0,
            leaf_ms: lifetimes.leaf_ms,
            member_addresses: ArcSwap::from_pointee(member_addresses),
        }
    }

    /// What signs now.
    #[must_use]
    pub fn signing(&self) -> Signing<'_> {
        Signing { issuers: self.issuers.load_full(), signer: self }
    }

    /// The cell's authorities.
    #[must_use]
    pub fn issuers(&self) -> Arc<Issuers> {
        self.issuers.load_full()
    }

    /// The authorities have changed: this member's certificates are issued anew, and agents are told whom to trust.
    pub fn set_issuers(
        &self,
        issuing: Authority,
        others: Vec<Authority>,
        trusted: Vec<CertificateDer<'static>>,
    ) {
        self.issuers.store(Arc::new(Issuers { issuing: Arc::new(issuing), others, trusted }));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Wakes whenever the authorities change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// For agents: whom to trust.
    #[must_use]
    pub fn trust_roots(&self) -> TrustRoots {
        let issuers = self.issuers.load();
        TrustRoots { roots_der: issuers.trusted.iter().map(|root| root.to_vec()).collect() }
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
        self.issuers.issuing.check_request(request_der, cluster)
    }

    /// SHA-256 of the authority's certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Vec<u8> {
        self.pin().to_vec()
    }

    /// As [`Self::fingerprint`]: what invites pin.
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        self.issuers.issuing.fingerprint()
    }

    /// A certificate for the agent of `cluster`.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn sign(&self, request_der: &[u8], cluster: &str, generation: u64) -> Result<EnrolResponse, Error> {
        let leaf_ms = self.signer.leaf_ms;
        let signed =
            self.issuers.issuing.sign_agent(request_der, cluster, generation, clock().wall_ms, leaf_ms)?;
        Ok(EnrolResponse {
            certificate_chain_der: signed.chain.iter().map(|certificate| certificate.to_vec()).collect(),
            trust_roots_der: self.issuers.trusted.iter().map(|root| root.to_vec()).collect(),
            not_after_ms: signed.validity.not_after_s.saturating_mul(1_000),
            member_addresses: self.signer.member_addresses(),
            trust_domain: self.issuers.issuing.trust_domain().to_owned(),
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
        let mut changes = signer.changes();
        loop {
            // The wall clock may jump: it is looked at often instead of slept on once.
            let changed = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(issue.look_every) => false,
                Ok(()) = changes.changed() => true,
            };
            if !changed && clock().wall_ms < renew_at_ms {
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
        let (issuers, now_ms) = (signer.issuers(), clock().wall_ms);
        let credentials: Credentials = issuers.issuing.issue_member(self.member, &[], now_ms)?;
        let api = issuers.for_users().issue_server(&self.api_names, API_LIFETIME_MS, now_ms)?;
        let (roots, domain) = (&issuers.trusted, issuers.issuing.trust_domain());
        let agents = ClientRole::AgentsEnrolling {
            renewal_grace: self.renewal_grace,
            revocations: Arc::clone(&self.revocations),
        };
        Ok(Issued {
            peer_server: server_config(&credentials, roots, domain, ClientRole::Members)?,
            agent_server: server_config(&credentials, roots, domain, agents)?,
            api_server: api_server_config(&api)?,
            client: client_config(&credentials, roots, domain)?,
            renew_at_ms: credentials.validity.renew_at_jittered_ms(rand::random()),
        })
    }
}

/// The cell's authorities from their directory.
///
/// # Errors
/// The directory holds none, or that of another cell.
pub fn load_authorities(files: &AuthorityFiles, directory: &Path, cell: &str) -> anyhow::Result<Loaded> {
    let loaded = files.load()?.ok_or_else(|| {
        anyhow::anyhow!("{} holds no certificate authority: make it once with `argosy pki init --cell {cell} --dir {}` and copy it to every member", directory.display(), directory.display())
    })?;
    anyhow::ensure!(
        loaded.issuing.trust_domain() == cell,
        "{} holds the authority of cell {}, not of {cell}",
        directory.display(),
        loaded.issuing.trust_domain()
    );
    Ok(loaded)
}
