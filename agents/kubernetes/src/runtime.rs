//! The shell around the cluster's API: actions in, events out.

use crate::housekeeping::{self, Hindrance, Keeping};
use crate::prerequisites::{self, Asked};
use crate::resource::{self, Resources};
use crate::watch::{self, Held, Table};
use crate::{config_maps, logs, names, pod, tasks};
use argosy_agent_runtime::server::Executors;
use argosy_agent_runtime::{
    AttemptObservation, Error, ExecutorAnswer, LogOptions, LogStream, Runtime, RuntimeAction, RuntimeEvent,
};
use argosy_executor::protocol::Task;
use argosy_model::{Fence, display_fence};
use argosy_proto::common::{Assignment, AttemptPhase};
use async_trait::async_trait;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;
const TOO_MANY_REQUESTS: u16 = 429;
/// Writes of one object under a resource version that are tried before the action is left to its repetition.
const CONFLICTS_MAX: u32 = 5;
/// How long one action may hold up its lane.
const ACTION_TIMEOUT: Duration = Duration::from_secs(20);

/// How the runtime works.
#[derive(Clone, Debug)]
pub struct Config {
    /// What its Pods have in common.
    pub settings: pod::Settings,
    /// Delivers the executor as an image volume once every host is known to mount one, whatever the settings say.
    pub image_volumes_where_possible: bool,
    /// Actions that wait in each lane; more are dropped, since the reconciler repeats them.
    pub actions_max: usize,
    /// Lanes that work side by side. The actions of one attempt stay in order.
    pub lanes: usize,
    /// Between two questions about workflows for which something is kept, milliseconds.
    pub workflows_ask_every_ms: u64,
    /// Pods read in one page of a list.
    pub page_size: u32,
    /// Between two looks at what the cluster has, milliseconds.
    pub capacity_every_ms: u64,
    /// How long a released Pod that has ended stays for its log, milliseconds.
    pub released_pod_keep_ms: i64,
    /// Released Pods kept at most; the oldest go first.
    pub released_pods_max: usize,
    /// The agent's own namespace, whose executor plugins serve all others; empty: there is none.
    pub own_namespace: String,
    /// Steps of resource templates, which have no Pods.
    pub resources: resource::Settings,
    /// ConfigMaps that workflows read.
    pub config_maps: config_maps::Settings,
}

impl Config {
    /// The defaults for a cluster of a cell.
    #[must_use]
    pub fn new(settings: pod::Settings) -> Self {
        Self {
            settings,
            image_volumes_where_possible: false,
            actions_max: 4_096,
            lanes: 8,
            workflows_ask_every_ms: 1_000,
            page_size: 500,
            capacity_every_ms: 15_000,
            released_pod_keep_ms: 3_600_000,
            released_pods_max: 1_000,
            own_namespace: String::new(),
            resources: resource::Settings::default(),
            config_maps: config_maps::Settings::default(),
        }
    }
}

/// What the lanes, the watch and the sweep share.
pub(crate) struct Shared {
    pub client: Client,
    pub config: Config,
    pub executors: Executors,
    pub events: mpsc::Sender<RuntimeEvent>,
    pub table: Table,
    /// What was asked to exist here.
    pub asked: Asked,
    /// What is kept for whole workflows.
    pub keeping: Keeping,
    /// Every host mounts images.
    pub image_volumes: AtomicBool,
    pub resources: Arc<Resources>,
}

impl Shared {
    /// What Pods have in common, now.
    fn settings(&self) -> Cow<'_, pod::Settings> {
        let settings = &self.config.settings;
        if !self.config.image_volumes_where_possible || !self.image_volumes.load(Ordering::Relaxed) {
            return Cow::Borrowed(settings);
        }
        Cow::Owned(pod::Settings { delivery: pod::Delivery::ImageVolume, ..settings.clone() })
    }

    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Waits for room: the watch slows down with its reader. A closed channel means that the agent is ending.
    pub async fn send(&self, event: RuntimeEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("the agent takes no more events");
        }
    }
}

/// Attempts as Pods. Its tasks end when it is dropped; Pods go on.
pub struct KubernetesRuntime {
    shared: Arc<Shared>,
    lanes: Vec<mpsc::Sender<RuntimeAction>>,
    _tasks: JoinSet<()>,
}

