//! From a Pod to what the reconciler hears of it. Pure. Phases and messages follow Argo reference 4 (assessNodeStatus and
//! inferFailedReason).

use crate::gc::Removal;
use crate::housekeeping::Key;
use crate::names;
use argosy_agent_runtime::server::Left;
use argosy_agent_runtime::{AttemptObservation, container_phase, is_terminal};
use argosy_executor::protocol::{
    ContainerOutcome, EXIT_REFUSED, ParameterValue, ResultReference, Task, TaskOutcome,
};
use argosy_model::{Fence, parse_fence};
use argosy_proto::common::{AttemptPhase, ContainerState, OutputParameter};
use k8s_openapi::api::core::v1::{
    ContainerState as KubeletState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Argo's message for a Pod that somebody removed.
pub const POD_DELETED: &str = "pod deleted";
/// A Pod whose executor ended well, without its outcome having reached the agent.
const OUTCOME_LOST: &str =
    "the step ended, but its outcome was lost: neither the agent nor the termination message has it";

/// A Pod whose executor left its result in an object that can't be used.
pub const RESULT_LOST: &str =
    "ARG1260: the step ended, but the result that it left in its object store is lost";

/// What is known of a result that a Pod's executor left in an object store.
#[derive(Clone, Copy, Debug)]
pub enum Fetched<'a> {
    /// It was not read: the Pod's end is not told before that.
    Not,
    /// This is it.
    Outcome(&'a TaskOutcome),
    /// It can't be had, for this reason.
    Never(&'a str),
    /// Nobody wants it.
    Unwanted,
}

/// One Pod of ours, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// State for the reconciler. A terminal state follows the outcome, where there is one.
    pub observation: AttemptObservation,
    /// What the executor left in the termination message, or in an object store.
    pub outcome: Option<TaskOutcome>,
    /// Where the executor left its result, if in an object store. Its Pod runs until that is read.
    pub left: Option<Left>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: the holder of permits.
    pub uid: String,
    /// Without our finalizer: released, kept for its log only.
    pub released: bool,
    /// It is to be deleted, and goes once nothing holds it: by then its kubelet should have ended it, milliseconds since 1970.
    pub delete_by_ms: Option<i64>,
    /// Its workflow.
    pub workflow: Option<Key>,
    /// When it is to be removed, once it is released.
    pub removal: Option<Removal>,
}

impl Seen {
    /// Reads a Pod; nothing when it carries no fence of ours.
    #[must_use]
    pub fn new(pod: &Pod) -> Option<Self> {
        Self::with(pod, Fetched::Not)
    }

    /// Reads a Pod whose executor may have left its result elsewhere.
    #[must_use]
    pub fn with(pod: &Pod, fetched: Fetched<'_>) -> Option<Self> {
        let labels = pod.metadata.labels.as_ref()?;
        let fence = parse_fence(labels.get(names::FENCE)?)?;
        let status = pod.status.clone().unwrap_or_default();
        let mut containers = Containers::of(pod, &status);
        let is_held = pod.metadata.finalizers.iter().flatten().any(|name| name == names::FINALIZER);
        let left = containers.reference.take().map(|reference| Left { reference, ticket: ticket(pod) });
        if let Fetched::Outcome(outcome) = fetched {
            containers.take_outcome(outcome);
        }
        let mut observation = observe(pod, fence, &status, &containers);
        let is_bound_end = observation.holder.is_some() && is_terminal(observation.phase);
        match fetched {
            Fetched::Not if left.is_some() && is_held && is_bound_end => {
                observation.phase = AttemptPhase::Running;
                observation.message.clear();
                (observation.exit_code, observation.finished_at_ms) = (None, 0);
            }
            Fetched::Never(reason) if left.is_some() => {
                observation.phase = AttemptPhase::Error;
                observation.message = format!("{RESULT_LOST}: {reason}");
            }
            Fetched::Not | Fetched::Outcome(_) | Fetched::Never(_) | Fetched::Unwanted => {}
        }
        let outcome = containers.outcome();
        Some(Self {
            observation,
            outcome,
            left,
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            released: !is_held,
            delete_by_ms: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0.as_millisecond()),
            workflow: Key::of(&pod.metadata),
            removal: pod.metadata.annotations.as_ref().and_then(|all| Removal::read(all.get(names::GC)?)),
        })
    }

    /// Whether the Pod has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        is_terminal(self.observation.phase)
    }
}

