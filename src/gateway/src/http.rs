//! What every request passes: its id, span and metrics, its token, its size.

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use tracing::Instrument;

use crate::auth::{Identity, Role};
use crate::envelope::{ApiError, Code};
use crate::{App, Cell};

const REQUEST_ID_LENGTH_MAX: usize = 64;
const IDEMPOTENCY_KEY_LENGTH_MAX: usize = 200;

fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok()).filter(|id| {
        (1..=REQUEST_ID_LENGTH_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    });
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// Gives the request an id and a span, counts it and takes its time.
pub(crate) async fn observe<C: Cell>(State(app): State<App<C>>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = known_method(request.method());
    let span = tracing::info_span!("request", request_id = %id, method, path = %request.uri().path());
    let began = std::time::Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    app.metrics.http_requests.with_label_values(&[&route, method, status.as_str()]).inc();
    app.metrics.http_seconds.with_label_values(&[&route, method]).observe(began.elapsed().as_secs_f64());
    span.in_scope(|| tracing::debug!(status = status.as_u16(), route, "answered"));
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

/// A stranger can invent methods; a label value must not be invented.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Lets only bearers of a token that allows the request through.
pub(crate) async fn authenticate<C: Cell>(
    State(app): State<App<C>>,
    mut request: Request,
    next: Next,
) -> Response {
    let refuse = |reason: &str, error: ApiError| {
        app.metrics.http_refused.with_label_values(&[reason]).inc();
        error.into_response()
    };
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(header) = header else {
        let message = "no token given: send the header Authorization: Bearer TOKEN";
        return refuse("no_token", ApiError::new(Code::Unauthenticated, message));
    };
    let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some(identity) = token.and_then(|(_, token)| app.tokens.identify(token.trim())).cloned() else {
        let message =
            "token not valid for this server: check the token, or make one with the server's tokens file";
        return refuse("bad_token", ApiError::new(Code::Unauthenticated, message));
    };
    let needed = needed_role(request.method(), request.uri().path());
    if identity.role < needed {
        let message = format!(
            "permission denied: {} has role {:?}, needed is {needed:?}",
            identity.name, identity.role
        );
        return refuse("forbidden", ApiError::new(Code::PermissionDenied, message));
    }
    request.extensions_mut().insert(identity);
    next.run(request).await
}

/// What writers may change, by the part of the path behind `/api/v1/`. A path that nobody lists is for admins.
const OF_WRITERS: [&str; 9] = [
    "archived-workflows",
    "cluster-workflow-templates",
    "configmaps",
    "cron-workflows",
    "sync",
    "tracking",
    "workflow-event-bindings",
    "workflow-templates",
    "workflows",
];

fn needed_role(method: &Method, path: &str) -> Role {
    let part = path.strip_prefix("/api/v1/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    // A backup holds everything, of all namespaces.
    if (method == Method::GET || method == Method::HEAD) && part != "backup" {
        Role::Reader
    } else if OF_WRITERS.contains(&part) {
        Role::Writer
    } else {
        Role::Admin
    }
}

/// The whole body, unless it is larger than allowed. A larger one is read on for a while and thrown away, so that a
/// client that only listens after it has sent gets the answer and not a broken connection.
pub(crate) async fn read_body<C: Cell>(app: &App<C>, body: Body) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut read = 0usize;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::undecodable("the request's body ended early"))?;
        read += chunk.len();
        if read > app.limits.body_drain_bytes_max {
            break;
        }
        if read <= app.limits.body_bytes_max {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
        }
    }
    if read > app.limits.body_bytes_max {
        app.metrics.http_refused.with_label_values(&["too_large"]).inc();
        return Err(ApiError::too_large(app.limits.body_bytes_max));
    }
    Ok(bytes.into())
}

/// A JSON object; an empty body counts as `{}`. Errors in the words of Argo's decoder where it matters to clients.
pub(crate) fn decode_object(body: &[u8]) -> Result<serde_json::Map<String, serde_json::Value>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(serde_json::Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(serde_json::Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::undecodable("json: cannot unmarshal the body: it has to be an object")),
        Err(error) if error.is_eof() => Err(ApiError::undecodable("unexpected EOF")),
        Err(error) => Err(ApiError::undecodable(format!("invalid JSON: {error}"))),
    }
}

