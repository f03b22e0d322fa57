//! A proxy between an agent and its cluster's API server that does to requests what networks and overloaded servers do:
//! answers that are lost after their effect, answers that never come, delays, refusals (409, 429, 500, 503), watches that
//! break, also in the middle of a line.
//!
//! What happens follows from the seed and the order of requests. It speaks plain HTTP to the agent and acts as the cluster's
//! administrator towards the server; the agent's kubeconfig names whose rights count ([`Proxy::kubeconfig`]).

use crate::{Cluster, network};
use anyhow::{Context, Result};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt;

/// How often what happens, in percent of requests (watches: of watches), and how long things take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The request has its effect; the connection ends without an answer.
    pub lose_answer: u32,
    /// The request has its effect; no answer comes for [`Faults::silence_ms`], then the connection ends.
    pub silence: u32,
    /// See above.
    pub silence_ms: u64,
    /// No effect: 409 (writes), 429 with Retry-After, 500 or 503.
    pub refuse: u32,
    /// Held up before the server sees it, up to [`Faults::delay_ms_max`].
    pub delay: u32,
    /// See above.
    pub delay_ms_max: u64,
    /// Watches live no longer than this; 0: as long as they like. Each ends at a moment of its own.
    pub watch_ms_max: u64,
    /// All creations of Pods are answered 429 with this Retry-After, seconds.
    pub overload_seconds: Option<u32>,
}

/// A Pod that came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// The attempt it was made for.
    pub fence: String,
}

#[derive(Default)]
struct Counted {
    faults: Faults,
    random: u64,
    created: Vec<Created>,
    done: BTreeMap<&'static str, u64>,
    create_times: Vec<std::time::Instant>,
}

impl Counted {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    fn happens(&mut self, what: &'static str, percent: u32) -> bool {
        let happens = self.random(100) < u64::from(percent);
        if happens {
            self.count(what);
        }
        happens
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }
}

/// A running proxy; it ends when it is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    counted: Mutex<Counted>,
    server: SocketAddr,
    tls: TlsConnector,
    folder: PathBuf,
    address: SocketAddr,
}

impl Shared {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type AnyBody = UnsyncBoxBody<Bytes, anyhow::Error>;

impl Proxy {
    /// Starts one inside the cluster's network. It does no harm until it is told to ([`Proxy::set`]).
    ///
    /// # Errors
    /// When the port is taken, or the cluster's certificates can't be read.
    pub fn start(cluster: &Cluster, port: u16, seed: u64) -> Result<Self> {
        let counted =
            Counted { random: seed.max(1).wrapping_mul(0x9e37_79b9_7f4a_7c15), ..Counted::default() };
        let address = SocketAddr::new(cluster.address().into(), port);
        let shared = Arc::new(Shared {
            counted: Mutex::new(counted),
            server: SocketAddr::new(cluster.address().into(), 443),
            tls: administrator(cluster)?,
            folder: cluster.folder().to_owned(),
            address,
        });
        let (stop, stopped) = oneshot::channel();
        let (told, ready) = std::sync::mpsc::channel();
        let namespace = cluster.namespace().to_owned();
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let listener = network::enter(&namespace).and_then(|()| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let listener = runtime.block_on(TcpListener::bind(address)).context("bind the proxy")?;
                Ok((runtime, listener))
            });
            match listener {
                Err(error) => drop(told.send(Err(error))),
                Ok((runtime, listener)) => {
                    let _ = told.send(Ok(()));
                    runtime.block_on(async {
                        tokio::select! {
                            () = serve(serving, listener) => {}
                            _ = stopped => {}
                        }
                    });
                }
            }
        });
        ready.recv().context("the proxy's thread ended")??;
        Ok(Self { shared, _stop: stop, thread: Some(thread) })
    }

    /// From now on.
    pub fn set(&self, faults: Faults) {
        self.shared.counted().faults = faults;
    }

    /// Pods that the server has made, in order.
    #[must_use]
    pub fn created(&self) -> Vec<Created> {
        self.shared.counted().created.clone()
    }

    /// How often what was done, by name.
    #[must_use]
    pub fn done(&self) -> BTreeMap<&'static str, u64> {
        self.shared.counted().done.clone()
    }

    /// When creations of Pods were asked for.
    #[must_use]
    pub fn create_times(&self) -> Vec<std::time::Instant> {
        self.shared.counted().create_times.clone()
    }

    /// A kubeconfig that leads through the proxy, with the agent's rights.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        let own = std::fs::read_to_string(self.shared.folder.join("agent.kubeconfig"))?;
        let mut own: Value = serde_json::from_str(&own)?;
        own["clusters"][0]["cluster"] = json!({"server": format!("http://{}", self.shared.address)});
        if let Some(user) = own["users"][0]["user"].as_object_mut() {
            user.retain(|key, _| key == "as");
        }
        let file = self.shared.folder.join("proxied.kubeconfig");
        std::fs::write(&file, own.to_string())?;
        Ok(file)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let (nobody, _) = oneshot::channel();
        drop(std::mem::replace(&mut self._stop, nobody));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn administrator(cluster: &Cluster) -> Result<TlsConnector> {
    let pki = cluster.folder().join("pki");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.crt")).map_err(anyhow::Error::msg)?)?;
    let certificate = CertificateDer::from_pem_file(pki.join("admin.crt")).map_err(anyhow::Error::msg)?;
    let key = PrivateKeyDer::from_pem_file(pki.join("admin.key")).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| answer(Arc::clone(&shared), request));
            // An error of the service ends the connection without an answer: that is what is wanted.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

