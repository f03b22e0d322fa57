//! Members in one thread, with frames carried by hand.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use argosy_member::{Config, Input, Member, Now, Outcome, Output};
use argosy_proto::agent::{AgentFrame, Hello, RenewLease, Resync, agent_frame, control_frame};
use argosy_proto::command::{
    AddMember, BeginDrill, Command, CreateInvite, IdempotencyKey, RedeemInvite, RemoveMember,
    ShutdownWorkflow, SubmitWorkflow, TransferLeadership, command, reply,
};
use argosy_proto::common::{MemberAddresses, Runtime};
use argosy_proto::state::DrillMode;
use argosy_store::MemoryKv;
use std::collections::BTreeMap;

/// Members that exchange frames at once, except with those that are cut off.
struct Cell {
    members: BTreeMap<u64, Member<MemoryKv>>,
    cut_off: Vec<u64>,
    now_ms: u64,
    answers: BTreeMap<(u64, u64), Outcome>,
    reads: BTreeMap<(u64, u64), Option<argosy_engine::State>>,
    archived: BTreeMap<(u64, u64), Option<Vec<Vec<u8>>>>,
    /// Frames for agents, and connections to be closed: member and connection.
    to_agents: Vec<(u64, u64, control_frame::Body)>,
    closed: Vec<(u64, u64)>,
}

fn now(now_ms: u64) -> Now {
    Now { steady_ms: now_ms, wall_ms: 1_800_000_000_000 + i64::try_from(now_ms).unwrap() }
}

impl Cell {
    fn new(voters: &[u64]) -> Self {
        let mut cell = Self {
            members: BTreeMap::new(),
            cut_off: Vec::new(),
            now_ms: 0,
            answers: BTreeMap::new(),
            reads: BTreeMap::new(),
            archived: BTreeMap::new(),
            to_agents: Vec::new(),
            closed: Vec::new(),
        };
        for member in voters {
            let mut consensus = argosy_consensus::Config::new(*member, "test", voters.to_vec());
            consensus.log = argosy_consensus::LogTarget::Discard;
            consensus.seed = *member;
            let opened =
                Member::open(Config::new("test", consensus, *member), MemoryKv::new(), now(0)).unwrap();
            cell.members.insert(*member, opened);
        }
        cell
    }

    /// Starts a member that joins: it knows the others and founds nothing.
    fn join(&mut self, member: u64) {
        let mut consensus = argosy_consensus::Config::new(member, "test", Vec::new());
        consensus.known_peers = self.members.keys().copied().collect();
        consensus.log = argosy_consensus::LogTarget::Discard;
        consensus.seed = member;
        let config = Config::new("test", consensus, member);
        let opened = Member::open(config, MemoryKv::new(), now(self.now_ms)).unwrap();
        self.members.insert(member, opened);
    }

    /// Who votes, as the leader has it.
    fn voters(&mut self) -> Vec<u64> {
        let leader = self.leader();
        let mut voters = self.members[&leader].status(now(self.now_ms)).consensus.voters;
        voters.sort_unstable();
        voters
    }

    /// Carries out a command at the leader.
    fn carry_out(&mut self, request: u64, body: command::Body) -> Outcome {
        let leader = self.leader();
        self.ask(leader, request, Command { version: 1, idempotency_key: None, body: Some(body) });
        self.run(1_000);
        self.answers.remove(&(leader, request)).expect("an answer")
    }

    fn run(&mut self, span_ms: u64) {
        for _ in 0..span_ms / 10 {
            self.now_ms += 10;
            for _ in 0..8 {
                self.exchange();
            }
        }
    }

    fn exchange(&mut self) {
        let mut outputs = Vec::new();
        for (id, member) in &mut self.members {
            outputs.extend(member.flush(now(self.now_ms)).unwrap().into_iter().map(|output| (*id, output)));
        }
        for (from, output) in outputs {
            match output {
                Output::Peer { to, frame }
                    if !self.cut_off.contains(&from) && !self.cut_off.contains(&to) =>
                {
                    if let Some(member) = self.members.get_mut(&to) {
                        member.handle(now(self.now_ms), Input::Peer { from, frame });
                    }
                }
                Output::Answer { request, outcome } => drop(self.answers.insert((from, request), outcome)),
                Output::Read { request, state } => drop(self.reads.insert((from, request), state)),
                Output::Archived { request, records } => drop(self.archived.insert((from, request), records)),
                Output::Agent { connection, frame } => {
                    self.to_agents.extend(frame.body.map(|body| (from, connection, body)));
                }
                Output::CloseAgent { connection } => self.closed.push((from, connection)),
                Output::Peer { .. } | Output::Published { .. } | Output::Committed { .. } => {}
            }
        }
    }

