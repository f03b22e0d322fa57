//! What happens by itself: timers that are due, the agenda, placement. Every item is a bounded unit of work, or moves
//! its cursor and stays on the agenda; workflows take turns.

pub(crate) mod another_host;
pub(crate) mod configured;
pub(crate) mod containers;
pub(crate) mod create;
pub(crate) mod daemon;
pub(crate) mod dag;
pub(crate) mod deadlock;
pub(crate) mod hold;
pub(crate) mod hooks;
pub(crate) mod items;
pub(crate) mod leaf;
pub(crate) mod lock;
pub(crate) mod memo;
pub(crate) mod metadata;
pub(crate) mod outputs;
pub(crate) mod raw_json;
pub(crate) mod resolve;
pub(crate) mod retry;
pub(crate) mod steps;
pub(crate) mod timers;
pub(crate) mod workflow;

use argosy_model::{NodePhase, NodeType, WorkflowPhase};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::ContinueOn;
use std::sync::Arc;

use crate::Leader;
use crate::artifacts;
use crate::commands::take_over;
use crate::cron;
use crate::draft::Draft;
use crate::leader::Parsed;
use crate::place;
use crate::retire;
use crate::scope::Scope;
use crate::state::{phase_of, type_of};

/// A turn takes at most this part of a batch's work, so that a huge fan-out doesn't keep other workflows waiting.
const TURN_SHARE: u32 = 8;

/// One workflow's turn: the draft, and the workflow's manifest at hand.
pub(crate) struct Turn<'a> {
    pub draft: &'a mut Draft,
    pub leader: &'a mut Leader,
    pub parsed: Arc<Parsed>,
    pub workflow: u64,
    /// Work of the draft at which the turn ends.
    work_end: u32,
}

/// What became of an item of the agenda.
pub(crate) enum Progress {
    /// It is done.
    Done,
    /// The batch is full: it goes on from here.
    At(u64),
}

pub(crate) fn advance(draft: &mut Draft, leader: &mut Leader) -> bool {
    timers::fire(draft, leader);
    take_over::go_on(draft, leader);
    crate::recall::go_on(draft, leader);
    crate::drill::go_on(draft, leader);
    lock::settle(draft, leader);
    cron::go_on(draft, leader);
    // A quarter is left to placement, so that a long cascade doesn't keep ready steps waiting.
    let agenda_work_max = leader.limits.decide_work_max - leader.limits.decide_work_max / 4;
    while draft.work() < agenda_work_max && !draft.is_full(&leader.limits) {
        let ready = &draft.state.index.ready;
        let after = ready.range(leader.served.saturating_add(1)..).next();
        let Some(workflow) = after.or_else(|| ready.get_min()) else { break };
        let from = (*workflow, 0)..=(*workflow, u64::MAX);
        let Some(((workflow, sequence), item)) = draft.state.agenda.range(from).next() else { break };
        let (workflow, sequence, item) = (*workflow, *sequence, *item);
        leader.served = workflow;
        take(draft, leader, workflow, sequence, item);
    }
    retire::beyond_limits(draft, leader);
    place::run(draft, leader);
    draft.state.has_work() || timers::due(draft)
}

fn take(draft: &mut Draft, leader: &mut Leader, workflow: u64, sequence: u64, item: row::AgendaItem) {
    draft.spend(1);
    let deleted = draft.state.workflows.get(&workflow).is_some_and(|row| row.deleted);
    let progress = match Turn::new(draft, leader, workflow) {
        _ if deleted => workflow::purge(draft, leader, workflow, item.cursor),
        Some(mut turn) => turn.item(item),
        None => {
            workflow::unreadable(draft, workflow);
            Progress::Done
        }
    };
    match progress {
        Progress::Done => draft.emit(Body::AgendaDone(fact::AgendaDone { workflow, sequence })),
        Progress::At(cursor) => {
            draft.emit(Body::AgendaMoved(fact::AgendaMoved { workflow, sequence, cursor }))
        }
    };
}

