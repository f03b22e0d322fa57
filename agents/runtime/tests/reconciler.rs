//! Each rule of the reconciler, against frames of a control plane that the test plays.
#![allow(clippy::unwrap_used, reason = "a test")]

use argosy_agent_runtime::ledger::MemoryLedger;
use argosy_agent_runtime::{
    AttemptObservation, ExecutorAnswer, Input, Limits, Output, Reconciler, RuntimeAction, RuntimeEvent,
    StoreVerdict,
};
use argosy_executor::protocol::{EXIT_REFUSED, TaskOutcome};
use argosy_link::agent::Options;
use argosy_proto::agent::agent_frame::Body as Up;
use argosy_proto::agent::control_frame::Body as Down;
use argosy_proto::agent::{
    Assign, AttemptVerdict, ControlFrame, FallSilent, Kill, LeaseRenewed, PermitVerdict, ReportVerdict,
    ResyncVerdicts, Stop, Welcome,
};
use argosy_proto::common::{Assignment, AttemptPhase, AttemptReport, Fence, Runtime, Verdict};
use std::collections::BTreeMap;

/// Of exclusive steps.
const LEASE_MS: i64 = 60_000;

fn fence(index: u64) -> Fence {
    Fence { incarnation: 1, index, ordinal: 0 }
}

/// A reconciler, and a control plane that keeps everything and renews at once while it is `in_touch`.
struct Rig {
    reconciler: Reconciler<MemoryLedger>,
    now: u64,
    epoch: u64,
    in_touch: bool,
    /// The log gives the permits that it is asked for.
    grants: bool,
    /// Names of the ledger that the control plane was told.
    ledgers: Vec<u64>,
    /// What the agent listed when it connected last.
    listed: Vec<Fence>,
    /// Fences that the control plane tells the agent to give up at resync.
    unwanted: Vec<Fence>,
    /// Everything for runtime and executors since the last look.
    done: Vec<Output>,
    /// Whose end this life said to be in its ledger.
    recorded: Vec<Fence>,
    /// The newest report of each attempt that reached the control plane.
    reports: BTreeMap<Fence, AttemptReport>,
}

impl Rig {
    fn start(ledger: MemoryLedger, now: u64, listed: Vec<AttemptObservation>) -> Self {
        let mut rig = Self {
            reconciler: Reconciler::new(options(), Limits::default(), ledger).unwrap(),
            now,
            epoch: now,
            in_touch: true,
            grants: true,
            ledgers: Vec::new(),
            listed: Vec::new(),
            unwanted: Vec::new(),
            done: Vec::new(),
            recorded: Vec::new(),
            reports: BTreeMap::new(),
        };
        rig.runtime(RuntimeEvent::Listed(listed));
        rig
    }

    fn new() -> Self {
        let mut rig = Self::start(MemoryLedger::new(), 1_000_000, Vec::new());
        rig.connect();
        rig
    }

    fn connect(&mut self) {
        self.epoch += 1;
        self.in_touch = true;
        self.step(Input::Connected { wall_clock_ms: 77 });
        let welcome = Welcome { cell: "c".into(), incarnation: 1, lease_ms: 15_000, renew_every_ms: 5_000 };
        self.down(Down::Welcome(welcome));
        self.pass(10);
    }

    /// Ends this life of the agent; what was not synced is lost.
    fn restart(self, listed: Vec<AttemptObservation>) -> Self {
        let mut ledger = self.reconciler.into_ledger();
        ledger.crash();
        let mut rig = Self::start(ledger, self.now + 1_000, listed);
        rig.reports = self.reports;
        rig
    }

    fn step(&mut self, input: Input) {
        for output in self.reconciler.step(self.now, input).unwrap() {
            match output {
                Output::Send(frame) if self.in_touch => self.up(frame.body),
                Output::Runtime(RuntimeAction::Recorded(fence)) => self.recorded.push(fence),
                Output::Runtime(_) | Output::Executor(_) => self.done.push(output),
                Output::Send(_)
                | Output::Connect { .. }
                | Output::Log(_)
                | Output::ConfigMapNotices(_)
                | Output::Silent { .. }
                | Output::Synced { .. }
                | Output::Refused { .. } => {}
            }
        }
    }

