use argosy_model::Fence;
use argosy_proto::command::{Refusal, Reply, TakeOver, TakeOverScope};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::Attempt;

use crate::commands::done;
use crate::draft::Draft;
use crate::loss::{self, Loss};
use crate::{Code, Leader, drill};

/// A cluster has been silent: attempts whose wait (see [`loss::wait_ms`]) has passed are fenced and wait for placement
/// again, or end as the user's `argosy.dev/failover` says. SAFE takes those without a wait; ALL those that wait at most
/// `beyond_ms`, or all that don't wait for ever. Void when the cluster has opened a newer session.
pub(crate) fn decide(draft: &mut Draft, leader: &mut Leader, command: &TakeOver) -> Result<Reply, Refusal> {
    let name = &command.cluster;
    let cluster = draft
        .state
        .cluster(name)
        .ok_or_else(|| Code::ClusterMissing.refuse(format!("cluster {name:?} is not registered")))?;
    if cluster.session_epoch != command.session_epoch {
        return Ok(done());
    }
    if matches!(command.scope(), TakeOverScope::Unspecified | TakeOverScope::Removed) {
        return Err(Code::InvalidArgument.refuse("the scope must be SAFE or ALL"));
    }
    if !cluster.lost {
        drill::cut_short(draft, &format!("cluster {name} was lost for real"), |drilled| drilled != name);
        draft.emit(Body::ClusterLost(fact::ClusterLost { cluster: name.clone() }));
        // Who waits for artifacts that are there may have them made again.
        super::look_again(draft, name);
    }
    let beyond_ms = match command.scope() {
        TakeOverScope::Unspecified | TakeOverScope::Safe | TakeOverScope::Removed => 0,
        TakeOverScope::All if command.beyond_ms == 0 => i64::MAX,
        TakeOverScope::All => i64::try_from(command.beyond_ms).unwrap_or(i64::MAX),
    };
    draft.emit(Body::TakeOverBegun(fact::TakeOverBegun { cluster: name.clone(), beyond_ms }));
    moved(draft, name, command.scope, None);
    proceed(draft, leader, name);
    Ok(done())
}

/// Gives up everything on a cluster that was removed.
pub(crate) fn forget(draft: &mut Draft, leader: &mut Leader, name: &str) {
    moved(draft, name, TakeOverScope::Removed.into(), None);
    proceed(draft, leader, name);
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
    let (scope, mut after, beyond_ms) = (row.take_over_scope, row.take_over_after, row.take_over_beyond_ms);
    let was_lost = row.lost;
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
        for (fence, attempt) in &next {
            draft.spend(1);
            if scope == i32::from(TakeOverScope::Removed) {
                loss::forget(draft, leader, name, *fence, was_lost);
                continue;
            }
            if attempt.fenced {
                continue;
            }
            consider(draft, leader, name, *fence, attempt, beyond_ms);
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
    beyond_ms: i64,
) {
    // What a lost ledger left behind has a clock of its own.
    if attempt.left {
        return;
    }
    let Some(work) = draft.state.works.get(&(attempt.workflow, attempt.node)) else { return };
    let wait_ms = loss::wait_ms(work, attempt.permitted, &leader.limits);
    if wait_ms.is_some_and(|wait_ms| wait_ms <= beyond_ms) {
        loss::take(draft, leader, fence, Loss::Silent { cluster });
    }
}
