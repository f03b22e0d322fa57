use argosy_proto::command::{DeleteCron, Refusal, Reply};
use argosy_proto::fact::{self, fact::Body};

use crate::commands::{create_cron, done};
use crate::cron;
use crate::draft::Draft;

/// The CronWorkflow goes, and bit by bit the workflows that belong to it: Kubernetes does so with what an object owns.
pub(crate) fn decide(draft: &mut Draft, command: &DeleteCron) -> Result<Reply, Refusal> {
    let cron = create_cron::find(draft, &command.namespace, &command.name)?;
    draft.emit(Body::CronDeleted(fact::CronDeleted { cron }));
    cron::wake(draft, cron);
    Ok(done())
}
