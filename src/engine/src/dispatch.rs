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
            (false, false) => Some(DesiredAttempt::Run),
        };
        Some((&attempt.cluster, desired))
    }
}
