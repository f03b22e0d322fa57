use std::collections::{BTreeMap, VecDeque};

use argosy_store::{Identity, Kv, claim};
use raft::eraftpb::MessageType;
use raft::{RawNode, ReadOnlyOption, StateRole};

use crate::jitter::Sequence;
use crate::log::Log;
use crate::receive::Receiving;
use crate::send::Sending;
use crate::wire::{self, Body};
use crate::{Config, Counters, Error, MemberId, ProposeError, Refused, Role, guard, logger};

/// The place of an entry in the log. An entry of another term at the same index is another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// What [`Consensus::process`] asks for or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send the message to the member; it may be lost, but should not be held up.
    Send {
        /// The recipient.
        to: MemberId,
        /// What [`Consensus::receive`] takes there.
        message: Vec<u8>,
    },
    /// This member's part or leader changed.
    Role(RoleChange),
    /// A read of this member may be answered from the state as it is now: everything that was committed when the read
    /// was asked for is applied.
    ReadReady {
        /// As given to [`Consensus::read_index`].
        context: u64,
        /// The index that had to be applied.
        index: u64,
    },
    /// A proposal of this member may or may not be committed: it does not lead any more. If it is, it is applied like
    /// any other entry, later.
    ProposalLost(LogPosition),
    /// A snapshot was installed, and the state machine was reloaded from it.
    Installed {
        /// Its index.
        index: u64,
    },
}

/// How this member's part changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleChange {
    /// It leads and has applied an entry of its own term: from here on it decides and proposes.
    Leading {
        /// Its term.
        term: u64,
    },
    /// It does not lead, or not yet. Always comes between two terms of leading.
    Following {
        /// Its term.
        term: u64,
        /// Who leads, if it is known.
        leader: Option<MemberId>,
    },
}

/// A member's part in the replicated log.
pub struct Consensus<K: Kv> {
    pub(crate) config: Config,
    pub(crate) raw: RawNode<Log<K>>,
    pub(crate) cell: u64,
    pub(crate) boots: u64,
    pub(crate) counters: Counters,
    /// Own proposals that are not applied, oldest first.
    pub(crate) pending: VecDeque<LogPosition>,
    pub(crate) announced: RoleChange,
    /// Reads that are not confirmed: our number of each, and the caller's context.
    reads_asked: BTreeMap<u64, u64>,
    read_count: u64,
    /// Confirmed reads whose index is not applied: context and index.
    pub(crate) reads_confirmed: Vec<(u64, u64)>,
    pub(crate) sending: BTreeMap<MemberId, Sending>,
    pub(crate) snapshot_count: u64,
    pub(crate) receiving: Option<Receiving>,
    /// The last snapshot that was taken or not needed, for acknowledging repeated chunks.
    pub(crate) received: Option<(MemberId, u64)>,
    /// Messages made outside of [`Consensus::process`].
    pub(crate) outbox: Vec<(MemberId, Body)>,
    jitter: Sequence,
    election_timeout: usize,
    jitter_of: (u64, Role),
    pub(crate) installing: bool,
    pub(crate) stopped: bool,
}

