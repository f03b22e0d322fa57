//! Artifacts of a cluster that is gone for good, and what a later step needs is made again: two process clusters, each with an
//! object store of its own at the same name, or one store that is inside the cluster that is lost, and a spare one.

use argosy_objects::{Options as StoreOptions, Server};
use argosy_server::config::ReproductionConfig;
use argosy_tests::cell::{Cell, Options};
use argosy_tests::manifests::node;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};

const LIMIT: Duration = Duration::from_secs(90);
/// The stores' name in both clusters.
const STORE: &str = "minio.argo.test";
/// The name of a store that is in no cluster.
const SPARE: &str = "spare.argo.test";
/// Where each cluster finds its own.
const ADDRESSES: [(&str, &str); 2] = [("east", "127.0.0.21"), ("west", "127.0.0.22")];

fn repository(endpoint: &str) -> Value {
    let secret = |key: &str| json!({"name": "store", "key": key});
    json!({"s3": {
        "endpoint": endpoint, "insecure": true, "bucket": "argosy", "region": "us-east-1",
        "accessKeySecret": secret("access"), "secretKeySecret": secret("secret"),
    }})
}

struct World {
    cell: Cell,
    stores: Vec<JoinHandle<()>>,
}

/// A port that is free on both addresses.
fn free_port() -> anyhow::Result<u16> {
    loop {
        let first = TcpListener::bind((ADDRESSES[0].1, 0))?;
        let port = first.local_addr()?.port();
        if TcpListener::bind((ADDRESSES[1].1, port)).is_ok() {
            return Ok(port);
        }
    }
}

/// Who knows of the stores.
#[derive(Clone, Copy, PartialEq)]
enum Stores {
    /// Every cluster has one of its own, and members know.
    Each,
    /// Every cluster has one of its own, and nobody knows.
    EachUntold,
    /// Both are reached by all; the first one is inside the first cluster, and members know.
    One,
}

impl World {
    /// Both stores, and the first cluster alone: all that is made is there.
    async fn start(kind: Stores) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut stores = Vec::new();
        for (_, address) in ADDRESSES {
            let directory = tempfile::tempdir()?.keep();
            let listen = format!("{address}:{port}").parse()?;
            let server =
                Server::start(StoreOptions::new(listen, directory, "access-key", "secret-key")).await?;
            let mut serving = JoinSet::new();
            serving.spawn(server.run());
            stores.push(tokio::spawn(async move { while serving.join_next().await.is_some() {} }));
        }
        let endpoint = format!("{STORE}:{port}");
        let options = Options {
            members: 1,
            artifact_repository: Some(repository(&endpoint)),
            reproductions: match kind {
                Stores::Each => {
                    ReproductionConfig { cluster_stores: vec![endpoint], ..ReproductionConfig::default() }
                }
                Stores::EachUntold => ReproductionConfig::default(),
                Stores::One => ReproductionConfig {
                    store_clusters: [(endpoint, "east".to_owned())].into(),
                    repository: Some(repository(&format!("{SPARE}:{port}"))),
                    ..ReproductionConfig::default()
                },
            },
            ..Options::default()
        };
        let mut cell = Cell::start(&options).await?;
        cell.write_secret("store", "access", "access-key")?;
        cell.write_secret("store", "secret", "secret-key")?;
        for (cluster, own) in ADDRESSES {
            let [(_, first), (_, second)] = ADDRESSES;
            let store = if kind == Stores::One { first } else { own };
            let hosts = format!("127.0.0.1 localhost\n{store} {STORE}\n{second} {SPARE}\n");
            cell.write_hosts(cluster, &hosts)?;
        }
        cell.start_agent("east").await?;
        cell.wait_for_clusters(1).await?;
        Ok(Self { cell, stores })
    }

    async fn workflow(&self, name: &str) -> anyhow::Result<Value> {
        self.cell.get(&format!("/api/v1/workflows/default/{name}")).await
    }

    /// The first cluster goes, with its store, and does not come back; another has joined.
    async fn lose_east(&mut self) -> anyhow::Result<()> {
        self.cell.start_agent("west").await?;
        self.cell.wait_for_clusters(2).await?;
        self.cell.lose_cluster("east");
        self.stores[0].abort();
        self.cell
            .until(LIMIT, "east to be lost", async || {
                let clusters = self.cell.get("/api/v1/clusters").await.ok()?;
                let east = clusters["items"].as_array()?.iter().find(|one| one["name"] == "east")?;
                (east["state"] == "lost").then_some(())
            })
            .await
    }
}

