//! Artifact drivers (Argo's "artifact plugins") in a step's Pod. Pure.
//!
//! For each driver that keeps artifacts of the step there is a sidecar `artifact-plugin-NAME` of the driver's image, run as the
//! image says with its socket as the only argument, so that drivers of Argo need nothing else. Two further containers of the same
//! image, and so of the same user, run the executor: `init-artifact-NAME` (Argo's name) loads inputs before the step's
//! containers start, the sidecar `artifact-saver-NAME` saves outputs when the main container's executor asks. The step's own
//! containers do not see the socket. Nothing of it runs before the start permit.

use crate::containers::{
    IMAGE_FOLDER, IMAGE_VOLUME, SHARED_FOLDER, SHARED_VOLUME, Wrapping, executor_folder, mount,
};
use crate::names;
use crate::pod::{Delivery, Error, Settings};
use argosy_executor::artifacts::{Driver, DriverArtifact, InputFile, driver_folder, driver_socket};
use argosy_executor::protocol::Task;
use argosy_spec::Artifact;
use argosy_spec::artifact::relocate;
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, PodSpec, ResourceRequirements, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Bytes of a driver's name: `artifact-plugin-NAME` is the name of a container.
const NAME_BYTES_MAX: usize = 63 - "artifact-plugin-".len();

/// A driver that steps of this cluster may use: an entry of Argo's `artifactDrivers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactDriver {
    /// What artifacts call it.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Seconds until it must answer; 0 = Argo's limits.
    #[serde(default)]
    pub connection_timeout_seconds: u32,
}

impl ArtifactDriver {
    /// Reads a list of them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        let drivers: Vec<Self> =
            serde_yaml::from_str(text).map_err(|error| format!("no list of artifact drivers: {error}"))?;
        for (number, driver) in drivers.iter().enumerate() {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            let name = driver.name.as_str();
            let is_label = name.bytes().all(allowed) && !name.starts_with('-') && !name.ends_with('-');
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_label {
                return Err(format!(
                    "artifact driver {name:?}: a name has at most {NAME_BYTES_MAX} letters, digits and hyphens"
                ));
            }
            if driver.image.is_empty() {
                return Err(format!("artifact driver {name} has no image"));
            }
            if drivers[..number].iter().any(|other| other.name == name) {
                return Err(format!("artifact driver {name} is there twice"));
            }
        }
        Ok(drivers)
    }
}

/// What drivers keep of a template's artifacts, by the drivers' names.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    inputs: BTreeMap<String, Vec<DriverArtifact>>,
    outputs: BTreeMap<String, Vec<DriverArtifact>>,
    log: String,
}

impl Kept {
    /// Of a template whose tags are filled in.
    pub fn of(template: &Value) -> Self {
        let archive = template.get("archiveLocation").and_then(Value::as_object).cloned().unwrap_or_default();
        let artifacts = |side: &str| -> Vec<Artifact> {
            let list = template.pointer(&format!("/{side}/artifacts")).cloned().unwrap_or_default();
            serde_json::from_value(list).unwrap_or_default()
        };
        let mut kept = Self::default();
        for artifact in artifacts("inputs") {
            if let Some((driver, told)) = told(artifact, &archive) {
                kept.inputs.entry(driver).or_default().push(told);
            }
        }
        for mut artifact in artifacts("outputs") {
            if !artifact.has_location() {
                let file = artifact.file_name();
                place(&mut artifact, &archive, &file);
            }
            if let Some((driver, told)) = told(artifact, &archive) {
                kept.outputs.entry(driver).or_default().push(told);
            }
        }
        if crate::artifacts::archives_logs(template) {
            kept.keep_logs(template, &archive);
        }
        kept
    }

