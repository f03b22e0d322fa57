//! Lifecycle hooks: templates that run when a step, a task or the workflow is over, or when an expression holds.
//!
//! A hook is a child of the node it belongs to. It never changes that node's phase; the node's parent goes on after it.

use argosy_model::{NodePhase, NodeType};
use argosy_proto::state as row;
use argosy_spec::{LifecycleHook, Step};
use std::collections::BTreeMap;

use crate::advance::create::{self, Place};
use crate::advance::{Turn, items, resolve, steps, workflow};
use crate::state::{phase_of, type_of};

/// Ordinals of hooks begin here, beyond those of groups, items and tries.
pub(crate) const ORDINAL_FIRST: u64 = 1 << 63;
/// The name of the hook that runs at the end.
const EXIT: &str = "exit";

/// The node is over, or runs: its hooks whose time has come are made.
pub(crate) fn changed(turn: &mut Turn<'_>, index: u32) {
    if !turn.parsed.hooked && turn.parsed.manifest.spec.hooks.is_empty() {
        return;
    }
    let node = turn.node(index);
    if node.flag == i32::from(row::NodeFlag::Hooked) || type_of(&node) == NodeType::StepGroup {
        return;
    }
    if node.parent == 0 {
        of_workflow(turn, index);
        return;
    }
    if !turn.parsed.hooked {
        return;
    }
    let Some(step) = step_of(turn, &node) else { return };
    let over = phase_of(&node).is_fulfilled();
    let named = step.hooks.iter().filter(|(name, _)| *name != EXIT);
    for (number, (name, hook)) in (1_u64..).zip(named) {
        let at = At { owner: index, number, name: format!("{}.hooks.{name}", node.name), is_exit: false };
        run(turn, &node, at, hook);
    }
    if let Some(hook) = step.exit_hook().filter(|_| over) {
        let at = At { owner: index, number: 0, name: format!("{}.onExit", node.name), is_exit: true };
        run(turn, &node, at, &hook);
    }
}

/// Where a hook goes.
struct At {
    owner: u32,
    number: u64,
    name: String,
    is_exit: bool,
}

fn of_workflow(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    let parsed = turn.parsed.clone();
    let name = turn.row().name.clone();
    let named = parsed.manifest.spec.hooks.iter().filter(|(name, _)| *name != EXIT);
    for (number, (hook_name, hook)) in (1_u64..).zip(named) {
        let at = At { owner: index, number, name: format!("{name}.hooks.{hook_name}"), is_exit: false };
        run(turn, &node, at, hook);
    }
}

fn run(turn: &mut Turn<'_>, node: &row::Node, at: At, hook: &LifecycleHook) {
    let ordinal = ORDINAL_FIRST + at.number;
    let made = turn.draft.state.index.children.contains_key(&(turn.workflow, at.owner, ordinal));
    let on_exit = at.is_exit || node.on_exit;
    if made || workflow::stops(turn.row().shutdown, on_exit) {
        return;
    }
    turn.draft.spend(1);
    let place = Place {
        parent: at.owner,
        ordinal,
        name: at.name,
        boundary: node.boundary,
        depth: node.depth,
        flag: row::NodeFlag::Hooked,
        on_exit,
    };
    let outcome = match resolve::hook_holds(turn, at.owner, hook) {
        Ok(false) => return,
        Ok(true) => resolve::hook_arguments(turn, at.owner, hook),
        Err(message) if type_of(&turn.node(node.parent)) == NodeType::StepGroup => {
            // A condition that can't be read ends the group.
            turn.finish(node.parent, NodePhase::Error, message, None);
            return;
        }
        // Of a task it is as if it did not hold.
        Err(_) if matches!(type_of(&turn.node(node.parent)), NodeType::Dag | NodeType::TaskGroup) => return,
        Err(message) => Err(message),
    };
    let made = outcome.and_then(|arguments| create::call(turn, place.clone(), &hook.template, &arguments));
    if let Err(message) = made {
        let ended = create::ended(turn, &place, &hook.template, NodePhase::Error, &message, NodePhase::Error);
        drop(ended);
    }
}

/// A hook is over: when it was the last of its node, the node's parent hears of the node.
pub(crate) fn owner_of(node: &row::Node) -> Option<u32> {
    (node.flag == i32::from(row::NodeFlag::Hooked) && node.parent != 0).then_some(node.parent)
}

/// The step or task that a node runs; of a loop's items, too.
pub(crate) fn step_of(turn: &Turn<'_>, node: &row::Node) -> Option<Step> {
    let parent = turn.node(node.parent);
    let slot = usize::try_from(node.ordinal >> 32).unwrap_or(usize::MAX);
    match type_of(&parent) {
        NodeType::StepGroup => {
            let group = usize::try_from(parent.ordinal).unwrap_or(usize::MAX);
            let owner = turn.node(parent.parent);
            steps::groups(&turn.parsed, &owner.template)?.get(group)?.get(slot).cloned()
        }
        NodeType::Dag => task(turn, &parent, slot).filter(|task| !task.is_loop()),
        NodeType::TaskGroup => {
            let slot = usize::try_from(parent.ordinal >> 32).unwrap_or(usize::MAX);
            task(turn, &turn.node(parent.parent), slot)
        }
        NodeType::Pod
        | NodeType::Container
        | NodeType::Steps
        | NodeType::Retry
        | NodeType::Skipped
        | NodeType::Suspend
        | NodeType::Http
        | NodeType::Plugin => None,
    }
}

fn task(turn: &Turn<'_>, dag: &row::Node, slot: usize) -> Option<Step> {
    turn.parsed.template(&dag.template)?.kind.dag()?.tasks.get(slot).cloned()
}

/// The names that a loop's item gives to what belongs to the node of that item; none for other nodes.
pub(crate) fn item_names(turn: &mut Turn<'_>, node: &row::Node) -> BTreeMap<String, String> {
    let parent = turn.node(node.parent);
    let (key, at) = match type_of(&parent) {
        NodeType::StepGroup => {
            let slot = u32::try_from(node.ordinal >> 32).unwrap_or(u32::MAX);
            let Some(at) = (node.ordinal & u64::from(u32::MAX)).checked_sub(1) else {
                return BTreeMap::new();
            };
            ((turn.workflow, node.parent, slot), at)
        }
        NodeType::TaskGroup => ((turn.workflow, node.parent, 0), node.ordinal),
        NodeType::Retry if node.flag == i32::from(row::NodeFlag::Retried) => {
            return item_names(turn, &parent);
        }
        NodeType::Pod
        | NodeType::Container
        | NodeType::Steps
        | NodeType::Dag
        | NodeType::Retry
        | NodeType::Skipped
        | NodeType::Suspend
        | NodeType::Http
        | NodeType::Plugin => return BTreeMap::new(),
    };
    let Some(expansion) = turn.draft.state.expansions.get(&key).cloned() else { return BTreeMap::new() };
    let items = turn.leader.items(&turn.draft.state, key);
    let (item, _) = items::item_at(&expansion, &items, at);
    items::names(&item)
}
