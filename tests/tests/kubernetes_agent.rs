//! An agent that may look into one namespace only, and then holds 5,000 Pods there: what it needs of rights and of memory, and
//! how fast it makes them beside a plain loop of the same client. Runs where ARGOSY_REAL_KUBERNETES=1 is set and clusters can be
//! started; otherwise says why not.
//!
//! No kubelet runs the 5,000: they ask for a host that is not there, and the test writes their phases.

use argosy_testcluster::{Cluster, Federation};
use argosy_tests::cell::{Cell, Options};
use argosy_tests::pods::{AgentOptions, figure, no_clusters, say, start_agent};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::process::Child;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "team-a";
/// Issue 6: under this with so many Pods.
const PODS: usize = 5_000;
const MEMORY_BYTES_MAX: u64 = 150 << 20;
/// Requests of the plain loop at one time: as many as the agent has lanes.
const SIDE_BY_SIDE: usize = 8;
const PLAIN: usize = 1_000;

#[test]
fn an_agent_of_one_namespace_holds_many_pods_in_little_memory() {
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
    let options =
        Options { members: 1, address: federation.hub_address(), lease_ms: 20_000, ..Options::default() };
    let cell = Cell::start(&options).await?;
    for namespace in [NAMESPACE, "team-b"] {
        cluster.kubectl(&["create", "namespace", namespace])?;
    }
    let rights = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/agent/namespaced.yaml");
    cluster.kubectl(&["apply", "-f", rights])?;
    let arguments = [
        "--namespace",
        NAMESPACE,
        "--capacity-cpu",
        "100000",
        "--capacity-memory",
        "100T",
        "--capacity-pods",
        "20000",
        "--credit",
        "2000",
    ];
    let options = AgentOptions {
        kubeconfig: Some(cluster.folder().join("agent.kubeconfig")),
        arguments: arguments.map(str::to_owned).to_vec(),
        ..AgentOptions::default()
    };
    let mut agent = start_agent(&cell, cluster, &options).await?;
    cell.wait_for_clusters(1).await?;
    say("an agent without any right in the cluster");
    one_namespace_is_served(&cell).await?;
    let client = argosy_kubernetes::connect(Some(&cluster.kubeconfig()), None).await?;
    let plain = plain_loop(&client).await?;
    say(&format!("a plain loop makes {plain:.0} Pods/s ({SIDE_BY_SIDE} requests at a time)"));
    many_pods(&cell, cluster, &client, &agent).await?;
    agent.kill()?;
    agent.wait()?;
    Ok(())
}

async fn submit(cell: &Cell, namespace: &str, workflow: &Value) -> anyhow::Result<()> {
    let mut workflow = workflow.clone();
    workflow["metadata"]["namespace"] = namespace.into();
    cell.post(&format!("/api/v1/workflows/{namespace}"), &json!({"workflow": workflow})).await.map(drop)
}

async fn one_namespace_is_served(cell: &Cell) -> anyhow::Result<()> {
    let container = json!({"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["true"]});
    let one = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "one"},
        "spec": {"entrypoint": "main", "podDisruptionBudget": {"minAvailable": 1},
            "templates": [{"name": "main", "container": container}]}});
    submit(cell, NAMESPACE, &one).await?;
    submit(cell, "team-b", &one).await?;
    let path = |namespace: &str| format!("/api/v1/workflows/{namespace}/one");
    cell.until(WAIT, "the workflow in the served namespace", async || {
        let now = cell.get(&path(NAMESPACE)).await.ok()?;
        (now["status"]["phase"] == "Succeeded").then_some(())
    })
    .await?;
    let told = cell
        .until(WAIT, "the other one to end", async || {
            let now = cell.get(&path("team-b")).await.ok()?;
            (now["status"]["phase"] == "Error").then(|| now["status"]["message"].clone())
        })
        .await?;
    let words = "namespace team-b is not served on this cluster: its agent serves team-a";
    assert_eq!(told, words);
    say("steps of the served namespace run, others say why not");
    Ok(())
}

