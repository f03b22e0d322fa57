//! Artifacts: where a step's are kept, which one a tag names, what a node takes and yields.
//!
//! A node's artifact is Argo's object as its API shows it, and beside it where the bytes are: a key that belongs to one
//! attempt alone, their digest and size. Readers follow that; the key that the user knows is made by a copy after the
//! attempt's result was committed (`commands/report_artifact_task.rs`).

use argosy_expr::{Environment, Rules, Value as Computed, program};
use argosy_model::{NodePhase, NodeType, artifact_key, artifact_prefix, pod_name};
use argosy_proto::common::{AttemptReport, Fence, OutputArtifact};
use argosy_proto::state as row;
use argosy_spec::artifact::{archive_location, relocate};
use argosy_spec::{Arguments, Artifact, Template};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::advance::Turn;
use crate::advance::create::{Place, known_scope};
use crate::express::fill;
use crate::reproduce;
use crate::scope::{Scope, Sibling};
use crate::state::{ROW_VERSION, phase_of, type_of};
use argosy_spec::shown_name;

/// In an expression an artifact is this and its name: what comes out is looked up again.
const MARK: &str = "\u{1}artifact:";
/// The field of an assignment's artifact that says where its bytes are. Ours, and never shown.
pub(crate) const STORED: &str = "argosy";
/// What a node takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeInputs {
    pub parameters: Vec<row::Parameter>,
    pub artifacts: Vec<row::Artifact>,
}

impl NodeInputs {
    pub(crate) fn of(node: &row::Node) -> Self {
        Self { parameters: node.inputs.clone(), artifacts: node.rare().input_artifacts.clone() }
    }
}

/// What a name of an artifact stands for.
pub(crate) enum Named {
    /// This one.
    Artifact(Box<row::Artifact>),
    /// An output of a node that never ran, or did not yield it.
    Absent,
    /// Nothing known by that name.
    Unknown,
}

impl Scope<'_> {
    /// The artifact of that name.
    pub(crate) fn artifact(&self, name: &str) -> Named {
        let found = |list: &[row::Artifact], wanted: &str| match list.iter().find(|one| one.name == wanted) {
            Some(artifact) => Named::Artifact(Box::new(artifact.clone())),
            None => Named::Absent,
        };
        if let Some(wanted) = name.strip_prefix("inputs.artifacts.") {
            let node = self.state.node(self.workflow, self.boundary);
            return node.map_or(Named::Unknown, |node| found(&node.rare().input_artifacts, wanted));
        }
        if let Some(wanted) = name.strip_prefix("workflow.outputs.artifacts.") {
            let row = self.state.workflows.get(&self.workflow);
            return row.map_or(Named::Unknown, |row| found(&row.artifacts, wanted));
        }
        let sibling = name.strip_prefix("steps.").or_else(|| name.strip_prefix("tasks."));
        let Some((sibling, wanted)) = sibling.and_then(|rest| rest.split_once(".outputs.artifacts.")) else {
            return Named::Unknown;
        };
        let boundary = self.state.node(self.workflow, self.boundary);
        let nodes = boundary.and_then(|boundary| self.sibling_nodes(boundary, sibling));
        let Some(Sibling::One(index)) = nodes else { return Named::Unknown };
        let outputs = self.state.node(self.workflow, index).and_then(|node| node.outputs.as_ref());
        outputs.map_or(Named::Absent, |outputs| found(&outputs.artifacts, wanted))
    }

    /// The artifact that an expression gives.
    fn artifact_of(&self, expression: &str) -> Result<Named, String> {
        let program = program::compile(expression).map_err(|error| error.to_string())?;
        let paths = program.paths();
        let mut env = self.environment(&paths);
        for path in &paths {
            let name = path.join(".");
            if !name.contains(".artifacts.") {
                continue;
            }
            match self.artifact(&name) {
                Named::Artifact(_) => env.insert_text(&name, &format!("{MARK}{name}")),
                Named::Absent => env.insert(&name, Computed::Nil),
                Named::Unknown => {}
            }
        }
        let limits = argosy_expr::Limits::DEFAULT;
        let value = program.evaluate(&env, &limits, self.now.0).map_err(|error| error.to_string())?;
        Ok(if let Computed::Text(text) = &value {
            text.strip_prefix(MARK).map_or(Named::Unknown, |name| self.artifact(name))
        } else if value.is_nil() {
            Named::Absent
        } else {
            Named::Unknown
        })
    }
}

