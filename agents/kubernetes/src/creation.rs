//! Pods come to be here: at the pace that the cluster's API bears, and once for each attempt, whatever becomes of answers.
//!
//! A creation whose answer was lost is found again by its name, which holds cell and fence. What will never work is the
//! attempt's end; what may work later is left to repetition. What the API refuses for now waits in [`Backlog`], where it holds
//! up neither permits nor stops.

use crate::housekeeping::{self, Hindrance};
use crate::pace::Pace;
use crate::runtime::{CONFLICT, CONFLICTS_MAX, NOT_FOUND, Shared, TOO_MANY_REQUESTS, Work};
use crate::{names, pod, tasks, watch};
use argosy_agent_runtime::{AttemptObservation, RuntimeAction, RuntimeEvent};
use argosy_executor::protocol::Task;
use argosy_model::{Fence, display_fence};
use argosy_proto::common::{Assignment, AttemptPhase};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use kube::core::Status;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

const UNAUTHORIZED: u16 = 401;
const REQUEST_TIMEOUT: u16 = 408;
/// What a node says whose Pod waits for the API.
const OVERLOADED: &str = "the cluster's API has too many requests; the Pod is made later";

/// Assignments whose Pods wait for the API, and how fast they may go.
pub struct Backlog {
    pace: Mutex<Pace>,
    waiting: Mutex<BTreeMap<Fence, Assignment>>,
    changed: Notify,
    began: Instant,
    made: AtomicU64,
    refused: AtomicU64,
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            pace: Mutex::default(),
            waiting: Mutex::default(),
            changed: Notify::new(),
            began: Instant::now(),
            made: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

impl Backlog {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn pace<T>(&self, change: impl FnOnce(&mut Pace, u64) -> T) -> T {
        change(&mut self.pace.lock().unwrap_or_else(PoisonError::into_inner), self.now())
    }

