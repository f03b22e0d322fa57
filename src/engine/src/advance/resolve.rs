//! From a step or task as written to one that can run: condition, loop, arguments.

use argosy_expr::{Found, Lookup, Rules, verbatim, when};
use argosy_model::NodeType;
use argosy_proto::state as row;
use argosy_spec::{Arguments, LifecycleHook, Step, Template};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::advance::leaf::{input_names, inputs_of};
use crate::advance::{Turn, hooks, items, raw_json};
use crate::artifacts;
use crate::express::{self, fill, fill_known};
use crate::scope::{Scope, display_name};
use crate::state::{ROW_VERSION, phase_of, type_of};

/// A step ready to be acted on.
pub(crate) enum Resolved {
    /// Its condition is false.
    Skip(String),
    /// It runs once.
    Run(Box<Step>),
    /// It runs for each item; nothing when there is none.
    Loop(row::Expansion),
}

/// Why a step or task can't run.
pub(crate) enum Problem {
    /// Something that it refers to.
    Reference(String),
    /// Its loop, or one of the items.
    Loop(String),
    /// The condition of one of the items.
    Condition(String),
}

impl Problem {
    pub(crate) fn message(self) -> String {
        match self {
            Self::Reference(message) | Self::Loop(message) | Self::Condition(message) => message,
        }
    }
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self::Reference(message)
    }
}

/// Items of a loop that are looked at before the first of them is made; what is wrong with one after them shows when its
/// turn comes.
const ITEMS_CHECKED_MAX: u64 = 1_000;
/// The same where expressions are to be evaluated: each may take all the steps that one may.
const ITEMS_EVALUATED_MAX: u64 = 50;

/// Resolves a step or task of the template of node `boundary`.
pub(crate) fn resolve(turn: &mut Turn<'_>, boundary: u32, step: &Step) -> Result<Resolved, Problem> {
    turn.draft.spend(1);
    let node = turn.node(boundary);
    let mut scope = turn.scope(boundary);
    scope.on_exit = node.on_exit;
    let mut inputs = inputs_of(&turn.parsed, &node);
    inputs.extend(own_names(turn, &node));
    let mut skip = None;
    if !step.when.is_empty() {
        let text = resolve_text(
            &Value::String(step.when.clone()).to_string(),
            &scope,
            &inputs,
            &Rules::STRICT_NODES,
        );
        let condition = text.and_then(|text| {
            let condition: String = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let holds = when::evaluate(&condition).map_err(|error| error.to_string())?;
            Ok((condition, holds))
        });
        match condition {
            Ok((_, true)) => {}
            Ok((condition, false)) => skip = Some(format!("when '{condition}' evaluated false")),
            Err(_) if step.is_loop() => {}
            Err(message) => return Err(message.into()),
        }
    }
    if let Some(message) = skip.clone().filter(|_| !step.is_loop()) {
        return Ok(Resolved::Skip(message));
    }
    let mut raw = step.raw.clone();
    if !step.is_loop()
        && let Some(fields) = raw.as_object_mut()
    {
        fields.shift_remove("when");
        fields.shift_remove("withItems");
    }
    // Hooks are resolved when they run.
    if let Some(fields) = raw.as_object_mut().filter(|fields| fields.contains_key("hooks")) {
        fields.shift_remove("hooks");
    }
    let rules = if skip.is_some() { Rules::LENIENT } else { Rules::STRICT_NODES };
    let resolved = resolve_value(raw, &scope, &inputs, &rules)?;
    let resolved = Step::from_value(resolved).map_err(|error| error.to_string())?;
    if skip.is_none() {
        for given in &resolved.arguments.artifacts {
            if !given.from.is_empty() || !given.from_expression.is_empty() {
                artifacts::resolve(&scope, given)?;
            }
        }
    }
    if resolved.is_loop() {
        let expansion = expansion(&resolved, skip.is_some()).map_err(Problem::Loop)?;
        let nodes_max = turn.leader.limits.nodes_per_workflow_max;
        if expansion.total > u64::from(nodes_max) {
            let total = expansion.total;
            let message = format!("the loop has {total} items, and a workflow may have {nodes_max} nodes");
            return Err(Problem::Loop(message));
        }
        if skip.is_none() {
            scope.locals.clear();
            check_items(&mut scope, &expansion).map_err(Problem::Loop)?;
        }
        return Ok(Resolved::Loop(expansion));
    }
    Ok(Resolved::Run(Box::new(resolved)))
}