/// One container of the user's, as its kubelet tells.
struct Container<'a> {
    name: &'a str,
    sidecar: bool,
    state: Option<&'a KubeletState>,
    /// What its executor left in the termination message.
    outcome: Option<TaskOutcome>,
}

impl Container<'_> {
    fn ended(&self) -> Option<&ContainerStateTerminated> {
        self.state?.terminated.as_ref()
    }

    /// Its state, as a node of its own is told: Argo's phases and messages.
    fn told(&self) -> ContainerState {
        let mut told = ContainerState { name: self.name.to_owned(), ..ContainerState::default() };
        told.set_phase(AttemptPhase::Pending);
        let Some(state) = self.state else { return told };
        if let Some(running) = &state.running {
            told.set_phase(AttemptPhase::Running);
            told.started_at_ms = milliseconds(running.started_at.as_ref());
        } else if let Some(ended) = &state.terminated {
            told.set_phase(container_phase(ended.exit_code));
            (told.started_at_ms, told.finished_at_ms) =
                (milliseconds(ended.started_at.as_ref()), milliseconds(ended.finished_at.as_ref()));
            if ended.exit_code != 0 {
                let text = self
                    .outcome
                    .as_ref()
                    .map_or(ended.message.as_deref().unwrap_or_default(), |own| &own.message);
                told.message = format!("{}: {text}", describe(self.name, ended, None, ""));
            }
        }
        told
    }

    /// What made it fail; empty if it did not, or is a sidecar that was told to end.
    fn failure(&self) -> Option<String> {
        let ended = self.ended().filter(|ended| ended.exit_code != 0)?;
        let was_told = self.sidecar && [137, 143].contains(&ended.exit_code);
        if was_told {
            return None;
        }
        let own = self.outcome.as_ref();
        let text = own.map_or(ended.message.as_deref().unwrap_or_default(), |outcome| &outcome.message);
        let reason = own.map(|outcome| outcome.reason.as_str()).filter(|reason| !reason.is_empty());
        Some(describe(self.name, ended, reason, text))
    }
}

/// The containers of a Pod that run side by side, main ones first, in its order.
struct Containers<'a> {
    all: Vec<Container<'a>>,
    has_executor: bool,
    /// Where the last of them left the outcome of all.
    reference: Option<ResultReference>,
    /// The outcome of all, read there.
    fetched: Option<TaskOutcome>,
}

/// The sealed ticket that the executors of a Pod were given.
fn ticket(pod: &Pod) -> String {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let tickets = containers.filter_map(|container| {
        let variables = container.env.as_ref()?;
        let lookup = |name: &str| variables.iter().find(|one| one.name == name)?.value.clone();
        Some(Task::from_environment(lookup).ok()?.ticket).filter(|ticket| !ticket.is_empty())
    });
    tickets.into_iter().next().unwrap_or_default()
}

