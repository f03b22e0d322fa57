//! Stores that are no S3 of Amazon's, and stores that fail: plain HTTP with a login, OSS, WebHDFS, parts that do not arrive,
//! bytes that changed between clusters. One cell of process clusters; all servers are real ones on loopback.

#[path = "artifact_stores/own_identity.rs"]
mod own_identity;
#[path = "artifact_stores/web_hdfs.rs"]
mod web_hdfs;

use anyhow::Context;
use argosy_artifacts::{DirectorySecrets, Limits, Store, Stores};
use argosy_objects::Server;
use argosy_tests::cell::{Cell, Options};
use argosy_tests::manifests::{node, sh, workflow};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(90);

struct World {
    cell: Cell,
    endpoint: String,
    store: Store,
    /// Parts that did not arrive.
    lost: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl World {
    /// Clusters, and the embedded store behind something that loses the first try of every part.
    async fn start(clusters: &[&str]) -> anyhow::Result<Self> {
        let clusters: Vec<_> = clusters.iter().map(|cluster| (*cluster, Vec::new())).collect();
        Self::start_with(&clusters).await
    }

    /// The same; agents have these variables.
    async fn start_with(clusters: &[(&str, Vec<String>)]) -> anyhow::Result<Self> {
        let objects = tempfile::tempdir()?.keep();
        let options =
            argosy_objects::Options::new("127.0.0.1:0".parse()?, objects, "access-key", "secret-key");
        let server = Server::start(options).await?;
        let behind = server.address();
        let (mut serving, lost) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        serving.spawn(server.run());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let before = listener.local_addr()?;
        serving.spawn(lossy(listener, behind, Arc::clone(&lost)));
        let secret = |key: &str| json!({"name": "store", "key": key});
        let repository = json!({"s3": {
            "endpoint": before.to_string(), "insecure": true, "bucket": "argosy", "region": "us-east-1",
            "accessKeySecret": secret("access"), "secretKeySecret": secret("secret"),
        }});
        let options =
            Options { members: 1, artifact_repository: Some(repository.clone()), ..Options::default() };
        let mut cell = Cell::start(&options).await?;
        for (name, key, value) in [
            ("store", "access", "access-key"),
            ("store", "secret", "secret-key"),
            ("login", "user", "user"),
            ("login", "password", "secret"),
        ] {
            cell.write_secret(name, key, value)?;
        }
        for (cluster, variables) in clusters {
            cell.variables.insert((*cluster).to_owned(), variables.clone());
            cell.start_agent(cluster).await?;
        }
        cell.wait_for_clusters(clusters.len()).await?;
        let secrets = DirectorySecrets(cell.directory.path().join("secrets"));
        let stores = Stores::new(Arc::new(secrets), Limits::default());
        let location: Map<String, Value> = repository.as_object().cloned().unwrap_or_default();
        let store = stores.open("default", &location).await?;
        Ok(Self { cell, endpoint: before.to_string(), store, lost, _serving: serving })
    }

    async fn run(&self, workflow: &Value) -> anyhow::Result<Value> {
        let name = self.cell.submit(workflow).await?;
        self.cell.finished(&name, LIMIT).await
    }
}

/// Every request has a connection of its own; that of a part which was not seen before is cut in the middle of its body, or
/// answered 503, in turns.
async fn lossy(listener: TcpListener, behind: SocketAddr, lost: Arc<AtomicUsize>) {
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    while let Ok((mut client, _)) = listener.accept().await {
        let (seen, lost) = (Arc::clone(&seen), Arc::clone(&lost));
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = client.read_u8().await else { return };
                head.push(byte);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let line = head.lines().next().unwrap_or_default().to_owned();
            let part = line.split(['?', '&']).find(|part| part.starts_with("partNumber="));
            let part = part.filter(|_| line.starts_with("PUT ")).map(str::to_owned);
            if let Some(part) = part
                && seen.lock().is_ok_and(|mut seen| seen.insert(part))
            {
                let mut some = vec![0; 100_000];
                let _ = client.read_exact(&mut some).await;
                if lost.fetch_add(1, Ordering::SeqCst) % 2 == 0 {
                    let _ = client
                        .write_all(
                            b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                        )
                        .await;
                }
                return;
            }
            let Ok(mut store) = TcpStream::connect(behind).await else { return };
            let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            if store.write_all(head.as_bytes()).await.is_ok() {
                let _ = copy_bidirectional(&mut client, &mut store).await;
            }
        });
    }
}