impl<K: Kv> Consensus<K> {
    /// Opens a member's log in `kv`; founds the cell on an empty store. Refuses the store of another member or cell.
    /// A snapshot that was being installed is installed to its end. Afterwards the caller loads its state machine from
    /// [`Consensus::kv`].
    pub fn open(config: Config, mut kv: K) -> Result<Self, Error> {
        config.check()?;
        claim(&mut kv, &Identity { cell: config.cell.clone(), member: config.member })?;
        let (mut log, half_installed, boots) = Log::open(&config, kv)?;
        let installing = match half_installed {
            Some(snapshot) => !crate::install::finish(&mut log, &snapshot)?,
            None => false,
        };
        let limits = &config.limits;
        let settings = raft::Config {
            id: config.member,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            // What is durably applied, not what is committed: entries between the two must be applied again. While
            // the rows are of a half-installed snapshot, nothing may be applied to them.
            applied: if installing { log.hard().commit } else { log.applied().index },
            max_size_per_msg: limits.append_bytes_max,
            max_inflight_msgs: limits.append_messages_max,
            check_quorum: true,
            pre_vote: true,
            // Entries for one follower that wait in one Ready travel in one message.
            batch_append: true,
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: limits.uncommitted_bytes_max,
            max_committed_size_per_ready: limits.apply_bytes_max,
            ..raft::Config::default()
        };
        let raw = RawNode::new(&settings, log, &logger::logger(config.log)).map_err(library_error)?;
        let term = raw.raft.term;
        let mut consensus = Self {
            cell: wire::fingerprint(&config.cell),
            jitter: Sequence::new(config.seed, config.member, boots),
            raw,
            boots,
            counters: Counters::default(),
            pending: VecDeque::new(),
            announced: RoleChange::Following { term, leader: None },
            reads_asked: BTreeMap::new(),
            read_count: 0,
            reads_confirmed: Vec::new(),
            sending: BTreeMap::new(),
            snapshot_count: 0,
            receiving: None,
            received: None,
            outbox: Vec::new(),
            election_timeout: 0,
            jitter_of: (term, Role::Follower),
            installing,
            stopped: false,
            config,
        };
        consensus.draw_timeout();
        Ok(consensus)
    }

    /// Time goes on by [`Config::tick_ms`]. After a stall, call it as often as [`crate::TickClock`] says, not more.
    pub fn tick(&mut self) {
        if self.stopped {
            return;
        }
        self.tick_snapshots();
        if self.installing {
            // Must not be elected: it could not apply anything.
            let _ = self.raw.request_snapshot();
            return;
        }
        let before = self.role();
        self.raw.tick();
        if self.role() != before && matches!(self.role(), Role::PreCandidate | Role::Leader) {
            self.counters.campaigns += 1;
        }
        self.steady_timeout();
    }

    /// Takes a message that the authenticated peer `from` sent. Any bytes are fine; what is refused had no effect.
    pub fn receive(&mut self, from: MemberId, message: &[u8]) -> Result<(), Refused> {
        let taken = self.take(from, message);
        match taken {
            Ok(()) => self.counters.messages_received += 1,
            Err(reason) => *self.counters.refused.entry(reason).or_default() += 1,
        }
        taken
    }

    fn take(&mut self, from: MemberId, message: &[u8]) -> Result<(), Refused> {
        if self.stopped {
            return Err(Refused::NotServing);
        }
        if message.len() > self.config.limits.message_bytes_max {
            return Err(Refused::TooLarge);
        }
        let body = wire::open(message, self.cell, from, self.config.member)?;
        // The library would take a vote request of a removed member, or of one that was never let in.
        if !self.is_member(from) {
            return Err(Refused::NotMember);
        }
        match body {
            Body::Raft(bytes) => {
                let (message, kind) = guard::decode(&bytes, from, self.config.member)?;
                if kind == MessageType::MsgSnapshot {
                    return Err(Refused::Kind);
                }
                if self.installing && matches!(kind, MessageType::MsgTimeoutNow | MessageType::MsgReadIndex) {
                    return Err(Refused::NotServing);
                }
                self.step(message, kind)
            }
            Body::Chunk(chunk) => self.receive_chunk(from, chunk),
            Body::Ack(ack) => self.receive_ack(from, &ack),
        }
    }

    pub(crate) fn step(&mut self, message: raft::eraftpb::Message, kind: MessageType) -> Result<(), Refused> {
        guard::check_against(&message, kind, &self.raw.raft, self.config.limits.reads_max)?;
        let stepped = self.raw.step(message);
        self.steady_timeout();
        match stepped {
            Ok(()) => Ok(()),
            Err(raft::Error::StepPeerNotFound) => Err(Refused::NotMember),
            Err(_) => Err(Refused::Stale),
        }
    }

    /// Whether `peer` is in the configuration, or is to be listened to all the same. A member that joins knows none.
    fn is_member(&self, peer: MemberId) -> bool {
        let tracker = self.raw.raft.prs();
        peer != self.config.member
            && (tracker.get(peer).is_some()
                || self.config.known_peers.contains(&peer)
                || tracker.conf().voters().ids().iter().next().is_none())
    }