fn is_creation(request: &Request<Incoming>) -> bool {
    request.method() == Method::POST && request.uri().path().ends_with("/pods")
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<AnyBody>> {
    let creates = is_creation(&request);
    let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let faults = shared.counted().faults;
    if creates {
        shared.counted().create_times.push(std::time::Instant::now());
        if let Some(seconds) = faults.overload_seconds {
            shared.counted().count("refused 429");
            return Ok(plain_refusal(seconds));
        }
    }
    if shared.counted().happens("delayed", faults.delay) {
        let wait = shared.counted().random(faults.delay_ms_max);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    if shared.counted().happens("refused", faults.refuse) {
        return Ok(refusal(&mut shared.counted(), request.method()));
    }
    if is_watch {
        return Ok(watch(&shared, forward(&shared, request).await?));
    }
    // A task of its own: what the server was asked for has its effect although who asked is gone.
    let exchange = tokio::spawn(exchange(Arc::clone(&shared), request, creates));
    let (head, body) = exchange.await??;
    if shared.counted().happens("answer lost", faults.lose_answer) {
        anyhow::bail!("lost");
    }
    if shared.counted().happens("silence", faults.silence) {
        tokio::time::sleep(Duration::from_millis(faults.silence_ms)).await;
        anyhow::bail!("silent");
    }
    Ok(Response::from_parts(head, whole(body)))
}

async fn exchange(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    creates: bool,
) -> Result<(hyper::http::response::Parts, Bytes)> {
    let (head, body) = forward(&shared, request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    if creates && head.status == StatusCode::CREATED {
        let pod: Value = serde_json::from_slice(&body)?;
        let text =
            |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        shared.counted().created.push(Created {
            uid: text("/metadata/uid"),
            name: text("/metadata/name"),
            fence: text("/metadata/labels/argosy.dev~1fence"),
        });
    }
    Ok((head, body))
}

fn whole(body: Bytes) -> AnyBody {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

async fn forward(shared: &Shared, request: Request<Incoming>) -> Result<Response<Incoming>> {
    let socket = TcpStream::connect(shared.server).await?;
    let name = ServerName::IpAddress(shared.server.ip().into());
    let stream = shared.tls.connect(name, socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Incoming>(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// A watch that ends by itself, at a moment of its own, now and then in the middle of a line.
fn watch(shared: &Shared, answer: Response<Incoming>) -> Response<AnyBody> {
    let (life_ms, is_cut) = {
        let mut counted = shared.counted();
        let life_ms_max = counted.faults.watch_ms_max;
        if life_ms_max == 0 {
            return answer.map(|body| body.map_err(Into::into).boxed_unsync());
        }
        counted.count("watch broken");
        (counted.random(life_ms_max), counted.random(2) == 0)
    };
    let (head, body) = answer.into_parts();
    let until = tokio::time::Instant::now() + Duration::from_millis(life_ms);
    let frames = BodyStream::new(body).map(|frame| frame.map_err(anyhow::Error::from));
    let state = (Box::pin(frames), false);
    let frames = futures::stream::unfold(state, move |(mut frames, ended)| async move {
        if ended {
            return None;
        }
        match tokio::time::timeout_at(until, frames.next()).await {
            Ok(frame) => {
                let frame = frame?;
                // The last one in time may be cut short.
                let is_late = until.saturating_duration_since(tokio::time::Instant::now()).as_millis() < 100;
                let frame = if is_late && is_cut { frame.map(halved) } else { frame };
                Some((frame, (frames, is_late)))
            }
            Err(_) => Some((Err(anyhow::anyhow!("the watch breaks")), (frames, true))),
        }
    });
    Response::from_parts(head, StreamBody::new(frames).boxed_unsync())
}

fn halved(frame: Frame<Bytes>) -> Frame<Bytes> {
    frame.map_data(|data| data.slice(..data.len() / 2))
}

/// Priority and fairness refuse in plain text.
fn plain_refusal(seconds: u32) -> Response<AnyBody> {
    let mut answer =
        Response::new(whole(Bytes::from_static(b"Too many requests, please try again later.\n")));
    *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    answer.headers_mut().insert(hyper::header::RETRY_AFTER, seconds.into());
    answer
}

fn refusal(counted: &mut Counted, method: &Method) -> Response<AnyBody> {
    let is_write = *method != Method::GET;
    let (code, reason) = match counted.random(if is_write { 4 } else { 3 }) {
        0 => return plain_refusal(1),
        1 => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        2 => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        _ if *method == Method::POST => (StatusCode::CONFLICT, "AlreadyExists"),
        _ => (StatusCode::CONFLICT, "Conflict"),
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": format!("{reason}, says the proxy")});
    let mut answer = Response::new(whole(Bytes::from(status.to_string())));
    *answer.status_mut() = code;
    answer
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    answer
}
