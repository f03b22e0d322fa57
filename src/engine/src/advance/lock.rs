//! Mutexes and semaphores: who asks for which, who gets them, and what goes on then.

use argosy_model::{NodePhase, NodeType, WorkflowPhase};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::{Manifest, Synchronization, Template};

use crate::Leader;
use crate::advance::create::{self, Place};
use crate::advance::{Turn, deadlock, hold, hooks, leaf, memo, workflow};
use crate::artifacts::NodeInputs;
use crate::draft::Draft;
use crate::evolve_work::agenda_item;
use crate::locks::{Owner, shown};
use crate::state::{State, phase_of, type_of};

/// Locks that one workflow or template may ask for.
const LOCKS_MAX: usize = 100;
/// Waiting nodes of one workflow that are looked at for one that can go before the first.
const SIBLINGS_MAX: usize = 64;

/// The locks that a manifest names, in Argo's order.
fn locks_of(asked: &Synchronization, namespace: &str) -> Result<Vec<row::Lock>, String> {
    let invalid = |why: &str| format!("requested configuration is invalid: {why}");
    let place = |own: &str| if own.is_empty() { namespace.to_owned() } else { own.to_owned() };
    let mut locks = Vec::new();
    for semaphore in &asked.semaphores {
        let namespace = place(&semaphore.namespace);
        locks.push(match (&semaphore.config_map_key_ref, &semaphore.database) {
            (Some(_), Some(_)) => {
                return Err(invalid("invalid semaphore with both ConfigMapKeyRef and Database"));
            }
            (Some(key), None) => row::Lock {
                kind: row::LockKind::ConfigMap.into(),
                namespace,
                name: key.name.clone(),
                key: key.key.clone(),
            },
            (None, Some(limit)) => row::Lock {
                kind: row::LockKind::Limit.into(),
                namespace,
                name: limit.key.clone(),
                key: String::new(),
            },
            (None, None) => {
                return Err(invalid(
                    "cannot get LockName for a Semaphore without a ConfigMapRef or Database",
                ));
            }
        });
    }
    for mutex in &asked.mutexes {
        let kind = if mutex.database { row::LockKind::LimitMutex } else { row::LockKind::Mutex };
        let (namespace, name) = (place(&mutex.namespace), mutex.name.clone());
        locks.push(row::Lock { kind: kind.into(), namespace, name, key: String::new() });
    }
    if locks.len() > LOCKS_MAX {
        return Err(invalid(&format!("at most {LOCKS_MAX} locks can be asked for at once")));
    }
    if (1..locks.len()).any(|at| locks[..at].contains(&locks[at])) {
        return Err(invalid("Duplicate synchronization item found"));
    }
    Ok(locks)
}

/// A semaphore without a limit would be waited for in vain.
fn check_limits(state: &State, locks: &[row::Lock]) -> Result<(), String> {
    match locks.iter().find(|lock| state.lock_limit(lock) == 0) {
        Some(lock) => Err(format!("failed to initialize semaphore {} with limit", shown(lock))),
        None => Ok(()),
    }
}

fn request(draft: &mut Draft, owner: Owner, locks: Vec<row::Lock>, priority: i32, held: bool) {
    let (workflow, node) = owner;
    draft.emit(Body::LockRequested(fact::LockRequested { workflow, node, locks, priority, held }));
}

/// A workflow asks for its locks, as it is accepted or tried again. Until it has them nothing of it is done. False: it
/// cannot have them, and has failed.
pub(crate) fn enter_workflow(draft: &mut Draft, workflow: u64, manifest: &Manifest) -> bool {
    let Some(row) = draft.state.workflows.get(&workflow).cloned() else { return true };
    let mut locks = draft.state.places_of(&row.namespace);
    let own = manifest.spec.synchronization.as_ref().map_or(Ok(Vec::new()), |asked| {
        locks_of(asked, &row.namespace).and_then(|locks| check_limits(&draft.state, &locks).map(|()| locks))
    });
    match own {
        Ok(own) => locks.extend(own),
        Err(message) => {
            let message = format!("Failed to acquire the synchronization lock. {message}");
            phase(draft, workflow, WorkflowPhase::Failed, message);
            return false;
        }
    }
    if locks.is_empty() {
        return true;
    }
    let owner = (workflow, 0);
    let held = draft.state.may_lock(owner, &locks);
    if !held && row.phase == 0 {
        phase(draft, workflow, WorkflowPhase::Pending, String::new());
    }
    request(draft, owner, locks, manifest.spec.priority.unwrap_or(0), held);
    true
}

fn phase(draft: &mut Draft, workflow: u64, phase: WorkflowPhase, message: String) {
    let phase = phase.number();
    draft.emit(Body::WorkflowPhaseChanged(fact::WorkflowPhaseChanged { workflow, phase, message }));
}

