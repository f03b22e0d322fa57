//! What only a leader has: the state that runs ahead of commit, the commands that wait for a decision, the agents'
//! sessions and log time. It is dropped whole on stepping down.

use argosy_consensus::{Consensus, LogPosition};
use argosy_engine::{Draft, Leader, Position, State};
use argosy_link::control::Sessions;
use argosy_model::planted::{Bug, is_planted};
use argosy_model::{LogTime, MemberId};
use argosy_proto::command::{Command, Done, Refusal, RemoveMember, Reply, command, reply};
use argosy_store::Kv;
use prost::Message;
use std::collections::VecDeque;

use crate::clock::{LogClock, Now};
use crate::config::Config;
use crate::machine::{self, Machine, Pending};
use crate::membership;
use crate::sessions::SessionCommand;

/// Bytes of the archive that are read for one decision: it holds up all others.
const DECISION_READ_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Of a new cell; restore and unsafe recovery raise it.
pub(crate) const FIRST_INCARNATION: u64 = 1;

/// The incarnation after a recovery; 0 if there was none.
fn risen(history_floor: u64) -> u64 {
    if history_floor == 0 || is_planted(Bug::IncarnationKept) { 0 } else { history_floor + 1 }
}

/// Who waits for a decision.
#[derive(Clone, Debug)]
pub(crate) enum Waiter {
    /// A client of this member.
    Client { request: u64, command: Command },
    /// A client of another member.
    Peer { member: MemberId, request: u64, command: Command },
    /// The sessions of the agents.
    Session(SessionCommand),
    /// The leader itself: whatever comes of it.
    Own(Command),
}

impl Waiter {
    /// What is to be decided.
    pub fn command(&self) -> &Command {
        match self {
            Self::Client { command, .. } | Self::Peer { command, .. } | Self::Own(command) => command,
            Self::Session(session) => &session.command,
        }
    }
}

/// An answer that may leave once what its decision read is committed and leadership is confirmed.
pub(crate) type Answer = (Waiter, Result<Reply, Refusal>);

pub(crate) struct Leading {
    pub term: u64,
    clock: LogClock,
    /// Committed state plus every pending batch.
    pub speculative: State,
    pub engine: Leader,
    pub sessions: Sessions,
    pub queue: VecDeque<Waiter>,
    /// A member whose replacement votes: the next batch says that it leaves.
    pub retiring: Option<MemberId>,
    /// Leadership goes there once what was decided before is in the log: during a transfer it takes nothing.
    pub transfer: Option<MemberId>,
    /// The incarnation has to exceed it before anything is decided.
    history_floor: u64,
    next_batch: u64,
    /// When agents may be asked again for what their clusters have.
    pub ask_again_ms: u64,
    pub agent_clocks: crate::agent_clocks::AgentClocks,
    /// When the agent of a drilled cluster is told again what to do.
    pub order_again_ms: u64,
}

/// What a round of deciding came to.
#[derive(Default)]
pub(crate) struct Decided {
    /// Answers that depend on no new facts; the state they read may still be uncommitted.
    pub unbacked: Vec<Answer>,
    pub proposed: bool,
    /// Only with a planted bug: answers that leave before their commit.
    pub early: Vec<Answer>,
    pub refusals: u64,
    pub commands: u64,
    /// Counted units of work.
    pub work: u64,
}

