//! What becomes of attempts whose cluster is lost to us: how long they wait, and how they are taken over.

use argosy_model::planted::{Bug, is_planted};
use argosy_model::{Fence, Limits, NodePhase};
use argosy_proto::common::AttemptPhase;
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_proto::state::{Failover, LossReason, TimerKind};

use crate::draft::Draft;
use crate::state::ROW_VERSION;
use crate::{Leader, advance, lost_group, place, reproduce};

/// Clocks of hosts and members may differ in rate by so many thousandths: what an exclusive step is waited for beyond
/// its lease, in proportion to it.
const DRIFT_PER_MILLE: i64 = 20;

/// Why an attempt is taken over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss<'a> {
    /// Its cluster has been silent.
    Silent { cluster: &'a str },
    /// Its cluster is back, without the ledger that would know of it.
    Ledger { cluster: &'a str },
    /// Its start permit was committed and never reached its cluster's agent: nothing of it ran.
    PermitUndelivered { cluster: &'a str },
    /// An operator gave its cluster up.
    Removed { cluster: &'a str },
    /// Its agent gave it back, since it is to leave its cluster.
    Recalled { cluster: &'a str, reason: &'a str },
}

impl Loss<'_> {
    fn cluster(&self) -> &str {
        match self {
            Self::Silent { cluster }
            | Self::Ledger { cluster }
            | Self::PermitUndelivered { cluster }
            | Self::Removed { cluster }
            | Self::Recalled { cluster, .. } => cluster,
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Silent { cluster } => format!("cluster {cluster} is lost: taken over"),
            Self::Ledger { cluster } => {
                format!("cluster {cluster} came back without its agent's ledger: taken over")
            }
            Self::PermitUndelivered { cluster } => {
                format!("the start permit did not reach cluster {cluster}: taken over")
            }
            Self::Removed { cluster } => format!("cluster {cluster} was removed: taken over"),
            Self::Recalled { reason, .. } => (*reason).to_owned(),
        }
    }
}

/// How long an exclusive step is waited for: its lease, and what clocks may differ.
pub(crate) fn exclusive_wait_ms(lease_ms: i64) -> i64 {
    lease_ms.saturating_add(lease_ms / 1000 * DRIFT_PER_MILLE)
}

/// How long beyond lease and margin an attempt is left to its cluster; `None`: for ever.
///
/// Without a start permit nothing has run: no rule and no word of the user stands against moving it. An exclusive step
/// stops by itself when its own lease ends, so it waits for that, whatever else is said of it.
pub(crate) fn wait_ms(work: &row::Work, may_have_run: bool, limits: &Limits) -> Option<i64> {
    let word = work.failover();
    if !may_have_run {
        return Some(0);
    }
    if word == Failover::Wait {
        return None;
    }
    if work.exclusive_lease_ms > 0 && !is_planted(Bug::ExclusiveNotAwaited) {
        return Some(exclusive_wait_ms(work.exclusive_lease_ms));
    }
    let safe = work.idempotent || word == Failover::Reschedule;
    Some(if safe { 0 } else { limits.takeover_after_unsafe_ms })
}

/// The cluster of an attempt is back with another ledger and does not hold it. Whether it ran, and whether it still
/// does, nobody knows: it is taken over after the wait of one that was running.
pub(crate) fn left_behind(draft: &mut Draft, leader: &mut Leader, cluster: &str, fence: Fence) {
    let Some(attempt) = draft.state.attempt(&fence).filter(|attempt| !attempt.left).cloned() else { return };
    if attempt.quarantined {
        return close_unseen(draft, fence);
    }
    let key = (attempt.workflow, attempt.node);
    let Some(work) = draft.state.works.get(&key).cloned() else { return };
    // The permits of exclusive steps are in the log: of those alone state knows that they did not start.
    let may_have_run = work.exclusive_lease_ms == 0 || attempt.permitted;
    let wait_ms = match wait_ms(&work, may_have_run, &leader.limits) {
        // Nothing to wait for: the cluster is back, the step is not.
        None => 0,
        Some(0) => 0,
        Some(wait_ms) => wait_ms.saturating_add(leader.limits.lease_and_margin_ms),
    };
    if wait_ms == 0 {
        return take(draft, leader, fence, Loss::Ledger { cluster });
    }
    wait_for(draft, fence, key, wait_ms);
}

/// The attempt is not sent again, and taken over after a wait unless it is heard of.
fn wait_for(draft: &mut Draft, fence: Fence, (workflow, node): (u64, u32), wait_ms: i64) {
    draft.emit(Body::AttemptLeft(fact::AttemptLeft { fence: Some(fence) }));
    let due_ms = draft.now().plus_ms(wait_ms).0;
    let kind = TimerKind::Left.into();
    let timer = row::Timer { version: ROW_VERSION, due_ms, workflow, node, kind };
    draft.emit(Body::TimerSet(fact::TimerSet { timer: Some(timer) }));
}

/// The cluster of an attempt was removed: nobody will report on it any more. Its agent may not have heard of it: it gives
/// start permits until its lease ends, unless a take-over has waited for that already; and an exclusive step may be
/// running until its own lease ends.
pub(crate) fn forget(draft: &mut Draft, leader: &mut Leader, cluster: &str, fence: Fence, was_lost: bool) {
    let Some(attempt) = draft.state.attempt(&fence).cloned() else { return };
    if attempt.left {
        return;
    }
    if attempt.fenced {
        return close(draft, fence);
    }
    if attempt.quarantined {
        return close_unseen(draft, fence);
    }
    let runs_alone = attempt.exclusive_lease_ms > 0 && attempt.permitted;
    let run_ms = if runs_alone { exclusive_wait_ms(attempt.exclusive_lease_ms) } else { 0 };
    let lease_ms = if was_lost && !runs_alone { 0 } else { leader.limits.lease_and_margin_ms };
    let wait_ms = if is_planted(Bug::ForgottenAtOnce) { 0 } else { lease_ms.saturating_add(run_ms) };
    match wait_ms {
        0 => {
            take(draft, leader, fence, Loss::Removed { cluster });
            close(draft, fence);
        }
        wait_ms => wait_for(draft, fence, (attempt.workflow, attempt.node), wait_ms),
    }
}

/// Nothing of a fenced attempt is waited for any more.
fn close(draft: &mut Draft, fence: Fence) {
    if draft.state.attempt(&fence).is_some_and(|attempt| attempt.fenced && !attempt.closed) {
        close_unseen(draft, fence);
    }
}

/// Nobody will report on the attempt any more. One in quarantine has no step that waits for it, and may run on for a while.
fn close_unseen(draft: &mut Draft, fence: Fence) {
    let phase = AttemptPhase::Stopped.into();
    let closed = fact::AttemptClosed { fence: Some(fence), revision: 0, phase, host: String::new() };
    draft.emit(Body::AttemptClosed(closed));
}

/// The timer of [`left_behind`]: if the attempt has not been heard of since, it is taken over.
pub(crate) fn left_is_due(draft: &mut Draft, leader: &mut Leader, workflow: u64, node: u32) {
    let Some(fence) = draft.state.works.get(&(workflow, node)).and_then(|work| work.fence) else { return };
    let Some(attempt) = draft.state.attempt(&fence) else { return };
    if attempt.left && !attempt.closed {
        let cluster = attempt.cluster.clone();
        let removed = draft.state.cluster(&cluster).is_some_and(|row| row.removed);
        if removed {
            take(draft, leader, fence, Loss::Removed { cluster: &cluster });
            close(draft, fence);
        } else {
            take(draft, leader, fence, Loss::Ledger { cluster: &cluster });
        }
    }
}

/// An agent gave back an attempt that was to leave its cluster: it waits for placement again.
pub(crate) fn given_back(draft: &mut Draft, leader: &mut Leader, fence: Fence, attempt: &row::Attempt) {
    take(draft, leader, fence, Loss::Recalled { cluster: &attempt.cluster, reason: &attempt.stop_reason });
}

/// The owner of a cluster does not let an attempt run there, and nothing was made of it: its node waits for a place
/// elsewhere, if there is any that could take it; whether it does.
pub(crate) fn refused(
    draft: &mut Draft,
    leader: &mut Leader,
    fence: Fence,
    attempt: &row::Attempt,
    reason: &str,
) -> bool {
    let (workflow, node) = (attempt.workflow, attempt.node);
    let Some(work) = draft.state.works.get(&(workflow, node)) else { return false };
    let mut moved = work.as_ref().clone();
    if !moved.refused.contains(&attempt.cluster) {
        moved.refused.push(attempt.cluster.clone());
    }
    if !place::could_go_on(&draft.state, workflow, &moved, &leader.limits) {
        return false;
    }
    let shape = place::shape(&draft.state, workflow, node, &moved);
    advance::containers::reset(draft, workflow, node);
    let reason = reason.to_owned();
    draft.emit(Body::AttemptMoved(fact::AttemptMoved { fence: Some(fence), reason, shape, refused: true }));
    true
}

/// Fences an attempt: its node waits for placement again, or ends where it can't go on.
pub(crate) fn take(draft: &mut Draft, leader: &mut Leader, fence: Fence, loss: Loss<'_>) {
    let Some(attempt) = draft.state.attempt(&fence).cloned() else { return };
    let (workflow, node) = (attempt.workflow, attempt.node);
    let Some(work) = draft.state.works.get(&(workflow, node)).cloned() else { return };
    let cluster = loss.cluster();
    let mut moved = work.as_ref().clone();
    if !moved.excluded.iter().any(|excluded| excluded == cluster) {
        moved.excluded.push(cluster.to_owned());
    }
    let pinned = place::is_pinned_to(&draft.state, workflow, &work, cluster);
    let group_is_lost =
        pinned && lost_group::others_were_there(&draft.state, leader, workflow, node, work.group);
    let shape = place::shape(&draft.state, workflow, node, &moved);
    advance::containers::reset(draft, workflow, node);
    let mut reason = loss.reason();
    if let Loss::Recalled { .. } = loss {
        draft.emit(Body::AttemptMoved(fact::AttemptMoved {
            fence: Some(fence),
            reason,
            shape,
            refused: false,
        }));
        return;
    }
    if pinned && !group_is_lost {
        reason.push_str("; its colocation group begins again in another cluster, with volumes of its own");
    }
    // Others of a colocation group may have begun again elsewhere: one of them does not come back alone.
    let may_return = matches!(loss, Loss::Silent { .. }) && !attempt.stopping && work.group == 0;
    let on_reconnect = if may_return { work.on_reconnect } else { 0 };
    draft.emit(Body::AttemptFenced(fact::AttemptFenced { fence: Some(fence), reason, shape, on_reconnect }));
    let ran = match loss {
        Loss::Silent { .. } | Loss::Removed { .. } => attempt.permitted,
        Loss::Ledger { .. } => attempt.permitted || work.exclusive_lease_ms == 0,
        Loss::PermitUndelivered { .. } | Loss::Recalled { .. } => false,
    };
    let reproduces = reproduce::is_reproduction(&draft.state, workflow, node);
    if attempt.stopping {
        let message = format!("stopped while cluster {cluster} was lost");
        if reproduces {
            reproduce::failed(draft, leader, workflow, node, message);
        } else {
            advance::finish_node(draft, leader, workflow, node, NodePhase::Failed, message, None, 0);
        }
        return;
    }
    let ends = why_it_ends(&work, cluster, ran, group_is_lost, &leader.limits);
    match ends {
        Some((message, _)) if reproduces => reproduce::failed(draft, leader, workflow, node, message),
        Some((message, loss)) => advance::finish_lost(draft, leader, workflow, node, message, loss),
        None => {}
    }
}

/// What a step says that was lost with its cluster and does not go on elsewhere, and the reason that it is counted by.
fn why_it_ends(
    work: &row::Work,
    cluster: &str,
    ran: bool,
    group_is_lost: bool,
    limits: &Limits,
) -> Option<(String, LossReason)> {
    if ran && work.failover() == Failover::Fail {
        let message = format!("cluster {cluster} was lost while the step ran, and its failover is `fail`");
        Some((message, LossReason::FailoverFail))
    } else if ran && work.failover() == Failover::Wait {
        // Only a cluster that is back, or gone for good, has its waiting steps looked at.
        let message = format!("the step was lost with cluster {cluster}, and its failover is `wait`");
        Some((message, LossReason::FailoverWait))
    } else if group_is_lost {
        Some((lost_group::message(cluster), LossReason::Volume))
    } else if work.takeovers >= limits.takeover_limit {
        let message = format!(
            "taken over {} times from lost clusters: the step may be what breaks them",
            work.takeovers
        );
        Some((message, LossReason::TakeoverLimit))
    } else {
        None
    }
}
