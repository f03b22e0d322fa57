//! Artifacts end to end: members, process clusters and a real S3-compatible store on loopback.

use anyhow::Context;
use argosy_artifacts::{DirectorySecrets, Limits, Store, Stores};
use argosy_objects::Server;
use argosy_tests::cell::{Cell, Options, TOKEN};
use argosy_tests::manifests::{node, sh, workflow};
use futures::TryStreamExt;
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const BUCKET: &str = "argosy";
const LIMIT: Duration = Duration::from_secs(90);

/// A cell of one member, a store beside it, and clusters.
struct World {
    cell: Cell,
    store: Store,
    _serving: tokio::task::JoinSet<()>,
}

fn repository(address: SocketAddr, more: &Value) -> Value {
    let secret = |key: &str| json!({"name": "store", "key": key});
    let mut repository = json!({"s3": {
        "endpoint": address.to_string(), "insecure": true, "bucket": BUCKET, "region": "us-east-1",
        "accessKeySecret": secret("access"), "secretKeySecret": secret("secret"),
    }});
    for (name, value) in more.as_object().into_iter().flatten() {
        repository[name.as_str()] = value.clone();
    }
    repository
}

impl World {
    async fn start(clusters: &[&str], more: &Value, sweep_after_ms: i64) -> anyhow::Result<Self> {
        let objects = tempfile::tempdir()?.keep();
        let options =
            argosy_objects::Options::new("127.0.0.1:0".parse()?, objects, "access-key", "secret-key");
        let server = Server::start(options).await?;
        let repository = repository(server.address(), more);
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(server.run());
        let options = Options {
            members: 1,
            artifact_repository: Some(repository.clone()),
            artifact_sweep_after_ms: Some(sweep_after_ms),
            ..Options::default()
        };
        let mut cell = Cell::start(&options).await?;
        cell.write_secret("store", "access", "access-key")?;
        cell.write_secret("store", "secret", "secret-key")?;
        for cluster in clusters {
            cell.start_agent(cluster).await?;
        }
        cell.wait_for_clusters(clusters.len()).await?;
        let secrets = DirectorySecrets(cell.directory.path().join("secrets"));
        let stores = Stores::new(Arc::new(secrets), Limits::default());
        let location: Map<String, Value> = repository.as_object().cloned().unwrap_or_default();
        let store = stores.open("default", &location).await?;
        Ok(Self { cell, store, _serving: serving })
    }

    async fn run(&self, workflow: &Value) -> anyhow::Result<Value> {
        let name = self.cell.submit(workflow).await?;
        self.cell.finished(&name, LIMIT).await
    }

    async fn read(&self, key: &str) -> anyhow::Result<Vec<u8>> {
        let parts: Vec<bytes::Bytes> = self.store.read(key, 0..u64::MAX >> 1).await?.try_collect().await?;
        Ok(parts.concat())
    }

    async fn download(&self, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let url = format!("{}{path}", self.cell.api(1));
        let answer = self.cell.http.get(url).bearer_auth(TOKEN).send().await?;
        Ok((answer.status().as_u16(), answer.bytes().await?.to_vec()))
    }
}

fn on(cluster: &str) -> Value {
    json!({"cluster.argosy.dev/name": cluster})
}

