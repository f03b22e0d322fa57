//! From a Pod to what the reconciler hears of it. Pure. Phases and messages follow Argo reference 4 (assessNodeStatus and
//! inferFailedReason).

use crate::names;
use argosy_agent_runtime::{AttemptObservation, is_terminal};
use argosy_executor::protocol::TaskOutcome;
use argosy_model::{Fence, parse_fence};
use argosy_proto::common::AttemptPhase;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Argo's message for a Pod that somebody removed.
pub const POD_DELETED: &str = "pod deleted";
/// A Pod whose executor ended well, without its outcome having reached the agent.
const OUTCOME_LOST: &str =
    "the step ended, but its outcome was lost: neither the agent nor the termination message has it";

/// One Pod of ours, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// State for the reconciler. A terminal state follows the outcome, where there is one.
    pub observation: AttemptObservation,
    /// What the executor left in the termination message.
    pub outcome: Option<TaskOutcome>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: the holder of permits.
    pub uid: String,
    /// Without our finalizer: released, kept for its log only.
    pub released: bool,
}

impl Seen {
    /// Reads a Pod; nothing when it carries no fence of ours.
    #[must_use]
    pub fn new(pod: &Pod) -> Option<Self> {
        let labels = pod.metadata.labels.as_ref()?;
        let fence = parse_fence(labels.get(names::FENCE)?)?;
        let status = pod.status.clone().unwrap_or_default();
        let main = container(status.container_statuses.as_ref(), names::MAIN);
        let ended = main.and_then(|main| main.state.as_ref()?.terminated.clone());
        let outcome = ended.as_ref().and_then(|ended| serde_json::from_str(ended.message.as_ref()?).ok());
        Some(Self {
            observation: observe(pod, fence, &status, ended.as_ref(), outcome.as_ref()),
            outcome,
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            released: !pod.metadata.finalizers.iter().flatten().any(|name| name == names::FINALIZER),
        })
    }

    /// Whether the Pod has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        is_terminal(self.observation.phase)
    }
}

fn container<'a>(statuses: Option<&'a Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    statuses?.iter().find(|status| status.name == name)
}

fn milliseconds(time: Option<&Time>) -> i64 {
    time.map_or(0, |time| time.0.as_millisecond())
}

fn observe(
    pod: &Pod,
    fence: Fence,
    status: &PodStatus,
    ended: Option<&ContainerStateTerminated>,
    outcome: Option<&TaskOutcome>,
) -> AttemptObservation {
    let holder =
        pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::PERMIT)).cloned();
    let host = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let (phase, message) = phase(pod, status, ended, outcome, holder.is_some());
    let running = container(status.container_statuses.as_ref(), names::MAIN)
        .and_then(|main| main.state.as_ref()?.running.as_ref());
    let started = running
        .and_then(|running| running.started_at.as_ref())
        .or(ended.and_then(|ended| ended.started_at.as_ref()));
    let finished = ended.and_then(|ended| ended.finished_at.as_ref());
    AttemptObservation {
        fence,
        phase,
        exit_code: ended.map(|ended| ended.exit_code),
        message,
        started_at_ms: if holder.is_some() { milliseconds(started) } else { 0 },
        finished_at_ms: if is_terminal(phase) { milliseconds(finished) } else { 0 },
        holder,
        host,
        handle: format!(
            "{}/{}",
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            pod.metadata.name.as_deref().unwrap_or_default()
        ),
        ..AttemptObservation::default()
    }
}

fn phase(
    pod: &Pod,
    status: &PodStatus,
    ended: Option<&ContainerStateTerminated>,
    outcome: Option<&TaskOutcome>,
    bound: bool,
) -> (AttemptPhase, String) {
    let unscheduled = pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
    match status.phase.as_deref() {
        // No kubelet will ever end it.
        _ if pod.metadata.deletion_timestamp.is_some() && unscheduled => {
            (AttemptPhase::Error, POD_DELETED.to_owned())
        }
        Some("Running") if bound => (AttemptPhase::Running, String::new()),
        Some("Succeeded") => succeeded(outcome, bound),
        Some("Failed") => failed(status, ended, outcome),
        // Also "Unknown": the kubelet is out of touch, and what runs there is not over.
        _ if bound => (AttemptPhase::Running, String::new()),
        _ => (AttemptPhase::Pending, pending_message(status)),
    }
}

