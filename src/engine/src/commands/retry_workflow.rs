use argosy_model::{NodePhase, NodeType, WorkflowPhase};
use argosy_proto::command::{Refusal, Reply, RetryWorkflow};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use std::collections::{BTreeMap, BTreeSet};

use crate::advance::{Turn, configured, lock, workflow};
use crate::commands::parameters::{self, with_parameters};
use crate::commands::selector::Selector;
use crate::commands::{acted, done, find_workflow};
use crate::draft::Draft;
use crate::evolve_work::agenda_item;
use crate::leader::Plan;
use crate::state::{is_leaf_type, phase_of, type_of};
use crate::{Code, Leader};

/// A workflow that failed goes on: steps that failed, and all that came after them, are taken out and run again; what
/// succeeded before them stays. Costs O(nodes of the workflow) once.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &RetryWorkflow,
) -> Result<Reply, Refusal> {
    let workflow = find_workflow(&draft.state, &command.namespace, &command.name)?;
    let selector = check(draft, workflow, command)?;
    if draft.state.agenda.range((workflow, 0)..=(workflow, u64::MAX)).next().is_some() {
        return Err(Code::NotRetryable.refuse("the workflow still ends what ran: try again in a moment"));
    }
    if draft.state.workflows_active() >= leader.limits.workflows_active_max {
        return Err(Code::TooManyWorkflows.refuse(format!(
            "{} workflows are under way, which is the limit: try again when some are over",
            leader.limits.workflows_active_max
        )));
    }
    if !command.parameters.is_empty() {
        amend(draft, workflow, &command.parameters)?;
        leader.forget(workflow);
    }
    let mut turn = Turn::new(draft, leader, workflow).ok_or_else(|| {
        Code::NotRetryable.refuse("the stored manifest cannot be read: submit the workflow again")
    })?;
    let mut plan = Redo::new(&turn);
    plan.find(&turn, selector.as_ref());
    plan.carry_out(&mut turn);
    turn.draft.emit(Body::WorkflowReopened(fact::WorkflowReopened { workflow }));
    let manifest = turn.parsed.clone();
    configured::configure_again(draft, workflow, &manifest.manifest);
    lock::enter_workflow(draft, workflow, &manifest.manifest);
    workflow::retried(draft, workflow, &manifest.manifest);
    leader.forget(workflow);
    acted(draft, workflow, &command.actor, "Retry");
    Ok(done())
}

fn check(draft: &Draft, workflow: u64, command: &RetryWorkflow) -> Result<Option<Selector>, Refusal> {
    let row = &draft.state.workflows[&workflow];
    let phase = WorkflowPhase::from_number(row.phase).unwrap_or(WorkflowPhase::Pending);
    let text = command.node_field_selector.trim();
    match phase {
        WorkflowPhase::Failed | WorkflowPhase::Error => {}
        WorkflowPhase::Succeeded if command.restart_successful && !text.is_empty() => {}
        WorkflowPhase::Succeeded => {
            return Err(Code::NotRetryable.refuse(
                "To retry a succeeded workflow, set the options restartSuccessful and nodeFieldSelector",
            ));
        }
        WorkflowPhase::Pending | WorkflowPhase::Running => {
            return Err(
                Code::NotRetryable.refuse(format!("Cannot retry a workflow in phase {}", phase.as_str()))
            );
        }
    }
    if command.restart_successful && !text.is_empty() { Selector::parse(text).map(Some) } else { Ok(None) }
}

fn amend(draft: &mut Draft, workflow: u64, given: &[String]) -> Result<(), Refusal> {
    let json = draft.state.manifests.get(&workflow).map(|row| row.json.clone()).unwrap_or_default();
    let resolved =
        draft.state.manifests.get(&workflow).map(|row| row.resolved_json.clone()).unwrap_or_default();
    let manifest_json = with_parameters(&json, given)?;
    let (summary_json, pod_json) = parameters::derived(&manifest_json)?;
    let pod_json = if resolved.is_empty() {
        pod_json
    } else {
        draft.state.workflows.get(&workflow).map(|row| row.pod_json.clone()).unwrap_or_default()
    };
    draft.emit(Body::WorkflowAmended(fact::WorkflowAmended {
        workflow,
        manifest_json,
        summary_json,
        pod_json,
    }));
    if !resolved.is_empty() {
        let resolved_json = with_parameters(&resolved, given)?;
        let stored_json = draft.state.manifests[&workflow].stored_json.clone();
        draft.emit(Body::WorkflowResolved(fact::WorkflowResolved { workflow, resolved_json, stored_json }));
    }
    Ok(())
}

