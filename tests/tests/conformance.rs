//! Recordings of the real Argo, replayed end to end: manifests go in through the REST API, containers run as processes of
//! a process cluster, operators act through the command line, and everything that was recorded must come out the same.
//!
//! With MODE=kubernetes they run as Pods of a real cluster instead (root and the test clusters are needed): objects are made
//! and looked at with kubectl, and Pods are deleted as the script says.
//!
//! Runs a named sample; with ALL=true every case whose containers can run on the cluster. CASES, AREAS and SHOW choose
//! as in the scripted mode. What can't run there is counted with the reason, which the agent itself gives.

#[path = "conformance/outside.rs"]
mod outside;

use anyhow::{Context, bail, ensure};
use argosy_cli::context::Context as CommandLine;
use argosy_conformance::case::{Case, Cases, Object};
use argosy_conformance::compare::Seen;
use argosy_conformance::normalise::Texts;
use argosy_conformance::script::{Sight, Step, has_labels, holds, shown_fields};
use argosy_conformance::table::{Outcome, Table};
use argosy_testcluster::{Cluster, EXECUTOR_IMAGE, Federation, unavailable};
use argosy_tests::cell::{Cell, Options, TOKEN, binary};
use outside::Outside;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

const NAMESPACE: &str = "argo";
/// Cases that run at the same time.
const AT_ONCE: usize = 12;
/// For a step of the script, and for the workflow's end.
const WAIT: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Of a request to a cell that is busy.
const TRIES_MAX: usize = 20;
/// How a process cluster refuses what it does not have.
const LACKS: &str = "the process runtime ";

/// One or two cases of what goes through most of the system, and each operator action.
const SAMPLE: [&str; 33] = [
    "again/resubmit-plain",
    "again/retry-fails-again",
    "again/retry-of-retry-node",
    "again/retry-running-refused",
    "again/retry-terminated",
    "dag/dag-error-and-failed",
    "dag/dag-fail-fast-true",
    "exit/onexit-after-failure",
    "exit/hook-step-exit-expression",
    "globals/globals-output-of-failed-step",
    "loops/loop-aggregate-result-plain-text",
    "memo/memoize-hit-prepared-cache",
    "memo/memoize-miss-writes-cache",
    "memo/memoize-no-outputs",
    "params/param-output-missing-file-of-failed-pod",
    "params/param-output-path-is-directory",
    "params/param-output-trimming",
    "parallelism/parallelism-workflow-one",
    "retry/retry-script-result-of-last-attempt",
    "retry/retry-expression-with-onfailure-policy",
    "scripts/script-args",
    "scripts/script-result-trimming",
    "scripts/script-source-with-dollar",
    "shutdown/stop-running-pod",
    "shutdown/stop-runs-exit-handler",
    "shutdown/terminate-skips-exit-handler",
    "steps/steps-command-not-found",
    "steps/steps-parallel-sibling-fails",
    "suspend/suspend-approval-resume",
    "suspend/suspend-node-set-phase-failed",
    "sync/semaphore-raised-while-waiting",
    "tags/tag-dollar-in-value",
    "tags/tag-inputs-parameters-json",
];

