//! Questions to the agent, and requests to stores.

use super::content::Source;
use crate::artifacts::{Answer, Operation, Request, Signed};
use crate::client::Client;
use crate::web::{Address, PRIVATE_HEADERS, REDIRECTS_MAX};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, RequestBuilder, SendBody};

const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Tries of one request to a store.
pub const TRIES_MAX: u32 = 6;
/// Longest time of one question that makes the agent talk to a store.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest time until the agent begins to send an archive: it may have to make it first.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(11 * 60);
/// Bytes of a refusal that are read.
const MESSAGE_BYTES_MAX: u64 = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to a store that are kept for the next request.
const IDLE_MIN: usize = 3;
/// Hosts whose addresses are kept.
const HOSTS_MAX: usize = 64;

/// What an executor needs to load and save.
pub struct Session {
    client: Arc<Client>,
    fence: String,
    holder: String,
    ticket: String,
    parts_at_once: usize,
    hosts: Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>,
    agents: Mutex<BTreeMap<Option<String>, Agent>>,
}

/// Why a request to a store failed.
#[derive(Debug)]
pub struct Failure {
    /// In Argo's words where it has some.
    pub message: String,
    /// Another try may succeed.
    pub again: bool,
}

impl Session {
    pub fn new(
        client: Arc<Client>,
        fence: String,
        holder: String,
        ticket: String,
        parts_at_once: usize,
    ) -> Self {
        let (hosts, agents) = (Arc::default(), Mutex::default());
        Self { client, fence, holder, ticket, parts_at_once, hosts, agents }
    }

    /// Parts of one object that are sent side by side.
    pub fn parts_at_once(&self) -> usize {
        self.parts_at_once
    }

    fn request(&self, operation: Operation) -> Request {
        let (fence, holder, ticket) = (self.fence.clone(), self.holder.clone(), self.ticket.clone());
        Request { fence, holder, ticket, operation }
    }

    /// Asks the agent once; nothing when there is no answer, or a refusal.
    pub fn ask_once(&self, operation: Operation) -> Option<Answer> {
        let answer =
            self.client.post_within("/v1/artifacts", &self.request(operation), QUESTION_TIMEOUT).ok()?;
        if answer.status == 200 { serde_json::from_str(&answer.body).ok() } else { None }
    }

