//! Connections between agents and members: made, carried, broken, and noticed late.

use argosy_agent_runtime::{Input, Reconciler};
use argosy_member::Input as MemberInput;
use argosy_model::display_fence;
use argosy_proto::agent::{AgentFrame, ControlFrame, agent_frame, control_frame};
use argosy_proto::common::Verdict;

use crate::checkers::Invariant;
use crate::network::{Carried, End, Lane};
use crate::world::{Event, World};

/// How long an end takes at most to notice that a connection through a cut link is dead.
const DEAD_LINK_MAX_MS: u64 = 15_000;

/// A connection of an agent with a member.
#[derive(Debug)]
pub(crate) struct Connection {
    cluster: usize,
    life: u64,
    member: u64,
    member_life: u64,
    /// The member knows it.
    accepted: bool,
    /// It carries nothing more.
    broken: bool,
    /// Its member is gone, and so may be what it said.
    lost: bool,
}

impl World {
    pub(crate) fn connect(&mut self, index: usize, number: u64) {
        let (members, now_ms) = (self.options.members, self.now_ms());
        let cluster = &mut self.clusters[index];
        if cluster.connecting != number || !cluster.is_up() {
            return;
        }
        // Its clock may have changed its rate since.
        let at_ms = cluster.clock.when_steady(now_ms, cluster.connect_steady_ms);
        if at_ms > now_ms {
            return self.queue.plan(at_ms, Event::Connect { cluster: index, number });
        }
        cluster.last_member = cluster.last_member % members + 1;
        let (member, life) = (cluster.last_member, cluster.life);
        let id = self.fresh_id();
        let connection = Connection {
            cluster: index,
            life,
            member,
            member_life: 0,
            accepted: false,
            broken: false,
            lost: false,
        };
        self.connections.insert(id, connection);
        self.clusters[index].connection = Some(id);
        let (from, to) = (End::Cluster(index), End::Member(member));
        let both = self.network.carries(from, to) && self.network.carries(to, from);
        match self.network.send_alone(self.now_ms(), from, to) {
            Some(at_ms) if both => self.queue.plan(at_ms, Event::ConnectArrives { connection: id }),
            Some(_) | None => {
                let wait_ms = self.network.draw_ms(1_000, 4_000);
                self.queue.plan_after(wait_ms, Event::Connected { connection: id, accepted: false });
            }
        }
    }

    pub(crate) fn connect_arrives(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (member, index) = (connection.member, connection.cluster);
        let host = self.members.get(&member);
        let accepted = host.is_some_and(|host| host.is_up()) && !connection.broken;
        if accepted {
            connection.accepted = true;
            connection.member_life = host.map_or(0, |host| host.life);
            let cluster = self.clusters[index].name.clone();
            self.line(format_args!("member {member} accepts connection {id} of {cluster}"));
            self.member_input(member, MemberInput::AgentOpened { connection: id, cluster });
        }
        let wait_ms = self.network.draw_ms(1, 15);
        self.queue.plan_after(wait_ms, Event::Connected { connection: id, accepted });
    }

