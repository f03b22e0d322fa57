//! One request and its answer over one connection.

#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel's other words are told as they are")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use super::{Address, Request, names, trust};

/// Bytes of an answer's first lines.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Go's words for a time that is over.
const OVERDUE: &str = "context deadline exceeded";

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// In order, with names as Go writes them.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

pub fn exchange(request: &Request, address: &Address, end: Instant) -> Result<Answer, String> {
    let socket = connect(address, end)?;
    let clock = Clock { socket: socket.try_clone().map_err(|error| error.to_string())?, end };
    let mut connection: Box<dyn Connection> = if address.tls {
        let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
        let config = trust::config(request.insecure)?;
        let tls = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        Box::new(StreamOwned::new(tls, socket))
    } else {
        Box::new(socket)
    };
    let told = |error: io::Error| tell(&error, end);
    clock.set()?;
    connection.write_all(&head(request, address)).map_err(told)?;
    connection.write_all(&request.body).map_err(told)?;
    connection.flush().map_err(told)?;
    let mut reader = Reader { connection: &mut *connection, clock: &clock, kept: Vec::new(), at: 0 };
    let mut answer = reader.head()?;
    // Answers without a final status: the next one counts.
    while (100..200).contains(&answer.status) {
        answer = reader.head()?;
    }
    answer.body = reader.body(request, &answer)?;
    Ok(answer)
}

fn connect(address: &Address, end: Instant) -> Result<TcpStream, String> {
    let host = &address.host;
    let addresses = names::resolve(host, end).map_err(|error| format!("dial tcp: {error}"))?;
    let mut last = format!("dial tcp: lookup {host}: no such host");
    for one in addresses {
        let one = SocketAddr::new(one, address.port);
        let left = end.saturating_duration_since(Instant::now()).min(CONNECT_MAX);
        if left.is_zero() {
            return Err(OVERDUE.to_owned());
        }
        match TcpStream::connect_timeout(&one, left) {
            Ok(socket) => {
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Err(_) if Instant::now() >= end => return Err(OVERDUE.to_owned()),
            Err(error) => last = format!("dial tcp {one}: {}", call_words(&error)),
        }
    }
    Err(last)
}

/// Go's words for what the kernel says.
fn call_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => format!("connect: {error}"),
    }
}

fn tell(error: &io::Error, end: Instant) -> String {
    let waited = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    if waited || Instant::now() >= end {
        return OVERDUE.to_owned();
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        _ => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => format!("tls: {error}"),
            None => error.to_string(),
        },
    }
}

/// Every wait on the socket ends when the request's time is over.
struct Clock {
    socket: TcpStream,
    end: Instant,
}

impl Clock {
    fn set(&self) -> Result<(), String> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(OVERDUE.to_owned());
        }
        let set =
            self.socket.set_read_timeout(Some(left)).and_then(|()| self.socket.set_write_timeout(Some(left)));
        set.map_err(|error| error.to_string())
    }
}

/// The first lines of a request.
fn head(request: &Request, address: &Address) -> Vec<u8> {
    let method = if request.method.is_empty() { "GET" } else { &request.method };
    let named = |wanted: &str| request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let host = named("host").map_or(address.authority(), |(_, value)| value.as_str());
    let mut head = format!("{method} {} HTTP/1.1\r\nHost: {host}\r\n", address.target);
    if named("user-agent").is_none() {
        head.push_str("User-Agent: argosy-executor\r\n");
    }
    if let Some(user) = address.user.as_ref().filter(|_| named("authorization").is_none()) {
        head.push_str(&format!("Authorization: Basic {}\r\n", base64(user.as_bytes())));
    }
    let bodyless = request.body.is_empty() && matches!(method, "GET" | "HEAD");
    if !bodyless {
        head.push_str(&format!("Content-Length: {}\r\n", request.body.len()));
    }
    let own = ["host", "content-length", "connection", "transfer-encoding"];
    for (name, value) in &request.headers {
        if !own.contains(&name.to_ascii_lowercase().as_str()) {
            // A line break would be another header.
            let value = value.replace(['\r', '\n'], " ");
            head.push_str(&format!("{name}: {}\r\n", value.trim()));
        }
    }
    head.push_str("Connection: close\r\n\r\n");
    head.into_bytes()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

struct Reader<'a> {
    connection: &'a mut dyn Connection,
    clock: &'a Clock,
    kept: Vec<u8>,
    at: usize,
}

