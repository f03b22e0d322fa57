//! Agents: connections at this member, relayed frames, and the leader's sessions.

use crate::drill;
use crate::leading::Waiter;
use crate::{Input, Member, Now, Outcome, Output};
use argosy_engine::{DesiredAttempt, State};
use argosy_link::control::{self, Answer, ConnectionRef, DecisionId, Desired, KnownCluster};
use argosy_model::{Fence, MemberId, WorkflowKey, WorkflowPhase};
use argosy_proto::agent::{AgentFrame, ControlFrame, WorkflowName, WorkflowState, WorkflowTold, agent_frame};
use argosy_proto::command::{Command, Refusal, reply};
use argosy_proto::common::Verdict;
use argosy_proto::peer::{AgentClosed, AgentDown, AgentUp, peer_frame};
use argosy_store::Kv;
use std::collections::{BTreeMap, BTreeSet};

/// Between asking a step's process to end and ending it: Kubernetes' own default.
const STOP_GRACE_MS: i64 = 30_000;

/// A question of the sessions to the engine.
#[derive(Clone, Debug)]
pub(crate) struct SessionCommand {
    pub decision: DecisionId,
    pub command: Command,
}

/// An agent connected to this member.
pub(crate) struct Connection {
    pub cluster: String,
    /// Relayed again to a new leader, so that the session goes on.
    pub hello: Option<AgentFrame>,
}

/// The agents connected to this member.
pub(crate) type Connections = BTreeMap<u64, Connection>;

/// What state says of every registered cluster when leadership starts.
pub(crate) fn known_clusters(state: &State) -> Vec<KnownCluster> {
    state
        .clusters()
        .filter(|(_, cluster)| !cluster.removed)
        .map(|(name, cluster)| KnownCluster {
            cluster: name.to_owned(),
            session_epoch: cluster.session_epoch,
            taken_over: cluster.lost.then_some(0),
            resumed_epoch: cluster.take_over_resumed_epoch,
        })
        .collect()
}

/// Everything committed state wants of a cluster.
pub(crate) fn desired(state: &State, cluster: &str) -> Vec<(Fence, Desired)> {
    state.attempts_on(cluster).map(|(fence, attempt)| (fence, link_desired(state, &fence, attempt))).collect()
}

fn link_desired(state: &State, fence: &Fence, attempt: DesiredAttempt) -> Desired {
    match attempt {
        DesiredAttempt::Run => Desired::Run { exclusive_wait_ms: state.exclusive_wait_ms(fence) },
        DesiredAttempt::Recall { reason } => Desired::Recall { reason },
        DesiredAttempt::Stop { reason, fenced } => {
            let exclusive_wait_ms = state.exclusive_wait_ms(fence).filter(|_| !fenced);
            Desired::Stop { reason, grace_ms: STOP_GRACE_MS, exclusive_wait_ms }
        }
    }
}

/// Between two questions to the same agent.
const ASK_EVERY_MS: u64 = 500;
/// Names in one question to an agent.
const PREREQUISITES_ASKED_MAX: usize = 1_000;
/// Workflows in one question of an agent; those beyond are not answered.
const WORKFLOWS_ASKED_MAX: usize = 500;

/// What committed state says of a workflow.
fn told(state: &State, name: WorkflowName) -> WorkflowTold {
    let key = WorkflowKey { namespace: name.namespace.clone(), name: name.name.clone() };
    let row = state.workflow_id(&key).and_then(|id| state.workflow(id)).filter(|row| row.uid == name.uid);
    let phase = row.and_then(|row| WorkflowPhase::from_number(row.phase));
    let told = match (row, phase) {
        (Some(row), _) if row.finished_at_ms == 0 => WorkflowState::Open,
        (Some(_), Some(WorkflowPhase::Succeeded)) => WorkflowState::Succeeded,
        (Some(_), _) => WorkflowState::Failed,
        (None, _) => WorkflowState::Unknown,
    };
    WorkflowTold { workflow: Some(name), state: told.into() }
}

impl<K: Kv> Member<K> {
    /// A frame of an agent connected here.
    pub(crate) fn agent_frame(&mut self, now: Now, connection: u64, frame: AgentFrame) {
        let Some(entry) = self.connections.get_mut(&connection) else {
            return self.drop_agent_frame("unknown_connection");
        };
        if matches!(frame.body, Some(agent_frame::Body::Hello(_))) {
            entry.hello = Some(frame.clone());
        }
        let cluster = entry.cluster.clone();
        if self.is_cut_off(&cluster) {
            return self.drop_agent_frame(drill::DROPPED);
        }
        self.relay_up(now, connection, cluster, frame);
    }