    pub(crate) fn connected(&mut self, id: u64, accepted: bool) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (index, life) = (connection.cluster, connection.life);
        let cluster = &mut self.clusters[index];
        if cluster.life != life || cluster.connection != Some(id) {
            return;
        }
        if accepted {
            let wall_clock_ms = cluster.clock.wall_ms(self.queue.now_ms());
            self.agent_input(index, Input::Connected { wall_clock_ms });
        } else {
            cluster.connection = None;
            self.connections.remove(&id);
            self.agent_input(index, Input::Disconnected);
        }
    }

    pub(crate) fn up_send(&mut self, index: usize, frame: AgentFrame) {
        if let Some(id) = self.clusters[index].connection {
            self.up_send_on(id, frame);
        }
    }

    pub(crate) fn up_send_on(&mut self, id: u64, frame: AgentFrame) {
        let now_ms = self.now_ms();
        let Some(connection) = self.connections.get(&id).filter(|connection| !connection.broken) else {
            return;
        };
        let (from, to) = (End::Cluster(connection.cluster), End::Member(connection.member));
        match self.network.send_whole(now_ms, Lane::Up(id), from, to) {
            Carried::Arrives { at_ms, generation } => {
                self.queue
                    .plan(at_ms, Event::UpArrives { connection: id, generation, frame: Box::new(frame) });
            }
            Carried::Lost => self.link_died(id),
        }
    }

    pub(crate) fn up_arrives(&mut self, id: u64, generation: u64, frame: AgentFrame) {
        if !self.network.arrives(Lane::Up(id), generation) {
            return;
        }
        let Some(connection) = self.connections.get(&id).filter(|connection| connection.accepted) else {
            return;
        };
        let (member, member_life, index) = (connection.member, connection.member_life, connection.cluster);
        if self.members.get(&member).is_none_or(|member| member.life != member_life) {
            return;
        }
        let text = describe_up(&frame);
        self.line(format_args!("agent {index} -> member {member}: {text}"));
        self.member_input(member, MemberInput::AgentFrame { connection: id, frame });
    }

    pub(crate) fn down_send(&mut self, id: u64, frame: ControlFrame) {
        let now_ms = self.now_ms();
        let Some(connection) = self.connections.get(&id).filter(|connection| !connection.broken) else {
            return;
        };
        let (from, to) = (End::Member(connection.member), End::Cluster(connection.cluster));
        match self.network.send_whole(now_ms, Lane::Down(id), from, to) {
            Carried::Arrives { at_ms, generation } => {
                self.queue
                    .plan(at_ms, Event::DownArrives { connection: id, generation, frame: Box::new(frame) });
            }
            Carried::Lost => self.link_died(id),
        }
    }

    pub(crate) fn down_arrives(&mut self, id: u64, generation: u64, frame: ControlFrame) {
        if !self.network.arrives(Lane::Down(id), generation) {
            return;
        }
        let Some(connection) = self.connections.get(&id) else { return };
        let (index, life, lost) = (connection.cluster, connection.life, connection.lost);
        if self.clusters[index].connection != Some(id) || self.clusters[index].life != life {
            return;
        }
        let text = describe_down(&frame);
        self.line(format_args!("agent {index} <- {text}"));
        if let Some(control_frame::Body::ReportVerdict(verdict)) = &frame.body
            && verdict.verdict() == Verdict::Accepted
        {
            let fence = verdict.fence.unwrap_or_default();
            let (acknowledged, final_report) = self.recorded(index, &fence, verdict.revision);
            if final_report && !lost {
                let text = format!("{} ({:?})", display_fence(&fence), self.latest.attempt(&fence));
                let check = self.checkers.durability.result_acknowledged(&text, acknowledged);
                self.judge(Invariant::Durable, check);
            }
        }
        self.witness_down(index, &frame);
        self.agent_input(index, Input::Frame(frame));
    }

    /// Whether committed state has this final report, and whether the report is final.
    fn recorded(&self, index: usize, fence: &argosy_model::Fence, revision: u64) -> (bool, bool) {
        let agent = self.clusters[index].agent.as_ref();
        let mut reports = agent.into_iter().flat_map(Reconciler::reports);
        let report = reports.find(|report| report.fence.as_ref() == Some(fence));
        let is_final =
            report.is_some_and(|report| report.revision == revision && argosy_agent_runtime::is_over(report));
        let recorded = self.latest.attempt(fence).is_none_or(|attempt| attempt.closed);
        (recorded, is_final)
    }

    /// A frame met a cut: the connection is dead, and each end notices after a while.
    fn link_died(&mut self, id: u64) {
        let agent_ms = self.network.draw_ms(200, DEAD_LINK_MAX_MS);
        let member_ms = self.network.draw_ms(200, DEAD_LINK_MAX_MS);
        self.break_connection(id, Some(agent_ms), Some(member_ms));
    }

    /// A connection carries nothing more; the ends notice after these times.
    pub(crate) fn break_connection(&mut self, id: u64, agent_ms: Option<u64>, member_ms: Option<u64>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if std::mem::replace(&mut connection.broken, true) {
            return;
        }
        self.line(format_args!("connection {id} breaks"));
        self.network.reset(Lane::Up(id));
        self.network.reset(Lane::Down(id));
        if let Some(wait_ms) = agent_ms {
            self.queue.plan_after(wait_ms, Event::AgentSeesClose { connection: id });
        }
        if let Some(wait_ms) = member_ms {
            self.queue.plan_after(wait_ms, Event::MemberSeesClose { connection: id });
        }
    }

    pub(crate) fn member_sees_close(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (member, member_life) = (connection.member, connection.member_life);
        let known = std::mem::replace(&mut connection.accepted, false);
        if known && self.members.get(&member).is_some_and(|host| host.life == member_life) {
            self.member_input(member, MemberInput::AgentClosed { connection: id });
        }
    }

    pub(crate) fn agent_sees_close(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let index = connection.cluster;
        if self.clusters[index].connection == Some(id) {
            self.clusters[index].connection = None;
            self.agent_input(index, Input::Disconnected);
        }
    }

    /// A member closes a connection by itself.
    pub(crate) fn member_closes(&mut self, id: u64) {
        let noticed_ms = self.network.draw_ms(1, 50);
        self.break_connection(id, Some(noticed_ms), Some(1));
    }

    /// All members are gone.
    pub(crate) fn connections_lost(&mut self) {
        self.connections.values_mut().for_each(|connection| connection.lost = true);
    }

    pub(crate) fn drop_connections_of_member(&mut self, member: u64) {
        let of_member = |connection: &Connection| connection.member == member && !connection.broken;
        let ids: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| of_member(connection))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let noticed_ms = self.network.draw_ms(1, 200);
            self.break_connection(id, Some(noticed_ms), None);
        }
    }

    /// The agent's connection breaks.
    pub(crate) fn agent_reset(&mut self, index: usize) {
        if let Some(id) = self.clusters[index].connection {
            let (agent_ms, member_ms) = (self.network.draw_ms(1, 300), self.network.draw_ms(1, 300));
            self.break_connection(id, Some(agent_ms), Some(member_ms));
        }
    }
}

