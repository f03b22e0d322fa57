//! What runs on a bad day, and what has to be true after it.

use anyhow::{Context, bail, ensure};
use argosy_tests::cell::Cell;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For everything that has to happen some time.
pub const LIMIT: Duration = Duration::from_secs(90);

/// The result of a step, by which it is seen whose was committed.
const TELL: &str = "echo $ARGOSY_FENCE > /tmp/fence";
const SAFE: [&str; 3] = ["one", "two", "three"];

/// Two workflows that run until they are let go: steps that are safe to repeat, and one that must not overlap itself.
pub struct Day {
    name: String,
    records: tempfile::TempDir,
    /// Where the exclusive step runs: the cluster that is to be lost.
    pub cluster: String,
}

impl Day {
    /// Submits the workflows and waits until all steps run.
    pub async fn begin(cell: &Cell, name: &str) -> anyhow::Result<Self> {
        // Not below /tmp, of which every step has its own.
        let records = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let mut day = Self { name: name.to_owned(), records, cluster: String::new() };
        cell.submit(&day.safe()).await?;
        cell.submit(&day.exclusive()).await?;
        cell.until(LIMIT, "all steps to begin", async || {
            (day.runs_of_safe_steps() >= SAFE.len() && !day.spans().is_empty()).then_some(())
        })
        .await?;
        day.cluster = cell
            .until(LIMIT, "the exclusive step to be known as running", async || {
                let workflow = cell.get(&path(&format!("alone-{name}"))).await.ok()?;
                let attempts = pods(&workflow).iter().flat_map(attempts).collect::<Vec<_>>();
                let running = attempts.into_iter().find(|attempt| attempt["phase"] == "Running")?;
                running["cluster"].as_str().map(str::to_owned)
            })
            .await?;
        Ok(day)
    }

    /// Where steps write what they do, and others may leave files.
    pub fn directory(&self) -> PathBuf {
        self.records.path().to_owned()
    }