/// The same for Pods: their shapes, their failures, their removal.
const POD_SAMPLE: [&str; 26] = [
    "containerset/containerset-dependencies",
    "containerset/containerset-exit-64-is-error",
    "containerset/containerset-first-fails",
    "containerset/containerset-main-output",
    "containerset/containerset-retry",
    "failure/configmap-key-env-missing",
    "failure/exit-code-137-by-itself",
    "failure/exit-code-64",
    "failure/image-never-pull",
    "failure/no-command-known-image",
    "failure/oom-killed",
    "failure/pod-deleted-with-retry",
    "failure/run-as-non-root",
    "failure/termination-message",
    "failure/volume-mount-without-volume",
    "gc/podgc-label-selector",
    "gc/podgc-on-pod-completion",
    "gc/podgc-on-pod-success",
    "pods/container-set-template-retry",
    "pods/init-container-fails",
    "pods/init-container-runs-first",
    "pods/progress-file",
    "pods/sidecar-ended-after-main",
    "pods/sidecar-exits-zero-early",
    "podspec/podspec-patch-invalid",
    "podspec/podspec-pod-disruption-budget",
];
/// The images that every recording may count on: Argo's controller was told of them.
const IMAGES: &str = r#"{"busybox":{"cmd":["sh"]}}"#;
const EXECUTOR_PORT: u16 = 2749;
/// Words of manifests that a process cluster can't carry out as recorded, and does not refuse.
const LACKING: [(&str, &str); 12] = [
    ("nodeSelector: {no-such", "hosts with labels"),
    ("no-such-account", "service accounts"),
    ("securityContext", "containers"),
    ("resources:", "limits of containers"),
    ("imagePullPolicy: Never", "images"),
    ("Not a name", "images"),
    ("httpd ", "a web server of busybox's"),
    ("http://10.200.", "a network of the test's own"),
    ("podDisruptionBudget", "a cluster that keeps budgets"),
    ("/dev/termination-log", "a kubelet"),
    ("ARGO_PROGRESS_FILE", "a Pod's volumes"),
    ("hostname", "Pods, which have host names of their own"),
];
/// Cases whose recording shows something of Pods that a process does not have.
const ELSEWHERE: [(&str, &str); 6] = [
    ("daemon/daemon-fails-at-once", "a daemon is ready as it starts, and whether it was is a race"),
    ("scripts/container-argo-env", "a process has variables of its own"),
    ("steps/steps-killed-by-signal", "the shell of the host is not busybox's"),
    ("failure/exit-code-137-by-itself", "the shell of the host is not busybox's"),
    ("failure/exit-code-143-by-itself", "the shell of the host is not busybox's"),
    (
        "exit/workflow-status-inside-main",
        "the first pass of Argo's loop: globals/globals-status-while-running",
    ),
];

/// The cell, with a command line that knows it.
struct World {
    cell: Cell,
    home: PathBuf,
    /// The real cluster, if it is one, and its agent.
    cluster: Option<(Cluster, std::process::Child)>,
    /// What is beside it.
    outside: Option<Outside>,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((_, agent)) = &mut self.cluster {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

impl World {
    async fn start(kubernetes: Option<(&Federation, Cluster)>) -> anyhow::Result<Self> {
        let address = kubernetes.as_ref().map(|(federation, _)| federation.hub_address());
        let mut options = Options { members: 1, ..Options::default() };
        if let Some(address) = address {
            options.address = address;
        }
        let mut cell = Cell::start(&options).await?;
        let (cluster, outside) = match kubernetes {
            None => {
                cell.start_agent("east").await?;
                (None, None)
            }
            Some((federation, cluster)) => {
                let agent = pods_agent(&cell, &cluster).await?;
                let outside = Outside::start(&cell, federation, &cluster, NAMESPACE).await?;
                (Some((cluster, agent)), Some(outside))
            }
        };
        cell.wait_for_clusters(1).await?;
        let home = cell.directory.path().join("home");
        let authority = cell.directory.path().join("pki").join("ca.pem");
        let mut context = CommandLine::new(cell.api(1), TOKEN, authority);
        NAMESPACE.clone_into(&mut context.namespace);
        context.save_to(&home.join("context.json"))?;
        Ok(Self { cell, home, cluster, outside })
    }

    /// kubectl in the namespace of the cases; nothing without a cluster.
    fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (cluster, _) = self.cluster.as_ref().context("action needs Kubernetes")?;
        let words: Vec<&str> = ["-n", NAMESPACE].into_iter().chain(arguments.iter().copied()).collect();
        cluster.kubectl(&words)
    }

    fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let shown = self.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"]).ok()?;
        serde_json::from_str(&shown).ok()
    }

    /// The Pods of a workflow. Those of an earlier workflow of its name may still be there, and are another's.
    fn pods(&self, workflow: &Value) -> anyhow::Result<Vec<Value>> {
        let uid = workflow["metadata"]["uid"].as_str().context("no workflow")?;
        let label = format!("argosy.dev/workflow-uid={uid}");
        let listed: Value =
            serde_json::from_str(&self.kubectl(&["get", "pods", "-l", &label, "-o", "json"])?)?;
        Ok(listed["items"].as_array().cloned().unwrap_or_default())
    }

    /// Where a workflow stands that does not get on: its nodes, and the Pods behind them.
    async fn standing(&self, workflow: &str) -> String {
        let Some(workflow) = self.workflow(workflow).await else { return "no workflow".to_owned() };
        let nodes = workflow["status"]["nodes"].as_object().into_iter().flatten();
        let nodes = nodes.map(|(_, node)| format!("{} {} {}", node["name"], node["phase"], node["message"]));
        let pods = match &self.cluster {
            Some(_) => self.pods(&workflow).unwrap_or_default(),
            None => Vec::new(),
        };
        let pods = pods.iter().map(|pod| format!("Pod {} {}", pod["metadata"]["name"], pod["status"]));
        nodes.chain(pods).collect::<Vec<_>>().join("\n    ")
    }