/// `first` and `other` make files, `second` one of what `first` made; then somebody is waited for, and `third` reads what
/// `second` made. What each says is its own cluster's name for the store.
fn workflow() -> Value {
    let container = |script: &str| json!({"image": "busybox", "command": ["sh", "-ec"], "args": [script]});
    let out = json!({"artifacts": [{"name": "out", "path": "/tmp/out"}],
        "parameters": [{"name": "told", "valueFrom": {"path": "/tmp/told"}}]});
    let safe = json!({"annotations": {"argosy.dev/idempotent": "true"}});
    let takes = |step: &str| json!({"artifacts": [{"name": "in", "from": format!("{{{{steps.{step}.outputs.artifacts.out}}}}")}]});
    let input = json!({"artifacts": [{"name": "in", "path": "/tmp/in"}]});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "lost-"},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [
                [{"name": "first", "template": "make"}, {"name": "other", "template": "make"}],
                [{"name": "second", "template": "middle", "arguments": takes("first")}],
                [{"name": "gate", "template": "wait"}],
                [{"name": "third", "template": "last", "arguments": takes("second")}],
            ]},
            {"name": "make", "metadata": safe, "outputs": out,
             "container": container("echo made > /tmp/out; echo $ARGOSY_FENCE > /tmp/told")},
            {"name": "middle", "metadata": safe, "inputs": input, "outputs": out,
             "container": container("cat /tmp/in > /tmp/out; echo passed on >> /tmp/out; echo $ARGOSY_FENCE > /tmp/told")},
            {"name": "wait", "suspend": {}},
            {"name": "last", "inputs": input, "container": container("cat /tmp/in > /tmp/read"),
             "outputs": {"parameters": [{"name": "read", "valueFrom": {"path": "/tmp/read"}}]}},
        ]},
    })
}

async fn only_what_is_needed_is_made_again(kind: Stores) -> anyhow::Result<()> {
    let mut world = World::start(kind).await?;
    let name = world.cell.submit(&workflow()).await?;
    world
        .cell
        .until(LIMIT, "the gate", async || {
            let shown = world.workflow(&name).await.ok()?;
            (node(&shown, "gate")["phase"] == "Running").then_some(())
        })
        .await?;
    let before = world.workflow(&name).await?;
    world.lose_east().await?;
    world.cell.argosy(&["resume", &name])?;
    let done = world.cell.finished(&name, LIMIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    assert_eq!(node(&done, "third")["outputs"]["parameters"][0]["value"], "made\npassed on");
    assert_eq!(node(&done, "third")["cluster"], "west");
    for step in ["first", "second"] {
        let (then, now) = (node(&before, step), node(&done, step));
        let again = now["reproductions"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert_eq!(again.len(), 1, "{step}: {again:?}");
        assert_eq!((&again[0]["outcome"], &again[0]["lost"]), (&json!("made"), &json!("east")), "{step}");
        assert_eq!((&then["cluster"], &now["cluster"]), (&json!("east"), &json!("west")), "{step}");
        // It has told something else: what counts is what it told first.
        assert_eq!(then["outputs"]["parameters"], now["outputs"]["parameters"], "{step}");
        assert_eq!(again[0]["outputsDiffer"], true, "{step}");
        assert_eq!((&then["phase"], &then["finishedAt"]), (&now["phase"], &now["finishedAt"]), "{step}");
    }
    if kind == Stores::One {
        let shown = &node(&done, "second")["outputs"]["artifacts"][0]["s3"];
        let endpoint = shown["endpoint"].as_str().unwrap_or_default();
        assert!(endpoint.starts_with(SPARE), "{shown}");
        assert!(shown["key"].as_str().is_some_and(|key| key.starts_with("east/argosy/")), "{shown}");
        let file = world.cell.directory.path().join("out");
        world.cell.argosy(&["cp", &name, &file.display().to_string(), "--template-name", "middle"])?;
    }
    assert!(node(&done, "other")["reproductions"].is_null(), "{}", node(&done, "other"));
    world.cell.counted(1, "argosy_reproductions_total{reason=\"artifact\"}", 2.0).await?;
    assert!((world.cell.count(1, "argosy_reproductions_total").await? - 2.0).abs() < f64::EPSILON);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_cluster_had_is_made_again_where_its_store_is_known_to_be_its_own() -> anyhow::Result<()>
{
    only_what_is_needed_is_made_again(Stores::Each).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_cluster_had_is_made_again_when_a_reader_does_not_find_it() -> anyhow::Result<()> {
    only_what_is_needed_is_made_again(Stores::EachUntold).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_in_a_lost_cluster_had_is_made_again_in_another_store() -> anyhow::Result<()> {
    only_what_is_needed_is_made_again(Stores::One).await
}
