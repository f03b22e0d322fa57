//! Two replicas of an agent with a Lease on a real cluster: the one that acts is killed, and stopped past its Lease and
//! resumed. Runs where ARGOSY_REAL_KUBERNETES=1 is set and clusters can be started; otherwise says why not.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use argosy_testcluster::{Cluster, Federation};
use argosy_tests::cell::{Cell, Options};
use argosy_tests::pods::{no_clusters, say};
use argosy_tests::replicas::{Replicas, Service};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(120);
/// Steps that run while the replicas change.
const STEPS: usize = 3;

#[test]
fn two_replicas_take_over_from_each_other() {
    if let Some(reason) = no_clusters() {
        return println!("SKIPPED: {reason}");
    }
    let federation = Federation::start().unwrap();
    let cluster = Arc::new(federation.start_cluster("east", 1).unwrap());
    say("a cluster");
    let _service = Service::start(Arc::clone(&cluster));
    federation.block_on(|| all_cases(&federation, &cluster)).unwrap().unwrap();
}

/// Steps that wait for a file in their Pod, and one after them all.
fn workflow(name: &str) -> Value {
    let image = json!({"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"]});
    let container = |script: &str| {
        let mut container = image.clone();
        container["args"] = json!([script]);
        container
    };
    // A result that the termination message does not hold: it has to come over the wire.
    let wait = "echo begun; while [ ! -e /tmp/go ]; do sleep 0.2; done; head -c 6000 /dev/zero | tr '\\0' x >/tmp/word";
    let items: Vec<usize> = (0..STEPS).collect();
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": "default"},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [
                [{"name": "wait", "template": "wait", "withItems": items}],
                [{"name": "after", "template": "after"}]]},
            {"name": "wait", "container": container(wait), "outputs": {"parameters": [{"name": "word", "valueFrom": {"path": "/tmp/word"}}]}},
            {"name": "after", "container": container("echo after")}]}})
}

/// The workflow's Pods by name, and whether they run.
fn pods(cluster: &Cluster, workflow: &str) -> Vec<(String, bool)> {
    let selector = format!("workflows.argoproj.io/workflow={workflow}");
    let listed = cluster.kubectl(&["-n", "default", "get", "pods", "-l", &selector, "-o", "json"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let read = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        (name.to_owned(), pod["status"]["phase"] == "Running")
    };
    listed["items"].as_array().unwrap().iter().map(read).collect()
}

async fn all_run(cell: &Cell, cluster: &Cluster, workflow: &str) -> anyhow::Result<Vec<String>> {
    let told = format!("{STEPS} Pods that have begun");
    cell.until(WAIT, &told, async || {
        let running: Vec<_> =
            pods(cluster, workflow).into_iter().filter(|pod| pod.1).map(|pod| pod.0).collect();
        // A container that runs is not a command that runs: it asks for its permit first.
        let begun = running.iter().all(|pod| {
            let log = cluster.kubectl(&["-n", "default", "logs", pod, "-c", "main"]);
            log.is_ok_and(|log| log.contains("begun"))
        });
        (running.len() == STEPS && begun).then_some(running)
    })
    .await
}

fn let_go(cluster: &Cluster, pod: &str) -> anyhow::Result<()> {
    cluster.kubectl(&["-n", "default", "exec", pod, "-c", "main", "--", "touch", "/tmp/go"]).map(drop)
}

/// Every node has its one result, and no step had a second Pod.
async fn ended_well(cell: &Cell, cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let ended = cell.finished(name, WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    let nodes = ended["status"]["nodes"].as_object().unwrap();
    let results: Vec<_> = nodes.values().filter(|node| node["type"] == "Pod").collect();
    assert_eq!(results.len(), STEPS + 1, "{}", ended["status"]);
    assert!(results.iter().all(|node| node["phase"] == "Succeeded"), "{}", ended["status"]);
    for node in results.iter().filter(|node| node["templateName"] == "wait") {
        assert_eq!(node["outputs"]["parameters"][0]["value"].as_str().map(str::len), Some(6_000), "{node}");
    }
    assert_eq!(pods(cluster, name).len(), STEPS + 1, "{:?}", pods(cluster, name));
    Ok(())
}

async fn all_cases(federation: &Federation, cluster: &Cluster) -> anyhow::Result<()> {
    let options =
        Options { members: 1, address: federation.hub_address(), lease_ms: 20_000, ..Options::default() };
    let cell = Cell::start(&options).await?;
    let mut replicas = Replicas::new(&cell, cluster)?;
    replicas.start(0).await?;
    replicas.until(0, true).await?;
    replicas.start(1).await?;
    replicas.until(1, false).await?;
    cell.wait_for_clusters(1).await?;
    say("one replica acts, one waits");

    cell.submit(&workflow("killed")).await?;
    let running = all_run(&cell, cluster, "killed").await?;
    replicas.signal(0, Signal::SIGKILL)?;
    replicas.ends(0).await?;
    // A result that comes while nobody acts: the executor asks until somebody does.
    let_go(cluster, &running[0])?;
    replicas.until(1, true).await?;
    for pod in &running[1..] {
        let_go(cluster, pod)?;
    }
    ended_well(&cell, cluster, "killed").await?;
    say("kill -9 of the one that acted: its steps were adopted and went on");

    replicas.start(0).await?;
    replicas.until(0, false).await?;
    cell.submit(&workflow("stopped")).await?;
    let running = all_run(&cell, cluster, "stopped").await?;
    replicas.signal(1, Signal::SIGSTOP)?;
    let_go(cluster, &running[0])?;
    replicas.until(0, true).await?;
    let_go(cluster, &running[1])?;
    replicas.signal(1, Signal::SIGCONT)?;
    assert!(!replicas.ends(1).await?, "a replica that lost its Lease ends, and not well");
    let_go(cluster, &running[2])?;
    ended_well(&cell, cluster, "stopped").await?;
    let clusters = cell.get("/api/v1/clusters").await?.to_string();
    assert!(!clusters.contains("Locked"), "the key was not taken for a stolen one: {clusters}");
    say("stopped past its Lease and resumed: it ended, the other one had taken over");

    replicas.start(1).await?;
    replicas.until(1, false).await?;
    let before = replicas.holder()?;
    replicas.signal(0, Signal::SIGTERM)?;
    assert!(replicas.ends(0).await?);
    assert_ne!(replicas.holder()?, before, "who ends in good order gives the Lease up");
    replicas.until(1, true).await?;
    replicas.signal(1, Signal::SIGTERM)?;
    assert!(replicas.ends(1).await?);
    assert_eq!(replicas.holder()?, "");
    say("ends in good order");
    Ok(())
}