    fn safe(&self) -> Value {
        let records = self.records.path().display();
        let script = format!(
            "echo $ARGOSY_FENCE >> {records}/safe; until test -e {records}/go; do sleep 0.1; done; {TELL}"
        );
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": {"name": format!("safe-{}", self.name)},
            "spec": {"entrypoint": "main", "templates": [
                {"name": "main", "steps": [[{"name": "step", "template": "step", "withItems": SAFE}]]},
                {"name": "step", "outputs": outputs(), "metadata": {"annotations": {"argosy.dev/idempotent": "true"}},
                 "container": {"image": "busybox", "command": ["sh", "-c"], "args": [script]}},
            ]},
        })
    }

    /// Every run writes a line when it begins, every 50 ms, and when it ends: its fence and the time since boot, which is
    /// the same everywhere whatever the wall clocks say.
    fn exclusive(&self) -> Value {
        let records = self.records.path().display();
        let tell = format!("echo $ARGOSY_FENCE $(cut -d' ' -f1 /proc/uptime) >> {records}/exclusive");
        let script =
            format!("{tell}; until test -e {records}/go; do {tell}; sleep 0.05; done; {tell}; {TELL}");
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": {"name": format!("alone-{}", self.name)},
            "spec": {"entrypoint": "main", "templates": [{
                "name": "main",
                "outputs": outputs(),
                "metadata": {"annotations": {
                    "argosy.dev/exclusive": "true", "argosy.dev/exclusive-lease": "5s",
                }},
                "retryStrategy": {"limit": 5, "retryPolicy": "OnError"},
                "container": {"image": "busybox", "command": ["sh", "-c"], "args": [script]},
            }]},
        })
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.records.path().join(name)).unwrap_or_default()
    }

    /// How often steps that are safe to repeat have begun.
    pub fn runs_of_safe_steps(&self) -> usize {
        self.read("safe").lines().count()
    }

    /// First and last sign of each run of the exclusive step, by its fence.
    fn spans(&self) -> BTreeMap<String, (f64, f64)> {
        let mut found = BTreeMap::new();
        for line in self.read("exclusive").lines() {
            let Some((fence, time)) = line.split_once(' ') else { continue };
            let Ok(time) = time.parse::<f64>() else { continue };
            let span = found.entry(fence.to_owned()).or_insert((time, time));
            *span = (span.0.min(time), span.1.max(time));
        }
        found
    }

    /// Waits until the exclusive step has begun again.
    pub async fn taken_over(&self, cell: &Cell) -> anyhow::Result<()> {
        let began = async || (self.spans().len() >= 2).then_some(());
        cell.until(LIMIT, "the exclusive step to run a second time", began).await
    }

    /// Waits until a workflow that is submitted now has run to its end.
    pub async fn goes_on(&self, cell: &Cell) -> anyhow::Result<()> {
        let leaf = json!({"name": "main", "container": {"image": "busybox", "command": ["true"]},
            "metadata": {"annotations": {"argosy.dev/idempotent": "true"}}});
        let workflow = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": {"name": format!("meanwhile-{}", self.name)},
            "spec": {"entrypoint": "main", "templates": [leaf]},
        });
        let name = cell.submit(&workflow).await?;
        succeeded(&cell.finished(&name, LIMIT).await?)
    }

    /// Lets everything end and looks at what became of it.
    pub async fn end(self, cell: &Cell, clusters: usize) -> anyhow::Result<()> {
        std::fs::write(self.records.path().join("go"), "")?;
        for kind in ["safe", "alone"] {
            let workflow = cell.finished(&format!("{kind}-{}", self.name), LIMIT).await?;
            succeeded(&workflow)?;
            committed_once(&workflow)?;
        }
        cell.wait_for_clusters(clusters).await?;
        cell.until(LIMIT, "no step to be left behind", async || {
            left_behind(self.records.path()).is_empty().then_some(())
        })
        .await
        .with_context(|| format!("left behind: {:?}", left_behind(self.records.path())))?;
        let mut spans: Vec<_> = self.spans().into_iter().collect();
        spans.sort_by(|(_, one), (_, other)| one.0.total_cmp(&other.0));
        for pair in spans.windows(2) {
            ensure!(pair[0].1.1 < pair[1].1.0, "two runs of an exclusive step overlap: {spans:?}");
        }
        Ok(())
    }
}

fn outputs() -> Value {
    json!({"parameters": [{"name": "fence", "valueFrom": {"path": "/tmp/fence"}}]})
}

fn path(workflow: &str) -> String {
    format!("/api/v1/workflows/default/{workflow}")
}

fn succeeded(workflow: &Value) -> anyhow::Result<()> {
    ensure!(workflow["status"]["phase"] == "Succeeded", "{}", workflow["status"]);
    Ok(())
}

fn pods(workflow: &Value) -> Vec<Value> {
    let nodes = workflow["status"]["nodes"].as_object().cloned().unwrap_or_default();
    nodes.into_iter().map(|(_, node)| node).filter(|node| node["type"] == "Pod").collect()
}

fn attempts(pod: &Value) -> Vec<Value> {
    pod["attempts"].as_array().cloned().unwrap_or_default()
}

/// Every node that succeeded has one attempt that did, and the result that this very attempt told.
fn committed_once(workflow: &Value) -> anyhow::Result<()> {
    for pod in pods(workflow) {
        let committed: Vec<_> =
            attempts(&pod).into_iter().filter(|attempt| attempt["phase"] == "Succeeded").collect();
        match (pod["phase"] == "Succeeded", committed.as_slice()) {
            (true, [one]) => {
                let told = pod["outputs"]["parameters"][0]["value"].as_str().unwrap_or_default().trim();
                ensure!(one["fence"] == told, "another's result: {pod}");
            }
            (false, []) => {}
            _ => bail!("not one committed result: {pod}"),
        }
    }
    Ok(())
}

/// Command lines of processes that name the day's directory: steps and their executors, wherever they hang by now.
fn left_behind(records: &Path) -> Vec<String> {
    let wanted = records.display().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&wanted)).collect()
}
