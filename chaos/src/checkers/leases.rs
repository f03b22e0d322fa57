use std::collections::{BTreeMap, BTreeSet};

use super::Check;

/// What one agent's process may believe. Times are milliseconds of its own steady clock.
#[derive(Debug, Default)]
struct Agent {
    /// The history that it was welcomed to last.
    incarnation: u64,
    /// The end of the lease that it was given in earlier ones.
    given_before: u64,
    /// Renewals that were sent: by epoch and number.
    sent: BTreeMap<(u64, u64), u64>,
    /// By epoch: the end of the lease that its acknowledged renewals give.
    granted: BTreeMap<u64, u64>,
    /// Sessions that were in step.
    synced: BTreeSet<u64>,
}

impl Agent {
    fn until(&self) -> u64 {
        let counts = |epoch: &&u64| self.synced.contains(*epoch);
        self.granted
            .keys()
            .filter(counts)
            .filter_map(|epoch| self.granted.get(epoch))
            .copied()
            .max()
            .unwrap_or(0)
            .max(self.given_before)
    }
}

/// Of the protocol between agents and leaders, at every moment: a lease lasts from when its renewal was *sent*, once it is
/// acknowledged, in a session that is in step; and only under such a lease does an agent permit a start or renew an
/// exclusive step. The checker counts for itself and compares.
#[derive(Debug, Default)]
pub struct Leases {
    agents: BTreeMap<usize, Agent>,
    judged: u64,
}

impl Leases {
    /// Leases, permits and renewals judged.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        self.judged
    }

    /// A new process of the cluster's agent knows of no lease.
    pub fn started(&mut self, cluster: usize) {
        self.agents.insert(cluster, Agent::default());
    }

    /// The agent is welcomed by a cell in that history, whose epochs are others: what it was given in an earlier one lasts as long
    /// as it did.
    pub fn welcomed(&mut self, cluster: usize, incarnation: u64) {
        let agent = self.agents.entry(cluster).or_default();
        if incarnation > agent.incarnation {
            *agent = Agent { incarnation, given_before: agent.until(), ..Agent::default() };
        }
    }

    /// A renewal left the agent.
    pub fn sent(&mut self, cluster: usize, epoch: u64, number: u64, at_ms: u64) {
        self.agents.entry(cluster).or_default().sent.entry((epoch, number)).or_insert(at_ms);
    }

    /// An acknowledgement reached the agent.
    pub fn acknowledged(&mut self, cluster: usize, epoch: u64, number: u64, lease_ms: u64) {
        let agent = self.agents.entry(cluster).or_default();
        let Some(sent_at_ms) = agent.sent.get(&(epoch, number)).copied() else { return };
        agent.sent.retain(|(of, other), _| *of > epoch || (*of == epoch && *other > number));
        let until = agent.granted.entry(epoch).or_default();
        *until = (*until).max(sent_at_ms + lease_ms);
    }

    /// The agent's session is in step.
    pub fn synced(&mut self, cluster: usize, epoch: u64) {
        self.agents.entry(cluster).or_default().synced.insert(epoch);
    }

    /// The agent believes that its lease lasts until then.
    ///
    /// # Errors
    /// It was given less.
    pub fn believed(&mut self, cluster: usize, until_ms: u64) -> Check {
        self.judged += 1;
        let given_ms = self.agents.get(&cluster).map_or(0, Agent::until);
        if until_ms <= given_ms {
            return Ok(());
        }
        let more_ms = until_ms - given_ms;
        let given =
            if given_ms == 0 { "was given none".to_owned() } else { format!("has it {more_ms} ms shorter") };
        Err(format!(
            "the agent of c{cluster} believes in a lease until {until_ms} ms of its clock and {given}"
        ))
    }

    /// The agent let something start or go on.
    ///
    /// # Errors
    /// It had no lease.
    pub fn allowed(&mut self, cluster: usize, at_ms: u64, what: &str) -> Check {
        self.judged += 1;
        let given_ms = self.agents.get(&cluster).map_or(0, Agent::until);
        if at_ms < given_ms {
            return Ok(());
        }
        let over_ms = at_ms - given_ms;
        Err(format!("the agent of c{cluster} gave {what} {over_ms} ms after its lease had ended"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lease of a second that was asked for at 100 and acknowledged in session 7.
    fn leased() -> Leases {
        let mut leases = Leases::default();
        leases.started(0);
        leases.sent(0, 7, 1, 100);
        leases.acknowledged(0, 7, 1, 1_000);
        leases
    }

    #[test]
    fn a_lease_counts_from_its_sending_in_a_session_in_step() {
        let mut leases = leased();
        assert!(leases.believed(0, 1_100).is_err(), "not in step");
        leases.synced(0, 7);
        assert!(leases.believed(0, 1_100).is_ok());
        assert!(leases.believed(0, 1_101).is_err(), "counted from later than its sending");
        leases.started(0);
        assert!(leases.believed(0, 1_100).is_err(), "another process");
        assert!(leases.believed(0, 0).is_ok());
    }

    #[test]
    fn epochs_of_two_histories_are_not_mixed_up() {
        let mut leases = leased();
        leases.synced(0, 7);
        leases.welcomed(0, 2);
        assert!(leases.believed(0, 1_100).is_ok(), "as it was given");
        leases.sent(0, 7, 1, 500);
        leases.acknowledged(0, 7, 1, 1_000);
        assert!(leases.believed(0, 1_500).is_err(), "not in step");
        leases.synced(0, 7);
        assert!(leases.believed(0, 1_500).is_ok());
        assert!(leases.believed(0, 1_501).is_err());
    }

    #[test]
    fn what_is_not_acknowledged_gives_nothing() {
        let mut leases = leased();
        leases.synced(0, 7);
        leases.sent(0, 7, 2, 600);
        assert!(leases.believed(0, 1_200).is_err());
        leases.acknowledged(0, 7, 9, 1_000);
        assert!(leases.believed(0, 1_200).is_err());
        leases.acknowledged(0, 7, 2, 1_000);
        assert!(leases.believed(0, 1_600).is_ok());
    }

    #[test]
    fn nothing_is_allowed_after_the_lease() {
        let mut leases = leased();
        leases.synced(0, 7);
        assert!(leases.allowed(0, 1_099, "a permit").is_ok());
        assert!(leases.allowed(0, 1_100, "a permit").is_err());
    }
}