    /// Logs are kept where what names no location is.
    fn keep_logs(&mut self, template: &Value, archive: &Map<String, Value>) {
        let set = template.pointer("/containerSet/containers").and_then(Value::as_array);
        let names = set.into_iter().flatten().filter_map(|one| one.get("name")?.as_str());
        let mut names: Vec<&str> = names.collect();
        if names.is_empty() {
            names.push(names::MAIN);
        }
        for name in names {
            let mut artifact = Artifact { name: format!("{name}-logs"), ..Artifact::default() };
            place(&mut artifact, archive, &format!("{name}.log"));
            if let Some((driver, told)) = told(artifact, archive) {
                self.log.clone_from(&driver);
                self.outputs.entry(driver).or_default().push(told);
            }
        }
    }

    /// No driver is needed.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.outputs.is_empty()
    }

    /// Says in a main container's task which outputs a driver keeps.
    pub fn name_drivers(&self, task: &mut Task) {
        for output in &mut task.output_files {
            let keeps = |artifacts: &[DriverArtifact]| artifacts.iter().any(|one| one.name == output.name);
            if let Some((driver, _)) = self.outputs.iter().find(|(_, artifacts)| keeps(artifacts)) {
                output.driver.clone_from(driver);
            }
        }
        task.log_driver.clone_from(&self.log);
    }

    /// A driver loads this input.
    pub fn loads(&self, input: &str) -> bool {
        self.inputs.values().flatten().any(|artifact| artifact.name == input)
    }

    /// The containers for it, in their order, and the volumes that they need. `inputs` are the inputs that drivers load, and
    /// `mounts` what has room for them.
    pub fn containers(
        &self,
        wrapping: &Wrapping<'_>,
        inputs: &[InputFile],
        mounts: &[VolumeMount],
    ) -> Result<(Vec<Container>, Vec<Volume>), Error> {
        let mut containers = Vec::new();
        let mut volumes = Vec::new();
        let mut names: Vec<&String> = self.inputs.keys().chain(self.outputs.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let pair = Pair::of(wrapping.settings, name)?;
            let (loaded, saved) = (self.inputs.get(name), self.outputs.get(name));
            let mut driver = pair.driver(if loaded.is_some() { mounts } else { &[] });
            wrapping.add_environment(&mut driver, Vec::new(), true);
            containers.push(driver);
            if let Some(artifacts) = loaded {
                let is_own = |input: &&InputFile| artifacts.iter().any(|one| one.name == input.name);
                let input_files = inputs.iter().filter(is_own).cloned().collect();
                let task = Task { input_files, ..pair.task(artifacts) };
                let variables = wrapping.init_variables(&task);
                let container_name = format!("{}{name}", names::INIT_ARTIFACT);
                containers.push(pair.executor(container_name, "driver-load", variables, mounts));
            }
            if let Some(artifacts) = saved {
                let variables = wrapping.init_variables(&pair.task(artifacts));
                let mut saver =
                    pair.executor(format!("artifact-saver-{name}"), "driver-save", variables, &[]);
                saver.restart_policy = Some("Always".to_owned());
                containers.push(saver);
            }
            volumes.push(empty(&volume_name(name)));
        }
        Ok((containers, volumes))
    }
}

