//! Workflows over two real Kubernetes clusters, one of which is cut off in the middle of its steps. Runs where
//! ARGOSY_REAL_KUBERNETES=1 is set and clusters can be started; otherwise says why not.
//!
//! Members run in the hub's network, each agent inside its cluster's. Steps wait for a file in their Pod, so the test and
//! not the clock says which attempt ends when.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

#[path = "kubernetes/drills.rs"]
mod drills;
#[path = "kubernetes/hosts.rs"]
mod hosts;
#[path = "kubernetes/life_cycle.rs"]
mod life_cycle;
#[path = "kubernetes/pod_fields.rs"]
mod pod_fields;
#[path = "kubernetes/resources.rs"]
mod resources;
#[path = "kubernetes/tasks.rs"]
mod tasks;
#[path = "kubernetes/webhook.rs"]
mod webhook;

use argosy_testcluster::{Cluster, Federation};
use argosy_tests::cell::{Cell, Options, TOKEN, binary};
use argosy_tests::pods::{AgentOptions, no_clusters, say, start_agent};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Child;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(120);

#[test]
fn workflows_over_two_real_clusters_with_a_failover() {
    if let Some(reason) = no_clusters() {
        return println!("SKIPPED: {reason}");
    }
    let federation = Federation::start().unwrap();
    say("network");
    let clusters = federation.start_clusters(&["east", "west"]).unwrap();
    say("two clusters");
    let done = federation.block_on(|| all_cases(&federation, &clusters)).unwrap();
    done.unwrap();
}

async fn all_cases(federation: &Federation, clusters: &[Cluster]) -> anyhow::Result<()> {
    let options =
        Options { address: federation.hub_address(), takeover_after_unsafe_ms: 4_000, ..Options::default() };
    let cell = Cell::start(&options).await?;
    let mut agents = BTreeMap::new();
    for cluster in clusters {
        agents.insert(cluster.name.clone(), start_agent(&cell, cluster, &AgentOptions::default()).await?);
    }
    cell.wait_for_clusters(2).await?;
    say("two agents enrolled");
    results_come_back(&cell, federation).await?;
    tasks::steps_beside_containers(&cell, clusters).await?;
    resources::every_action_is_carried_out(&cell, &clusters[0]).await?;
    steps_go_where_what_they_need_is(&cell, clusters).await?;
    pod_fields::are_what_the_workflow_says(&cell, &clusters[0]).await?;
    life_cycle::every_end_has_its_words(&cell, &clusters[0]).await?;
    webhook::steps_are_admitted_or_not(&cell, federation, &clusters[0]).await?;
    an_agent_is_killed_and_adopts_its_steps(&cell, clusters, &mut agents).await?;
    hosts::a_step_is_evicted(&cell, &clusters[0]).await?;
    hosts::a_step_is_preempted(&cell, &clusters[0]).await?;
    drills::losses_are_rehearsed(&cell, clusters).await?;
    a_cluster_is_cut_off(&cell, clusters).await?;
    hosts::a_host_is_lost(&cell, clusters).await
}

fn workflow(name: &str, templates: &Value) -> Value {
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": "default"},
        "spec": {"entrypoint": "main", "templates": templates}})
}