    /// Asks the agent: for as long as it is away or out of touch, a few times while a store fails.
    pub fn ask(&self, operation: Operation) -> Result<Answer, String> {
        let request = self.request(operation);
        let mut wait = WAIT_FIRST;
        let mut failed = 0;
        loop {
            match self.client.post_within("/v1/artifacts", &request, QUESTION_TIMEOUT) {
                Ok(answer) if answer.status == 200 => {
                    return serde_json::from_str(&answer.body)
                        .map_err(|error| format!("the agent's answer can't be read: {error}"));
                }
                Ok(answer) if answer.status == 403 => return Err(answer.body),
                Ok(answer) if answer.status == 424 => {
                    failed += 1;
                    if failed >= TRIES_MAX {
                        return Err(answer.body);
                    }
                }
                Ok(_) | Err(_) => {}
            }
            thread::sleep(wait);
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    /// An input that the agent packs itself.
    pub fn archive(&self, name: &str) -> Result<impl Read + use<>, Failure> {
        let request = self.request(Operation::Archive { name: name.to_owned() });
        let opened = self.client.open("/v1/artifacts/archive", &request, ARCHIVE_TIMEOUT);
        let (status, mut body) =
            opened.map_err(|error| Failure { message: error.to_string(), again: true })?;
        if status == 200 {
            return Ok(body);
        }
        let mut message = String::new();
        // What was told so far is better than nothing.
        let _ = body.by_ref().take(MESSAGE_BYTES_MAX).read_to_string(&mut message);
        Err(Failure { message, again: status != 403 })
    }

    fn agent(&self, signed: &Signed) -> Result<Agent, Failure> {
        let url: ureq::http::Uri = signed.url.parse().map_err(|_| broken("the signed URL can't be read"))?;
        let known: Vec<SocketAddr> = signed.addresses.iter().filter_map(|one| one.parse().ok()).collect();
        {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            if hosts.len() >= HOSTS_MAX {
                hosts.clear();
            }
            // Of the place of a redirection nothing is known yet: the agent is asked.
            if !known.is_empty() {
                hosts.insert(authority(&url), known);
            }
        }
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&signed.ca) {
            return Ok(agent.clone());
        }
        let mut tls = ureq::tls::TlsConfig::builder().provider(ureq::tls::TlsProvider::Rustls);
        if let Some(ca) = &signed.ca {
            let roots: Vec<_> = ureq::tls::parse_pem(ca.as_bytes())
                .filter_map(|item| match item {
                    Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
                    Ok(_) | Err(_) => None,
                })
                .collect();
            tls = tls.root_certs(ureq::tls::RootCerts::Specific(Arc::new(roots)));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            // Where another place is named, we go there ourselves: see `Session::put`.
            .max_redirects(0)
            .max_idle_connections_per_host(self.parts_at_once.max(IDLE_MIN))
            .proxy(None)
            .tls_config(tls.build())
            .build();
        let resolver = AgentResolver {
            client: Arc::clone(&self.client),
            hosts: Arc::clone(&self.hosts),
            request: (self.fence.clone(), self.holder.clone(), self.ticket.clone()),
        };
        let agent = Agent::with_parts(config, DefaultConnector::default(), resolver);
        agents.insert(signed.ca.clone(), agent.clone());
        Ok(agent)
    }

    /// Reads what a request gives; the status is a success.
    pub fn get(&self, signed: &Signed, is_url: bool) -> Result<impl Read + use<>, Failure> {
        let mut next = signed.clone();
        for _ in 0..=REDIRECTS_MAX {
            let request = with_headers(self.agent(&next)?.get(&next.url), &next);
            let answer = request.call().map_err(|error| told("Get", &next, &error))?;
            if let Some(target) = moved(&answer, &[301, 302, 303, 307, 308]) {
                next = elsewhere(&next, &target)?;
                continue;
            }
            let status = answer.status();
            if status.is_success() {
                return Ok(answer.into_body().into_reader());
            }
            let reason = reason(status);
            let message = match (is_url, status.as_u16()) {
                (true, 404) => reason,
                (true, _) => {
                    format!("loading file from {} failed with reason: {reason}", plain(&signed.url))
                }
                (false, 404) => "The specified key does not exist.".to_owned(),
                (false, _) => format!("failed to get file: the store answered {reason}"),
            };
            return Err(Failure { message, again: status.is_server_error() || status.as_u16() == 429 });
        }
        Err(astray(signed))
    }

    /// Stores bytes; gives the store's tag of them. A server may send us elsewhere with them. WebHDFS always does: its name
    /// node takes no bytes, so that they go only where they are kept.
    pub fn put(&self, signed: &Signed, bytes: &mut dyn Source) -> Result<String, Failure> {
        let mut next = signed.clone();
        let mut asks_first = is_web_hdfs(&signed.url);
        for _ in 0..=REDIRECTS_MAX {
            let request = with_headers(self.agent(&next)?.put(&next.url), &next);
            let answer = if asks_first {
                request.send_empty()
            } else {
                bytes.rewind();
                let request = request.header("Content-Length", bytes.length().to_string());
                let mut bytes: &mut dyn Read = bytes;
                request.send(SendBody::from_reader(&mut bytes))
            };
            let answer = answer.map_err(|error| told("Put", &next, &error))?;
            if let Some(target) = moved(&answer, &[307, 308]) {
                next = elsewhere(&next, &target)?;
                if asks_first {
                    // A gateway of WebHDFS takes bytes only if they are called so.
                    let is_told =
                        next.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
                    let kind = ("Content-Type".to_owned(), "application/octet-stream".to_owned());
                    next.headers.extend((!is_told).then_some(kind));
                }
                asks_first = false;
            } else if asks_first && answer.status().is_success() {
                asks_first = false;
            } else {
                return stored(&answer);
            }
        }
        Err(astray(signed))
    }

    /// Stores bytes at hand within a limit of time for all of it, in a store that takes them where it is asked.
    pub fn put_within(&self, signed: &Signed, bytes: &[u8], limit: Duration) -> Result<(), Failure> {
        let request = with_headers(self.agent(signed)?.put(&signed.url), signed);
        let answer = request.config().timeout_global(Some(limit)).build().send(bytes);
        stored(&answer.map_err(|error| told("Put", signed, &error))?).map(drop)
    }
}

type Response = ureq::http::Response<ureq::Body>;

/// Where an answer of one of these kinds sends us.
fn moved(answer: &Response, kinds: &[u16]) -> Option<String> {
    let target = answer.headers().get("location").filter(|_| kinds.contains(&answer.status().as_u16()));
    target.and_then(|target| target.to_str().ok()).map(str::to_owned)
}

/// The same request at another place; another host is not told who asks.
fn elsewhere(signed: &Signed, target: &str) -> Result<Signed, Failure> {
    let address = Address::parse(&signed.url).map_err(|reason| broken(&reason))?;
    let url = address.join(target);
    let next = Address::parse(&url).map_err(|reason| broken(&reason))?;
    let mut headers = signed.headers.clone();
    if next.host != address.host {
        headers.retain(|(name, _)| !PRIVATE_HEADERS.contains(&name.to_ascii_lowercase().as_str()));
    }
    Ok(Signed { url, headers, addresses: Vec::new(), ca: signed.ca.clone() })
}

/// A URL as WebHDFS has it, at the name node or at a gateway, that makes a file.
fn is_web_hdfs(url: &str) -> bool {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    path.contains("/webhdfs/v1/") && query.split('&').any(|part| part.eq_ignore_ascii_case("op=CREATE"))
}

fn astray(signed: &Signed) -> Failure {
    broken(&format!("\"{}\": stopped after {REDIRECTS_MAX} redirects", plain(&signed.url)))
}

fn reason(status: ureq::http::StatusCode) -> String {
    format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default())
}

fn stored(answer: &Response) -> Result<String, Failure> {
    let status = answer.status();
    if !status.is_success() {
        // A signature may have run out meanwhile: the next try has a new one.
        let again = status.is_server_error() || matches!(status.as_u16(), 403 | 408 | 429);
        let message = format!("failed to put file: the store answered {}", reason(status));
        return Err(Failure { message, again });
    }
    let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok());
    Ok(tag.unwrap_or_default().to_owned())
}

