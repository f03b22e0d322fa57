//! A cell and its Pods in virtual time: each Pod starts, runs as long as its command says, and ends as recorded.

use argosy_conformance::case::{Case, Object};
use argosy_conformance::script::Sight;
use argosy_engine::{DesiredAttempt, view};
use argosy_model::{Fence, Limits, display_fence};
use argosy_proto::command::{CreateTemplate, DeleteConfigMap, StoreConfigMap, command::Body};
use argosy_proto::common::AttemptPhase;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use crate::outcome::{self, Recorded};
use crate::world::World;

pub const CLUSTER: &str = "one";
pub const NAMESPACE: &str = "argo";

/// An attempt as its Pod.
struct Pod {
    workflow: String,
    node: String,
    /// When its containers start; `None`: they run already.
    starts_ms: Option<i64>,
    /// How long they run.
    runs_ms: Option<i64>,
    /// When they end; `None`: not yet known, or never.
    ends_ms: Option<i64>,
    limit_ms: Option<i64>,
    deadline_ms: i64,
    is_daemon: bool,
}

/// What the next look at a workflow must find of a node, as far as the recording says.
pub struct Coming<'a> {
    /// Recorded nodes of a look, by workflow.
    pub looks: Vec<(String, &'a Value)>,
    /// How Pods of the main workflow end until it is retried.
    pub first_run: Option<&'a Value>,
    /// A retry is still to come.
    pub repeats: bool,
}

/// The stage.
pub struct Stage {
    pub world: World,
    pub main: String,
    /// Keys in the object store.
    pub bucket: BTreeSet<String>,
    pods: BTreeMap<Fence, Pod>,
}

impl Stage {
    pub fn new(main: &str) -> Self {
        let mut world = World::new(Limits::default());
        world.join(CLUSTER, 1_000_000_000);
        Self { world, main: main.to_owned(), bucket: BTreeSet::new(), pods: BTreeMap::new() }
    }

    /// Creates an object; an error says why it is refused, or why it can't be created here.
    pub fn create(&mut self, object: &Object) -> Result<(), Created> {
        let value = match &object.read {
            Ok(value) => value,
            Err(problems) => {
                let all: Vec<String> = problems.iter().map(|problem| problem.message.clone()).collect();
                let later = problems.iter().any(|problem| LATER.contains(&problem.code));
                let message = all.join(" ## ");
                return Err(if later { Created::Later(message) } else { Created::Refused(message) });
            }
        };
        match object.kind.as_str() {
            "" | "Workflow" => match self.world.submit(&object.name, value) {
                Ok(_) => Ok(()),
                Err(refusal) if refusal.message.contains("not supported") => {
                    Err(Created::Later(refusal.message))
                }
                Err(refusal) => Err(Created::Refused(refusal.message)),
            },
            "WorkflowTemplate" | "ClusterWorkflowTemplate" => {
                let cluster_scope = object.kind == "ClusterWorkflowTemplate";
                let create = CreateTemplate {
                    cluster_scope,
                    namespace: if cluster_scope { String::new() } else { NAMESPACE.into() },
                    name: object.name.clone(),
                    uid: "uid".into(),
                    manifest_json: value.to_string(),
                    creator: "admin".into(),
                };
                let outcome = self.world.command(Body::CreateTemplate(create));
                outcome.map(drop).map_err(|refusal| Created::Refused(refusal.message))
            }
            "ConfigMap" => self.store_config_map(value, true).map_err(Created::Refused),
            kind => Err(Created::Later(format!("kind {kind}"))),
        }
    }

    fn store_config_map(&mut self, object: &Value, create: bool) -> Result<(), String> {
        let texts = |map: &Value| {
            let pairs = map.as_object().into_iter().flatten();
            pairs.filter_map(|(key, text)| Some((key.clone(), text.as_str()?.to_owned()))).collect()
        };
        let store = StoreConfigMap {
            namespace: NAMESPACE.into(),
            name: object["metadata"]["name"].as_str().unwrap_or_default().into(),
            create,
            labels: texts(&object["metadata"]["labels"]),
            data: texts(&object["data"]),
            ..StoreConfigMap::default()
        };
        let outcome = self.world.command(Body::StoreConfigMap(store));
        outcome.map(drop).map_err(|refusal| refusal.message)
    }

