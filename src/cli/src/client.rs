//! The API's client: several addresses, retries that are safe, streams line by line.

use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::context::{Context, Settings};
use crate::{Error, GlobalArguments};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take: submissions wait for a commit, and a commit for a leader.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests that nobody could answer are repeated.
const RETRY_SPAN: Duration = Duration::from_secs(20);
/// As long as that when nobody was even reached: most likely nothing runs there.
const UNHEARD_SPAN: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// Longest line of a stream: one workflow with all its nodes.
const LINE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// An API client; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    servers: Vec<String>,
    token: String,
    pub(crate) namespace: String,
}

/// What a request says beyond method and path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub query: Vec<(&'static str, String)>,
    pub body: Option<Value>,
}

impl Request {
    pub fn query(pairs: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self { query: pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect(), body: None }
    }

    pub fn body(body: Value) -> Self {
        Self { query: Vec::new(), body: Some(body) }
    }
}

pub(crate) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn query_text(pairs: &[(&'static str, String)]) -> String {
    let terms: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    if terms.is_empty() { String::new() } else { format!("?{}", terms.join("&")) }
}

/// A path of the API; the parts are encoded.
pub(crate) fn path(parts: &[&str]) -> String {
    parts.iter().fold("/api/v1".to_owned(), |path, part| format!("{path}/{}", encode(part)))
}

/// A cluster as the API shows it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    /// Its name.
    pub name: String,
    /// `invited`, `connected`, `degraded`, `silent` or `lost`.
    pub state: String,
    /// `kubernetes`, `process` or `simulated`.
    pub runtime: String,
    /// What selectors look at.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Of its agent.
    pub agent_version: String,
    /// Attempts placed there and not over.
    pub attempts: u64,
    /// Until its steps are taken over, as the leader knows.
    pub lease_remaining_seconds: Option<i64>,
    pub(crate) recovery: Option<RecoveryInfo>,
    pub(crate) allocatable: Amounts,
    pub(crate) requested: Amounts,
}

/// What a recovery came to on a cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RecoveryInfo {
    pub reconciling: bool,
    pub adopted: u64,
    pub quarantined: Vec<String>,
    pub rerun: u64,
    pub rerun_named: Vec<RerunInfo>,
}

/// A step that is run again.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct RerunInfo {
    pub namespace: String,
    pub workflow: String,
    pub node: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Amounts {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub pods: i64,
}

/// A member as the API shows it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberInfo {
    /// Its id.
    pub id: u64,
    /// `leader`, `follower`, `learner`, `candidate` or `unknown`.
    pub role: String,
    /// Where other members reach it.
    pub address: String,
    /// Where users reach its API, when known.
    pub api_address: String,
    /// Log position it is known to hold.
    pub matched_index: u64,
    /// Log position it has applied, when known.
    pub applied_index: u64,
    /// Heard from lately.
    pub reachable: bool,
}

impl Client {
    /// A client for a context; flags and environment don't count.
    ///
    /// # Errors
    /// [`Error::Setup`] when its certificate authority can't be read.
    pub fn new(context: &Context) -> Result<Self, Error> {
        Self::of(&Settings::resolve(&GlobalArguments::default(), context, |_| None))
    }

    /// A client for a command line's flags, the environment and the context file.
    ///
    /// # Errors
    /// [`Error::Setup`], or [`Error::Context`] for a context file that is of no use.
    pub fn connect(global: &GlobalArguments) -> Result<Self, Error> {
        let context = match Context::path().and_then(|path| Context::load(&path)) {
            Err(Error::Setup(_)) => Context::default(),
            other => other?,
        };
        Self::of(&Settings::resolve(global, &context, |name| std::env::var(name).ok()))
    }

    /// Writes a backup of the whole cell to `sink`.
    ///
    /// # Errors
    /// [`Error`]: not reachable, refused, cut off, or not to be written.
    pub async fn backup(&self, sink: &mut impl std::io::Write) -> Result<(), Error> {
        let mut response = self.send(Method::GET, &path(&["backup"]), &Request::default(), None).await?;
        while let Some(piece) = response.chunk().await.map_err(|error| Error::Interrupted(detail(&error)))? {
            sink.write_all(&piece).map_err(Error::Output)?;
        }
        Ok(())
    }

