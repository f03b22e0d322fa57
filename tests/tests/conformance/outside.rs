//! What recordings count on beside the cell, on real clusters: an object store and an HTTP server at one fixed address, the
//! namespace's objects, and a second host that takes no Pods.

use anyhow::Context;
use argosy_artifacts::{DirectorySecrets, Limits, Store, Stores};
use argosy_conformance::artifacts::ADDRESS;
use argosy_testcluster::{Cluster, Federation};
use argosy_tests::cell::Cell;
use futures::TryStreamExt;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const STORE_PORT: u16 = 9000;
const WEB_PORT: u16 = 8088;
/// The ConfigMap of artifact repositories that cases name.
const REPOSITORIES: &str = "corpus-artifact-repositories";
/// How long `/slow` takes to answer.
const SLOW: Duration = Duration::from_secs(20);
/// Objects of one case.
const OBJECTS_MAX: usize = 100;

/// Serves until it is dropped.
pub struct Outside {
    store: Store,
    _serving: JoinSet<()>,
}

impl Outside {
    pub async fn start(
        cell: &Cell,
        federation: &Federation,
        cluster: &Cluster,
        namespace: &str,
    ) -> anyhow::Result<Self> {
        let address: Ipv4Addr = ADDRESS.parse()?;
        federation.add_address(address)?;
        let options = argosy_objects::Options {
            bucket: "my-bucket".to_owned(),
            ..argosy_objects::Options::new(
                SocketAddr::from((address, STORE_PORT)),
                federation.folder().join("objects"),
                "key",
                "secret",
            )
        };
        let mut serving = JoinSet::new();
        let server = argosy_objects::Server::start(options).await?;
        serving.spawn(server.run());
        let web = TcpListener::bind((address, WEB_PORT)).await?;
        serving.spawn(serve(web));
        let repositories = repositories();
        let file = cluster.folder().join("outside.json");
        std::fs::write(&file, objects(namespace, &repositories).to_string())?;
        cluster.kubectl(&["apply", "-f", &file.display().to_string()])?;
        // What is looked up by the control plane itself.
        let map = json!({"configMap": {"metadata": {"name": REPOSITORIES}, "data": repositories}});
        cell.post(&format!("/api/v1/configmaps/{namespace}"), &map).await?;
        cell.write_secret("s3-cred", "accesskey", "key")?;
        cell.write_secret("s3-cred", "secretkey", "secret")?;
        let secrets = DirectorySecrets(cell.directory.path().join("secrets"));
        let stores = Stores::new(Arc::new(secrets), Limits::default());
        let location: Map<String, Value> = json!({ "s3": s3() }).as_object().cloned().unwrap_or_default();
        let store = stores.open(namespace, &location).await?;
        Ok(Self { store, _serving: serving })
    }

    pub async fn put(&self, step: &Value) -> anyhow::Result<()> {
        let text = |field: &str| step[field].as_str().unwrap_or_default().to_owned();
        Ok(self.store.write(&text("key"), text("value").into()).await?)
    }

    /// The objects below the workflow's name, as recordings show them.
    pub async fn list(&self, workflow: &str) -> anyhow::Result<Value> {
        let mut shown = Vec::new();
        for found in self.store.list(&format!("{workflow}/"), OBJECTS_MAX).await? {
            let parts: Vec<bytes::Bytes> = if found.size == 0 {
                Vec::new()
            } else {
                self.store.read(&found.key, 0..found.size).await?.try_collect().await?
            };
            let bytes = parts.concat();
            shown.push(if found.key.ends_with(".tgz") {
                json!({"key": found.key, "tgz": members(&bytes)?})
            } else {
                json!({"key": found.key, "text": String::from_utf8_lossy(&bytes)})
            });
        }
        Ok(shown.into())
    }
}

/// The members of an archive: name, whether it is a directory, text.
fn members(archive: &[u8]) -> anyhow::Result<Vec<Value>> {
    let mut shown = Vec::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(archive)).entries()? {
        let mut entry = entry?;
        let mut text = String::new();
        let is_directory = entry.header().entry_type().is_dir();
        entry.read_to_string(&mut text)?;
        shown.push(json!([entry.path()?.to_string_lossy(), is_directory, text]));
    }
    Ok(shown)
}

fn s3() -> Value {
    let secret = |key: &str| json!({"name": "s3-cred", "key": key});
    json!({
        "bucket": "my-bucket", "endpoint": format!("{ADDRESS}:{STORE_PORT}"), "insecure": true, "region": "us-east-1",
        "accessKeySecret": secret("accesskey"), "secretKeySecret": secret("secretkey"),
    })
}

fn repositories() -> Value {
    let with_format = {
        let mut s3 = s3();
        s3["keyFormat"] = json!("{{workflow.name}}/{{pod.name}}");
        json!({ "s3": s3 })
    };
    json!({"s3": with_format.to_string(), "s3-logs": json!({"archiveLogs": true, "s3": s3()}).to_string()})
}

fn objects(namespace: &str, repositories: &Value) -> Value {
    let accounts: Vec<Value> = ["default", "argo"]
        .iter()
        .map(|name| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}))
        .collect();
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3-cred", "namespace": namespace},
            "stringData": {"accesskey": "key", "secretkey": "secret"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": REPOSITORIES, "namespace": namespace},
            "data": repositories},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "cases"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": accounts},
        // The recordings' cluster had a host that was cordoned.
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "c3"}, "spec": {"unschedulable": true}},
    ]})
}

async fn serve(listener: TcpListener) {
    let mut answers = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        answers.spawn(async move {
            // Who asked may have gone: `/slow` is there for that.
            let _ = answer(stream).await;
        });
    }
}

async fn answer(stream: TcpStream) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).context("a request names a path")?;
    let (status, body) = match path.strip_prefix("/status/") {
        Some(status) => (status.parse()?, format!("status {status}")),
        None if path == "/json" => (200, r#"{"state":"ready","n":3}"#.to_owned()),
        None if path == "/slow" => {
            tokio::time::sleep(SLOW).await;
            (200, "ok".to_owned())
        }
        None => (404, String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status} -\r\nContent-Length: {}\r\nX-Answer: 42\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    Ok(stream.shutdown().await?)
}
