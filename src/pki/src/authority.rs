use crate::{AuthorityFiles, Error, Identity, Validity, files, fingerprint, identity};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Names in one server certificate.
const NAMES_MAX: usize = 64;

/// How long certificates hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// The CA's own certificate. 10 years.
    pub authority_ms: i64,
    /// Members and agents. 1 h.
    pub leaf_ms: i64,
    /// How far a certificate's start lies before its issue, for clocks that are behind. 5 min.
    pub backdate_ms: i64,
}

impl Lifetimes {
    /// Certificates of members and agents that hold for so long. Short ones are dated back less, so that half of their life
    /// is still ahead when they are issued.
    #[must_use]
    pub fn with_leaf(leaf_ms: i64) -> Self {
        let backdate_ms = Self::default().backdate_ms.min(leaf_ms / 10);
        Self { leaf_ms, backdate_ms, ..Self::default() }
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { authority_ms: 10 * 365 * 24 * 3_600_000, leaf_ms: 3_600_000, backdate_ms: 300_000 }
    }
}

/// A certificate chain, leaf first and CA last, and its key: what a TLS endpoint needs to show who it is.
pub struct Credentials {
    /// Leaf first, CA last.
    pub chain: Vec<CertificateDer<'static>>,
    /// Of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// Of the leaf.
    pub validity: Validity,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), validity: self.validity }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// The answer to a signing request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedChain {
    /// Leaf first, CA last.
    pub chain: Vec<CertificateDer<'static>>,
    /// Of the leaf.
    pub validity: Validity,
}

/// The certificate authority of a cell. Cheap to share behind an `Arc`.
pub struct Authority {
    trust_domain: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    lifetimes: Lifetimes,
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authority").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new CA for the cell, whose name becomes the trust domain.
    ///
    /// # Errors
    /// The cell's name is no DNS label, or the time can't be put in a certificate.
    pub fn create(cell: &str, now_ms: i64, lifetimes: Lifetimes) -> Result<Self, Error> {
        identity::check_label("cell", cell)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("Argosy cell {cell}"));
        params.subject_alt_names = vec![SanType::URI(ia5("cell", &format!("spiffe://{cell}"))?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_times(&mut params, now_ms, lifetimes.authority_ms, lifetimes.backdate_ms)?;
        let certificate = params.self_signed(&key)?;
        let certificate = certificate.der().clone();
        Self::new(certificate, key, lifetimes)
    }

    pub(crate) fn new(
        certificate: CertificateDer<'static>,
        key: KeyPair,
        lifetimes: Lifetimes,
    ) -> Result<Self, Error> {
        let uri = identity::only_uri(&certificate)?;
        let trust_domain = uri
            .strip_prefix("spiffe://")
            .filter(|domain| identity::check_label("cell", domain).is_ok())
            .ok_or_else(|| Error::NoIdentity { found: uri.clone() })?
            .to_owned();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { trust_domain, certificate, issuer, lifetimes })
    }

    /// An authority from its parts, as another member gives them.
    ///
    /// # Errors
    /// They can't be read, or don't belong together.
    pub fn from_parts(certificate_der: &[u8], key_der: &[u8], lifetimes: Lifetimes) -> Result<Self, Error> {
        let key = PrivatePkcs8KeyDer::from(key_der.to_vec());
        let key = KeyPair::try_from(&key)?;
        if !belongs(certificate_der, &key)? {
            return Err(Error::KeyMismatch { path: "the answer".to_owned() });
        }
        Self::new(CertificateDer::from(certificate_der.to_vec()), key, lifetimes)
    }