fn empty(name: &str) -> Volume {
    Volume { name: name.to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

/// The Pod that has a driver delete an artifact, without metadata.
///
/// # Errors
/// [`Error::NoDriver`], or a location that names nothing.
pub fn deletion(settings: &Settings, location: &Map<String, Value>) -> Result<PodSpec, Error> {
    let artifact = Artifact {
        name: "deleted".to_owned(),
        location: Map::from_iter([("plugin".to_owned(), Value::Object(location.clone()))]),
        ..Artifact::default()
    };
    let named = told(artifact, &Map::new());
    let (name, artifact) =
        named.ok_or_else(|| Error::Malformed { what: "artifact", reason: "it has no key".to_owned() })?;
    let pair = Pair::of(settings, &name)?;
    let environment = pair.task(&[artifact]).to_environment();
    let variable = |(name, value)| EnvVar { name, value: Some(value), value_from: None };
    let main = pair.executor(
        names::MAIN.to_owned(),
        "driver-delete",
        environment.into_iter().map(variable).collect(),
        &[],
    );
    let (mut inits, mut volumes) = (Vec::new(), vec![empty(SHARED_VOLUME), empty(&volume_name(&name))]);
    match settings.delivery {
        Delivery::InitContainer => {
            let folder = executor_folder(settings.delivery);
            let mut init = crate::pod::init_container(settings, None, &["install", folder]);
            mount(&mut init, SHARED_VOLUME, SHARED_FOLDER, false);
            inits.push(init);
        }
        Delivery::ImageVolume => volumes.push(crate::pod::image_volume(settings)),
    }
    inits.push(pair.driver(&[]));
    Ok(PodSpec {
        init_containers: Some(inits),
        containers: vec![main],
        volumes: Some(volumes),
        restart_policy: Some("Never".to_owned()),
        ..PodSpec::default()
    })
}

fn volume_name(driver: &str) -> String {
    format!("artifact-plugin-{driver}")
}

/// Gives an artifact that names no location one below what the template's are kept under, if a driver keeps it.
fn place(artifact: &mut Artifact, archive: &Map<String, Value>, file: &str) {
    let key = archive.get("plugin").and_then(|plugin| plugin.get("key")?.as_str());
    if let Some(key) = key {
        let key = format!("{}/{file}", key.trim_end_matches('/'));
        artifact.location = Map::from_iter([("plugin".to_owned(), serde_json::json!({ "key": key }))]);
    }
}

/// The driver of an artifact, and what it is told.
fn told(mut artifact: Artifact, archive: &Map<String, Value>) -> Option<(String, DriverArtifact)> {
    relocate(&mut artifact.location, archive);
    let (kind, fields) = artifact.kind()?;
    if kind != "plugin" || artifact.key().is_empty() {
        return None;
    }
    let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let seconds = fields.get("connectionTimeoutSeconds").and_then(Value::as_u64);
    let told = DriverArtifact {
        name: artifact.name.clone(),
        path: artifact.path.clone(),
        mode: artifact.mode.and_then(|mode| i32::try_from(mode).ok()),
        recurse_mode: artifact.recurse_mode,
        optional: artifact.optional,
        configuration: text("configuration"),
        key: artifact.key().to_owned(),
        connection_timeout_seconds: seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0),
    };
    Some((text("name"), told))
}

/// The containers of one driver.
struct Pair<'a> {
    settings: &'a Settings,
    driver: &'a ArtifactDriver,
}

impl<'a> Pair<'a> {
    fn of(settings: &'a Settings, name: &str) -> Result<Self, Error> {
        let driver = settings.artifact_drivers.iter().find(|driver| driver.name == name);
        let driver = driver.ok_or_else(|| Error::NoDriver(name.to_owned()))?;
        Ok(Self { settings, driver })
    }

    fn task(&self, artifacts: &[DriverArtifact]) -> Task {
        Task {
            driver: Some(Driver {
                name: self.driver.name.clone(),
                connection_timeout_seconds: self.driver.connection_timeout_seconds,
                artifacts: artifacts.to_vec(),
            }),
            shared_directory: Some(SHARED_FOLDER.to_owned()),
            capture_result: false,
            ..Task::default()
        }
    }

