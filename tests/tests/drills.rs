//! Drills with members, agents and steps as processes: each loss is real, and the report says what the steps saw.
#![allow(clippy::unwrap_used, reason = "a test")]

use anyhow::{Context, ensure};
use argosy_tests::cell::{Cell, Options};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(90);
const STEPS: usize = 4;

/// Steps that each note that they run, until the file `end` is there. They may run again, however they end.
fn work(directory: &Path) -> Value {
    let path = directory.display();
    let script = format!(
        "echo {{{{item}}}} >> {path}/ran; while [ ! -e {path}/end ]; do sleep 0.1; done; echo {{{{item}}}} >> {path}/done"
    );
    let leaf = json!({
        "name": "leaf", "retryStrategy": {"limit": 3, "retryPolicy": "Always"},
        "inputs": {"parameters": [{"name": "item"}]},
        "container": {"image": "busybox", "command": ["sh", "-c"],
            "args": [script.replace("{{item}}", "{{inputs.parameters.item}}")]},
    });
    let step = json!({
        "name": "work", "template": "leaf", "withSequence": {"count": STEPS.to_string()},
        "arguments": {"parameters": [{"name": "item", "value": "{{item}}"}]},
    });
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"name": "drilled", "labels": {"team": "a"}},
        "spec": {"entrypoint": "main", "templates": [{"name": "main", "steps": [[step]]}, leaf]},
    })
}

fn lines(directory: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A cell of two clusters whose steps all run in `east`. The lease is long enough for `west` to find the next leader on a busy
/// machine: a cluster that is lost for real ends a drill, and the verdict with it.
async fn all_in_the_east(directory: &Path) -> anyhow::Result<Cell> {
    let mut cell = Cell::start(&Options { lease_ms: 6_000, ..Options::default() }).await?;
    cell.start_agent("east").await?;
    cell.wait_for_clusters(1).await?;
    cell.submit(&work(directory)).await?;
    cell.until(WAIT, "the steps to run", async || (lines(directory, "ran").len() == STEPS).then_some(()))
        .await?;
    cell.start_agent("west").await?;
    cell.wait_for_clusters(2).await?;
    Ok(cell)
}

/// The report of the newest drill.
async fn report(cell: &Cell) -> anyhow::Result<Value> {
    let drills = cell.get("/api/v1/drills").await?;
    drills["items"].get(0).cloned().context("a drill")
}

/// After the drill: all steps end well, each of them once.
async fn each_ends_once(cell: &Cell, directory: &Path) -> anyhow::Result<()> {
    std::fs::write(directory.join("end"), "")?;
    let ended = cell.finished("drilled", WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    let drill = report(cell).await?;
    assert_eq!(drill["committedTwice"], 0, "{drill}");
    assert_eq!(drill["report"]["lost"], 0, "{drill}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_cluster_is_taken_over_although_the_leader_dies_meanwhile() -> anyhow::Result<()> {
    let shared = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let directory = shared.path();
    let mut cell = all_in_the_east(directory).await?;
    let plan = cell.argosy(&["drill", "run", "--lose", "east", "--for", "12s", "--dry-run"])?;
    ensure!(plan.contains("west"), "where steps could go is named: {plan}");
    let drills = cell.get("/api/v1/drills").await?;
    assert_eq!(drills["items"], json!([]), "nothing has begun");
    cell.argosy(&["drill", "run", "--lose", "east", "--for", "12s"])?;
    let (well, text) = cell.try_argosy(&["drill", "run", "--lose", "west"])?;
    ensure!(!well && text.contains("one at a time"), "{text}");
    let leader = cell.leader().await?;
    cell.kill_member(leader);
    let (well, text) = cell.try_argosy(&["drill", "wait"])?;
    ensure!(well, "the drill passes: {text}");
    let drill = report(&cell).await?;
    assert_eq!(drill["state"], "passed", "{drill}");
    assert_eq!((&drill["touched"], &drill["moved"]), (&json!(STEPS), &json!(STEPS)), "{drill}");
    assert_eq!(lines(directory, "ran").len(), 2 * STEPS, "every step ran again, in the west");
    // Whoever leads now has the report in its metrics.
    let leader = cell.leader().await?;
    let series = r#"argosy_drill_last_passed{cluster="east",mode="block"}"#;
    cell.counted(leader, series, 1.0).await?;
    each_ends_once(&cell, directory).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_silenced_comes_back_by_itself() -> anyhow::Result<()> {
    let shared = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let directory = shared.path();
    let cell = all_in_the_east(directory).await?;
    let (well, text) = cell.try_argosy(&[
        "drill",
        "run",
        "--lose",
        "east",
        "--for",
        "10s",
        "--mode",
        "kill-agent",
        "--wait",
    ])?;
    ensure!(well, "the drill passes: {text}");
    let drill = report(&cell).await?;
    assert_eq!((&drill["mode"], &drill["fenced"]), (&json!("kill-agent"), &json!(STEPS)), "{drill}");
    cell.wait_for_clusters(2).await?;
    each_ends_once(&cell, directory).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_steps_run_again_and_others_are_left_alone() -> anyhow::Result<()> {
    let shared = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let directory = shared.path();
    let cell = all_in_the_east(directory).await?;
    let kill = |scope: &'static str| {
        ["drill", "run", "--lose", "east", "--for", "5s", "--mode", "kill-pods", "--scope", scope, "--wait"]
    };
    let (well, text) = cell.try_argosy(&kill("team=b"))?;
    ensure!(!well && text.contains("is there to kill"), "a drill that tries nothing does not pass: {text}");
    assert_eq!(lines(directory, "ran").len(), STEPS);
    let (well, text) = cell.try_argosy(&kill("team=a"))?;
    ensure!(well, "the drill passes: {text}");
    let drill = report(&cell).await?;
    assert_eq!((&drill["broken"], &drill["fenced"]), (&json!(STEPS), &json!(0)), "{drill}");
    assert_eq!(lines(directory, "ran").len(), 2 * STEPS);
    each_ends_once(&cell, directory).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_drill_gives_the_cluster_back_and_does_not_pass() -> anyhow::Result<()> {
    let shared = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let directory = shared.path();
    let cell = all_in_the_east(directory).await?;
    cell.argosy(&["drill", "run", "--lose", "east", "--for", "10m"])?;
    cell.argosy(&["drill", "abort", "--reason", "a customer calls"])?;
    let (well, text) = cell.try_argosy(&["drill", "wait"])?;
    ensure!(!well && text.contains("a customer calls"), "it does not pass: {text}");
    cell.wait_for_clusters(2).await?;
    each_ends_once(&cell, directory).await
}
