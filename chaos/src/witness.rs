//! What members, agents and leaders do to each other, told to the checkers that hold it against the protocol.

use argosy_agent_runtime::{ExecutorAnswer, Output as AgentOutput, RuntimeAction};
use argosy_member::{Input, Output};
use argosy_proto::agent::{AgentFrame, ControlFrame, agent_frame, control_frame};
use argosy_proto::peer::{PeerFrame, peer_frame};

use crate::checkers::{Invariant, RenewalKey, Stamp};
use crate::world::World;

/// The number of the renewal in this frame.
fn renewal(frame: &AgentFrame) -> Option<u64> {
    match &frame.body {
        Some(agent_frame::Body::RenewLease(renew)) => Some(renew.sequence),
        Some(_) | None => None,
    }
}

/// The number of the renewal that this frame acknowledges.
fn acknowledged(frame: &ControlFrame) -> Option<u64> {
    match &frame.body {
        Some(control_frame::Body::LeaseRenewed(renewed)) => Some(renewed.sequence),
        Some(_) | None => None,
    }
}

impl World {
    fn renewal_key(&self, member: u64, connection: u64, number: u64) -> RenewalKey {
        (member, self.members.get(&member).map_or(0, |host| host.life), connection, number)
    }

    /// A member that runs is about to take an input.
    pub(crate) fn witness_input(&mut self, member: u64, input: &Input, stamp: Stamp) {
        match input {
            Input::AgentFrame { connection, frame } => {
                if let Some(number) = renewal(frame) {
                    let key = self.renewal_key(member, *connection, number);
                    self.checkers.rounds.renewal_arrived(key);
                }
            }
            Input::Peer { from, frame: PeerFrame { body: Some(body), .. } } => {
                self.witness_peer(member, *from, body, stamp);
            }
            Input::Peer { .. }
            | Input::PeerUnreachable(_)
            | Input::Command { .. }
            | Input::Read { .. }
            | Input::Archived { .. }
            | Input::AgentOpened { .. }
            | Input::AgentClosed { .. } => {}
        }
    }

    fn witness_peer(&mut self, member: u64, from: u64, body: &peer_frame::Body, stamp: Stamp) {
        match body {
            peer_frame::Body::Consensus(_) => self.checkers.rounds.taken(member, from, stamp),
            peer_frame::Body::AgentUp(up) => {
                if let Some(number) = up.frame.as_ref().and_then(renewal) {
                    let key = self.renewal_key(member, up.connection, number);
                    self.checkers.rounds.renewal_arrived(key);
                }
            }
            peer_frame::Body::AgentDown(down) => {
                if let Some(number) = down.frame.as_ref().and_then(acknowledged) {
                    let key = self.renewal_key(member, down.connection, number);
                    self.checkers.rounds.relayed(key);
                }
            }
            peer_frame::Body::AgentClosed(_)
            | peer_frame::Body::Forward(_)
            | peer_frame::Body::ForwardReply(_)
            | peer_frame::Body::SessionSummary(_) => {}
        }
    }

    /// An output of a member is about to leave.
    pub(crate) fn witness_output(&mut self, member: u64, output: &Output) {
        let acknowledgement = match output {
            Output::Agent { connection, frame } => acknowledged(frame).map(|number| (*connection, number)),
            Output::Peer {
                frame: PeerFrame { body: Some(peer_frame::Body::AgentDown(down)), .. }, ..
            } => {
                let number = down.frame.as_ref().and_then(acknowledged);
                number.map(|number| (down.connection, number))
            }
            Output::Peer { .. }
            | Output::CloseAgent { .. }
            | Output::Answer { .. }
            | Output::Read { .. }
            | Output::Archived { .. }
            | Output::Published { .. }
            | Output::Committed { .. } => None,
        };
        let Some((connection, number)) = acknowledgement else { return };
        let key = self.renewal_key(member, connection, number);
        let voters = self.members.get(&member).map(|host| host.voters(self.queue.now_ms()));
        let (now, before) = voters.unwrap_or_default();
        let check = self.checkers.rounds.acknowledged(key, [&now, before]);
        self.judge(Invariant::OneResult, check);
    }