    fn leader(&mut self) -> u64 {
        for _ in 0..100 {
            self.run(100);
            let leads =
                |(id, member): (&u64, &Member<MemoryKv>)| (member.leader() == Some(*id)).then_some(*id);
            let connected: Vec<u64> =
                self.members.iter().filter_map(leads).filter(|id| !self.cut_off.contains(id)).collect();
            if let [leader] = connected[..] {
                return leader;
            }
        }
        panic!("no leader")
    }

    fn ask(&mut self, member: u64, request: u64, command: Command) {
        let input = Input::Command { request, command };
        self.members.get_mut(&member).unwrap().handle(now(self.now_ms), input);
    }
}

fn submit(name: &str, key: Option<&str>) -> Command {
    let manifest = serde_json::json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "container": {"image": "busybox", "command": ["true"]}},
        ]},
    });
    let body = SubmitWorkflow {
        cron: String::new(),
        namespace: "default".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        manifest_json: manifest.to_string(),
        creator: "admin".into(),
    };
    let idempotency_key =
        key.map(|key| IdempotencyKey { tenant: "admin".into(), key: key.into(), digest: vec![1] });
    Command { version: 1, idempotency_key, body: Some(command::Body::SubmitWorkflow(body)) }
}

#[test]
fn a_command_is_answered_by_the_leader_and_by_its_followers() {
    let mut cell = Cell::new(&[1, 2, 3]);
    let leader = cell.leader();
    let follower = (1..=3).find(|member| *member != leader).unwrap();
    cell.ask(leader, 1, submit("one", None));
    cell.ask(follower, 2, submit("two", None));
    cell.run(500);
    for key in [(leader, 1), (follower, 2)] {
        assert!(matches!(&cell.answers[&key], Outcome::Done(_)), "{:?}", cell.answers[&key]);
    }
    let hashes: Vec<_> = cell.members.values().map(|member| member.state().hash()).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "replicas agree");
}

#[test]
fn nothing_is_answered_without_a_quorum_and_the_outcome_is_unknown_afterwards() {
    let mut cell = Cell::new(&[1, 2, 3]);
    let leader = cell.leader();
    cell.cut_off.push(leader);
    cell.ask(leader, 1, submit("lost", None));
    // Reads nothing new and changes nothing: its refusal waits for a quorum all the same.
    let shutdown = ShutdownWorkflow {
        namespace: "default".into(),
        name: "missing".into(),
        ..ShutdownWorkflow::default()
    };
    let body = Some(command::Body::ShutdownWorkflow(shutdown));
    cell.ask(leader, 2, Command { version: 1, idempotency_key: None, body });
    cell.run(300);
    assert!(cell.answers.is_empty(), "{:?}", cell.answers);
    cell.run(10_000);
    assert_eq!(cell.answers[&(leader, 1)], Outcome::Unknown);
    assert_eq!(cell.answers[&(leader, 2)], Outcome::Unknown);
    let next = cell.leader();
    assert_ne!(next, leader);
    cell.cut_off.clear();
    cell.run(3_000);
    let hashes: Vec<_> = cell.members.values().map(|member| member.state().hash()).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "the old leader follows again");
}

#[test]
fn a_repeat_under_the_same_key_happens_once() {
    let mut cell = Cell::new(&[1]);
    cell.leader();
    cell.ask(1, 1, submit("same", Some("k")));
    cell.ask(1, 2, submit("same", Some("k")));
    cell.run(100);
    cell.ask(1, 3, submit("same", Some("k")));
    cell.run(100);
    let uid = |outcome: &Outcome| match outcome {
        Outcome::Done(argosy_proto::command::Reply {
            body: Some(reply::Body::WorkflowAccepted(accepted)),
        }) => accepted.workflow_id,
        other @ (Outcome::Done(_)
        | Outcome::Refused(_)
        | Outcome::NotLeader
        | Outcome::Overloaded
        | Outcome::Unknown) => panic!("{other:?}"),
    };
    let first = uid(&cell.answers[&(1, 1)]);
    assert_eq!(uid(&cell.answers[&(1, 2)]), first);
    assert_eq!(uid(&cell.answers[&(1, 3)]), first);
}

