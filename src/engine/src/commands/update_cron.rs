use argosy_proto::command::{Refusal, Reply, UpdateCron};
use argosy_proto::fact::{self, fact::Body};

use crate::commands::create_cron::{self, RESOURCE};
use crate::commands::template;
use crate::draft::Draft;
use crate::{Code, Leader, cron};

/// Another version of a CronWorkflow. Its schedules count from now if they changed; what was missed before is not made
/// up for, as in Argo.
pub(crate) fn decide(draft: &mut Draft, leader: &Leader, command: &UpdateCron) -> Result<Reply, Refusal> {
    let name = &command.name;
    let id = create_cron::find(draft, &command.namespace, name)?;
    let known = draft.state.crons.get(&id).cloned().unwrap_or_default();
    if command.resource_version.is_empty() {
        return Err(Code::InvalidArgument.refuse(format!(
            "{RESOURCE} {name:?} is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        )));
    }
    if command.resource_version != known.changed_sequence.to_string() {
        return Err(Code::CronChanged.refuse(format!(
            "Operation cannot be fulfilled on {RESOURCE} {name:?}: the object has been modified; please apply your changes to the latest version and try again"
        )));
    }
    template::check_manifest(leader, &command.manifest_json)?;
    let schedules = |json: &str| cron::Parsed::new(json).map(|parsed| parsed.cron.schedule_text());
    draft.emit(Body::CronStored(fact::CronStored {
        cron: id,
        namespace: known.namespace.clone(),
        name: known.name.clone(),
        uid: known.uid.clone(),
        manifest_json: command.manifest_json.clone(),
        creator: String::new(),
        actor: command.actor.clone(),
        rescheduled: schedules(&known.json) != schedules(&command.manifest_json),
    }));
    cron::wake(draft, id);
    Ok(create_cron::stored(draft, id))
}
