//! Who is a member: what state wants and what the replicated configuration is are brought together, one change at a
//! time, by whoever leads. Level-triggered: a new leader goes on where the last one stopped.

use argosy_consensus::{MembershipChange, PeerProgress, Status};
use argosy_engine::{Code, State};
use argosy_model::MemberId;
use argosy_proto::command::{Refusal, command};

/// A voter within so many entries of the log's end can take over without a pause that anybody notices.
const CLOSE_BEHIND: u64 = 1_000;

/// What a leader does next about its cell's members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Change the configuration.
    Change(MembershipChange),
    /// Let another lead, since this one leaves.
    Transfer(MemberId),
    /// Its replacement votes: it is to leave, which state has to say first.
    Retire(MemberId),
}

/// What state wants of the members, over the configuration as it is.
struct Wanted<'a> {
    state: &'a State,
    status: &'a Status,
}

impl Wanted<'_> {
    fn votes(&self, member: MemberId) -> bool {
        self.status.voters.contains(&member)
    }

    fn learns(&self, member: MemberId) -> bool {
        self.status.learners.contains(&member)
    }

    fn is_member(&self, member: MemberId) -> bool {
        self.votes(member) || self.learns(member)
    }

    fn peer(&self, member: MemberId) -> Option<&PeerProgress> {
        self.status.peers.iter().find(|peer| peer.member == member)
    }

    /// Whether the leader is in touch with it.
    fn is_active(&self, member: MemberId) -> bool {
        member == self.status.member || self.peer(member).is_some_and(|peer| peer.active)
    }

    /// Those that should go.
    fn leaving(&self) -> impl Iterator<Item = MemberId> + '_ {
        let told = self.state.members().filter(|(_, row)| row.leaving).map(|(member, _)| member);
        told.filter(|member| self.is_member(*member))
    }

    /// Those whose replacement votes.
    fn replaced(&self) -> impl Iterator<Item = MemberId> + '_ {
        let voting = self.state.members().filter(|(member, row)| !row.leaving && self.votes(*member));
        let replaced = voting.map(|(_, row)| row.replaces);
        replaced.filter(|member| self.is_member(*member) && !self.state.member_left(*member))
    }

    /// Those that should vote and don't.
    fn joining(&self) -> impl Iterator<Item = MemberId> + '_ {
        let wanted = self.state.members().filter(|(_, row)| !row.leaving).map(|(member, _)| member);
        wanted.filter(|member| !self.votes(*member))
    }

    /// The active voter that holds most of the log, this one apart.
    fn successor(&self) -> Option<MemberId> {
        let leaving: Vec<MemberId> = self.leaving().collect();
        let fit =
            |peer: &&PeerProgress| peer.active && self.votes(peer.member) && !leaving.contains(&peer.member);
        self.status.peers.iter().filter(fit).max_by_key(|peer| peer.matched).map(|peer| peer.member)
    }
}

/// The next step towards what state wants; `None` when it is as wanted, or has to wait.
pub(crate) fn next_step(state: &State, status: &Status) -> Option<Step> {
    let wanted = Wanted { state, status };
    // Joining first: a replacement votes before the old one goes.
    if let Some(member) = wanted.joining().next() {
        let caught_up =
            || wanted.peer(member).is_some_and(|peer| peer.active && peer.matched >= status.commit);
        return match wanted.learns(member) {
            false => Some(Step::Change(MembershipChange::AddLearner(member))),
            true if caught_up() => Some(Step::Change(MembershipChange::Promote(member))),
            true => None,
        };
    }
    if let Some(member) = wanted.replaced().next() {
        return Some(Step::Retire(member));
    }
    let member = wanted.leaving().next()?;
    if member == status.member {
        return wanted.successor().map(Step::Transfer);
    }
    Some(Step::Change(MembershipChange::Remove(member)))
}

/// Whether a command about members may be decided now. `Ok` for every other command.
///
/// # Errors
/// A refusal that says what stands in the way.
pub(crate) fn check(state: &State, status: &Status, body: &command::Body) -> Result<(), Refusal> {
    let wanted = Wanted { state, status };
    if let command::Body::AddMember(add) = body {
        check_addition(&wanted, add.member, add.replaces)
    } else if let command::Body::RemoveMember(remove) = body {
        check_removal(&wanted, remove.member, remove.force)
    } else {
        Ok(())
    }
}