/// Argo's `data` template: what a bucket has below a key, sifted, and a step for each path.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_listed_and_its_paths_are_looped_over() -> anyhow::Result<()> {
    let world = World::start(&["east"], &json!({}), 600_000).await?;
    for key in ["in/a.txt", "in/b.bin", "in/deep/c.txt", "other/d.txt"] {
        world.store.write(key, "x".into()).await?;
    }
    let list = |key: &str, expressions: &[&str]| {
        let steps: Vec<Value> = expressions.iter().map(|one| json!({"expression": one})).collect();
        json!({"source": {"artifactPaths": {"name": "listed", "s3": {"key": key}}}, "transformation": steps})
    };
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "list", "template": "list"}],
            [{"name": "one", "template": "one", "withParam": "{{steps.list.outputs.result}}",
              "arguments": {"parameters": [{"name": "path", "value": "{{item}}"}]}}],
            [{"name": "none", "template": "none", "continueOn": {"failed": true}},
             {"name": "bad", "template": "bad", "continueOn": {"failed": true}}],
        ]},
        {"name": "list", "data": list("in", &["filter(data, {# endsWith '.txt'})", "map(data, {# + '!'})"])},
        {"name": "none", "data": list("never", &["data"])},
        {"name": "bad", "data": list("in", &["data", "data.x"])},
        {"name": "one", "inputs": {"parameters": [{"name": "path"}]}, "container": sh("echo {{inputs.parameters.path}}")},
    ]);
    let done = world.run(&workflow("listed", templates)).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let listed = node(&done, "list");
    assert_eq!((&listed["type"], &listed["outputs"]["exitCode"]), (&json!("Pod"), &json!("0")));
    assert_eq!(listed["outputs"]["result"], r#"["in/a.txt!","in/deep/c.txt!"]"#);
    for path in ["one(0:in/a.txt!)", "one(1:in/deep/c.txt!)"] {
        assert_eq!(node(&done, path)["phase"], "Succeeded", "{path}");
    }
    let told = |name: &str| node(&done, name)["message"].as_str().unwrap_or_default().to_owned();
    let start = "main: Error (exit code 64): unable to process data template: unable to process data";
    assert_eq!(
        told("none"),
        format!("{start} source: unable to source artifact paths: no key found of name never")
    );
    let bad = format!("{start} transformation: error processing data step 1: ");
    assert!(told("bad").starts_with(&bad), "{}", told("bad"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_of_one_cluster_is_consumed_in_another() -> anyhow::Result<()> {
    let world = World::start(&["east", "west"], &json!({"archiveLogs": true}), 600_000).await?;
    let pass = |artifact: &str| json!({"name": "f", "from": format!("{{{{steps.make.outputs.artifacts.{artifact}}}}}")});
    let consumer = |name: &str, artifact: Value| json!({"name": name, "template": "use", "arguments": {"artifacts": [artifact]}});
    let mut part = pass("tree");
    part["subPath"] = json!("d/b");
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "make", "template": "make"}],
            [consumer("tar", pass("tar")), consumer("zip", pass("zip")), consumer("tree", pass("tree")),
             consumer("part", part), consumer("raw", json!({"name": "f", "raw": {"data": "of {{workflow.name}}"}}))],
        ]},
        {"name": "make", "nodeSelector": on("east"),
         "container": sh("mkdir -p /tmp/x/d; echo 1 > /tmp/x/a; echo 2 > /tmp/x/d/b; echo plain > /tmp/own.txt; echo told"),
         "outputs": {"artifacts": [
            {"name": "tar", "path": "/tmp/x"}, {"name": "zip", "path": "/tmp/x", "archive": {"zip": {}}},
            {"name": "tree", "path": "/tmp/x", "archive": {"none": {}}},
            {"name": "own", "path": "/tmp/own.txt", "archive": {"none": {}}, "s3": {"key": "{{workflow.name}}/mine.txt"}},
            {"name": "not-there", "path": "/tmp/none", "optional": true},
         ]}},
        {"name": "use", "nodeSelector": on("west"), "inputs": {"artifacts": [{"name": "f", "path": "/tmp/in/f", "mode": 0o640}]},
         "container": sh("cd /tmp/in; find f -type f | sort | while read n; do echo $n $(cat $n); done > /tmp/out; stat -c %a f >> /tmp/out"),
         "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]}},
    ]);
    let done = world.run(&workflow("pass", templates)).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    assert_eq!(node(&done, "make")["cluster"], "east");
    for (step, expected) in [
        ("tar", "f/a 1\nf/d/b 2\n640"),
        ("zip", "f/a 1\nf/d/b 2\n640"),
        ("tree", "f/a 1\nf/d/b 2\n640"),
        ("part", "f 2\n640"),
        ("raw", "f of pass\n640"),
    ] {
        let node = node(&done, step);
        assert_eq!(node["outputs"]["parameters"][0]["value"], expected, "{step}");
        assert_eq!(node["cluster"], "west");
    }
    // Where Argo's users look for them.
    let made = node(&done, "make");
    let names: Vec<&str> = made["outputs"]["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(names, ["tar", "zip", "tree", "own", "main-logs"]);
    let pod =
        made["outputs"]["artifacts"][0]["s3"]["key"].as_str().unwrap().strip_suffix("/tar.tgz").unwrap();
    assert_eq!(world.read("pass/mine.txt").await?, b"plain\n");
    assert_eq!(world.read(&format!("{pod}/x/d/b")).await?, b"2\n");
    assert_eq!(world.read(&format!("{pod}/main.log")).await?, b"told\n");
    // Downloads, by Argo's routes.
    let id = made["id"].as_str().unwrap();
    assert_eq!(
        world.download(&format!("/artifacts/default/pass/{id}/own")).await?,
        (200, b"plain\n".to_vec())
    );
    let uid = done["metadata"]["uid"].as_str().unwrap();
    assert_eq!(
        world.download(&format!("/artifacts-by-uid/{uid}/{id}/own")).await?,
        (200, b"plain\n".to_vec())
    );
    let files = format!("/artifact-files/default/workflows/pass/{id}/outputs/tree");
    assert_eq!(world.download(&format!("{files}/d/b")).await?, (200, b"2\n".to_vec()));
    let (status, list) = world.download(&format!("{files}/")).await?;
    assert_eq!(status, 200);
    assert!(String::from_utf8(list)?.contains("<a href=\"./d/\">"));
    let raw = node(&done, "raw")["id"].as_str().unwrap();
    assert_eq!(
        world.download(&format!("/input-artifacts/default/pass/{raw}/f")).await?,
        (200, b"of pass".to_vec())
    );
    assert_eq!(world.download(&format!("/artifacts/default/pass/{id}/no")).await?.0, 404);
    assert_eq!(world.download(&format!("/artifacts/default/none/{id}/own")).await?.0, 500);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_there_after_everything_of_its_step_is_gone() -> anyhow::Result<()> {
    let mut world = World::start(&["east"], &json!({"archiveLogs": true}), 600_000).await?;
    // What is captured passes through the executor, and so comes after what is not.
    let script = "for i in 1 2 3; do echo error $i >&2; done; for i in 1 2 3; do echo line $i; done";
    let done = world.run(&workflow("logs", json!([{"name": "main", "container": sh(script)}]))).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let path = "/api/v1/workflows/default/logs/log?logOptions.container=main";
    let (_, live) = world.download(path).await?;
    world.cell.lose_cluster("east");
    world
        .cell
        .until(LIMIT, "the cluster to be missed", async || {
            let clusters = world.cell.get("/api/v1/clusters").await.ok()?;
            (clusters["items"][0]["state"] != "connected").then_some(())
        })
        .await?;
    let attempts = world.cell.directory.path().join("cluster-east/attempts");
    std::fs::remove_dir_all(attempts)?;
    world.cell.start_agent("east").await?;
    world.cell.wait_for_clusters(1).await?;
    let (status, archived) = world.download(path).await?;
    assert_eq!((status, String::from_utf8(archived)?), (200, String::from_utf8(live)?));
    let (_, tail) = world.download(&format!("{path}&logOptions.tailLines=2&grep=3")).await?;
    let tail = String::from_utf8(tail)?;
    assert!(tail.contains("line 3") && !tail.contains("line 2") && !tail.contains("error"), "{tail}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_or_saved_is_told_as_argo_tells_it() -> anyhow::Result<()> {
    let world = World::start(&["east"], &json!({}), 600_000).await?;
    let leaf = |name: &str, inputs: Value, outputs: Value| {
        workflow(
            name,
            json!([{"name": "main", "inputs": {"artifacts": inputs}, "container": sh("true"),
                               "outputs": {"artifacts": outputs}}]),
        )
    };
    let refused = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    for (workflow, phase, message) in [
        (
            leaf("missing-output", json!([]), json!([{"name": "x", "path": "/tmp/none"}])),
            "Error",
            "wait: Error (exit code 64): open /var/run/argo/outputs/artifacts/tmp/none.tgz: no such file or directory; "
                .to_owned(),
        ),
        (
            leaf("missing-input", json!([{"name": "f", "path": "/tmp/f", "s3": {"key": "never/there"}}]), json!([])),
            "Error",
            "init: Error (exit code 64): artifact f failed to load: The specified key does not exist.".to_owned(),
        ),
        (
            leaf("optional", json!([{"name": "f", "path": "/tmp/f", "optional": true, "s3": {"key": "never/there"}}]), json!([])),
            "Succeeded",
            String::new(),
        ),
        (
            leaf("http", json!([{"name": "f", "path": "/tmp/f", "http": {"url": format!("http://{refused}/x")}}]), json!([])),
            "Error",
            format!("init: Error (exit code 64): artifact f failed to load: Get \"http://{refused}/x\": dial tcp {refused}: connect: connection refused"),
        ),
    ] {
        let done = world.run(&workflow).await?;
        let name = workflow["metadata"]["name"].as_str().unwrap();
        assert_eq!(done["status"]["phase"], phase, "{name}: {}", done["status"]);
        assert_eq!(node(&done, name)["message"].as_str().unwrap_or_default(), message, "{name}");
    }
    Ok(())
}

/// The agent clones: the step gets the files, and nothing of the login.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_an_input() -> anyhow::Result<()> {
    let world = World::start(&["east"], &json!({}), 600_000).await?;
    let repositories = tempfile::tempdir()?;
    let source = repositories.path().join("private-source");
    std::fs::create_dir(&source)?;
    argosy_git::testing::git(&source, &["init", "-q"]);
    for (text, tag) in [("first", "v1"), ("second", "v2")] {
        std::fs::write(source.join("file"), text)?;
        argosy_git::testing::git(&source, &["add", "-A"]);
        argosy_git::testing::git(&source, &["commit", "-q", "-m", text]);
        argosy_git::testing::git(&source, &["tag", tag]);
    }
    let server = argosy_git::testing::serve(repositories.path().to_owned()).await;
    world.cell.write_secret("repository", "user", "user")?;
    world.cell.write_secret("repository", "password", "secret")?;
    let secret = |key: &str| json!({"name": "repository", "key": key});
    let leaf = |name: &str, git: Value| {
        let script = "cat /tmp/in/file /tmp/in/.git/HEAD > /tmp/out; env > /tmp/environment; \
                      if grep -rq secret /tmp/in/.git/config /tmp/environment; then exit 3; fi";
        workflow(
            name,
            json!([{"name": "main", "container": sh(script),
                    "inputs": {"artifacts": [{"name": "f", "path": "/tmp/in", "git": git}]},
                    "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]}}]),
        )
    };
    let git = json!({"repo": format!("{server}/private-source"), "revision": "v1", "depth": 1,
                     "usernameSecret": secret("user"), "passwordSecret": secret("password")});
    let done = world.run(&leaf("cloned", git.clone())).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let out = node(&done, "cloned")["outputs"]["parameters"][0]["value"].as_str().unwrap_or_default();
    let commit = argosy_git::testing::git(&source, &["rev-parse", "v1^{commit}"]);
    assert_eq!(out, format!("first{commit}"));
    let mut missing = git.clone();
    missing["revision"] = json!("v3");
    let mut anonymous = git;
    anonymous
        .as_object_mut()
        .context("an object")?
        .retain(|field, _| field != "usernameSecret" && field != "passwordSecret");
    for (name, git, reason) in [
        ("missing", missing, "git revision v3 was not found in the repository"),
        (
            "anonymous",
            anonymous,
            "authentication required: the server does not let this user read the repository",
        ),
    ] {
        let done = world.run(&leaf(name, git)).await?;
        let wanted = format!("init: Error (exit code 64): artifact f failed to load: {reason}");
        assert_eq!(node(&done, name)["message"], wanted, "{}", done["status"]);
    }
    Ok(())
}

/// A cut-off attempt goes on, uploads late, and neither its result nor its bytes count; nothing of it stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_attempt_that_uploads_late_leaves_nothing() -> anyhow::Result<()> {
    let world = World::start(&["east", "west"], &json!({}), 15_000).await?;
    // Not below /tmp, of which every step has its own.
    let signs = tempfile::Builder::new().prefix("argosy-test-").tempdir_in("/var/tmp")?;
    let go = signs.path().join("go");
    let script = format!("until test -e {}; do sleep 0.1; done; pwd > /tmp/x", go.display());
    let templates = json!([{
        "name": "main", "retryStrategy": {"limit": 1}, "container": sh(&script),
        "outputs": {"artifacts": [{"name": "x", "path": "/tmp/x", "archive": {"none": {}}, "s3": {"key": "user/x"}}]},
    }]);
    let name = world.cell.submit(&workflow("late", templates)).await?;
    let path = format!("/api/v1/workflows/default/{name}");
    let running = async || {
        let found = world.cell.get(&path).await.ok()?;
        let node = found["status"]["nodes"]
            .as_object()?
            .values()
            .find(|node| node["phase"] == "Running" && node["type"] == "Pod")?
            .clone();
        node["cluster"].as_str().map(str::to_owned)
    };
    let first = world.cell.until(LIMIT, "the step to run", running).await?;
    world.cell.signal_agent(&first, Signal::SIGSTOP)?;
    let moved = async || running().await.filter(|cluster| *cluster != first);
    let second = world.cell.until(LIMIT, "the step to be taken over", moved).await?;
    std::fs::write(&go, "")?;
    let done = world.cell.finished(&name, LIMIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let committed = world.read("user/x").await?;
    assert!(String::from_utf8(committed.clone())?.contains(&format!("cluster-{second}/")));
    // Its agent comes back: the command has ended, and the executor asks to store what it made.
    world.cell.signal_agent(&first, Signal::SIGCONT)?;
    // The same with a request that was signed in time, as late as can be.
    let uid = done["metadata"]["uid"].as_str().context("a uid")?;
    let prefix = format!(".argosy/test/{uid}");
    world.store.write(&format!("{prefix}/1.1.0/user/x"), bytes::Bytes::from_static(b"late")).await?;
    world
        .cell
        .until(LIMIT, "the attempts' own objects to be deleted", async || {
            world.store.list(&prefix, 100).await.ok()?.is_empty().then_some(())
        })
        .await?;
    assert_eq!(world.read("user/x").await?, committed, "only what was committed is under the user's key");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn artifact_gc_deletes_what_its_strategy_says() -> anyhow::Result<()> {
    let world = World::start(&["east"], &json!({}), 600_000).await?;
    let make = |name: &str, strategy: &str| {
        let mut made = workflow(
            name,
            json!([{"name": "main", "container": sh("echo x > /tmp/x"), "outputs": {"artifacts": [
                {"name": "x", "path": "/tmp/x"},
                {"name": "kept", "path": "/tmp/x", "artifactGC": {"strategy": "Never"}},
            ]}}]),
        );
        made["spec"]["artifactGC"] = json!({"strategy": strategy});
        made
    };
    let there = async |key: &str| world.store.head(key).await.map(|found| found.is_some());
    world.run(&make("at-end", "OnWorkflowCompletion")).await?;
    let shown = world
        .cell
        .until(LIMIT, "artifact GC", async || {
            let found = world.cell.get("/api/v1/workflows/default/at-end").await.ok()?;
            let done =
                found["status"]["artifactGCStatus"]["strategiesProcessed"]["OnWorkflowCompletion"] == true;
            done.then_some(found)
        })
        .await?;
    assert_eq!(node(&shown, "at-end")["outputs"]["artifacts"][0]["deleted"], true);
    assert!(shown["metadata"]["finalizers"].is_null());
    assert!(!there("at-end/at-end/x.tgz").await? && there("at-end/at-end/kept.tgz").await?);
    let done = world.run(&make("at-deletion", "OnWorkflowDeletion")).await?;
    assert_eq!(done["metadata"]["finalizers"], json!(["workflows.argoproj.io/artifact-gc"]));
    assert!(there("at-deletion/at-deletion/x.tgz").await?);
    let path = "/api/v1/workflows/default/at-deletion";
    world.cell.request(reqwest::Method::DELETE, path, None, "").await?;
    world
        .cell
        .until(LIMIT, "artifact GC", async || {
            (!there("at-deletion/at-deletion/x.tgz").await.ok()?).then_some(())
        })
        .await?;
    assert!(there("at-deletion/at-deletion/kept.tgz").await?);
    Ok(())
}

/// Many parts, more than are under way at a time, of a file and of an archive that is made as it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_artifact_streams_in_parts() -> anyhow::Result<()> {
    let world = World::start(&["east", "west"], &json!({}), 600_000).await?;
    let pass = |name: &str, artifact: &str| json!({"name": name, "from": format!("{{{{steps.make.outputs.artifacts.{artifact}}}}}")});
    let sum = json!([{"name": "sum", "valueFrom": {"path": "/tmp/sum"}}]);
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "make", "template": "make"}],
            [{"name": "use", "template": "use", "arguments": {"artifacts": [pass("f", "x"), pass("g", "packed")]}}],
        ]},
        {"name": "make", "container": sh("head -c 60000000 /dev/urandom > /tmp/x; sha256sum < /tmp/x > /tmp/sum"),
         "outputs": {"parameters": sum, "artifacts": [
            {"name": "x", "path": "/tmp/x", "archive": {"none": {}}},
            {"name": "packed", "path": "/tmp/x", "archive": {"tar": {"compressionLevel": 0}}}]}},
        {"name": "use", "inputs": {"artifacts": [{"name": "f", "path": "/tmp/f"}, {"name": "g", "path": "/tmp/g"}]},
         "container": sh("cmp /tmp/f /tmp/g; sha256sum < /tmp/g > /tmp/sum"), "outputs": {"parameters": sum}},
    ]);
    let done = world.run(&workflow("large", templates)).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let sum = |step: &str| node(&done, step)["outputs"]["parameters"][0]["value"].clone();
    assert!(sum("make").is_string());
    assert_eq!(sum("make"), sum("use"));
    Ok(())
}