    fn up(&mut self, body: Option<Up>) {
        match body {
            Some(Up::RenewLease(renewal)) => {
                self.down(Down::LeaseRenewed(LeaseRenewed { sequence: renewal.sequence }))
            }
            Some(Up::Resync(page)) => {
                let verdict = |report: &AttemptReport| AttemptVerdict {
                    fence: report.fence,
                    keep: !self.unwanted.contains(&report.fence.unwrap()),
                };
                let verdicts = page.held.iter().map(verdict).collect();
                self.listed = page.held.iter().filter_map(|report| report.fence).collect();
                self.down(Down::ResyncVerdicts(ResyncVerdicts { verdicts, last: page.last }));
            }
            Some(Up::Report(report)) => self.reported(report.attempt.unwrap()),
            Some(Up::WorkflowsAsked(_) | Up::PrerequisitesFound(_) | Up::ConfigMapsReported(_)) => {}
            Some(Up::AskPermit(ask)) if self.grants => {
                let verdict = PermitVerdict {
                    fence: ask.fence,
                    holder: ask.holder,
                    granted: true,
                    reason: String::new(),
                    exclusive_lease_ms: LEASE_MS,
                };
                self.down(Down::PermitVerdict(verdict));
            }
            Some(Up::Hello(hello)) => self.ledgers.push(hello.ledger),
            Some(Up::RenewCertificate(_) | Up::CertificateTaken(_)) => {}
            Some(Up::Credit(_) | Up::AskPermit(_) | Up::LogChunk(_)) | None => {}
        }
    }

    fn reported(&mut self, report: AttemptReport) {
        let fence = report.fence.unwrap();
        let old = self.reports.get(&fence).map_or(0, |old| old.revision);
        assert!(report.revision >= old, "revisions never go back: {old} {report:?}");
        self.reports.insert(fence, report);
    }

    fn down(&mut self, body: Down) {
        let frame = ControlFrame { version: 1, session_epoch: self.epoch, body: Some(body) };
        self.step(Input::Frame(frame));
    }

    fn pass(&mut self, span_ms: u64) {
        let end = self.now + span_ms;
        while self.now < end {
            self.now = (self.now + 100).min(end);
            self.step(Input::Tick { wall_clock_ms: 77 });
        }
    }

    fn runtime(&mut self, event: RuntimeEvent) {
        self.step(Input::Runtime(event));
    }

    fn assign(&mut self, index: u64) {
        let assignment = Assignment { fence: Some(fence(index)), ..Assignment::default() };
        self.down(Down::Assign(Assign { assignment: Some(assignment) }));
    }

    fn ask(&mut self, index: u64, holder: &str) -> Vec<Output> {
        self.done.clear();
        self.runtime(RuntimeEvent::PermitAsked { fence: fence(index), holder: holder.to_owned() });
        std::mem::take(&mut self.done)
    }

    fn outcome(&mut self, index: u64, holder: &str, exit_code: i32) -> Vec<Output> {
        self.done.clear();
        let outcome = TaskOutcome { exit_code, result: Some("r".to_owned()), ..TaskOutcome::default() };
        self.runtime(RuntimeEvent::Outcome { fence: fence(index), holder: holder.to_owned(), outcome });
        std::mem::take(&mut self.done)
    }

    /// The verdict on the newest report that arrived.
    fn judge(&mut self, index: u64, verdict: Verdict) -> Vec<Output> {
        self.done.clear();
        let revision = self.reports[&fence(index)].revision;
        self.down(Down::ReportVerdict(ReportVerdict {
            fence: Some(fence(index)),
            revision,
            verdict: verdict.into(),
        }));
        std::mem::take(&mut self.done)
    }

    fn phase(&self, index: u64) -> AttemptPhase {
        self.reports[&fence(index)].phase()
    }

    fn stop(&mut self, index: u64, grace_ms: i64) -> Vec<Output> {
        self.done.clear();
        self.down(Down::Stop(Stop {
            fence: Some(fence(index)),
            reason: "over".into(),
            grace_ms,
            only_if_unstarted: false,
        }));
        std::mem::take(&mut self.done)
    }
}

fn options() -> Options {
    Options {
        cluster: "a".into(),
        cluster_uid: "uid".into(),
        agent_version: "1".into(),
        agent_instance: 1,
        runtime: Runtime::Simulated,
        labels: BTreeMap::new(),
        ledger: 0,
        enforces_exclusive: true,
        credit: 10,
        times: argosy_link::Times::default(),
        limits: argosy_link::Limits::default(),
        seed: 1,
    }
}

fn granted(index: u64, holder: &str) -> Output {
    Output::Runtime(RuntimeAction::GrantPermit { fence: fence(index), holder: holder.to_owned() })
}

fn recorded(index: u64, holder: &str) -> Output {
    Output::Executor(ExecutorAnswer::OutcomeRecorded { fence: fence(index), holder: holder.to_owned() })
}

fn is_refusal(outputs: &[Output]) -> bool {
    matches!(outputs, [Output::Executor(ExecutorAnswer::Refused { .. })])
}

fn is_grant(outputs: &[Output], to: &str) -> bool {
    outputs.iter().any(
        |output| matches!(output, Output::Runtime(RuntimeAction::GrantPermit { holder, .. }) if holder == to),
    )
}

fn pending(index: u64) -> AttemptObservation {
    let seen = AttemptObservation::new(fence(index), AttemptPhase::Pending, "");
    AttemptObservation { handle: format!("default/pod-{index}"), ..seen }
}

