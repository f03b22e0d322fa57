//! Totals for metrics.

use std::collections::BTreeMap;

use argosy_proto::common::AttemptPhase;

use crate::state::{State, workflow_phase};

impl State {
    /// Workflows in state by phase; those that nobody has looked at count as `Pending`.
    #[must_use]
    pub fn workflow_counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for workflow in self.workflows.values() {
            *counts.entry(workflow_phase(workflow).map_or("Pending", |phase| phase.as_str())).or_default() +=
                1;
        }
        counts
    }

    /// Attempts that are not over, by cluster and phase.
    #[must_use]
    pub fn attempt_counts(&self) -> BTreeMap<(String, &'static str), u64> {
        let mut counts = BTreeMap::new();
        for (cluster, fence) in &self.index.on_cluster {
            let Some(attempt) = self.attempts.get(fence) else { continue };
            *counts
                .entry((
                    cluster.to_string(),
                    phase_label(AttemptPhase::try_from(attempt.phase).unwrap_or_default()),
                ))
                .or_default() += 1;
        }
        counts
    }
}

fn phase_label(phase: AttemptPhase) -> &'static str {
    match phase {
        AttemptPhase::Unspecified => "assigned",
        AttemptPhase::Received => "received",
        AttemptPhase::Pending => "pending",
        AttemptPhase::Running => "running",
        AttemptPhase::Succeeded => "succeeded",
        AttemptPhase::Failed => "failed",
        AttemptPhase::Error => "error",
        AttemptPhase::Stopped => "stopped",
    }
}
