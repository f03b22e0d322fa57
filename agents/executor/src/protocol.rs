//! What agent and executor say to each other, and what the agent's runtimes give an executor at its start.
//!
//! `POST /v1/permit` with a [`PermitRequest`] is answered 200 (granted), 403 (refused for good), 503 (ask again) or 401.
//! `POST /v1/renew` with a [`RenewRequest`] (exclusive steps) is answered 200 (renewed: the lease counts from the sending),
//! 403 (end now), 503 (ask again) or 401.
//! `POST /v1/outcome` with an [`OutcomeRequest`] is answered 200 (recorded), 409 (not this attempt's: give up), 503
//! or 401. `POST /v1/progress` with a [`ProgressRequest`] is answered 200 or 401 and is not repeated. All carry
//! `Authorization: Bearer TOKEN`. All other answers mean: try again.
//!
//! A granted permit answers with a [`PermitAnswer`]: where the step's result may be left in an object store when the agent can't be
//! reached at its end. An executor that left it there says so by a [`ResultReference`] in its termination message.
//!
//! The containers of one Pod ask for the same permit, each by itself: they are one holder. One outcome is handed over for all
//! of them, by the last main container that ends (see [`Task::containers`]).

use crate::artifacts::{Driver, InputFile, OutputFile, SavedArtifact, Signed};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The agent's address, `IP:PORT`.
pub const ENV_AGENT: &str = "ARGOSY_AGENT";
/// The bearer token of the attempt.
pub const ENV_TOKEN: &str = "ARGOSY_TOKEN";
/// SHA-256 of the agent's certificate in DER, in lower-case hex.
pub const ENV_AGENT_CERTIFICATE: &str = "ARGOSY_AGENT_CERTIFICATE_SHA256";
/// The fence, as the step may pass it on: `incarnation.index.ordinal`.
pub const ENV_FENCE: &str = "ARGOSY_FENCE";
/// Who asks: the Pod's uid (downward API), or what the process runtime drew.
pub const ENV_HOLDER: &str = "ARGOSY_HOLDER";
/// The [`Task`] in JSON; what does not fit in one variable goes on in `ARGOSY_TEMPLATE_1`, `_2` and so on.
pub const ENV_TASK: &str = "ARGOSY_TEMPLATE";

/// Bytes of a task in one environment variable: the kernel takes 128 KiB per variable.
pub const TASK_CHUNK_BYTES_MAX: usize = 96 * 1024;
/// Bytes of `outputs.result` that are kept.
pub const RESULT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one output parameter.
pub const PARAMETER_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a request's body, and of a result that is left in an object store.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of a termination message: the kubelet takes 4 KiB.
pub const TERMINATION_MESSAGE_BYTES_MAX: usize = 4096;
/// Exit code of an executor that was refused its permit: nothing was run. Means that only without a binding to it.
pub const EXIT_REFUSED: i32 = 75;
/// Exit code of failures of the executor itself, and of commands that cannot be started. Argo's.
pub const EXIT_EXECUTOR_ERROR: i32 = 64;

/// Asks for the start permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitRequest {
    /// The fence, displayed.
    pub fence: String,
    /// Who asks.
    pub holder: String,
    /// The sealed [`crate::artifacts::Ticket`], for a place to leave the result in; empty: the task has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ticket: String,
}

/// What comes with a granted permit. An agent that says nothing has nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitAnswer {
    /// Where the result may be left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_object: Option<ResultObject>,
}

/// Where an executor may leave its result when it can't reach its agent: an object of this attempt alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultObject {
    /// The object's key.
    pub key: String,
    /// Stores it. Its URL is a credential.
    pub request: Signed,
    /// After these milliseconds another request is asked for: by then this one has lived half its life.
    pub renew_after_ms: u64,
    /// So many milliseconds an outcome is offered to an agent that can't be reached, before it is left there.
    pub outage_ms: u64,
}

/// Left in the termination message in place of an outcome that does not fit there: where it is. Never holds a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultReference {
    /// [`RESULT_REFERENCE_VERSION`], or that of a newer executor.
    pub result_object: u32,
    /// The object's key: it holds an [`OutcomeRequest`] in JSON.
    pub key: String,
    /// SHA-256 of the object in lower-case hex.
    pub sha256: String,
    /// Bytes of the object.
    pub bytes: u64,
}

/// Version of the references that this executor leaves.
pub const RESULT_REFERENCE_VERSION: u32 = 1;