/// How Argo's message of an artifact that is not there begins.
pub(crate) const UNRESOLVED: &str = "Unable to resolve: ";

/// Where another artifact comes from.
pub(crate) fn resolve(scope: &Scope<'_>, given: &Artifact) -> Result<Option<row::Artifact>, String> {
    let name = given.from.trim();
    let name = name.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).unwrap_or(name).trim();
    let found = if given.from_expression.is_empty() {
        scope.artifact(name)
    } else {
        scope.artifact_of(&given.from_expression)?
    };
    let wanted = if given.from_expression.is_empty() { name } else { &given.from_expression };
    match found {
        Named::Artifact(artifact) => Ok(Some(below(*artifact, &given.sub_path))),
        Named::Absent if given.optional => Ok(None),
        Named::Absent | Named::Unknown => Err(format!("{UNRESOLVED}{wanted:?}")),
    }
}

/// A part of an artifact: its digest is not known.
fn below(mut artifact: row::Artifact, sub_path: &str) -> row::Artifact {
    let part = sub_path.trim_matches('/');
    if part.is_empty() {
        return artifact;
    }
    if let Ok(mut shown) = serde_json::from_str::<Artifact>(&artifact.json) {
        let key = format!("{}/{part}", shown.key().trim_end_matches('/'));
        shown.set_key(&key);
        artifact.json = text_of(&shown);
    }
    if !artifact.stored_key.is_empty() {
        artifact.stored_key = format!("{}/{part}", artifact.stored_key.trim_end_matches('/'));
    }
    artifact.digest.clear();
    artifact
}

fn text_of(artifact: &Artifact) -> String {
    serde_json::to_string(artifact).unwrap_or_default()
}

fn written(artifact: &Artifact) -> row::Artifact {
    row::Artifact { name: artifact.name.clone(), json: text_of(artifact), ..row::Artifact::default() }
}

/// The artifacts that a template takes, from arguments or from what it says itself.
pub(crate) fn inputs(
    turn: &Turn<'_>,
    place: &Place,
    template: &Template,
    arguments: &Arguments,
    parameters: &[row::Parameter],
) -> Result<Vec<row::Artifact>, String> {
    let mut taken = Vec::with_capacity(template.inputs.artifacts.len());
    for declared in &template.inputs.artifacts {
        let given = match arguments.artifact(&declared.name) {
            Some(given) if !given.from.is_empty() || !given.from_expression.is_empty() => {
                let mut scope = turn.scope(place.boundary);
                scope.on_exit |= place.on_exit;
                match resolve(&scope, given) {
                    Ok(found) => found,
                    Err(_) if declared.optional => None,
                    Err(message) => return Err(message),
                }
            }
            Some(given) if given.has_location() => Some(written(given)),
            Some(_) | None => None,
        };
        let mut artifact = match given {
            Some(given) => given,
            None if declared.optional || declared.has_location() => written(declared),
            None => return Err(format!("inputs.artifacts.{} was not supplied", declared.name)),
        };
        artifact.name.clone_from(&declared.name);
        if artifact.json.contains("{{") {
            let mut scope = known_scope(turn, place, parameters);
            let name = pod_name(&turn.row().name, shown_name(&template.name), &place.name);
            scope.locals.insert("pod.name".to_owned(), name);
            artifact.json =
                fill(&artifact.json, &scope, &Rules::LENIENT).map_err(|error| error.to_string())?;
        }
        let mut shown: Artifact = serde_json::from_str(&artifact.json).map_err(|error| error.to_string())?;
        shown.name.clone_from(&declared.name);
        shown.path.clone_from(&declared.path);
        shown.mode = declared.mode;
        shown.recurse_mode = declared.recurse_mode;
        shown.optional |= declared.optional;
        artifact.json = text_of(&shown);
        taken.push(artifact);
    }
    Ok(taken)
}

