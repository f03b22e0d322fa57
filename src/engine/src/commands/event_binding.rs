//! WorkflowEventBindings: kept and shown. What they say to events comes with the events themselves.

use argosy_proto::command::{DeleteEventBinding, Refusal, Reply, StoreEventBinding, TemplateStored, reply};
use argosy_proto::fact::{self, fact::Body};

use crate::commands::{done, template};
use crate::draft::Draft;
use crate::{Code, Leader};

const RESOURCE: &str = "workfloweventbindings.argoproj.io";

/// A new binding.
pub(crate) fn store(
    draft: &mut Draft,
    leader: &Leader,
    command: &StoreEventBinding,
) -> Result<Reply, Refusal> {
    template::check_name(template::Kind::Namespaced, &command.namespace, &command.name)?;
    let key = (command.namespace.clone(), command.name.clone());
    if draft.state.event_bindings.contains_key(&key) {
        return Err(Code::CronExists.refuse(format!("{RESOURCE} {:?} already exists", command.name)));
    }
    if draft.state.event_bindings.len() >= leader.limits.crons_max {
        return Err(Code::TooManyCrons.refuse(format!(
            "the cell has its {} event bindings already: delete some",
            leader.limits.crons_max
        )));
    }
    template::check_manifest(leader, &command.manifest_json)?;
    draft.emit(Body::EventBindingStored(fact::EventBindingStored {
        namespace: command.namespace.clone(),
        name: command.name.clone(),
        uid: command.uid.clone(),
        manifest_json: command.manifest_json.clone(),
        creator: command.creator.clone(),
    }));
    let resource_version =
        draft.state.event_bindings.get(&key).map(|row| row.changed_sequence.to_string()).unwrap_or_default();
    let stored = TemplateStored { uid: command.uid.clone(), resource_version };
    Ok(Reply { body: Some(reply::Body::TemplateStored(stored)) })
}

/// The binding goes.
pub(crate) fn delete(draft: &mut Draft, command: &DeleteEventBinding) -> Result<Reply, Refusal> {
    let key = (command.namespace.clone(), command.name.clone());
    if !draft.state.event_bindings.contains_key(&key) {
        return Err(Code::CronMissing.refuse(format!("{RESOURCE} {:?} not found", command.name)));
    }
    draft.emit(Body::EventBindingDeleted(fact::EventBindingDeleted { namespace: key.0, name: key.1 }));
    Ok(done())
}