/// Every item must give all that is asked of it, before any node is made.
fn check_items(scope: &mut Scope<'_>, expansion: &row::Expansion) -> Result<(), String> {
    if !expansion.step_json.contains("{{") {
        return Ok(());
    }
    let list: Value = serde_json::from_str(&expansion.items_json).unwrap_or_default();
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let checked_max =
        if expansion.step_json.contains("{{=") { ITEMS_EVALUATED_MAX } else { ITEMS_CHECKED_MAX };
    for at in 0..expansion.total.min(checked_max) {
        scope.locals = items::names(&items::item_at(expansion, list, at).0);
        fill(&expansion.step_json, scope, &Rules::STRICT).map_err(|error| message_of(&error))?;
    }
    Ok(())
}

/// What a steps or dag template knows of the node that it is carried out as (`node.name` is not that of its children).
fn own_names(turn: &Turn<'_>, node: &Arc<row::Node>) -> BTreeMap<String, String> {
    let is_try = node.flag == i32::from(row::NodeFlag::Retried);
    let called = if is_try { turn.node(node.parent) } else { node.clone() };
    let caller = (called.parent != 0).then(|| type_of(&turn.node(called.parent)));
    let display = match caller {
        Some(_) => display_name(&turn.draft.state, turn.workflow, &called),
        None => String::new(),
    };
    let by_task = matches!(caller, Some(NodeType::Dag | NodeType::TaskGroup));
    let kind = if by_task { "tasks.name" } else { "steps.name" };
    BTreeMap::from([("node.name".to_owned(), called.name.clone()), (kind.to_owned(), display)])
}

/// Argo's passes over a JSON text: globals, the template's inputs, then siblings.
fn resolve_text(
    text: &str,
    scope: &Scope<'_>,
    inputs: &BTreeMap<String, String>,
    rules: &Rules<'_>,
) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let text = early(text, scope, inputs)?;
    fill(&text, scope, rules).map_err(|error| message_of(&error))
}

fn early(text: &str, scope: &Scope<'_>, inputs: &BTreeMap<String, String>) -> Result<String, String> {
    let text = fill_known(text, &scope.parsed.globals, scope.now.0).map_err(|error| message_of(&error))?;
    if !text.contains("{{=") {
        return fill_known(&text, inputs, scope.now.0).map_err(|error| message_of(&error));
    }
    // The second pass knows the globals, too.
    let mut names = scope.parsed.globals.clone();
    names.extend(inputs.iter().map(|(name, value)| (name.clone(), value.clone())));
    fill_known(&text, &names, scope.now.0).map_err(|error| message_of(&error))
}

fn resolve_value(
    value: Value,
    scope: &Scope<'_>,
    inputs: &BTreeMap<String, String>,
    rules: &Rules<'_>,
) -> Result<Value, String> {
    let text = value.to_string();
    if !text.contains("{{") {
        return Ok(value);
    }
    let text = early(&text, scope, inputs)?;
    let mut value = verbatim::parse(&text).map_err(|error| error.to_string())?;
    drop_absent(&mut value, scope);
    let text = fill(&value.to_string(), scope, rules).map_err(|error| message_of(&error))?;
    marked_arguments(&text)
}

