use argosy_model::{Fence, NodePhase};
use argosy_proto::command::{Refusal, Reply, TakeOver, TakeOverScope};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::{Attempt, Failover};

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
    if command.scope() == TakeOverScope::Unspecified {
        return Err(Code::InvalidArgument.refuse("the scope must be SAFE or ALL"));
    }
    if !cluster.lost {
        draft.emit(Body::ClusterLost(fact::ClusterLost { cluster: name.clone() }));
    }
    moved(draft, name, command.scope, None);
    proceed(draft, leader, name);
    Ok(done())
}

/// Goes on with take-overs that did not fit in one batch.
pub(crate) fn go_on(draft: &mut Draft, leader: &mut Leader) {
    while !draft.is_full(&leader.limits) {
        let Some(cluster) = draft.state.index.take_overs.iter().next().cloned() else { return };
        proceed(draft, leader, &cluster);
    }
}

fn moved(draft: &mut Draft, cluster: &str, scope: i32, after: Option<Fence>) {
    draft.emit(Body::TakeOverMoved(fact::TakeOverMoved { cluster: cluster.to_owned(), scope, after }));
}

/// Looks at the cluster's attempts until all have been looked at or the batch is full.
fn proceed(draft: &mut Draft, leader: &mut Leader, name: &str) {
    /// Attempts looked at before the batch's fullness is.
    const ATTEMPTS_MAX: usize = 256;
    let Some(row) = draft.state.cluster(name) else { return };
    let (scope, mut after) = (row.take_over_scope, row.take_over_after);
    let all = scope == i32::from(TakeOverScope::All);
    loop {
        let from = after.unwrap_or_default();
        let seen = |fence: &Fence| after.is_some_and(|after| *fence <= after);
        let next: Vec<_> = draft
            .state
            .open_attempts_from(name, from)
            .filter(|(fence, _)| !seen(fence))
            .take(ATTEMPTS_MAX)
            .map(|(fence, attempt)| (fence, attempt.clone()))
            .collect();
        let Some((last, _)) = next.last() else {
            moved(draft, name, 0, None);
            return;
        };
        after = Some(*last);
        for (fence, attempt) in next.iter().filter(|(_, attempt)| !attempt.fenced) {
            draft.spend(1);
            consider(draft, leader, name, *fence, attempt, all);
        }
        if draft.is_full(&leader.limits) {
            moved(draft, name, scope, after);
            return;
        }
    }
}

fn consider(
    draft: &mut Draft,
    leader: &mut Leader,
    cluster: &str,
    fence: Fence,
    attempt: &Attempt,
    all: bool,
) {
    let Some(work) = draft.state.works.get(&(attempt.workflow, attempt.node)) else { return };
    let (safe, word) = (work.idempotent, work.failover());
    // Before the start permit nothing has run: no rule and no word of the user stands against moving it.
    if attempt.permitted && (!all && !safe && word != Failover::Reschedule || word == Failover::Wait) {
        return;
    }
    let fails = attempt.permitted && word == Failover::Fail;
    take(draft, leader, cluster, fence, (attempt.workflow, attempt.node), attempt.stopping, fails);
}

fn take(
    draft: &mut Draft,
    leader: &mut Leader,
    cluster: &str,
    fence: Fence,
    (workflow, node): (u64, u32),
    stopping: bool,
    fails: bool,
) {
    let Some(work) = draft.state.works.get(&(workflow, node)).cloned() else { return };
    let mut moved = work.as_ref().clone();
    if !moved.excluded.iter().any(|excluded| excluded == cluster) {
        moved.excluded.push(cluster.to_owned());
    }
    // A colocation group whose cluster is lost has lost its volumes with it: it can't go on elsewhere.
    let pinned = place::is_pinned_to(&draft.state, workflow, &work, cluster);
    let shape = place::shape(&draft.state, workflow, &moved);
    let reason = format!("cluster {cluster} is lost: taken over");
    advance::containers::reset(draft, workflow, node);
    draft.emit(Body::AttemptFenced(fact::AttemptFenced { fence: Some(fence), reason, shape }));
    let message = if stopping {
        Some(format!("stopped while cluster {cluster} was lost"))
    } else if fails {
        Some(format!("cluster {cluster} was lost while the step ran, and its failover is `fail`"))
    } else if pinned {
        Some(format!(
            "cluster {cluster} was lost with the volumes or daemons of this step's colocation group: submit the workflow again"
        ))
    } else if work.takeovers >= leader.limits.takeover_limit {
        Some(format!(
            "taken over {} times from lost clusters: the step may be what breaks them",
            work.takeovers
        ))
    } else {
        None
    };
    if let Some(message) = message {
        let phase = if stopping { NodePhase::Failed } else { NodePhase::Error };
        advance::finish_node(draft, leader, workflow, node, phase, message, None, 0);
    }
}
