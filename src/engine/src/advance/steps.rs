//! Steps: groups one after the other, the steps of a group together (Argo reference 4, "Steps").

use argosy_model::{NodePhase, NodeType, node_id};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::Step;

use crate::advance::create::{self, Place};
use crate::advance::items::item_at;
use crate::advance::resolve::{Problem, Resolved, iteration, resolve};
use crate::advance::{Progress, Turn, hold, leaf, outputs};
use crate::artifacts;
use crate::leader::Parsed;
use crate::state::phase_of;

/// The groups of a steps template.
pub(crate) fn groups<'a>(parsed: &'a Parsed, template: &str) -> Option<&'a Vec<Vec<Step>>> {
    parsed.template(template)?.kind.steps()
}

pub(crate) fn start(turn: &mut Turn<'_>, index: u32) {
    // After a retry some groups are over.
    let over = turn.node(index).children_total;
    add_group(turn, index, u64::from(over));
}

/// Makes group `number` of a Steps node, or ends the node when there is none.
fn add_group(turn: &mut Turn<'_>, index: u32, number: u64) {
    let node = turn.node(index);
    let total = groups(&turn.parsed, &node.template).map_or(0, Vec::len) as u64;
    if number >= total {
        succeed(turn, index);
        return;
    }
    let place = Place {
        parent: index,
        ordinal: number,
        name: format!("{}[{number}]", node.name),
        boundary: index,
        depth: node.depth,
        flag: row::NodeFlag::Unspecified,
        on_exit: node.on_exit,
    };
    if let Err(message) = create::group(turn, &place, NodeType::StepGroup, "") {
        turn.finish(index, NodePhase::Error, message, None);
    }
}

fn succeed(turn: &mut Turn<'_>, index: u32) {
    match outputs::composed_outputs(turn, index) {
        Ok(outputs) => turn.finish(index, NodePhase::Succeeded, String::new(), outputs),
        Err(message) => turn.finish(index, NodePhase::Error, message, None),
    }
}

/// A group is over: the next one, or the end.
pub(crate) fn group_done(turn: &mut Turn<'_>, index: u32, group: &row::Node) {
    if phase_of(group).is_failed_or_error() {
        turn.finish(index, NodePhase::Failed, group.message.clone(), None);
    } else {
        add_group(turn, index, group.ordinal + 1);
    }
}

/// Makes the children of a group from the cursor on (slot in the upper half, item in the lower).
pub(crate) fn start_group(turn: &mut Turn<'_>, index: u32, cursor: u64) -> Progress {
    let group = turn.node(index);
    let steps = turn.node(group.parent);
    let number = usize::try_from(group.ordinal).unwrap_or(usize::MAX);
    let parsed = turn.parsed.clone();
    let Some(members) = groups(&parsed, &steps.template).and_then(|groups| groups.get(number)) else {
        turn.finish(index, NodePhase::Error, "the group is not in its template".to_owned(), None);
        return Progress::Done;
    };
    match make_children(turn, index, &group, members, cursor) {
        Ok(Some(cursor)) if hold::is_held(turn, group.parent) => hold::hold(turn, index, cursor, None),
        Ok(Some(cursor)) => return Progress::At(cursor),
        Ok(None) => {
            turn.change(index, |node| node.children_complete = true);
            check_group(turn, index);
        }
        Err(message) => turn.finish(index, NodePhase::Error, message, None),
    }
    Progress::Done
}

fn make_children(
    turn: &mut Turn<'_>,
    index: u32,
    group: &row::Node,
    members: &[Step],
    cursor: u64,
) -> Result<Option<u64>, String> {
    if cursor == 0 && members.len() > 1 {
        // One that can't be resolved fails the group before any of its siblings is made.
        for member in members {
            resolve(turn, group.parent, member).map_err(unresolved)?;
        }
    }
    let first = usize::try_from(cursor >> 32).unwrap_or(usize::MAX);
    let mut item = cursor & u64::from(u32::MAX);
    for (slot, member) in members.iter().enumerate().skip(first) {
        // The first one is made whatever the check above has cost, else the check would begin again and again.
        if turn.is_full() && (slot, item) != (0, 0) {
            return Ok(Some((slot as u64) << 32 | item));
        }
        if hold::is_held(turn, group.parent) {
            return Ok(Some((slot as u64) << 32 | item));
        }
        if is_in_error(turn, index) {
            break;
        }
        if let Some(item) = make_member(turn, index, group, slot as u64, member, item)? {
            return Ok(Some((slot as u64) << 32 | item));
        }
        item = 0;
    }
    Ok(None)
}

/// One that can't be carried out ends its group: those after it are never made.
fn is_in_error(turn: &Turn<'_>, group: u32) -> bool {
    let failed = turn.node(group).rare().failed_first;
    failed.is_some_and(|failed| leaf::is_execution_error(&turn.node(failed.node)))
}

