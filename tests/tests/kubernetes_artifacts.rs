//! Artifacts of Pods in two real Kubernetes clusters, by way of a real S3-compatible store in the hub's network. Runs where
//! ARGOSY_REAL_KUBERNETES=1 is set and clusters can be started; otherwise says why not.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

#[path = "kubernetes/drivers.rs"]
mod drivers;
#[path = "kubernetes/left.rs"]
mod left;
#[path = "kubernetes/logs.rs"]
mod logs;
#[path = "kubernetes/repositories.rs"]
mod repositories;

use argosy_artifacts::{DirectorySecrets, Limits, Stores};
use argosy_testcluster::{Cluster, Federation, unavailable};
use argosy_tests::cell::{Cell, Options, TOKEN};
use argosy_tests::manifests::node;
use argosy_tests::pods::{AgentOptions, start_agent};
use futures::TryStreamExt;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(180);

#[test]
fn artifacts_pass_between_pods_of_two_real_clusters() {
    if std::env::var("ARGOSY_REAL_KUBERNETES").as_deref() != Ok("1") {
        return println!("SKIPPED: ARGOSY_REAL_KUBERNETES=1 is not set");
    }
    if let Some(reason) = unavailable() {
        return println!("SKIPPED: {reason}");
    }
    let federation = Federation::start().unwrap();
    let clusters = federation.start_clusters(&["east", "west"]).unwrap();
    let done = federation.block_on(|| all_cases(&federation, &clusters)).unwrap();
    done.unwrap();
}

fn sh(script: &str) -> Value {
    json!({"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-ec"], "args": [script]})
}

fn workflow(name: &str, templates: Value) -> Value {
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": "default"},
        "spec": {"entrypoint": "main", "archiveLogs": true, "templates": templates}})
}

async fn all_cases(federation: &Federation, clusters: &[Cluster]) -> anyhow::Result<()> {
    let address = SocketAddr::from((federation.hub_address(), 9000));
    let objects = tempfile::tempdir()?;
    let options = argosy_objects::Options {
        bucket: "my-bucket".to_owned(),
        ..argosy_objects::Options::new(address, objects.path(), "key", "secret")
    };
    let server = argosy_objects::Server::start(options).await?;
    let _serving = tokio::spawn(server.run());
    let secret = |key: &str| json!({"name": "s3-cred", "key": key});
    let repository = json!({"s3": {
        "endpoint": address.to_string(), "insecure": true, "bucket": "my-bucket", "region": "us-east-1",
        "keyFormat": "{{workflow.name}}/{{pod.name}}",
        "accessKeySecret": secret("accesskey"), "secretKeySecret": secret("secretkey"),
    }});
    let options = Options {
        address: federation.hub_address(),
        artifact_repository: Some(repository.clone()),
        ..Options::default()
    };
    let cell = Cell::start(&options).await?;
    let agent_options = AgentOptions {
        arguments: vec![
            "--result-object-after-ms=1000".to_owned(),
            format!("--artifact-drivers={}", drivers::list()),
        ],
        ..AgentOptions::default()
    };
    let mut agents = Vec::new();
    for cluster in clusters {
        let made = ["create", "secret", "generic", "s3-cred", "-n", "default"];
        let keys = ["--from-literal=accesskey=key", "--from-literal=secretkey=secret"];
        cluster.kubectl(&[made.as_slice(), keys.as_slice()].concat())?;
        cluster.let_agent_read_secrets()?;
        agents.push(start_agent(&cell, cluster, &agent_options).await?);
    }
    cell.wait_for_clusters(2).await?;
    passed_on(&cell, clusters).await?;
    failures(&cell).await?;
    repositories::are_cloned_with_logins_that_stay_in_secrets(federation, &cell, &clusters[0]).await?;
    listed(&cell).await?;
    a_manifest_is_an_artifact(&cell, clusters).await?;
    drivers::keep_artifacts(&cell, clusters, &agents[0]).await?;
    logs::are_the_same_live_and_archived(&cell, &clusters[0]).await?;
    // Where Argo's users look.
    cell.write_secret("s3-cred", "accesskey", "key")?;
    cell.write_secret("s3-cred", "secretkey", "secret")?;
    let stores =
        Stores::new(Arc::new(DirectorySecrets(cell.directory.path().join("secrets"))), Limits::default());
    let location: Map<String, Value> = repository.as_object().cloned().unwrap();
    let store = stores.open("default", &location).await?;
    let keys: Vec<String> = store.list("pass", 100).await?.into_iter().map(|found| found.key).collect();
    assert!(
        keys.iter().any(|key| key.ends_with("/x.tgz")) && keys.iter().any(|key| key.ends_with("/main.log")),
        "{keys:?}"
    );
    let parts: Vec<bytes::Bytes> = store.read("pass/own.txt", 0..100).await?.try_collect().await?;
    assert_eq!(parts.concat(), b"own\n");
    left::results_are_taken_when_the_agent_is_back(
        &cell,
        &clusters[0],
        &store,
        &mut agents[0],
        &agent_options,
    )
    .await?;
    for agent in &mut agents {
        agent.kill()?;
    }
    Ok(())
}

