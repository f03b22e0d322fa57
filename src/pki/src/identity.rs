use crate::Error;
use sha2::{Digest, Sha256};
use std::fmt;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Who holds a certificate, from its SPIFFE URI.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// The agent of a cluster: `spiffe://<cell>/cluster/<name>`.
    Cluster(String),
    /// A member of the control plane: `spiffe://<cell>/member/<id>`.
    Member(u64),
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(name) => write!(formatter, "cluster {name}"),
            Self::Member(id) => write!(formatter, "member {id}"),
        }
    }
}

/// When a certificate holds, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before_s: i64,
    /// Last second.
    pub not_after_s: i64,
}

impl Validity {
    /// When a certificate holds.
    ///
    /// # Errors
    /// The bytes are no certificate.
    pub fn of_certificate(der: &[u8]) -> Result<Self, Error> {
        let certificate = parse(der)?;
        let validity = certificate.validity();
        Ok(Self {
            not_before_s: validity.not_before.timestamp(),
            not_after_s: validity.not_after.timestamp(),
        })
    }

    /// When to ask for the next certificate: half-way. Milliseconds since 1970.
    #[must_use]
    pub fn renew_at_ms(&self) -> i64 {
        let half_s = self.not_after_s.saturating_sub(self.not_before_s) / 2;
        self.not_before_s.saturating_add(half_s).saturating_mul(1000)
    }

    /// When to ask for the next certificate, for one of many: up to a tenth of its life before [`Self::renew_at_ms`], so that
    /// those who got theirs at one time don't come back at one time. `draw` is any number.
    #[must_use]
    pub fn renew_at_jittered_ms(&self, draw: u64) -> i64 {
        let tenth_ms = self.not_after_s.saturating_sub(self.not_before_s).saturating_mul(100).max(1);
        let early_ms = draw % u64::try_from(tenth_ms).unwrap_or(1);
        self.renew_at_ms().saturating_sub(i64::try_from(early_ms).unwrap_or(0))
    }

    /// Whether it has run out.
    #[must_use]
    pub fn is_over(&self, now_ms: i64) -> bool {
        now_ms.div_euclid(1000) > self.not_after_s
    }
}

impl Identity {
    /// The identity in a certificate. Whether the certificate is valid and whose it is, TLS has checked before.
    ///
    /// # Errors
    /// [`Error::BadCertificate`], or [`Error::NoIdentity`] unless it names exactly one URI, in our form.
    pub fn from_certificate(der: &[u8]) -> Result<Self, Error> {
        Self::with_trust_domain(der).map(|(_, identity)| identity)
    }

    /// The identity in a certificate and the cell (trust domain) it belongs to.
    ///
    /// # Errors
    /// As [`Identity::from_certificate`].
    pub fn with_trust_domain(der: &[u8]) -> Result<(String, Self), Error> {
        let uri = only_uri(der)?;
        parse_uri(&uri).ok_or(Error::NoIdentity { found: uri })
    }

    /// The URI in certificates of `trust_domain`.
    #[must_use]
    pub fn uri(&self, trust_domain: &str) -> String {
        match self {
            Self::Cluster(name) => format!("spiffe://{trust_domain}/cluster/{name}"),
            Self::Member(id) => format!("spiffe://{trust_domain}/member/{id}"),
        }
    }
}

/// First byte of the serial numbers of agents' certificates.
const NUMBERED: u8 = 0x41;
/// Bytes of a serial number: the most that X.509 allows.
const SERIAL_LENGTH: usize = 20;

/// A serial number that says which of its agent's certificates it is.
pub(crate) fn numbered_serial(generation: u64, unique: &[u8]) -> Vec<u8> {
    let mut serial = vec![NUMBERED];
    serial.extend_from_slice(&generation.to_be_bytes());
    serial.extend(unique.iter().copied().chain(std::iter::repeat(0)).take(SERIAL_LENGTH - serial.len()));
    serial
}

