//! What the attempts of silent clusters wait for, for views: the rules are those of [`crate::loss`].

use argosy_model::{Fence, Limits, WorkflowId};
use argosy_proto::state as row;

use crate::loss;
use crate::state::State;

/// What an attempt waits for before it is taken over, once its cluster is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOverWait {
    /// The cluster's lease, and a margin.
    Lease,
    /// Beyond both, that it has most likely ended: it is not known to be safe to repeat.
    UnsafeStep(i64),
    /// Beyond both, that it has stopped by itself.
    ExclusiveLease(i64),
    /// The cluster's return, as its user said.
    Return,
    /// Its cluster is back without it, or was removed: it has a clock of its own.
    Ledger,
}

impl TakeOverWait {
    /// Beyond lease and margin; `None` where no clock runs that a view could show.
    #[must_use]
    pub fn beyond_ms(self) -> Option<i64> {
        match self {
            Self::Lease => Some(0),
            Self::UnsafeStep(ms) | Self::ExclusiveLease(ms) => Some(ms),
            Self::Return | Self::Ledger => None,
        }
    }
}

/// An attempt whose node waits for its cluster's return or for its take-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingAttempt {
    /// Of the workflow.
    pub namespace: String,
    /// The workflow's name.
    pub workflow: String,
    /// The node's name.
    pub node: String,
    /// The attempt.
    pub fence: Fence,
    /// What it waits for.
    pub wait: TakeOverWait,
}

/// A node that was taken over and waits for a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingNode {
    /// Of the workflow.
    pub namespace: String,
    /// The workflow's name.
    pub workflow: String,
    /// The node's name.
    pub node: String,
    /// Clusters that it was taken over from, or may not go to.
    pub excluded: Vec<String>,
    /// Why no cluster takes it; empty while nobody has looked.
    pub reason: String,
}

impl State {
    /// What an attempt would wait for if its cluster fell silent; `None` once its result no longer counts.
    #[must_use]
    pub fn take_over_wait(&self, fence: &Fence, limits: &Limits) -> Option<TakeOverWait> {
        let attempt = self.attempt(fence).filter(|attempt| !attempt.fenced && !attempt.closed)?;
        self.wait_of(attempt, limits)
    }

    fn wait_of(&self, attempt: &row::Attempt, limits: &Limits) -> Option<TakeOverWait> {
        if attempt.left {
            return Some(TakeOverWait::Ledger);
        }
        let work = self.works.get(&(attempt.workflow, attempt.node))?;
        Some(match loss::wait_ms(work, attempt.permitted, limits) {
            None => TakeOverWait::Return,
            Some(0) => TakeOverWait::Lease,
            Some(ms) if work.exclusive_lease_ms > 0 => TakeOverWait::ExclusiveLease(ms),
            Some(ms) => TakeOverWait::UnsafeStep(ms),
        })
    }

    /// Attempts of a cluster that are not taken over, by fence; at most so many are looked at.
    #[must_use]
    pub fn waiting_on(&self, cluster: &str, limits: &Limits, max: usize) -> Vec<WaitingAttempt> {
        let open = self.open_attempts(cluster).take(max);
        let waiting = |(fence, attempt): (Fence, &std::sync::Arc<row::Attempt>)| {
            if attempt.fenced {
                return None;
            }
            let wait = self.wait_of(attempt, limits)?;
            let (namespace, workflow, node) = self.named((attempt.workflow, attempt.node))?;
            Some(WaitingAttempt { namespace, workflow, node, fence, wait })
        };
        open.filter_map(waiting).collect()
    }

    /// Nodes that were taken over and wait for a place; at most so many of the queue are looked at.
    #[must_use]
    pub fn taken_over_waiting(&self, max: usize) -> Vec<WaitingNode> {
        let waiting = |key: &(u64, u32)| {
            let work = self.works.get(key).filter(|work| work.takeovers > 0 && work.fence.is_none())?;
            let (namespace, workflow, node) = self.named(*key)?;
            let reason = self.blocked.get(&work.shape).map(|blocked| blocked.message.clone());
            let (excluded, reason) = (work.excluded.clone(), reason.unwrap_or_default());
            Some(WaitingNode { namespace, workflow, node, excluded, reason })
        };
        self.index.queue.values().flat_map(|places| places.values()).take(max).filter_map(waiting).collect()
    }

    fn named(&self, (workflow, node): (u64, u32)) -> Option<(String, String, String)> {
        let row = self.workflow(WorkflowId(workflow))?;
        let node = self.node(workflow, node)?;
        Some((row.namespace.clone(), row.name.clone(), node.name.clone()))
    }
}
