//! Both ends over channels that lose, delay, double and reorder, with leaders that are deposed without noticing, clocks
//! that drift, and an engine reduced to its answers. One seed, one run.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use argosy_link::control::{
    Answer, ConnectionRef, DecisionId, Desired, KnownCluster, Sessions, TakenOver, assign_frame,
};
use argosy_link::{Limits, Millis, Times, agent, control, is_terminal};
use argosy_proto::agent::{AgentFrame, ControlFrame, agent_frame};
use argosy_proto::command::{self, command::Body as Ask, reply::Body as Reply};
use argosy_proto::common::{
    Assignment, AttemptPhase, AttemptReport, ConfigMapName, Fence, ReportedConfigMap, Resources, Runtime,
    Verdict,
};
use std::collections::{BTreeMap, BTreeSet};

const CLUSTERS: usize = 4;
const NODES: usize = 40;
const FAULTS_END_MS: Millis = 240_000;
const END_MS: Millis = 420_000;
const TICK_MS: Millis = 100;
const SEEDS: u64 = 100;

struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A clock with an offset and a rate of 97 to 103 %.
#[derive(Clone, Copy)]
struct Clock {
    offset_ms: Millis,
    rate_permille: u64,
}
impl Clock {
    fn new(random: &mut Random) -> Self {
        Self { offset_ms: random.below(1_000_000), rate_permille: 970 + random.below(61) }
    }
    fn at(&self, real_ms: Millis) -> Millis {
        self.offset_ms + real_ms * self.rate_permille / 1000
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Active,
    /// Asked to end; its node starts anew once it has.
    Stopping,
    /// Taken over.
    Fenced,
    /// Replaced although its cluster is in touch: the next report learns it.
    Replaced,
    Finished,
}
#[derive(Debug)]
struct Attempt {
    node: usize,
    cluster: usize,
    outcome: Outcome,
    revision: u64,
    permitted: bool,
}

/// Committed state.
#[derive(Default)]
struct Engine {
    index: u64,
    epochs: [u64; CLUSTERS],
    taken_over: [TakenOver; CLUSTERS],
    /// The session whose silence an operator does not want held.
    resumed: [u64; CLUSTERS],
    attempts: BTreeMap<Fence, Attempt>,
    committed: BTreeMap<usize, Fence>,
    /// ConfigMaps of each cluster: contents by name.
    config_maps: [BTreeMap<String, String>; CLUSTERS],
    takeovers: u64,
    superseded: u64,
    stopped: u64,
}

fn refusal(code: &str) -> Answer {
    Answer::Refused(command::Refusal {
        code: code.into(),
        grpc_code: 9,
        http_status: 503,
        message: code.into(),
    })
}
fn reply(body: Reply) -> Answer {
    Answer::Reply(command::Reply { body: Some(body) })
}
fn name(cluster: usize) -> String {
    format!("cluster-{cluster}")
}
fn number(name: &str) -> usize {
    name.trim_start_matches("cluster-").parse().unwrap()
}

impl Engine {
    fn assign(&mut self, node: usize, cluster: usize) {
        self.index += 1;
        let fence = Fence { incarnation: 1, index: self.index, ordinal: 0 };
        self.attempts.insert(
            fence,
            Attempt { node, cluster, outcome: Outcome::Active, revision: 0, permitted: false },
        );
    }

    fn desired(&self, cluster: usize) -> Vec<(Fence, Desired)> {
        self.attempts
            .iter()
            .filter(|(_, attempt)| attempt.cluster == cluster)
            .filter_map(|(fence, attempt)| match attempt.outcome {
                Outcome::Active => Some((*fence, Desired::Run { exclusive_wait_ms: None })),
                Outcome::Stopping => {
                    let reason = "test".into();
                    Some((*fence, Desired::Stop { reason, grace_ms: 0, exclusive_wait_ms: None }))
                }
                Outcome::Fenced | Outcome::Replaced | Outcome::Finished => None,
            })
            .collect()
    }