/// One step of a group; `Some(item)`: the batch is full, go on with that item.
fn make_member(
    turn: &mut Turn<'_>,
    index: u32,
    group: &row::Node,
    slot: u64,
    member: &Step,
    item: u64,
) -> Result<Option<u64>, String> {
    let key = (turn.workflow, index, u32::try_from(slot).unwrap_or(u32::MAX));
    let place = Place {
        parent: index,
        ordinal: slot << 32,
        name: format!("{}.{}", group.name, member.name),
        boundary: group.parent,
        depth: group.depth + 1,
        flag: row::NodeFlag::Unspecified,
        on_exit: group.on_exit,
    };
    if turn.draft.state.index.children.contains_key(&(turn.workflow, index, place.ordinal)) {
        return Ok(None);
    }
    if !turn.draft.state.expansions.contains_key(&key) {
        match resolve(turn, group.parent, member).map_err(unresolved)? {
            Resolved::Skip(message) => {
                create::ended(
                    turn,
                    &place,
                    &member.template,
                    NodePhase::Skipped,
                    &message,
                    NodePhase::Skipped,
                )?;
                return Ok(None);
            }
            Resolved::Run(step) => {
                create::step(turn, place, &step)?;
                return Ok(None);
            }
            Resolved::Loop(expansion) if expansion.total == 0 => {
                create::ended(
                    turn,
                    &place,
                    &member.template,
                    NodePhase::Skipped,
                    "Skipped, empty params",
                    NodePhase::Skipped,
                )?;
                return Ok(None);
            }
            Resolved::Loop(expansion) => expand(turn, key, expansion),
        }
    }
    make_items(turn, group.parent, key, place, &member.template, item)
}

/// The items of a fan-out, from one on; `Some(item)`: the batch is full, go on with that item.
fn make_items(
    turn: &mut Turn<'_>,
    boundary: u32,
    key: (u64, u32, u32),
    mut place: Place,
    template: &str,
    item: u64,
) -> Result<Option<u64>, String> {
    let expansion = turn.draft.state.expansions[&key].clone();
    let items = turn.leader.items(&turn.draft.state, key);
    let (base, slot) = (place.name.clone(), place.ordinal);
    for at in item..expansion.total {
        // The very first is made in any case, for the reason given above.
        if turn.is_full() && (slot, at) != (0, 0) {
            return Ok(Some(at));
        }
        if hold::is_held(turn, boundary) {
            return Ok(Some(at));
        }
        if is_in_error(turn, place.parent) {
            break;
        }
        let (value, description) = item_at(&expansion, &items, at);
        place.ordinal = slot | (at + 1);
        if turn.draft.state.index.children.contains_key(&(turn.workflow, place.parent, place.ordinal)) {
            continue;
        }
        place.name = format!("{base}({at}:{description})");
        let resolved = match iteration(turn, boundary, &expansion, &value) {
            Err(Problem::Condition(message)) => {
                create::ended(turn, &place, template, NodePhase::Error, &message, NodePhase::Error)?;
                return Err(message);
            }
            resolved => resolved.map_err(Problem::message)?,
        };
        match resolved {
            Resolved::Run(step) => {
                create::step(turn, place.clone(), &step)?;
            }
            Resolved::Skip(message) => {
                create::ended(turn, &place, template, NodePhase::Skipped, &message, NodePhase::Skipped)?;
            }
            Resolved::Loop(_) => return Err("a loop's item cannot be a loop".to_owned()),
        }
    }
    Ok(None)
}

/// Writes a fan-out down, so that its children can be made bit by bit.
pub(crate) fn expand(
    turn: &mut Turn<'_>,
    (workflow, node, slot): (u64, u32, u32),
    expansion: row::Expansion,
) {
    turn.draft.emit(Body::LoopExpanded(fact::LoopExpanded {
        workflow,
        node,
        slot,
        expansion: Some(expansion),
    }));
}

/// Argo's words around an error in a step's references; errors of loops come as they are.
fn unresolved(problem: Problem) -> String {
    match problem {
        Problem::Loop(message) | Problem::Condition(message) => message,
        Problem::Reference(message) if message.starts_with(artifacts::UNRESOLVED) => {
            format!("failed to resolve references: unable to resolve references: {message}")
        }
        Problem::Reference(message) => format!("failed to resolve references: {message}"),
    }
}

/// Ends a StepGroup whose children are all over.
pub(crate) fn check_group(turn: &mut Turn<'_>, index: u32) {
    let group = turn.node(index);
    if !group.children_complete || group.children_done < group.children_total || group.hooks_below > 0 {
        return;
    }
    match group.rare().failed_first {
        None => turn.finish(index, NodePhase::Succeeded, String::new(), None),
        Some(failed) => {
            let child = turn.node(failed.node);
            if leaf::is_execution_error(&child) {
                let message =
                    format!("step group deemed errored due to child {} error: {}", child.name, child.message);
                turn.finish(index, NodePhase::Error, message, None);
                return;
            }
            let id = node_id(&turn.row().name, &child.name);
            turn.finish(index, NodePhase::Failed, format!("child '{id}' failed"), None);
        }
    }
}