    /// Patches or (without a patch) deletes a ConfigMap; other objects are those that only Pods see.
    pub fn change(&mut self, object: &str, patch: Option<&Value>) {
        let Some(("ConfigMap", name)) = object.split_once('/') else { return };
        let Some(mut known) = view::config_map_json(&self.world.state, NAMESPACE, name) else { return };
        let Some(patch) = patch else {
            let delete = DeleteConfigMap { namespace: NAMESPACE.into(), name: name.into() };
            let _ = self.world.command(Body::DeleteConfigMap(delete));
            return;
        };
        for (key, text) in patch["data"].as_object().into_iter().flatten() {
            known["data"][key] = text.clone();
        }
        let _ = self.store_config_map(&known, false);
    }

    /// What a case needs first; objects that only Pods see are left out.
    pub fn set_up(&mut self, case: &Case) {
        for object in &case.setup {
            let _ = self.create(object);
        }
    }

    /// Takes note of new Pods.
    pub fn look(&mut self, record: &Value, coming: &Coming<'_>) {
        let open: Vec<Fence> = self.world.state.attempts_on(CLUSTER).map(|(fence, _)| fence).collect();
        self.pods.retain(|fence, _| open.contains(fence));
        for fence in open {
            if !self.pods.contains_key(&fence)
                && let Some(pod) = self.pod(fence)
            {
                self.pods.insert(fence, pod);
            }
        }
        let stopping: Vec<Fence> = self.stopping();
        let now = self.world.now;
        let hints: Vec<(Fence, Option<String>)> =
            self.pods.iter().map(|(fence, pod)| (*fence, coming.phase(pod))).collect();
        for (fence, hint) in hints {
            let recorded = self.recorded(fence, record, coming);
            let runs_on = recorded.runs_on();
            let Some(pod) = self.pods.get_mut(&fence) else { continue };
            if stopping.contains(&fence) {
                pod.starts_ms = None;
                pod.ends_ms = Some(pod.ends_ms.map_or(now, |ends| ends.min(now)));
            } else if pod.starts_ms.is_none() {
                let holds = hint.as_deref() == Some("Running") || runs_on;
                let fails = pod.is_daemon && recorded.fails();
                let runs_ms = pod.runs_ms.or(fails.then_some(outcome::SHORT_MS));
                let ends = runs_ms.filter(|_| !holds).map(|runs| now + runs);
                let limit =
                    [pod.limit_ms.map(|limit| now + limit), Some(pod.deadline_ms).filter(|at| *at > 0)];
                let limit = limit.into_iter().flatten().min();
                if pod.ends_ms.is_none() {
                    pod.ends_ms = [ends, limit.filter(|_| !runs_on)].into_iter().flatten().min();
                }
            } else if hint.as_deref() == Some("Pending") {
                pod.starts_ms = Some(i64::MAX);
            } else if pod.starts_ms == Some(i64::MAX) {
                pod.starts_ms = Some(now);
            }
        }
    }

    fn stopping(&self) -> Vec<Fence> {
        let wanted = self.world.wanted(CLUSTER).into_iter();
        wanted
            .filter(|(_, desired)| matches!(desired, DesiredAttempt::Stop { .. }))
            .map(|(fence, _)| fence)
            .collect()
    }

    fn pod(&self, fence: Fence) -> Option<Pod> {
        let Some(assignment) = self.world.state.assignment(&fence) else {
            let (workflow, node) = self.node_of(fence)?;
            let (starts_ms, runs_ms) = (None, None);
            let (ends_ms, limit_ms) = (None, None);
            let (deadline_ms, is_daemon) = (0, false);
            return Some(Pod {
                workflow,
                node,
                starts_ms,
                runs_ms,
                ends_ms,
                limit_ms,
                deadline_ms,
                is_daemon,
            });
        };
        let template: Value = serde_json::from_str(&assignment.template_json).unwrap_or_default();
        Some(Pod {
            workflow: assignment.workflow,
            node: assignment.node_name,
            starts_ms: Some(self.world.now + outcome::START_MS),
            runs_ms: outcome::runs_ms(&template),
            ends_ms: None,
            limit_ms: outcome::limit_ms(&template),
            deadline_ms: assignment.deadline_ms,
            is_daemon: outcome::is_daemon(&template),
        })
    }

