use std::collections::BTreeMap;
use std::fmt;

use argosy_engine::State;
use argosy_member::Outcome;
use argosy_proto::agent::{AgentFrame, ControlFrame};
use argosy_proto::peer::PeerFrame;

use crate::agents::Cluster;
use crate::checkers::{Checkers, Invariant, Read, Stamp, Violation};
use crate::fault::Fault;
use crate::links::Connection;
use crate::members::MemberProcess;
use crate::nemesis::{self, Targets};
use crate::network::{End, Network, Quality};
use crate::operators::Operator;
use crate::options::Options;
use crate::queue::Queue;
use crate::random::Random;
use crate::rarities;
use crate::replicas::{Happening, Replicas};
use crate::restores::{self, Restores};
use crate::trace::Trace;
use crate::users::{User, Wish};

/// Something planned.
#[derive(Debug)]
pub(crate) enum Event {
    /// A member decides, persists, applies; void unless it is the flush that was planned last.
    MemberFlush {
        member: u64,
        number: u64,
    },
    /// A member's process starts.
    MemberStart {
        member: u64,
    },
    /// A member's process stands still for a time.
    MemberPauses {
        member: u64,
        for_ms: u64,
    },
    MemberResumes {
        member: u64,
        life: u64,
    },
    PeerArrives {
        from: u64,
        to: u64,
        generation: u64,
        frame: Box<PeerFrame>,
        stamp: Stamp,
    },
    /// The sender's transport notices that a peer is not there.
    PeerUnreachable {
        member: u64,
        peer: u64,
    },
    AgentStart {
        cluster: usize,
    },
    AgentTick {
        cluster: usize,
        life: u64,
    },
    /// The agent's process connects.
    Connect {
        cluster: usize,
        number: u64,
    },
    ConnectArrives {
        connection: u64,
    },
    Connected {
        connection: u64,
        accepted: bool,
    },
    UpArrives {
        connection: u64,
        generation: u64,
        frame: Box<AgentFrame>,
    },
    DownArrives {
        connection: u64,
        generation: u64,
        frame: Box<ControlFrame>,
    },
    MemberSeesClose {
        connection: u64,
    },
    AgentSeesClose {
        connection: u64,
    },
    /// The cluster's pods do what is due.
    PodsDue {
        cluster: usize,
    },
    /// An action reaches the cluster.
    ActionArrives {
        cluster: usize,
        action: Box<argosy_agent_runtime::RuntimeAction>,
    },
    UserActs {
        user: usize,
    },
    RequestArrives {
        request: u64,
    },
    AnswerArrives {
        request: u64,
        answer: Box<UserAnswer>,
    },
    /// The user waits no longer.
    PatienceEnds {
        request: u64,
    },
    Fault(Box<Fault>),
    /// Something happens to a replica of a cluster's agent.
    Replica {
        cluster: usize,
        which: usize,
        happening: Box<Happening>,
    },
    /// A backup is asked for again.
    BackUp {
        member: u64,
    },
    Mend(Box<Mend>),
    /// Something may be to be done in object stores.
    ArtifactsDue,
    /// Has everything ended?
    Look,
}

/// The end of a fault.
#[derive(Debug)]
pub(crate) enum Mend {
    Cuts(Vec<(End, End)>),
    Network,
    Disk { member: u64 },
    Cluster { cluster: usize },
}

/// What a user is told.
#[derive(Debug)]
pub(crate) enum UserAnswer {
    Outcome(Outcome),
    State(Option<Box<State>>),
    /// The connection broke.
    Broken,
}

/// A request of a user on its way.
#[derive(Debug)]
pub(crate) struct Request {
    pub user: usize,
    pub member: u64,
    pub read: Option<Read>,
    /// Whoever was asked is gone with all that was answered.
    pub lost: bool,
}

/// How a run went.
#[derive(Debug)]
pub struct Report {
    /// The run.
    pub options: Options,
    /// Digest of everything that happened.
    pub fingerprint: String,
    /// Broken invariants; empty is good.
    pub violations: Vec<Violation>,
    /// Judgements by invariant, in order; 0 = not exercised.
    pub exercised: [u64; 7],
    /// Virtual milliseconds that passed.
    pub virtual_ms: u64,
    /// What happened how often.
    pub counts: Counts,
    /// Lines of the trace that were kept.
    pub trace: Vec<String>,
}

