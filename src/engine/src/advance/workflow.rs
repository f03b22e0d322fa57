//! Beginning and end of a workflow.

use argosy_model::{NodePhase, NodeType, WorkflowPhase};
use argosy_proto::command::ShutdownStrategy;
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::Manifest;

use crate::Leader;
use crate::advance::create::{self, Place};
use crate::advance::{
    Progress, Turn, daemon, hooks, leaf, lock, metadata, resolve, retry, workflow_phase_of,
};
use crate::artifacts;
use crate::commands::report_artifact_task;
use crate::draft::Draft;
use crate::evolve_work::agenda_item;
use crate::reproduce;
use crate::retire;
use crate::state::{ROW_VERSION, phase_of, type_of};

/// The strategy numbers of a workflow's row.
pub(crate) const STOP: i32 = ShutdownStrategy::Stop as i32;
pub(crate) const TERMINATE: i32 = ShutdownStrategy::Terminate as i32;
/// The workflow's activeDeadlineSeconds passed.
pub(crate) const DEADLINE: i32 = 3;

/// The message of a leaf that a shutdown ends before it ran.
pub(crate) fn leaf_message(shutdown: i32) -> String {
    match shutdown {
        STOP => "workflow shutdown with strategy:  Stop".to_owned(),
        TERMINATE => "workflow shutdown with strategy:  Terminate".to_owned(),
        DEADLINE => "Step exceeded its deadline".to_owned(),
        _ => "the workflow is over".to_owned(),
    }
}

/// The message of a Pod node made while a shutdown goes on.
pub(crate) fn refused_message(shutdown: i32) -> String {
    leaf_message(shutdown).replace(":  ", ": ")
}

/// A shutdown under which a node must not go on: any for ordinary nodes, Terminate for those of the exit handler.
pub(crate) fn stops(shutdown: i32, on_exit: bool) -> bool {
    shutdown != 0 && (!on_exit || shutdown == TERMINATE)
}

/// The message of a Retry or Suspend node or workflow that a shutdown ended.
pub(crate) fn stopped_message(shutdown: i32) -> Option<String> {
    match shutdown {
        STOP => Some("Stopped with strategy 'Stop'".to_owned()),
        TERMINATE => Some("Stopped with strategy 'Terminate'".to_owned()),
        _ => None,
    }
}

/// What acceptance sets up beside the root: the deadline, and a shutdown that the manifest asks for.
pub(crate) fn accepted(draft: &mut Draft, workflow: u64, manifest: &Manifest) {
    if !draft.state.waits_for_lock((workflow, 0)) {
        set_deadline(draft, workflow, manifest);
    }
    asked_for(draft, workflow, manifest);
}

/// A retried workflow has its whole time again.
pub(crate) fn retried(draft: &mut Draft, workflow: u64, manifest: &Manifest) {
    set_deadline(draft, workflow, manifest);
}

fn set_deadline(draft: &mut Draft, workflow: u64, manifest: &Manifest) {
    if let Some(seconds) = manifest.spec.active_deadline_seconds {
        let due_ms = draft.now().plus_ms(seconds.max(0).saturating_mul(1000)).0;
        let timer = row::Timer {
            version: ROW_VERSION,
            due_ms,
            workflow,
            node: 0,
            kind: row::TimerKind::Deadline.into(),
        };
        draft.emit(Body::TimerSet(fact::TimerSet { timer: Some(timer) }));
    }
}

fn asked_for(draft: &mut Draft, workflow: u64, manifest: &Manifest) {
    if manifest.spec.suspend == Some(true) {
        let (phase, message) = (WorkflowPhase::Running.number(), String::new());
        draft.emit(Body::WorkflowPhaseChanged(fact::WorkflowPhaseChanged { workflow, phase, message }));
        draft.emit(Body::WorkflowSuspended(fact::WorkflowSuspended { workflow, suspended: true }));
    }
    let strategy = match manifest.spec.shutdown.as_str() {
        "Stop" => STOP,
        "Terminate" => TERMINATE,
        _ => return,
    };
    draft.emit(Body::ShutdownRequested(fact::ShutdownRequested {
        workflow,
        strategy,
        message: String::new(),
    }));
}