fn release(index: u64) -> Output {
    Output::Runtime(RuntimeAction::Release(fence(index)))
}

fn stopping(index: u64, grace_ms: i64) -> Output {
    Output::Runtime(RuntimeAction::Stop { fence: fence(index), grace_ms })
}

#[test]
fn a_step_goes_its_way_to_the_verdict() {
    let mut rig = Rig::new();
    rig.assign(1);
    assert_eq!(rig.phase(1), AttemptPhase::Received);
    rig.runtime(RuntimeEvent::Observed(pending(1)));
    assert_eq!(rig.phase(1), AttemptPhase::Pending);
    assert_eq!(rig.ask(1, "pod"), [granted(1, "pod")]);
    let report = &rig.reports[&fence(1)];
    assert_eq!((report.phase(), report.permitted, report.started_at_ms), (AttemptPhase::Running, true, 77));
    assert_eq!(rig.outcome(1, "pod", 0), [recorded(1, "pod")]);
    let report = &rig.reports[&fence(1)];
    assert_eq!((report.phase(), report.result.as_deref()), (AttemptPhase::Succeeded, Some("r")));
    assert_eq!(rig.judge(1, Verdict::Accepted), [release(1)]);
    assert_eq!(rig.reconciler.reports().count(), 0);
    assert_eq!(rig.outcome(1, "pod", 0), [recorded(1, "pod")], "a late copy lets the executor end");
}

#[test]
fn a_permit_needs_a_live_lease() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.in_touch = false;
    rig.pass(15_000);
    assert!(matches!(rig.ask(1, "pod").as_slice(), [Output::Executor(ExecutorAnswer::AskAgain { .. })]));
    assert!(!rig.reconciler.reports().next().unwrap().permitted);
    rig.connect();
    assert_eq!(rig.ask(1, "pod"), [granted(1, "pod")]);
    rig.in_touch = false;
    rig.pass(15_000);
    assert!(matches!(rig.ask(1, "pod").as_slice(), [Output::Executor(ExecutorAnswer::AskAgain { .. })]));
}

#[test]
fn a_permit_has_one_holder_for_ever() {
    let mut rig = Rig::new();
    rig.assign(1);
    assert_eq!(rig.ask(1, "first"), [granted(1, "first")]);
    assert_eq!(rig.ask(1, "first"), [granted(1, "first")], "again to the same");
    assert!(is_refusal(&rig.ask(1, "second")));
    assert!(is_refusal(&rig.outcome(1, "second", 0)), "nor may it tell an outcome");
    let foreign = AttemptObservation {
        holder: Some("second".into()),
        ..AttemptObservation::new(fence(1), AttemptPhase::Failed, "x")
    };
    rig.runtime(RuntimeEvent::Observed(foreign));
    assert_eq!(rig.phase(1), AttemptPhase::Running);
    assert_eq!(rig.reconciler.counters().foreign_holder_events, 2);
    let mut rig = rig.restart(vec![pending(1)]);
    rig.connect();
    assert!(is_refusal(&rig.ask(1, "second")), "over restarts too");
    assert_eq!(rig.ask(1, "first"), [granted(1, "first")]);
    assert_eq!(rig.phase(1), AttemptPhase::Running);
}

/// Simulator seed 5247: the runtime carried out a late repeat of an order after the attempt's result was committed.
#[test]
fn something_made_after_its_attempt_was_released_gets_no_permit() {
    let mut rig = Rig::new();
    rig.assign(1);
    assert_eq!(rig.ask(1, "first"), [granted(1, "first")]);
    rig.outcome(1, "first", 0);
    assert_eq!(rig.judge(1, Verdict::Accepted), [release(1)]);
    rig.reports.clear();
    rig.runtime(RuntimeEvent::Observed(pending(1)));
    assert!(matches!(rig.ask(1, "late").as_slice(), [Output::Executor(ExecutorAnswer::AskAgain { .. })]));
    assert!(!rig.judge(1, Verdict::Superseded).is_empty(), "it is ended");
    assert!(!matches!(rig.ask(1, "late").as_slice(), [Output::Runtime(RuntimeAction::GrantPermit { .. })]));
}

#[test]
fn no_permit_for_what_is_not_held_or_over_or_being_stopped() {
    let mut rig = Rig::new();
    assert!(is_refusal(&rig.ask(9, "pod")));
    rig.assign(1);
    rig.ask(1, "pod");
    assert_eq!(rig.stop(1, 500), [stopping(1, 500)]);
    assert!(is_refusal(&rig.ask(1, "pod")), "being stopped");
    rig.outcome(1, "pod", 143);
    assert!(is_refusal(&rig.ask(1, "pod")), "over");
}

