//! What the runtime knows of its Pods, kept by a watch; capacity; the sweep of released Pods.

use crate::gc::Removal;
use crate::housekeeping::Key;
use crate::left::Unread;
use crate::observe::{POD_DELETED, Seen};
use crate::runtime::{Shared, delete_released, finish_release};
use crate::{capacity, names};
use argosy_agent_runtime::server::Left;
use argosy_agent_runtime::{AttemptObservation, RuntimeEvent, is_terminal};
use argosy_model::{Fence, display_fence};
use argosy_proto::common::{AttemptPhase, Resources};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Api;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch as latch;

const FORBIDDEN: u16 = 403;

/// A removal that shows no effect is repeated after this time.
const REPEAT_AFTER_MS: i64 = 10_000;
/// How long one watch lasts, and so how long one may be silent that nobody serves any more: the next one says what it missed.
const WATCH_SECONDS: u32 = 45;
/// How often Pods are looked for on which no verdict comes.
const GIVE_WAY_EVERY: Duration = Duration::from_secs(3);
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How long a released Pod may take to end by itself: its executor has handed the outcome over.
const END_GRACE_MS: i64 = 60_000;

/// What is remembered of one Pod.
#[derive(Clone, Debug)]
pub struct Held {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Since when it is released, milliseconds since 1970.
    pub released_at_ms: Option<i64>,
    /// It still carries our finalizer.
    pub has_finalizer: bool,
    /// It is to be deleted, and goes once nothing holds it: by then its kubelet should have ended it, milliseconds since 1970.
    pub delete_by_ms: Option<i64>,
    /// Since when its end is in the agent's ledger, milliseconds since 1970.
    pub recorded_at_ms: Option<i64>,
    /// The newest one told.
    pub observation: AttemptObservation,
    /// Where its executor left its result, if in an object store.
    pub left: Option<Arc<Left>>,
    pub workflow: Option<Key>,
    pub removal: Option<Removal>,
    /// It is to go then, milliseconds since 1970.
    pub due_at_ms: Option<i64>,
}

impl Held {
    /// Its executor left its result in an object store, and nobody knows it yet.
    pub fn is_unread(&self) -> bool {
        let is_open = self.released_at_ms.is_none() && self.recorded_at_ms.is_none();
        self.left.is_some() && is_open && !is_terminal(self.observation.phase)
    }

    /// When it is to be removed, as far as it hangs on this Pod alone.
    fn own_due_ms(&self) -> Option<i64> {
        let removal = self.removal.filter(|removal| !removal.strategy.waits_for_workflow())?;
        let has_succeeded = self.observation.phase == AttemptPhase::Succeeded;
        let is_due =
            is_terminal(self.observation.phase) && (has_succeeded || !removal.strategy.needs_success());
        is_due.then(|| self.released_at_ms.map(|at_ms| at_ms.saturating_add(removal.delay_ms)))?
    }
}

/// The Pods of this cell on this cluster, by attempt.
pub struct Table {
    held: Mutex<BTreeMap<Fence, Held>>,
    /// Missing in a list, and not asked for with success since: the sweep asks.
    doubtful: Mutex<BTreeSet<Fence>>,
    /// Results in object stores that are to be read.
    pub unread: Unread,
    listed: latch::Sender<bool>,
    watch_healthy: AtomicBool,
    watch_breaks: AtomicU64,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            held: Mutex::default(),
            doubtful: Mutex::default(),
            unread: Unread::default(),
            listed: latch::Sender::new(false),
            watch_healthy: AtomicBool::new(false),
            watch_breaks: AtomicU64::new(0),
        }
    }
}

impl Table {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Fence, Held>> {
        // The map is whole after each statement, so a panic elsewhere does not spoil it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pods held, and breaks of the watch.
    pub fn figures(&self) -> (u64, u64) {
        (self.lock().len() as u64, self.watch_breaks.load(Ordering::Relaxed))
    }

    /// Waits until everything that exists is known.
    pub async fn listed(&self) {
        let mut receiver = self.listed.subscribe();
        // The sender lives as long as this table.
        let _ = receiver.wait_for(|listed| *listed).await;
    }

    pub fn get(&self, fence: &Fence) -> Option<Held> {
        self.lock().get(fence).cloned()
    }

    pub fn remove(&self, fence: &Fence) {
        self.lock().remove(fence);
    }

    pub fn mark_released(&self, fence: &Fence) {
        if let Some(held) = self.lock().get_mut(fence) {
            held.released_at_ms.get_or_insert_with(|| Timestamp::now().as_millisecond());
        }
    }

