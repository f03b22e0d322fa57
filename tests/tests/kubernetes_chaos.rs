//! Steps on a real cluster whose API server loses answers, refuses, delays and breaks watches, with an agent that is killed
//! meanwhile: every step runs once, has one result, and leaves nothing. Runs where ARGOSY_REAL_KUBERNETES=1 is set and
//! clusters can be started; otherwise says why not.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use argosy_testcluster::chaos::{Faults, Proxy};
use argosy_testcluster::{Cluster, Federation};
use argosy_tests::cell::{Cell, Options};
use argosy_tests::pods::{AgentOptions, figure, no_clusters, say, start_agent};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(150);
const WORKFLOWS: usize = 8;
const ITEMS: usize = 10;
/// Of each workflow, this item fails at its first try.
const FAILING: usize = 3;
const SEED: u64 = 20_261_127;

#[test]
fn a_bad_way_to_the_api_server_costs_no_step_and_doubles_none() {
    if let Some(reason) = no_clusters() {
        return println!("SKIPPED: {reason}");
    }
    let federation = Federation::start().unwrap();
    let cluster = federation.start_cluster("east", 1).unwrap();
    say("a cluster");
    let done = federation.block_on(|| all_cases(&federation, &cluster)).unwrap();
    done.unwrap();
}

async fn all_cases(federation: &Federation, cluster: &Cluster) -> anyhow::Result<()> {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let options =
        Options { members: 1, address: federation.hub_address(), lease_ms: 20_000, ..Options::default() };
    let cell = Cell::start(&options).await?;
    cluster.agent_kubeconfig()?;
    let proxy = Proxy::start(cluster, 8_001, seed)?;
    let agent_options = AgentOptions { kubeconfig: Some(proxy.kubeconfig()?), ..AgentOptions::default() };
    let mut agent = start_agent(&cell, cluster, &agent_options).await?;
    cell.wait_for_clusters(1).await?;
    say("an agent behind the proxy");
    creations_wait_as_long_as_they_are_told(&cell, cluster, &proxy).await?;

    let ran = cluster.folder().join("ran");
    std::fs::create_dir_all(&ran)?;
    let before = proxy.created().len();
    let assigned_before = cell.count(1, "argosy_attempts_assigned_total").await?;
    proxy.set(Faults {
        lose_answer: 8,
        silence: 3,
        silence_ms: 8_000,
        refuse: 12,
        delay: 20,
        delay_ms_max: 1_500,
        watch_ms_max: 6_000,
        overload_seconds: None,
    });
    println!("          seed {seed}");
    for number in 0..WORKFLOWS {
        cell.submit(&workflow(number, &ran)).await?;
    }
    for part in 1..=2 {
        let enough = before + WORKFLOWS * ITEMS * part / 3;
        cell.until(WAIT, "Pods to be made", async || (proxy.created().len() >= enough).then_some(())).await?;
        agent.kill()?;
        agent.wait()?;
        agent = start_agent(&cell, cluster, &agent_options).await?;
    }
    let mut results = BTreeMap::new();
    for number in 0..WORKFLOWS {
        let name = format!("w{number}");
        results.insert(name.clone(), cell.finished(&name, WAIT).await?);
    }
    let done = proxy.done();
    println!("          {done:?}");
    for fault in ["answer lost", "silence", "refused", "delayed", "watch broken"] {
        assert!(done.get(fault).is_some_and(|count| *count > 3), "{fault} hardly happened: {done:?}");
    }
    say("all workflows over");
    every_node_has_its_result(&results);
    every_try_ran_once(&ran);

    let created = proxy.created().split_off(before);
    let fences: BTreeSet<&str> = created.iter().map(|pod| pod.fence.as_str()).collect();
    assert_eq!(fences.len(), created.len(), "an attempt has one Pod: {created:#?}");
    let assigned = cell.count(1, "argosy_attempts_assigned_total").await? - assigned_before;
    assert_eq!((created.len(), assigned), (WORKFLOWS * (ITEMS + 1), (WORKFLOWS * (ITEMS + 1)) as f64));
    say(&format!("{} attempts, {} Pods", assigned, created.len()));

    proxy.set(Faults::default());
    let left = async || {
        let pods = pods(cluster);
        // Of workflows with podGC none, of the others what is kept for its log.
        pods.iter().all(|pod| pod.1 && !is_collected(&pod.0)).then_some(())
    };
    let is_clean = cell.until(Duration::from_secs(90), "every Pod to be released or gone", left).await;
    assert!(is_clean.is_ok(), "{:?}", pods(cluster));
    say("every Pod is released or gone");
    agent.kill()?;
    agent.wait()?;
    Ok(())
}