#[test]
fn a_second_assignment_of_a_fence_changes_nothing() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.ask(1, "pod");
    rig.assign(1);
    assert!(!rig.done.iter().any(|output| matches!(output, Output::Runtime(RuntimeAction::Ensure(_)))));
    assert_eq!(rig.phase(1), AttemptPhase::Running);
}

fn exclusive(index: u64) -> Assignment {
    Assignment {
        fence: Some(fence(index)),
        exclusive: true,
        exclusive_lease_ms: LEASE_MS,
        ..Assignment::default()
    }
}

impl Rig {
    fn assign_exclusive(&mut self, index: u64) {
        self.down(Down::Assign(Assign { assignment: Some(exclusive(index)) }));
        self.done.clear();
    }

    fn renew(&mut self, index: u64, holder: &str) -> Vec<Output> {
        self.runtime(RuntimeEvent::RenewAsked { fence: fence(index), holder: holder.to_owned() });
        std::mem::take(&mut self.done)
    }
}

fn is_renewed(outputs: &[Output]) -> bool {
    matches!(outputs, [Output::Executor(ExecutorAnswer::Renewed { .. })])
}

/// An attempt whose agent had stood still wrote over its successor's artifact once the agent was back.
#[test]
fn only_what_may_still_count_is_stored_under_a_key_of_others() {
    let asked = |rig: &mut Rig, index: u64, holder: &str| {
        rig.done.clear();
        rig.runtime(RuntimeEvent::StoreAsked { fence: fence(index), holder: holder.to_owned() });
        match std::mem::take(&mut rig.done).as_slice() {
            [Output::Executor(ExecutorAnswer::Store { verdict, .. })] => verdict.clone(),
            other => panic!("{other:?}"),
        }
    };
    let refused = |verdict| matches!(verdict, StoreVerdict::Refused(_));
    let mut rig = Rig::new();
    for index in [1, 2] {
        rig.assign(index);
        rig.ask(index, "pod");
        assert_eq!(asked(&mut rig, index, "pod"), StoreVerdict::Granted);
    }
    assert!(refused(asked(&mut rig, 1, "another")));
    assert!(refused(asked(&mut rig, 3, "pod")));
    rig.stop(2, 30_000);
    assert_eq!(asked(&mut rig, 2, "pod"), StoreVerdict::Granted, "its user stops it");
    rig.in_touch = false;
    rig.pass(16_000);
    assert_eq!(asked(&mut rig, 1, "pod"), StoreVerdict::AskAgain);
    rig.unwanted.push(fence(1));
    rig.connect();
    assert!(refused(asked(&mut rig, 1, "pod")), "it was taken over");
    assert_eq!(asked(&mut rig, 2, "pod"), StoreVerdict::Granted);
}

#[test]
fn an_exclusive_step_is_not_run_where_its_lease_cannot_be_enforced() {
    let mut rig = Rig::new();
    let options = Options { enforces_exclusive: false, ..options() };
    rig.reconciler = Reconciler::new(options, Limits::default(), MemoryLedger::new()).unwrap();
    rig.runtime(RuntimeEvent::Listed(Vec::new()));
    rig.connect();
    rig.down(Down::Assign(Assign { assignment: Some(exclusive(1)) }));
    assert_eq!((rig.phase(1), rig.done.len()), (AttemptPhase::Error, 0));
    assert!(is_refusal(&rig.ask(1, "pod")));
}

#[test]
fn the_permit_of_an_exclusive_step_comes_through_the_log_and_not_after_the_lease() {
    let mut rig = Rig::new();
    rig.assign_exclusive(1);
    rig.grants = false;
    assert!(rig.ask(1, "pod").is_empty(), "the log has not answered");
    rig.in_touch = false;
    rig.pass(16_000);
    let late = PermitVerdict {
        fence: Some(fence(1)),
        holder: "pod".to_owned(),
        granted: true,
        reason: String::new(),
        exclusive_lease_ms: LEASE_MS,
    };
    rig.down(Down::PermitVerdict(late));
    assert!(!is_grant(&rig.done, "pod"), "the cluster's lease has run out");
    rig.connect();
    rig.grants = true;
    assert!(is_grant(&rig.ask(1, "pod"), "pod"));
    rig.grants = false;
    assert!(is_grant(&rig.ask(1, "pod"), "pod"), "repeated without the log");
    assert!(is_refusal(&rig.ask(1, "another")));
}

#[test]
fn renewals_are_acknowledged_under_a_live_lease_to_the_holder_alone() {
    let mut rig = Rig::new();
    rig.assign_exclusive(1);
    assert!(is_grant(&rig.ask(1, "pod"), "pod"));
    assert!(is_renewed(&rig.renew(1, "pod")));
    assert!(is_refusal(&rig.renew(1, "another")));
    assert!(is_refusal(&rig.renew(2, "pod")));
    rig.in_touch = false;
    rig.pass(16_000);
    assert!(matches!(rig.renew(1, "pod").as_slice(), [Output::Executor(ExecutorAnswer::AskAgain { .. })]));
    rig.connect();
    assert!(is_renewed(&rig.renew(1, "pod")));
    rig.stop(1, 0);
    rig.done.clear();
    assert!(is_refusal(&rig.renew(1, "pod")));
}

