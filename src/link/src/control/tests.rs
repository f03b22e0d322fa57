use super::*;
use crate::code;
use argosy_proto::agent::{AgentFrame, agent_frame::Body as Up, control_frame::Body as Down};
use argosy_proto::command::{command::Body as Ask, reply::Body as Reply};
use argosy_proto::common::{AttemptPhase, AttemptReport, Fence, Resources, Verdict};

const A: ConnectionRef = ConnectionRef { member: 1, connection: 1 };
const B: ConnectionRef = ConnectionRef { member: 2, connection: 1 };

fn fence(index: u64) -> Fence {
    Fence { incarnation: 1, index, ordinal: 0 }
}

fn run(index: u64) -> (Fence, Desired) {
    (fence(index), Desired::Run { exclusive_wait_ms: None })
}

fn report(index: u64, revision: u64, phase: AttemptPhase) -> Up {
    let attempt = AttemptReport {
        fence: Some(fence(index)),
        revision,
        phase: phase.into(),
        ..AttemptReport::default()
    };
    Up::Report(agent::Report { attempt: Some(attempt) })
}

fn renew(sequence: u64) -> Up {
    Up::RenewLease(agent::RenewLease { sequence, ..agent::RenewLease::default() })
}

struct Rig {
    sessions: Sessions,
    now: Millis,
}

impl Rig {
    fn new(times: Times, limits: Limits) -> Self {
        let mut rig = Self { sessions: Sessions::new("cell", 1, times, limits), now: 1_000_000 };
        rig.step(Input::LeadershipStarted { clusters: Vec::new() });
        rig
    }

    fn plain() -> Self {
        Self::new(Times::default(), Limits::default())
    }

    /// With the session of cluster `a` at epoch 1 on connection A, in step.
    fn live(limits: Limits) -> Self {
        let mut rig = Self::new(Times::default(), limits);
        rig.open("a", A, 2, 1);
        rig.resync("a", A, 1, &[]);
        rig
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        self.sessions.step(self.now, input)
    }

    fn wait(&mut self, ms: Millis) -> Vec<Output> {
        self.now += ms;
        self.step(Input::Tick)
    }

    fn frame(
        &mut self,
        cluster: &str,
        connection: ConnectionRef,
        session_epoch: u64,
        body: Up,
    ) -> Vec<Output> {
        let frame = AgentFrame { version: 1, session_epoch, body: Some(body) };
        self.step(Input::Frame { connection, cluster: cluster.to_owned(), frame })
    }

    fn hello(&mut self, cluster: &str, connection: ConnectionRef, credit: u32) -> Vec<Output> {
        let hello = agent::Hello { cluster: cluster.to_owned(), credit, ..agent::Hello::default() };
        self.frame(cluster, connection, 0, Up::Hello(hello))
    }

    fn answer(&mut self, decision: DecisionId, body: Reply) -> Vec<Output> {
        let answer = Answer::Reply(command::Reply { body: Some(body) });
        self.step(Input::Decided { decision, answer })
    }

    fn opened(&mut self, decision: DecisionId, session_epoch: u64) -> Vec<Output> {
        self.answer(decision, Reply::SessionOpened(command::SessionOpened { session_epoch }))
    }

    fn open(&mut self, cluster: &str, connection: ConnectionRef, credit: u32, epoch: u64) -> Vec<Output> {
        let outputs = self.hello(cluster, connection, credit);
        let (decision, _) = asked(&outputs);
        self.opened(decision, epoch)
    }

    fn resync(&mut self, cluster: &str, connection: ConnectionRef, epoch: u64, keep: &[u64]) -> Vec<Output> {
        let page = agent::Resync { held: Vec::new(), last: true, round: 1, page: 0 };
        let outputs = self.frame(cluster, connection, epoch, Up::Resync(page));
        let (decision, _) = asked(&outputs);
        let keep = keep.iter().copied().map(fence).collect();
        self.answer(decision, Reply::AttemptsResynced(command::AttemptsResynced { keep, stop: Vec::new() }))
    }

    fn verdict(&mut self, decision: DecisionId, index: u64, revision: u64) -> Vec<Output> {
        let fence = Some(fence(index));
        let verdict = Verdict::Accepted.into();
        self.answer(decision, Reply::AttemptReported(command::AttemptReported { fence, revision, verdict }))
    }
}

fn decisions(outputs: &[Output]) -> Vec<(DecisionId, Ask)> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Decide { decision, command } => Some((*decision, command.body.clone().unwrap())),
            Output::Send { .. }
            | Output::Assign { .. }
            | Output::Close { .. }
            | Output::AskQuorum { .. }
            | Output::Storm { .. } => None,
        })
        .collect()
}

