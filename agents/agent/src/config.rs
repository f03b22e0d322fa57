//! Flags, environment and file.

use argosy_agent_runtime::election::Times;
use argosy_executor::artifacts::{PARTS_AT_ONCE, PARTS_AT_ONCE_MAX};
use argosy_proto::common::Resources;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Runs the steps of one cluster for an Argosy control plane.
///
/// Every flag can stand in a YAML file as well (--config FILE; `data-dir: /var/lib/argosy`), a list for a flag that may be
/// repeated; the command line wins over the environment, the environment over the file.
#[derive(Clone, Debug, Parser)]
#[command(name = "argosy-agent", version, about)]
pub struct Config {
    /// The cluster's name; default: the invite's, or that of the certificate
    #[arg(long, env = "ARGOSY_CLUSTER")]
    pub cluster: Option<String>,
    /// A single-use invite (`argosy cluster invite NAME`); needed at the first start only
    #[arg(long, env = "ARGOSY_INVITE", hide_env_values = true)]
    pub invite: Option<String>,
    /// A file that holds the invite
    #[arg(long, env = "ARGOSY_INVITE_FILE", conflicts_with = "invite")]
    pub invite_file: Option<PathBuf>,
    /// Members' agent listeners, host:port; default: those of the invite, then those that the control plane told
    #[arg(long, env = "ARGOSY_MEMBERS", value_delimiter = ',')]
    pub members: Vec<String>,
    /// What runs the steps
    #[arg(long, env = "ARGOSY_RUNTIME", value_enum, default_value_t = RuntimeKind::Kubernetes)]
    pub runtime: RuntimeKind,
    /// Key, certificate, ledger and steps of the process runtime; one directory for each agent
    #[arg(long, env = "ARGOSY_DATA_DIR", default_value = "/var/lib/argosy-agent")]
    pub data_dir: PathBuf,
    /// Where executors are served; port 0: the last one, or any
    #[arg(long, env = "ARGOSY_EXECUTOR_LISTEN", default_value = "0.0.0.0:2749")]
    pub executor_listen: SocketAddr,
    /// Where executors find the agent, IP:PORT, if it is not the address above (a Service's cluster IP)
    #[arg(long, env = "ARGOSY_EXECUTOR_ADDRESS")]
    pub executor_address: Option<SocketAddr>,
    /// The executor's binary (process runtime); default: beside the agent's
    #[arg(long, env = "ARGOSY_EXECUTOR")]
    pub executor: Option<PathBuf>,
    /// The executor's image (kubernetes runtime)
    #[arg(long, env = "ARGOSY_EXECUTOR_IMAGE", default_value = "argosy/executor:latest")]
    pub executor_image: String,
    /// How the executor comes into Pods (kubernetes runtime)
    #[arg(long, env = "ARGOSY_EXECUTOR_DELIVERY", value_enum, default_value_t = ExecutorDelivery::Auto)]
    pub executor_delivery: ExecutorDelivery,
    /// What images run whose containers name no command, as Argo's table `images`: JSON, or YAML in the file
    /// (`images: {busybox: {cmd: [sh]}}`) (kubernetes runtime)
    #[arg(long, env = "ARGOSY_IMAGES", value_parser = images, default_value = "{}", hide_default_value = true)]
    pub images: Images,
    /// Drivers that keep artifacts (Argo's artifact plugins), as Argo's list `artifactDrivers`: JSON, or YAML in the file
    /// (`artifactDrivers: [{name: x, image: y, connectionTimeoutSeconds: 5}]`) (kubernetes runtime)
    #[arg(long, env = "ARGOSY_ARTIFACT_DRIVERS", value_parser = artifact_drivers, default_value = "[]", hide_default_value = true)]
    pub artifact_drivers: ArtifactDrivers,
    /// A kubeconfig (kubernetes runtime); default: the Pod's service account, or KUBECONFIG
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; default: its current one (kubernetes runtime)
    #[arg(long)]
    pub context: Option<String>,
    /// Print the address of this machine that the cluster's hosts can reach, and end (kubernetes runtime)
    #[arg(long)]
    pub locate: bool,
    /// Where metrics and health are served
    #[arg(long, env = "ARGOSY_METRICS_LISTEN", default_value = "0.0.0.0:9091")]
    pub metrics_listen: SocketAddr,
    /// A namespace that is served; may be repeated; default: all. The agent looks into no others, so that it needs no rights
    /// beyond them (Kubernetes runtime)
    #[arg(long = "namespace")]
    pub namespaces: Vec<String>,
    /// What the cluster's owner allows, whatever the control plane asks: YAML, see docs/agent.md
    #[arg(long, env = "ARGOSY_POLICY")]
    pub policy: Option<PathBuf>,
    /// Processors for steps, as Kubernetes writes them (4, 500m); default: the host's (process runtime), or those of all hosts
    #[arg(long, value_parser = milli)]
    pub capacity_cpu: Option<i64>,
    /// Memory for steps (8Gi); default: the host's (process runtime), or that of all hosts
    #[arg(long, value_parser = bytes)]
    pub capacity_memory: Option<i64>,
    /// Steps at one time; default: 256 (process runtime), or what all hosts take
    #[arg(long)]
    pub capacity_pods: Option<i64>,
    /// A label of the cluster for placement, key=value; may be repeated
    #[arg(long = "label", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Assignments taken without an answer in between
    #[arg(long, default_value_t = 256)]
    pub credit: u32,
    /// Secrets of artifact stores as files NAMESPACE/NAME/KEY; those of the namespace _ are everybody's. Of the others, a
    /// cluster's own are used (kubernetes runtime)
    #[arg(long, env = "ARGOSY_ARTIFACT_SECRETS")]
    pub artifact_secrets: Option<PathBuf>,
    /// Keys of hosts that git artifacts are read from by SSH, as OpenSSH's ssh_known_hosts has them
    #[arg(long, env = "ARGOSY_GIT_KNOWN_HOSTS", default_value = argosy_artifacts::KNOWN_HOSTS_FILE)]
    pub git_known_hosts: PathBuf,
    /// How long requests to artifact stores that are signed for steps can be used, milliseconds
    #[arg(long, default_value_t = argosy_artifacts::Limits::default().url_life_ms)]
    pub artifact_url_life_ms: u64,
    /// Parts of one large output artifact that an executor sends side by side, 1 to 16; each takes some memory of the step's
    #[arg(long, default_value_t = PARTS_AT_ONCE, value_parser = clap::value_parser!(u64).range(1..=PARTS_AT_ONCE_MAX))]
    pub artifact_parts_at_once: u64,
    /// How long a step that has ended offers its result to an agent that it can't reach, before it leaves it in the artifact
    /// store and ends, milliseconds (Kubernetes runtime)
    #[arg(long, default_value_t = argosy_artifacts::Limits::default().result_after_ms)]
    pub result_object_after_ms: u64,
    /// A namespace whose ConfigMaps with Argo's label are told to the control plane; may be repeated; default: those that are
    /// served (Kubernetes runtime)
    #[arg(long = "config-map-namespace")]
    pub config_map_namespaces: Vec<String>,
    /// Tell the control plane of no ConfigMaps (Kubernetes runtime)
    #[arg(long)]
    pub no_config_maps: bool,
    /// ConfigMaps that are told at most
    #[arg(long, default_value_t = argosy_kubernetes::config_maps::Settings::default().count_max)]
    pub config_maps_max: usize,
    /// Bytes of all ConfigMaps that are told
    #[arg(long, default_value_t = argosy_kubernetes::config_maps::Settings::default().bytes_max)]
    pub config_maps_bytes_max: usize,
    /// How long a Pod that has ended is kept from going until its result is committed, milliseconds; the result itself stays in
    /// the data directory (Kubernetes runtime)
    #[arg(long, default_value_t = argosy_kubernetes::FINALIZER_MAX_MS)]
    pub finalizer_max_ms: i64,
    /// How long after its grace a Pod that is being deleted may take to end before it counts as lost with its host, milliseconds
    /// (Kubernetes runtime)
    #[arg(long, default_value_t = argosy_kubernetes::HOST_LOST_AFTER_MS)]
    pub host_lost_after_ms: i64,
    /// The Lease of which several replicas of this agent, with one data directory, have one to act; none: there is one replica
    /// (Kubernetes runtime)
    #[arg(long, env = "ARGOSY_LEASE_NAME")]
    pub lease_name: Option<String>,
    /// The Lease's namespace; default: that of the agent's Pod
    #[arg(long, env = "ARGOSY_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// A Lease that was not renewed for so long goes to another replica, milliseconds
    #[arg(long, default_value_t = Times::default().duration_ms)]
    pub lease_duration_ms: u64,
    /// A replica that could not renew the Lease for so long ends, milliseconds; shorter than its duration
    #[arg(long, default_value_t = Times::default().renew_deadline_ms)]
    pub lease_renew_deadline_ms: u64,
    /// Between two looks at the Lease, milliseconds
    #[arg(long, default_value_t = Times::default().retry_ms)]
    pub lease_retry_ms: u64,
    /// Do not try private namespaces (process runtime)
    #[arg(long)]
    pub no_isolation: bool,
    /// Flags in YAML
    #[arg(long, env = "ARGOSY_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
}