/// A global artifact is read by its global name; `recurseMode` gives the mode to all that is below, `mode` alone does not.
#[tokio::test(flavor = "multi_thread")]
async fn modes_reach_what_is_below_and_global_names_the_workflow() -> anyhow::Result<()> {
    let world = World::start(&["east"], &json!({}), 600_000).await?;
    let global = |name: &str| json!({"name": name, "from": "{{workflow.outputs.artifacts.shared}}"});
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "make", "template": "make"}],
            [{"name": "use", "template": "use", "arguments": {"artifacts": [global("all"), global("top")]}}],
        ]},
        {"name": "make", "container": sh("mkdir -p /tmp/x/d; echo 1 > /tmp/x/d/b; chmod 600 /tmp/x/d/b; chmod 755 /tmp/x /tmp/x/d"),
         "outputs": {"artifacts": [{"name": "x", "path": "/tmp/x", "archive": {"zip": {}}, "globalName": "shared"}]}},
        {"name": "use", "inputs": {"artifacts": [
            {"name": "all", "path": "/tmp/all", "mode": 0o711, "recurseMode": true},
            {"name": "top", "path": "/tmp/top", "mode": 0o711}]},
         "container": sh("cd /tmp; stat -c '%n %a' all all/d all/d/b top top/d top/d/b > /tmp/out"),
         "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]}},
    ]);
    let done = world.run(&workflow("modes", templates)).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let out = node(&done, "use")["outputs"]["parameters"][0]["value"].clone();
    assert_eq!(out, "all 711\nall/d 711\nall/d/b 711\ntop 711\ntop/d 755\ntop/d/b 600");
    assert_eq!(done["status"]["outputs"]["artifacts"][0]["name"], "shared", "{}", done["status"]["outputs"]);
    Ok(())
}
