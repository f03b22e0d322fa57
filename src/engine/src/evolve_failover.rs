//! Facts about permits of exclusive steps, lost ledgers and take-overs, to state.

use argosy_proto::fact;
use std::sync::Arc;

use crate::Error;
use crate::evolve::Step;
use crate::evolve_work::required;
use crate::key::Key;
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