fn asked(outputs: &[Output]) -> (DecisionId, Ask) {
    let all = decisions(outputs);
    assert_eq!(all.len(), 1, "{outputs:?}");
    all.into_iter().next().unwrap()
}

fn frames(outputs: &[Output]) -> Vec<Down> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send { frame, .. } => frame.body.clone(),
            Output::Decide { .. }
            | Output::Assign { .. }
            | Output::Close { .. }
            | Output::AskQuorum { .. }
            | Output::Storm { .. } => None,
        })
        .collect()
}

fn assigned(outputs: &[Output]) -> Vec<u64> {
    outputs
        .iter()
        .filter_map(|output| if let Output::Assign { fence, .. } = output { Some(fence.index) } else { None })
        .collect()
}

fn rounds(outputs: &[Output]) -> Vec<u64> {
    outputs
        .iter()
        .filter_map(|output| if let Output::AskQuorum { round } = output { Some(*round) } else { None })
        .collect()
}

fn renewed(outputs: &[Output]) -> Vec<u64> {
    frames(outputs)
        .iter()
        .filter_map(
            |frame| if let Down::LeaseRenewed(renewed) = frame { Some(renewed.sequence) } else { None },
        )
        .collect()
}

fn takeovers(outputs: &[Output]) -> Vec<(String, command::TakeOverScope)> {
    decisions(outputs)
        .into_iter()
        .filter_map(|(_, ask)| {
            if let Ask::TakeOver(take) = ask { Some((take.cluster.clone(), take.scope())) } else { None }
        })
        .collect()
}

fn refused(outputs: &[Output]) -> Option<(String, bool)> {
    frames(outputs).into_iter().find_map(|frame| match frame {
        Down::Refused(refused) => Some((refused.code, refused.permanent)),
        Down::Welcome(_)
        | Down::LeaseRenewed(_)
        | Down::ResyncVerdicts(_)
        | Down::Assign(_)
        | Down::Stop(_)
        | Down::PermitVerdict(_)
        | Down::ReportVerdict(_)
        | Down::WorkflowsTold(_)
        | Down::PrerequisitesAsked(_)
        | Down::ConfigMapsTaken(_)
        | Down::CertificateRenewed(_)
        | Down::TrustRoots(_)
        | Down::FallSilent(_)
        | Down::Kill(_)
        | Down::LogRequest(_) => None,
    })
}

#[test]
fn a_renewal_is_acknowledged_by_a_round_that_began_after_its_receipt() {
    let mut rig = Rig::live(Limits::default());
    assert_eq!(rounds(&rig.frame("a", A, 1, renew(1))), [1]);
    // Received while round 1 runs: that round says nothing of it.
    assert_eq!(rounds(&rig.frame("a", A, 1, renew(2))), [0_u64; 0]);
    let outputs = rig.step(Input::QuorumConfirmed { round: 1 });
    assert_eq!((renewed(&outputs), rounds(&outputs)), (vec![1], vec![2]));
    assert_eq!(renewed(&rig.step(Input::QuorumConfirmed { round: 2 })), [2]);
}

#[test]
fn one_round_serves_all_that_wait() {
    let mut rig = Rig::live(Limits::default());
    rig.open("b", B, 1, 1);
    assert_eq!(rounds(&rig.frame("a", A, 1, renew(1))), [1]);
    assert!(rounds(&rig.frame("a", A, 1, renew(2))).is_empty());
    assert!(rounds(&rig.frame("b", B, 1, renew(7))).is_empty());
    assert_eq!(rounds(&rig.step(Input::QuorumConfirmed { round: 1 })), [2]);
    assert_eq!(renewed(&rig.step(Input::QuorumConfirmed { round: 2 })), [2, 7]);
}

#[test]
fn a_lost_round_is_followed_by_another_and_its_late_answer_is_still_good() {
    let mut rig = Rig::live(Limits::default());
    rig.frame("a", A, 1, renew(1));
    assert_eq!(rounds(&rig.wait(500)), [2]);
    assert_eq!(renewed(&rig.step(Input::QuorumConfirmed { round: 1 })), [1]);
    // An answer to a question that was not asked.
    rig.frame("a", A, 1, renew(2));
    assert!(renewed(&rig.step(Input::QuorumConfirmed { round: 9 })).is_empty());
}