#[test]
fn a_read_sees_what_was_answered_before_on_any_member() {
    let mut cell = Cell::new(&[1, 2, 3]);
    let leader = cell.leader();
    cell.ask(leader, 1, submit("seen", None));
    cell.run(200);
    assert!(matches!(cell.answers[&(leader, 1)], Outcome::Done(_)));
    for member in 1..=3 {
        cell.members.get_mut(&member).unwrap().handle(now(cell.now_ms), Input::Read { request: 9 });
    }
    cell.run(500);
    for member in 1..=3 {
        let state = cell.reads[&(member, 9)].as_ref().expect("a quorum answers");
        let key = argosy_model::WorkflowKey { namespace: "default".into(), name: "seen".into() };
        assert!(state.workflow_id(&key).is_some(), "member {member}");
    }
}

#[test]
fn state_comes_back_from_the_store() {
    let mut cell = Cell::new(&[1]);
    cell.leader();
    cell.ask(1, 1, submit("kept", None));
    let invite = CreateInvite { cluster: "east".into(), token_hash: vec![7; 32], ttl_ms: 1_000 };
    let body = Some(command::Body::CreateInvite(invite));
    cell.ask(1, 2, Command { version: 1, idempotency_key: None, body });
    cell.run(200);
    assert!(matches!(cell.answers[&(1, 2)], Outcome::Done(_)), "{:?}", cell.answers[&(1, 2)]);
    let member = cell.members.remove(&1).unwrap();
    let (hash, config) = (member.state().hash(), {
        let mut consensus = argosy_consensus::Config::new(1, "test", vec![1]);
        consensus.log = argosy_consensus::LogTarget::Discard;
        Config::new("test", consensus, 1)
    });
    let again = Member::open(config, member.into_kv(), now(cell.now_ms)).unwrap();
    assert_eq!(again.state().hash(), hash);
}

fn add_member(member: u64, replaces: u64) -> command::Body {
    let at = |port: u16| format!("argosy-{member}.example:{port}");
    let addresses = MemberAddresses { peer: at(2748), agent: at(2747), api: at(2746) };
    command::Body::AddMember(AddMember { member, addresses: Some(addresses), replaces })
}

#[test]
fn a_member_joins_learns_votes_and_replaces_another() {
    let mut cell = Cell::new(&[1, 2, 3]);
    let leader = cell.leader();
    for number in 0..20 {
        cell.ask(leader, number, submit(&format!("before-{number}"), None));
    }
    cell.run(1_000);
    let lost = (1..=3).find(|member| *member != leader).unwrap();
    cell.members.remove(&lost);
    assert!(matches!(cell.carry_out(100, add_member(4, lost)), Outcome::Done(_)));
    // It is not there yet: nothing changes for those that vote.
    cell.run(5_000);
    assert_eq!(cell.voters(), [1, 2, 3]);
    cell.join(4);
    cell.run(10_000);
    let expected: Vec<u64> = (1..=4).filter(|member| *member != lost).collect();
    assert_eq!(cell.voters(), expected);
    let hashes: Vec<_> = cell.members.values().map(|member| member.state().hash()).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "the new one has everything");
    // Its number is gone for good.
    match cell.carry_out(101, add_member(lost, 0)) {
        Outcome::Refused(refusal) => assert_eq!(refusal.code, "ARG1240", "{refusal:?}"),
        other @ (Outcome::Done(_) | Outcome::NotLeader | Outcome::Overloaded | Outcome::Unknown) => {
            panic!("{other:?}")
        }
    }
    // The replacement counts: with one of the three gone, the others go on.
    let (old, _) = (cell.leader(), cell.members.len());
    cell.members.remove(&old);
    assert!(matches!(cell.carry_out(102, command::Body::CreateInvite(invite())), Outcome::Done(_)));
}

fn invite() -> CreateInvite {
    CreateInvite { cluster: "east".into(), token_hash: vec![7; 32], ttl_ms: 1_000 }
}

#[test]
fn a_leader_that_is_removed_hands_over_and_goes() {
    let mut cell = Cell::new(&[1, 2, 3]);
    let leader = cell.leader();
    let remove = RemoveMember { member: leader, force: false };
    assert!(matches!(cell.carry_out(1, command::Body::RemoveMember(remove)), Outcome::Done(_)));
    cell.run(5_000);
    let voters = cell.voters();
    assert!(!voters.contains(&leader) && voters.len() == 2, "{voters:?}");
    assert!(matches!(cell.carry_out(2, command::Body::CreateInvite(invite())), Outcome::Done(_)));
    // What it shouts from outside disturbs nobody.
    let (before, now_leads) =
        (cell.members[&voters[0]].status(now(cell.now_ms)).consensus.term, cell.leader());
    cell.run(20_000);
    assert_eq!(cell.leader(), now_leads);
    assert_eq!(cell.members[&voters[0]].status(now(cell.now_ms)).consensus.term, before);
}

