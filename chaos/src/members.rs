use argosy_engine::State;
use argosy_member::{Config, Input, Member, Now, Output};
use argosy_proto::peer::{PeerFrame, peer_frame};
use argosy_store::MemoryKv;

use crate::checkers::{Invariant, Stamp};
use crate::clocks::HostClock;
use crate::drills;
use crate::handovers;
use crate::nemesis::{DRIFT_MAX_PPM, MEMBER_WALL_OFFSET_MAX_MS};
use crate::network::{Carried, End, Lane};
use crate::random::Random;
use crate::world::{Event, UserAnswer, World};

/// The cell's name.
const CELL: &str = "cell";
/// Time a healthy disk takes to sync.
const SYNC_MAX_MS: u64 = 3;
/// More batches than users and clusters can cause: deciding has no end.
const BATCHES_PER_SECOND_MAX: u64 = 200;
/// Beyond that, once.
const BATCHES_AT_START_MAX: u64 = 2_000;
/// Between two notices of a sender's transport that a peer is not there.
const UNREACHABLE_MS: u64 = 200;

/// A member's host: its disk and clocks outlive the process.
pub(crate) struct MemberProcess {
    pub clock: HostClock,
    machine: Option<Member<MemoryKv>>,
    disk: MemoryKv,
    /// Number of the process on this host.
    pub life: u64,
    /// The flush that is planned: when, and its number.
    flush: Option<(u64, u64)>,
    /// Extra time of each sync.
    pub sync_ms: u64,
    /// The next process finds a disk that fails after so many writes.
    pub disk_fault: Option<(u64, argosy_store::Fault)>,
    /// The running process has such a disk.
    disk_fails: bool,
    /// No start is planned before this time.
    down_until_ms: u64,
    /// The process stands still until then.
    paused_until_ms: u64,
    /// What came meanwhile.
    held: Vec<(Input, Stamp)>,
    /// It began with an empty store, after the cell was founded.
    joins: bool,
    /// Who votes, as it knew before its last flush.
    voters: Vec<u64>,
}

