//! Commands about archived workflows.

use argosy_model::WorkflowKey;
use argosy_proto::command::{DeleteArchived, Refusal, Reply, ResubmitArchived, RetryArchived, RetryWorkflow};
use argosy_proto::fact::{self, fact::Body};

use crate::archive::{self, archived_state};
use crate::commands::{done, resubmit_workflow, retry_workflow};
use crate::draft::Draft;
use crate::{Code, Leader};

fn find(draft: &Draft, uid: &str) -> Result<u64, Refusal> {
    draft.state.archived_id(uid).ok_or_else(|| Code::ArchiveMissing.refuse("not found"))
}

/// The archive forgets it.
pub(crate) fn delete(draft: &mut Draft, command: &DeleteArchived) -> Result<Reply, Refusal> {
    let workflow = find(draft, &command.uid)?;
    draft.emit(Body::ArchiveDropped(fact::ArchiveDropped { workflow }));
    Ok(done())
}

/// It is live again, and is retried.
pub(crate) fn retry(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &RetryArchived,
) -> Result<Reply, Refusal> {
    let workflow = find(draft, &command.uid)?;
    let row = draft.state.archived(workflow).cloned().unwrap_or_default();
    let key = WorkflowKey { namespace: row.namespace.clone(), name: row.name.clone() };
    if draft.state.workflow_id(&key).is_some() {
        return Err(
            Code::WorkflowExists.refuse(format!("workflows.argoproj.io {:?} already exists", row.name))
        );
    }
    if row.archiving {
        return Err(archive::on_its_way());
    }
    archive::restore(draft, leader, workflow)?;
    let asked = command.retry.clone().unwrap_or_default();
    let retry = RetryWorkflow { namespace: row.namespace, name: row.name, ..asked };
    retry_workflow::decide(draft, leader, &retry)
}

/// A new workflow of the archived one's manifest.
pub(crate) fn resubmit(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &ResubmitArchived,
) -> Result<Reply, Refusal> {
    let workflow = find(draft, &command.uid)?;
    let row = draft.state.archived(workflow).cloned().unwrap_or_default();
    if row.archiving {
        return Err(archive::on_its_way());
    }
    let records = leader.take_archived(workflow)?;
    let old = archived_state(records.iter().map(Vec::as_slice))
        .map_err(|error| Code::ArchiveUnreadable.refuse(error.to_string()))?;
    let mut resubmit = command.resubmit.clone().unwrap_or_default();
    (resubmit.namespace, resubmit.name) = (row.namespace, row.name);
    resubmit_workflow::of(draft, leader, &old, workflow, &resubmit)
}
