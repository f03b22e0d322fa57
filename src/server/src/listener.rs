//! TLS accept loops whose configuration can be replaced while they run.

use arc_swap::ArcSwap;
use argosy_telemetry::Metrics;
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at a time; further connections wait in the kernel's backlog.
const HANDSHAKES_MAX: usize = 64;
/// Finished handshakes that wait for the server to take them.
const ACCEPTED_QUEUE_MAX: usize = 64;

/// The configuration that new connections get; replaced on rotation.
pub type SharedTls = Arc<ArcSwap<ServerConfig>>;

/// Accepted connections of one listener, as tonic and hyper take them.
pub type Incoming = ReceiverStream<io::Result<TlsStream<TcpStream>>>;

/// Binds `address` and accepts TLS connections until `stop`. Handshakes run side by side, so that a slow or silent
/// client holds up nobody; refused ones are counted under `listener`.
///
/// # Errors
/// The address can't be bound.
pub async fn listen(
    listener_name: &'static str,
    address: SocketAddr,
    tls: SharedTls,
    metrics: Metrics,
    stop: CancellationToken,
) -> io::Result<(SocketAddr, Incoming)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let (sender, receiver) = mpsc::channel(ACCEPTED_QUEUE_MAX);
    tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                // Out of file descriptors, most likely: give the process time to close some.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let (sender, metrics) = (sender.clone(), metrics.clone());
            let acceptor = TlsAcceptor::from(tls.load_full());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let _ = sender.send(Ok(stream)).await;
                    }
                    Ok(Err(error)) => refused(&metrics, listener_name, peer, &error),
                    Err(_) => {
                        metrics.tls_refused.with_label_values(&[listener_name, "timeout"]).inc();
                        tracing::info!(listener = listener_name, %peer, "gave up a handshake that took too long");
                    }
                }
                drop(permit);
            });
        }
    });
    Ok((bound, ReceiverStream::new(receiver)))
}

/// Counts a refused handshake by what was wrong, and says what to do.
fn refused(metrics: &Metrics, listener: &str, peer: SocketAddr, error: &io::Error) {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (reason, text) = match cause {
        Some(cause) => (label(cause), argosy_pki::explain(cause)),
        None => ("handshake", error.to_string()),
    };
    metrics.tls_refused.with_label_values(&[listener, reason]).inc();
    tracing::info!(listener, %peer, reason, "refused a TLS connection: {text}");
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors, of which a few have a label")]
fn label(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Certificate;
    match error {
        rustls::Error::NoCertificatesPresented => "no_certificate",
        rustls::Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "expired"
        }
        rustls::Error::InvalidCertificate(Certificate::Revoked) => "revoked",
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
            "foreign"
        }
        rustls::Error::InvalidCertificate(_) => "wrong_role",
        _ => "handshake",
    }
}
