//! What a cluster keeps for a whole workflow: claims, its disruption budget, Pods that stay until it is over. They are made
//! here before the first Pod that needs them, found again by label after a restart, and removed once the control plane says
//! that the workflow is over.

use crate::gc::Strategy;
use crate::runtime::{Shared, delete_released};
use crate::{names, pod};
use argosy_agent_runtime::RuntimeEvent;
use argosy_proto::agent::{WorkflowName, WorkflowState, WorkflowTold};
use argosy_proto::common::Assignment;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;
/// Workflows in one question.
const ASKED_MAX: usize = 500;
/// What keeps a claim that a Pod names.
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// How long a workflow must be unknown until what is kept for it is removed: the control plane may be restored, or lag.
const UNKNOWN_KEEP_MS: i64 = 600_000;
/// Rounds between two questions about workflows of which only ended Pods are left.
const PODS_EVERY: u64 = 30;

/// A workflow, as the control plane knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Key {
    /// The workflow that an object belongs to.
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let label = |name: &str| metadata.labels.as_ref()?.get(name).cloned();
        Some(Self {
            namespace: metadata.namespace.clone()?,
            name: metadata.annotations.as_ref()?.get(names::WORKFLOW_NAME).cloned()?,
            uid: label(names::WORKFLOW_UID)?,
        })
    }
}

/// What is kept for one workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    claims: BTreeSet<String>,
    /// Claims go whatever the outcome.
    claims_always: bool,
    budget: bool,
    /// Nobody knows the workflow since then, milliseconds since 1970.
    unknown_since_ms: Option<i64>,
}

/// What is kept, by workflow.
#[derive(Default)]
pub struct Keeping(Mutex<BTreeMap<Key, Kept>>);

impl Keeping {
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<Key, Kept>) -> T) -> T {
        // The map is whole after each statement, so a panic elsewhere does not spoil it.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why what a workflow needs can't be made.
pub enum Hindrance {
    /// For good; the node's message.
    Refused(String),
    /// The API did not do it now.
    Later(kube::Error),
}

impl From<kube::Error> for Hindrance {
    fn from(error: kube::Error) -> Self {
        Self::Later(error)
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClaimGc {
    strategy: Option<Strategy>,
}

/// Makes what the Pod needs and its workflow owns, unless it is there.
pub async fn prepare(shared: &Shared, assignment: &Assignment, pod: &Pod) -> Result<(), Hindrance> {
    let spec: Value = serde_json::from_str(&assignment.workflow_pod_json).unwrap_or_default();
    let key = Key {
        namespace: assignment.namespace.clone(),
        name: assignment.workflow.clone(),
        uid: assignment.workflow_uid.clone(),
    };
    make_claims(shared, &key, &spec, pod).await?;
    let budget = spec.get("podDisruptionBudget").filter(|budget| budget.is_object());
    if let Some(budget) = budget {
        make_budget(shared, &key, budget).await?;
    }
    Ok(())
}

async fn make_claims(shared: &Shared, key: &Key, spec: &Value, pod: &Pod) -> Result<(), Hindrance> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mounted: BTreeSet<&str> = volumes
        .filter_map(|volume| volume.persistent_volume_claim.as_ref())
        .map(|claim| claim.claim_name.as_str())
        .collect();
    let gc: ClaimGc =
        spec.get("volumeClaimGC").and_then(|gc| serde_json::from_value(gc.clone()).ok()).unwrap_or_default();
    let always = gc.strategy == Some(Strategy::OnWorkflowCompletion);
    for template in spec.get("volumeClaimTemplates").and_then(Value::as_array).into_iter().flatten() {
        let name = template.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let name = pod::claim_name(&key.name, name);
        let is_made =
            shared.keeping.change(|kept| kept.get(key).is_some_and(|kept| kept.claims.contains(&name)));
        if is_made || !mounted.contains(name.as_str()) {
            continue;
        }
        let mut claim: PersistentVolumeClaim = serde_json::from_value(template.clone())
            .map_err(|error| Hindrance::Refused(format!("volumeClaimTemplates: {error}")))?;
        claim.metadata.generate_name = None;
        claim.status = None;
        own(shared, key, &mut claim.metadata, &name);
        if always {
            claim.annotations_mut().insert(names::GC.to_owned(), "OnWorkflowCompletion".to_owned());
        }
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(shared.client.clone(), &key.namespace);
        match claims.create(&PostParams::default(), &claim).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == CONFLICT => {
                // One that is gone again, or never was, is made when the action is repeated.
                let Some(there) = claims.get_opt(&name).await? else {
                    return Err(Hindrance::Later(kube::Error::Api(status)));
                };
                if Key::of(&there.metadata).as_ref() != Some(key) {
                    return Err(Hindrance::Refused(format!(
                        "persistentvolumeclaims \"{name}\" already exists, and is not this workflow's; delete it"
                    )));
                }
            }
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                return Err(Hindrance::Refused(status.message));
            }
            Err(error) => return Err(error.into()),
        }
        shared.keeping.change(|kept| {
            let kept = kept.entry(key.clone()).or_default();
            kept.claims.insert(name);
            kept.claims_always |= always;
        });
    }
    Ok(())
}