/// The root is made, and the workflow runs.
pub(crate) fn start(turn: &mut Turn<'_>) {
    let workflow = turn.workflow;
    if turn.row().phase == WorkflowPhase::Pending.number() {
        turn.draft.emit(Body::WorkflowBegun(fact::WorkflowBegun { workflow }));
        let parsed = turn.parsed.clone();
        set_deadline(turn.draft, workflow, &parsed.manifest);
    }
    phase(turn, WorkflowPhase::Running, String::new());
    let parsed = turn.parsed.clone();
    let name = turn.row().name.clone();
    let place = Place {
        parent: 0,
        ordinal: 0,
        name,
        boundary: 0,
        depth: 0,
        flag: row::NodeFlag::Unspecified,
        on_exit: false,
    };
    if let Err(message) = metadata::set_labels(turn) {
        phase(turn, WorkflowPhase::Error, message);
        return;
    }
    if let Some(problem) = artifacts::problem(&turn.row()) {
        return phase(turn, WorkflowPhase::Error, problem);
    }
    let spec = &parsed.manifest.spec;
    if let Err(message) = create::call(turn, place, &spec.entrypoint, &spec.arguments) {
        phase(turn, WorkflowPhase::Error, format!("error in entry template execution: {message}"));
    } else {
        hooks::changed(turn, 1);
    }
}

fn phase(turn: &mut Turn<'_>, phase: WorkflowPhase, message: String) {
    let workflow = turn.workflow;
    turn.draft.emit(Body::WorkflowPhaseChanged(fact::WorkflowPhaseChanged {
        workflow,
        phase: phase.number(),
        message,
    }));
    if phase.is_completed() {
        retire::ended(turn.draft, workflow, &turn.parsed.clone().manifest);
    }
}

/// A workflow whose stored manifest can't be read ends: nothing of it could ever run.
pub(crate) fn unreadable(draft: &mut Draft, workflow: u64) {
    if draft.state.workflows.get(&workflow).is_some_and(|row| row.finished_at_ms == 0 && !row.deleted) {
        let message = "the stored manifest cannot be read: submit the workflow again".to_owned();
        let phase = WorkflowPhase::Error.number();
        draft.emit(Body::WorkflowPhaseChanged(fact::WorkflowPhaseChanged { workflow, phase, message }));
    }
}

/// The root or the exit handler is over.
pub(crate) fn top_ended(turn: &mut Turn<'_>, index: u32) {
    let row = turn.row();
    if row.finished_at_ms != 0 {
        return;
    }
    let node = turn.node(index);
    let exit_hook = turn.parsed.manifest.spec.exit_hook();
    if node.hooks_open > 0 {
        // Their end comes back here.
        return;
    }
    if let Some(hook) = exit_hook
        && !node.on_exit
        && row.shutdown != TERMINATE
        && row.exit_node == 0
    {
        let place = Place {
            parent: 0,
            ordinal: 1,
            name: format!("{}.onExit", row.name),
            boundary: 0,
            depth: 0,
            flag: row::NodeFlag::Hooked,
            on_exit: true,
        };
        let made = resolve::hook_arguments(turn, index, &hook)
            .and_then(|arguments| create::call(turn, place, &hook.template, &arguments));
        match made {
            Ok(_) => return,
            Err(message) => {
                complete(turn, Some(format!("error in exit template execution : {message}")));
                return;
            }
        }
    }
    complete(turn, None);
}

/// The workflow's last phase and message (Argo reference 4, "Final workflow phase").
fn complete(turn: &mut Turn<'_>, exit_error: Option<String>) {
    daemon::end_all(turn, 0);
    let row = turn.row();
    let root = turn.node(1);
    let root_phase = phase_of(&root);
    let mut outcome = workflow_phase_of(root_phase);
    let mut message = root.message.clone();
    let unreadable = type_of(&root) == NodeType::Skipped && root_phase == NodePhase::Error;
    if unreadable || leaf::is_execution_error(&root) {
        message = format!("error in entry template execution: {message}");
    }
    if root_phase == NodePhase::Failed && message == leaf::TIMEOUT {
        // Argo tells a node that timed out before it ran as an error of its own.
        outcome = WorkflowPhase::Error;
        message = format!("error in entry template execution: {message}");
    }
    if root_phase.is_failed_or_error()
        && let Some(stopped) = stopped_message(row.shutdown)
    {
        // The user's own message is kept in state and not shown here: as in Argo.
        message = stopped;
    }
    if let Some(error) = exit_error {
        outcome = WorkflowPhase::Error;
        message = error;
    } else if row.exit_node != 0 && outcome == WorkflowPhase::Succeeded {
        let exit = turn.node(row.exit_node);
        if phase_of(&exit).is_failed_or_error() {
            outcome = workflow_phase_of(phase_of(&exit));
            message.clone_from(&exit.message);
        }
    }
    phase(turn, outcome, message);
    let strategy = turn.parsed.manifest.spec.artifact_gc_strategy().to_owned();
    report_artifact_task::workflow_over(turn.draft, turn.leader, turn.workflow, &strategy);
    let (workflow, from) = (turn.workflow, (turn.workflow, 0));
    if turn.draft.state.index.active_leaves.range(from..=(workflow, u32::MAX)).next().is_some() {
        // Steps whose group ended in error without them: nobody waits for them any more.
        let item = agenda_item(row::AgendaKind::Shutdown, 0);
        turn.draft.emit(Body::AgendaPushed(fact::AgendaPushed { workflow, item: Some(item) }));
    } else {
        turn.leader.forget(workflow);
    }
}

