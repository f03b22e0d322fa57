//! Making nodes.

use argosy_expr::{Rules, verbatim};
use argosy_model::{NodePhase, NodeType};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::{Arguments, Step, Template, TemplateKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::advance::lock::{self, Entered};
use crate::advance::{Turn, configured, hooks, leaf, memo, resolve};
use crate::artifacts::{self, NodeInputs};
use crate::express::{fill, fill_known};
use crate::scope::{Scope, display_name};
use crate::state::type_of;

/// Argo's message at the depth limit.
pub(crate) const TOO_DEEP: &str = "Maximum recursion depth exceeded. See https://argo-workflows.readthedocs.io/en/latest/scaling/#maximum-recursion-depth";

/// Where a node goes and what it is to be.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub parent: u32,
    pub ordinal: u64,
    pub name: String,
    /// Enclosing Steps or DAG node; 0 at the top.
    pub boundary: u32,
    /// Depth of template calls of the node itself.
    pub depth: u32,
    pub flag: row::NodeFlag,
    pub on_exit: bool,
}

/// Makes the node of a resolved step or task.
pub(crate) fn step(turn: &mut Turn<'_>, place: Place, step: &Step) -> Result<u32, String> {
    call(turn, place, &step.template, &step.arguments)
}

/// Makes the node that runs a template with arguments.
pub(crate) fn call(
    turn: &mut Turn<'_>,
    place: Place,
    template: &str,
    arguments: &Arguments,
) -> Result<u32, String> {
    let parsed = turn.parsed.clone();
    let template = parsed.template(template).ok_or_else(|| format!("template {template} not found"))?;
    if place.depth + 1 >= turn.leader.limits.template_depth_max {
        return ended(turn, &place, &template.name, NodePhase::Error, TOO_DEEP, NodePhase::Error);
    }
    let parameters = match inputs(turn, &place, template, arguments) {
        Ok(parameters) => parameters,
        Err(message) => return failed(turn, &place, template, &message),
    };
    let artifacts = artifacts::inputs(turn, &place, template, arguments, &parameters)?;
    let inputs = NodeInputs { parameters, artifacts };
    if let Err(message) = resolve::readable(turn, template, &inputs.parameters) {
        return failed(turn, &place, template, &message);
    }
    if let Some(node) = remembered(turn, &place, template, &inputs)? {
        return Ok(node);
    }
    match lock::enter(turn, &place, template, &inputs) {
        Ok(Entered::Free) => {}
        Ok(Entered::Waits(node)) => return Ok(node),
        Err(message) => return failed(turn, &place, template, &message),
    }
    let (parent, ordinal, next) = (place.parent, place.ordinal, turn.row().node_next);
    let made = unlocked(turn, place, template, inputs);
    let is_made = turn.draft.state.index.children.contains_key(&(turn.workflow, parent, ordinal));
    if !is_made {
        lock::withdraw(turn, next);
    }
    made
}

/// Makes the node of a template that has its locks.
fn unlocked(
    turn: &mut Turn<'_>,
    place: Place,
    template: &Template,
    inputs: NodeInputs,
) -> Result<u32, String> {
    let parsed = turn.parsed.clone();
    let memo = match memo::look_up(turn, template, &inputs.parameters) {
        Ok(memo) => memo,
        Err(message) => return failed(turn, &place, template, &message),
    };
    let retried = template.retry_strategy.is_some() || parsed.manifest.spec.retry_strategy.is_some();
    let hit = memo.as_ref().is_some_and(|memo| memo.hit.is_some());
    let node = if retried {
        added(turn, &place, template, NodeType::Retry, NodePhase::Running, inputs)?
    } else if hit {
        added(turn, &place, template, own_type(template), NodePhase::Running, inputs)?
    } else {
        instance(turn, place, template, inputs)?
    };
    if let Some(memo) = memo {
        memo::note(turn, node, &memo);
    }
    Ok(node)
}

/// The type of a template's node.
fn own_type(template: &Template) -> NodeType {
    match &template.kind {
        TemplateKind::Steps(_) => NodeType::Steps,
        TemplateKind::Dag(_) => NodeType::Dag,
        TemplateKind::Container(_)
        | TemplateKind::Script(_)
        | TemplateKind::ContainerSet(_)
        | TemplateKind::Resource(_)
        | TemplateKind::Data(_) => NodeType::Pod,
        TemplateKind::Http(_) => NodeType::Http,
        TemplateKind::Plugin(_) => NodeType::Plugin,
        TemplateKind::Suspend(_) => NodeType::Suspend,
        TemplateKind::Missing => NodeType::Skipped,
    }
}