    /// The workflow and node of an attempt that is not to run (any more).
    fn node_of(&self, fence: Fence) -> Option<(String, String)> {
        let fence = display_fence(&fence);
        for name in self.names() {
            let shown = self.world.json(&name);
            let nodes = shown["status"]["nodes"].as_object().into_iter().flatten();
            for (_, node) in nodes {
                let attempts = node["attempts"].as_array().into_iter().flatten();
                if attempts.into_iter().any(|attempt| attempt["fence"] == fence) {
                    return Some((name, node["name"].as_str()?.to_owned()));
                }
            }
        }
        None
    }

    /// Names of all workflows, those that were made first coming first.
    pub fn names(&self) -> Vec<String> {
        let mut found: Vec<_> = self.world.state.workflows_in(NAMESPACE).collect();
        found.sort_by_key(|(id, _)| id.0);
        found.into_iter().filter(|(_, row)| !row.deleted).map(|(_, row)| row.name.clone()).collect()
    }

    /// When the next Pod does something.
    pub fn next_ms(&self) -> Option<i64> {
        let next = |pod: &Pod| match pod.starts_ms {
            Some(starts) => (starts != i64::MAX).then_some(starts),
            None => pod.ends_ms,
        };
        self.pods.values().filter_map(next).min()
    }

    /// Carries out what is due.
    pub fn act(&mut self, record: &Value, coming: &Coming<'_>) {
        let now = self.world.now;
        let due = self.pods.iter().find(|(_, pod)| match pod.starts_ms {
            Some(starts) => starts <= now,
            None => pod.ends_ms.is_some_and(|ends| ends <= now),
        });
        let Some((fence, pod)) = due.map(|(fence, pod)| (*fence, pod)) else { return };
        if pod.starts_ms.is_some() {
            if let Some(pod) = self.pods.get_mut(&fence) {
                pod.starts_ms = None;
            }
            let ready = self.pods.get(&fence).is_some_and(|pod| pod.is_daemon)
                && !self.recorded(fence, record, coming).fails();
            let mut report = outcome::running(fence, ready);
            report.started_at_ms = now;
            self.world.report(CLUSTER, report);
        } else {
            self.end(fence, record, coming);
        }
    }

    fn end(&mut self, fence: Fence, record: &Value, coming: &Coming<'_>) {
        let stopping = self.stopping().contains(&fence);
        let mut report = outcome::ended(&self.recorded(fence, record, coming), fence, stopping);
        if stopping && coming.repeats && coming.first_run.is_none() {
            // Nothing is recorded of the run that was stopped before the retry.
            report.phase = AttemptPhase::Failed.into();
        }
        report.finished_at_ms = self.world.now;
        self.pods.remove(&fence);
        self.world.report(CLUSTER, report);
    }

    /// Nothing else moves: a Pod that runs without end ends, or one that was held back starts.
    pub fn nudge(&mut self, record: &Value, coming: &Coming<'_>) -> bool {
        let waits =
            self.pods.iter().find(|(_, pod)| pod.starts_ms == Some(i64::MAX)).map(|(fence, _)| *fence);
        if let Some(pod) = waits.and_then(|fence| self.pods.get_mut(&fence)) {
            pod.starts_ms = Some(self.world.now);
            return true;
        }
        let ends = |fence: &&Fence| !self.recorded(**fence, record, coming).runs_on();
        let open = self.pods.keys().find(ends).copied();
        match open {
            Some(fence) => self.end(fence, record, coming),
            None => return false,
        }
        true
    }

