//! One file per command: what it needs, what it decides, what it refuses.

pub(crate) mod add_member;
pub(crate) mod archived;
pub(crate) mod authority;
pub(crate) mod backfill_cron;
pub(crate) mod begin_drill;
pub(crate) mod change_cluster;
pub(crate) mod create_cron;
pub(crate) mod create_invite;
pub(crate) mod create_template;
pub(crate) mod delete_config_map;
pub(crate) mod delete_cron;
pub(crate) mod delete_sync_limit;
pub(crate) mod delete_template;
pub(crate) mod delete_workflow;
pub(crate) mod drain_cluster;
pub(crate) mod drill_schedule;
pub(crate) mod event_binding;
pub(crate) mod find_prerequisites;
pub(crate) mod grant_permit;
pub(crate) mod identity;
pub(crate) mod open_session;
pub(crate) mod parameters;
pub(crate) mod redeem_invite;
pub(crate) mod release_quarantine;
pub(crate) mod remove_cluster;
pub(crate) mod remove_member;
pub(crate) mod report_artifact_task;
pub(crate) mod report_attempt;
pub(crate) mod report_config_maps;
pub(crate) mod resubmit_workflow;
pub(crate) mod resume_take_overs;
pub(crate) mod resume_workflow;
pub(crate) mod resync_attempts;
pub(crate) mod retry_workflow;
pub(crate) mod revocations;
pub(crate) mod selector;
pub(crate) mod set_node;
pub(crate) mod set_sync_limit;
pub(crate) mod shutdown_workflow;
pub(crate) mod store_config_map;
pub(crate) mod submit_workflow;
pub(crate) mod suspend_cron;
pub(crate) mod suspend_workflow;
pub(crate) mod take_over;
pub(crate) mod template;
pub(crate) mod update_cluster;
pub(crate) mod update_cron;
pub(crate) mod update_template;

use argosy_model::WorkflowKey;
use argosy_proto::command::{Done, Refusal, Reply, reply};
use argosy_proto::fact::{self, fact::Body};

use crate::Code;
use crate::draft::Draft;
use crate::state::State;

/// The reply of a command that yields nothing.
pub(crate) fn done() -> Reply {
    Reply { body: Some(reply::Body::Done(Done {})) }
}

/// The registered cluster of that name.
pub(crate) fn find_cluster<'a>(
    state: &'a State,
    name: &str,
) -> Result<&'a argosy_proto::state::Cluster, Refusal> {
    state
        .cluster(name)
        .filter(|cluster| !cluster.removed)
        .ok_or_else(|| Code::ClusterMissing.refuse(format!("cluster {name:?} is not registered")))
}

/// Whoever waits for a place is looked at again, since something of that cluster changed.
pub(crate) fn look_again(draft: &mut Draft, cluster: &str) {
    let Some(row) = draft.state.cluster(cluster) else { return };
    let unchanged = fact::ClusterChanged {
        cluster: cluster.to_owned(),
        cordoned: row.cordoned,
        own_labels: row.own_labels.clone(),
        taints: row.taints.clone(),
    };
    draft.emit(Body::ClusterChanged(unchanged));
}

/// The workflow of that name, or Argo's refusal.
pub(crate) fn find_workflow(state: &State, namespace: &str, name: &str) -> Result<u64, Refusal> {
    let key = WorkflowKey { namespace: namespace.to_owned(), name: name.to_owned() };
    state
        .workflow_id(&key)
        .map(|id| id.0)
        .ok_or_else(|| Code::WorkflowMissing.refuse(format!("workflows.argoproj.io {name:?} not found")))
}

/// Notes who acted on a workflow; an empty action leaves the one before in the label.
pub(crate) fn acted(draft: &mut Draft, workflow: u64, actor: &str, action: &str) {
    let row = &draft.state.workflows[&workflow];
    if row.actor == actor && (row.action == action || action.is_empty()) {
        return;
    }
    let (actor, action) = (actor.to_owned(), action.to_owned());
    draft.emit(Body::ActionTaken(fact::ActionTaken { workflow, actor, action }));
}