/// Steps that wait for their file and then print the host they ran on.
fn waiting(name: &str, items: &[u32], retry: bool) -> Value {
    let host = json!({"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}});
    let mut wait = json!({"name": "wait", "inputs": {"parameters": [{"name": "item"}]},
        "container": {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "env": [host],
            "args": ["echo waiting {{inputs.parameters.item}}; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo $HOST"]}});
    if retry {
        wait["retryStrategy"] = json!({"limit": 2});
    }
    let step = json!({"name": "w", "template": "wait", "withItems": items,
        "arguments": {"parameters": [{"name": "item", "value": "{{item}}"}]}});
    workflow(name, &json!([{"name": "main", "steps": [[step]]}, wait]))
}

fn phase(workflow: &Value) -> &str {
    workflow["status"]["phase"].as_str().unwrap_or_default()
}

fn nodes(workflow: &Value) -> impl Iterator<Item = &Value> {
    workflow["status"]["nodes"].as_object().into_iter().flat_map(|nodes| nodes.values())
}

/// One of our Pods in one cluster.
#[derive(Clone, Debug)]
struct FoundPod {
    name: String,
    workflow: String,
    phase: String,
    deleting: bool,
    held: bool,
}

impl FoundPod {
    fn runs(&self) -> bool {
        self.phase == "Running" && !self.deleting
    }
}

fn pods(cluster: &Cluster) -> Vec<FoundPod> {
    let listed =
        cluster.kubectl(&["-n", "default", "get", "pods", "-l", "argosy.dev/cell", "-o", "json"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let read = |pod: &Value| FoundPod {
        name: text(&pod["metadata"]["name"]),
        workflow: text(&pod["metadata"]["labels"]["workflows.argoproj.io/workflow"]),
        phase: text(&pod["status"]["phase"]),
        deleting: pod["metadata"]["deletionTimestamp"].is_string(),
        held: pod["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty()),
    };
    listed["items"].as_array().unwrap().iter().map(read).collect()
}

fn running(cluster: &Cluster, workflow: &str) -> Vec<FoundPod> {
    pods(cluster).into_iter().filter(|pod| pod.workflow == workflow && pod.runs()).collect()
}

/// Submits the workflows while the other cluster takes no steps, so that all run in one: how they are spread is placement's.
async fn all_to(
    cell: &Cell,
    other: &Cluster,
    run: impl FnMut() -> bool,
    workflows: &[Value],
) -> anyhow::Result<()> {
    cell.argosy(&["cluster", "cordon", &other.name])?;
    for workflow in workflows {
        cell.submit(workflow).await?;
    }
    until("all steps to run in one cluster", run).await;
    cell.argosy(&["cluster", "uncordon", &other.name]).map(drop)
}

/// Lets a waiting step end.
fn let_go(cluster: &Cluster, pod: &FoundPod) -> bool {
    cluster.kubectl(&["-n", "default", "exec", &pod.name, "-c", "main", "--", "touch", "/tmp/go"]).is_ok()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < WAIT, "waited {WAIT:?} for {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The sum of a metric over all members.
async fn metric(cell: &Cell, start: &str) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for member in cell.members.keys() {
        let page = cell.metrics(*member).await?;
        let lines = page.lines().filter(|line| line.starts_with(start));
        sum += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(sum)
}

/// Pages are made anew now and then, so a count may come a moment later.
async fn metric_reaches(cell: &Cell, name: &str, least: f64) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let now = metric(cell, name).await?;
        if now >= least {
            return Ok(());
        }
        anyhow::ensure!(start.elapsed() < WAIT, "{name} is {now}, not {least}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn results_come_back(cell: &Cell, federation: &Federation) -> anyhow::Result<()> {
    let image = |mut fields: Value| {
        fields["image"] = json!("busybox");
        fields["imagePullPolicy"] = json!("IfNotPresent");
        fields
    };
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "write", "template": "write"}],
            [{"name": "read", "template": "read", "arguments": {"parameters": [
                {"name": "word", "value": "{{steps.write.outputs.parameters.word}}"},
                {"name": "result", "value": "{{steps.write.outputs.result}}"}]}}],
            [{"name": "bad", "template": "bad", "continueOn": {"failed": true}}]]},
        {"name": "write", "script": image(json!({"command": ["sh"], "source": "printf fifty > /tmp/word; echo a result"})),
            "outputs": {"parameters": [{"name": "word", "valueFrom": {"path": "/tmp/word"}}]}},
        {"name": "read", "inputs": {"parameters": [{"name": "word"}, {"name": "result"}]},
            "container": image(json!({"command": ["echo"], "args": ["{{inputs.parameters.word}} and {{inputs.parameters.result}}"]}))},
        {"name": "bad", "container": image(json!({"command": ["sh", "-c"], "args": ["echo oh; exit 3"]}))},
    ]);
    let name = cell.submit(&workflow("results", &templates)).await?;
    let ended = cell.finished(&name, WAIT).await?;
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    let node = |name: &str| nodes(&ended).find(|node| node["displayName"] == name).cloned().unwrap();
    assert_eq!(node("write")["outputs"]["result"], "a result");
    assert_eq!(node("write")["outputs"]["parameters"][0]["value"], "fifty");
    assert_eq!(node("bad")["outputs"]["exitCode"], "3");
    assert_eq!(node("bad")["message"], "main: Error (exit code 3)");
    say("result, output parameter, exit code");
    let server = cell.configs[&1].listen.api.to_string();
    let read = || {
        let mut command = federation.command(binary("argosy").unwrap());
        command.args([
            "logs",
            &name,
            "-n",
            "default",
            "--argo-server",
            &server,
            "--insecure-skip-verify",
            "--token",
            TOKEN,
        ]);
        let done = command.output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
    };
    let text = read();
    assert!(text.contains("fifty and a result") && text.contains("oh"), "{text}");
    say("logs by the command line");
    Ok(())
}

