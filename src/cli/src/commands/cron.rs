//! Cron workflows: Argo's verbs and tables.

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::{formatted, manifest, submit};
use crate::client::{Client, Request, path};
use crate::cron_args::{Cron, CronBackfill, CronDelete, CronFiles, CronGet, CronLint, CronList, CronNames};
use crate::style::Style;
use crate::table::{self, Cell};
use crate::{Console, Error, Output, Submit, time};

const LABEL_WIDTH: usize = 30;

pub(super) async fn run(client: &Client, command: Cron, console: &mut Console) -> Result<bool, Error> {
    match command {
        Cron::List(arguments) => list(client, &arguments, console).await,
        Cron::Get(arguments) => get(client, &arguments, console).await,
        Cron::Create(arguments) => create(client, &arguments, console).await,
        Cron::Update(arguments) => update(client, &arguments, console).await,
        Cron::Delete(arguments) => delete(client, &arguments, console).await,
        Cron::Lint(arguments) => lint(client, &arguments, console).await,
        Cron::Suspend(arguments) => set_suspended(client, &arguments, "suspend", console).await,
        Cron::Resume(arguments) => set_suspended(client, &arguments, "resume", console).await,
        Cron::Backfill(arguments) => backfill(client, &arguments, console).await,
    }
}

fn all(client: &Client) -> String {
    path(&["cron-workflows", &client.namespace])
}

