//! One store, opened for one location.

use crate::location::{Credentials, flag, needed, text};
use crate::s3::{self, Signing};
use crate::secrets::Secrets;
use crate::{Error, Limits};
use argosy_executor::artifacts::Signed;
use base64::Engine;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart};
use reqwest::Method;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Semaphore;

/// What is read at once of something that is to be stored.
const PIECE_BYTES: usize = 1 << 20;
/// Parts of one object that are under way at a time.
const PARTS_UNDER_WAY_MAX: usize = 4;

/// Where OpenSSH keeps the keys of hosts that everybody on a machine knows.
pub const KNOWN_HOSTS_FILE: &str = "/etc/ssh/ssh_known_hosts";

/// Opens stores. Cheap to share.
pub struct Stores {
    pub(crate) credentials: Credentials,
    pub(crate) limits: Limits,
    pub(crate) work_directory: PathBuf,
    pub(crate) known_hosts: PathBuf,
    pub(crate) clones: Semaphore,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Stores").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// An object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub size: u64,
}

enum Signs {
    S3(Box<Signing>),
    Gcs(Arc<GoogleCloudStorage>),
    Azure(Arc<MicrosoftAzure>),
    /// No store: a URL, and what goes with every request to it.
    Url {
        url: String,
        headers: Vec<(String, String)>,
    },
}

/// A store.
pub struct Store {
    objects: Option<Arc<dyn ObjectStore>>,
    signs: Signs,
    ca: Option<String>,
    limits: Limits,
}

impl Stores {
    /// Stores whose Secrets are these.
    #[must_use]
    pub fn new(secrets: Arc<dyn Secrets>, limits: Limits) -> Self {
        // Somebody else in the process may have chosen the provider: then that one is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let credentials = Credentials::new(secrets, &limits);
        let clones = Semaphore::new(limits.clones_under_way_max);
        let (work_directory, known_hosts) = (std::env::temp_dir(), PathBuf::from(KNOWN_HOSTS_FILE));
        Self { credentials, limits, work_directory, known_hosts, clones }
    }

    /// Looks there for the keys of hosts that repositories are read from by SSH.
    #[must_use]
    pub fn with_known_hosts(mut self, file: PathBuf) -> Self {
        self.known_hosts = file;
        self
    }

    /// Keeps what is under way in a directory of their own, which is emptied.
    #[must_use]
    pub fn with_work_directory(mut self, directory: PathBuf) -> Self {
        // What is left of an earlier process is of no use; what can't be removed is told when it is in the way.
        let _ = std::fs::remove_dir_all(&directory);
        self.work_directory = directory;
        self
    }

    /// Opens the store of a location (Argo's ArtifactLocation, whole).
    ///
    /// # Errors
    /// [`Error::Location`] for one that names none, [`Error::Secret`] for credentials that are not there.
    pub async fn open(&self, namespace: &str, location: &Map<String, Value>) -> Result<Store, Error> {
        let fields = |kind: &str| location.get(kind).and_then(Value::as_object);
        let (credentials, limits) = (&self.credentials, &self.limits);
        if let Some((kind, fields)) = ["s3", "oss"].into_iter().find_map(|kind| Some((kind, fields(kind)?))) {
            let opened = s3::open(kind, namespace, fields, credentials, limits).await?;
            let objects: Arc<dyn ObjectStore> = Arc::new(opened.objects);
            return Ok(self.store(Some(objects), Signs::S3(Box::new(opened.signing)), opened.ca));
        }
        if let Some(fields) = fields("gcs") {
            let mut builder =
                GoogleCloudStorageBuilder::from_env().with_bucket_name(needed("gcs", fields, "bucket")?);
            if let Some(key) = credentials.of(namespace, fields, "serviceAccountKeySecret").await? {
                builder = builder.with_service_account_key(key);
            }
            let options = s3::client_options(false, None, limits)?;
            let built = builder.with_client_options(options).build();
            let gcs = Arc::new(built.map_err(|error| Error::Location(format!("gcs: {error}")))?);
            return Ok(self.store(Some(Arc::clone(&gcs) as Arc<dyn ObjectStore>), Signs::Gcs(gcs), None));
        }
        if let Some(fields) = fields("azure") {
            let azure = Arc::new(self.azure(namespace, fields).await?);
            return Ok(self.store(
                Some(Arc::clone(&azure) as Arc<dyn ObjectStore>),
                Signs::Azure(azure),
                None,
            ));
        }
        if let Some(fields) = fields("http") {
            let headers = self.http_headers(namespace, fields).await?;
            let url = needed("http", fields, "url")?.to_owned();
            return Ok(self.store(None, Signs::Url { url, headers }, None));
        }
        if let Some(fields) = fields("artifactory") {
            let user = credentials.of(namespace, fields, "usernameSecret").await?;
            let password = credentials.of(namespace, fields, "passwordSecret").await?;
            let url = needed("artifactory", fields, "url")?.to_owned();
            return Ok(self.store(None, Signs::Url { url, headers: basic(user, password) }, None));
        }
        if let Some(fields) = fields("plugin") {
            let driver = text(fields, "name");
            return Err(Error::Location(format!(
                "ARG1271: artifacts of the driver {driver:?} are read and written by its container in the Pods of steps, and \
                 nowhere else"
            )));
        }
        Err(Error::Location(
            "artifact storage is not configured; see the docs for setup instructions: \
             https://argo-workflows.readthedocs.io/en/latest/configure-artifact-repository/"
                .to_owned(),
        ))
    }

