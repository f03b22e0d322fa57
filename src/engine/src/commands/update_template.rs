use argosy_proto::command::{Refusal, Reply, UpdateTemplate};
use argosy_proto::fact::{self, fact::Body};

use crate::commands::template;
use crate::draft::Draft;
use crate::{Code, Leader};

/// Another version of a template, for workflows accepted from now on.
pub(crate) fn decide(draft: &mut Draft, leader: &Leader, command: &UpdateTemplate) -> Result<Reply, Refusal> {
    let kind = template::Kind::of(command.cluster_scope);
    let (resource, name) = (kind.resource(), &command.name);
    let key = (command.cluster_scope, command.namespace.clone(), name.clone());
    let Some(known) = draft.state.templates.get(&key).cloned() else {
        return Err(Code::TemplateMissing.refuse(format!("{resource} {name:?} not found")));
    };
    if command.resource_version.is_empty() {
        return Err(Code::InvalidArgument.refuse(format!(
            "{resource} {name:?} is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        )));
    }
    if command.resource_version != known.changed_sequence.to_string() {
        return Err(Code::TemplateChanged.refuse(format!(
            "Operation cannot be fulfilled on {resource} {name:?}: the object has been modified; please apply your changes to the latest version and try again"
        )));
    }
    template::check_manifest(leader, &command.manifest_json)?;
    draft.emit(Body::TemplateStored(fact::TemplateStored {
        cluster_scope: command.cluster_scope,
        namespace: command.namespace.clone(),
        name: name.clone(),
        uid: known.uid.clone(),
        manifest_json: command.manifest_json.clone(),
        creator: String::new(),
        actor: command.actor.clone(),
    }));
    Ok(template::stored(draft, &key))
}