/// The names that a leaf's artifacts make.
pub(crate) fn paths(template: &Template) -> impl Iterator<Item = (String, String)> + '_ {
    let of = |kind: &'static str, list: &'_ [Artifact]| -> Vec<(String, String)> {
        let with_path = list.iter().filter(|artifact| !artifact.path.is_empty());
        with_path.map(|one| (format!("{kind}.artifacts.{}.path", one.name), one.path.clone())).collect()
    };
    of("inputs", &template.inputs.artifacts).into_iter().chain(of("outputs", &template.outputs.artifacts))
}

/// Says in a leaf's template where its files are kept; tags are filled in afterwards.
pub(crate) fn locate(turn: &Turn<'_>, raw: &mut Value) {
    let Some(fields) = raw.as_object_mut() else { return };
    let reference: Value = serde_json::from_str(&turn.row().artifact_repository_json).unwrap_or_default();
    let repository = reference.get("artifactRepository").and_then(Value::as_object);
    let own = fields.get("archiveLocation").and_then(Value::as_object).cloned().unwrap_or_default();
    // As Argo has it: what the repository asks for, a template can't switch off.
    let asked = |value: Option<&Value>| value.and_then(Value::as_bool);
    let archive_logs = asked(repository.and_then(|repository| repository.get("archiveLogs"))) == Some(true)
        || asked(own.get("archiveLogs")).or(turn.parsed.manifest.spec.archive_logs).unwrap_or(false);
    let mut location = match repository.and_then(archive_location) {
        Some(of_repository) if !own.keys().any(|kind| kind != "archiveLogs") => of_repository,
        Some(of_repository) => {
            let mut own = own;
            relocate(&mut own, &of_repository);
            own
        }
        None => own,
    };
    if location.is_empty() && !archive_logs {
        return;
    }
    location.insert("archiveLogs".to_owned(), archive_logs.into());
    fields.insert("archiveLocation".to_owned(), Value::Object(location));
}

/// Puts what the node takes into its template, and where the bytes are.
pub(crate) fn furnish(node: &row::Node, raw: &mut Value) {
    if node.rare().input_artifacts.is_empty() {
        return;
    }
    let furnished = node.rare().input_artifacts.iter().map(|artifact| {
        let mut shown: Value = serde_json::from_str(&artifact.json).unwrap_or_default();
        if !artifact.stored_key.is_empty()
            && let Some(fields) = shown.as_object_mut()
        {
            fields.insert(STORED.to_owned(), stored(artifact));
        }
        shown
    });
    raw["inputs"]["artifacts"] = furnished.collect();
}

/// Where the bytes of an artifact are.
pub(crate) fn stored(artifact: &row::Artifact) -> Value {
    json!({
        "key": artifact.stored_key, "digest": artifact.digest,
        "size": artifact.size, "cluster": artifact.cluster,
    })
}

/// Bytes of inputs below which it does not matter where they were made.
const NEAR_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// The cluster where most of a node's input bytes were made, if they are many.
pub(crate) fn nearest(node: &row::Node) -> String {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for artifact in node.rare().input_artifacts.iter().filter(|artifact| !artifact.cluster.is_empty()) {
        let sum = bytes.entry(artifact.cluster.as_str()).or_default();
        *sum = sum.saturating_add(artifact.size);
    }
    let most =
        bytes.into_iter().filter(|(_, bytes)| *bytes >= NEAR_BYTES_MIN).max_by_key(|(_, bytes)| *bytes);
    most.map_or_else(String::new, |(cluster, _)| cluster.to_owned())
}

/// What a leaf yields besides parameters, as reported, and what is to be copied before its node ends.
pub(crate) struct Yielded {
    pub artifacts: Vec<row::Artifact>,
    pub task: Option<row::ArtifactTask>,
}

