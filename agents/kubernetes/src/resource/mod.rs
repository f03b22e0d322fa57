//! Resource templates: no Pod, but requests of the agent in the name of the workflow's service account.
//!
//! An attempt asks for its start permit like any other and acts only then. What was permitted is kept in a file until the
//! attempt is released, so that another life of the agent goes on with it; doing an action twice does no harm where
//! Kubernetes allows that (a created object carries the fence of its attempt, a generated name follows from it).

mod action;
mod api;
mod conditions;
mod flags;
pub mod jq;
mod jsonpath;
mod store;
mod target;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argosy_agent_runtime::server::Executors;
use argosy_agent_runtime::{AttemptObservation, RuntimeEvent, is_terminal};
use argosy_model::{Fence, display_fence};
use argosy_proto::common::{Assignment, AttemptPhase, OutputParameter};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::AbortHandle;

use action::{ManifestFrom, RETRY_FIRST, Step, TRIES_MAX};
use api::Access;
use store::{Record, Store};

/// Argo's exit code for what its executor could not do.
const EXIT_EXECUTOR_ERROR: i32 = 64;
/// Waits between two requests for a start permit.
const ASK_FIRST: Duration = Duration::from_millis(200);
const ASK_MAX: Duration = Duration::from_secs(5);
/// Argo's, which are the kubelet's, for a step that takes too long.
const DEADLINE: &str = "Pod was active on the node longer than the specified deadline";
/// Lines kept of what a step did.
const LINES_MAX: usize = 1_000;

/// How resource steps run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where permitted attempts are kept; none: another life of the agent knows nothing of them.
    pub directory: Option<PathBuf>,
    /// The program that evaluates jq filters when its one argument is [`jq::ARGUMENT`]; none: there are no jq filters.
    pub jq: Option<PathBuf>,
    /// Between two looks at an object that is waited for; Argo's is five seconds.
    pub poll_every_ms: u64,
    /// Steps that act at once; more wait.
    pub running_max: usize,
    /// Bytes of a manifest that is an artifact.
    pub manifest_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: None,
            jq: None,
            poll_every_ms: 5_000,
            running_max: 256,
            manifest_bytes_max: 4 << 20,
        }
    }
}

/// The resource steps of a cluster.
pub(crate) struct Resources {
    client: kube::Client,
    executors: Executors,
    settings: Settings,
    events: mpsc::Sender<RuntimeEvent>,
    store: Store,
    slots: Arc<Semaphore>,
    held: Mutex<BTreeMap<Fence, Held>>,
}

struct Held {
    observation: AttemptObservation,
    granted: Arc<Notify>,
    task: Option<AbortHandle>,
    lines: Vec<String>,
}