#[test]
fn an_exclusive_step_whose_end_nobody_saw_is_told_after_its_lease() {
    let mut rig = Rig::new();
    rig.assign_exclusive(1);
    rig.ask(1, "pod");
    rig.runtime(RuntimeEvent::Gone(fence(1)));
    rig.pass(59_000);
    assert_eq!(rig.phase(1), AttemptPhase::Running, "its process may not be gone");
    rig.pass(2_000);
    assert_eq!(rig.phase(1), AttemptPhase::Error);

    // The lease is known from the ledger, and counts in full in a new life.
    let mut rig = Rig::new();
    rig.assign_exclusive(1);
    rig.ask(1, "pod");
    rig.pass(30_000);
    let mut rig = rig.restart(Vec::new());
    rig.connect();
    // What a resync does not list, the control plane takes over at once.
    assert_eq!(rig.listed, [fence(1)]);
    rig.pass(58_000);
    assert_eq!(rig.phase(1), AttemptPhase::Running);
    rig.pass(3_000);
    assert_eq!(rig.phase(1), AttemptPhase::Error);
}

#[test]
fn what_stopped_itself_is_an_error() {
    let mut rig = Rig::new();
    rig.assign_exclusive(1);
    rig.ask(1, "pod");
    let outcome = TaskOutcome { exit_code: 137, lease_lost: true, ..TaskOutcome::default() };
    rig.runtime(RuntimeEvent::Outcome { fence: fence(1), holder: "pod".to_owned(), outcome });
    assert_eq!(rig.phase(1), AttemptPhase::Error);
    assert!(rig.reports[&fence(1)].message.contains("exclusive lease ran out"));
}

#[test]
fn a_ledger_keeps_its_name_and_a_new_one_has_another() {
    let mut rig = Rig::new();
    let mut rig = {
        rig.pass(1_000);
        let named = rig.ledgers[0];
        let mut rig = rig.restart(Vec::new());
        rig.connect();
        assert_eq!(rig.ledgers, [named]);
        rig
    };
    rig.ledgers.clear();
    let options = Options { agent_instance: 99, ..options() };
    rig.reconciler = Reconciler::new(options, Limits::default(), MemoryLedger::new()).unwrap();
    rig.runtime(RuntimeEvent::Listed(Vec::new()));
    rig.connect();
    assert_eq!(rig.ledgers, [99]);
}

#[test]
fn an_end_that_was_asked_for_is_stopped_and_keeps_its_code() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.ask(1, "pod");
    rig.stop(1, 500);
    rig.outcome(1, "pod", 143);
    let report = &rig.reports[&fence(1)];
    assert_eq!((report.phase(), report.exit_code), (AttemptPhase::Stopped, Some(143)));
    assert_eq!(report.message, "main: Error (exit code 143)");
    // Without a permit it is over at once; unknown, too.
    rig.assign(2);
    assert_eq!(rig.stop(2, 500), [stopping(2, 500)]);
    assert_eq!(rig.phase(2), AttemptPhase::Stopped);
    rig.stop(3, 500);
    assert_eq!(rig.phase(3), AttemptPhase::Stopped);
    assert_eq!(rig.judge(3, Verdict::Unknown), [release(3)]);
}

#[test]
fn the_first_end_counts() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.ask(1, "pod");
    rig.outcome(1, "pod", 3);
    let first = rig.reports[&fence(1)].clone();
    assert_eq!(rig.outcome(1, "pod", 0), [recorded(1, "pod")]);
    rig.runtime(RuntimeEvent::Observed(AttemptObservation::new(fence(1), AttemptPhase::Succeeded, "")));
    rig.runtime(RuntimeEvent::Gone(fence(1)));
    rig.stop(1, 0);
    assert_eq!(rig.reports[&fence(1)], first);
}

#[test]
fn a_result_survives_the_agent_until_its_verdict() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.ask(1, "pod");
    rig.in_touch = false;
    assert!(rig.recorded.is_empty());
    rig.outcome(1, "pod", 0);
    // The ledger has it: its Pod may go, should it stand in the way, and is gone with the restart.
    assert_eq!(rig.recorded, [fence(1)]);
    let mut rig = rig.restart(Vec::new());
    assert_eq!(rig.recorded, [fence(1)]);
    rig.connect();
    let report = &rig.reports[&fence(1)];
    assert_eq!((report.phase(), report.result.as_deref()), (AttemptPhase::Succeeded, Some("r")));
    assert_eq!(rig.judge(1, Verdict::Accepted), [release(1)]);
    let rig = rig.restart(Vec::new());
    assert_eq!(rig.reconciler.reports().count(), 0);
}

