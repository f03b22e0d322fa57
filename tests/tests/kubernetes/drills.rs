//! Drills on real clusters: Pods that are killed for real, and a cluster that is blocked.

use super::{WAIT, all_to, let_go, nodes, phase, running, say, until, waiting};
use anyhow::{Context, ensure};
use argosy_testcluster::Cluster;
use argosy_tests::cell::Cell;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const STEPS: usize = 4;

async fn report(cell: &Cell) -> anyhow::Result<Value> {
    let drills = cell.get("/api/v1/drills").await?;
    drills["items"].get(0).cloned().context("a drill")
}

/// A drill with that loss passes, and the steps of the cluster run again in other Pods.
async fn passes(cell: &Cell, clusters: &[Cluster], name: &str, loss: &[&str]) -> anyhow::Result<Value> {
    let mut submitted = waiting(name, &[1, 2, 3, 4], true);
    submitted["metadata"]["labels"] = json!({"drilled": name});
    submitted["spec"]["templates"][1]["retryStrategy"] = json!({"limit": 3, "retryPolicy": "Always"});
    let (home, other) = (&clusters[0], &clusters[1]);
    all_to(cell, other, || running(home, name).len() == STEPS, &[submitted]).await?;
    let before = running(home, name);
    let all = || {
        clusters
            .iter()
            .flat_map(|cluster| running(cluster, name))
            .map(|pod| pod.name)
            .collect::<BTreeSet<_>>()
    };
    let arguments = [&["drill", "run", "--lose", home.name.as_str()], loss, &["--wait"]].concat();
    let (well, text) = cell.try_argosy(&arguments)?;
    let drill = report(cell).await?;
    ensure!(well && drill["state"] == "passed", "the drill passes: {text}{drill}");
    until("other Pods to stand for them, and no others", || {
        let now = all();
        now.len() == STEPS && before.iter().all(|old| !now.contains(&old.name))
    })
    .await;
    for cluster in clusters {
        for pod in running(cluster, name) {
            assert!(let_go(cluster, &pod));
        }
    }
    let ended = cell.finished(name, WAIT).await?;
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    let succeeded =
        nodes(&ended).filter(|node| node["type"] == "Pod" && node["phase"] == "Succeeded").count();
    assert_eq!(succeeded, STEPS, "{}", ended["status"]);
    let drill = report(cell).await?;
    assert_eq!((&drill["committedTwice"], &drill["report"]["lost"]), (&json!(0), &json!(0)), "{drill}");
    assert_eq!(drill["touched"], json!(before.len()), "{drill}");
    Ok(drill)
}

pub async fn losses_are_rehearsed(cell: &Cell, clusters: &[Cluster]) -> anyhow::Result<()> {
    let killed = ["--mode", "kill-pods", "--for", "10s", "--scope", "drilled=kill-pods"];
    let drill = passes(cell, clusters, "kill-pods", &killed).await?;
    assert_eq!((&drill["broken"], &drill["fenced"]), (&drill["touched"], &json!(0)), "{drill}");
    say("a drill: Pods killed, tried again");
    let drill = passes(cell, clusters, "block", &["--mode", "block", "--for", "20s"]).await?;
    assert_eq!((&drill["fenced"], &drill["moved"]), (&drill["touched"], &drill["touched"]), "{drill}");
    cell.wait_for_clusters(2).await?;
    say("a drill: a blocked cluster, fenced and moved");
    Ok(())
}
