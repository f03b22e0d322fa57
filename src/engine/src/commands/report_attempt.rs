use argosy_model::planted::{Bug, is_planted};
use argosy_model::{Fence, NodePhase};
use argosy_proto::command::{AttemptReported, Refusal, Reply, ReportAttempt, reply};
use argosy_proto::common::{AttemptPhase, AttemptReport, Verdict};
use argosy_proto::fact::{self, fact::Body};

use crate::advance::containers;
use crate::draft::Draft;
use crate::state::phase_of;
use crate::{Code, Leader, advance, loss, reproduce};

/// The newest state of an attempt. The one place where a report whose fence is not the node's current one is dropped.
///
/// The caller counts verdicts. A stale session's report is judged like any other: the fence decides, not the session.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &ReportAttempt,
) -> Result<Reply, Refusal> {
    let report =
        command.report.as_ref().ok_or_else(|| Code::InvalidArgument.refuse("the report is missing"))?;
    let fence = report.fence.ok_or_else(|| Code::InvalidArgument.refuse("the report's fence is missing"))?;
    let is_older = |epoch| epoch > command.session_epoch;
    let by_epoch = is_planted(Bug::EpochAsFence)
        && draft.state.cluster(&command.cluster).is_some_and(|cluster| is_older(cluster.session_epoch));
    let verdict =
        if by_epoch { Verdict::Superseded } else { judge(draft, leader, &command.cluster, fence, report) };
    let reported = AttemptReported { fence: Some(fence), revision: report.revision, verdict: verdict.into() };
    Ok(Reply { body: Some(reply::Body::AttemptReported(reported)) })
}

/// Records a report if it still counts.
pub(crate) fn judge(
    draft: &mut Draft,
    leader: &mut Leader,
    cluster: &str,
    fence: Fence,
    report: &AttemptReport,
) -> Verdict {
    draft.spend(1);
    let Some(attempt) =
        draft.state.attempts.get(&fence).cloned().filter(|attempt| attempt.cluster == cluster)
    else {
        return Verdict::Unknown;
    };
    let over = is_terminal(report.phase());
    let taken_anyway = is_planted(Bug::FenceUnchecked)
        || is_planted(Bug::EpochAsFence)
        || (is_planted(Bug::ArtifactFenceUnchecked) && !report.artifacts.is_empty());
    if attempt.fenced && !taken_anyway {
        if over && !attempt.closed {
            close(draft, fence, report);
        }
        return Verdict::Superseded;
    }
    if attempt.closed {
        return if attempt.phase == report.phase { Verdict::Accepted } else { Verdict::Superseded };
    }
    // The end counts whatever its number: it can come only once.
    if !over && report.revision <= attempt.revision && attempt.revision != 0 && !attempt.left {
        return Verdict::Accepted;
    }
    if over && attempt.recalled && report.phase() == AttemptPhase::Stopped {
        loss::given_back(draft, leader, fence, &attempt);
        close(draft, fence, report);
    } else if over
        && is_refusal(&attempt, report)
        && loss::refused(draft, leader, fence, &attempt, &clip(&report.message))
    {
        close(draft, fence, report);
    } else if over {
        close(draft, fence, report);
        advance::leaf::attempt_over(draft, leader, attempt.workflow, attempt.node, report);
    } else {
        draft.emit(Body::AttemptUpdated(fact::AttemptUpdated {
            fence: Some(fence),
            revision: report.revision.max(attempt.revision),
            phase: report.phase,
            permitted: report.permitted,
            host: clip(&report.host),
            handle: clip(&report.handle),
        }));
        node_moves(draft, leader, attempt.workflow, attempt.node, report);
    }
    Verdict::Accepted
}

/// The attempt will not report anything else.
pub(crate) fn is_terminal(phase: AttemptPhase) -> bool {
    match phase {
        AttemptPhase::Unspecified
        | AttemptPhase::Received
        | AttemptPhase::Pending
        | AttemptPhase::Running => false,
        AttemptPhase::Succeeded | AttemptPhase::Failed | AttemptPhase::Error | AttemptPhase::Stopped => true,
    }
}

/// The cluster's owner turned it away before anything was made of it. One that was to stop has its end.
fn is_refusal(attempt: &argosy_proto::state::Attempt, report: &AttemptReport) -> bool {
    report.refused && !report.permitted && !attempt.permitted && !attempt.stopping
}

fn close(draft: &mut Draft, fence: Fence, report: &AttemptReport) {
    draft.emit(Body::AttemptClosed(fact::AttemptClosed {
        fence: Some(fence),
        revision: report.revision,
        phase: report.phase,
        host: clip(&report.host),
    }));
}

/// The node shows what its attempt does.
fn node_moves(draft: &mut Draft, leader: &mut Leader, workflow: u64, node: u32, report: &AttemptReport) {
    if reproduce::is_reproduction(&draft.state, workflow, node) {
        return;
    }
    containers::reported(draft, workflow, node, report);
    let is_daemon = draft.state.works.get(&(workflow, node)).is_some_and(|work| work.daemon);
    let Some(row) = draft.state.node(workflow, node) else { return };
    // A daemon runs once it is ready, as in Argo.
    let running = report.phase() == AttemptPhase::Running && (!is_daemon || report.ready || row.daemoned);
    let phase = if running { NodePhase::Running } else { NodePhase::Pending };
    let (message, host, progress) = (clip(&report.message), clip(&report.host), clip(&report.progress));
    let begins = running && phase_of(row) != NodePhase::Running;
    let same = phase_of(row) == phase
        && row.message == message
        && row.host == host
        && row.rare().progress == progress;
    if !same && !phase_of(row).is_fulfilled() {
        let started_at_ms = if running && report.started_at_ms > 0 { report.started_at_ms } else { 0 };
        draft.emit(Body::NodeChanged(fact::NodeChanged {
            workflow,
            node,
            phase: phase.number(),
            message,
            host,
            progress,
            started_at_ms,
            children_complete: false,
        }));
        if begins {
            advance::begun(draft, leader, workflow, node);
        }
    }
    if is_daemon && running {
        advance::leaf::daemon_ready(draft, leader, workflow, node, report);
    }
}

/// Bytes of a reported name or message that are kept.
const TEXT_BYTES_MAX: usize = 4096;

/// A reported text, cut to what state keeps.
pub(crate) fn clip(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