    /// Makes a single-use invite and gives its token.
    ///
    /// # Errors
    /// [`Error`]: not reachable, or refused.
    pub async fn invite(&self, cluster: &str, ttl_ms: u64) -> Result<String, Error> {
        let body = json!({"ttlSeconds": ttl_ms.div_ceil(1000)});
        let answer =
            self.json(Method::POST, &path(&["clusters", cluster, "invite"]), Request::body(body)).await?;
        Ok(answer["token"].as_str().unwrap_or_default().to_owned())
    }

    /// All members of the cell.
    ///
    /// # Errors
    /// [`Error`]: not reachable, or refused.
    pub async fn members(&self) -> Result<Vec<MemberInfo>, Error> {
        items(self.get(&path(&["members"]), Request::default()).await?)
    }

    /// All registered clusters.
    ///
    /// # Errors
    /// [`Error`]: not reachable, or refused.
    pub async fn clusters(&self) -> Result<Vec<ClusterInfo>, Error> {
        items(self.get(&path(&["clusters"]), Request::default()).await?)
    }

    /// Submits a workflow given as JSON and gives the accepted one.
    ///
    /// # Errors
    /// [`Error`]: not reachable, or refused.
    pub async fn submit(&self, namespace: &str, workflow: Value) -> Result<Value, Error> {
        self.json(
            Method::POST,
            &path(&["workflows", namespace]),
            Request::body(json!({"workflow": workflow})),
        )
        .await
    }

    /// A workflow as Argo's JSON.
    ///
    /// # Errors
    /// [`Error`]: not reachable, or refused.
    pub async fn workflow(&self, namespace: &str, name: &str) -> Result<Value, Error> {
        self.get(&path(&["workflows", namespace, name]), Request::default()).await
    }

    pub(crate) fn of(settings: &Settings) -> Result<Self, Error> {
        // Somebody else in the process may have chosen the provider: then that one is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let setup = |reason: String| Error::Setup(reason);
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("argosy/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &settings.certificate_authority {
            let text = std::fs::read(path)
                .map_err(|error| setup(format!("certificate authority {}: {error}", path.display())))?;
            let roots = reqwest::Certificate::from_pem_bundle(&text)
                .map_err(|error| setup(format!("certificate authority {}: {error}", path.display())))?;
            builder = builder.tls_certs_only(roots);
        }
        if settings.insecure_skip_verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        let http = builder.build().map_err(|error| setup(detail(&error)))?;
        if settings.servers.is_empty() {
            return Err(setup("no server is given".to_owned()));
        }
        Ok(Self {
            http,
            servers: settings.servers.clone(),
            token: settings.token.clone(),
            namespace: settings.namespace.clone(),
        })
    }

    pub(crate) async fn get(&self, path: &str, request: Request) -> Result<Value, Error> {
        self.json(Method::GET, path, request).await
    }

    /// Sends the request until somebody answers it. Changes carry a key, so that a repeat happens once.
    pub(crate) async fn json(&self, method: Method, path: &str, request: Request) -> Result<Value, Error> {
        self.advised(method, path, request).await.map(|(answer, _)| answer)
    }

    /// As [`Client::json`], with what the server warns of.
    pub(crate) async fn advised(
        &self,
        method: Method,
        path: &str,
        request: Request,
    ) -> Result<(Value, Vec<String>), Error> {
        let response = self.send(method, path, &request, Some(REQUEST_TIMEOUT)).await?;
        let headers = response.headers().get_all(reqwest::header::WARNING).iter();
        let warnings = headers.filter_map(|header| warning(header.to_str().ok()?)).collect();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let answer = serde_json::from_slice(&bytes).map_err(|error| Error::Answer(error.to_string()))?;
        Ok((answer, warnings))
    }

    /// A stream of the `result` of each line.
    pub(crate) async fn stream(&self, path: &str, request: Request) -> Result<Lines, Error> {
        let response = self.send(Method::GET, path, &request, None).await?;
        Ok(Lines { response, pending: Vec::new(), ready: VecDeque::new() })
    }