    fn waiting<T>(&self, change: impl FnOnce(&mut BTreeMap<Fence, Assignment>) -> T) -> T {
        // The map is whole after each statement, so a panic elsewhere does not spoil it.
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps the assignment for later unless its turn is now. One that is kept already stays where it is.
    fn takes(&self, assignment: &Assignment, limit: usize) -> bool {
        let is_queued = self.waiting(|waiting| !waiting.is_empty());
        if !is_queued && self.pace(Pace::take).is_ok() {
            return false;
        }
        self.put(assignment, limit);
        true
    }

    /// Beyond the limit it is dropped: the reconciler asks for it again.
    fn put(&self, assignment: &Assignment, limit: usize) {
        let fence = assignment.fence.unwrap_or_default();
        self.waiting(|waiting| {
            if waiting.len() < limit {
                waiting.entry(fence).or_insert_with(|| assignment.clone());
            }
        });
        self.changed.notify_one();
    }

    /// It is not wanted any more.
    pub fn remove(&self, fence: &Fence) {
        self.waiting(|waiting| waiting.remove(fence));
    }

    /// Pods made, creations refused for now, creations that wait.
    pub fn figures(&self) -> (u64, u64, u64) {
        let waiting = self.waiting(|waiting| waiting.len() as u64);
        (self.made.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed), waiting)
    }
}

/// Hands what waits back to its lane, one after the other as the pace allows.
pub async fn work_off(shared: Arc<Shared>, lanes: Vec<mpsc::Sender<Work>>) {
    let backlog = &shared.backlog;
    loop {
        if backlog.waiting(|waiting| waiting.is_empty()) {
            backlog.changed.notified().await;
            continue;
        }
        if let Err(wait_ms) = backlog.pace(Pace::take) {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            continue;
        }
        let Some((fence, assignment)) = backlog.waiting(BTreeMap::pop_first) else { continue };
        let work = Work { action: RuntimeAction::Ensure(assignment), has_turn: true };
        if lanes[crate::runtime::lane_of(&fence, lanes.len())].send(work).await.is_err() {
            return;
        }
    }
}

/// Makes the Pod, unless it is there, or its turn is later.
pub async fn ensure(shared: &Shared, assignment: &Assignment, has_turn: bool) -> Result<(), kube::Error> {
    let fence = assignment.fence.unwrap_or_default();
    if let Some(held) = shared.table.get(&fence) {
        shared.send(RuntimeEvent::Observed(held.observation)).await;
        return Ok(());
    }
    if !has_turn && shared.backlog.takes(assignment, shared.config.actions_max) {
        return Ok(());
    }
    let failure = |message: String| {
        RuntimeEvent::Observed(AttemptObservation::new(fence, AttemptPhase::Error, message))
    };
    let served = &shared.config.namespaces;
    if !served.is_empty() && !served.contains(&assignment.namespace) {
        let (namespace, served) = (&assignment.namespace, served.join(", "));
        let message =
            format!("namespace {namespace} is not served on this cluster: its agent serves {served}");
        shared.send(failure(message)).await;
        return Ok(());
    }
    let settings = shared.settings();
    let own_namespace = &shared.config.own_namespace;
    let image = &settings.executor_image;
    let prepared = match tasks::prepare(&shared.client, own_namespace, image, assignment).await {
        Ok(prepared) => prepared,
        Err(tasks::Error::Told(message)) => {
            shared.send(failure(message)).await;
            return Ok(());
        }
        Err(tasks::Error::Api(error)) => return Err(error),
    };
    let assignment = prepared.as_ref();
    let environment = |task: &Task| {
        let mut task = task.clone();
        // A result may have to be left in the store.
        if task.touches_stores() || task.termination_message_file.is_some() {
            shared.executors.give_ticket(assignment, &mut task);
        }
        shared.executors.environment(&fence, &task)
    };
    let pod = match pod::build(assignment, &settings, &environment, Timestamp::now().as_millisecond()) {
        Ok(pod) => pod,
        // Another cluster may have the driver.
        Err(error @ pod::Error::NoDriver(_)) => {
            let failed = AttemptObservation::new(fence, AttemptPhase::Error, error.to_string());
            let refused = AttemptObservation { refused: true, ..failed };
            shared.send(RuntimeEvent::Observed(refused)).await;
            return Ok(());
        }
        Err(error) => {
            shared.send(failure(error.to_string())).await;
            return Ok(());
        }
    };
    if let Some(policy) = &shared.config.policy {
        // A Pod that the policy can't be shown is not made.
        let shown = match serde_json::to_value(&pod) {
            Ok(shown) => shown,
            Err(error) => {
                shared.send(failure(format!("the Pod can't be written as JSON: {error}"))).await;
                return Ok(());
            }
        };
        if let Err(refusal) = policy.check_pod(&assignment.namespace, &shown, image) {
            shared.send(RuntimeEvent::Observed(AttemptObservation::refused(fence, &refusal))).await;
            return Ok(());
        }
    }
    match housekeeping::prepare(shared, assignment, &pod).await {
        Ok(()) => {}
        Err(Hindrance::Refused(message)) => {
            shared.send(failure(message)).await;
            return Ok(());
        }
        Err(Hindrance::Later(error)) => return Err(error),
    }
    create(shared, assignment, &pod).await
}

async fn create(shared: &Shared, assignment: &Assignment, pod: &Pod) -> Result<(), kube::Error> {
    let pods = shared.pods(&assignment.namespace);
    for _ in 0..CONFLICTS_MAX {
        match pods.create(&PostParams::default(), pod).await {
            Ok(made) => {
                shared.backlog.made.fetch_add(1, Ordering::Relaxed);
                shared.backlog.pace(|pace, _| pace.made());
                watch::take(shared, &made).await;
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == CONFLICT => {
                if find(shared, assignment, &pods, pod).await? {
                    return Ok(());
                }
                // It said that the name is taken, and nothing is there: gone meanwhile, or never was.
            }
            Err(kube::Error::Api(status)) => return refused(shared, assignment, pod, status).await,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The Pod of that name: an earlier try whose answer was lost, since the name holds cell and fence; or it is nobody's.
async fn find(
    shared: &Shared,
    assignment: &Assignment,
    pods: &Api<Pod>,
    pod: &Pod,
) -> Result<bool, kube::Error> {
    let fence = assignment.fence.unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(there) = pods.get_opt(name).await? else { return Ok(false) };
    if there.metadata.labels.as_ref().and_then(|labels| labels.get(names::FENCE))
        == Some(&display_fence(&fence))
    {
        watch::take(shared, &there).await;
    } else {
        let message = format!("pod {name} exists and is not this attempt's; delete it");
        let failure = AttemptObservation::new(fence, AttemptPhase::Error, message);
        shared.send(RuntimeEvent::Observed(failure)).await;
    }
    Ok(true)
}

/// For good, or for now: what may pass is said at the node, and tried again.
async fn refused(
    shared: &Shared,
    assignment: &Assignment,
    pod: &Pod,
    status: Box<Status>,
) -> Result<(), kube::Error> {
    let fence = assignment.fence.unwrap_or_default();
    // The name that users know; ours is longer.
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let message = status.message.replace(name, &assignment.pod_name);
    let waits = |message: String| {
        RuntimeEvent::Observed(AttemptObservation::new(fence, AttemptPhase::Pending, message))
    };
    if status.code == TOO_MANY_REQUESTS {
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let backlog = &shared.backlog;
        backlog.refused.fetch_add(1, Ordering::Relaxed);
        backlog.pace(|pace, now| pace.refused(now, u64::from(seconds.max(1)) * 1_000));
        backlog.put(assignment, shared.config.actions_max);
        tracing::debug!(fence = display_fence(&fence), seconds, "the API has too many requests");
        shared.send(waits(OVERLOADED.to_owned())).await;
        return Ok(());
    }
    if may_pass(status.code, &status.message) {
        shared.send(waits(message)).await;
        return Err(kube::Error::Api(status));
    }
    let failure = prerequisite(&message, &assignment.namespace, status.code);
    shared.send(RuntimeEvent::Observed(AttemptObservation::new(fence, AttemptPhase::Error, failure))).await;
    Ok(())
}

/// Refusals that another try may not meet: the server's own errors, credentials being renewed, used-up quotas, an account
/// just being made.
fn may_pass(code: u16, message: &str) -> bool {
    code >= 500
        || [UNAUTHORIZED, REQUEST_TIMEOUT].contains(&code)
        || message.contains("exceeded quota")
        || message.contains("try again later")
}

fn prerequisite(message: &str, namespace: &str, code: u16) -> String {
    if code == NOT_FOUND && message.contains("namespaces") {
        format!(
            "{message}; create namespace {namespace} on this cluster, or run the workflow in one that exists"
        )
    } else {
        message.to_owned()
    }
}