    /// Pods show why they do not start.
    pub fn show_pending(&mut self, node: &str, message: &str) -> bool {
        let waits = |pod: &Pod| pod.starts_ms.is_some() && (pod.node == node || ends_in(&pod.node, node));
        let found = self.pods.iter_mut().find(|(_, pod)| waits(pod)).map(|(fence, pod)| {
            pod.starts_ms = Some(i64::MAX);
            *fence
        });
        let Some(fence) = found else { return false };
        if self.world.state.attempt(&fence).is_some_and(|attempt| attempt.revision > 0) {
            return false;
        }
        self.world.report(CLUSTER, outcome::underway(fence, AttemptPhase::Pending, message, 1));
        true
    }

    /// Somebody deletes a Pod.
    pub fn delete_pod(&mut self, node: &str) -> bool {
        let found = self.pods.iter().find(|(_, pod)| pod.node == node || ends_in(&pod.node, node));
        let Some(fence) = found.map(|(fence, _)| *fence) else { return false };
        self.pods.remove(&fence);
        let mut report = outcome::underway(fence, AttemptPhase::Error, "pod deleted", 9);
        report.permitted = true;
        self.world.report(CLUSTER, report);
        true
    }

    /// What is recorded of an attempt's Pod; of one that is not recorded, nothing.
    fn recorded(&self, fence: Fence, record: &Value, coming: &Coming<'_>) -> Recorded {
        let Some(pod) = self.pods.get(&fence) else { return Recorded::default() };
        let source = if pod.workflow == self.main {
            Some(coming.first_run.unwrap_or(record))
        } else {
            self.other_record(pod, record, self.stopping().contains(&fence))
        };
        source.and_then(|source| Recorded::of(source, &pod.workflow, &pod.node)).unwrap_or_default()
    }

    /// The recording of a workflow beside the main one.
    fn other_record<'r>(&self, pod: &Pod, record: &'r Value, stopped: bool) -> Option<&'r Value> {
        let shown = pod.workflow.replace(&self.main, "$WF");
        let others: Vec<&Value> = record["others"].as_array().into_iter().flatten().collect();
        if let Some(named) = others.iter().find(|other| other["name"] == shown) {
            return Some(named);
        }
        let generated = others.into_iter().filter(|other| {
            let name = other["name"].as_str().unwrap_or_default();
            name.strip_suffix("$RANDOM").is_some_and(|start| shown.starts_with(start))
        });
        // Several children: those that were stopped are told from those that were not.
        generated.min_by_key(|other| other["meta"]["spec.shutdown"].is_null() == stopped)
    }

    /// Workflows beside the main one.
    pub fn others(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| *name != self.main).collect()
    }
}

/// The display name of a step is the end of its node's name.
fn ends_in(node: &str, display: &str) -> bool {
    node.strip_suffix(display).is_some_and(|start| start.ends_with('.'))
}

/// Codes of what is not supported yet.
const LATER: [&str; 3] = ["ARG0005", "ARG0007", "ARG0020"];

/// Why an object was not created.
pub enum Created {
    /// Something of it is not supported yet.
    Later(String),
    /// It is refused.
    Refused(String),
}

impl Coming<'_> {
    fn phase(&self, pod: &Pod) -> Option<String> {
        let look = self.looks.iter().find(|(workflow, _)| *workflow == pod.workflow)?.1;
        let mut nodes = look["nodes"].as_array().into_iter().flatten();
        let found = nodes.find(|node| {
            node["name"].as_str().is_some_and(|name| name.replace("$WF", &pod.workflow) == pod.node)
        })?;
        found["phase"].as_str().map(str::to_owned)
    }
}

impl Sight for Stage {
    fn workflow(&self, name: &str) -> Option<Value> {
        self.names().contains(&name.to_owned()).then(|| self.world.json(name))
    }

    fn named(&self, prefix: &str) -> Vec<String> {
        self.others().into_iter().filter(|name| name.starts_with(prefix)).collect()
    }

    fn object(&self, object: &str) -> Option<Value> {
        let (kind, name) = object.split_once('/')?;
        match kind {
            "Workflow" => self.workflow(name),
            "ConfigMap" => view::config_map_json(&self.world.state, NAMESPACE, name),
            _ => None,
        }
    }
}
