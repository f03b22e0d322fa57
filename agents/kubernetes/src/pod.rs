//! From an assignment to a Pod. Pure.
//!
//! The Pod is Argo's as far as a user's containers can see: names, variables, mounts, order. It is put together as
//! written, then the patches of workflow and template are merged in, then every container is put under the executor (see
//! [`crate::containers`]).

use crate::artifacts;
use crate::containers::{
    ABSENT, IMAGE_VOLUME, Role, SHARED_FOLDER, SHARED_VOLUME, STAGING_VOLUME, Wrapping, Written,
    executor_folder, mount, written,
};
use crate::drivers::{self, ArtifactDriver, Kept};
use crate::fields::{Chosen, Part, parse};
use crate::gc::{PodGc, Removal};
use crate::{names, patch};
use argosy_executor::artifacts::InputFile;
use argosy_executor::protocol::Task;
use argosy_model::display_fence;
use argosy_proto::common::Assignment;
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, EmptyDirVolumeSource, HostAlias, ImageVolumeSource,
    LocalObjectReference, PersistentVolumeClaimVolumeSource, Pod, PodDNSConfig, PodResourceClaim,
    PodSecurityContext, PodSpec, ResourceRequirements, SecurityContext, Toleration, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What the executor needs after its own grace, to hand over the outcome before the kubelet kills it.
const HANDOVER_GRACE_SECONDS: i64 = 5;
/// The workflow's patch, the tags of this step resolved.
const PATCH_FIELD: &str = "podSpecPatch";

/// What all Pods of a runtime have in common.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The cell that places attempts here.
    pub cell: String,
    /// The cluster's registered name.
    pub cluster: String,
    /// Image with the executor as `/argosy-executor`.
    pub executor_image: String,
    /// How the executor comes into Pods.
    pub delivery: Delivery,
    /// What is known of images whose containers say no command, by the image's name as written; Argo's table `images`.
    pub images: BTreeMap<String, Image>,
    /// Argo's `artifactDrivers`.
    pub artifact_drivers: Vec<ArtifactDriver>,
}

/// How the executor comes into a Pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// An init container copies it.
    #[default]
    InitContainer,
    /// Its image is mounted as a volume.
    ImageVolume,
}

/// What an image runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Image {
    /// Its entrypoint.
    pub entrypoint: Vec<String>,
    /// Its arguments, where the container gives none.
    pub cmd: Vec<String>,
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
    /// No container, no script, no container set.
    #[error("the template has neither container nor script")]
    NoContainer,
    /// Argo would ask the image's registry.
    #[error(
        "container {image:?} has no command, and its outputs cannot be captured without one: set command, or name the image in \
         the agent's table of images, since image entrypoints are not looked up"
    )]
    NoCommand {
        /// The image.
        image: String,
    },
    /// Argo's words.
    #[error("volume '{0}' not found in workflow spec")]
    UnknownVolume(String),
    /// Argo's words. Another cluster may have it.
    #[error("ARG1270: artifact driver {0} not found: the agent's artifactDrivers do not name it")]
    NoDriver(String),
    /// Argo's words.
    #[error("Error applying PodSpecPatch")]
    Patch,
}

