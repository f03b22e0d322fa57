use super::*;
use crate::code;
use argosy_proto::agent::{ControlFrame, control_frame::Body as Down};
use argosy_proto::common::{Assignment, AttemptPhase, AttemptReport, Fence, Verdict};

fn fence(index: u64) -> Fence {
    Fence { incarnation: 1, index, ordinal: 0 }
}

fn record(index: u64, revision: u64, phase: AttemptPhase) -> Input {
    Input::Attempt(AttemptReport {
        fence: Some(fence(index)),
        revision,
        phase: phase.into(),
        ..AttemptReport::default()
    })
}

struct Rig {
    session: Session,
    now: Millis,
}

impl Rig {
    fn new(limits: Limits, seed: u64) -> Self {
        let options = Options {
            cluster: "a".into(),
            cluster_uid: "uid".into(),
            agent_version: "1".into(),
            agent_instance: 1,
            runtime: common::Runtime::Process,
            labels: BTreeMap::new(),
            ledger: 1,
            enforces_exclusive: true,
            credit: 2,
            times: Times::default(),
            limits,
            seed,
        };
        Self { session: Session::new(options), now: 1_000_000 }
    }

    fn plain() -> Self {
        Self::new(Limits::default(), 1)
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        self.session.step(self.now, input)
    }

    fn connect(&mut self) -> Vec<Output> {
        self.step(Input::Connected { wall_clock_ms: 5 })
    }

    fn wait(&mut self, ms: Millis) -> Vec<Output> {
        self.now += ms;
        self.step(Input::Tick { wall_clock_ms: 5 })
    }

    fn frame(&mut self, session_epoch: u64, body: Down) -> Vec<Output> {
        self.step(Input::Frame(ControlFrame { version: 1, session_epoch, body: Some(body) }))
    }

    fn welcome(&mut self, incarnation: u64, epoch: u64) -> Vec<Output> {
        let welcome =
            agent::Welcome { cell: "cell".into(), incarnation, lease_ms: 15_000, renew_every_ms: 5_000 };
        self.frame(epoch, Down::Welcome(welcome))
    }

    fn verdicts(&mut self, epoch: u64, verdicts: &[(u64, bool)], last: bool) -> Vec<Output> {
        let verdicts = verdicts
            .iter()
            .map(|(index, keep)| agent::AttemptVerdict { fence: Some(fence(*index)), keep: *keep })
            .collect();
        self.frame(epoch, Down::ResyncVerdicts(agent::ResyncVerdicts { verdicts, last }))
    }

    fn assign(&mut self, epoch: u64, index: u64) -> Vec<Output> {
        let assignment = Assignment { fence: Some(fence(index)), ..Assignment::default() };
        self.frame(epoch, Down::Assign(agent::Assign { assignment: Some(assignment) }))
    }

    fn judge(&mut self, epoch: u64, index: u64, revision: u64, verdict: Verdict) -> Vec<Output> {
        let verdict = verdict.into();
        self.frame(
            epoch,
            Down::ReportVerdict(agent::ReportVerdict { fence: Some(fence(index)), revision, verdict }),
        )
    }

    fn acknowledge(&mut self, epoch: u64, sequence: u64) -> Vec<Output> {
        self.frame(epoch, Down::LeaseRenewed(agent::LeaseRenewed { sequence }))
    }

    /// Connected, session 1, in step.
    fn synced() -> Self {
        let mut rig = Self::plain();
        rig.connect();
        rig.welcome(1, 1);
        rig.verdicts(1, &[], true);
        assert!(rig.session.is_synced());
        rig
    }
}

fn sent(outputs: &[Output]) -> Vec<Up> {
    outputs
        .iter()
        .filter_map(|output| if let Output::Send(frame) = output { frame.body.clone() } else { None })
        .collect()
}

fn reports(outputs: &[Output]) -> Vec<(u64, u64)> {
    sent(outputs)
        .into_iter()
        .filter_map(|body| if let Up::Report(report) = body { report.attempt } else { None })
        .map(|report| (report.fence.unwrap().index, report.revision))
        .collect()
}

fn pages(outputs: &[Output]) -> Vec<agent::Resync> {
    sent(outputs)
        .into_iter()
        .filter_map(|body| if let Up::Resync(page) = body { Some(page) } else { None })
        .collect()
}

