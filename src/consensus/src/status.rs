use std::collections::BTreeMap;

use raft::{ProgressState, StateRole};

use crate::{Consensus, MemberId, Refused};
use argosy_store::Kv;

/// The part a member plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// What a member's consensus knows.
#[derive(Clone, Debug)]
pub struct Status {
    /// This member.
    pub member: MemberId,
    /// Its part.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader of the term, if it is known.
    pub leader: Option<MemberId>,
    /// Whether it leads and has applied an entry of its own term: only then it may decide and propose.
    pub ready_to_propose: bool,
    /// Index up to which entries are committed.
    pub commit: u64,
    /// Index up to which entries are applied.
    pub applied: u64,
    /// Index up to which the effect of applied entries survives a loss of power.
    pub applied_durable: u64,
    /// The first entry that is still in the log.
    pub first_index: u64,
    /// The last entry.
    pub last_index: u64,
    /// Members that vote.
    pub voters: Vec<MemberId>,
    /// Members that do not vote.
    pub learners: Vec<MemberId>,
    /// A snapshot is half installed and could not be finished: the member serves nothing.
    pub installing: bool,
    /// An earlier call failed: the store must be opened again.
    pub stopped: bool,
    /// On the leader: how far the other members are.
    pub peers: Vec<PeerProgress>,
    /// Counts since the start.
    pub counters: Counters,
}

/// How far a member is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The member.
    pub member: MemberId,
    /// The last entry it is known to hold.
    pub matched: u64,
    /// How it is being fed.
    pub state: PeerState,
    /// Whether it was heard from in the current election timeout.
    pub active: bool,
}

/// How a leader feeds a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Looking for the last common entry.
    Probe,
    /// Sending entries as they come.
    Replicate,
    /// Sending a snapshot.
    Snapshot,
}

/// Counts since the start of the member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Proposals taken.
    pub proposals: u64,
    /// Own proposals whose outcome became unknown.
    pub proposals_lost: u64,
    /// Entries applied, without empty ones.
    pub entries_applied: u64,
    /// Synced writes.
    pub syncs: u64,
    /// Elections this member began.
    pub campaigns: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Messages taken.
    pub messages_received: u64,
    /// Messages dropped, by reason.
    pub refused: BTreeMap<Refused, u64>,
    /// Snapshots begun to be sent.
    pub snapshots_begun: u64,
    /// Snapshots whose sending was given up.
    pub snapshots_failed: u64,
    /// Chunks of snapshots sent, with repetitions.
    pub snapshot_chunks_sent: u64,
    /// Snapshots installed.
    pub snapshots_installed: u64,
    /// Reads forgotten because too many waited.
    pub reads_dropped: u64,
    /// Times the log was compacted.
    pub compactions: u64,
}

impl<K: Kv> Consensus<K> {
    /// What this member knows now.
    pub fn status(&self) -> Status {
        let raft = &self.raw.raft;
        let log = raft.store();
        let conf = log.conf_state();
        let leads = raft.state == StateRole::Leader;
        let peers = raft.prs().iter().filter(|(id, _)| leads && **id != self.config.member);
        let mut peers: Vec<PeerProgress> = peers
            .map(|(id, progress)| PeerProgress {
                member: *id,
                matched: progress.matched,
                state: match progress.state {
                    ProgressState::Probe => PeerState::Probe,
                    ProgressState::Replicate => PeerState::Replicate,
                    ProgressState::Snapshot => PeerState::Snapshot,
                },
                active: progress.recent_active,
            })
            .collect();
        peers.sort_unstable_by_key(|peer| peer.member);
        Status {
            member: self.config.member,
            role: self.role(),
            term: raft.term,
            leader: self.leader(),
            ready_to_propose: self.leads_ready(),
            commit: raft.raft_log.committed,
            applied: log.applied().index,
            applied_durable: log.applied_durable(),
            first_index: log.first(),
            last_index: raft.raft_log.last_index(),
            voters: conf.voters.clone(),
            learners: conf.learners.clone(),
            installing: self.installing,
            stopped: self.stopped,
            peers,
            counters: self.counters.clone(),
        }
    }

    /// Term and vote as they are in the store: what a restart begins with.
    pub fn vote(&self) -> (u64, Option<MemberId>) {
        let hard = self.raw.store().hard();
        (hard.term, Some(hard.vote).filter(|vote| *vote != raft::INVALID_ID))
    }

    /// Index up to which entries are applied.
    pub fn applied_index(&self) -> u64 {
        self.raw.raft.store().applied().index
    }

    pub(crate) fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    pub(crate) fn leader(&self) -> Option<MemberId> {
        Some(self.raw.raft.leader_id).filter(|leader| *leader != raft::INVALID_ID)
    }
}
