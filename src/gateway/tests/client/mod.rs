//! The API as its users see it, without a network.
#![allow(dead_code, reason = "each test binary uses a part")]

use argosy_gateway::testing::EngineCell;
use argosy_gateway::{Identity, Limits, Options, Role, Tokens, router};
use argosy_telemetry::Metrics;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;

pub const BODY_MAX: usize = 8 << 20;

/// A cell of the engine alone, with one cluster, behind the API.
pub struct Api {
    pub cell: EngineCell,
    pub metrics: Metrics,
    service: Router,
}

impl Api {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn archiving() -> Self {
        Self::made(Limits::default(), true)
    }

    pub fn with(limits: Limits) -> Self {
        Self::made(limits, false)
    }

    pub fn made(limits: Limits, archive: bool) -> Self {
        let cell = EngineCell::default();
        cell.connect("eu");
        let metrics = Metrics::new();
        let identity = |name: &str, role| Identity { name: name.to_owned(), role };
        let tokens = Tokens::default()
            .with("admin", identity("admin", Role::Admin))
            .with("writer", identity("writer", Role::Writer))
            .with("reader", identity("reader", Role::Reader));
        let service =
            router(cell.clone(), metrics.clone(), Options { tokens, limits, archive, ..Options::default() });
        Self { cell, metrics, service }
    }

    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> axum::response::Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.service.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }

    pub async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.call_with(method, path, &[("authorization", "Bearer admin")], body).await
    }

    pub async fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (u16, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.raw(method, path, headers, body).await;
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), BODY_MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes))))
    }

    pub async fn submit(&self, name: &str) {
        let (status, answer) =
            self.call("POST", "/api/v1/workflows/ns", workflow(json!({"name": name}))).await;
        assert_eq!(status, 200, "{answer}");
    }
}

pub fn workflow(metadata: Value) -> Value {
    let template = json!({"name": "main", "container": {"image": "busybox", "command": ["true"]}});
    json!({"workflow": {"metadata": metadata, "spec": {"entrypoint": "main", "templates": [template]}}})
}