/// How the executor comes into Pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExecutorDelivery {
    /// As an image volume where every host can mount one, else by an init container
    Auto,
    /// An init container copies it
    InitContainer,
    /// Its image is mounted as a volume
    ImageVolume,
}

/// The table of images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images(pub BTreeMap<String, argosy_kubernetes::pod::Image>);

/// The drivers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArtifactDrivers(pub Vec<argosy_kubernetes::ArtifactDriver>);

/// What runs the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeKind {
    /// Pods of a Kubernetes cluster
    Kubernetes,
    /// Processes of this host
    Process,
    /// Nothing at all: steps end after the time they name (for load tests)
    Simulated,
}

impl Config {
    /// Reads the command line (with the program's name), the environment and the file that they name.
    ///
    /// # Errors
    /// What is wrong, as clap says it; also `--help` and `--version`.
    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let first = Self::try_parse_from(&arguments)?;
        let Some(path) = &first.config else { return Ok(first) };
        let mut command = Self::command();
        let refuse = |command: &mut clap::Command, reason: String| {
            command.error(clap::error::ErrorKind::ValueValidation, format!("{}: {reason}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| refuse(&mut command, error.to_string()))?;
        let file: serde_json::Map<String, serde_json::Value> =
            serde_yaml::from_str(&text).map_err(|error| refuse(&mut command, error.to_string()))?;
        // The file's values become defaults, which environment and command line override.
        for (name, value) in file {
            let id = name.replace('-', "_");
            let id = match id.as_str() {
                "label" | "namespace" => format!("{id}s"),
                // As Argo writes it.
                "artifactDrivers" => "artifact_drivers".to_owned(),
                _ => id,
            };
            let values = match (id.as_str(), &value) {
                // One value that is a list, and not a list of values.
                ("artifact_drivers", serde_json::Value::Array(_)) => vec![value.to_string()],
                _ => file_values(&value),
            };
            if !command.get_arguments().any(|argument| argument.get_id() == id.as_str()) {
                return Err(refuse(&mut command, format!("there is no option {name:?}")));
            }
            command = command.mut_arg(id, |argument| argument.default_values(values));
        }
        Self::from_arg_matches(&command.try_get_matches_from(&arguments)?)
    }

    /// The times of the Lease, as they are given.
    #[must_use]
    pub fn lease_times(&self) -> Times {
        Times {
            duration_ms: self.lease_duration_ms,
            renew_deadline_ms: self.lease_renew_deadline_ms,
            retry_ms: self.lease_retry_ms,
        }
    }

    /// What the capacity flags say over what there is.
    #[must_use]
    pub fn capacity(&self, found: Resources) -> Resources {
        Resources {
            cpu_milli: self.capacity_cpu.unwrap_or(found.cpu_milli),
            memory_bytes: self.capacity_memory.unwrap_or(found.memory_bytes),
            pods: self.capacity_pods.unwrap_or(found.pods),
            ..found
        }
    }
}

fn file_values(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Array(items) => items.iter().flat_map(file_values).collect(),
        serde_json::Value::String(text) => vec![text.clone()],
        serde_json::Value::Null => Vec::new(),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) | serde_json::Value::Object(_) => {
            vec![value.to_string()]
        }
    }
}