/// A node that succeeded in the workflow which this one repeats: it is not run again.
fn remembered(
    turn: &mut Turn<'_>,
    place: &Place,
    template: &Template,
    inputs: &NodeInputs,
) -> Result<Option<u32>, String> {
    let key = (turn.workflow, place.name.clone());
    let Some(outcome) = turn.draft.state.remembered.get(&key).cloned() else { return Ok(None) };
    let mut fact = blank(turn, place)?;
    fact.r#type = NodeType::Skipped.number();
    fact.phase = NodePhase::Skipped.number();
    fact.message.clone_from(&outcome.message);
    fact.template.clone_from(&template.name);
    fact.inputs.clone_from(&inputs.parameters);
    fact.input_artifacts.clone_from(&inputs.artifacts);
    fact.branch_phase = NodePhase::Succeeded.number();
    let (workflow, node) = (turn.workflow, emit(turn, fact));
    if outcome.outputs.is_some() {
        let (message, outputs) = (outcome.message.clone(), outcome.outputs.clone());
        turn.draft.emit(Body::NodeSet(fact::NodeSet { workflow, node, message, outputs }));
    }
    Ok(Some(node))
}

/// Makes the node of a template that waits for locks.
pub(crate) fn waiting(
    turn: &mut Turn<'_>,
    place: &Place,
    template: &Template,
    inputs: NodeInputs,
) -> Result<u32, String> {
    let retried = template.retry_strategy.is_some() || turn.parsed.manifest.spec.retry_strategy.is_some();
    let mut fact = blank(turn, place)?;
    fact.r#type = if retried { NodeType::Retry } else { own_type(template) }.number();
    fact.phase = NodePhase::Pending.number();
    fact.template.clone_from(&template.name);
    fact.inputs = inputs.parameters;
    fact.input_artifacts = inputs.artifacts;
    Ok(emit(turn, fact))
}

