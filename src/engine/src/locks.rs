//! Locks: mutexes and semaphores. Who holds them, who waits, and how many may hold one at a time.
//!
//! A workflow or a node asks for all its locks at once and gets them all at once. Whoever waits has a place in the queue
//! of each of them: the higher priority first, then in log order. Since all queues have the same order, two that wait
//! for the same locks cannot wait for each other.
//!
//! A holder is a node, not an attempt: one whose cluster is lost keeps its locks while the step is taken over.

use argosy_model::planted::{Bug, is_planted};
use argosy_model::{NodeType, WorkflowId, node_id};
use argosy_proto::fact;
use argosy_proto::state as row;
use imbl::{OrdMap, OrdSet};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Error;
use crate::evolve::Step;
use crate::evolve_work::agenda_item;
use crate::key::Key;
use crate::state::{ROW_VERSION, State, phase_of, type_of};

/// Whoever asks: workflow and node; node 0 stands for the workflow itself.
pub(crate) type Owner = (u64, u32);

/// A lock's place in the tables: one name for everybody who means the same lock.
pub(crate) type LockName = Arc<str>;

/// Everything that can be derived from the requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LockIndex {
    /// (lock, ticket) to holder.
    holders: OrdMap<(LockName, u64), Owner>,
    /// Holders of a lock.
    counts: OrdMap<LockName, u32>,
    /// (lock, priority turned round, ticket) to who waits: the first is next.
    waiters: OrdMap<(LockName, i64, u64), Owner>,
    /// All that wait, by who they are.
    waiting: OrdSet<Owner>,
}

impl LockIndex {
    fn enter(&mut self, owner: Owner, request: &row::LockRequest) {
        for lock in &request.locks {
            let name = name_of(lock);
            if request.held {
                self.holders.insert((name.clone(), request.ticket), owner);
                *self.counts.entry(name).or_default() += 1;
            } else {
                self.waiters.insert((name, -i64::from(request.priority), request.ticket), owner);
            }
        }
        if !request.held {
            self.waiting.insert(owner);
        }
    }

    fn leave(&mut self, owner: Owner, request: &row::LockRequest) {
        for lock in &request.locks {
            let name = name_of(lock);
            if request.held {
                self.holders.remove(&(name.clone(), request.ticket));
                let left = self.counts.get(&name).map_or(0, |count| count.saturating_sub(1));
                if left == 0 {
                    self.counts.remove(&name);
                } else {
                    self.counts.insert(name, left);
                }
            } else {
                self.waiters.remove(&(name, -i64::from(request.priority), request.ticket));
            }
        }
        self.waiting.remove(&owner);
    }

    fn has_waiters(&self, name: &LockName) -> bool {
        self.waiters_of(name).next().is_some()
    }

    /// Who waits for a lock, the next one first.
    pub(crate) fn waiters_of(&self, name: &LockName) -> impl Iterator<Item = Owner> + '_ {
        let name = name.clone();
        let mine = name.clone();
        self.waiters
            .range((name, i64::MIN, 0)..)
            .take_while(move |((found, ..), _)| *found == mine)
            .map(|(_, owner)| *owner)
    }

    /// Who holds a lock, the oldest first.
    pub(crate) fn holders_of(&self, name: &LockName) -> impl Iterator<Item = Owner> + '_ {
        let mine = name.clone();
        self.holders
            .range((name.clone(), 0)..)
            .take_while(move |((found, _), _)| *found == mine)
            .map(|(_, owner)| *owner)
    }

    pub(crate) fn count(&self, name: &LockName) -> u32 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// The nodes of a workflow that wait, from one on.
    pub(crate) fn waiting_in(&self, workflow: u64, from: u32) -> impl Iterator<Item = u32> + '_ {
        self.waiting.range((workflow, from)..=(workflow, u32::MAX)).map(|(_, node)| *node)
    }
}

