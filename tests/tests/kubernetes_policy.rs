//! A cluster whose owner has a policy: what it refuses never becomes a Pod. Runs where ARGOSY_REAL_KUBERNETES=1 is set and
//! clusters can be started; otherwise says why not.

use argosy_testcluster::{Cluster, Federation};
use argosy_tests::cell::{Cell, Options};
use argosy_tests::pods::{AgentOptions, no_clusters, say, start_agent};
use serde_json::{Value, json};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(120);
const POLICY: &str = "images: [busybox]\nhostAccess: {}\nlargestPod: {cpu: 1}\nresourceTemplates: false\nnamespaceMapping: {default: batch}\n";

#[test]
fn what_the_owner_refuses_becomes_no_pod() {
    if let Some(reason) = no_clusters() {
        return println!("SKIPPED: {reason}");
    }
    let federation = Federation::start().unwrap();
    let cluster = federation.start_cluster("east", 1).unwrap();
    say("a cluster");
    federation.block_on(|| all_cases(&federation, &cluster)).unwrap().unwrap();
}

fn workflow(name: &str, template: &Value) -> Value {
    let mut main = template.clone();
    main["name"] = "main".into();
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [main]}})
}

fn container(more: &Value) -> Value {
    let plain = json!({"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["true"]});
    let mut template = json!({"container": plain});
    for (key, value) in more.as_object().into_iter().flatten() {
        template[key] = value.clone();
    }
    template
}

async fn all_cases(federation: &Federation, cluster: &Cluster) -> anyhow::Result<()> {
    let options =
        Options { members: 1, address: federation.hub_address(), lease_ms: 20_000, ..Options::default() };
    let cell = Cell::start(&options).await?;
    let policy = cluster.folder().join("policy.yaml");
    std::fs::write(&policy, POLICY)?;
    let arguments = vec!["--policy".to_owned(), policy.display().to_string()];
    let options = AgentOptions { arguments, ..AgentOptions::default() };
    let mut agent = start_agent(&cell, cluster, &options).await?;
    cell.wait_for_clusters(1).await?;
    // What the control plane calls `default` is `batch` here, with all that a step finds in its namespace.
    cluster.kubectl(&["create", "namespace", "batch"])?;
    cluster.kubectl(&["create", "configmap", "words", "-n", "batch", "--from-literal=word=mapped"])?;
    let word = json!({"name": "WORD", "valueFrom": {"configMapKeyRef": {"name": "words", "key": "word"}}});
    let read = json!({"image": "busybox", "imagePullPolicy": "IfNotPresent", "env": [word],
        "command": ["sh", "-c", "echo is $WORD"]});
    cell.submit(&workflow("plain", &json!({"container": read}))).await?;
    let plain = cell.finished("plain", WAIT).await?;
    assert_eq!(plain["status"]["phase"], "Succeeded", "{plain}");
    assert_eq!(plain["metadata"]["namespace"], "default");
    assert!(cluster.kubectl(&["get", "pods", "-n", "batch", "-o", "name"])?.contains("plain"));
    let (well, log) = cell.try_argosy(&["logs", "plain"])?;
    assert!(well && log.contains("is mapped"), "{log}");
    say("what is allowed runs, in the namespace that the owner has for it");
    let mut intruder = workflow("intruder", &container(&json!({})));
    intruder["metadata"]["namespace"] = "batch".into();
    cell.post("/api/v1/workflows/batch", &json!({"workflow": intruder})).await?;
    let path = "/api/v1/workflows/batch/intruder";
    let refused = cell
        .until(WAIT, "the intruder to be refused", async || {
            let now = cell.get(path).await.ok()?;
            (now["status"]["phase"] == "Error").then_some(now)
        })
        .await?;
    let message = refused["status"]["nodes"]["intruder"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("rule namespaceMapping:"), "{message}");
    let privileged = "containers: [{name: main, securityContext: {privileged: true}}]";
    let large = json!({"image": "busybox", "command": ["true"], "resources": {"limits": {"cpu": "2"}}});
    for (name, template, rule) in [
        ("network", container(&json!({"podSpecPatch": "hostNetwork: true"})), "hostAccess.network"),
        ("privileged", container(&json!({"podSpecPatch": privileged})), "hostAccess.privileged"),
        ("image", json!({"container": {"image": "nginx", "command": ["true"]}}), "images"),
        ("large", json!({"container": large}), "largestPod"),
        ("resource", json!({"resource": {"action": "get", "manifest": "kind: Pod"}}), "resourceTemplates"),
    ] {
        cell.submit(&workflow(name, &template)).await?;
        let refused = cell.finished(name, WAIT).await?;
        assert_eq!(refused["status"]["phase"], "Error", "{name}: {refused}");
        let message = refused["status"]["nodes"][name]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("ARG1191: ") && message.contains(&format!("rule {rule}:")), "{message}");
    }
    let pods = cluster.kubectl(&["get", "pods", "-A", "-l", "argosy.dev/cell", "-o", "name"])?;
    assert_eq!(pods.lines().filter(|pod| !pod.contains("plain")).count(), 0, "{pods}");
    say("what is refused says so by rule, and no Pod was made");
    agent.kill()?;
    agent.wait()?;
    Ok(())
}
