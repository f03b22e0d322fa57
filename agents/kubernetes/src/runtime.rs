//! The shell around the cluster's API: actions in, events out.

use crate::creation::{self, Backlog};
use crate::housekeeping::{self, Keeping};
use crate::prerequisites::{self, Asked};
use crate::resource::{self, Resources};
use crate::watch::{self, Held, Table};
use crate::{config_maps, left, logs, names, pod};
use argosy_agent_runtime::server::Executors;
use argosy_agent_runtime::{
    Error, ExecutorAnswer, Figure, LogOptions, LogStream, Policy, Runtime, RuntimeAction, RuntimeEvent,
};
use argosy_model::{Fence, display_fence};
use argosy_proto::common::Resources as Amounts;
use async_trait::async_trait;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub(crate) const NOT_FOUND: u16 = 404;
pub(crate) const CONFLICT: u16 = 409;
pub(crate) const TOO_MANY_REQUESTS: u16 = 429;
/// Writes of one object under a resource version that are tried before the action is left to its repetition.
pub(crate) const CONFLICTS_MAX: u32 = 5;
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
    /// What the cluster has, where that is not the sum over its hosts, or these may not be listed; 0: as found.
    pub capacity: Amounts,
    /// Between two looks at what the cluster has, milliseconds.
    pub capacity_every_ms: u64,
    /// How long a Pod that has ended is held for a verdict on its end, milliseconds; the end stays in the agent's ledger.
    pub finalizer_max_ms: i64,
    /// A Pod that is still there so long after it was to be gone, and that no kubelet has ended, is lost with its host, milliseconds.
    pub host_lost_after_ms: i64,
    /// How long a released Pod that has ended stays for its log, milliseconds.
    pub released_pod_keep_ms: i64,
    /// Released Pods kept at most; the oldest go first.
    pub released_pods_max: usize,
    /// The agent's own namespace, whose executor plugins serve all others; empty: there is none.
    pub own_namespace: String,
    /// The namespaces that are served; empty: all. The agent looks into no others.
    pub namespaces: Vec<String>,
    /// Steps of resource templates, which have no Pods.
    pub resources: resource::Settings,
    /// ConfigMaps that workflows read.
    pub config_maps: config_maps::Settings,
    /// What the cluster's owner allows; nothing: everything.
    pub policy: Option<Arc<Policy>>,
}

/// How long a Pod that has ended is held for a verdict on its end, unless something else is said, milliseconds.
pub const FINALIZER_MAX_MS: i64 = 86_400_000;

/// How long after its time a Pod that is being deleted is waited for, unless something else is said, milliseconds.
pub const HOST_LOST_AFTER_MS: i64 = 60_000;

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
            capacity: Amounts::default(),
            capacity_every_ms: 15_000,
            finalizer_max_ms: FINALIZER_MAX_MS,
            host_lost_after_ms: HOST_LOST_AFTER_MS,
            released_pod_keep_ms: 3_600_000,
            released_pods_max: 1_000,
            own_namespace: String::new(),
            namespaces: Vec::new(),
            resources: resource::Settings::default(),
            config_maps: config_maps::Settings::default(),
            policy: None,
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
    /// Pods that are not made yet.
    pub backlog: Backlog,
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
    pub fn settings(&self) -> Cow<'_, pod::Settings> {
        let settings = &self.config.settings;
        if !self.config.image_volumes_where_possible || !self.image_volumes.load(Ordering::Relaxed) {
            return Cow::Borrowed(settings);
        }
        Cow::Owned(pod::Settings { delivery: pod::Delivery::ImageVolume, ..settings.clone() })
    }

    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// One API for all namespaces, or one for each that is served.
    pub fn everywhere<K>(&self) -> Vec<Api<K>>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        match self.config.namespaces.as_slice() {
            [] => vec![Api::all(self.client.clone())],
            some => some.iter().map(|namespace| Api::namespaced(self.client.clone(), namespace)).collect(),
        }
    }

    /// Waits for room: the watch slows down with its reader. A closed channel means that the agent is ending.
    pub async fn send(&self, event: RuntimeEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("the agent takes no more events");
        }
    }
}

/// An action in its lane.
pub(crate) struct Work {
    pub action: RuntimeAction,
    /// It has waited for its turn to make a Pod.
    pub has_turn: bool,
}

/// The lane of an attempt: any spread will do, if it is always the same.
pub(crate) fn lane_of(fence: &Fence, lanes: usize) -> usize {
    let spread = fence.index.wrapping_mul(31).wrapping_add(u64::from(fence.ordinal));
    usize::try_from(spread % lanes as u64).unwrap_or(0)
}

