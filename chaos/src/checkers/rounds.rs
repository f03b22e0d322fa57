use std::collections::{BTreeMap, BTreeSet};

use super::Check;

/// What a consensus message carries for [`Rounds`]; members never see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Of the message.
    number: u64,
    /// The newest message of the receiver that the sender had taken.
    echo: u64,
}

/// A renewal as a member knows it: the member, its process, the agent's connection and the renewal's number.
pub type RenewalKey = (u64, u64, u64, u64);

/// Quorum rounds behind acknowledged renewals, seen from outside: when a leader acknowledges a renewal, a majority has
/// answered something that the leader sent after the renewal had come. Otherwise another leader may already count without it.
#[derive(Debug, Default)]
pub struct Rounds {
    last: u64,
    /// By taker and sender: the newest message taken.
    taken: BTreeMap<(u64, u64), u64>,
    /// By member and peer: the member's newest message that the peer is known to have taken.
    echoed: BTreeMap<(u64, u64), u64>,
    arrived: BTreeMap<RenewalKey, u64>,
    relayed: BTreeSet<RenewalKey>,
    judged: u64,
}

impl Rounds {
    /// Acknowledgements judged.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        self.judged
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A consensus message leaves.
    pub fn sent(&mut self, from: u64, to: u64) -> Stamp {
        let echo = self.taken.get(&(from, to)).copied().unwrap_or(0);
        Stamp { number: self.next(), echo }
    }

    /// A consensus message is taken by a member that runs.
    pub fn taken(&mut self, by: u64, from: u64, stamp: Stamp) {
        let taken = self.taken.entry((by, from)).or_default();
        *taken = (*taken).max(stamp.number);
        let echoed = self.echoed.entry((by, from)).or_default();
        *echoed = (*echoed).max(stamp.echo);
    }

    /// A renewal comes to a member that runs, from its agent or from another member.
    pub fn renewal_arrived(&mut self, key: RenewalKey) {
        let number = self.next();
        self.arrived.entry(key).or_insert(number);
    }

    /// Another member's acknowledgement comes to the member that will hand it to the agent.
    pub fn relayed(&mut self, key: RenewalKey) {
        self.relayed.insert(key);
    }

    /// An acknowledgement leaves a member, where these vote: the configuration may have changed in the same moment.
    ///
    /// # Errors
    /// It is the member's own, and no majority has answered anything since the renewal came.
    pub fn acknowledged(&mut self, key: RenewalKey, voters: [&[u64]; 2]) -> Check {
        if self.relayed.remove(&key) {
            return Ok(());
        }
        self.judged += 1;
        let (member, _, connection, number) = key;
        let Some(arrived) = self.arrived.remove(&key) else {
            return Err(format!(
                "member {member} acknowledged renewal {number} of connection {connection}, which never came"
            ));
        };
        let since = |peer: &u64| {
            *peer == member || self.echoed.get(&(member, *peer)).is_some_and(|echo| *echo > arrived)
        };
        let with_it = |voters: &[u64]| voters.iter().copied().filter(|voter| since(voter)).count();
        if voters.into_iter().any(|voters| with_it(voters) > voters.len() / 2) {
            return Ok(());
        }
        Err(format!(
            "member {member} acknowledged renewal {number} of connection {connection} without a quorum round: {} of \
             {} members had heard of it since",
            with_it(voters[0]),
            voters[0].len()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: RenewalKey = (1, 1, 9, 4);
    const THREE: [&[u64]; 2] = [&[1, 2, 3]; 2];
    const FIVE: [&[u64]; 2] = [&[1, 2, 3, 4, 5]; 2];

    fn round(rounds: &mut Rounds, peer: u64) {
        let asked = rounds.sent(1, peer);
        rounds.taken(peer, 1, asked);
        let answer = rounds.sent(peer, 1);
        rounds.taken(1, peer, answer);
    }

    #[test]
    fn a_round_before_the_renewal_does_not_count_and_one_after_it_does() {
        let mut rounds = Rounds::default();
        round(&mut rounds, 2);
        rounds.renewal_arrived(KEY);
        assert!(rounds.acknowledged(KEY, THREE).is_err());
        rounds.renewal_arrived(KEY);
        round(&mut rounds, 3);
        assert!(rounds.acknowledged(KEY, THREE).is_ok());
        assert_eq!(rounds.exercised(), 2);
    }

    #[test]
    fn an_answer_to_what_was_sent_before_the_renewal_does_not_count() {
        let mut rounds = Rounds::default();
        let asked = rounds.sent(1, 2);
        rounds.renewal_arrived(KEY);
        rounds.taken(2, 1, asked);
        let answer = rounds.sent(2, 1);
        rounds.taken(1, 2, answer);
        assert!(rounds.acknowledged(KEY, THREE).is_err());
    }

    #[test]
    fn of_five_members_three_are_a_majority() {
        let mut rounds = Rounds::default();
        rounds.renewal_arrived(KEY);
        round(&mut rounds, 2);
        assert!(rounds.acknowledged(KEY, FIVE).is_err());
        rounds.renewal_arrived(KEY);
        round(&mut rounds, 2);
        round(&mut rounds, 5);
        assert!(rounds.acknowledged(KEY, FIVE).is_ok());
    }

    #[test]
    fn a_member_alone_is_a_majority_and_one_that_just_joined_may_not_count_yet() {
        let mut rounds = Rounds::default();
        rounds.renewal_arrived(KEY);
        assert!(rounds.acknowledged(KEY, [&[1], &[1]]).is_ok());
        rounds.renewal_arrived(KEY);
        assert!(rounds.acknowledged(KEY, [&[1, 2], &[1]]).is_ok());
        rounds.renewal_arrived(KEY);
        assert!(rounds.acknowledged(KEY, [&[1, 2], &[1, 2]]).is_err());
    }

    #[test]
    fn what_never_came_is_not_acknowledged_and_what_is_handed_on_is_not_judged() {
        let mut rounds = Rounds::default();
        assert!(rounds.acknowledged(KEY, THREE).is_err());
        rounds.relayed(KEY);
        assert!(rounds.acknowledged(KEY, THREE).is_ok());
        assert_eq!(rounds.exercised(), 1);
    }
}
