//! Facts about permits of exclusive steps, lost ledgers and take-overs, to state.

use argosy_proto::fact;
use std::sync::Arc;

use crate::Error;
use crate::evolve::Step;
use crate::evolve_work::required;
use crate::key::Key;
use crate::resources;
use crate::state::ROW_VERSION;

impl Step<'_> {
    pub(crate) fn attempt_permitted(&mut self, fact: &fact::AttemptPermitted) -> Result<(), Error> {
        let attempt = self.attempt(required(fact.fence)?)?;
        attempt.permitted = true;
        attempt.holder.clone_from(&fact.holder);
        Ok(())
    }

    pub(crate) fn attempt_left(&mut self, fact: &fact::AttemptLeft) -> Result<(), Error> {
        self.attempt(required(fact.fence)?)?.left = true;
        Ok(())
    }

    pub(crate) fn cluster_ledger_changed(&mut self, fact: &fact::ClusterLedgerChanged) -> Result<(), Error> {
        let here = self.fence;
        let cluster = self.cluster(&fact.cluster)?;
        cluster.ledger = fact.ledger;
        if fact.lost {
            cluster.ledger_since = Some(here);
        }
        Ok(())
    }

    pub(crate) fn take_over_begun(&mut self, fact: &fact::TakeOverBegun) -> Result<(), Error> {
        self.cluster(&fact.cluster)?.take_over_beyond_ms = fact.beyond_ms;
        Ok(())
    }

    pub(crate) fn take_over_resumed(&mut self, fact: &fact::TakeOverResumed) -> Result<(), Error> {
        let cluster = self.cluster(&fact.cluster)?;
        cluster.take_over_resumed_epoch = fact.session_epoch;
        cluster.take_over_resumed_by.clone_from(&fact.actor);
        cluster.take_over_resumed_at_ms = fact.at_ms;
        Ok(())
    }

    pub(crate) fn cluster_changed(&mut self, fact: &fact::ClusterChanged) -> Result<(), Error> {
        let cluster = self.cluster(&fact.cluster)?;
        cluster.cordoned = fact.cordoned;
        cluster.own_labels.clone_from(&fact.own_labels);
        cluster.taints.clone_from(&fact.taints);
        self.capacity_grew();
        Ok(())
    }

    pub(crate) fn cluster_drain_moved(&mut self, fact: &fact::ClusterDrainMoved) -> Result<(), Error> {
        self.cluster(&fact.cluster)?.drain = fact.drain;
        if fact.drain.is_some_and(|drain| drain.scanning) {
            self.state.index.drains.insert(Arc::from(fact.cluster.as_str()));
        } else {
            self.state.index.drains.remove(fact.cluster.as_str());
        }
        Ok(())
    }

    /// A drain that a cluster's sickness began ends with it.
    pub(crate) fn is_well(&mut self, cluster: &str) -> Result<(), Error> {
        let row = self.cluster(cluster)?;
        row.unhealthy_since_ms = 0;
        if row.drain.is_some_and(|drain| drain.degraded) {
            row.drain = None;
            self.state.index.drains.remove(cluster);
        }
        Ok(())
    }

    pub(crate) fn attempt_recalled(&mut self, fact: &fact::AttemptRecalled) -> Result<(), Error> {
        let attempt = self.attempt(required(fact.fence)?)?;
        attempt.recalled = true;
        attempt.stopping = fact.running;
        attempt.stop_reason.clone_from(&fact.reason);
        Ok(())
    }

    /// The original counts again: its node's work is its, and what replaced it is fenced.
    pub(crate) fn attempt_returned(&mut self, fact: &fact::AttemptReturned) -> Result<(), Error> {
        let fence = required(fact.fence)?;
        let attempt = self.attempt(fence)?;
        attempt.on_reconnect = 0;
        if !fact.counts {
            return Ok(());
        }
        if !attempt.fenced || attempt.closed {
            return Err(Error::Misfit { what: "fenced attempt that is open", id: fence.index });
        }
        let (id, node, cluster) = (attempt.workflow, attempt.node, attempt.cluster.clone());
        self.drill_sees_returned(fence)?;
        let key = (id, node);
        let work = self.state.works.get(&key).cloned().ok_or(Error::Misfit { what: "work", id })?;
        match work.fence {
            Some(replacement) => self.replaced_by_original(replacement)?,
            None => {
                self.state.index_unqueued(&work.shape, work.queue);
                self.drop_idle_block(&work.shape);
            }
        }
        let changed = self.state.works.get_mut(&key).ok_or(Error::Misfit { what: "work", id })?;
        let changed = Arc::make_mut(changed);
        changed.fence = Some(fence);
        changed.excluded.retain(|excluded| *excluded != cluster);
        self.touch(Key::Work(id, node));
        let attempt = self.attempt(fence)?;
        attempt.fenced = false;
        attempt.stopping = false;
        attempt.stop_reason.clear();
        // Whatever it says next is news to the node.
        attempt.revision = 0;
        attempt.requests = work.requests.clone().map(Box::new);
        let row = self.cluster(&cluster)?;
        resources::add(row.used.get_or_insert_default(), work.requests.as_ref());
        self.drill_sees_assigned(id, node, &cluster)
    }

    fn replaced_by_original(&mut self, fence: argosy_model::Fence) -> Result<(), Error> {
        let attempt = self.attempt(fence)?;
        attempt.fenced = true;
        attempt.stopping = true;
        crate::REPLACED_BY_ORIGINAL.clone_into(&mut attempt.stop_reason);
        let (cluster, requests) = (attempt.cluster.clone(), attempt.requests.take());
        self.release(&cluster, requests.as_deref())
    }

    pub(crate) fn attempt_moved(&mut self, fact: &fact::AttemptMoved) -> Result<(), Error> {
        self.give_up(required(fact.fence)?, &fact.reason, &fact.shape, 0, fact.refused)
    }

    pub(crate) fn identity_set(&mut self, fact: &fact::IdentitySet) -> Result<(), Error> {
        let identity = fact.identity.clone().ok_or(Error::Misfit { what: "identity", id: 0 })?;
        let cluster = self.cluster(&fact.cluster)?;
        let before = cluster.identity.replace(identity.clone());
        // One that was not used may be placed on now.
        if before.is_none_or(|before| before.standing != identity.standing) {
            self.capacity_grew();
        }
        Ok(())
    }

    pub(crate) fn authorities_set(&mut self, fact: &fact::AuthoritiesSet) -> Result<(), Error> {
        let mut row = fact.row.clone().ok_or(Error::Misfit { what: "authorities", id: 0 })?;
        row.version = ROW_VERSION;
        self.state.authorities = Some(Arc::new(row));
        self.touch(Key::Authorities);
        Ok(())
    }

    pub(crate) fn cluster_removed(&mut self, fact: &fact::ClusterRemoved) -> Result<(), Error> {
        let cluster = self.cluster(&fact.cluster)?;
        cluster.removed = true;
        cluster.cordoned = false;
        cluster.drain = None;
        // What an older session says is stale from here on.
        cluster.session_epoch += 1;
        self.state.index.drains.remove(fact.cluster.as_str());
        self.state.index.removed.insert(Arc::from(fact.cluster.as_str()));
        Ok(())
    }
}
