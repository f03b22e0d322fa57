use super::*;
use serde_json::{Value, json};

fn seen(annotations: Value, status: Value) -> Seen {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "finalizers": [names::FINALIZER], "annotations": annotations,
            "labels": {(names::FENCE): "1.2.3"}},
        "spec": {"nodeName": "h", "containers": []}, "status": status,
    });
    Seen::new(&serde_json::from_value(pod).unwrap()).unwrap()
}

fn state(status: Value) -> (AttemptPhase, String) {
    let seen = seen(json!({(names::PERMIT): "u"}), status);
    (seen.observation.phase, seen.observation.message)
}

fn ended(code: i32, reason: &str, message: &str) -> Value {
    json!([{"name": "main", "ready": false, "restartCount": 0, "image": "", "imageID": "",
        "state": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}])
}

#[test]
fn a_running_pod_runs_only_with_a_permit() {
    let running = json!({"phase": "Running"});
    assert_eq!(seen(json!({}), running.clone()).observation.phase, AttemptPhase::Pending);
    let bound = seen(json!({(names::PERMIT): "u"}), running);
    assert_eq!(bound.observation.phase, AttemptPhase::Running);
    assert_eq!(bound.observation.holder.as_deref(), Some("u"));
    assert_eq!((bound.observation.host.as_str(), bound.observation.handle.as_str()), ("h", "n/p"));
}

