use argosy_store::Kv;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};

use crate::{Consensus, LogPosition, MemberId, ProposeError};

/// A change of who is a member, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// Adds a member that holds everything but does not vote.
    AddLearner(MemberId),
    /// Lets a learner that has caught up vote.
    Promote(MemberId),
    /// Removes a member. Its number must not be used again.
    Remove(MemberId),
}

impl<K: Kv> Consensus<K> {
    /// Proposes a change of membership; done when the configuration in [`crate::Status`] shows it.
    pub fn change_membership(&mut self, change: MembershipChange) -> Result<LogPosition, ProposeError> {
        self.may_propose()?;
        // The library would make an empty entry of a second change, and its proposer would wait for ever.
        if self.raw.raft.has_pending_conf() {
            return Err(ProposeError::ChangePending);
        }
        let (kind, member) = self.checked(change).map_err(|reason| ProposeError::Change { reason })?;
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = member;
        let conf = ConfChangeV2 { changes: vec![single], ..ConfChangeV2::default() };
        self.raw.propose_conf_change(Vec::new(), conf).map_err(|_| ProposeError::Busy)?;
        let position = LogPosition { term: self.raw.raft.term, index: self.raw.raft.raft_log.last_index() };
        self.pending.push_back(position);
        self.counters.proposals += 1;
        Ok(position)
    }

    fn checked(&self, change: MembershipChange) -> Result<(ConfChangeType, MemberId), &'static str> {
        let conf = self.raw.store().conf_state();
        let votes = |member: &MemberId| conf.voters.contains(member);
        let learns = |member: &MemberId| conf.learners.contains(member);
        match change {
            MembershipChange::AddLearner(0) => Err("a member's number is 1 or more"),
            MembershipChange::AddLearner(member) if votes(&member) || learns(&member) => {
                Err("it is a member already")
            }
            MembershipChange::AddLearner(_)
                if conf.voters.len() + conf.learners.len() >= self.config.limits.members_max =>
            {
                Err("the cell has as many members as it can have")
            }
            MembershipChange::AddLearner(member) => Ok((ConfChangeType::AddLearnerNode, member)),
            MembershipChange::Promote(member) if !learns(&member) => Err("only a learner can be promoted"),
            MembershipChange::Promote(member) => {
                let matched = self.raw.raft.prs().get(member).map_or(0, |progress| progress.matched);
                if matched < self.raw.raft.raft_log.committed {
                    return Err("the learner has not caught up");
                }
                Ok((ConfChangeType::AddNode, member))
            }
            MembershipChange::Remove(member) if !votes(&member) && !learns(&member) => {
                Err("it is not a member")
            }
            MembershipChange::Remove(member) if votes(&member) && conf.voters.len() == 1 => {
                Err("the last voter cannot be removed")
            }
            MembershipChange::Remove(member) => Ok((ConfChangeType::RemoveNode, member)),
        }
    }

    /// Hands leadership over to a voter that has caught up. Proposals are refused as busy until it is done or given up.
    pub fn transfer_leadership(&mut self, to: MemberId) -> Result<(), ProposeError> {
        self.may_propose()?;
        if !self.raw.store().conf_state().voters.contains(&to) {
            return Err(ProposeError::Change { reason: "only a voter can lead" });
        }
        self.raw.transfer_leader(to);
        Ok(())
    }
}
