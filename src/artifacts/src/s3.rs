//! Requests to S3-compatible stores that are signed for others, and uploads in parts.

use crate::location::{Credentials, flag, needed, text};
use crate::roles::Role;
use crate::{Error, Limits};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CreateMultipartUpload, GetObject, PutObject, S3Action,
    UploadPart,
};
use rusty_s3::{Bucket, Credentials as Keys, UrlStyle};
use serde_json::{Map, Value};
use std::time::Duration;
use url::Url;

/// Bytes of an answer about an upload that are read.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A bucket, and what signs requests to it.
pub(crate) struct Signing {
    bucket: Bucket,
    keys: Option<Keys>,
    life: Duration,
    join_time_max: Duration,
    http: reqwest::Client,
    encryption: Encryption,
}

/// What the store is to encrypt new objects with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Encryption {
    /// What the bucket's own settings say.
    OfBucket,
    /// Keys of the store.
    OfStore,
    /// A key of the key management service.
    Kms(String),
}

impl Encryption {
    /// As Argo, which looks at the key only where encryption is enabled.
    fn of(fields: &Map<String, Value>) -> Self {
        let options = fields.get("encryptionOptions").and_then(Value::as_object);
        match options.filter(|options| flag(options, "enableEncryption")) {
            None => Self::OfBucket,
            Some(options) => match text(options, "kmsKeyId") {
                "" => Self::OfStore,
                key => Self::Kms(key.to_owned()),
            },
        }
    }

    fn built(&self, builder: AmazonS3Builder) -> Result<AmazonS3Builder, Error> {
        Ok(match self {
            Self::OfBucket => builder,
            Self::OfStore => {
                // The library names the field by its text alone.
                let field = "aws_server_side_encryption".parse::<AmazonS3ConfigKey>();
                let field = field.map_err(|error| Error::Location(error.to_string()))?;
                builder.with_config(field, "AES256")
            }
            Self::Kms(key) => builder.with_sse_kms_encryption(key),
        })
    }

    /// Headers of requests that make an object; they are signed, so that nobody leaves them out.
    fn headers(&self) -> Vec<(String, String)> {
        let header =
            |name: &str, value: &str| (format!("x-amz-server-side-encryption{name}"), value.to_owned());
        match self {
            Self::OfBucket => Vec::new(),
            Self::OfStore => vec![header("", "AES256")],
            Self::Kms(key) => vec![header("", "aws:kms"), header("-aws-kms-key-id", key)],
        }
    }
}

/// A store as a location describes it.
pub(crate) struct Opened {
    pub objects: AmazonS3,
    pub signing: Signing,
    pub ca: Option<String>,
}