    /// Proposes an entry. It is decided when it is applied at this position and term, or by [`Output::ProposalLost`].
    pub fn propose(&mut self, data: Vec<u8>) -> Result<LogPosition, ProposeError> {
        let max = self.config.limits.proposal_bytes_max;
        if data.is_empty() || data.len() > max {
            return Err(ProposeError::Size { bytes: data.len(), max });
        }
        self.may_propose()?;
        // The library takes a leader's proposal or refuses it at once: it never forwards it.
        self.raw.propose(Vec::new(), data).map_err(|_| ProposeError::Busy)?;
        let position = LogPosition { term: self.raw.raft.term, index: self.raw.raft.raft_log.last_index() };
        self.pending.push_back(position);
        self.counters.proposals += 1;
        Ok(position)
    }

    pub(crate) fn may_propose(&self) -> Result<(), ProposeError> {
        if self.stopped {
            return Err(ProposeError::Stopped);
        }
        if self.raw.raft.state != StateRole::Leader {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if !self.raw.raft.apply_to_current_term() {
            return Err(ProposeError::NotReady);
        }
        Ok(())
    }

    pub(crate) fn leads_ready(&self) -> bool {
        self.may_propose().is_ok()
    }

    /// The index the next proposal would get.
    pub fn next_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index() + 1
    }

    /// Asks for the moment from which a read on this member sees everything that was committed before. Answered by
    /// [`Output::ReadReady`] with `context`, or never: without a leader, from a leader that has committed nothing in
    /// its term yet, or when the message is lost. Ask again after some time.
    pub fn read_index(&mut self, context: u64) {
        if self.stopped || self.installing {
            return;
        }
        self.read_count += 1;
        self.reads_asked.insert(self.read_count, context);
        if self.reads_asked.len() > self.config.limits.reads_max {
            self.reads_asked.pop_first();
            self.counters.reads_dropped += 1;
        }
        // Equal contexts of two members, or of a member before and after a restart, must not answer each other.
        let parts = [self.config.member, self.boots, self.read_count];
        self.raw.read_index(parts.iter().flat_map(|part| part.to_be_bytes()).collect());
    }

    /// A confirmation of a read came in, maybe repeated or not ours.
    pub(crate) fn read_confirmed(&mut self, index: u64, context: &[u8]) {
        let parts: Vec<u64> = context
            .chunks_exact(8)
            .map(|bytes| bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
            .collect();
        if let [member, boots, count] = parts.as_slice()
            && (*member, *boots) == (self.config.member, self.boots)
            && let Some(asked) = self.reads_asked.remove(count)
        {
            if self.reads_confirmed.len() < self.config.limits.reads_max {
                self.reads_confirmed.push((asked, index));
            } else {
                self.counters.reads_dropped += 1;
            }
        }
    }

    /// The connection to `peer` broke, or a message to it was dropped: send it less until it is heard from.
    pub fn unreachable(&mut self, peer: MemberId) {
        if !self.stopped {
            self.raw.report_unreachable(peer);
        }
    }

    /// The store, for reading.
    pub fn kv(&self) -> &K {
        self.raw.store().kv()
    }

    /// Gives the store back.
    pub fn into_kv(self) -> K {
        // The library holds the store; taken apart, since it has no call for it.
        self.raw.raft.r.raft_log.store.into_kv()
    }

    pub(crate) fn log(&mut self) -> &mut Log<K> {
        self.raw.mut_store()
    }

    /// The library draws its own timeout whenever its term or part changes: ours is put in its place. The draw depends
    /// on the term and the part only, so that a seed replays.
    pub(crate) fn steady_timeout(&mut self) {
        let now = (self.raw.raft.term, self.role());
        if now != self.jitter_of {
            self.jitter_of = now;
            self.draw_timeout();
        }
        self.raw.raft.set_randomized_election_timeout(self.election_timeout);
    }

    fn draw_timeout(&mut self) {
        let ticks = self.config.election_ticks;
        self.election_timeout = ticks + self.jitter.below(ticks as u64) as usize;
        self.raw.raft.set_randomized_election_timeout(self.election_timeout);
    }
}

pub(crate) fn library_error(error: raft::Error) -> Error {
    Error::Library { message: error.to_string() }
}