impl Leading {
    /// Leadership begins: an entry of the own term is applied. Log time goes on from the log's, take-over clocks start
    /// in full.
    pub fn new(term: u64, committed: &State, config: &Config, history_floor: u64, now: Now) -> Self {
        let clock = LogClock::begin(committed.log_time(), now, config.log_time_jump_max_ms);
        Self {
            term,
            clock,
            speculative: committed.clone(),
            engine: Leader::new(config.engine_limits())
                .with_artifact_repository(config.artifact_repository.clone())
                .with_cluster_stores(config.cluster_stores.clone())
                .with_store_clusters(config.store_clusters.clone(), config.refuge_repository.clone())
                .with_defaults(config.workflow_defaults.clone()),
            sessions: Sessions::new(
                config.cell.clone(),
                // Agents are welcomed after the number has risen.
                committed.incarnation().max(FIRST_INCARNATION).max(risen(history_floor)),
                config.times,
                config.link_limits,
            ),
            queue: VecDeque::new(),
            retiring: None,
            transfer: None,
            history_floor,
            next_batch: 0,
            ask_again_ms: 0,
            agent_clocks: crate::agent_clocks::AgentClocks::default(),
            order_again_ms: 0,
        }
    }

    /// Batch ids tell apart batches of one term; the term is in the log position.
    fn batch_id(&mut self) -> u64 {
        self.next_batch += 1;
        self.next_batch
    }

    /// How far the first stamp of the term was held back because the wall clock is far ahead, milliseconds.
    pub fn held_back_ms(&self) -> i64 {
        self.clock.held_back_ms
    }

    /// Log time now; never behind the state it will follow.
    pub fn log_time(&self, now: Now) -> LogTime {
        self.clock.at(now).max(self.speculative.log_time())
    }

    /// Decides what waits, in batches, until nothing is left or as many batches as allowed are in flight.
    pub fn decide<K: Kv>(
        &mut self,
        now: Now,
        consensus: &mut Consensus<K>,
        machine: &mut Machine,
        config: &Config,
    ) -> Decided {
        let mut decided = Decided::default();
        while self.has_work(now)
            && machine.pending.len() < config.batches_in_flight_max
            && self.decide_batch(now, consensus, machine, config, &mut decided)
        {}
        decided
    }

    /// Commands wait, the engine has work, or a timer is due.
    pub fn has_work(&self, now: Now) -> bool {
        !self.queue.is_empty()
            || self.retiring.is_some()
            || self.speculative.incarnation() < risen(self.history_floor).max(FIRST_INCARNATION)
            || self.speculative.has_work()
            || self.speculative.next_timer().is_some_and(|due| due <= self.log_time(now))
    }

