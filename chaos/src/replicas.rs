//! Two replicas of a cluster's agent, of which the holder of a Lease acts. The election is the agent's own; what is simulated is
//! the Lease in the cluster's API, processes that are killed or stand still, and what a process had begun when it was stopped: it
//! does that when it wakes, and only then looks whether it still holds the Lease. Both share the ledgers, one for each term.

use argosy_agent_runtime::election::{Election, Input, Output, Record, Times, Write};
use argosy_agent_runtime::{Input as AgentInput, Output as AgentOutput, RuntimeAction};

use crate::checkers::Invariant;
use crate::fault::Fault;
use crate::world::{Event, World};

/// How many there are.
pub(crate) const REPLICAS: usize = 2;
/// Between two looks of a candidate at its clock.
const TICK_MS: u64 = 250;
/// An answer of the cluster's API takes at most so long.
const ANSWER_MAX_MS: u64 = 60;
/// Answers in a thousand that are lost, with or after what was asked for.
const ANSWER_LOST_PER_MILLE: u64 = 30;
/// How long before a pause is tried again that met nobody.
const AGAIN_MS: u64 = 2_000;
/// How long until a process that ended by itself is started again, at most.
const RESTART_MAX_MS: u64 = 3_000;

/// One process after the other on one host.
#[derive(Default)]
struct Candidate {
    election: Option<Election>,
    life: u64,
    down_until_ms: u64,
    paused_until_ms: u64,
    /// What came while it stood still.
    held: Vec<Input>,
    /// What it had begun when it was stopped.
    begun: Vec<AgentOutput>,
    /// Of an agent that another one has followed: the connection it still has.
    connection: Option<u64>,
}

/// A cluster's replicas, and the Lease.
#[derive(Default)]
pub(crate) struct Replicas {
    record: Option<Record>,
    versions: u64,
    candidates: [Candidate; REPLICAS],
    acting: Option<usize>,
    /// The highest term of which there is a ledger.
    term: u64,
    /// Inputs for the acting process, which stands still.
    held: Vec<AgentInput>,
    /// It takes one more input before it stands still, and does what comes of it when it wakes.
    is_amid: bool,
}

impl Replicas {
    /// An earlier holder has given the Lease up.
    pub fn new() -> Self {
        let record = Record { duration_ms: Times::default().duration_ms, ..Record::default() };
        Self { record: Some(record), ..Self::default() }
    }
}

/// What happens to one candidate.
#[derive(Debug)]
pub(crate) enum Happening {
    Start,
    Tick { life: u64 },
    Answer { life: u64, input: Input },
    Wake { life: u64 },
}

impl World {
    fn candidate(&mut self, index: usize, which: usize) -> Option<&mut Candidate> {
        self.clusters[index].replicas.as_mut().map(|replicas| &mut replicas.candidates[which])
    }

    pub(crate) fn replica_happens(&mut self, index: usize, which: usize, happening: Happening) {
        let now_ms = self.now_ms();
        let is_here = self.clusters[index].enrolled && !self.clusters[index].gone;
        let Some(candidate) = self.candidate(index, which) else { return };
        let is_alive = |life: u64| candidate.election.is_some() && candidate.life == life;
        let stands_still = now_ms < candidate.paused_until_ms;
        match happening {
            Happening::Start => {
                if is_here && candidate.election.is_none() && now_ms >= candidate.down_until_ms {
                    self.replica_starts(index, which);
                }
            }
            Happening::Tick { life } => {
                if is_alive(life) && !stands_still {
                    self.plan_replica(TICK_MS, index, which, Happening::Tick { life });
                    self.replica_step(index, which, Input::Tick);
                }
            }
            Happening::Answer { life, input } if is_alive(life) && stands_still => candidate.held.push(input),
            Happening::Answer { life, input } => {
                if is_alive(life) {
                    self.replica_step(index, which, input);
                }
            }
            Happening::Wake { life } => {
                if is_alive(life) && !stands_still {
                    self.replica_wakes(index, which, life);
                }
            }
        }
    }

    fn plan_replica(&mut self, wait_ms: u64, cluster: usize, which: usize, happening: Happening) {
        let happening = Box::new(happening);
        self.queue.plan_after(wait_ms, Event::Replica { cluster, which, happening });
    }

    fn replica_starts(&mut self, index: usize, which: usize) {
        let seed = self.random.draw();
        let Some(replicas) = self.clusters[index].replicas.as_mut() else { return };
        let candidate = &mut replicas.candidates[which];
        let life = candidate.life + 1;
        let identity = format!("replica-{index}-{which}-{life}");
        let election = Election::new(identity, Times::default(), replicas.term, seed).ok();
        *candidate = Candidate { election, life, ..Candidate::default() };
        self.line(format_args!("replica {which} of agent {index} starts, life {life}"));
        self.plan_replica(1, index, which, Happening::Tick { life });
    }

