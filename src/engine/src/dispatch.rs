//! What the leader's dispatcher asks after each batch, attempt by attempt: never a scan of a whole cluster.

use argosy_model::Fence;

use crate::evolve::Changes;
use crate::key::Key;
use crate::state::{DesiredAttempt, State};

impl Changes {
    /// Touched attempts, deleted ones among them.
    pub fn attempts(&self) -> impl Iterator<Item = Fence> + '_ {
        let from = Key::Attempt(Fence::default());
        let attempt = |key: &Key| if let Key::Attempt(fence) = key { Some(*fence) } else { None };
        self.keys.range(from..).map_while(attempt)
    }
}

impl State {
    /// The cluster that an attempt was assigned to, and what is wanted of it there; the latter is `None` once nothing
    /// of it is left on the cluster. `None` altogether for an attempt that state doesn't know.
    #[must_use]
    pub fn desired(&self, fence: &Fence) -> Option<(&str, Option<DesiredAttempt>)> {
        let attempt = self.attempts.get(fence)?;
        let desired = match (attempt.closed, attempt.stopping) {
            (true, _) => None,
            (false, true) => {
                Some(DesiredAttempt::Stop { reason: attempt.stop_reason.clone(), fenced: attempt.fenced })
            }
            // Sent again it could run twice under one fence: it waits for its take-over.
            (false, false) if attempt.left => None,
            (false, false) if attempt.recalled => {
                Some(DesiredAttempt::Recall { reason: attempt.stop_reason.clone() })
            }
            (false, false) => Some(DesiredAttempt::Run),
        };
        Some((&attempt.cluster, desired))
    }

    /// How long beyond lease and margin a silent cluster keeps an attempt, if it is exclusive and has its start permit.
    #[must_use]
    pub fn exclusive_wait_ms(&self, fence: &Fence) -> Option<u64> {
        let attempt = self.attempts.get(fence)?;
        let wait_ms = crate::loss::exclusive_wait_ms(attempt.exclusive_lease_ms);
        (attempt.permitted && wait_ms > 0).then_some(wait_ms.unsigned_abs())
    }
}