impl Resources {
    pub(crate) fn new(
        client: kube::Client,
        executors: Executors,
        settings: Settings,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Arc<Self> {
        let store = Store::new(settings.directory.clone());
        let slots = Arc::new(Semaphore::new(settings.running_max.max(1)));
        Arc::new(Self { client, executors, settings, events, store, slots, held: Mutex::default() })
    }

    /// The template of an assignment is a resource.
    pub(crate) fn concerns(assignment: &Assignment) -> bool {
        let template: Result<Value, _> = serde_json::from_str(&assignment.template_json);
        template.is_ok_and(|template| template.get("resource").is_some_and(Value::is_object))
    }

    pub(crate) fn holds(&self, fence: &Fence) -> bool {
        self.held().contains_key(fence)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Fence, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with what an earlier life of the agent was permitted to do.
    pub(crate) fn adopt(self: &Arc<Self>) -> Vec<AttemptObservation> {
        let mut found = Vec::new();
        for record in self.store.all() {
            let Some(assignment) = record.assignment else { continue };
            let observation = AttemptObservation {
                holder: Some(record.holder),
                started_at_ms: record.started_at_ms,
                ..AttemptObservation::new(assignment.fence.unwrap_or_default(), AttemptPhase::Running, "")
            };
            found.push(observation.clone());
            self.begin(assignment, observation);
        }
        found
    }

    /// Asks for the attempt's start permit, and acts once it is there.
    pub(crate) async fn ensure(self: &Arc<Self>, assignment: Assignment) {
        let fence = assignment.fence.unwrap_or_default();
        let known = self.held().get(&fence).map(|held| held.observation.clone());
        let observation = known.unwrap_or_else(|| {
            let observation = AttemptObservation::new(fence, AttemptPhase::Pending, "");
            self.begin(assignment, observation.clone());
            observation
        });
        self.send(RuntimeEvent::Observed(observation)).await;
    }

    fn begin(self: &Arc<Self>, assignment: Assignment, observation: AttemptObservation) {
        let fence = observation.fence;
        let granted = Arc::new(Notify::new());
        let held = Held { observation, granted: Arc::clone(&granted), task: None, lines: Vec::new() };
        self.held().insert(fence, held);
        let task = tokio::spawn(Arc::clone(self).live(assignment, granted));
        if let Some(held) = self.held().get_mut(&fence) {
            held.task = Some(task.abort_handle());
        }
    }

    /// The start permit of an attempt.
    pub(crate) fn grant(&self, fence: &Fence) {
        if let Some(held) = self.held().get(fence) {
            held.granted.notify_one();
        }
    }

    /// Ends an attempt. What it did to the cluster stays.
    pub(crate) async fn stop(&self, fence: Fence) {
        let observation = {
            let mut all = self.held();
            let Some(held) = all.get_mut(&fence) else { return };
            held.task.take().inspect(AbortHandle::abort);
            if !is_terminal(held.observation.phase) {
                held.observation.phase = AttemptPhase::Failed;
            }
            held.observation.clone()
        };
        self.send(RuntimeEvent::Observed(observation)).await;
    }

    pub(crate) fn release(&self, fence: &Fence) {
        if let Some(held) = self.held().remove(fence) {
            held.task.inspect(AbortHandle::abort);
        }
        self.store.forget(fence);
    }

    /// What an attempt did, as lines.
    pub(crate) fn log(&self, fence: &Fence) -> Option<String> {
        self.held().get(fence).map(|held| held.lines.iter().map(|line| format!("{line}\n")).collect())
    }

    async fn send(&self, event: RuntimeEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("the agent takes no more events");
        }
    }

    async fn live(self: Arc<Self>, assignment: Assignment, granted: Arc<Notify>) {
        let fence = assignment.fence.unwrap_or_default();
        let holder = format!("resource-{}", display_fence(&fence));
        let adopted = self.held().get(&fence).is_some_and(|held| held.observation.holder.is_some());
        if !adopted {
            self.await_permit(fence, &holder, &granted).await;
            let started_at_ms = Timestamp::now().as_millisecond();
            let record = Record {
                assignment: Some(assignment.clone()),
                holder: holder.clone(),
                started_at_ms,
                ..Record::default()
            };
            if let Err(error) = self.store.keep(&fence, &record) {
                let message = format!("cannot keep the attempt's start: {error}");
                return self.over(fence, holder, AttemptPhase::Error, None, message, Vec::new()).await;
            }
            self.observe(fence, |observation| {
                observation.phase = AttemptPhase::Running;
                observation.holder = Some(holder.clone());
                observation.started_at_ms = started_at_ms;
            })
            .await;
        }
        let ended = match self.slots.acquire().await {
            Ok(_slot) => self.carry_out(&assignment).await,
            Err(_) => return,
        };
        let (phase, code, message, parameters) = match ended {
            Ok(parameters) => (AttemptPhase::Succeeded, Some(0), String::new(), parameters),
            Err(Ended::Deadline) => (AttemptPhase::Failed, None, DEADLINE.to_owned(), Vec::new()),
            Err(Ended::Told(message)) => {
                let code = EXIT_EXECUTOR_ERROR;
                let message = format!("main: Error (exit code {code}): {message}");
                (AttemptPhase::Failed, Some(code), message, Vec::new())
            }
        };
        self.over(fence, holder, phase, code, message, parameters).await;
    }

    /// Asks until the permit comes. A refusal is not heard here; the attempt is released then, which ends this.
    async fn await_permit(&self, fence: Fence, holder: &str, granted: &Notify) {
        let mut wait = ASK_FIRST;
        loop {
            self.send(RuntimeEvent::PermitAsked { fence, holder: holder.to_owned() }).await;
            if tokio::time::timeout(wait, granted.notified()).await.is_ok() {
                return;
            }
            wait = (wait * 2).min(ASK_MAX);
        }
    }

    async fn carry_out(&self, assignment: &Assignment) -> Result<Vec<OutputParameter>, Ended> {
        let mut step = self.step(assignment).map_err(Ended::Told)?;
        let fence = assignment.fence.unwrap_or_default();
        let told = |line: String| {
            if let Some(held) = self.held().get_mut(&fence)
                && held.lines.len() < LINES_MAX
            {
                held.lines.push(line);
            }
        };
        let template: Value = serde_json::from_str(&assignment.template_json).unwrap_or_default();
        let work = async {
            if let Some(from) = &step.resource.manifest_from {
                step.resource.manifest = self.manifest_from(assignment, &template, from).await?;
            }
            step.run(&told).await
        };
        match time_left(&template, assignment.deadline_ms) {
            Some(left) => tokio::time::timeout(left, work).await.map_err(|_| Ended::Deadline)?,
            None => work.await,
        }
        .map_err(Ended::Told)
    }

    /// The manifest that an input artifact is, as Argo takes it: by the artifact's name alone.
    async fn manifest_from(
        &self,
        assignment: &Assignment,
        template: &Value,
        from: &ManifestFrom,
    ) -> Result<String, String> {
        let name = from.artifact.name.as_str();
        let inputs = template.pointer("/inputs/artifacts").and_then(Value::as_array);
        let mut inputs = inputs.into_iter().flatten();
        let input = inputs.find(|input| input.get("name").and_then(Value::as_str) == Some(name));
        let input =
            input.ok_or_else(|| format!("manifestFrom: the template has no input artifact {name:?}"))?;
        if let Some(raw) = input.pointer("/raw/data").and_then(Value::as_str) {
            return Ok(raw.to_owned());
        }
        let mut wait = RETRY_FIRST;
        for attempt in 1.. {
            match self.executors.read_input(assignment, name, self.settings.manifest_bytes_max).await {
                Ok(bytes) => {
                    return String::from_utf8(bytes)
                        .map_err(|_| format!("manifestFrom: artifact {name} is no text of UTF-8"));
                }
                Err((message, is_permanent)) if is_permanent || attempt >= TRIES_MAX => return Err(message),
                Err((message, _)) => {
                    tracing::debug!(message, "a manifest's artifact can't be read");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
            }
        }
        Err("manifestFrom: not read".to_owned())
    }

    fn step(&self, assignment: &Assignment) -> Result<Step, String> {
        let read = |json: &str| -> Result<Value, String> {
            serde_json::from_str(if json.is_empty() { "{}" } else { json }).map_err(|error| error.to_string())
        };
        let (template, workflow) = (read(&assignment.template_json)?, read(&assignment.workflow_pod_json)?);
        let (resource, outputs) = action::read(&template)?;
        let account = account(&template, &workflow);
        Ok(Step {
            access: Access {
                client: self.client.clone(),
                user: format!("system:serviceaccount:{}:{account}", assignment.namespace),
            },
            resource,
            outputs,
            namespace: assignment.namespace.clone(),
            workflow: assignment.workflow.clone(),
            fence: display_fence(&assignment.fence.unwrap_or_default()),
            poll_every: Duration::from_millis(self.settings.poll_every_ms),
            jq: self.settings.jq.clone(),
        })
    }

    async fn observe(&self, fence: Fence, change: impl FnOnce(&mut AttemptObservation)) {
        let observation = {
            let mut all = self.held();
            let Some(held) = all.get_mut(&fence) else { return };
            change(&mut held.observation);
            held.observation.clone()
        };
        self.send(RuntimeEvent::Observed(observation)).await;
    }

    async fn over(
        &self,
        fence: Fence,
        holder: String,
        phase: AttemptPhase,
        exit_code: Option<i32>,
        message: String,
        parameters: Vec<OutputParameter>,
    ) {
        self.observe(fence, |observation| {
            observation.phase = phase;
            observation.holder = Some(holder);
            observation.exit_code = exit_code;
            observation.message = message;
            observation.parameters = parameters;
            observation.finished_at_ms = Timestamp::now().as_millisecond();
        })
        .await;
    }
}

/// Why a step did not succeed.
enum Ended {
    Deadline,
    Told(String),
}

/// The service account in whose name a step acts: the executor's where one is named, as in Argo, else the step's Pods'.
fn account(template: &Value, workflow: &Value) -> String {
    let places = ["/executor/serviceAccountName", "/serviceAccountName"];
    let named = places.iter().flat_map(|place| [template.pointer(place), workflow.pointer(place)]);
    let found = named.filter_map(|name| name?.as_str()).find(|name| !name.is_empty());
    found.unwrap_or("default").to_owned()
}

/// What is left until a step's own deadline, or its workflow's.
fn time_left(template: &Value, deadline_ms: i64) -> Option<Duration> {
    let own = match template.get("activeDeadlineSeconds") {
        Some(Value::String(text)) => text.trim().parse::<i64>().ok(),
        Some(value) => value.as_i64(),
        None => None,
    };
    let own = own.map(|seconds| seconds.saturating_mul(1_000));
    let outer = (deadline_ms > 0).then(|| deadline_ms.saturating_sub(Timestamp::now().as_millisecond()));
    let left = [own, outer].into_iter().flatten().min()?;
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_step_acts_as_its_own_account_before_its_workflows() {
        let workflow = json!({"serviceAccountName": "w", "executor": {"serviceAccountName": "e"}});
        assert_eq!(account(&json!({}), &json!({})), "default");
        assert_eq!(account(&json!({}), &json!({"serviceAccountName": "w"})), "w");
        assert_eq!(account(&json!({"serviceAccountName": "t"}), &json!({"serviceAccountName": "w"})), "t");
        assert_eq!(account(&json!({"serviceAccountName": "t"}), &workflow), "e");
    }
}