/// What its executor left in an object store is read, and told as if the executor had handed it over: once, whoever dies when.
#[test]
fn a_result_that_was_left_in_a_store_is_taken_once() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.ask(1, "pod");
    // The agent is away when the step ends; its Pod runs, as far as anybody knows, until the object is read.
    let unread = || AttemptObservation {
        holder: Some("pod".to_owned()),
        ..AttemptObservation::new(fence(1), AttemptPhase::Running, "")
    };
    let mut rig = rig.restart(vec![unread()]);
    rig.connect();
    assert_eq!(rig.phase(1), AttemptPhase::Running);
    let waits = AttemptObservation { message: "the store can't be read".to_owned(), ..unread() };
    rig.runtime(RuntimeEvent::Observed(waits));
    assert_eq!(
        (rig.phase(1), rig.reports[&fence(1)].message.as_str()),
        (AttemptPhase::Running, "the store can't be read")
    );
    // Read by an agent that dies before its ledger knows: nobody heard of it, and it is read again.
    let mut rig = rig.restart(vec![unread()]);
    rig.connect();
    let left = || TaskOutcome { result: Some("r".to_owned()), ..TaskOutcome::default() };
    let told =
        |holder: &str| RuntimeEvent::Outcome { fence: fence(1), holder: holder.to_owned(), outcome: left() };
    rig.runtime(told("another"));
    assert_eq!(rig.phase(1), AttemptPhase::Running, "nobody else's object counts");
    rig.runtime(told("pod"));
    let first = rig.reports[&fence(1)].clone();
    assert_eq!((first.phase(), first.result.as_deref()), (AttemptPhase::Succeeded, Some("r")));
    rig.runtime(told("pod"));
    let mut rig = rig.restart(vec![unread()]);
    rig.connect();
    rig.runtime(told("pod"));
    let again = &rig.reports[&fence(1)];
    assert_eq!((again.phase(), again.finished_at_ms), (first.phase(), first.finished_at_ms));
    // Taken over meanwhile: what it brings is dropped, and the Pod goes.
    assert_eq!(rig.judge(1, Verdict::Superseded), [release(1)]);
}

#[test]
fn what_was_permitted_and_is_gone_is_lost_and_never_made_again() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.ask(1, "pod");
    let mut rig = rig.restart(Vec::new());
    rig.connect();
    assert!(!rig.done.iter().any(|output| matches!(output, Output::Runtime(RuntimeAction::Ensure(_)))));
    assert_eq!((rig.phase(1), rig.reports[&fence(1)].message.as_str()), (AttemptPhase::Error, "pod deleted"));
}

#[test]
fn what_was_not_permitted_is_made_again_a_few_times() {
    let mut rig = Rig::new();
    rig.assign(1);
    for _ in 1..Limits::default().ensure_max {
        rig.done.clear();
        rig.runtime(RuntimeEvent::Gone(fence(1)));
        assert!(matches!(rig.done.as_slice(), [Output::Runtime(RuntimeAction::Ensure(_))]));
    }
    rig.runtime(RuntimeEvent::Gone(fence(1)));
    assert_eq!(rig.phase(1), AttemptPhase::Error);
}

#[test]
fn what_is_adopted_is_reported_and_given_up_when_unwanted() {
    let mut rig = Rig::start(MemoryLedger::new(), 5_000, vec![pending(1), pending(2)]);
    rig.unwanted = vec![fence(2)];
    rig.connect();
    assert_eq!(rig.phase(1), AttemptPhase::Pending);
    assert!(rig.done.contains(&stopping(2, Limits::default().unwanted_grace_ms)));
    assert!(rig.done.contains(&release(2)));
    // A permitted one ends before it is released, and tells nobody.
    rig.ask(1, "pod");
    assert_eq!(rig.judge(1, Verdict::Superseded), [stopping(1, Limits::default().unwanted_grace_ms)]);
    let before = rig.reports[&fence(1)].clone();
    assert_eq!(rig.outcome(1, "pod", 0), [release(1), recorded(1, "pod")]);
    assert_eq!(rig.reports[&fence(1)], before);
    assert_eq!(rig.reconciler.counters().attempts_discarded, 2);
}

#[test]
fn actions_without_an_effect_are_repeated() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.assign(2);
    rig.ask(2, "pod");
    rig.stop(2, 1_000);
    rig.done.clear();
    rig.pass(30_000);
    let count = |wanted: &dyn Fn(&RuntimeAction) -> bool| {
        rig.done.iter().filter(|output| matches!(output, Output::Runtime(action) if wanted(action))).count()
    };
    assert!(count(&|action| matches!(action, RuntimeAction::Ensure(_))) >= 2);
    assert!(count(&|action| *action == RuntimeAction::Stop { fence: fence(2), grace_ms: 0 }) >= 1);
}