fn images(text: &str) -> Result<Images, String> {
    serde_json::from_str(text).map(Images).map_err(|error| format!("no table of images: {error}"))
}

fn artifact_drivers(text: &str) -> Result<ArtifactDrivers, String> {
    argosy_kubernetes::ArtifactDriver::list(text).map(ArtifactDrivers)
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write key=value")?;
    if key.is_empty() { Err("the key is empty".to_owned()) } else { Ok((key.to_owned(), value.to_owned())) }
}

fn milli(text: &str) -> Result<i64, String> {
    let problem = |_| format!("{text:?} is no number of processors: write 4 or 500m");
    match text.strip_suffix('m') {
        Some(milli) => milli.parse().map_err(problem),
        None => text.parse::<i64>().map(|whole| whole.saturating_mul(1000)).map_err(problem),
    }
}

fn bytes(text: &str) -> Result<i64, String> {
    const UNITS: [(&str, i64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    let number: i64 =
        number.parse().map_err(|_| format!("{text:?} is no amount of memory: write 8Gi or 512Mi"))?;
    Ok(number.saturating_mul(factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Result<Config, clap::Error> {
        Config::from_arguments(["argosy-agent"].iter().chain(arguments).map(OsString::from))
    }

    #[test]
    fn quantities_and_labels_are_read() {
        let config = of(&[
            "--capacity-cpu",
            "1500m",
            "--capacity-memory",
            "2Gi",
            "--label",
            "zone=a",
            "--label",
            "x=",
        ])
        .unwrap();
        let capacity = config.capacity(Resources { pods: 7, ..Resources::default() });
        assert_eq!((capacity.cpu_milli, capacity.memory_bytes, capacity.pods), (1500, 2 << 30, 7));
        assert_eq!(config.labels, [("zone".to_owned(), "a".to_owned()), ("x".to_owned(), String::new())]);
        for bad in [
            ["--capacity-cpu", "x"],
            ["--capacity-memory", "1Xi"],
            ["--label", "zone"],
            ["--runtime", "docker"],
        ] {
            assert!(of(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_gives_defaults_and_unknown_names_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.yaml");
        let path_text = path.to_str().unwrap();
        std::fs::write(&path, "runtime: process\ncredit: 5\nmembers: ['a:1', 'b:2']\nlabel: [zone=a]\n")
            .unwrap();
        let config = of(&["--config", path_text, "--credit", "6"]).unwrap();
        assert_eq!((config.runtime, config.credit), (RuntimeKind::Process, 6));
        assert_eq!((config.members.len(), config.labels.len()), (2, 1));
        std::fs::write(&path, "images: {busybox: {cmd: [sh]}}\nexecutor-delivery: image-volume\n").unwrap();
        let config = of(&["--config", path_text]).unwrap();
        assert_eq!(config.images.0["busybox"].cmd, ["sh"]);
        assert_eq!(config.executor_delivery, ExecutorDelivery::ImageVolume);
        assert!(of(&["--images", "{\"x\":{\"command\":[]}}"]).is_err());
        let drivers = "- {name: a, image: x}\n- {name: b, image: y, connectionTimeoutSeconds: 7}\n";
        for text in [
            // As a list, and as the text that Argo's ConfigMap has.
            format!("artifactDrivers:\n{drivers}"),
            format!("artifactDrivers: |\n  {}\n", drivers.replace('\n', "\n  ")),
        ] {
            std::fs::write(&path, text).unwrap();
            let drivers = of(&["--config", path_text]).unwrap().artifact_drivers.0;
            assert_eq!((drivers.len(), drivers[1].connection_timeout_seconds), (2, 7));
        }
        assert!(of(&["--artifact-drivers", "[{\"name\":\"a\"}]"]).is_err());
        std::fs::write(&path, "colour: red\n").unwrap();
        assert!(of(&["--config", path_text]).unwrap_err().to_string().contains("colour"));
    }
}
