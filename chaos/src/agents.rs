use std::collections::BTreeMap;

use argosy_agent_runtime::ledger::MemoryLedger;
use argosy_agent_runtime::{Input, Limits, Output, Reconciler, RuntimeAction, RuntimeEvent};
use argosy_model::display_fence;
use argosy_proto::common::{Resources, Runtime};
use argosy_simulated::{ExecutionKind, Simulated};

use crate::Planted;
use crate::checkers::Invariant;
use crate::clocks::HostClock;
use crate::fault::Fault;
use crate::nemesis::{CLUSTER_WALL_OFFSET_MAX_MS, DRIFT_MAX_PPM};
use crate::random::Random;
use crate::replicas::{Happening, REPLICAS, Replicas};
use crate::users::User;
use crate::world::{Event, World};

/// Time between two ticks of an agent.
const TICK_MS: u64 = 100;
/// Actions lost in a thousand, where a runtime may lose them.
const ACTION_LOST_PER_MILLE: u64 = 10;
/// Pods in a thousand whose making takes long: they appear when the attempt may be gone.
const ENSURE_LATE_PER_MILLE: u64 = 30;
/// How long at most.
const ENSURE_LATE_MAX_MS: u64 = 8_000;

/// Pods in a thousand that start late, as with a large image: they ask for their permit when their cluster may be cut off.
const SLOW_START_PER_MILLE: u64 = 20;
/// How late at most.
const SLOW_START_MAX_MS: u64 = 60_000;
/// How long after the loss of a cluster for good its leader crashes, and for how long.
const LEADER_DOWN_MS: u64 = 2_000;
/// The end of a cluster that is gone for good.
const NEVER_MS: u64 = u64::MAX / 4;

/// A cluster: its pods, its agent's ledger and its clocks outlive the agent's process.
pub(crate) struct Cluster {
    pub name: String,
    pub clock: HostClock,
    pub runtime: Simulated,
    pub agent: Option<Reconciler<MemoryLedger>>,
    ledger: MemoryLedger,
    /// Number of the agent's process.
    pub life: u64,
    pub connection: Option<u64>,
    /// The connect that was planned last.
    pub connecting: u64,
    /// When it is due, by the cluster's clock.
    pub connect_steady_ms: u64,
    pub last_member: u64,
    /// Its certificate is there.
    pub enrolled: bool,
    /// Its runtime can end the processes of exclusive steps.
    pub enforces_exclusive: bool,
    down_until_ms: u64,
    /// It does not come back.
    pub gone: bool,
    /// Its agent is one of several processes.
    pub replicas: Option<Replicas>,
}

impl Cluster {
    pub fn new(index: usize, seed: u64, random: &mut Random) -> Self {
        let name = format!("c{index}");
        // The first one has to be enough: others may be lost for good, or can't run every kind of step.
        let cpus_min = if index == 0 { 4 } else { 1 };
        let allocatable = Resources {
            cpu_milli: 1_000 * i64::try_from(random.between(1, 6).max(cpus_min)).unwrap_or(1),
            memory_bytes: 32 << 30,
            pods: i64::try_from(random.between(3, 20).max(2 * cpus_min)).unwrap_or(3),
            ..Resources::default()
        };
        let options = argosy_simulated::Options {
            seed: Random::of_part(seed, &name).draw(),
            start_ms: (5, 1_200),
            slow_start_per_mille: SLOW_START_PER_MILLE,
            slow_start_max_ms: SLOW_START_MAX_MS,
            allocatable,
            ..argosy_simulated::Options::default()
        };
        let (steady_ms, drift_ppm) = (random.between(0, 5_000_000), random.around_zero(DRIFT_MAX_PPM));
        let clock = HostClock::new(steady_ms, drift_ppm, random.around_zero(CLUSTER_WALL_OFFSET_MAX_MS));
        let mut runtime = Simulated::new(options);
        runtime.set_drift(drift_ppm);
        Self {
            name,
            clock,
            runtime,
            agent: None,
            ledger: MemoryLedger::new(),
            life: 0,
            connection: None,
            connecting: 0,
            connect_steady_ms: 0,
            last_member: 0,
            enrolled: false,
            enforces_exclusive: index == 0 || random.per_mille(700),
            down_until_ms: 0,
            gone: false,
            replicas: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.agent.is_some()
    }

    /// The agent's process is there no more; what its ledger had synced is.
    pub fn agent_stops(&mut self) {
        if let Some(agent) = self.agent.take() {
            self.ledger = agent.into_ledger();
            self.ledger.crash();
        }
    }

    /// Attempts with a pod, and attempts the agent holds.
    pub fn left(&self) -> Vec<String> {
        let pods = self.runtime.pods().map(|fence| format!("pod {}", display_fence(&fence)));
        let held = self.agent.iter().flat_map(Reconciler::reports);
        let held = held.map(|report| {
            let fence = report.fence.unwrap_or_default();
            format!("attempt {} {:?}", display_fence(&fence), report.phase())
        });
        pods.chain(held).collect()
    }
}

impl World {
    fn session_options(&mut self, cluster: usize) -> argosy_link::agent::Options {
        let name = self.clusters[cluster].name.clone();
        argosy_link::agent::Options {
            cluster_uid: User::cluster_uid(&name),
            cluster: name,
            agent_version: "simulated".to_owned(),
            agent_instance: self.random.draw(),
            runtime: Runtime::Simulated,
            labels: BTreeMap::new(),
            ledger: 0,
            enforces_exclusive: self.clusters[cluster].enforces_exclusive,
            credit: 50,
            times: self.options.times,
            limits: argosy_link::Limits::default(),
            seed: self.random.draw(),
        }
    }