async fn passed_on(cell: &Cell, clusters: &[Cluster]) -> anyhow::Result<()> {
    let on = |cluster: &str| json!({"cluster.argosy.dev/name": cluster});
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "make", "template": "make"}],
            [{"name": "read", "template": "read", "arguments": {"artifacts": [
                {"name": "f", "from": "{{steps.make.outputs.artifacts.x}}"},
                {"name": "g", "from": "{{steps.make.outputs.artifacts.own}}"},
                {"name": "r", "raw": {"data": "echo ran"}},
            ]}}],
        ]},
        {"name": "make", "nodeSelector": on("east"),
         "container": sh("mkdir -p /tmp/x/d; echo 1 > /tmp/x/a; echo 2 > /tmp/x/d/b; echo own > /tmp/own; echo told; env | grep -ci secret > /tmp/n || true"),
         "outputs": {
            "artifacts": [
                {"name": "x", "path": "/tmp/x"},
                {"name": "own", "path": "/tmp/own", "archive": {"none": {}}, "s3": {"key": "{{workflow.name}}/own.txt"}},
            ],
            "parameters": [{"name": "n", "valueFrom": {"path": "/tmp/n"}}],
         }},
        {"name": "read", "nodeSelector": on("west"),
         "volumes": [{"name": "work", "emptyDir": {}}],
         "inputs": {"artifacts": [
            {"name": "f", "path": "/in/f"}, {"name": "g", "path": "/work/deep/g"}, {"name": "r", "path": "/in/r", "mode": 0o755},
            {"name": "o", "path": "/in/o", "optional": true, "s3": {"key": "never/there"}},
         ]},
         "container": {
            "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-ec"],
            "volumeMounts": [{"name": "work", "mountPath": "/work"}],
            "args": ["cat /in/f/a /in/f/d/b /work/deep/g > /tmp/out; stat -c %a /in/r >> /tmp/out; test -e /in/o; sh /in/r >> /tmp/out"],
         },
         "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]}},
    ]);
    let name = cell.submit(&workflow("pass", templates)).await?;
    let done = cell.finished(&name, WAIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    assert_eq!(node(&done, "read")["outputs"]["parameters"][0]["value"], "1\n2\nown\n755\nran");
    let parameters = node(&done, "make")["outputs"]["parameters"].clone();
    assert_eq!(parameters[0]["value"], "0", "no variable speaks of a Secret");
    // The Pods know no Secret, and their log is there when they are gone.
    for cluster in clusters {
        let pods = cluster.kubectl(&["-n", "default", "get", "pods", "-o", "json"])?;
        assert!(!pods.contains("secretName") && !pods.contains("secretKeyRef"), "a Pod refers to a Secret");
        cluster.kubectl(&["-n", "default", "delete", "pods", "--all", "--wait=true"])?;
    }
    let url = format!("{}/api/v1/workflows/default/{name}/log?logOptions.container=main", cell.api(1));
    let log = cell.http.get(url).bearer_auth(TOKEN).send().await?.text().await?;
    assert!(log.contains("\"content\":\"told\""), "{log}");
    Ok(())
}

