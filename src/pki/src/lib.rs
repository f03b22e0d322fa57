//! Who is who: the cell's certificate authority, certificates of members and agents, invites, TLS configurations.
//!
//! A cell has one CA ([`Authority`]); its name is the trust domain. Members carry `spiffe://<cell>/member/<id>` and issue
//! their own certificates from the locally kept CA key; agents carry `spiffe://<cell>/cluster/<name>` and get theirs for
//! a signing request, first with a single-use [`Invite`], later with the certificate they have.
//!
//! What it does not do: no network, no clock (time is given; only the TLS handshake reads the system clock through
//! rustls), no record of which invites are used (replicated state holds their hashes), no decision on what an identity
//! may do beyond its role at the TLS listener.
//!
//! Invariants: a private key never leaves the process that made it and its file is readable by its owner only; nothing a
//! signing request asks for is copied into the certificate except its public key; a connection of the wrong role, of
//! another cell or without a valid certificate does not finish its handshake.
//!
//! Failure model: bytes from network and disk are hostile or torn: they give an [`Error`] that names what is wrong and
//! what to do, never a panic. Files are replaced by rename, so that a crash leaves the old or the new one.

mod agent;
mod authority;
mod bundle;
mod error;
mod files;
mod identity;
mod invite;
mod keeper;
mod seal;
mod tls;
mod verify;

pub use agent::{AgentIdentity, AgentKey};
pub use authority::{Authority, Credentials, Lifetimes, SignedChain};
pub use bundle::{AuthorityFiles, Loaded};
pub use error::Error;
pub use files::to_pem;
pub use identity::{Identity, Validity, fingerprint, generation};
pub use invite::{Invite, invite_hash};
pub use keeper::{Keeper, Way};
pub use seal::SealKey;
pub use tls::{
    ClientRole, SharedClientTls, SharedServerTls, admit, api_client_config, api_server_config, client_config,
    explain, pinned_client_config, recognize, server_config, server_name,
};
pub use verify::{NoneRevoked, Revocations};

pub use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
