//! Exclusive steps in real processes: whatever becomes of their agent or of the control plane, two runs never overlap, since
//! the executor ends its command when its lease runs out.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use anyhow::Context;
use argosy_tests::cell::{Cell, Options};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

/// Every run tells the time since boot to a file named after its fence, again and again, until the file `go` is there.
fn beating(name: &str, signs: &Path, template: &Value) -> Value {
    let signs = signs.display();
    let script = format!(
        "until test -e {signs}/go; do cut -d' ' -f1 /proc/uptime >> {signs}/$ARGOSY_FENCE; sleep 0.05; done; echo $ARGOSY_FENCE"
    );
    let mut main = json!({
        "name": "main",
        "metadata": {"annotations": {"argosy.dev/exclusive": "true", "argosy.dev/exclusive-lease": "5s"}},
        "container": {"image": "busybox", "command": ["sh", "-c"], "args": [script]},
    });
    for (key, value) in template.as_object().into_iter().flatten() {
        main[key.as_str()] = value.clone();
    }
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [main]},
    })
}

/// First and last beat of each run, by fence.
fn beats(signs: &Path) -> BTreeMap<String, (f64, f64)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(signs).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let mut times = text.lines().filter_map(|line| line.parse::<f64>().ok());
        if name != "go"
            && let Some(first) = times.next()
        {
            found.insert(name, (first, times.next_back().unwrap_or(first)));
        }
    }
    found
}

async fn started(cell: &Cell, signs: &Path, count: usize) -> anyhow::Result<()> {
    let what = format!("run {count} to begin");
    cell.until(LIMIT, &what, async || (beats(signs).len() >= count).then_some(())).await
}

/// What executors and commands of a cluster wrote.
fn step_logs(cell: &Cell, cluster: &str) -> String {
    let attempts = cell.directory.path().join(format!("cluster-{cluster}/attempts"));
    let logs = std::fs::read_dir(attempts).into_iter().flatten().flatten();
    logs.filter_map(|entry| std::fs::read_to_string(entry.path().join("log")).ok()).collect()
}

/// Runs of the step follow one another.
fn assert_apart(signs: &Path) {
    let mut runs: Vec<_> = beats(signs).into_iter().collect();
    runs.sort_by(|(_, one), (_, other)| one.0.total_cmp(&other.0));
    for pair in runs.windows(2) {
        assert!(pair[0].1.1 < pair[1].1.0, "two runs of an exclusive step overlap: {runs:?}");
    }
}

/// Not below /tmp, of which every step has its own.
fn signs() -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("argosy-test-").tempdir_in("/var/tmp")?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusive_step_ends_itself_before_it_starts_elsewhere() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options { members: 1, ..Options::default() }).await?;
    for cluster in ["east", "west"] {
        cell.start_agent(cluster).await?;
    }
    cell.wait_for_clusters(2).await?;
    let signs = signs()?;
    let name = cell.submit(&beating("cut-off", signs.path(), &json!({}))).await?;
    started(&cell, signs.path(), 1).await?;
    let path = format!("/api/v1/workflows/default/{name}");
    let found = cell.get(&path).await?;
    let first = found["status"]["nodes"]["cut-off"]["cluster"].as_str().context("a cluster")?.to_owned();
    cell.signal_agent(&first, Signal::SIGSTOP)?;
    started(&cell, signs.path(), 2).await?;
    assert!(
        step_logs(&cell, &first).contains("the exclusive lease runs out"),
        "{}",
        step_logs(&cell, &first)
    );
    std::fs::write(signs.path().join("go"), "")?;
    let done = cell.finished(&name, LIMIT).await?;
    let node = &done["status"]["nodes"]["cut-off"];
    assert_eq!(node["phase"], "Succeeded", "{}", done["status"]);
    assert_ne!(node["cluster"], first.as_str());
    cell.signal_agent(&first, Signal::SIGCONT)?;
    assert_apart(signs.path());
    assert_eq!(beats(signs.path()).len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_control_plane_an_exclusive_step_ends_as_an_error_and_is_tried_again()
-> anyhow::Result<()> {
    let mut cell = Cell::start(&Options { members: 1, ..Options::default() }).await?;
    cell.start_agent("east").await?;
    cell.wait_for_clusters(1).await?;
    let signs = signs()?;
    let retry = json!({"retryStrategy": {"limit": 1, "retryPolicy": "OnError"}});
    let name = cell.submit(&beating("alone", signs.path(), &retry)).await?;
    started(&cell, signs.path(), 1).await?;
    cell.signal_member(1, Signal::SIGSTOP)?;
    let ended = async || step_logs(&cell, "east").contains("the exclusive lease runs out").then_some(());
    cell.until(LIMIT, "the step to end itself", ended).await?;
    cell.signal_member(1, Signal::SIGCONT)?;
    started(&cell, signs.path(), 2).await?;
    std::fs::write(signs.path().join("go"), "")?;
    let done = cell.finished(&name, LIMIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let nodes = done["status"]["nodes"].as_object().context("nodes")?;
    let first = nodes.values().find(|node| node["displayName"] == "alone(0)").context("a first try")?;
    assert_eq!(first["phase"], "Error");
    assert!(first["message"].as_str().unwrap_or_default().contains("exclusive lease"), "{first}");
    assert_apart(signs.path());
    Ok(())
}