/// The phase that a root's phase gives its workflow (Argo reference 4).
pub(crate) fn workflow_phase_of(phase: NodePhase) -> WorkflowPhase {
    match phase {
        NodePhase::Pending => WorkflowPhase::Pending,
        NodePhase::Running => WorkflowPhase::Running,
        NodePhase::Succeeded | NodePhase::Skipped | NodePhase::Omitted => WorkflowPhase::Succeeded,
        NodePhase::Failed => WorkflowPhase::Failed,
        NodePhase::Error => WorkflowPhase::Error,
    }
}

/// Ends a node from outside a turn.
#[expect(clippy::too_many_arguments, reason = "the fields of one fact")]
pub(crate) fn finish_node(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    node: u32,
    phase: NodePhase,
    message: String,
    outputs: Option<row::Outputs>,
    finished_at_ms: i64,
) {
    if let Some(mut turn) = Turn::new(draft, leader, workflow) {
        turn.finish_at(node, phase, message, outputs, finished_at_ms);
    }
}

/// Ends a step since a cluster was lost, and goes on with what waited for it.
pub(crate) fn finish_lost(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    node: u32,
    message: String,
    loss: row::LossReason,
) {
    if let Some(mut turn) = Turn::new(draft, leader, workflow) {
        let ended = fact::NodeFinished { message, loss: loss.into(), ..fact::NodeFinished::default() };
        turn.finish_with(node, NodePhase::Error, ended);
    }
}

/// A leaf runs now: hooks may have waited for that.
pub(crate) fn begun(draft: &mut Draft, leader: &mut Leader, workflow: u64, node: u32) {
    if let Some(mut turn) = Turn::new(draft, leader, workflow) {
        hooks::changed(&mut turn, node);
    }
}

impl<'a> Turn<'a> {
    pub(crate) fn new(draft: &'a mut Draft, leader: &'a mut Leader, workflow: u64) -> Option<Self> {
        let parsed = leader.parsed(&draft.state, workflow)?;
        let work_end = draft.work().saturating_add((leader.limits.decide_work_max / TURN_SHARE).max(1));
        Some(Self { draft, leader, parsed, workflow, work_end })
    }

    fn item(&mut self, item: row::AgendaItem) -> Progress {
        match item.kind() {
            row::AgendaKind::Start if item.node == 0 => {
                workflow::start(self);
                Progress::Done
            }
            row::AgendaKind::Start => self.start(item.node, item.cursor),
            row::AgendaKind::Unlocked => {
                lock::begin(self, item.node);
                Progress::Done
            }
            row::AgendaKind::Done => self.done(item.node, item.cursor),
            row::AgendaKind::Shutdown => workflow::shut_down(self, item.cursor),
            row::AgendaKind::Purge | row::AgendaKind::Unspecified => Progress::Done,
        }
    }

    fn start(&mut self, index: u32, cursor: u64) -> Progress {
        let node = self.node(index);
        if phase_of(&node).is_fulfilled() || self.draft.state.is_locked_out(self.workflow, index) {
            return Progress::Done;
        }
        match type_of(&node) {
            NodeType::Steps => steps::start(self, index),
            NodeType::StepGroup => return steps::start_group(self, index, cursor),
            NodeType::Dag => return dag::start(self, index, cursor),
            NodeType::TaskGroup => return dag::start_group(self, index, cursor),
            NodeType::Retry => retry::begin(self, index),
            NodeType::Suspend => leaf::suspend_over(self, index),
            NodeType::Pod | NodeType::Http | NodeType::Plugin => lock::begin_leaf(self, index),
            NodeType::Container | NodeType::Skipped => {}
        }
        Progress::Done
    }

