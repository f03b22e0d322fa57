use argosy_model::{Fence, NodePhase};
use argosy_proto::command::{Refusal, Reply, TakeOver, TakeOverScope};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::Failover;

use crate::commands::done;
use crate::draft::Draft;
use crate::{Code, Leader, advance, place};

/// A cluster has been silent: attempts that may run elsewhere are fenced and wait for placement again.
///
/// SAFE takes those without a start permit, with a retryStrategy, or marked idempotent; ALL takes every one. The user's
/// `argosy.dev/failover` wins for those with a permit: `reschedule` moves at SAFE, `wait` never, `fail` ends the step.
/// Void when the cluster has opened a newer session.
pub(crate) fn decide(draft: &mut Draft, leader: &mut Leader, command: &TakeOver) -> Result<Reply, Refusal> {
    let name = &command.cluster;
    let cluster = draft
        .state
        .cluster(name)
        .ok_or_else(|| Code::ClusterMissing.refuse(format!("cluster {name:?} is not registered")))?;
    if cluster.session_epoch != command.session_epoch {
        return Ok(done());
    }
    let all = match command.scope() {
        TakeOverScope::Safe => false,
        TakeOverScope::All => true,
        TakeOverScope::Unspecified => return Err(Code::InvalidArgument.refuse("the scope must be SAFE or ALL")),
    };
    if !cluster.lost {
        draft.emit(Body::ClusterLost(fact::ClusterLost { cluster: name.clone() }));
    }
    let held: Vec<_> = draft
        .state
        .open_attempts(name)
        .filter(|(_, attempt)| !attempt.fenced)
        .map(|(fence, attempt)| (fence, attempt.workflow, attempt.node, attempt.permitted, attempt.stopping))
        .collect();
    for (fence, workflow, node, permitted, stopping) in held {
        draft.spend(1);
        let Some(work) = draft.state.works.get(&(workflow, node)) else { continue };
        let (safe, word) = (work.idempotent, work.failover());
        // Before the start permit nothing has run: no rule and no word of the user stands against moving it.
        if permitted && (!all && !safe && word != Failover::Reschedule || word == Failover::Wait) {
            continue;
        }
        take(draft, leader, name, fence, (workflow, node), stopping, permitted && word == Failover::Fail);
    }
    Ok(done())
}

fn take(draft: &mut Draft, leader: &mut Leader, cluster: &str, fence: Fence, (workflow, node): (u64, u32), stopping: bool, fails: bool) {
    let Some(work) = draft.state.works.get(&(workflow, node)).cloned() else { return };
    let mut moved = work.as_ref().clone();
    if !moved.excluded.iter().any(|excluded| excluded == cluster) {
        moved.excluded.push(cluster.to_owned());
    }
    // A colocation group whose cluster is lost has lost its volumes with it: it can't go on elsewhere.
    let pinned = place::is_pinned_to(&draft.state, workflow, &work, cluster);
    let shape = place::shape(&draft.state, workflow, &moved);
    let reason = format!("cluster {cluster} is lost: taken over");
    draft.emit(Body::AttemptFenced(fact::AttemptFenced { fence: Some(fence), reason, shape }));
    let message = if stopping {
        Some(format!("stopped while cluster {cluster} was lost"))
    } else if fails {
        Some(format!("cluster {cluster} was lost while the step ran, and its failover is `fail`"))
    } else if pinned {
        Some(format!("cluster {cluster} was lost with the volumes of this step's colocation group: submit the workflow again"))
    } else if work.takeovers >= leader.limits.takeover_limit {
        Some(format!("taken over {} times from lost clusters: the step may be what breaks them", work.takeovers))
    } else {
        None
    };
    if let Some(message) = message {
        let phase = if stopping { NodePhase::Failed } else { NodePhase::Error };
        advance::finish_node(draft, leader, workflow, node, phase, message, None, 0);
    }
}