/// The Pod of an attempt. `environment` gives the executor's variables for a task, all but its holder; `now_ms` is the wall
/// clock, for deadlines.
///
/// # Errors
/// Why there can be none, in words for the node's message.
pub fn build(
    assignment: &Assignment,
    settings: &Settings,
    environment: &dyn Fn(&Task) -> Vec<(String, String)>,
    now_ms: i64,
) -> Result<Pod, Error> {
    let template = parse("template", &assignment.template_json)?;
    let workflow = parse("workflow's Pod specification", &assignment.workflow_pod_json)?;
    let chosen = Chosen {
        template: Part { what: "template", value: &template },
        workflow: Part { what: "workflow's Pod specification", value: &workflow },
    };
    let written = written(&template)?;
    let of = |wanted: &[Role]| -> Vec<Container> {
        written.iter().filter(|one| wanted.contains(&one.role)).map(|one| one.container.clone()).collect()
    };
    let spec = PodSpec {
        volumes: Some(volumes(&chosen, assignment, &written)?),
        init_containers: Some(of(&[Role::Init])),
        containers: of(&[Role::Main, Role::Sidecar]),
        active_deadline_seconds: active_deadline(&template, assignment.deadline_ms, now_ms)?,
        security_context: chosen.either("securityContext")?,
        ..scheduling(&chosen)?
    };
    let mut spec = patched(spec, [&workflow, &template])?;
    let kept = Kept::of(&template);
    let wrapping = Wrapping {
        assignment,
        template: &template,
        settings,
        written: &written,
        kept: &kept,
        environment,
        grace_seconds: spec.termination_grace_period_seconds,
    };
    let awaits_permit = wrapping.wrap(&mut spec)?;
    spec.termination_grace_period_seconds = Some(match spec.termination_grace_period_seconds {
        Some(seconds) => seconds.saturating_add(HANDOVER_GRACE_SECONDS),
        None => grace_seconds(assignment.stop_grace_ms),
    });
    add_own(&mut spec, &wrapping, awaits_permit)?;
    let is_main = |name: &str| written.iter().any(|one| one.role == Role::Main && one.container.name == name);
    let names = spec.containers.iter().map(|one| one.name.as_str());
    let sidecars: Vec<&str> = names.filter(|name| !is_main(name)).collect();
    let metadata = metadata(assignment, settings, &chosen, &spec, &sidecars)?;
    Ok(Pod { metadata, spec: Some(spec), status: None })
}

/// Seconds between asking a Pod to end and killing it: the step's grace and the executor's hand-over.
#[must_use]
pub fn grace_seconds(stop_grace_ms: i64) -> i64 {
    stop_grace_ms.max(0) / 1000 + i64::from(stop_grace_ms.max(0) % 1000 > 0) + HANDOVER_GRACE_SECONDS
}

/// The specification with the workflow's patch, then the template's.
fn patched(spec: PodSpec, sources: [&Value; 2]) -> Result<PodSpec, Error> {
    let texts: Vec<&str> = sources
        .into_iter()
        .filter_map(|source| source.get(PATCH_FIELD)?.as_str())
        .filter(|text| !text.trim().is_empty())
        .collect();
    if texts.is_empty() {
        return Ok(spec);
    }
    let Ok(Value::Object(mut fields)) = serde_json::to_value(spec) else { return Err(Error::Patch) };
    for text in texts {
        let mut patch = patch::read(text).ok_or(Error::Patch)?;
        for list in ["containers", "initContainers"] {
            if let Some(Value::Array(containers)) = patch.get_mut(list) {
                let is_absent = |one: &Value| {
                    one.get("name").and_then(Value::as_str).is_some_and(|name| ABSENT.contains(&name))
                };
                containers.retain(|one| !is_absent(one));
            }
        }
        fields = patch::merge(fields, patch).ok_or(Error::Patch)?;
    }
    serde_json::from_value(Value::Object(fields)).map_err(|_| Error::Patch)
}

/// The executor's image as a volume.
pub(crate) fn image_volume(settings: &Settings) -> Volume {
    let image = ImageVolumeSource {
        reference: Some(settings.executor_image.clone()),
        pull_policy: Some("IfNotPresent".to_owned()),
    };
    Volume { name: IMAGE_VOLUME.to_owned(), image: Some(image), ..Volume::default() }
}

