//! Argo's JSON shapes of what state holds.

use argosy_model::{Fence, WorkflowId};
use argosy_proto::common::Assignment;
use serde_json::Value;

use crate::state::State;

/// A time as Kubernetes writes it: UTC, whole seconds.
pub(crate) fn time_text(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Days since 1970 to a date of the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The workflow as Argo's API shows it; `None` when there is none.
#[must_use]
pub fn workflow_json(_state: &State, _id: WorkflowId) -> Option<Value> {
    None
}

/// What a list needs of a workflow: metadata, phase, progress; no nodes, no templates.
#[must_use]
pub fn summary(_state: &State, _id: WorkflowId) -> Option<Value> {
    None
}

impl State {
    /// What the cluster of a fence is to run; `None` when it should not run (any more).
    #[must_use]
    pub fn assignment(&self, fence: &Fence) -> Option<Assignment> {
        let attempt = self.attempts.get(fence).filter(|attempt| !attempt.stopping)?;
        let work = self.works.get(&(attempt.workflow, attempt.node)).filter(|work| work.fence.as_ref() == Some(fence))?;
        let node = self.node(attempt.workflow, attempt.node)?;
        let workflow = self.workflows.get(&attempt.workflow)?;
        Some(Assignment {
            fence: Some(*fence),
            namespace: workflow.namespace.clone(),
            workflow: workflow.name.clone(),
            workflow_uid: workflow.uid.clone(),
            node_id: argosy_model::node_id(&workflow.name, &node.name),
            node_name: node.name.clone(),
            pod_name: argosy_model::pod_name(&workflow.name, &work.template_name, &node.name),
            template_json: work.template_json.clone(),
            workflow_pod_json: workflow.pod_json.clone(),
            requests: work.requests.clone(),
            exclusive: false,
            on_exit: node.on_exit,
            deadline_ms: work.deadline_ms,
            stop_grace_ms: work.stop_grace_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(time_text(1_709_210_096_789), "2024-02-29T12:34:56Z");
        assert_eq!(time_text(-1), "1969-12-31T23:59:59Z");
    }
}