    /// What the command line prints, and its exit code.
    async fn command(&self, arguments: &[String]) -> anyhow::Result<(i32, String)> {
        let output = tokio::process::Command::new(binary("argosy")?)
            .args(arguments)
            .env("ARGOSY_HOME", &self.home)
            .kill_on_drop(true)
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Ok((output.status.code().unwrap_or(-1), text.into_owned()))
    }

    async fn create(&self, object: &Object) -> Result<(), Created> {
        let value = object.read.clone().map_err(|problems| {
            let all: Vec<String> = problems.iter().map(|problem| problem.message.clone()).collect();
            Created(all.join(" ## "))
        })?;
        let (path, field) = match object.kind.as_str() {
            "" | "Workflow" => (format!("/api/v1/workflows/{NAMESPACE}"), "workflow"),
            "WorkflowTemplate" => (format!("/api/v1/workflow-templates/{NAMESPACE}"), "template"),
            "ClusterWorkflowTemplate" => ("/api/v1/cluster-workflow-templates".to_owned(), "template"),
            "CronWorkflow" => (format!("/api/v1/cron-workflows/{NAMESPACE}"), "cronWorkflow"),
            "ConfigMap" if self.cluster.is_none() => (format!("/api/v1/configmaps/{NAMESPACE}"), "configMap"),
            // What only Pods see: a step that wants it is refused by name.
            "Secret" if self.cluster.is_none() => return Ok(()),
            kind if self.cluster.is_none() => return Err(Created(format!("kind {kind} needs Kubernetes"))),
            "ConfigMap" => return self.create_config_map(object).await,
            _ => {
                return self.apply(object).map_err(|error| Created(format!("{error:#}")));
            }
        };
        let mut value = value;
        if value["metadata"]["name"].as_str().unwrap_or_default().is_empty() {
            // A generated name would be another one each time.
            value["metadata"]["name"] = object.name.clone().into();
        }
        let body = json!({ field: value });
        let key = format!("{:032x}", rand::random::<u128>());
        for _ in 0..TRIES_MAX {
            match self.cell.request(reqwest::Method::POST, &path, Some(&body), &key).await {
                Ok(_) => return Ok(()),
                // Set-up files that several cases share.
                Err(error) if field != "workflow" && error.to_string().contains("already exists") => {
                    return Ok(());
                }
                // The machine is busy: asked again under the same key.
                Err(error) if error.is::<reqwest::Error>() => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) => return Err(Created(error.to_string())),
            }
        }
        Err(Created("the cell does not answer".to_owned()))
    }

    fn apply(&self, object: &Object) -> anyhow::Result<()> {
        let path = self.home.join(format!("{}-{}.yaml", object.kind, object.name));
        std::fs::write(&path, &object.text)?;
        self.kubectl(&["apply", "-f", &path.display().to_string()]).map(drop)
    }

    /// In the cluster, whose agent tells of it; one without Argo's label in the cell as well, for workflows to read it.
    async fn create_config_map(&self, object: &Object) -> Result<(), Created> {
        self.apply(object).map_err(|error| Created(format!("{error:#}")))?;
        let value = object.read.clone().unwrap_or_default();
        if value.pointer("/metadata/labels/workflows.argoproj.io~1configmap-type").is_none() {
            let stored = self.change_config_map(reqwest::Method::POST, "", &value).await;
            return match stored {
                Err(error) if !error.to_string().contains("already exists") => {
                    Err(Created(error.to_string()))
                }
                Ok(()) | Err(_) => Ok(()),
            };
        }
        let limit = Instant::now() + WAIT;
        while self.config_map(&object.name).await.is_none_or(|shown| shown["data"] != value["data"]) {
            if Instant::now() > limit {
                return Err(Created(format!("the agent did not tell of ConfigMap {}", object.name)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// A ConfigMap as workflows read it.
    async fn config_map(&self, name: &str) -> Option<Value> {
        self.cell.get(&format!("/api/v1/configmaps/{NAMESPACE}/{name}")).await.ok()
    }

    async fn change_config_map(
        &self,
        method: reqwest::Method,
        name: &str,
        config_map: &Value,
    ) -> anyhow::Result<()> {
        let path = format!("/api/v1/configmaps/{NAMESPACE}/{name}");
        let key = format!("{:032x}", rand::random::<u128>());
        let body = json!({"configMap": config_map});
        self.cell.request(method, path.trim_end_matches('/'), Some(&body), &key).await.map(drop)
    }

    /// Merges a patch into a ConfigMap; null takes a key away. Without a patch it is deleted.
    async fn patch_config_map(&self, name: &str, patch: &Value) -> anyhow::Result<()> {
        if self.cluster.is_some() {
            let patch = patch.to_string();
            let words = ["patch", "configmap", name, "--type=merge", "-p", &patch];
            let deletes = ["delete", "configmap", name, "--ignore-not-found"];
            let _ = self.kubectl(if patch == "null" { &deletes } else { &words });
        }
        let Some(known) = self.config_map(name).await else { return Ok(()) };
        if known.pointer("/metadata/annotations/argosy.dev~1cluster").is_some() {
            return Ok(());
        }
        if patch.is_null() {
            return self.change_config_map(reqwest::Method::DELETE, name, &known).await;
        }
        let mut data = known["data"].as_object().cloned().unwrap_or_default();
        for (key, text) in patch["data"].as_object().into_iter().flatten() {
            data.insert(key.clone(), text.clone());
        }
        data.retain(|_, text| !text.is_null());
        let labels = known["metadata"]["labels"].clone();
        let changed = json!({"metadata": {"name": name, "labels": labels}, "data": data});
        let stored = self.change_config_map(reqwest::Method::PUT, name, &changed).await;
        // A memoization cache is no ConfigMap of the cell's.
        stored.or_else(|error| if error.to_string().contains("not found") { Ok(()) } else { Err(error) })
    }

    /// A workflow that is there; one that was deleted is in the archive, which is not what recordings look at.
    async fn workflow(&self, name: &str) -> Option<Value> {
        let found = self.cell.get(&format!("/api/v1/workflows/{NAMESPACE}/{name}")).await.ok()?;
        let archived = &found["metadata"]["labels"]["workflows.argoproj.io/workflow-archiving-status"];
        archived.is_null().then_some(found)
    }

    /// Names of workflows that begin so.
    async fn named(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let path = format!("/api/v1/workflows/{NAMESPACE}?fields=items.metadata");
        let Ok(list) = self.cell.get(&path).await else { return Ok(Vec::new()) };
        let items = list["items"].as_array().into_iter().flatten();
        let names = items.filter_map(|item| item["metadata"]["name"].as_str());
        Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
    }
}

/// Why an object was not created.
struct Created(String);

/// What a condition is judged by: fetched before, as conditions don't wait.
#[derive(Default)]
struct Look(BTreeMap<String, Value>, String, Option<Value>);

impl Sight for Look {
    fn workflow(&self, name: &str) -> Option<Value> {
        self.0.get(name).cloned()
    }

    fn named(&self, prefix: &str) -> Vec<String> {
        let others = self.0.keys().filter(|name| **name != self.1);
        others.filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    fn object(&self, object: &str) -> Option<Value> {
        let (kind, name) = object.split_once('/')?;
        if kind == "Workflow" { self.workflow(name) } else { self.2.clone() }
    }
}

/// A case under way.
struct Run<'a> {
    world: &'a World,
    case: &'a Case,
    main: String,
    seen: Seen,
    problems: Vec<String>,
}

impl Run<'_> {
    async fn look(&self, condition: &Value) -> anyhow::Result<Look> {
        let mut look = Look(BTreeMap::new(), self.main.clone(), None);
        let mut names = vec![self.main.clone()];
        match condition["object"].as_str().and_then(|object| object.split_once('/')) {
            Some(("Workflow", name)) => names.push(name.to_owned()),
            Some((kind, name)) => look.2 = self.world.object(kind, name),
            None => {}
        }
        names.extend(condition["workflow"].as_str().map(str::to_owned));
        if let Some(prefix) = condition["prefix"].as_str() {
            names.extend(self.world.named(prefix).await?);
        }
        for name in names {
            if let Some(workflow) = self.world.workflow(&name).await {
                look.0.insert(name, workflow);
            }
        }
        Ok(look)
    }

    async fn wait(&self, step: &Step) -> anyhow::Result<()> {
        if let Some(seconds) = step.after["seconds"].as_f64() {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            return Ok(());
        }
        let limit = Instant::now() + WAIT;
        while !holds(&step.after, &self.main, &self.look(&step.after).await?) {
            if Instant::now() > limit {
                let standing = self.world.standing(&self.main).await;
                bail!("waited {WAIT:?} for {}; it stands so:\n    {standing}", step.after);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn act(&mut self, step: &Step) -> anyhow::Result<()> {
        let name = step.workflow().unwrap_or(&self.main).to_owned();
        let record_name = step.record_name().unwrap_or_default().to_owned();
        match step.verb.as_str() {
            "wait" | "no-final" => {}
            "snapshot" => {
                let shown = self.world.workflow(&name).await.context("a snapshot of nothing")?;
                self.seen.snapshots.push((record_name, shown));
            }
            "get" => {
                let object = step.fields["object"].as_str().unwrap_or_default();
                let look = self.look(&json!({"workflow": object.split('/').nth(1)})).await?;
                let (kind, name) = object.split_once('/').context("an object is KIND/NAME")?;
                let found = match kind {
                    "Workflow" => look.object(object),
                    "ConfigMap" => match self.world.object(kind, name) {
                        Some(found) => Some(found),
                        None => self.world.config_map(name).await,
                    },
                    kind => self.world.object(kind, name),
                };
                let mut shown = shown_fields(found.as_ref(), &step.fields["fields"]);
                // Nothing of ours in a cluster has a Workflow as its owner: there is none.
                if let Some(shown) = shown.as_object_mut() {
                    let recorded = &self.case.record["objects"][&record_name]["metadata.ownerReferences"];
                    if shown.get("metadata.ownerReferences").is_some_and(Value::is_null) {
                        shown.insert("metadata.ownerReferences".into(), recorded.clone());
                    }
                }
                self.seen.objects.insert(record_name, shown);
            }
            "list" if step.fields["kind"] == "Pod" => {
                let recorded = &self.case.record["objects"][&record_name];
                // Specifications are compared by the agent's own tests.
                let shown = if step.fields["fields"] == "names" {
                    self.pods_as(recorded).await?
                } else {
                    recorded.clone()
                };
                self.seen.objects.insert(record_name, shown);
            }
            "delete-pod" => {
                let workflow = self.world.workflow(&self.main).await.context("no workflow")?;
                let wanted = step.fields["node"].as_str().unwrap_or_default();
                let nodes = workflow["status"]["nodes"].as_object().into_iter().flatten();
                let node = nodes
                    .map(|(_, node)| node)
                    .find(|node| node["name"] == wanted || node["displayName"] == wanted);
                let name = node.context("no such node")?["name"].clone();
                let pods = self.world.pods(&workflow)?;
                let of =
                    |pod: &&Value| pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"] == name;
                let pod = pods.iter().find(of).context("the node has no Pod")?;
                let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
                let grace = step.fields["grace"].as_i64().map(|seconds| format!("--grace-period={seconds}"));
                let words = ["delete", "pod", pod, "--wait=false"].into_iter().chain(grace.as_deref());
                self.world.kubectl(&words.collect::<Vec<_>>())?;
            }
            // There are none: see podspec-http-agent.
            "list" if step.fields["kind"] == "WorkflowTaskSet" => {
                self.seen.objects.insert(record_name, json!([]));
            }
            "list" => {
                let labels = step.fields["labels"].as_str().unwrap_or_default();
                let look = self.look(&json!({"prefix": ""})).await?;
                let count = look.0.values().filter(|workflow| has_labels(workflow, labels)).count();
                self.seen.objects.insert(record_name, count.into());
            }
            "create-doc" => {
                let wanted = step.fields["name"].as_str().unwrap_or_default();
                let object = self.case.objects.iter().find(|object| object.name == wanted);
                let created = self.world.create(object.context("no such document")?).await;
                created.map_err(|Created(reason)| anyhow::anyhow!("{wanted}: {reason}"))?;
            }
            "s3-put" => {
                let outside = self.world.outside.as_ref().context("s3-put needs Kubernetes")?;
                outside.put(&step.fields).await?;
            }
            "s3-list" => {
                let outside = self.world.outside.as_ref().context("s3-list needs Kubernetes")?;
                self.seen.objects.insert(record_name, outside.list(&name).await?);
            }
            "patch" | "remove" => {
                let object = step.fields["object"].as_str().unwrap_or_default();
                let patch = &step.fields["patch"];
                if let Some(("ConfigMap", name)) = object.split_once('/') {
                    return self.world.patch_config_map(name, patch).await;
                }
                // Other objects are those that only Pods see.
                let patch = patch.to_string();
                let words = if step.verb == "patch" {
                    vec!["patch", object, "--type=merge", "-p", &patch]
                } else {
                    vec!["delete", object, "--ignore-not-found"]
                };
                if self.world.cluster.is_some() {
                    self.world.kubectl(&words)?;
                }
            }
            verb => self.command(step, verb, &name).await?,
        }
        Ok(())
    }

    /// The Pods as recordings show them. A result comes before the kubelet tells of the Pod's end, so it is given a moment.
    async fn pods_as(&self, recorded: &Value) -> anyhow::Result<Value> {
        const SETTLE: Duration = Duration::from_secs(10);
        let limit = Instant::now() + SETTLE;
        let workflow = self.world.workflow(&self.main).await.unwrap_or_default();
        let texts = Texts::of(&workflow);
        loop {
            let mut pods: Vec<Value> =
                self.world.pods(&workflow)?.iter().map(|pod| texts.value(&shown_pod(pod))).collect();
            pods.sort_by_key(Value::to_string);
            if *recorded == Value::from(pods.clone()) || Instant::now() > limit {
                return Ok(pods.into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A verb of Argo's command line.
    async fn command(&mut self, step: &Step, verb: &str, name: &str) -> anyhow::Result<()> {
        let mut words: Vec<String> = match verb {
            "node-set" => vec!["node".into(), "set".into()],
            "stop" | "terminate" | "suspend" | "resume" | "retry" | "resubmit" | "delete" => {
                vec![verb.into()]
            }
            verb => bail!("action {verb} needs Kubernetes"),
        };
        words.push(name.to_owned());
        words.extend(step.arguments().0);
        let (code, output) = self.world.command(&words).await?;
        let recorded = step.record_name().map_or(&Value::Null, |name| &self.case.record["cli"][name]);
        if (recorded["rc"].as_i64().unwrap_or(0) == 0) != (code == 0) {
            self.problems.push(format!("{verb}: recorded {recorded}, ours {code} {output:?}"));
        } else if code != 0 {
            let said = recorded["output"].as_str().unwrap_or_default().replace("$WF", name);
            let reason = said.split("desc = ").last().unwrap_or_default().trim();
            if !output.contains(reason) {
                self.problems.push(format!("{verb}: recorded {reason:?}, ours {output:?}"));
            }
        }
        Ok(())
    }

    /// Waits until the workflow and those beside it end as recorded.
    async fn finish(&mut self) -> anyhow::Result<()> {
        // What did not get on is not waited for once more.
        let ends = self.problems.is_empty() && !self.case.script.last().is_some_and(Step::is_final);
        let is_over =
            |workflow: &Value| workflow["metadata"]["labels"]["workflows.argoproj.io/completed"] == "true";
        let limit = Instant::now() + WAIT;
        loop {
            let look = self.look(&json!({"prefix": format!("{}-", self.main)})).await?;
            let others: Vec<_> = self.others(&look);
            let over = look.0.get(&self.main).is_none_or(is_over)
                && others.iter().all(|(_, workflow)| is_over(workflow));
            if over || !ends || Instant::now() > limit {
                self.seen.main = look.0.get(&self.main).cloned();
                self.seen.others = others;
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Workflows that belong to this case: documents of it, and what was made of it under a generated name.
    fn others(&self, look: &Look) -> Vec<(String, Value)> {
        let documents = self.case.objects.iter().skip(1).map(|object| object.name.as_str());
        let own: Vec<&str> = documents.collect();
        let resubmitted = |name: &str| {
            name.strip_prefix(&format!("{}-", self.main)).is_some_and(|rest| rest.len() == 5)
                && self.case.record["others"].is_array()
        };
        let all = look.0.iter().filter(|(name, _)| **name != self.main);
        all.filter(|(name, _)| own.contains(&name.as_str()) || resubmitted(name))
            .map(|(name, workflow)| (name.clone(), workflow.clone()))
            .collect()
    }
}

/// A Pod as recordings name it: Argo's name, the node's, the phase.
fn shown_pod(pod: &Value) -> Value {
    let annotation = |name: &str| pod["metadata"]["annotations"][name].clone();
    json!([
        annotation("argosy.dev/argo-pod-name"),
        annotation("workflows.argoproj.io/node-name"),
        pod["status"]["phase"]
    ])
}

/// Starts an agent inside its cluster's network, with what recordings count on in the namespace.
async fn pods_agent(cell: &Cell, cluster: &Cluster) -> anyhow::Result<std::process::Child> {
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    cluster.kubectl(&["-n", NAMESPACE, "create", "serviceaccount", "argo"])?;
    cluster.let_agent_read_secrets()?;
    let data = cluster.folder().join("agent");
    std::fs::create_dir_all(&data)?;
    let answer =
        cell.post(&format!("/api/v1/clusters/{}/invite", cluster.name), &json!({"ttlSeconds": 600})).await?;
    let invite = data.join("invite");
    std::fs::write(&invite, answer["token"].as_str().context("an invite has a token")?)?;
    let mut command = cluster.command(binary("argosy-agent")?);
    command
        .args(["--runtime", "kubernetes", "--cluster", &cluster.name, "--executor-image", EXECUTOR_IMAGE])
        .args(["--images", IMAGES])
        .arg("--kubeconfig")
        .arg(cluster.agent_kubeconfig()?)
        .arg("--data-dir")
        .arg(&data)
        .arg("--invite-file")
        .arg(&invite)
        .arg(format!("--executor-listen={}:{EXECUTOR_PORT}", cluster.address()))
        .arg(format!("--metrics-listen={}:9091", cluster.address()));
    let logs = std::env::var_os("ARGOSY_TEST_LOGS").map_or_else(|| cluster.folder().to_owned(), Into::into);
    std::fs::create_dir_all(&logs)?;
    cluster.spawn(&mut command, &logs.join("agent-conformance.log"))
}

/// What keeps a case from being run here, before it is tried.
fn needs_more(case: &Case, is_kubernetes: bool) -> Option<String> {
    // What is Kubernetes' the process cluster itself refuses by name.
    let needs: Vec<&String> = case.facts.needs.iter().filter(|need| *need != "kubernetes").collect();
    if !is_kubernetes && !needs.is_empty() {
        let needs: Vec<&str> = needs.into_iter().map(String::as_str).collect();
        return Some(format!("needs {}", needs.join(", ")));
    }
    if let Some(reason) = needs_pods(case).filter(|_| !is_kubernetes) {
        return Some(reason);
    }
    let runs = case.record["nodes"].as_array().into_iter().flatten().any(|node| node["type"] == "Pod");
    let acts = !case.script.is_empty();
    let is_elsewhere = !is_kubernetes && !runs && !acts && !case.facts.containers;
    is_elsewhere.then(|| "runs no container: scripted".to_owned())
}

/// What a process cluster does not have, and does not refuse.
fn needs_pods(case: &Case) -> Option<String> {
    if let Some((_, reason)) = ELSEWHERE.iter().find(|(name, _)| *name == case.name) {
        return Some((*reason).to_owned());
    }
    let texts = || case.objects.iter().map(|object| object.text.as_str());
    if let Some((word, what)) = LACKING.iter().find(|(word, _)| texts().any(|text| text.contains(word))) {
        return Some(format!("needs {what} ({word})"));
    }
    if case.script.iter().any(|step| step.fields["kind"] == "Pod" || step.verb == "delete-pod") {
        return Some("needs Kubernetes (Pods)".to_owned());
    }
    let is_cron = case.objects.first().is_some_and(|object| object.kind == "CronWorkflow");
    (is_cron && case.record["createError"].is_null())
        .then(|| "its minutes are those of the clock: scripted".to_owned())
}

/// Whether something could not be done for want of Kubernetes. Any other refusal is a difference.
fn wants_kubernetes(reason: &str) -> bool {
    ["need a Kubernetes cluster", "needs a Kubernetes cluster", "needs Kubernetes", LACKS]
        .iter()
        .any(|words| reason.contains(words))
}

/// A process cluster said that it does not have something.
fn lacking(seen: &Seen) -> Option<String> {
    let all = seen.main.iter().chain(seen.others.iter().map(|(_, workflow)| workflow));
    let nodes = all.flat_map(|workflow| workflow["status"]["nodes"].as_object().into_iter().flatten());
    let messages = nodes.filter_map(|(_, node)| node["message"].as_str());
    messages.filter(|message| message.contains(LACKS)).map(str::to_owned).next()
}

fn refused(world: &World, reason: String) -> Outcome {
    if world.cluster.is_some() || wants_kubernetes(&reason) {
        Outcome::Unsupported(reason)
    } else {
        Outcome::Different(vec![format!("refused: {reason}")])
    }
}

async fn run(world: &World, case: &Case) -> anyhow::Result<Outcome> {
    if let Some(reason) = needs_more(case, world.cluster.is_some()) {
        return Ok(Outcome::Unsupported(reason));
    }
    let first = case.objects.first().context("no document")?;
    for object in &case.setup {
        if let Err(Created(reason)) = world.create(object).await {
            return Ok(refused(world, reason));
        }
    }
    for object in case.objects.iter().filter(|object| !object.later) {
        if let Err(Created(reason)) = world.create(object).await {
            let recorded = case.record["workflow"]["message"].as_str().unwrap_or_default();
            let told = recorded.strip_prefix("invalid spec: ").unwrap_or(recorded);
            let reason = reason.replace("\\\"", "\"");
            let as_recorded = !told.is_empty() && reason.contains(&told.replace("$WF", &first.name));
            return Ok(if as_recorded || case.record["createError"].is_string() {
                Outcome::Same
            } else {
                refused(world, reason)
            });
        }
    }
    if case.record["createError"].is_string() {
        return Ok(Outcome::Different(vec!["Argo's API refuses it".to_owned()]));
    }
    let mut run = Run {
        world,
        case,
        main: first.name.clone(),
        seen: Seen { is_live: true, ..Seen::default() },
        problems: Vec::new(),
    };
    for step in &case.script {
        let played = async {
            run.wait(step).await?;
            run.act(step).await
        };
        if let Err(error) = played.await {
            run.problems.push(error.to_string());
            break;
        }
    }
    run.finish().await?;
    // Cases of other areas may have the same name.
    let main = run.main.clone();
    let _ = world.command(&["delete".to_owned(), main]).await;
    if let Some(reason) = lacking(&run.seen) {
        return Ok(Outcome::Unsupported(reason));
    }
    if let Some(reason) = run.problems.iter().find(|problem| problem.contains("needs Kubernetes")) {
        return Ok(Outcome::Unsupported(reason.clone()));
    }
    let mut found = run.seen.differences(&case.record, &run.main);
    if let (Some(_), Some(shown)) = (&world.outside, &run.seen.main) {
        found.extend(argosy_conformance::artifacts::compare(&run.main, shown, &case.record));
    }
    found.append(&mut run.problems);
    Ok(if found.is_empty() { Outcome::Same } else { Outcome::Different(found) })
}

#[test]
fn recordings_of_argo_come_out_the_same_on_clusters() -> anyhow::Result<()> {
    if std::env::var("MODE").as_deref() != Ok("kubernetes") {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(async { compare_all(World::start(None).await?, &SAMPLE).await });
    }
    if let Some(reason) = unavailable() {
        println!("SKIPPED: {reason}");
        return Ok(());
    }
    let federation = Federation::start()?;
    let cluster = federation.start_cluster("k1", 1)?;
    let hub = &federation;
    federation.block_on(move || async move {
        compare_all(World::start(Some((hub, cluster))).await?, &POD_SAMPLE).await
    })?
}

async fn compare_all(world: World, sample: &[&str]) -> anyhow::Result<()> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let given = std::env::var("CASES").ok().map(PathBuf::from);
    let areas = std::env::var("AREAS").ok();
    let show = std::env::var("SHOW").ok();
    let all = given.is_some() || areas.is_some() || std::env::var("ALL").is_ok_and(|all| all == "true");
    let cases = Cases::of(&given.unwrap_or(home));
    let world = Arc::new(world);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = tokio::task::JoinSet::new();
    let mut named: BTreeMap<String, Arc<Semaphore>> = BTreeMap::new();
    for name in cases.names(areas.as_deref()) {
        let wanted = match &show {
            Some(show) => *show == name,
            None => all || sample.contains(&name.as_str()),
        };
        if !wanted {
            continue;
        }
        let case = cases.read(&name).map_err(anyhow::Error::msg)?;
        let (world, room) = (Arc::clone(&world), room.clone());
        let name = case.objects.first().map(|object| object.name.clone()).unwrap_or_default();
        let alone = named.entry(name).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
        running.spawn(async move {
            let _alone = alone.acquire_owned().await;
            let _room = room.acquire_owned().await;
            let outcome = run(&world, &case).await;
            (case, outcome)
        });
    }
    let mut table = if world.cluster.is_some() { Table::of_pods() } else { Table::new() };
    let mut done: Vec<_> = running.join_all().await;
    for (case, outcome) in &mut done {
        // Scripts count seconds, which a busy machine stretches: what differs has another try with nothing beside it.
        if let Ok(Outcome::Different(differences)) = outcome
            && !case.script.is_empty()
        {
            println!("again, alone: {}: {}", case.name, differences.join("\n  "));
            *outcome = run(&world, case).await;
        }
    }
    done.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    for (case, outcome) in done {
        let outcome = outcome.unwrap_or_else(|error| Outcome::Different(vec![error.to_string()]));
        table.add(&case, outcome);
    }
    table.print(show.is_some());
    let problems = table.problems(false);
    ensure!(problems.is_empty(), "{}: see above", problems.join("; "));
    Ok(())
}