/// Attempts as Pods. Its tasks end when it is dropped; Pods go on.
pub struct KubernetesRuntime {
    shared: Arc<Shared>,
    lanes: Vec<mpsc::Sender<Work>>,
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
        let resources =
            Resources::new(client.clone(), executors.clone(), config.resources.clone(), events.clone());
        let shared = Arc::new(Shared {
            client,
            config,
            executors,
            events,
            table: Table::default(),
            backlog: Backlog::default(),
            asked: Asked::default(),
            keeping: Keeping::default(),
            image_volumes: AtomicBool::new(false),
            resources,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(watch::watch(Arc::clone(&shared)));
        tasks.spawn(watch::tell_capacity(Arc::clone(&shared)));
        tasks.spawn(watch::sweep_released(Arc::clone(&shared)));
        tasks.spawn(watch::give_way(Arc::clone(&shared)));
        tasks.spawn(left::read_left(Arc::clone(&shared)));
        tasks.spawn(housekeeping::keep_house(Arc::clone(&shared)));
        tasks.spawn(prerequisites::look(Arc::clone(&shared)));
        tasks.spawn(config_maps::tell(Arc::clone(&shared)));
        let mut lanes = Vec::new();
        for _ in 0..shared.config.lanes {
            let (sender, receiver) = mpsc::channel(shared.config.actions_max);
            tasks.spawn(work(Arc::clone(&shared), receiver));
            lanes.push(sender);
        }
        tasks.spawn(creation::work_off(Arc::clone(&shared), lanes.clone()));
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
        if let RuntimeAction::Recorded(fence) = action {
            return self.shared.table.mark_recorded(&fence, Timestamp::now().as_millisecond());
        }
        let fence = fence_of(&action);
        match &action {
            RuntimeAction::Release(fence) => {
                // At once and for good: nothing of it is reported any more, and the sweep finishes what the lane may drop.
                self.shared.table.mark_released(fence);
                self.shared.backlog.remove(fence);
            }
            RuntimeAction::Stop { fence, .. } => self.shared.backlog.remove(fence),
            RuntimeAction::Ensure(_)
            | RuntimeAction::GrantPermit { .. }
            | RuntimeAction::Kill(_)
            | RuntimeAction::Recorded(_)
            | RuntimeAction::WorkflowsTold(_)
            | RuntimeAction::CheckPrerequisites(_) => {}
        }
        let lane = lane_of(&fence, self.lanes.len());
        if self.lanes[lane].try_send(Work { action, has_turn: false }).is_err() {
            tracing::warn!(fence = display_fence(&fence), "an action was dropped: its lane is full");
        }
    }

    async fn delete_artifact(
        &self,
        namespace: &str,
        location: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<(), Error> {
        crate::deletion::delete(&self.shared, namespace, location).await.map_err(Error::Driver)
    }

    /// The executor is the first process of the main container: nothing in it outlives the executor.
    fn enforces_exclusive(&self) -> bool {
        true
    }

    fn figures(&self) -> Vec<Figure> {
        let (made, refused, waiting) = self.shared.backlog.figures();
        let (held, breaks) = self.shared.table.figures();
        vec![
            Figure::counter("pods_created_total", "Pods made.", made),
            Figure::counter(
                "creations_throttled_total",
                "Creations that the cluster's API put off (429).",
                refused,
            ),
            Figure::gauge("creations_waiting", "Creations that wait for the cluster's API.", waiting),
            Figure::gauge("pods", "Pods known, released ones included.", held),
            Figure::counter("watch_breaks_total", "Breaks of the watch of Pods.", breaks),
        ]
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
        RuntimeAction::Kill(fence) | RuntimeAction::Recorded(fence) | RuntimeAction::Release(fence) => *fence,
        // Of no attempt.
        RuntimeAction::WorkflowsTold(_) | RuntimeAction::CheckPrerequisites(_) => Fence::default(),
    }
}

async fn work(shared: Arc<Shared>, mut actions: mpsc::Receiver<Work>) {
    shared.table.listed().await;
    while let Some(work) = actions.recv().await {
        let fence = fence_of(&work.action);
        let failure = match tokio::time::timeout(ACTION_TIMEOUT, Box::pin(act(&shared, work))).await {
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

async fn act(shared: &Shared, Work { action, has_turn }: Work) -> Result<(), kube::Error> {
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
        RuntimeAction::Kill(_) if resources.holds(&fence) => {
            resources.stop(fence).await;
            Ok(())
        }
        RuntimeAction::Release(_) if resources.holds(&fence) => {
            resources.release(&fence);
            Ok(())
        }
        RuntimeAction::Ensure(assignment) => creation::ensure(shared, &assignment, has_turn).await,
        RuntimeAction::GrantPermit { fence, holder } => Box::pin(grant(shared, fence, holder)).await,
        RuntimeAction::Stop { fence, grace_ms } => stop(shared, fence, grace_ms).await,
        RuntimeAction::Kill(fence) => kill(shared, fence).await,
        RuntimeAction::Release(fence) => release(shared, fence).await,
        RuntimeAction::Recorded(_)
        | RuntimeAction::WorkflowsTold(_)
        | RuntimeAction::CheckPrerequisites(_) => Ok(()),
    }
}

/// Binds the attempt to the Pod that asks, by compare-and-swap on the Pod, then lets its executor start.
async fn grant(shared: &Shared, fence: Fence, holder: String) -> Result<(), kube::Error> {
    let Some(held) = watch::find(shared, fence).await? else {
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
    let Some(held) = watch::find(shared, fence).await? else {
        shared.send(RuntimeEvent::Gone(fence)).await;
        return Ok(());
    };
    if argosy_agent_runtime::is_terminal(held.observation.phase) {
        shared.send(RuntimeEvent::Observed(held.observation)).await;
        return Ok(());
    }
    left::give_up(shared, fence).await;
    delete(shared, &held, pod::grace_seconds(grace_ms)).await?;
    Ok(())
}

/// As when the Pod's node dies: no grace. Its end is seen by the watch.
async fn kill(shared: &Shared, fence: Fence) -> Result<(), kube::Error> {
    match shared.table.get(&fence) {
        Some(held) if !argosy_agent_runtime::is_terminal(held.observation.phase) => {
            delete(shared, &held, 0).await
        }
        Some(_) | None => Ok(()),
    }
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
    if !left::delete(shared, fence, &held).await {
        return Ok(());
    }
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
