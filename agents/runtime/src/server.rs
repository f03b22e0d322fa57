//! The HTTPS end that executors talk to, shared by the runtimes.
//!
//! One self-signed certificate and one token key live in the agent's data directory, so that steps that outlive an agent
//! find their agent again. A token is an HMAC of the fence: knowing one step's token says nothing about another's.
//! Questions wait for the reconciler's answer for a few seconds; without one the executor asks again. The containers of one
//! Pod ask side by side and get the same answer.

mod artifacts;
mod left;

pub use artifacts::Artifacts;
pub use left::{Left, Unread};

use crate::runtime::{ExecutorAnswer, RuntimeEvent, StoreVerdict};
use argosy_executor::protocol::{
    ENV_AGENT, ENV_AGENT_CERTIFICATE, ENV_FENCE, ENV_TOKEN, OutcomeRequest, PermitAnswer, PermitRequest,
    ProgressRequest, REQUEST_BYTES_MAX, RenewRequest, ResultObject, Task, is_progress,
};
use argosy_link::Millis;
use argosy_model::{display_fence, parse_fence};
use argosy_proto::common::Fence;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::time::{ClockId, clock_gettime};
use ring::rand::SecureRandom;
use ring::{digest, hmac, rand};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

/// With this many unanswered questions, those whose connection is gone are dropped; with this many permits under way, those
/// whose lease has run out.
const WAITING_SWEEP_MIN: usize = 2_048;
/// For an executor whose question was not answered in time.
const OUT_OF_TOUCH: &str = "the agent is out of touch with the control plane: no live lease";
const BUSY: &str = "the agent is busy or restarting; ask again";

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 takes the one of the last time if it is free, else any: steps that outlive their
    /// agent look for it where it was.
    pub listen: SocketAddr,
    /// Address that executors connect to, where it differs (a Service's cluster address).
    pub address: Option<SocketAddr>,
    /// Holds certificate and token key.
    pub data_directory: PathBuf,
    /// Connections at one time; more wait in the kernel.
    pub connections_max: usize,
    /// How long a question waits for the reconciler's answer, milliseconds.
    pub answer_wait_ms: u64,
    /// How long a connection may take from its start to the whole request, milliseconds.
    pub request_wait_ms: u64,
    /// Parts of one large output that an executor sends side by side.
    pub artifact_parts_at_once: u64,
}

impl Options {
    /// Defaults for an address and a directory.
    #[must_use]
    pub fn new(listen: SocketAddr, data_directory: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            address: None,
            data_directory: data_directory.into(),
            connections_max: 1_024,
            answer_wait_ms: 5_000,
            request_wait_ms: 10_000,
            artifact_parts_at_once: argosy_executor::artifacts::PARTS_AT_ONCE,
        }
    }
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen for executors on {address}: {source}; choose another with --executor-listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A key or certificate cannot be read, made or kept.
    #[error("cannot set up {path} for executors: {reason}")]
    Files {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Permit,
    Renewal,
    Store,
    Outcome,
}

/// A request that was understood.
struct Asked {
    fence: Fence,
    holder: String,
    event: RuntimeEvent,
    /// None: only told.
    question: Option<Question>,
    /// The sealed ticket that came with it.
    ticket: String,
}

/// Those that wait for one answer: each container of a Pod asks by itself.
type Waiting = BTreeMap<(Fence, String, Question), Vec<oneshot::Sender<(StatusCode, String)>>>;
/// Permits that the reconciler has given and the runtime is binding, and when their lease ends; `None` while nobody has said
/// when one does.
type UnderWay = Option<BTreeMap<(Fence, String), Millis>>;

struct Shared {
    address: SocketAddr,
    certificate_sha256: String,
    token_key: hmac::Key,
    events: mpsc::Sender<RuntimeEvent>,
    waiting: Mutex<Waiting>,
    under_way: Mutex<UnderWay>,
    answer_wait: Duration,
    artifacts: OnceLock<Arc<dyn Artifacts>>,
    artifact_parts_at_once: u64,
    /// End of the lease under which requests to stores are signed.
    lease_until: AtomicU64,
}

