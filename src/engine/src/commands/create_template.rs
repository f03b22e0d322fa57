use argosy_proto::command::{CreateTemplate, Refusal, Reply};
use argosy_proto::fact::{self, fact::Body};

use crate::commands::template;
use crate::draft::Draft;
use crate::{Code, Leader};

/// A new WorkflowTemplate or ClusterWorkflowTemplate.
pub(crate) fn decide(draft: &mut Draft, leader: &Leader, command: &CreateTemplate) -> Result<Reply, Refusal> {
    let kind = template::Kind::of(command.cluster_scope);
    template::check_name(kind, &command.namespace, &command.name)?;
    let key = (command.cluster_scope, command.namespace.clone(), command.name.clone());
    if draft.state.templates.contains_key(&key) {
        return Err(Code::TemplateExists.refuse(format!(
            "{} {:?} already exists",
            kind.resource(),
            command.name
        )));
    }
    if draft.state.templates.len() >= template::TEMPLATES_MAX {
        return Err(Code::TooManyTemplates
            .refuse(format!("the cell has its {} templates already: delete some", template::TEMPLATES_MAX)));
    }
    template::check_manifest(leader, &command.manifest_json)?;
    draft.emit(Body::TemplateStored(fact::TemplateStored {
        cluster_scope: command.cluster_scope,
        namespace: command.namespace.clone(),
        name: command.name.clone(),
        uid: command.uid.clone(),
        manifest_json: command.manifest_json.clone(),
        creator: command.creator.clone(),
        actor: String::new(),
    }));
    Ok(template::stored(draft, &key))
}
