use crate::verify::{MemberServer, PinnedServer, Revocations, Role, RoleClient};
use crate::{Credentials, Error};
use arc_swap::ArcSwap;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;

/// The server configuration that new connections take: store a new one on rotation.
pub type SharedServerTls = Arc<ArcSwap<ServerConfig>>;
/// The client configuration that new connections take: store a new one on rotation.
pub type SharedClientTls = Arc<ArcSwap<ClientConfig>>;

/// Who may connect to a listener.
#[derive(Clone, Debug)]
pub enum ClientRole {
    /// Members of the cell, each with a certificate.
    Members,
    /// Agents of the cell, each with a certificate.
    Agents,
    /// Agents, and clients without any certificate, who may call `Enrol` only. A certificate that ran out less than
    /// `renewal_grace` ago is let in: its holder may call `RenewCertificate` only. The listener's services have to
    /// check both ([`crate::Validity::is_over`]).
    AgentsEnrolling {
        /// 7 days by the design.
        renewal_grace: Duration,
        /// Certificates that may not be used any more, whatever is written in them.
        revocations: Arc<dyn Revocations>,
    },
}

/// The name that goes with a connection whose server is known by its identity and not by its address.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    // Any valid name does: the verifier does not look at it, and no virtual hosts are served.
    ServerName::try_from("member.argosy.invalid").expect("a constant that is a DNS name")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    Ok(store)
}

/// Whether a client's certificate is good by these roots.
pub(crate) fn verify_client(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    now_ms: i64,
) -> Result<(), Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store(roots)?), provider())
        .build()
        .map_err(|error| Error::Crypto { reason: error.to_string() })?;
    let (leaf, rest) = split(chain)?;
    let verified = verifier.verify_client_cert(leaf, rest, unix_time(now_ms));
    verified.map(drop).map_err(|error| Error::BadCertificate { reason: explain(&error) })
}

/// What a listener has against a client.
fn role_client(
    roots: &[CertificateDer<'static>],
    trust_domain: &str,
    clients: ClientRole,
) -> Result<RoleClient, Error> {
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(store(roots)?), provider())
        .build()
        .map_err(|error| Error::Crypto { reason: error.to_string() })?;
    let (role, mandatory, renewal_grace, revocations) = match clients {
        ClientRole::Members => (Role::Member, true, Duration::ZERO, None),
        ClientRole::Agents => (Role::Agent, true, Duration::ZERO, None),
        ClientRole::AgentsEnrolling { renewal_grace, revocations } => {
            (Role::Agent, false, renewal_grace, Some(revocations))
        }
    };
    let trust_domain = trust_domain.to_owned();
    Ok(RoleClient { inner, trust_domain, role, mandatory, renewal_grace, revocations })
}

/// Whether a listener as [`server_config`] makes it lets in a client that shows this chain at this moment, proof of the key
/// aside: for those who have no connections but messages.
///
/// # Errors
/// What the handshake would end with.
pub fn admit(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    trust_domain: &str,
    clients: ClientRole,
    now_ms: i64,
) -> Result<(), Error> {
    let verifier = role_client(roots, trust_domain, clients)?;
    let (leaf, rest) = split(chain)?;
    let verified = verifier.verify_client_cert(leaf, rest, unix_time(now_ms));
    verified.map(drop).map_err(|error| Error::BadCertificate { reason: explain(&error) })
}

/// Whether an agent with these roots takes a server that shows this chain at this moment for a member of its cell; see
/// [`admit`].
///
/// # Errors
/// What the handshake would end with.
pub fn recognize(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    trust_domain: &str,
    now_ms: i64,
) -> Result<(), Error> {
    let (leaf, rest) = split(chain)?;
    let verified = member_server(roots, trust_domain)?.verify_server_cert(
        leaf,
        rest,
        &server_name(),
        &[],
        unix_time(now_ms),
    );
    verified.map(drop).map_err(|error| Error::BadCertificate { reason: explain(&error) })
}

fn split<'a>(
    chain: &'a [CertificateDer<'static>],
) -> Result<(&'a CertificateDer<'static>, &'a [CertificateDer<'static>]), Error> {
    chain.split_first().ok_or_else(|| Error::BadCertificate { reason: "the chain is empty".to_owned() })
}

fn unix_time(now_ms: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(now_ms).unwrap_or(0)))
}

fn member_server(roots: &[CertificateDer<'static>], trust_domain: &str) -> Result<MemberServer, Error> {
    Ok(MemberServer {
        roots: store(roots)?,
        trust_domain: trust_domain.to_owned(),
        algorithms: provider().signature_verification_algorithms,
    })
}

/// A listener for members or agents: TLS 1.3, HTTP/2.
///
/// # Errors
/// A root can't be used, or the key is not of the certificate.
pub fn server_config(
    credentials: &Credentials,
    roots: &[CertificateDer<'static>],
    trust_domain: &str,
    clients: ClientRole,
) -> Result<ServerConfig, Error> {
    let verifier = role_client(roots, trust_domain, clients)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry a certificate past its end.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// Connections to a member, from a member or an agent: TLS 1.3, HTTP/2. The server is known by its identity, so any
/// [`server_name`] does.
///
/// # Errors
/// A root can't be used, or the key is not of the certificate.
pub fn client_config(
    credentials: &Credentials,
    roots: &[CertificateDer<'static>],
    trust_domain: &str,
) -> Result<ClientConfig, Error> {
    let verifier = member_server(roots, trust_domain)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The first connection of an agent, for `Enrol`: no certificate of its own, the server must belong to the CA that the
/// invite pins.
///
/// # Errors
/// The cryptographic library refused.
pub fn pinned_client_config(authority_fingerprint: [u8; 32]) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier =
        PinnedServer { authority_fingerprint, algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The API listener: TLS 1.2 and 1.3, no client certificates, HTTP/2 and HTTP/1.1.
///
/// # Errors
/// The key is not of the certificate.
pub fn api_server_config(credentials: &Credentials) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Connections to the API: usual verification by name against the cell's roots. ALPN is left to the HTTP client.
///
/// # Errors
/// A root can't be used.
pub fn api_client_config(roots: &[CertificateDer<'static>]) -> Result<ClientConfig, Error> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store(roots)?)
        .with_no_client_auth())
}

/// What a failed handshake means, for logs: one line for each cause, with what to do.
#[must_use]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors, of which a few have a meaning here"
)]
pub fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::NoCertificatesPresented => {
            "the client showed no certificate: enrol it with an invite first".to_owned()
        }
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate has expired: renew it, and check the clocks of both sides".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate is not valid yet: check the clocks of both sides".to_owned()
            }
            CertificateError::Revoked => {
                "the certificate was revoked, or its key is locked: find out why (`argosy cluster get`), then invite the cluster again".to_owned()
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the certificate was issued by another certificate authority: enrol with an invite of this cell".to_owned()
            }
            CertificateError::Other(other) => other.0.to_string(),
            other => format!("the certificate is not accepted: {other}"),
        },
        rustls::Error::AlertReceived(AlertDescription::CertificateRevoked) => {
            "the control plane does not accept this certificate any more: it was revoked, or its key was used by a second process; the cluster has to be invited again".to_owned()
        }
        rustls::Error::AlertReceived(alert) => {
            format!("the other side refused the connection ({alert:?}): see its log for the reason")
        }
        other => other.to_string(),
    }
}
