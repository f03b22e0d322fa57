//! From an assignment to a Pod. Pure.

use crate::names;
use argosy_executor::protocol::{ENV_HOLDER, Task};
use argosy_model::display_fence;
use argosy_proto::common::Assignment;
use k8s_openapi::api::core::v1::{Affinity, HostAlias, LocalObjectReference, PodDNSConfig, Toleration};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector, Pod,
    PodSecurityContext, PodSpec, Probe, ResourceRequirements, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use std::collections::BTreeMap;

/// Where the executor lies in the main container.
const EXECUTOR_FOLDER: &str = "/argosy/bin";
/// Where a script lies: Argo's place.
const STAGING_FOLDER: &str = "/argo/staging";
const EXECUTOR_VOLUME: &str = "argosy-executor";
const STAGING_VOLUME: &str = "argosy-staging";
const TERMINATION_MESSAGE_FILE: &str = "/dev/termination-log";
/// What the executor needs after its own grace, to hand over the outcome before the kubelet kills it.
const HANDOVER_GRACE_SECONDS: i64 = 5;
/// Fields of a template that need what this runtime does not have yet, each with the reason.
const UNSUPPORTED: [(&str, &str); 9] = [
    ("containerSet", "several main containers"),
    ("resource", "a template that manages Kubernetes objects"),
    ("data", "a template that sources data"),
    ("http", "a template without a Pod"),
    ("plugin", "a template without a Pod"),
    ("daemon", "a step that goes on in the background"),
    ("sidecars", "containers that run without a start permit"),
    ("initContainers", "containers that run before the start permit"),
    ("podSpecPatch", "a patch of the finished Pod"),
];

/// What all Pods of a runtime have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cell that places attempts here.
    pub cell: String,
    /// The cluster's registered name.
    pub cluster: String,
    /// Image with the executor as `/argosy-executor`.
    pub executor_image: String,
}

/// Why an assignment cannot become a Pod. The message is the node's.
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
    /// Needs what this runtime does not have.
    #[error("template field {field} is not supported on Kubernetes clusters yet: {reason}")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// What it would need.
        reason: &'static str,
    },
    /// No container and no script.
    #[error("the template has neither container nor script")]
    NoContainer,
    /// Argo would ask the image's registry.
    #[error("container {image:?} has no command: set command, since image entrypoints are not looked up")]
    NoCommand {
        /// The image.
        image: String,
    },
    /// Argo's words.
    #[error("volume '{0}' not found in workflow spec")]
    UnknownVolume(String),
}

/// A template or workflow spec, of which typed parts are taken.
struct Part<'a> {
    what: &'static str,
    value: &'a Value,
}

impl Part<'_> {
    fn get<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.value.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
        let parsed = T::deserialize(value);
        parsed
            .map(Some)
            .map_err(|error| Error::Malformed { what: self.what, reason: format!("{field}: {error}") })
    }

    fn list<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<Vec<T>, Error> {
        Ok(self.get(field)?.unwrap_or_default())
    }
}

/// The template's value where it has one, else the workflow's, as Argo chooses for most fields.
struct Chosen<'a> {
    template: Part<'a>,
    workflow: Part<'a>,
}

impl Chosen<'_> {
    fn either<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<Option<T>, Error> {
        Ok(match self.template.get(field)? {
            Some(value) => Some(value),
            None => self.workflow.get(field)?,
        })
    }

    fn both<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<Vec<T>, Error> {
        let mut all = self.workflow.list(field)?;
        all.extend(self.template.list(field)?);
        Ok(all)
    }

    fn either_list<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<Vec<T>, Error> {
        let own = self.template.list(field)?;
        if own.is_empty() { self.workflow.list(field) } else { Ok(own) }
    }
}

fn parse(what: &'static str, json: &str) -> Result<Value, Error> {
    let json = if json.is_empty() { "{}" } else { json };
    serde_json::from_str(json).map_err(|error| Error::Malformed { what, reason: error.to_string() })
}

