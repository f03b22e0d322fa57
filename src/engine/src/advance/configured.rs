//! Parameters out of ConfigMaps: `valueFrom.configMapKeyRef` of arguments and inputs.

use argosy_expr::Rules;
use argosy_model::WorkflowPhase;
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::{Manifest, Parameter, ValueFrom};
use serde_json::Value;

use crate::advance::Turn;
use crate::config_maps::Missing;
use crate::draft::Draft;
use crate::express::fill;
use crate::state::State;

/// Looks the workflow's own arguments up, once: they are the same all over the workflow, whatever becomes of the
/// ConfigMaps. False: one is missing, and the workflow has failed, as in Argo.
pub(crate) fn configure(draft: &mut Draft, workflow: u64, manifest: &Manifest) -> bool {
    match arguments(&draft.state, workflow, manifest) {
        Ok(parameters) if parameters.is_empty() => true,
        Ok(parameters) => {
            draft.emit(Body::ArgumentsConfigured(fact::ArgumentsConfigured { workflow, parameters }));
            true
        }
        Err(message) => {
            let message = format!("failed to set global parameters: {message}");
            let phase = WorkflowPhase::Failed.number();
            draft.emit(Body::WorkflowPhaseChanged(fact::WorkflowPhaseChanged { workflow, phase, message }));
            false
        }
    }
}

/// Looks them up again for a workflow that is tried again; what cannot be had stays as it was.
pub(crate) fn configure_again(draft: &mut Draft, workflow: u64, manifest: &Manifest) {
    if let Ok(parameters) = arguments(&draft.state, workflow, manifest)
        && !parameters.is_empty()
    {
        draft.emit(Body::ArgumentsConfigured(fact::ArgumentsConfigured { workflow, parameters }));
    }
}

fn arguments(state: &State, workflow: u64, manifest: &Manifest) -> Result<Vec<row::Parameter>, String> {
    let row = state.workflows.get(&workflow).cloned().unwrap_or_default();
    let is_filled_in = |name: &str| row.configured.iter().any(|known| known.name == name);
    let mut found = Vec::new();
    for parameter in &manifest.spec.arguments.parameters {
        let is_open = parameter.value.is_none() || is_filled_in(&parameter.name);
        let Some(source) = parameter.value_from.as_ref().filter(|_| is_open) else { continue };
        let name = parameter.name.clone();
        let Some(key) = &source.config_map_key_ref else {
            return Err(format!(
                "either value or valueFrom must be specified in order to set global parameter {name}"
            ));
        };
        let value = match state.config_map_parameter(&row.namespace, &key.name, &key.key) {
            Ok(value) => value.to_owned(),
            // Here a default helps against a ConfigMap of another type, too.
            Err(missing) => source.default.clone().ok_or_else(|| {
                format!(
                    "failed to set global parameter {name} from configmap with name {} and key {}: {}",
                    key.name,
                    key.key,
                    missing.message()
                )
            })?,
        };
        found.push(row::Parameter { name, value: Some(value), verbatim: false });
    }
    Ok(found)
}

/// Fills the values in that a workflow's arguments had when it began.
pub(crate) fn fill_in(manifest: &mut Manifest, configured: &[row::Parameter]) {
    for parameter in &mut manifest.spec.arguments.parameters {
        if let Some(known) = configured.iter().find(|known| known.name == parameter.name) {
            parameter.value.clone_from(&known.value);
        }
    }
}

/// The value of an input from a ConfigMap; `None` when neither it nor its argument asks for one.
pub(crate) fn input(
    turn: &Turn<'_>,
    declared: &Parameter,
    given: Option<&Parameter>,
) -> Result<Option<String>, String> {
    let given = given.filter(|given| given.value.is_some() || given.value_from.is_some());
    let source = match given {
        Some(given) if given.value.is_some() => None,
        Some(given) => given.value_from.as_ref(),
        None => declared.value_from.as_ref(),
    };
    let Some((source, key)) = source.and_then(|source| Some((source, source.config_map_key_ref.as_ref()?)))
    else {
        return Ok(None);
    };
    let (name, key) = (global(turn, &key.name)?, global(turn, &key.key)?);
    let namespace = &turn.row().namespace;
    match turn.draft.state.config_map_parameter(namespace, &name, &key) {
        Ok(value) => Ok(Some(value.to_owned())),
        Err(missing) => default_of(source, &missing).map(Some).ok_or_else(|| {
            let input = &declared.name;
            format!("unable to retrieve inputs.parameters.{input} from ConfigMap: {}", missing.message())
        }),
    }
}

fn default_of(source: &ValueFrom, missing: &Missing) -> Option<String> {
    match missing {
        Missing::Absent(_) => source.default.clone(),
        Missing::Unfit(_) => None,
    }
}

/// A name or key may be put together from the workflow's globals.
fn global(turn: &Turn<'_>, text: &str) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let quoted = Value::String(text.to_owned()).to_string();
    let resolved = fill(&quoted, &turn.scope(0), &Rules::STRICT).map_err(|error| error.to_string())?;
    serde_json::from_str(&resolved).map_err(|error| error.to_string())
}