fn broken(message: &str) -> Failure {
    Failure { message: message.to_owned(), again: false }
}

fn with_headers<B>(mut request: RequestBuilder<B>, signed: &Signed) -> RequestBuilder<B> {
    for (name, value) in &signed.headers {
        request = request.header(name, value);
    }
    request
}

/// A URL without its signature.
fn plain(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

/// A failure to reach a host, in the words of Go's client.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors may grow; what is not a host's failure is told as it is"
)]
fn told(verb: &str, signed: &Signed, error: &ureq::Error) -> Failure {
    let address = signed.addresses.first().map_or("", String::as_str);
    let reason = match error {
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            format!("dial tcp {address}: connect: connection refused")
        }
        ureq::Error::ConnectionFailed => format!("dial tcp {address}: connect: connection refused"),
        ureq::Error::Timeout(_) => format!("dial tcp {address}: i/o timeout"),
        error => plain(&error.to_string()).to_owned(),
    };
    Failure { message: format!("{verb} \"{}\": {reason}", plain(&signed.url)), again: true }
}

fn authority(url: &ureq::http::Uri) -> String {
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
    format!("{}:{port}", url.host().unwrap_or_default())
}

/// Names are resolved by the agent: the executor is static, and the step's image may have no resolver at all.
struct AgentResolver {
    client: Arc<Client>,
    hosts: Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>,
    request: (String, String, String),
}

impl std::fmt::Debug for AgentResolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AgentResolver").finish_non_exhaustive()
    }
}

impl Resolver for AgentResolver {
    fn resolve(
        &self,
        url: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = authority(url);
        let known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner).get(&host).cloned();
        let addresses = match known {
            Some(known) => known,
            None => self.ask(url).ok_or(ureq::Error::HostNotFound)?,
        };
        let mut resolved = self.empty();
        for address in addresses.into_iter().take(8) {
            resolved.push(address);
        }
        if resolved.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(resolved) }
    }
}

impl AgentResolver {
    fn ask(&self, url: &ureq::http::Uri) -> Option<Vec<SocketAddr>> {
        let (fence, holder, ticket) = self.request.clone();
        // The host is asked for, and nothing of what is signed.
        let operation = Operation::Resolve {
            url: format!("{}://{}/", url.scheme_str().unwrap_or("https"), authority(url)),
        };
        let request = Request { fence, holder, ticket, operation };
        let answer = self.client.post_within("/v1/artifacts", &request, QUESTION_TIMEOUT).ok()?;
        let Answer::Addresses { addresses } = serde_json::from_str(&answer.body).ok()? else { return None };
        Some(addresses.iter().filter_map(|one| one.parse().ok()).collect())
    }
}

/// Tries something a few times, a little longer apart each time.
pub fn tries<T>(mut one: impl FnMut() -> Result<T, Failure>) -> Result<T, String> {
    let mut wait = WAIT_FIRST;
    for number in 1.. {
        match one() {
            Ok(done) => return Ok(done),
            Err(failure) if !failure.again || number >= TRIES_MAX => return Err(failure.message),
            Err(failure) => {
                eprintln!("argosy-executor: try {number} of {TRIES_MAX}: {}", failure.message);
                thread::sleep(wait);
                wait = (wait * 2).min(WAIT_MAX);
            }
        }
    }
    Err("no try was made".to_owned())
}
