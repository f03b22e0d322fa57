//! What becomes of attempts whose cluster is lost to us: how long they wait, and how they are taken over.

use argosy_model::{Fence, Limits, NodePhase};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_proto::state::{Failover, TimerKind};

use crate::draft::Draft;
use crate::state::ROW_VERSION;
use crate::{Leader, advance, place};

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
}

impl Loss<'_> {
    fn cluster(&self) -> &str {
        match self {
            Self::Silent { cluster } | Self::Ledger { cluster } | Self::PermitUndelivered { cluster } => {
                cluster
            }
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
    if work.exclusive_lease_ms > 0 {
        return Some(exclusive_wait_ms(work.exclusive_lease_ms));
    }
    let safe = work.idempotent || word == Failover::Reschedule;
    Some(if safe { 0 } else { limits.takeover_after_unsafe_ms })
}

/// The cluster of an attempt is back with another ledger and does not hold it. Whether it ran, and whether it still
/// does, nobody knows: it is taken over after the wait of one that was running.
pub(crate) fn left_behind(draft: &mut Draft, leader: &mut Leader, cluster: &str, fence: Fence) {
    let Some(attempt) = draft.state.attempt(&fence).filter(|attempt| !attempt.left).cloned() else { return };
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
    draft.emit(Body::AttemptLeft(fact::AttemptLeft { fence: Some(fence) }));
    let timer = row::Timer {
        version: ROW_VERSION,
        due_ms: draft.now().plus_ms(wait_ms).0,
        workflow: key.0,
        node: key.1,
        kind: TimerKind::Left.into(),
    };
    draft.emit(Body::TimerSet(fact::TimerSet { timer: Some(timer) }));
}

/// The timer of [`left_behind`]: if the attempt has not been heard of since, it is taken over.
pub(crate) fn left_is_due(draft: &mut Draft, leader: &mut Leader, workflow: u64, node: u32) {
    let Some(fence) = draft.state.works.get(&(workflow, node)).and_then(|work| work.fence) else { return };
    let Some(attempt) = draft.state.attempt(&fence) else { return };
    if attempt.left && !attempt.closed {
        let cluster = attempt.cluster.clone();
        take(draft, leader, fence, Loss::Ledger { cluster: &cluster });
    }
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
    // A colocation group whose cluster is lost has lost its volumes with it: it can't go on elsewhere.
    let pinned = place::is_pinned_to(&draft.state, workflow, &work, cluster);
    let shape = place::shape(&draft.state, workflow, &moved);
    advance::containers::reset(draft, workflow, node);
    draft.emit(Body::AttemptFenced(fact::AttemptFenced { fence: Some(fence), reason: loss.reason(), shape }));
    let ran = match loss {
        Loss::Silent { .. } => attempt.permitted,
        Loss::Ledger { .. } => attempt.permitted || work.exclusive_lease_ms == 0,
        Loss::PermitUndelivered { .. } => false,
    };
    let message = if attempt.stopping {
        Some(format!("stopped while cluster {cluster} was lost"))
    } else if ran && work.failover() == Failover::Fail {
        Some(format!("cluster {cluster} was lost while the step ran, and its failover is `fail`"))
    } else if ran && work.failover() == Failover::Wait {
        // Only a cluster that is back has its waiting steps looked at.
        Some(format!("cluster {cluster} came back without the step, and its failover is `wait`"))
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
        let phase = if attempt.stopping { NodePhase::Failed } else { NodePhase::Error };
        advance::finish_node(draft, leader, workflow, node, phase, message, None, 0);
    }
}
