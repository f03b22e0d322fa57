//! What runs on a bad day, and what has to be true after it. On real clusters the steps are Pods in a namespace of their own,
//! which can be deleted afterwards, and no Pod is held.

#![expect(clippy::missing_errors_doc, reason = "what a day says went otherwise is its error")]

use crate::cell::Cell;
use anyhow::{Context, bail, ensure};
use argosy_testcluster::Cluster;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// For everything that has to happen some time.
pub const LIMIT: Duration = Duration::from_secs(150);

/// The result of a step, by which it is seen whose was committed.
const TELL: &str = "echo $ARGOSY_FENCE > /tmp/fence";
const SAFE: [&str; 3] = ["one", "two", "three"];

/// Two workflows that run until they are let go: steps that are safe to repeat, and one that must not overlap itself.
pub struct Day {
    name: String,
    namespace: String,
    on_kubernetes: bool,
    records: tempfile::TempDir,
    /// Where the exclusive step runs: the cluster that is to be lost.
    pub cluster: String,
}

impl Day {
    /// Submits the workflows and waits until all steps run.
    pub async fn begin(cell: &Cell, name: &str) -> anyhow::Result<Self> {
        let on_kubernetes = !cell.kubernetes.is_empty();
        let namespace = if on_kubernetes { format!("day-{name}") } else { "default".to_owned() };
        for cluster in cell.kubernetes.values() {
            cluster.kubectl(&["create", "namespace", &namespace])?;
        }
        let (name, records) = (name.to_owned(), records()?);
        let mut day = Self { name, namespace, on_kubernetes, records, cluster: String::new() };
        cell.submit(&day.safe()).await?;
        cell.submit(&day.exclusive()).await?;
        cell.until(LIMIT, "all steps to begin", async || {
            (day.runs_of_safe_steps() >= SAFE.len() && !day.spans().is_empty()).then_some(())
        })
        .await?;
        day.cluster = cell
            .until(LIMIT, "the exclusive step to be known as running", async || {
                let workflow = cell.get(&day.path(&format!("alone-{}", day.name))).await.ok()?;
                let attempts = pods(&workflow).iter().flat_map(attempts).collect::<Vec<_>>();
                let running = attempts.into_iter().find(|attempt| attempt["phase"] == "Running")?;
                running["cluster"].as_str().map(str::to_owned)
            })
            .await?;
        Ok(day)
    }

    /// As [`Self::begin`], with all steps in one cluster.
    pub async fn begin_in(cell: &Cell, name: &str, cluster: &str) -> anyhow::Result<Self> {
        let others: Vec<_> = cell.agents.keys().filter(|other| *other != cluster).collect();
        for other in &others {
            cell.argosy(&["cluster", "cordon", other])?;
        }
        let day = Self::begin(cell, name).await?;
        for other in &others {
            cell.argosy(&["cluster", "uncordon", other])?;
        }
        ensure!(day.cluster == cluster, "the steps run in {}", day.cluster);
        Ok(day)
    }