    fn replica_step(&mut self, index: usize, which: usize, input: Input) {
        let steady_ms = self.clusters[index].clock.steady_ms(self.now_ms());
        let Some(candidate) = self.candidate(index, which) else { return };
        let life = candidate.life;
        let outputs = candidate.election.as_mut().map(|election| election.step(steady_ms, input));
        for output in outputs.unwrap_or_default() {
            match output {
                Output::Read { request } => {
                    let answer = self.lease_read(index);
                    self.lease_answers(index, which, life, Input::Read { request, answer });
                }
                Output::Write { request, write } => {
                    let answer = self.lease_write(index, write);
                    self.lease_answers(index, which, life, Input::Written { request, answer });
                }
                Output::Leading { term } => self.replica_leads(index, which, term),
                Output::Lost => self.replica_ends(index, which),
            }
        }
    }

    fn lease_read(&self, index: usize) -> Result<Option<Record>, ()> {
        let cluster = &self.clusters[index];
        let is_served = cluster.runtime.is_healthy();
        is_served.then(|| cluster.replicas.as_ref().and_then(|replicas| replicas.record.clone())).ok_or(())
    }

    fn lease_write(&mut self, index: usize, write: Write) -> Result<String, ()> {
        let now_ms = self.now_ms();
        let cluster = &mut self.clusters[index];
        let Some(replicas) = cluster.replicas.as_mut().filter(|_| cluster.runtime.is_healthy()) else {
            return Err(());
        };
        if replicas.record.as_ref().map(|record| &record.version) != write.version.as_ref() {
            return Err(());
        }
        replicas.versions += 1;
        let version = replicas.versions.to_string();
        let Write { holder, duration_ms, term, .. } = write;
        let renewed = now_ms.to_string();
        replicas.record = Some(Record { holder, duration_ms, term, renewed, version: version.clone() });
        Ok(version)
    }

    fn lease_answers(&mut self, index: usize, which: usize, life: u64, input: Input) {
        let wait_ms = self.random.between(1, ANSWER_MAX_MS);
        if !self.random.per_mille(ANSWER_LOST_PER_MILLE) {
            self.plan_replica(wait_ms, index, which, Happening::Answer { life, input });
        }
    }

    /// A candidate acts from here on, over what the last one made durable.
    fn replica_leads(&mut self, index: usize, which: usize, term: u64) {
        let cluster = &mut self.clusters[index];
        let Some(replicas) = cluster.replicas.as_mut() else { return };
        let before = std::mem::replace(&mut replicas.term, term);
        if let Some(former) = replicas.acting.replace(which) {
            // It stands still, and does not know.
            replicas.candidates[former].connection = cluster.connection.take();
            replicas.held.clear();
            replicas.is_amid = false;
            self.counts.followed += 1;
        }
        cluster.agent_stops();
        self.line(format_args!("replica {which} of agent {index} acts, term {term}"));
        let check = if term > before {
            Ok(())
        } else {
            Err(format!("term {term} of agent {index} was given after {before}"))
        };
        self.judge(Invariant::OneResult, check);
        self.agent_begins(index);
    }

    /// A process ends, since it may have lost the Lease; it is started again and waits.
    fn replica_ends(&mut self, index: usize, which: usize) {
        self.line(format_args!("replica {which} of agent {index} lost the Lease"));
        let wait_ms = self.random.between(1, RESTART_MAX_MS);
        self.replica_dies(index, which, wait_ms);
    }

    /// A process dies.
    pub(crate) fn replica_dies(&mut self, index: usize, which: usize, down_ms: u64) {
        let until_ms = self.now_ms().saturating_add(down_ms);
        let cluster = &mut self.clusters[index];
        let Some(replicas) = cluster.replicas.as_mut() else { return };
        let candidate = &mut replicas.candidates[which];
        let until_ms = until_ms.max(candidate.down_until_ms);
        let (life, former) = (candidate.life, candidate.connection.take());
        *candidate = Candidate { life, down_until_ms: until_ms, ..Candidate::default() };
        let mut broken = former;
        if replicas.acting == Some(which) {
            replicas.acting = None;
            replicas.held.clear();
            replicas.is_amid = false;
            broken = cluster.connection.take();
            cluster.agent_stops();
        }
        if let Some(connection) = broken {
            let noticed_ms = self.network.draw_ms(1, 50);
            self.break_connection(connection, None, Some(noticed_ms));
        }
        let happening = Box::new(Happening::Start);
        self.queue.plan(until_ms, Event::Replica { cluster: index, which, happening });
    }

    /// Who is killed when the cluster's agent is: the one that acts, if any.
    pub(crate) fn acting_replica(&self, index: usize) -> usize {
        self.clusters[index].replicas.as_ref().and_then(|replicas| replicas.acting).unwrap_or(0)
    }

    /// The directory that the replicas share is lost.
    pub(crate) fn replicas_forget(&mut self, index: usize) {
        if let Some(replicas) = self.clusters[index].replicas.as_mut() {
            replicas.term = 0;
        }
    }