/// A Pod as the agent makes it, near enough, made as fast as the client can.
async fn plain_loop(client: &Client) -> anyhow::Result<f64> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let model =
        pods.list(&ListParams::default()).await?.items.pop().expect("the step's Pod is kept for its log");
    let begun = Instant::now();
    let made: Vec<_> = stream::iter(0..PLAIN)
        .map(|number| {
            let (pods, mut pod) = (pods.clone(), model.clone());
            pod.metadata = kube::api::ObjectMeta {
                name: Some(format!("plain-{number}")),
                annotations: pod.metadata.annotations.clone(),
                labels: Some([("plain".to_owned(), "yes".to_owned())].into()),
                ..kube::api::ObjectMeta::default()
            };
            pod.status = None;
            if let Some(spec) = &mut pod.spec {
                spec.node_name = None;
                spec.node_selector = Some([("no-such".to_owned(), "host".to_owned())].into());
            }
            async move { pods.create(&PostParams::default(), &pod).await.map(drop) }
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await;
    let rate = PLAIN as f64 / begun.elapsed().as_secs_f64();
    for one in made {
        one?;
    }
    let all = ListParams::default().labels("plain=yes");
    pods.delete_collection(&kube::api::DeleteParams::default().grace_period(0), &all).await?;
    Ok(rate)
}

async fn many_pods(cell: &Cell, cluster: &Cluster, client: &Client, agent: &Child) -> anyhow::Result<()> {
    let memory_before = resident_bytes(agent)?;
    let step = json!({"name": "step", "nodeSelector": {"no-such": "host"},
        "container": {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": ["echo {{inputs.parameters.item}}"]},
        "inputs": {"parameters": [{"name": "item"}]}});
    let main = json!({"name": "main", "steps": [[{"name": "s", "template": "step", "withSequence": {"count": PODS.to_string()},
        "arguments": {"parameters": [{"name": "item", "value": "{{item}}"}]}}]]});
    let many = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "many"},
        "spec": {"entrypoint": "main", "templates": [main, step]}});
    let before = figure(cell, cluster, "pods_created_total").await.unwrap_or_default();
    submit(cell, NAMESPACE, &many).await?;
    let made = async |least: usize| {
        cell.until(WAIT, &format!("{least} Pods"), async || {
            let made = figure(cell, cluster, "pods_created_total").await? - before;
            (made >= least as f64).then_some(made)
        })
        .await
    };
    made(1).await?;
    let begun = Instant::now();
    let first = made(1).await?;
    let all = made(PODS).await?;
    let rate = (all - first) / begun.elapsed().as_secs_f64();
    say(&format!("the agent makes {rate:.0} Pods/s, from the member's decision on"));
    write_phases(client).await?;
    let held = figure(cell, cluster, "pods").await;
    assert!(held.is_some_and(|held| held >= PODS as f64), "{held:?}");
    let memory = resident_bytes(agent)?;
    say(&format!(
        "{PODS} Pods that wait, with what their kubelets say of them: {} MB, {} MB before",
        memory >> 20,
        memory_before >> 20
    ));
    assert!(memory < MEMORY_BYTES_MAX, "{memory} bytes");
    Ok(())
}

/// Every Pod waits for its image, as its kubelet would tell.
async fn write_phases(client: &Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let all =
        pods.list_metadata(&ListParams::default().labels("workflows.argoproj.io/workflow=many")).await?;
    let waiting = json!({"reason": "ImagePullBackOff", "message": "Back-off pulling image \"busybox\": ErrImagePull: not found"});
    let status = json!({"status": {"phase": "Pending", "containerStatuses": [{"name": "main", "ready": false, "restartCount": 0,
        "image": "busybox", "imageID": "", "state": {"waiting": waiting}}]}});
    let written: Vec<_> = stream::iter(all.items)
        .map(|pod| {
            let (pods, status) = (pods.clone(), status.clone());
            async move {
                let name = pod.metadata.name.unwrap_or_default();
                pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await.map(drop)
            }
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await;
    written.into_iter().collect::<Result<Vec<()>, kube::Error>>()?;
    Ok(())
}

/// The agent's resident memory, of the process that `nsenter` became.
fn resident_bytes(agent: &Child) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kibibytes * 1024)
}
