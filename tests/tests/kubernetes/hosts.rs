//! Steps whose host is taken from them: by a Pod that matters more, or because it is gone for good.

use super::{WAIT, let_go, nodes, phase, running, say, until, waiting, workflow};
use argosy_testcluster::Cluster;
use argosy_tests::cell::Cell;
use serde_json::{Value, json};

const CLASS: &str = r#"
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: urgent}
value: 1000
"#;

/// Tries of a step in their order, with phase, message and host.
fn tries(workflow: &Value, step: &str) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> = nodes(workflow)
        .filter(|node| {
            node["type"] == "Pod" && node["displayName"].as_str().is_some_and(|it| it.starts_with(step))
        })
        .map(|node| (text(&node["displayName"]), node))
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let of = |(_, node): (String, &Value)| {
        (text(&node["phase"]), text(&node["message"]), text(&node["hostNodeName"]))
    };
    found.into_iter().map(of).collect()
}

/// A Pod that matters more needs the room: the try ends as in Argo, and the next one runs once there is room again.
pub async fn a_step_is_preempted(cell: &Cell, home: &Cluster) -> anyhow::Result<()> {
    let class = home.folder().join("urgent.yaml");
    std::fs::write(&class, CLASS)?;
    home.kubectl(&["apply", "-f", &class.display().to_string()])?;
    let room = json!({"requests": {"cpu": "1200m"}});
    let main = json!({
        "name": "main", "nodeSelector": {"cluster.argosy.dev/name": home.name},
        "retryStrategy": {"limit": 1, "retryPolicy": "Always"},
        "container": {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "resources": room,
            "args": ["while [ ! -e /tmp/go ]; do sleep 0.2; done"]},
    });
    cell.submit(&workflow("preempted", &json!([main]))).await?;
    until("the step to run", || running(home, "preempted").len() == 1).await;
    let first = running(home, "preempted").remove(0);
    let urgent = json!({"spec": {"priorityClassName": "urgent", "terminationGracePeriodSeconds": 0, "containers": [
        {"name": "urgent", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "600"], "resources": room}]}});
    let overrides = format!("--overrides={urgent}");
    home.kubectl(&["run", "urgent", "--image=busybox", "--restart=Never", &overrides])?;
    until("the urgent Pod to run", || {
        home.kubectl(&["get", "pod", "urgent", "-o", "jsonpath={.status.phase}"])
            .is_ok_and(|phase| phase == "Running")
    })
    .await;
    let path = "/api/v1/workflows/default/preempted";
    cell.until(WAIT, "the second try to wait for room", async || {
        let now = cell.get(path).await.ok()?;
        let tries = tries(&now, "preempted(");
        (tries.len() == 2 && tries[1].0 == "Pending").then_some(())
    })
    .await?;
    home.kubectl(&["delete", "pod", "urgent", "--now"])?;
    until("the second try to run", || running(home, "preempted").iter().any(|pod| pod.name != first.name))
        .await;
    let second = running(home, "preempted").into_iter().find(|pod| pod.name != first.name).unwrap();
    assert!(let_go(home, &second));
    let ended = cell.finished("preempted", WAIT).await?;
    let tries = tries(&ended, "preempted(");
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    assert_eq!((tries[0].0.as_str(), tries[0].1.as_str()), ("Error", "pod deleted"), "{tries:?}");
    assert_eq!(tries.len(), 2, "{tries:?}");
    say("preempted, and tried again when there was room");
    Ok(())
}

/// Somebody empties the host: the Pod is evicted by the API, which is a deletion, and tried again.
pub async fn a_step_is_evicted(cell: &Cell, home: &Cluster) -> anyhow::Result<()> {
    let mut submitted = waiting("evicted-by-api", &[1], true);
    submitted["spec"]["templates"][1]["retryStrategy"] = json!({"limit": 1, "retryPolicy": "Always"});
    submitted["spec"]["templates"][1]["nodeSelector"] = json!({"cluster.argosy.dev/name": home.name});
    cell.submit(&submitted).await?;
    until("the step to run", || running(home, "evicted-by-api").len() == 1).await;
    let first = running(home, "evicted-by-api").remove(0);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": first.name, "namespace": "default"}});
    let file = home.folder().join("eviction.json");
    std::fs::write(&file, eviction.to_string())?;
    let path = format!("/api/v1/namespaces/default/pods/{}/eviction", first.name);
    home.kubectl(&["create", "--raw", &path, "-f", &file.display().to_string()])?;
    let next = || running(home, "evicted-by-api").into_iter().find(|pod| pod.name != first.name);
    until("the second try to run", || next().is_some()).await;
    assert!(let_go(home, &next().unwrap()));
    let ended = cell.finished("evicted-by-api", WAIT).await?;
    let tries = tries(&ended, "w(0:1)(");
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    assert_eq!((tries[0].0.as_str(), tries[0].1.as_str()), ("Error", "pod deleted"), "{tries:?}");
    assert_eq!(tries.len(), 2, "{tries:?}");
    say("evicted by the API, and tried again");
    Ok(())
}

/// The only host of a cluster dies and is taken out of it: its steps end there and are tried again in the other cluster.
pub async fn a_host_is_lost(cell: &Cell, clusters: &[Cluster]) -> anyhow::Result<()> {
    let mut submitted = waiting("host", &[1], true);
    submitted["spec"]["templates"][1]["retryStrategy"] = json!({"limit": 2, "retryPolicy": "Always"});
    cell.submit(&submitted).await?;
    let home = || clusters.iter().find(|cluster| !running(cluster, "host").is_empty());
    until("the step to run", || home().is_some()).await;
    let home = home().unwrap();
    let other = clusters.iter().find(|cluster| cluster.name != home.name).unwrap();
    home.kill_host()?;
    home.kubectl(&["delete", "node", &home.name, "--wait=false"])?;
    until("the step to run in the other cluster", || !running(other, "host").is_empty()).await;
    assert!(let_go(other, &running(other, "host")[0]));
    let ended = cell.finished("host", WAIT).await?;
    let tries = tries(&ended, "w(0:1)(");
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    assert_eq!(tries.len(), 2, "{tries:?}");
    let first = (tries[0].0.as_str(), tries[0].1.as_str(), tries[0].2.as_str());
    assert_eq!(first, ("Error", "pod failed: PodGC: node no longer exists", home.name.as_str()), "{tries:?}");
    assert_eq!((tries[1].0.as_str(), tries[1].2.as_str()), ("Succeeded", other.name.as_str()), "{tries:?}");
    until("nothing of it to be held", || super::pods(home).iter().all(|pod| !pod.held)).await;
    say("a host lost for good: tried again in the other cluster");
    Ok(())
}