fn greetings(outputs: &[Output]) -> usize {
    sent(outputs).iter().filter(|body| matches!(body, Up::Hello(_))).count()
}

fn waits(outputs: &[Output]) -> Vec<Millis> {
    outputs
        .iter()
        .filter_map(|output| if let Output::Reconnect { after_ms } = output { Some(*after_ms) } else { None })
        .collect()
}

#[test]
fn hello_is_repeated_until_welcome() {
    let mut rig = Rig::plain();
    assert_eq!(greetings(&rig.connect()), 1);
    assert_eq!(greetings(&rig.wait(4_999)), 0);
    assert_eq!(greetings(&rig.wait(1)), 1);
    let outputs = rig.welcome(1, 3);
    assert!(matches!(sent(&outputs).as_slice(), [Up::Resync(_), Up::RenewLease(_)]));
    assert_eq!(greetings(&rig.wait(5_000)), 0);
}

#[test]
fn the_lease_counts_from_the_send_of_the_acknowledged_renewal() {
    let mut rig = Rig::synced();
    assert!(!rig.session.lease_live(rig.now));
    let sent_at = rig.now;
    rig.now += 4_000;
    let outputs = rig.acknowledge(1, 1);
    assert_eq!(outputs, [Output::Lease { live_until: sent_at + 15_000 }]);
    assert!(rig.session.lease_live(sent_at + 14_999));
    assert!(!rig.session.lease_live(sent_at + 15_000));
    // The next two; the older acknowledgement comes late.
    rig.wait(1_000);
    rig.wait(5_000);
    rig.acknowledge(1, 3);
    assert_eq!(rig.session.lease_until(), sent_at + 10_000 + 15_000);
    assert!(rig.acknowledge(1, 2).is_empty());
    assert!(rig.acknowledge(1, 99).is_empty());
    assert_eq!(rig.session.lease_until(), sent_at + 10_000 + 15_000);
}

