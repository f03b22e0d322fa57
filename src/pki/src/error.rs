use std::io;

/// What is wrong with a certificate, key, request or invite, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A file has no usable content.
    #[error("{path} holds no valid {what}: restore it from a backup, or enrol again")]
    BadFile {
        /// Which file.
        path: String,
        /// What it should hold.
        what: &'static str,
    },
    /// The key of a certificate is another one.
    #[error(
        "the key in {path} does not belong to the certificate beside it: restore both from one backup, or enrol again"
    )]
    KeyMismatch {
        /// Which key.
        path: String,
    },
    /// Certificate bytes that can't be read.
    #[error("the certificate can't be read: {reason}")]
    BadCertificate {
        /// Why.
        reason: String,
    },
    /// A certificate without an identity of ours.
    #[error(
        "the certificate names no identity of a cell ({found}): use one issued by the cell's certificate authority"
    )]
    NoIdentity {
        /// What it names instead.
        found: String,
    },
    /// A certificate of another cell.
    #[error(
        "the certificate belongs to cell {found:?}, not to {expected:?}: enrol with an invite of this cell"
    )]
    ForeignCell {
        /// The certificate's trust domain.
        found: String,
        /// Ours.
        expected: String,
    },
    /// The certificate is of a role that may not connect here.
    #[error("{found} may not connect here: {expected} is required")]
    WrongRole {
        /// Who it is.
        found: String,
        /// Who is expected.
        expected: &'static str,
    },
    /// A certificate that ran out longer ago than it may be renewed.
    #[error("the certificate expired and can no longer be renewed: enrol again with a new invite")]
    RenewalGraceOver,
    /// A signing request that can't be read, or was not signed with its own key.
    #[error("the signing request is invalid: {reason}")]
    BadRequest {
        /// Why.
        reason: String,
    },
    /// A name that can't be part of an identity or certificate.
    #[error("{what} {name:?} is invalid: {reason}")]
    BadName {
        /// What was named.
        what: &'static str,
        /// The name as given.
        name: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// Text that is no invite.
    #[error("the invite is invalid: {reason}; copy the whole token again, or ask for a new one")]
    BadInvite {
        /// Why.
        reason: &'static str,
    },
    /// A time that no certificate can hold.
    #[error("time {time_ms} ms can't be put in a certificate: check the clock")]
    BadTime {
        /// Milliseconds since 1970.
        time_ms: i64,
    },
    /// The server did not show the CA that the invite names.
    #[error(
        "the server does not belong to the cell that made the invite: check the member addresses, or ask for a new invite"
    )]
    PinMismatch,
    /// What seals the CA's key is too short to be safe.
    #[error(
        "what seals the key has {length} bytes: use at least {least}, at random (`openssl rand -base64 32`)"
    )]
    SealTooShort {
        /// What it has.
        length: usize,
        /// What it needs.
        least: usize,
    },
    /// A key is in the clear although it should be sealed.
    #[error("{path} is not sealed, but `caSeal` is configured: seal it once with `argosy pki seal`")]
    NotSealed {
        /// Which file.
        path: String,
    },
    /// A key is sealed, and there is nothing to open it with.
    #[error("{path} is sealed: configure `caSeal` with the file, variable or command that gives its key")]
    Sealed {
        /// Which file.
        path: String,
    },
    /// A key was sealed with another key.
    #[error(
        "{path} was sealed with another key than `caSeal` gives, or was changed since: check which one it is"
    )]
    WrongSeal {
        /// Which file.
        path: String,
    },
    /// The cryptographic library refused.
    #[error("cryptography: {reason}")]
    Crypto {
        /// Why.
        reason: String,
    },
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto { reason: error.to_string() }
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self::Crypto { reason: error.to_string() }
    }
}