fn check_addition(wanted: &Wanted<'_>, member: MemberId, replaces: MemberId) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Code::MembershipRefused.refuse(message));
    if wanted.state.members().any(|(known, row)| known == member && !row.leaving) {
        // A repeat, or other addresses.
        return Ok(());
    }
    if replaces != 0 && !wanted.is_member(replaces) {
        return refuse(format!("member {replaces} is not of this cell: nothing to replace"));
    }
    if wanted.is_member(member) {
        return refuse(format!(
            "member {member} founded the cell: its addresses are in the members' configuration files"
        ));
    }
    one_at_a_time(wanted)
}

fn one_at_a_time(wanted: &Wanted<'_>) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Code::MembershipRefused.refuse(message));
    if let Some(member) = wanted.joining().next() {
        return refuse(format!(
            "member {member} is still joining: wait until it votes, or remove it (argosy member list shows how far it is)"
        ));
    }
    match wanted.leaving().chain(wanted.replaced()).next() {
        Some(member) => refuse(format!("member {member} is still leaving: wait until it is gone")),
        None => Ok(()),
    }
}

fn check_removal(wanted: &Wanted<'_>, member: MemberId, force: bool) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Code::MembershipRefused.refuse(message));
    if wanted.state.member_left(member) {
        return Ok(());
    }
    let joins = wanted.joining().any(|joining| joining == member);
    if !wanted.is_member(member) && !joins {
        return refuse(format!("member {member} is not of this cell: argosy member list shows who is"));
    }
    if joins {
        // It does not vote: nothing hangs on it.
        return Ok(());
    }
    one_at_a_time(wanted)?;
    let staying: Vec<MemberId> =
        wanted.status.voters.iter().copied().filter(|voter| *voter != member).collect();
    if staying.is_empty() {
        return refuse(format!("member {member} is the last one: a cell can't be without members"));
    }
    let active = staying.iter().filter(|voter| wanted.is_active(**voter)).count();
    let needed = staying.len() / 2 + 1;
    if active < needed && !force {
        return refuse(format!(
            "without member {member}, {} voters stay and {needed} of them are needed, but only {active} are in touch: \
             bring the others back first, or repeat it with --force",
            staying.len()
        ));
    }
    Ok(())
}