    pub(crate) fn agent_start(&mut self, index: usize) {
        let now_ms = self.now_ms();
        let cluster = &mut self.clusters[index];
        if cluster.replicas.is_some() {
            for which in 0..REPLICAS {
                self.replica_happens(index, which, Happening::Start);
            }
            return;
        }
        if cluster.is_up() || !cluster.enrolled || now_ms < cluster.down_until_ms {
            return;
        }
        self.agent_begins(index);
    }

    /// A process of the agent begins over the cluster's ledger.
    pub(crate) fn agent_begins(&mut self, index: usize) {
        let now_ms = self.now_ms();
        let options = self.session_options(index);
        let cluster = &mut self.clusters[index];
        let ledger = std::mem::take(&mut cluster.ledger);
        match Reconciler::new(options, Limits::default(), ledger) {
            Ok(agent) => cluster.agent = Some(agent),
            Err(error) => {
                let text = format!("the agent of {} can't start: {error}", cluster.name);
                return self.judge(Invariant::Ending, Err(text));
            }
        }
        cluster.life += 1;
        self.checkers.leases.started(index);
        let cluster = &mut self.clusters[index];
        let life = cluster.life;
        cluster.runtime.agent_restarted(now_ms);
        self.line(format_args!("agent {index} starts, life {life}"));
        self.queue.plan_after(1, Event::AgentTick { cluster: index, life });
        self.pods_due(index);
    }

    pub(crate) fn agent_tick(&mut self, index: usize, life: u64) {
        if self.clusters[index].life != life || !self.clusters[index].is_up() {
            return;
        }
        let wall_clock_ms = self.clusters[index].clock.wall_ms(self.now_ms());
        self.agent_input(index, Input::Tick { wall_clock_ms });
        self.queue.plan_after(TICK_MS, Event::AgentTick { cluster: index, life });
    }

    /// The agent's process is killed. The connection ends; pods and ledger stay.
    pub(crate) fn agent_crash(&mut self, index: usize, down_ms: u64) {
        if self.clusters[index].replicas.is_some() {
            let which = self.acting_replica(index);
            self.line(format_args!("replica {which} of agent {index} is killed for {down_ms} ms"));
            return self.replica_dies(index, which, down_ms);
        }
        let now_ms = self.now_ms();
        let cluster = &mut self.clusters[index];
        cluster.down_until_ms = cluster.down_until_ms.max(now_ms + down_ms);
        let start_ms = cluster.down_until_ms;
        cluster.agent_stops();
        if let Some(connection) = cluster.connection.take() {
            let noticed_ms = self.network.draw_ms(1, 50);
            self.break_connection(connection, None, Some(noticed_ms));
        }
        self.line(format_args!("agent {index} is down until {start_ms}"));
        self.queue.plan(start_ms, Event::AgentStart { cluster: index });
    }

    /// Whatever there is of the agent is killed.
    fn agents_crash(&mut self, index: usize, down_ms: u64) {
        if self.clusters[index].replicas.is_none() {
            return self.agent_crash(index, down_ms);
        }
        for which in 0..REPLICAS {
            self.replica_dies(index, which, down_ms);
        }
    }

