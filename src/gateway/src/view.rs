//! The engine's state as the gateway reads it.

use argosy_engine::{State, TakeOverWait, WaitingAttempt, WaitingNode, view};
use argosy_model::{Fence, Limits, WorkflowId, WorkflowKey, parse_fence, pod_name};
use argosy_proto::command::Refusal;
use argosy_proto::common::Runtime;
use argosy_proto::state::DrillMode;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::{
    ArchiveError, Archived, ArtifactPlace, ClusterRecord, DrainRecord, DrillRecord, LogSource, Summary, View,
};

impl View for State {
    fn sequence(&self) -> u64 {
        Self::sequence(self)
    }

    fn workflow_id(&self, key: &WorkflowKey) -> Option<WorkflowId> {
        Self::workflow_id(self, key)
    }

    fn workflow_keys(&self, namespace: Option<&str>) -> Vec<WorkflowKey> {
        let mut found: Vec<(WorkflowId, WorkflowKey)> = self
            .workflows_in(namespace.unwrap_or_default())
            .map(|(id, row)| (id, WorkflowKey { namespace: row.namespace.clone(), name: row.name.clone() }))
            .collect();
        found.sort_unstable_by_key(|(id, _)| *id);
        found.into_iter().map(|(_, key)| key).collect()
    }

    fn summary(&self, key: &WorkflowKey) -> Option<Summary> {
        let id = Self::workflow_id(self, key)?;
        let row = self.workflow(id)?;
        let shown = view::summary(self, id)?;
        Some(Summary {
            labels: texts(&shown["metadata"]["labels"]),
            phase: argosy_engine::workflow_phase(row).map(|phase| phase.to_string()).unwrap_or_default(),
            created_at_ms: row.created_at_ms,
            finished_at_ms: (row.finished_at_ms != 0).then_some(row.finished_at_ms),
            uid: row.uid.clone(),
        })
    }

    fn workflow_json(&self, key: &WorkflowKey) -> Option<Value> {
        view::workflow_json(self, Self::workflow_id(self, key)?)
    }

    fn log_sources(&self, key: &WorkflowKey) -> Vec<LogSource> {
        let Some(workflow) = self.workflow_json(key) else { return Vec::new() };
        let nodes = workflow["status"]["nodes"].as_object();
        let mut sources: Vec<LogSource> = nodes
            .into_iter()
            .flat_map(|nodes| nodes.values())
            .flat_map(|node| of_node(self, key, &workflow, node))
            .collect();
        sources.sort_unstable_by_key(|source| source.fence);
        sources
    }

    fn artifact(
        &self,
        key: &WorkflowKey,
        node_id: &str,
        name: &str,
        is_input: bool,
    ) -> Option<ArtifactPlace> {
        let id = Self::workflow_id(self, key)?;
        let (artifact, mut location) = Self::artifact(self, id, node_id, name, is_input)?;
        let shown: argosy_engine::Artifact = serde_json::from_str(&artifact.json).ok()?;
        let keys = [artifact.stored_key.as_str(), shown.key()];
        let raw = location.get("raw").and_then(|raw| raw.get("data")?.as_str()).map(str::to_owned);
        location.shift_remove("argosy");
        Some(ArtifactPlace {
            namespace: key.namespace.clone(),
            location,
            keys: keys.into_iter().filter(|key| !key.is_empty()).map(str::to_owned).collect(),
            cluster: artifact.cluster,
            raw,
        })
    }

    fn check_references(&self, namespace: &str, manifest: &Value) -> Result<(), Refusal> {
        argosy_engine::check_references(self, namespace, manifest)
    }

    fn check_clusters(&self, namespace: &str, manifest: &Value) -> Result<Vec<String>, Refusal> {
        argosy_engine::check_clusters(self, namespace, manifest)
    }

    fn template(&self, cluster_scope: bool, namespace: &str, name: &str) -> Option<Value> {
        view::template_json(self, cluster_scope, namespace, name)
    }

    fn templates(&self, cluster_scope: bool, namespace: &str) -> Vec<Value> {
        view::templates_json(self, cluster_scope, namespace)
    }

    fn sync_limit(&self, namespace: &str, key: &str) -> Option<u32> {
        Self::sync_limit(self, namespace, key)
    }

    fn config_map(&self, namespace: &str, name: &str) -> Option<Value> {
        view::config_map_json(self, namespace, name)
    }

    fn config_maps(&self, namespace: &str) -> Vec<Value> {
        view::config_maps_json(self, namespace)
    }

    fn archived(&self, uid: &str) -> Option<Archived> {
        archived_of(self, self.archived_id(uid)?)
    }

