use argosy_proto::command::{DeleteTemplate, Refusal, Reply};
use argosy_proto::fact::{self, fact::Body};

use crate::Code;
use crate::commands::{done, template};
use crate::draft::Draft;

/// The template goes. Workflows that were accepted with it have their own copy.
pub(crate) fn decide(draft: &mut Draft, command: &DeleteTemplate) -> Result<Reply, Refusal> {
    let kind = template::Kind::of(command.cluster_scope);
    let key = (command.cluster_scope, command.namespace.clone(), command.name.clone());
    if !draft.state.templates.contains_key(&key) {
        return Err(Code::TemplateMissing.refuse(format!(
            "{} {:?} not found",
            kind.resource(),
            command.name
        )));
    }
    draft.emit(Body::TemplateDeleted(fact::TemplateDeleted {
        cluster_scope: command.cluster_scope,
        namespace: command.namespace.clone(),
        name: command.name.clone(),
    }));
    Ok(done())
}