    /// The executors of some pods are killed, and nothing else.
    pub(crate) fn executors_killed(&mut self, index: usize) {
        let now_ms = self.now_ms();
        let killed = self.clusters[index].runtime.kill_executor(now_ms);
        if let Some(fence) = killed {
            self.counts.executors_killed += 1;
            self.line(format_args!("cluster {index}: the executor of {} is killed", display_fence(&fence)));
        }
        self.note_executions(index);
        self.plan_pods(index);
    }

    /// The cluster is lost with its pods.
    pub(crate) fn cluster_lost(&mut self, index: usize, down_ms: u64, with_ledger: bool) {
        let now_ms = self.now_ms();
        self.agents_crash(index, down_ms);
        let cluster = &mut self.clusters[index];
        cluster.runtime.lose_pods(now_ms);
        self.note_executions(index);
        let cluster = &mut self.clusters[index];
        if with_ledger {
            cluster.ledger = MemoryLedger::new();
            self.replicas_forget(index);
        }
        self.line(format_args!("cluster {index} lost its pods"));
    }

    pub(crate) fn agent_input(&mut self, index: usize, input: Input) {
        let Some(input) = self.replica_takes(index, input) else { return };
        let now_ms = self.now_ms();
        let cluster = &mut self.clusters[index];
        let Some(agent) = cluster.agent.as_mut() else { return };
        match agent.step(cluster.clock.steady_ms(now_ms), input) {
            Ok(outputs) => {
                for output in outputs {
                    self.witness_agent(index, &output);
                    self.agent_output(index, output);
                }
                self.witness_lease(index);
            }
            Err(error) => {
                let text = format!("the agent of {} stopped: {error}", cluster.name);
                self.judge(Invariant::Ending, Err(text));
            }
        }
    }

    pub(crate) fn agent_output(&mut self, index: usize, output: Output) {
        match output {
            Output::Send(frame) => self.up_send(index, frame),
            Output::Runtime(action) => self.action_send(index, action),
            Output::Executor(answer) => {
                let now_ms = self.now_ms();
                self.clusters[index].runtime.answer(now_ms, &answer);
                self.plan_pods(index);
            }
            Output::Connect { after_ms } => {
                if let Some(connection) = self.clusters[index].connection.take() {
                    let noticed_ms = self.network.draw_ms(1, 50);
                    self.break_connection(connection, None, Some(noticed_ms));
                }
                let number = self.fresh_id();
                let now_ms = self.now_ms();
                let cluster = &mut self.clusters[index];
                cluster.connecting = number;
                // A process waits by the clock it reads.
                cluster.connect_steady_ms = cluster.clock.steady_ms(now_ms) + after_ms;
                let at_ms = cluster.clock.when_steady(now_ms, cluster.connect_steady_ms);
                self.queue.plan(at_ms, Event::Connect { cluster: index, number });
            }
            Output::Log(_) | Output::ConfigMapNotices(_) => {}
            Output::Silent { drill, for_ms } => {
                self.line(format_args!("agent {index} falls silent for {for_ms} ms in drill {drill}"));
            }
            Output::Synced { session_epoch, incarnation: _ } => {
                self.line(format_args!("agent {index} is synced in session {session_epoch}"));
            }
            Output::Refused { code, message, permanent } => {
                self.line(format_args!("agent {index} is refused: {code} {message} ({permanent})"));
            }
        }
    }

    fn action_send(&mut self, index: usize, action: RuntimeAction) {
        if let RuntimeAction::GrantPermit { fence, holder } = &action {
            let (now_ms, name) = (self.now_ms(), self.clusters[index].name.clone());
            self.line(format_args!("agent {index} permits {} to {holder}", display_fence(fence)));
            let permitted = self.checkers.results.permit(now_ms, &name, fence, holder);
            self.judge(Invariant::OneResult, permitted);
        }
        let (may_be_lost, late) = match &action {
            RuntimeAction::Ensure(_) => (true, self.random.per_mille(ENSURE_LATE_PER_MILLE)),
            RuntimeAction::GrantPermit { .. } | RuntimeAction::Stop { .. } | RuntimeAction::Kill(_) => {
                (true, false)
            }
            RuntimeAction::Release(_)
            | RuntimeAction::Recorded(_)
            | RuntimeAction::WorkflowsTold(_)
            | RuntimeAction::CheckPrerequisites(_) => (false, false),
        };
        if may_be_lost && self.random.per_mille(ACTION_LOST_PER_MILLE) {
            return;
        }
        if self.options.planted == Some(Planted::PodsStay) && !may_be_lost {
            return;
        }
        if late {
            let wait_ms = self.random.between(0, ENSURE_LATE_MAX_MS);
            self.queue.plan_after(wait_ms, Event::ActionArrives { cluster: index, action: Box::new(action) });
        } else {
            self.action_arrives(index, action);
        }
    }