/// A Secret, an account and a claim exist in one cluster each; a ConfigMap comes late.
async fn steps_go_where_what_they_need_is(cell: &Cell, clusters: &[Cluster]) -> anyhow::Result<()> {
    let [east, west] = clusters else { anyhow::bail!("two clusters") };
    for cluster in clusters {
        cluster.let_agent_read_secrets()?;
    }
    west.kubectl(&[
        "-n",
        "default",
        "create",
        "secret",
        "generic",
        "only-west",
        "--from-literal=word=from-west",
    ])?;
    east.kubectl(&["-n", "default", "create", "serviceaccount", "only-east"])?;
    let claim = west.folder().join("claim.yaml");
    std::fs::write(&claim, CLAIM)?;
    west.kubectl(&["-n", "default", "apply", "-f", &claim.display().to_string()])?;
    let reference = |kind: &str, name: &str| json!({"name": "WORD", "valueFrom": {(kind): {"name": name, "key": "word"}}});
    let step = |extra: Value| {
        let mut container = json!({"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": ["echo $WORD"]});
        container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"name": "need", "container": container})
    };
    let main =
        json!({"name": "main", "steps": [[{"name": "n", "template": "need", "withItems": [1, 2, 3]}]]});
    let with = |name: &str, need: Value, spec: Value| {
        let mut made = workflow(name, &json!([main, need]));
        made["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        made
    };
    let volume = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "only-west"}}]});
    let cases = [
        (with("secret", step(json!({"env": [reference("secretKeyRef", "only-west")]})), json!({})), west),
        (with("account", step(json!({})), json!({"serviceAccountName": "only-east"})), east),
        (with("claim", step(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})), volume), west),
    ];
    for (made, home) in &cases {
        let name = cell.submit(made).await?;
        let ended = cell.finished(&name, WAIT).await?;
        assert_eq!(phase(&ended), "Succeeded", "{name}: {}", ended["status"]);
        let hosts: Vec<_> = nodes(&ended)
            .filter(|node| node["type"] == "Pod")
            .map(|node| node["hostNodeName"].as_str())
            .collect();
        assert_eq!(hosts, [Some(home.name.as_str()); 3], "{name}");
    }
    let late = with("late", step(json!({"env": [reference("configMapKeyRef", "late")]})), json!({}));
    cell.submit(&late).await?;
    let told = cell
        .until(WAIT, "the reason why it waits", async || {
            let now = cell.get("/api/v1/workflows/default/late").await.ok()?;
            now.to_string().contains("has no ConfigMap default/late").then_some(())
        })
        .await;
    told?;
    east.kubectl(&["-n", "default", "create", "configmap", "late", "--from-literal=word=x"])?;
    let ended = cell.finished("late", WAIT).await?;
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    assert!(
        nodes(&ended)
            .filter(|node| node["type"] == "Pod")
            .all(|node| node["hostNodeName"] == east.name.as_str())
    );
    say("Secret, account, claim, late ConfigMap: steps go where they are");
    Ok(())
}

/// A volume on the host, and its claim.
const CLAIM: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: only-west}
spec: {capacity: {storage: 1Mi}, accessModes: [ReadWriteOnce], storageClassName: "", hostPath: {path: /tmp/argosy-only-west}, claimRef: {name: only-west, namespace: default}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: only-west}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", volumeName: only-west, resources: {requests: {storage: 1Mi}}}
"#;