/// A part of a template with the globals and the template's inputs filled in.
pub(crate) fn with_inputs<T: Serialize + DeserializeOwned>(
    turn: &Turn<'_>,
    template: &Template,
    part: &T,
    inputs: &[row::Parameter],
) -> Result<T, String> {
    let text = serde_json::to_string(part).map_err(|error| error.to_string())?;
    let mut names = turn.parsed.globals.clone();
    names.extend(leaf::input_names(inputs, &template.inputs.parameters));
    let text = fill_known(&text, &names, turn.draft.now().0).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// Makes the node of a template itself, without a retry wrapper.
pub(crate) fn instance(
    turn: &mut Turn<'_>,
    place: Place,
    template: &Template,
    inputs: NodeInputs,
) -> Result<u32, String> {
    if template.kind == TemplateKind::Missing {
        return Err(format!("template '{}' has no type", template.name));
    }
    let kind = own_type(template);
    match kind {
        NodeType::Pod | NodeType::Http | NodeType::Plugin => {
            let node = added(turn, &place, template, kind, NodePhase::Pending, inputs)?;
            leaf::queue(turn, node);
            Ok(node)
        }
        NodeType::Suspend => {
            let node = added(turn, &place, template, kind, NodePhase::Running, inputs)?;
            leaf::suspend(turn, node);
            Ok(node)
        }
        NodeType::Steps
        | NodeType::Dag
        | NodeType::Container
        | NodeType::StepGroup
        | NodeType::TaskGroup
        | NodeType::Retry
        | NodeType::Skipped => added(turn, &place, template, kind, NodePhase::Running, inputs),
    }
}

fn added(
    turn: &mut Turn<'_>,
    place: &Place,
    template: &Template,
    kind: NodeType,
    phase: NodePhase,
    inputs: NodeInputs,
) -> Result<u32, String> {
    let mut fact = blank(turn, place)?;
    fact.r#type = kind.number();
    fact.phase = phase.number();
    fact.template.clone_from(&template.name);
    fact.inputs = inputs.parameters;
    fact.input_artifacts = inputs.artifacts;
    fact.start = match kind {
        NodeType::Steps | NodeType::Dag | NodeType::Retry => true,
        NodeType::Pod
        | NodeType::Container
        | NodeType::StepGroup
        | NodeType::TaskGroup
        | NodeType::Skipped
        | NodeType::Suspend
        | NodeType::Http
        | NodeType::Plugin => false,
    };
    Ok(emit(turn, fact))
}

/// A StepGroup or TaskGroup.
pub(crate) fn group(
    turn: &mut Turn<'_>,
    place: &Place,
    kind: NodeType,
    template: &str,
) -> Result<u32, String> {
    let mut fact = blank(turn, place)?;
    fact.r#type = kind.number();
    fact.phase = NodePhase::Running.number();
    template.clone_into(&mut fact.template);
    fact.start = true;
    Ok(emit(turn, fact))
}

/// A node that is over as it is made: skipped, omitted, or in error. `carried` is the phase that its DAG sees through it.
pub(crate) fn ended(
    turn: &mut Turn<'_>,
    place: &Place,
    template: &str,
    phase: NodePhase,
    message: &str,
    carried: NodePhase,
) -> Result<u32, String> {
    let mut fact = blank(turn, place)?;
    fact.r#type = NodeType::Skipped.number();
    fact.phase = phase.number();
    message.clone_into(&mut fact.message);
    template.clone_into(&mut fact.template);
    fact.branch_phase = carried.number();
    (fact.counts_as_failure, fact.rank) = turn.counts(place.parent, place.ordinal, carried);
    Ok(emit(turn, fact))
}

/// A template that could not be carried out: a node in error, which a task tells in words of its own.
fn failed(turn: &mut Turn<'_>, place: &Place, template: &Template, message: &str) -> Result<u32, String> {
    let is_task = matches!(type_of(&turn.node(place.parent)), NodeType::Dag | NodeType::TaskGroup);
    let message = if is_task && place.flag != row::NodeFlag::Hooked {
        format!("task '{}' errored: {message}", place.name)
    } else {
        message.to_owned()
    };
    ended(turn, place, &template.name, NodePhase::Error, &message, NodePhase::Error)
}

fn blank(turn: &mut Turn<'_>, place: &Place) -> Result<fact::NodeAdded, String> {
    let node = turn.row().node_next;
    let nodes_max = turn.leader.limits.nodes_per_workflow_max;
    if node > nodes_max {
        return Err(format!("the workflow has {nodes_max} nodes, which is the limit"));
    }
    Ok(fact::NodeAdded {
        workflow: turn.workflow,
        node,
        parent: place.parent,
        ordinal: place.ordinal,
        name: place.name.clone(),
        boundary: place.boundary,
        depth: place.depth,
        flag: place.flag.into(),
        on_exit: place.on_exit,
        ..fact::NodeAdded::default()
    })
}

fn emit(turn: &mut Turn<'_>, fact: fact::NodeAdded) -> u32 {
    turn.draft.spend(1);
    let node = fact.node;
    let runs = fact.phase == NodePhase::Running.number();
    turn.draft.emit(Body::NodeAdded(fact));
    if runs {
        hooks::changed(turn, node);
    }
    node
}

/// A template's inputs from arguments: an argument wins over the declared value, that over the default.
fn inputs(
    turn: &Turn<'_>,
    place: &Place,
    template: &Template,
    arguments: &Arguments,
) -> Result<Vec<row::Parameter>, String> {
    let bytes_max = turn.leader.limits.parameter_bytes_max;
    let mut inputs = Vec::with_capacity(template.inputs.parameters.len());
    for declared in &template.inputs.parameters {
        let argument = arguments.parameter(&declared.name);
        let given = argument.and_then(|argument| argument.value.clone());
        let given = match given {
            None => configured::input(turn, declared, argument)?,
            given => given,
        };
        let value = match given.or_else(|| declared.value.clone()).or_else(|| declared.default.clone()) {
            Some(text) if text.contains("{{") => Some(known_in(turn, place, &text, &inputs)?),
            other => other,
        };
        let value = value.ok_or_else(|| format!("inputs.parameters.{} was not supplied", declared.name))?;
        if value.len() > bytes_max {
            return Err(format!(
                "inputs.parameters.{} has {} bytes, the limit is {bytes_max}",
                declared.name,
                value.len()
            ));
        }
        let verbatim = verbatim::is_marked(&value);
        let value = Some(verbatim::plain(&value).into_owned());
        inputs.push(row::Parameter { name: declared.name.clone(), value, verbatim });
    }
    Ok(inputs)
}

/// A declared value or default may name globals and the inputs before it.
fn known_in(turn: &Turn<'_>, place: &Place, text: &str, inputs: &[row::Parameter]) -> Result<String, String> {
    let quoted = serde_json::Value::String(text.to_owned()).to_string();
    let scope = known_scope(turn, place, inputs);
    let resolved = fill(&quoted, &scope, &Rules::LENIENT).map_err(|error| error.to_string())?;
    let resolved = verbatim::parse(&resolved).map_err(|error| error.to_string())?;
    serde_json::from_value(resolved).map_err(|error| error.to_string())
}

/// What a declared value sees: globals, its own place, and the inputs before it.
pub(crate) fn known_scope<'a>(turn: &'a Turn<'_>, place: &Place, inputs: &[row::Parameter]) -> Scope<'a> {
    let mut scope = turn.scope(0);
    let pairs = inputs
        .iter()
        .filter_map(|input| Some((format!("inputs.parameters.{}", input.name), leaf::as_read(input)?)));
    scope.locals = pairs.collect();
    let node = row::Node { name: place.name.clone(), boundary: place.boundary, ..row::Node::default() };
    let display = display_name(&turn.draft.state, turn.workflow, &node);
    scope.locals.insert("steps.name".to_owned(), display.clone());
    scope.locals.insert("tasks.name".to_owned(), display);
    scope.locals.insert("node.name".to_owned(), node.name);
    scope
}