    /// The answer and the clusters whose placement changed.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the link asks for five of all commands")]
    fn apply(&mut self, ask: Ask, random: &mut Random, world: &Checks) -> (Answer, BTreeSet<usize>) {
        let mut touched = BTreeSet::new();
        let answer = match ask {
            Ask::OpenSession(open) => {
                let cluster = number(&open.cluster);
                self.epochs[cluster] += 1;
                self.taken_over[cluster] = None;
                reply(Reply::SessionOpened(command::SessionOpened { session_epoch: self.epochs[cluster] }))
            }
            Ask::ResyncAttempts(resync) => {
                let cluster = number(&resync.cluster);
                if resync.session_epoch != self.epochs[cluster] {
                    return (refusal("epoch"), touched);
                }
                let listed: BTreeSet<Fence> = resync.held.iter().map(|held| held.fence.unwrap()).collect();
                for (fence, attempt) in &self.attempts {
                    let known = attempt.cluster == cluster
                        && attempt.outcome == Outcome::Active
                        && attempt.revision > 0;
                    assert!(
                        !known || listed.contains(fence),
                        "attempt {fence:?} was reported and is not listed"
                    );
                }
                let (keep, stop) = listed.into_iter().partition(|fence| {
                    let outcome = self.attempts.get(fence).map(|attempt| attempt.outcome);
                    matches!(outcome, Some(Outcome::Active | Outcome::Stopping))
                });
                reply(Reply::AttemptsResynced(command::AttemptsResynced { keep, stop }))
            }
            Ask::ReportAttempt(ask) => {
                let cluster = number(&ask.cluster);
                let report = ask.report.unwrap();
                if ask.session_epoch != self.epochs[cluster] {
                    return (refusal("epoch"), touched);
                }
                let fence = report.fence.unwrap();
                let attempt = self.attempts.get_mut(&fence).expect("only assigned attempts are reported");
                let verdict = if matches!(attempt.outcome, Outcome::Fenced | Outcome::Replaced) {
                    self.superseded += 1;
                    Verdict::Superseded
                } else {
                    attempt.permitted |= report.permitted;
                    attempt.revision = attempt.revision.max(report.revision);
                    if is_terminal(report.phase()) && attempt.outcome == Outcome::Stopping {
                        attempt.outcome = Outcome::Finished;
                        self.stopped += 1;
                        touched.insert(cluster);
                        let node = attempt.node;
                        self.assign(node, cluster);
                    } else if is_terminal(report.phase()) && attempt.outcome == Outcome::Active {
                        assert_ne!(report.phase(), AttemptPhase::Stopped, "nobody asked {fence:?} to stop");
                        attempt.outcome = Outcome::Finished;
                        touched.insert(cluster);
                        let before = self.committed.insert(attempt.node, fence);
                        assert_eq!(before, None, "two results of node {}", attempt.node);
                    }
                    Verdict::Accepted
                };
                let (fence, revision) = (Some(fence), report.revision);
                reply(Reply::AttemptReported(command::AttemptReported {
                    fence,
                    revision,
                    verdict: verdict.into(),
                }))
            }
            Ask::TakeOver(take) => {
                let cluster = number(&take.cluster);
                if take.session_epoch == self.epochs[cluster] {
                    world.taken_over_now(cluster);
                    self.takeovers += 1;
                    let all = take.scope() == command::TakeOverScope::All;
                    self.taken_over[cluster] = if all { Some(30_000) } else { Some(0) };
                    let moved: Vec<(Fence, usize)> = self
                        .attempts
                        .iter()
                        .filter(|(_, attempt)| {
                            let open = matches!(attempt.outcome, Outcome::Active | Outcome::Stopping);
                            let here = attempt.cluster == cluster && open;
                            here && (all || !attempt.permitted)
                        })
                        .map(|(fence, attempt)| (*fence, attempt.node))
                        .collect();
                    touched.insert(cluster);
                    for (fence, node) in moved {
                        self.attempts.get_mut(&fence).unwrap().outcome = Outcome::Fenced;
                        let other = (cluster + 1 + random.below(CLUSTERS as u64 - 1) as usize) % CLUSTERS;
                        self.assign(node, other);
                        touched.insert(other);
                    }
                }
                reply(Reply::Done(command::Done {}))
            }
            Ask::ReportConfigMaps(ask) => {
                let cluster = number(&ask.cluster);
                if ask.session_epoch == self.epochs[cluster] {
                    let names: BTreeSet<String> = ask.present.into_iter().map(|name| name.name).collect();
                    self.config_maps[cluster].retain(|name, _| names.contains(name));
                    for changed in ask.changed {
                        self.config_maps[cluster]
                            .insert(changed.name.unwrap().name, changed.data["k"].clone());
                    }
                    reply(Reply::ConfigMapsTaken(command::ConfigMapsTaken { notices: Vec::new() }))
                } else {
                    refusal("ARG1017")
                }
            }
            Ask::UpdateCluster(_) | Ask::FindPrerequisites(_) => reply(Reply::Done(command::Done {})),
            other => panic!("the link asks nothing like {other:?}"),
        };
        (answer, touched)
    }
}

/// Whether each agent believes in its lease at this moment.
struct Checks {
    live: Vec<bool>,
}
impl Checks {
    fn taken_over_now(&self, cluster: usize) {
        assert!(!self.live[cluster], "cluster {cluster} believes in its lease while it is taken over");
    }
}

struct Leader {
    sessions: Sessions,
    clock: Clock,
    /// Questions on their way through the log, in order.
    log: Vec<(Millis, DecisionId, Ask)>,
    zombie_until: Option<Millis>,
}

struct Agent {
    session: agent::Session,
    clock: Clock,
    connection: Option<u64>,
    connect_at: Millis,
    held: BTreeMap<Fence, AttemptReport>,
    /// When a running step ends.
    ends_at: BTreeMap<Fence, Millis>,
    acted: BTreeSet<Fence>,
    config_maps: BTreeMap<String, String>,
}

enum Event {
    Up { connection: u64, frame: AgentFrame },
    Down { connection: u64, frame: ControlFrame },
    Closed { connection: u64 },
    Quorum { leader: usize, round: u64 },
}

struct World {
    random: Random,
    now: Millis,
    leaders: BTreeMap<usize, Leader>,
    leader: usize,
    agents: Vec<Agent>,
    engine: Engine,
    events: BTreeMap<(Millis, u64), Event>,
    sequence: u64,
    connections: u64,
    /// Cluster, and the leader that its member relays to.
    routes: BTreeMap<u64, (usize, usize)>,
    /// When a route turns to the present leader.
    turns: BTreeMap<u64, Millis>,
    permits: u64,
}

fn times() -> Times {
    Times { takeover_after_unsafe_ms: 30_000, storm_hold_max_ms: Some(20_000), ..Times::default() }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let agents = (0..CLUSTERS)
            .map(|cluster| Agent {
                session: agent::Session::new(agent::Options {
                    cluster: name(cluster),
                    cluster_uid: format!("uid-{cluster}"),
                    agent_version: "test".into(),
                    agent_instance: random.next(),
                    runtime: Runtime::Simulated,
                    labels: BTreeMap::new(),
                    ledger: 1,
                    enforces_exclusive: false,
                    credit: 3,
                    times: Times { reconnect_refused_ms: 1_000, ..times() },
                    limits: Limits {
                        resync_page_max: 2,
                        config_maps_frame_bytes_max: 40,
                        ..Limits::default()
                    },
                    seed: random.next(),
                }),
                clock: Clock::new(&mut random),
                connection: None,
                connect_at: random.below(2_000),
                held: BTreeMap::new(),
                ends_at: BTreeMap::new(),
                acted: BTreeSet::new(),
                config_maps: BTreeMap::new(),
            })
            .collect();
        let mut world = Self {
            random,
            now: 0,
            leaders: BTreeMap::new(),
            leader: 0,
            agents,
            engine: Engine::default(),
            events: BTreeMap::new(),
            sequence: 0,
            connections: 0,
            routes: BTreeMap::new(),
            turns: BTreeMap::new(),
            permits: 0,
        };
        for node in 0..NODES {
            let cluster = world.random.below(CLUSTERS as u64) as usize;
            world.engine.assign(node, cluster);
        }
        world.elect();
        world
    }