    /// Its end is in the agent's ledger; of an end that an earlier life of the agent recorded, the time of that end counts.
    pub fn mark_recorded(&self, fence: &Fence, now_ms: i64) {
        if let Some(held) = self.lock().get_mut(fence) {
            let ended_at_ms = held.observation.finished_at_ms;
            let at_ms = if ended_at_ms > 0 { ended_at_ms.min(now_ms) } else { now_ms };
            held.recorded_at_ms.get_or_insert(at_ms);
        }
    }

    /// Pods that are held although their end is in the ledger, since no verdict on it came.
    pub fn unanswered(&self) -> Vec<(Fence, Held)> {
        let waits = |held: &Held| {
            held.recorded_at_ms.is_some() && held.released_at_ms.is_none() && held.has_finalizer
        };
        let table = self.lock();
        table.iter().filter(|(_, held)| waits(held)).map(|(fence, held)| (*fence, held.clone())).collect()
    }

    /// Pods that were to be gone before that time, milliseconds since 1970, and that no kubelet ends: their hosts are lost, as far as
    /// anybody here can say. Each is named once.
    pub fn lost(&self, before_ms: i64) -> Vec<AttemptObservation> {
        let is_lost = |held: &&mut Held| {
            let is_held = held.released_at_ms.is_none() && held.left.is_none();
            is_held
                && held.delete_by_ms.is_some_and(|by_ms| by_ms < before_ms)
                && !is_terminal(held.observation.phase)
        };
        let mut table = self.lock();
        let lost = table.values_mut().filter(is_lost);
        let ended = lost.map(|held| {
            held.observation.phase = AttemptPhase::Error;
            POD_DELETED.clone_into(&mut held.observation.message);
            held.observation.ready = false;
            held.observation.clone()
        });
        ended.collect()
    }

    /// Released Pods that are to be removed now. They are not named again for a while.
    pub fn due(&self, now_ms: i64) -> Vec<Held> {
        let mut due = Vec::new();
        for held in
            self.lock().values_mut().filter(|held| held.released_at_ms.is_some() && !held.has_finalizer)
        {
            let at_ms = held.due_at_ms.or_else(|| held.own_due_ms());
            if at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                held.due_at_ms = Some(now_ms.saturating_add(REPEAT_AFTER_MS));
                due.push(held.clone());
            }
        }
        due
    }

    /// The workflows of released Pods that wait for their workflow's end; with `all` those of every released Pod.
    pub fn workflows(&self, all: bool) -> BTreeSet<Key> {
        let waits = |held: &&Held| {
            held.released_at_ms.is_some()
                && held.due_at_ms.is_none()
                && (all || held.removal.is_some_and(|removal| removal.strategy.waits_for_workflow()))
        };
        self.lock().values().filter(waits).filter_map(|held| held.workflow.clone()).collect()
    }

    /// A workflow is over: its Pods that waited for that are due; all of them if it is forgotten.
    pub fn workflow_over(&self, key: &Key, succeeded: bool, forgotten: bool, now_ms: i64) {
        for held in self.lock().values_mut().filter(|held| held.workflow.as_ref() == Some(key)) {
            let waits = held.removal.filter(|removal| removal.strategy.waits_for_workflow());
            let delay_ms = match waits {
                Some(removal) if succeeded || !removal.strategy.needs_success() => removal.delay_ms,
                Some(_) | None if forgotten => 0,
                Some(_) | None => continue,
            };
            held.due_at_ms.get_or_insert(now_ms.saturating_add(delay_ms));
        }
    }

    /// Released here, but the cluster does not know yet: a write failed.
    fn half_released(&self) -> Vec<Fence> {
        let is_half = |held: &Held| held.released_at_ms.is_some() && held.has_finalizer;
        self.lock().iter().filter(|(_, held)| is_half(held)).map(|(fence, _)| *fence).collect()
    }

