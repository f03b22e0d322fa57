//! After a recovery (a backup restored, a quorum lost for good) state knows less than the clusters do. Nothing is placed
//! on a cluster until its agent has listed what it holds. What state knows of it is adopted; what it does not know was
//! assigned in the part of history that is lost, and is left to run in quarantine; what state believes there and is not
//! goes by the rules of take-over, since it may have run.

use argosy_model::Fence;
use argosy_proto::common::AttemptReport;
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use std::sync::Arc;

use crate::Error;
use crate::draft::Draft;
use crate::evolve::Step;
use crate::key::Key;
use crate::state::{ROW_VERSION, State};

/// Attempts run again that a cluster's report names; further ones are only counted.
const RERUN_NAMED_MAX: usize = 1_000;

/// What a recovery came to on one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRecovery {
    /// Its agent has not listed yet what it holds.
    pub reconciling: bool,
    /// Attempts that go on as if nothing had happened.
    pub adopted: u64,
    /// Attempts of the lost part of history that still run, by fence.
    pub quarantined: Vec<Fence>,
    /// Attempts that were there and are not: run again, or failed, as their policy says.
    pub rerun: u64,
    /// The first of them: namespace, workflow and node.
    pub rerun_named: Vec<row::RerunStep>,
}

impl State {
    /// What the last recovery came to on a cluster; nothing for a cluster that was in none.
    #[must_use]
    pub fn recovery_of(&self, cluster: &str) -> Option<ClusterRecovery> {
        let row = self.cluster(cluster)?;
        let recovery = row.recovery.as_ref()?;
        let quarantined =
            self.open_attempts(cluster).filter(|(_, attempt)| attempt.quarantined).map(|(fence, _)| fence);
        Some(ClusterRecovery {
            reconciling: row.reconciling,
            adopted: recovery.adopted,
            quarantined: quarantined.collect(),
            rerun: recovery.rerun,
            rerun_named: recovery.rerun_named.clone(),
        })
    }

    /// Whether the cell still waits for clusters to say what they hold.
    #[must_use]
    pub fn is_reconciling(&self) -> bool {
        self.clusters.values().any(|cluster| cluster.reconciling)
    }
}

/// Takes an attempt that state doesn't know into quarantine.
pub(crate) fn quarantine(draft: &mut Draft, cluster: &str, fence: Fence, report: &AttemptReport) {
    draft.emit(Body::AttemptQuarantined(fact::AttemptQuarantined {
        fence: Some(fence),
        cluster: cluster.to_owned(),
        phase: report.phase,
        revision: report.revision,
        host: crate::commands::report_attempt::clip(&report.host),
        handle: crate::commands::report_attempt::clip(&report.handle),
    }));
}

/// The agent has listed everything: `missing` is what state believed there. To be called before anything is decided
/// about it.
pub(crate) fn reconciled(draft: &mut Draft, cluster: &str, adopted: usize, missing: &[(u64, u32)]) {
    let name = |(workflow, node): &(u64, u32)| {
        let row = draft.state.workflows.get(workflow)?;
        let node = draft.state.node(*workflow, *node)?;
        Some(row::RerunStep {
            namespace: row.namespace.clone(),
            workflow: row.name.clone(),
            node: node.name.clone(),
        })
    };
    let rerun_named = missing.iter().filter_map(name).take(RERUN_NAMED_MAX).collect();
    let recovery = row::ClusterRecovery { adopted: adopted as u64, rerun: missing.len() as u64, rerun_named };
    let cluster = cluster.to_owned();
    draft.emit(Body::ClusterReconciled(fact::ClusterReconciled { cluster, recovery: Some(recovery) }));
}

impl Step<'_> {
    /// Every invite is void: one that was used in the lost part of history must not be used again.
    pub(crate) fn incarnation_raised(&mut self, fact: &fact::IncarnationRaised) -> Result<(), Error> {
        self.state.meta.incarnation = fact.incarnation;
        self.touch(Key::Meta);
        for hash in self.state.invites.keys().cloned().collect::<Vec<_>>() {
            self.state.invites.remove(&hash);
            self.touch(Key::Invite(hash));
        }
        self.drill_cut_short("the cell was recovered")?;
        let here = self.fence;
        for name in self.state.clusters.keys().cloned().collect::<Vec<_>>() {
            let cluster = self.cluster(&name)?;
            cluster.reconciling = true;
            // What its agent does not hold may have run, and been released, in the lost part of history.
            cluster.ledger_since = Some(here);
            cluster.recovery = Some(row::ClusterRecovery::default());
        }
        Ok(())
    }

    pub(crate) fn attempt_quarantined(&mut self, fact: &fact::AttemptQuarantined) -> Result<(), Error> {
        let fence = fact.fence.ok_or(Error::Misfit { what: "fence", id: 0 })?;
        let attempt = row::Attempt {
            version: ROW_VERSION,
            cluster: fact.cluster.clone(),
            phase: fact.phase,
            revision: fact.revision,
            host: fact.host.clone(),
            handle: fact.handle.clone(),
            assigned_at_ms: self.time.0,
            // It may have run: nothing is known of its permit.
            permitted: true,
            quarantined: true,
            ..row::Attempt::default()
        };
        self.state.attempts.insert(fence, Arc::new(attempt));
        self.state.index.on_cluster.insert((Arc::from(fact.cluster.as_str()), fence));
        self.touch(Key::Attempt(fence));
        self.cluster(&fact.cluster)?.attempts_open += 1;
        Ok(())
    }

    pub(crate) fn cluster_reconciled(&mut self, fact: &fact::ClusterReconciled) -> Result<(), Error> {
        let cluster = self.cluster(&fact.cluster)?;
        cluster.reconciling = false;
        cluster.recovery.clone_from(&fact.recovery);
        self.capacity_grew();
        Ok(())
    }
}
