//! DAGs: a task starts when all it depends on is fulfilled, which is counted, not searched (Argo reference 3.3 and 4).

use argosy_expr::depends::{self, Depends, Selector, Term};
use argosy_model::{NodePhase, NodeType};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::{Dag, Task};
use std::sync::Arc;

use crate::advance::create::{self, Place};
use crate::advance::items::item_at;
use crate::advance::resolve::{Problem, Resolved, iteration, resolve};
use crate::advance::{Progress, Turn, continues_on, hold, outputs, steps, workflow};
use crate::evolve_hold::HELD_TASKS;
use crate::leader::{Parsed, Plan, task_dependencies};
use crate::state::{phase_of, type_of};

fn dag_of<'a>(parsed: &'a Parsed, node: &row::Node) -> Option<(&'a Dag, Arc<Plan>)> {
    Some((parsed.template(&node.template)?.kind.dag()?, parsed.plan(node)?))
}

/// Makes the tasks that wait for nothing, from the cursor on.
pub(crate) fn start(turn: &mut Turn<'_>, index: u32, cursor: u64) -> Progress {
    let node = turn.node(index);
    let parsed = turn.parsed.clone();
    let Some((dag, plan)) = dag_of(&parsed, &node) else {
        turn.finish(index, NodePhase::Error, "the template is not in the manifest".to_owned(), None);
        return Progress::Done;
    };
    if cursor >= HELD_TASKS {
        start_held(turn, index, dag, &plan);
        return Progress::Done;
    }
    let first =
        if stopping(turn, &node) { dag.tasks.len() } else { usize::try_from(cursor).unwrap_or(usize::MAX) };
    for task in first..dag.tasks.len() {
        if turn.is_full() {
            return Progress::At(task as u64);
        }
        turn.draft.spend(1);
        // After a retry some exist already, and some have waited for others that are over.
        let number = u32::try_from(task).unwrap_or(u32::MAX);
        let met = turn.draft.state.waits.get(&(turn.workflow, index, number)).map_or(0, |wait| wait.met);
        let made = turn.draft.state.index.children.contains_key(&(turn.workflow, index, (task as u64) << 32));
        if plan.wanted[task] && !made && met as usize == plan.dependencies[task].len() {
            make_task(turn, index, dag, &plan, task);
        }
    }
    check(turn, index, &plan, dag);
    Progress::Done
}

/// Makes the tasks that were ready and had to wait for others to end, as far as they may start now.
fn start_held(turn: &mut Turn<'_>, index: u32, dag: &Dag, plan: &Plan) {
    for task in turn.node(index).rare().held_tasks.clone() {
        if stopping(turn, &turn.node(index)) {
            break;
        }
        if hold::is_held(turn, index) {
            hold::hold(turn, index, HELD_TASKS, Some(task));
            return;
        }
        turn.draft.spend(1);
        turn.draft.emit(Body::TaskReleased(fact::TaskReleased {
            workflow: turn.workflow,
            node: index,
            task,
        }));
        make_task(turn, index, dag, plan, task as usize);
    }
    check(turn, index, plan, dag);
}

/// A task is over: those that waited for it alone start, from the cursor on; the DAG may be over.
pub(crate) fn task_done(turn: &mut Turn<'_>, index: u32, child: &row::Node, cursor: u64) -> Progress {
    let node = turn.node(index);
    let parsed = turn.parsed.clone();
    let Some((dag, plan)) = dag_of(&parsed, &node) else { return Progress::Done };
    let task = usize::try_from(child.ordinal >> 32).unwrap_or(usize::MAX);
    let dependents =
        plan.dependents.get(task).filter(|_| !stopping(turn, &node)).map(Vec::as_slice).unwrap_or_default();
    for (at, dependent) in dependents.iter().enumerate().skip(usize::try_from(cursor).unwrap_or(usize::MAX)) {
        if turn.is_full() {
            return Progress::At(at as u64);
        }
        if !plan.wanted[*dependent] {
            continue;
        }
        turn.draft.spend(1);
        let number = u32::try_from(*dependent).unwrap_or(u32::MAX);
        turn.draft.emit(Body::DependencyMet(fact::DependencyMet {
            workflow: turn.workflow,
            node: index,
            task: number,
        }));
        let met = turn.draft.state.waits.get(&(turn.workflow, index, number)).map_or(0, |wait| wait.met);
        if met as usize == plan.dependencies[*dependent].len() {
            make_task(turn, index, dag, &plan, *dependent);
        }
    }
    check(turn, index, &plan, dag);
    Progress::Done
}

/// A shutdown goes on: no further task is made, and the DAG fails when those that exist are over.
fn stopping(turn: &Turn<'_>, node: &row::Node) -> bool {
    workflow::stops(turn.row().shutdown, node.on_exit)
}