    /// Remembers a Pod; says whether there is something new to tell.
    pub fn put(&self, seen: &Seen) -> bool {
        let mut table = self.lock();
        let fence = seen.observation.fence;
        let before = table.get(&fence);
        // An answer to a write and the watch race; a Pod never comes back from its release.
        let known = before.filter(|before| before.uid == seen.uid).and_then(|before| before.released_at_ms);
        let released_at_ms = known.or_else(|| seen.released.then(|| Timestamp::now().as_millisecond()));
        let is_stale =
            before.is_some_and(|before| before.uid == seen.uid && is_terminal(before.observation.phase));
        let observation = match before {
            // What was seen, read in an object store or concluded from a host's silence stands.
            Some(before) if is_stale && !is_terminal(seen.observation.phase) => before.observation.clone(),
            Some(_) | None => seen.observation.clone(),
        };
        let same = before.filter(|before| before.uid == seen.uid);
        let recorded_at_ms = same.and_then(|before| before.recorded_at_ms);
        let is_new = before.is_none_or(|before| before.observation != observation);
        let held = Held {
            namespace: seen.namespace.clone(),
            name: seen.name.clone(),
            uid: seen.uid.clone(),
            released_at_ms,
            has_finalizer: !seen.released,
            delete_by_ms: seen.delete_by_ms,
            recorded_at_ms,
            observation,
            left: seen.left.clone().map(Arc::new),
            workflow: seen.workflow.clone(),
            removal: seen.removal,
            due_at_ms: before.and_then(|before| before.due_at_ms),
        };
        if held.is_unread() {
            self.unread.add(fence);
        }
        table.insert(fence, held);
        is_new && released_at_ms.is_none()
    }
}

/// Takes a Pod as it was just read: remembers it, and tells what is new.
pub async fn take(shared: &Shared, pod: &Pod) {
    let Some(seen) = Seen::new(pod) else { return };
    if shared.table.put(&seen) {
        tell(shared, seen).await;
    }
}

/// The Pod of an attempt, as far as the cluster knows: the answer to its creation may be lost, and the watch be behind.
pub async fn find(shared: &Shared, fence: Fence) -> Result<Option<Held>, kube::Error> {
    if let Some(held) = shared.table.get(&fence) {
        return Ok(Some(held));
    }
    let settings = &shared.config.settings;
    let selector = names::selector(&settings.cell, &settings.cluster);
    let own = ListParams::default().labels(&format!("{selector},{}={}", names::FENCE, display_fence(&fence)));
    for pods in shared.everywhere::<Pod>() {
        for pod in pods.list(&own).await?.items {
            take(shared, &pod).await;
        }
    }
    Ok(shared.table.get(&fence))
}

/// The outcome first: the first terminal state counts, and only the outcome has the outputs.
pub async fn tell(shared: &Shared, seen: Seen) {
    let fence = seen.observation.fence;
    if let (Some(outcome), Some(holder)) = (seen.outcome, seen.observation.holder.clone()) {
        shared.send(RuntimeEvent::Outcome { fence, holder, outcome }).await;
    }
    shared.send(RuntimeEvent::Observed(seen.observation)).await;
}

/// A Pod is not there any more. Released ones leave silently.
pub async fn gone(shared: &Shared, fence: Fence) {
    let held = shared.table.get(&fence);
    shared.table.remove(&fence);
    if held.is_some_and(|held| held.released_at_ms.is_none()) {
        shared.send(RuntimeEvent::Gone(fence)).await;
    }
}

/// Keeps the table equal to the cluster. After a break the watch resumes where it was; when the server has forgotten that
/// point (410), everything is listed again, and what is missing then is gone.
pub async fn watch(shared: Arc<Shared>) {
    let settings = &shared.config.settings;
    let options = watcher::Config::default()
        .labels(&names::selector(&settings.cell, &settings.cluster))
        .timeout(WATCH_SECONDS)
        .page_size(shared.config.page_size);
    let apis = shared.everywhere::<Pod>();
    let mut lists: Vec<List> = apis.iter().map(|_| List::default()).collect();
    let watches = apis.into_iter().enumerate().map(|(place, api)| {
        let events = watcher(api, options.clone()).default_backoff();
        Box::pin(events.map(move |event| (place, event)))
    });
    let mut events = pin!(futures::stream::select_all(watches));
    while let Some((place, event)) = events.next().await {
        let list = &mut lists[place];
        list.is_healthy = event.is_ok();
        match event {
            Ok(watcher::Event::Init) => list.seen.clear(),
            Ok(watcher::Event::InitApply(pod)) => list.seen.extend(Seen::new(&pod)),
            Ok(watcher::Event::InitDone) if *shared.table.listed.borrow() => {
                let namespace = shared.config.namespaces.get(place).map(String::as_str);
                take_list(&shared, namespace, std::mem::take(&mut list.seen)).await;
            }
            Ok(watcher::Event::InitDone) => {
                list.is_done = true;
                if lists.iter().all(|list| list.is_done) {
                    let all = lists.iter_mut().flat_map(|list| std::mem::take(&mut list.seen)).collect();
                    take_first_list(&shared, all).await;
                }
            }
            Ok(watcher::Event::Apply(pod)) => take(&shared, &pod).await,
            Ok(watcher::Event::Delete(pod)) => {
                let seen = Seen::new(&pod);
                let current = seen.as_ref().and_then(|seen| shared.table.get(&seen.observation.fence));
                // The last state of a Pod may come with its deletion only.
                if let Some(seen) = seen
                    && current.is_none_or(|current| current.uid == seen.uid)
                {
                    take(&shared, &pod).await;
                    gone(&shared, seen.observation.fence).await;
                }
            }
            Err(error) => {
                shared.table.watch_breaks.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "the watch of Pods broke; it is taken up again");
            }
        }
        shared.table.watch_healthy.store(lists.iter().all(|list| list.is_healthy), Ordering::Relaxed);
    }
}