    fn relay_up(&mut self, now: Now, connection: u64, cluster: String, frame: AgentFrame) {
        if self.leading.is_some() {
            let connection = ConnectionRef { member: self.config.member, connection };
            self.agent_frame_at_leader(now, connection, cluster, frame);
        } else if let Some(leader) = self.leader() {
            let up = AgentUp { connection, cluster, frame: Some(frame) };
            self.send_peer(leader, peer_frame::Body::AgentUp(up));
        } else {
            // The agent repeats what is not answered.
            self.drop_agent_frame("no_leader");
        }
    }

    pub(crate) fn agent_closed(&mut self, now: Now, connection: u64) {
        let Some(entry) = self.connections.remove(&connection) else { return };
        if self.leading.is_some() {
            let connection = ConnectionRef { member: self.config.member, connection };
            self.session_step(now, control::Input::ConnectionClosed { connection });
        } else if let Some(leader) = self.leader() {
            let closed = AgentClosed { connection, cluster: entry.cluster };
            self.send_peer(leader, peer_frame::Body::AgentClosed(closed));
        }
    }

    /// A frame that a peer relays to this member as the leader.
    pub(crate) fn agent_up(&mut self, now: Now, from: MemberId, up: AgentUp) {
        let AgentUp { connection, cluster, frame: Some(frame) } = up else {
            return self.drop_agent_frame("empty_relay");
        };
        if self.leading.is_none() {
            return self.drop_agent_frame("relayed_to_a_follower");
        }
        // The member that relays it may not have heard of a drill yet.
        if self.is_cut_off(&cluster) {
            return self.drop_agent_frame(drill::DROPPED);
        }
        let connection = ConnectionRef { member: from, connection };
        self.agent_frame_at_leader(now, connection, cluster, frame);
    }

    /// Asks agents for what placement does not know of their clusters, again and again until state knows.
    pub(crate) fn ask_prerequisites(&mut self, now: Now) {
        let Some(leading) = &mut self.leading else { return };
        if leading.engine.questions.is_empty() || now.steady_ms < leading.ask_again_ms {
            return;
        }
        leading.ask_again_ms = now.steady_ms + ASK_EVERY_MS;
        let state = &self.machine.state;
        leading.engine.questions.retain(|cluster, names| {
            let known = state.cluster(cluster);
            names.retain(|name| known.is_some_and(|known| !known.prerequisites.contains_key(name)));
            !names.is_empty()
        });
        let mut asks = Vec::new();
        for (cluster, names) in &leading.engine.questions {
            let Some((connection, epoch)) = leading.sessions.connection(cluster) else { continue };
            let names = names.iter().take(PREREQUISITES_ASKED_MAX).cloned().collect();
            asks.push((connection, control::prerequisites_frame(epoch, names)));
        }
        asks.into_iter().for_each(|(connection, frame)| self.send_agent(connection, frame));
    }

    fn agent_frame_at_leader(
        &mut self,
        now: Now,
        connection: ConnectionRef,
        cluster: String,
        frame: AgentFrame,
    ) {
        // A Hello says the time as well, but is relayed again to a new leader: only renewals are fresh.
        if let Some(agent_frame::Body::RenewLease(renewal)) = &frame.body
            && let Some(leading) = &mut self.leading
        {
            leading.agent_clocks.heard(&cluster, renewal.wall_clock_ms, now.wall_ms);
        }
        match frame.body {
            Some(agent_frame::Body::WorkflowsAsked(asked)) => {
                let named = asked.workflows.into_iter().take(WORKFLOWS_ASKED_MAX);
                let told = named.map(|name| told(&self.machine.state, name)).collect();
                self.send_agent(connection, control::workflows_frame(frame.session_epoch, told));
            }
            _ => self.session_step(now, control::Input::Frame { connection, cluster, frame }),
        }
    }

    /// A frame of the leader for an agent connected here.
    pub(crate) fn agent_down(&mut self, down: AgentDown) {
        let AgentDown { connection, frame: Some(frame) } = down else {
            return self.drop_agent_frame("empty_relay");
        };
        let Some(entry) = self.connections.get(&connection) else { return };
        if self.is_cut_off(&entry.cluster) {
            return self.drop_agent_frame(drill::DROPPED);
        }
        self.outputs.push(Output::Agent { connection, frame });
    }