fn describe_up(frame: &AgentFrame) -> String {
    let epoch = frame.session_epoch;
    match &frame.body {
        Some(agent_frame::Body::Hello(_)) => "hello".to_owned(),
        Some(agent_frame::Body::RenewLease(renew)) => format!("renew {} in {epoch}", renew.sequence),
        Some(agent_frame::Body::Resync(resync)) => {
            format!("resync of {} in {epoch}, last {}", resync.held.len(), resync.last)
        }
        Some(agent_frame::Body::Report(report)) => {
            let attempt = report.attempt.clone().unwrap_or_default();
            let fence = display_fence(&attempt.fence.unwrap_or_default());
            format!("report {fence} {:?} revision {} in {epoch}", attempt.phase(), attempt.revision)
        }
        Some(agent_frame::Body::Credit(credit)) => format!("credit {}", credit.more),
        Some(agent_frame::Body::AskPermit(ask)) => {
            format!(
                "permit for {} of {} in {epoch}?",
                ask.holder,
                display_fence(&ask.fence.unwrap_or_default())
            )
        }
        Some(agent_frame::Body::LogChunk(_)) => "log".to_owned(),
        Some(agent_frame::Body::WorkflowsAsked(asked)) => {
            format!("question about {} workflows", asked.workflows.len())
        }
        Some(agent_frame::Body::PrerequisitesFound(found)) => format!("{} prerequisites", found.found.len()),
        Some(agent_frame::Body::ConfigMapsReported(report)) => {
            let (present, changed) = (report.present.len(), report.changed.len());
            format!("report {} of {present} ConfigMaps, {changed} with contents, in {epoch}", report.revision)
        }
        Some(agent_frame::Body::RenewCertificate(_)) => "question for a certificate".to_owned(),
        Some(agent_frame::Body::CertificateTaken(taken)) => format!("certificate {} kept", taken.generation),
        None => "nothing".to_owned(),
    }
}

fn describe_down(frame: &ControlFrame) -> String {
    let epoch = frame.session_epoch;
    let fence = |fence: &Option<argosy_model::Fence>| display_fence(&fence.unwrap_or_default());
    match &frame.body {
        Some(control_frame::Body::Welcome(_)) => format!("welcome to {epoch}"),
        Some(control_frame::Body::LeaseRenewed(renewed)) => {
            format!("renewed {} in {epoch}", renewed.sequence)
        }
        Some(control_frame::Body::ResyncVerdicts(verdicts)) => {
            format!("verdicts on {} in {epoch}", verdicts.verdicts.len())
        }
        Some(control_frame::Body::Assign(assign)) => {
            let assignment = assign.assignment.clone().unwrap_or_default();
            format!("assign {} {} in {epoch}", fence(&assignment.fence), assignment.node_name)
        }
        Some(control_frame::Body::Stop(stop)) => {
            format!("stop {} in {epoch}: {}", fence(&stop.fence), stop.reason)
        }
        Some(control_frame::Body::ReportVerdict(verdict)) => {
            let (of, revision) = (fence(&verdict.fence), verdict.revision);
            format!("verdict {:?} on {of} revision {revision} in {epoch}", verdict.verdict())
        }
        Some(control_frame::Body::PermitVerdict(verdict)) => {
            let (of, granted) = (fence(&verdict.fence), verdict.granted);
            format!("permit for {} of {of}: {granted} {} in {epoch}", verdict.holder, verdict.reason)
        }
        Some(control_frame::Body::LogRequest(_)) => "log request".to_owned(),
        Some(control_frame::Body::WorkflowsTold(told)) => {
            format!("told of {} workflows", told.workflows.len())
        }
        Some(control_frame::Body::PrerequisitesAsked(asked)) => {
            format!("question about {} prerequisites", asked.names.len())
        }
        Some(control_frame::Body::ConfigMapsTaken(taken)) => {
            format!("report {} of ConfigMaps taken in {epoch}", taken.revision)
        }
        Some(control_frame::Body::FallSilent(silent)) => {
            format!("order to fall silent for {} ms in {epoch}", silent.for_ms)
        }
        Some(control_frame::Body::Kill(kill)) => format!("order to kill {} in {epoch}", fence(&kill.fence)),
        Some(control_frame::Body::Refused(refused)) => format!("refused {}", refused.code),
        Some(control_frame::Body::CertificateRenewed(_)) => "certificate".to_owned(),
        Some(control_frame::Body::TrustRoots(roots)) => format!("{} authorities", roots.roots_der.len()),
        None => "nothing".to_owned(),
    }
}