#[test]
fn leadership_goes_where_it_is_asked_to_go() {
    let mut cell = Cell::new(&[1, 2, 3]);
    let leader = cell.leader();
    let to = (1..=3).find(|member| *member != leader).unwrap();
    cell.ask(leader, 1, submit("before", None));
    let transfer = Some(command::Body::TransferLeadership(TransferLeadership { to }));
    cell.ask(leader, 2, Command { version: 1, idempotency_key: None, body: transfer });
    cell.run(2_000);
    assert_eq!(cell.leader(), to);
    assert!(matches!(cell.answers[&(leader, 1)], Outcome::Done(_)), "{:?}", cell.answers[&(leader, 1)]);
    // The answer needs a leadership that was just given away.
    assert!(matches!(cell.answers[&(leader, 2)], Outcome::Done(_) | Outcome::Unknown));
    assert!(matches!(cell.carry_out(3, command::Body::CreateInvite(invite())), Outcome::Done(_)));
}

fn of(body: command::Body) -> Command {
    Command { version: 1, idempotency_key: None, body: Some(body) }
}

#[test]
fn every_member_has_the_archive_and_the_next_leader_decides_with_it() {
    let mut cell = Cell::new(&[1, 2, 3]);
    let leader = cell.leader();
    let manifest = serde_json::json!({
        "spec": {"entrypoint": "main", "templates": [{"name": "main", "suspend": {"duration": "0"}}]},
    });
    let submit = SubmitWorkflow {
        namespace: "default".into(),
        name: "old".into(),
        uid: "uid-old".into(),
        manifest_json: manifest.to_string(),
        creator: "admin".into(),
        ..SubmitWorkflow::default()
    };
    cell.ask(leader, 1, of(command::Body::SubmitWorkflow(submit)));
    cell.run(2_000);
    let delete = argosy_proto::command::DeleteWorkflow { namespace: "default".into(), name: "old".into() };
    cell.ask(leader, 2, of(command::Body::DeleteWorkflow(delete)));
    cell.run(1_000);
    let id = cell.members[&leader].state().archived_id("uid-old").expect("it has ended, and is archived");
    for member in 1..=3 {
        let input = Input::Archived { request: 9, workflow: id };
        cell.members.get_mut(&member).unwrap().handle(now(cell.now_ms), input);
    }
    cell.run(100);
    let records = cell.archived[&(leader, 9)].clone().unwrap();
    assert!(records.len() >= 2, "the workflow's record, and its node's");
    for member in 1..=3 {
        assert_eq!(cell.archived[&(member, 9)].as_ref(), Some(&records), "member {member}");
    }
    cell.cut_off.push(leader);
    cell.run(10_000);
    let next = cell.leader();
    let resubmit = argosy_proto::command::ResubmitWorkflow {
        new_name: "again".into(),
        new_uid: "uid-again".into(),
        ..argosy_proto::command::ResubmitWorkflow::default()
    };
    let resubmit =
        argosy_proto::command::ResubmitArchived { uid: "uid-old".into(), resubmit: Some(resubmit) };
    cell.ask(next, 3, of(command::Body::ResubmitArchived(resubmit)));
    cell.run(500);
    assert!(matches!(&cell.answers[&(next, 3)], Outcome::Done(_)), "{:?}", cell.answers[&(next, 3)]);
}

impl Cell {
    fn enrol(&mut self, request: u64, cluster: &str) {
        let token_hash = cluster.as_bytes().repeat(8);
        let invite = CreateInvite { cluster: cluster.into(), token_hash: token_hash.clone(), ttl_ms: 60_000 };
        assert!(matches!(self.carry_out(request, command::Body::CreateInvite(invite)), Outcome::Done(_)));
        let redeem = RedeemInvite {
            cluster: cluster.into(),
            cluster_uid: format!("uid-{cluster}"),
            token_hash,
            ..RedeemInvite::default()
        };
        assert!(matches!(self.carry_out(request + 1, command::Body::RedeemInvite(redeem)), Outcome::Done(_)));
    }

    fn agent_sends(&mut self, member: u64, connection: u64, session_epoch: u64, body: agent_frame::Body) {
        let frame = AgentFrame { version: 1, session_epoch, body: Some(body) };
        let input = Input::AgentFrame { connection, frame };
        self.members.get_mut(&member).unwrap().handle(now(self.now_ms), input);
        self.run(100);
    }

