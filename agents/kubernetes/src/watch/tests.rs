use super::*;
use argosy_executor::protocol::ResultReference;

fn held(released_at_ms: Option<i64>, phase: AttemptPhase) -> Held {
    Held {
        namespace: "n".into(),
        name: format!("p{}", released_at_ms.unwrap_or_default()),
        uid: "u".into(),
        released_at_ms,
        has_finalizer: false,
        delete_by_ms: None,
        recorded_at_ms: None,
        workflow: None,
        removal: None,
        due_at_ms: None,
        left: None,
        observation: AttemptObservation { phase, ..AttemptObservation::default() },
    }
}

fn fence(index: u64) -> Fence {
    Fence { incarnation: 1, index, ordinal: 0 }
}

#[test]
fn released_pods_go_by_age_and_number_and_held_ones_stay() {
    let ended = |at| held(Some(at), AttemptPhase::Succeeded);
    let all = [held(None, AttemptPhase::Failed), ended(10_100), ended(10_900), ended(10_950)];
    let table: BTreeMap<_, _> = (1..).map(fence).zip(all).collect();
    let names = |keep_ms, keep_max| {
        too_many(&table, 11_000, keep_ms, keep_max).into_iter().map(|held| held.name).collect::<Vec<_>>()
    };
    assert_eq!(names(500, 9), ["p10100"]);
    assert_eq!(names(5_000, 1), ["p10900", "p10100"]);
    assert!(names(5_000, 9).is_empty());
}

#[test]
fn pods_are_due_as_their_strategy_says() {
    let key = Key { namespace: "n".into(), name: "w".into(), uid: "u".into() };
    let of = |text: &str, phase| {
        let mut held = held(Some(1_000), phase);
        held.removal = Removal::read(text);
        held.workflow = Some(key.clone());
        held
    };
    let table = Table::default();
    let all = [
        of("OnPodCompletion/500ms", AttemptPhase::Failed),
        of("OnPodSuccess/0ms", AttemptPhase::Failed),
        of("OnWorkflowSuccess/0ms", AttemptPhase::Succeeded),
        of("OnWorkflowCompletion/100ms", AttemptPhase::Succeeded),
        of("none", AttemptPhase::Succeeded),
    ];
    table.lock().extend((1..).map(fence).zip(all));
    let due =
        |now_ms| table.due(now_ms).iter().map(|held| held.removal.map(Removal::text)).collect::<Vec<_>>();
    assert!(due(1_499).is_empty());
    assert_eq!(due(1_500), [Some("OnPodCompletion/500ms".to_owned())]);
    assert!(due(1_501).is_empty(), "it is not named again at once");
    assert_eq!(table.workflows(false), BTreeSet::from([key.clone()]));
    table.workflow_over(&key, false, false, 2_000);
    assert_eq!(due(2_100), [Some("OnWorkflowCompletion/100ms".to_owned())]);
    table.workflow_over(&key, true, true, 3_000);
    assert_eq!(due(3_000).len(), 3, "a forgotten workflow leaves nothing");
}

#[test]
fn a_pod_without_a_verdict_waits_from_its_end_on() {
    let table = Table::default();
    let mut ended = seen(AttemptPhase::Failed, false);
    ended.observation.finished_at_ms = 500;
    table.put(&ended);
    assert!(table.unanswered().is_empty(), "its end is not in the ledger yet");
    table.mark_recorded(&fence(1), 1_000);
    ended.delete_by_ms = Some(700);
    ended.observation.message = "news".into();
    table.put(&ended);
    let waiting = table.unanswered();
    assert_eq!(
        (waiting.len(), waiting[0].1.recorded_at_ms, waiting[0].1.delete_by_ms),
        (1, Some(500), Some(700))
    );
    table.mark_released(&fence(1));
    assert!(table.unanswered().is_empty());
}

#[test]
fn a_pod_that_its_host_does_not_end_in_time_is_deleted() {
    let table = Table::default();
    let mut running = seen(AttemptPhase::Running, false);
    table.put(&running);
    assert!(table.lost(i64::MAX).is_empty(), "nobody deletes it");
    running.delete_by_ms = Some(1_000);
    table.put(&running);
    assert!(table.lost(1_000).is_empty(), "its host has time yet");
    let lost = table.lost(1_001);
    assert_eq!((lost.len(), lost[0].phase, lost[0].message.as_str()), (1, AttemptPhase::Error, POD_DELETED));
    assert_eq!(lost[0].exit_code, None, "nobody saw it end");
    assert!(table.lost(2_000).is_empty(), "it is told once");
    assert!(!table.put(&running), "the Pod still says that it runs");
    assert!(table.put(&seen(AttemptPhase::Failed, false)), "its host is back");
}

#[test]
fn a_released_pod_that_does_not_end_is_deleted() {
    let table = BTreeMap::from([(fence(1), held(Some(1_000), AttemptPhase::Running))]);
    assert!(too_many(&table, 1_000 + END_GRACE_MS, 0, 0).is_empty());
    assert_eq!(too_many(&table, 1_001 + END_GRACE_MS, 0, 0).len(), 1);
}

fn seen(phase: AttemptPhase, released: bool) -> Seen {
    Seen {
        observation: AttemptObservation::new(fence(1), phase, ""),
        outcome: None,
        left: None,
        namespace: "n".into(),
        name: "p".into(),
        uid: "u".into(),
        released,
        delete_by_ms: None,
        workflow: None,
        removal: None,
    }
}

#[test]
fn what_was_read_of_a_result_stands_whatever_the_pod_says() {
    let reference = ResultReference { result_object: 1, key: "k".into(), sha256: "d".into(), bytes: 9 };
    let left = Some(Left { reference, ticket: "sealed".into() });
    let table = Table::default();
    let mut running = seen(AttemptPhase::Running, false);
    running.left.clone_from(&left);
    assert!(table.put(&running));
    assert!(table.get(&fence(1)).is_some_and(|held| held.is_unread()));
    assert_eq!(table.unread.next(), Some(fence(1)));
    assert_eq!(table.unread.next(), None, "it is being read");
    table.unread.again(&fence(1));
    assert_eq!(table.unread.next(), None, "it waits");
    let read = Seen { left: left.clone(), ..seen(AttemptPhase::Succeeded, false) };
    assert!(table.put(&read));
    let mut deleting = running;
    deleting.delete_by_ms = Some(1);
    assert!(!table.put(&deleting), "nothing new is told");
    let held = table.get(&fence(1)).unwrap();
    assert_eq!((held.observation.phase, held.delete_by_ms), (AttemptPhase::Succeeded, Some(1)));
    assert!(!held.is_unread());
}

#[test]
fn only_news_is_told_and_an_end_is_final() {
    let table = Table::default();
    assert!(table.put(&seen(AttemptPhase::Pending, false)));
    assert!(!table.put(&seen(AttemptPhase::Pending, false)));
    assert!(table.put(&seen(AttemptPhase::Failed, false)));
    assert!(!table.put(&seen(AttemptPhase::Running, false)));
    table.mark_released(&fence(1));
    assert!(!table.put(&seen(AttemptPhase::Succeeded, false)));
    assert!(table.get(&fence(1)).is_some_and(|held| held.released_at_ms.is_some()));
}