    fn faults(&self) -> bool {
        self.now < FAULTS_END_MS
    }

    fn elect(&mut self) {
        let zombie_until = self.now + self.random.below(30_000);
        if let Some(old) = self.leaders.get_mut(&self.leader) {
            old.zombie_until = Some(zombie_until);
            old.log.clear();
        }
        self.leader += 1;
        let limits = Limits { resync_page_max: 2, ..Limits::default() };
        let leader = Leader {
            sessions: Sessions::new("cell", 1, times(), limits),
            clock: Clock::new(&mut self.random),
            log: Vec::new(),
            zombie_until: None,
        };
        self.leaders.insert(self.leader, leader);
        let clusters = (0..CLUSTERS)
            .map(|cluster| KnownCluster {
                cluster: name(cluster),
                session_epoch: self.engine.epochs[cluster],
                taken_over: self.engine.taken_over[cluster],
                resumed_epoch: self.engine.resumed[cluster],
            })
            .collect();
        self.control(self.leader, control::Input::LeadershipStarted { clusters });
        for cluster in 0..CLUSTERS {
            self.desire(cluster);
        }
        for connection in self.routes.keys().copied().collect::<Vec<_>>() {
            let turn = self.now + self.random.below(10_000);
            self.turns.insert(connection, turn);
        }
    }