/// The handle on the server: cheap to clone, given to the runtime and to the shell.
#[derive(Clone)]
pub struct Executors {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Executors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Executors").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

/// The listening server; see [`Self::run`].
pub struct ExecutorServer {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: Arc<Semaphore>,
    request_wait: Duration,
    executors: Executors,
}

impl ExecutorServer {
    /// Listens; events go to the same channel as the runtime's.
    ///
    /// # Errors
    /// When the address is taken, or certificate and key cannot be kept.
    pub async fn start(options: Options, events: mpsc::Sender<RuntimeEvent>) -> Result<Self, Error> {
        let directory = &options.data_directory;
        let (certificate, key) = certificate_files(directory)?;
        let token_key = hmac::Key::new(hmac::HMAC_SHA256, &token_key_file(directory)?);
        let listening = listen(&options).await;
        let (listener, local) =
            listening.map_err(|source| Error::Listen { address: options.listen, source })?;
        let certificate_sha256 = hex(digest::digest(&digest::SHA256, &certificate).as_ref());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(|error| files_error(&directory.join(CERTIFICATE_FILE), error))?;
        let shared = Shared {
            address: options.address.unwrap_or(local),
            certificate_sha256,
            token_key,
            events,
            waiting: Mutex::default(),
            under_way: Mutex::default(),
            answer_wait: Duration::from_millis(options.answer_wait_ms),
            artifacts: OnceLock::new(),
            artifact_parts_at_once: options.artifact_parts_at_once,
            lease_until: AtomicU64::new(0),
        };
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            connections: Arc::new(Semaphore::new(options.connections_max)),
            request_wait: Duration::from_millis(options.request_wait_ms),
            executors: Executors { shared: Arc::new(shared) },
        })
    }

    /// The handle.
    #[must_use]
    pub fn executors(&self) -> Executors {
        self.executors.clone()
    }

    /// Serves until the future is dropped. Handshakes run side by side, each with its time limit.
    pub async fn run(self) {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((socket, _)) => {
                    tasks.spawn(serve(
                        self.acceptor.clone(),
                        socket,
                        self.executors.clone(),
                        self.request_wait,
                        permit,
                    ));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an executor's connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn listen(options: &Options) -> std::io::Result<(TcpListener, SocketAddr)> {
    let path = options.data_directory.join(PORT_FILE);
    let last = std::fs::read_to_string(&path).ok().and_then(|port| port.trim().parse::<u16>().ok());
    let mut listener = None;
    if options.listen.port() == 0
        && let Some(port) = last
    {
        listener = TcpListener::bind(SocketAddr::new(options.listen.ip(), port)).await.ok();
    }
    let listener = match listener {
        Some(listener) => listener,
        None => TcpListener::bind(options.listen).await?,
    };
    let local = listener.local_addr()?;
    std::fs::write(&path, local.port().to_string())?;
    Ok((listener, local))
}

async fn serve(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    executors: Executors,
    request_wait: Duration,
    _permit: OwnedSemaphorePermit,
) {
    let Ok(Ok(stream)) = tokio::time::timeout(request_wait, acceptor.accept(socket)).await else {
        return tracing::debug!("an executor's connection ended in its handshake");
    };
    let service = hyper::service::service_fn(|request| executors.answer_request(request, request_wait));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(request_wait)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let longest = request_wait * 2 + executors.shared.answer_wait + artifacts::ANSWER_MAX;
    if let Ok(Err(error)) = tokio::time::timeout(longest, connection).await {
        tracing::debug!(%error, "an executor's connection broke");
    }
}

impl Executors {
    /// The environment of an executor, all but `ARGOSY_HOLDER`.
    #[must_use]
    pub fn environment(&self, fence: &Fence, task: &Task) -> Vec<(String, String)> {
        let fence_text = display_fence(fence);
        let mut variables = vec![
            (ENV_AGENT.to_owned(), self.shared.address.to_string()),
            (ENV_AGENT_CERTIFICATE.to_owned(), self.shared.certificate_sha256.clone()),
            (ENV_TOKEN.to_owned(), self.token(&fence_text)),
            (ENV_FENCE.to_owned(), fence_text),
        ];
        variables.extend(task.to_environment());
        variables
    }

    /// Where executors connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// A permit is on its way to the runtime, good until the lease that it was given under ends (CLOCK_BOOTTIME). Binding may
    /// take long, and a step must not start after the control plane has given it to another cluster.
    pub fn permit_until(&self, fence: Fence, holder: &str, lease_until: Millis) {
        let mut under_way = self.shared.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = under_way.get_or_insert_default();
        if under_way.len() >= WAITING_SWEEP_MIN {
            let now = boot_time();
            under_way.retain(|_, until| now < *until);
        }
        under_way.insert((fence, holder.to_owned()), lease_until);
    }

    /// Lets the executor start: the runtime calls this once the binding is in place. A permit whose lease has ended meanwhile
    /// (see [`Self::permit_until`]) starts nothing: the executor asks again. Without any such word every permit holds.
    pub fn grant(&self, fence: Fence, holder: &str) {
        let is_live = {
            let mut under_way = self.shared.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            under_way.as_mut().is_none_or(|under_way| {
                under_way.remove(&(fence, holder.to_owned())).is_some_and(|until| boot_time() < until)
            })
        };
        if !is_live {
            return self.answer(&ExecutorAnswer::AskAgain { fence, holder: holder.to_owned() });
        }
        self.resolve(fence, holder, Question::Permit, StatusCode::OK, "");
    }

    /// Passes the reconciler's answer on. One that nobody waits for any more is dropped: the executor asks again.
    pub fn answer(&self, answer: &ExecutorAnswer) {
        match answer {
            ExecutorAnswer::Refused { fence, holder, reason } => {
                self.resolve(*fence, holder, Question::Permit, StatusCode::FORBIDDEN, reason);
                self.resolve(*fence, holder, Question::Renewal, StatusCode::FORBIDDEN, reason);
                self.resolve(*fence, holder, Question::Outcome, StatusCode::CONFLICT, reason);
            }
            ExecutorAnswer::AskAgain { fence, holder } => {
                self.resolve(*fence, holder, Question::Permit, StatusCode::SERVICE_UNAVAILABLE, OUT_OF_TOUCH);
                self.resolve(
                    *fence,
                    holder,
                    Question::Renewal,
                    StatusCode::SERVICE_UNAVAILABLE,
                    OUT_OF_TOUCH,
                );
            }
            ExecutorAnswer::Renewed { fence, holder } => {
                self.resolve(*fence, holder, Question::Renewal, StatusCode::OK, "");
            }
            ExecutorAnswer::Store { fence, holder, verdict } => {
                let (status, reason) = match verdict {
                    StoreVerdict::Granted => (StatusCode::OK, ""),
                    StoreVerdict::AskAgain => (StatusCode::SERVICE_UNAVAILABLE, OUT_OF_TOUCH),
                    StoreVerdict::Refused(reason) => (StatusCode::FORBIDDEN, reason.as_str()),
                };
                self.resolve(*fence, holder, Question::Store, status, reason);
            }
            ExecutorAnswer::OutcomeRecorded { fence, holder } => {
                self.resolve(*fence, holder, Question::Outcome, StatusCode::OK, "");
            }
        }
    }

    fn resolve(&self, fence: Fence, holder: &str, question: Question, status: StatusCode, body: &str) {
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in waiting.remove(&(fence, holder.to_owned(), question)).into_iter().flatten() {
            // A connection that is gone asks again.
            let _ = sender.send((status, body.to_owned()));
        }
    }

    fn token(&self, fence: &str) -> String {
        hex(hmac::sign(&self.shared.token_key, fence.as_bytes()).as_ref())
    }

    /// Compares in constant time.
    fn is_token_of(&self, token: &str, fence: &str) -> bool {
        from_hex(token)
            .is_some_and(|tag| hmac::verify(&self.shared.token_key, fence.as_bytes(), &tag).is_ok())
    }

    async fn answer_request(
        &self,
        request: Request<Incoming>,
        request_wait: Duration,
    ) -> Result<Response<Body>, std::convert::Infallible> {
        if request.method() == Method::POST && request.uri().path() == artifacts::ARCHIVE_PATH {
            return Ok(self.answer_archive(request).await);
        }
        if request.method() == Method::POST && request.uri().path() == artifacts::PATH {
            let answered = tokio::time::timeout(artifacts::ANSWER_MAX, self.answer_artifacts(request)).await;
            let late = || (StatusCode::FAILED_DEPENDENCY, "the object store does not answer".to_owned());
            return Ok(response(answered.unwrap_or_else(|_| late())));
        }
        let (status, body) = match tokio::time::timeout(request_wait, self.read_request(request)).await {
            Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long".to_owned()),
            Ok(Err(refusal)) => refusal,
            Ok(Ok(Asked { fence, holder, event, question: Some(question), ticket })) => {
                let (answer, object) = tokio::join!(
                    self.ask(question, fence, holder, event),
                    self.result_object(&fence, &ticket)
                );
                with_result_object(answer, object)
            }
            Ok(Ok(Asked { event, question: None, .. })) => self.tell(event).await,
        };
        Ok(response((status, body)))
    }

    async fn read_request(&self, request: Request<Incoming>) -> Result<Asked, (StatusCode, String)> {
        let path = request.uri().path().to_owned();
        let is_known = ["/v1/permit", "/v1/renew", "/v1/outcome", "/v1/progress"].contains(&path.as_str());
        if request.method() != Method::POST || !is_known {
            return Err((StatusCode::NOT_FOUND, "not a path for executors".to_owned()));
        }
        let header =
            request.headers().get(hyper::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await.map_err(|error| {
            let is_large = error.downcast_ref::<LengthLimitError>().is_some();
            let status = if is_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
            (status, format!("cannot read the request: {error}"))
        })?;
        self.understand(&path, &body.to_bytes(), &token)
    }

    fn understand(&self, path: &str, body: &[u8], token: &str) -> Result<Asked, (StatusCode, String)> {
        let bad = |reason: String| (StatusCode::BAD_REQUEST, reason);
        let check = |text: &str| {
            if !self.is_token_of(token, text) {
                return Err((StatusCode::UNAUTHORIZED, "the token is not this attempt's".to_owned()));
            }
            parse_fence(text).ok_or_else(|| bad(format!("{text:?} is no fence")))
        };
        match path {
            "/v1/permit" => {
                let PermitRequest { fence, holder, ticket } = read(body)?;
                let fence = check(&fence)?;
                let event = RuntimeEvent::PermitAsked { fence, holder: holder.clone() };
                Ok(Asked { fence, holder, event, question: Some(Question::Permit), ticket })
            }
            "/v1/renew" => {
                let RenewRequest { fence, holder } = read(body)?;
                let fence = check(&fence)?;
                let event = RuntimeEvent::RenewAsked { fence, holder: holder.clone() };
                Ok(Asked { fence, holder, event, question: Some(Question::Renewal), ticket: String::new() })
            }
            "/v1/outcome" => {
                let OutcomeRequest { fence, holder, outcome } = read(body)?;
                let fence = check(&fence)?;
                let event = RuntimeEvent::Outcome { fence, holder: holder.clone(), outcome };
                Ok(Asked { fence, holder, event, question: Some(Question::Outcome), ticket: String::new() })
            }
            _ => {
                let ProgressRequest { fence, holder, progress } = read(body)?;
                let fence = check(&fence)?;
                if !is_progress(&progress) {
                    return Err(bad(format!("{progress:?} is no progress")));
                }
                let event = RuntimeEvent::Progress { fence, holder: holder.clone(), progress };
                Ok(Asked { fence, holder, event, question: None, ticket: String::new() })
            }
        }
    }

    async fn tell(&self, event: RuntimeEvent) -> (StatusCode, String) {
        match tokio::time::timeout(self.shared.answer_wait, self.shared.events.send(event)).await {
            Ok(Ok(())) => (StatusCode::OK, String::new()),
            Ok(Err(_)) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, BUSY.to_owned()),
        }
    }

    async fn ask(
        &self,
        question: Question,
        fence: Fence,
        holder: String,
        event: RuntimeEvent,
    ) -> (StatusCode, String) {
        let late = (StatusCode::SERVICE_UNAVAILABLE, BUSY.to_owned());
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= WAITING_SWEEP_MIN {
                forget_closed(&mut waiting);
            }
            let same = waiting.entry((fence, holder, question)).or_default();
            same.retain(|sender| !sender.is_closed());
            same.push(sender);
        }
        let answered = tokio::time::timeout(self.shared.answer_wait, async {
            self.shared.events.send(event).await.ok()?;
            receiver.await.ok()
        })
        .await;
        match answered {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => {
                let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                forget_closed(&mut waiting);
                late
            }
        }
    }
}