impl KubernetesRuntime {
    /// Starts watching. `Listed` is sent when the cluster's API answered for the first time; actions wait for that.
    ///
    /// # Errors
    /// [`Error::Setup`] for a configuration that can't work.
    pub fn start(
        config: Config,
        client: Client,
        executors: Executors,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Result<Self, Error> {
        if config.lanes == 0 || config.actions_max == 0 {
            return Err(Error::Setup("lanes and actions_max must be at least 1".to_owned()));
        }
        let resources = Resources::new(client.clone(), config.resources.clone(), events.clone());
        let shared = Arc::new(Shared {
            client,
            config,
            executors,
            events,
            table: Table::default(),
            asked: Asked::default(),
            keeping: Keeping::default(),
            image_volumes: AtomicBool::new(false),
            resources,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(watch::watch(Arc::clone(&shared)));
        tasks.spawn(watch::tell_capacity(Arc::clone(&shared)));
        tasks.spawn(watch::sweep_released(Arc::clone(&shared)));
        tasks.spawn(housekeeping::keep_house(Arc::clone(&shared)));
        tasks.spawn(prerequisites::look(Arc::clone(&shared)));
        tasks.spawn(config_maps::tell(Arc::clone(&shared)));
        let mut lanes = Vec::new();
        for _ in 0..shared.config.lanes {
            let (sender, receiver) = mpsc::channel(shared.config.actions_max);
            tasks.spawn(work(Arc::clone(&shared), receiver));
            lanes.push(sender);
        }
        Ok(Self { shared, lanes, _tasks: tasks })
    }
}

#[async_trait]
impl Runtime for KubernetesRuntime {
    fn act(&self, action: RuntimeAction) {
        if let RuntimeAction::CheckPrerequisites(names) = action {
            return self.shared.asked.add(names);
        }
        if let RuntimeAction::WorkflowsTold(told) = action {
            tokio::spawn(housekeeping::told(Arc::clone(&self.shared), told));
            return;
        }
        let fence = fence_of(&action);
        if let RuntimeAction::Release(fence) = &action {
            // At once and for good: nothing of it is reported any more, and the sweep finishes what the lane may drop.
            self.shared.table.mark_released(fence);
        }
        // Any spread will do, if it is always the same for one attempt.
        let spread = fence.index.wrapping_mul(31).wrapping_add(u64::from(fence.ordinal));
        let lane = usize::try_from(spread % self.lanes.len() as u64).unwrap_or(0);
        if self.lanes[lane].try_send(action).is_err() {
            tracing::warn!(fence = display_fence(&fence), "an action was dropped: its lane is full");
        }
    }

    /// The executor is the first process of the main container: nothing in it outlives the executor.
    fn enforces_exclusive(&self) -> bool {
        true
    }

    async fn logs(&self, fence: Fence, options: LogOptions) -> Result<LogStream, Error> {
        let text = display_fence(&fence);
        if let Some(lines) = self.shared.resources.log(&fence) {
            return Ok(futures::stream::once(async move { Ok(lines.into()) }).boxed());
        }
        let held = self.shared.table.get(&fence).ok_or_else(|| Error::UnknownAttempt(text.clone()))?;
        let has_started = held.observation.holder.is_some();
        logs::open(self.shared.pods(&held.namespace), held.name, text, has_started, options).await
    }
}

fn fence_of(action: &RuntimeAction) -> Fence {
    match action {
        RuntimeAction::Ensure(assignment) => assignment.fence.unwrap_or_default(),
        RuntimeAction::GrantPermit { fence, holder: _ } | RuntimeAction::Stop { fence, grace_ms: _ } => {
            *fence
        }
        RuntimeAction::Release(fence) => *fence,
        // Of no attempt.
        RuntimeAction::WorkflowsTold(_) | RuntimeAction::CheckPrerequisites(_) => Fence::default(),
    }
}

async fn work(shared: Arc<Shared>, mut actions: mpsc::Receiver<RuntimeAction>) {
    shared.table.listed().await;
    while let Some(action) = actions.recv().await {
        let fence = fence_of(&action);
        let failure = match tokio::time::timeout(ACTION_TIMEOUT, act(&shared, action)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {ACTION_TIMEOUT:?}"),
        };
        tracing::warn!(
            fence = display_fence(&fence),
            failure,
            "an action failed; it is repeated if it is still wanted"
        );
    }
}

async fn act(shared: &Shared, action: RuntimeAction) -> Result<(), kube::Error> {
    let fence = fence_of(&action);
    let resources = &shared.resources;
    match action {
        RuntimeAction::Ensure(assignment) if Resources::concerns(&assignment) => {
            resources.ensure(assignment).await;
            Ok(())
        }
        RuntimeAction::GrantPermit { .. } if resources.holds(&fence) => {
            resources.grant(&fence);
            Ok(())
        }
        RuntimeAction::Stop { .. } if resources.holds(&fence) => {
            resources.stop(fence).await;
            Ok(())
        }
        RuntimeAction::Release(_) if resources.holds(&fence) => {
            resources.release(&fence);
            Ok(())
        }
        RuntimeAction::Ensure(assignment) => ensure(shared, &assignment).await,
        RuntimeAction::GrantPermit { fence, holder } => grant(shared, fence, holder).await,
        RuntimeAction::Stop { fence, grace_ms } => stop(shared, fence, grace_ms).await,
        RuntimeAction::Release(fence) => release(shared, fence).await,
        RuntimeAction::WorkflowsTold(_) | RuntimeAction::CheckPrerequisites(_) => Ok(()),
    }
}

/// Makes the Pod, unless it is there. What will never work is the attempt's end; what may work later is left to repetition.
async fn ensure(shared: &Shared, assignment: &Assignment) -> Result<(), kube::Error> {
    let fence = assignment.fence.unwrap_or_default();
    if let Some(held) = shared.table.get(&fence) {
        shared.send(RuntimeEvent::Observed(held.observation)).await;
        return Ok(());
    }
    let failure = |message: String| {
        RuntimeEvent::Observed(AttemptObservation::new(fence, AttemptPhase::Error, message))
    };
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
        if task.touches_stores() {
            task.ticket = shared.executors.ticket(assignment);
        }
        shared.executors.environment(&fence, &task)
    };
    let pod = match pod::build(assignment, &settings, &environment, Timestamp::now().as_millisecond()) {
        Ok(pod) => pod,
        Err(error) => {
            shared.send(failure(error.to_string())).await;
            return Ok(());
        }
    };
    match housekeeping::prepare(shared, assignment, &pod).await {
        Ok(()) => {}
        Err(Hindrance::Refused(message)) => {
            shared.send(failure(message)).await;
            return Ok(());
        }
        Err(Hindrance::Later(error)) => return Err(error),
    }
    let pods = shared.pods(&assignment.namespace);
    let made = match pods.create(&PostParams::default(), &pod).await {
        Ok(made) => made,
        Err(kube::Error::Api(status)) if status.code == CONFLICT => {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let Some(there) = pods.get_opt(name).await? else { return Ok(()) };
            // The name holds cell and fence, so this is an earlier try whose answer was lost; or it is nobody's.
            if there.metadata.labels.as_ref().and_then(|labels| labels.get(names::FENCE))
                != Some(&display_fence(&fence))
            {
                shared.send(failure(format!("pod {name} exists and is not this attempt's; delete it"))).await;
                return Ok(());
            }
            there
        }
        Err(kube::Error::Api(status)) => {
            // The name that users know; ours is longer.
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let message = status.message.replace(name, &assignment.pod_name);
            if may_pass(status.code, &status.message) {
                let waits = AttemptObservation::new(fence, AttemptPhase::Pending, message);
                shared.send(RuntimeEvent::Observed(waits)).await;
                return Err(kube::Error::Api(status));
            }
            shared.send(failure(prerequisite(&message, &assignment.namespace, status.code))).await;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    watch::take(shared, &made).await;
    Ok(())
}

/// Refusals that another try may not meet: overload, the server's own errors, used-up quotas, an account just being made.
fn may_pass(code: u16, message: &str) -> bool {
    code >= 500
        || code == TOO_MANY_REQUESTS
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

/// Binds the attempt to the Pod that asks, by compare-and-swap on the Pod, then lets its executor start.
async fn grant(shared: &Shared, fence: Fence, holder: String) -> Result<(), kube::Error> {
    let Some(held) = shared.table.get(&fence) else {
        shared.send(RuntimeEvent::Gone(fence)).await;
        return Ok(());
    };
    let refuse = |reason: &str| {
        shared.executors.answer(&ExecutorAnswer::Refused {
            fence,
            holder: holder.clone(),
            reason: reason.to_owned(),
        });
    };
    let pods = shared.pods(&held.namespace);
    for _ in 0..CONFLICTS_MAX {
        let Some(pod) = pods.get_opt(&held.name).await? else {
            refuse("the attempt's Pod is gone");
            watch::gone(shared, fence).await;
            return Ok(());
        };
        if pod.metadata.uid.as_deref() != Some(holder.as_str()) {
            refuse("another Pod has this name now");
            return Ok(());
        }
        let bound = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::PERMIT));
        match bound {
            Some(bound) if *bound == holder => {
                shared.executors.grant(fence, &holder);
                return Ok(());
            }
            Some(_) => {
                refuse("the attempt's start permit belongs to another Pod");
                return Ok(());
            }
            None if pod.metadata.deletion_timestamp.is_some() => {
                refuse("the Pod is being deleted");
                return Ok(());
            }
            None => {}
        }
        let patch = json!({"metadata": {
            "uid": holder, "resourceVersion": pod.metadata.resource_version, "annotations": {(names::PERMIT): holder},
        }});
        match pods.patch(&held.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(bound) => {
                watch::take(shared, &bound).await;
                shared.executors.grant(fence, &holder);
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == CONFLICT => {}
            Err(error) => return Err(error),
        }
    }
    tracing::warn!(
        fence = display_fence(&fence),
        "the Pod changed each time its permit was to be written; the executor asks again"
    );
    Ok(())
}

/// Asks the Pod to end. The finalizer keeps it visible, so that its end is seen.
async fn stop(shared: &Shared, fence: Fence, grace_ms: i64) -> Result<(), kube::Error> {
    let Some(held) = shared.table.get(&fence) else {
        shared.send(RuntimeEvent::Gone(fence)).await;
        return Ok(());
    };
    if argosy_agent_runtime::is_terminal(held.observation.phase) {
        shared.send(RuntimeEvent::Observed(held.observation)).await;
        return Ok(());
    }
    delete(shared, &held, pod::grace_seconds(grace_ms)).await?;
    Ok(())
}

async fn delete(shared: &Shared, held: &Held, grace_seconds: i64) -> Result<(), kube::Error> {
    let parameters = DeleteParams {
        grace_period_seconds: Some(u32::try_from(grace_seconds.max(0)).unwrap_or(u32::MAX)),
        preconditions: Some(Preconditions { uid: Some(held.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    match shared.pods(&held.namespace).delete(&held.name, &parameters).await {
        Ok(_) => Ok(()),
        // Gone, or a later Pod of that name, which is not this one's business.
        Err(kube::Error::Api(status)) if status.code == NOT_FOUND || status.code == CONFLICT => Ok(()),
        Err(error) => Err(error),
    }
}

/// Drops the finalizer. A Pod that is being deleted goes with that; another stays for its log (see
/// [`Config::released_pods_max`]). It may still be about to end: its executor has handed the outcome over, and what the
/// reconciler does not want was stopped before. The sweep repeats what fails here, and deletes what does not end.
async fn release(shared: &Shared, fence: Fence) -> Result<(), kube::Error> {
    let Some(held) = shared.table.get(&fence) else { return Ok(()) };
    let pods = shared.pods(&held.namespace);
    for _ in 0..CONFLICTS_MAX {
        let Some(pod) = pods.get_opt(&held.name).await? else {
            shared.table.remove(&fence);
            return Ok(());
        };
        if pod.metadata.uid.as_deref() != Some(held.uid.as_str()) {
            shared.table.remove(&fence);
            return Ok(());
        }
        let rest: Vec<_> =
            pod.metadata.finalizers.iter().flatten().filter(|name| *name != names::FINALIZER).collect();
        let patch = json!({"metadata": {
            "uid": held.uid, "resourceVersion": pod.metadata.resource_version, "finalizers": rest, "labels": {(names::COMPLETED): "true"},
        }});
        match pods.patch(&held.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(released) => {
                watch::take(shared, &released).await;
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {
                shared.table.remove(&fence);
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == CONFLICT => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Repeats a release that failed.
pub(crate) async fn finish_release(shared: &Shared, fence: Fence) {
    if let Err(error) = release(shared, fence).await {
        tracing::warn!(fence = display_fence(&fence), %error, "a Pod was not released; it is tried again");
    }
}

/// Deletes a released Pod whose log is kept no longer.
pub(crate) async fn delete_released(shared: &Shared, held: &Held) {
    if let Err(error) = delete(shared, held, 0).await {
        tracing::warn!(pod = held.name, %error, "a released Pod was not deleted; it is tried again");
    }
}
