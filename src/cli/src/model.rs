//! The parts of Argo's JSON that are shown.

use serde::Deserialize;
use std::collections::BTreeMap;

use crate::time;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Workflow {
    pub metadata: Metadata,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub name: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub creation_timestamp: Option<jiff::Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub service_account_name: String,
    pub arguments: Arguments,
    pub priority: Option<i64>,
    pub shutdown: String,
    pub suspend: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Arguments {
    pub parameters: Vec<Parameter>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Parameter {
    pub name: String,
    pub value: Option<serde_json::Value>,
}

impl Parameter {
    pub fn text(&self) -> String {
        match &self.value {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub phase: String,
    pub started_at: Option<jiff::Timestamp>,
    pub finished_at: Option<jiff::Timestamp>,
    pub message: String,
    pub progress: String,
    pub nodes: BTreeMap<String, Node>,
    pub conditions: Vec<Condition>,
    pub outputs: Outputs,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    pub r#type: String,
    pub status: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Outputs {
    pub parameters: Vec<Parameter>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Node {
    pub id: String,
    pub name: String,
    pub display_name: String,
    pub r#type: String,
    pub template_name: String,
    pub template_ref: Option<TemplateRef>,
    pub phase: String,
    #[serde(rename = "boundaryID")]
    pub boundary_id: String,
    pub message: String,
    pub started_at: Option<jiff::Timestamp>,
    pub finished_at: Option<jiff::Timestamp>,
    pub children: Vec<String>,
    pub host_node_name: String,
    /// Where it runs or ran; ours.
    pub cluster: String,
    /// Its attempts, oldest first; ours.
    pub attempts: Vec<Attempt>,
    /// Of its cluster, while it is there; ours.
    pub lease: Option<Lease>,
    /// What it waits for while its cluster is silent; ours.
    pub take_over: Option<TakeOver>,
    /// It ended well and was run again for what was lost with its cluster, oldest first; ours.
    pub reproductions: Vec<Reproduction>,
}

/// A step that ended well and was run again.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Reproduction {
    pub outcome: String,
    /// The cluster that it was lost with.
    pub lost: String,
    pub message: String,
}

impl Reproduction {
    /// `made again after the loss of eu`.
    pub(crate) fn text(&self) -> String {
        let what = match self.outcome.as_str() {
            "made" => "made again after the loss of",
            "failed" => "not made again after the loss of",
            "notNeeded" => "back after the loss of",
            _ => "runs again after the loss of",
        };
        let why = if self.message.is_empty() { String::new() } else { format!(": {}", self.message) };
        format!("{what} {}{why}", self.lost)
    }
}

/// A cluster's lease.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Lease {
    pub state: String,
    pub remaining_seconds: u64,
    pub silent_seconds: u64,
}

impl Lease {
    pub fn text(&self) -> String {
        match self.state.as_str() {
            "live" => format!("live {}", time::short(self.remaining_seconds)),
            "expired" => format!("expired, silent {}", time::short(self.silent_seconds)),
            "takenOver" => format!("taken over, silent {}", time::short(self.silent_seconds)),
            other => other.to_owned(),
        }
    }
}

/// When something of a silent cluster is taken over, and what it waits for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TakeOver {
    pub waits_for: String,
    pub at: Option<jiff::Timestamp>,
    pub until: Option<jiff::Timestamp>,
    pub until_resumed: bool,
}

impl TakeOver {
    /// `in 12s (lease)`, `held until resumed (storm brake)`.
    pub fn text(&self, now: jiff::Timestamp) -> String {
        let after = |at| time::short(time::seconds(now, at));
        let when = match (self.waits_for.as_str(), self.at, self.until) {
            ("stormBrake", _, _) if self.until_resumed => "held until resumed".to_owned(),
            ("stormBrake", _, Some(until)) => format!("held, at most {}", after(until)),
            (_, Some(at), _) if at <= now => "due".to_owned(),
            (_, Some(at), _) => format!("in {}", after(at)),
            (_, None, _) => "waits".to_owned(),
        };
        format!("{when} ({})", words(&self.waits_for))
    }
}

/// `stormBrake` to `storm brake`.
fn words(token: &str) -> String {
    let mut text = String::with_capacity(token.len() + 4);
    for letter in token.chars() {
        if letter.is_ascii_uppercase() {
            text.push(' ');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TemplateRef {
    pub name: String,
    pub template: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Attempt {
    pub fence: String,
    pub cluster: String,
    /// `granted` or `none`.
    pub permit: String,
}

impl Workflow {
    pub fn read(value: &serde_json::Value) -> Result<Self, crate::Error> {
        Self::deserialize(value).map_err(|error| crate::Error::Answer(error.to_string()))
    }

    pub fn is_over(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed" | "Error")
    }

    pub fn has_failed(&self) -> bool {
        matches!(self.status.phase.as_str(), "Failed" | "Error")
    }

    /// The phase with what Argo's CLI adds.
    pub fn status_text(&self) -> String {
        let waits = |node: &Node| node.r#type == "Suspend" && node.phase == "Running";
        match self.status.phase.as_str() {
            "" => "Pending".to_owned(),
            "Running" if self.spec.suspend == Some(true) || self.status.nodes.values().any(waits) => {
                "Running (Suspended)".to_owned()
            }
            "Failed" if !self.spec.shutdown.is_empty() => "Failed (Terminated)".to_owned(),
            phase => phase.to_owned(),
        }
    }
}