/// The artifacts of an attempt that is over.
pub(crate) fn of_leaf(turn: &Turn<'_>, index: u32, report: &AttemptReport) -> Yielded {
    let none = Yielded { artifacts: Vec::new(), task: None };
    if report.artifacts.is_empty() {
        return none;
    }
    let state = &turn.draft.state;
    let (Some(work), Some(fence)) = (state.works.get(&(turn.workflow, index)), report.fence) else {
        return none;
    };
    let Ok(template) = serde_json::from_str::<Value>(&work.template_json) else { return none };
    let archive = template.get("archiveLocation").and_then(Value::as_object).cloned().unwrap_or_default();
    let declared: Vec<Artifact> = template
        .pointer("/outputs/artifacts")
        .cloned()
        .and_then(|list| serde_json::from_value(list).ok())
        .unwrap_or_default();
    let workflow = turn.row();
    let cluster = state.attempt(&fence).map_or_else(String::new, |attempt| attempt.cluster.clone());
    let limit = turn.leader.limits.artifacts_per_node_max;
    let mut artifacts = Vec::new();
    let mut copies = Vec::new();
    for reported in report.artifacts.iter().take(limit) {
        let shown = match declared.iter().find(|declared| declared.name == reported.name) {
            Some(declared) => placed(declared.clone(), &archive),
            None => log_of(&reported.name, &archive),
        };
        let Some((mut shown, location)) = shown else { continue };
        if reproduce::is_elsewhere(turn.leader, &whole_location(&written(&shown), &workflow), &location) {
            shown.location.clone_from(&location);
        }
        let mut artifact = row::Artifact {
            json: text_of(&shown),
            digest: reported.digest.clone(),
            size: reported.size,
            cluster: cluster.clone(),
            ..written(&shown)
        };
        if is_store(&location) {
            artifact.stored_key =
                artifact_key(&artifact_prefix(state.cell(), &workflow.uid), &fence, shown.key());
            copies.push(copy(&location, &artifact.stored_key, shown.key(), reported));
        }
        artifacts.push(artifact);
    }
    let task = (!copies.is_empty()).then(|| row::ArtifactTask {
        version: ROW_VERSION,
        kind: row::ArtifactTaskKind::Publish.into(),
        workflow: turn.workflow,
        node: index,
        namespace: workflow.namespace.clone(),
        cluster,
        copies,
        ..row::ArtifactTask::default()
    });
    Yielded { artifacts, task }
}

fn copy(location: &Map<String, Value>, from: &str, to: &str, reported: &OutputArtifact) -> row::ArtifactCopy {
    row::ArtifactCopy {
        location_json: Value::Object(location.clone()).to_string(),
        from: from.to_owned(),
        to: to.to_owned(),
        digest: reported.digest.clone(),
        size: reported.size,
        directory: reported.directory,
        ..row::ArtifactCopy::default()
    }
}

/// Copies and attempts' keys exist only where one object can be copied to another.
pub(crate) fn is_store(location: &Map<String, Value>) -> bool {
    ["s3", "gcs", "azure", "oss"].iter().any(|kind| location.contains_key(*kind))
}

/// A declared artifact with its key, and its whole location.
pub(crate) fn placed(
    mut artifact: Artifact,
    archive: &Map<String, Value>,
) -> Option<(Artifact, Map<String, Value>)> {
    if !artifact.has_location() {
        let name = artifact.file_name();
        let (kind, key) = key_of(archive)?;
        artifact.location = key_only(kind, &format!("{}/{name}", key.trim_end_matches('/')));
    }
    let mut location = artifact.location.clone();
    relocate(&mut location, archive);
    Some((artifact, location))
}

