//! What a recording says of a container: how long it runs, and how it ends.

use argosy_model::Fence;
use argosy_proto::common::{AttemptPhase, AttemptReport, ContainerState, OutputParameter};
use regex::Regex;
use serde_json::Value;
use std::sync::LazyLock;

/// Between an assignment and the start of its containers.
pub const START_MS: i64 = 1_500;
/// How long containers run that don't say.
pub const SHORT_MS: i64 = 1_000;

static SLEEPS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"sleep[\s",\\]+(\d+)"#).expect("a constant pattern"));
/// What never ends by itself.
const ENDLESS: [&str; 6] = ["while true", "while :", "sleep inf", "tail -f", "nc -l", "httpd -f"];

/// How long the containers of a template run; `None`: until they are ended.
pub fn runs_ms(template: &Value) -> Option<i64> {
    let text = ["container", "script", "containerSet"].map(|kind| template[kind].to_string()).concat();
    if is_daemon(template) || ENDLESS.iter().any(|words| text.contains(words)) {
        return None;
    }
    let slept = SLEEPS.captures_iter(&text).filter_map(|found| found[1].parse::<i64>().ok());
    Some(SHORT_MS.saturating_add(slept.sum::<i64>().saturating_mul(1000)))
}

/// A template whose containers run until the steps around them are over.
pub fn is_daemon(template: &Value) -> bool {
    template["daemon"] == true
}

/// The limit that the kubelet enforces.
pub fn limit_ms(template: &Value) -> Option<i64> {
    let seconds = &template["activeDeadlineSeconds"];
    let seconds = seconds.as_i64().or_else(|| seconds.as_str()?.parse().ok())?;
    Some(seconds.saturating_mul(1000))
}

/// What is recorded of a Pod.
#[derive(Default)]
pub struct Recorded {
    /// Its node.
    pub node: Value,
    /// Nodes of the containers of its set, by the containers' names.
    pub containers: Vec<(String, Value)>,
}

impl Recorded {
    /// Of a node's name in a recording of a workflow.
    pub fn of(record: &Value, workflow: &str, node: &str) -> Option<Self> {
        let named = |found: &Value| found["name"].as_str().unwrap_or_default().replace("$WF", workflow);
        let nodes = || record["nodes"].as_array().into_iter().flatten();
        let found = nodes().find(|found| named(found) == node)?.clone();
        let inside = nodes().filter(|found| found["type"] == "Container");
        let containers = inside.filter_map(|found| {
            let name = named(found).strip_prefix(node)?.strip_prefix('.')?.to_owned();
            Some((name, found.clone()))
        });
        Some(Self { node: found, containers: containers.collect() })
    }

    /// Its end is not recorded: it ran on.
    pub fn runs_on(&self) -> bool {
        matches!(self.node["phase"].as_str(), Some("Running" | "Pending"))
    }

    /// It did not end well.
    pub fn fails(&self) -> bool {
        matches!(self.node["phase"].as_str(), Some("Failed" | "Error"))
    }
}

/// A container of a set as recorded.
fn container(name: &str, node: &Value) -> ContainerState {
    let phase = match node["phase"].as_str() {
        Some("Succeeded") => AttemptPhase::Succeeded,
        Some("Error") => AttemptPhase::Error,
        Some(_) | None => AttemptPhase::Failed,
    };
    ContainerState {
        name: name.to_owned(),
        phase: phase.into(),
        message: node["message"].as_str().unwrap_or_default().to_owned(),
        ..ContainerState::default()
    }
}

/// The report of an attempt that ends as recorded; without a recording, well.
pub fn ended(recorded: &Recorded, fence: Fence, stopping: bool) -> AttemptReport {
    let node = &recorded.node;
    let phase = match node["phase"].as_str() {
        Some("Failed") => AttemptPhase::Failed,
        Some("Error") => AttemptPhase::Error,
        Some(_) => AttemptPhase::Succeeded,
        None if stopping => AttemptPhase::Stopped,
        None => AttemptPhase::Succeeded,
    };
    let parameters = node["outputs"]["parameters"].as_array().into_iter().flatten().filter_map(|parameter| {
        Some(OutputParameter {
            name: parameter["name"].as_str()?.to_owned(),
            value: parameter["value"].as_str()?.to_owned(),
        })
    });
    AttemptReport {
        fence: Some(fence),
        revision: 9,
        phase: phase.into(),
        permitted: true,
        exit_code: node["outputs"]["exitCode"].as_str().and_then(|code| code.parse().ok()),
        message: node["message"].as_str().unwrap_or_default().to_owned(),
        host: "host-1".to_owned(),
        progress: node["progress"].as_str().filter(|_| node["type"] == "Pod").unwrap_or_default().to_owned(),
        // A request without an answer has none, nor what the executor itself could not do.
        result: match node["outputs"]["result"].as_str() {
            None if node["type"] == "HTTP" || node["outputs"]["exitCode"] == "64" => None,
            result => Some(result.unwrap_or_default().to_owned()),
        },
        containers: recorded.containers.iter().map(|(name, node)| container(name, node)).collect(),
        parameters: parameters.collect(),
        artifacts: crate::artifacts::reported(node),
        ..AttemptReport::default()
    }
}

/// A report of an attempt whose containers run; a daemon that does not fail is ready at once.
pub fn running(fence: Fence, is_ready_daemon: bool) -> AttemptReport {
    let pod_ip = if is_ready_daemon { "10.200.9.9".to_owned() } else { String::new() };
    let report = underway(fence, AttemptPhase::Running, "", 2);
    AttemptReport { ready: is_ready_daemon, pod_ip, host: "host-1".to_owned(), ..report }
}

/// A report of an attempt under way.
pub fn underway(fence: Fence, phase: AttemptPhase, message: &str, revision: u64) -> AttemptReport {
    AttemptReport {
        fence: Some(fence),
        revision,
        phase: phase.into(),
        permitted: phase == AttemptPhase::Running,
        message: message.to_owned(),
        ..AttemptReport::default()
    }
}