/// A workflow that is to end does not wait for its locks.
pub(crate) fn leave_workflow(draft: &mut Draft, workflow: u64) {
    if draft.state.waits_for_lock((workflow, 0)) {
        draft.emit(Body::LockReleased(fact::LockReleased { workflow, node: 0 }));
    }
}

/// What became of a node's wish for locks.
pub(crate) enum Entered {
    /// It has them, or asks for none.
    Free,
    /// It is there and waits.
    Waits(u32),
}

/// A node that is about to be made asks for its template's locks.
pub(crate) fn enter(
    turn: &mut Turn<'_>,
    place: &Place,
    template: &Template,
    inputs: &NodeInputs,
) -> Result<Entered, String> {
    let Some(locks) = asked_by(turn, template, &inputs.parameters)? else { return Ok(Entered::Free) };
    let owner = (turn.workflow, turn.row().node_next);
    let priority = turn.parsed.manifest.spec.priority.unwrap_or(0);
    if turn.draft.state.may_lock(owner, &locks) {
        request(turn.draft, owner, locks, priority, true);
        return Ok(Entered::Free);
    }
    let parent = (turn.workflow, place.parent);
    let has_end = turn.parsed.manifest.spec.active_deadline_seconds.is_some() || !template.timeout.is_empty();
    if !has_end && let Some(why) = deadlock::find(&turn.draft.state, parent, &locks) {
        return Err(why);
    }
    request(turn.draft, owner, locks, priority, false);
    let node = create::waiting(turn, place, template, inputs.clone())?;
    leaf::waits(turn, node, template);
    Ok(Entered::Waits(node))
}

/// The locks of a node's template, tags filled in; `None` when it asks for none.
fn asked_by(
    turn: &Turn<'_>,
    template: &Template,
    inputs: &[row::Parameter],
) -> Result<Option<Vec<row::Lock>>, String> {
    let Some(asked) = &template.synchronization else { return Ok(None) };
    let asked = create::with_inputs(turn, template, asked, inputs)?;
    let locks = locks_of(&asked, &turn.row().namespace)?;
    check_limits(&turn.draft.state, &locks)?;
    Ok(Some(locks).filter(|locks| !locks.is_empty()))
}

/// A node was not made after all.
pub(crate) fn withdraw(turn: &mut Turn<'_>, node: u32) {
    let (workflow, state) = (turn.workflow, &turn.draft.state);
    if state.node(workflow, node).is_none() && state.lock_request((workflow, node)).is_some() {
        turn.draft.emit(Body::LockReleased(fact::LockReleased { workflow, node }));
    }
}

/// Gives locks to those that can have them now, queue by queue, until the batch is full.
pub(crate) fn settle(draft: &mut Draft, leader: &Leader) {
    while let Some(name) = draft.state.next_lock_check() {
        if draft.is_full(&leader.limits) {
            return;
        }
        draft.spend(1);
        let queue = draft.state.index.locks.waiters_of(&name).take(SIBLINGS_MAX);
        let queue: Vec<Owner> = queue.collect();
        let first = queue.first().map(|owner| owner.0);
        let mine = queue.into_iter().take_while(|owner| Some(owner.0) == first);
        let next = mine.into_iter().find(|owner| {
            let request = draft.state.lock_request(*owner);
            request.is_some_and(|request| draft.state.may_lock(*owner, &request.locks))
        });
        match next {
            Some((workflow, node)) => draft.emit(Body::LocksGranted(fact::LocksGranted { workflow, node })),
            None => draft.emit(Body::LockSettled(fact::LockSettled { lock: name.to_string() })),
        };
    }
}

/// A node that waited has its locks.
pub(crate) fn begin(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    if phase_of(&node).is_fulfilled() {
        return;
    }
    let parsed = turn.parsed.clone();
    let Some(template) = parsed.template(&node.template) else {
        turn.finish(index, NodePhase::Error, format!("template {} not found", node.template), None);
        return;
    };
    if turn.draft.state.children_from(turn.workflow, index, 0).next().is_some() {
        // It was at work before the workflow was retried.
        begin_again(turn, index);
        return;
    }
    let found = match memo::look_up(turn, template, &node.inputs) {
        Ok(found) => found,
        Err(message) => {
            turn.finish(index, NodePhase::Error, message, None);
            return;
        }
    };
    let is_hit = found.as_ref().is_some_and(|found| found.hit.is_some());
    if !is_hit {
        carry_out(turn, index, &node);
    }
    if let Some(found) = found {
        memo::note(turn, index, &found);
    }
}

fn carry_out(turn: &mut Turn<'_>, index: u32, node: &row::Node) {
    match type_of(node) {
        NodeType::Pod | NodeType::Http | NodeType::Plugin => begin_leaf(turn, index),
        NodeType::Suspend => {
            runs(turn, index);
            leaf::suspend(turn, index);
        }
        NodeType::Steps | NodeType::Dag | NodeType::Retry => {
            runs(turn, index);
            let item = agenda_item(row::AgendaKind::Start, index);
            let workflow = turn.workflow;
            turn.draft.emit(Body::AgendaPushed(fact::AgendaPushed { workflow, item: Some(item) }));
        }
        NodeType::StepGroup | NodeType::TaskGroup | NodeType::Container | NodeType::Skipped => {}
    }
}

