use argosy_model::Fence;
use argosy_model::planted::{Bug, is_planted};
use argosy_proto::command::{AttemptsResynced, Refusal, Reply, ResyncAttempts, reply};
use argosy_proto::common::{AttemptPhase, AttemptReport};
use argosy_proto::fact::{self, fact::Body};
use std::collections::BTreeSet;

use crate::commands::report_attempt;
use crate::draft::Draft;
use crate::loss::{self, Loss};
use crate::{Code, Leader, reconnect, recovery};

/// What an agent holds, against what state wants on its cluster.
///
/// Held and wanted: keep. Held and unwanted: stop. Unwanted and not held: nothing is left of it. Wanted and not held: one
/// that was given to a ledger that is lost goes by the rules of take-over, since it may have run; else it is sent again
/// if nothing of it was ever seen, and is lost with its Pod otherwise.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &ResyncAttempts,
) -> Result<Reply, Refusal> {
    let name = &command.cluster;
    let cluster = draft
        .state
        .cluster(name)
        .ok_or_else(|| Code::ClusterMissing.refuse(format!("cluster {name:?} is not registered")))?;
    if cluster.session_epoch != command.session_epoch {
        return Err(Code::StaleSession.refuse(format!(
            "session {} of cluster {name:?} is over, {} is the current one: reconnect",
            command.session_epoch, cluster.session_epoch
        )));
    }
    let ledger_since = cluster.ledger_since.filter(|_| !is_planted(Bug::LostLedgerIgnored));
    let reconciling = cluster.reconciling;
    let mut held = BTreeSet::new();
    let mut resynced = AttemptsResynced::default();
    for report in &command.held {
        let Some(fence) = report.fence else { continue };
        held.insert(fence);
        if reconciling && draft.state.attempt(&fence).is_none() {
            recovery::quarantine(draft, name, fence, report);
        }
        reconnect::returned(draft, name, fence, report);
        report_attempt::judge(draft, leader, name, fence, report);
        if is_wanted(draft, name, fence, report) {
            resynced.keep.push(fence)
        } else {
            resynced.stop.push(fence)
        }
    }
    let missing: Vec<_> = draft
        .state
        .open_attempts(name)
        .filter(|(fence, _)| !held.contains(fence))
        .map(|(fence, attempt)| (fence, attempt.clone()))
        .collect();
    if reconciling {
        let running = missing.iter().filter(|(_, attempt)| !attempt.fenced && !attempt.stopping);
        let gone: Vec<_> = running.map(|(_, attempt)| (attempt.workflow, attempt.node)).collect();
        recovery::reconciled(draft, name, resynced.keep.len(), &gone);
    }
    for (fence, attempt) in missing {
        draft.spend(1);
        let seen = attempt.permitted || attempt.phase >= AttemptPhase::Pending.into();
        if attempt.fenced {
            let closed = fact::AttemptClosed {
                fence: Some(fence),
                revision: 0,
                phase: AttemptPhase::Stopped.into(),
                host: String::new(),
            };
            draft.emit(Body::AttemptClosed(closed));
        } else if attempt.stopping {
            report_attempt::judge(draft, leader, name, fence, &lost(fence, attempt.revision, true));
        } else if attempt.left && ledger_since.is_none_or(|since| fence >= since) {
            // Of before the cluster was removed and invited again: its clock runs.
        } else if ledger_since.is_some_and(|since| fence < since) {
            loss::left_behind(draft, leader, name, fence);
        } else if !attempt.holder.is_empty() {
            // The agent writes a permit down before it gives it: what its ledger doesn't know has not run.
            loss::take(draft, leader, fence, Loss::PermitUndelivered { cluster: name });
        } else if seen {
            report_attempt::judge(draft, leader, name, fence, &lost(fence, attempt.revision, false));
        }
    }
    Ok(Reply { body: Some(reply::Body::AttemptsResynced(resynced)) })
}

/// True for an attempt that may go on, or whose result was taken: its report will be answered, and that releases it.
fn is_wanted(draft: &Draft, cluster: &str, fence: Fence, report: &AttemptReport) -> bool {
    let over = report_attempt::is_terminal(report.phase());
    draft.state.attempt(&fence).is_some_and(|attempt| {
        attempt.cluster == cluster
            && !attempt.fenced
            && if attempt.closed { over } else { over || !attempt.stopping }
    })
}

/// What Argo says of a Pod that is gone.
fn lost(fence: Fence, revision: u64, stopping: bool) -> AttemptReport {
    AttemptReport {
        fence: Some(fence),
        revision: revision + 1,
        phase: if stopping { AttemptPhase::Stopped } else { AttemptPhase::Error }.into(),
        message: "pod deleted".to_owned(),
        ..AttemptReport::default()
    }
}
