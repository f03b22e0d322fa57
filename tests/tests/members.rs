//! The control plane's own life, with real processes: members that join, replace others and leave; leadership that is
//! handed over.

use anyhow::Context;
use argosy_tests::cell::{Cell, Options};
use serde_json::{Value, json};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);

fn echo(name: &str) -> Value {
    let leaf =
        json!({"name": "main", "container": {"image": "busybox", "command": ["echo"], "args": ["hello"]}});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [leaf]},
    })
}

/// Role of each member, as one of them says.
async fn roles(cell: &Cell) -> Option<Vec<(u64, String)>> {
    let members = cell.get("/api/v1/members").await.ok()?;
    let role = |member: &Value| Some((member["id"].as_u64()?, member["role"].as_str()?.to_owned()));
    members["items"].as_array()?.iter().map(role).collect()
}

fn votes(role: &str) -> bool {
    role == "leader" || role == "follower"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_member_is_replaced_and_the_next_loss_is_survived() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    cell.start_agent("east").await?;
    cell.wait_for_clusters(1).await?;
    let leader = cell.leader().await?;
    let lost = (1..=3).find(|member| *member != leader).context("there are three")?;
    cell.kill_member(lost);
    let addresses = cell.start_joining(4)?;
    let body = json!({
        "id": 4, "peer": addresses.peer, "agent": addresses.agent, "api": addresses.api, "replaces": lost,
    });
    cell.post("/api/v1/members", &body).await?;
    cell.until(WAIT, "the new member to vote and the lost one to be gone", async || {
        let roles = roles(&cell).await?;
        let joined = roles.iter().any(|(id, role)| *id == 4 && votes(role));
        (joined && roles.iter().all(|(id, _)| *id != lost)).then_some(())
    })
    .await?;
    // A quorum of the three needs the new one now.
    cell.kill_member(cell.leader().await?);
    let name = cell.submit(&echo("after-two-losses")).await?;
    let done = cell.finished(&name, WAIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let body = json!({"id": lost, "peer": "a.example:1", "agent": "a.example:2", "api": "a.example:3"});
    let refused = cell.post("/api/v1/members", &body);
    let refused = refused.await.expect_err("a number is never used again").to_string();
    assert!(refused.contains("ARG1240") || refused.contains("never used again"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_and_a_leader_leaves_under_load() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    cell.start_agent("east").await?;
    cell.wait_for_clusters(1).await?;
    let leader = cell.leader().await?;
    let next = (1..=3).find(|member| *member != leader).context("there are three")?;
    let mut names = vec![cell.submit(&echo("before")).await?];
    let path = format!("/api/v1/members/{next}/lead");
    cell.request(reqwest::Method::PUT, &path, Some(&json!({})), "lead").await?;
    cell.until(WAIT, "the other to lead", async || (cell.leader().await.ok()? == next).then_some(())).await?;
    names.push(cell.submit(&echo("between")).await?);
    let path = format!("/api/v1/members/{next}");
    cell.request(reqwest::Method::DELETE, &path, None, "").await?;
    cell.until(WAIT, "the leader to be gone", async || {
        roles(&cell).await?.iter().all(|(id, _)| *id != next).then_some(())
    })
    .await?;
    cell.kill_member(next);
    names.push(cell.submit(&echo("after")).await?);
    for name in names {
        let done = cell.finished(&name, WAIT).await?;
        assert_eq!(done["status"]["phase"], "Succeeded", "{name}: {}", done["status"]);
    }
    // Two are left: none may go while the other is needed.
    let rest: Vec<u64> = roles(&cell).await.context("members")?.into_iter().map(|(id, _)| id).collect();
    assert_eq!(rest.len(), 2, "{rest:?}");
    Ok(())
}