/// The volumes and the container that bring the executor.
fn add_own(spec: &mut PodSpec, wrapping: &Wrapping<'_>, awaits_permit: bool) -> Result<(), Error> {
    let settings = wrapping.settings;
    let by_image = settings.delivery == Delivery::ImageVolume;
    let empty = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let is_mounted = |spec: &PodSpec, name: &str| {
        let mut mounts = spec.containers.iter().flat_map(|one| one.volume_mounts.iter().flatten());
        mounts.any(|mount| mount.name == name)
    };
    let mut loader = Container::default();
    let mut loads = artifacts::add_inputs(spec, &mut loader, wrapping.template);
    let room = loader.volume_mounts.take().unwrap_or_default();
    let of_drivers: Vec<InputFile> = loads
        .iter_mut()
        .flat_map(|task| task.input_files.extract_if(.., |input| wrapping.kept.loads(&input.name)))
        .collect();
    let loads = loads.filter(|task| !task.input_files.is_empty());
    let (with_drivers, volumes) = wrapping.kept.containers(wrapping, &of_drivers, &room)?;
    let mut own = vec![empty(SHARED_VOLUME)];
    own.extend(volumes);
    if is_mounted(spec, STAGING_VOLUME) {
        own.push(empty(STAGING_VOLUME));
    }
    if drivers::mounts_image(spec, &with_drivers) {
        own.push(image_volume(settings));
    }
    own.extend(spec.volumes.take().unwrap_or_default());
    spec.volumes = Some(own);
    let mut arguments = Vec::new();
    if awaits_permit {
        arguments.push("await-permit");
    }
    if !by_image {
        arguments.extend(["install", executor_folder(settings.delivery)]);
    }
    if loads.is_some() {
        arguments.push("load");
    }
    let inits = spec.init_containers.get_or_insert_default();
    if !arguments.is_empty() {
        let mut init = init_container(settings, spec.security_context.as_ref(), &arguments);
        if awaits_permit {
            init.env = Some(wrapping.permit_variables());
        }
        mount(&mut init, SHARED_VOLUME, SHARED_FOLDER, false);
        if let Some(task) = &loads {
            init.env = Some(wrapping.init_variables(task));
            init.volume_mounts.get_or_insert_default().extend(room);
        }
        match inits.iter_mut().find(|one| one.name == names::INIT) {
            // A patch said something about it.
            Some(patched) => {
                init.resources = patched.resources.take().or(init.resources);
                init.security_context = patched.security_context.take().or(init.security_context);
                inits.retain(|one| one.name != names::INIT);
                inits.insert(0, init);
            }
            None => inits.insert(0, init),
        }
    }
    inits.retain(|one| one.name != names::INIT || one.image.is_some());
    let after_own = inits.iter().take_while(|one| one.name == names::INIT).count();
    inits.splice(after_own..after_own, with_drivers);
    if inits.is_empty() {
        spec.init_containers = None;
    }
    Ok(())
}