/// A step, or arguments, with marks only in what is read once more: values of arguments, and the list of a loop.
fn marked_arguments(text: &str) -> Result<Value, String> {
    let mut value = verbatim::parse(text).map_err(|error| error.to_string())?;
    verbatim::unmark(&mut value, &|path| {
        matches!(
            path,
            ["arguments", "parameters", "*", "value"]
                | ["parameters", "*", "value"]
                | ["withParam"]
                | ["withItems", ..]
        )
    });
    Ok(value)
}

/// An argument that is nothing but a reference to an output that never came is as if not given.
fn drop_absent(step: &mut Value, scope: &Scope<'_>) {
    let parameters = step.pointer_mut("/arguments/parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten().filter_map(Value::as_object_mut) {
        let absent = parameter.get("value").and_then(Value::as_str).is_some_and(|text| {
            let tag = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
            tag.is_some_and(|tag| !tag.contains("{{") && scope.get(tag.trim()) == Some(Found::Absent))
        });
        if absent {
            parameter.shift_remove("value");
        }
    }
}

fn message_of(error: &argosy_expr::Error) -> String {
    if let argosy_expr::Error::Absent(name) = error {
        return format!(
            "unable to substitute {{{{{name}}}}}: output is an absent optional (skipped/omitted node with no default)"
        );
    }
    error.to_string()
}

/// A template whose expressions can't be read, found before anything of it is made.
pub(crate) fn readable(
    turn: &Turn<'_>,
    template: &Template,
    inputs: &[row::Parameter],
) -> Result<(), String> {
    if !turn.parsed.has_expressions(&template.name) {
        return Ok(());
    }
    early(&template.raw.to_string(), &turn.scope(0), &input_names(inputs, &template.inputs.parameters))
        .map(drop)
}

/// The items of a loop, written down so that children can be made one by one.
fn expansion(step: &Step, skipped: bool) -> Result<row::Expansion, String> {
    let mut raw = step.raw.clone();
    let fields = raw.as_object_mut().ok_or("a step must be an object")?;
    let items = fields.shift_remove("withItems");
    fields.shift_remove("withParam");
    fields.shift_remove("withSequence");
    let mut expansion = row::Expansion { version: ROW_VERSION, ..row::Expansion::default() };
    if let Some(sequence) = &step.with_sequence {
        items::sequence_of(sequence, &mut expansion)?;
    } else {
        expansion.raw = !step.with_param.is_empty();
        let list = if expansion.raw {
            let list = list_of(&step.with_param, skipped)?;
            let texts = if list.as_array().is_some_and(|list| !list.is_empty()) {
                raw_json::elements(&step.with_param)
            } else {
                Vec::new()
            };
            texts.into_iter().map(|text| Value::String(text.to_owned())).collect()
        } else {
            items.unwrap_or_default()
        };
        expansion.total = list.as_array().map_or(0, Vec::len) as u64;
        expansion.items_json = list.to_string();
    }
    expansion.step_json = raw.to_string();
    Ok(expansion)
}

