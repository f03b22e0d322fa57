#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn fence(index: u64) -> Fence {
    Fence { incarnation: 1, index, ordinal: 0 }
}

fn assignment(index: u64, arguments: &str) -> RuntimeAction {
    let template_json = format!(r#"{{"container":{{"args":[{arguments}]}}}}"#);
    RuntimeAction::Ensure(Assignment { fence: Some(fence(index)), template_json, ..Assignment::default() })
}

/// Answers every question; gives the trace.
fn run(seed: u64, options: Options) -> (Vec<String>, Vec<Execution>) {
    let mut cluster = Simulated::new(Options { seed, ..options });
    cluster.agent_restarted(0);
    (1..=50).for_each(|index| cluster.act(0, assignment(index, "")));
    let mut trace = Vec::new();
    while let Some(now) = cluster.next_wake() {
        for event in cluster.advance(now) {
            trace.push(format!("{now} {event:?}"));
            match event {
                RuntimeEvent::PermitAsked { fence, holder } => {
                    cluster.act(now, RuntimeAction::GrantPermit { fence, holder: holder.clone() });
                    cluster.act(now, RuntimeAction::GrantPermit { fence, holder });
                }
                RuntimeEvent::Outcome { fence, holder, .. } => {
                    cluster.answer(now, &ExecutorAnswer::OutcomeRecorded { fence, holder });
                }
                RuntimeEvent::Listed(_)
                | RuntimeEvent::RenewAsked { .. }
                | RuntimeEvent::StoreAsked { .. }
                | RuntimeEvent::Observed(_)
                | RuntimeEvent::Progress { .. }
                | RuntimeEvent::Gone(_)
                | RuntimeEvent::WorkflowsAsked(_)
                | RuntimeEvent::PrerequisitesFound(_)
                | RuntimeEvent::ConfigMaps(_)
                | RuntimeEvent::Capacity { .. } => {}
            }
        }
    }
    (trace, cluster.take_executions())
}

#[test]
fn a_seed_replays_and_every_command_starts_once() {
    let options = || Options { failure_per_mille: 200, crash_per_mille: 200, ..Options::default() };
    let (trace, executions) = run(7, options());
    assert_eq!((&trace, &executions), (&run(7, options()).0, &run(7, options()).1));
    assert_ne!(trace, run(8, options()).0);
    let of = |kind| executions.iter().filter(|one| one.kind == kind).count();
    assert_eq!(of(ExecutionKind::Started), 50);
    assert_eq!(of(ExecutionKind::Completed) + of(ExecutionKind::Killed), 50);
    assert!(of(ExecutionKind::Killed) > 0);
}

#[test]
fn arguments_say_what_a_step_does() {
    let mut cluster = Simulated::new(Options::default());
    cluster.act(0, assignment(1, r#""duration-ms=70","exit-code=3""#));
    let asked = cluster.advance(1_000);
    let Some(RuntimeEvent::PermitAsked { holder, .. }) = asked.get(1).cloned() else { panic!("{asked:?}") };
    cluster.act(1_000, RuntimeAction::GrantPermit { fence: fence(1), holder });
    assert_eq!(cluster.running().count(), 1);
    assert!(cluster.advance(1_069).is_empty());
    let ended = cluster.advance(1_070);
    let [RuntimeEvent::Outcome { outcome, .. }] = ended.as_slice() else { panic!("{ended:?}") };
    assert_eq!((outcome.exit_code, outcome.result.as_deref()), (3, Some("1.1.0")));
    assert!(!cluster.advance(1_600).is_empty(), "repeated until recorded");
}

#[test]
fn without_a_grant_nothing_runs_and_a_stopped_pod_goes() {
    let mut cluster = Simulated::new(Options::default());
    cluster.act(0, assignment(1, ""));
    cluster.act(0, RuntimeAction::GrantPermit { fence: fence(1), holder: "another".to_owned() });
    assert!(cluster.advance(60_000).len() > 10, "asks again and again");
    cluster.act(60_000, RuntimeAction::Stop { fence: fence(1), grace_ms: 0 });
    assert!(cluster.advance(60_000).contains(&RuntimeEvent::Gone(fence(1))));
    assert!(cluster.take_executions().is_empty());
}

#[test]
fn what_runs_on_lost_hosts_goes_on_unseen_and_within_its_lease() {
    let mut cluster = Simulated::new(Options::default());
    let template_json = r#"{"container":{"args":["duration-ms=90000"]}}"#.to_owned();
    let assignment = Assignment {
        fence: Some(fence(1)),
        template_json,
        exclusive: true,
        exclusive_lease_ms: 60_000,
        ..Assignment::default()
    };
    cluster.act(0, RuntimeAction::Ensure(assignment));
    let asked = cluster.advance(1_000);
    let Some(RuntimeEvent::PermitAsked { holder, .. }) = asked.last().cloned() else { panic!("{asked:?}") };
    cluster.act(1_000, RuntimeAction::GrantPermit { fence: fence(1), holder });
    cluster.lose_hosts(2_000);
    assert_eq!(cluster.advance(2_000), [RuntimeEvent::Gone(fence(1))]);
    assert_eq!(cluster.pods().count(), 0);
    let ends_at = cluster.next_wake().unwrap();
    assert!((60_000..=61_000).contains(&ends_at), "{ends_at}");
    assert!(cluster.advance(ends_at).is_empty());
    let kinds: Vec<_> = cluster.take_executions().iter().map(|one| one.kind).collect();
    assert_eq!(kinds, [ExecutionKind::Started, ExecutionKind::Killed]);
}

#[test]
fn what_is_started_a_second_time_asks_for_a_permit_of_its_own() {
    let mut cluster = Simulated::new(Options::default());
    cluster.act(0, assignment(1, r#""duration-ms=9000""#));
    let asked = cluster.advance(1_000);
    let Some(RuntimeEvent::PermitAsked { holder, .. }) = asked.last().cloned() else { panic!("{asked:?}") };
    cluster.start_again(1_000);
    assert!(cluster.advance(1_000).is_empty(), "nothing runs yet");
    cluster.act(1_000, RuntimeAction::GrantPermit { fence: fence(1), holder: holder.clone() });
    cluster.start_again(1_001);
    let asked = cluster.advance(1_001);
    let [RuntimeEvent::PermitAsked { holder: second, .. }] = asked.as_slice() else { panic!("{asked:?}") };
    assert_ne!(*second, holder);
    assert_eq!(cluster.take_executions().len(), 1);
    cluster.act(1_001, RuntimeAction::GrantPermit { fence: fence(1), holder: second.clone() });
    let ran = cluster.take_executions();
    assert_eq!((ran.len(), &ran[0].holder), (1, second));
}

#[test]
fn pods_outlive_their_agent_but_not_their_cluster() {
    let mut cluster = Simulated::new(Options::default());
    cluster.act(0, assignment(1, ""));
    drop(cluster.advance(10_000));
    cluster.agent_restarted(10_000);
    let events = cluster.advance(10_000);
    assert!(matches!(&events[0], RuntimeEvent::Listed(listed) if listed.len() == 1));
    assert!(events.iter().any(|event| matches!(event, RuntimeEvent::PermitAsked { .. })));
    cluster.lose_pods(10_000);
    cluster.agent_restarted(10_000);
    assert!(matches!(&cluster.advance(10_000)[0], RuntimeEvent::Listed(listed) if listed.is_empty()));
}