/// Renews the lease of an exclusive step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// The fence, displayed.
    pub fence: String,
    /// Who asks.
    pub holder: String,
}

/// Hands over how the task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRequest {
    /// The fence, displayed.
    pub fence: String,
    /// Who sends.
    pub holder: String,
    /// How it ended.
    pub outcome: TaskOutcome,
}

/// Tells how far the task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressRequest {
    /// The fence, displayed.
    pub fence: String,
    /// Who tells.
    pub holder: String,
    /// Argo's `N/M`.
    pub progress: String,
}

/// Argo's `N/M`: M is positive, N no more than M.
#[must_use]
pub fn is_progress(text: &str) -> bool {
    let number =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u64>().ok());
    let Some((done, all)) = text.split_once('/') else { return false };
    match (number(done).flatten(), number(all).flatten()) {
        (Some(done), Some(all)) => all > 0 && done <= all,
        (None | Some(_), None | Some(_)) => false,
    }
}

/// How one container of several ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerOutcome {
    /// Its name.
    pub name: String,
    /// Ended with the main containers; how, hardly matters.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sidecar: bool,
    /// Its exit code.
    pub exit_code: i32,
    /// As [`TaskOutcome::reason`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// As [`TaskOutcome::message`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Wall clock, milliseconds since 1970.
    #[serde(default)]
    pub started_at_ms: i64,
    /// Wall clock, milliseconds since 1970.
    #[serde(default)]
    pub finished_at_ms: i64,
}

impl ContainerOutcome {
    /// What a container's own outcome says of it.
    #[must_use]
    pub fn new(name: &str, sidecar: bool, outcome: &TaskOutcome) -> Self {
        Self {
            name: name.to_owned(),
            sidecar,
            exit_code: outcome.exit_code,
            reason: outcome.reason.clone(),
            message: outcome.message.clone(),
            started_at_ms: outcome.started_at_ms,
            finished_at_ms: outcome.finished_at_ms,
        }
    }
}

/// What was captured when the user's command ended. Also the content of the termination message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOutcome {
    /// Exit code of the main container; 64 when the command could not be started.
    pub exit_code: i32,
    /// What went wrong in starting the command, else what it left as its termination message. Follows `main: Error (exit code
    /// N)` in the node's message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Kubernetes' word for a failure other than `Error` (`OOMKilled`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What went wrong in reading outputs; empty otherwise. Makes the attempt an error although the command may have
    /// succeeded. Argo's text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output_error: String,
    /// Standard output, where the task asks for it; one trailing newline removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Output parameters that were found or have a default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<ParameterValue>,
    /// Why the inputs could not be loaded; empty otherwise. The command was not started then. Argo's text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub input_error: String,
    /// Inputs that their stores do not have, if that is why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_inputs: Vec<String>,
    /// Inputs whose store did not answer, if that is why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached_inputs: Vec<String>,
    /// Artifacts that were saved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<SavedArtifact>,
    /// Wall clock, milliseconds since 1970.
    pub started_at_ms: i64,
    /// Wall clock, milliseconds since 1970.
    pub finished_at_ms: i64,
    /// The last progress that the command told, Argo's `N/M`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// A signal ended the command, as a kubelet sends it. Unless the control plane had asked for that, why it did is known from
    /// the Pod alone (evicted, past its deadline, deleted): its end counts then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told_to_stop: bool,
    /// All containers under an executor, where there are several; their exit codes count then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerOutcome>,
    /// The exclusive lease ran out, or was taken away: the command was ended because of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lease_lost: bool,
    /// Of a step without a command: counts instead of the exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// Kubernetes' word for a step that was active for too long.
pub const REASON_DEADLINE: &str = "DeadlineExceeded";

/// One output parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterValue {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A container of the same Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its name.
    pub name: String,
    /// It is to end once all that are no sidecars have ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sidecar: bool,
}