    fn archived_named(&self, key: &WorkflowKey) -> Option<Archived> {
        archived_of(self, Self::archived_named(self, &key.namespace, &key.name)?)
    }

    fn archived_all(&self, namespace: Option<&str>) -> Vec<Archived> {
        let found = self.archived_in(namespace.unwrap_or_default());
        found.filter_map(|(id, _)| archived_of(self, id)).collect()
    }

    fn archived_summary(&self, archived: &Archived, labels: bool) -> Option<Summary> {
        let row = Self::archived(self, archived.id)?;
        let labels = if labels {
            texts(&view::archived_summary(self, archived.id)?["metadata"]["labels"])
        } else {
            BTreeMap::new()
        };
        Some(Summary {
            labels,
            phase: argosy_engine::workflow_phase(row).map(|phase| phase.to_string()).unwrap_or_default(),
            created_at_ms: row.created_at_ms,
            finished_at_ms: Some(row.finished_at_ms),
            uid: row.uid.clone(),
        })
    }

    fn archived_json(&self, archived: &Archived) -> Option<Value> {
        view::archived_summary(self, archived.id)
    }

    fn cron(&self, namespace: &str, name: &str) -> Option<Value> {
        view::cron_json(self, namespace, name)
    }

    fn crons(&self, namespace: &str) -> Vec<Value> {
        view::crons_json(self, namespace)
    }

    fn event_bindings(&self, namespace: &str) -> Vec<Value> {
        view::event_bindings_json(self, namespace)
    }

    fn drill(&self, id: u64) -> Option<Value> {
        view::drill_json(self, id)
    }

    fn drills(&self) -> Vec<Value> {
        view::drills_json(self)
    }

    fn drill_plan(
        &self,
        cluster: &str,
        mode: DrillMode,
        scope: &str,
        limits: &Limits,
    ) -> Result<Value, Refusal> {
        Self::drill_plan(self, cluster, mode, scope, limits).map(|plan| view::drill_plan_json(&plan))
    }

    fn drill_schedules(&self) -> Vec<Value> {
        view::drill_schedules_json(self)
    }

    fn authorities(&self) -> Option<argosy_proto::state::Authorities> {
        Self::authorities(self).cloned()
    }

    fn authority_behind(&self) -> Vec<(String, String)> {
        Self::authority_behind(self)
    }

    fn take_over_wait(&self, fence: &Fence, limits: &Limits) -> Option<TakeOverWait> {
        Self::take_over_wait(self, fence, limits)
    }

    fn waiting_on(&self, cluster: &str, limits: &Limits, max: usize) -> Vec<WaitingAttempt> {
        Self::waiting_on(self, cluster, limits, max)
    }

    fn taken_over_waiting(&self, max: usize) -> Vec<WaitingNode> {
        Self::taken_over_waiting(self, max)
    }

    fn clusters(&self) -> Vec<ClusterRecord> {
        let record = |(name, row): (&str, &argosy_proto::state::Cluster)| ClusterRecord {
            name: name.to_owned(),
            runtime: runtime_word(row.runtime()).to_owned(),
            agent_version: row.agent_version.clone(),
            lost: row.lost,
            healthy: row.runtime_healthy,
            enrolled: row.session_epoch > 0,
            allocatable: row.allocatable.clone().unwrap_or_default(),
            requested: row.used.clone().unwrap_or_default(),
            attempts: u64::from(row.attempts_open),
            recovery: self.recovery_of(name),
            labels: row.labels.clone().into_iter().chain(row.own_labels.clone()).collect(),
            enforces_exclusive: row.enforces_exclusive,
            cordoned: row.cordoned,
            taints: row
                .taints
                .iter()
                .map(|taint| format!("{}={}:{}", taint.key, taint.value, taint.effect))
                .collect(),
            drain: row.drain.as_ref().map(|drain| drain_record(self, name, drain)),
            identity: row.identity.clone(),
            degraded_since_ms: row.unhealthy_since_ms,
            drill: drill_record(self, name),
            resumed: (row.session_epoch > 0 && row.take_over_resumed_epoch == row.session_epoch)
                .then(|| (row.take_over_resumed_by.clone(), row.take_over_resumed_at_ms)),
        };
        let invited = self
            .clusters_invited()
            .into_iter()
            .map(|name| ClusterRecord { name: name.to_owned(), ..ClusterRecord::default() });
        let mut found: Vec<ClusterRecord> =
            Self::clusters(self).filter(|(_, row)| !row.removed).map(record).chain(invited).collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        found
    }
}