    /// The key, for another member of the cell and for nobody else.
    #[must_use]
    pub fn key_der(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// When it begins to hold, seconds since 1970; 0 if that can't be read.
    #[must_use]
    pub fn not_before_s(&self) -> i64 {
        Validity::of_certificate(&self.certificate).map_or(0, |validity| validity.not_before_s)
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Writes `ca.pem` and `ca.key` (for its owner only) to the directory, which is made if missing.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        AuthorityFiles::new(directory, self.lifetimes, None).save(self)
    }

    /// Reads what [`Authority::save`] wrote; `None` if the directory holds no CA.
    ///
    /// # Errors
    /// A file can't be read, holds something else, or key and certificate don't belong together.
    pub fn load(directory: &Path, lifetimes: Lifetimes) -> Result<Option<Self>, Error> {
        Ok(AuthorityFiles::new(directory, lifetimes, None).load()?.map(|loaded| loaded.issuing))
    }

    /// Reads the directory's CA, or makes one for the cell and saves it.
    ///
    /// # Errors
    /// As [`Authority::load`], [`Authority::create`] and [`Authority::save`]; [`Error::ForeignCell`] if the directory
    /// holds the CA of another cell.
    pub fn load_or_create(
        directory: &Path,
        cell: &str,
        now_ms: i64,
        lifetimes: Lifetimes,
    ) -> Result<Self, Error> {
        if let Some(authority) = Self::load(directory, lifetimes)? {
            if authority.trust_domain != cell {
                return Err(Error::ForeignCell { found: authority.trust_domain, expected: cell.to_owned() });
            }
            return Ok(authority);
        }
        let authority = Self::create(cell, now_ms, lifetimes)?;
        authority.save(directory)?;
        Ok(authority)
    }

    /// The cell's name.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The CA certificates to trust.
    #[must_use]
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    /// The CA certificates as PEM, for clients of the API.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        files::to_pem(&self.roots())
    }

    /// SHA-256 of the CA certificate: what invites pin.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// A key and certificate for a member, for both ends of connections. `names` are host names and addresses; agents and
    /// members go by the identity and don't need them.
    ///
    /// # Errors
    /// A name can't be put in a certificate.
    pub fn issue_member(&self, member: u64, names: &[String], now_ms: i64) -> Result<Credentials, Error> {
        let mut params = self.leaf(now_ms, self.lifetimes.leaf_ms, &Identity::Member(member).to_string())?;
        let uri = Identity::Member(member).uri(&self.trust_domain);
        params.subject_alt_names = server_names(names)?;
        params.subject_alt_names.push(SanType::URI(ia5("member", &uri)?));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, now_ms)
    }

    /// A key and certificate for the API listener: a server without an identity on the links. `localhost` and the
    /// loopback addresses are always among its names.
    ///
    /// # Errors
    /// A name can't be put in a certificate.
    pub fn issue_server(
        &self,
        names: &[String],
        lifetime_ms: i64,
        now_ms: i64,
    ) -> Result<Credentials, Error> {
        let mut params = self.leaf(now_ms, lifetime_ms, "argosy api")?;
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let others = names.iter().filter(|name| !local.contains(name)).cloned();
        params.subject_alt_names = server_names(&local.iter().cloned().chain(others).collect::<Vec<_>>())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, now_ms)
    }

    /// Whether [`Authority::sign_agent`] would sign, to be asked before an invite is used up: the SHA-256 of the public key.
    ///
    /// # Errors
    /// As [`Authority::sign_agent`].
    pub fn check_request(&self, request_der: &[u8], cluster: &str) -> Result<[u8; 32], Error> {
        identity::check_label("cluster", cluster)?;
        let request = read_request(request_der)?;
        Ok(Sha256::digest(request.public_key.der_bytes()).into())
    }

    /// A certificate for the agent of `cluster`, which made the key. Whatever else the request asks for is ignored. The
    /// generation is put into the serial number: [`crate::generation`] reads it.
    ///
    /// # Errors
    /// The request can't be read or was not signed with its own key; the cluster's name is no DNS label.
    pub fn sign_agent(
        &self,
        request_der: &[u8],
        cluster: &str,
        generation: u64,
        now_ms: i64,
        lifetime_ms: i64,
    ) -> Result<SignedChain, Error> {
        identity::check_label("cluster", cluster)?;
        let mut request = read_request(request_der)?;
        let identity = Identity::Cluster(cluster.to_owned());
        let mut params = self.leaf(now_ms, lifetime_ms, &identity.to_string())?;
        params.subject_alt_names = vec![SanType::URI(ia5("cluster", &identity.uri(&self.trust_domain))?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let unique = serial(request.public_key.der_bytes(), now_ms);
        params.serial_number = Some(identity::numbered_serial(generation, unique.as_ref()).into());
        request.params = params;
        let leaf = request.signed_by(&self.issuer)?.der().clone();
        let validity = Validity::of_certificate(&leaf)?;
        Ok(SignedChain { chain: vec![leaf, self.certificate.clone()], validity })
    }

    fn leaf(&self, now_ms: i64, lifetime_ms: i64, name: &str) -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_times(&mut params, now_ms, lifetime_ms, self.lifetimes.backdate_ms)?;
        Ok(params)
    }

    fn issue(&self, mut params: CertificateParams, now_ms: i64) -> Result<Credentials, Error> {
        let key = KeyPair::generate()?;
        params.serial_number = Some(serial(key.public_key_raw(), now_ms));
        let leaf = params.signed_by(&key, &self.issuer)?.der().clone();
        let validity = Validity::of_certificate(&leaf)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Credentials { chain: vec![leaf, self.certificate.clone()], key, validity })
    }
}