/// A step that waited for a quota waited for ever.
#[test]
fn what_was_refused_for_now_is_tried_again() {
    let mut rig = Rig::new();
    rig.assign(1);
    let refused = AttemptObservation::new(fence(1), AttemptPhase::Pending, "exceeded quota");
    rig.runtime(RuntimeEvent::Observed(refused));
    // A step that waited for a quota was "pod deleted" after a restart of its agent.
    assert_eq!(
        (rig.phase(1), rig.reports[&fence(1)].message.as_str()),
        (AttemptPhase::Received, "exceeded quota")
    );
    let again = |rig: &mut Rig| {
        rig.done.clear();
        rig.pass(30_000);
        rig.done.iter().any(|output| matches!(output, Output::Runtime(RuntimeAction::Ensure(_))))
    };
    assert!(again(&mut rig));
    let made = AttemptObservation::new(fence(1), AttemptPhase::Pending, "ContainerCreating");
    rig.runtime(RuntimeEvent::Observed(AttemptObservation { handle: "default/pod".to_owned(), ..made }));
    assert!(!again(&mut rig), "its Pod is there");
}

#[test]
fn a_command_that_was_told_to_end_is_judged_by_its_pod() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.ask(1, "h");
    let outcome = TaskOutcome { exit_code: 143, told_to_stop: true, ..TaskOutcome::default() };
    rig.runtime(RuntimeEvent::Outcome { fence: fence(1), holder: "h".to_owned(), outcome: outcome.clone() });
    assert_eq!(rig.phase(1), AttemptPhase::Running, "why it ended is not known yet");
    rig.runtime(RuntimeEvent::Observed(AttemptObservation::new(fence(1), AttemptPhase::Failed, "evicted")));
    assert_eq!((rig.phase(1), rig.reports[&fence(1)].message.as_str()), (AttemptPhase::Failed, "evicted"));
    // One that was to be stopped has its outcome.
    rig.assign(2);
    rig.ask(2, "h");
    rig.stop(2, 1_000);
    rig.runtime(RuntimeEvent::Outcome { fence: fence(2), holder: "h".to_owned(), outcome });
    assert_eq!(rig.phase(2), AttemptPhase::Stopped);
}

#[test]
fn an_executor_that_was_refused_is_no_failure_of_the_users() {
    let mut rig = Rig::new();
    rig.assign(1);
    let seen = AttemptObservation {
        exit_code: Some(EXIT_REFUSED),
        ..AttemptObservation::new(fence(1), AttemptPhase::Failed, "x")
    };
    rig.runtime(RuntimeEvent::Observed(seen));
    assert_eq!(rig.phase(1), AttemptPhase::Error);
    assert!(rig.reports[&fence(1)].message.contains("refused"));
}

#[test]
fn revisions_rise_over_restarts_and_the_ledger_is_compacted() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.ask(1, "pod");
    (0..50).for_each(|_| rig.runtime(RuntimeEvent::Observed(pending(1))));
    let before = rig.reports[&fence(1)].revision;
    let mut rig = rig.restart(vec![pending(1)]);
    rig.connect();
    assert!(rig.reports[&fence(1)].revision > before);
    // One attempt after the other: the ledger does not grow without end.
    for index in 2..5_000 {
        rig.assign(index);
        rig.ask(index, "pod");
        rig.outcome(index, "pod", 0);
        assert_eq!(rig.judge(index, Verdict::Accepted), [release(index)]);
    }
    use argosy_agent_runtime::ledger::Ledger;
    assert!(rig.reconciler.into_ledger().length() <= 4_200);
}

/// An agent whose cluster took long to list its Pods connected all the same, said that it held nothing, and its steps were
/// given up as deleted.
#[test]
fn nothing_is_asked_of_the_control_plane_before_the_runtime_has_listed() {
    let mut reconciler = Reconciler::new(options(), Limits::default(), MemoryLedger::new()).unwrap();
    let long_after_boot = 100_000_000;
    for now in (long_after_boot..long_after_boot + 60_000).step_by(100) {
        let outputs = reconciler.step(now, Input::Tick { wall_clock_ms: 1 }).unwrap();
        assert_eq!(outputs, []);
    }
    let listed = Input::Runtime(RuntimeEvent::Listed(Vec::new()));
    let outputs = reconciler.step(long_after_boot + 60_000, listed).unwrap();
    assert_eq!(outputs, [Output::Connect { after_ms: 0 }]);
}