/// Whether leadership can go to this member now.
///
/// # Errors
/// A refusal that says why not.
pub(crate) fn check_transfer(status: &Status, to: MemberId) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Code::MembershipRefused.refuse(message));
    if !status.voters.contains(&to) {
        return refuse(format!(
            "member {to} does not vote, so it can't lead: argosy member list shows who does"
        ));
    }
    let Some(peer) = status.peers.iter().find(|peer| peer.member == to) else { return Ok(()) };
    if !peer.active {
        return refuse(format!("member {to} is not in touch with the leader: bring it back first"));
    }
    let behind = status.last_index.saturating_sub(peer.matched);
    if behind > CLOSE_BEHIND {
        return refuse(format!("member {to} is {behind} entries behind: wait until it has caught up"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use argosy_consensus::{Counters, PeerState, Role};
    use argosy_engine::{Draft, Leader, Position};
    use argosy_model::{Limits, LogTime};
    use argosy_proto::command::{AddMember, Command, RemoveMember};
    use argosy_proto::common::MemberAddresses;

    fn status(voters: &[u64], learners: &[u64], active: &[u64]) -> Status {
        let peer = |member: &u64| PeerProgress {
            member: *member,
            matched: 100,
            state: PeerState::Replicate,
            active: active.contains(member),
        };
        let others = voters.iter().chain(learners).filter(|member| **member != 1);
        Status {
            member: 1,
            role: Role::Leader,
            term: 2,
            leader: Some(1),
            ready_to_propose: true,
            commit: 100,
            applied: 100,
            applied_durable: 100,
            first_index: 1,
            last_index: 100,
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            installing: false,
            stopped: false,
            peers: others.map(peer).collect(),
            counters: Counters::default(),
        }
    }

    fn add(member: u64, replaces: u64) -> command::Body {
        let at = |port: u16| format!("argosy-{member}.example:{port}");
        let addresses = MemberAddresses { peer: at(2748), agent: at(2747), api: at(2746) };
        command::Body::AddMember(AddMember { member, addresses: Some(addresses), replaces })
    }

    fn remove(member: u64, force: bool) -> command::Body {
        command::Body::RemoveMember(RemoveMember { member, force })
    }

    fn decided(bodies: &[command::Body]) -> State {
        let mut draft = Draft::new(&State::new(), Position { incarnation: 1, index: 2 }, LogTime(1), 1);
        draft.create_cell("test", 1);
        let mut leader = Leader::new(Limits::default());
        for body in bodies {
            let command = Command { version: 1, idempotency_key: None, body: Some(body.clone()) };
            draft.command(&command, &mut leader).unwrap();
        }
        draft.finish().1
    }

    #[test]
    fn a_new_member_learns_first_and_votes_once_it_has_caught_up() {
        let state = decided(&[add(4, 0)]);
        let learner = Some(Step::Change(MembershipChange::AddLearner(4)));
        assert_eq!(next_step(&state, &status(&[1, 2, 3], &[], &[2, 3])), learner);
        let mut behind = status(&[1, 2, 3], &[4], &[2, 3, 4]);
        behind.peers[2].matched = 99;
        assert_eq!(next_step(&state, &behind), None);
        let caught_up = status(&[1, 2, 3], &[4], &[2, 3, 4]);
        assert_eq!(next_step(&state, &caught_up), Some(Step::Change(MembershipChange::Promote(4))));
        assert_eq!(next_step(&state, &status(&[1, 2, 3, 4], &[], &[2, 3, 4])), None);
    }

    #[test]
    fn a_replaced_member_leaves_after_its_replacement_votes() {
        let mut state = decided(&[add(4, 3)]);
        assert_eq!(
            next_step(&state, &status(&[1, 2, 3], &[], &[2])),
            Some(Step::Change(MembershipChange::AddLearner(4)))
        );
        let both = status(&[1, 2, 3, 4], &[], &[2, 4]);
        assert_eq!(next_step(&state, &both), Some(Step::Retire(3)));
        state = decided(&[add(4, 3), remove(3, true)]);
        assert_eq!(next_step(&state, &both), Some(Step::Change(MembershipChange::Remove(3))));
        assert_eq!(next_step(&state, &status(&[1, 2, 4], &[], &[2, 4])), None);
    }

    #[test]
    fn a_leader_that_leaves_hands_over_first() {
        let state = decided(&[remove(1, false)]);
        assert_eq!(next_step(&state, &status(&[1, 2, 3], &[], &[3])), Some(Step::Transfer(3)));
        assert_eq!(next_step(&state, &status(&[1, 2, 3], &[], &[])), None, "nobody could lead");
    }

    #[test]
    fn changes_that_would_stop_the_cell_are_refused() {
        let none = decided(&[]);
        let refused = |state: &State, status: &Status, body: &command::Body| {
            check(state, status, body).unwrap_err().message
        };
        let degraded = status(&[1, 2, 3], &[], &[3]);
        assert!(refused(&none, &degraded, &remove(3, false)).contains("only 1 are in touch"));
        assert!(check(&none, &degraded, &remove(3, true)).is_ok(), "forced");
        assert!(check(&none, &degraded, &remove(2, false)).is_ok(), "the lost one may go");
        assert!(refused(&none, &status(&[1], &[], &[]), &remove(1, true)).contains("last one"));
        assert!(refused(&none, &degraded, &remove(9, false)).contains("not of this cell"));
        assert!(refused(&none, &degraded, &add(4, 9)).contains("nothing to replace"));
        assert!(refused(&none, &degraded, &add(2, 0)).contains("founded"));
        let joining = decided(&[add(4, 0)]);
        assert!(refused(&joining, &degraded, &add(5, 0)).contains("still joining"));
        assert!(check(&joining, &degraded, &add(4, 0)).is_ok(), "a repeat");
        assert!(check(&joining, &degraded, &remove(4, false)).is_ok(), "it does not vote yet");
    }

    #[test]
    fn leadership_goes_to_a_voter_in_touch_only() {
        let mut cell = status(&[1, 2], &[3], &[2, 3]);
        assert!(check_transfer(&cell, 2).is_ok());
        assert!(check_transfer(&cell, 1).is_ok(), "it leads already");
        assert!(check_transfer(&cell, 3).unwrap_err().message.contains("does not vote"));
        cell.last_index = 100_000;
        assert!(check_transfer(&cell, 2).unwrap_err().message.contains("behind"));
        cell.peers[0].active = false;
        assert!(check_transfer(&cell, 2).unwrap_err().message.contains("in touch"));
    }
}