    fn store(&self, objects: Option<Arc<dyn ObjectStore>>, signs: Signs, ca: Option<String>) -> Store {
        Store { objects, signs, ca, limits: self.limits.clone() }
    }

    async fn azure(&self, namespace: &str, fields: &Map<String, Value>) -> Result<MicrosoftAzure, Error> {
        let endpoint = needed("azure", fields, "endpoint")?;
        let host = endpoint.split("://").last().unwrap_or(endpoint);
        let account = host.split(['.', '/']).next().unwrap_or_default();
        let mut builder = MicrosoftAzureBuilder::from_env()
            .with_account(account)
            .with_container_name(needed("azure", fields, "container")?)
            .with_endpoint(endpoint.trim_end_matches('/').to_owned());
        if !flag(fields, "useSDKCreds")
            && let Some(key) = self.credentials.of(namespace, fields, "accountKeySecret").await?
        {
            builder = builder.with_access_key(key);
        }
        let allow_http = endpoint.starts_with("http://");
        let options = s3::client_options(allow_http, None, &self.limits)?;
        builder
            .with_client_options(options)
            .build()
            .map_err(|error| Error::Location(format!("azure: {error}")))
    }

    /// The headers of an `http` location: its own, and those that its credentials make.
    async fn http_headers(
        &self,
        namespace: &str,
        fields: &Map<String, Value>,
    ) -> Result<Vec<(String, String)>, Error> {
        let own = fields.get("headers").and_then(Value::as_array).into_iter().flatten();
        let pair = |header: &Value| {
            let header = header.as_object()?;
            Some((text(header, "name").to_owned(), text(header, "value").to_owned()))
        };
        let mut headers: Vec<(String, String)> = own.filter_map(pair).collect();
        let auth = fields.get("auth").and_then(Value::as_object);
        let part = |name: &str| auth.and_then(|auth| auth.get(name)?.as_object());
        if let Some(fields) = part("basicAuth") {
            let user = self.credentials.of(namespace, fields, "usernameSecret").await?;
            let password = self.credentials.of(namespace, fields, "passwordSecret").await?;
            headers.extend(basic(user, password));
        }
        if let Some(fields) = part("oauth2") {
            headers.push(("Authorization".to_owned(), self.oauth2(namespace, fields).await?));
        }
        Ok(headers)
    }

