//! A cluster of two hosts, one of which fails steps and is then lost for good, with a volume that only it had and one that both
//! have. Runs where ARGOSY_REAL_KUBERNETES=1 is set and clusters can be started; otherwise says why not.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use argosy_testcluster::{Cluster, Federation, Host};
use argosy_tests::cell::{Cell, Options};
use argosy_tests::pods::{AgentOptions, no_clusters, say, start_agent};
use serde_json::{Value, json};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(180);

#[test]
fn a_host_of_two_fails_steps_and_is_lost() {
    if let Some(reason) = no_clusters() {
        return println!("SKIPPED: {reason}");
    }
    let federation = Federation::start().unwrap();
    let cluster = federation.start_cluster("east", 1).unwrap();
    let host = federation.start_second_host(&cluster, 2).unwrap();
    say("a cluster of two hosts");
    federation.block_on(|| all_cases(&federation, &cluster, &host)).unwrap().unwrap();
}

fn container(script: &str) -> Value {
    json!({"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": [script]})
}

fn workflow(name: &str, templates: &Value) -> Value {
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": "default"},
        "spec": {"entrypoint": "main", "templates": templates}})
}

/// One step, tried again on another host.
fn tried_again(name: &str, script: &str) -> Value {
    workflow(
        name,
        &json!([{"name": "main", "container": container(script),
            "retryStrategy": {"limit": 1, "retryPolicy": "Always", "affinity": {"nodeAntiAffinity": {}}}}]),
    )
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Phase and message of the Pod nodes, in the order of their names.
fn tries(workflow: &Value) -> Vec<(String, String)> {
    let nodes = workflow["status"]["nodes"].as_object().into_iter().flat_map(|nodes| nodes.values());
    let mut found: Vec<_> = nodes.filter(|node| node["type"] == "Pod").collect();
    found.sort_by_key(|node| text(&node["name"]));
    found.into_iter().map(|node| (text(&node["phase"]), text(&node["message"]))).collect()
}

struct FoundPod {
    name: String,
    host: String,
    runs: bool,
}

/// Pods of a workflow in the order in which they were made.
fn pods(cluster: &Cluster, workflow: &str) -> Vec<FoundPod> {
    let selector = format!("workflows.argoproj.io/workflow={workflow}");
    let order = "--sort-by=.metadata.creationTimestamp";
    let listed =
        cluster.kubectl(&["-n", "default", "get", "pods", "-l", &selector, order, "-o", "json"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let read = |pod: &Value| FoundPod {
        name: text(&pod["metadata"]["name"]),
        host: text(&pod["spec"]["nodeName"]),
        runs: pod["status"]["phase"] == "Running",
    };
    listed["items"].as_array().unwrap().iter().map(read).collect()
}

/// Waits until the workflow has a Pod that runs on that host.
async fn runs_on(cell: &Cell, cluster: &Cluster, workflow: &str, host: &str) -> anyhow::Result<String> {
    let what = format!("a step of {workflow} to run on {host}");
    cell.until(WAIT, &what, async || {
        let running = pods(cluster, workflow).into_iter().find(|pod| pod.host == host && pod.runs);
        running.map(|pod| pod.name)
    })
    .await
}

/// `own` is on the second host alone; `shared` is what a network's storage would be.
fn make_volumes(federation: &Federation, cluster: &Cluster, host: &Host) -> anyhow::Result<()> {
    for name in ["own", "shared"] {
        let folder = federation.folder().join(name);
        std::fs::create_dir_all(&folder)?;
        let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
            "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "hostPath": {"path": folder}, "claimRef": {"name": name, "namespace": "default"}}});
        if name == "own" {
            let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [host.name()]});
            volume["spec"]["nodeAffinity"] =
                json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}});
        }
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name,
                "resources": {"requests": {"storage": "1Mi"}}}});
        let file = cluster.folder().join(format!("{name}.json"));
        std::fs::write(
            &file,
            json!({"apiVersion": "v1", "kind": "List", "items": [volume, claim]}).to_string(),
        )?;
        cluster.kubectl(&["apply", "-f", &file.display().to_string()])?;
    }
    Ok(())
}