/// An executor that asked while its agent started was refused for good, and its step failed; an outcome was acknowledged and
/// forgotten.
#[test]
fn nobody_is_refused_before_the_runtime_has_listed() {
    let mut reconciler = Reconciler::new(options(), Limits::default(), MemoryLedger::new()).unwrap();
    let holder = || "pod".to_owned();
    let asked = RuntimeEvent::PermitAsked { fence: fence(1), holder: holder() };
    let again = Output::Executor(ExecutorAnswer::AskAgain { fence: fence(1), holder: holder() });
    assert_eq!(reconciler.step(1, Input::Runtime(asked)).unwrap(), std::slice::from_ref(&again));
    let asked = RuntimeEvent::RenewAsked { fence: fence(1), holder: holder() };
    assert_eq!(reconciler.step(1, Input::Runtime(asked)).unwrap(), [again]);
    let ended = || {
        let outcome = TaskOutcome { exit_code: 3, ..TaskOutcome::default() };
        Input::Runtime(RuntimeEvent::Outcome { fence: fence(1), holder: holder(), outcome })
    };
    assert_eq!(reconciler.step(2, ended()).unwrap(), []);
    let running = AttemptObservation { holder: Some(holder()), ..pending(1) };
    reconciler.step(3, Input::Runtime(RuntimeEvent::Listed(vec![running]))).unwrap();
    let outputs = reconciler.step(4, ended()).unwrap();
    assert!(outputs.contains(&recorded(1, "pod")), "{outputs:?}");
    assert!(reconciler.reports().any(|report| report.phase() == AttemptPhase::Failed));
}

#[test]
fn in_a_drill_it_answers_no_executor_until_its_time_is_over() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.assign(2);
    rig.runtime(RuntimeEvent::Observed(pending(1)));
    assert_eq!(rig.ask(1, "pod"), [granted(1, "pod")]);
    rig.down(Down::FallSilent(FallSilent { drill: 7, for_ms: 20_000 }));
    rig.in_touch = false;
    assert_eq!(rig.outcome(1, "pod", 0), []);
    assert_eq!(rig.ask(2, "other"), []);
    rig.pass(20_000);
    assert_eq!(rig.outcome(1, "pod", 0), [recorded(1, "pod")], "it is told again, and nothing was lost");
    assert_eq!(
        rig.ask(2, "other"),
        [Output::Executor(ExecutorAnswer::AskAgain { fence: fence(2), holder: "other".to_owned() })]
    );
    rig.connect();
    assert_eq!(rig.phase(1), AttemptPhase::Succeeded);
    assert_eq!(rig.ask(2, "other"), [granted(2, "other")]);
}

#[test]
fn a_drill_kills_what_runs_and_its_end_is_what_the_runtime_sees() {
    let mut rig = Rig::new();
    rig.assign(1);
    rig.assign(2);
    rig.ask(1, "pod");
    let kill = |rig: &mut Rig, index| {
        rig.done.clear();
        rig.down(Down::Kill(Kill { fence: Some(fence(index)) }));
        std::mem::take(&mut rig.done)
    };
    assert_eq!(kill(&mut rig, 1), [Output::Runtime(RuntimeAction::Kill(fence(1)))]);
    assert_eq!(kill(&mut rig, 2), [], "nothing runs yet");
    assert_eq!(kill(&mut rig, 3), [], "it is not held");
    assert_eq!(rig.phase(1), AttemptPhase::Running, "it is not known to have ended");
    rig.runtime(RuntimeEvent::Gone(fence(1)));
    assert_eq!((rig.phase(1), rig.reports[&fence(1)].message.as_str()), (AttemptPhase::Error, "pod deleted"));
    assert_eq!(kill(&mut rig, 1), [], "it is over");
}

#[test]
fn nothing_is_made_of_what_the_owner_refuses() {
    let policy = serde_json::from_str(r#"{"namespaces": ["team-*"]}"#).unwrap();
    let mut rig = Rig::new();
    rig.reconciler = Reconciler::new(options(), Limits::default(), MemoryLedger::new())
        .unwrap()
        .with_policy(Some(std::sync::Arc::new(policy)));
    rig.runtime(RuntimeEvent::Listed(Vec::new()));
    rig.connect();
    rig.done.clear();
    for (index, namespace) in [(1, "kube-system"), (2, "team-a")] {
        let assignment =
            Assignment { fence: Some(fence(index)), namespace: namespace.into(), ..Assignment::default() };
        rig.down(Down::Assign(Assign { assignment: Some(assignment) }));
    }
    let ensured = |output: &Output| {
        if let Output::Runtime(RuntimeAction::Ensure(assignment)) = output { assignment.fence } else { None }
    };
    let made: Vec<Fence> = rig.done.iter().filter_map(ensured).collect();
    assert_eq!(made, [fence(2)]);
    let report = &rig.reports[&fence(1)];
    assert_eq!((report.phase(), report.refused, report.permitted), (AttemptPhase::Error, true, false));
    assert!(report.message.starts_with("ARG1191: "), "{}", report.message);
    assert!(report.message.contains("rule namespaces"), "{}", report.message);
    assert!(!rig.reports[&fence(2)].refused);
}