pub(crate) async fn open(
    kind: &str,
    namespace: &str,
    fields: &Map<String, Value>,
    credentials: &Credentials,
    limits: &Limits,
) -> Result<Opened, Error> {
    let bucket = needed(kind, fields, "bucket")?;
    let endpoint = match text(fields, "endpoint") {
        "" => "s3.amazonaws.com",
        endpoint => endpoint,
    };
    let is_insecure = flag(fields, "insecure");
    let scheme = if is_insecure { "http" } else { "https" };
    let endpoint =
        if endpoint.contains("://") { endpoint.to_owned() } else { format!("{scheme}://{endpoint}") };
    let base: Url = endpoint
        .parse()
        .map_err(|error| Error::Location(format!("{kind}.endpoint {endpoint:?}: {error}")))?;
    let region = match text(fields, "region") {
        "" => region_of(base.host_str().unwrap_or_default()),
        region => region.to_owned(),
    };
    // Argo's client looks at the address: Amazon's and Alibaba's stores have a host per bucket, others a path.
    let host = base.host_str().unwrap_or_default();
    let is_virtual = match text(fields, "addressingStyle") {
        "virtual" | "virtual-hosted" | "virtual-hosted-style" => true,
        "path" | "path-style" => false,
        _ => host.ends_with(".amazonaws.com") || host.ends_with(".aliyuncs.com"),
    };
    let style = if is_virtual { UrlStyle::VirtualHost } else { UrlStyle::Path };
    let mut access = credentials.of(namespace, fields, "accessKeySecret").await?;
    let mut secret = credentials.of(namespace, fields, "secretKeySecret").await?;
    let mut session = match text(fields, "securityToken") {
        "" => credentials.of(namespace, fields, "sessionTokenSecret").await?,
        token => Some(token.to_owned()),
    };
    let ca = credentials.of(namespace, fields, "caSecret").await?;
    // Keys that are named win, as in Argo, then a role, whatever `useSDKCreds` says.
    let arn = text(fields, "roleARN").to_owned();
    if !arn.is_empty() && (access.is_none() || secret.is_none()) {
        let role = Role { arn, region: region.clone() };
        let given = credentials.of_role(role, limits).await?;
        access = Some(given.key_id.clone());
        secret = Some(given.secret_key.clone());
        session.clone_from(&given.token);
    }
    let builder = if access.is_none() || secret.is_none() {
        AmazonS3Builder::from_env().with_credentials(credentials.own(&region)?)
    } else {
        AmazonS3Builder::new()
    };
    let bucket_endpoint = if is_virtual {
        format!("{}://{bucket}.{}", base.scheme(), authority(&base))
    } else {
        endpoint.clone()
    };
    let encryption = Encryption::of(fields);
    let mut builder = encryption
        .built(builder)?
        .with_bucket_name(bucket)
        .with_region(&region)
        .with_endpoint(bucket_endpoint)
        .with_virtual_hosted_style_request(is_virtual)
        .with_client_options(client_options(base.scheme() == "http", ca.as_deref(), limits)?);
    if let (Some(access), Some(secret)) = (&access, &secret) {
        builder = builder.with_access_key_id(access).with_secret_access_key(secret);
        if let Some(session) = &session {
            builder = builder.with_token(session);
        }
    }
    let objects = builder.build().map_err(|error| Error::Location(format!("{kind}: {error}")))?;
    let keys = match (access, secret) {
        (Some(access), Some(secret)) => Some(match session {
            Some(session) => Keys::new_with_token(access, secret, session),
            None => Keys::new(access, secret),
        }),
        _ => own_keys(&objects).await?,
    };
    let bucket = Bucket::new(base, style, bucket.to_owned(), region)
        .map_err(|error| Error::Location(format!("{kind}.bucket: {error}")))?;
    let signing = Signing {
        bucket,
        keys,
        life: Duration::from_millis(limits.url_life_ms),
        join_time_max: Duration::from_millis(limits.join_ms),
        http: http_client(ca.as_deref(), limits)?,
        encryption,
    };
    Ok(Opened { objects, signing, ca })
}

fn authority(base: &Url) -> String {
    let host = base.host_str().unwrap_or_default();
    base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn region_of(host: &str) -> String {
    let named = host.strip_suffix(".amazonaws.com").and_then(|rest| rest.strip_prefix("s3."));
    named.filter(|region| !region.is_empty()).unwrap_or("us-east-1").to_owned()
}

/// The agent's own identity in the cloud.
async fn own_keys(objects: &AmazonS3) -> Result<Option<Keys>, Error> {
    let found = objects.credentials().get_credential().await;
    let found = found.map_err(|error| Error::Store(format!("no credentials for the store: {error}")))?;
    if found.key_id.is_empty() {
        return Ok(None);
    }
    let (access, secret) = (found.key_id.clone(), found.secret_key.clone());
    Ok(Some(match &found.token {
        Some(token) => Keys::new_with_token(access, secret, token.clone()),
        None => Keys::new(access, secret),
    }))
}

pub(crate) fn client_options(
    allow_http: bool,
    ca: Option<&str>,
    limits: &Limits,
) -> Result<ClientOptions, Error> {
    let mut options = ClientOptions::new()
        .with_allow_http(allow_http)
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(Duration::from_millis(limits.copy_ms));
    for certificate in certificates(ca)? {
        options = options.with_root_certificate(certificate);
    }
    Ok(options)
}

fn certificates(ca: Option<&str>) -> Result<Vec<object_store::Certificate>, Error> {
    let Some(ca) = ca else { return Ok(Vec::new()) };
    object_store::Certificate::from_pem_bundle(ca.as_bytes())
        .map_err(|error| Error::Location(format!("caSecret: {error}")))
}

pub(crate) fn http_client(ca: Option<&str>, limits: &Limits) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_millis(limits.call_ms));
    if let Some(ca) = ca {
        let found = reqwest::Certificate::from_pem_bundle(ca.as_bytes());
        for certificate in found.map_err(|error| Error::Location(format!("caSecret: {error}")))? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|error| Error::Location(format!("cannot make a client: {error}")))
}