pub(crate) fn init_container(
    settings: &Settings,
    security: Option<&PodSecurityContext>,
    arguments: &[&str],
) -> Container {
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
    let words = std::iter::once("/argosy-executor").chain(arguments.iter().copied());
    Container {
        name: names::INIT.to_owned(),
        image: Some(settings.executor_image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(words.map(str::to_owned).collect()),
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

/// The name of the claim that a workflow's template makes: Argo's.
#[must_use]
pub fn claim_name(workflow: &str, template: &str) -> String {
    format!("{workflow}-{template}")
}

/// The volumes that some container mounts. Argo, too, leaves out what nobody mounts.
fn volumes(chosen: &Chosen<'_>, assignment: &Assignment, written: &[Written]) -> Result<Vec<Volume>, Error> {
    let known: Vec<Volume> = chosen.both("volumes")?;
    let claims: Vec<Value> = chosen.workflow.list("volumeClaimTemplates")?;
    let claim = |name: &str| {
        let is_named = |claim: &&Value| claim.pointer("/metadata/name").and_then(Value::as_str) == Some(name);
        claims.iter().find(is_named).map(|_| Volume {
            name: name.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(&assignment.workflow, name),
                read_only: None,
            }),
            ..Volume::default()
        })
    };
    let mut wanted: Vec<Volume> = Vec::new();
    for container in written.iter().map(|one| &one.container) {
        let mounted = container.volume_mounts.iter().flatten().map(|mount| &mount.name);
        for name in mounted.chain(container.volume_devices.iter().flatten().map(|device| &device.name)) {
            // The shared directory is in every Pod.
            if name == SHARED_VOLUME || wanted.iter().any(|volume| volume.name == *name) {
                continue;
            }
            let volume = known.iter().find(|volume| volume.name == *name).cloned().or_else(|| claim(name));
            wanted.push(volume.ok_or_else(|| Error::UnknownVolume(name.clone()))?);
        }
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
        selector.into_iter().filter(|(key, _)| !key.starts_with(argosy_model::SELECTOR_PREFIX)).collect();
    let priority_class = match chosen.template.get("priorityClassName")? {
        Some(own) => Some(own),
        None => chosen.workflow.get("podPriorityClassName")?,
    };
    let tolerations: Vec<Toleration> = chosen.either_list("tolerations")?;
    let host_aliases: Vec<HostAlias> = chosen.both("hostAliases")?;
    let claims: Vec<PodResourceClaim> = chosen.either_list("resourceClaims")?;
    let pull_secrets: Vec<LocalObjectReference> = chosen.workflow.list("imagePullSecrets")?;
    Ok(PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: automount,
        service_account_name: service_account,
        node_selector: (!selector.is_empty()).then_some(selector),
        affinity: chosen.either::<Affinity>("affinity")?,
        tolerations: (!tolerations.is_empty()).then_some(tolerations),
        scheduler_name: chosen.either("schedulerName")?,
        resources: chosen.either("podResources")?,
        resource_claims: (!claims.is_empty()).then_some(claims),
        priority_class_name: priority_class,
        host_aliases: (!host_aliases.is_empty()).then_some(host_aliases),
        image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
        host_network: chosen.workflow.get("hostNetwork")?,
        dns_policy: chosen.workflow.get("dnsPolicy")?,
        dns_config: chosen.workflow.get::<PodDNSConfig>("dnsConfig")?,
        ..PodSpec::default()
    })
}

fn metadata(
    assignment: &Assignment,
    settings: &Settings,
    chosen: &Chosen<'_>,
    spec: &PodSpec,
    sidecars: &[&str],
) -> Result<ObjectMeta, Error> {
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
        (names::WORKFLOW_UID, names::label_value(&assignment.workflow_uid)),
    ];
    labels.extend(own_labels.map(|(name, value)| (name.to_owned(), value)));
    if assignment.on_exit {
        labels.insert(names::ON_EXIT.to_owned(), "true".to_owned());
    }
    let own_annotations = [
        (names::NODE_NAME, assignment.node_name.clone()),
        (names::NODE_ID, assignment.node_id.clone()),
        (names::ARGO_POD_NAME, assignment.pod_name.clone()),
        (names::WORKFLOW_NAME, assignment.workflow.clone()),
        ("kubectl.kubernetes.io/default-container", names::MAIN.to_owned()),
    ];
    annotations.extend(own_annotations.map(|(name, value)| (name.to_owned(), value)));
    annotations.remove(names::PERMIT);
    annotations.remove(names::GC);
    if let Some(gc) = chosen.workflow.get::<PodGc>("podGC")? {
        let removal = Removal::of(&gc, &labels)
            .map_err(|reason| Error::Malformed { what: "workflow's podGC", reason })?;
        if let Some(removal) = removal {
            annotations.insert(names::GC.to_owned(), removal.text());
        }
    }
    annotations.remove(names::NO_EXECUTOR);
    annotations.remove(names::SIDECARS);
    if !sidecars.is_empty() {
        annotations.insert(names::SIDECARS.to_owned(), sidecars.join(","));
    }
    // Its end says all there is to say.
    let is_wrapped = spec.containers.iter().any(|one| {
        one.command.iter().flatten().next().is_some_and(|word| word.ends_with("/argosy-executor"))
    });
    if !is_wrapped {
        annotations.insert(names::NO_EXECUTOR.to_owned(), "true".to_owned());
    }
    Ok(ObjectMeta {
        name: Some(names::pod_name(&assignment.pod_name, &settings.cell, &fence)),
        namespace: Some(assignment.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations),
        finalizers: Some(vec![names::FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    })
}