fn drill_record(state: &State, cluster: &str) -> Option<DrillRecord> {
    let (id, drill) = state.drill_loss().filter(|(_, drill)| drill.cluster == cluster)?;
    let mode = view::drill_mode_word(drill.mode()).to_owned();
    Some(DrillRecord { id, mode, ends_at_ms: drill.ends_at_ms })
}

fn archived_of(state: &State, id: u64) -> Option<Archived> {
    let row = State::archived(state, id)?;
    let key = WorkflowKey { namespace: row.namespace.clone(), name: row.name.clone() };
    Some(Archived { id, key, uid: row.uid.clone(), on_its_way: row.archiving })
}

/// A view of the records of an archived workflow.
///
/// # Errors
/// There are none, too many, or ones that this version can't read.
pub fn archived_view(records: Option<Vec<Vec<u8>>>) -> Result<State, ArchiveError> {
    let records = records.ok_or(ArchiveError::TooLarge)?;
    if records.is_empty() {
        return Err(ArchiveError::Gone);
    }
    argosy_engine::archived_state(records.iter().map(Vec::as_slice))
        .map_err(|error| ArchiveError::Unreadable(error.to_string()))
}

/// Names told of what can't leave a drained cluster.
const STUCK_MAX: usize = 20;

fn drain_record(state: &State, cluster: &str, drain: &argosy_proto::state::Drain) -> DrainRecord {
    let (waiting, running, stuck) = state.left_on(cluster, STUCK_MAX);
    DrainRecord {
        since_ms: drain.since_ms,
        deadline_ms: drain.deadline_ms,
        degraded: drain.degraded,
        waiting,
        running,
        stuck: stuck.into_iter().map(|(workflow, node, why)| (workflow, node, why.to_owned())).collect(),
    }
}

fn texts(object: &Value) -> BTreeMap<String, String> {
    let pairs = object.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The attempts of one node, each with the pod name that Argo's clients compute.
/// Argo's own labels of the node's Pod, and those that the workflow and the template give it.
fn pod_labels(workflow: &Value, template: &str, node: &Value) -> BTreeMap<String, String> {
    let own = [
        ("workflows.argoproj.io/workflow", workflow["metadata"]["name"].as_str().unwrap_or_default()),
        ("workflows.argoproj.io/completed", if node["finishedAt"].is_string() { "true" } else { "false" }),
    ];
    let mut labels: BTreeMap<_, _> =
        own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let specs = [&workflow["status"]["storedWorkflowTemplateSpec"], &workflow["spec"]];
    let named = |templates: &Value| {
        let mut templates = templates.as_array().into_iter().flatten();
        templates.find(|one| one["name"] == template).map(|one| one["metadata"]["labels"].clone())
    };
    let stored = workflow["status"]["storedTemplates"].as_object().into_iter().flatten();
    let stored = stored
        .filter(|(key, _)| key.rsplit('/').next() == Some(template))
        .map(|(_, one)| one["metadata"]["labels"].clone());
    let given = specs
        .iter()
        .map(|spec| spec["podMetadata"]["labels"].clone())
        .chain(stored)
        .chain(specs.iter().filter_map(|spec| named(&spec["templates"])));
    for (key, value) in given.filter_map(|labels| labels.as_object().cloned()).flatten() {
        labels.insert(key, value.as_str().unwrap_or_default().to_owned());
    }
    labels
}

fn of_node(state: &State, key: &WorkflowKey, workflow: &Value, node: &Value) -> Vec<LogSource> {
    let text = |field: &str| node[field].as_str().unwrap_or_default();
    let attempts = node["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let fences: Vec<_> =
        attempts.iter().filter_map(|attempt| parse_fence(attempt["fence"].as_str()?)).collect();
    let newest = fences.iter().max().copied();
    let finished_at: Option<jiff::Timestamp> = text("finishedAt").parse().ok();
    let template = node["templateRef"]["template"].as_str().unwrap_or_else(|| text("templateName"));
    let source = |fence| {
        let row = state.attempt(&fence)?;
        Some(LogSource {
            pod_name: pod_name(&key.name, template, text("name")),
            node_id: text("id").to_owned(),
            labels: pod_labels(workflow, template, node),
            fence,
            cluster: row.cluster.clone(),
            live: !row.closed && !row.fenced,
            superseded: Some(fence) != newest,
            finished_at_ms: finished_at.map(jiff::Timestamp::as_millisecond),
        })
    };
    fences.into_iter().filter_map(source).collect()
}

fn runtime_word(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Unspecified => "",
        Runtime::Kubernetes => "kubernetes",
        Runtime::Process => "process",
        Runtime::Simulated => "simulated",
    }
}