/// Takes nodes of a deleted workflow out of state, from the cursor (a node) on.
pub(crate) fn purge(draft: &mut Draft, leader: &mut Leader, workflow: u64, cursor: u64) -> Progress {
    /// Nodes per fact, so that no member is held up by one.
    const NODES_MAX: usize = 64;
    leader.forget(workflow);
    let mut first = u32::try_from(cursor).unwrap_or(u32::MAX);
    for _ in 0..PURGES_PER_TURN_MAX {
        let rest = draft.state.nodes.range((workflow, first)..=(workflow, u32::MAX));
        let Some(last) = rest.take(NODES_MAX).last().map(|((_, node), _)| *node) else {
            draft.emit(Body::WorkflowPurged(fact::WorkflowPurged { workflow }));
            return Progress::Done;
        };
        draft.spend(u32::try_from(NODES_MAX).unwrap_or(u32::MAX));
        draft.emit(Body::NodesPurged(fact::NodesPurged { workflow, first, last }));
        first = last.saturating_add(1);
    }
    Progress::At(u64::from(first))
}

/// Facts of a purge in one turn.
const PURGES_PER_TURN_MAX: usize = 4;

/// Stops what runs, and then what waits for another try, from the cursor on: a node, with [`RETRIES`] one of the latter.
pub(crate) fn shut_down(turn: &mut Turn<'_>, cursor: u64) -> Progress {
    if lock::shut_down(turn) {
        return Progress::At(cursor);
    }
    reproduce::withdraw_all(turn);
    if cursor < RETRIES
        && let Some(node) = stop_leaves(turn, u32::try_from(cursor).unwrap_or(u32::MAX))
    {
        return Progress::At(u64::from(node));
    }
    let from = u32::try_from(cursor.saturating_sub(RETRIES)).unwrap_or(0);
    match retry::shut_down(turn, from) {
        Some(node) => Progress::At(RETRIES | u64::from(node)),
        None => Progress::Done,
    }
}

/// Marks cursors of a shutdown that has stopped what runs.
const RETRIES: u64 = 1 << 32;

/// Where to go on, when the batch is full.
fn stop_leaves(turn: &mut Turn<'_>, from: u32) -> Option<u32> {
    let row = turn.row();
    let mut next = from;
    loop {
        let workflow = turn.workflow;
        let leaves = &turn.draft.state.index.active_leaves;
        let (_, index) = leaves.range((workflow, next)..=(workflow, u32::MAX)).next().copied()?;
        if turn.is_full() {
            return Some(index);
        }
        turn.draft.spend(1);
        next = index.saturating_add(1);
        let node = turn.node(index);
        // A daemon ends with the template around it.
        if row.shutdown != 0 && (!stops(row.shutdown, node.on_exit) || node.daemoned) {
            continue;
        }
        match turn.draft.state.works.get(&(workflow, index)).and_then(|work| work.fence) {
            Some(fence) => {
                let reason = leaf_message(row.shutdown);
                turn.draft.emit(Body::AttemptStopped(fact::AttemptStopped { fence: Some(fence), reason }));
            }
            None => {
                let waits = type_of(&node) == NodeType::Suspend || leaf::is_task(&node);
                let message = stopped_message(row.shutdown)
                    .filter(|_| waits)
                    .unwrap_or_else(|| leaf_message(row.shutdown));
                turn.finish(index, NodePhase::Failed, message, node.outputs.clone());
            }
        }
    }
}
