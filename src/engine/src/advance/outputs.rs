//! What nodes yield: outputs of leaves as reported, those of steps and dag templates composed of their children's.

use argosy_expr::{Found, Lookup, Rules, verbatim};
use argosy_proto::common::{AttemptPhase, AttemptReport};
use argosy_proto::state as row;
use argosy_spec::{Parameter, TemplateKind};
use serde_json::Value;

use crate::advance::Turn;
use crate::advance::leaf::inputs_of;
use crate::artifacts::{self, UNRESOLVED};
use crate::express::{self, fill};

/// What a leaf yields: exit code, result where somebody reads it, and every declared parameter, with or without a value.
pub(crate) fn of_leaf(
    turn: &Turn<'_>,
    node: &row::Node,
    report: &AttemptReport,
) -> Result<Option<row::Outputs>, String> {
    let bytes_max = turn.leader.limits.parameter_bytes_max;
    let mut outputs = row::Outputs { exit_code: report.exit_code, ..row::Outputs::default() };
    let template = turn.parsed.template(&node.template);
    let kind = template.map(|template| &template.kind);
    // Argo keeps what these give whether somebody reads it or not.
    let kept = matches!(kind, Some(TemplateKind::Http(_) | TemplateKind::Data(_) | TemplateKind::Plugin(_)));
    if let Some(result) = report.result.as_ref().filter(|_| kept || result_is_read(turn, node)) {
        if result.len() > bytes_max {
            return Err(format!("outputs.result has {} bytes, the limit is {bytes_max}", result.len()));
        }
        outputs.result = Some(result.clone());
    }
    if let Some(TemplateKind::Plugin(_)) = kind {
        for parameter in &report.parameters {
            let value = Some(parameter.value.clone());
            outputs.parameters.push(row::Parameter { name: parameter.name.clone(), value, verbatim: false });
        }
        check_sizes(&outputs.parameters, bytes_max)?;
        return Ok((outputs != row::Outputs::default()).then_some(outputs));
    }
    let declared = template.map(|template| template.outputs.parameters.as_slice()).unwrap_or_default();
    for parameter in declared {
        let reported = report
            .parameters
            .iter()
            .find(|reported| reported.name == parameter.name)
            .map(|reported| reported.value.clone());
        let default = || parameter.value_from.as_ref().and_then(|from| from.default.clone());
        let value =
            reported.or_else(|| if report.phase() == AttemptPhase::Succeeded { default() } else { None });
        outputs.parameters.push(row::Parameter { name: parameter.name.clone(), value, verbatim: false });
    }
    check_sizes(&outputs.parameters, bytes_max)?;
    let empty = outputs == row::Outputs::default();
    Ok((!empty).then_some(outputs))
}

fn check_sizes(parameters: &[row::Parameter], bytes_max: usize) -> Result<(), String> {
    let large = |one: &&row::Parameter| one.value.as_ref().is_some_and(|value| value.len() > bytes_max);
    match parameters.iter().find(large) {
        Some(one) => Err(format!("outputs.parameters.{} is larger than {bytes_max} bytes", one.name)),
        None => Ok(()),
    }
}

/// Some sibling of the leaf (or of its Retry node, or of its loop) reads `outputs.result`.
pub(crate) fn result_is_read(turn: &Turn<'_>, node: &row::Node) -> bool {
    let boundary = turn.node(node.boundary);
    if node.boundary == 0 {
        return false;
    }
    let rest = node.name.strip_prefix(boundary.name.as_str()).unwrap_or_default();
    let rest = rest.split_once("].").map_or(rest, |(_, step)| step).trim_start_matches('.');
    let step = rest.split('(').next().unwrap_or(rest);
    turn.parsed.reads_result(&boundary.template, step)
}

/// The outputs of a Steps or DAG node that succeeded.
pub(crate) fn composed_outputs(turn: &mut Turn<'_>, index: u32) -> Result<Option<row::Outputs>, String> {
    let node = turn.node(index);
    let parsed = turn.parsed.clone();
    let declared = parsed
        .template(&node.template)
        .map(|template| template.outputs.parameters.as_slice())
        .unwrap_or_default();
    let artifacts = match parsed.template(&node.template) {
        Some(template) => artifacts::composed(turn, index, template)?,
        None => Vec::new(),
    };
    if declared.is_empty() && artifacts.is_empty() {
        return Ok(None);
    }
    turn.draft.spend(u32::try_from(declared.len()).unwrap_or(u32::MAX));
    let mut outputs = row::Outputs { artifacts, ..row::Outputs::default() };
    for parameter in declared {
        let value = composed(turn, index, &node, parameter)?;
        outputs.parameters.push(row::Parameter {
            name: parameter.name.clone(),
            value: Some(value),
            verbatim: false,
        });
    }
    Ok(Some(outputs))
}

fn composed(turn: &Turn<'_>, index: u32, node: &row::Node, parameter: &Parameter) -> Result<String, String> {
    let from = parameter.value_from.clone().unwrap_or_default();
    let mut scope = turn.scope(index);
    scope.on_exit = node.on_exit;
    scope.locals = inputs_of(&turn.parsed, node);
    if !from.expression.is_empty() {
        let text = Value::String(from.expression.clone()).to_string();
        let text = fill(&text, &scope, &Rules::LENIENT).map_err(|error| error.to_string())?;
        let text: String = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        return match express::value(&text, &scope) {
            Ok(Some(value)) => Ok(value),
            // As Go shows it; a default is for errors only.
            Ok(None) => Ok("<nil>".to_owned()),
            Err(message) => from.default.ok_or(message),
        };
    }
    if from.parameter.is_empty() {
        return parameter
            .value
            .clone()
            .or(from.default)
            .ok_or_else(|| format!("output parameter {:?} has no source", parameter.name));
    }
    let tag = from.parameter.trim();
    let name = tag.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).unwrap_or(tag).trim();
    match scope.get(name) {
        Some(Found::Text(value)) if !name.starts_with("inputs.") => Ok(verbatim::plain(&value).into_owned()),
        Some(Found::Text(value)) => Err(format!("Unable to resolve: {:?}", value.as_ref())),
        Some(Found::Absent) => from.default.ok_or_else(|| {
            format!("output parameter {:?}: \"{{{{{name}}}}}\" is an absent optional (skipped/omitted node output with no default)", parameter.name)
        }),
        None => from.default.ok_or_else(|| format!("{UNRESOLVED}{name:?}")),
    }
}