impl<'a> Containers<'a> {
    fn of(pod: &'a Pod, status: &'a PodStatus) -> Self {
        let annotation = |name: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(name));
        let sidecars: Vec<&str> =
            annotation(names::SIDECARS).map(|names| names.split(',').collect()).unwrap_or_default();
        let read = |status: &'a ContainerStatus| {
            let state = status.state.as_ref();
            let message = state.and_then(|state| state.terminated.as_ref()?.message.as_ref());
            Container {
                name: &status.name,
                sidecar: sidecars.contains(&status.name.as_str()),
                state,
                outcome: message.and_then(|message| serde_json::from_str(message).ok()),
            }
        };
        let order: Vec<&str> = pod
            .spec
            .as_ref()
            .map(|spec| spec.containers.iter().map(|one| one.name.as_str()).collect())
            .unwrap_or_default();
        let mut all: Vec<Container<'a>> = status.container_statuses.iter().flatten().map(read).collect();
        // The kubelet sorts by name.
        all.sort_by_key(|one| (one.sidecar, order.iter().position(|name| *name == one.name)));
        let messages = all.iter().filter_map(|one| one.ended()?.message.as_ref());
        let reference = messages.into_iter().find_map(|message| serde_json::from_str(message).ok());
        Self { all, has_executor: annotation(names::NO_EXECUTOR).is_none(), reference, fetched: None }
    }

    /// Gives each container its part of the outcome of all.
    fn take_outcome(&mut self, outcome: &TaskOutcome) {
        for container in &mut self.all {
            let own = outcome.containers.iter().find(|one| one.name == container.name);
            if container.name == names::MAIN && !container.sidecar {
                let mut main = TaskOutcome { containers: Vec::new(), ..outcome.clone() };
                if let Some(own) = own {
                    main.exit_code = own.exit_code;
                    main.reason.clone_from(&own.reason);
                    main.message.clone_from(&own.message);
                }
                container.outcome = Some(main);
            } else if let (None, Some(own)) = (&container.outcome, own) {
                container.outcome = Some(TaskOutcome {
                    exit_code: own.exit_code,
                    reason: own.reason.clone(),
                    message: own.message.clone(),
                    started_at_ms: own.started_at_ms,
                    finished_at_ms: own.finished_at_ms,
                    ..TaskOutcome::default()
                });
            }
        }
        self.fetched = Some(outcome.clone());
    }

    /// The command of a main container ended by a signal of its kubelet.
    fn were_told(&self) -> bool {
        let mut mains = self.all.iter().filter(|one| !one.sidecar);
        mains.any(|main| main.outcome.as_ref().is_some_and(|outcome| outcome.told_to_stop))
    }

    /// The states of the containers that are no sidecars.
    fn states(&self) -> Vec<ContainerState> {
        self.all.iter().filter(|one| !one.sidecar).map(Container::told).collect()
    }

    fn main(&self) -> Option<&Container<'a>> {
        self.all.iter().find(|one| one.name == names::MAIN && !one.sidecar)
    }

    /// The attempt's outcome, once every container has left its own.
    fn outcome(&self) -> Option<TaskOutcome> {
        if self.fetched.is_some() {
            return self.fetched.clone();
        }
        if let [one] = self.all.as_slice()
            && one.name == names::MAIN
        {
            return one.outcome.clone();
        }
        let main = self.main().and_then(|main| main.outcome.clone());
        let mut outcome = main.unwrap_or_default();
        for container in &self.all {
            let own = container.outcome.as_ref()?;
            outcome.containers.push(ContainerOutcome::new(container.name, container.sidecar, own));
            if outcome.started_at_ms == 0 {
                outcome.started_at_ms = own.started_at_ms;
            }
            outcome.finished_at_ms = outcome.finished_at_ms.max(own.finished_at_ms);
        }
        (!outcome.containers.is_empty()).then_some(outcome)
    }
}

fn milliseconds(time: Option<&Time>) -> i64 {
    time.map_or(0, |time| time.0.as_millisecond())
}