fn list_of(text: &str, skipped: bool) -> Result<Value, String> {
    let plain = verbatim::plain(text);
    match serde_json::from_str::<Value>(&plain) {
        Ok(Value::Array(_)) => serde_json::from_str(text).map_err(|error| error.to_string()),
        Ok(Value::Null) => Ok(Value::Array(Vec::new())),
        Ok(_) | Err(_) if skipped => Ok(Value::Array(Vec::new())),
        Ok(other) => Err(format!(
            "withParam value could not be parsed as a JSON list: {plain}: json: cannot unmarshal {} into Go value of type []v1alpha1.Item",
            go_kind(&other)
        )),
        Err(_) => Err(format!(
            "withParam value could not be parsed as a JSON list: {plain}: {}",
            go_syntax_error(&plain)
        )),
    }
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Go's words for the commonest ways of not being JSON.
fn go_syntax_error(text: &str) -> String {
    match text.trim_start().chars().next() {
        None => "unexpected end of JSON input".to_owned(),
        Some(first) if !"[{\"-0123456789tfn".contains(first) => {
            format!("invalid character '{first}' looking for beginning of value")
        }
        Some(first) => literal_error(text.trim_start(), first).unwrap_or_else(|| "it is not JSON".to_owned()),
    }
}

/// Where a text leaves the literal that its first letter begins.
fn literal_error(text: &str, first: char) -> Option<String> {
    let literal = ["true", "false", "null"].into_iter().find(|literal| literal.starts_with(first))?;
    let mut read = text.chars();
    for expected in literal.chars() {
        match read.next() {
            Some(found) if found == expected => {}
            Some(found) => {
                return Some(format!(
                    "invalid character '{found}' in literal {literal} (expecting '{expected}')"
                ));
            }
            None => return Some("unexpected end of JSON input".to_owned()),
        }
    }
    let after = read.find(|character| !character.is_ascii_whitespace())?;
    Some(format!("invalid character '{after}' after top-level value"))
}

/// Whether the time of a node's hook has come: its expression, or the node's end.
pub(crate) fn hook_holds(turn: &mut Turn<'_>, owner: u32, hook: &LifecycleHook) -> Result<bool, String> {
    if hook.expression.is_empty() {
        return Ok(true);
    }
    let node = turn.node(owner);
    let items = hooks::item_names(turn, &node);
    let mut scope = turn.scope(node.boundary);
    scope.locals = items;
    if node.parent == 0 {
        // The workflow's own hooks see its outcome as soon as its root has one.
        scope.on_exit = phase_of(&node).is_fulfilled();
    }
    express::holds(&hook.expression, &scope)
}

/// A hook's arguments with everything resolved; those of the workflow when it has none, as in Argo.
pub(crate) fn hook_arguments(
    turn: &mut Turn<'_>,
    owner: u32,
    hook: &LifecycleHook,
) -> Result<Arguments, String> {
    if hook.arguments.parameters.is_empty() && hook.arguments.artifacts.is_empty() {
        return Ok(turn.parsed.manifest.spec.arguments.clone());
    }
    let node = turn.node(owner);
    let items = hooks::item_names(turn, &node);
    let boundary = turn.node(node.boundary);
    let mut scope = turn.scope(node.boundary);
    scope.on_exit |= node.parent == 0;
    scope.locals = items;
    let raw = serde_json::to_value(&hook.arguments).map_err(|error| error.to_string())?;
    let resolved = resolve_value(raw, &scope, &inputs_of(&turn.parsed, &boundary), &Rules::STRICT_NODES)?;
    serde_json::from_value(resolved).map_err(|error| error.to_string())
}

/// One iteration of a loop.
pub(crate) fn iteration(
    turn: &mut Turn<'_>,
    boundary: u32,
    expansion: &row::Expansion,
    item: &Value,
) -> Result<Resolved, Problem> {
    turn.draft.spend(1);
    let mut scope = turn.scope(boundary);
    scope.locals = items::names(item);
    let raw: Value = serde_json::from_str(&expansion.step_json).map_err(|error| error.to_string())?;
    let condition = raw.get("when").and_then(Value::as_str).unwrap_or_default();
    if !condition.is_empty() {
        let text = fill(&Value::String(condition.to_owned()).to_string(), &scope, &Rules::STRICT_NODES);
        let text = text.map_err(|error| message_of(&error))?;
        let condition: String = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if !when::evaluate(&condition).map_err(|error| Problem::Condition(error.to_string()))? {
            return Ok(Resolved::Skip(format!("when '{condition}' evaluated false")));
        }
    }
    let text = fill(&expansion.step_json, &scope, &Rules::STRICT).map_err(|error| message_of(&error))?;
    let step = Step::from_value(marked_arguments(&text)?).map_err(|error| error.to_string())?;
    Ok(Resolved::Run(Box::new(step)))
}