#[test]
fn waiting_pods_say_why() {
    let waiting = |reason: &str, message: &str| {
        json!({"phase": "Pending", "containerStatuses": [{"name": "main", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": {"waiting": {"reason": reason, "message": message}}}]})
    };
    let message = |status| seen(json!({}), status).observation.message;
    assert_eq!(message(waiting("ErrImagePull", "no such image")), "ErrImagePull: no such image");
    let unschedulable = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]});
    assert_eq!(message(unschedulable), "Unschedulable: 0/1 nodes are available");
    assert_eq!(message(json!({"phase": "Pending"})), "");
}

#[test]
fn failures_speak_as_argo_does() {
    let failed = |code, reason: &str, text: &str| {
        state(json!({"phase": "Failed", "containerStatuses": ended(code, reason, text)}))
    };
    assert_eq!(failed(3, "Error", ""), (AttemptPhase::Failed, "main: Error (exit code 3)".into()));
    assert_eq!(
        failed(137, "OOMKilled", ""),
        (AttemptPhase::Failed, "main: OOMKilled (exit code 137)".into())
    );
    let outcome =
        r#"{"exit_code":64,"message":"failed to find name in PATH","started_at_ms":1,"finished_at_ms":2}"#;
    assert_eq!(
        failed(64, "Error", outcome),
        (AttemptPhase::Failed, "main: Error (exit code 64): failed to find name in PATH".into())
    );
    let evicted =
        json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
    assert_eq!(state(evicted), (AttemptPhase::Failed, "The node was low on resource: memory.".into()));
    let init = json!({"phase": "Failed", "initContainerStatuses": [{"name": "init", "ready": false, "restartCount": 0, "image": "",
        "imageID": "", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]});
    assert_eq!(state(init), (AttemptPhase::Error, "init: Error (exit code 1)".into()));
}

#[test]
fn a_pod_whose_host_is_gone_says_so() {
    let conditions = json!([{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists"}]);
    let running = json!([{"name": "main", "state": {"running": {}}}]);
    let gone = json!({"phase": "Failed", "conditions": conditions, "containerStatuses": running});
    assert_eq!(state(gone), (AttemptPhase::Error, "pod failed: PodGC: node no longer exists".into()));
}

#[test]
fn a_pod_that_somebody_deleted_is_deleted_whatever_its_command_ended_with() {
    let left = |told: &str| format!(r#"{{"exit_code":143,{told}"started_at_ms":1,"finished_at_ms":2}}"#);
    let of = |deleted: bool, told: &str| {
        let mut pod = json!({"metadata": {"labels": {(names::FENCE): "1.2.3"}, "annotations": {(names::PERMIT): "u"}},
            "spec": {"nodeName": "h", "containers": []},
            "status": {"phase": "Failed", "containerStatuses": ended(143, "Error", &left(told))}});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Seen::new(&serde_json::from_value(pod).unwrap()).unwrap().observation
    };
    let told = r#""told_to_stop":true,"#;
    assert_eq!((of(true, told).phase, of(true, told).message.as_str()), (AttemptPhase::Error, POD_DELETED));
    assert_eq!(of(true, "").message, "main: Error (exit code 143)");
    assert_eq!(of(false, told).message, "main: Error (exit code 143)");
}

/// A Pod whose main container ended and left a reference.
fn left(ended: Value, finalizers: Value) -> Pod {
    let task = Task { ticket: "sealed".to_owned(), ..Task::default() };
    let env: Vec<Value> =
        task.to_environment().iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let pod = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "finalizers": finalizers,
            "annotations": {(names::PERMIT): "u"}, "labels": {(names::FENCE): "1.2.3"}},
        "spec": {"nodeName": "h", "containers": [{"name": "side"}, {"name": "main", "env": env}]},
        "status": {"phase": "Succeeded", "containerStatuses": ended},
    });
    serde_json::from_value(pod).unwrap()
}

const REFERENCE: &str = r#"{"result_object":1,"key":"own/1.2.3.result.json","sha256":"ab","bytes":9000}"#;

#[test]
fn a_pod_whose_result_is_elsewhere_runs_until_it_is_read() {
    let pod = left(ended(0, "Completed", REFERENCE), json!([names::FINALIZER]));
    let seen = Seen::new(&pod).unwrap();
    assert_eq!((seen.observation.phase, seen.outcome.clone()), (AttemptPhase::Running, None));
    assert_eq!((seen.observation.exit_code, seen.observation.message.as_str()), (None, ""));
    let place = seen.left.unwrap();
    assert_eq!((place.ticket.as_str(), place.reference.bytes), ("sealed", 9000));
    let outcome = TaskOutcome { result: Some("r".to_owned()), ..TaskOutcome::default() };
    let read = Seen::with(&pod, Fetched::Outcome(&outcome)).unwrap();
    assert_eq!((read.observation.phase, read.observation.exit_code), (AttemptPhase::Succeeded, Some(0)));
    assert_eq!(read.outcome, Some(outcome.clone()));
    let lost = Seen::with(&pod, Fetched::Never("it was changed")).unwrap().observation;
    assert_eq!(lost.phase, AttemptPhase::Error);
    assert!(lost.message.starts_with("ARG1260: ") && lost.message.ends_with(": it was changed"));
    // Outputs that could not be read make an error of it, wherever that was told.
    let unread = TaskOutcome { output_error: "open x".to_owned(), ..outcome };
    let read = Seen::with(&pod, Fetched::Outcome(&unread)).unwrap().observation;
    assert_eq!(
        (read.phase, read.message.as_str()),
        (AttemptPhase::Error, "wait: Error (exit code 64): open x")
    );
}

#[test]
fn nobody_waits_for_what_a_released_pod_left() {
    let seen = Seen::new(&left(ended(3, "Error", REFERENCE), json!([]))).unwrap();
    assert!(seen.is_over() && seen.left.is_some());
    let unwanted = left(ended(3, "Error", REFERENCE), json!([names::FINALIZER]));
    assert!(Seen::with(&unwanted, Fetched::Unwanted).unwrap().is_over());
}

#[test]
fn the_outcome_of_all_containers_says_how_each_ended() {
    let status = |name: &str, code: i32, message: &str| {
        json!({"name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": {"terminated": {"exitCode": code, "reason": "Error", "message": message}}})
    };
    let statuses = json!([status("main", 3, REFERENCE), status("side", 2, "")]);
    let mut pod = left(statuses, json!([names::FINALIZER]));
    pod.status.as_mut().unwrap().phase = Some("Failed".to_owned());
    let container = |name: &str, exit_code, message: &str| ContainerOutcome {
        name: name.to_owned(),
        exit_code,
        message: message.to_owned(),
        ..ContainerOutcome::default()
    };
    let containers = vec![container("main", 3, "why"), container("side", 2, "also")];
    let outcome = TaskOutcome { exit_code: 3, containers, ..TaskOutcome::default() };
    let read = Seen::with(&pod, Fetched::Outcome(&outcome)).unwrap();
    assert_eq!(
        (read.observation.phase, read.observation.message.as_str()),
        (AttemptPhase::Failed, "side: Error (exit code 2): also"),
        "in the order of the Pod"
    );
    assert_eq!(read.outcome, Some(outcome));
}

#[test]
fn success_needs_its_outcome() {
    let outcome = r#"{"exit_code":0,"result":"hi","started_at_ms":1,"finished_at_ms":2}"#;
    let status = json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed", outcome)});
    let found = seen(json!({(names::PERMIT): "u"}), status);
    assert_eq!(found.observation.phase, AttemptPhase::Succeeded);
    assert_eq!(found.outcome.and_then(|outcome| outcome.result).as_deref(), Some("hi"));
    let (phase, message) =
        state(json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed", "")}));
    assert_eq!((phase, message.as_str()), (AttemptPhase::Error, OUTCOME_LOST));
}

fn several(statuses: &[(&str, i32, &str)]) -> (AttemptPhase, String, Option<TaskOutcome>) {
    let statuses: Vec<Value> = statuses
        .iter()
        .map(|(name, code, message)| {
            json!({"name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "",
                "state": {"terminated": {"exitCode": code, "reason": "Error", "message": message}}})
        })
        .collect();
    let annotations = json!({(names::PERMIT): "u", (names::SIDECARS): "a-side"});
    let seen = seen(annotations, json!({"phase": "Failed", "containerStatuses": statuses}));
    (seen.observation.phase, seen.observation.message, seen.outcome)
}

#[test]
fn of_several_containers_main_ones_count_before_outputs_and_sidecars() {
    let left = |code: i32, more: &str| {
        format!(r#"{{"exit_code":{code}{more},"started_at_ms":1,"finished_at_ms":2}}"#)
    };
    let (ok, told, bad) = (left(0, r#","result":"r""#), left(143, ""), left(2, ""));
    let (phase, message, outcome) = several(&[("a-side", 143, &told), ("main", 0, &ok)]);
    assert_eq!((phase, message.as_str()), (AttemptPhase::Succeeded, ""));
    let outcome = outcome.unwrap();
    assert_eq!((outcome.result.as_deref(), outcome.containers.len()), (Some("r"), 2));
    let (phase, message, _) = several(&[("a-side", 2, &bad), ("main", 0, &ok)]);
    assert_eq!((phase, message.as_str()), (AttemptPhase::Failed, "a-side: Error (exit code 2)"));
    let unread = left(0, r#","output_error":"open x""#);
    let (phase, message, _) = several(&[("a-side", 2, &bad), ("main", 0, &unread)]);
    assert_eq!((phase, message.as_str()), (AttemptPhase::Error, "wait: Error (exit code 64): open x"));
    // One that was killed together with its executor leaves nothing: the kubelet's word counts.
    let (phase, message, outcome) = several(&[("a-side", 143, &told), ("main", 137, "")]);
    assert_eq!((phase, message.as_str()), (AttemptPhase::Failed, "main: Error (exit code 137)"));
    assert_eq!(outcome, None);
}

#[test]
fn a_users_init_container_fails_the_step_and_ours_is_an_error() {
    let init = |name: &str| {
        json!({"phase": "Failed", "initContainerStatuses": [{"name": name, "ready": false, "restartCount": 0, "image": "",
            "imageID": "", "state": {"terminated": {"exitCode": 7, "reason": "Error"}}}]})
    };
    assert_eq!(state(init("prep")), (AttemptPhase::Failed, "prep: Error (exit code 7)".into()));
    assert_eq!(state(init("init")).0, AttemptPhase::Error);
}

#[test]
fn without_an_executor_the_pods_end_counts() {
    let annotations = json!({(names::PERMIT): "u", (names::NO_EXECUTOR): "true"});
    let status = json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed", "")});
    assert_eq!(seen(annotations, status).observation.phase, AttemptPhase::Succeeded);
}

#[test]
fn foreign_and_released_pods_are_told_apart() {
    assert_eq!(Seen::new(&Pod::default()), None);
    let mut pod: Pod =
        serde_json::from_value(json!({"metadata": {"labels": {(names::FENCE): "1.2.3"}}})).unwrap();
    assert!(Seen::new(&pod).unwrap().released);
    pod.metadata.labels.get_or_insert_default().insert(names::FENCE.into(), "nonsense".into());
    assert_eq!(Seen::new(&pod), None);
}

#[test]
fn a_deleted_pod_that_no_host_has_is_over() {
    let pod = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {(names::FENCE): "1.2.3"}},
        "spec": {"containers": []}, "status": {"phase": "Pending"}});
    let seen = Seen::new(&serde_json::from_value(pod).unwrap()).unwrap();
    assert_eq!(
        (seen.observation.phase, seen.observation.message.as_str()),
        (AttemptPhase::Error, POD_DELETED)
    );
}
