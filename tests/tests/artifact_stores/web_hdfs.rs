//! WebHDFS: a name node that takes no bytes and sends everybody to a data node on another host, and a gateway (HttpFS) that
//! sends everybody to itself. Both as Hadoop's documentation has them.

use crate::{World, is_user};
use argosy_tests::manifests::{node, sh, workflow};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

const BYTES_MAX: usize = 16 << 20;

/// What the nodes know together.
#[derive(Default)]
struct Known {
    files: BTreeMap<String, Bytes>,
    /// Good for one request each.
    tokens: Vec<String>,
    /// How often a name node was offered bytes.
    offered: usize,
    /// How often a data node was told who asks.
    told: usize,
    written: usize,
}

#[derive(Clone)]
struct Node {
    known: Arc<Mutex<Known>>,
    data_node: String,
}

impl Node {
    /// A name node and a data node; the URL of the first.
    async fn pair() -> anyhow::Result<(Self, String)> {
        let data = TcpListener::bind("127.0.0.2:0").await?;
        let name = TcpListener::bind("127.0.0.1:0").await?;
        let at = format!("http://{}", name.local_addr()?);
        let node = Self { known: Arc::default(), data_node: format!("http://{}", data.local_addr()?) };
        let keeping = axum::Router::new().fallback(data_node).with_state(node.clone());
        let naming = axum::Router::new().fallback(name_node).with_state(node.clone());
        tokio::spawn(async move { axum::serve(data, keeping).await });
        tokio::spawn(async move { axum::serve(name, naming).await });
        Ok((node, at))
    }

    /// A gateway; its URL.
    async fn gateway() -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = format!("http://{}", listener.local_addr()?);
        let node = Self { known: Arc::default(), data_node: String::new() };
        let router = axum::Router::new().fallback(gateway).with_state(node);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(at)
    }

    fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Counts what is written.
    fn is_first(&self) -> bool {
        self.known(|known| {
            known.written += 1;
            known.written == 1
        })
    }

    fn read(&self, path: &str) -> Response {
        let found = self.known(|known| known.files.get(path).cloned());
        found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
    }

    async fn write(&self, path: &str, body: Body) -> Response {
        let Ok(bytes) = to_bytes(body, BYTES_MAX).await else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        self.known(|known| known.files.insert(path.to_owned(), bytes));
        // It names the file in its own way: nobody is to go there.
        (StatusCode::CREATED, [(header::LOCATION, format!("webhdfs://name-node:50070{path}"))])
            .into_response()
    }
}

/// Path, operation, and the rest of a query.
fn asked(request: &Request) -> (String, String, String) {
    let query = request.uri().query().unwrap_or_default();
    let value = |name: &str| {
        let parts = query.split('&').filter_map(|part| part.split_once('='));
        parts.clone().find(|(key, _)| *key == name).map_or_else(String::new, |(_, value)| value.to_owned())
    };
    let operation = format!("{} {}", request.method(), value("op"));
    (request.uri().path().to_owned(), operation, format!("{}{}", value("delegation"), value("data")))
}

fn length(headers: &HeaderMap) -> usize {
    headers.get(header::CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok()).unwrap_or(0)
}