#[test]
fn silence_is_counted_from_the_last_acknowledged_receipt() {
    let mut rig = Rig::live(Limits::default());
    rig.now += 10_000;
    rig.frame("a", A, 1, renew(1));
    rig.now += 2_000;
    rig.step(Input::QuorumConfirmed { round: 1 });
    // Received, never acknowledged.
    rig.now += 3_000;
    rig.frame("a", A, 1, renew(2));
    assert!(takeovers(&rig.wait(14_999)).is_empty());
    let outputs = rig.wait(1);
    assert_eq!(takeovers(&outputs), [("a".to_owned(), command::TakeOverScope::Safe)]);
    // The waiting renewal is not acknowledged any more, and the agent has to greet again.
    assert_eq!(refused(&outputs), Some((code::STALE_SESSION.to_owned(), false)));
    assert!(renewed(&rig.step(Input::QuorumConfirmed { round: 2 })).is_empty());
    assert_eq!(refused(&rig.frame("a", A, 1, renew(3))), Some((code::STALE_SESSION.to_owned(), false)));
}

#[test]
fn take_overs_are_repeated_until_decided_then_everything_follows() {
    let mut rig = Rig::live(Limits::default());
    let (decision, _) = asked(&rig.wait(20_000));
    assert!(decisions(&rig.wait(5_000)).is_empty(), "one at a time");
    rig.step(Input::Decided { decision, answer: Answer::Lost });
    assert!(decisions(&rig.wait(4_999)).is_empty());
    let (decision, ask) = asked(&rig.wait(1));
    assert!(matches!(ask, Ask::TakeOver(take) if take.session_epoch == 1));
    rig.answer(decision, Reply::Done(command::Done {}));
    assert!(decisions(&rig.wait(289_999)).is_empty());
    let outputs = rig.wait(1);
    assert_eq!(takeovers(&outputs), [("a".to_owned(), command::TakeOverScope::All)]);
    rig.answer(asked(&outputs).0, Reply::Done(command::Done {}));
    assert!(decisions(&rig.wait(1_000_000)).is_empty());
    // A new session starts anew.
    rig.open("a", B, 1, 2);
    assert!(takeovers(&rig.wait(19_999)).is_empty());
    assert_eq!(takeovers(&rig.wait(1)), [("a".to_owned(), command::TakeOverScope::Safe)]);
}

#[test]
fn an_exclusive_step_is_waited_for_as_long_as_its_own_lease_says() {
    // One that is being stopped as well: its cluster may never come back to say that it has.
    let stop = Desired::Stop { reason: String::new(), grace_ms: 0, exclusive_wait_ms: Some(600_000) };
    for desired in [Desired::Run { exclusive_wait_ms: Some(600_000) }, stop] {
        let mut rig = Rig::live(Limits::default());
        rig.step(Input::Desired { cluster: "a".into(), attempts: vec![(fence(1), desired)] });
        let beyond = |outputs: &[Output]| match asked(outputs) {
            (decision, Ask::TakeOver(take)) => (decision, take.beyond_ms),
            other => panic!("{other:?}"),
        };
        for (wait_ms, beyond_ms) in [(20_000, 0), (300_000, 300_000), (300_000, 600_000)] {
            assert!(takeovers(&rig.wait(wait_ms - 1)).is_empty());
            let (decision, asked_ms) = beyond(&rig.wait(1));
            assert_eq!(asked_ms, beyond_ms);
            rig.answer(decision, Reply::Done(command::Done {}));
        }
        assert!(takeovers(&rig.wait(10_000_000)).is_empty());
    }
}

#[test]
fn a_cluster_whose_removal_is_on_its_way_is_not_renewed_and_then_turned_away() {
    let mut rig = Rig::live(Limits::default());
    rig.step(Input::ClusterRemoving { cluster: "a".into() });
    rig.frame("a", A, 1, renew(7));
    let outputs = rig.step(Input::QuorumConfirmed { round: 1 });
    assert!(frames(&outputs).is_empty(), "{outputs:?}");
    let outputs = rig.step(Input::ClusterRemoved { cluster: "a".into() });
    assert_eq!(refused(&outputs), Some((code::REMOVED.to_owned(), true)));
    assert!(takeovers(&rig.wait(1_000_000)).is_empty(), "nobody waits for it");
}