/// It is ready and runs beside its dependents.
fn is_daemon(node: &row::Node) -> bool {
    node.daemoned && phase_of(node) != NodePhase::Pending
}

/// Looks at a DAG again one of whose daemons failed.
pub(crate) fn recheck(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    let parsed = turn.parsed.clone();
    if let Some((dag, plan)) = dag_of(&parsed, &node) {
        check(turn, index, &plan, dag);
    }
}

/// Ends a DAG all of whose wanted tasks are over.
fn check(turn: &mut Turn<'_>, index: u32, plan: &Plan, dag: &Dag) {
    let node = turn.node(index);
    if phase_of(&node).is_fulfilled() {
        return;
    }
    if node.hooks_below > 0 {
        return;
    }
    if node.children_done < plan.wanted_total {
        if stopping(turn, &node) && node.children_done == node.children_total {
            turn.finish(index, NodePhase::Failed, String::new(), None);
        }
        return;
    }
    let fail_fast = dag.fail_fast.unwrap_or(true);
    let failed = if fail_fast { node.rare().failed_first } else { node.rare().failed_last };
    if let Some(failed) = failed {
        let child = turn.node(failed.node);
        let phase = NodePhase::from_number(child.branch_phase).unwrap_or(NodePhase::Failed);
        turn.finish(index, phase, String::new(), None);
        return;
    }
    match outputs::composed_outputs(turn, index) {
        Ok(outputs) => turn.finish(index, NodePhase::Succeeded, String::new(), outputs),
        Err(message) => turn.finish(index, NodePhase::Error, message, None),
    }
}

/// Makes one task all of whose dependencies are fulfilled.
fn make_task(turn: &mut Turn<'_>, index: u32, dag: &Dag, plan: &Plan, number: usize) {
    if hold::is_held(turn, index) {
        hold::hold(turn, index, HELD_TASKS, u32::try_from(number).ok());
        return;
    }
    let task = &dag.tasks[number];
    let node = turn.node(index);
    let place = Place {
        parent: index,
        ordinal: (number as u64) << 32,
        name: format!("{}.{}", node.name, task.name),
        boundary: index,
        depth: node.depth + 1,
        flag: row::NodeFlag::Unspecified,
        on_exit: node.on_exit,
    };
    let carried = carried_phase(turn, index, &plan.dependencies[number]);
    let made = match condition(turn, index, dag, plan, task) {
        Ok(true) => run(turn, index, &place, task, carried),
        Ok(false) => create::ended(
            turn,
            &place,
            &task.template,
            NodePhase::Omitted,
            "omitted: depends condition not met",
            carried,
        )
        .map(drop),
        Err(message) => Err(message),
    };
    if let Err(message) = made
        && let Err(message) =
            create::ended(turn, &place, &task.template, NodePhase::Error, &message, NodePhase::Error)
    {
        turn.finish(index, NodePhase::Error, message, None);
    }
}

fn run(
    turn: &mut Turn<'_>,
    index: u32,
    place: &Place,
    task: &Task,
    carried: NodePhase,
) -> Result<(), String> {
    match resolve(turn, index, task).map_err(Problem::message)? {
        Resolved::Skip(message) => {
            create::ended(turn, place, &task.template, NodePhase::Skipped, &message, carried).map(drop)
        }
        Resolved::Run(step) => create::step(turn, place.clone(), &step).map(drop),
        Resolved::Loop(expansion) if expansion.total == 0 => {
            create::ended(turn, place, &task.template, NodePhase::Skipped, "Skipped, empty params", carried)
                .map(drop)
        }
        Resolved::Loop(expansion) => {
            let group = create::group(turn, place, NodeType::TaskGroup, &task.template)?;
            steps::expand(turn, (turn.workflow, group, 0), expansion);
            Ok(())
        }
    }
}

/// What a skipped or omitted task hands on: a failure among what it depends on.
fn carried_phase(turn: &Turn<'_>, index: u32, dependencies: &[usize]) -> NodePhase {
    let failed = dependencies.iter().find_map(|dependency| {
        let child = task_node(turn, index, *dependency)?;
        NodePhase::from_number(child.branch_phase).filter(|phase| phase.is_failed_or_error())
    });
    failed.unwrap_or(NodePhase::Succeeded)
}

fn task_node(turn: &Turn<'_>, index: u32, task: usize) -> Option<Arc<row::Node>> {
    let child = turn.draft.state.index.children.get(&(turn.workflow, index, (task as u64) << 32))?;
    Some(turn.node(*child))
}

