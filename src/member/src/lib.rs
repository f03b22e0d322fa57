//! One control-plane member as a machine: committed state, the leader's overlay, consensus, agents' sessions, the
//! commands and reads that wait.
//!
//! `handle(now, input)` takes what happened, `flush(now)` decides, persists, applies and returns what is to be done.
//! Whoever owns the machine carries frames and clocks: `server` on one thread of its own, `chaos` many in one thread.
//! Inputs that arrive together should be handled together before one flush: that is the group commit.
//!
//! What it does not do: no sockets, no clock, no randomness, no certificates, no HTTP, no semantics of workflows (the
//! engine's).
//!
//! Invariants:
//! - No answer, with or without facts, leaves before the state that its decision read is committed and leadership is
//!   confirmed: by the answer's own batch, by a later one, or by a quorum round that began after the decision.
//! - Nothing is decided before an entry of the own term is applied.
//! - A batch that is dropped or void discards the overlay; a lost leadership makes its callers' outcome *unknown*.
//! - Effects (assignments, verdicts, sessions) derive from committed state only.
//!
//! Failure model: a crash at any instant loses what was not synced, never what was answered. Frames may be lost, late
//! or doubled. An error from [`Member::flush`] means the disk failed or a fact is unknown: the process must end; what is
//! durable stays valid.

mod agent_clocks;
pub mod backup;
mod clock;
mod config;
mod drill;
mod error;
mod forward;
mod io;
mod leading;
mod machine;
mod membership;
mod news;
mod reads;
mod sessions;
mod summary;

pub use clock::Now;
pub use config::Config;
pub use error::Error;
pub use io::{Counters, Input, MemberStatus, Outcome, Output};

use argosy_consensus::{Consensus, RoleChange, TickClock};
use argosy_engine::State;
use argosy_link::control;
use argosy_model::planted::{Bug, is_planted};
use argosy_model::{MemberId, WorkflowId, WorkflowKey};
use argosy_proto::peer::{PeerFrame, peer_frame};
use argosy_store::Kv;
use leading::Leading;
use machine::{Happened, Machine};
use reads::{Reads, Waiting};
use std::collections::BTreeSet;

/// Rounds of deciding and applying in one flush; what is left waits for the next, so that inputs get their turn.
const ROUNDS_PER_FLUSH_MAX: usize = 16;

/// One control-plane member.
pub struct Member<K: Kv> {
    config: Config,
    consensus: Consensus<K>,
    machine: Machine,
    leading: Option<Leading>,
    known_leader: Option<MemberId>,
    connections: sessions::Connections,
    forwards: forward::Forwards,
    reads: Reads,
    summaries: summary::Summaries,
    outputs: Vec<Output>,
    counters: Counters,
    ticks: TickClock,
    next_tick_ms: u64,
    published: State,
    /// See [`argosy_consensus::history_floor`].
    history_floor: u64,
    /// The wall clock as it was told last.
    wall_ms: i64,
}

impl<K: Kv> Member<K> {
    /// Opens a member over its store: loads state, and takes part in the cell from the first flush on.
    ///
    /// # Errors
    /// The store can't be read, belongs to another cell or member, or holds state of a newer version.
    pub fn open(config: Config, kv: K, now: Now) -> Result<Self, Error> {
        let consensus = Consensus::open(config.consensus.clone(), kv).map_err(Error::consensus)?;
        let history_floor = argosy_consensus::history_floor(consensus.kv()).map_err(Error::consensus)?;
        let mut machine = Machine::new();
        machine.state = machine::load(consensus.kv())?;
        machine.applied.index = consensus.applied_index();
        let published = machine.state.clone();
        Ok(Self {
            reads: Reads::new(config.member),
            consensus,
            machine,
            leading: None,
            known_leader: None,
            connections: sessions::Connections::new(),
            forwards: forward::Forwards::default(),
            summaries: summary::Summaries::default(),
            outputs: Vec::new(),
            counters: Counters::default(),
            ticks: TickClock::new(&config.consensus, now.steady_ms),
            next_tick_ms: now.steady_ms + config.tick_ms,
            published,
            history_floor,
            wall_ms: now.wall_ms,
            config,
        })
    }

    /// When [`Self::flush`] is needed next even without input, by the steady clock.
    #[must_use]
    pub fn next_tick_ms(&self) -> u64 {
        self.next_tick_ms
    }