    /// The other end of a relayed connection is gone: at an agent (told by its member), or at the leader's wish.
    pub(crate) fn relayed_close(&mut self, now: Now, from: MemberId, closed: &AgentClosed) {
        if self.leading.is_some() {
            let connection = ConnectionRef { member: from, connection: closed.connection };
            self.session_step(now, control::Input::ConnectionClosed { connection });
        } else if self.connections.remove(&closed.connection).is_some() {
            self.outputs.push(Output::CloseAgent { connection: closed.connection });
        }
    }

    /// A new leader is known: sessions go on by repeating each connection's Hello.
    pub(crate) fn relay_hellos(&mut self, now: Now) {
        let hellos: Vec<_> = self
            .connections
            .iter()
            .filter_map(|(connection, entry)| {
                Some((*connection, entry.cluster.clone(), entry.hello.clone()?))
            })
            .collect();
        for (connection, cluster, hello) in hellos {
            if self.is_cut_off(&cluster) {
                continue;
            }
            self.relay_up(now, connection, cluster, hello);
        }
    }

    /// Steps the sessions and does what they want. Their questions to the engine join the queue of commands.
    pub(crate) fn session_step(&mut self, now: Now, input: control::Input) {
        let Some(leading) = &mut self.leading else { return };
        for output in leading.sessions.step(now.steady_ms, input) {
            self.session_output(output);
        }
    }

    fn session_output(&mut self, output: control::Output) {
        match output {
            control::Output::Send { connection, frame } => self.send_agent(connection, frame),
            control::Output::Assign { connection, session_epoch, fence } => {
                if let Some(assignment) = self.machine.state.assignment(&fence) {
                    self.send_agent(connection, control::assign_frame(session_epoch, assignment));
                }
            }
            control::Output::Close { connection } => self.close_agent(connection),
            control::Output::Decide { decision, command } => {
                if let Some(leading) = &mut self.leading {
                    leading.queue.push_back(Waiter::Session(SessionCommand { decision, command }));
                }
            }
            control::Output::AskQuorum { round } => self.reads.add(crate::reads::Waiting::Renewals { round }),
            control::Output::Storm { held } => {
                if held {
                    tracing::error!(
                        "storm brake: take-overs are held, since most of the fleet is silent at once"
                    );
                    self.abort_drill("the storm brake holds: most of the fleet is silent at once");
                } else {
                    tracing::warn!("storm brake released: take-overs go on");
                }
            }
        }
    }

    pub(crate) fn send_agent(&mut self, connection: ConnectionRef, frame: ControlFrame) {
        if self.is_of_cut_off(connection) {
            return self.drop_agent_frame(drill::DROPPED);
        }
        if connection.member == self.config.member {
            self.outputs.push(Output::Agent { connection: connection.connection, frame });
        } else {
            let down = AgentDown { connection: connection.connection, frame: Some(frame) };
            self.send_peer(connection.member, peer_frame::Body::AgentDown(down));
        }
    }

    fn close_agent(&mut self, connection: ConnectionRef) {
        if connection.member == self.config.member {
            self.connections.remove(&connection.connection);
            self.outputs.push(Output::CloseAgent { connection: connection.connection });
        } else {
            let closed = AgentClosed { connection: connection.connection, cluster: String::new() };
            self.send_peer(connection.member, peer_frame::Body::AgentClosed(closed));
        }
    }

    /// The engine's answer to a question of the sessions.
    pub(crate) fn session_answer(&mut self, now: Now, asked: &SessionCommand, outcome: Outcome) {
        let answer = match outcome {
            Outcome::Done(reply) => {
                self.count_answer(&reply);
                Answer::Reply(reply)
            }
            Outcome::Refused(refusal) => Answer::Refused(refusal),
            Outcome::NotLeader | Outcome::Overloaded | Outcome::Unknown => Answer::Lost,
        };
        self.session_step(now, control::Input::Decided { decision: asked.decision, answer });
    }

    fn count_answer(&mut self, reply: &argosy_proto::command::Reply) {
        match &reply.body {
            Some(reply::Body::AttemptReported(reported)) => {
                let verdict = match reported.verdict() {
                    Verdict::Accepted => "accepted",
                    Verdict::Superseded => "superseded",
                    Verdict::Unknown | Verdict::Unspecified => "unknown",
                };
                *self.counters.reports.entry(verdict).or_default() += 1;
            }
            // What an agent still holds of fenced attempts comes with its resync: its results are refused there.
            Some(reply::Body::AttemptsResynced(resynced)) => {
                *self.counters.reports.entry("superseded").or_default() += resynced.stop.len() as u64;
            }
            _ => {}
        }
    }