async fn make_budget(shared: &Shared, key: &Key, spec: &Value) -> Result<(), Hindrance> {
    if shared.keeping.change(|kept| kept.get(key).is_some_and(|kept| kept.budget)) {
        return Ok(());
    }
    let mut spec = spec.clone();
    if spec.get("selector").is_none_or(Value::is_null) {
        spec["selector"] = json!({"matchLabels": {(names::WORKFLOW): names::label_value(&key.name)}});
    }
    let spec = serde_json::from_value(spec)
        .map_err(|error| Hindrance::Refused(format!("podDisruptionBudget: {error}")))?;
    let mut budget = PodDisruptionBudget { spec: Some(spec), ..PodDisruptionBudget::default() };
    own(shared, key, &mut budget.metadata, &key.name);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(shared.client.clone(), &key.namespace);
    match budgets.create(&PostParams::default(), &budget).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == CONFLICT => {
            if budgets.get_opt(&key.name).await?.is_none() {
                return Err(Hindrance::Later(kube::Error::Api(status)));
            }
        }
        Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
            return Err(Hindrance::Refused(status.message));
        }
        Err(error) => return Err(error.into()),
    }
    shared.keeping.change(|kept| kept.entry(key.clone()).or_default().budget = true);
    Ok(())
}

/// The marks by which an object is found again.
fn own(shared: &Shared, key: &Key, metadata: &mut ObjectMeta, name: &str) {
    let settings = &shared.config.settings;
    metadata.name = Some(name.to_owned());
    metadata.namespace = Some(key.namespace.clone());
    metadata.labels.get_or_insert_default().extend(
        [
            (names::WORKFLOW, names::label_value(&key.name)),
            (names::CELL, names::label_value(&settings.cell)),
            (names::CLUSTER, names::label_value(&settings.cluster)),
            (names::WORKFLOW_UID, names::label_value(&key.uid)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    metadata.annotations.get_or_insert_default().insert(names::WORKFLOW_NAME.to_owned(), key.name.clone());
}

/// Finds what earlier lives of the agent made, then asks now and then which workflows are over, and removes what is due.
pub async fn keep_house(shared: Arc<Shared>) {
    shared.table.listed().await;
    while let Err(error) = find_again(&shared).await {
        tracing::warn!(%error, "claims and budgets could not be listed; it is tried again");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let mut rounds = tokio::time::interval(Duration::from_millis(shared.config.workflows_ask_every_ms));
    for number in 0_u64.. {
        rounds.tick().await;
        for held in shared.table.due(Timestamp::now().as_millisecond()) {
            delete_released(&shared, &held).await;
        }
        let mut asked: BTreeSet<Key> = shared.keeping.change(|kept| kept.keys().cloned().collect());
        asked.extend(shared.table.workflows(number.is_multiple_of(PODS_EVERY)));
        let asked: Vec<Key> = asked.into_iter().collect();
        for page in asked.chunks(ASKED_MAX) {
            let named = page.iter().map(|key| WorkflowName {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                uid: key.uid.clone(),
            });
            shared.send(RuntimeEvent::WorkflowsAsked(named.collect())).await;
        }
    }
}

async fn find_again(shared: &Shared) -> Result<(), kube::Error> {
    let settings = &shared.config.settings;
    let options = ListParams::default().labels(&names::selector(&settings.cell, &settings.cluster));
    for claims in shared.everywhere::<PersistentVolumeClaim>() {
        for claim in claims.list(&options).await?.items {
            let Some(key) = Key::of(&claim.metadata) else { continue };
            let always = claim.annotations().contains_key(names::GC);
            shared.keeping.change(|kept| {
                let kept = kept.entry(key).or_default();
                kept.claims.insert(claim.name_any());
                kept.claims_always |= always;
            });
        }
    }
    for budgets in shared.everywhere::<PodDisruptionBudget>() {
        for budget in budgets.list(&options).await?.items {
            let Some(key) = Key::of(&budget.metadata) else { continue };
            shared.keeping.change(|kept| kept.entry(key).or_default().budget = true);
        }
    }
    Ok(())
}

/// Removes what is kept for workflows that are over.
pub async fn told(shared: Arc<Shared>, told: Vec<WorkflowTold>) {
    let now_ms = Timestamp::now().as_millisecond();
    for one in told {
        let state = one.state();
        let Some(WorkflowName { namespace, name, uid }) = one.workflow else { continue };
        let key = Key { namespace, name, uid };
        let is_forgotten = shared.keeping.change(|kept| match kept.get_mut(&key) {
            Some(kept) if state == WorkflowState::Unknown => {
                now_ms - *kept.unknown_since_ms.get_or_insert(now_ms) >= UNKNOWN_KEEP_MS
            }
            Some(kept) => {
                kept.unknown_since_ms = None;
                false
            }
            None => state == WorkflowState::Unknown,
        });
        let succeeded = match state {
            WorkflowState::Unspecified | WorkflowState::Open => continue,
            WorkflowState::Unknown if !is_forgotten => continue,
            // Whatever it came to: a workflow that was deleted takes all with it.
            WorkflowState::Unknown | WorkflowState::Succeeded => true,
            WorkflowState::Failed => false,
        };
        shared.table.workflow_over(&key, succeeded, state == WorkflowState::Unknown, now_ms);
        if let Err(error) = clear(&shared, &key, succeeded).await {
            tracing::warn!(workflow = key.name, %error, "what a workflow left is not removed; it is tried again");
        }
    }
}

async fn clear(shared: &Shared, key: &Key, succeeded: bool) -> Result<(), kube::Error> {
    let Some(kept) = shared.keeping.change(|kept| kept.get(key).cloned()) else { return Ok(()) };
    if kept.budget {
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(shared.client.clone(), &key.namespace);
        gone(budgets.delete(&key.name, &DeleteParams::default()).await.map(drop))?;
    }
    if succeeded || kept.claims_always {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(shared.client.clone(), &key.namespace);
        for claim in &kept.claims {
            gone(claims.delete(claim, &DeleteParams::default()).await.map(drop))?;
        }
        if is_in_use(shared, key).await? {
            // It is asked about again.
            return Ok(());
        }
        for claim in &kept.claims {
            let_go(&claims, claim).await?;
        }
    }
    // Claims of a failed workflow stay for whoever looks into it, as Argo keeps them; nothing is asked about them any more.
    shared.keeping.change(|kept| kept.remove(key));
    Ok(())
}

/// A Pod of the workflow may still write to its claims.
async fn is_in_use(shared: &Shared, key: &Key) -> Result<bool, kube::Error> {
    let settings = &shared.config.settings;
    let uid = names::label_value(&key.uid);
    let selector = names::selector(&settings.cell, &settings.cluster);
    let options = ListParams::default().labels(&format!("{selector},{}={uid}", names::WORKFLOW_UID));
    let pods: Api<Pod> = Api::namespaced(shared.client.clone(), &key.namespace);
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    let is_over = |pod: &Pod| matches!(phase(pod).as_deref(), Some("Succeeded" | "Failed"));
    Ok(!pods.list(&options).await?.items.iter().all(is_over))
}

/// Kubernetes keeps a claim for as long as there is a Pod that names it, ended or not, and ended Pods stay for whoever looks
/// into them. As Argo does, we let it go once none of them runs.
async fn let_go(claims: &Api<PersistentVolumeClaim>, name: &str) -> Result<(), kube::Error> {
    let Some(claim) = claims.get_opt(name).await?.filter(|claim| claim.metadata.deletion_timestamp.is_some())
    else {
        return Ok(());
    };
    let others: Vec<&String> = claim.finalizers().iter().filter(|one| *one != CLAIM_PROTECTION).collect();
    let patch = json!({"metadata": {
        "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version, "finalizers": others}});
    gone(claims.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
}

fn gone(deleted: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(()),
        other => other,
    }
}