/// The log of a container as an artifact: `main-logs` is `main.log`.
fn log_of(name: &str, archive: &Map<String, Value>) -> Option<(Artifact, Map<String, Value>)> {
    let container = name.strip_suffix("-logs")?;
    let (kind, key) = key_of(archive)?;
    let location = key_only(kind, &format!("{}/{container}.log", key.trim_end_matches('/')));
    let artifact = Artifact { name: name.to_owned(), location, ..Artifact::default() };
    let mut location = artifact.location.clone();
    relocate(&mut location, archive);
    Some((artifact, location))
}

pub(crate) fn key_of(archive: &Map<String, Value>) -> Option<(&'static str, String)> {
    let kinds = [
        ("s3", "key"),
        ("gcs", "key"),
        ("oss", "key"),
        ("azure", "blob"),
        ("artifactory", "url"),
        ("plugin", "key"),
    ];
    kinds.into_iter().find_map(|(kind, field)| {
        let key = archive.get(kind)?.get(field)?.as_str()?.to_owned();
        Some((kind, key))
    })
}

fn key_only(kind: &str, key: &str) -> Map<String, Value> {
    let field = match kind {
        "azure" => "blob",
        "artifactory" => "url",
        _ => "key",
    };
    Map::from_iter([(kind.to_owned(), json!({ field: key }))])
}

/// The artifacts of a Steps or DAG node, from those of its children.
pub(crate) fn composed(
    turn: &Turn<'_>,
    index: u32,
    template: &Template,
) -> Result<Vec<row::Artifact>, String> {
    let node = turn.node(index);
    let mut scope = turn.scope(index);
    scope.on_exit = node.on_exit;
    let mut artifacts = Vec::new();
    for declared in &template.outputs.artifacts {
        if declared.from.is_empty() && declared.from_expression.is_empty() {
            continue;
        }
        let found = resolve(&scope, declared);
        let found = found.map_err(|why| format!("unable to resolve outputs from scope: {why}"))?;
        let Some(mut found) = found else { continue };
        found.name.clone_from(&declared.name);
        if let Ok(mut shown) = serde_json::from_str::<Artifact>(&found.json) {
            shown.name.clone_from(&declared.name);
            shown.global_name.clone_from(&declared.global_name);
            found.json = text_of(&shown);
        }
        artifacts.push(found);
    }
    Ok(artifacts)
}

/// A node's artifacts with a globalName, as the workflow's own.
pub(crate) fn global(template: &Template, outputs: &row::Outputs) -> Vec<row::Artifact> {
    let named = |artifact: &row::Artifact| {
        let declared = template.outputs.artifacts.iter().find(|declared| declared.name == artifact.name)?;
        let mut shown: Artifact = serde_json::from_str(&artifact.json).ok()?;
        if declared.global_name.is_empty() {
            return None;
        }
        shown.name = std::mem::take(&mut shown.global_name);
        if shown.name.is_empty() || shown.name.contains("{{") {
            return None;
        }
        shown.path.clear();
        Some(row::Artifact { name: shown.name.clone(), json: text_of(&shown), ..artifact.clone() })
    };
    outputs.artifacts.iter().filter_map(named).collect()
}

/// Where a workflow's artifacts are kept: `status.artifactRepositoryRef`. What its own reference names, else its
/// namespace's `artifact-repositories`, else the cell's default.
pub(crate) fn repository(
    state: &crate::State,
    namespace: &str,
    reference: Option<&Value>,
    default: &str,
) -> Result<String, String> {
    let text =
        |field: &str| reference.and_then(|found| found.get(field)?.as_str()).filter(|text| !text.is_empty());
    let name = text("configMap").unwrap_or("artifact-repositories");
    let Some(map) = state.config_map(namespace, name) else {
        return match reference {
            Some(_) => Err(format!(
                "failed to resolve artifact repository: configmaps \"{name}\" not found in namespace {namespace}"
            )),
            None => Ok(default_reference(default)),
        };
    };
    let annotated = map.annotations.get("workflows.argoproj.io/default-artifact-repository");
    let key = text("key").or(annotated.map(String::as_str)).unwrap_or_default();
    let Some(yaml) = map.data.get(key) else {
        return match reference {
            Some(_) => Err(format!("failed to resolve artifact repository: config map missing key {key}")),
            None => Ok(default_reference(default)),
        };
    };
    let read = argosy_spec::yaml_value(yaml);
    let repository = read.map_err(|problem| format!("failed to resolve artifact repository: {problem}"))?;
    Ok(json!({"configMap": name, "key": key, "namespace": namespace, "artifactRepository": repository})
        .to_string())
}