fn observe(pod: &Pod, fence: Fence, status: &PodStatus, containers: &Containers<'_>) -> AttemptObservation {
    let holder =
        pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::PERMIT)).cloned();
    let host = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let (phase, mut message) = phase(pod, status, containers, holder.is_some());
    // The name that users know; ours is longer.
    let argo_name = pod.metadata.annotations.as_ref().and_then(|all| all.get(names::ARGO_POD_NAME));
    if let (Some(name), Some(argo_name)) = (&pod.metadata.name, argo_name)
        && message.contains(name.as_str())
    {
        message = message.replace(name.as_str(), argo_name);
    }
    let main = containers.main();
    let ended = main.and_then(Container::ended);
    let running = main.and_then(|main| main.state?.running.as_ref());
    let started = running
        .and_then(|running| running.started_at.as_ref())
        .or(ended.and_then(|ended| ended.started_at.as_ref()));
    let finished = containers.all.iter().filter_map(|one| one.ended()?.finished_at.as_ref());
    let finished = finished.max_by_key(|time| time.0);
    let init = own_init(status);
    let is_bound = holder.is_some();
    // A Pod that somebody removed says nothing of its command, and one that still ends has not said its last word.
    let counts = is_terminal(phase) && message != POD_DELETED;
    // What was left there counts where the outcome itself was not taken.
    let left = main.and_then(|main| main.outcome.as_ref()).filter(|_| counts);
    AttemptObservation {
        fence,
        phase,
        exit_code: ended
            .filter(|_| counts)
            .map(|ended| ended.exit_code)
            .or(init.filter(|code| *code == EXIT_REFUSED)),
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
        result: left.and_then(|outcome| outcome.result.clone()),
        parameters: left.into_iter().flat_map(|outcome| outcome.parameters.iter().map(parameter)).collect(),
        containers: containers.states(),
        pod_ip: status.pod_ip.clone().unwrap_or_default(),
        ready: is_bound && status.phase.as_deref() == Some("Running") && is_ready(status),
        ..AttemptObservation::default()
    }
}

fn parameter(one: &ParameterValue) -> OutputParameter {
    OutputParameter { name: one.name.clone(), value: one.value.clone() }
}

/// Every container is ready, Kubernetes' own kind of sidecar apart.
fn is_ready(status: &PodStatus) -> bool {
    let mut containers = status.container_statuses.iter().flatten().peekable();
    containers.peek().is_some() && containers.all(|one| one.ready)
}