fn one(client: &Client, name: &str) -> String {
    path(&["cron-workflows", &client.namespace, name])
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn timestamp(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

/// The schedules as Argo shows them.
fn schedules(cron: &Value) -> String {
    let list = cron["spec"]["schedules"].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

/// The next time of its schedules, told from what the object says.
fn next(cron: &Value, now: Timestamp) -> Option<Timestamp> {
    let read = argosy_spec::CronWorkflow::from_value(cron).ok()?;
    let created = timestamp(cron, "/metadata/creationTimestamp").map_or(0, Timestamp::as_second);
    let schedules = read.read_schedules().ok()?;
    let next = schedules.iter().filter_map(|schedule| schedule.next(created, now.as_second())).min()?;
    Timestamp::from_second(next).ok()
}

async fn find(client: &Client, arguments: &CronList) -> Result<Vec<Value>, Error> {
    let place =
        if arguments.all_namespaces { format!("{}/", path(&["cron-workflows"])) } else { all(client) };
    let selector = arguments.selector.clone().unwrap_or_default();
    let answer = client.get(&place, Request::query([("listOptions.labelSelector", selector)])).await?;
    Ok(answer["items"].as_array().cloned().unwrap_or_default())
}

async fn list(client: &Client, arguments: &CronList, console: &mut Console) -> Result<bool, Error> {
    let found = find(client, arguments).await?;
    match arguments.output {
        Some(output @ (Output::Json | Output::Yaml)) => {
            let list = Value::Array(found);
            console.print(&formatted(&list, Some(output))?.unwrap_or_default())?;
        }
        Some(Output::Name) => {
            for cron in &found {
                console.print(&format!("{}\n", text(cron, "/metadata/name")))?;
            }
        }
        None | Some(Output::Wide) if found.is_empty() => console.print("No cron workflows found\n")?,
        None | Some(Output::Wide) => {
            console.print(&overview(&found, arguments.all_namespaces, Timestamp::now()))?;
        }
    }
    Ok(true)
}

fn overview(found: &[Value], all_namespaces: bool, now: Timestamp) -> String {
    let head = ["NAME", "AGE", "LAST RUN", "NEXT RUN", "SCHEDULES", "TIMEZONE", "SUSPENDED"];
    let head = all_namespaces.then_some("NAMESPACE").into_iter().chain(head);
    let mut rows = vec![head.map(|title| Cell::styled(title, Style::Bold)).collect::<Vec<_>>()];
    for cron in found {
        let ago = |time: Option<Timestamp>| {
            time.map_or_else(|| "N/A".to_owned(), |time| time::short(time::seconds(time, now)))
        };
        let ahead =
            next(cron, now).map_or_else(|| "N/A".to_owned(), |at| time::short(time::seconds(now, at)));
        let suspended = cron["spec"]["suspend"] == true;
        let style = if suspended { Style::Yellow } else { Style::Plain };
        let mut row: Vec<Cell> = Vec::new();
        if all_namespaces {
            row.push(text(cron, "/metadata/namespace").into());
        }
        row.push(text(cron, "/metadata/name").into());
        row.push(ago(timestamp(cron, "/metadata/creationTimestamp")).into());
        row.push(ago(timestamp(cron, "/status/lastScheduledTime")).into());
        row.push(ahead.into());
        row.push(schedules(cron).into());
        row.push(text(cron, "/spec/timezone").into());
        row.push(Cell::styled(suspended.to_string(), style));
        rows.push(row);
    }
    table::render(&rows, 3)
}

/// A cron workflow in full, as `argo cron get` shows it.
fn details(cron: &Value, now: Timestamp) -> String {
    let mut shown = String::new();
    let mut line = |label: &str, value: &str| {
        let padded = format!("{label:<LABEL_WIDTH$}");
        shown.push_str(&format!("{} {value}\n", Style::Bold.paint(&padded)));
    };
    let full = |time: Timestamp| time::full(time, now);
    line("Name:", text(cron, "/metadata/name"));
    line("Namespace:", text(cron, "/metadata/namespace"));
    if let Some(created) = timestamp(cron, "/metadata/creationTimestamp") {
        line("Created:", &full(created));
    }
    line("Schedules:", &schedules(cron));
    let suspended = cron["spec"]["suspend"] == true;
    let style = if suspended { Style::Yellow } else { Style::Plain };
    line("Suspended:", &style.paint(&suspended.to_string()));
    for (label, field) in [
        ("Timezone:", "timezone"),
        ("StartingDeadlineSeconds:", "startingDeadlineSeconds"),
        ("ConcurrencyPolicy:", "concurrencyPolicy"),
    ] {
        match &cron["spec"][field] {
            Value::String(value) if !value.is_empty() => line(label, value),
            Value::Number(value) => line(label, &value.to_string()),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {}
        }
    }
    if let Some(last) = timestamp(cron, "/status/lastScheduledTime") {
        line("LastScheduledTime:", &full(last));
    }
    if let Some(next) = next(cron, now) {
        let ahead = time::short(time::seconds(now, next));
        let next = next.strftime("%a %b %d %H:%M:%S +0000").to_string();
        line("NextScheduledTime:", &format!("{next} ({ahead} from now)"));
    }
    let active = cron["status"]["active"].as_array().into_iter().flatten();
    let active: Vec<&str> = active.map(|child| text(child, "/name")).collect();
    if !active.is_empty() {
        line("Active Workflows:", &active.join(", "));
    }
    let conditions: Vec<&Value> = cron["status"]["conditions"].as_array().into_iter().flatten().collect();
    if !conditions.is_empty() {
        line("Conditions:", "");
        for condition in conditions {
            let kind = format!("✖ {}", text(condition, "/type"));
            line(&kind, &Style::Red.paint(text(condition, "/message")));
        }
    }
    if text(cron, "/status/phase") == "Stopped" {
        line("Phase:", &Style::Yellow.paint("Stopped"));
    }
    let parameters = cron.pointer("/spec/workflowSpec/arguments/parameters").and_then(Value::as_array);
    let parameters: Vec<&Value> = parameters.into_iter().flatten().collect();
    if !parameters.is_empty() {
        line("Workflow Parameters:", "");
        for parameter in parameters {
            line(&format!("  {}:", text(parameter, "/name")), text(parameter, "/value"));
        }
    }
    shown
}

fn print(cron: &Value, output: Option<Output>, console: &mut Console) -> Result<(), Error> {
    match formatted(cron, output)? {
        Some(text) => console.print(&text),
        None => console.print(&details(cron, Timestamp::now())),
    }
}

async fn get(client: &Client, arguments: &CronGet, console: &mut Console) -> Result<bool, Error> {
    for name in &arguments.names {
        let cron = client.get(&one(client, name), Request::default()).await?;
        print(&cron, arguments.output, console)?;
    }
    Ok(true)
}

/// The cron workflows of the files, as the flags change them.
fn read(arguments: &CronFiles, console: &mut Console) -> Result<Vec<Value>, Error> {
    let changes = Submit {
        name: arguments.name.clone(),
        generate_name: arguments.generate_name.clone(),
        entrypoint: arguments.entrypoint.clone(),
        labels: arguments.labels.clone(),
        serviceaccount: arguments.serviceaccount.clone(),
        parameters: arguments.parameters.clone(),
        parameter_file: arguments.parameter_file.clone(),
        ..Submit::default()
    };
    submit::parse(&arguments.files, console, |cron| {
        expect_kind(cron)?;
        let spec = cron["spec"]["workflowSpec"].take();
        let mut workflow = json!({"metadata": cron["metadata"].take(), "spec": spec});
        manifest::apply(&mut workflow, &changes)?;
        cron["metadata"] = workflow["metadata"].take();
        cron["spec"]["workflowSpec"] = workflow["spec"].take();
        if let Some(schedule) = &arguments.schedule {
            cron["spec"]["schedules"] = json!([schedule]);
        }
        Ok(())
    })
}

fn expect_kind(object: &Value) -> Result<(), Error> {
    match text(object, "/kind") {
        "CronWorkflow" => Ok(()),
        other => Err(Error::Usage(format!("a file holds a {other}, and this command is for CronWorkflow"))),
    }
}

/// The namespace of an object's own, or the one of the command.
fn place(client: &Client, cron: &Value) -> String {
    match text(cron, "/metadata/namespace") {
        "" => client.namespace.clone(),
        own => own.to_owned(),
    }
}

async fn create(client: &Client, arguments: &CronFiles, console: &mut Console) -> Result<bool, Error> {
    for cron in read(arguments, console)? {
        let place = path(&["cron-workflows", &place(client, &cron)]);
        let answer = client.json(Method::POST, &place, Request::body(json!({"cronWorkflow": cron}))).await?;
        print(&answer, arguments.output, console)?;
    }
    Ok(true)
}

async fn update(client: &Client, arguments: &CronFiles, console: &mut Console) -> Result<bool, Error> {
    for mut cron in read(arguments, console)? {
        let name = text(&cron, "/metadata/name").to_owned();
        let place = path(&["cron-workflows", &place(client, &cron), &name]);
        let known = client.get(&place, Request::default()).await?;
        cron["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"].clone();
        let answer = client.json(Method::PUT, &place, Request::body(json!({"cronWorkflow": cron}))).await?;
        print(&answer, arguments.output, console)?;
    }
    Ok(true)
}

async fn lint(client: &Client, arguments: &CronLint, console: &mut Console) -> Result<bool, Error> {
    let crons = submit::parse(&arguments.files, console, |cron| expect_kind(cron))?;
    for cron in &crons {
        let place = path(&["cron-workflows", &place(client, cron), "lint"]);
        client.json(Method::POST, &place, Request::body(json!({"cronWorkflow": cron}))).await?;
    }
    console.print(&format!("{} no linting errors found!\n", Style::Green.paint("✔")))?;
    Ok(true)
}

async fn delete(client: &Client, arguments: &CronDelete, console: &mut Console) -> Result<bool, Error> {
    let mut names = arguments.names.clone();
    if arguments.all {
        let everything = CronList { all_namespaces: false, selector: None, output: None };
        names = find(client, &everything)
            .await?
            .iter()
            .map(|cron| text(cron, "/metadata/name").to_owned())
            .collect();
    }
    for name in &names {
        client.json(Method::DELETE, &one(client, name), Request::default()).await?;
        console.print(&format!("CronWorkflow '{name}' deleted\n"))?;
    }
    Ok(true)
}

async fn set_suspended(
    client: &Client,
    arguments: &CronNames,
    verb: &str,
    console: &mut Console,
) -> Result<bool, Error> {
    let done = if verb == "suspend" { "suspended" } else { "resumed" };
    for name in &arguments.names {
        let place = path(&["cron-workflows", &client.namespace, name, verb]);
        client.json(Method::PUT, &place, Request::body(json!({}))).await?;
        console.print(&format!("CronWorkflow '{name}' {done}\n"))?;
    }
    Ok(true)
}

/// A time as the user wrote it, in Go's layout.
fn moment(text: &str, layout: &str, flag: &str) -> Result<Timestamp, Error> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let read = argosy_spec::parse_go_time(layout, text)
        .map_err(|error| Error::Usage(format!("--{flag} is {text:?}: {error}")))?;
    Timestamp::from_millisecond(read).map_err(|error| Error::Usage(format!("--{flag}: {error}")))
}

async fn backfill(client: &Client, arguments: &CronBackfill, console: &mut Console) -> Result<bool, Error> {
    let start = moment(&arguments.start, &arguments.format, "start")?;
    let end = moment(&arguments.end, &arguments.format, "end")?;
    if end <= start {
        return Err(Error::Usage("--end has to be after --start".to_owned()));
    }
    // The same period without a name is the same backfill.
    let drawn = || format!("{}-{}", start.as_second(), end.as_second());
    let name = arguments.name.clone().unwrap_or_else(drawn);
    let body = json!({
        "name": name,
        "start": start.to_string(),
        "end": end.to_string(),
        "argumentName": arguments.argname,
        "parallel": arguments.parallel,
        "maxWorkflowCount": arguments.maxworkflowcount,
    });
    let place = path(&["cron-workflows", &client.namespace, &arguments.cron, "backfill"]);
    let answer = client.json(Method::POST, &place, Request::body(body)).await?;
    let times: Vec<&str> =
        answer["times"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if times.is_empty() {
        return Err(Error::Usage("There is no suitable scheduling time.".to_owned()));
    }
    let rule = "=".repeat(50);
    console.print(&format!(
        "Created {} Backfill task for Cronworkflow {}\n",
        text(&answer, "/prefix"),
        arguments.cron
    ))?;
    console.print(&format!("{rule}\nBackfill Period :\n"))?;
    console.print(&format!("Start Time : {}\n  End Time : {}\n", arguments.start, arguments.end))?;
    console.print(&format!("Total Backfill Schedule: {}\n{rule}\nBackfill Schedules: \n", times.len()))?;
    for time in times {
        console.print(&format!("{time}\n"))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron() -> Value {
        json!({
            "metadata": {"name": "nightly", "namespace": "ci", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "schedules": ["0 3 * * *"], "timezone": "Europe/Berlin", "suspend": true,
                "workflowSpec": {"arguments": {"parameters": [{"name": "who", "value": "me"}]}},
            },
            "status": {"active": [{"name": "nightly-1"}], "lastScheduledTime": "2026-01-02T02:00:00Z"},
        })
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_table_is_argos() {
        let now: Timestamp = "2026-01-02T03:00:00Z".parse().unwrap();
        let shown = plain(&overview(&[cron()], true, now));
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0].split_whitespace().count(), 10, "LAST RUN and NEXT RUN are two words each");
        assert_eq!(
            lines[1],
            "ci          nightly   1d    1h         23h        0 3 * * *   Europe/Berlin   true"
        );
    }

    #[test]
    fn details_are_argos() {
        let now: Timestamp = "2026-01-02T03:00:00Z".parse().unwrap();
        let shown = plain(&details(&cron(), now));
        for line in [
            "Name:                          nightly",
            "Schedules:                     0 3 * * *",
            "Suspended:                     true",
            "LastScheduledTime:             Fri Jan 02 02:00:00 +0000 (1 hour ago)",
            "NextScheduledTime:             Sat Jan 03 02:00:00 +0000 (23h from now)",
            "Active Workflows:              nightly-1",
            "  who:                         me",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line}\n{shown}");
        }
    }

    #[test]
    fn moments_are_read_in_gos_layouts() {
        let read = |text: &str, layout: &str| moment(text, layout, "start").map(|time| time.to_string());
        let layout = "Mon, 02 Jan 2006 15:04:05 MST";
        assert_eq!(read("Thu, 01 Jan 2026 10:00:00 UTC", layout).unwrap(), "2026-01-01T10:00:00Z");
        assert_eq!(read("2026-01-01", "2006-01-02").unwrap(), "2026-01-01T00:00:00Z");
        assert_eq!(read("2026-01-01T00:00:00Z", layout).unwrap(), "2026-01-01T00:00:00Z");
        assert!(read("soon", layout).is_err());
    }
}