    /// Where steps write what they do, and others may leave files.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.records.path().to_owned()
    }

    /// The namespace of the steps.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn path(&self, workflow: &str) -> String {
        format!("/api/v1/workflows/{}/{workflow}", self.namespace)
    }

    fn workflow(&self, kind: &str, templates: &Value) -> Value {
        let mut made = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": {"name": format!("{kind}-{}", self.name), "namespace": self.namespace},
            "spec": {"entrypoint": "main", "templates": templates},
        });
        if self.on_kubernetes {
            let directory = json!({"path": self.records.path(), "type": "Directory"});
            made["spec"]["volumes"] = json!([{"name": "records", "hostPath": directory}]);
        }
        made
    }

    /// The machine is shared by all clusters: what a step writes there is seen here.
    fn container(&self, script: &str) -> Value {
        let mut made = json!({"image": "busybox", "command": ["sh", "-c"], "args": [script]});
        if self.on_kubernetes {
            made["imagePullPolicy"] = "IfNotPresent".into();
            made["volumeMounts"] = json!([{"name": "records", "mountPath": self.records.path()}]);
        }
        made
    }

    fn safe(&self) -> Value {
        let records = self.records.path().display();
        let script = format!(
            "echo $ARGOSY_FENCE >> {records}/safe; until test -e {records}/go; do sleep 0.1; done; \
             echo $ARGOSY_FENCE >> {records}/ended; {TELL}"
        );
        let step = json!({"name": "step", "outputs": outputs(),
            "metadata": {"annotations": {"argosy.dev/idempotent": "true"}}, "container": self.container(&script)});
        let main =
            json!({"name": "main", "steps": [[{"name": "step", "template": "step", "withItems": SAFE}]]});
        self.workflow("safe", &json!([main, step]))
    }

    /// Every run writes a line when it begins, every 50 ms, and when it ends: its fence and the time since boot, which is
    /// the same everywhere whatever the wall clocks say.
    fn exclusive(&self) -> Value {
        let records = self.records.path().display();
        let tell = format!("echo $ARGOSY_FENCE $(cut -d' ' -f1 /proc/uptime) >> {records}/exclusive");
        let script = format!(
            "{tell}; until test -e {records}/go; do {tell}; sleep 0.05; done; {tell}; \
             echo $ARGOSY_FENCE >> {records}/ended; {TELL}"
        );
        let marks = json!({"argosy.dev/exclusive": "true", "argosy.dev/exclusive-lease": "5s"});
        let main = json!({"name": "main", "outputs": outputs(), "metadata": {"annotations": marks},
            "retryStrategy": {"limit": 5, "retryPolicy": "Always"}, "container": self.container(&script)});
        self.workflow("alone", &json!([main]))
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.records.path().join(name)).unwrap_or_default()
    }

    /// How often steps that are safe to repeat have begun.
    #[must_use]
    pub fn runs_of_safe_steps(&self) -> usize {
        self.read("safe").lines().count()
    }

    /// Lets all steps end.
    pub fn let_go(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(self.records.path().join("go"), "")?)
    }

    /// Waits until as many steps as there are have ended, by what they wrote.
    pub async fn all_ended(&self, cell: &Cell) -> anyhow::Result<()> {
        let ended = async || (self.read("ended").lines().count() > SAFE.len()).then_some(());
        cell.until(LIMIT, "all steps to end", ended).await
    }

    /// No step has run twice so far.
    pub fn nothing_moved(&self) -> anyhow::Result<()> {
        let (safe, alone) = (self.runs_of_safe_steps(), self.spans().len());
        ensure!(
            (safe, alone) == (SAFE.len(), 1),
            "{safe} runs of safe steps and {alone} of the exclusive one"
        );
        Ok(())
    }

    /// The process ids of the exclusive step's command.
    #[must_use]
    pub fn exclusive_processes(&self) -> Vec<i32> {
        processes_that_name(&format!("{}/exclusive", self.records.path().display()))
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
        let leaf = json!({"name": "main", "container": self.container("true"),
            "metadata": {"annotations": {"argosy.dev/idempotent": "true"}}});
        let name = cell.submit(&self.workflow("meanwhile", &json!([leaf]))).await?;
        succeeded(&cell.finished_in(&self.namespace, &name, LIMIT).await?)
    }

    /// Lets everything end and looks at what became of it.
    pub async fn end(self, cell: &Cell) -> anyhow::Result<()> {
        self.let_go()?;
        for kind in ["safe", "alone"] {
            let name = format!("{kind}-{}", self.name);
            let workflow = cell.finished_in(&self.namespace, &name, LIMIT).await?;
            succeeded(&workflow)?;
            committed_once(&workflow)?;
        }
        cell.wait_for_clusters(cell.agents.len()).await?;
        self.nothing_is_left_behind(cell).await?;
        let mut spans: Vec<_> = self.spans().into_iter().collect();
        spans.sort_by(|(_, one), (_, other)| one.0.total_cmp(&other.0));
        for pair in spans.windows(2) {
            ensure!(pair[0].1.1 < pair[1].1.0, "two runs of an exclusive step overlap: {spans:?}");
        }
        Ok(())
    }

    /// Waits until no step has a process.
    pub async fn no_process_is_left(&self, cell: &Cell) -> anyhow::Result<()> {
        let records = self.records.path().display().to_string();
        cell.until(LIMIT, "no step to be left behind", async || {
            processes_that_name(&records).is_empty().then_some(())
        })
        .await
        .with_context(|| format!("left behind: {:?}", processes_that_name(&records)))
    }

    /// No process, no Pod that is held, no namespace that can't be deleted.
    pub async fn nothing_is_left_behind(&self, cell: &Cell) -> anyhow::Result<()> {
        self.no_process_is_left(cell).await?;
        for cluster in cell.kubernetes.values() {
            cell.until(LIMIT, "every Pod to be let go", async || {
                held(cluster, &self.namespace).ok()?.is_empty().then_some(())
            })
            .await
            .with_context(|| format!("in {}: {:?}", cluster.name, held(cluster, &self.namespace)))?;
        }
        self.delete_namespace(cell)
    }

    /// In every cluster, which has to come to an end.
    pub fn delete_namespace(&self, cell: &Cell) -> anyhow::Result<()> {
        for wait in ["--wait=false", "--timeout=100s"] {
            for cluster in cell.kubernetes.values() {
                let delete = ["delete", "namespace", &self.namespace, "--ignore-not-found", wait];
                cluster.kubectl(&delete).with_context(|| format!("a stuck namespace in {}", cluster.name))?;
            }
        }
        Ok(())
    }
}

/// Not below /tmp, of which every step has its own.
fn records() -> anyhow::Result<tempfile::TempDir> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("the test runs from a target directory")?;
    Ok(tempfile::tempdir_in(target)?)
}

/// Pods of a namespace that run, may run some day, or are kept by a finalizer.
fn held(cluster: &Cluster, namespace: &str) -> anyhow::Result<Vec<String>> {
    let listed: Value =
        serde_json::from_str(&cluster.kubectl(&["-n", namespace, "get", "pods", "-o", "json"])?)?;
    let is_over = |pod: &Value| {
        let kept = pod["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        !kept && matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
    };
    let pods = listed["items"].as_array().into_iter().flatten();
    Ok(pods.filter(|pod| !is_over(pod)).map(|pod| pod["metadata"]["name"].to_string()).collect())
}

fn outputs() -> Value {
    json!({"parameters": [{"name": "fence", "valueFrom": {"path": "/tmp/fence"}}]})
}

fn succeeded(workflow: &Value) -> anyhow::Result<()> {
    ensure!(workflow["status"]["phase"] == "Succeeded", "{}", workflow["status"]);
    Ok(())
}

/// The Pod nodes of a workflow.
#[must_use]
pub fn pods(workflow: &Value) -> Vec<Value> {
    let nodes = workflow["status"]["nodes"].as_object().cloned().unwrap_or_default();
    nodes.into_iter().map(|(_, node)| node).filter(|node| node["type"] == "Pod").collect()
}

/// The attempts of a node.
#[must_use]
pub fn attempts(pod: &Value) -> Vec<Value> {
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

/// Processes whose command line has such a text: steps and their executors, wherever they hang by now.
fn processes_that_name(text: &str) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let names_it = |entry: &std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    let pid = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    processes.filter(names_it).filter_map(pid).collect()
}