    pub(crate) fn action_arrives(&mut self, index: usize, action: RuntimeAction) {
        let now_ms = self.now_ms();
        let cluster = &mut self.clusters[index];
        if cluster.gone {
            // There is no API server any more that could make what was asked for late.
            return;
        }
        cluster.runtime.act(now_ms, action);
        self.note_executions(index);
        self.plan_pods(index);
    }

    fn plan_pods(&mut self, index: usize) {
        if let Some(at_ms) = self.clusters[index].runtime.next_wake() {
            self.queue.plan(at_ms, Event::PodsDue { cluster: index });
        }
    }

    /// Pods do what is due; their events are lost while the agent is down.
    pub(crate) fn pods_due(&mut self, index: usize) {
        let now_ms = self.now_ms();
        let runtime = &mut self.clusters[index].runtime;
        if runtime.next_wake().is_none_or(|at_ms| at_ms > now_ms) {
            return;
        }
        let events = runtime.advance(now_ms);
        self.note_executions(index);
        for event in events {
            self.agent_input(index, Input::Runtime(self.tampered(event)));
        }
        self.plan_pods(index);
    }

    /// What users' commands have just done.
    fn note_executions(&mut self, index: usize) {
        self.note_missed(index);
        let now_ms = self.now_ms();
        for execution in self.clusters[index].runtime.take_executions() {
            let exclusive = self.checkers.exclusive.execution(now_ms, &execution);
            self.judge(Invariant::Exclusive, exclusive);
            let fence = display_fence(&execution.fence);
            self.line(format_args!("cluster {index}: {fence} {:?} in {}", execution.kind, execution.holder));
            if execution.kind == ExecutionKind::Completed {
                let completed = self.checkers.results.completed(&execution.fence, &execution.holder);
                self.judge(Invariant::OneResult, completed);
            }
        }
    }

    /// The cluster does not come back, and nobody is told.
    pub(crate) fn cluster_gone(&mut self, index: usize) {
        self.cluster_lost(index, NEVER_MS, false);
        self.clusters[index].gone = true;
        // Whoever leads has begun to wait for it: another one has to begin again.
        let now_ms = self.now_ms();
        let leader = self.members.iter().find(|(_, host)| host.leads(now_ms)).map(|(id, _)| *id);
        if let Some(member) = leader {
            let crash = Fault::CrashMember { member, down_ms: LEADER_DOWN_MS, while_sending: false };
            self.queue.plan_after(LEADER_DOWN_MS, Event::Fault(Box::new(crash)));
        }
    }

    /// The agent's process dies; its ledger or its hosts, or both, with it.
    pub(crate) fn agent_lost(&mut self, index: usize, down_ms: u64, ledger: bool, hosts: bool) {
        self.agents_crash(index, down_ms);
        if ledger {
            self.clusters[index].ledger = MemoryLedger::new();
            self.replicas_forget(index);
            self.line(format_args!("agent {index} lost its ledger"));
        }
        if hosts {
            self.hosts_lost(index);
        }
    }

    /// Nothing is seen any more of a cluster's pods; what they run goes on.
    pub(crate) fn hosts_lost(&mut self, index: usize) {
        let now_ms = self.now_ms();
        self.clusters[index].runtime.lose_hosts(now_ms);
        self.line(format_args!("cluster {index} lost its hosts"));
        self.plan_pods(index);
    }

    /// All pods of a cluster do nothing for a time.
    pub(crate) fn cluster_frozen(&mut self, index: usize, for_ms: u64) {
        let now_ms = self.now_ms();
        self.clusters[index].runtime.freeze(now_ms, now_ms + for_ms);
        self.note_executions(index);
        self.plan_pods(index);
    }

    /// The rate of a cluster's clocks, its pods' included.
    pub(crate) fn cluster_drifts(&mut self, index: usize, drift_ppm: i64) {
        let now_ms = self.now_ms();
        let cluster = &mut self.clusters[index];
        cluster.clock.set_drift(now_ms, drift_ppm);
        cluster.runtime.set_drift(drift_ppm);
    }

    fn tampered(&self, mut event: RuntimeEvent) -> RuntimeEvent {
        if self.options.planted == Some(Planted::ForeignResult)
            && let RuntimeEvent::Outcome { outcome, .. } = &mut event
        {
            outcome.result = Some("0.0.0".to_owned());
        }
        event
    }
}