/// What happened how often in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines of the trace.
    pub events: u64,
    /// Workflows submitted and acknowledged.
    pub workflows: u64,
    /// Attempts assigned.
    pub attempts: u64,
    /// Attempts taken over.
    pub taken_over: u64,
    /// Of those, attempts that counted again since their cluster came back with them.
    pub returned: u64,
    /// Nodes whose command was started again elsewhere.
    pub repeated: u64,
    /// Faults.
    pub faults: u64,
    /// Crashes of members.
    pub crashes: u64,
    /// Snapshots installed.
    pub snapshots: u64,
    /// Backups restored.
    pub restores: u64,
    /// Replicas of agents that followed one which stood still.
    pub followed: u64,
    /// Executors killed.
    pub executors_killed: u64,
    /// Times of schedules that had to start something.
    pub scheduled: u64,
    /// Steps run again for artifacts.
    pub reproduced: u64,
    /// Of those, steps whose cluster was there.
    pub reproduced_apart: u64,
    /// Workflows of steps that may be repeated which ended well after that.
    pub recovered: u64,
}

/// The federation.
pub struct World {
    pub(crate) options: Options,
    pub(crate) queue: Queue<Event>,
    pub(crate) trace: Trace,
    pub(crate) checkers: Checkers,
    pub(crate) network: Network,
    /// Draws delays of disks and processes.
    pub(crate) random: Random,
    pub(crate) members: BTreeMap<u64, MemberProcess>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) users: Vec<User>,
    pub(crate) requests: BTreeMap<u64, Request>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) next_id: u64,
    /// The newest committed state that any member has shown.
    pub(crate) latest: State,
    pub(crate) restores: Restores,
    pub(crate) counts: Counts,
    pub(crate) done: bool,
}

/// Faults and work begin after the members had time for a first election.
const FAULTS_FROM_MS: u64 = 4_000;
/// Between two looks whether everything has ended.
const LOOK_EVERY_MS: u64 = 1_000;

