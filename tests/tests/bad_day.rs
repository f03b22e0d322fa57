//! What an operator sees and does when clusters go away, and what a cluster's owner forbids: members and agents as processes.
#![allow(clippy::unwrap_used, reason = "a test")]

use argosy_tests::cell::{Cell, Options};
use serde_json::{Value, json};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);

fn step(name: &str, cluster: Option<&str>, command: &str) -> Value {
    let mut leaf = json!({
        "name": "main", "metadata": {"annotations": {"argosy.dev/idempotent": "true"}},
        "container": {"image": "busybox", "command": ["sh", "-c"], "args": [command]},
    });
    if let Some(cluster) = cluster {
        leaf["nodeSelector"] = json!({"cluster.argosy.dev/name": cluster});
    }
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [leaf]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_forbids_runs_elsewhere_or_says_so() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options { members: 1, ..Options::default() }).await?;
    cell.write_policy("east", "namespaces: [team-a]\n")?;
    for cluster in ["east", "west"] {
        cell.start_agent(cluster).await?;
    }
    cell.wait_for_clusters(2).await?;
    cell.submit(&step("moved", None, "true")).await?;
    let workflow = cell.finished("moved", WAIT).await?;
    let node = &workflow["status"]["nodes"]["moved"];
    assert_eq!((&node["phase"], &node["cluster"]), (&json!("Succeeded"), &json!("west")), "{node}");
    assert_eq!(node["attempts"][0]["cluster"], "east", "it was asked first: {node}");
    assert_eq!(node["attempts"][0]["permit"], "none");

    cell.submit(&step("bound", Some("east"), "true")).await?;
    let workflow = cell.finished("bound", WAIT).await?;
    let node = &workflow["status"]["nodes"]["bound"];
    let message = node["message"].as_str().unwrap();
    assert_eq!(node["phase"], "Error", "{node}");
    assert!(message.starts_with("ARG1191: ") && message.contains("rule namespaces"), "{message}");
    let east = cell.get("/api/v1/clusters/east").await?;
    assert_eq!(east["labels"]["argosy.dev/policy"].as_str().map(str::len), Some(12), "{east}");
    Ok(())
}

/// The word of each cluster's next take-over, by name.
fn waits(status: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let clusters = status["clusters"].as_array().cloned().unwrap_or_default();
    clusters.iter().map(|one| (text(&one["name"]), text(&one["takeOver"]["waitsFor"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_is_shown_held_and_resumed() -> anyhow::Result<()> {
    const CLUSTERS: [&str; 3] = ["a", "b", "c"];
    let mut cell = Cell::start(&Options::default()).await?;
    for cluster in CLUSTERS {
        cell.start_agent(cluster).await?;
    }
    cell.wait_for_clusters(3).await?;
    for cluster in CLUSTERS {
        cell.submit(&step(&format!("on-{cluster}"), Some(cluster), "sleep 600")).await?;
    }
    for cluster in CLUSTERS {
        let path = format!("/api/v1/workflows/default/on-{cluster}");
        let running = async || {
            let workflow = cell.get(&path).await.ok()?;
            let node = &workflow["status"]["nodes"][format!("on-{cluster}")];
            (node["phase"] == "Running" && node["lease"]["state"] == "live").then_some(())
        };
        cell.until(WAIT, "the step to run under a live lease", running).await?;
    }
    CLUSTERS.into_iter().for_each(|cluster| cell.lose_cluster(cluster));

    let held = async || {
        let status = cell.get("/api/v1/failover").await.ok()?;
        let all = waits(&status).into_iter().filter(|(_, waits)| waits == "stormBrake").count() == 3;
        (all && status["waiting"].as_array()?.len() == 3).then_some(status)
    };
    let status = cell.until(WAIT, "the storm brake to hold", held).await?;
    assert_eq!(status["stormBrake"]["reason"], "3 of 3 clusters went silent together");
    assert!(
        status["waiting"].as_array().unwrap().iter().all(|one| one["takeOver"]["waitsFor"] == "stormBrake")
    );
    let shown = cell.argosy(&["failover", "status"])?;
    assert!(shown.contains("Storm brake: holds take-overs for at most"), "{shown}");
    let shown = cell.argosy(&["get", "on-a", "-o", "wide"])?;
    assert!(shown.contains("expired, silent") && shown.contains("(storm brake)"), "{shown}");
    let leader = cell.leader().await?;
    cell.counted(leader, "argosy_takeovers_waiting{reason=\"storm_brake\"}", 3.0).await?;

    // One that is said to be gone is taken over, and the others stay.
    let shown = cell.argosy(&["failover", "resume", "--cluster", "b"])?;
    assert!(shown.contains("take-over of cluster b goes on"), "{shown}");
    let taken = async |cluster: &str| {
        let status = cell.get(&format!("/api/v1/clusters/{cluster}")).await.ok()?;
        (status["state"] == "lost").then_some(status)
    };
    let lost = cell.until(WAIT, "b to be taken over", async || taken("b").await).await?;
    assert_eq!(lost["takeOverResumed"]["by"], "admin");
    let status = cell.get("/api/v1/failover").await?;
    let held = |cluster: &str| waits(&status).contains(&(cluster.to_owned(), "stormBrake".to_owned()));
    assert!(held("a") && held("c"), "the storm is still theirs: {status}");

    let (well, text) = cell.try_argosy(&["failover", "resume", "--cluster", "nowhere"])?;
    assert!(!well && text.contains("not found"), "{text}");
    cell.argosy(&["failover", "resume"])?;
    for cluster in ["a", "c"] {
        cell.until(WAIT, "the others to be taken over", async || taken(cluster).await).await?;
    }
    let off = async || {
        let status = cell.get("/api/v1/failover").await.ok()?;
        (status["stormBrake"] == json!({"held": false})).then_some(())
    };
    cell.until(WAIT, "the storm to be over", off).await
}
