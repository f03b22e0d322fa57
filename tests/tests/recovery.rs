//! Disasters, with real processes: a backup that is restored while steps run on, and a quorum that is lost for good.

use anyhow::{Context, ensure};
use argosy_tests::cell::{Cell, Options, TOKEN, binary};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);

/// A directory that steps see as well: /tmp is each step's own.
fn shared_directory() -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// A workflow whose step runs until its file appears, then writes how often it ran.
fn until_file(name: &str, directory: &Path) -> Value {
    let (go, ran) = (directory.join(format!("{name}.go")), directory.join(format!("{name}.ran")));
    let script = format!(
        "echo ran >> {}; while [ ! -e {} ]; do sleep 0.1; done; echo done",
        ran.display(),
        go.display()
    );
    let leaf =
        json!({"name": "main", "container": {"image": "busybox", "command": ["sh", "-c"], "args": [script]}});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [leaf]},
    })
}

fn ran(name: &str, directory: &Path) -> usize {
    let text = std::fs::read_to_string(directory.join(format!("{name}.ran"))).unwrap_or_default();
    text.lines().count()
}

/// `argosy ARGUMENTS` against the cell; what it printed.
fn argosy(cell: &Cell, arguments: &[&str]) -> anyhow::Result<String> {
    let servers: Vec<String> = cell.members.keys().map(|member| cell.api(*member)).collect();
    let output = Command::new(binary("argosy")?)
        .args(arguments)
        .env("ARGOSY_SERVER", servers.join(","))
        .env("ARGOSY_TOKEN", TOKEN)
        .env("ARGOSY_CERTIFICATE_AUTHORITY", cell.directory.path().join("pki").join("ca.pem"))
        .env("ARGOSY_HOME", cell.directory.path().join("home"))
        .output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "argosy {arguments:?}: {out}{err}");
    Ok(out.into_owned())
}

async fn running(cell: &Cell, name: &str, directory: &Path) -> anyhow::Result<()> {
    cell.until(WAIT, "the step to run", async || (ran(name, directory) == 1).then_some(())).await?;
    cell.until(WAIT, "the step to be known as running", async || {
        let workflow = cell.get(&format!("/api/v1/workflows/default/{name}")).await.ok()?;
        let nodes = workflow["status"]["nodes"]
            .as_object()?
            .values()
            .any(|node| node["phase"] == "Running" && node["type"] == "Pod");
        nodes.then_some(())
    })
    .await
}

async fn cluster(cell: &Cell, name: &str) -> Option<Value> {
    cell.get(&format!("/api/v1/clusters/{name}")).await.ok()
}

fn backup_of(cell: &Cell) -> anyhow::Result<PathBuf> {
    let directory = cell.directory.path().join("backups");
    let printed = argosy(cell, &["backup", "create", &directory.display().to_string()])?;
    let found = std::fs::read_dir(&directory)?.next().context("a backup")??.path();
    ensure!(printed.contains("workflows under way"), "{printed}");
    argosy(cell, &["backup", "verify", &found.display().to_string()])?;
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cell_adopts_what_it_knows_and_leaves_the_rest_in_quarantine() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    let files = shared_directory()?;
    cell.start_agent("east").await?;
    cell.wait_for_clusters(1).await?;
    cell.submit(&until_file("known", files.path())).await?;
    running(&cell, "known", files.path()).await?;
    let backup = backup_of(&cell)?;
    cell.submit(&until_file("unknown", files.path())).await?;
    running(&cell, "unknown", files.path()).await?;
    for member in [1, 2, 3] {
        cell.kill_member(member);
        std::fs::remove_dir_all(&cell.configs[&member].data_dir)?;
    }
    let config = cell.directory.path().join("member-2.yaml").display().to_string();
    argosy(&cell, &["backup", "restore", &backup.display().to_string(), "--config", &config])?;
    cell.start_member(2)?;
    cell.until(WAIT, "the cluster to be reconciled", async || {
        let recovery = cluster(&cell, "east").await?["recovery"].clone();
        (recovery["reconciling"] == json!(false)).then_some(())
    })
    .await?;
    let found = cluster(&cell, "east").await.context("the cluster")?["recovery"].clone();
    assert_eq!(found["adopted"], json!(2), "{found}");
    assert_eq!(found["rerun"], json!(0), "{found}");
    assert_eq!(found["quarantined"].as_array().map(Vec::len), Some(1), "{found}");
    let printed = argosy(&cell, &["recovery"])?;
    assert!(printed.contains("reconciled"), "{printed}");
    // The known step goes on and is the only one of its kind.
    std::fs::write(files.path().join("known.go"), "")?;
    let done = cell.finished("known", WAIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    assert_eq!(ran("known", files.path()), 1);
    // The unknown one is stopped when the operator says so.
    argosy(&cell, &["recovery", "--release", "east"])?;
    cell.until(WAIT, "the quarantine to be empty", async || {
        let recovery = cluster(&cell, "east").await?["recovery"].clone();
        recovery["quarantined"].as_array()?.is_empty().then_some(())
    })
    .await?;
    // A member that was lost joins again, under a new number or its old one.
    let addresses = cell.start_joining(4)?;
    let body = json!({"id": 4, "peer": addresses.peer, "agent": addresses.agent, "api": addresses.api});
    cell.post("/api/v1/members", &body).await?;
    cell.until(WAIT, "the new member to vote", async || {
        let members = cell.get("/api/v1/members").await.ok()?;
        let votes = |member: &Value| member["id"] == json!(4) && member["role"] == "follower";
        members["items"].as_array()?.iter().any(votes).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_member_goes_on_alone_and_its_steps_run_on() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    let files = shared_directory()?;
    cell.start_agent("east").await?;
    cell.wait_for_clusters(1).await?;
    cell.submit(&until_file("step", files.path())).await?;
    running(&cell, "step", files.path()).await?;
    for member in [1, 2, 3] {
        cell.kill_member(member);
    }
    let config = cell.directory.path().join("member-1.yaml").display().to_string();
    let refused =
        argosy(&cell, &["recover", "--config", &config, "--lost", "2"]).expect_err("3 is not named");
    assert!(refused.to_string().contains("--lost 2,3"), "{refused}");
    argosy(&cell, &["recover", "--config", &config, "--lost", "2,3"])?;
    cell.start_member(1)?;
    cell.until(WAIT, "the cluster to be reconciled", async || {
        let recovery = cluster(&cell, "east").await?["recovery"].clone();
        (recovery["adopted"] == json!(1)).then_some(())
    })
    .await?;
    std::fs::write(files.path().join("step.go"), "")?;
    let done = cell.finished("step", WAIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    assert_eq!(ran("step", files.path()), 1);
    Ok(())
}