impl MemberProcess {
    pub fn new(_id: u64, random: &mut Random) -> Self {
        let clock = HostClock::new(
            random.between(0, 5_000_000),
            random.around_zero(DRIFT_MAX_PPM),
            random.around_zero(MEMBER_WALL_OFFSET_MAX_MS),
        );
        Self {
            clock,
            machine: None,
            disk: MemoryKv::new(),
            life: 0,
            flush: None,
            sync_ms: 0,
            disk_fault: None,
            disk_fails: false,
            down_until_ms: 0,
            paused_until_ms: 0,
            held: Vec::new(),
            joins: false,
            voters: Vec::new(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    pub fn machine(&self) -> Option<&Member<MemoryKv>> {
        self.machine.as_ref()
    }

    /// It believes that it leads.
    pub fn leads(&self, at_ms: u64) -> bool {
        let status = self.machine.as_ref().map(|machine| machine.status(self.now(at_ms)).consensus);
        status.is_some_and(|status| status.role == argosy_consensus::Role::Leader)
    }

    /// Snapshots that the running process has installed.
    pub fn snapshots(&self, at_ms: u64) -> u64 {
        let status = self.machine.as_ref().map(|machine| machine.status(self.now(at_ms)));
        status.map_or(0, |status| status.consensus.counters.snapshots_installed)
    }

    /// Who votes by what it knows: now, and before its last flush.
    pub fn voters(&self, at_ms: u64) -> (Vec<u64>, &[u64]) {
        let status = self.machine.as_ref().map(|machine| machine.status(self.now(at_ms)).consensus);
        (status.map(|status| status.voters).unwrap_or_default(), &self.voters)
    }

    fn now(&self, at_ms: u64) -> Now {
        Now { steady_ms: self.clock.steady_ms(at_ms), wall_ms: self.clock.wall_ms(at_ms) }
    }
}

impl World {
    pub(crate) fn config(&mut self, id: u64) -> Config {
        let options = &self.options;
        let joins = self.members.get(&id).is_some_and(|member| member.joins);
        let founders = if joins { Vec::new() } else { (1..=options.members).collect() };
        let mut consensus = argosy_consensus::Config::new(id, CELL, founders);
        consensus.seed = self.random.draw();
        consensus.log = argosy_consensus::LogTarget::Discard;
        consensus.limits.log_entries_kept = options.log_entries_kept;
        consensus.limits.snapshot_chunk_bytes = 4 << 10;
        consensus.limits.snapshot_window_chunks = 4;
        let mut config = Config::new(CELL, consensus, self.random.draw());
        config.times = options.times;
        config.limits.decide_work_max = options.decide_work_max;
        config.limits.drill_settle_max_ms = drills::SETTLE_MAX_MS;
        if let Some(is_told) = options.handovers {
            config.artifact_repository = handovers::repository();
            config.cluster_stores = is_told.then(|| handovers::STORE.to_owned()).into_iter().collect();
            config.limits.takeover_limit = handovers::AGAIN_MAX;
            config.limits.reproductions_per_node_max = handovers::AGAIN_MAX as usize;
        }
        config
    }

    pub(crate) fn member_start(&mut self, id: u64) {
        let now_ms = self.now_ms();
        let config = self.config(id);
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.is_up() || now_ms < member.down_until_ms {
            return;
        }
        let now = member.now(now_ms);
        let disk = member.disk.clone();
        member.disk_fails = false;
        if let Some((after, fault)) = member.disk_fault.take() {
            disk.fail_after(after, fault);
            member.disk_fails = true;
        }
        member.life += 1;
        let life = member.life;
        match Member::open(config, disk, now) {
            Ok(machine) => {
                let index = machine.applied_index();
                let hash = machine.state().hash();
                member.machine = Some(machine);
                self.line(format_args!("member {id} starts, life {life}, applied {index}"));
                let agrees = self.checkers.agreement.applied(id, index, hash);
                self.judge(Invariant::Agreement, agrees);
                self.witness_flush(id);
                self.plan_flush(id, 1);
            }
            Err(error) => self.member_failed(id, &error.to_string()),
        }
    }

    /// The process can't go on: rightly, if its disk failed.
    fn member_failed(&mut self, id: u64, error: &str) {
        self.line(format_args!("member {id} halts: {error}"));
        let injected = self.members.get(&id).is_some_and(|member| member.disk_fails);
        if !injected {
            let text = format!("member {id} halted: {error}");
            return self.judge(Invariant::Ending, Err(text));
        }
        let down_ms = self.random.between(100, 2_000);
        self.member_crash(id, down_ms, false);
    }

    /// The host loses power; un-synced writes are lost.
    pub(crate) fn member_crash(&mut self, id: u64, down_ms: u64, while_sending: bool) {
        let now_ms = self.now_ms();
        if while_sending && let Some(member) = self.members.get_mut(&id) {
            let now = member.now(now_ms);
            let outputs =
                member.machine.as_mut().and_then(|machine| machine.flush(now).ok()).unwrap_or_default();
            let sent = self.random.position(outputs.len() + 1);
            self.outputs(id, outputs.into_iter().take(sent).collect());
        }
        let seed = self.random.draw();
        let planted = self.options.planted == Some(crate::Planted::DiskForgets);
        let Some(member) = self.members.get_mut(&id) else { return };
        member.down_until_ms = member.down_until_ms.max(now_ms + down_ms);
        let start_ms = member.down_until_ms;
        self.counts.snapshots += member.snapshots(now_ms);
        if let Some(machine) = member.machine.take() {
            let mut disk = machine.into_kv();
            disk.crash(seed);
            member.disk = if planted { MemoryKv::new() } else { disk };
            self.counts.crashes += 1;
        }
        member.flush = None;
        member.paused_until_ms = 0;
        member.held.clear();
        let lost = member.disk.unsynced_batches();
        self.line(format_args!("member {id} is down until {start_ms} ({lost})"));
        self.queue.plan(start_ms, Event::MemberStart { member: id });
        self.drop_connections_of_member(id);
        let waiting: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, request)| request.member == id)
            .map(|(number, _)| *number)
            .collect();
        for request in waiting {
            let after_ms = self.network.draw_ms(1, 60);
            self.queue
                .plan_after(after_ms, Event::AnswerArrives { request, answer: Box::new(UserAnswer::Broken) });
        }
        self.note_outage();
    }

    /// The member's host is another one: with an empty disk, or with this one.
    pub(crate) fn member_replaced(&mut self, id: u64, down_ms: u64, disk: Option<MemoryKv>) {
        self.member_crash(id, down_ms, false);
        let Some(member) = self.members.get_mut(&id) else { return };
        member.joins = disk.is_none();
        member.disk = disk.unwrap_or_default();
        member.disk_fault = None;
    }

    fn note_outage(&mut self) {
        let up = self.members.values().filter(|member| member.is_up()).count();
        if up <= self.members.len() / 2 {
            self.checkers.outage.began();
        }
    }

    /// Plans a flush unless an earlier one is planned.
    fn plan_flush(&mut self, id: u64, wait_ms: u64) {
        let at_ms = self.now_ms() + wait_ms;
        let number = self.fresh_id();
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.flush.is_none_or(|(planned_ms, _)| at_ms < planned_ms) {
            member.flush = Some((at_ms, number));
            self.queue.plan(at_ms, Event::MemberFlush { member: id, number });
        }
    }

    /// Hands an input to a member that is up; what comes of it waits for the disk.
    pub(crate) fn member_input(&mut self, id: u64, input: Input) {
        self.member_takes(id, input, Stamp::default());
    }

    fn member_takes(&mut self, id: u64, input: Input, stamp: Stamp) {
        let now_ms = self.now_ms();
        let sync_max_ms = SYNC_MAX_MS;
        let drawn_ms = self.random.between(0, sync_max_ms);
        let Some(member) = self.members.get_mut(&id) else { return };
        let now = member.now(now_ms);
        let wait_ms = drawn_ms + member.sync_ms;
        if member.machine.is_none() {
            return;
        }
        if now_ms < member.paused_until_ms {
            return member.held.push((input, stamp));
        }
        self.witness_input(id, &input, stamp);
        let Some(machine) = self.members.get_mut(&id).and_then(|member| member.machine.as_mut()) else {
            return;
        };
        machine.handle(now, input);
        self.plan_flush(id, wait_ms);
    }

    /// The process is stopped for a time, as by a signal or by the machine under it; its clocks go on.
    pub(crate) fn member_pauses(&mut self, id: u64, for_ms: u64) {
        let until_ms = self.now_ms() + for_ms;
        let Some(member) = self.members.get_mut(&id).filter(|member| member.is_up()) else { return };
        member.paused_until_ms = member.paused_until_ms.max(until_ms);
        let life = member.life;
        self.line(format_args!("member {id} stands still until {until_ms}"));
        self.queue.plan(until_ms, Event::MemberResumes { member: id, life });
    }

    pub(crate) fn member_resumes(&mut self, id: u64, life: u64) {
        let now_ms = self.now_ms();
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.life != life || now_ms < member.paused_until_ms {
            return;
        }
        let held = std::mem::take(&mut member.held);
        for (input, stamp) in held {
            self.member_takes(id, input, stamp);
        }
        self.plan_flush(id, 1);
    }

    pub(crate) fn member_flush(&mut self, id: u64, number: u64) {
        let now_ms = self.now_ms();
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.flush.is_none_or(|(_, planned)| planned != number) {
            return;
        }
        member.flush = None;
        if now_ms < member.paused_until_ms {
            return;
        }
        let now = member.now(now_ms);
        let Some(machine) = member.machine.as_mut() else { return };
        let outputs = match machine.flush(now) {
            Ok(outputs) => outputs,
            Err(error) => return self.member_failed(id, &error.to_string()),
        };
        let next_ms = member.clock.when_steady(now_ms, machine.next_tick_ms());
        let (index, hash) = (machine.applied_index(), machine.state().hash());
        self.plan_flush(id, next_ms.saturating_sub(now_ms).max(1));
        let agrees = self.checkers.agreement.applied(id, index, hash);
        self.judge(Invariant::Agreement, agrees);
        self.witness_flush(id);
        self.outputs(id, outputs);
        if let Some(member) = self.members.get_mut(&id) {
            member.voters = member.voters(now_ms).0;
        }
    }

    fn outputs(&mut self, id: u64, outputs: Vec<Output>) {
        // Answers speak of what is published with them.
        for output in &outputs {
            if let Output::Published { after, .. } = output {
                self.published(id, after);
            }
        }
        for output in outputs {
            self.witness_output(id, &output);
            match output {
                Output::Peer { to, frame } => self.peer_send(id, to, frame),
                Output::Agent { connection, frame } => self.down_send(connection, frame),
                Output::CloseAgent { connection } => self.member_closes(connection),
                Output::Answer { request, outcome } => {
                    self.line(format_args!("member {id} answers request {request}"));
                    self.answer_send(id, request, UserAnswer::Outcome(outcome));
                }
                Output::Read { request, state } => {
                    if !self.backed_up(id, request, state.is_some()) {
                        self.answer_send(id, request, UserAnswer::State(state.map(Box::new)));
                    }
                }
                Output::Archived { .. } | Output::Published { .. } | Output::Committed { .. } => {}
            }
        }
    }

    fn published(&mut self, id: u64, after: &State) {
        let (sequence, hash) = (after.sequence(), after.hash());
        self.line(format_args!(
            "member {id} is at sequence {sequence} {:02x}{:02x}{:02x}{:02x}",
            hash[0], hash[1], hash[2], hash[3]
        ));
        if sequence > BATCHES_AT_START_MAX + self.now_ms() * BATCHES_PER_SECOND_MAX / 1_000 {
            let text =
                format!("member {id} is at sequence {sequence}: batches follow each other without end");
            return self.judge(Invariant::Bounds, Err(text));
        }
        if sequence > self.latest.sequence() {
            let before = std::mem::replace(&mut self.latest, after.clone());
            self.inspect(&before, after);
        }
    }

    fn peer_send(&mut self, from: u64, to: u64, frame: PeerFrame) {
        let now_ms = self.now_ms();
        let lane = Lane::Peer { from, to };
        let stamp = self.checkers.rounds.sent(from, to);
        let is_up = self.members.get(&to).is_some_and(MemberProcess::is_up);
        match self.network.send_lossy(now_ms, lane, End::Member(from), End::Member(to)) {
            Carried::Arrives { at_ms, generation } if is_up => {
                self.queue
                    .plan(at_ms, Event::PeerArrives { from, to, generation, frame: Box::new(frame), stamp });
            }
            Carried::Arrives { .. } | Carried::Lost => {
                self.line(format_args!("member {from} -> {to}: lost"));
                if self.random.per_mille(100) {
                    self.queue.plan_after(UNREACHABLE_MS, Event::PeerUnreachable { member: from, peer: to });
                }
            }
        }
    }

    pub(crate) fn peer_arrives(
        &mut self,
        (from, to): (u64, u64),
        generation: u64,
        frame: PeerFrame,
        stamp: Stamp,
    ) {
        if !self.network.arrives(Lane::Peer { from, to }, generation) {
            return;
        }
        let what = match &frame.body {
            Some(peer_frame::Body::Consensus(message)) => {
                let digest = blake3::hash(message);
                let digest = &digest.as_bytes()[..4];
                self.line(format_args!("member {from} -> {to}: consensus {} {digest:02x?}", message.len()));
                return self.member_takes(to, Input::Peer { from, frame }, stamp);
            }
            Some(peer_frame::Body::AgentUp(_)) => "agent up",
            Some(peer_frame::Body::AgentDown(_)) => "agent down",
            Some(peer_frame::Body::AgentClosed(_)) => "agent closed",
            Some(peer_frame::Body::Forward(_)) => "forward",
            Some(peer_frame::Body::ForwardReply(_)) => "forward reply",
            Some(peer_frame::Body::SessionSummary(_)) => "session summary",
            None => "empty",
        };
        self.line(format_args!("member {from} -> {to}: {what}"));
        self.member_input(to, Input::Peer { from, frame });
    }
}