    /// What an operator said of held take-overs is committed: the sessions hear it.
    pub(crate) fn tell_resumed(&mut self, now: Now, before: &State, clusters: &BTreeSet<String>) {
        if self.leading.is_none() {
            return;
        }
        let after = self.machine.state.clone();
        let epoch =
            |state: &State, name: &str| state.cluster(name).map_or(0, |row| row.take_over_resumed_epoch);
        for cluster in clusters {
            let session_epoch = epoch(&after, cluster);
            if session_epoch != epoch(before, cluster) {
                tracing::warn!(cluster, "an operator lets the held take-over of a cluster go on");
                let cluster = cluster.clone();
                self.session_step(now, control::Input::TakeOverResumed { cluster, session_epoch });
            }
        }
    }

    /// Committed state of these attempts moved on: the sessions are told what it wants of them now.
    pub(crate) fn dispatch(&mut self, now: Now, before: &State, attempts: &BTreeSet<Fence>) {
        if self.leading.is_none() {
            return;
        }
        let after = self.machine.state.clone();
        for cluster in after.clusters_removed_since(before) {
            self.session_step(now, control::Input::ClusterRemoved { cluster });
        }
        for fence in attempts {
            let (cluster, wanted) = match after.desired(fence) {
                Some((cluster, wanted)) => {
                    (cluster, wanted.map(|wanted| link_desired(&after, fence, wanted)))
                }
                // Forgotten: where it was, nothing is wanted any more.
                None => match before.desired(fence) {
                    Some((cluster, _)) => (cluster, None),
                    None => continue,
                },
            };
            let (cluster, fence) = (cluster.to_owned(), *fence);
            self.tell_attempt(before, &after, &cluster, &fence);
            self.session_step(now, control::Input::DesiredChanged { cluster, fence, desired: wanted });
        }
    }

    /// Ends the streams of agents whose identity is not good any more: here, whoever leads, and at the leader wherever they
    /// are connected.
    pub(crate) fn end_refused(&mut self, now: Now, clusters: &BTreeSet<String>, all: bool) {
        let state = self.machine.state.clone();
        let refusal = |(connection, entry): (&u64, &Connection)| {
            if !all && !clusters.contains(&entry.cluster) {
                return None;
            }
            let generation = match entry.hello.as_ref().and_then(|hello| hello.body.as_ref()) {
                Some(agent_frame::Body::Hello(hello)) => hello.certificate,
                Some(_) | None => 0,
            };
            Some((*connection, state.identity_refusal(&entry.cluster, generation)?))
        };
        let refused: Vec<_> = self.connections.iter().filter_map(refusal).collect();
        for (connection, refusal) in refused {
            let frame = control::refused_frame(refusal.code, refusal.message);
            self.outputs.push(Output::Agent { connection, frame });
            self.outputs.push(Output::CloseAgent { connection });
            self.agent_closed(now, connection);
        }
        if self.leading.is_none() {
            return;
        }
        for cluster in clusters {
            if let Some(Refusal { code, message, .. }) = state.identity_refusal(cluster, 0) {
                let cluster = cluster.clone();
                self.session_step(now, control::Input::IdentityRefused { cluster, code, message });
            }
        }
    }

    pub(crate) fn drop_agent_frame(&mut self, reason: &'static str) {
        *self.counters.agent_frames_dropped.entry(reason).or_default() += 1;
    }

    /// Used by [`Self::handle`].
    pub(crate) fn agent_input(&mut self, now: Now, input: Input) {
        match input {
            Input::AgentOpened { connection, cluster } if self.is_cut_off(&cluster) => {
                self.drop_agent_frame(drill::DROPPED);
                self.outputs.push(Output::CloseAgent { connection });
            }
            Input::AgentOpened { connection, cluster } => {
                self.connections.insert(connection, Connection { cluster, hello: None });
            }
            Input::AgentFrame { connection, frame } => self.agent_frame(now, connection, frame),
            Input::AgentClosed { connection } => self.agent_closed(now, connection),
            Input::Peer { .. }
            | Input::PeerUnreachable(_)
            | Input::Command { .. }
            | Input::Read { .. }
            | Input::Archived { .. } => {}
        }
    }
}