/// One step stores a file at a location, the next one reads it from a location.
fn there_and_back(name: &str, to: &Value, from: &Value) -> Value {
    let (mut output, mut input) = (to.clone(), from.clone());
    for (artifact, path) in [(&mut output, "/tmp/x"), (&mut input, "/tmp/in")] {
        artifact["name"] = "f".into();
        artifact["path"] = path.into();
    }
    output["archive"] = json!({"none": {}});
    workflow(
        name,
        json!([
            {"name": "main", "steps": [[{"name": "make", "template": "make"}], [{"name": "use", "template": "use"}]]},
            {"name": "make", "container": sh("echo by {{workflow.name}} > /tmp/x"), "outputs": {"artifacts": [output]}},
            {"name": "use", "container": sh("cat /tmp/in > /tmp/out"), "inputs": {"artifacts": [input]},
             "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]}},
        ]),
    )
}

/// Many parts, the first try of each of them lost, and a file that is whole at the other end.
#[tokio::test(flavor = "multi_thread")]
async fn parts_that_do_not_arrive_are_sent_again() -> anyhow::Result<()> {
    let world = World::start(&["east"]).await?;
    let script = "head -c 40000000 /dev/urandom > /tmp/x; sha256sum < /tmp/x > /tmp/sum";
    let sum = json!({"parameters": [{"name": "sum", "valueFrom": {"path": "/tmp/sum"}}]});
    let mut outputs = sum.clone();
    outputs["artifacts"] = json!([{"name": "x", "path": "/tmp/x", "archive": {"none": {}}}]);
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "make", "template": "make"}],
            [{"name": "use", "template": "use", "arguments": {"artifacts": [
                {"name": "f", "from": "{{steps.make.outputs.artifacts.x}}"}]}}],
        ]},
        {"name": "make", "container": sh(script), "outputs": outputs},
        {"name": "use", "inputs": {"artifacts": [{"name": "f", "path": "/tmp/f"}]},
         "container": sh("sha256sum < /tmp/f > /tmp/sum"), "outputs": sum},
    ]);
    let done = world.run(&workflow("parts", templates)).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let sum = |step: &str| node(&done, step)["outputs"]["parameters"][0]["value"].clone();
    assert!(sum("make").is_string());
    assert_eq!(sum("make"), sum("use"));
    assert_eq!(world.lost.load(Ordering::SeqCst), 5, "each part was lost once");
    Ok(())
}

/// Somebody changes the bytes between two clusters: the reader does not get them.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_changed_between_clusters_are_not_read() -> anyhow::Result<()> {
    let world = World::start(&["east", "west"]).await?;
    let on = |cluster: &str| json!({"cluster.argosy.dev/name": cluster});
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "make", "template": "make"}],
            [{"name": "gate", "template": "gate"}],
            [{"name": "use", "template": "use", "arguments": {"artifacts": [
                {"name": "f", "from": "{{steps.make.outputs.artifacts.x}}"}]}}],
        ]},
        {"name": "make", "nodeSelector": on("east"), "container": sh("echo good > /tmp/x"),
         "outputs": {"artifacts": [{"name": "x", "path": "/tmp/x", "archive": {"none": {}}}]}},
        {"name": "gate", "suspend": {}},
        {"name": "use", "nodeSelector": on("west"), "inputs": {"artifacts": [{"name": "f", "path": "/tmp/f"}]},
         "container": sh("cat /tmp/f")},
    ]);
    let name = world.cell.submit(&workflow("changed", templates)).await?;
    let path = format!("/api/v1/workflows/default/{name}");
    let waits = async || {
        let shown = world.cell.get(&path).await.ok()?;
        (node(&shown, "gate")["phase"] == "Running").then(|| shown["metadata"]["uid"].clone())
    };
    let uid = world.cell.until(LIMIT, "the gate", waits).await?;
    let prefix = format!(".argosy/test/{}", uid.as_str().context("a uid")?);
    let stored = world.store.list(&prefix, 10).await?;
    let key = &stored.first().context("the attempt's own object")?.key;
    world.store.write(key, Bytes::from_static(b"evil\n")).await?;
    world.cell.argosy(&["resume", &name])?;
    let done = world.cell.finished(&name, LIMIT).await?;
    let message = node(&done, "use")["message"].as_str().unwrap_or_default();
    assert!(
        message
            .starts_with("init: Error (exit code 64): artifact f failed to load: its bytes have the digest "),
        "{}",
        done["status"]
    );
    Ok(())
}

/// A server of files: a login of its own for each kind.
#[derive(Clone, Default)]
struct Files {
    kept: Arc<Mutex<BTreeMap<String, Bytes>>>,
    address: String,
    tokens: Arc<AtomicUsize>,
}

