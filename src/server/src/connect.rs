//! Connections to other members.

use argosy_pki::{Identity, SharedClientTls, server_name};
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Time for TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Opens connections with the newest certificate.
#[derive(Clone)]
pub struct Dialer {
    tls: SharedClientTls,
}

impl Dialer {
    /// A dialer over a configuration that may be replaced.
    #[must_use]
    pub fn new(tls: SharedClientTls) -> Self {
        Self { tls }
    }

    /// A connection to `member` at `address` (host:port); its certificate must name that member.
    ///
    /// # Errors
    /// The address is no address, nobody answers, or somebody else does.
    pub async fn peer(&self, member: u64, address: &str) -> Result<Channel, tonic::transport::Error> {
        let (tls, target) = (self.tls.load_full(), address.to_owned());
        let connector = service_fn(move |_: Uri| {
            let (tls, target) = (TlsConnector::from(tls.clone()), target.clone());
            async move {
                let stream = TcpStream::connect(&target).await?;
                stream.set_nodelay(true)?;
                let stream = tls.connect(server_name(), stream).await?;
                let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let identity = leaf.map(|leaf| Identity::from_certificate(leaf));
                match identity {
                    Some(Ok(Identity::Member(found))) if found == member => Ok(TokioIo::new(stream)),
                    Some(Ok(other)) => {
                        Err(io::Error::other(format!("{target} is {other}, not member {member}")))
                    }
                    Some(Err(error)) => Err(io::Error::other(error.to_string())),
                    None => Err(io::Error::other(format!("{target} showed no certificate"))),
                }
            }
        });
        // TLS is the connector's business: with an https address the channel would want to speak it once more.
        Endpoint::from_static("http://member.argosy.invalid")
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(4))
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
    }
}
