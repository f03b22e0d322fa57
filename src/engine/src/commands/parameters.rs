//! Parameters that an operator gives when a workflow runs again: `NAME=VALUE`.

use argosy_proto::command::Refusal;
use argosy_spec::Manifest;
use serde_json::{Value, json};

use crate::commands::submit_workflow::summary_json;
use crate::{Code, place};

/// Parameters given at once.
const PARAMETERS_MAX: usize = 1_000;

/// A manifest with these values for its arguments; unknown ones are added, as in Argo.
pub(crate) fn with_parameters(manifest_json: &str, given: &[String]) -> Result<String, Refusal> {
    if given.is_empty() {
        return Ok(manifest_json.to_owned());
    }
    if given.len() > PARAMETERS_MAX {
        return Err(Code::InvalidArgument.refuse(format!("at most {PARAMETERS_MAX} parameters can be given")));
    }
    let mut manifest: Value = serde_json::from_str(manifest_json).map_err(|_| {
        Code::NotRetryable.refuse("the stored manifest cannot be read: submit the workflow again")
    })?;
    let mut parameters =
        manifest.pointer("/spec/arguments/parameters").and_then(Value::as_array).cloned().unwrap_or_default();
    for pair in given {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Code::InvalidArgument
                .refuse(format!("expected parameter of the form: NAME=VALUE. Received: {pair}"))
        })?;
        match parameters.iter_mut().find(|parameter| parameter["name"] == name) {
            Some(parameter) => parameter["value"] = json!(value),
            None => parameters.push(json!({"name": name, "value": value})),
        }
    }
    if !manifest["spec"]["arguments"].is_object() {
        manifest["spec"]["arguments"] = json!({});
    }
    manifest["spec"]["arguments"]["parameters"] = Value::Array(parameters);
    Ok(manifest.to_string())
}

/// What a workflow's row holds of its manifest: summary and fields of Pods.
pub(crate) fn derived(manifest_json: &str) -> Result<(String, String), Refusal> {
    let unreadable = || Code::InvalidManifest.refuse("the manifest cannot be read with these parameters");
    let value = serde_json::from_str(manifest_json).map_err(|_| unreadable())?;
    let manifest = Manifest::from_value(value).map_err(|_| unreadable())?;
    Ok((summary_json(&manifest), place::pod_json(&manifest)))
}