/// The lock as Argo names it.
pub(crate) fn shown(lock: &row::Lock) -> String {
    let row::Lock { namespace, name, key, .. } = lock;
    match lock.kind() {
        row::LockKind::ConfigMap => format!("{namespace}/ConfigMap/{name}/{key}"),
        row::LockKind::Limit | row::LockKind::LimitMutex => format!("{namespace}/Database/{name}"),
        row::LockKind::Workflows => format!("{namespace}/Workflows"),
        row::LockKind::Mutex | row::LockKind::Unspecified => format!("{namespace}/Mutex/{name}"),
    }
}

/// A mutex and a semaphore of one name are two locks.
pub(crate) fn name_of(lock: &row::Lock) -> LockName {
    let kind = if is_mutex(lock) { "mutex" } else { "semaphore" };
    LockName::from(format!("{kind} {}", shown(lock)))
}

pub(crate) fn is_mutex(lock: &row::Lock) -> bool {
    match lock.kind() {
        row::LockKind::Mutex | row::LockKind::LimitMutex | row::LockKind::Unspecified => true,
        row::LockKind::ConfigMap | row::LockKind::Limit | row::LockKind::Workflows => false,
    }
}

/// The sync limit of this key says how many workflows of a namespace run at once; in the namespace
/// [`WHOLE_CELL`], how many of all.
pub const WORKFLOWS_KEY: &str = "argosy-workflows";
/// Stands for every namespace: no namespace has this name.
pub const WHOLE_CELL: &str = "*";
/// Argo's message of a workflow that waits for its place.
const POSTPONED: &str =
    "Workflow processing has been postponed because too many workflows are already running";

fn workflows_lock(namespace: &str) -> row::Lock {
    row::Lock {
        kind: row::LockKind::Workflows.into(),
        namespace: namespace.to_owned(),
        name: WORKFLOWS_KEY.to_owned(),
        key: String::new(),
    }
}

impl State {
    /// How many may hold a lock now; 0: its limit is nowhere, or is no number above 0.
    pub(crate) fn lock_limit(&self, lock: &row::Lock) -> u32 {
        match lock.kind() {
            row::LockKind::Mutex | row::LockKind::LimitMutex | row::LockKind::Unspecified => 1,
            row::LockKind::ConfigMap => {
                let found = self.config_map(&lock.namespace, &lock.name);
                let text = found.and_then(|found| found.data.get(&lock.key));
                text.and_then(|text| text.parse::<i32>().ok())
                    .and_then(|limit| u32::try_from(limit).ok())
                    .unwrap_or(0)
            }
            row::LockKind::Limit => self.sync_limit(&lock.namespace, &lock.name).unwrap_or(0),
            // A limit that was deleted no longer holds.
            row::LockKind::Workflows => self.sync_limit(&lock.namespace, &lock.name).unwrap_or(u32::MAX),
        }
    }

    /// The places that a workflow of a namespace needs before it may run: in the namespace, and in the cell, where there
    /// is a limit.
    pub(crate) fn places_of(&self, namespace: &str) -> Vec<row::Lock> {
        let limited = |namespace: &&str| self.sync_limit(namespace, WORKFLOWS_KEY).is_some();
        [namespace, WHOLE_CELL].into_iter().filter(limited).map(workflows_lock).collect()
    }

    /// The limit of a semaphore that the control plane keeps.
    #[must_use]
    pub fn sync_limit(&self, namespace: &str, key: &str) -> Option<u32> {
        self.sync_limits.get(&(namespace.to_owned(), key.to_owned())).map(|limit| limit.limit)
    }

    /// Requests for locks, by kind (`mutex`, `semaphore`) and whether they are `held` or `pending`; for metrics.
    #[must_use]
    pub fn lock_totals(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut totals: BTreeMap<(&'static str, &'static str), u64> = BTreeMap::new();
        for request in self.lock_requests.values() {
            let word = if request.held { "held" } else { "pending" };
            for lock in &request.locks {
                *totals.entry((if is_mutex(lock) { "mutex" } else { "semaphore" }, word)).or_default() += 1;
            }
        }
        totals
    }