/// What an executor has to do besides running the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// A script's source: written to a file whose path becomes the command's last argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Keep standard output as `outputs.result`.
    pub capture_result: bool,
    /// Output parameters to read after the command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<ParameterSource>,
    /// Milliseconds between passing on a stop signal and killing what is left.
    pub stop_grace_ms: u64,
    /// Of an exclusive step: milliseconds after the last acknowledged renewal at which nothing of the command runs any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive_lease_ms: Option<u64>,
    /// Milliseconds after which the command is stopped, where no kubelet does it; 0 for no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub active_deadline_ms: u64,
    /// A directory that the executor can write to, for the script; unset = where the executor itself lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging_directory: Option<String>,
    /// Where the outcome is left besides handing it to the agent (process runtime); written whole or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome_file: Option<String>,
    /// Where the outcome is left for the kubelet, if it is at most 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_message_file: Option<String>,
    /// Where the command tells its progress: lines of Argo's `N/M`, the last one counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_file: Option<String>,
    /// This container's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// All containers of the Pod that an executor runs, this one included; empty: it is alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Neighbour>,
    /// A directory that they share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_directory: Option<String>,
    /// Containers that must have ended well before this one's command starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<String>,
    /// How often a command that fails is run at most; 0 is 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries_max: u64,
    /// Milliseconds between two tries.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_wait_ms: u64,
    /// What the executor does itself, instead of running a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// Artifacts to load before the command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input_files: Vec<InputFile>,
    /// Artifacts to save after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_files: Vec<OutputFile>,
    /// Save its log as an artifact, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archive_logs: bool,
    /// The driver that keeps the log; empty: no driver does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_driver: String,
    /// What this container does with a driver: it loads inputs before, or saves outputs after the main container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// The sealed [`crate::artifacts::Ticket`]; empty: the task has nothing to do with stores.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ticket: String,
    /// Parts of one large output that are sent side by side; 0: [`crate::artifacts::PARTS_AT_ONCE`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parts_at_once: u64,
}

/// A step without a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// An Argo `http` template. A header from a Secret is in the variable [`header_variable`].
    Http(Value),
    /// An Argo `plugin` template.
    Plugin(Plugins),
    /// An Argo `data` template: the expressions of its transformation; an empty one changes nothing.
    Data(Vec<String>),
}

/// A step that executor plugins carry out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugins {
    /// The plugins, in the order in which they are asked.
    pub sidecars: Vec<PluginSidecar>,
    /// Name, namespace and uid of the workflow.
    pub workflow: Value,
    /// The whole template.
    pub template: Value,
    /// Where each plugin's token is: `NAME/token`.
    pub tokens_directory: String,
}

/// An executor plugin beside the executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginSidecar {
    /// Its container's name.
    pub name: String,
    /// Where it listens.
    pub port: u16,
}

/// The field of a template that holds a [`Plugins`], put there by the agent.
pub const PLUGINS_FIELD: &str = "argosyPlugins";

/// The environment variable with the value of an `http` template's header, by its place in the list.
#[must_use]
pub fn header_variable(number: usize) -> String {
    format!("ARGOSY_HTTP_HEADER_{number}")
}

/// What a step without a command came to, as its node shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// It failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Its phase is `Error` then, instead of `Failed`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub error: bool,
    /// The node's message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Default for Task {
    fn default() -> Self {
        Self {
            script: None,
            capture_result: true,
            parameters: Vec::new(),
            stop_grace_ms: 30_000,
            active_deadline_ms: 0,
            exclusive_lease_ms: None,
            staging_directory: None,
            outcome_file: None,
            termination_message_file: None,
            progress_file: None,
            container: String::new(),
            containers: Vec::new(),
            shared_directory: None,
            dependencies: Vec::new(),
            tries_max: 0,
            retry_wait_ms: 0,
            work: None,
            input_files: Vec::new(),
            output_files: Vec::new(),
            archive_logs: false,
            log_driver: String::new(),
            driver: None,
            ticket: String::new(),
            parts_at_once: 0,
        }
    }
}

/// Where an output parameter comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterSource {
    /// Its name.
    pub name: String,
    /// The file, in the container.
    pub path: String,
    /// The value when there is no such file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// A template or task that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not JSON of the shape.
    #[error("the {what} is not valid: {reason}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// Why it was refused.
        reason: String,
    },
}

fn malformed(what: &'static str, reason: impl ToString) -> Error {
    Error::Malformed { what, reason: reason.to_string() }
}