async fn an_agent_is_killed_and_adopts_its_steps(
    cell: &Cell,
    clusters: &[Cluster],
    agents: &mut BTreeMap<String, Child>,
) -> anyhow::Result<()> {
    cell.submit(&waiting("adopted", &[1], false)).await?;
    until("the step to run", || clusters.iter().any(|cluster| !running(cluster, "adopted").is_empty())).await;
    let home = clusters.iter().find(|cluster| !running(cluster, "adopted").is_empty()).unwrap();
    let agent = agents.get_mut(&home.name).unwrap();
    agent.kill()?;
    agent.wait()?;
    let pod = running(home, "adopted").remove(0);
    assert!(let_go(home, &pod));
    agents.insert(home.name.clone(), start_agent(cell, home, &AgentOptions::default()).await?);
    let ended = cell.finished("adopted", WAIT).await?;
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    let made: usize = clusters
        .iter()
        .map(|cluster| pods(cluster).iter().filter(|pod| pod.workflow == "adopted").count())
        .sum();
    assert_eq!(made, 1, "a step that was permitted is not made again");
    say("an agent's kill -9 and adoption");
    Ok(())
}

async fn a_cluster_is_cut_off(cell: &Cell, clusters: &[Cluster]) -> anyhow::Result<()> {
    // Safe to repeat, and not said to be.
    let sizes = [("safe", 4), ("unsafe", 2)];
    let [lost, other] = clusters else { anyhow::bail!("two clusters") };
    all_to(
        cell,
        other,
        || sizes.iter().all(|(workflow, size)| running(lost, workflow).len() == *size),
        &[waiting("safe", &[1, 2, 3, 4], true), waiting("unsafe", &[1, 2], false)],
    )
    .await?;
    let before: BTreeMap<_, _> =
        sizes.iter().map(|(workflow, _)| (*workflow, running(lost, workflow))).collect();
    let started = Instant::now();
    lost.cut()?;
    // One of the cut-off steps ends now, with a result that will come too late; the others go on.
    let late = &before["safe"][0];
    assert!(let_go(lost, late));
    until("all steps to run in the other cluster", || {
        sizes.iter().all(|(workflow, size)| running(other, workflow).len() == *size)
    })
    .await;
    println!("          taken over {:.1} s after the cut", started.elapsed().as_secs_f64());
    for (workflow, _) in sizes {
        for pod in running(other, workflow) {
            assert!(let_go(other, &pod));
        }
    }
    for (workflow, size) in sizes {
        let ended = cell.finished(workflow, WAIT).await?;
        assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
        let hosts: Vec<_> = nodes(&ended)
            .filter(|node| node["type"] == "Pod")
            .map(|node| node["hostNodeName"].as_str())
            .collect();
        assert_eq!(hosts.len(), size, "a take-over is no new node: {}", ended["status"]["nodes"]);
        assert!(hosts.iter().all(|host| *host == Some(other.name.as_str())), "{}", ended["status"]["nodes"]);
    }
    metric_reaches(cell, "argosy_takeovers_total", 2.0).await?;
    say("fenced, and finished in the other cluster");
    let refused = metric(cell, "argosy_reports_refused_total").await?;
    assert!(
        pods(lost).iter().any(|pod| pod.name == late.name && pod.phase == "Succeeded" && pod.held),
        "{:?}",
        pods(lost)
    );
    lost.restore()?;
    let is_old = |pod: &FoundPod| before.values().flatten().any(|old| old.name == pod.name);
    until("the old Pods to be stopped and let go, all but the ended one to vanish", || {
        pods(lost).iter().filter(|pod| is_old(pod)).all(|pod| pod.name == late.name && !pod.held)
    })
    .await;
    metric_reaches(cell, "argosy_reports_refused_total", refused + 1.0).await?;
    for (workflow, _) in sizes {
        let after = cell.get(&format!("/api/v1/workflows/default/{workflow}")).await?;
        assert!(!after.to_string().contains(&format!("\"{}\"", late.name)) && phase(&after) == "Succeeded");
    }
    cell.wait_for_clusters(2).await?;
    say("after its return: old Pods stopped, the late result refused");
    Ok(())
}