#[test]
fn permits_of_exclusive_steps_are_asked_once_and_answered_after_commit() {
    let mut rig = Rig::live(Limits { permits_waiting_max: 2, ..Limits::default() });
    let ask = |index: u64, holder: &str| {
        Up::AskPermit(agent::AskPermit { fence: Some(fence(index)), holder: holder.to_owned() })
    };
    let outputs = rig.frame("a", A, 1, ask(1, "pod"));
    let (decision, question) = asked(&outputs);
    assert!(matches!(question, Ask::GrantPermit(grant) if grant.session_epoch == 1 && grant.holder == "pod"));
    assert!(rig.frame("a", A, 1, ask(1, "pod")).is_empty(), "it is being decided");
    assert_eq!(decisions(&rig.frame("a", A, 1, ask(1, "other"))).len(), 1);
    assert!(rig.frame("a", A, 1, ask(2, "pod")).is_empty(), "beyond the limit it is dropped");
    let decided = command::PermitDecided {
        fence: Some(fence(1)),
        holder: "pod".to_owned(),
        granted: true,
        exclusive_lease_ms: 9_000,
        ..command::PermitDecided::default()
    };
    let outputs = rig.answer(decision, Reply::PermitDecided(decided));
    let [Output::Send { frame, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
    let Some(Down::PermitVerdict(verdict)) = &frame.body else { panic!("{frame:?}") };
    assert!(verdict.granted && verdict.exclusive_lease_ms == 9_000);
    assert!(rig.frame("a", A, 3, ask(3, "pod")).is_empty(), "of another session");
}

#[test]
fn a_new_leader_starts_all_clocks_in_full() {
    let mut rig = Rig::plain();
    let known = |cluster: &str, session_epoch, taken_over| KnownCluster {
        cluster: cluster.to_owned(),
        session_epoch,
        taken_over,
        resumed_epoch: 0,
    };
    let clusters = vec![known("new", 0, None), known("seen", 4, None), known("lost", 4, Some(300_000))];
    rig.step(Input::LeadershipStarted { clusters });
    assert!(takeovers(&rig.wait(19_999)).is_empty());
    assert_eq!(takeovers(&rig.wait(1)), [("seen".to_owned(), command::TakeOverScope::Safe)]);
    // The old session's frames don't count, whatever their epoch.
    assert_eq!(refused(&rig.frame("lost", A, 4, renew(1))), Some((code::STALE_SESSION.to_owned(), false)));
}

#[test]
fn the_storm_brake_holds_releases_and_resumes() {
    let times = Times { storm_hold_max_ms: Some(60_000), ..Times::default() };
    for resume in [true, false] {
        let mut rig = Rig::new(times, Limits::default());
        let clusters = (0..5)
            .map(|number| KnownCluster {
                cluster: number.to_string(),
                session_epoch: 1,
                taken_over: None,
                resumed_epoch: 0,
            })
            .collect();
        rig.step(Input::LeadershipStarted { clusters });
        for number in 3..5_u64 {
            let connection = ConnectionRef { member: 1, connection: number };
            rig.now += 1;
            rig.open(&number.to_string(), connection, 1, 2);
        }
        let mut alarms = Vec::new();
        let mut taken = Vec::new();
        for tick in 0..800 {
            let mut outputs = Vec::new();
            if resume && tick == 400 {
                for cluster in ["0", "1", "2"] {
                    outputs.extend(
                        rig.step(Input::TakeOverResumed { cluster: cluster.into(), session_epoch: 1 }),
                    );
                }
            }
            for number in 3..5_u64 {
                let connection = ConnectionRef { member: 1, connection: number };
                rig.frame(&number.to_string(), connection, 2, renew(tick));
            }
            rig.step(Input::QuorumConfirmed { round: tick * 2 + 1 });
            rig.step(Input::QuorumConfirmed { round: tick * 2 + 2 });
            outputs.extend(rig.wait(100));
            for (decision, _) in decisions(&outputs) {
                rig.answer(decision, Reply::Done(command::Done {}));
            }
            alarms.extend(outputs.iter().filter_map(|output| {
                if let Output::Storm { held } = output { Some((*held, tick)) } else { None }
            }));
            taken.extend(takeovers(&outputs).into_iter().map(|(cluster, _)| (cluster, tick)));
        }
        let released = if resume { 400 } else { 749 };
        assert_eq!(alarms.first(), Some(&(true, 149)), "held from the end of the lease on");
        assert_eq!(alarms.len(), 2, "{alarms:?}");
        assert!(alarms[1].1.abs_diff(released) <= 1 && !alarms[1].0, "{alarms:?}");
        assert_eq!(taken.len(), 3, "{taken:?}");
        assert!(taken.iter().all(|(_, tick)| tick.abs_diff(released) <= 1), "{taken:?}");
    }
}

fn resumed(cluster: &str) -> Input {
    Input::TakeOverResumed { cluster: cluster.to_owned(), session_epoch: 1 }
}

fn silent_fleet(clusters: usize, resumed_epoch: u64) -> Vec<KnownCluster> {
    let known = |number: usize| KnownCluster {
        cluster: number.to_string(),
        session_epoch: 1,
        taken_over: None,
        resumed_epoch,
    };
    (0..clusters).map(known).collect()
}

#[test]
fn one_cluster_is_resumed_and_the_others_stay_held() {
    let mut rig = Rig::new(Times { storm_hold_max_ms: None, ..Times::default() }, Limits::default());
    rig.step(Input::LeadershipStarted { clusters: silent_fleet(3, 0) });
    assert!(takeovers(&rig.wait(60_000)).is_empty());
    assert_eq!(
        rig.sessions.storm(rig.now).map(|storm| (storm.held, storm.release_in_ms)),
        Some((true, None))
    );
    let next =
        |rig: &Rig| rig.sessions.clusters(rig.now).filter_map(|one| one.next_take_over).collect::<Vec<_>>();
    assert!(next(&rig).iter().all(|next| next.held && next.in_ms == 0 && !next.paced));

    let outputs = rig.step(resumed("1"));
    assert_eq!(takeovers(&outputs), [("1".to_owned(), command::TakeOverScope::Safe)]);
    for (decision, _) in decisions(&outputs) {
        rig.answer(decision, Reply::Done(command::Done {}));
    }
    // Two of two silent clusters would be no storm by themselves: they belong to this one.
    assert!(takeovers(&rig.wait(60_000)).is_empty());
    assert_eq!(next(&rig).iter().filter(|next| next.held).count(), 2);

    // The session that it was said of is over: it is an order for nothing.
    rig.step(Input::TakeOverResumed { cluster: "0".into(), session_epoch: 9 });
    assert!(takeovers(&rig.wait(1_000)).is_empty());
    let outputs = [rig.step(resumed("0")), rig.step(resumed("2"))].concat();
    assert_eq!(takeovers(&outputs).len(), 2);
    assert!(outputs.contains(&Output::Storm { held: false }));
}

#[test]
fn a_new_leader_knows_what_was_resumed() {
    let mut rig = Rig::new(Times { storm_hold_max_ms: None, ..Times::default() }, Limits::default());
    rig.step(Input::LeadershipStarted { clusters: silent_fleet(3, 1) });
    assert!(takeovers(&rig.wait(19_999)).is_empty(), "its clocks run in full all the same");
    assert_eq!(takeovers(&rig.wait(1)).len(), 3);
}

#[test]
fn less_than_a_storm_is_not_held() {
    let mut rig = Rig::plain();
    let clusters = (0..6)
        .map(|number| KnownCluster {
            cluster: number.to_string(),
            session_epoch: 1,
            taken_over: None,
            resumed_epoch: 0,
        })
        .collect();
    rig.step(Input::LeadershipStarted { clusters });
    rig.now += 10_000;
    for number in 3..6_u64 {
        rig.open(&number.to_string(), ConnectionRef { member: 1, connection: number }, 1, 2);
    }
    // Three of six are not more than half.
    assert_eq!(takeovers(&rig.wait(10_000)).len(), 3);
}

#[test]
fn wrong_identity_and_version_are_refused_for_good() {
    let mut rig = Rig::plain();
    let hello = agent::Hello { cluster: "other".into(), ..agent::Hello::default() };
    let outputs = rig.frame("a", A, 0, Up::Hello(hello));
    assert_eq!(refused(&outputs), Some((code::IDENTITY_MISMATCH.to_owned(), true)));
    assert!(outputs.contains(&Output::Close { connection: A }));
    let frame = AgentFrame { version: 2, session_epoch: 0, body: None };
    let outputs = rig.step(Input::Frame { connection: A, cluster: "a".into(), frame });
    assert_eq!(refused(&outputs), Some((code::VERSION.to_owned(), true)));
    assert_eq!(rig.sessions.counters().sessions_refused, 2);
    assert!(decisions(&outputs).is_empty());
}

#[test]
fn the_engines_refusal_reaches_the_agent() {
    let mut rig = Rig::plain();
    let (decision, _) = asked(&rig.hello("a", A, 1));
    let refusal = command::Refusal {
        code: "ARG0001".into(),
        grpc_code: 5,
        http_status: 404,
        message: "unknown cluster".into(),
    };
    let outputs = rig.step(Input::Decided { decision, answer: Answer::Refused(refusal) });
    assert_eq!(refused(&outputs), Some(("ARG0001".to_owned(), true)));
    assert!(outputs.contains(&Output::Close { connection: A }));
}

#[test]
fn frames_of_another_epoch_or_connection_do_nothing() {
    let mut rig = Rig::live(Limits::default());
    for (connection, epoch) in [(A, 0), (A, 2), (B, 1)] {
        assert!(
            decisions(&rig.frame("a", connection, epoch, report(1, 1, AttemptPhase::Running))).is_empty()
        );
        let outputs = rig.frame("a", connection, epoch, renew(1));
        assert!(rounds(&outputs).is_empty());
        assert_eq!(refused(&outputs), Some((code::STALE_SESSION.to_owned(), false)));
    }
    assert_eq!(rig.sessions.counters().frames_stale, 6);
}

#[test]
fn the_newest_connection_takes_the_session() {
    let mut rig = Rig::live(Limits::default());
    let outputs = rig.open("a", B, 1, 2);
    assert!(matches!(frames(&outputs).as_slice(), [Down::Welcome(_)]));
    assert!(outputs.contains(&Output::Close { connection: A }));
    assert!(decisions(&rig.frame("a", A, 1, report(1, 1, AttemptPhase::Running))).is_empty());
    // The old connection's end does not touch it.
    rig.step(Input::ConnectionClosed { connection: A });
    assert_eq!(rig.sessions.clusters(rig.now).next().unwrap().connection, Some(B));
    rig.step(Input::ConnectionClosed { connection: B });
    assert_eq!(rig.sessions.clusters(rig.now).next().unwrap().connection, None);
}

#[test]
fn a_greeting_that_comes_while_another_is_decided_waits_for_it() {
    let mut rig = Rig::plain();
    let (first, _) = asked(&rig.hello("a", A, 1));
    assert!(decisions(&rig.hello("a", A, 1)).is_empty(), "a repeated greeting");
    assert!(decisions(&rig.hello("a", B, 1)).is_empty());
    rig.step(Input::ConnectionClosed { connection: A });
    let outputs = rig.opened(first, 1);
    assert!(frames(&outputs).is_empty(), "the first connection is gone");
    let outputs = rig.opened(asked(&outputs).0, 2);
    assert!(matches!(frames(&outputs).as_slice(), [Down::Welcome(_)]));
}

#[test]
fn assignments_keep_within_the_credit_and_a_report_returns_it() {
    let mut rig = Rig::live(Limits::default());
    let wanted = Input::Desired { cluster: "a".into(), attempts: (1..=6).map(run).collect() };
    assert_eq!(assigned(&rig.step(wanted.clone())), [1, 2]);
    assert_eq!(assigned(&rig.step(wanted)), [0_u64; 0]);
    assert_eq!(assigned(&rig.frame("a", A, 1, report(1, 1, AttemptPhase::Received))), [3]);
    assert_eq!(assigned(&rig.frame("a", A, 1, report(1, 2, AttemptPhase::Running))), [0_u64; 0]);
    assert_eq!(assigned(&rig.frame("a", A, 1, Up::Credit(agent::Credit { more: 1 }))), [4]);
    // No longer wanted: its credit is free.
    let gone = Input::DesiredChanged { cluster: "a".into(), fence: fence(2), desired: None };
    assert_eq!(assigned(&rig.step(gone)), [5]);
    // Unanswered ones are repeated after a while, and no others.
    assert!(assigned(&rig.wait(4_999)).is_empty());
    assert_eq!(assigned(&rig.wait(1)), [3, 4, 5]);
}

#[test]
fn nothing_is_assigned_before_the_resync_and_only_what_is_not_held_after_it() {
    let mut rig = Rig::plain();
    rig.step(Input::Desired { cluster: "a".into(), attempts: (1..=3).map(run).collect() });
    let outputs = rig.open("a", A, 10, 1);
    assert!(assigned(&outputs).is_empty());
    assert!(assigned(&rig.wait(6_000)).is_empty());
    assert_eq!(assigned(&rig.resync("a", A, 1, &[2])), [1, 3]);
}

#[test]
fn a_stop_is_repeated_until_a_terminal_report() {
    let mut rig = Rig::live(Limits::default());
    rig.step(Input::Desired { cluster: "a".into(), attempts: vec![run(1)] });
    rig.frame("a", A, 1, report(1, 1, AttemptPhase::Running));
    let stop = Desired::Stop { reason: "stopped by user".into(), grace_ms: 10, exclusive_wait_ms: None };
    let outputs = rig.step(Input::Desired { cluster: "a".into(), attempts: vec![(fence(1), stop)] });
    let sent =
        |outputs: &[Output]| frames(outputs).iter().filter(|frame| matches!(frame, Down::Stop(_))).count();
    assert_eq!(sent(&outputs), 1);
    assert_eq!(sent(&rig.wait(5_000)), 1);
    rig.frame("a", A, 1, report(1, 2, AttemptPhase::Running));
    assert_eq!(sent(&rig.wait(5_000)), 1);
    rig.frame("a", A, 1, report(1, 3, AttemptPhase::Stopped));
    assert_eq!(sent(&rig.wait(5_000)), 0);
}

#[test]
fn one_report_of_an_attempt_is_decided_at_a_time_and_the_newest_wins() {
    let mut rig = Rig::live(Limits::default());
    rig.step(Input::Desired { cluster: "a".into(), attempts: vec![run(1)] });
    let (first, _) = asked(&rig.frame("a", A, 1, report(1, 1, AttemptPhase::Received)));
    for (revision, phase) in [(3, AttemptPhase::Succeeded), (2, AttemptPhase::Running)] {
        let outputs = rig.frame("a", A, 1, report(1, revision, phase));
        assert!(decisions(&outputs).is_empty() && frames(&outputs).is_empty());
    }
    let outputs = rig.verdict(first, 1, 1);
    assert!(matches!(frames(&outputs).as_slice(), [Down::ReportVerdict(verdict)] if verdict.revision == 1));
    let (second, ask) = asked(&outputs);
    assert!(
        matches!(ask, Ask::ReportAttempt(ask) if ask.report.as_ref().is_some_and(|report| report.revision == 3))
    );
    // A verdict for a session that ended stays here.
    rig.open("a", B, 1, 2);
    assert!(frames(&rig.verdict(second, 1, 3)).is_empty());
}

#[test]
fn waiting_reports_have_a_limit() {
    let mut rig = Rig::live(Limits { reports_waiting_max: 2, ..Limits::default() });
    for index in 1..=3 {
        let outputs = rig.frame("a", A, 1, report(index, 1, AttemptPhase::Running));
        assert_eq!(decisions(&outputs).len(), usize::from(index < 3));
    }
    assert_eq!(rig.sessions.counters().reports_dropped, 1);
}

#[test]
fn a_list_with_a_missing_page_is_not_decided() {
    let mut rig = Rig::plain();
    rig.open("a", A, 1, 1);
    let held = |index: u64| AttemptReport { fence: Some(fence(index)), ..AttemptReport::default() };
    let page = |round, page, last| {
        Up::Resync(agent::Resync { held: vec![held(u64::from(page))], last, round, page })
    };
    assert!(decisions(&rig.frame("a", A, 1, page(1, 0, false))).is_empty());
    assert!(decisions(&rig.frame("a", A, 1, page(1, 2, true))).is_empty());
    assert!(decisions(&rig.frame("a", A, 1, page(2, 2, true))).is_empty());
    assert!(decisions(&rig.frame("a", A, 1, page(1, 1, false))).is_empty(), "of an earlier round");
    assert!(decisions(&rig.frame("a", A, 1, page(2, 0, false))).is_empty());
    let (_, ask) = asked(&rig.frame("a", A, 1, page(2, 1, false)));
    assert!(matches!(ask, Ask::ResyncAttempts(ask) if ask.held.len() == 3));
    assert!(decisions(&rig.frame("a", A, 1, page(2, 0, false))).is_empty(), "a late copy");
}

#[test]
fn a_list_beyond_the_limit_ends_the_connection() {
    let mut rig = Rig::new(Times::default(), Limits { held_max: 2, ..Limits::default() });
    rig.open("a", A, 1, 1);
    let held = vec![AttemptReport::default(); 3];
    let outputs = rig.frame("a", A, 1, Up::Resync(agent::Resync { held, last: true, round: 1, page: 0 }));
    assert!(decisions(&outputs).is_empty());
    assert!(outputs.contains(&Output::Close { connection: A }));
}

#[test]
fn an_old_list_after_a_report_is_ignored() {
    let mut rig = Rig::live(Limits::default());
    rig.frame("a", A, 1, report(1, 1, AttemptPhase::Running));
    let late = agent::Resync { held: Vec::new(), last: true, round: 2, page: 0 };
    assert!(decisions(&rig.frame("a", A, 1, Up::Resync(late))).is_empty());
}

#[test]
fn capacity_is_told_when_it_changes() {
    let mut rig = Rig::live(Limits::default());
    let renew_with = |rig: &mut Rig, pods: i64, runtime_healthy| {
        let allocatable = Some(Resources { pods, ..Resources::default() });
        let renew =
            agent::RenewLease { sequence: 1, allocatable, runtime_healthy, ..agent::RenewLease::default() };
        decisions(&rig.frame("a", A, 1, Up::RenewLease(renew)))
    };
    let first = renew_with(&mut rig, 5, true);
    assert!(matches!(first.as_slice(), [(_, Ask::UpdateCluster(_))]));
    assert!(renew_with(&mut rig, 6, true).is_empty(), "one at a time");
    rig.answer(first[0].0, Reply::Done(command::Done {}));
    assert!(renew_with(&mut rig, 5, true).is_empty());
    let lost = renew_with(&mut rig, 5, false);
    rig.step(Input::Decided { decision: lost[0].0, answer: Answer::Lost });
    assert_eq!(renew_with(&mut rig, 5, false).len(), 1);
}

#[test]
fn connections_have_a_limit() {
    let mut rig = Rig::new(Times::default(), Limits { connections_max: 1, ..Limits::default() });
    rig.open("a", A, 1, 1);
    let outputs = rig.hello("b", B, 1);
    assert_eq!(refused(&outputs), Some((code::LIMIT.to_owned(), false)));
    rig.step(Input::ConnectionClosed { connection: A });
    assert_eq!(decisions(&rig.hello("b", B, 1)).len(), 1);
}

#[test]
fn connections_of_dead_members_do_not_count_for_ever() {
    let mut rig = Rig::new(Times::default(), Limits { connections_max: 2, ..Limits::default() });
    for connection in 1..10 {
        let connection = ConnectionRef { member: connection, connection: 1 };
        rig.open("a", connection, 1, connection.member);
    }
    assert_eq!(rig.sessions.connections.len(), 1);
    // Taken over without a word of its connection's end.
    rig.wait(20_000);
    rig.open("b", A, 1, 1);
    assert_eq!(decisions(&rig.hello("c", B, 1)).len(), 1);
}

#[test]
fn config_maps_are_decided_once_and_answered_again() {
    let mut rig = Rig::live(Limits::default());
    let reported = |revision| {
        let changed = vec![argosy_proto::common::ReportedConfigMap::default()];
        Up::ConfigMapsReported(agent::ConfigMapsReported { revision, present: Vec::new(), changed })
    };
    let taken = |outputs: &[Output]| {
        let of = |frame| if let Down::ConfigMapsTaken(taken) = frame { Some(taken.revision) } else { None };
        frames(outputs).into_iter().filter_map(of).collect::<Vec<_>>()
    };
    let (decision, ask) = asked(&rig.frame("a", A, 1, reported(3)));
    let Ask::ReportConfigMaps(ask) = ask else { panic!("{ask:?}") };
    assert_eq!((ask.cluster.as_str(), ask.session_epoch, ask.changed.len()), ("a", 1, 1));
    assert!(rig.frame("a", A, 1, reported(3)).is_empty(), "it is being decided");
    assert!(rig.frame("a", B, 1, reported(4)).is_empty(), "of another connection");
    let reply = Reply::ConfigMapsTaken(command::ConfigMapsTaken::default());
    assert_eq!(taken(&rig.answer(decision, reply)), [3]);
    assert_eq!(taken(&rig.frame("a", A, 1, reported(3))), [3], "the answer may have got lost");
    assert!(rig.frame("a", A, 1, reported(2)).is_empty(), "old news");
    // Not known whether it was decided: the agent sends it again, and it is asked again.
    let (decision, _) = asked(&rig.frame("a", A, 1, reported(4)));
    assert!(rig.step(Input::Decided { decision, answer: Answer::Lost }).is_empty());
    let (decision, _) = asked(&rig.frame("a", A, 1, reported(4)));
    let refusal = command::Refusal { code: "ARG1105".into(), ..command::Refusal::default() };
    let outputs = rig.step(Input::Decided { decision, answer: Answer::Refused(refusal) });
    assert_eq!(taken(&outputs), [4], "a refusal is an answer: the same would be refused again");
}

#[test]
fn a_session_whose_identity_is_refused_ends_and_its_take_over_clock_goes_on() {
    let mut rig = Rig::live(Limits::default());
    let refusal = |cluster: &str| Input::IdentityRefused {
        cluster: cluster.into(),
        code: "ARG1183".into(),
        message: "it was revoked".into(),
    };
    assert!(rig.step(refusal("other")).is_empty());
    let outputs = rig.step(refusal("a"));
    assert_eq!(refused(&outputs), Some(("ARG1183".to_owned(), true)));
    assert!(outputs.contains(&Output::Close { connection: A }));
    assert!(rounds(&rig.frame("a", A, 1, renew(1))).is_empty(), "nothing of it is acknowledged any more");
    assert!(rig.step(refusal("a")).is_empty());
    let status = rig.sessions.clusters(rig.now).next().unwrap();
    assert!(status.connection.is_none() && status.silent_ms.is_some(), "{status:?}");
}