/// The generation of an agent's certificate; 0 for one without.
///
/// # Errors
/// The bytes are no certificate.
pub fn generation(der: &[u8]) -> Result<u64, Error> {
    let certificate = parse(der)?;
    let serial = certificate.raw_serial();
    let numbered = (serial.len() == SERIAL_LENGTH && serial.first() == Some(&NUMBERED)).then_some(serial);
    let bytes = numbered.and_then(|serial| serial.get(1..9)).and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.map_or(0, u64::from_be_bytes))
}

/// SHA-256 of a certificate: what invites pin.
#[must_use]
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

/// Whether the text can name a cluster or cell: a DNS label.
pub(crate) fn check_label(what: &'static str, name: &str) -> Result<(), Error> {
    const LABEL_LENGTH_MAX: usize = 63;
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let valid = bytes.len() <= LABEL_LENGTH_MAX
        && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
        && bytes.first().is_some_and(|byte| inner(*byte))
        && bytes.last().is_some_and(|byte| inner(*byte));
    if valid {
        Ok(())
    } else {
        let reason =
            "use 1 to 63 lower-case letters, digits and '-', starting and ending with a letter or digit";
        Err(Error::BadName { what, name: name.to_owned(), reason })
    }
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(Error::BadCertificate { reason: "bytes follow it".to_owned() }),
        Err(error) => Err(Error::BadCertificate { reason: error.to_string() }),
    }
}

/// The URI of a certificate that names exactly one (SPIFFE X509-SVID, section 2).
pub(crate) fn only_uri(der: &[u8]) -> Result<String, Error> {
    let certificate = parse(der)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| Error::BadCertificate { reason: error.to_string() })?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(uri_of);
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri.to_owned()),
        (None, _) => Err(Error::NoIdentity { found: "no URI".to_owned() }),
        (Some(_), Some(_)) => Err(Error::NoIdentity { found: "several URIs".to_owned() }),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of names are X.509's; only URIs matter here")]
fn uri_of<'a>(name: &'a GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    }
}

fn parse_uri(uri: &str) -> Option<(String, Identity)> {
    let mut parts = uri.strip_prefix("spiffe://")?.split('/');
    let (domain, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || check_label("cell", domain).is_err() {
        return None;
    }
    let identity = match kind {
        "cluster" => {
            check_label("cluster", name).ok()?;
            Identity::Cluster(name.to_owned())
        }
        "member" => {
            let id: u64 = name.parse().ok()?;
            // One spelling per member: no signs, no leading zeros.
            (id.to_string() == name).then_some(Identity::Member(id))?
        }
        _ => return None,
    };
    Some((domain.to_owned(), identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_read_back() {
        for identity in [Identity::Cluster("eu-1".into()), Identity::Member(3)] {
            assert_eq!(parse_uri(&identity.uri("cell-a")), Some(("cell-a".to_owned(), identity)));
        }
    }

    #[test]
    fn other_uris_are_no_identity() {
        for uri in [
            "https://cell/cluster/a",
            "spiffe://cell",
            "spiffe://cell/cluster",
            "spiffe://cell/cluster/",
            "spiffe://cell/cluster/a/b",
            "spiffe://cell/cluster/A",
            "spiffe://cell/member/x",
            "spiffe://cell/member/+3",
            "spiffe://cell/member/03",
            "spiffe://cell/operator/a",
            "spiffe:///member/3",
            "spiffe://ce ll/member/3",
        ] {
            assert_eq!(parse_uri(uri), None, "{uri}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        for bytes in [&b""[..], b"\x30\x03\x02\x01\x01", &[0xff; 100]] {
            assert!(matches!(Identity::from_certificate(bytes), Err(Error::BadCertificate { .. })));
        }
    }

    #[test]
    fn a_certificate_is_renewed_half_way() {
        let validity = Validity { not_before_s: 1_000, not_after_s: 4_600 };
        assert_eq!(validity.renew_at_ms(), 2_800_000);
        assert!(!validity.is_over(4_600_999));
        assert!(validity.is_over(4_601_000));
    }
}
