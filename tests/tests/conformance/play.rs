//! A case under way: its script is played, and what became of its workflows is looked at.

use super::world::World;
use super::{LOOK_EVERY, WAIT};
use anyhow::{Context, bail};
use argosy_conformance::case::{Case, Object};
use argosy_conformance::compare::Seen;
use argosy_conformance::normalise::Texts;
use argosy_conformance::script::{Sight, Step, has_labels, holds, shown_fields};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Why an object was not created.
pub struct Created(pub String);

/// What a condition is judged by: fetched before, as conditions don't wait.
#[derive(Default)]
pub struct Look(BTreeMap<String, Value>, String, Option<Value>);

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
pub struct Run<'a> {
    pub world: &'a World,
    pub case: &'a Case,
    pub main: String,
    pub seen: Seen,
    pub problems: Vec<String>,
}

impl Run<'_> {
    pub async fn look(&self, condition: &Value) -> anyhow::Result<Look> {
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

    pub async fn wait(&self, step: &Step) -> anyhow::Result<()> {
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

    pub async fn act(&mut self, step: &Step) -> anyhow::Result<()> {
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
                // What a case needs first is in the cluster, and in the cell only for workflows to read it.
                let set_up = |object: &Object| object.kind == kind && object.name == name;
                let in_cluster = self.world.cluster.is_some() && self.case.setup.iter().any(set_up);
                let found = match kind {
                    "Workflow" => look.object(object),
                    "ConfigMap" => match self.world.object(kind, name) {
                        Some(found) => Some(found),
                        None if in_cluster => None,
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
    pub async fn pods_as(&self, recorded: &Value) -> anyhow::Result<Value> {
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
    pub async fn command(&mut self, step: &Step, verb: &str, name: &str) -> anyhow::Result<()> {
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
    pub async fn finish(&mut self) -> anyhow::Result<()> {
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
    pub fn others(&self, look: &Look) -> Vec<(String, Value)> {
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
pub fn shown_pod(pod: &Value) -> Value {
    let annotation = |name: &str| pod["metadata"]["annotations"][name].clone();
    json!([
        annotation("argosy.dev/argo-pod-name"),
        annotation("workflows.argoproj.io/node-name"),
        pod["status"]["phase"]
    ])
}