    /// Every lock that is held: by how many, counted anew, and how many may hold it now; for checkers.
    #[must_use]
    pub fn locks_held(&self) -> BTreeMap<String, (u32, u32)> {
        let mut found: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for request in self.lock_requests.values().filter(|request| request.held) {
            for lock in &request.locks {
                let count = found.entry(shown(lock)).or_insert_with(|| (0, self.lock_limit(lock)));
                count.0 += 1;
            }
        }
        found
    }

    /// What a workflow or node asks for or holds.
    pub(crate) fn lock_request(&self, owner: Owner) -> Option<&row::LockRequest> {
        self.lock_requests.get(&owner).map(AsRef::as_ref)
    }

    /// The workflow or node waits for a lock: nothing of it may begin.
    pub(crate) fn waits_for_lock(&self, owner: Owner) -> bool {
        self.lock_requests.get(&owner).is_some_and(|request| !request.held)
    }

    /// The node runs under a mutex or semaphore: its own, that of a node around it, or its workflow's. At no time may it
    /// run twice.
    #[must_use]
    pub fn is_under_lock(&self, workflow: WorkflowId, node: u32) -> bool {
        let guards = |lock: &row::Lock| lock.kind() != row::LockKind::Workflows;
        let holds = |node: u32| {
            let request = self.lock_requests.get(&(workflow.0, node));
            request.is_some_and(|request| request.locks.iter().any(guards))
        };
        let mut next = Some(node);
        while let Some(node) = next.filter(|node| *node != 0) {
            if holds(node) {
                return true;
            }
            next = self.node(workflow.0, node).map(|row| row.parent);
        }
        holds(0)
    }

    /// Whether a request could be granted now: all its locks have room, and nobody of another workflow comes before it.
    pub(crate) fn may_lock(&self, owner: Owner, locks: &[row::Lock]) -> bool {
        locks.iter().all(|lock| self.lock_is_free(owner, lock))
    }

    /// One lock of [`State::may_lock`].
    pub(crate) fn lock_is_free(&self, owner: Owner, lock: &row::Lock) -> bool {
        let name = name_of(lock);
        let first = self.index.locks.waiters_of(&name).next();
        // Whoever is first lets others of his own workflow go before him, as in Argo.
        let more = u32::from(is_planted(Bug::LockForTwo));
        let limit = self.lock_limit(lock) + more;
        first.is_none_or(|first| first.0 == owner.0) && self.index.locks.count(&name) < limit
    }

    /// For one that waits: the lock it waits for, and Argo's message.
    pub(crate) fn waits_for(&self, owner: Owner) -> Option<(String, String)> {
        let request = self.lock_request(owner).filter(|request| !request.held)?;
        let missing = request.locks.iter().find(|lock| !self.lock_is_free(owner, lock));
        let lock = missing.or_else(|| request.locks.first())?;
        if lock.kind() == row::LockKind::Workflows {
            return Some((shown(lock), POSTPONED.to_owned()));
        }
        let limit = i64::from(self.lock_limit(lock));
        let free = limit - i64::from(self.index.locks.count(&name_of(lock)));
        let name = shown(lock);
        let message = format!("Waiting for {name} lock. Lock status: {free}/{limit}");
        Some((name, message))
    }

    /// Argo's name of one that asks: NAMESPACE/WORKFLOW, and the id of a node.
    pub(crate) fn lock_owner_name(&self, owner: Owner) -> String {
        let Some(workflow) = self.workflows.get(&owner.0) else { return String::new() };
        let name = format!("{}/{}", workflow.namespace, workflow.name);
        match self.node(owner.0, owner.1) {
            Some(node) => format!("{name}/{}", node_id(&workflow.name, &node.name)),
            None => name,
        }
    }

    /// The next lock whose queue is to be looked at.
    pub(crate) fn next_lock_check(&self) -> Option<LockName> {
        self.lock_checks.get_min().cloned()
    }

    pub(crate) fn reindex_locks(&mut self) {
        let mut index = LockIndex::default();
        for (owner, request) in &self.lock_requests {
            index.enter(*owner, request);
        }
        self.index.locks = index;
    }
}

