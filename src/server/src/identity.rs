//! Who is at the other end of a connection, from its certificate.

use argosy_pki::{Identity, Validity};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::Request;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

/// The other end of a connection.
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    /// When its certificate holds: agents whose certificate ran out are let in to renew it.
    pub validity: Validity,
    /// Which of its certificates; 0 for members.
    pub generation: u64,
}

/// The identity in the client certificate of a request's connection. TLS has verified the certificate itself.
///
/// # Errors
/// Text that says what is missing: no certificate, or none of ours.
pub fn peer_identity<T>(request: &Request<T>) -> Result<Peer, String> {
    let certificates = request
        .extensions()
        .get::<TlsConnectInfo<TcpConnectInfo>>()
        .and_then(TlsConnectInfo::peer_certs)
        .ok_or("a client certificate is required: enrol with an invite first")?;
    let leaf = certificates.first().ok_or("the client certificate chain is empty")?;
    let identity = Identity::from_certificate(leaf).map_err(|error| error.to_string())?;
    let validity = Validity::of_certificate(leaf).map_err(|error| error.to_string())?;
    let generation = argosy_pki::generation(leaf).map_err(|error| error.to_string())?;
    Ok(Peer { identity, validity, generation })
}

/// What the accept loop yields must be what tonic can read certificates from.
const _: fn() = || {
    fn connected<T: tonic::transport::server::Connected>() {}
    connected::<TlsStream<TcpStream>>();
};
