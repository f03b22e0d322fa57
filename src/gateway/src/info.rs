//! What the server tells of itself.

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::json;

use crate::auth::{Identity, Role};
use crate::envelope::{Answer, ApiError};
use crate::{App, Cell};

/// What `/api/v1/version` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// As in `v0.1.0`.
    pub version: String,
    /// RFC 3339, or empty.
    pub build_date: String,
    /// Commit, or empty.
    pub git_commit: String,
    /// `clean`, `dirty` or empty.
    pub git_tree_state: String,
}

impl Default for Version {
    /// This build's, as far as it knows itself.
    fn default() -> Self {
        Self {
            version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
            build_date: String::new(),
            git_commit: String::new(),
            git_tree_state: String::new(),
        }
    }
}

pub(crate) async fn info<C: Cell>(State(app): State<App<C>>) -> Answer {
    Answer(json!({
        "managedNamespace": &*app.managed_namespace,
        "modals": {"feedback": true, "firstTimeUser": true, "newVersion": true},
    }))
}

pub(crate) async fn version<C: Cell>(State(app): State<App<C>>) -> Answer {
    let version = &app.version;
    let platform = format!("{}/{}", std::env::consts::OS, architecture());
    Answer(json!({
        "version": version.version,
        "buildDate": version.build_date,
        "gitCommit": version.git_commit,
        "gitTag": "",
        "gitTreeState": version.git_tree_state,
        "goVersion": "",
        "compiler": "rustc",
        "platform": platform,
    }))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) async fn user(Extension(identity): Extension<Identity>) -> Answer {
    let group = match identity.role {
        Role::Reader => "argosy:readers",
        Role::Writer => "argosy:writers",
        Role::Admin => "argosy:admins",
    };
    Answer(json!({"issuer": "argosy/token", "subject": identity.name, "groups": [group]}))
}

/// Argo's UI reports what its user clicks; nothing is kept.
pub(crate) async fn tracking() -> Answer {
    Answer(json!({}))
}

pub(crate) async fn not_implemented() -> ApiError {
    ApiError::not_implemented()
}

pub(crate) async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "nothing is here; the API is under /api/v1\n").into_response()
}

pub(crate) async fn no_single_sign_on() -> StatusCode {
    StatusCode::NOT_IMPLEMENTED
}

pub(crate) async fn root() -> Response {
    const PAGE: &str = "<!doctype html><title>Argosy</title><p>Argosy is running. Its API is under <a href=\"/api/v1/version\">/api/v1</a>; \
        use the command <code>argosy</code>.";
    let headers = [
        ("x-frame-options", "DENY"),
        ("content-security-policy", "default-src 'self' 'unsafe-inline'; img-src 'self' data:"),
    ];
    (headers, Html(PAGE)).into_response()
}

pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

pub(crate) async fn ready<C: Cell>(State(app): State<App<C>>) -> Response {
    if app.cell.status().ready {
        "ok\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: no leader is known, or its term has no applied entry yet\n",
        )
            .into_response()
    }
}

pub(crate) async fn metrics<C: Cell>(State(app): State<App<C>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")];
    (headers, app.metrics.render()).into_response()
}
