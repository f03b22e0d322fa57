//! What placement needs to know of workflows: requests, selectors, colocation groups; and the queue's turn.

use argosy_model::planted::{Bug, is_planted};
use argosy_model::{Limits, Resources, quantity};
use argosy_placement::{ClusterView, Reason, Request, SELECTOR_PREFIX, could_take, explain, place};
use argosy_proto::command::Refusal;
use argosy_proto::common::Runtime;
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::{JoinedCluster, Manifest, Template, effective};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

use crate::draft::Draft;
use crate::identity;
use crate::leader::Parsed;
use crate::lost_group::{self, Standing};
use crate::prerequisites;
use crate::resources::add;
use crate::state::State;
use crate::{Code, Leader, references, reproduce};

/// Bytes of the digest that names a shape.
const SHAPE_LENGTH: usize = 16;

/// What validation has against the manifest: the first problem, as Argo's API answers.
pub(crate) fn validate(manifest: &Manifest) -> Result<(), String> {
    argosy_spec::validate(manifest).first().map_or(Ok(()), |problem| Err(problem.line()))
}

/// The fields of the spec that shape Pods, as a WorkflowSpec object; selectors of clusters are left out.
pub(crate) fn pod_json(manifest: &Manifest) -> String {
    let spec = &manifest.spec;
    let mut fields: Map<String, Value> = spec.pod.clone().into_iter().collect();
    strip_selector(&mut fields);
    if !spec.volumes.is_empty() {
        fields.insert("volumes".to_owned(), Value::Array(spec.volumes.clone()));
    }
    if !spec.volume_claim_templates.is_empty() {
        fields.insert("volumeClaimTemplates".to_owned(), Value::Array(spec.volume_claim_templates.clone()));
    }
    if !spec.service_account_name.is_empty() {
        fields.insert("serviceAccountName".to_owned(), Value::String(spec.service_account_name.clone()));
    }
    if let Some(metadata) =
        spec.pod_metadata.as_ref().and_then(|metadata| serde_json::to_value(metadata).ok())
    {
        fields.insert("podMetadata".to_owned(), metadata);
    }
    Value::Object(fields).to_string()
}

/// Takes the keys that choose clusters out of an object's `nodeSelector`.
pub(crate) fn strip_selector(fields: &mut Map<String, Value>) {
    if let Some(Value::Object(selector)) = fields.get_mut("nodeSelector") {
        selector.retain(|key, _| !key.starts_with(SELECTOR_PREFIX));
        if selector.is_empty() {
            fields.shift_remove("nodeSelector");
        }
    }
}