    fn container(&self, name: String, mounts: &[VolumeMount]) -> Container {
        let mut container = Container {
            name,
            image: Some(self.driver.image.clone()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            volume_mounts: Some(mounts.to_vec()),
            ..Container::default()
        };
        mount(&mut container, SHARED_VOLUME, SHARED_FOLDER, false);
        mount(&mut container, &volume_name(&self.driver.name), &driver_folder(&self.driver.name), false);
        container
    }

    fn driver(&self, mounts: &[VolumeMount]) -> Container {
        let mut container = self.container(volume_name(&self.driver.name), mounts);
        container.args = Some(vec![driver_socket(&self.driver.name)]);
        container.restart_policy = Some("Always".to_owned());
        container
    }

    fn executor(
        &self,
        name: String,
        word: &str,
        variables: Vec<EnvVar>,
        mounts: &[VolumeMount],
    ) -> Container {
        let delivery = self.settings.delivery;
        let mut container = self.container(name, mounts);
        container.command =
            Some(vec![format!("{}/argosy-executor", executor_folder(delivery)), word.to_owned()]);
        if delivery == Delivery::ImageVolume {
            mount(&mut container, IMAGE_VOLUME, IMAGE_FOLDER, true);
        }
        container.env = Some(variables);
        let amounts = |amounts: &[(&str, &str)]| {
            let amounts =
                amounts.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())));
            Some(amounts.collect())
        };
        container.resources = Some(ResourceRequirements {
            requests: amounts(&[("cpu", "10m"), ("memory", "16Mi")]),
            limits: amounts(&[("memory", "64Mi")]),
            claims: None,
        });
        container
    }
}

/// The image volume is needed where a container mounts it, init containers included.
pub fn mounts_image(spec: &PodSpec, containers: &[Container]) -> bool {
    let all = spec.containers.iter().chain(containers);
    all.flat_map(|one| one.volume_mounts.iter().flatten()).any(|mount| mount.name == IMAGE_VOLUME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_of_drivers_is_argos() {
        let read = ArtifactDriver::list(
            "- {name: my-driver, image: 'x:1'}\n- {name: b, image: y, connectionTimeoutSeconds: 7}\n",
        )
        .unwrap();
        let numbers: Vec<u32> = read.iter().map(|driver| driver.connection_timeout_seconds).collect();
        assert_eq!(
            (read[0].name.as_str(), read[0].image.as_str(), numbers),
            ("my-driver", "x:1", vec![0, 7])
        );
        for (text, reason) in [
            ("[{name: a}]", "missing field `image`"),
            ("[{name: A/b, image: x}]", "hyphens"),
            ("[{name: a, image: ''}]", "has no image"),
            ("[{name: a, image: x}, {name: a, image: y}]", "twice"),
            ("[{name: a, image: x, command: [y]}]", "unknown field"),
        ] {
            let error = ArtifactDriver::list(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn what_names_no_location_goes_to_the_repositorys_driver() {
        let kept = Kept::of(&json!({
            "inputs": {"artifacts": [
                {"name": "i", "path": "/i", "plugin": {"name": "own", "configuration": "x", "key": "k", "connectionTimeoutSeconds": 3}},
                {"name": "s", "path": "/s", "s3": {"key": "k"}},
                {"name": "none", "path": "/n", "optional": true},
            ]},
            "outputs": {"artifacts": [
                {"name": "o", "path": "/o"},
                {"name": "p", "path": "/p.txt", "archive": {"none": {}}, "mode": 0o600},
                {"name": "q", "path": "/q", "plugin": {"key": "own-key"}},
            ]},
            "archiveLocation": {"archiveLogs": true, "plugin": {"name": "d", "configuration": "c", "key": "w/p"}},
            "container": {"image": "x"},
        }));
        assert_eq!(kept.inputs.keys().collect::<Vec<_>>(), ["own"]);
        assert_eq!(kept.inputs["own"][0].connection_timeout_seconds, 3);
        assert!(kept.loads("i") && !kept.loads("s") && !kept.loads("none"));
        let shown: Vec<(&str, &str, &str)> = kept.outputs["d"]
            .iter()
            .map(|one| (one.name.as_str(), one.key.as_str(), one.configuration.as_str()))
            .collect();
        let expected = [
            ("o", "w/p/o.tgz", "c"),
            ("p", "w/p/p.txt", "c"),
            ("q", "own-key", "c"),
            ("main-logs", "w/p/main.log", "c"),
        ];
        assert_eq!(shown, expected);
        assert!(
            Kept::of(&json!({"outputs": {"artifacts": [{"name": "o", "path": "/o", "s3": {"key": "k"}}]}}))
                .is_empty()
        );
    }
}