#[test]
fn a_lease_allows_nothing_before_every_held_attempt_has_its_verdict() {
    let mut rig = Rig::new(Limits { resync_page_max: 2, ..Limits::default() }, 1);
    for index in 1..=3 {
        rig.step(record(index, 1, AttemptPhase::Received));
    }
    rig.connect();
    let outputs = rig.welcome(1, 1);
    let listed = pages(&outputs);
    assert_eq!(
        listed.iter().map(|page| (page.page, page.last, page.held.len())).collect::<Vec<_>>(),
        [(0, false, 2), (1, true, 1)]
    );
    rig.acknowledge(1, 1);
    assert!(!rig.session.lease_live(rig.now));
    // The first page of verdicts is lost: the list is repeated in a round of its own.
    rig.verdicts(1, &[(3, true)], true);
    assert!(!rig.session.is_synced());
    let listed = pages(&rig.wait(5_000));
    assert_eq!(listed.iter().map(|page| page.round).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(rig.verdicts(1, &[(1, true), (2, false)], false), [Output::Discard { fence: fence(2) }]);
    let outputs = rig.verdicts(1, &[(3, true)], true);
    assert!(outputs.contains(&Output::Synced { session_epoch: 1, incarnation: 1 }));
    assert!(rig.session.lease_live(rig.now));
    assert_eq!(reports(&outputs), [(1, 1), (3, 1)], "nothing of the discarded one");
}

#[test]
fn a_new_session_keeps_the_lease_in_hand_and_adds_to_it_only_in_step() {
    let mut rig = Rig::synced();
    rig.step(record(1, 1, AttemptPhase::Running));
    rig.acknowledge(1, 1);
    let until = rig.session.lease_until();
    rig.step(Input::Disconnected);
    rig.now += 1_000;
    rig.connect();
    rig.welcome(1, 2);
    assert!(rig.session.lease_live(rig.now));
    assert!(rig.acknowledge(1, 2).is_empty(), "of another session");
    rig.acknowledge(2, 2);
    assert_eq!(rig.session.lease_until(), until);
    rig.verdicts(2, &[(1, true)], true);
    assert_eq!(rig.session.lease_until(), until + 1_000);
}

#[test]
fn an_older_welcome_and_frames_of_other_sessions_are_dropped() {
    let mut rig = Rig::synced();
    assert!(rig.welcome(1, 1).is_empty());
    assert!(rig.assign(2, 7).is_empty());
    assert!(rig.assign(0, 7).is_empty());
    assert_eq!(rig.session.counters().frames_stale, 3);
    // Epochs of another history start anew.
    assert!(!rig.welcome(2, 1).is_empty());
}

#[test]
fn an_assignment_is_acted_on_once() {
    let mut rig = Rig::synced();
    assert!(matches!(rig.assign(1, 7).as_slice(), [Output::Assign(_)]));
    assert!(rig.assign(1, 7).is_empty());
    assert_eq!(reports(&rig.step(record(7, 1, AttemptPhase::Received))), [(7, 1)]);
    assert_eq!(reports(&rig.assign(1, 7)), [(7, 1)], "the answer was lost");
    rig.step(Input::Released(fence(7)));
    assert!(rig.assign(1, 7).is_empty());
    assert_eq!(rig.session.counters().assigns_repeated, 3);
}

#[test]
fn held_attempts_have_a_limit() {
    let mut rig = Rig::synced();
    rig.session.attempts = Attempts::new(Limits { held_max: 1, ..Limits::default() });
    assert_eq!(rig.assign(1, 1).len(), 1);
    assert!(rig.assign(1, 2).is_empty());
    assert_eq!(rig.session.counters().assigns_dropped, 1);
}

#[test]
fn reports_are_repeated_until_their_newest_revision_is_judged() {
    let mut rig = Rig::synced();
    assert_eq!(reports(&rig.step(record(1, 1, AttemptPhase::Running))), [(1, 1)]);
    assert_eq!(reports(&rig.step(record(1, 2, AttemptPhase::Succeeded))), [(1, 2)]);
    assert!(rig.step(record(1, 2, AttemptPhase::Failed)).is_empty(), "the same revision again");
    assert!(rig.judge(1, 1, 1, Verdict::Accepted).is_empty());
    assert_eq!(reports(&rig.wait(5_000)), [(1, 2)]);
    let (revision, verdict) = (2, Verdict::Accepted);
    assert_eq!(
        rig.judge(1, 1, 2, verdict),
        [Output::Verdict { fence: fence(1), revision, verdict, terminal: true }]
    );
    assert!(rig.judge(1, 1, 2, verdict).is_empty(), "once");
    assert!(reports(&rig.wait(5_000)).is_empty());
    assert!(rig.judge(1, 9, 1, verdict).is_empty(), "not held");
}

#[test]
fn a_superseded_attempt_is_not_reported_again() {
    let mut rig = Rig::synced();
    rig.step(record(1, 1, AttemptPhase::Running));
    rig.step(record(1, 2, AttemptPhase::Running));
    let (revision, verdict) = (1, Verdict::Superseded);
    assert_eq!(
        rig.judge(1, 1, 1, verdict),
        [Output::Verdict { fence: fence(1), revision, verdict, terminal: false }]
    );
    assert!(reports(&rig.step(record(1, 3, AttemptPhase::Stopped))).is_empty());
    assert!(reports(&rig.wait(5_000)).is_empty());
}

#[test]
fn reports_without_verdict_have_a_limit() {
    let mut rig = Rig::synced();
    rig.session.attempts = Attempts::new(Limits { reports_in_flight_max: 2, ..Limits::default() });
    let mut first = Vec::new();
    for index in 1..=4 {
        first.extend(reports(&rig.step(record(index, 1, AttemptPhase::Running))));
    }
    assert_eq!(first, [(1, 1), (2, 1)]);
    assert_eq!(reports(&rig.step(record(2, 2, AttemptPhase::Failed))), [(2, 2)], "news of one in flight");
    assert_eq!(reports(&rig.judge(1, 1, 1, Verdict::Accepted)), [(3, 1)]);
}

#[test]
fn a_new_session_reports_what_has_no_verdict_and_a_new_history_everything() {
    let mut rig = Rig::synced();
    rig.step(record(1, 1, AttemptPhase::Running));
    rig.step(record(2, 1, AttemptPhase::Running));
    rig.judge(1, 1, 1, Verdict::Accepted);
    rig.step(Input::Disconnected);
    rig.connect();
    rig.welcome(1, 2);
    assert_eq!(reports(&rig.verdicts(2, &[(1, true), (2, true)], true)), [(2, 1)]);
    rig.judge(2, 2, 1, Verdict::Accepted);
    rig.welcome(2, 1);
    assert_eq!(reports(&rig.verdicts(1, &[(1, true), (2, true)], true)), [(1, 1), (2, 1)]);
}

#[test]
fn the_list_holds_no_results() {
    let mut rig = Rig::plain();
    let done = AttemptReport {
        fence: Some(fence(1)),
        revision: 4,
        phase: AttemptPhase::Failed.into(),
        permitted: true,
        result: Some("long".into()),
        message: "why".into(),
        ..AttemptReport::default()
    };
    rig.step(Input::Attempt(done));
    rig.connect();
    let listed = pages(&rig.welcome(1, 1));
    let held = &listed[0].held[0];
    assert_eq!((held.phase(), held.permitted, held.revision), (AttemptPhase::Running, true, 0));
    assert_eq!((held.result.as_deref(), held.message.as_str()), (None, ""));
}

#[test]
fn a_stop_is_passed_on_and_a_finished_attempt_answers_at_once() {
    let mut rig = Rig::synced();
    let stop = |index| {
        Down::Stop(agent::Stop {
            fence: Some(fence(index)),
            reason: "why".into(),
            grace_ms: 3,
            only_if_unstarted: false,
        })
    };
    let expected = |index| Output::Stop {
        fence: fence(index),
        reason: "why".into(),
        grace_ms: 3,
        only_if_unstarted: false,
    };
    rig.step(record(1, 1, AttemptPhase::Running));
    assert_eq!(rig.frame(1, stop(1)), [expected(1)]);
    assert_eq!(rig.frame(1, stop(9)), [expected(9)], "not held: the owner answers STOPPED");
    rig.step(record(1, 2, AttemptPhase::Stopped));
    rig.judge(1, 1, 2, Verdict::Accepted);
    assert_eq!(reports(&rig.frame(1, stop(1))), [(1, 2)]);
}

#[test]
fn a_connection_without_news_is_asked_for_again() {
    let mut rig = Rig::new(Limits::default(), 1);
    let wait = waits(&rig.step(Input::Disconnected))[0];
    // The owner tries too early, fails, and its news is ignored.
    assert!(rig.step(Input::Disconnected).is_empty());
    let patience = wait + 3 * Times::default().silence_max_ms;
    rig.now += patience - 1;
    assert!(waits(&rig.step(Input::Tick { wall_clock_ms: 0 })).is_empty());
    rig.now += 1;
    assert_eq!(waits(&rig.step(Input::Tick { wall_clock_ms: 0 })).len(), 1);
}

#[test]
fn an_agent_with_a_short_lease_comes_back_within_it() {
    let mut rig = Rig::plain();
    rig.connect();
    let welcome =
        agent::Welcome { cell: "cell".into(), incarnation: 1, lease_ms: 3_000, renew_every_ms: 1_000 };
    rig.frame(1, Down::Welcome(welcome));
    for _ in 0..20 {
        let wait = waits(&rig.step(Input::Disconnected))[0];
        assert!(wait <= 500, "a sixth of the lease, not {wait} ms");
        rig.now += wait;
    }
    // A Hello that a member without a leader lost is said again while the lease's margin lasts.
    assert_eq!(greetings(&rig.connect()), 1);
    assert_eq!(greetings(&rig.wait(1_000)), 1);
}

#[test]
fn waits_grow_with_jitter_and_replay() {
    let run = |seed| {
        let mut rig = Rig::new(Limits::default(), seed);
        let mut all = Vec::new();
        for _ in 0..10 {
            let outputs = rig.step(Input::Disconnected);
            let wait = waits(&outputs)[0];
            assert!(rig.step(Input::Disconnected).is_empty(), "the wait is not over");
            rig.now += wait;
            all.push(wait);
        }
        all
    };
    let all = run(7);
    assert_eq!(all, run(7));
    assert_ne!(all, run(8));
    for (failures, wait) in all.iter().enumerate() {
        let longest = (200_u64 << failures).min(2_500);
        assert!((longest / 2..=longest).contains(wait), "{failures}: {wait}");
    }
}

#[test]
fn silence_ends_the_connection() {
    let mut rig = Rig::synced();
    rig.acknowledge(1, 1);
    for _ in 0..23 {
        assert!(waits(&rig.wait(500)).is_empty());
    }
    assert_eq!(waits(&rig.wait(500)).len(), 1);
    assert!(!rig.session.is_synced());
    assert!(rig.session.lease_live(rig.now), "the lease does not hang on the connection");
    assert!(rig.assign(1, 1).is_empty(), "the connection is left");
}

#[test]
fn a_stale_session_greets_again_on_the_same_connection() {
    let mut rig = Rig::synced();
    let refusal = |code: &str, permanent| {
        Down::Refused(agent::Refused { code: code.to_owned(), message: "why".into(), permanent })
    };
    assert!(rig.frame(7, refusal(code::STALE_SESSION, false)).is_empty(), "of another session");
    let outputs = rig.frame(1, refusal(code::STALE_SESSION, false));
    assert_eq!((greetings(&outputs), waits(&outputs).len()), (1, 0));
    assert!(rig.frame(1, refusal(code::STALE_SESSION, false)).is_empty(), "greeted already");
    rig.welcome(1, 2);
    let outputs = rig.frame(0, refusal("ARG0001", true));
    assert!(matches!(&outputs[0], Output::Refused { code, permanent: true, .. } if code == "ARG0001"));
    assert!(waits(&outputs)[0] >= 30_000);
}

#[test]
fn capacity_goes_with_the_next_renewal() {
    let mut rig = Rig::synced();
    let allocatable = common::Resources { pods: 3, ..common::Resources::default() };
    rig.step(Input::Capacity { allocatable: allocatable.clone(), runtime_healthy: false });
    let outputs = rig.wait(5_000);
    let renewals: Vec<_> = sent(&outputs)
        .into_iter()
        .filter_map(|body| if let Up::RenewLease(renew) = body { Some(renew) } else { None })
        .collect();
    assert_eq!(renewals.len(), 1);
    assert_eq!((renewals[0].allocatable.as_ref(), renewals[0].runtime_healthy), (Some(&allocatable), false));
    assert_eq!(renewals[0].wall_clock_ms, 5);
}

#[test]
fn logs_need_no_session() {
    let mut rig = Rig::plain();
    rig.connect();
    let request = agent::LogRequest { request: 4, ..agent::LogRequest::default() };
    assert_eq!(rig.frame(0, Down::LogRequest(request.clone())), [Output::Log(request)]);
    let chunk = agent::LogChunk { request: 4, end: true, ..agent::LogChunk::default() };
    assert!(matches!(sent(&rig.step(Input::LogChunk(chunk))).as_slice(), [Up::LogChunk(_)]));
}

#[test]
fn a_result_is_judged_as_a_report_whatever_the_list_says() {
    let mut rig = Rig::synced();
    rig.step(record(1, 1, AttemptPhase::Running));
    rig.judge(1, 1, 1, Verdict::Accepted);
    rig.step(Input::Disconnected);
    rig.step(record(1, 2, AttemptPhase::Succeeded));
    rig.connect();
    assert_eq!(pages(&rig.welcome(1, 2))[0].held[0].revision, 1);
    let outputs = rig.verdicts(2, &[(1, false)], true);
    assert!(!outputs.contains(&Output::Discard { fence: fence(1) }));
    assert_eq!(reports(&outputs), [(1, 2)]);
    let (revision, verdict) = (2, Verdict::Superseded);
    assert_eq!(
        rig.judge(2, 1, 2, verdict),
        [Output::Verdict { fence: fence(1), revision, verdict, terminal: true }]
    );
}

fn config_map(name: &str, text: &str) -> common::ReportedConfigMap {
    common::ReportedConfigMap {
        name: Some(common::ConfigMapName { namespace: "n".into(), name: name.into() }),
        data: BTreeMap::from([("k".to_owned(), text.to_owned())]),
        ..common::ReportedConfigMap::default()
    }
}

/// Revision, names and contents of what is told of ConfigMaps.
fn told(outputs: &[Output]) -> Vec<(u64, String, String)> {
    let name = |name: Option<common::ConfigMapName>| name.unwrap_or_default().name;
    sent(outputs)
        .into_iter()
        .filter_map(|body| if let Up::ConfigMapsReported(report) = body { Some(report) } else { None })
        .map(|report| {
            let present: String = report.present.into_iter().map(|present| name(Some(present))).collect();
            let changed: String =
                report.changed.into_iter().map(|one| name(one.name) + &one.data["k"]).collect();
            (report.revision, present, changed)
        })
        .collect()
}

fn told_is(outputs: &[Output], expected: &[(u64, &str, &str)]) {
    let told = told(outputs);
    let told: Vec<_> =
        told.iter().map(|(number, names, texts)| (*number, names.as_str(), texts.as_str())).collect();
    assert_eq!(told, expected);
}

#[test]
fn config_maps_are_told_one_frame_at_a_time_until_they_are_taken() {
    let mut rig = Rig::new(Limits { config_maps_frame_bytes_max: 40, ..Limits::default() }, 1);
    let all = |texts: &[(&str, &str)]| {
        Input::ConfigMaps(texts.iter().map(|(name, text)| config_map(name, text)).collect())
    };
    let taken = |revision| Down::ConfigMapsTaken(agent::ConfigMapsTaken { revision, notices: Vec::new() });
    told_is(&rig.step(all(&[("a", "1"), ("b", "1"), ("c", "1")])), &[]);
    rig.connect();
    told_is(&rig.welcome(1, 1), &[]);
    told_is(&rig.verdicts(1, &[], true), &[(1, "abc", "a1b1")]);
    // What changes meanwhile waits; without an answer the same is sent again.
    told_is(&rig.step(all(&[("a", "1"), ("b", "2"), ("d", "1")])), &[]);
    told_is(&rig.wait(Times::default().agent_resend_ms), &[(1, "abc", "a1b1")]);
    told_is(&rig.frame(1, taken(7)), &[]);
    told_is(&rig.frame(1, taken(1)), &[(2, "abd", "b2d1")]);
    told_is(&rig.frame(1, taken(1)), &[]);
    told_is(&rig.frame(1, taken(2)), &[]);
    // One that went is withdrawn, with nothing new to say.
    told_is(&rig.step(all(&[("a", "1"), ("d", "1")])), &[(3, "ad", "")]);
    told_is(&rig.frame(1, taken(3)), &[]);
    told_is(&rig.step(all(&[("a", "1"), ("d", "1")])), &[]);
    // Another session may be with a leader that knows nothing.
    rig.step(Input::Disconnected);
    rig.connect();
    rig.welcome(1, 2);
    told_is(&rig.verdicts(2, &[], true), &[(4, "ad", "a1d1")]);
    told_is(&rig.frame(1, taken(4)), &[]);
    let notice = common::ConfigMapNotice {
        refused: true,
        code: "ARG1104".into(),
        ..common::ConfigMapNotice::default()
    };
    let answer = agent::ConfigMapsTaken { revision: 4, notices: vec![notice.clone()] };
    assert_eq!(rig.frame(2, Down::ConfigMapsTaken(answer)), [Output::ConfigMapNotices(vec![notice])]);
}

#[test]
fn nothing_is_withdrawn_before_config_maps_were_listed() {
    let mut rig = Rig::synced();
    told_is(&rig.wait(5_000), &[]);
    told_is(&rig.step(Input::ConfigMaps(Vec::new())), &[(1, "", "")]);
}

#[test]
fn a_drill_takes_the_agent_out_of_the_way_for_its_time() {
    let mut rig = Rig::synced();
    rig.acknowledge(1, 1);
    assert!(rig.session.lease_live(rig.now));
    let silent = Down::FallSilent(agent::FallSilent { drill: 7, for_ms: 20_000 });
    assert!(rig.frame(9, silent.clone()).is_empty(), "of another session");
    let until = rig.now + 20_000;
    let outputs = rig.frame(1, silent);
    assert_eq!(outputs, [Output::FallSilent { drill: 7, until }, Output::Reconnect { after_ms: 20_000 }]);
    assert!(!rig.session.lease_live(rig.now), "as of a process that is gone");
    // The connection that breaks because of it is no news, and what comes on it is not heard.
    assert!(rig.step(Input::Disconnected).is_empty());
    assert!(rig.acknowledge(1, 2).is_empty());
    assert!(rig.wait(19_000).is_empty());
    rig.now = until;
    assert_eq!(greetings(&rig.connect()), 1);
}

#[test]
fn no_frame_silences_an_agent_for_longer_than_an_hour() {
    let mut rig = Rig::synced();
    let outputs = rig.frame(1, Down::FallSilent(agent::FallSilent { drill: 7, for_ms: u64::MAX }));
    assert_eq!(waits(&outputs), [3_600_000]);
}
