use argosy_proto::command::{CreateCron, Refusal, Reply, TemplateStored, reply};
use argosy_proto::fact::{self, fact::Body};

use crate::commands::template;
use crate::draft::Draft;
use crate::{Code, Leader, cron};

/// As Kubernetes names the resource in messages.
pub(crate) const RESOURCE: &str = "cronworkflows.argoproj.io";

/// A new CronWorkflow. One that is not valid is kept and starts nothing, as in Argo: the API has checked it before.
pub(crate) fn decide(draft: &mut Draft, leader: &Leader, command: &CreateCron) -> Result<Reply, Refusal> {
    template::check_name(template::Kind::Namespaced, &command.namespace, &command.name)?;
    if cron::find(&draft.state, &command.namespace, &command.name).is_some() {
        return Err(Code::CronExists.refuse(format!("{RESOURCE} {:?} already exists", command.name)));
    }
    if draft.state.index.crons.len() >= leader.limits.crons_max {
        return Err(Code::TooManyCrons.refuse(format!(
            "the cell has its {} cron workflows already: delete some",
            leader.limits.crons_max
        )));
    }
    template::check_manifest(leader, &command.manifest_json)?;
    let cron = draft.state.meta.workflow_next;
    draft.emit(Body::CronStored(fact::CronStored {
        cron,
        namespace: command.namespace.clone(),
        name: command.name.clone(),
        uid: command.uid.clone(),
        manifest_json: command.manifest_json.clone(),
        creator: command.creator.clone(),
        actor: String::new(),
        rescheduled: true,
    }));
    cron::wake(draft, cron);
    Ok(stored(draft, cron))
}

/// The reply of a command that changed a CronWorkflow.
pub(crate) fn stored(draft: &Draft, cron: u64) -> Reply {
    let row = draft.state.crons.get(&cron);
    let (uid, resource_version) =
        row.map(|row| (row.uid.clone(), row.changed_sequence.to_string())).unwrap_or_default();
    Reply { body: Some(reply::Body::TemplateStored(TemplateStored { uid, resource_version })) }
}

/// The CronWorkflow of that name, or Argo's refusal.
pub(crate) fn find(draft: &Draft, namespace: &str, name: &str) -> Result<u64, Refusal> {
    cron::find(&draft.state, namespace, name)
        .ok_or_else(|| Code::CronMissing.refuse(format!("{RESOURCE} {name:?} not found")))
}