impl Signing {
    fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    pub(crate) fn get(&self, key: &str) -> Url {
        GetObject::new(&self.bucket, self.keys(), key).sign(self.life)
    }

    /// A request that stores an object, and the headers that belong to it.
    pub(crate) fn put(&self, key: &str) -> (Url, Vec<(String, String)>) {
        let headers = self.encryption.headers();
        let mut action = PutObject::new(&self.bucket, self.keys(), key);
        for (name, value) in &headers {
            action.headers_mut().insert(name.clone(), value.clone());
        }
        (action.sign(self.life), headers)
    }

    pub(crate) fn part(&self, key: &str, upload: &str, number: u16) -> Url {
        UploadPart::new(&self.bucket, self.keys(), key, number, upload).sign(self.life)
    }

    pub(crate) async fn begin(&self, key: &str) -> Result<String, Error> {
        let mut action = CreateMultipartUpload::new(&self.bucket, self.keys(), key);
        let headers = self.encryption.headers();
        for (name, value) in &headers {
            action.headers_mut().insert(name.clone(), value.clone());
        }
        let request = self.http.post(action.sign(self.life));
        let with =
            |request: reqwest::RequestBuilder, (name, value): &(String, String)| request.header(name, value);
        let answer = self.call(headers.iter().fold(request, with)).await?;
        CreateMultipartUpload::parse_response(&answer).map(|created| created.upload_id().to_owned()).map_err(
            |error| Error::Store(format!("the store's answer to a new upload can't be read: {error}")),
        )
    }

    pub(crate) async fn complete(&self, key: &str, upload: &str, tags: &[String]) -> Result<(), Error> {
        let tags = tags.iter().map(String::as_str);
        let action = CompleteMultipartUpload::new(&self.bucket, self.keys(), key, upload, tags);
        let url = action.sign(self.life);
        let request = self.http.post(url).timeout(self.join_time_max);
        let answer = self.call(request.body(action.body())).await?;
        // Stores may answer 200 and tell an error in the text.
        if answer.contains("<Error>") {
            return Err(Error::Store(format!(
                "the store could not join the parts of an upload: {}",
                code_in(&answer)
            )));
        }
        Ok(())
    }

    pub(crate) async fn abort(&self, key: &str, upload: &str) -> Result<(), Error> {
        let url = AbortMultipartUpload::new(&self.bucket, self.keys(), key, upload).sign(self.life);
        self.call(self.http.delete(url)).await.map(drop)
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Result<String, Error> {
        text_of("the store", request.send().await).await.map_err(Error::Store)
    }
}

/// The text of an answer that is a good one.
///
/// # Errors
/// Why there is none.
pub(crate) async fn text_of(
    who: &str,
    sent: Result<reqwest::Response, reqwest::Error>,
) -> Result<String, String> {
    // The URL is a credential: no message holds it.
    let told = |error: reqwest::Error| error.without_url().to_string();
    let mut sent = sent.map_err(told)?;
    let status = sent.status();
    let mut text = String::new();
    while let Some(part) = sent.chunk().await.map_err(told)? {
        text.push_str(&String::from_utf8_lossy(&part));
        if text.len() > ANSWER_BYTES_MAX {
            return Err(format!("{who} answered too much"));
        }
    }
    if !status.is_success() {
        return Err(format!("{who} answered {status}: {}", code_in(&text)));
    }
    Ok(text)
}

/// The code and message of a store's error.
fn code_in(text: &str) -> String {
    let parts: Vec<String> = ["Code", "Message"].into_iter().filter_map(|name| element(text, name)).collect();
    parts.join(": ")
}

/// What the first element of a name holds, of answers whose elements have no attributes.
pub(crate) fn element(text: &str, name: &str) -> Option<String> {
    let from = text.find(&format!("<{name}>"))? + name.len() + 2;
    let to = text[from..].find(&format!("</{name}>"))?;
    Some(text[from..from + to].to_owned())
}