/// What the executor has to do besides running the command.
///
/// # Errors
/// When the template can't be understood.
pub fn task(assignment: &Assignment) -> Result<Task, Error> {
    let mut task = Task::from_template(&assignment.template_json)
        .map_err(|error| Error::Malformed { what: "template", reason: error.to_string() })?;
    task.stop_grace_ms = u64::try_from(assignment.stop_grace_ms).unwrap_or(0);
    task.termination_message_file = Some(TERMINATION_MESSAGE_FILE.to_owned());
    task.staging_directory = Some(STAGING_FOLDER.to_owned());
    Ok(task)
}

/// The Pod of an attempt. `environment` is the executor's, its [`task`] included; `now_ms` the wall clock, for deadlines.
///
/// # Errors
/// Why there can be none, in words for the node's message.
pub fn build(
    assignment: &Assignment,
    settings: &Settings,
    environment: &[(String, String)],
    now_ms: i64,
) -> Result<Pod, Error> {
    let template = parse("template", &assignment.template_json)?;
    let workflow = parse("workflow's Pod specification", &assignment.workflow_pod_json)?;
    for (field, reason) in UNSUPPORTED {
        let set = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(items) => !items.is_empty(),
            Value::String(text) => !text.is_empty(),
            Value::Bool(true) | Value::Number(_) | Value::Object(_) => true,
        };
        if [&template, &workflow].iter().any(|part| part.get(field).is_some_and(set)) {
            return Err(Error::Unsupported { field, reason });
        }
    }
    let chosen = Chosen {
        template: Part { what: "template", value: &template },
        workflow: Part { what: "workflow's Pod specification", value: &workflow },
    };
    let main = main_container(&template, variables(environment))?;
    let security: Option<PodSecurityContext> = chosen.either("securityContext")?;
    let spec = PodSpec {
        volumes: Some(volumes(&chosen, &main)?),
        init_containers: Some(vec![init_container(settings, security.as_ref())]),
        termination_grace_period_seconds: Some(grace_seconds(assignment.stop_grace_ms)),
        active_deadline_seconds: active_deadline(&template, assignment.deadline_ms, now_ms)?,
        security_context: security,
        containers: vec![main],
        ..scheduling(&chosen)?
    };
    Ok(Pod { metadata: metadata(assignment, settings, &chosen)?, spec: Some(spec), status: None })
}

/// Seconds between asking a Pod to end and killing it: the step's grace and the executor's hand-over.
#[must_use]
pub fn grace_seconds(stop_grace_ms: i64) -> i64 {
    stop_grace_ms.max(0) / 1000 + i64::from(stop_grace_ms.max(0) % 1000 > 0) + HANDOVER_GRACE_SECONDS
}

fn main_container(template: &Value, mut variables: Vec<EnvVar>) -> Result<Container, Error> {
    let source = match (template.get("container"), template.get("script")) {
        (Some(container), _) if !container.is_null() => container,
        (_, Some(script)) if !script.is_null() => script,
        _ => return Err(Error::NoContainer),
    };
    let mut fields = source.clone();
    if let Some(fields) = fields.as_object_mut() {
        fields.shift_remove("source");
        // Argo names the container itself.
        fields.insert("name".into(), names::MAIN.into());
    }
    let parsed: Result<Container, _> = serde_json::from_value(fields);
    let mut main =
        parsed.map_err(|error| Error::Malformed { what: "container", reason: error.to_string() })?;
    refuse_commands_outside_the_executor(&main)?;
    let user_command = main.command.take().filter(|command| !command.is_empty());
    let Some(user_command) = user_command else {
        return Err(Error::NoCommand { image: main.image.unwrap_or_default() });
    };
    let mut command = vec![format!("{EXECUTOR_FOLDER}/argosy-executor"), "--".to_owned()];
    command.extend(user_command);
    main.command = Some(command);
    // Ours come first: Kubernetes expands $(NAME) of variables that stand before, and a task is to name none.
    variables.extend(main.env.take().unwrap_or_default());
    main.env = Some(variables);
    let mounts = main.volume_mounts.get_or_insert_default();
    mounts.push(mount(EXECUTOR_VOLUME, EXECUTOR_FOLDER, true));
    if main_is_script(template) {
        mounts.push(mount(STAGING_VOLUME, STAGING_FOLDER, false));
    }
    Ok(main)
}