impl Step<'_> {
    pub(crate) fn lock_requested(&mut self, fact: &fact::LockRequested) {
        let owner = (fact.workflow, fact.node);
        let number = self.state.meta.queue_next;
        self.state.meta.queue_next += 1;
        let request = row::LockRequest {
            version: ROW_VERSION,
            locks: fact.locks.clone(),
            priority: fact.priority,
            ticket: number,
            held: fact.held,
            since_ms: self.time.0,
            uncounted: !fact.held && owner.1 != 0,
        };
        self.drop_lock_request(owner);
        self.state.index.locks.enter(owner, &request);
        self.state.lock_requests.insert(owner, Arc::new(request));
        self.touch(Key::LockRequest(owner.0, owner.1));
        self.touch_workflow(owner.0);
        if owner.1 == 0 && !fact.held {
            self.state.index.ready.remove(&owner.0);
        }
    }

    /// The request has all its locks: the workflow or node goes on.
    pub(crate) fn locks_granted(&mut self, fact: &fact::LocksGranted) -> Result<(), Error> {
        let owner = (fact.workflow, fact.node);
        let known = self.state.lock_requests.get(&owner).filter(|request| !request.held).cloned();
        let request = known.ok_or(Error::Misfit { what: "lock request that waits", id: owner.0 })?;
        self.state.index.locks.leave(owner, &request);
        let mut granted = request.as_ref().clone();
        granted.held = true;
        granted.since_ms = self.time.0;
        self.state.index.locks.enter(owner, &granted);
        self.state.lock_requests.insert(owner, Arc::new(granted));
        self.touch(Key::LockRequest(owner.0, owner.1));
        self.check_locks(&request);
        if owner.1 == 0 {
            self.touch_workflow(owner.0);
            self.refresh_ready(owner.0);
            return Ok(());
        }
        self.push_agenda(owner.0, agenda_item(row::AgendaKind::Unlocked, owner.1))
    }

    /// A node that had waited for locks is a Pod from now on.
    pub(crate) fn count_pod(&mut self, workflow: u64, node: u32) -> Result<(), Error> {
        let owner = (workflow, node);
        let uncounted = self.state.lock_requests.get_mut(&owner).filter(|request| request.uncounted);
        let Some(request) = uncounted else { return Ok(()) };
        Arc::make_mut(request).uncounted = false;
        self.touch(Key::LockRequest(workflow, node));
        if type_of(self.node(workflow, node)?) == NodeType::Pod {
            self.workflow(workflow)?.pods_active += 1;
        }
        Ok(())
    }

    pub(crate) fn lock_released(&mut self, fact: &fact::LockReleased) {
        self.drop_lock_request((fact.workflow, fact.node));
    }

    /// Whoever it was holds or waits no more; those behind may go on.
    pub(crate) fn drop_lock_request(&mut self, owner: Owner) {
        let Some(request) = self.state.lock_requests.remove(&owner) else { return };
        self.state.index.locks.leave(owner, &request);
        self.touch(Key::LockRequest(owner.0, owner.1));
        self.touch_workflow(owner.0);
        self.check_locks(&request);
        if owner.1 == 0 {
            self.refresh_ready(owner.0);
        }
    }

    /// The workflow is over or gone: so are all its requests.
    pub(crate) fn drop_lock_requests(&mut self, workflow: u64) {
        let mine = self.state.lock_requests.range((workflow, 0)..=(workflow, u32::MAX));
        for owner in mine.map(|(owner, _)| *owner).collect::<Vec<_>>() {
            self.drop_lock_request(owner);
        }
    }

    fn check_locks(&mut self, request: &row::LockRequest) {
        for lock in &request.locks {
            self.check_lock(&name_of(lock));
        }
    }

    /// The lock's queue is to be looked at, if anybody is in it.
    fn check_lock(&mut self, name: &LockName) {
        if self.state.index.locks.has_waiters(name) {
            self.state.lock_checks.insert(name.clone());
            self.touch(Key::LockCheck(name.to_string()));
        }
    }

    /// Nobody in the lock's queue can go on now.
    pub(crate) fn lock_settled(&mut self, fact: &fact::LockSettled) {
        self.state.lock_checks.remove(fact.lock.as_str());
        self.touch(Key::LockCheck(fact.lock.clone()));
    }

    pub(crate) fn sync_limit_set(&mut self, fact: &fact::SyncLimitSet) {
        let key = (fact.namespace.clone(), fact.key.clone());
        let limit = row::SyncLimit { version: ROW_VERSION, limit: fact.limit, changed_at_ms: self.time.0 };
        self.state.sync_limits.insert(key.clone(), limit);
        self.touch(Key::SyncLimit(key.0.clone(), key.1.clone()));
        self.check_places(&key.0, &key.1);
        self.check_limit(row::LockKind::Limit, key.0, key.1, String::new());
    }

    fn check_places(&mut self, namespace: &str, key: &str) {
        if key == WORKFLOWS_KEY {
            self.check_lock(&name_of(&workflows_lock(namespace)));
        }
    }

    pub(crate) fn sync_limit_deleted(&mut self, fact: &fact::SyncLimitDeleted) {
        let key = (fact.namespace.clone(), fact.key.clone());
        self.state.sync_limits.remove(&key);
        self.check_places(&key.0, &key.1);
        self.touch(Key::SyncLimit(key.0, key.1));
    }

    fn check_limit(&mut self, kind: row::LockKind, namespace: String, name: String, key: String) {
        self.check_lock(&name_of(&row::Lock { kind: kind.into(), namespace, name, key }));
    }

    /// Limits out of a ConfigMap may have changed.
    pub(crate) fn check_config_map(&mut self, namespace: &str, name: &str) {
        let lock = row::Lock {
            kind: row::LockKind::ConfigMap.into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: String::new(),
        };
        let start = name_of(&lock);
        let mut from = start.clone();
        loop {
            let next = self.state.index.locks.waiters.range((from, i64::MIN, 0)..).next();
            let Some(found) = next.map(|((found, ..), _)| found.clone()) else { return };
            if !found.starts_with(start.as_ref()) {
                return;
            }
            self.check_lock(&found);
            from = LockName::from(format!("{found}\u{0}"));
        }
    }

    /// Brings the index of workflows with something to do up to date.
    pub(crate) fn refresh_ready(&mut self, workflow: u64) {
        if self.state.may_go_on(workflow) && self.has_agenda(workflow) {
            self.state.index.ready.insert(workflow);
        } else {
            self.state.index.ready.remove(&workflow);
        }
    }
}

