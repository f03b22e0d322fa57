//! The containers that a user wrote, and how they run under the executor. Pure.

use crate::artifacts;
use crate::drivers::Kept;
use crate::fields::Part;
use crate::names;
use crate::pod::{Delivery, Error, Image, Settings};
use argosy_executor::protocol::{ENV_HOLDER, ENV_TASK, Neighbour, Task};
use argosy_proto::common::Assignment;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, PodSpec, VolumeMount,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// The directory that the containers share with Argo's name: executor, progress, the containers' ends.
pub const SHARED_FOLDER: &str = "/var/run/argo";
/// Where an image volume shows the executor.
pub const IMAGE_FOLDER: &str = "/argosy/bin";
/// Where a script lies: Argo's place.
pub const STAGING_FOLDER: &str = "/argo/staging";
/// Argo's name of the shared directory's volume.
pub const SHARED_VOLUME: &str = "var-run-argo";
/// Argo's name of the scripts' volume.
pub const STAGING_VOLUME: &str = "argo-staging";
/// The volume that is the executor's image.
pub const IMAGE_VOLUME: &str = "argosy-executor";
const PROGRESS_FILE: &str = "/var/run/argo/progress";
const TERMINATION_MESSAGE_FILE: &str = "/dev/termination-log";
/// Bytes of the template that a user's init container gets: the kernel takes 128 KiB per variable.
const TEMPLATE_BYTES_MAX: usize = 96 * 1024;
/// Containers of Argo's Pods that ours have not: patches of theirs mean nothing.
pub const ABSENT: [&str; 2] = ["wait", "supervisor"];

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Main,
    Sidecar,
    Init,
}

/// A container as its user wrote it.
#[derive(Clone, Debug)]
pub struct Written {
    pub container: Container,
    pub role: Role,
    /// Containers that must have ended well before it.
    pub dependencies: Vec<String>,
    mirrors: bool,
}

/// All containers of a template, in the order of Argo's Pods.
pub fn written(template: &Value) -> Result<Vec<Written>, Error> {
    let field = |name: &str| template.get(name).filter(|value| !value.is_null());
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all = Vec::new();
    if let Some(container) = field("container").or_else(|| field("script")) {
        // Argo names the container itself.
        let mut container = read("container", container, Role::Main)?;
        names::MAIN.clone_into(&mut container.container.name);
        all.push(container);
    } else if let Some(set) = field("containerSet") {
        let shared: Vec<VolumeMount> = Part { what: "containerSet", value: set }.list("volumeMounts")?;
        for container in list(set.get("containers")) {
            let mut container = read("container", &container, Role::Main)?;
            container.container.volume_mounts.get_or_insert_default().extend(shared.clone());
            all.push(container);
        }
    }
    if all.is_empty() {
        return Err(Error::NoContainer);
    }
    let mirrored: Vec<VolumeMount> =
        all.iter().flat_map(|main| main.container.volume_mounts.iter().flatten()).cloned().collect();
    for (name, role) in [("sidecars", Role::Sidecar), ("initContainers", Role::Init)] {
        for container in list(field(name)) {
            let mut container =
                read(if role == Role::Init { "init container" } else { "sidecar" }, &container, role)?;
            if container.mirrors {
                let mounts = container.container.volume_mounts.get_or_insert_default();
                for mount in &mirrored {
                    if mounts.iter().all(|known| known.mount_path != mount.mount_path) {
                        mounts.push(mount.clone());
                    }
                }
            }
            all.push(container);
        }
    }
    Ok(all)
}

fn read(what: &'static str, source: &Value, role: Role) -> Result<Written, Error> {
    let malformed = |reason: String| Error::Malformed { what, reason };
    let mut fields = source.as_object().cloned().ok_or_else(|| malformed("it is no object".to_owned()))?;
    fields.shift_remove("source");
    let mirrors = fields.shift_remove("mirrorVolumeMounts").is_some_and(|value| value == true);
    let dependencies = match fields.shift_remove("dependencies") {
        None | Some(Value::Null) => Vec::new(),
        Some(value) => {
            serde_json::from_value(value).map_err(|error| malformed(format!("dependencies: {error}")))?
        }
    };
    fields.entry("name").or_insert_with(|| "".into());
    let container =
        serde_json::from_value(Value::Object(fields)).map_err(|error| malformed(error.to_string()))?;
    Ok(Written { container, role, dependencies, mirrors })
}

