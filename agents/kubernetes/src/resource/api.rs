//! Requests to the cluster's API in the name of a service account: what a resource step may do is what that account may.

use http::Request;
use kube::Client;
use serde_json::Value;

/// The header by which the agent speaks for somebody else.
const IMPERSONATE: &str = "Impersonate-User";

/// The cluster's API, as a service account.
#[derive(Clone)]
pub struct Access {
    pub client: Client,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
}

/// Why a request had no effect, or none that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server answered.
    Refused { code: u16, reason: String, message: String },
    /// It did not.
    Unreachable(String),
}

impl Failure {
    /// The object is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Another try may work.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { code, message, .. } => {
                *code >= 500 || *code == 429 || message.contains("exceeded quota")
            }
            Self::Unreachable(_) => true,
        }
    }

    /// As kubectl tells it; `doing` is what it was about (`when creating "FILE"`), or empty.
    pub fn told(&self, doing: &str) -> String {
        let doing = if doing.is_empty() { String::new() } else { format!("error {doing}: ") };
        match self {
            Self::Refused { reason, message, .. } if reason.is_empty() => {
                format!("Error from server: {doing}{message}")
            }
            Self::Refused { reason, message, .. } => {
                format!("Error from server ({reason}): {doing}{message}")
            }
            Self::Unreachable(error) => format!("Unable to connect to the server: {error}"),
        }
    }
}

/// What is sent.
pub struct Sent<'a> {
    pub method: &'a str,
    pub path: String,
    pub content_type: &'a str,
    pub body: Vec<u8>,
}

impl Access {
    /// Sends a request in the account's name.
    pub async fn send(&self, sent: Sent<'_>) -> Result<Value, Failure> {
        call(&self.client, sent, Some(&self.user)).await
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(Sent { method: "GET", path: path.to_owned(), content_type: "", body: Vec::new() }).await
    }
}

/// Reads in the agent's own name: what everybody may read.
pub async fn read(client: &Client, path: &str) -> Result<Value, Failure> {
    call(client, Sent { method: "GET", path: path.to_owned(), content_type: "", body: Vec::new() }, None)
        .await
}

async fn call(client: &Client, sent: Sent<'_>, user: Option<&str>) -> Result<Value, Failure> {
    let mut request = Request::builder().method(sent.method).uri(&sent.path);
    if !sent.content_type.is_empty() {
        request = request.header(http::header::CONTENT_TYPE, sent.content_type);
    }
    if let Some(user) = user {
        request = request.header(IMPERSONATE, user);
    }
    let request = request.body(sent.body).map_err(|error| Failure::Unreachable(error.to_string()))?;
    match client.request::<Value>(request).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err(Failure::Refused {
            code: status.code,
            reason: status.reason.clone(),
            message: status.message.clone(),
        }),
        Err(error) => Err(Failure::Unreachable(error.to_string())),
    }
}