    /// A member has decided, written down and applied what there was.
    pub(crate) fn witness_flush(&mut self, id: u64) {
        let Some(machine) = self.members.get(&id).and_then(|host| host.machine()) else { return };
        let (is_true, (term, vote)) = (machine.is_overlay_true(), machine.vote());
        let check = self.checkers.votes.kept(id, term, vote);
        self.judge(Invariant::Agreement, check);
        if !is_true {
            let text = format!(
                "member {id} decides on a state that is not the log's: a batch is in it that was dropped"
            );
            self.judge(Invariant::Agreement, Err(text));
        }
    }

    /// An output of a cluster's agent is about to be done.
    pub(crate) fn witness_agent(&mut self, index: usize, output: &AgentOutput) {
        let at_ms = self.clusters[index].clock.steady_ms(self.now_ms());
        match output {
            AgentOutput::Send(frame) => {
                if let Some(number) = renewal(frame) {
                    self.checkers.leases.sent(index, frame.session_epoch, number, at_ms);
                }
            }
            AgentOutput::Synced { session_epoch, .. } => self.checkers.leases.synced(index, *session_epoch),
            AgentOutput::Runtime(RuntimeAction::GrantPermit { .. }) => {
                let check = self.checkers.leases.allowed(index, at_ms, "a start permit");
                self.judge(Invariant::OneResult, check);
            }
            AgentOutput::Executor(ExecutorAnswer::Renewed { .. }) => {
                let check = self.checkers.leases.allowed(index, at_ms, "an exclusive step more time");
                self.judge(Invariant::Exclusive, check);
            }
            AgentOutput::Runtime(_)
            | AgentOutput::Executor(_)
            | AgentOutput::Connect { .. }
            | AgentOutput::Log(_)
            | AgentOutput::ConfigMapNotices(_)
            | AgentOutput::Silent { .. }
            | AgentOutput::Refused { .. } => {}
        }
    }

    /// An attempt of a removed cluster is given up: its agent, which may not have heard of it, permits nothing any more.
    pub(crate) fn witness_forgotten(&mut self, fence: &argosy_model::Fence, name: &str) {
        let now_ms = self.now_ms();
        let Some(cluster) = self.clusters.iter().find(|cluster| cluster.name == name) else { return };
        let steady_ms = cluster.clock.steady_ms(now_ms);
        let until_ms = cluster.agent.as_ref().map_or(0, |agent| agent.session().lease_until());
        if until_ms > steady_ms {
            let (fence, more_ms) = (argosy_model::display_fence(fence), until_ms - steady_ms);
            let text = format!(
                "attempt {fence} of removed cluster {name} was given up, and its agent has a lease for {more_ms} ms"
            );
            self.judge(Invariant::OneResult, Err(text));
        }
    }

    /// A frame for a cluster's agent has arrived.
    pub(crate) fn witness_down(&mut self, index: usize, frame: &ControlFrame) {
        if let Some(control_frame::Body::Welcome(welcome)) = &frame.body {
            self.checkers.leases.welcomed(index, welcome.incarnation);
        }
        if let Some(number) = acknowledged(frame) {
            let lease_ms = self.options.times.lease_ms;
            self.checkers.leases.acknowledged(index, frame.session_epoch, number, lease_ms);
        }
    }

    /// A cluster's agent has taken an input and said what follows.
    pub(crate) fn witness_lease(&mut self, index: usize) {
        let Some(until_ms) = self.clusters[index].agent.as_ref().map(|agent| agent.session().lease_until())
        else {
            return;
        };
        let check = self.checkers.leases.believed(index, until_ms);
        self.judge(Invariant::OneResult, check);
    }
}