    /// A token by OAuth2's client credentials.
    async fn oauth2(&self, namespace: &str, fields: &Map<String, Value>) -> Result<String, Error> {
        let of = async |field: &str| {
            let found = self.credentials.of(namespace, fields, field).await?;
            found.ok_or_else(|| Error::Location(format!("http.auth.oauth2 has no {field}")))
        };
        let (id, secret, url) =
            (of("clientIDSecret").await?, of("clientSecretSecret").await?, of("tokenURLSecret").await?);
        let texts = |field: &str| fields.get(field).and_then(Value::as_array).into_iter().flatten();
        let scopes: Vec<&str> = texts("scopes").filter_map(Value::as_str).collect();
        let mut form: Vec<(String, String)> =
            vec![("grant_type".to_owned(), "client_credentials".to_owned())];
        if !scopes.is_empty() {
            form.push(("scope".to_owned(), scopes.join(" ")));
        }
        form.extend(
            texts("endpointParams")
                .filter_map(Value::as_object)
                .map(|parameter| (text(parameter, "key").to_owned(), text(parameter, "value").to_owned())),
        );
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let client = s3::http_client(None, &self.limits)?;
        let request = client
            .post(url)
            .basic_auth(id, Some(secret))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body);
        let told = |error: reqwest::Error| Error::Store(format!("no token: {}", error.without_url()));
        let answer: Value = request
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(told)?
            .json()
            .await
            .map_err(told)?;
        let token = answer.get("access_token").and_then(Value::as_str);
        token
            .map(|token| format!("Bearer {token}"))
            .ok_or_else(|| Error::Store("the token's issuer answered without a token".to_owned()))
    }
}

fn basic(user: Option<String>, password: Option<String>) -> Vec<(String, String)> {
    if user.is_none() && password.is_none() {
        return Vec::new();
    }
    let pair = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    vec![("Authorization".to_owned(), format!("Basic {encoded}"))]
}

impl Store {
    fn objects(&self) -> Result<&Arc<dyn ObjectStore>, Error> {
        self.objects.as_ref().ok_or_else(|| Error::Location("the location is a URL and no store".to_owned()))
    }

    /// Objects can be copied and deleted in it.
    #[must_use]
    pub fn is_store(&self) -> bool {
        self.objects.is_some()
    }

    async fn within<T>(
        &self,
        limit_ms: u64,
        call: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(Duration::from_millis(limit_ms), call).await {
            Ok(answer) => answer.map_err(told),
            Err(_) => Err(Error::Store("the store does not answer".to_owned())),
        }
    }

    /// The object of a key.
    ///
    /// # Errors
    /// When it can't be said.
    pub async fn head(&self, key: &str) -> Result<Option<Found>, Error> {
        match self.within(self.limits.call_ms, self.objects()?.head(&path(key)?)).await {
            Ok(found) => Ok(Some(Found { key: key.to_owned(), size: found.size })),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The objects below a prefix that ends at a `/`, at most `max` of them.
    ///
    /// # Errors
    /// [`Error::Limit`] when there are more.
    pub async fn list(&self, prefix: &str, max: usize) -> Result<Vec<Found>, Error> {
        let prefix = path(prefix.trim_end_matches('/'))?;
        let mut listed = self.objects()?.list(Some(&prefix));
        let mut found = Vec::new();
        while let Some(object) = self.within(self.limits.call_ms, listed.try_next()).await? {
            if found.len() >= max {
                return Err(Error::Limit {
                    what: "the number of objects",
                    found: max as u64 + 1,
                    max: max as u64,
                });
            }
            found.push(Found { key: object.location.to_string(), size: object.size });
        }
        found.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(found)
    }

    /// A part of the bytes of an object.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn read(
        &self,
        key: &str,
        range: std::ops::Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = self.within(self.limits.call_ms, self.objects()?.get_opts(&path(key)?, options)).await?;
        Ok(found.into_stream().map_err(told).boxed())
    }

    /// Stores bytes that are at hand.
    ///
    /// # Errors
    /// When the store does not take them.
    pub async fn write(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        self.within(self.limits.call_ms, self.objects()?.put(&path(key)?, bytes.into())).await.map(drop)
    }

    /// Copies an object; the store does it by itself unless the object is too large for that.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn copy(&self, from: &str, to: &str, size: u64) -> Result<(), Error> {
        let objects = self.objects()?;
        let (from, to) = (path(from)?, path(to)?);
        if size <= self.limits.server_copy_bytes_max {
            return self.within(self.limits.copy_ms, objects.copy(&from, &to)).await;
        }
        let through = async {
            let source = objects.get(&from).await?.into_stream();
            put_parts(objects, &to, source).await
        };
        self.within(self.limits.copy_ms, through).await
    }