impl State {
    /// What is on the workflow's agenda may be done: it is not suspended, and has the locks it asked for.
    pub(crate) fn may_go_on(&self, workflow: u64) -> bool {
        let suspended = self.workflows.get(&workflow).is_some_and(|row| row.suspended);
        !suspended && !self.waits_for_lock((workflow, 0))
    }

    /// A Pod that waits for a lock, or for room after that, is none yet.
    pub(crate) fn counts_as_pod(&self, workflow: u64, node: u32) -> bool {
        self.lock_request((workflow, node)).is_none_or(|request| !request.uncounted)
    }

    /// A node that is held up by a lock, or that is below such a node.
    pub(crate) fn is_locked_out(&self, workflow: u64, node: u32) -> bool {
        if self.index.locks.waiting_in(workflow, 1).next().is_none() {
            return false;
        }
        let mut next = node;
        while next != 0 {
            if self.waits_for_lock((workflow, next)) {
                return true;
            }
            next = self.node(workflow, next).map_or(0, |row| row.parent);
        }
        false
    }

    /// The node has children or could have some: it ends after them.
    pub(crate) fn is_composite(&self, owner: Owner) -> bool {
        let Some(node) = self.node(owner.0, owner.1) else { return owner.1 == 0 };
        match type_of(node) {
            NodeType::Steps | NodeType::Dag | NodeType::Retry => !phase_of(node).is_fulfilled(),
            NodeType::StepGroup
            | NodeType::TaskGroup
            | NodeType::Pod
            | NodeType::Container
            | NodeType::Skipped
            | NodeType::Suspend
            | NodeType::Http
            | NodeType::Plugin => false,
        }
    }
}