    fn connect(&mut self, member: u64, connection: u64, cluster: &str) {
        let opened = Input::AgentOpened { connection, cluster: cluster.into() };
        self.members.get_mut(&member).unwrap().handle(now(self.now_ms), opened);
        let hello = Hello {
            cluster: cluster.into(),
            cluster_uid: format!("uid-{cluster}"),
            agent_instance: 1,
            runtime: Runtime::Simulated.into(),
            allocatable: Some(argosy_proto::common::Resources {
                cpu_milli: 1_000,
                pods: 100,
                ..Default::default()
            }),
            ledger: 1,
            credit: 10,
            ..Hello::default()
        };
        self.agent_sends(member, connection, 0, agent_frame::Body::Hello(hello));
    }

    /// What the agent at that connection was told since it was last asked.
    fn told(&mut self, member: u64, connection: u64) -> Vec<control_frame::Body> {
        let all = std::mem::take(&mut self.to_agents);
        all.into_iter()
            .filter(|(at, on, _)| (*at, *on) == (member, connection))
            .map(|(.., body)| body)
            .collect()
    }

    fn dropped(&self, member: u64) -> u64 {
        let counters = self.members[&member].status(now(self.now_ms)).counters;
        counters.agent_frames_dropped.get("drill").copied().unwrap_or(0)
    }
}

#[test]
fn a_drill_cuts_a_cluster_off_at_every_member_until_its_time_is_over() {
    let mut cell = Cell::new(&[1, 2, 3]);
    let leader = cell.leader();
    let follower = (1..=3).find(|member| *member != leader).unwrap();
    cell.enrol(1, "east");
    cell.enrol(3, "west");
    // One agent at a follower, one at the leader.
    cell.connect(follower, 7, "east");
    cell.connect(leader, 8, "west");
    let all = Resync { last: true, round: 1, ..Resync::default() };
    cell.agent_sends(follower, 7, 1, agent_frame::Body::Resync(all));
    let renew = |sequence| {
        agent_frame::Body::RenewLease(RenewLease { sequence, runtime_healthy: true, ..RenewLease::default() })
    };
    cell.agent_sends(follower, 7, 1, renew(1));
    let told = cell.told(follower, 7);
    assert!(told.iter().any(|body| matches!(body, control_frame::Body::LeaseRenewed(_))), "{told:?}");
    let drill = BeginDrill {
        cluster: "east".into(),
        mode: DrillMode::Block.into(),
        for_ms: 8_000,
        ..BeginDrill::default()
    };
    let outcome = cell.carry_out(9, command::Body::BeginDrill(drill));
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    cell.told(follower, 7);
    cell.agent_sends(follower, 7, 1, renew(2));
    assert!(cell.told(follower, 7).is_empty());
    assert_eq!(cell.dropped(follower), 1);
    // A new connection is turned away wherever it comes, under another leader as well.
    cell.cut_off.push(leader);
    let next = cell.leader();
    assert_ne!(next, leader);
    cell.connect(next, 9, "east");
    assert!(cell.closed.contains(&(next, 9)) && cell.told(next, 9).is_empty());
    cell.connect(next, 10, "west");
    assert!(cell.told(next, 10).iter().any(|body| matches!(body, control_frame::Body::Welcome(_))));
    cell.cut_off.clear();
    cell.run(8_000);
    cell.to_agents.clear();
    cell.agent_sends(follower, 7, 1, renew(3));
    assert!(!cell.told(follower, 7).is_empty(), "it is heard again");
}

#[test]
fn an_agent_is_told_to_fall_silent_for_what_is_left_of_the_drill() {
    let mut cell = Cell::new(&[1]);
    cell.enrol(1, "east");
    cell.enrol(3, "west");
    cell.connect(1, 7, "east");
    cell.connect(1, 8, "west");
    cell.to_agents.clear();
    let drill = BeginDrill {
        cluster: "east".into(),
        mode: DrillMode::KillAgent.into(),
        for_ms: 4_000,
        ..BeginDrill::default()
    };
    assert!(matches!(cell.carry_out(9, command::Body::BeginDrill(drill)), Outcome::Done(_)));
    cell.run(5_000);
    let told = cell.told(1, 7);
    let silent: Vec<u64> = told
        .iter()
        .filter_map(|body| {
            if let control_frame::Body::FallSilent(silent) = body { Some(silent.for_ms) } else { None }
        })
        .collect();
    assert!((3..=5).contains(&silent.len()), "once a second, in case it was lost: {silent:?}");
    assert!(silent.is_sorted_by(|one, next| one > next) && silent[0] <= 4_000, "{silent:?}");
}