    fn desire(&mut self, cluster: usize) {
        let input =
            control::Input::Desired { cluster: name(cluster), attempts: self.engine.desired(cluster) };
        self.control(self.leader, input);
    }

    fn after(&mut self, delay_ms: Millis, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay_ms, self.sequence), event);
    }

    /// Sends over a channel that may lose, double, delay and reorder.
    fn transmit(&mut self, make: impl Fn() -> Event) {
        let faults = self.faults();
        let copies = if !faults {
            1
        } else if self.random.percent(10) {
            0
        } else {
            1 + u64::from(self.random.percent(5))
        };
        for _ in 0..copies {
            let slow = faults && self.random.percent(5);
            let delay = 1 + self.random.below(if slow { 15_000 } else { 40 });
            self.after(delay, make());
        }
    }

    fn control(&mut self, leader: usize, input: control::Input) {
        let Some(state) = self.leaders.get_mut(&leader) else { return };
        let outputs = state.sessions.step(state.clock.at(self.now), input);
        for output in outputs {
            match output {
                control::Output::Send { connection, frame } => {
                    let connection = connection.connection;
                    self.transmit(|| Event::Down { connection, frame: frame.clone() });
                }
                control::Output::Assign { connection, session_epoch, fence } => {
                    let assignment = Assignment { fence: Some(fence), ..Assignment::default() };
                    let connection = connection.connection;
                    self.transmit(|| Event::Down {
                        connection,
                        frame: assign_frame(session_epoch, assignment.clone()),
                    });
                }
                control::Output::Close { connection } => self.close(connection.connection),
                control::Output::Decide { decision, command } => {
                    // A deposed leader's proposals never commit.
                    if leader == self.leader {
                        let delay = 1 + self.random.below(60);
                        let log = &mut self.leaders.get_mut(&leader).unwrap().log;
                        let at = (self.now + delay).max(log.last().map_or(0, |last| last.0));
                        log.push((at, decision, command.body.unwrap()));
                    }
                }
                control::Output::AskQuorum { round } => {
                    // Confirmed now, by members that vote for nobody else before; the answer may be late, and come
                    // to one that is deposed meanwhile.
                    let late = self.faults() && self.random.percent(10);
                    let delay = 1 + self.random.below(if late { 20_000 } else { 30 });
                    let lost = self.faults() && self.random.percent(10);
                    if leader == self.leader && !lost {
                        self.after(delay, Event::Quorum { leader, round });
                    }
                }
                control::Output::Storm { .. } => {}
            }
        }
    }

    fn agent(&mut self, cluster: usize, input: agent::Input) {
        let agent = &mut self.agents[cluster];
        let outputs = agent.session.step(agent.clock.at(self.now), input);
        for output in outputs {
            match output {
                agent::Output::Send(frame) => {
                    if let Some(connection) = self.agents[cluster].connection {
                        self.transmit(|| Event::Up { connection, frame: frame.clone() });
                    }
                }
                agent::Output::Assign(assignment) => {
                    let fence = assignment.fence.unwrap();
                    assert!(self.agents[cluster].acted.insert(fence), "{fence:?} was acted on twice");
                    self.record(cluster, fence, AttemptPhase::Received);
                }
                agent::Output::Stop { fence, .. } => self.record(cluster, fence, AttemptPhase::Stopped),
                agent::Output::Discard { fence } => self.release(cluster, fence),
                agent::Output::Verdict { fence, revision, verdict, terminal } => {
                    let attempt = &self.engine.attempts[&fence];
                    match verdict {
                        Verdict::Accepted => {
                            assert!(attempt.revision >= revision, "a verdict before its commit")
                        }
                        Verdict::Superseded => {
                            assert!(matches!(attempt.outcome, Outcome::Fenced | Outcome::Replaced))
                        }
                        Verdict::Unknown | Verdict::Unspecified => panic!("no such verdict was given"),
                    }
                    if terminal || verdict != Verdict::Accepted {
                        self.release(cluster, fence);
                    }
                }
                agent::Output::Reconnect { after_ms } => {
                    let old = self.agents[cluster].connection.take();
                    self.agents[cluster].connect_at = self.now + after_ms;
                    if let Some(connection) = old {
                        let delay = self.random.below(3_000);
                        self.after(delay, Event::Closed { connection });
                    }
                }
                agent::Output::Refused { permanent, code, .. } => assert!(!permanent, "{code}"),
                agent::Output::Permit { .. }
                | agent::Output::Log(_)
                | agent::Output::Lease { .. }
                | agent::Output::Workflows(_)
                | agent::Output::Prerequisites(_)
                | agent::Output::ConfigMapNotices(_)
                | agent::Output::FallSilent { .. }
                | agent::Output::Kill { .. }
                | agent::Output::Synced { .. } => {}
            }
        }
    }

    fn record(&mut self, cluster: usize, fence: Fence, phase: AttemptPhase) {
        let held = self.agents[cluster].held.entry(fence).or_default();
        held.fence = Some(fence);
        held.revision += 1;
        held.phase = phase.into();
        held.permitted |= phase == AttemptPhase::Running;
        let report = held.clone();
        self.agent(cluster, agent::Input::Attempt(report));
    }

    fn release(&mut self, cluster: usize, fence: Fence) {
        self.agents[cluster].held.remove(&fence);
        self.agents[cluster].ends_at.remove(&fence);
        self.agent(cluster, agent::Input::Released(fence));
    }

    fn close(&mut self, connection: u64) {
        let Some((cluster, leader)) = self.routes.remove(&connection) else { return };
        self.turns.remove(&connection);
        if self.agents[cluster].connection == Some(connection) {
            self.agents[cluster].connection = None;
            self.agent(cluster, agent::Input::Disconnected);
        }
        let connection = ConnectionRef { member: 1, connection };
        self.control(leader, control::Input::ConnectionClosed { connection });
    }

    fn run_agent(&mut self, cluster: usize) {
        let agent = &mut self.agents[cluster];
        if agent.connection.is_none() && self.now >= agent.connect_at {
            self.connections += 1;
            agent.connection = Some(self.connections);
            self.routes.insert(self.connections, (cluster, self.leader));
            self.agent(cluster, agent::Input::Connected { wall_clock_ms: 0 });
        }
        let capacity = Resources { cpu_milli: 1_000, ..Resources::default() };
        self.agent(cluster, agent::Input::Capacity { allocatable: capacity, runtime_healthy: true });
        self.agent(cluster, agent::Input::Tick { wall_clock_ms: 0 });
        let agent = &self.agents[cluster];
        let live = agent.session.lease_live(agent.clock.at(self.now));
        let fences: Vec<(Fence, AttemptPhase)> =
            agent.held.iter().map(|(fence, held)| (*fence, held.phase())).collect();
        for (fence, phase) in fences {
            if phase == AttemptPhase::Received && live && self.random.percent(10) {
                let outcome = self.engine.attempts[&fence].outcome;
                assert_ne!(outcome, Outcome::Fenced, "{fence:?} got its permit after it was taken over");
                self.permits += 1;
                let ends_at = self.now + self.random.below(60_000);
                self.agents[cluster].ends_at.insert(fence, ends_at);
                self.record(cluster, fence, AttemptPhase::Running);
            }
            if phase == AttemptPhase::Running
                && self.agents[cluster].ends_at.get(&fence).is_some_and(|end| self.now >= *end)
            {
                self.record(cluster, fence, AttemptPhase::Succeeded);
            }
        }
    }

    fn run_leader(&mut self, leader: usize) {
        self.control(leader, control::Input::Tick);
        while let Some((at, ..)) = self.leaders[&leader].log.first()
            && *at <= self.now
        {
            let (_, decision, ask) = self.leaders.get_mut(&leader).unwrap().log.remove(0);
            let lost = self.faults() && self.random.percent(2);
            let (answer, touched) = if lost {
                (Answer::Lost, BTreeSet::new())
            } else {
                let live = self
                    .agents
                    .iter()
                    .map(|agent| agent.session.lease_live(agent.clock.at(self.now)))
                    .collect();
                self.engine.apply(ask, &mut self.random, &Checks { live })
            };
            self.control(leader, control::Input::Decided { decision, answer });
            for cluster in touched {
                self.desire(cluster);
            }
        }
    }

    fn deliver(&mut self, event: Event) {
        match event {
            Event::Up { connection, frame } => {
                let Some((cluster, leader)) = self.routes.get(&connection).copied() else { return };
                let hello = matches!(frame.body, Some(agent_frame::Body::Hello(_)));
                assert!(hello || frame.session_epoch > 0);
                let connection = ConnectionRef { member: 1, connection };
                self.control(leader, control::Input::Frame { connection, cluster: name(cluster), frame });
            }
            Event::Down { connection, frame } => {
                let Some((cluster, _)) = self.routes.get(&connection).copied() else { return };
                if self.agents[cluster].connection == Some(connection) {
                    self.agent(cluster, agent::Input::Frame(frame));
                }
            }
            Event::Closed { connection } => self.close(connection),
            Event::Quorum { leader, round } => {
                self.control(leader, control::Input::QuorumConfirmed { round });
            }
        }
    }

    /// An operator lets the take-over of some cluster go on, held or not.
    fn resume(&mut self) {
        let cluster = usize::try_from(self.random.below(CLUSTERS as u64)).unwrap();
        let session_epoch = self.engine.epochs[cluster];
        self.engine.resumed[cluster] = session_epoch;
        self.control(self.leader, control::Input::TakeOverResumed { cluster: name(cluster), session_epoch });
    }

    fn break_things(&mut self) {
        if self.random.below(100_000) < 20 {
            self.resume();
        }
        if self.random.below(3_000) < 10 {
            self.elect();
        }
        let connections: Vec<u64> = self.routes.keys().copied().collect();
        for connection in connections {
            if self.random.below(1_000) < 2 {
                self.close(connection);
            }
        }
        // An operator, or another workflow's end, asks an attempt to stop, or replaces it out of turn.
        let active: Vec<Fence> = self
            .engine
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.outcome == Outcome::Active)
            .map(|(fence, _)| *fence)
            .collect();
        if !active.is_empty() && self.random.below(1_000) < 4 {
            let fence = active[self.random.below(active.len() as u64) as usize];
            let replaced = self.random.percent(50);
            let attempt = self.engine.attempts.get_mut(&fence).unwrap();
            attempt.outcome = if replaced { Outcome::Replaced } else { Outcome::Stopping };
            let (node, cluster) = (attempt.node, attempt.cluster);
            if replaced {
                self.engine.assign(node, cluster);
            }
            self.desire(cluster);
        }
        if self.random.below(100) < 3 {
            self.change_config_maps();
        }
        // A cluster that is cut off for up to a minute and a half.
        if self.random.below(1_000) < 4 {
            let cluster = self.random.below(CLUSTERS as u64) as usize;
            let cut_ms = self.random.below(90_000);
            if let Some(connection) = self.agents[cluster].connection {
                self.close(connection);
            }
            self.agents[cluster].connect_at = self.now + cut_ms;
        }
    }

    /// Somebody makes, changes or deletes ConfigMaps in a cluster.
    fn change_config_maps(&mut self) {
        let cluster = self.random.below(CLUSTERS as u64) as usize;
        for _ in 0..=self.random.below(2) {
            let name = format!("c{}", self.random.below(5));
            let text = self.random.next().to_string();
            let held = &mut self.agents[cluster].config_maps;
            if self.random.percent(40) {
                held.remove(&name);
            } else {
                held.insert(name, text);
            }
        }
        let reported = |(name, text): (&String, &String)| ReportedConfigMap {
            name: Some(ConfigMapName { namespace: "n".into(), name: name.clone() }),
            data: BTreeMap::from([("k".to_owned(), text.clone())]),
            ..ReportedConfigMap::default()
        };
        let all = self.agents[cluster].config_maps.iter().map(reported).collect();
        self.agent(cluster, agent::Input::ConfigMaps(all));
    }

    fn run(&mut self) {
        while self.now < END_MS {
            self.now += TICK_MS;
            while let Some(first) = self.events.first_entry() {
                if first.key().0 > self.now {
                    break;
                }
                let event = first.remove();
                self.deliver(event);
            }
            if self.faults() {
                self.break_things();
            }
            let turned: Vec<u64> = self
                .turns
                .iter()
                .filter(|(_, at)| **at <= self.now)
                .map(|(connection, _)| *connection)
                .collect();
            for connection in turned {
                self.turns.remove(&connection);
                if let Some(route) = self.routes.get_mut(&connection) {
                    route.1 = self.leader;
                }
            }
            let now = self.now;
            self.leaders.retain(|_, leader| leader.zombie_until.is_none_or(|until| until > now));
            for leader in self.leaders.keys().copied().collect::<Vec<_>>() {
                self.run_leader(leader);
            }
            for cluster in 0..CLUSTERS {
                self.run_agent(cluster);
            }
        }
    }
}

