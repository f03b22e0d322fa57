use jiff::Timestamp;
use serde_json::{Value, json};

use super::formatted;
use crate::client::{Client, Request, path};
use crate::model::Workflow;
use crate::style::Style;
use crate::table::{self, Cell};
use crate::time;
use crate::{Console, Error, List, Output};

/// Which workflows are wanted; parts that the server doesn't know are tested here.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub all_namespaces: bool,
    pub selector: Option<String>,
    pub field_selector: Option<String>,
    pub prefix: Option<String>,
    pub status: Vec<String>,
    pub completed: bool,
    pub running: bool,
    pub since: Option<std::time::Duration>,
    pub older: Option<std::time::Duration>,
    pub chunk_size: u32,
}

impl Wanted {
    fn selector(&self) -> String {
        let mut terms: Vec<String> = self.selector.iter().cloned().collect();
        if !self.status.is_empty() {
            terms.push(format!("workflows.argoproj.io/phase in ({})", self.status.join(",")));
        }
        if self.completed {
            terms.push("workflows.argoproj.io/completed=true".to_owned());
        }
        if self.running {
            terms.push("workflows.argoproj.io/completed!=true".to_owned());
        }
        terms.join(",")
    }

    fn ago(span: Option<std::time::Duration>) -> String {
        let seconds = span.map(|span| i64::try_from(span.as_secs()).unwrap_or(i64::MAX));
        let at = seconds.and_then(|seconds| {
            Timestamp::from_second(Timestamp::now().as_second().saturating_sub(seconds)).ok()
        });
        at.map(|at| at.to_string()).unwrap_or_default()
    }
}

/// All pages of the list.
pub(super) async fn find(client: &Client, wanted: &Wanted, fields: &str) -> Result<Vec<Value>, Error> {
    let namespace = if wanted.all_namespaces { "" } else { &client.namespace };
    let mut found = Vec::new();
    let mut next = String::new();
    loop {
        let prefix = wanted.prefix.clone().unwrap_or_default();
        let by_prefix = !prefix.is_empty();
        let field_selector = if by_prefix {
            format!("metadata.name={prefix}")
        } else {
            wanted.field_selector.clone().unwrap_or_default()
        };
        let request = Request::query([
            ("listOptions.labelSelector", wanted.selector()),
            ("listOptions.fieldSelector", field_selector),
            ("nameFilter", if by_prefix { "Prefix".to_owned() } else { String::new() }),
            ("createdAfter", Wanted::ago(wanted.since)),
            ("finishedBefore", Wanted::ago(wanted.older)),
            ("listOptions.limit", wanted.chunk_size.to_string()),
            ("listOptions.continue", next),
            ("fields", fields.to_owned()),
        ]);
        let mut page = client.get(&path(&["workflows", namespace]), request).await?;
        let items = page["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        let last = items.is_empty() || next.is_empty();
        found.extend(items);
        if last {
            return Ok(found);
        }
    }
}

const TABLE_FIELDS: &str = "metadata,items.metadata,items.status.phase,items.status.message,items.status.startedAt,\
    items.status.finishedAt,items.spec.priority,items.spec.shutdown,items.spec.suspend";
const WIDE_FIELDS: &str = ",items.status.nodes,items.spec.arguments";

/// Workflows as a list without namespaces.
pub(super) fn print(found: &[Value], output: Option<Output>, console: &mut Console) -> Result<(), Error> {
    match output {
        Some(Output::Name) => {
            for workflow in found {
                console.print(&formatted(workflow, output)?.unwrap_or_default())?;
            }
        }
        Some(Output::Json | Output::Yaml) => {
            console.print(&formatted(&json!(found), output)?.unwrap_or_default())?;
        }
        Some(Output::Wide) | None if found.is_empty() => console.print("No workflows found\n")?,
        Some(Output::Wide) | None => {
            let workflows = found.iter().map(Workflow::read).collect::<Result<Vec<_>, _>>()?;
            let wide = output == Some(Output::Wide);
            console.print(&table::render(&rows(&workflows, false, wide, true, Timestamp::now()), 3))?;
        }
    }
    Ok(())
}

pub(super) async fn list(client: &Client, arguments: &List, console: &mut Console) -> Result<bool, Error> {
    let wanted = Wanted {
        all_namespaces: arguments.all_namespaces,
        selector: arguments.selector.clone(),
        field_selector: arguments.field_selector.clone(),
        prefix: arguments.prefix.clone(),
        status: arguments.status.clone(),
        completed: arguments.completed,
        running: arguments.running,
        since: arguments.since,
        older: arguments.older,
        chunk_size: arguments.chunk_size,
    };
    let wide = arguments.output == Some(Output::Wide);
    let fields = match arguments.output {
        Some(Output::Json | Output::Yaml) => String::new(),
        Some(Output::Name) => "metadata,items.metadata.name".to_owned(),
        Some(Output::Wide) => format!("{TABLE_FIELDS}{WIDE_FIELDS}"),
        None => TABLE_FIELDS.to_owned(),
    };
    let found = find(client, &wanted, &fields).await?;
    match arguments.output {
        Some(Output::Name) => {
            for workflow in &found {
                console.print(&formatted(workflow, arguments.output)?.unwrap_or_default())?;
            }
            return Ok(true);
        }
        Some(Output::Json | Output::Yaml) => {
            console.print(&formatted(&json!(found), arguments.output)?.unwrap_or_default())?;
            return Ok(true);
        }
        Some(Output::Wide) | None => {}
    }
    if found.is_empty() {
        console.print("No workflows found\n")?;
        console.hint("submit one with: argosy submit FILE");
        return Ok(true);
    }
    let workflows = found.iter().map(Workflow::read).collect::<Result<Vec<_>, _>>()?;
    let table = rows(&workflows, arguments.all_namespaces, wide, !arguments.no_headers, Timestamp::now());
    console.print(&table::render(&table, 3))?;
    Ok(true)
}

fn rows(
    workflows: &[Workflow],
    namespaces: bool,
    wide: bool,
    header: bool,
    now: Timestamp,
) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    if header {
        let mut names = vec!["NAME", "STATUS", "AGE", "DURATION", "PRIORITY", "MESSAGE"];
        if namespaces {
            names.insert(0, "NAMESPACE");
        }
        if wide {
            names.extend(["P/R/C", "PARAMETERS"]);
        }
        rows.push(names.into_iter().map(|name| Cell::styled(name, Style::Bold)).collect());
    }
    rows.extend(workflows.iter().map(|workflow| row(workflow, namespaces, wide, now)));
    rows
}

