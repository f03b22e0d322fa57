//! After a recovery (a backup restored, a quorum lost for good) state knows less than the clusters do. Nothing is placed
//! on a cluster until its agent has listed what it holds. What state knows of it is adopted; what it does not know was
//! assigned in the part of history that is lost, and is left to run in quarantine; what state believes there and is not
//! goes by the rules of take-over, since it may have run. Exclusive steps start again only when nothing of the lost part can
//! run them any more: their start permits, which are in the log, wait for that.

use argosy_model::{Fence, Limits, LogTime, display_fence};
use argosy_proto::command::Refusal;
use argosy_proto::common::AttemptReport;
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use std::sync::Arc;

use crate::draft::Draft;
use crate::evolve::Step;
use crate::key::Key;
use crate::state::{ROW_VERSION, State};
use crate::{Code, Error, loss};

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

/// Whether an attempt of the lost part of history may be running the step of this exclusive attempt: what has not been listed
/// ends with its own lease, since it is renewed under a lease that this cell would have given, and what is in quarantine runs on.
///
/// # Errors
/// It may; the step asks again.
pub(crate) fn lost_part_is_over(
    state: &State,
    attempt: &row::Attempt,
    limits: &Limits,
    now: LogTime,
) -> Result<(), Refusal> {
    let recovered_at_ms = state.meta.recovered_at_ms;
    if recovered_at_ms == 0 || attempt.exclusive_lease_ms == 0 {
        return Ok(());
    }
    let wait_ms =
        limits.lease_and_margin_ms.saturating_add(loss::exclusive_wait_ms(attempt.exclusive_lease_ms));
    let left_ms = recovered_at_ms.saturating_add(wait_ms).saturating_sub(now.0);
    if left_ms > 0 {
        return Err(Code::LostPartRuns.refuse(format!(
            "the cell was recovered, and the step may still run somewhere: its start waits for {} s more",
            left_ms.div_euclid(1000) + 1
        )));
    }
    let Some(workflow) = state.workflows.get(&attempt.workflow) else { return Ok(()) };
    let runs = |(fence, other): (Fence, &Arc<row::Attempt>)| {
        (other.quarantined && other.exclusive_workflow_uid == workflow.uid)
            .then_some((fence, other.cluster.clone()))
    };
    let is_older = |fence: &Fence| fence.incarnation < state.meta.incarnation;
    let older = |cluster| state.open_attempts(cluster).take_while(move |(fence, _)| is_older(fence));
    let quarantined = state.clusters.keys().find_map(|cluster| older(cluster).find_map(runs));
    match quarantined {
        None => Ok(()),
        Some((fence, cluster)) => Err(Code::LostPartRuns.refuse(format!(
            "attempt {} of a lost part of history is in quarantine on cluster {cluster} and may be this step: its start waits for \
             its end, or for `argosy recovery --release {cluster}`",
            display_fence(&fence)
        ))),
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
        exclusive_workflow_uid: crate::commands::report_attempt::clip(&report.exclusive_workflow_uid),
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
        self.lost_part_may_run();
        for hash in self.state.invites.keys().cloned().collect::<Vec<_>>() {
            self.state.invites.remove(&hash);
            self.touch(Key::Invite(hash));
        }
        self.drill_cut_short("the cell was recovered")?;
        // Every fence of earlier histories is below it: after a restore the log's positions begin anew.
        let first = Fence { incarnation: fact.incarnation, index: 0, ordinal: 0 };
        for name in self.state.clusters.keys().cloned().collect::<Vec<_>>() {
            let cluster = self.cluster(&name)?;
            cluster.reconciling = true;
            // What its agent does not hold may have run, and been released, in the lost part of history.
            cluster.ledger_since = Some(first);
            cluster.recovery = Some(row::ClusterRecovery::default());
        }
        Ok(())
    }

    /// From now on exclusive steps wait as they do after a recovery: see [`lost_part_is_over`].
    pub(crate) fn lost_part_may_run(&mut self) {
        self.state.meta.recovered_at_ms = self.time.0;
        self.touch(Key::Meta);
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
            exclusive_workflow_uid: fact.exclusive_workflow_uid.clone(),
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