async fn name_node(State(node): State<Node>, request: Request) -> Response {
    let (path, operation, _) = asked(&request);
    if !is_user(request.headers()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let token = node.known(|known| {
        known.offered += usize::from(request.method() == Method::PUT && length(request.headers()) > 0);
        let token = format!("token-{}", known.tokens.len());
        known.tokens.push(token.clone());
        token
    });
    let is_there = node.known(|known| known.files.contains_key(&path));
    match operation.as_str() {
        "GET OPEN" if !is_there => StatusCode::NOT_FOUND.into_response(),
        "GET OPEN" | "PUT CREATE" => {
            let query = request.uri().query().unwrap_or_default();
            let to =
                format!("{}{path}?{query}&namenoderpcaddress=name:8020&delegation={token}", node.data_node);
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response()
        }
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn data_node(State(node): State<Node>, request: Request) -> Response {
    let (path, operation, token) = asked(&request);
    let is_good = node.known(|known| {
        known.told += usize::from(request.headers().contains_key(header::AUTHORIZATION));
        let kept = known.tokens.iter_mut().find(|kept| **kept == token);
        kept.map(String::clear).is_some()
    });
    if !is_good {
        return StatusCode::FORBIDDEN.into_response();
    }
    match operation.as_str() {
        "GET OPEN" => node.read(&path),
        // A data node that is on its way down: the client has to ask the name node again.
        "PUT CREATE" if node.is_first() => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "PUT CREATE" => node.write(&path, request.into_body()).await,
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn gateway(State(node): State<Node>, request: Request) -> Response {
    let (path, operation, data) = asked(&request);
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    match (operation.as_str(), data.as_str()) {
        _ if !is_user(request.headers()) => StatusCode::UNAUTHORIZED.into_response(),
        ("GET OPEN", _) => node.read(&path),
        ("PUT CREATE", "true") if kind == Some("application/octet-stream") => {
            node.write(&path, request.into_body()).await
        }
        ("PUT CREATE", "") => {
            let to = format!("{path}?{}&data=true", request.uri().query().unwrap_or_default());
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response()
        }
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// A file that no socket's buffer holds, stored and read.
fn there_and_back(name: &str, at: &str, auth: &Value) -> Value {
    let artifact = |path: &str, query: &str| {
        json!({"name": "f", "path": path, "archive": {"none": {}},
            "http": {"url": format!("{at}/webhdfs/v1/team/{name}?{query}"), "auth": auth}})
    };
    let sum = json!([{"name": "sum", "valueFrom": {"path": "/tmp/sum"}}]);
    let templates = json!([
        {"name": "main", "steps": [[{"name": "make", "template": "make"}], [{"name": "use", "template": "use"}]]},
        {"name": "make", "container": sh("head -c 8000000 /dev/urandom > /tmp/x; sha256sum < /tmp/x > /tmp/sum"),
         "outputs": {"artifacts": [artifact("/tmp/x", "op=CREATE&overwrite=true")], "parameters": sum}},
        {"name": "use", "inputs": {"artifacts": [artifact("/tmp/f", "op=OPEN")]},
         "container": sh("sha256sum < /tmp/f > /tmp/sum"), "outputs": {"parameters": sum}},
    ]);
    workflow(name, templates)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_stored_and_read_by_web_hdfs() -> anyhow::Result<()> {
    let world = World::start(&["east"]).await?;
    let secret = |key: &str| json!({"name": "login", "key": key});
    let login =
        json!({"basicAuth": {"usernameSecret": secret("user"), "passwordSecret": secret("password")}});
    let (nodes, name_node) = Node::pair().await?;
    let gateway = Node::gateway().await?;
    for (name, at) in [("nodes", &name_node), ("gateway", &gateway)] {
        let done = world.run(&there_and_back(name, at, &login)).await?;
        assert_eq!(done["status"]["phase"], "Succeeded", "{name}: {}", done["status"]);
        let sum = |step: &str| node(&done, step)["outputs"]["parameters"][0]["value"].clone();
        assert!(sum("make").is_string() && sum("make") == sum("use"), "{name}: {}", done["status"]);
    }
    let (offered, told, written) = nodes.known(|known| (known.offered, known.told, known.written));
    assert_eq!(offered, 0, "the name node was offered bytes");
    assert_eq!(told, 0, "the data node was told the login");
    assert_eq!(written, 2, "the try that failed, and the one that did not");
    // Without a login, and what is not there.
    let refused = world.run(&there_and_back("refused", &name_node, &json!({}))).await?;
    let message = node(&refused, "make")["message"].as_str().unwrap_or_default();
    assert!(message.contains("the store answered 401 Unauthorized"), "{}", refused["status"]);
    let url = format!("{name_node}/webhdfs/v1/team/never?op=OPEN");
    let template = json!([{"name": "main", "container": sh("true"), "inputs": {"artifacts": [
        {"name": "f", "path": "/tmp/f", "http": {"url": url, "auth": login}}]}}]);
    let missing = world.run(&workflow("missing", template)).await?;
    let message = node(&missing, "missing")["message"].as_str().unwrap_or_default();
    assert!(message.ends_with("artifact f failed to load: 404 Not Found"), "{}", missing["status"]);
    Ok(())
}
