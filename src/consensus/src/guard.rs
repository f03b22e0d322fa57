//! What a message of a peer must be before the Raft library sees it. The library trusts its peers: it panics on
//! messages that contradict its log, obeys some that only the own process may send, and takes term 0 for a local call.

use argosy_store::Kv;
use prost_for_raft::Message as RaftMessage;
use raft::eraftpb::{ConfState, EntryType, Message, MessageType};
use raft::{Raft, StateRole};

use crate::log::Log;
use crate::{MemberId, Refused};

/// Terms and indexes beyond it are refused, so that sums cannot overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// Decodes and checks what does not depend on this member's log.
pub(crate) fn decode(bytes: &[u8], from: MemberId, to: MemberId) -> Result<(Message, MessageType), Refused> {
    let message = Message::decode(bytes).map_err(|_| Refused::Malformed)?;
    let kind = MessageType::from_i32(message.msg_type).ok_or(Refused::Malformed)?;
    if message.entries.iter().any(|entry| EntryType::from_i32(entry.entry_type).is_none()) {
        return Err(Refused::Malformed);
    }
    if message.from != from {
        return Err(Refused::Sender);
    }
    if message.to != to {
        return Err(Refused::Recipient);
    }
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
    ];
    if numbers.into_iter().any(|number| number > NUMBER_MAX) {
        return Err(Refused::Impossible);
    }
    check_kind(&message, kind)?;
    Ok((message, kind))
}

fn check_kind(message: &Message, kind: MessageType) -> Result<(), Refused> {
    let has_term = message.term != 0;
    let fits = match kind {
        // Proposals are made on the leader alone: a forwarded one could be done twice.
        MessageType::MsgPropose
        | MessageType::MsgTransferLeader
        | MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => return Err(Refused::Kind),
        MessageType::MsgReadIndex => message.entries.len() == 1 && !has_term,
        MessageType::MsgReadIndexResp => message.entries.len() == 1 && has_term,
        MessageType::MsgAppend => has_term && entries_follow(message),
        MessageType::MsgSnapshot => has_term && snapshot_fits(message),
        MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => has_term && message.entries.is_empty(),
    };
    if !fits {
        return Err(Refused::Impossible);
    }
    if message.snapshot.is_some() && kind != MessageType::MsgSnapshot {
        return Err(Refused::Impossible);
    }
    Ok(())
}

fn entries_follow(message: &Message) -> bool {
    // The library has term 0 for entries that it does not hold: one at a place beyond the log would seem to fit.
    if (message.log_term == 0) != (message.index == 0) || message.log_term > message.term {
        return false;
    }
    let mut index = message.index;
    let mut term = message.log_term;
    message.entries.iter().all(|entry| {
        let follows = entry.index == index + 1 && entry.term >= term && entry.term <= message.term;
        (index, term) = (entry.index, entry.term);
        follows
    })
}

fn snapshot_fits(message: &Message) -> bool {
    let Some(metadata) = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()) else {
        return false;
    };
    let Some(conf) = &metadata.conf_state else { return false };
    message.entries.is_empty()
        && (1..NUMBER_MAX).contains(&metadata.index)
        && (1..=message.term).contains(&metadata.term)
        && conf_fits(conf)
}

/// A configuration that the library can restore.
fn conf_fits(conf: &ConfState) -> bool {
    let distinct = |members: &[u64]| {
        let mut members = members.to_vec();
        members.sort_unstable();
        !members.contains(&0) && members.windows(2).all(|pair| pair[0] != pair[1])
    };
    let lists = [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next];
    let voter = |member: &u64| conf.voters.contains(member) || conf.voters_outgoing.contains(member);
    !conf.voters.is_empty()
        && lists.into_iter().all(|list| distinct(list))
        && !conf.learners.iter().any(voter)
        && conf
            .learners_next
            .iter()
            .all(|member| conf.voters_outgoing.contains(member) && !conf.voters.contains(member))
        && (!conf.auto_leave || !conf.voters_outgoing.is_empty())
}