    /// A node is fulfilled: what that means to its parent.
    fn done(&mut self, index: u32, cursor: u64) -> Progress {
        let node = self.node(index);
        if let Some(owner) = hooks::owner_of(&node) {
            if phase_of(&self.node(owner)).is_fulfilled() {
                return self.done(owner, cursor);
            }
            return Progress::Done;
        }
        if node.hooks_open > 0 {
            // The last of them tells.
            return Progress::Done;
        }
        if phase_of(&node).is_failed_or_error() && hold::fail_fast(self, &node) {
            return Progress::Done;
        }
        if node.rare().was_daemoned {
            daemon::failed(self, index);
            return Progress::Done;
        }
        if node.parent == 0 {
            workflow::top_ended(self, index);
            return Progress::Done;
        }
        let parent = self.node(node.parent);
        if phase_of(&parent).is_fulfilled() {
            return Progress::Done;
        }
        match type_of(&parent) {
            NodeType::StepGroup => steps::check_group(self, node.parent),
            NodeType::Steps => steps::group_done(self, node.parent, &node),
            NodeType::TaskGroup => dag::check_group(self, node.parent),
            NodeType::Dag => return dag::task_done(self, node.parent, &node, cursor),
            NodeType::Retry if node.daemoned => daemon::try_ready(self, node.parent, &node),
            NodeType::Retry => retry::try_done(self, node.parent, &node),
            NodeType::Pod
            | NodeType::Container
            | NodeType::Skipped
            | NodeType::Suspend
            | NodeType::Http
            | NodeType::Plugin => {}
        }
        Progress::Done
    }

    /// A node that is known to exist.
    pub(crate) fn node(&self, index: u32) -> Arc<row::Node> {
        self.draft.state.nodes.get(&(self.workflow, index)).cloned().unwrap_or_default()
    }

    pub(crate) fn row(&self) -> Arc<row::Workflow> {
        self.draft.state.workflows.get(&self.workflow).cloned().unwrap_or_default()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.draft.work() >= self.work_end || self.draft.is_full(&self.leader.limits)
    }