fn default_reference(default: &str) -> String {
    let repository: Value = serde_json::from_str(default).unwrap_or_else(|_| json!({}));
    json!({"default": true, "artifactRepository": repository}).to_string()
}

/// The prefix under which a workflow's attempts keep their objects.
pub(crate) fn prefix_of(state: &crate::State, workflow: &row::Workflow) -> String {
    artifact_prefix(state.cell(), &workflow.uid)
}

/// Stores in which attempts that may have run, and whose end nobody heard of, may leave their results yet.
pub(crate) fn stores_of_unheard(
    state: &crate::State,
    workflow: u64,
    row: &row::Workflow,
) -> BTreeSet<String> {
    let of_workflow = (workflow, 0, Fence::default())..(workflow + 1, 0, Fence::default());
    let attempts = state.index.of_node.range(of_workflow);
    let unheard = attempts.filter(|(.., fence)| {
        state.attempt(fence).is_some_and(|attempt| attempt.permitted && !attempt.closed)
    });
    let locations = unheard.filter_map(|(workflow, node, _)| {
        let template = state.works.get(&(*workflow, *node));
        let template = template.and_then(|work| serde_json::from_str::<Value>(&work.template_json).ok());
        let own = template.and_then(|template| template.get("archiveLocation")?.as_object().cloned());
        own.or_else(|| archive_location(repository_of(row)?.get("artifactRepository")?.as_object()?))
    });
    locations.filter(is_store).map(|location| Value::Object(location).to_string()).collect()
}

fn repository_of(workflow: &row::Workflow) -> Option<Value> {
    serde_json::from_str(&workflow.artifact_repository_json).ok()
}

/// Whether a node can have artifacts of its own that are to be deleted with its workflow.
pub(crate) fn owns(node: &row::Node) -> bool {
    type_of(node) == NodeType::Pod && phase_of(node) != NodePhase::Skipped
}

/// What is to be deleted of an artifact now, if anything.
pub(crate) fn collectable(
    artifact: &row::Artifact,
    workflow: &row::Workflow,
    strategy: &str,
    now: &str,
    node: u32,
) -> Option<row::ArtifactCopy> {
    let shown: Artifact = serde_json::from_str(&artifact.json).ok()?;
    if shown.gc_strategy(strategy) != now || shown.deleted || shown.key().is_empty() {
        return None;
    }
    let location = whole_location(artifact, workflow);
    (is_store(&location) || location.contains_key("plugin")).then(|| row::ArtifactCopy {
        location_json: Value::Object(location).to_string(),
        from: shown.key().to_owned(),
        node,
        name: artifact.name.clone(),
        directory: true,
        ..row::ArtifactCopy::default()
    })
}

/// The reference of a workflow whose repository could not be found: its start tells why.
pub(crate) fn unresolved(problem: &str) -> String {
    json!({ "error": problem }).to_string()
}

/// Why a workflow's repository could not be found.
pub(crate) fn problem(workflow: &row::Workflow) -> Option<String> {
    repository_of(workflow)?.get("error")?.as_str().map(str::to_owned)
}

/// Where an artifact is, with what its workflow's repository adds.
pub(crate) fn whole_location(artifact: &row::Artifact, workflow: &row::Workflow) -> Map<String, Value> {
    let shown: Artifact = serde_json::from_str(&artifact.json).unwrap_or_default();
    let reference = repository_of(workflow).unwrap_or_default();
    let mut location = shown.location;
    let repository = reference.get("artifactRepository").and_then(Value::as_object);
    if let Some(archive) = repository.and_then(archive_location) {
        relocate(&mut location, &archive);
    }
    location
}