#[test]
fn nothing_is_lost_doubled_or_believed_too_long() {
    let first: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let count = if std::env::var("SEED").is_ok() { 1 } else { SEEDS };
    let (mut takeovers, mut superseded, mut stopped, mut permits, mut elections) = (0, 0, 0, 0, 0);
    let mut config_maps = 0;
    for seed in first..first + count {
        println!("replay: SEED={seed}");
        let mut world = World::new(seed);
        world.run();
        let committed = world.engine.committed.len();
        assert_eq!(committed, NODES, "seed {seed}: {:?}", world.engine.attempts);
        for agent in &world.agents {
            assert!(agent.held.is_empty(), "seed {seed}: the agent still holds {:?}", agent.held);
            assert!(agent.session.is_synced(), "seed {seed}: {:?}", agent.session);
        }
        let held: Vec<_> = world.agents.iter().map(|agent| &agent.config_maps).collect();
        let known: Vec<_> = world.engine.config_maps.iter().collect();
        assert_eq!(known, held, "seed {seed}: ConfigMaps as the control plane has them");
        config_maps += held.iter().map(|held| held.len()).sum::<usize>();
        takeovers += world.engine.takeovers;
        superseded += world.engine.superseded;
        stopped += world.engine.stopped;
        permits += world.permits;
        elections += world.leader;
    }
    println!(
        "{takeovers} take-overs, {superseded} superseded, {stopped} stopped, {permits} permits, {elections} leaders"
    );
    if count > 1 {
        let enough = takeovers > 20 && superseded > 20 && stopped > 20 && config_maps > 100;
        assert!(enough, "the runs exercised too little");
    }
}