    /// The scope of the children of `boundary`.
    pub(crate) fn scope(&self, boundary: u32) -> Scope<'_> {
        Scope::new(&self.draft.state, &self.parsed, self.workflow, boundary, self.draft.now())
    }

    pub(crate) fn finish(
        &mut self,
        index: u32,
        phase: NodePhase,
        message: String,
        outputs: Option<row::Outputs>,
    ) {
        self.finish_at(index, phase, message, outputs, 0);
    }

    pub(crate) fn finish_at(
        &mut self,
        index: u32,
        phase: NodePhase,
        message: String,
        outputs: Option<row::Outputs>,
        finished_at_ms: i64,
    ) {
        let ended = fact::NodeFinished { message, outputs, finished_at_ms, ..fact::NodeFinished::default() };
        self.finish_with(index, phase, ended);
    }

    /// What `ended` does not say of the node is filled in.
    fn finish_with(&mut self, index: u32, phase: NodePhase, ended: fact::NodeFinished) {
        let node = self.node(index);
        if phase_of(&node).is_fulfilled() {
            return;
        }
        let (counts_as_failure, rank) = self.counts(node.parent, node.ordinal, phase);
        if !node.rare().containers.is_empty() {
            containers::end(self, index, phase, &ended.message, ended.finished_at_ms);
        }
        self.draft.emit(Body::NodeFinished(fact::NodeFinished {
            workflow: self.workflow,
            node: index,
            phase: phase.number(),
            counts_as_failure,
            rank,
            ..ended
        }));
        self.publish_globals(index);
        memo::store(self, index);
        hooks::changed(self, index);
        if !node.rare().daemons.is_empty() {
            daemon::end_all(self, index);
        }
        hold::released(self);
    }

    /// Ends a node for which no hook runs and nobody waits: its boundary is over.
    pub(crate) fn finish_quietly(&mut self, index: u32, phase: NodePhase, message: String) {
        if !self.node(index).rare().containers.is_empty() {
            containers::end(self, index, phase, &message, 0);
        }
        self.draft.emit(Body::NodeFinished(fact::NodeFinished {
            workflow: self.workflow,
            node: index,
            phase: phase.number(),
            message,
            ..fact::NodeFinished::default()
        }));
    }

    /// A node's outputs with a globalName become the workflow's; Argo leaves those of Suspend and DAG nodes out.
    fn publish_globals(&mut self, index: u32) {
        let node = self.node(index);
        let kinds = [NodeType::Pod, NodeType::Steps, NodeType::Retry, NodeType::Http, NodeType::Plugin];
        if !kinds.contains(&type_of(&node)) {
            return;
        }
        let Some(template) = self.parsed.template(&node.template) else { return };
        let global = |output: &row::Parameter| {
            let declared = template.outputs.parameters.iter().find(|one| one.name == output.name)?;
            let name = declared.global_name.clone();
            (!name.is_empty() && output.value.is_some()).then(|| row::Parameter {
                name,
                value: output.value.clone(),
                verbatim: false,
            })
        };
        let outputs: Vec<row::Parameter> =
            node.outputs.iter().flat_map(|outputs| &outputs.parameters).filter_map(global).collect();
        let artifacts =
            node.outputs.as_ref().map(|outputs| artifacts::global(template, outputs)).unwrap_or_default();
        if !outputs.is_empty() || !artifacts.is_empty() {
            let workflow = self.workflow;
            self.draft.emit(Body::GlobalsSet(fact::GlobalsSet { workflow, outputs, artifacts }));
        }
    }

    /// Whether a child that ends with (or, omitted, carries on) `phase` fails its parent, and its rank among those.
    pub(crate) fn counts(&self, parent: u32, ordinal: u64, phase: NodePhase) -> (bool, u64) {
        let node = self.node(parent);
        let failed = phase.is_failed_or_error();
        match type_of(&node) {
            NodeType::StepGroup => {
                (failed && !continues_on(self.continue_on(&node, ordinal), phase), ordinal)
            }
            NodeType::TaskGroup => (failed, ordinal),
            NodeType::Dag => {
                let task = usize::try_from(ordinal >> 32).unwrap_or(usize::MAX);
                let plan = self.parsed.plan(&node);
                let rank = plan.and_then(|plan| plan.target_rank.get(task).copied().flatten());
                let counts =
                    failed && rank.is_some() && !continues_on(self.continue_on(&node, ordinal), phase);
                (counts, rank.unwrap_or(0))
            }
            NodeType::Pod
            | NodeType::Container
            | NodeType::Steps
            | NodeType::Retry
            | NodeType::Skipped
            | NodeType::Suspend
            | NodeType::Http
            | NodeType::Plugin => (false, 0),
        }
    }

    /// The `continueOn` of a child of a group or DAG.
    pub(crate) fn continue_on(&self, parent: &row::Node, ordinal: u64) -> ContinueOn {
        let slot = usize::try_from(ordinal >> 32).unwrap_or(usize::MAX);
        let found = match type_of(parent) {
            NodeType::StepGroup => {
                let steps = self.node(parent.parent);
                let group = usize::try_from(parent.ordinal).unwrap_or(usize::MAX);
                steps::groups(&self.parsed, &steps.template)
                    .and_then(|groups| groups.get(group)?.get(slot))
                    .map(|step| step.continue_on)
            }
            NodeType::Dag => {
                let dag = self.parsed.template(&parent.template).and_then(|template| template.kind.dag());
                dag.and_then(|dag| dag.tasks.get(slot)).map(|task| task.continue_on)
            }
            NodeType::Pod
            | NodeType::Container
            | NodeType::Steps
            | NodeType::TaskGroup
            | NodeType::Retry
            | NodeType::Skipped
            | NodeType::Suspend
            | NodeType::Http
            | NodeType::Plugin => None,
        };
        found.unwrap_or_default()
    }

    /// Changes fields of a node that stays unfulfilled.
    pub(crate) fn change(&mut self, index: u32, edit: impl FnOnce(&mut fact::NodeChanged)) {
        let node = self.node(index);
        let mut changed = fact::NodeChanged {
            workflow: self.workflow,
            node: index,
            phase: node.phase,
            message: node.message.clone(),
            host: node.host.clone(),
            progress: node.rare().progress.clone(),
            started_at_ms: 0,
            children_complete: false,
        };
        edit(&mut changed);
        self.draft.emit(Body::NodeChanged(changed));
    }
}

pub(crate) fn continues_on(continue_on: ContinueOn, phase: NodePhase) -> bool {
    match phase {
        NodePhase::Failed => continue_on.failed,
        NodePhase::Error => continue_on.error,
        NodePhase::Pending
        | NodePhase::Running
        | NodePhase::Succeeded
        | NodePhase::Skipped
        | NodePhase::Omitted => false,
    }
}
