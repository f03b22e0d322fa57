//! What is to leave a cluster that is drained or sick: attempts that have not started are given back by their agent, and
//! after a deadline running ones that are safe to repeat are stopped and run again elsewhere.

use argosy_model::Fence;
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::{self as row, Attempt, Cluster, Drain, Failover, TimerKind};

use crate::Leader;
use crate::commands::look_again;
use crate::draft::Draft;
use crate::place;
use crate::state::{ROW_VERSION, State};

/// Attempts looked at before the batch's fullness is.
const ATTEMPTS_MAX: usize = 256;

/// Begins to look at a cluster's attempts, or begins again.
pub(crate) fn begin(draft: &mut Draft, cluster: &str, drain: Drain) {
    let drain = Some(Drain { scanning: true, after: None, ..drain });
    draft.emit(Body::ClusterDrainMoved(fact::ClusterDrainMoved { cluster: cluster.to_owned(), drain }));
}

/// Has clusters looked at when this time has come.
pub(crate) fn remind(draft: &mut Draft, due_ms: i64) {
    let kind = TimerKind::Cluster.into();
    let timer = row::Timer { version: ROW_VERSION, due_ms, workflow: 0, node: 0, kind };
    draft.emit(Body::TimerSet(fact::TimerSet { timer: Some(timer) }));
}

/// A reminder came: deadlines of drains, and sick clusters that were given time.
pub(crate) fn due(draft: &mut Draft, leader: &Leader) {
    let now_ms = draft.now().0;
    let clusters: Vec<(String, Cluster)> =
        draft.state.clusters().map(|(name, row)| (name.to_owned(), row.clone())).collect();
    let patience_ms = leader.limits.takeover_after_unsafe_ms;
    let is_given_up =
        |row: &Cluster| row.lost && !row.removed && row.lost_at_ms.saturating_add(patience_ms) <= now_ms;
    if let Some((name, _)) = clusters.iter().find(|(_, row)| is_given_up(row)) {
        // Steps that wait for artifacts of lost clusters may have them made again now.
        look_again(draft, name);
    }
    for (name, cluster) in clusters {
        match &cluster.drain {
            Some(drain) if drain.deadline_ms != 0 && drain.deadline_ms <= now_ms && !drain.past_deadline => {
                begin(draft, &name, Drain { past_deadline: true, ..*drain });
            }
            None if is_sick(&cluster, now_ms, leader.limits.degraded_after_ms) => {
                begin(draft, &name, Drain { since_ms: now_ms, degraded: true, ..Drain::default() });
            }
            Some(_) | None => {}
        }
    }
}

fn is_sick(cluster: &Cluster, now_ms: i64, degraded_after_ms: i64) -> bool {
    let since_ms = cluster.unhealthy_since_ms;
    since_ms != 0 && !cluster.lost && !cluster.removed && now_ms.saturating_sub(since_ms) >= degraded_after_ms
}

/// Goes on looking until all have been looked at or the batch is full.
pub(crate) fn go_on(draft: &mut Draft, leader: &Leader) {
    while !draft.is_full(&leader.limits) {
        let Some(cluster) = draft.state.index.drains.iter().next().cloned() else { return };
        proceed(draft, leader, &cluster);
    }
}

fn proceed(draft: &mut Draft, leader: &Leader, name: &str) {
    let Some(drain) = draft.state.cluster(name).and_then(|row| row.drain) else { return };
    let mut after = drain.after;
    loop {
        let from = after.unwrap_or_default();
        let next: Vec<(Fence, Attempt)> = draft
            .state
            .open_attempts_from(name, from)
            .filter(|(fence, _)| after.is_none_or(|after| *fence > after))
            .take(ATTEMPTS_MAX)
            .map(|(fence, attempt)| (fence, attempt.as_ref().clone()))
            .collect();
        let Some((last, _)) = next.last() else {
            return moved(draft, name, Drain { scanning: false, after: None, ..drain });
        };
        after = Some(*last);
        for (fence, attempt) in &next {
            draft.spend(1);
            consider(draft, name, *fence, attempt, &drain);
        }
        if draft.is_full(&leader.limits) {
            return moved(draft, name, Drain { after, ..drain });
        }
    }
}

fn moved(draft: &mut Draft, cluster: &str, drain: Drain) {
    let cluster = cluster.to_owned();
    draft.emit(Body::ClusterDrainMoved(fact::ClusterDrainMoved { cluster, drain: Some(drain) }));
}

fn consider(draft: &mut Draft, cluster: &str, fence: Fence, attempt: &Attempt, drain: &Drain) {
    let running = attempt.permitted;
    let waits = running && !drain.past_deadline;
    if attempt.fenced || attempt.stopping || attempt.left || waits || why_not(&draft.state, attempt).is_some()
    {
        return;
    }
    let reason = if drain.degraded {
        format!("cluster {cluster} cannot start steps: moved")
    } else {
        format!("cluster {cluster} is drained: moved")
    };
    draft.emit(Body::AttemptRecalled(fact::AttemptRecalled { fence: Some(fence), running, reason }));
}

/// Why an attempt can't leave its cluster before it ends; `None`: it can.
pub(crate) fn why_not(state: &State, attempt: &Attempt) -> Option<&'static str> {
    let work = state.works.get(&(attempt.workflow, attempt.node))?;
    if place::is_pinned_to(state, attempt.workflow, work, &attempt.cluster) {
        return Some("steps of its workflow share a volume on this cluster");
    }
    let safe = work.idempotent || work.failover() == Failover::Reschedule;
    (attempt.permitted && !safe).then_some(
        "it runs and is not said to be safe to run again (retryStrategy, argosy.dev/idempotent or argosy.dev/failover: reschedule)",
    )
}
