//! Steps that end while their agent is away: a short result waits in the Pod, a long one in the object store, and the agent takes
//! each once when it is back. One that was changed in the store is an error and no success.

use super::{WAIT, sh, workflow};
use argosy_artifacts::Store;
use argosy_testcluster::Cluster;
use argosy_tests::cell::Cell;
use argosy_tests::manifests::node;
use argosy_tests::pods::{AgentOptions, start_agent};
use serde_json::{Value, json};
use std::process::Child;

/// Characters of a result that no termination message holds.
const LONG: usize = 20_000;
/// Where attempts keep what is theirs.
const OWN: &str = ".argosy";

/// The Pods of a workflow.
pub(super) fn pods(cluster: &Cluster, name: &str) -> Vec<Value> {
    let selector = format!("workflows.argoproj.io/workflow={name}");
    let listed = cluster.kubectl(&["-n", "default", "get", "pods", "-l", &selector, "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed.unwrap_or_default()).unwrap_or_default();
    listed["items"].as_array().cloned().unwrap_or_default()
}

/// What the only Pod's main container left for its kubelet, once it has ended.
fn message(cluster: &Cluster, name: &str) -> Option<String> {
    let pods = pods(cluster, name);
    let [pod] = pods.as_slice() else { return None };
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    ended.is_object().then(|| ended["message"].as_str().unwrap_or_default().to_owned())
}

/// Begins a step whose result has so many characters, and waits until its command runs.
async fn begin(cell: &Cell, cluster: &Cluster, name: &str, length: usize) -> anyhow::Result<()> {
    let script = format!(
        "touch /tmp/begun; until test -e /tmp/go; do sleep 0.2; done; head -c {length} /dev/zero | tr '\\0' x"
    );
    let templates = json!([
        {"name": "main", "steps": [[{"name": "one", "template": "one"}], [{"name": "two", "template": "two",
            "arguments": {"parameters": [{"name": "r", "value": "{{steps.one.outputs.result}}"}]}}]]},
        {"name": "one", "nodeSelector": {"cluster.argosy.dev/name": cluster.name}, "container": sh(&script)},
        {"name": "two", "inputs": {"parameters": [{"name": "r"}]}, "suspend": {"duration": "1"}},
    ]);
    let mut submitted = workflow(name, templates);
    // An agent that is away signs nothing: a log would wait for it like an artifact.
    submitted["spec"]["archiveLogs"] = false.into();
    cell.submit(&submitted).await?;
    cell.until(WAIT, &format!("{name} to run"), async || {
        exec(cluster, name, &["test", "-e", "/tmp/begun"]).then_some(())
    })
    .await
}

/// Whether a command in the only Pod's main container ends well.
pub(super) fn exec(cluster: &Cluster, name: &str, command: &[&str]) -> bool {
    let pods = pods(cluster, name);
    let [pod] = pods.as_slice() else { return false };
    let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
    cluster.kubectl(&[&["-n", "default", "exec", pod, "-c", "main", "--"], command].concat()).is_ok()
}

async fn objects(store: &Store) -> anyhow::Result<Vec<String>> {
    let found = store.list(OWN, 1_000).await?;
    Ok(found.into_iter().map(|one| one.key).filter(|key| key.ends_with(".result.json")).collect())
}

pub async fn results_are_taken_when_the_agent_is_back(
    cell: &Cell,
    cluster: &Cluster,
    store: &Store,
    agent: &mut Child,
    options: &AgentOptions,
) -> anyhow::Result<()> {
    let cases = [("left-short", 100), ("left-long", LONG), ("left-changed", LONG)];
    for (name, length) in cases {
        begin(cell, cluster, name, length).await?;
    }
    agent.kill()?;
    agent.wait()?;
    for (name, _) in cases {
        assert!(exec(cluster, name, &["touch", "/tmp/go"]), "{name} still runs");
    }
    let mut told = Vec::new();
    for (name, _) in cases {
        let what = format!("the Pod of {name} to end without its agent");
        told.push(cell.until(WAIT, &what, async || message(cluster, name)).await?);
    }
    assert!(told[0].contains("\"result\":\"xxx"), "{}", told[0]);
    let mut keys = Vec::new();
    for left in &told[1..] {
        assert!(left.starts_with(r#"{"result_object":1,"#) && left.len() < 400, "{left}");
        let left: Value = serde_json::from_str(left)?;
        keys.push(left["key"].as_str().unwrap_or_default().to_owned());
    }
    let mut there = objects(store).await?;
    there.sort();
    let mut expected = keys.clone();
    expected.sort();
    assert_eq!(there, expected, "an object for each, and no other");
    store.write(&keys[1], bytes::Bytes::from(vec![b' '; usize::try_from(size(&told[2])?)?])).await?;

    *agent = start_agent(cell, cluster, options).await?;
    for (name, length) in &cases[..2] {
        let done = cell.finished(name, WAIT).await?;
        assert_eq!(done["status"]["phase"], "Succeeded", "{name}: {}", done["status"]);
        let result = node(&done, "one")["outputs"]["result"].as_str().unwrap_or_default();
        assert_eq!(result.len(), *length, "{name}");
        assert_eq!(node(&done, "two")["inputs"]["parameters"][0]["value"], result, "{name}");
        assert_eq!(pods(cluster, name).len(), 1, "{name} ran once");
    }
    let changed = cell.finished("left-changed", WAIT).await?;
    assert_eq!(node(&changed, "one")["phase"], "Error", "{}", changed["status"]);
    let said = node(&changed, "one")["message"].as_str().unwrap_or_default();
    assert!(said.starts_with("ARG1260: ") && said.ends_with("it was changed"), "{said}");
    let gone = async || objects(store).await.ok()?.is_empty().then_some(());
    cell.until(WAIT, "the objects to be deleted", gone).await
}

fn size(reference: &str) -> anyhow::Result<u64> {
    let reference: Value = serde_json::from_str(reference)?;
    Ok(reference["bytes"].as_u64().unwrap_or_default())
}