/// A `data` template lists what the steps before have stored, and a step runs for each path.
async fn listed(cell: &Cell) -> anyhow::Result<()> {
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "list", "template": "list"}],
            [{"name": "one", "template": "one", "withParam": "{{steps.list.outputs.result}}",
              "arguments": {"parameters": [{"name": "path", "value": "{{item}}"}]}}],
        ]},
        {"name": "list", "data": {
            "source": {"artifactPaths": {"name": "listed", "s3": {"key": "pass"}}},
            "transformation": [{"expression": "filter(data, {# endsWith '.txt'})"}]}},
        {"name": "one", "inputs": {"parameters": [{"name": "path"}]}, "container": sh("echo {{inputs.parameters.path}}")},
    ]);
    let name = cell.submit(&workflow("listed", templates)).await?;
    let done = cell.finished(&name, WAIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    assert_eq!(node(&done, "list")["outputs"]["result"], r#"["pass/own.txt"]"#);
    assert_eq!(node(&done, "one(0:pass/own.txt)")["phase"], "Succeeded");
    Ok(())
}

/// One step makes a manifest, a resource template takes it from the store.
async fn a_manifest_is_an_artifact(cell: &Cell, clusters: &[Cluster]) -> anyhow::Result<()> {
    for cluster in clusters {
        for arguments in [
            "create role maker --verb=create,get --resource=configmaps",
            "create rolebinding maker --role=maker --serviceaccount=default:default",
        ] {
            let words: Vec<&str> = ["-n", "default"].into_iter().chain(arguments.split(' ')).collect();
            cluster.kubectl(&words)?;
        }
    }
    let script = "printf 'apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: written}\\ndata: {a: b}\\n' > /tmp/m.yaml";
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "write", "template": "write"}],
            [{"name": "make", "template": "make", "arguments": {"artifacts": [
                {"name": "manifest", "from": "{{steps.write.outputs.artifacts.m}}"}]}}],
        ]},
        {"name": "write", "container": sh(script), "outputs": {"artifacts": [{"name": "m", "path": "/tmp/m.yaml"}]}},
        {"name": "make", "inputs": {"artifacts": [{"name": "manifest", "path": "/tmp/manifest.yaml"}]},
            "resource": {"action": "create", "manifestFrom": {"artifact": {"name": "manifest"}}},
            "outputs": {"parameters": [{"name": "a", "valueFrom": {"jsonPath": "{.data.a}"}}]}},
    ]);
    let name = cell.submit(&workflow("manifest", templates)).await?;
    let done = cell.finished(&name, WAIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    assert_eq!(node(&done, "make")["outputs"]["parameters"][0]["value"], "b");
    Ok(())
}

async fn failures(cell: &Cell) -> anyhow::Result<()> {
    let inputs = json!([{"name": "f", "path": "/tmp/f", "s3": {"key": "never/there"}}]);
    let outputs = json!([{"name": "x", "path": "/tmp/none"}]);
    for (name, inputs, outputs, message) in [
        (
            "no-input",
            inputs,
            json!([]),
            "init: Error (exit code 64): artifact f failed to load: The specified key does not exist.",
        ),
        (
            "no-output",
            json!([]),
            outputs,
            "wait: Error (exit code 64): open /var/run/argo/outputs/artifacts/tmp/none.tgz: no such file or directory; ",
        ),
    ] {
        let template = json!([{"name": "main", "inputs": {"artifacts": inputs}, "outputs": {"artifacts": outputs}, "container": sh("true")}]);
        let name = cell.submit(&workflow(name, template)).await?;
        let done = cell.finished(&name, WAIT).await?;
        assert_eq!(
            (&done["status"]["phase"], &node(&done, &name)["message"]),
            (&json!("Error"), &json!(message))
        );
    }
    Ok(())
}