/// No user command starts without a permit, and these would start beside the executor.
fn refuse_commands_outside_the_executor(main: &Container) -> Result<(), Error> {
    let reason = "a command that runs without a start permit";
    let runs = |probe: &Option<Probe>| probe.as_ref().is_some_and(|probe| probe.exec.is_some());
    if main.lifecycle.is_some() {
        return Err(Error::Unsupported { field: "lifecycle", reason });
    }
    for (field, probe) in [
        ("livenessProbe", &main.liveness_probe),
        ("readinessProbe", &main.readiness_probe),
        ("startupProbe", &main.startup_probe),
    ] {
        if runs(probe) {
            return Err(Error::Unsupported { field, reason });
        }
    }
    Ok(())
}

fn main_is_script(template: &Value) -> bool {
    template.get("container").is_none_or(Value::is_null)
}

fn variables(environment: &[(String, String)]) -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: None, field_path: path.to_owned() }),
            ..EnvVarSource::default()
        }),
    };
    let plain = environment.iter().map(|(name, value)| EnvVar {
        name: name.clone(),
        value: Some(value.clone()),
        value_from: None,
    });
    plain.chain([field(ENV_HOLDER, "metadata.uid"), field("ARGOSY_POD_NAME", "metadata.name")]).collect()
}

fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn init_container(settings: &Settings, security: Option<&PodSecurityContext>) -> Container {
    // The image names no user: without a number, a Pod that must not run as root would be refused.
    let unnamed = security
        .is_some_and(|security| security.run_as_non_root == Some(true) && security.run_as_user.is_none());
    let amounts = |cpu: Option<&str>, memory: &str| {
        let named = [("cpu", cpu), ("memory", Some(memory))];
        named
            .into_iter()
            .filter_map(|(name, amount)| Some((name.to_owned(), Quantity(amount?.to_owned()))))
            .collect()
    };
    Container {
        name: names::INIT.to_owned(),
        image: Some(settings.executor_image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(["/argosy-executor", "install", EXECUTOR_FOLDER].map(str::to_owned).to_vec()),
        volume_mounts: Some(vec![mount(EXECUTOR_VOLUME, EXECUTOR_FOLDER, false)]),
        resources: Some(ResourceRequirements {
            requests: Some(amounts(Some("10m"), "16Mi")),
            limits: Some(amounts(None, "64Mi")),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            run_as_user: unnamed.then_some(65534),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// The volumes that the container mounts, and ours. Argo, too, leaves out what nobody mounts.
fn volumes(chosen: &Chosen<'_>, main: &Container) -> Result<Vec<Volume>, Error> {
    let known: Vec<Volume> = chosen.both("volumes")?;
    let empty = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let mut wanted: Vec<Volume> = Vec::new();
    let mounted = main.volume_mounts.iter().flatten().map(|mount| &mount.name);
    for name in mounted.chain(main.volume_devices.iter().flatten().map(|device| &device.name)) {
        if wanted.iter().any(|volume| volume.name == *name) {
            continue;
        }
        let is_ours = [EXECUTOR_VOLUME, STAGING_VOLUME].contains(&name.as_str());
        let volume = if is_ours {
            Some(empty(name))
        } else {
            known.iter().find(|volume| volume.name == *name).cloned()
        };
        wanted.push(volume.ok_or_else(|| Error::UnknownVolume(name.clone()))?);
    }
    Ok(wanted)
}

fn active_deadline(template: &Value, deadline_ms: i64, now_ms: i64) -> Result<Option<i64>, Error> {
    let own = match template.get("activeDeadlineSeconds") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.trim().parse::<i64>().map_err(|_| bad_deadline(text))?),
        Some(value) => Some(value.as_i64().ok_or_else(|| bad_deadline(&value.to_string()))?),
    };
    let outer = (deadline_ms > 0).then(|| deadline_ms.saturating_sub(now_ms).max(0) / 1000);
    // Kubernetes takes 1 and more.
    Ok([own, outer].into_iter().flatten().min().map(|seconds| seconds.max(1)))
}

fn bad_deadline(value: &str) -> Error {
    Error::Malformed {
        what: "template",
        reason: format!("activeDeadlineSeconds: {value:?} is not a whole number of seconds"),
    }
}

fn scheduling(chosen: &Chosen<'_>) -> Result<PodSpec, Error> {
    let service_account: Option<String> = chosen.either("serviceAccountName")?;
    let automount: Option<bool> = chosen.either("automountServiceAccountToken")?;
    let selector: BTreeMap<String, String> = match chosen.template.get::<BTreeMap<_, _>>("nodeSelector")? {
        Some(own) if !own.is_empty() => own,
        _ => chosen.workflow.get("nodeSelector")?.unwrap_or_default(),
    };
    let selector: BTreeMap<_, _> =
        selector.into_iter().filter(|(key, _)| !key.starts_with(names::CLUSTER_SELECTOR_PREFIX)).collect();
    let priority_class = match chosen.template.get("priorityClassName")? {
        Some(own) => Some(own),
        None => chosen.workflow.get("podPriorityClassName")?,
    };
    let tolerations: Vec<Toleration> = chosen.either_list("tolerations")?;
    let host_aliases: Vec<HostAlias> = chosen.both("hostAliases")?;
    let pull_secrets: Vec<LocalObjectReference> = chosen.workflow.list("imagePullSecrets")?;
    Ok(PodSpec {
        restart_policy: Some("Never".to_owned()),
        // A step gets the credentials of an account only when somebody named the account.
        automount_service_account_token: automount.or(service_account.is_none().then_some(false)),
        service_account_name: service_account,
        node_selector: (!selector.is_empty()).then_some(selector),
        affinity: chosen.either::<Affinity>("affinity")?,
        tolerations: (!tolerations.is_empty()).then_some(tolerations),
        scheduler_name: chosen.either("schedulerName")?,
        priority_class_name: priority_class,
        host_aliases: (!host_aliases.is_empty()).then_some(host_aliases),
        image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
        host_network: chosen.workflow.get("hostNetwork")?,
        dns_policy: chosen.workflow.get("dnsPolicy")?,
        dns_config: chosen.workflow.get::<PodDNSConfig>("dnsConfig")?,
        ..PodSpec::default()
    })
}

fn metadata(assignment: &Assignment, settings: &Settings, chosen: &Chosen<'_>) -> Result<ObjectMeta, Error> {
    let fence = assignment.fence.unwrap_or_default();
    let mut labels = BTreeMap::new();
    let mut annotations = BTreeMap::new();
    for (part, field) in [(&chosen.workflow, "podMetadata"), (&chosen.template, "metadata")] {
        let Some(extra) = part.get::<Value>(field)? else { continue };
        let extra = Part { what: part.what, value: &extra };
        labels.extend(extra.get::<BTreeMap<String, String>>("labels")?.unwrap_or_default());
        annotations.extend(extra.get::<BTreeMap<String, String>>("annotations")?.unwrap_or_default());
    }
    // Ours last: a user's metadata must not hide a Pod from its agent.
    let own_labels = [
        (names::WORKFLOW, names::label_value(&assignment.workflow)),
        (names::COMPLETED, "false".to_owned()),
        (names::CELL, names::label_value(&settings.cell)),
        (names::CLUSTER, names::label_value(&settings.cluster)),
        (names::FENCE, display_fence(&fence)),
    ];
    labels.extend(own_labels.map(|(name, value)| (name.to_owned(), value)));
    if assignment.on_exit {
        labels.insert(names::ON_EXIT.to_owned(), "true".to_owned());
    }
    let own_annotations = [
        (names::NODE_NAME, assignment.node_name.clone()),
        (names::NODE_ID, assignment.node_id.clone()),
        (names::ARGO_POD_NAME, assignment.pod_name.clone()),
        ("kubectl.kubernetes.io/default-container", names::MAIN.to_owned()),
    ];
    annotations.extend(own_annotations.map(|(name, value)| (name.to_owned(), value)));
    annotations.remove(names::PERMIT);
    Ok(ObjectMeta {
        name: Some(names::pod_name(&assignment.pod_name, &settings.cell, &fence)),
        namespace: Some(assignment.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations),
        finalizers: Some(vec![names::FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    })
}