    /// Stores what a reader gives, in parts: memory stays flat. A failure leaves no object.
    ///
    /// # Errors
    /// When the reader fails or the store does not take it.
    pub async fn write_from(&self, key: &str, reader: impl AsyncRead + Unpin + Send) -> Result<(), Error> {
        let pieces = stream::try_unfold(reader, async |mut reader| {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            let read = reader.read_buf(&mut piece).await.map_err(|source| object_store::Error::Generic {
                store: "what is to be stored",
                source: Box::new(source),
            })?;
            Ok((read > 0).then(|| (piece.freeze(), reader)))
        });
        let key = path(key)?;
        self.within(self.limits.copy_ms, put_parts(self.objects()?, &key, std::pin::pin!(pieces))).await
    }

    /// Deletes an object; one that is not there is deleted.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.within(self.limits.call_ms, self.objects()?.delete(&path(key)?)).await {
            Ok(()) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes everything below a prefix that ends at a `/`.
    ///
    /// # Errors
    /// When the store refuses one of them: the rest may be gone.
    pub async fn delete_below(&self, prefix: &str) -> Result<(), Error> {
        for object in self.list(prefix, usize::MAX).await? {
            self.delete(&object.key).await?;
        }
        Ok(())
    }

    /// A request that anyone may send for a while to read an object.
    ///
    /// # Errors
    /// When it can't be signed.
    pub async fn sign_get(&self, key: &str) -> Result<Signed, Error> {
        self.sign(Method::GET, key).await
    }

    /// A request that anyone may send for a while to store an object whole.
    ///
    /// # Errors
    /// When it can't be signed.
    pub async fn sign_put(&self, key: &str) -> Result<Signed, Error> {
        self.sign(Method::PUT, key).await
    }

    async fn sign(&self, method: Method, key: &str) -> Result<Signed, Error> {
        let life = Duration::from_millis(self.limits.url_life_ms);
        let is_put = method == Method::PUT;
        let (url, headers) = match &self.signs {
            Signs::S3(signing) if is_put => {
                let (url, headers) = signing.put(key);
                (url.to_string(), headers)
            }
            Signs::S3(signing) => (signing.get(key).to_string(), Vec::new()),
            Signs::Gcs(gcs) => {
                let signed = gcs.signed_url(method, &path(key)?, life).await;
                (signed.map_err(told)?.to_string(), Vec::new())
            }
            Signs::Azure(azure) => {
                let signed = azure.signed_url(method, &path(key)?, life).await.map_err(told)?;
                let kind = ("x-ms-blob-type".to_owned(), "BlockBlob".to_owned());
                (signed.to_string(), if is_put { vec![kind] } else { Vec::new() })
            }
            Signs::Url { url, headers } => (url.clone(), headers.clone()),
        };
        self.signed(url, headers).await
    }

    /// Large objects can be stored in parts.
    #[must_use]
    pub fn has_parts(&self) -> bool {
        matches!(self.signs, Signs::S3(_) | Signs::Azure(_))
    }