/// One watch, and the list that it begins with.
#[derive(Default)]
struct List {
    seen: Vec<Seen>,
    is_done: bool,
    is_healthy: bool,
}

/// The list of a namespace, or of all.
async fn take_list(shared: &Shared, namespace: Option<&str>, listing: Vec<Seen>) {
    let present: BTreeSet<Fence> = listing.iter().map(|seen| seen.observation.fence).collect();
    let is_missing = |(fence, held): &(&Fence, &Held)| {
        !present.contains(fence) && namespace.is_none_or(|namespace| held.namespace == namespace)
    };
    let missing: Vec<Fence> =
        shared.table.lock().iter().filter(is_missing).map(|(fence, _)| *fence).collect();
    for seen in listing {
        if shared.table.put(&seen) {
            tell(shared, seen).await;
        }
    }
    for fence in missing {
        ask_for(shared, fence).await;
    }
}

/// A Pod that a list does not have was made after it, perhaps, or is gone: only the API knows. Without its word the sweep
/// asks again: nobody else would ever tell of its end.
async fn ask_for(shared: &Shared, fence: Fence) {
    let doubtful = || shared.table.doubtful.lock().unwrap_or_else(PoisonError::into_inner);
    doubtful().remove(&fence);
    let Some(held) = shared.table.get(&fence) else { return };
    match shared.pods(&held.namespace).get_opt(&held.name).await {
        Ok(Some(pod)) if pod.metadata.uid.as_deref() == Some(held.uid.as_str()) => take(shared, &pod).await,
        Ok(_) => gone(shared, fence).await,
        Err(error) => {
            tracing::warn!(fence = display_fence(&fence), %error, "a missing Pod could not be asked for; it is tried again");
            doubtful().insert(fence);
        }
    }
}

async fn take_first_list(shared: &Shared, listing: Vec<Seen>) {
    let mut all = Vec::new();
    let mut ended = Vec::new();
    for seen in listing {
        shared.table.put(&seen);
        if seen.released {
            continue;
        }
        let mut observation = seen.observation.clone();
        if seen.outcome.is_some() && is_terminal(observation.phase) {
            // Adopted as running, then ended by its outcome, which has the outputs.
            observation.phase = AttemptPhase::Running;
            ended.push(seen);
        }
        all.push(observation);
    }
    all.extend(shared.resources.adopt());
    tracing::info!(count = all.len(), "attempts are here already");
    shared.send(RuntimeEvent::Listed(all)).await;
    for seen in ended {
        tell(shared, seen).await;
    }
    shared.table.listed.send_replace(true);
}

/// Tells now and then what the cluster has, and whether its API answers.
pub async fn tell_capacity(shared: Arc<Shared>) {
    shared.table.listed().await;
    let mut known = capacity::overridden(Resources::default(), &shared.config.capacity);
    let mut said = false;
    let mut rounds = tokio::time::interval(Duration::from_millis(shared.config.capacity_every_ms));
    loop {
        rounds.tick().await;
        let hosts = list_hosts(&shared).await;
        let may_not = matches!(&hosts, Err(kube::Error::Api(status)) if status.code == FORBIDDEN);
        match &hosts {
            Err(error) if may_not => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "the hosts may not be listed: what they can give is not known (role argosy-agent-hosts)");
                }
            }
            Err(error) => tracing::warn!(%error, "the hosts could not be listed"),
            Ok(_) => {}
        }
        let healthy = (hosts.is_ok() || may_not) && shared.table.watch_healthy.load(Ordering::Relaxed);
        if let Ok(hosts) = hosts {
            known = capacity::overridden(capacity::allocatable(&hosts), &shared.config.capacity);
            shared.image_volumes.store(capacity::mount_images(&hosts), Ordering::Relaxed);
        }
        shared.send(RuntimeEvent::Capacity { allocatable: known.clone(), healthy }).await;
    }
}

