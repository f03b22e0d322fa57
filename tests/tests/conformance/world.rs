//! The cell that cases run on, and the real cluster that it may have.

use super::outside::Outside;
use super::play::Created;
use super::{LOOK_EVERY, NAMESPACE, WAIT};
use anyhow::Context;
use argosy_cli::context::Context as CommandLine;
use argosy_conformance::case::Object;
use argosy_testcluster::{Cluster, EXECUTOR_IMAGE, Federation};
use argosy_tests::cell::{Cell, Options, TOKEN, binary};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// Of a request to a cell that is busy.
pub const TRIES_MAX: usize = 20;
/// The images that every recording may count on: Argo's controller was told of them.
pub const IMAGES: &str = r#"{"busybox":{"cmd":["sh"]}}"#;
pub const EXECUTOR_PORT: u16 = 2749;

/// The cell, with a command line that knows it.
pub struct World {
    pub cell: Cell,
    pub home: PathBuf,
    /// The real cluster, if it is one, and its agent.
    pub cluster: Option<(Cluster, std::process::Child)>,
    /// What is beside it.
    pub outside: Option<Outside>,
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
    pub async fn start(kubernetes: Option<(&Federation, Cluster)>) -> anyhow::Result<Self> {
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
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (cluster, _) = self.cluster.as_ref().context("action needs Kubernetes")?;
        let words: Vec<&str> = ["-n", NAMESPACE].into_iter().chain(arguments.iter().copied()).collect();
        cluster.kubectl(&words)
    }

    pub fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let shown = self.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"]).ok()?;
        serde_json::from_str(&shown).ok()
    }

    /// The Pods of a workflow. Those of an earlier workflow of its name may still be there, and are another's.
    pub fn pods(&self, workflow: &Value) -> anyhow::Result<Vec<Value>> {
        let uid = workflow["metadata"]["uid"].as_str().context("no workflow")?;
        let label = format!("argosy.dev/workflow-uid={uid}");
        let listed: Value =
            serde_json::from_str(&self.kubectl(&["get", "pods", "-l", &label, "-o", "json"])?)?;
        Ok(listed["items"].as_array().cloned().unwrap_or_default())
    }

    /// Where a workflow stands that does not get on: its nodes, and the Pods behind them.
    pub async fn standing(&self, workflow: &str) -> String {
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
    pub async fn command(&self, arguments: &[String]) -> anyhow::Result<(i32, String)> {
        let output = tokio::process::Command::new(binary("argosy")?)
            .args(arguments)
            .env("ARGOSY_HOME", &self.home)
            .kill_on_drop(true)
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Ok((output.status.code().unwrap_or(-1), text.into_owned()))
    }

    pub async fn create(&self, object: &Object) -> Result<(), Created> {
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

    pub fn apply(&self, object: &Object) -> anyhow::Result<()> {
        let path = self.home.join(format!("{}-{}.yaml", object.kind, object.name));
        std::fs::write(&path, &object.text)?;
        self.kubectl(&["apply", "-f", &path.display().to_string()]).map(drop)
    }

    /// In the cluster, whose agent tells of it; one without Argo's label in the cell as well, for workflows to read it.
    pub async fn create_config_map(&self, object: &Object) -> Result<(), Created> {
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
    pub async fn config_map(&self, name: &str) -> Option<Value> {
        self.cell.get(&format!("/api/v1/configmaps/{NAMESPACE}/{name}")).await.ok()
    }

    pub async fn change_config_map(
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
    pub async fn patch_config_map(&self, name: &str, patch: &Value) -> anyhow::Result<()> {
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
    pub async fn workflow(&self, name: &str) -> Option<Value> {
        let found = self.cell.get(&format!("/api/v1/workflows/{NAMESPACE}/{name}")).await.ok()?;
        let archived = &found["metadata"]["labels"]["workflows.argoproj.io/workflow-archiving-status"];
        archived.is_null().then_some(found)
    }

    /// Names of workflows that begin so.
    pub async fn named(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let path = format!("/api/v1/workflows/{NAMESPACE}?fields=items.metadata");
        let Ok(list) = self.cell.get(&path).await else { return Ok(Vec::new()) };
        let items = list["items"].as_array().into_iter().flatten();
        let names = items.filter_map(|item| item["metadata"]["name"].as_str());
        Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
    }
}

/// Starts an agent inside its cluster's network, with what recordings count on in the namespace.
pub async fn pods_agent(cell: &Cell, cluster: &Cluster) -> anyhow::Result<std::process::Child> {
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