/// How the containers of a Pod run.
pub struct Wrapping<'a> {
    pub assignment: &'a Assignment,
    pub template: &'a Value,
    pub settings: &'a Settings,
    pub written: &'a [Written],
    /// What drivers keep of its artifacts.
    pub kept: &'a Kept,
    /// The executor's variables for a task, all but its holder.
    pub environment: &'a dyn Fn(&Task) -> Vec<(String, String)>,
    /// Seconds that the user gave the Pod to end, where he did.
    pub grace_seconds: Option<i64>,
}

/// Where a container's command comes from.
enum Command {
    /// Executor, then these words.
    Wrapped { command: Vec<String>, args: Option<Vec<String>> },
    /// The image alone knows.
    Unknown,
}

impl Wrapping<'_> {
    /// Puts every container under the executor. One whose command only its image knows stays as it is: a sidecar becomes
    /// Kubernetes' own kind of sidecar, a main container must have nothing to capture. Says whether the Pod's start permit
    /// must be asked for before all of them.
    pub fn wrap(&self, spec: &mut PodSpec) -> Result<bool, Error> {
        let role = |name: &str| {
            self.written.iter().find(|one| one.container.name == name).map_or(Role::Sidecar, |one| one.role)
        };
        let mains_known = spec
            .containers
            .iter()
            .filter(|one| role(&one.name) == Role::Main)
            .all(|main| matches!(command(main, &self.settings.images), Command::Wrapped { .. }));
        if !mains_known {
            self.refuse_captures(spec)?;
        }
        let (mut wrapped, mut native) = (Vec::new(), Vec::new());
        for container in std::mem::take(&mut spec.containers) {
            let is_main = role(&container.name) == Role::Main;
            let is_known = matches!(command(&container, &self.settings.images), Command::Wrapped { .. });
            // Executors of sidecars wait for those of the main containers.
            if is_main || (is_known && mains_known) { &mut wrapped } else { &mut native }.push(container);
        }
        let neighbours: Vec<Neighbour> = wrapped
            .iter()
            .map(|one| Neighbour { name: one.name.clone(), sidecar: role(&one.name) != Role::Main })
            .collect();
        for container in &mut wrapped {
            if mains_known {
                self.under_executor(container, &neighbours)?;
            } else {
                self.add_environment(container, Vec::new(), false);
            }
            mount(container, SHARED_VOLUME, SHARED_FOLDER, false);
        }
        let inits = spec.init_containers.get_or_insert_default();
        let has_inits = !inits.is_empty();
        for container in inits.iter_mut() {
            self.add_environment(container, Vec::new(), true);
            mount(container, SHARED_VOLUME, SHARED_FOLDER, false);
        }
        let first_in_init = has_inits
            || !self.kept.is_empty()
            || !mains_known
            || !native.is_empty()
            || wrapped.iter().any(has_hooks);
        for mut container in native {
            container.restart_policy = Some("Always".to_owned());
            self.add_environment(&mut container, Vec::new(), false);
            mount(&mut container, SHARED_VOLUME, SHARED_FOLDER, false);
            inits.push(container);
        }
        spec.containers = wrapped;
        Ok(first_in_init)
    }

    /// Without the executor nothing is captured.
    fn refuse_captures(&self, spec: &PodSpec) -> Result<(), Error> {
        let has_outputs = self.template.pointer("/outputs/parameters").is_some_and(crate::fields::is_set)
            || self.template.pointer("/outputs/artifacts").is_some_and(crate::fields::is_set)
            || self.template.pointer("/inputs/artifacts").is_some_and(crate::fields::is_set);
        let is_set = self.template.get("containerSet").is_some_and(crate::fields::is_set);
        let is_script = self.template.get("script").is_some_and(crate::fields::is_set);
        if has_outputs || is_set || is_script || self.assignment.capture_result != Some(false) {
            let unknown = spec
                .containers
                .iter()
                .find(|one| matches!(command(one, &self.settings.images), Command::Unknown));
            let image = unknown.and_then(|one| one.image.clone()).unwrap_or_default();
            return Err(Error::NoCommand { image });
        }
        Ok(())
    }

    fn under_executor(&self, container: &mut Container, neighbours: &[Neighbour]) -> Result<(), Error> {
        let Command::Wrapped { command: words, args } = command(container, &self.settings.images) else {
            return Err(Error::NoCommand { image: container.image.clone().unwrap_or_default() });
        };
        let task = self.task(container, neighbours)?;
        let mut command =
            vec![format!("{}/argosy-executor", executor_folder(self.settings.delivery)), "--".to_owned()];
        command.extend(words);
        container.command = Some(command);
        container.args = args;
        if task.script.is_some() {
            mount(container, STAGING_VOLUME, STAGING_FOLDER, false);
        }
        if self.settings.delivery == Delivery::ImageVolume {
            mount(container, IMAGE_VOLUME, IMAGE_FOLDER, true);
        }
        // Ours come first: Kubernetes expands $(NAME) of variables that stand before, and a task is to name none.
        self.add_environment(container, executor_variables((self.environment)(&task)), false);
        Ok(())
    }

    /// What the executor of this container has to do besides running the command.
    fn task(&self, container: &Container, neighbours: &[Neighbour]) -> Result<Task, Error> {
        let written = self.written.iter().find(|one| one.container.name == container.name);
        let is_main = container.name == names::MAIN && written.is_some_and(|one| one.role == Role::Main);
        let mut task = if is_main {
            let mut task = Task::from_template(&self.assignment.template_json)
                .map_err(|error| Error::Malformed { what: "template", reason: error.to_string() })?;
            task.capture_result = self.assignment.capture_result.unwrap_or(true);
            artifacts::add_outputs(&mut task, self.template);
            self.kept.name_drivers(&mut task);
            task
        } else {
            let is_of_set = written.is_some_and(|one| one.role == Role::Main);
            let archive_logs = is_of_set && artifacts::archives_logs(self.template);
            let mut task = Task { capture_result: false, archive_logs, ..Task::default() };
            self.kept.name_drivers(&mut task);
            task
        };
        let file = container.termination_message_path.clone().filter(|path| !path.is_empty());
        task.termination_message_file = Some(file.unwrap_or_else(|| TERMINATION_MESSAGE_FILE.to_owned()));
        task.staging_directory = Some(STAGING_FOLDER.to_owned());
        task.stop_grace_ms = match self.grace_seconds {
            Some(seconds) => u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000),
            None => u64::try_from(self.assignment.stop_grace_ms).unwrap_or(0),
        };
        let assignment = self.assignment;
        task.exclusive_lease_ms = assignment.exclusive.then(|| assignment.exclusive_lease_ms.unsigned_abs());
        task.container.clone_from(&container.name);
        task.shared_directory = Some(SHARED_FOLDER.to_owned());
        if is_main {
            task.progress_file = Some(PROGRESS_FILE.to_owned());
        }
        if neighbours.len() > 1 || self.template.get("containerSet").is_some_and(crate::fields::is_set) {
            task.containers = neighbours.to_vec();
        }
        if let Some(written) = written.filter(|one| one.role == Role::Main) {
            task.dependencies.clone_from(&written.dependencies);
            (task.tries_max, task.retry_wait_ms) = self.tries()?;
        }
        Ok(task)
    }

    /// A container set's retry strategy: tries at most, and milliseconds between them.
    fn tries(&self) -> Result<(u64, u64), Error> {
        let Some(strategy) =
            self.template.pointer("/containerSet/retryStrategy").filter(|value| !value.is_null())
        else {
            return Ok((0, 0));
        };
        let malformed = |reason: String| Error::Malformed { what: "container set's retryStrategy", reason };
        let retries = match strategy.get("retries") {
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            None | Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
        };
        let retries = retries.ok_or_else(|| malformed("retries is no number".to_owned()))?;
        let wait = strategy.get("duration").and_then(Value::as_str).filter(|text| !text.is_empty());
        let wait_ns = wait.map_or(Ok(0), argosy_model::parse_duration).map_err(malformed)?;
        Ok((retries.saturating_add(1), u64::try_from(wait_ns / 1_000_000).unwrap_or(0)))
    }

    /// Argo's variables, after the user's own; before them those that are given.
    pub fn add_environment(&self, container: &mut Container, first: Vec<EnvVar>, is_init: bool) {
        let name = container.name.clone();
        let mut variables = first;
        variables.extend(container.env.take().unwrap_or_default());
        variables.extend(self.argo_variables(&name, is_init));
        container.env = Some(variables);
    }

    fn argo_variables(&self, container: &str, is_init: bool) -> Vec<EnvVar> {
        let Assignment { namespace, workflow, node_id, template_json, deadline_ms, .. } = self.assignment;
        let mut variables = vec![variable("ARGO_CONTAINER_NAME", container)];
        if is_init && template_json.len() <= TEMPLATE_BYTES_MAX {
            variables.push(variable("ARGO_TEMPLATE", template_json));
        }
        let captures = self.assignment.capture_result.unwrap_or(true);
        let state = format!("workflow={namespace}/{workflow}");
        for (name, value) in [
            ("ARGO_NODE_ID", node_id.as_str()),
            ("ARGO_INCLUDE_SCRIPT_OUTPUT", if captures { "true" } else { "false" }),
            ("ARGO_DEADLINE", &deadline(*deadline_ms)),
            ("ARGO_WORKFLOW_NAME", workflow),
            ("TRACESTATE", &state),
            ("ARGO_PROGRESS_FILE", PROGRESS_FILE),
            ("ARGO_PROGRESS_PATCH_TICK_DURATION", "1m0s"),
            ("ARGO_PROGRESS_FILE_TICK_DURATION", "3s"),
        ] {
            variables.push(variable(name, value));
        }
        if let Some(seconds) = self.grace_seconds {
            variables.push(variable("ARGO_TERMINATION_GRACE_PERIOD_SECONDS", &seconds.to_string()));
        }
        variables
    }

    /// Variables of the init container that has a task.
    pub fn init_variables(&self, task: &Task) -> Vec<EnvVar> {
        executor_variables((self.environment)(task))
    }

    /// Variables of the container that asks for the permit before all others.
    pub fn permit_variables(&self) -> Vec<EnvVar> {
        let mut variables = (self.environment)(&Task::default());
        variables.retain(|(name, _)| !name.starts_with(ENV_TASK));
        executor_variables(variables)
    }
}