/// One step writes on the volume and waits to be let go on; the next one needs what it wrote.
fn on_volume(name: &str) -> Value {
    let step = |step: &str, script: &str| {
        let mut container = container(script);
        container["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
        json!({"name": step, "container": container, "retryStrategy": {"limit": 1, "retryPolicy": "Always"}})
    };
    let order = json!([[{"name": "make", "template": "make"}], [{"name": "read", "template": "read"}]]);
    let mut read = step("read", "until test -e /work/go; do sleep 0.2; done; grep made /work/file");
    read["timeout"] = "40s".into();
    let mut made = workflow(
        name,
        &json!([{"name": "main", "steps": order}, step("make", "echo made > /work/file"), read]),
    );
    made["spec"]["volumes"] = json!([{"name": "work", "persistentVolumeClaim": {"claimName": name}}]);
    made
}

async fn a_try_goes_to_the_other_host(cell: &Cell, cluster: &Cluster) -> anyhow::Result<()> {
    cell.submit(&tried_again("fails", "test {{retries}} = 1")).await?;
    let ended = cell.finished("fails", WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    let hosts: Vec<_> = pods(cluster, "fails").into_iter().map(|pod| pod.host).collect();
    assert_eq!(hosts.len(), 2, "{hosts:?}");
    assert_ne!(hosts[0], hosts[1], "the second try runs on the other host");
    say("nodeAntiAffinity: the second try on the other host");
    Ok(())
}

/// Its step ends while it reaches neither agent nor API server: the executor tells the result when it can.
async fn a_host_is_cut_off(
    federation: &Federation,
    cell: &Cell,
    cluster: &Cluster,
    host: &Host,
) -> anyhow::Result<()> {
    let records = federation.folder().join("cut");
    std::fs::create_dir_all(&records)?;
    let there = |name: &str| records.join(name).exists();
    let script = "touch /records/begun; until test -e /records/go; do sleep 0.2; done; touch /records/ended";
    let mut submitted = tried_again("cut", script);
    submitted["spec"]["volumes"] =
        json!([{"name": "records", "hostPath": {"path": records, "type": "Directory"}}]);
    submitted["spec"]["templates"][0]["container"]["volumeMounts"] =
        json!([{"name": "records", "mountPath": "/records"}]);
    cluster.kubectl(&["cordon", &cluster.name])?;
    cell.submit(&submitted).await?;
    runs_on(cell, cluster, "cut", host.name()).await?;
    cell.until(WAIT, "the command to begin", async || there("begun").then_some(())).await?;
    cluster.kubectl(&["uncordon", &cluster.name])?;
    host.cut()?;
    std::fs::write(records.join("go"), "")?;
    cell.until(WAIT, "the command to end", async || there("ended").then_some(())).await?;
    let now = cell.get("/api/v1/workflows/default/cut").await?;
    assert_eq!(now["status"]["phase"], "Running", "{}", now["status"]);
    host.restore()?;
    let ended = cell.finished("cut", WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    assert_eq!(tries(&ended), [("Succeeded".to_owned(), String::new())]);
    say("a host cut off while its step ended: the result came when it was back");
    Ok(())
}

/// Its kubelet falls silent and nobody deletes its object: the cluster wants its Pods gone, and no kubelet says that they are.
async fn a_host_falls_silent(cell: &Cell, cluster: &Cluster, host: &Host) -> anyhow::Result<()> {
    let mut submitted = tried_again("silent", "test {{retries}} = 1 || while true; do sleep 0.2; done");
    // As everywhere, after five minutes; here after two seconds.
    let taint =
        |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2});
    submitted["spec"]["tolerations"] =
        json!([taint("node.kubernetes.io/unreachable"), taint("node.kubernetes.io/not-ready")]);
    cluster.kubectl(&["cordon", &cluster.name])?;
    cell.submit(&submitted).await?;
    let first = runs_on(cell, cluster, "silent", host.name()).await?;
    cluster.kubectl(&["uncordon", &cluster.name])?;
    host.cut()?;
    let ended = cell.finished("silent", WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    let deleted = ("Error".to_owned(), "pod deleted".to_owned());
    assert_eq!(tries(&ended), [deleted, ("Succeeded".to_owned(), String::new())]);
    let still = pods(cluster, "silent").into_iter().find(|pod| pod.name == first);
    assert!(still.is_some_and(|pod| pod.runs), "the cluster still says that the first one runs");
    host.restore()?;
    cell.until(WAIT, "the Pod to go once its host is back", async || {
        pods(cluster, "silent").iter().all(|pod| pod.name != first).then_some(())
    })
    .await?;
    say(
        "a silent host whose object stays: its step is lost after its grace, and tried again on the other one",
    );
    Ok(())
}

async fn all_cases(federation: &Federation, cluster: &Cluster, host: &Host) -> anyhow::Result<()> {
    let options =
        Options { members: 1, address: federation.hub_address(), lease_ms: 20_000, ..Options::default() };
    let cell = Cell::start(&options).await?;
    let options =
        AgentOptions { arguments: vec!["--host-lost-after-ms=5000".to_owned()], ..AgentOptions::default() };
    let mut agent = start_agent(&cell, cluster, &options).await?;
    cell.wait_for_clusters(1).await?;
    a_try_goes_to_the_other_host(&cell, cluster).await?;
    a_host_is_cut_off(federation, &cell, cluster, host).await?;
    a_host_falls_silent(&cell, cluster, host).await?;

    make_volumes(federation, cluster, host)?;
    cluster.kubectl(&["cordon", &cluster.name])?;
    cell.submit(&tried_again("lost", "while [ ! -e /tmp/go ]; do sleep 0.2; done")).await?;
    runs_on(&cell, cluster, "lost", host.name()).await?;
    for volume in ["own", "shared"] {
        cell.submit(&on_volume(volume)).await?;
        let what = format!("the second step of {volume} to run");
        cell.until(WAIT, &what, async || {
            let pods = pods(cluster, volume);
            (pods.len() == 2 && pods[1].runs).then_some(())
        })
        .await?;
    }
    cluster.kubectl(&["uncordon", &cluster.name])?;
    host.kill()?;
    // As the controller of a cloud does once the machine is gone.
    cluster.kubectl(&["delete", "node", host.name(), "--wait=false"])?;

    let gone = ("Error".to_owned(), "pod failed: PodGC: node no longer exists".to_owned());
    let pod = runs_on(&cell, cluster, "lost", &cluster.name).await?;
    cluster.kubectl(&["-n", "default", "exec", &pod, "-c", "main", "--", "touch", "/tmp/go"])?;
    let ended = cell.finished("lost", WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    assert_eq!(tries(&ended), [gone.clone(), ("Succeeded".to_owned(), String::new())]);
    say("a host lost for good: the step was tried again on the other one");

    runs_on(&cell, cluster, "shared", &cluster.name).await?;
    std::fs::write(federation.folder().join("shared/go"), "")?;
    let ended = cell.finished("shared", WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    assert_eq!(tries(&ended)[1], gone);
    say("a volume that both hosts have: the next try found what was on it");

    let ended = cell.finished("own", WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Failed", "{}", ended["status"]);
    let told = tries(&ended);
    assert_eq!(told[1], gone, "{told:?}");
    println!("{told:?}");
    say("a volume that went with its host: the next try waits for it until its time is over");
    agent.kill()?;
    agent.wait()?;
    Ok(())
}