/// Checks what depends on the log and the part this member plays.
pub(crate) fn check_against<K: Kv>(
    message: &Message,
    kind: MessageType,
    raft: &Raft<Log<K>>,
    reads_max: usize,
) -> Result<(), Refused> {
    let leads = raft.state == StateRole::Leader;
    let last = raft.raft_log.last_index();
    let fits = match kind {
        // A leader knows what this member acknowledged: more means that this member lost its log, or that it lies.
        MessageType::MsgHeartbeat => message.commit <= last,
        // Two leaders of one term cannot be.
        MessageType::MsgAppend | MessageType::MsgSnapshot if leads => message.term != raft.term,
        MessageType::MsgAppendResponse if leads && message.term == raft.term => {
            // Who asks for a snapshot may hold entries of its own that were never committed.
            message.index <= last && (message.reject_hint <= last || message.request_snapshot != 0)
        }
        MessageType::MsgReadIndex if raft.pending_read_count() >= reads_max => return Err(Refused::Busy),
        MessageType::MsgReadIndex if !leads => return Err(Refused::Stale),
        MessageType::MsgReadIndexResp
        | MessageType::MsgAppend
        | MessageType::MsgAppendResponse
        | MessageType::MsgSnapshot
        | MessageType::MsgReadIndex
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => true,
        MessageType::MsgPropose
        | MessageType::MsgTransferLeader
        | MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => return Err(Refused::Kind),
    };
    if fits { Ok(()) } else { Err(Refused::Impossible) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Body};
    use crate::{Config, Consensus, LogTarget};
    use argosy_store::MemoryKv;
    use raft::eraftpb::{Entry, Snapshot, SnapshotMetadata};

    fn member() -> Consensus<MemoryKv> {
        let mut config = Config::new(1, "cell", vec![1, 2, 3]);
        config.log = LogTarget::Discard;
        Consensus::open(config, MemoryKv::new()).unwrap()
    }

    fn message(kind: MessageType) -> Message {
        Message { msg_type: kind as i32, from: 2, to: 1, term: 5, ..Message::default() }
    }

    fn send(message: &Message) -> Result<(), Refused> {
        let mut member = member();
        let bytes = wire::encode(wire::fingerprint("cell"), 2, 1, Body::Raft(message.encode_to_vec()));
        let taken = member.receive(2, &bytes);
        if taken.is_err() {
            assert_eq!(member.status().term, 1, "a refused message has no effect");
        }
        taken
    }

    fn append(index: u64, log_term: u64, entries: &[(u64, u64)]) -> Message {
        let entries = entries
            .iter()
            .map(|(index, term)| Entry { index: *index, term: *term, ..Entry::default() })
            .collect();
        Message { index, log_term, entries, commit: index, ..message(MessageType::MsgAppend) }
    }

    #[test]
    fn sound_messages_pass() {
        assert_eq!(send(&message(MessageType::MsgHeartbeat)), Ok(()));
        assert_eq!(send(&append(1, 1, &[(2, 1), (3, 5)])), Ok(()));
        assert_eq!(send(&message(MessageType::MsgRequestVote)), Ok(()));
    }

    #[test]
    fn what_peers_do_not_send_is_refused() {
        for kind in [
            MessageType::MsgHup,
            MessageType::MsgBeat,
            MessageType::MsgPropose,
            MessageType::MsgUnreachable,
            MessageType::MsgSnapStatus,
            MessageType::MsgCheckQuorum,
            MessageType::MsgTransferLeader,
        ] {
            assert_eq!(send(&message(kind)), Err(Refused::Kind), "{kind:?}");
        }
        let metadata = SnapshotMetadata {
            index: 9,
            term: 1,
            conf_state: Some(ConfState { voters: vec![1, 2, 3], ..ConfState::default() }),
        };
        let snapshot = Snapshot { metadata: Some(metadata), ..Snapshot::default() };
        let bare = Message { snapshot: Some(snapshot), ..message(MessageType::MsgSnapshot) };
        assert_eq!(send(&bare), Err(Refused::Kind), "a snapshot without its rows");
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |message: &Message| assert_eq!(send(message), Err(Refused::Impossible), "{message:?}");
        refused(&Message { term: 0, ..message(MessageType::MsgHeartbeat) });
        refused(&Message { term: u64::MAX, ..message(MessageType::MsgRequestVote) });
        refused(&Message { commit: 2, ..message(MessageType::MsgHeartbeat) });
        refused(&append(1, 1, &[(3, 1)]));
        refused(&append(1, 1, &[(2, 1), (2, 1)]));
        refused(&append(1, 1, &[(2, 6)]));
        refused(&append(1, 1, &[(2, 3), (3, 2)]));
        refused(&append(170, 0, &[]));
        refused(&append(0, 1, &[]));
        refused(&message(MessageType::MsgReadIndex));
        refused(&message(MessageType::MsgReadIndexResp));
        refused(&message(MessageType::MsgSnapshot));
    }

    #[test]
    fn unknown_numbers_are_refused() {
        assert_eq!(
            send(&Message { msg_type: 77, ..message(MessageType::MsgAppend) }),
            Err(Refused::Malformed)
        );
        let mut odd = append(1, 1, &[(2, 1)]);
        odd.entries[0].entry_type = 9;
        assert_eq!(send(&odd), Err(Refused::Malformed));
        assert_eq!(send(&Message { from: 3, ..message(MessageType::MsgAppend) }), Err(Refused::Sender));
        assert_eq!(send(&Message { to: 3, ..message(MessageType::MsgAppend) }), Err(Refused::Recipient));
    }

    #[test]
    fn configurations_that_cannot_be_are_refused() {
        let conf = |voters: &[u64], learners: &[u64]| ConfState {
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            ..ConfState::default()
        };
        assert!(conf_fits(&conf(&[1, 2], &[3])));
        for (voters, learners) in [(&[][..], &[1][..]), (&[1, 1], &[]), (&[0], &[]), (&[1, 2], &[2])] {
            assert!(!conf_fits(&conf(voters, learners)));
        }
        assert!(!conf_fits(&ConfState { auto_leave: true, ..conf(&[1], &[]) }));
        assert!(!conf_fits(&ConfState { learners_next: vec![2], ..conf(&[1], &[]) }));
    }
}