/// Where the executor lies in a container.
pub fn executor_folder(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::InitContainer => SHARED_FOLDER,
        Delivery::ImageVolume => IMAGE_FOLDER,
    }
}

/// The container's command, else what the table of images knows: Argo puts arguments in place of the image's.
fn command(container: &Container, images: &BTreeMap<String, Image>) -> Command {
    if let Some(command) = container.command.clone().filter(|command| !command.is_empty()) {
        return Command::Wrapped { command, args: container.args.clone() };
    }
    let Some(image) = container.image.as_ref().and_then(|name| images.get(name)) else {
        return Command::Unknown;
    };
    let args = container.args.clone().filter(|args| !args.is_empty()).unwrap_or_else(|| image.cmd.clone());
    Command::Wrapped { command: image.entrypoint.clone(), args: (!args.is_empty()).then_some(args) }
}

/// Runs something beside its command, or is looked at before it runs.
fn has_hooks(container: &Container) -> bool {
    container.lifecycle.is_some()
        || container.liveness_probe.is_some()
        || container.readiness_probe.is_some()
        || container.startup_probe.is_some()
}

fn executor_variables(environment: Vec<(String, String)>) -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: None, field_path: path.to_owned() }),
            ..EnvVarSource::default()
        }),
    };
    let plain = environment.iter().map(|(name, value)| variable(name, value));
    plain.chain([field(ENV_HOLDER, "metadata.uid"), field("ARGOSY_POD_NAME", "metadata.name")]).collect()
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

/// Argo's text for a deadline; none is Go's zero time.
fn deadline(deadline_ms: i64) -> String {
    let time = (deadline_ms > 0).then(|| Timestamp::from_millisecond(deadline_ms).ok()).flatten();
    time.map_or_else(
        || "0001-01-01T00:00:00Z".to_owned(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

/// Mounts a volume, unless something is mounted there.
pub fn mount(container: &mut Container, volume: &str, path: &str, read_only: bool) {
    let mounts = container.volume_mounts.get_or_insert_default();
    if mounts.iter().any(|mount| mount.mount_path == path) {
        return;
    }
    mounts.push(VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    });
}