fn condition(turn: &mut Turn<'_>, index: u32, dag: &Dag, plan: &Plan, task: &Task) -> Result<bool, String> {
    let parsed = if task.depends.is_empty() {
        Depends::all_of(&task.dependencies)
    } else {
        Some(depends::parse(&task.depends).map_err(|error| unreadable(&task.depends, &error))?)
    };
    // Argo reads the condition as an expression, in which no name begins with a digit.
    let odd = task_dependencies(task).into_iter().find(|name| name.starts_with(|c: char| c.is_ascii_digit()));
    if odd.is_some() {
        let text =
            if task.depends.is_empty() { task.dependencies.join(" && ") } else { task.depends.clone() };
        if let Some(message) = argo_message(&text) {
            return Err(message);
        }
    }
    let Some(parsed) = parsed else { return Ok(true) };
    turn.draft.spend(u32::try_from(plan.names.len().min(parsed.terms().len())).unwrap_or(u32::MAX));
    Ok(parsed.evaluate(&mut |term| holds(turn, index, dag, plan, term)))
}

/// Argo's words for a `depends` that can't be read, where it can't read it either.
fn unreadable(depends: &str, error: &argosy_expr::Error) -> String {
    argo_message(depends).unwrap_or_else(|| error.to_string())
}

fn argo_message(depends: &str) -> Option<String> {
    let expanded = depends::expanded(depends);
    let error = argosy_expr::program::compile(&expanded).err()?;
    Some(format!("unable to evaluate expression '{expanded}': {error}"))
}

fn holds(turn: &Turn<'_>, index: u32, dag: &Dag, plan: &Plan, term: &Term) -> bool {
    let Some(task) = plan.names.get(&term.task) else { return false };
    let Some(node) = task_node(turn, index, *task) else { return false };
    let phase = phase_of(&node);
    let is_group = type_of(&node) == NodeType::TaskGroup;
    match term.selector {
        None => {
            matches!(phase, NodePhase::Succeeded | NodePhase::Skipped)
                || is_daemon(&node)
                || continues_on(dag.tasks[*task].continue_on, phase)
        }
        Some(Selector::Succeeded) => phase == NodePhase::Succeeded,
        Some(Selector::Skipped) => phase == NodePhase::Skipped,
        Some(Selector::Failed) => phase == NodePhase::Failed,
        Some(Selector::Errored) => phase == NodePhase::Error,
        Some(Selector::Omitted) => phase == NodePhase::Omitted,
        Some(Selector::Daemoned) => is_daemon(&node),
        Some(Selector::AnySucceeded) => is_group && node.children_succeeded > 0,
        Some(Selector::AllFailed) => {
            is_group && node.children_total > 0 && node.children_failed == node.children_total
        }
    }
}

/// Makes the children of a TaskGroup from the cursor on.
pub(crate) fn start_group(turn: &mut Turn<'_>, index: u32, cursor: u64) -> Progress {
    let group = turn.node(index);
    let key = (turn.workflow, index, 0);
    let Some(expansion) = turn.draft.state.expansions.get(&key).cloned() else { return Progress::Done };
    let items = turn.leader.items(&turn.draft.state, key);
    for at in cursor..expansion.total {
        if turn.is_full() {
            return Progress::At(at);
        }
        if turn.draft.state.index.children.contains_key(&(turn.workflow, index, at)) {
            continue;
        }
        if hold::is_held(turn, group.boundary) {
            hold::hold(turn, index, at, None);
            return Progress::Done;
        }
        let (value, description) = item_at(&expansion, &items, at);
        let place = Place {
            parent: index,
            ordinal: at,
            name: format!("{}({at}:{description})", group.name),
            boundary: group.boundary,
            depth: group.depth,
            flag: row::NodeFlag::Unspecified,
            on_exit: group.on_exit,
        };
        let made = match iteration(turn, group.boundary, &expansion, &value) {
            Ok(Resolved::Run(step)) => create::step(turn, place.clone(), &step).map(drop),
            Ok(Resolved::Skip(message)) => {
                create::ended(turn, &place, &group.template, NodePhase::Skipped, &message, NodePhase::Skipped)
                    .map(drop)
            }
            Ok(Resolved::Loop(_)) => Err("a loop's item cannot be a loop".to_owned()),
            Err(problem) => Err(problem.message()),
        };
        if let Err(message) = made
            && let Err(message) =
                create::ended(turn, &place, &group.template, NodePhase::Error, &message, NodePhase::Error)
        {
            turn.finish(index, NodePhase::Error, message, None);
            return Progress::Done;
        }
    }
    turn.change(index, |node| node.children_complete = true);
    check_group(turn, index);
    Progress::Done
}

/// Ends a TaskGroup whose children are all over: with the phase of the last that failed.
pub(crate) fn check_group(turn: &mut Turn<'_>, index: u32) {
    let group = turn.node(index);
    if !group.children_complete || group.children_done < group.children_total || group.hooks_below > 0 {
        return;
    }
    let phase =
        group.rare().failed_last.map_or(NodePhase::Succeeded, |failed| phase_of(&turn.node(failed.node)));
    turn.finish(index, phase, String::new(), None);
}