/// The idempotency key of a change: the caller's header, and a digest of what it asks for.
pub(crate) fn idempotency_key(
    identity: &Identity,
    headers: &HeaderMap,
    what: &str,
    body: &[u8],
) -> Result<Option<argosy_proto::command::IdempotencyKey>, ApiError> {
    use sha2::{Digest, Sha256};
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let valid = |key: &&str| (1..=IDEMPOTENCY_KEY_LENGTH_MAX).contains(&key.len());
    let key = key.to_str().ok().filter(valid).ok_or_else(|| {
        let message = format!(
            "header Idempotency-Key is invalid: use 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} ASCII characters"
        );
        ApiError::new(Code::InvalidArgument, message)
    })?;
    let digest = Sha256::new().chain_update(what).chain_update([0]).chain_update(body).finalize().to_vec();
    Ok(Some(argosy_proto::command::IdempotencyKey {
        tenant: identity.name.clone(),
        key: key.to_owned(),
        digest,
    }))
}

/// Query parameters in the order given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(pub Vec<(String, String)>);

impl Params {
    /// The last value of a parameter; an empty one counts as absent, as in Argo.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.get(name).map(|text| text.parse().map_err(|_| self.wrong(name, "a whole number"))).transpose()
    }

    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    fn wrong(&self, name: &str, wanted: &str) -> ApiError {
        let value = self.get(name).unwrap_or_default();
        ApiError::undecodable(format!("query parameter {name} is {value:?}: it has to be {wanted}"))
    }
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Params {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|error| ApiError::undecodable(error.body_text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_decode_as_argos_do() {
        assert!(decode_object(b" ").unwrap().is_empty());
        assert_eq!(decode_object(b"{\"workflow\": {").unwrap_err().message, "unexpected EOF");
        assert!(decode_object(b"[]").is_err());
        assert!(decode_object(b"\xff").is_err());
    }

    #[test]
    fn digests_tell_bodies_and_targets_apart() {
        let identity = Identity { name: "a".into(), role: Role::Admin };
        let mut headers = HeaderMap::new();
        assert_eq!(idempotency_key(&identity, &headers, "w", b"x").unwrap(), None);
        headers.insert("idempotency-key", HeaderValue::from_static("k"));
        let digest = |what: &str, body: &[u8]| {
            idempotency_key(&identity, &headers, what, body).unwrap().unwrap().digest
        };
        assert_eq!(digest("w", b"x"), digest("w", b"x"));
        assert_ne!(digest("w", b"x"), digest("w", b"y"));
        assert_ne!(digest("w", b"x"), digest("v", b"x"));
        headers.insert("idempotency-key", HeaderValue::from_str(&"k".repeat(201)).unwrap());
        assert!(idempotency_key(&identity, &headers, "w", b"x").is_err());
    }

    #[test]
    fn roles_by_path() {
        assert_eq!(needed_role(&Method::GET, "/api/v1/clusters"), Role::Reader);
        assert_eq!(needed_role(&Method::POST, "/api/v1/clusters/a/invite"), Role::Admin);
        assert_eq!(needed_role(&Method::GET, "/api/v1/backup"), Role::Admin);
        for path in ["workflows/n/a", "archived-workflows/u", "cron-workflows/n", "sync/n/k", "configmaps/n"]
        {
            assert_eq!(needed_role(&Method::DELETE, &format!("/api/v1/{path}")), Role::Writer, "{path}");
        }
    }

    /// Rolling the certificate authority was open to writers once, since nobody had listed its path.
    #[test]
    fn what_is_not_listed_for_writers_is_for_admins() {
        for path in [
            "authority/roll",
            "failover/resume",
            "drills",
            "drill-schedules/weekly",
            "members",
            "workflows-of-tomorrow",
        ] {
            assert_eq!(needed_role(&Method::POST, &format!("/api/v1/{path}")), Role::Admin, "{path}");
        }
    }

    #[test]
    fn writers_paths_are_all_there() {
        assert_eq!(needed_role(&Method::POST, "/api/v1/workflow-templates/n"), Role::Writer);
        assert_eq!(needed_role(&Method::POST, "/api/v1/cluster-workflow-templates"), Role::Writer);
        assert_eq!(needed_role(&Method::POST, "/api/v1/workflow-event-bindings/n"), Role::Writer);
    }
}
