//! Facts about permits of exclusive steps, lost ledgers and take-overs, to state.

use argosy_proto::fact;

use crate::Error;
use crate::evolve::Step;
use crate::evolve_work::required;

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
}
