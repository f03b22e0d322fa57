//! Certificate verifiers that check the role beside the chain.

use crate::{Error, Identity, Validity, fingerprint, generation};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Who may be at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Member,
    Agent,
}

fn refuse(error: Error) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// The certificate must name an identity of the cell, in the role that is expected.
fn check_identity(certificate: &[u8], trust_domain: Option<&str>, role: Role) -> Result<(), Error> {
    let (found, identity) = Identity::with_trust_domain(certificate)?;
    if let Some(expected) = trust_domain.filter(|expected| *expected != found) {
        return Err(Error::ForeignCell { found, expected: expected.to_owned() });
    }
    match (role, &identity) {
        (Role::Member, Identity::Member(_)) | (Role::Agent, Identity::Cluster(_)) => Ok(()),
        (Role::Member, Identity::Cluster(_)) => {
            Err(Error::WrongRole { found: identity.to_string(), expected: "a member of the control plane" })
        }
        (Role::Agent, Identity::Member(_)) => {
            Err(Error::WrongRole { found: identity.to_string(), expected: "a cluster's agent" })
        }
    }
}

/// Verifies that a server is a member of the cell. Its address does not matter: identities do, and agents reach members
/// by addresses of their own (proxies, load balancers).
#[derive(Debug)]
pub(crate) struct MemberServer {
    pub(crate) roots: RootCertStore,
    pub(crate) trust_domain: String,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for MemberServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // Before the chain, so that an agent's certificate is named as such and not as one for another usage.
        check_identity(end_entity, Some(&self.trust_domain), Role::Member).map_err(refuse)?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies that a server is a member of the cell whose CA an invite pins. The server sends the CA in its chain.
#[derive(Debug)]
pub(crate) struct PinnedServer {
    pub(crate) authority_fingerprint: [u8; 32],
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned =
            intermediates.iter().find(|certificate| fingerprint(certificate) == self.authority_fingerprint);
        let pinned = pinned.ok_or_else(|| refuse(Error::PinMismatch))?;
        check_identity(end_entity, None, Role::Member).map_err(refuse)?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Says which certificates of agents have been revoked, at the moment of a handshake.
pub trait Revocations: Send + Sync + fmt::Debug {
    /// Whether the certificate of that generation may not be used by the cluster's agent (any more).
    fn is_revoked(&self, cluster: &str, generation: u64) -> bool;
}

/// Nothing has been revoked.
#[derive(Clone, Copy, Debug)]
pub struct NoneRevoked;

impl Revocations for NoneRevoked {
    fn is_revoked(&self, _: &str, _: u64) -> bool {
        false
    }
}

/// Verifies a client's chain and role.
#[derive(Debug)]
pub(crate) struct RoleClient {
    pub(crate) inner: Arc<dyn ClientCertVerifier>,
    pub(crate) trust_domain: String,
    pub(crate) role: Role,
    pub(crate) mandatory: bool,
    /// How long after its end a certificate is still let in, to be renewed and for nothing else.
    pub(crate) renewal_grace: Duration,
    pub(crate) revocations: Option<Arc<dyn Revocations>>,
}

impl ClientCertVerifier for RoleClient {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let at = self.verification_time(end_entity, now).map_err(refuse)?;
        self.inner.verify_client_cert(end_entity, intermediates, at)?;
        check_identity(end_entity, Some(&self.trust_domain), self.role).map_err(refuse)?;
        if let Some(revocations) = &self.revocations
            && let Identity::Cluster(cluster) = Identity::from_certificate(end_entity).map_err(refuse)?
            && revocations.is_revoked(&cluster, generation(end_entity).map_err(refuse)?)
        {
            return Err(rustls::Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl RoleClient {
    /// Now; for a certificate that ran out within the grace, its last second.
    fn verification_time(&self, end_entity: &[u8], now: UnixTime) -> Result<UnixTime, Error> {
        if self.renewal_grace.is_zero() {
            return Ok(now);
        }
        let not_after_s = u64::try_from(Validity::of_certificate(end_entity)?.not_after_s).unwrap_or(0);
        let over_s = now.as_secs().saturating_sub(not_after_s);
        if over_s == 0 {
            Ok(now)
        } else if over_s <= self.renewal_grace.as_secs() {
            Ok(UnixTime::since_unix_epoch(Duration::from_secs(not_after_s)))
        } else {
            Err(Error::RenewalGraceOver)
        }
    }
}