    /// Makes and proposes one batch; false when there was nothing to propose or the proposal did not enter the log.
    fn decide_batch<K: Kv>(
        &mut self,
        now: Now,
        consensus: &mut Consensus<K>,
        machine: &mut Machine,
        config: &Config,
        decided: &mut Decided,
    ) -> bool {
        let follows = self.speculative.sequence();
        let incarnation = self.speculative.incarnation().max(FIRST_INCARNATION);
        let position = Position { incarnation, index: consensus.next_index() };
        let id = self.batch_id();
        let mut draft = Draft::new(&self.speculative, position, self.log_time(now), id);
        let full = |draft: &Draft, share: u32| {
            draft.bytes() >= config.limits.batch_bytes_max / 2
                || draft.work() >= config.limits.decide_work_max / share
        };
        draft.create_cell(&config.cell, FIRST_INCARNATION);
        let recovers = draft.state.incarnation() < risen(self.history_floor);
        if recovers {
            draft.raise_incarnation(self.history_floor);
        }
        if !recovers && let Some(member) = self.retiring.take() {
            let remove = command::Body::RemoveMember(RemoveMember { member, force: true });
            let command = Command { version: 1, idempotency_key: None, body: Some(remove) };
            if let Err(refusal) = draft.command(&command, &mut self.engine) {
                tracing::warn!(member, refusal.message, "a replaced member can't be let go");
            }
        }
        let mut answers = Vec::new();
        // Half of the work is left for what is under way, however many commands come.
        while !recovers && !full(&draft, 2) {
            let Some(waiter) = self.queue.pop_front() else { break };
            if let Some(workflow) = draft.need(waiter.command()) {
                // What can't be read now is refused by the decision; a disk that fails shows in the next write.
                let bytes_max = config.limits.archive_read_bytes_max.min(DECISION_READ_BYTES_MAX);
                if let Ok(records) = machine::read_archived(consensus.kv(), workflow, bytes_max) {
                    self.engine.give_archived(workflow, records);
                }
            }
            let answer = self.answer(&mut draft, &waiter, consensus);
            decided.commands += 1;
            decided.refusals += u64::from(answer.is_err());
            answers.push((waiter, answer));
        }
        // Once: what it leaves waits for the next batch. It may leave work although the batch is not full.
        if !recovers && !full(&draft, 1) {
            draft.advance(&mut self.engine);
        }
        if draft.is_empty() {
            decided.unbacked.append(&mut answers);
            return !self.queue.is_empty();
        }
        decided.work += u64::from(draft.work());
        let (batch, state, changes) = draft.finish();
        let readings = argosy_engine::readings(&state, &batch, &mut self.engine);
        let bytes = batch.encode_to_vec();
        let size = bytes.len();
        match consensus.propose(bytes) {
            Ok(at) if at == (LogPosition { term: self.term, index: position.index }) => {
                self.speculative = state.clone();
                let proposed_at_ms = now.steady_ms;
                if is_planted(Bug::ReplyBeforeCommit) {
                    decided.early.append(&mut answers);
                }
                let pending =
                    Pending { at, follows, state, changes, answers, readings, bytes: size, proposed_at_ms };
                machine.pending.push_back(pending);
                decided.proposed = true;
                true
            }
            Ok(at) => {
                // The entry is in the log at another place than its fences name: every member voids it.
                tracing::warn!(
                    index = at.index,
                    expected = position.index,
                    "a batch landed elsewhere and is void"
                );
                self.keep_dropped(state);
                self.requeue(answers);
                true
            }
            Err(error) => {
                // Not in the log: decided again when an acknowledgement made room, or dropped with the leadership.
                tracing::debug!(%error, "a batch was not taken by the log");
                self.keep_dropped(state);
                self.requeue(answers);
                false
            }
        }
    }

    /// What was decided for a batch that was dropped is forgotten, but for a planted bug.
    fn keep_dropped(&mut self, state: State) {
        if is_planted(Bug::DroppedStays) {
            self.speculative = state;
        }
    }

    fn answer<K: Kv>(
        &mut self,
        draft: &mut Draft,
        waiter: &Waiter,
        consensus: &Consensus<K>,
    ) -> Result<Reply, Refusal> {
        match &waiter.command().body {
            Some(command::Body::TransferLeadership(transfer)) => {
                membership::check_transfer(&consensus.status(), transfer.to)?;
                self.transfer = Some(transfer.to);
                Ok(Reply { body: Some(reply::Body::Done(Done {})) })
            }
            Some(body @ (command::Body::AddMember(_) | command::Body::RemoveMember(_))) => {
                membership::check(&draft.state, &consensus.status(), body)?;
                draft.command(waiter.command(), &mut self.engine)
            }
            _ => draft.command(waiter.command(), &mut self.engine),
        }
    }

    /// Puts waiters back to the front, in their order.
    pub fn requeue(&mut self, answers: Vec<Answer>) {
        self.requeue_waiters(answers.into_iter().map(|(waiter, _)| waiter).collect());
    }

    /// Puts waiters back to the front, in their order.
    pub fn requeue_waiters(&mut self, waiters: Vec<Waiter>) {
        for waiter in waiters.into_iter().rev() {
            self.queue.push_front(waiter);
        }
    }

    /// A pending batch failed: everything that was decided on top of it is decided again.
    pub fn discard_overlay(&mut self, machine: &mut Machine) {
        self.speculative = machine.state.clone();
        let waiters = machine.pending.drain(..).flat_map(|pending| pending.answers).map(|(waiter, _)| waiter);
        let waiters = waiters.collect();
        self.requeue_waiters(waiters);
    }
}
