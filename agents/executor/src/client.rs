//! The way to the agent: one HTTPS request per connection, to an address, with one known certificate.

use crate::protocol;
use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longer than the agent lets a question wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest answer lists the objects of a directory.
const ANSWER_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of an answer before its body.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Why there is no answer, or no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{variable} is {value:?}: {reason}")]
    Setting { variable: &'static str, value: String, reason: String },
    #[error("no answer from the agent at {agent}: {reason}")]
    Unreachable { agent: SocketAddr, reason: String },
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Asks one agent.
pub struct Client {
    agent: SocketAddr,
    token: String,
    tls: Arc<ClientConfig>,
}

impl Client {
    /// A client of the agent that the environment names.
    pub fn new(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let setting = |variable| lookup(variable).unwrap_or_default();
        let refuse = |variable: &'static str, value: &str, reason: String| Error::Setting {
            variable,
            value: value.to_owned(),
            reason,
        };
        let address = setting(protocol::ENV_AGENT);
        let agent = address.parse().map_err(|error| {
            refuse(protocol::ENV_AGENT, &address, format!("{error}; an IP:PORT is needed"))
        })?;
        let pin = setting(protocol::ENV_AGENT_CERTIFICATE);
        let fingerprint = from_hex(&pin).ok_or_else(|| {
            refuse(protocol::ENV_AGENT_CERTIFICATE, &pin, "64 hex digits are needed".to_owned())
        })?;
        let token = setting(protocol::ENV_TOKEN);
        if token.is_empty() || token.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(refuse(protocol::ENV_TOKEN, "", "a token is needed".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Pinned { fingerprint, provider: Arc::clone(&provider) });
        let tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refuse(protocol::ENV_AGENT, &address, error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self { agent, token, tls: Arc::new(tls) })
    }

    /// Posts a body and waits for the answer.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, Error> {
        self.post_within(path, body, ANSWER_TIMEOUT)
    }

    /// As [`Self::post`], waiting longer for an answer.
    pub fn post_within(&self, path: &str, body: &impl Serialize, timeout: Duration) -> Result<Answer, Error> {
        self.exchange(path, body, timeout)
            .map_err(|error| Error::Unreachable { agent: self.agent, reason: error.to_string() })
    }

    /// Posts a body and gives the answer's status and what follows, which may be long: it is not looked at here, and
    /// whoever reads it must know its end.
    pub fn open(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<(u16, Box<dyn Read>), Error> {
        let opened = || {
            let mut stream = std::io::BufReader::new(self.send(path, body, timeout)?);
            let status = read_head(&mut stream)?;
            Ok::<_, std::io::Error>((status, Box::new(stream) as Box<dyn Read>))
        };
        opened().map_err(|error| Error::Unreachable { agent: self.agent, reason: error.to_string() })
    }

    fn send(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let body = serde_json::to_vec(body)?;
        let socket = TcpStream::connect_timeout(&self.agent, CONNECT_TIMEOUT)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        socket.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.agent.ip().into());
        let connection = ClientConnection::new(Arc::clone(&self.tls), name).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.agent,
            self.token,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&body)?;
        stream.flush()?;
        Ok(stream)
    }

    fn exchange(&self, path: &str, body: &impl Serialize, timeout: Duration) -> std::io::Result<Answer> {
        let mut stream = self.send(path, body, timeout)?;
        let mut answer = Vec::new();
        // An agent that closes without TLS's own goodbye has still answered when the body is whole.
        match (&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
            Err(error) => return Err(error),
        }
        parse_answer(&answer).ok_or_else(|| std::io::Error::other("the answer is not HTTP, or cut off"))
    }
}

/// Reads an answer up to its body; gives the status.
fn read_head(stream: &mut impl Read) -> std::io::Result<u16> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX || stream.read(&mut byte)? == 0 {
            return Err(std::io::Error::other("the answer is not HTTP, or cut off"));
        }
        head.push(byte[0]);
    }
    let status = std::str::from_utf8(&head)
        .ok()
        .and_then(|head| head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    status.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

fn parse_answer(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    (length.is_none_or(|length| body.len() >= length)).then(|| Answer { status, body: body.to_owned() })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (number, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * number..2 * number + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Accepts the one certificate it knows by its digest, whatever names and dates it bears.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if digest::digest(&digest::SHA256, end_entity).as_ref() == self.fingerprint {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General(
                "the agent shows another certificate than the one given for this step".into(),
            ))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 is needed".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_or_nothing() {
        let answer = parse_answer(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (403, "no"));
        for cut in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno", "SSH-2.0\r\n\r\n"] {
            assert!(parse_answer(cut.as_bytes()).is_none(), "{cut}");
        }
    }

    #[test]
    fn settings_are_checked_by_name() {
        let error = |agent: &str, pin: &str, token: &str| {
            Client::new(|name| {
                Some(
                    match name {
                        protocol::ENV_AGENT => agent,
                        protocol::ENV_AGENT_CERTIFICATE => pin,
                        _ => token,
                    }
                    .to_owned(),
                )
            })
            .err()
            .map(|error| error.to_string())
        };
        let pin = "ab".repeat(32);
        assert!(error("agent.example:1", &pin, "t").unwrap().contains("ARGOSY_AGENT"));
        assert!(error("127.0.0.1:1", "zz", "t").unwrap().contains("ARGOSY_AGENT_CERTIFICATE_SHA256"));
        assert!(error("127.0.0.1:1", &pin, "t\r\nx").unwrap().contains("ARGOSY_TOKEN"));
        assert_eq!(error("127.0.0.1:1", &pin, "t"), None);
    }
}