impl World {
    /// A federation before its first moment.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let seed = options.seed;
        let part = |name: &str| Random::of_part(seed, name);
        let mut random = part("processes");
        let members = (1..=options.members).map(|id| (id, MemberProcess::new(id, &mut random))).collect();
        let clusters: Vec<Cluster> =
            (0..options.clusters).map(|index| Cluster::new(index, seed, &mut random)).collect();
        let mut clusters = clusters;
        if options.replicas {
            clusters.iter_mut().for_each(|cluster| cluster.replicas = Some(Replicas::new()));
        }
        // The first user is the operator, who registers the clusters.
        let enrol = clusters.iter().flat_map(|cluster| {
            [Wish::Invite(cluster.name.clone(), 0), Wish::Redeem(cluster.name.clone(), 0)]
        });
        let schedule =
            part("schedules").per_mille(500).then(|| Wish::Schedule("tick".to_owned(), options.active_ms));
        let mut users = vec![User::new(0, part("operator"), enrol.chain(schedule))];
        users.extend((1..=options.users).map(|index| User::new(index, part(&format!("user {index}")), [])));
        // Nobody but members is touched where their absence alone is judged.
        let forgets = options.circumstances.forgets;
        if options.kind != "blackouts" && (forgets || part("orders").per_mille(500)) {
            let operator = Operator::new(
                part("orders of clusters"),
                clusters.iter().map(|cluster| cluster.name.clone()),
            )
            .forgetting(forgets);
            users.push(User::operating(users.len(), part("operator of clusters"), operator));
        }
        let drills = options.circumstances.drills;
        if options.kind != "blackouts" && (drills || part("drills").per_mille(333)) {
            let names: Vec<String> = clusters.iter().map(|cluster| cluster.name.clone()).collect();
            let random = part("drilling");
            users.push(User::drilling(users.len(), random, &names, options.active_ms));
        }
        if let Some(is_told) = options.handovers {
            users.push(User::handing_over(users.len(), part("artifacts"), is_told));
        }
        users.iter_mut().for_each(|user| user.lasts_exclusively(options.circumstances.exclusive_ms));
        let mut checkers = Checkers::default();
        checkers.outage.members_only = options.kind == "blackouts";
        Self {
            queue: Queue::default(),
            trace: Trace::new(options.keep_trace, options.echo_trace),
            checkers,
            network: Network::new(part("network")),
            random,
            members,
            clusters,
            users,
            requests: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_id: 0,
            latest: State::new(),
            restores: Restores::default(),
            counts: Counts::default(),
            done: false,
            options,
        }
    }

    /// Runs a federation from its first moment to its end.
    #[must_use]
    pub fn run(options: Options) -> Report {
        #[cfg(feature = "planted")]
        argosy_model::planted::plant(options.bug);
        let mut world = Self::new(options);
        world.begin();
        let deadline_ms = world.options.active_ms + world.options.quiet_max_ms;
        while !world.done && world.checkers.violations.is_empty() {
            match world.queue.next(deadline_ms) {
                Some(event) => world.happen_guarded(event),
                None => break,
            }
        }
        world.conclude();
        world.report()
    }

    fn begin(&mut self) {
        let options = format!("{:?}", self.options);
        self.line(format_args!("{options}"));
        for member in 1..=self.options.members {
            self.queue.plan(0, Event::MemberStart { member });
        }
        for user in 0..self.users.len() {
            self.queue.plan(500 + 100 * user as u64, Event::UserActs { user });
        }
        let targets = Targets { members: self.options.members, clusters: self.options.clusters };
        let mut random = Random::of_part(self.options.seed, "nemesis");
        let until_ms = self.options.active_ms;
        let intensity = self.options.intensity.clone();
        let mut faults = nemesis::schedule(&mut random, &intensity, targets, FAULTS_FROM_MS, until_ms);
        let mut random = Random::of_part(self.options.seed, "inside of clusters");
        faults.extend(nemesis::inside_clusters(&mut random, &intensity, targets, FAULTS_FROM_MS, until_ms));
        let mut random = Random::of_part(self.options.seed, "end of a cluster");
        faults.extend(nemesis::end_of_a_cluster(&mut random, &intensity, targets, FAULTS_FROM_MS, until_ms));
        let mut random = Random::of_part(self.options.seed, "long cut");
        faults.extend(nemesis::long_cut(&mut random, &intensity, targets, FAULTS_FROM_MS, until_ms));
        let mut random = Random::of_part(self.options.seed, "rarities");
        faults.extend(rarities::schedule(&mut random, &intensity, targets, FAULTS_FROM_MS, until_ms));
        let mut random = Random::of_part(self.options.seed, "agents and executors");
        let (pauses, kills) = (self.options.replicas, self.options.kills_executors);
        faults.extend(rarities::in_pods(&mut random, (pauses, kills), targets, FAULTS_FROM_MS, until_ms));
        faults.extend(rarities::more(self.options.circumstances, targets, FAULTS_FROM_MS, until_ms));
        if self.options.restores {
            let mut random = Random::of_part(self.options.seed, "restores");
            faults.extend(restores::schedule(&mut random, &intensity, targets, FAULTS_FROM_MS, until_ms));
        }
        faults.extend(nemesis::held_starts(&faults, self.options.held_before_ms));
        for (at_ms, fault) in faults {
            self.queue.plan(at_ms, Event::Fault(Box::new(fault)));
        }
        self.queue.plan(until_ms, Event::Look);
        if self.options.handovers.is_some() {
            self.queue.plan(0, Event::ArtifactsDue);
        }
    }

    /// A machine that panics has broken an invariant of its own.
    fn happen_guarded(&mut self, event: Event) {
        let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.happen(event)));
        if let Err(panic) = happened {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            self.judge(Invariant::Ending, Err(format!("panicked: {text}")));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::MemberFlush { member, number } => self.member_flush(member, number),
            Event::MemberStart { member } => self.member_start(member),
            Event::MemberPauses { member, for_ms } => self.member_pauses(member, for_ms),
            Event::MemberResumes { member, life } => self.member_resumes(member, life),
            Event::PeerArrives { from, to, generation, frame, stamp } => {
                self.peer_arrives((from, to), generation, *frame, stamp)
            }
            Event::PeerUnreachable { member, peer } => {
                self.member_input(member, argosy_member::Input::PeerUnreachable(peer));
            }
            Event::AgentStart { cluster } => self.agent_start(cluster),
            Event::AgentTick { cluster, life } => self.agent_tick(cluster, life),
            Event::Connect { cluster, number } => self.connect(cluster, number),
            Event::ConnectArrives { connection } => self.connect_arrives(connection),
            Event::Connected { connection, accepted } => self.connected(connection, accepted),
            Event::UpArrives { connection, generation, frame } => {
                self.up_arrives(connection, generation, *frame)
            }
            Event::DownArrives { connection, generation, frame } => {
                self.down_arrives(connection, generation, *frame)
            }
            Event::MemberSeesClose { connection } => self.member_sees_close(connection),
            Event::AgentSeesClose { connection } => self.agent_sees_close(connection),
            Event::PodsDue { cluster } => self.pods_due(cluster),
            Event::ActionArrives { cluster, action } => self.action_arrives(cluster, *action),
            Event::UserActs { user } => self.user_acts(user),
            Event::RequestArrives { request } => self.request_arrives(request),
            Event::AnswerArrives { request, answer } => self.answer_arrives(request, *answer),
            Event::PatienceEnds { request } => self.answer_arrives(request, UserAnswer::Broken),
            Event::Fault(fault) => self.fault(*fault),
            Event::Replica { cluster, which, happening } => self.replica_happens(cluster, which, *happening),
            Event::BackUp { member } => self.back_up(member),
            Event::Mend(mend) => self.mend(*mend),
            Event::ArtifactsDue => self.artifacts_due(),
            Event::Look => self.look(),
        }
    }

    fn look(&mut self) {
        self.clusters.iter_mut().for_each(|cluster| cluster.runtime.start_soon());
        if self.has_ended() {
            self.done = true;
        } else {
            self.give_up_the_gone();
            self.queue.plan_after(LOOK_EVERY_MS, Event::Look);
        }
    }

    fn mend(&mut self, mend: Mend) {
        self.line(format_args!("mended: {mend:?}"));
        match mend {
            Mend::Cuts(cuts) => cuts.into_iter().for_each(|(from, to)| self.network.mend(from, to)),
            Mend::Cluster { cluster } => {
                self.clusters[cluster].runtime.set_healthy(true);
                self.pods_due(cluster);
            }
            Mend::Network => self.network.set_quality(Quality::healthy()),
            Mend::Disk { member } => {
                if let Some(member) = self.members.get_mut(&member) {
                    member.sync_ms = 0;
                }
            }
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.queue.now_ms()
    }

    /// A number never used before in this run.
    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn line(&mut self, text: fmt::Arguments<'_>) {
        self.trace.line(self.queue.now_ms(), text);
    }

    pub(crate) fn judge(&mut self, invariant: Invariant, check: crate::checkers::Check) {
        let at_ms = self.now_ms();
        if let Err(text) = &check {
            self.line(format_args!("BROKEN {invariant:?}: {text}"));
        }
        self.checkers.note(invariant, at_ms, check);
    }

    fn report(self) -> Report {
        let mut counts = self.counts;
        let now_ms = self.queue.now_ms();
        counts.snapshots += self.members.values().map(|member| member.snapshots(now_ms)).sum::<u64>();
        counts.events = self.trace.count();
        counts.attempts = self.checkers.results.attempts();
        counts.taken_over = self.checkers.results.taken_over();
        counts.returned = self.checkers.results.returned();
        counts.scheduled = self.checkers.schedules.exercised();
        counts.reproduced = self.checkers.handovers.exercised();
        counts.reproduced_apart = self.checkers.handovers.apart();
        counts.recovered = self.checkers.handovers.workflows();
        counts.repeated = self.checkers.results.repeated_executions();
        Report {
            fingerprint: self.trace.fingerprint(),
            exercised: self.checkers.exercised(),
            violations: self.checkers.violations,
            virtual_ms: self.queue.now_ms(),
            counts,
            trace: self.trace.lines().map(str::to_owned).collect(),
            options: self.options,
        }
    }
}
