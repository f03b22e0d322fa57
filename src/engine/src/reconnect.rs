//! Attempts that were taken over and whose cluster comes back with them: `argosy.dev/on-reconnect`.
//!
//! One counts at any time. The question is asked once, when the agent lists what it holds, and answered in the log: until then
//! the replacement counts, and what it has committed stays. An original that counts again keeps its older fence.

use argosy_model::Fence;
use argosy_proto::common::{AttemptPhase, AttemptReport};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::OnReconnect;

use crate::advance;
use crate::draft::Draft;

/// Why an attempt is stopped whose original counts again.
pub const REPLACED_BY_ORIGINAL: &str = "the attempt that it replaced has come back";

/// An agent holds this attempt: if it was taken over and its step says so, it counts again.
pub(crate) fn returned(draft: &mut Draft, cluster: &str, fence: Fence, report: &AttemptReport) {
    let Some(attempt) = draft.state.attempt(&fence) else { return };
    if !attempt.fenced || attempt.closed || attempt.cluster != cluster {
        return;
    }
    let (workflow, node) = (attempt.workflow, attempt.node);
    let has_run = attempt.permitted || report.permitted;
    let wanted = match attempt.on_reconnect() {
        OnReconnect::Unspecified => return,
        OnReconnect::KeepOriginal => report.phase() != AttemptPhase::Stopped,
        OnReconnect::LongestRunning => {
            has_run && matches!(report.phase(), AttemptPhase::Running | AttemptPhase::Succeeded)
        }
    };
    // Whoever is older than the one that counts now was there before it. One that has ended is not replaced, though its node
    // may still wait for its artifacts to be copied.
    let waits = draft.state.works.get(&(workflow, node)).is_some_and(|work| {
        let runs = |current| draft.state.attempt(&current).is_some_and(|attempt| !attempt.closed);
        !work.reproduces && work.fence.is_none_or(|current| fence < current && runs(current))
    });
    let counts = wanted && waits;
    if counts {
        advance::containers::reset(draft, workflow, node);
    }
    draft.emit(Body::AttemptReturned(fact::AttemptReturned { fence: Some(fence), counts }));
}