/// The exit code of the container that brings the executor.
fn own_init(status: &PodStatus) -> Option<i32> {
    let init = status.init_container_statuses.iter().flatten().find(|one| one.name == names::INIT)?;
    Some(init.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn phase(pod: &Pod, status: &PodStatus, containers: &Containers<'_>, bound: bool) -> (AttemptPhase, String) {
    let unscheduled = pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
    match status.phase.as_deref() {
        // No kubelet will ever end it.
        _ if pod.metadata.deletion_timestamp.is_some() && unscheduled => {
            (AttemptPhase::Error, POD_DELETED.to_owned())
        }
        // Somebody deleted it, and its command ended for that.
        Some("Succeeded" | "Failed")
            if pod.metadata.deletion_timestamp.is_some() && containers.were_told() =>
        {
            (AttemptPhase::Error, POD_DELETED.to_owned())
        }
        Some("Running") if bound => (AttemptPhase::Running, String::new()),
        Some("Succeeded") => succeeded(containers, bound),
        Some("Failed") => failed(pod, status, containers, bound),
        // Also "Unknown": the kubelet is out of touch, and what runs there is not over.
        _ if bound && status.phase.as_deref() != Some("Pending") => (AttemptPhase::Running, String::new()),
        _ => (AttemptPhase::Pending, pending_message(status)),
    }
}

fn succeeded(containers: &Containers<'_>, bound: bool) -> (AttemptPhase, String) {
    let outcome = containers.main().and_then(|main| main.outcome.as_ref());
    match outcome {
        Some(outcome) if !outcome.output_error.is_empty() => (AttemptPhase::Error, output_problem(outcome)),
        Some(_) => (AttemptPhase::Succeeded, String::new()),
        None if !containers.has_executor || containers.outcome().is_some() => {
            (AttemptPhase::Succeeded, String::new())
        }
        None if bound => (AttemptPhase::Error, OUTCOME_LOST.to_owned()),
        None => {
            (AttemptPhase::Error, "the step ended without a start permit; its command did not run".to_owned())
        }
    }
}

/// Argo reads outputs in a container of its own.
fn output_problem(outcome: &TaskOutcome) -> String {
    format!("wait: Error (exit code 64): {}", outcome.output_error)
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

fn describe(name: &str, ended: &ContainerStateTerminated, reason: Option<&str>, text: &str) -> String {
    let reason = reason.or(ended.reason.as_deref()).unwrap_or("Error");
    let head = format!("{name}: {reason} (exit code {})", ended.exit_code);
    if text.is_empty() { head } else { format!("{head}: {text}") }
}

/// Why a Pod that is no attempt failed: what it says itself, or the first of its containers that did.
pub(crate) fn described(status: &PodStatus) -> String {
    let own = status.message.clone().filter(|message| !message.is_empty());
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let failed = containers.filter_map(|one| Some((&one.name, one.state.as_ref()?.terminated.as_ref()?)));
    let mut failed = failed.filter(|(_, ended)| ended.exit_code != 0);
    own.or_else(|| {
        let (name, ended) = failed.next()?;
        Some(describe(name, ended, None, ended.message.as_deref().unwrap_or_default()))
    })
    .unwrap_or_else(|| "the pod failed".to_owned())
}

/// Argo's order: the Pod's own message, init containers, main ones, outputs, sidecars.
fn failed(pod: &Pod, status: &PodStatus, containers: &Containers<'_>, bound: bool) -> (AttemptPhase, String) {
    if let Some(message) = status.message.as_ref().filter(|message| !message.is_empty()) {
        return (AttemptPhase::Failed, message.clone());
    }
    let is_sidecar = |name: &str| {
        let mut inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        inits.any(|one| one.name == name && one.restart_policy.as_deref() == Some("Always"))
    };
    // Kubernetes' own kind of sidecar ends as it likes, after the containers that count.
    for init in status.init_container_statuses.iter().flatten().filter(|one| !is_sidecar(&one.name)) {
        let ended = init.state.as_ref().and_then(|state| state.terminated.as_ref());
        if let Some(ended) = ended.filter(|ended| ended.exit_code != 0) {
            let is_own = init.name == names::INIT || init.name.starts_with(names::INIT_ARTIFACT);
            let phase = if is_own { AttemptPhase::Error } else { AttemptPhase::Failed };
            return (phase, describe(&init.name, ended, None, ended.message.as_deref().unwrap_or_default()));
        }
    }
    for main in containers.all.iter().filter(|one| !one.sidecar) {
        if let Some(waiting) = main.state.and_then(|state| state.waiting.as_ref()) {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            let message = waiting.message.as_deref().unwrap_or_default();
            let name = main.name;
            return (
                AttemptPhase::Error,
                format!("Pod failed before {name} container starts due to {reason}: {message}"),
            );
        }
        if let Some(message) = main.failure() {
            return (AttemptPhase::Failed, message);
        }
    }
    let outcome = containers.main().and_then(|main| main.outcome.as_ref());
    if let Some(outcome) = outcome.filter(|outcome| !outcome.output_error.is_empty()) {
        return (AttemptPhase::Error, output_problem(outcome));
    }
    if let Some(message) = containers.all.iter().find_map(Container::failure) {
        return (AttemptPhase::Failed, message);
    }
    // Sidecars that were told to end make the Pod's phase Failed.
    let all_ended = !containers.all.is_empty() && containers.all.iter().all(|one| one.ended().is_some());
    if all_ended {
        return succeeded(containers, bound);
    }
    // Its host is gone, or it had to make room: the cluster says so here only.
    let disrupted =
        status.conditions.iter().flatten().find(|condition| condition.type_ == "DisruptionTarget");
    let told = disrupted.and_then(|condition| condition.message.as_deref());
    let reason = status.reason.as_deref().or(told).unwrap_or("no container has a state");
    (AttemptPhase::Error, format!("pod failed: {reason}"))
}

#[cfg(test)]
mod tests;