impl Reader<'_> {
    /// Reads more; false at the end.
    fn more(&mut self) -> Result<bool, String> {
        self.clock.set()?;
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.connection.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => {
                    self.kept.extend_from_slice(&buffer[..length]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A server that closes without TLS's own goodbye.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(tell(&error, self.clock.end)),
            }
        }
    }

    fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(length) = self.kept[self.at..].iter().position(|byte| *byte == b'\n') {
                let line =
                    String::from_utf8_lossy(&self.kept[self.at..self.at + length]).trim_end().to_owned();
                self.at += length + 1;
                return Ok(line);
            }
            if self.kept.len() - self.at > HEAD_BYTES_MAX {
                return Err("server response headers exceeded the limit; aborted".to_owned());
            }
            if !self.more()? {
                return Err("EOF".to_owned());
            }
        }
    }

    fn head(&mut self) -> Result<Answer, String> {
        let first = self.line()?;
        let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        let Some(status) = status else { return Err(format!("malformed HTTP response {first:?}")) };
        let mut answer = Answer { status, ..Answer::default() };
        let mut bytes = 0;
        loop {
            let line = self.line()?;
            bytes += line.len();
            if bytes > HEAD_BYTES_MAX {
                return Err("server response headers exceeded the limit; aborted".to_owned());
            }
            if line.is_empty() {
                return Ok(answer);
            }
            if let Some((name, value)) = line.split_once(':') {
                answer.headers.push((canonical(name.trim()), value.trim().to_owned()));
            }
        }
    }

    fn body(&mut self, request: &Request, answer: &Answer) -> Result<Vec<u8>, String> {
        if request.method == "HEAD" || matches!(answer.status, 204 | 304) {
            return Ok(Vec::new());
        }
        let max = request.body_bytes_max;
        let chunked =
            answer.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        if chunked {
            return self.chunks(max);
        }
        let length = answer.header("Content-Length").and_then(|value| value.parse::<usize>().ok());
        let mut body = Vec::new();
        match length {
            Some(length) => self.take(length, max, &mut body)?,
            None => {
                while self.more()? {
                    too_long(self.kept.len() - self.at, max)?;
                }
                body.extend_from_slice(&self.kept[self.at..]);
                too_long(body.len(), max)?;
            }
        }
        Ok(body)
    }

    fn chunks(&mut self, max: usize) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| "malformed chunked encoding".to_owned())?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            self.take(size, max, &mut body)?;
            self.line()?;
            // What was read is in the body.
            self.kept.drain(..self.at);
            self.at = 0;
        }
    }

    /// Moves so many bytes to the body.
    fn take(&mut self, length: usize, max: usize, body: &mut Vec<u8>) -> Result<(), String> {
        too_long(body.len().saturating_add(length), max)?;
        while self.kept.len() - self.at < length {
            if !self.more()? {
                return Err("unexpected EOF".to_owned());
            }
        }
        body.extend_from_slice(&self.kept[self.at..self.at + length]);
        self.at += length;
        Ok(())
    }
}

fn too_long(length: usize, max: usize) -> Result<(), String> {
    if length > max { Err(format!("the answer has more than {max} bytes")) } else { Ok(()) }
}

/// A header's name as Go writes it: `X-Answer`.
pub fn canonical(name: &str) -> String {
    let part = |part: &str| {
        let (first, rest) = part.split_at(part.chars().next().map_or(0, char::len_utf8));
        format!("{}{}", first.to_ascii_uppercase(), rest.to_ascii_lowercase())
    };
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}