/// Whether the certificate is of this key.
pub(crate) fn belongs(certificate: &[u8], key: &KeyPair) -> Result<bool, Error> {
    let certificate = identity::parse(certificate)?;
    Ok(certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
}

fn read_request(der: &[u8]) -> Result<CertificateSigningRequestParams, Error> {
    /// A request of a P-256 key has about 300 bytes.
    const REQUEST_BYTES_MAX: usize = 16 * 1024;
    if der.len() > REQUEST_BYTES_MAX {
        return Err(Error::BadRequest { reason: format!("it has more than {REQUEST_BYTES_MAX} bytes") });
    }
    CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
        .map_err(|error| Error::BadRequest { reason: error.to_string() })
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn ia5(what: &'static str, text: &str) -> Result<rcgen::string::Ia5String, Error> {
    rcgen::string::Ia5String::try_from(text).map_err(|_| Error::BadName {
        what,
        name: text.to_owned(),
        reason: "use ASCII only",
    })
}

fn server_names(names: &[String]) -> Result<Vec<SanType>, Error> {
    if names.len() > NAMES_MAX {
        let reason = "a certificate holds at most 64 names";
        return Err(Error::BadName { what: "server name", name: format!("{} names", names.len()), reason });
    }
    names
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => Ok(SanType::DnsName(ia5("server name", name)?)),
        })
        .collect()
}

/// One key may get several certificates: the serial number tells them apart.
fn serial(public_key: &[u8], now_ms: i64) -> SerialNumber {
    let digest = Sha256::new().chain_update(public_key).chain_update(now_ms.to_be_bytes()).finalize();
    let mut bytes = digest[..16].to_vec();
    // Serial numbers are positive and not zero.
    bytes[0] = bytes[0] & 0x7f | 0x01;
    SerialNumber::from(bytes)
}

fn set_times(
    params: &mut CertificateParams,
    now_ms: i64,
    lifetime_ms: i64,
    backdate_ms: i64,
) -> Result<(), Error> {
    let at = |time_ms: i64| {
        // The last second that X.509 times can express is that of the year 9999.
        const TIME_MS_MAX: i64 = 253_402_300_799_000;
        let bad = || Error::BadTime { time_ms };
        let since = u64::try_from(time_ms).ok().filter(|_| time_ms <= TIME_MS_MAX).ok_or_else(bad)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(since / 1000)).ok_or_else(bad)
    };
    params.not_before = at(now_ms.saturating_sub(backdate_ms))?.into();
    params.not_after = at(now_ms.saturating_add(lifetime_ms))?.into();
    Ok(())
}