    /// Begins an upload in parts.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn begin(&self, key: &str) -> Result<String, Error> {
        match &self.signs {
            Signs::S3(signing) => signing.begin(key).await,
            Signs::Azure(_) => Ok("blocks".to_owned()),
            Signs::Gcs(_) | Signs::Url { .. } => Err(no_parts()),
        }
    }

    /// A request that stores a part; parts count from 1.
    ///
    /// # Errors
    /// When it can't be signed.
    pub async fn sign_part(&self, key: &str, upload: &str, number: u16) -> Result<Signed, Error> {
        match &self.signs {
            Signs::S3(signing) => {
                self.signed(signing.part(key, upload, number).to_string(), Vec::new()).await
            }
            Signs::Azure(azure) => {
                let life = Duration::from_millis(self.limits.url_life_ms);
                let url = azure.signed_url(Method::PUT, &path(key)?, life).await.map_err(told)?;
                self.signed(format!("{url}&comp=block&blockid={}", block(number)), Vec::new()).await
            }
            Signs::Gcs(_) | Signs::Url { .. } => Err(no_parts()),
        }
    }

    /// Joins the parts of an upload; `tags` are what the store answered to them, in order.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn complete(&self, key: &str, upload: &str, tags: &[String]) -> Result<(), Error> {
        match &self.signs {
            Signs::S3(signing) => signing.complete(key, upload, tags).await,
            Signs::Azure(azure) => {
                let life = Duration::from_millis(self.limits.url_life_ms);
                let url = azure.signed_url(Method::PUT, &path(key)?, life).await.map_err(told)?;
                let blocks: String = (1..=u16::try_from(tags.len()).unwrap_or(u16::MAX))
                    .map(|number| format!("<Latest>{}</Latest>", block(number)))
                    .collect();
                let body =
                    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{blocks}</BlockList>");
                let client = s3::http_client(self.ca.as_deref(), &self.limits)?;
                let sent = client.put(format!("{url}&comp=blocklist")).body(body).send().await;
                let answered = sent.and_then(reqwest::Response::error_for_status);
                answered.map(drop).map_err(|error| Error::Store(error.without_url().to_string()))
            }
            Signs::Gcs(_) | Signs::Url { .. } => Err(no_parts()),
        }
    }

    /// Gives an upload in parts up.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn abort(&self, key: &str, upload: &str) -> Result<(), Error> {
        match &self.signs {
            Signs::S3(signing) => signing.abort(key, upload).await,
            // Blocks that nobody joined go by themselves.
            Signs::Azure(_) | Signs::Gcs(_) | Signs::Url { .. } => Ok(()),
        }
    }

    /// The request with the addresses of its host: executors resolve no names.
    async fn signed(&self, url: String, headers: Vec<(String, String)>) -> Result<Signed, Error> {
        let parsed: url::Url =
            url.parse().map_err(|_| Error::Location("the artifact's URL can't be read".to_owned()))?;
        let addresses = addresses(&parsed).await?;
        Ok(Signed { url, headers, addresses, ca: self.ca.clone() })
    }
}

/// The addresses of a URL's host.
pub(crate) async fn addresses(url: &url::Url) -> Result<Vec<String>, Error> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let found = found.map_err(|error| Error::Store(format!("dial tcp: lookup {host}: {error}")))?;
    Ok(found.map(|address| address.to_string()).take(8).collect())
}

fn no_parts() -> Error {
    Error::Location("this store takes no uploads in parts".to_owned())
}

/// Azure's name of a block, safe in URLs.
fn block(number: u16) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{number:06}"))
}

/// Stores what a stream gives as one object, in parts, or nothing.
async fn put_parts(
    objects: &dyn ObjectStore,
    to: &Path,
    mut pieces: impl Stream<Item = Result<Bytes, object_store::Error>> + Unpin,
) -> Result<(), object_store::Error> {
    let mut target = WriteMultipart::new(objects.put_multipart(to).await?);
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => {
                target.wait_for_capacity(PARTS_UNDER_WAY_MAX).await?;
                target.put(piece);
            }
            Err(error) => {
                target.abort().await?;
                return Err(error);
            }
        }
    }
    target.finish().await.map(drop)
}

fn path(key: &str) -> Result<Path, Error> {
    Path::parse(key.trim_start_matches('/')).map_err(|error| Error::Location(format!("key {key:?}: {error}")))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors, of which one has a word of its own"
)]
fn told(error: object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { .. } => Error::NotFound,
        other => Error::Store(without_query(&other.to_string())),
    }
}

/// A message without the signature of a URL in it.
fn without_query(message: &str) -> String {
    let mut kept = String::with_capacity(message.len());
    let mut in_query = false;
    for character in message.chars() {
        match character {
            '?' => in_query = true,
            ' ' | ')' | '"' | '\n' => in_query = false,
            _ => {}
        }
        if !in_query {
            kept.push(character);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold_no_signature() {
        let message = "error for url (http://h/k?X-Amz-Signature=abc) after 1 try";
        assert_eq!(without_query(message), "error for url (http://h/k) after 1 try");
    }
}
