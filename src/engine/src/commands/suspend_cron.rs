use argosy_proto::command::{Refusal, Reply, SuspendCron};
use argosy_proto::fact::{self, fact::Body};
use serde_json::{Value, json};

use crate::commands::create_cron;
use crate::draft::Draft;
use crate::{Code, cron};

/// `spec.suspend` of a CronWorkflow, and nothing else.
pub(crate) fn decide(draft: &mut Draft, command: &SuspendCron) -> Result<Reply, Refusal> {
    let id = create_cron::find(draft, &command.namespace, &command.name)?;
    let known = draft.state.crons.get(&id).cloned().unwrap_or_default();
    let unreadable =
        || Code::InvalidManifest.refuse("the stored cron workflow cannot be read: make it again");
    let mut object: Value = serde_json::from_str(&known.json).map_err(|_| unreadable())?;
    let spec = object.get_mut("spec").and_then(Value::as_object_mut).ok_or_else(unreadable)?;
    let before = spec.get("suspend").cloned();
    if command.suspend {
        spec.insert("suspend".to_owned(), json!(true));
    } else {
        spec.shift_remove("suspend");
    }
    if before != spec.get("suspend").cloned() {
        draft.emit(Body::CronStored(fact::CronStored {
            cron: id,
            namespace: known.namespace.clone(),
            name: known.name.clone(),
            uid: known.uid.clone(),
            manifest_json: object.to_string(),
            creator: String::new(),
            actor: String::new(),
            rescheduled: false,
        }));
        cron::wake(draft, id);
    }
    Ok(create_cron::stored(draft, id))
}