async fn list_hosts(shared: &Shared) -> Result<Vec<Node>, kube::Error> {
    let hosts = Api::<Node>::all(shared.client.clone());
    let mut parameters = ListParams::default().limit(shared.config.page_size);
    let mut all = Vec::new();
    loop {
        let page = hosts.list(&parameters).await?;
        let more = page.metadata.continue_.clone().filter(|token| !token.is_empty());
        all.extend(page.items);
        match more {
            Some(token) => parameters.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

/// Tells the end of Pods whose hosts are lost. Lets go of Pods whose end is recorded and on which no verdict comes, where they stand in the way: at once in a namespace
/// that is being deleted, elsewhere when their time is over. The record stays in the ledger, and is reported until the verdict.
pub async fn give_way(shared: Arc<Shared>) {
    shared.table.listed().await;
    let mut rounds = tokio::time::interval(GIVE_WAY_EVERY);
    loop {
        rounds.tick().await;
        let now_ms = Timestamp::now().as_millisecond();
        for lost in shared.table.lost(now_ms.saturating_sub(shared.config.host_lost_after_ms)) {
            tracing::warn!(
                pod = lost.handle,
                host = lost.host,
                "a Pod that is to be gone is not ended by its host, which is lost"
            );
            shared.send(RuntimeEvent::Observed(lost)).await;
        }
        let mut namespaces = BTreeMap::new();
        for (fence, held) in shared.table.unanswered() {
            let waited_ms = now_ms.saturating_sub(held.recorded_at_ms.unwrap_or(now_ms));
            let mut goes = waited_ms >= shared.config.finalizer_max_ms;
            if !goes && held.delete_by_ms.is_some() {
                goes = match namespaces.get(&held.namespace) {
                    Some(known) => *known,
                    None => {
                        let goes = is_terminating(&shared, &held.namespace).await;
                        namespaces.insert(held.namespace.clone(), goes);
                        goes
                    }
                };
            }
            if goes {
                tracing::info!(
                    pod = held.name,
                    waited_ms,
                    "a Pod is let go without a verdict: its end is in the ledger"
                );
                finish_release(&shared, fence).await;
            }
        }
    }
}

/// Whether a namespace is being deleted. What can't be found out is asked again.
async fn is_terminating(shared: &Shared, name: &str) -> bool {
    match Api::<Namespace>::all(shared.client.clone()).get_opt(name).await {
        Ok(found) => found.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()),
        Err(error) => {
            tracing::warn!(namespace = name, %error, "whether a namespace is being deleted is not known");
            false
        }
    }
}

/// Asks for Pods that a list did not have; finishes releases that failed; deletes released Pods that are too old or too many, or that do not end.
pub async fn sweep_released(shared: Arc<Shared>) {
    shared.table.listed().await;
    let mut rounds = tokio::time::interval(SWEEP_EVERY);
    loop {
        rounds.tick().await;
        let now_ms = Timestamp::now().as_millisecond();
        let (keep_ms, keep_max) = (shared.config.released_pod_keep_ms, shared.config.released_pods_max);
        let doubtful = shared.table.doubtful.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for fence in doubtful {
            ask_for(&shared, fence).await;
        }
        for fence in shared.table.half_released() {
            finish_release(&shared, fence).await;
        }
        let unwanted = too_many(&shared.table.lock(), now_ms, keep_ms, keep_max);
        for held in unwanted {
            delete_released(&shared, &held).await;
        }
    }
}

fn too_many(held: &BTreeMap<Fence, Held>, now_ms: i64, keep_ms: i64, keep_max: usize) -> Vec<Held> {
    let released = held.values().filter_map(|held| Some((held.released_at_ms?, held)));
    let (ended, going_on): (Vec<_>, Vec<_>) =
        released.partition(|(_, held)| is_terminal(held.observation.phase));
    let overdue = going_on
        .into_iter()
        .filter(|(released_at_ms, _)| now_ms.saturating_sub(*released_at_ms) > END_GRACE_MS);
    let mut ended = ended;
    ended.sort_by_key(|(released_at_ms, _)| std::cmp::Reverse(*released_at_ms));
    let is_old = |released_at_ms: i64| now_ms.saturating_sub(released_at_ms) > keep_ms;
    let unwanted =
        ended.into_iter().enumerate().filter(|(place, (at_ms, _))| *place >= keep_max || is_old(*at_ms));
    overdue.chain(unwanted.map(|(_, pair)| pair)).map(|(_, held)| held.clone()).collect()
}

#[cfg(test)]
mod tests;