/// Which nodes go, and which of those that stay are open again.
struct Redo {
    nodes: BTreeMap<u32, row::Node>,
    children: BTreeMap<u32, Vec<u32>>,
    gone: BTreeSet<u32>,
    reopened: BTreeSet<u32>,
}

impl Redo {
    fn new(turn: &Turn<'_>) -> Self {
        let id = turn.workflow;
        let all = turn.draft.state.nodes.range((id, 0)..=(id, u32::MAX));
        let nodes: BTreeMap<u32, row::Node> =
            all.map(|((_, index), node)| (*index, node.as_ref().clone())).collect();
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (index, node) in &nodes {
            children.entry(node.parent).or_default().push(*index);
        }
        Self { nodes, children, gone: BTreeSet::new(), reopened: BTreeSet::new() }
    }

    fn find(&mut self, turn: &Turn<'_>, selector: Option<&Selector>) {
        let (mut starts, mut open) = (Vec::new(), Vec::new());
        for (index, node) in &self.nodes {
            if node.on_exit || (node.parent == 0 && node.ordinal != 0) {
                self.gone.insert(*index);
                continue;
            }
            let kept_by_retry = self.nodes.get(&node.parent).is_some_and(|parent| {
                type_of(parent) == NodeType::Retry && !phase_of(parent).is_failed_or_error()
            });
            let leaf = is_leaf_type(node.r#type) || type_of(node) == NodeType::Skipped;
            let failed = phase_of(node).is_failed_or_error() && !kept_by_retry;
            let chosen =
                selector.is_some_and(|selector| selector.matches(&turn.draft.state, turn.workflow, node));
            if failed && leaf || chosen {
                starts.push(*index);
            } else if failed && !self.has_failed_child(*index) {
                // None of its steps failed: it could not be carried out, or was stopped between two of them.
                open.push(*index);
            }
        }
        for index in starts {
            self.redo(turn, index);
        }
        for index in open.into_iter().filter(|index| !self.gone.contains(index)).collect::<Vec<_>>() {
            self.reopened.insert(index);
            let node = self.nodes[&index].clone();
            self.reopen_parent(turn, &node);
        }
    }

    fn has_failed_child(&self, index: u32) -> bool {
        let mut children = self.children.get(&index).into_iter().flatten();
        children.any(|child| phase_of(&self.nodes[child]).is_failed_or_error())
    }

    fn redo(&mut self, turn: &Turn<'_>, index: u32) {
        if self.gone.contains(&index) {
            return;
        }
        self.remove(index);
        let Some(node) = self.nodes.get(&index).cloned() else { return };
        self.reopen_parent(turn, &node);
    }

    fn remove(&mut self, index: u32) {
        let mut open = vec![index];
        while let Some(next) = open.pop() {
            self.gone.insert(next);
            open.extend(self.children.get(&next).into_iter().flatten());
        }
    }

    /// The nodes around one that goes or is open again: they are open again, and what follows it goes.
    fn reopen_parent(&mut self, turn: &Turn<'_>, node: &row::Node) {
        let mut node = node.clone();
        while let Some(parent) = self.nodes.get(&node.parent).cloned() {
            match type_of(&parent) {
                NodeType::Steps => self.remove_later_groups(&node),
                NodeType::Dag => self.remove_dependents(turn, &parent, &node),
                NodeType::Retry => {
                    for child in self.children.get(&node.parent).cloned().unwrap_or_default() {
                        self.remove(child);
                    }
                }
                NodeType::StepGroup
                | NodeType::TaskGroup
                | NodeType::Pod
                | NodeType::Container
                | NodeType::Skipped
                | NodeType::Suspend
                | NodeType::Http
                | NodeType::Plugin => {}
            }
            self.reopened.insert(node.parent);
            node = parent;
        }
    }

    fn remove_later_groups(&mut self, group: &row::Node) {
        for child in self.children.get(&group.parent).cloned().unwrap_or_default() {
            if self.nodes[&child].ordinal > group.ordinal {
                self.remove(child);
            }
        }
    }

    fn remove_dependents(&mut self, turn: &Turn<'_>, dag: &row::Node, task: &row::Node) {
        let Some(plan) = turn.parsed.plan(dag) else { return };
        let mut open = vec![number(task)];
        let mut seen = BTreeSet::new();
        while let Some(next) = open.pop() {
            for dependent in plan.dependents.get(next).into_iter().flatten() {
                if seen.insert(*dependent) {
                    open.push(*dependent);
                }
            }
        }
        for child in self.children.get(&task.parent).cloned().unwrap_or_default() {
            if seen.contains(&number(&self.nodes[&child])) {
                self.remove(child);
            }
        }
    }

    fn carry_out(&mut self, turn: &mut Turn<'_>) {
        let workflow = turn.workflow;
        let gone: Vec<u32> = self.gone.iter().copied().collect();
        self.reopened.retain(|index| !self.gone.contains(index));
        turn.draft.spend(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        turn.draft.emit(Body::NodesRemoved(fact::NodesRemoved { workflow, nodes: gone }));
        // From the innermost outwards, so that counters see whether children are open again.
        for index in self.reopened.iter().rev().copied() {
            let counted = self.count(turn, index);
            turn.draft.emit(Body::NodeReopened(counted));
        }
        let mut starts: Vec<u32> = Vec::new();
        for index in self.reopened.iter().copied() {
            let node = &self.nodes[&index];
            let any_open = self.kept(index).any(|child| self.reopened.contains(&child));
            match type_of(node) {
                NodeType::Dag => {
                    self.count_dependencies(turn, index, node);
                    starts.push(index);
                }
                NodeType::StepGroup | NodeType::TaskGroup => starts.push(index),
                NodeType::Retry if !any_open => starts.push(index),
                NodeType::Steps if !any_open => starts.push(index),
                NodeType::Retry
                | NodeType::Steps
                | NodeType::Pod
                | NodeType::Container
                | NodeType::Skipped
                | NodeType::Suspend
                | NodeType::Http
                | NodeType::Plugin => {}
            }
        }
        // Without a root the workflow begins anew.
        if !self.nodes.iter().any(|(index, node)| node.parent == 0 && !self.gone.contains(index)) {
            starts.push(0);
        }
        // Those with locks of their own ask for them again before anything below them goes on.
        let roots: Vec<u32> = self.reopened.iter().copied().collect();
        lock::enter_reopened(turn, &roots);
        for node in starts {
            let item = agenda_item(row::AgendaKind::Start, node);
            turn.draft.emit(Body::AgendaPushed(fact::AgendaPushed { workflow, item: Some(item) }));
        }
    }

    fn kept(&self, parent: u32) -> impl Iterator<Item = u32> + '_ {
        let children = self.children.get(&parent).into_iter().flatten().copied();
        children.filter(|child| !self.gone.contains(child))
    }

    fn count(&self, turn: &Turn<'_>, index: u32) -> fact::NodeReopened {
        let mut counted =
            fact::NodeReopened { workflow: turn.workflow, node: index, ..fact::NodeReopened::default() };
        for child in self.kept(index) {
            let node = &self.nodes[&child];
            counted.children_total += 1;
            if self.reopened.contains(&child) {
                continue;
            }
            let phase = phase_of(node);
            counted.children_done += 1;
            counted.children_succeeded += u32::from(phase == NodePhase::Succeeded);
            counted.children_failed += u32::from(phase == NodePhase::Failed);
            let carried = NodePhase::from_number(node.branch_phase).unwrap_or(phase);
            let (counts, rank) = turn.counts(index, node.ordinal, carried);
            if counts {
                let failed = row::FailedChild { rank, node: child };
                if counted.failed_first.is_none_or(|first| rank < first.rank) {
                    counted.failed_first = Some(failed);
                }
                if counted.failed_last.is_none_or(|last| rank >= last.rank) {
                    counted.failed_last = Some(failed);
                }
            }
        }
        counted
    }

    fn count_dependencies(&self, turn: &mut Turn<'_>, index: u32, dag: &row::Node) {
        let Some(plan) = turn.parsed.plan(dag) else { return };
        let over: BTreeSet<usize> = self
            .kept(index)
            .filter(|child| !self.reopened.contains(child))
            .map(|child| number(&self.nodes[&child]))
            .collect();
        let made: BTreeSet<usize> = self.kept(index).map(|child| number(&self.nodes[&child])).collect();
        let workflow = turn.workflow;
        for (task, met) in unmade(&plan, &made, &over) {
            turn.draft.emit(Body::DependenciesSet(fact::DependenciesSet {
                workflow,
                node: index,
                task,
                met,
            }));
        }
    }
}

/// Tasks that have no node, with the number of what they depend on that is over.
fn unmade(plan: &Plan, made: &BTreeSet<usize>, over: &BTreeSet<usize>) -> Vec<(u32, u32)> {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let tasks = plan
        .dependencies
        .iter()
        .enumerate()
        .filter(|(task, waits)| !made.contains(task) && !waits.is_empty());
    tasks
        .map(|(task, waits)| (count(task), count(waits.iter().filter(|wait| over.contains(wait)).count())))
        .collect()
}

fn number(task: &row::Node) -> usize {
    usize::try_from(task.ordinal >> 32).unwrap_or(usize::MAX)
}