/// A granted permit, with a place for the result where there is one.
fn with_result_object(
    (status, body): (StatusCode, String),
    result_object: Option<ResultObject>,
) -> (StatusCode, String) {
    if status != StatusCode::OK || result_object.is_none() {
        return (status, body);
    }
    (status, serde_json::to_string(&PermitAnswer { result_object }).unwrap_or_default())
}

fn forget_closed(waiting: &mut Waiting) {
    waiting.retain(|_, same| {
        same.retain(|sender| !sender.is_closed());
        !same.is_empty()
    });
}

fn read<T: for<'a> serde::Deserialize<'a>>(body: &[u8]) -> Result<T, (StatusCode, String)> {
    serde_json::from_slice(body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

/// An answer's body.
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

fn response((status, body): (StatusCode, String)) -> Response<Body> {
    let body = Full::from(body).map_err(|never: std::convert::Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

fn boot_time() -> Millis {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every supported kernel has this clock");
    let (seconds, nanoseconds) = (time.tv_sec(), time.tv_nsec());
    u64::try_from(seconds).unwrap_or(0) * 1_000 + u64::try_from(nanoseconds).unwrap_or(0) / 1_000_000
}

const CERTIFICATE_FILE: &str = "executor-certificate.der";
const KEY_FILE: &str = "executor-key.der";
const PORT_FILE: &str = "executor-port";
const TOKEN_KEY_FILE: &str = "executor-token.key";
const TOKEN_KEY_BYTES: usize = 32;

fn files_error(path: &Path, error: impl ToString) -> Error {
    Error::Files { path: path.display().to_string(), reason: error.to_string() }
}

/// The certificate is pinned by digest, so its names and dates mean nothing.
fn certificate_files(directory: &Path) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Error> {
    let (certificate_path, key_path) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
    if let (Ok(certificate), Ok(key)) = (std::fs::read(&certificate_path), std::fs::read(&key_path)) {
        return Ok((certificate.into(), PrivatePkcs8KeyDer::from(key).into()));
    }
    let made = rcgen::generate_simple_self_signed(vec!["argosy-agent".to_owned()])
        .map_err(|error| files_error(&certificate_path, error))?;
    let key = made.signing_key.serialize_der();
    // The certificate last: with it, both are whole.
    write_private(&key_path, &key)?;
    write_private(&certificate_path, made.cert.der())?;
    Ok((made.cert.der().clone(), PrivatePkcs8KeyDer::from(key).into()))
}

fn token_key_file(directory: &Path) -> Result<Vec<u8>, Error> {
    let path = directory.join(TOKEN_KEY_FILE);
    match std::fs::read(&path) {
        Ok(key) if key.len() == TOKEN_KEY_BYTES => Ok(key),
        Ok(_) => Err(files_error(&path, "it is not 32 bytes long; remove it to have a new one made")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut key = vec![0; TOKEN_KEY_BYTES];
            rand::SystemRandom::new().fill(&mut key).map_err(|_| files_error(&path, "no randomness"))?;
            write_private(&path, &key)?;
            Ok(key)
        }
        Err(error) => Err(files_error(&path, error)),
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| files_error(path, error))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len() / 2).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect()
}