    /// Committed state of this member.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.machine.state
    }

    /// Index of the last applied entry.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.consensus.applied_index()
    }

    /// Whether the leader's overlay is committed state with the batches in flight, and nothing else. True of a member that
    /// does not lead: it has none.
    #[must_use]
    pub fn is_overlay_true(&self) -> bool {
        let Some(leading) = &self.leading else { return true };
        let expected = self.machine.pending.back().map_or(&self.machine.state, |pending| &pending.state);
        leading.speculative.hash() == expected.hash()
    }

    /// Term and vote as they are in the store.
    #[must_use]
    pub fn vote(&self) -> (u64, Option<MemberId>) {
        self.consensus.vote()
    }

    /// Gives the store back, as after a stop.
    #[must_use]
    pub fn into_kv(self) -> K {
        self.consensus.into_kv()
    }

    /// A consistent copy of everything that is replicated, as this member has applied it.
    ///
    /// # Errors
    /// The disk failed; the member goes on.
    pub fn checkpoint(&self) -> Result<Box<dyn argosy_store::Checkpoint>, argosy_store::Error> {
        self.consensus.kv().checkpoint(&argosy_store::Family::DATA)
    }

    /// How the member stands.
    #[must_use]
    pub fn status(&self, now: Now) -> MemberStatus {
        let consensus = self.consensus.status();
        let sessions = self
            .leading
            .as_ref()
            .map_or_else(Vec::new, |leading| leading.sessions.clusters(now.steady_ms).collect());
        MemberStatus {
            ready: !consensus.installing && self.leader().is_some(),
            applied_index: consensus.applied,
            commands_waiting: self.leading.as_ref().map_or(0, |leading| leading.queue.len()),
            batches_in_flight: self.machine.pending.len(),
            link: self.leading.as_ref().map(|leading| *leading.sessions.counters()),
            cron_policies: self
                .leading
                .as_ref()
                .map(|leading| leading.engine.cron_policies().clone())
                .unwrap_or_default(),
            storm: self.storm_known(now),
            connections: self.connections.len(),
            sessions,
            sessions_known: self.sessions_known(now),
            counters: self.counters.clone(),
            consensus,
        }
    }

    /// Takes an input. Cheap; what follows from it happens in [`Self::flush`].
    pub fn handle(&mut self, now: Now, input: Input) {
        self.wall_ms = now.wall_ms;
        match input {
            Input::Peer { from, frame } => self.peer_frame(now, from, frame),
            Input::PeerUnreachable(peer) => self.consensus.unreachable(peer),
            Input::Command { request, command } => self.client_command(now, request, command),
            Input::Read { request } if is_planted(Bug::ReadWithoutQuorum) => {
                let state = Some(self.machine.state.clone());
                self.outputs.push(Output::Read { request, state });
            }
            Input::Read { request } => {
                if self.reads.len() >= self.config.reads_max {
                    self.counters.overloaded += 1;
                    self.outputs.push(Output::Read { request, state: None });
                } else {
                    self.reads.add(Waiting::Client { request });
                }
            }
            Input::Archived { request, workflow } => {
                let bytes_max = self.config.limits.archive_read_bytes_max;
                let records = machine::read_archived(self.consensus.kv(), workflow, bytes_max);
                let records = records.unwrap_or_else(|error| {
                    tracing::error!(%error, workflow, "the archive cannot be read");
                    Some(Vec::new())
                });
                self.outputs.push(Output::Archived { request, records });
            }
            Input::AgentOpened { .. } | Input::AgentFrame { .. } | Input::AgentClosed { .. } => {
                self.agent_input(now, input);
            }
        }
    }

    fn peer_frame(&mut self, now: Now, from: MemberId, frame: PeerFrame) {
        match frame.body {
            Some(peer_frame::Body::Consensus(message)) => {
                if let Err(refused) = self.consensus.receive(from, &message) {
                    self.drop_peer_frame(refused.name());
                }
            }
            Some(peer_frame::Body::AgentUp(up)) => self.agent_up(now, from, up),
            Some(peer_frame::Body::AgentDown(down)) => self.agent_down(down),
            Some(peer_frame::Body::AgentClosed(closed)) => self.relayed_close(now, from, &closed),
            Some(peer_frame::Body::Forward(forward)) => self.forwarded(now, from, forward),
            Some(peer_frame::Body::ForwardReply(reply)) => self.forward_reply(reply),
            Some(peer_frame::Body::SessionSummary(summary)) => self.sessions_told(now, from, summary),
            None => self.drop_peer_frame("empty"),
        }
    }

    fn drop_peer_frame(&mut self, reason: &'static str) {
        *self.counters.peer_frames_dropped.entry(reason).or_default() += 1;
    }

    fn send_peer(&mut self, to: MemberId, body: peer_frame::Body) {
        self.outputs.push(peer_output(&self.config, to, body));
    }

    /// The leader, as far as this member knows.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        self.known_leader
    }

    /// Decides, persists, applies; returns what is to be done. To be called after inputs, and at
    /// [`Self::next_tick_ms`].
    ///
    /// # Errors
    /// The member can't go on: see the failure model above.
    pub fn flush(&mut self, now: Now) -> Result<Vec<Output>, Error> {
        let mut outputs = Vec::new();
        self.flush_into(now, &mut |output| outputs.push(output))?;
        Ok(outputs)
    }

    /// Like [`Self::flush`], with each output handed over as soon as it is safe: a leader's frames are on their way to
    /// its followers while its own disk syncs, and answers don't wait for later rounds.
    ///
    /// # Errors
    /// As [`Self::flush`]. What was handed over before stays valid.
    pub fn flush_into(&mut self, now: Now, sink: &mut dyn FnMut(Output)) -> Result<(), Error> {
        self.wall_ms = now.wall_ms;
        self.tick(now);
        for _ in 0..ROUNDS_PER_FLUSH_MAX {
            self.poll_reads(now);
            let decided = self.decide(now);
            let happened = self.apply(now, sink)?;
            self.outputs.drain(..).for_each(&mut *sink);
            if !decided && !happened {
                self.next_tick_ms = self.next_tick_ms.min(now.steady_ms + self.config.tick_ms);
                return Ok(());
            }
        }
        // There is more to do than one flush should; acknowledgements, by contrast, wake the member by themselves.
        self.next_tick_ms = now.steady_ms;
        Ok(())
    }

    /// Late ticks are not made up for one by one: a stalled member must not start an election against a healthy leader.
    fn tick(&mut self, now: Now) {
        if now.steady_ms < self.next_tick_ms {
            return;
        }
        for _ in 0..self.ticks.ticks_due(now.steady_ms) {
            self.consensus.tick();
        }
        self.next_tick_ms = now.steady_ms + self.config.tick_ms;
        self.session_step(now, control::Input::Tick);
        self.change_members();
        self.expire_forwards(now);
        self.tell_sessions(now);
        self.ask_prerequisites(now);
        self.drill_orders(now);
    }

    /// As leader, takes the next step towards the members that committed state wants.
    fn change_members(&mut self) {
        let Some(leading) = &mut self.leading else { return };
        if self.machine.state.members().next().is_none() {
            return;
        }
        let step = membership::next_step(&self.machine.state, &self.consensus.status());
        let done = match step {
            None => return,
            Some(membership::Step::Change(change)) => self.consensus.change_membership(change).map(drop),
            Some(membership::Step::Transfer(to)) => self.consensus.transfer_leadership(to),
            Some(membership::Step::Retire(member)) => {
                leading.retiring = Some(member);
                return;
            }
        };
        match done {
            Ok(()) => tracing::info!(?step, "changing the members"),
            // Another change is under way, or a transfer; tried again at the next tick.
            Err(error) => tracing::debug!(?step, %error, "the members can't be changed yet"),
        }
    }

    fn poll_reads(&mut self, now: Now) {
        let (ask, given_up) =
            self.reads.poll(now.steady_ms, self.config.read_retry_ms, self.config.read_timeout_ms);
        for context in ask {
            self.consensus.read_index(context);
        }
        for waiting in given_up {
            match waiting {
                Waiting::Client { request } => self.outputs.push(Output::Read { request, state: None }),
                Waiting::Answers { answers, .. } => self.answer_unknown(now, answers),
                // The sessions ask again by themselves.
                Waiting::Renewals { .. } => {}
            }
        }
    }

    fn decide(&mut self, now: Now) -> bool {
        let Some(leading) = &mut self.leading else { return false };
        let before = leading.speculative.clone();
        let mut decided = leading.decide(now, &mut self.consensus, &mut self.machine, &self.config);
        let term = leading.term;
        let removing = leading.speculative.clusters_removed_since(&before);
        if let Some(to) = leading.transfer.take().filter(|to| *to != self.config.member)
            && let Err(error) = self.consensus.transfer_leadership(to)
        {
            tracing::warn!(to, %error, "leadership can't be handed over now");
        }
        for cluster in removing {
            self.session_step(now, control::Input::ClusterRemoving { cluster });
        }
        for (waiter, answer) in std::mem::take(&mut decided.early) {
            self.answer(now, &waiter, answer);
        }
        self.counters.commands += decided.commands;
        self.counters.refusals += decided.refusals;
        self.counters.work += decided.work;
        self.counters.proposals += u64::from(decided.proposed);
        if decided.unbacked.is_empty() {
            return decided.proposed;
        }
        // What they read may be uncommitted: they leave with the last batch in flight, or after a quorum round.
        match self.machine.pending.back_mut() {
            Some(pending) => pending.answers.extend(decided.unbacked),
            None => {
                let waiting = Waiting::Answers { term, answers: decided.unbacked };
                self.reads.add(waiting);
                self.poll_reads(now);
            }
        }
        true
    }

    /// Lets consensus persist and apply, and acts on what came of it.
    fn apply(&mut self, now: Now, sink: &mut dyn FnMut(Output)) -> Result<bool, Error> {
        let (mut outputs, mut sent, config) = (Vec::new(), false, &self.config);
        let processed = self.consensus.process_into(&mut self.machine, &mut |output| match output {
            argosy_consensus::Output::Send { to, message } => {
                sent = true;
                sink(peer_output(config, to, peer_frame::Body::Consensus(message)));
            }
            argosy_consensus::Output::Role(_)
            | argosy_consensus::Output::ReadReady { .. }
            | argosy_consensus::Output::ProposalLost(_)
            | argosy_consensus::Output::Installed { .. } => outputs.push(output),
        });
        processed.map_err(Error::consensus)?;
        if let Some(broken) = self.machine.broken.take() {
            return Err(broken);
        }
        let busy = sent || !outputs.is_empty();
        for output in outputs {
            self.consensus_output(now, output);
        }
        let happened = std::mem::take(&mut self.machine.happened);
        let moved = happened.applied > 0 || happened.reloaded;
        self.applied(now, happened);
        self.serve_reads(now);
        Ok(busy || moved)
    }

    fn consensus_output(&mut self, now: Now, output: argosy_consensus::Output) {
        match output {
            argosy_consensus::Output::Send { to, message } => {
                self.send_peer(to, peer_frame::Body::Consensus(message));
            }
            argosy_consensus::Output::Role(change) => self.role_changed(now, change),
            argosy_consensus::Output::ReadReady { context, index } => self.reads.confirmed(context, index),
            argosy_consensus::Output::ProposalLost(at) => {
                tracing::debug!(index = at.index, term = at.term, "a proposal was lost");
                self.lose_pending(now);
            }
            argosy_consensus::Output::Installed { index } => {
                tracing::info!(index, "installed a snapshot");
            }
        }
    }

    fn role_changed(&mut self, now: Now, change: RoleChange) {
        let (term, leads, leader) = match change {
            RoleChange::Leading { term } => (term, true, Some(self.config.member)),
            // While it leads and has not applied an entry of its own term, nobody can be asked.
            RoleChange::Following { term, leader } => {
                (term, false, leader.filter(|leader| *leader != self.config.member))
            }
        };
        if self.leading.as_ref().is_some_and(|leading| !leads || leading.term != term) {
            self.step_down(now);
        }
        let changed = self.known_leader != leader;
        self.known_leader = leader;
        if leads && self.leading.is_none() {
            self.start_leading(now, term);
        }
        if changed {
            self.leader_changed(now);
        }
    }

    fn start_leading(&mut self, now: Now, term: u64) {
        tracing::info!(term, "leading");
        let leading = Leading::new(term, &self.machine.state, &self.config, self.history_floor, now);
        if leading.held_back_ms() > 0 {
            self.counters.log_time_held_back += 1;
            let held_back_ms = leading.held_back_ms();
            tracing::error!(held_back_ms, "the wall clock is far ahead of the log: check the host's time");
        }
        self.leading = Some(leading);
        let known = sessions::known_clusters(&self.machine.state);
        let names: Vec<String> = known.iter().map(|cluster| cluster.cluster.clone()).collect();
        self.session_step(now, control::Input::LeadershipStarted { clusters: known });
        for cluster in names {
            let attempts = sessions::desired(&self.machine.state, &cluster);
            self.session_step(now, control::Input::Desired { cluster, attempts });
        }
    }

    /// Everything that only a leader has goes; its callers don't know what became of their commands.
    fn step_down(&mut self, now: Now) {
        tracing::info!("no longer leading");
        self.lose_pending(now);
        let Some(leading) = self.leading.take() else { return };
        for waiter in leading.queue {
            // Never decided, so nothing changed.
            self.deliver(now, &waiter, Outcome::NotLeader);
        }
        let waiting = self.reads.drain_answers();
        self.answer_unknown(now, waiting);
    }

    fn lose_pending(&mut self, now: Now) {
        let lost: Vec<_> = self.machine.pending.drain(..).collect();
        self.counters.lost_batches += lost.len() as u64;
        for pending in lost {
            self.answer_unknown(now, pending.answers);
        }
        if let Some(leading) = &mut self.leading {
            leading.speculative = self.machine.state.clone();
        }
    }

    fn applied(&mut self, now: Now, happened: Happened) {
        self.counters.applied_entries += happened.applied;
        self.counters.void_batches += happened.void_batches;
        if happened.reloaded {
            self.lose_pending(now);
        }
        if !happened.void.is_empty() {
            if let Some(leading) = &mut self.leading {
                leading.discard_overlay(&mut self.machine);
                leading.requeue_waiters(happened.void);
            }
        } else if let Some(leading) = &mut self.leading
            && self.machine.pending.is_empty()
        {
            leading.speculative = self.machine.state.clone();
        }
        for pending in happened.committed {
            self.outputs.push(Output::Committed {
                latency_ms: now.steady_ms.saturating_sub(pending.proposed_at_ms),
                bytes: pending.bytes,
                commands: pending.answers.len(),
                readings: pending.readings,
            });
            for (waiter, answer) in pending.answers {
                self.answer(now, &waiter, answer);
            }
        }
        let before = self.publish(&happened.workflows, happened.reloaded);
        self.end_refused(now, &happened.clusters, happened.reloaded);
        self.dispatch(now, &before, &happened.attempts);
        self.tell_resumed(now, &before, &happened.clusters);
    }

    /// Publishes committed state if it moved on; returns what was published before.
    fn publish(&mut self, workflows: &BTreeSet<WorkflowId>, reloaded: bool) -> State {
        let after = self.machine.state.clone();
        let before = std::mem::replace(&mut self.published, after.clone());
        if after.sequence() == before.sequence() && !reloaded {
            return before;
        }
        if self.leading.is_some() {
            self.tell_workflows(&before, &after, workflows);
        }
        let workflows: Vec<WorkflowKey> =
            workflows.iter().filter_map(|id| news::workflow_key(&before, &after, *id)).collect();
        self.outputs.push(Output::Published { before: before.clone(), after, workflows });
        before
    }

    fn serve_reads(&mut self, now: Now) {
        for waiting in self.reads.served(self.consensus.applied_index()) {
            match waiting {
                Waiting::Client { request } => {
                    self.outputs.push(Output::Read { request, state: Some(self.machine.state.clone()) });
                }
                Waiting::Answers { term, answers } => {
                    let leads = self.leading.as_ref().is_some_and(|leading| leading.term == term);
                    for (waiter, answer) in answers {
                        if leads {
                            self.answer(now, &waiter, answer);
                        } else {
                            self.deliver(now, &waiter, Outcome::Unknown);
                        }
                    }
                }
                Waiting::Renewals { round } => {
                    self.session_step(now, control::Input::QuorumConfirmed { round })
                }
            }
        }
    }
}

fn peer_output(config: &Config, to: MemberId, body: peer_frame::Body) -> Output {
    let frame =
        PeerFrame { version: 1, cell: config.cell.clone(), from: config.member, to, body: Some(body) };
    Output::Peer { to, frame }
}
