use std::collections::{BTreeMap, BTreeSet};

use argosy_consensus::{
    Applied, Config, Consensus, Error, LogPosition, LogTarget, MemberId, Output, Role, RoleChange,
    StateMachine,
};
use argosy_store::{Batch, Family, Fault, Kv, MemoryKv};

/// How many seeds a test goes through: `ARGOSY_SEEDS`, or enough for every day.
#[expect(clippy::disallowed_methods, reason = "chooses how much is tested, not what happens")]
pub fn seeds() -> u64 {
    let asked = std::env::var("ARGOSY_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    asked.unwrap_or(200)
}

/// Numbers from a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// A state machine that keeps every entry, in memory and as rows.
#[derive(Default)]
pub struct Machine {
    pub entries: BTreeMap<u64, (u64, Vec<u8>)>,
    applied_now: Vec<(u64, u64, Vec<u8>)>,
}

impl Machine {
    pub fn load(kv: &dyn Kv) -> Self {
        let mut machine = Machine::default();
        for (key, value) in kv.scan(Family::State, b"", None, usize::MAX).unwrap() {
            let index = u64::from_be_bytes(key.as_slice().try_into().unwrap());
            let term = u64::from_be_bytes(value[..8].try_into().unwrap());
            machine.entries.insert(index, (term, value[8..].to_vec()));
        }
        machine
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, entry: Applied<'_>, batch: &mut Batch) {
        assert!(!entry.data.is_empty());
        let last = self.entries.last_key_value().map_or(1, |(index, _)| *index);
        assert!(entry.index > last, "applied {} after {last}", entry.index);
        self.entries.insert(entry.index, (entry.term, entry.data.to_vec()));
        self.applied_now.push((entry.index, entry.term, entry.data.to_vec()));
        let value = [&entry.term.to_be_bytes(), entry.data].concat();
        batch.put(Family::State, entry.index.to_be_bytes(), value);
        // One row for the newest entry only: a snapshot must take rows away as well.
        batch.delete(Family::Blobs, last.to_be_bytes());
        batch.put(Family::Blobs, entry.index.to_be_bytes(), b"newest".to_vec());
    }

    fn reload(&mut self, kv: &dyn Kv) -> Result<(), Error> {
        *self = Machine::load(kv);
        Ok(())
    }
}

pub struct Member {
    pub consensus: Consensus<MemoryKv>,
    pub machine: Machine,
}

pub struct Network {
    pub drop_percent: u64,
    pub repeat_percent: u64,
    pub delay_ticks: u64,
    /// Members of different sides do not hear each other; members that are not listed are on side 0.
    pub sides: BTreeMap<MemberId, u64>,
}

pub struct World {
    pub seed: u64,
    pub dice: Dice,
    pub members: BTreeMap<MemberId, Member>,
    pub down: BTreeMap<MemberId, MemoryKv>,
    pub configs: BTreeMap<MemberId, Config>,
    pub network: Network,
    pub tick: u64,
    queue: BTreeMap<(u64, u64), (MemberId, MemberId, Vec<u8>)>,
    sent: u64,
    /// What was applied anywhere: nothing else may ever be applied at that index.
    pub committed: BTreeMap<u64, (u64, Vec<u8>)>,
    leaders: BTreeMap<u64, MemberId>,
    proposed: BTreeMap<(MemberId, LogPosition), Vec<u8>>,
    pub acknowledged: BTreeSet<Vec<u8>>,
    pub lost: u64,
    pub reads: Vec<(MemberId, u64, u64)>,
    read_floors: BTreeMap<(MemberId, u64), u64>,
    pub trace: blake3::Hasher,
    pub crashes: u64,
}

pub fn config(member: MemberId, voters: &[MemberId], seed: u64) -> Config {
    let mut config = Config::new(member, "cell", voters.to_vec());
    config.seed = seed;
    config.log = LogTarget::Discard;
    config.limits.log_entries_kept = 16;
    config.limits.append_bytes_max = 300;
    config.limits.apply_bytes_max = 500;
    config.limits.log_cache_bytes = 400;
    config.limits.snapshot_chunk_bytes = 200;
    config.limits.snapshot_window_chunks = 3;
    config.limits.snapshot_resend_ticks = 3;
    config.limits.snapshot_timeout_ticks = 40;
    config
}

impl World {
    pub fn new(seed: u64, size: u64) -> Self {
        let voters: Vec<MemberId> = (1..=size).collect();
        let configs = voters.iter().map(|id| (*id, config(*id, &voters, seed))).collect();
        let mut world = Self {
            seed,
            dice: Dice::new(seed),
            members: BTreeMap::new(),
            down: voters.iter().map(|id| (*id, MemoryKv::new())).collect(),
            configs,
            network: Network { drop_percent: 0, repeat_percent: 0, delay_ticks: 0, sides: BTreeMap::new() },
            tick: 0,
            queue: BTreeMap::new(),
            sent: 0,
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            proposed: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            lost: 0,
            reads: Vec::new(),
            read_floors: BTreeMap::new(),
            trace: blake3::Hasher::new(),
            crashes: 0,
        };
        for id in voters {
            world.start(id);
        }
        world
    }

    pub fn start(&mut self, id: MemberId) {
        let Some(kv) = self.down.remove(&id) else { return };
        let consensus = Consensus::open(self.configs[&id].clone(), kv).unwrap();
        let machine = Machine::load(consensus.kv());
        for (index, entry) in &machine.entries {
            assert_eq!(self.committed.get(index), Some(entry), "member {id} holds what was never committed");
        }
        self.members.insert(id, Member { consensus, machine });
    }

    pub fn crash(&mut self, id: MemberId) {
        let Some(member) = self.members.remove(&id) else { return };
        let mut kv = member.consensus.into_kv();
        kv.crash(self.dice.below(u64::MAX));
        self.down.insert(id, kv);
        // What a dead member proposed is unknown.
        self.proposed.retain(|(owner, _), _| *owner != id);
        self.crashes += 1;
    }

    /// The disk of a member fails after some writes.
    pub fn fail_disk(&mut self, id: MemberId, after: u64, fault: Fault) {
        if let Some(member) = self.members.get(&id) {
            member.consensus.kv().fail_after(after, fault);
        }
    }

    pub fn propose(&mut self, id: MemberId, data: Vec<u8>) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        let expected = member.consensus.next_index();
        let Ok(position) = member.consensus.propose(data.clone()) else { return false };
        assert_eq!(position.index, expected);
        self.proposed.insert((id, position), data);
        true
    }

    pub fn read(&mut self, id: MemberId, context: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.consensus.read_index(context);
            let floor = self.committed.last_key_value().map_or(0, |(index, _)| *index);
            self.read_floors.insert((id, context), floor);
        }
    }

    /// One tick of everybody, and the messages that are due.
    pub fn step(&mut self) {
        self.tick_all();
        self.deliver_due();
    }

    pub fn tick_all(&mut self) {
        self.tick += 1;
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        for id in ids {
            if let Some(member) = self.members.get_mut(&id) {
                member.consensus.tick();
            }
            self.process(id);
        }
    }

    pub fn deliver_due(&mut self) {
        while self.deliver_one() {}
    }

    /// Delivers the next message that is due, if there is one.
    pub fn deliver_one(&mut self) -> bool {
        let due = self.queue.first_entry().filter(|entry| entry.key().0 <= self.tick);
        let Some((from, to, bytes)) = due.map(|entry| entry.remove()) else { return false };
        self.deliver(from, to, &bytes);
        true
    }

    pub fn steps(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.step();
        }
    }

    fn side(&self, id: MemberId) -> u64 {
        self.network.sides.get(&id).copied().unwrap_or(0)
    }

    fn deliver(&mut self, from: MemberId, to: MemberId, bytes: &[u8]) {
        if self.side(from) != self.side(to) {
            return;
        }
        if let Some(member) = self.members.get_mut(&to) {
            let _ = member.consensus.receive(from, bytes);
            self.process(to);
        }
    }

    /// Runs a member and checks what it does. A member whose disk failed crashes.
    pub fn process(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let mut outputs = Vec::new();
        let half = member.consensus.status();
        assert!(!half.installing || half.role == Role::Follower, "elected with half a snapshot");
        let done = member.consensus.process_into(&mut member.machine, &mut |output| outputs.push(output));
        let applied = std::mem::take(&mut member.machine.applied_now);
        let still_half = half.installing && member.consensus.status().installing;
        assert!(!still_half || applied.is_empty(), "applied to half a snapshot");
        for (index, term, data) in applied {
            self.check_applied(id, index, term, data, done.is_ok());
        }
        for output in outputs {
            self.trace.update(format!("{} {id} {output:?}\n", self.tick).as_bytes());
            self.take(id, output);
        }
        if let Err(error) = done {
            assert!(matches!(error, Error::Store(_)), "{error}");
            self.crash(id);
        }
    }

    fn check_applied(&mut self, id: MemberId, index: u64, term: u64, data: Vec<u8>, ok: bool) {
        let known = self.committed.entry(index).or_insert_with(|| (term, data.clone()));
        assert_eq!(
            known,
            &(term, data.clone()),
            "member {id} applied something else at {index}, seed {}",
            self.seed
        );
        let position = LogPosition { term, index };
        if ok && self.proposed.remove(&(id, position)).is_some() {
            self.acknowledged.insert(data);
        }
    }

    fn take(&mut self, id: MemberId, output: Output) {
        match output {
            Output::Send { to, message } => self.post(id, to, message),
            Output::Role(RoleChange::Leading { term }) => {
                let other = self.leaders.insert(term, id);
                assert!(other.is_none_or(|other| other == id), "two leaders in term {term}");
                let last = self.committed.last_key_value().map_or(0, |(index, _)| *index);
                let status = self.members[&id].consensus.status();
                assert!(status.last_index >= last, "leader {id} misses committed entries");
                assert!(!status.installing);
            }
            Output::Role(RoleChange::Following { .. }) => {
                let own = self.proposed.keys().filter(|(owner, _)| *owner == id).count();
                assert_eq!(own, 0, "a proposal of a deposed leader was not reported as lost");
            }
            Output::ReadReady { context, index } => {
                let floor = self.read_floors.remove(&(id, context)).expect("answered once");
                assert!(index >= floor, "a stale read");
                assert!(self.members[&id].consensus.status().applied >= index);
                self.reads.push((id, context, index));
            }
            Output::ProposalLost(position) => {
                self.lost += 1;
                self.proposed.remove(&(id, position)).expect("a lost proposal was made");
            }
            Output::Installed { index } => {
                assert!(self.members[&id].consensus.status().applied >= index);
                let machine = &self.members[&id].machine;
                for (index, entry) in &self.committed {
                    let known = machine.entries.get(index);
                    assert!(known.is_none_or(|known| known == entry), "a snapshot differs at {index}");
                }
            }
        }
    }

    fn post(&mut self, from: MemberId, to: MemberId, message: Vec<u8>) {
        if self.dice.percent(self.network.drop_percent) {
            return;
        }
        let copies = 1 + u64::from(self.dice.percent(self.network.repeat_percent));
        for _ in 0..copies {
            let due = self.tick + self.dice.below(self.network.delay_ticks + 1);
            self.sent += 1;
            self.queue.insert((due, self.sent), (from, to, message.clone()));
        }
    }

    /// Messages under way, for tests that look into them.
    pub fn under_way(&self) -> Vec<(MemberId, MemberId, Vec<u8>)> {
        self.queue.values().cloned().collect()
    }

    pub fn leader(&self) -> Option<MemberId> {
        let leads = |member: &Member| member.consensus.status().role == Role::Leader;
        let ready = self.members.iter().filter(|(_, member)| leads(member));
        ready.max_by_key(|(_, member)| member.consensus.status().term).map(|(id, _)| *id)
    }

    /// Disks and network are whole again and everybody is up.
    pub fn heal(&mut self) {
        for member in self.members.values() {
            member.consensus.kv().repair();
        }
        self.network = Network { drop_percent: 0, repeat_percent: 0, delay_ticks: 0, sides: BTreeMap::new() };
        let down: Vec<MemberId> = self.down.keys().copied().collect();
        for id in down {
            self.start(id);
        }
    }

    /// Waits for a leader that can propose.
    pub fn elect(&mut self) -> MemberId {
        for _ in 0..300 {
            if let Some(id) = self.leader()
                && self.members[&id].consensus.status().ready_to_propose
            {
                return id;
            }
            self.step();
        }
        panic!("no leader, seed {}", self.seed);
    }

    /// After healing, everybody must come to hold everything that was ever committed.
    pub fn converge(&mut self) {
        self.heal();
        for round in 0..20_u8 {
            let leader = self.elect();
            self.propose(leader, vec![b'z', round]);
            self.steps(60);
            if self.is_converged() {
                break;
            }
        }
        assert!(self.is_converged(), "members differ, seed {}", self.seed);
        let data: BTreeSet<&Vec<u8>> = self.committed.values().map(|(_, data)| data).collect();
        for acknowledged in &self.acknowledged {
            assert!(data.contains(acknowledged), "an acknowledged proposal is gone, seed {}", self.seed);
        }
    }

    fn is_converged(&self) -> bool {
        let applied: BTreeSet<u64> =
            self.members.values().map(|member| member.consensus.status().applied).collect();
        let rows = |member: &Member| Machine::load(member.consensus.kv()).entries;
        for member in self.members.values().filter(|_| applied.len() == 1) {
            assert_eq!(member.consensus.kv().rows(Family::Blobs).len(), 1, "rows of before are left");
        }
        applied.len() == 1
            && self
                .members
                .values()
                .all(|member| member.machine.entries == self.committed && rows(member) == self.committed)
    }
}