fn runs(turn: &mut Turn<'_>, index: u32) {
    turn.change(index, |node| {
        node.phase = NodePhase::Running.number();
        node.message.clear();
    });
    hooks::changed(turn, index);
}

/// A leaf that has its locks runs as soon as the workflow's parallelism lets it.
pub(crate) fn begin_leaf(turn: &mut Turn<'_>, index: u32) {
    if turn.draft.state.works.contains_key(&(turn.workflow, index)) {
        return;
    }
    if hold::is_full(turn) {
        hold::hold(turn, index, 0, None);
    } else {
        leaf::queue(turn, index);
    }
}

/// After a retry: nodes that go on ask for their locks anew, those around others first. What is below one that waits
/// begins when it has them.
pub(crate) fn enter_reopened(turn: &mut Turn<'_>, reopened: &[u32]) {
    for index in reopened.iter().copied() {
        let node = turn.node(index);
        if phase_of(&node).is_fulfilled() || turn.draft.state.is_locked_out(turn.workflow, index) {
            continue;
        }
        if let Err(message) = enter_again(turn, index, &node) {
            turn.finish(index, NodePhase::Error, message, None);
        }
    }
}

/// A node that was at work before the workflow was retried has its locks: it and all that is below it goes on.
fn begin_again(turn: &mut Turn<'_>, root: u32) {
    runs(turn, root);
    let mut below = vec![root];
    let mut at = 0;
    while let Some(index) = below.get(at).copied() {
        at += 1;
        let children = turn.draft.state.children_from(turn.workflow, index, 0).map(|(_, child)| child);
        below.extend(children.filter(|child| {
            turn.draft.state.node(turn.workflow, *child).is_some_and(|row| !phase_of(row).is_fulfilled())
        }));
    }
    turn.draft.spend(u32::try_from(below.len()).unwrap_or(u32::MAX));
    below.sort_unstable();
    enter_reopened(turn, below.get(1..).unwrap_or_default());
    let workflow = turn.workflow;
    for index in below {
        let open = turn.draft.state.children_from(workflow, index, 0).any(|(_, child)| {
            turn.draft.state.node(workflow, child).is_some_and(|row| !phase_of(row).is_fulfilled())
        });
        let starts = match type_of(&turn.node(index)) {
            NodeType::Dag | NodeType::StepGroup | NodeType::TaskGroup => true,
            NodeType::Steps | NodeType::Retry => !open,
            NodeType::Pod
            | NodeType::Container
            | NodeType::Skipped
            | NodeType::Suspend
            | NodeType::Http
            | NodeType::Plugin => false,
        };
        if starts {
            let item = agenda_item(row::AgendaKind::Start, index);
            turn.draft.emit(Body::AgendaPushed(fact::AgendaPushed { workflow, item: Some(item) }));
        }
    }
}

/// A node asks again for the locks of its template.
fn enter_again(turn: &mut Turn<'_>, index: u32, node: &row::Node) -> Result<(), String> {
    let owner = (turn.workflow, index);
    if turn.draft.state.lock_request(owner).is_some() {
        return Ok(());
    }
    let parsed = turn.parsed.clone();
    let is_own = matches!(type_of(node), NodeType::Steps | NodeType::Dag | NodeType::Retry);
    let is_try = node.flag == i32::from(row::NodeFlag::Retried);
    let Some(template) = parsed.template(&node.template).filter(|_| is_own && !is_try) else {
        return Ok(());
    };
    let Some(locks) = asked_by(turn, template, &node.inputs)? else { return Ok(()) };
    let held = turn.draft.state.may_lock(owner, &locks);
    let priority = turn.parsed.manifest.spec.priority.unwrap_or(0);
    request(turn.draft, owner, locks, priority, held);
    if !held {
        turn.change(index, |node| node.phase = NodePhase::Pending.number());
    }
    Ok(())
}

/// Nodes that wait for locks end with the workflow that is being shut down; true when the batch is full.
pub(crate) fn shut_down(turn: &mut Turn<'_>) -> bool {
    let shutdown = turn.row().shutdown;
    let mut from = 1;
    loop {
        let next = turn.draft.state.index.locks.waiting_in(turn.workflow, from).next();
        let Some(index) = next else { return false };
        if turn.is_full() {
            return true;
        }
        turn.draft.spend(1);
        from = index.saturating_add(1);
        let node = turn.node(index);
        if shutdown != 0 && !workflow::stops(shutdown, node.on_exit) {
            continue;
        }
        let waits = type_of(&node) == NodeType::Suspend;
        let message = workflow::stopped_message(shutdown)
            .filter(|_| waits)
            .unwrap_or_else(|| workflow::refused_message(shutdown));
        turn.finish(index, NodePhase::Failed, message, None);
    }
}