fn succeeded(outcome: Option<&TaskOutcome>, bound: bool) -> (AttemptPhase, String) {
    match outcome {
        Some(outcome) if outcome.output_error.is_empty() => (AttemptPhase::Succeeded, String::new()),
        Some(outcome) => (AttemptPhase::Error, outcome.output_error.clone()),
        None if bound => (AttemptPhase::Error, OUTCOME_LOST.to_owned()),
        None => {
            (AttemptPhase::Error, "the step ended without a start permit; its command did not run".to_owned())
        }
    }
}

/// What a Pod waits for: the reason of its first waiting container, or of not being scheduled.
fn pending_message(status: &PodStatus) -> String {
    let containers = status.init_container_statuses.iter().chain(status.container_statuses.iter()).flatten();
    for container in containers {
        let Some(waiting) = container.state.as_ref().and_then(|state| state.waiting.as_ref()) else {
            continue;
        };
        let reason = waiting.reason.as_deref().unwrap_or_default();
        match &waiting.message {
            Some(message) => return format!("{reason}: {message}"),
            // The next container waits for this one; its own reason says nothing.
            None if reason == "PodInitializing" || reason.is_empty() => {}
            None => return reason.to_owned(),
        }
    }
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    match scheduled {
        Some(condition) if condition.status == "False" => format!(
            "{}: {}",
            condition.reason.as_deref().unwrap_or("Unschedulable"),
            condition.message.as_deref().unwrap_or_default()
        ),
        _ => status.message.clone().unwrap_or_default(),
    }
}

fn describe(name: &str, ended: &ContainerStateTerminated, text: &str) -> String {
    let reason = ended.reason.as_deref().unwrap_or("Error");
    let head = format!("{name}: {reason} (exit code {})", ended.exit_code);
    if text.is_empty() { head } else { format!("{head}: {text}") }
}

fn failed(
    status: &PodStatus,
    ended: Option<&ContainerStateTerminated>,
    outcome: Option<&TaskOutcome>,
) -> (AttemptPhase, String) {
    if let Some(message) = status.message.as_ref().filter(|message| !message.is_empty()) {
        return (AttemptPhase::Failed, message.clone());
    }
    if let Some(init) = container(status.init_container_statuses.as_ref(), names::INIT)
        .and_then(|init| init.state.as_ref()?.terminated.as_ref())
        && init.exit_code != 0
    {
        return (
            AttemptPhase::Error,
            describe(names::INIT, init, init.message.as_deref().unwrap_or_default()),
        );
    }
    if let Some(waiting) = container(status.container_statuses.as_ref(), names::MAIN)
        .and_then(|main| main.state.as_ref()?.waiting.as_ref())
    {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref().unwrap_or_default();
        return (
            AttemptPhase::Error,
            format!("Pod failed before main container starts due to {reason}: {message}"),
        );
    }
    match ended {
        Some(ended) => {
            let text =
                outcome.map_or(ended.message.as_deref().unwrap_or_default(), |outcome| &outcome.message);
            (AttemptPhase::Failed, describe(names::MAIN, ended, text))
        }
        None => (
            AttemptPhase::Error,
            format!("pod failed: {}", status.reason.as_deref().unwrap_or("no container has a state")),
        ),
    }
}

#[cfg(test)]
mod tests {
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
        let outcome = r#"{"exit_code":64,"message":"failed to find name in PATH","started_at_ms":1,"finished_at_ms":2}"#;
        assert_eq!(
            failed(64, "Error", outcome),
            (AttemptPhase::Failed, "main: Error (exit code 64): failed to find name in PATH".into())
        );
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
        assert_eq!(state(evicted), (AttemptPhase::Failed, "The node was low on resource: memory.".into()));
        let init = json!({"phase": "Failed", "initContainerStatuses": [{"name": "init", "ready": false, "restartCount": 0, "image": "",
            "imageID": "", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]});
        assert_eq!(state(init), (AttemptPhase::Error, "init: Error (exit code 1)".into()));
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
}
