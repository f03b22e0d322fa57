//! A workflow in full, as `get` and `watch` show it.

use std::fmt::Write;

use crate::model::{Parameter, Workflow};
use crate::style::Style;
use crate::time;
use crate::tree::{self, Look};

const LABEL_WIDTH: usize = 20;

fn line(text: &mut String, label: &str, value: &str) {
    let padded = format!("{label:<LABEL_WIDTH$}");
    writeln!(text, "{} {value}", Style::Bold.paint(&padded)).expect("writing to a String can't fail");
}

/// A workflow (Argo's JSON) as `argosy get` shows it, colours included.
///
/// # Errors
/// [`crate::Error::Answer`] when it is no workflow.
pub fn text(workflow: &serde_json::Value) -> Result<String, crate::Error> {
    Ok(render(&Workflow::read(workflow)?, &Look::default(), jiff::Timestamp::now()))
}

/// Header and tree.
pub(crate) fn render(workflow: &Workflow, look: &Look, now: jiff::Timestamp) -> String {
    let mut text = String::new();
    header(&mut text, workflow, now);
    let rows = tree::rows(workflow, look, now);
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&crate::table::render(&rows, 2));
    }
    text
}

fn header(text: &mut String, workflow: &Workflow, now: jiff::Timestamp) {
    let status = &workflow.status;
    line(text, "Name:", &workflow.metadata.name);
    line(text, "Namespace:", &workflow.metadata.namespace);
    let account = &workflow.spec.service_account_name;
    line(
        text,
        "ServiceAccount:",
        if account.is_empty() { "unset (will run with the default ServiceAccount)" } else { account },
    );
    let word = workflow.status_text();
    line(text, "Status:", &Style::of_phase(&status.phase).paint(&word));
    if !status.message.is_empty() {
        line(text, "Message:", &status.message);
    }
    if !status.conditions.is_empty() {
        line(text, "Conditions:", "");
        for condition in &status.conditions {
            let value = if condition.message.is_empty() { &condition.status } else { &condition.message };
            line(text, &format!(" {}", condition.r#type), value);
        }
    }
    if let Some(created) = workflow.metadata.creation_timestamp {
        line(text, "Created:", &time::full(created, now));
    }
    if let Some(started) = status.started_at {
        line(text, "Started:", &time::full(started, now));
        if let Some(finished) = status.finished_at {
            line(text, "Finished:", &time::full(finished, now));
        }
        line(text, "Duration:", &time::long(time::seconds(started, status.finished_at.unwrap_or(now))));
    }
    if !status.progress.is_empty() {
        line(text, "Progress:", &status.progress);
    }
    parameters(text, "Parameters:", &workflow.spec.arguments.parameters);
    parameters(text, "Output Parameters:", &status.outputs.parameters);
}

fn parameters(text: &mut String, label: &str, parameters: &[Parameter]) {
    if parameters.is_empty() {
        return;
    }
    line(text, label, "");
    for parameter in parameters {
        line(text, &format!("  {}:", parameter.name), &parameter.text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_workflow_in_full() {
        let workflow = json!({
            "metadata": {"name": "hello-world-x7k2p", "namespace": "argo", "creationTimestamp": "2026-01-05T15:04:05Z"},
            "spec": {"arguments": {"parameters": [{"name": "message", "value": "hello"}]}},
            "status": {"phase": "Succeeded", "startedAt": "2026-01-05T15:04:05Z", "finishedAt": "2026-01-05T15:04:15Z", "progress": "1/1",
                "conditions": [{"type": "PodRunning", "status": "False"}, {"type": "Completed", "status": "True"}],
                "nodes": {"hello-world-x7k2p": {"id": "hello-world-x7k2p", "name": "hello-world-x7k2p", "displayName": "hello-world-x7k2p",
                    "type": "Pod", "templateName": "hello-world", "phase": "Succeeded", "cluster": "eu",
                    "startedAt": "2026-01-05T15:04:05Z", "finishedAt": "2026-01-05T15:04:08Z"}}},
        });
        let workflow = Workflow::read(&workflow).unwrap();
        let text = render(&workflow, &Look::default(), "2026-01-05T15:04:25Z".parse().unwrap());
        let expected = "\
Name:                hello-world-x7k2p
Namespace:           argo
ServiceAccount:      unset (will run with the default ServiceAccount)
Status:              Succeeded
Conditions:          \n \
 PodRunning          False
 Completed           True
Created:             Mon Jan 05 15:04:05 +0000 (20 seconds ago)
Started:             Mon Jan 05 15:04:05 +0000 (20 seconds ago)
Finished:            Mon Jan 05 15:04:15 +0000 (10 seconds ago)
Duration:            10 seconds
Progress:            1/1
Parameters:          \n  \
  message:           hello

STEP                  TEMPLATE     PODNAME            CLUSTER  DURATION  MESSAGE
 ✔ hello-world-x7k2p  hello-world  hello-world-x7k2p  eu       3s
";
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), expected);
    }
}