/// A 429 stops creations for as long as it says; then they go on, and nobody sees more of it than a wait.
async fn creations_wait_as_long_as_they_are_told(
    cell: &Cell,
    cluster: &Cluster,
    proxy: &Proxy,
) -> anyhow::Result<()> {
    let seconds = 4;
    proxy.set(Faults { overload_seconds: Some(seconds), ..Faults::default() });
    let ran = cluster.folder().join("paced");
    std::fs::create_dir_all(&ran)?;
    let mut paced = workflow(0, &ran);
    paced["metadata"]["name"] = "paced".into();
    cell.submit(&paced).await?;
    let path = "/api/v1/workflows/default/paced";
    cell.until(WAIT, "the node to say why it waits", async || {
        let now = cell.get(path).await.ok()?;
        now.to_string().contains("has too many requests").then_some(())
    })
    .await?;
    proxy.set(Faults::default());
    let ended = cell.finished("paced", WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    // Those that were under way when the first answer came, one a lane; then nothing.
    let asked = proxy.create_times();
    let burst = asked.iter().filter(|at| at.duration_since(asked[0]) < Duration::from_secs(1)).count();
    assert!(burst <= 8, "{burst}");
    let pause = asked[burst].duration_since(asked[burst - 1]).as_secs_f64();
    assert!(pause > f64::from(seconds) - 0.5, "{pause} s");
    let refused = proxy.done()["refused 429"];
    assert_eq!(figure(cell, cluster, "creations_throttled_total").await, Some(refused as f64));
    assert_eq!(figure(cell, cluster, "creations_waiting").await, Some(0.0));
    say(&format!("{refused} creations refused, the next one {pause:.1} s later"));
    Ok(())
}

/// Pods of every other workflow are collected as they end.
fn is_collected(workflow: &str) -> bool {
    workflow
        .strip_prefix('w')
        .and_then(|number| number.parse::<usize>().ok())
        .is_some_and(|number| number % 2 == 1)
}

fn workflow(number: usize, ran: &Path) -> Value {
    let name = format!("w{number}");
    let items: Vec<usize> = (0..ITEMS).collect();
    let script = format!(
        "echo {{{{inputs.parameters.item}}}}-{{{{retries}}}} >> /ran/{{{{workflow.name}}}}; \
         [ {{{{inputs.parameters.item}}}} != {FAILING} -o {{{{retries}}}} -gt 0 ] || exit 1; \
         echo value-{{{{inputs.parameters.item}}}} > /tmp/value"
    );
    let mut spec = json!({"entrypoint": "main",
        "volumes": [{"name": "ran", "hostPath": {"path": ran, "type": "Directory"}}],
        "templates": [
            {"name": "main", "steps": [[{"name": "s", "template": "step", "withItems": items,
                "arguments": {"parameters": [{"name": "item", "value": "{{item}}"}]}}]]},
            {"name": "step", "inputs": {"parameters": [{"name": "item"}]}, "retryStrategy": {"limit": 1},
                "outputs": {"parameters": [{"name": "value", "valueFrom": {"path": "/tmp/value"}}]},
                "container": {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": [script],
                    "volumeMounts": [{"name": "ran", "mountPath": "/ran"}]}}]});
    if is_collected(&name) {
        spec["podGC"] = json!({"strategy": "OnPodCompletion", "deleteDelayDuration": "0s"});
    } else {
        spec["podDisruptionBudget"] = json!({"minAvailable": 1});
    }
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

fn every_node_has_its_result(results: &BTreeMap<String, Value>) {
    for (name, workflow) in results {
        assert_eq!(workflow["status"]["phase"], "Succeeded", "{name}: {}", workflow["status"]);
        let nodes = workflow["status"]["nodes"].as_object().unwrap();
        let pods: Vec<&Value> = nodes.values().filter(|node| node["type"] == "Pod").collect();
        assert_eq!(pods.len(), ITEMS + 1, "{name}");
        let mut values: Vec<&str> =
            pods.iter().filter_map(|node| node["outputs"]["parameters"][0]["value"].as_str()).collect();
        values.sort_unstable();
        let expected: Vec<String> = (0..ITEMS).map(|item| format!("value-{item}")).collect();
        assert_eq!(values, expected, "{name}");
        let failed: Vec<&str> = pods
            .iter()
            .filter(|node| node["phase"] == "Failed")
            .filter_map(|node| node["message"].as_str())
            .collect();
        assert_eq!(failed, ["main: Error (exit code 1)"], "{name}");
    }
}

/// What the commands themselves wrote down.
fn every_try_ran_once(ran: &Path) {
    for number in 0..WORKFLOWS {
        let text = std::fs::read_to_string(ran.join(format!("w{number}"))).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        let mut expected: Vec<String> = (0..ITEMS).map(|item| format!("{item}-0")).collect();
        expected.push(format!("{FAILING}-1"));
        expected.sort_unstable();
        assert_eq!(lines, expected, "w{number}");
    }
}

/// The workflow of each of our Pods, and whether it is released.
fn pods(cluster: &Cluster) -> Vec<(String, bool)> {
    let listed =
        cluster.kubectl(&["-n", "default", "get", "pods", "-l", "argosy.dev/cell", "-o", "json"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let read = |pod: &Value| {
        let workflow =
            pod["metadata"]["labels"]["workflows.argoproj.io/workflow"].as_str().unwrap_or_default();
        let is_held = pod["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        (workflow.to_owned(), !is_held)
    };
    listed["items"].as_array().unwrap().iter().map(read).collect()
}
