//! References to the templates that are stored in the cell.

use argosy_proto::command::Refusal;
use argosy_proto::state as row;
use argosy_spec::Manifest;
pub(crate) use argosy_spec::references::{Resolved, is_stored, reference_json, scope_of};
use argosy_spec::references::{Stored, plain};
use serde_json::Value;

use crate::commands::template::Kind;
use crate::state::State;
use crate::{Code, place};

/// Where templates written in the workflow itself are: nowhere, when it is made of a stored one.
pub(crate) fn local_scope(state: &State, workflow: u64, row: &row::Workflow) -> String {
    let kept = state.manifests.get(&workflow);
    let of_template = kept.is_some_and(|kept| kept.stored_json.contains("\"storedWorkflowTemplateSpec\""));
    if of_template { "local/".to_owned() } else { format!("local/{}", row.name) }
}

/// The stored templates that a workflow of a namespace may refer to.
struct Of<'a> {
    state: &'a State,
    namespace: &'a str,
}

impl Stored for Of<'_> {
    fn resource(&self, cluster_scope: bool, name: &str) -> Option<Value> {
        let namespace = if cluster_scope { "" } else { self.namespace };
        let key = (cluster_scope, namespace.to_owned(), name.to_owned());
        serde_json::from_str(&self.state.templates.get(&key)?.json).ok()
    }

    fn missing(&self, cluster_scope: bool, name: &str, template: Option<&str>) -> String {
        match template {
            Some(template) => format!("template reference {name}.{template} not found"),
            None => format!("{} {name:?} not found", Kind::of(cluster_scope).resource()),
        }
    }
}

/// Follows the references of a manifest; `None` when it has none.
pub(crate) fn resolve(state: &State, namespace: &str, manifest: &Value) -> Result<Option<Resolved>, Refusal> {
    let Some(resolved) = argosy_spec::references::resolve(&Of { state, namespace }, manifest) else {
        return Ok(None);
    };
    match resolved.problems.first() {
        Some(problem) if problem.path == "spec.workflowTemplateRef" && problem.code == "ARG0163" => {
            Err(Code::TemplateMissing.refuse(&problem.message))
        }
        Some(problem) => Err(Code::InvalidManifest.refuse(&problem.message)),
        None => Ok(Some(resolved)),
    }
}

/// Checks what a manifest with references comes to; one without was checked by [`argosy_spec`] alone.
///
/// # Errors
/// As for a submission: a template that is missing, or what is wrong with the whole.
pub fn check_references(state: &State, namespace: &str, manifest: &Value) -> Result<(), Refusal> {
    let Some(resolved) = resolve(state, namespace, manifest)? else { return Ok(()) };
    let invalid = |message: String| Code::InvalidManifest.refuse(plain(&message));
    let manifest = Manifest::from_value(resolved.manifest).map_err(|problems| {
        invalid(problems.iter().map(argosy_spec::Diagnostic::line).collect::<Vec<_>>().join("\n"))
    })?;
    place::validate(&manifest).map_err(invalid)
}
