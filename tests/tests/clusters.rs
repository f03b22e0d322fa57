//! The life of clusters under work, with members and agents as processes: drained, removed, invited again.
#![allow(clippy::unwrap_used, reason = "a test")]

use anyhow::{Context, ensure};
use argosy_tests::cell::{Cell, Options};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);

/// A directory that steps see as well: /tmp is each step's own.
fn shared_directory() -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// One step that tells where it runs, and runs until the file `NAME.end` is there.
fn step(name: &str, directory: &Path, annotations: &Value) -> Value {
    let path = directory.join(name);
    let path = path.display();
    let script = format!("pwd >> {path}.ran; while [ ! -e {path}.end ]; do sleep 0.1; done");
    let leaf = json!({
        "name": "main", "metadata": {"annotations": annotations},
        "container": {"image": "busybox", "command": ["sh", "-c"], "args": [script]},
    });
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [leaf]},
    })
}

fn end(directory: &Path, name: &str) -> anyhow::Result<()> {
    Ok(std::fs::write(directory.join(format!("{name}.end")), "")?)
}

fn runs(directory: &Path, name: &str) -> usize {
    std::fs::read_to_string(directory.join(format!("{name}.ran"))).unwrap_or_default().lines().count()
}

/// Clusters of all attempts of a workflow's steps.
fn attempts(workflow: &Value) -> Vec<(String, String)> {
    let nodes = workflow["status"]["nodes"].as_object().cloned().unwrap_or_default();
    let attempts = nodes.values().flat_map(|node| node["attempts"].as_array().cloned().unwrap_or_default());
    let text = |attempt: &Value, field: &str| attempt[field].as_str().unwrap_or_default().to_owned();
    attempts.map(|attempt| (text(&attempt, "cluster"), text(&attempt, "phase"))).collect()
}

async fn running(cell: &Cell, name: &str) -> anyhow::Result<String> {
    let path = format!("/api/v1/workflows/default/{name}");
    cell.until(WAIT, "the step to be known as running", async || {
        let workflow = cell.get(&path).await.ok()?;
        attempts(&workflow).into_iter().find(|(_, phase)| phase == "Running").map(|(cluster, _)| cluster)
    })
    .await
}

async fn cluster(cell: &Cell, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let path = format!("/api/v1/clusters/{name}");
    cell.until(WAIT, what, async || cell.get(&path).await.ok().filter(|cluster| is(cluster))).await
}

async fn two_clusters() -> anyhow::Result<Cell> {
    let mut cell = Cell::start(&Options::default()).await?;
    for cluster in ["east", "west"] {
        cell.start_agent(cluster).await?;
    }
    cell.wait_for_clusters(2).await?;
    Ok(cell)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_moves_what_it_may_names_the_rest_and_survives_its_leader() -> anyhow::Result<()> {
    let mut cell = two_clusters().await?;
    let shared = shared_directory()?;
    let directory = shared.path().to_owned();
    cell.argosy(&["cluster", "cordon", "west"])?;
    cluster(&cell, "west", "the cordon", |west| west["state"] == "cordoned").await?;
    let safe = cell.submit(&step("safe", &directory, &json!({"argosy.dev/idempotent": "true"}))).await?;
    let unsafe_one = cell.submit(&step("unsafe", &directory, &json!({}))).await?;
    for name in [&safe, &unsafe_one] {
        assert_eq!(running(&cell, name).await?, "east", "west is cordoned");
    }
    cell.argosy(&["cluster", "uncordon", "west"])?;
    let text = cell.argosy(&["cluster", "drain", "east", "--deadline", "3s", "--no-wait"])?;
    ensure!(text.contains("2 running"), "{text}");
    // The drain is the cell's: it goes on although the leader that began it dies before the deadline.
    let leader = cell.leader().await?;
    cell.kill_member(leader);
    let path = format!("/api/v1/workflows/default/{safe}");
    cell.until(WAIT, "the safe step to run elsewhere", async || {
        let workflow = cell.get(&path).await.ok()?;
        attempts(&workflow).contains(&("west".to_owned(), "Running".to_owned())).then_some(())
    })
    .await?;
    assert_eq!(runs(&directory, "safe"), 2);
    let east =
        cluster(&cell, "east", "the drain to come to what can't move", |east| east["attempts"] == 1).await?;
    assert_eq!(east["state"], "draining", "{east}");
    let stuck = &east["drain"]["cannotMove"][0];
    assert_eq!(stuck["workflow"], "default/unsafe", "{east}");
    ensure!(stuck["reason"].as_str().is_some_and(|reason| reason.contains("safe to run again")), "{east}");
    end(&directory, "unsafe")?;
    let ended = cell.finished(&unsafe_one, WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded");
    assert_eq!(runs(&directory, "unsafe"), 1, "it was let end where it ran");
    // Asked again, it says that the cluster is empty.
    let text = cell.argosy(&["cluster", "drain", "east"])?;
    ensure!(text.contains("east is empty"), "{text}");
    end(&directory, "safe")?;
    let ended = cell.finished(&safe, WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded");
    cell.argosy(&["cluster", "uncordon", "east"])?;
    cluster(&cell, "east", "the cluster to be open again", |east| east["state"] == "connected").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_cluster_lets_go_of_everything_and_may_be_invited_again() -> anyhow::Result<()> {
    let mut cell = two_clusters().await?;
    let shared = shared_directory()?;
    let directory = shared.path().to_owned();
    let name = cell.submit(&step("moves", &directory, &json!({}))).await?;
    let first = running(&cell, &name).await?;
    let (well, text) = cell.try_argosy(&["cluster", "remove", &first])?;
    ensure!(!well && text.contains("drain it first"), "{text}");
    cell.argosy(&["cluster", "remove", &first, "--forget"])?;
    let path = format!("/api/v1/workflows/default/{name}");
    cell.until(WAIT, "the step to run elsewhere", async || {
        let workflow = cell.get(&path).await.ok()?;
        let other = |(cluster, phase): &(String, String)| *cluster != first && phase == "Running";
        attempts(&workflow).iter().any(other).then_some(())
    })
    .await?;
    let clusters = cell.get("/api/v1/clusters").await?;
    let names = clusters["items"].as_array().context("items")?.iter().map(|one| one["name"].clone());
    ensure!(names.into_iter().all(|one| one != json!(first)), "{clusters}");
    // Its agent ended what it had: of the step's processes only the new one is left.
    let pattern = directory.join("moves.end").display().to_string();
    cell.until(WAIT, "the old step's process to end", async || (processes_with(&pattern) == 1).then_some(()))
        .await?;
    end(&directory, "moves")?;
    let ended = cell.finished(&name, WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    // The same name, built anew.
    cell.lose_cluster(&first);
    std::fs::remove_dir_all(cell.directory.path().join(format!("cluster-{first}")))?;
    cell.start_agent(&first).await?;
    cell.wait_for_clusters(2).await?;
    Ok(())
}

/// Shells whose command line has this text.
fn processes_with(text: &str) -> usize {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let command = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
    processes
        .map(command)
        .filter(|line| line.starts_with(b"sh\0-c\0") && String::from_utf8_lossy(line).contains(text))
        .count()
}
