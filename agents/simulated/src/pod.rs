//! One pod, what is seen of it, and what its template says.

use crate::Millis;
use argosy_agent_runtime::{AttemptObservation, observe_outcome};
use argosy_executor::protocol::TaskOutcome;
use argosy_model::parse_fence;
use argosy_proto::common::{AttemptPhase, Fence};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stage {
    /// The executor is not up.
    Starting,
    /// The executor asks for its permit.
    Asking,
    Running,
    /// The command ended; the executor hands over.
    HandingOver(TaskOutcome),
    /// Nothing runs any more; an executor that told its outcome left it in the Pod's status.
    Over(Option<TaskOutcome>),
    /// Its executor was killed, and all that it ran.
    Killed,
}

#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) holder: String,
    pub(crate) stage: Stage,
    /// The binding that the cluster itself holds.
    pub(crate) bound: Option<String>,
    pub(crate) duration_ms: Millis,
    pub(crate) exit_code: i32,
    pub(crate) crashes: bool,
    pub(crate) started_at: Millis,
    /// The executor speaks next: a question, or its outcome.
    pub(crate) speaks_at: Millis,
    pub(crate) stop_at: Option<Millis>,
    pub(crate) lease: Option<Lease>,
    /// Does nothing until then.
    pub(crate) frozen_until: Option<Millis>,
    /// Input artifacts, and the attempts that made them.
    pub(crate) inputs: Vec<(String, Fence)>,
    /// Output artifacts.
    pub(crate) outputs: Vec<String>,
}

/// Of an exclusive step, as its executor counts it.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) length_ms: Millis,
    /// When the question was sent whose answer is waited for.
    pub(crate) asked_at: Millis,
    /// Nothing of the command runs after this moment.
    pub(crate) ends_at: Millis,
}

/// How a process ends that is killed.
pub(crate) const KILLED: i32 = 137;

pub(crate) fn observe(fence: Fence, pod: &Pod) -> AttemptObservation {
    if let Stage::Over(Some(outcome)) = &pod.stage {
        // A Pod says how it ended for as long as it is there, also to an agent that has lost what it was told.
        return AttemptObservation {
            holder: pod.bound.clone(),
            host: "simulated".to_owned(),
            handle: pod.holder.clone(),
            ..observe_outcome(fence, &pod.holder, outcome.clone())
        };
    }
    let phase = match &pod.stage {
        Stage::Starting | Stage::Asking => AttemptPhase::Pending,
        Stage::Running | Stage::HandingOver(_) | Stage::Over(_) => AttemptPhase::Running,
        Stage::Killed => AttemptPhase::Failed,
    };
    let killed = pod.stage == Stage::Killed;
    let message = if killed { format!("main: Error (exit code {KILLED})") } else { String::new() };
    AttemptObservation {
        holder: pod.bound.clone(),
        ready: phase == AttemptPhase::Running,
        host: "simulated".to_owned(),
        handle: pod.holder.clone(),
        exit_code: killed.then_some(KILLED),
        ..AttemptObservation::new(fence, phase, message)
    }
}

/// The names in a list of a template.
pub(crate) fn names(template: &Value, list: &str) -> Vec<String> {
    let listed = template.pointer(list).and_then(Value::as_array).into_iter().flatten();
    listed.filter_map(|one| one.get("name")?.as_str()).map(str::to_owned).collect()
}

/// A template's input artifacts that attempts have made.
pub(crate) fn inputs(template: &Value) -> Vec<(String, Fence)> {
    let listed = template.pointer("/inputs/artifacts").and_then(Value::as_array).into_iter().flatten();
    let made = |one: &Value| {
        let key = one.pointer("/argosy/key")?.as_str()?;
        let fence = key.split('/').find_map(parse_fence)?;
        Some((one.get("name")?.as_str()?.to_owned(), fence))
    };
    listed.filter_map(made).collect()
}

/// The number after this word in the container's arguments.
pub(crate) fn argument(template: &Value, word: &str) -> Option<u64> {
    let arguments = template.pointer("/container/args").and_then(Value::as_array)?;
    arguments.iter().find_map(|argument| argument.as_str()?.strip_prefix(word)?.parse().ok())
}