/// The keys of a template's (else the workflow's) `nodeSelector` that choose clusters.
pub(crate) fn selector(manifest: &Manifest, template: &Value) -> BTreeMap<String, String> {
    let own = template.get("nodeSelector").filter(|selector| selector.is_object());
    let selector = own.or_else(|| manifest.spec.pod.get("nodeSelector")).and_then(Value::as_object);
    let pairs = selector.into_iter().flatten().filter(|(key, _)| key.starts_with(SELECTOR_PREFIX));
    pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// The taints of clusters that a template (else the workflow) bears: its tolerations whose key has the prefix of clusters.
pub(crate) fn tolerations(manifest: &Manifest, template: &Value) -> Vec<String> {
    let own = template.get("tolerations").filter(|tolerations| tolerations.is_array());
    let listed = own.or_else(|| manifest.spec.pod.get("tolerations")).and_then(Value::as_array);
    let text = |toleration: &Value, field: &str| {
        toleration.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let borne = |toleration: &Value| {
        let key = text(toleration, "key").strip_prefix(SELECTOR_PREFIX)?.to_owned();
        let exists = text(toleration, "operator") == "Exists";
        Some(if exists { key } else { format!("{key}={}", text(toleration, "value")) })
    };
    listed.into_iter().flatten().filter_map(borne).collect()
}

/// What a leaf's Pod requests: its containers' requests (limits where there are none), or those of an init container
/// where that asks for more, and one Pod. What is no Pod asks for nothing.
pub(crate) fn requests(template: &Value) -> Resources {
    if template.get("resource").is_some() {
        return Resources::default();
    }
    let mut sum = Resources { pods: 1, ..Resources::default() };
    let main = ["container", "script"].iter().filter_map(|kind| template.get(*kind));
    let lists = ["/containerSet/containers", "/sidecars"];
    let others = lists.iter().filter_map(|list| template.pointer(list)?.as_array()).flatten();
    for container in main.chain(others) {
        add(&mut sum, Some(&container_resources(container)));
    }
    for container in template.get("initContainers").and_then(Value::as_array).into_iter().flatten() {
        let first = container_resources(container);
        sum.cpu_milli = sum.cpu_milli.max(first.cpu_milli);
        sum.memory_bytes = sum.memory_bytes.max(first.memory_bytes);
        sum.ephemeral_storage_bytes = sum.ephemeral_storage_bytes.max(first.ephemeral_storage_bytes);
        for (name, amount) in first.extended {
            let known = sum.extended.entry(name).or_default();
            *known = amount.max(*known);
        }
    }
    sum
}

fn container_resources(container: &Value) -> Resources {
    let of = |kind: &str| {
        container.get("resources").and_then(|resources| resources.get(kind)).and_then(Value::as_object)
    };
    let mut wanted: BTreeMap<&str, &Value> = BTreeMap::new();
    wanted.extend(of("limits").into_iter().flatten().map(|(name, value)| (name.as_str(), value)));
    wanted.extend(of("requests").into_iter().flatten().map(|(name, value)| (name.as_str(), value)));
    container_requests(&wanted)
}

/// The runtime that a leaf needs. Those that go to one cluster together need what any of them needs: else the first of
/// them might choose a cluster for all that the others can't use.
pub(crate) fn runtime(parsed: &Parsed, name: &str, template: &Template) -> Runtime {
    let is_needy = |template: &Template| parsed.manifest.needs_kubernetes(template).is_some();
    let group = parsed.groups.get(name);
    let mut beside =
        parsed.manifest.spec.templates.iter().filter(|one| parsed.groups.get(&one.name) == group);
    let needs = is_needy(template) || (group.is_some() && beside.any(is_needy));
    if needs { Runtime::Kubernetes } else { Runtime::Unspecified }
}

/// The clusters that a manifest is checked against.
fn joined(state: &State) -> Vec<JoinedCluster> {
    let joined = state.clusters().filter(|(_, row)| !row.removed).map(|(name, row)| JoinedCluster {
        name: name.to_owned(),
        runs_processes: row.runtime() == Runtime::Process,
        labels: labels(row),
    });
    joined.collect()
}

/// The labels of a cluster: what operators say wins.
fn labels(row: &row::Cluster) -> BTreeMap<String, String> {
    row.labels.clone().into_iter().chain(row.own_labels.clone()).collect()
}

/// What none of the clusters that have joined can run is refused: it would wait for ever.
pub(crate) fn check_runtimes(state: &State, manifest: &Manifest) -> Result<(), Refusal> {
    if !state.clusters().any(|(_, row)| row.runtime() == Runtime::Process) {
        return Ok(());
    }
    match manifest.misfits(&joined(state)).into_iter().find(argosy_spec::Diagnostic::is_error) {
        Some(problem) => Err(Code::RuntimeMissing.refuse(problem.message)),
        None => Ok(()),
    }
}

/// Checks a manifest against the clusters that have joined: what it warns of, each with its code.
///
/// # Errors
/// What a submission would be refused with. What is wrong with the manifest itself is not told here.
pub fn check_clusters(state: &State, namespace: &str, manifest: &Value) -> Result<Vec<String>, Refusal> {
    let clusters = joined(state);
    let is_plain = clusters.iter().all(|cluster| !cluster.runs_processes);
    if is_plain && !manifest.to_string().contains(SELECTOR_PREFIX) {
        return Ok(Vec::new());
    }
    let resolved = references::resolve(state, namespace, manifest)?;
    let manifest = resolved.map_or_else(|| manifest.clone(), |resolved| resolved.manifest);
    let Ok(manifest) = Manifest::from_value(effective(&manifest).into_owned()) else {
        return Ok(Vec::new());
    };
    let mut warnings = Vec::new();
    for problem in manifest.misfits(&clusters) {
        if problem.is_error() {
            return Err(Code::RuntimeMissing.refuse(problem.message));
        }
        warnings.push(format!("{}: {}", problem.code, problem.line()));
    }
    Ok(warnings)
}

fn container_requests(wanted: &BTreeMap<&str, &Value>) -> Resources {
    let mut sum = Resources::default();
    for (name, value) in wanted {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let amount = quantity(&text, *name == "cpu").unwrap_or(0);
        match *name {
            "cpu" => sum.cpu_milli = amount,
            "memory" => sum.memory_bytes = amount,
            "ephemeral-storage" => sum.ephemeral_storage_bytes = amount,
            extended => drop(sum.extended.insert(extended.to_owned(), amount)),
        }
    }
    sum
}

/// Colocation groups: the number of each template in one, that of the group's first template, from 1.
pub(crate) fn groups(manifest: &Manifest) -> BTreeMap<String, u32> {
    let mut numbers = BTreeMap::new();
    for group in manifest.colocation() {
        let first =
            (1_u32..).zip(&manifest.spec.templates).find(|(_, one)| group.templates.contains(&one.name));
        let number = first.map_or(0, |(number, _)| number);
        numbers.extend(group.templates.into_iter().map(|template| (template, number)));
    }
    numbers
}

/// A group whose templates ask for different clusters can never run.
pub(crate) fn check(parsed: &Parsed) -> Result<(), String> {
    let mut wanted: BTreeMap<(u32, String), (String, String)> = BTreeMap::new();
    for template in &parsed.manifest.spec.templates {
        let Some(group) = parsed.groups.get(&template.name) else { continue };
        for (key, value) in selector(&parsed.manifest, &template.raw) {
            let first =
                wanted.entry((*group, key.clone())).or_insert_with(|| (value.clone(), template.name.clone()));
            if first.0 != value {
                return Err(format!(
                    "templates '{}' and '{}' share a volume or a daemon, so their steps must run in one cluster, but they ask for {key} {:?} and {value:?}",
                    first.1, template.name, first.0
                ));
            }
        }
    }
    Ok(())
}

/// Digest of all that placement looks at: leaves of one shape fit or don't fit together.
pub(crate) fn shape(state: &State, workflow: u64, node: u32, work: &row::Work) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    let mut put = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    put(&prost::Message::encode_to_vec(&work.requests.clone().unwrap_or_default()));
    for (key, value) in &work.selector {
        put(key.as_bytes());
        put(value.as_bytes());
    }
    put(&work.runtime.to_be_bytes());
    for name in &work.prerequisites {
        put(name.as_bytes());
    }
    put(&[u8::from(work.exclusive_lease_ms > 0)]);
    put(work.near.as_bytes());
    if !work.tolerations.is_empty() {
        // No cluster's name begins so: what follows is not taken for clusters that are excluded.
        put(&[0xff]);
        put(work.tolerations.join("\0").as_bytes());
    }
    if !work.refused.is_empty() {
        put(&[0xfe]);
        put(work.refused.join("\0").as_bytes());
    }
    for of_attempt in work.bound.iter().map(|key| reproduce::attempt_of(key)).collect::<BTreeSet<_>>() {
        put(&[0xfd]);
        put(of_attempt.as_bytes());
    }
    if work.reproduces {
        put(&[0xfc]);
        put(&workflow.to_be_bytes());
        put(&node.to_be_bytes());
    }
    for excluded in &work.excluded {
        put(excluded.as_bytes());
    }
    if work.group != 0 {
        put(&workflow.to_be_bytes());
        put(&work.group.to_be_bytes());
        put(state
            .workflows
            .get(&workflow)
            .and_then(|row| row.pins.get(&work.group))
            .map_or("", String::as_str)
            .as_bytes());
    }
    hasher.finalize().as_bytes()[..SHAPE_LENGTH].to_vec()
}

/// The work's colocation group is on that cluster.
pub(crate) fn is_pinned_to(state: &State, workflow: u64, work: &row::Work, cluster: &str) -> bool {
    let pins = state.workflows.get(&workflow).map(|row| &row.pins);
    work.group != 0 && pins.and_then(|pins| pins.get(&work.group)).is_some_and(|pinned| pinned == cluster)
}

/// Places what waits, first come first served among shapes that may fit now, until the batch is full.
pub(crate) fn run(draft: &mut Draft, leader: &mut Leader) {
    let mut clusters: Option<Vec<ClusterView>> = None;
    while !draft.is_full(&leader.limits) {
        let Some((_, first, shape)) = draft.state.next_shape().cloned() else { return };
        let Some((workflow, node)) =
            draft.state.index.queue.get(shape.as_slice()).and_then(|of_shape| of_shape.get(&first)).copied()
        else {
            return;
        };
        draft.spend(1);
        if draft.state.workflows.get(&workflow).is_none_or(|row| row.deleted) {
            draft.emit(Body::NodesPurged(fact::NodesPurged { workflow, first: node, last: node }));
            continue;
        }
        let work = draft.state.works[&(workflow, node)].clone();
        let mut request = request(&draft.state, workflow, &work);
        match lost_group::standing(&draft.state, leader, workflow, node, &work) {
            Standing::Bound => {}
            Standing::Free => request.pinned = None,
            Standing::Lost { cluster } => {
                let message = lost_group::message(&cluster);
                reproduce::end_reader(draft, leader, workflow, node, message, row::LossReason::Volume);
                continue;
            }
        }
        match reproduce::standing(draft, leader, workflow, node, &work) {
            reproduce::Standing::Ready { cluster } => request.pinned = cluster.or(request.pinned),
            reproduce::Standing::Waits { message } => {
                draft.emit(Body::PlacementBlocked(fact::PlacementBlocked { shape, message }));
                continue;
            }
            reproduce::Standing::Lost { message } => {
                reproduce::end_reader(draft, leader, workflow, node, message, row::LossReason::Artifact);
                continue;
            }
            reproduce::Standing::NotNeeded => {
                reproduce::not_needed(draft, workflow, node);
                continue;
            }
        }
        let views = clusters.get_or_insert_with(|| views(&draft.state, &leader.limits));
        note_lacking(&draft.state, leader, &work, &request, views);
        match place(&request, views) {
            Ok(at) => {
                let view = &mut views[at];
                add(&mut view.used, work.requests.as_ref());
                view.attempts_free = view.attempts_free.saturating_sub(1);
                let cluster = view.name.clone();
                if work.group != 0 && request.pinned.is_none() {
                    draft.emit(Body::WorkflowPinned(fact::WorkflowPinned {
                        workflow,
                        group: work.group,
                        cluster: cluster.clone(),
                    }));
                }
                let moved = reproduce::as_of_now(&draft.state, leader, workflow, node, &work.template_json);
                let template_json = moved.unwrap_or_default();
                let assigned = fact::AttemptAssigned { workflow, node, cluster, template_json };
                draft.emit(Body::AttemptAssigned(assigned));
            }
            Err(reasons) => {
                draft.emit(Body::PlacementBlocked(fact::PlacementBlocked {
                    shape,
                    message: explain(&reasons),
                }));
            }
        }
    }
}

/// What each cluster lacks of the work's prerequisites. What nobody knows of a cluster that could take it is to be asked.
fn note_lacking(
    state: &State,
    leader: &mut Leader,
    work: &row::Work,
    request: &Request,
    views: &mut [ClusterView],
) {
    // With one cluster there is no choice: what it lacks shows as in Argo, in the Pod's own failure.
    let has_choice = views.iter().filter(|view| view.runtime == Runtime::Kubernetes).nth(1).is_some();
    if !has_choice {
        return;
    }
    for view in views {
        let cluster = state.cluster(&view.name);
        view.lacking = cluster.and_then(|cluster| prerequisites::lacking(&work.prerequisites, cluster));
        let is_candidate =
            view.connected && request.pinned.as_ref().is_none_or(|pinned| *pinned == view.name);
        if let (true, Some(Reason::Unchecked(_)), Some(cluster)) = (is_candidate, &view.lacking, cluster) {
            let unknown = work.prerequisites.iter().filter(|name| !cluster.prerequisites.contains_key(*name));
            leader.questions.entry(view.name.clone()).or_default().extend(unknown.cloned());
        }
    }
}

/// Whether any cluster takes the work, now or when it has room.
pub(crate) fn could_go_on(state: &State, workflow: u64, work: &row::Work, limits: &Limits) -> bool {
    let request = request(state, workflow, work);
    views(state, limits).iter_mut().any(|view| {
        let cluster = state.cluster(&view.name).filter(|_| view.runtime == Runtime::Kubernetes);
        view.lacking = cluster.and_then(|cluster| prerequisites::lacking(&work.prerequisites, cluster));
        could_take(&request, view)
    })
}

pub(crate) fn request(state: &State, workflow: u64, work: &row::Work) -> Request {
    let pins = state.workflows.get(&workflow).map(|row| &row.pins);
    Request {
        resources: work.requests.clone().unwrap_or_default(),
        selector: work.selector.clone(),
        excluded: work.excluded.clone(),
        pinned: pins.filter(|_| work.group != 0).and_then(|pins| pins.get(&work.group)).cloned(),
        runtime: Runtime::try_from(work.runtime).unwrap_or_default(),
        exclusive: work.exclusive_lease_ms > 0,
        near: (!work.near.is_empty()).then(|| work.near.clone()),
        tolerations: work.tolerations.clone(),
        refused: work.refused.clone(),
    }
}

pub(crate) fn views(state: &State, limits: &Limits) -> Vec<ClusterView> {
    let view = |(name, row): (&str, &row::Cluster)| ClusterView {
        name: name.to_owned(),
        connected: row.session_epoch != 0
            && !row.lost
            && !row.removed
            && identity::refusal(name, row, 0).is_none(),
        healthy: row.runtime_healthy,
        reconciling: row.reconciling,
        runtime: row.runtime(),
        allocatable: row.allocatable.clone().unwrap_or_default(),
        used: row.used.clone().filter(|_| !is_planted(Bug::RoomNotCounted)).unwrap_or_default(),
        attempts_free: limits.attempts_per_cluster_max.saturating_sub(row.attempts_open as usize),
        enforces_exclusive: row.enforces_exclusive,
        unapproved: identity::is_unapproved(row),
        cordoned: row.cordoned,
        taints: row.taints.iter().map(|taint| (taint.key.clone(), taint.value.clone())).collect(),
        labels: labels(row),
        lacking: None,
    };
    state.clusters().filter(|(_, row)| !row.removed).map(view).collect()
}