    /// The acting process is stopped for a time, as by a signal or by the machine under it.
    pub(crate) fn replica_pauses(&mut self, index: usize, for_ms: u64) {
        let until_ms = self.now_ms() + for_ms;
        let Some(replicas) = self.clusters[index].replicas.as_mut() else { return };
        let Some(which) = replicas.acting else {
            // Nobody acts at present.
            let later_ms = self.now_ms() + AGAIN_MS;
            if for_ms > AGAIN_MS && later_ms < self.options.active_ms {
                let again = Fault::PauseReplica { cluster: index, for_ms: for_ms - AGAIN_MS };
                self.queue.plan(later_ms, Event::Fault(Box::new(again)));
            }
            return;
        };
        replicas.is_amid = true;
        let candidate = &mut replicas.candidates[which];
        candidate.paused_until_ms = candidate.paused_until_ms.max(until_ms);
        let life = candidate.life;
        self.line(format_args!("replica {which} of agent {index} stands still until {until_ms}"));
        self.plan_replica(for_ms, index, which, Happening::Wake { life });
    }

    /// Whether the acting process takes this input now; what it takes while it stands still comes later, or never.
    pub(crate) fn replica_takes(&mut self, index: usize, input: AgentInput) -> Option<AgentInput> {
        let now_ms = self.now_ms();
        let cluster = &mut self.clusters[index];
        let steady_ms = cluster.clock.steady_ms(now_ms);
        let Some(replicas) = cluster.replicas.as_mut() else { return Some(input) };
        let which = replicas.acting?;
        let candidate = &mut replicas.candidates[which];
        if now_ms >= candidate.paused_until_ms {
            let is_leading =
                candidate.election.as_ref().is_some_and(|election| election.is_leading(steady_ms));
            if is_leading {
                return Some(input);
            }
            self.replica_ends(index, which);
            return None;
        }
        if matches!(input, AgentInput::Tick { .. }) {
            return None;
        }
        if !std::mem::take(&mut replicas.is_amid) {
            replicas.held.push(input);
            return None;
        }
        let agent = cluster.agent.as_mut()?;
        match agent.step(steady_ms, input) {
            Ok(outputs) => {
                outputs.iter().for_each(|output| self.witness_agent(index, output));
                self.witness_lease(index);
                if let Some(candidate) = self.candidate(index, which) {
                    candidate.begun = outputs;
                }
            }
            Err(error) => {
                let text = format!("the agent of cluster {index} stopped: {error}");
                self.judge(Invariant::Ending, Err(text));
            }
        }
        None
    }

    /// It goes on where it was stopped, and looks at the Lease only then.
    fn replica_wakes(&mut self, index: usize, which: usize, life: u64) {
        let Some(replicas) = self.clusters[index].replicas.as_mut() else { return };
        let is_acting = replicas.acting == Some(which);
        let candidate = &mut replicas.candidates[which];
        let (begun, held) = (std::mem::take(&mut candidate.begun), std::mem::take(&mut candidate.held));
        let connection = candidate.connection;
        let waited = if is_acting { std::mem::take(&mut replicas.held) } else { Vec::new() };
        self.line(format_args!(
            "replica {which} of agent {index} goes on, acting {is_acting}, {} to do",
            begun.len()
        ));
        for output in begun {
            if is_acting {
                self.late_output(index, output);
            } else {
                self.output_of_former(index, connection, output);
            }
        }
        for input in held {
            self.replica_step(index, which, input);
        }
        self.plan_replica(TICK_MS, index, which, Happening::Tick { life });
        self.replica_step(index, which, Input::Tick);
        for input in waited {
            self.agent_input(index, input);
        }
    }

    /// Nothing came between, but time: permits are held to the lease when they leave.
    fn late_output(&mut self, index: usize, output: AgentOutput) {
        let steady_ms = self.clusters[index].clock.steady_ms(self.now_ms());
        let agent = self.clusters[index].agent.as_ref();
        let is_live = agent.is_some_and(|agent| steady_ms < agent.session().lease_until());
        if is_live || !matches!(output, AgentOutput::Runtime(RuntimeAction::GrantPermit { .. })) {
            self.agent_output(index, output);
        }
    }

    /// Another replica acts by now. Executors have turned to that one, and permits have run out; what was asked of the cluster's
    /// API is asked, and what was said to a member is said.
    fn output_of_former(&mut self, index: usize, connection: Option<u64>, output: AgentOutput) {
        match output {
            AgentOutput::Send(frame) => {
                if let Some(connection) = connection {
                    self.up_send_on(connection, frame);
                }
            }
            AgentOutput::Runtime(RuntimeAction::GrantPermit { .. }) => {}
            AgentOutput::Runtime(action) => self.action_arrives(index, action),
            AgentOutput::Executor(_)
            | AgentOutput::Connect { .. }
            | AgentOutput::Log(_)
            | AgentOutput::ConfigMapNotices(_)
            | AgentOutput::Silent { .. }
            | AgentOutput::Synced { .. }
            | AgentOutput::Refused { .. } => {}
        }
    }
}