impl Task {
    /// The task of an Argo template (resolved, as JSON): script source and output parameters with a path.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is no template.
    pub fn from_template(template_json: &str) -> Result<Self, Error> {
        let template: Value =
            serde_json::from_str(template_json).map_err(|error| malformed("template", error))?;
        let mut task = Self {
            script: template.pointer("/script/source").and_then(Value::as_str).map(str::to_owned),
            ..Self::default()
        };
        let object = |field: &str| template.get(field).filter(|value| value.is_object());
        task.work = if let Some(http) = object("http") {
            Some(Work::Http(http.clone()))
        } else if let Some(plugins) = template.get(PLUGINS_FIELD) {
            let plugins = Plugins::deserialize(plugins).map_err(|error| malformed("template", error))?;
            Some(Work::Plugin(plugins))
        } else {
            object("data").map(|data| Work::Data(expressions(data)))
        };
        let parameters = template.pointer("/outputs/parameters").and_then(Value::as_array);
        for parameter in parameters.into_iter().flatten() {
            let Some(path) = parameter.pointer("/valueFrom/path").and_then(Value::as_str) else { continue };
            let name = parameter.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| malformed("template", "an output parameter has no name"))?;
            task.parameters.push(ParameterSource {
                name: name.to_owned(),
                path: path.to_owned(),
                default: parameter.pointer("/valueFrom/default").map(plain_text),
            });
        }
        Ok(task)
    }

    /// It has something to load from a store, or to save.
    #[must_use]
    pub fn touches_stores(&self) -> bool {
        self.archive_logs
            || !self.output_files.is_empty()
            || matches!(self.work, Some(Work::Data(_)))
            || self.driver.is_some()
            || self.input_files.iter().any(|input| input.raw.is_none())
    }

    /// The environment variables that carry the task.
    #[must_use]
    pub fn to_environment(&self) -> Vec<(String, String)> {
        let json = serde_json::to_string(self).expect("strings, numbers and lists always serialise");
        let mut variables = Vec::new();
        let mut rest = json.as_str();
        while !rest.is_empty() {
            let mut end = rest.len().min(TASK_CHUNK_BYTES_MAX);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (chunk, tail) = rest.split_at(end);
            variables.push((task_variable(variables.len()), chunk.to_owned()));
            rest = tail;
        }
        variables
    }

    /// Reads what [`Self::to_environment`] made.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the variables are missing or not a task.
    pub fn from_environment(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut json = String::new();
        for number in 0.. {
            let Some(chunk) = lookup(&task_variable(number)) else { break };
            json.push_str(&chunk);
        }
        serde_json::from_str(&json).map_err(|error| malformed("task in ARGOSY_TEMPLATE", error))
    }
}

/// The expressions of a `data` template's transformation, at their places.
fn expressions(data: &Value) -> Vec<String> {
    let steps = data.get("transformation").and_then(Value::as_array).into_iter().flatten();
    steps.map(|step| step.get("expression").and_then(Value::as_str).unwrap_or_default().to_owned()).collect()
}

fn task_variable(number: usize) -> String {
    if number == 0 { ENV_TASK.to_owned() } else { format!("{ENV_TASK}_{number}") }
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_gives_its_script_and_outputs() {
        let task = Task::from_template(
            r#"{"name":"t","script":{"image":"x","command":["sh"],"source":"echo hi"},
                "outputs":{"parameters":[{"name":"a","valueFrom":{"path":"/tmp/a","default":3}},
                                         {"name":"b","valueFrom":{"path":"/tmp/b"}},
                                         {"name":"c","valueFrom":{"expression":"1"}}]}}"#,
        )
        .unwrap();
        assert_eq!(task.script.as_deref(), Some("echo hi"));
        let source = |name: &str, path: &str, default: Option<&str>| ParameterSource {
            name: name.to_owned(),
            path: path.to_owned(),
            default: default.map(str::to_owned),
        };
        assert_eq!(task.parameters, [source("a", "/tmp/a", Some("3")), source("b", "/tmp/b", None)]);
        assert!(Task::from_template("[").unwrap_err().to_string().starts_with("the template is not valid: "));
    }

    #[test]
    fn progress_is_two_numbers() {
        assert!(["0/1", "3/10", "100/100"].into_iter().all(is_progress));
        assert!(
            ["", "1", "2/1", "0/0", "-1/2", "+1/2", "1/2/3", "a/b", "1/ 2"]
                .into_iter()
                .all(|bad| !is_progress(bad))
        );
    }

    #[test]
    fn a_large_task_travels_in_several_variables() {
        let task = Task { script: Some("é".repeat(TASK_CHUNK_BYTES_MAX)), ..Task::default() };
        let variables = task.to_environment();
        assert_eq!(variables.len(), 3);
        assert!(variables.iter().all(|(_, value)| value.len() <= TASK_CHUNK_BYTES_MAX));
        let lookup =
            |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        assert_eq!(Task::from_environment(lookup).unwrap(), task);
        assert!(Task::from_environment(|_| None).is_err());
    }
}