fn row(workflow: &Workflow, namespaces: bool, wide: bool, now: Timestamp) -> Vec<Cell> {
    let status = &workflow.status;
    let span = |from: Option<Timestamp>, to: Option<Timestamp>| {
        from.map(|from| time::short(time::seconds(from, to.unwrap_or(now)))).unwrap_or_default()
    };
    let mut cells: Vec<Cell> = Vec::new();
    if namespaces {
        cells.push(workflow.metadata.namespace.clone().into());
    }
    cells.push(workflow.metadata.name.clone().into());
    cells.push(Cell::styled(workflow.status_text(), Style::of_phase(&status.phase)));
    cells.push(span(workflow.metadata.creation_timestamp, None).into());
    let duration = if status.started_at.is_some() {
        span(status.started_at, status.finished_at)
    } else {
        "0s".to_owned()
    };
    cells.push(duration.into());
    cells.push(workflow.spec.priority.unwrap_or(0).to_string().into());
    cells.push(status.message.clone().into());
    if wide {
        let pods = |phases: &[&str]| {
            let pod =
                |node: &&crate::model::Node| node.r#type == "Pod" && phases.contains(&node.phase.as_str());
            status.nodes.values().filter(pod).count()
        };
        let counts = format!(
            "{}/{}/{}",
            pods(&["Pending", ""]),
            pods(&["Running"]),
            pods(&["Succeeded", "Failed", "Error"])
        );
        cells.push(counts.into());
        let parameters: Vec<String> = workflow
            .spec
            .arguments
            .parameters
            .iter()
            .map(|parameter| format!("{}={}", parameter.name, parameter.text()))
            .collect();
        cells.push(parameters.join(",").into());
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_argos() {
        let workflow = json!({"metadata": {"name": "hello-world-x7k2p", "namespace": "argo", "creationTimestamp": "2026-01-05T15:04:05Z"},
            "spec": {"arguments": {"parameters": [{"name": "a", "value": 1}]}},
            "status": {"phase": "Succeeded", "startedAt": "2026-01-05T15:04:05Z", "finishedAt": "2026-01-05T15:04:15Z",
                       "nodes": {"n": {"type": "Pod", "phase": "Succeeded"}}}});
        let workflow = Workflow::read(&workflow).unwrap();
        let now = "2026-01-05T15:04:25Z".parse().unwrap();
        let draw = |namespaces, wide| {
            let text = table::render(&rows(std::slice::from_ref(&workflow), namespaces, wide, true, now), 3);
            anstream::adapter::strip_str(&text).to_string()
        };
        assert_eq!(
            draw(false, false),
            "NAME                STATUS      AGE   DURATION   PRIORITY   MESSAGE\nhello-world-x7k2p   Succeeded   20s   10s        0\n"
        );
        assert!(draw(true, true).contains("argo        hello-world-x7k2p   Succeeded   20s   10s        0                    0/0/1   a=1"), "{}", draw(true, true));
    }

    #[test]
    fn selectors_are_joined() {
        let wanted = Wanted {
            selector: Some("a=b".into()),
            status: vec!["Failed".into(), "Error".into()],
            running: true,
            ..Wanted::default()
        };
        assert_eq!(
            wanted.selector(),
            "a=b,workflows.argoproj.io/phase in (Failed,Error),workflows.argoproj.io/completed!=true"
        );
    }
}