fn is_user(headers: &HeaderMap) -> bool {
    let pair = base64::engine::general_purpose::STANDARD.encode("user:secret");
    headers.get(header::AUTHORIZATION).is_some_and(|told| *told == *format!("Basic {pair}"))
}

impl Files {
    fn put(&self, name: &str, body: Bytes) -> Response {
        if let Ok(mut kept) = self.kept.lock() {
            kept.insert(name.to_owned(), body);
        }
        StatusCode::CREATED.into_response()
    }

    fn get(&self, name: &str) -> Response {
        let found = self.kept.lock().ok().and_then(|kept| kept.get(name).cloned());
        found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
    }

    async fn serve() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let files = Self { address: format!("http://{address}"), ..Self::default() };
        let plain = |is_allowed: fn(&HeaderMap) -> bool| {
            let put = async move |State(files): State<Files>,
                                  Path(name): Path<String>,
                                  headers: HeaderMap,
                                  body: Bytes| {
                if is_allowed(&headers) {
                    files.put(&name, body)
                } else {
                    StatusCode::UNAUTHORIZED.into_response()
                }
            };
            let get = async move |State(files): State<Files>,
                                  Path(name): Path<String>,
                                  headers: HeaderMap| {
                if is_allowed(&headers) { files.get(&name) } else { StatusCode::UNAUTHORIZED.into_response() }
            };
            axum::routing::put(put).get(get)
        };
        let token = async |State(files): State<Files>, headers: HeaderMap, body: String| {
            let is_asked = body.contains("grant_type=client_credentials") && body.contains("scope=files");
            if !is_user(&headers) || !is_asked {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            files.tokens.fetch_add(1, Ordering::SeqCst);
            axum::Json(json!({"access_token": "the-token", "token_type": "Bearer"})).into_response()
        };
        let router = axum::Router::new()
            .route("/basic/{name}", plain(is_user))
            .route("/header/{name}", plain(|headers| headers.get("x-team").is_some_and(|team| team == "a")))
            .route(
                "/bearer/{name}",
                plain(|headers| {
                    headers.get(header::AUTHORIZATION).is_some_and(|told| told == "Bearer the-token")
                }),
            )
            .route("/token", axum::routing::post(token))
            .with_state(files.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(files)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_stored_and_read_by_http_with_every_login() -> anyhow::Result<()> {
    let world = World::start(&["east"]).await?;
    let files = Files::serve().await?;
    world.cell.write_secret("login", "token-url", &format!("{}/token", files.address))?;
    let secret = |key: &str| json!({"name": "login", "key": key});
    let basic = json!({"usernameSecret": secret("user"), "passwordSecret": secret("password")});
    let at = |path: &str| format!("{}/{path}", files.address);
    let http = |path: &str, more: Value| {
        let mut location = json!({"http": {"url": at(path)}});
        for (field, value) in more.as_object().into_iter().flatten() {
            location["http"][field] = value.clone();
        }
        location
    };
    let mut artifactory = basic.clone();
    artifactory["url"] = at("basic/artifactory").into();
    let oauth2 = json!({"auth": {"oauth2": {"clientIDSecret": secret("user"), "clientSecretSecret": secret("password"),
        "tokenURLSecret": secret("token-url"), "scopes": ["files"]}}});
    // Its address says how it is spoken to, as users of OSS write it.
    let oss = json!({
        "endpoint": format!("http://{}", world.endpoint), "bucket": "argosy", "key": "by/oss",
        "accessKeySecret": {"name": "store", "key": "access"}, "secretKeySecret": {"name": "store", "key": "secret"},
    });
    for (name, to) in [
        ("basic", http("basic/b", json!({"auth": {"basicAuth": basic}}))),
        ("header", http("header/h", json!({"headers": [{"name": "X-Team", "value": "a"}]}))),
        ("oauth2", http("bearer/o", oauth2)),
        ("artifactory", json!({"artifactory": artifactory})),
        ("oss", json!({"oss": oss})),
    ] {
        let done = world.run(&there_and_back(name, &to, &to)).await?;
        assert_eq!(done["status"]["phase"], "Succeeded", "{name}: {}", done["status"]);
        assert_eq!(node(&done, "use")["outputs"]["parameters"][0]["value"], format!("by {name}"), "{name}");
    }
    assert!(files.tokens.load(Ordering::SeqCst) >= 2, "a token for each way");
    // Without its login nothing is stored, and the step says so.
    let refused = world
        .run(&there_and_back("refused", &http("basic/r", json!({})), &json!({"raw": {"data": "x"}})))
        .await?;
    let message = node(&refused, "make")["message"].as_str().unwrap_or_default();
    assert!(message.contains("the store answered 401 Unauthorized"), "{}", refused["status"]);
    Ok(())
}
