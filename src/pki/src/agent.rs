use crate::authority::belongs;
use crate::tls::verify_client;
use crate::{Credentials, Error, Identity, Validity, files, fingerprint, identity};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::path::Path;

const KEY_FILE: &str = "key.pem";
const CERTIFICATE_FILE: &str = "cert.pem";
const ROOTS_FILE: &str = "roots.pem";

/// An agent's private key. Made here, kept for the life of the agent's data directory, never sent.
pub struct AgentKey {
    key: KeyPair,
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AgentKey").finish_non_exhaustive()
    }
}

impl AgentKey {
    /// Reads `key.pem` of the directory, or makes and saves a key (for its owner only).
    ///
    /// # Errors
    /// The file can't be read or written, or holds no key.
    pub fn load_or_create(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(KEY_FILE);
        if let Some(pem) = files::read(&path)? {
            let key = KeyPair::from_pem(&pem)
                .map_err(|_| Error::BadFile { path: path.display().to_string(), what: "private key" })?;
            return Ok(Self { key });
        }
        files::make_directory(directory)?;
        let key = KeyPair::generate()?;
        files::replace(&path, key.serialize_pem().as_bytes(), 0o600)?;
        Ok(Self { key })
    }

    /// A new key, in memory.
    ///
    /// # Errors
    /// The cryptographic library refused.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self { key: KeyPair::generate()? })
    }

    /// Puts the key in the place of the directory's. That one's certificate goes first: a crash before the new one is saved
    /// leaves an agent that has to enrol, never one with a key and a certificate that don't belong together.
    ///
    /// # Errors
    /// The files can't be replaced.
    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        files::make_directory(directory)?;
        files::remove(&directory.join(CERTIFICATE_FILE))?;
        files::replace(&directory.join(KEY_FILE), self.key.serialize_pem().as_bytes(), 0o600)
    }

    /// The request to send with an invite, or for renewal. Names nobody: the control plane sets the identity.
    ///
    /// # Errors
    /// The cryptographic library refused.
    pub fn signing_request(&self) -> Result<Vec<u8>, Error> {
        let request = CertificateParams::default().serialize_request(&self.key)?;
        Ok(request.der().to_vec())
    }
}

/// An enrolled agent: key, certificate chain and the roots it trusts.
#[derive(Clone, Debug)]
pub struct AgentIdentity {
    /// For [`crate::client_config`].
    pub credentials: Credentials,
    /// The cell's CA certificates.
    pub roots: Vec<CertificateDer<'static>>,
    /// The cluster in the certificate.
    pub cluster: String,
    /// The cell.
    pub trust_domain: String,
}

impl AgentIdentity {
    /// Joins a key and the answer to its signing request.
    ///
    /// # Errors
    /// The chain is empty, of another key, or names no cluster.
    pub fn new(key: &AgentKey, chain: Vec<Vec<u8>>, roots: Vec<Vec<u8>>) -> Result<Self, Error> {
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let roots: Vec<_> = roots.into_iter().map(CertificateDer::from).collect();
        Self::join(key, chain, roots, KEY_FILE)
    }

    fn join(
        key: &AgentKey,
        chain: Vec<CertificateDer<'static>>,
        roots: Vec<CertificateDer<'static>>,
        key_path: &str,
    ) -> Result<Self, Error> {
        let empty = || Error::BadCertificate { reason: "the chain is empty".to_owned() };
        let leaf = chain.first().ok_or_else(empty)?;
        if roots.is_empty() {
            return Err(Error::BadCertificate { reason: "no trusted roots came with it".to_owned() });
        }
        if !belongs(leaf, &key.key)? {
            return Err(Error::KeyMismatch { path: key_path.to_owned() });
        }
        let validity = Validity::of_certificate(leaf)?;
        let (trust_domain, identity) = Identity::with_trust_domain(leaf)?;
        let cluster = match identity {
            Identity::Cluster(cluster) => cluster,
            Identity::Member(_) => {
                return Err(Error::WrongRole { found: identity.to_string(), expected: "a cluster's agent" });
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.key.serialize_der()));
        Ok(Self { credentials: Credentials { chain, key, validity }, roots, cluster, trust_domain })
    }

    /// Which of the cluster's certificates it is.
    ///
    /// # Errors
    /// The certificate can't be read.
    pub fn generation(&self) -> Result<u64, Error> {
        self.credentials.chain.first().map_or(Ok(0), |leaf| identity::generation(leaf))
    }

    /// SHA-256 of the authorities that it trusts.
    #[must_use]
    pub fn trusts(&self) -> Vec<Vec<u8>> {
        self.roots.iter().map(|root| fingerprint(root).to_vec()).collect()
    }

    /// Whether it can be used: the certificate holds now, and by the roots that came with it.
    ///
    /// # Errors
    /// What a member would have against it.
    pub fn verify(&self, now_ms: i64) -> Result<(), Error> {
        verify_client(&self.credentials.chain, &self.roots, now_ms)
    }

    /// Writes `roots.pem`, then `cert.pem`, beside the key of the same directory. A crash in between leaves the old
    /// certificate with the new roots, or no certificate: both load.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        files::make_directory(directory)?;
        files::replace(&directory.join(ROOTS_FILE), files::to_pem(&self.roots).as_bytes(), 0o600)?;
        files::replace(
            &directory.join(CERTIFICATE_FILE),
            files::to_pem(&self.credentials.chain).as_bytes(),
            0o600,
        )
    }

    /// Reads an enrolled agent's files; `None` if it has not been enrolled. An expired certificate loads: it may be
    /// renewed within the grace.
    ///
    /// # Errors
    /// A file can't be read, holds something else, or the key is of another certificate.
    pub fn load(directory: &Path) -> Result<Option<Self>, Error> {
        let certificate_path = directory.join(CERTIFICATE_FILE);
        let (roots_path, key_path) = (directory.join(ROOTS_FILE), directory.join(KEY_FILE));
        let Some(certificate) = files::read(&certificate_path)? else { return Ok(None) };
        let bad = |path: &Path, what| Error::BadFile { path: path.display().to_string(), what };
        let roots = files::read(&roots_path)?.ok_or_else(|| bad(&roots_path, "PEM certificate"))?;
        let key = files::read(&key_path)?.ok_or_else(|| bad(&key_path, "private key"))?;
        let key = KeyPair::from_pem(&key).map_err(|_| bad(&key_path, "private key"))?;
        let chain = files::from_pem(&certificate_path, &certificate)?;
        let roots = files::from_pem(&roots_path, &roots)?;
        Self::join(&AgentKey { key }, chain, roots, &key_path.display().to_string()).map(Some)
    }
}