    /// Writes the answer's body to a file, as it comes; a file that is there only in part is removed.
    pub(crate) async fn download(&self, path: &str, target: &std::path::Path) -> Result<(), Error> {
        use std::io::Write;
        let mut response = self.send(Method::GET, path, &Request::default(), None).await?;
        let failed = |error: std::io::Error| Error::File {
            path: target.display().to_string(),
            reason: error.to_string(),
        };
        let mut file = std::fs::File::create(target).map_err(failed)?;
        let written = async {
            while let Some(part) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
                file.write_all(&part).map_err(failed)?;
            }
            Ok(())
        };
        let written = written.await;
        if written.is_err() {
            let _ = std::fs::remove_file(target);
        }
        written
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        request: &Request,
        timeout: Option<Duration>,
    ) -> Result<Response, Error> {
        let key = uuid::Uuid::new_v4().to_string();
        let query = query_text(&request.query);
        let began = Instant::now();
        let mut last = Error::Setup("no server is given".to_owned());
        loop {
            let mut untrusted = None;
            for server in &self.servers {
                let mut builder = self.http.request(method.clone(), format!("{server}{path}{query}"));
                if !self.token.is_empty() {
                    builder = builder.bearer_auth(&self.token);
                }
                if method != Method::GET {
                    builder = builder.header("idempotency-key", &key);
                }
                if let Some(body) = &request.body {
                    builder = builder.json(body);
                }
                if let Some(timeout) = timeout {
                    builder = builder.timeout(timeout);
                }
                match builder.send().await {
                    Ok(response) if response.status().is_success() => return Ok(response),
                    Ok(response) => {
                        let status = response.status();
                        last = refused(response).await;
                        if !is_temporary(status) {
                            return Err(last);
                        }
                    }
                    // While an authority is dropped, one member may serve from the old one for another moment.
                    Err(error) if is_certificate(&error) => {
                        untrusted = Some(Error::Certificate(detail(&error)));
                    }
                    Err(error) => last = self.unreachable(&error),
                }
            }
            // A certificate that is not trusted will not be trusted a second later.
            if let Some(error) = untrusted
                && !matches!(last, Error::Refused { .. })
            {
                return Err(error);
            }
            // With nobody listening anywhere there is most likely no control plane: don't keep the user waiting.
            let waits = if matches!(last, Error::Unreachable { .. }) { UNHEARD_SPAN } else { RETRY_SPAN };
            if began.elapsed() >= waits {
                return Err(last);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        Error::Unreachable { servers: self.servers.join(", "), reason: detail(error) }
    }
}

fn items<T: serde::de::DeserializeOwned>(mut answer: Value) -> Result<Vec<T>, Error> {
    let items: Option<Vec<T>> =
        serde_json::from_value(answer["items"].take()).map_err(|error| Error::Answer(error.to_string()))?;
    Ok(items.unwrap_or_default())
}

fn is_temporary(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    )
}

fn is_certificate(error: &reqwest::Error) -> bool {
    detail(error).contains("certificate")
}

/// The innermost cause says what is wrong; the outer ones repeat the address.
fn detail(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The text of a `Warning` header.
fn warning(header: &str) -> Option<String> {
    let quoted = header.strip_prefix("299 - \"")?.strip_suffix('"')?;
    Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
}

async fn refused(response: Response) -> Error {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap_or_default();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let envelope = if body["error"].is_object() { &body["error"] } else { &body };
    let message = envelope["message"].as_str().map_or_else(|| text.trim().to_owned(), str::to_owned);
    Error::Refused { status, message }
}

/// The lines of a stream.
#[derive(Debug)]
pub(crate) struct Lines {
    response: Response,
    pending: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
}

impl Lines {
    /// The next item; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Value>, Error> {
        loop {
            while let Some(line) = self.ready.pop_front() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let mut item: Value =
                    serde_json::from_slice(&line).map_err(|error| Error::Answer(error.to_string()))?;
                if let Some(message) = item["error"]["message"].as_str() {
                    let status =
                        item["error"]["http_code"].as_u64().and_then(|code| u16::try_from(code).ok());
                    return Err(Error::Refused {
                        status: status.unwrap_or(500),
                        message: message.to_owned(),
                    });
                }
                return Ok(Some(item["result"].take()));
            }
            let chunk = self.response.chunk().await.map_err(|error| Error::Interrupted(detail(&error)))?;
            let Some(chunk) = chunk else { return Ok(None) };
            for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
                self.pending.extend_from_slice(piece);
                if piece.ends_with(b"\n") {
                    self.ready.push_back(std::mem::take(&mut self.pending));
                } else if self.pending.len() > LINE_BYTES_MAX {
                    return Err(Error::Answer("a line of the stream has no end".to_owned()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded() {
        assert_eq!(
            path(&["workflows", "a b", "@latest", "é/"]),
            "/api/v1/workflows/a%20b/%40latest/%C3%A9%2F"
        );
    }
}
