use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;

use super::{follow, formatted, manifest};
use crate::client::{Client, Request, path};
use crate::model::Workflow;
use crate::style::Style;
use crate::tree::Look;
use crate::{Console, Error, Logs, Output, Submit};

/// Bytes read of a file; the parser refuses more than its own, smaller maximum with a better message.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub(super) fn read_text(file: &Path, console: &mut Console) -> Result<(String, String), Error> {
    use std::io::Read;
    let name = if file == Path::new("-") { "-".to_owned() } else { file.display().to_string() };
    let text = if name == "-" {
        console.read_input(FILE_BYTES_MAX)
    } else {
        std::fs::File::open(file).and_then(|file| {
            let mut text = String::new();
            file.take(FILE_BYTES_MAX).read_to_string(&mut text).map(|_| text)
        })
    };
    let text = text.map_err(|error| Error::File { path: name.clone(), reason: error.to_string() })?;
    Ok((name, text))
}

/// Objects of any kind, as the files hold them: the server checks them.
pub(super) fn read_objects(files: &[std::path::PathBuf], console: &mut Console) -> Result<Vec<Value>, Error> {
    let mut objects = Vec::new();
    for file in files {
        let (path, text) = read_text(file, console)?;
        for document in serde_yaml::Deserializer::from_str(&text) {
            let value: Value =
                serde::Deserialize::deserialize(document).map_err(|error: serde_yaml::Error| {
                    Error::File { path: path.clone(), reason: error.to_string() }
                })?;
            if !value.is_null() {
                objects.push(value);
            }
        }
    }
    Ok(objects)
}

/// Submits a stored template.
pub(super) async fn from_template(
    client: &Client,
    arguments: &Submit,
    console: &mut Console,
) -> Result<bool, Error> {
    let from = arguments.from.as_deref().unwrap_or_default();
    let (kind, name) = from.split_once('/').ok_or_else(|| {
        Error::Usage(format!(
            "--from is {from:?}: it has to be workflowtemplate/NAME or clusterworkflowtemplate/NAME"
        ))
    })?;
    let mut options = json!({"parameters": arguments.parameters, "serverDryRun": arguments.server_dry_run});
    for (field, value) in [
        ("name", &arguments.name),
        ("generateName", &arguments.generate_name),
        ("entryPoint", &arguments.entrypoint),
        ("labels", &arguments.labels),
        ("serviceAccount", &arguments.serviceaccount),
    ] {
        if let Some(value) = value {
            options[field] = json!(value);
        }
    }
    let body = json!({"resourceKind": kind, "resourceName": name, "submitOptions": options});
    let path = path(&["workflows", &client.namespace, "submit"]);
    let (answer, warnings) = client.advised(Method::POST, &path, Request::body(body)).await?;
    tell_warnings(&warnings, console);
    print_accepted(&answer, arguments, console)?;
    if arguments.server_dry_run {
        return Ok(true);
    }
    let name = answer["metadata"]["name"].as_str().unwrap_or_default();
    after(client, arguments, &client.namespace, name, console).await
}

/// Parses and checks all files; every problem of every file is printed.
pub(super) fn parse(
    files: &[std::path::PathBuf],
    console: &mut Console,
    change: impl Fn(&mut Value) -> Result<(), Error>,
) -> Result<Vec<Value>, Error> {
    let mut workflows = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        let (name, text) = read_text(file, console)?;
        let documents = match argosy_spec::parse_yaml(&name, &text, &argosy_spec::Options::default()) {
            Ok(documents) => documents,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        for document in documents {
            for warning in &document.problems {
                console.tell(&paint(&warning.to_string()));
            }
            let mut workflow = document.value.clone();
            change(&mut workflow)?;
            // Flags may supply what validation misses; the places are those of the file.
            let found = if workflow == document.value { document.validate() } else { changed(&workflow) };
            problems.extend(found);
            workflows.push(workflow);
        }
    }
    if problems.is_empty() {
        return Ok(workflows);
    }
    for problem in &problems {
        console.tell(&paint(&problem.to_string()));
    }
    let count =
        if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
    Err(Error::Manifest(format!("{count} in the manifests: nothing was submitted")))
}

/// What the server warns of: a code, a colon, and words.
fn tell_warnings(warnings: &[String], console: &mut Console) {
    for warning in warnings {
        let (code, words) = warning.split_once(": ").unwrap_or(("", warning));
        let words: String = words.chars().filter(|letter| !letter.is_control()).collect();
        console.tell(&paint(&format!("warning[{code}]: {words}")));
    }
}

fn changed(workflow: &Value) -> Vec<argosy_spec::Diagnostic> {
    match argosy_spec::parse_value(workflow.clone(), &argosy_spec::Options::default()) {
        Ok(document) => document.validate(),
        Err(problems) => problems,
    }
}

fn paint(problem: &str) -> String {
    let error = problem.replacen("error[", &format!("{}[", Style::Red.paint("error")), 1);
    error.replacen("warning[", &format!("{}[", Style::Yellow.paint("warning")), 1)
}

/// The manifests with what the flags change.
pub(super) fn read(arguments: &Submit, console: &mut Console) -> Result<Vec<Value>, Error> {
    let workflows = parse(&arguments.files, console, |workflow| manifest::apply(workflow, arguments))?;
    let kind = |workflow: &Value| workflow["kind"].as_str().unwrap_or_default().to_owned();
    if let Some(other) = workflows.iter().map(kind).find(|kind| !["", "Workflow"].contains(&kind.as_str())) {
        let verb = match other.as_str() {
            "WorkflowTemplate" => "template",
            "ClusterWorkflowTemplate" => "cluster-template",
            "CronWorkflow" => "cron",
            _ => return Err(Error::Usage(format!("a file holds a {other}, which cannot be submitted"))),
        };
        return Err(Error::Usage(format!(
            "a file holds a {other}: create it with `argosy {verb} create`, and submit it with `argosy submit --from {}/NAME`",
            other.to_ascii_lowercase()
        )));
    }
    if workflows.len() > 1 && arguments.name.is_some() {
        return Err(Error::Usage(format!(
            "--name with {} workflows: submit one at a time, or use --generate-name",
            workflows.len()
        )));
    }
    Ok(workflows)
}

pub(super) fn print_only(
    arguments: &Submit,
    workflows: &[Value],
    console: &mut Console,
) -> Result<bool, Error> {
    let output = arguments.output.filter(|output| *output != Output::Wide).unwrap_or(Output::Yaml);
    for workflow in workflows {
        console.print(&formatted(workflow, Some(output))?.unwrap_or_default())?;
    }
    Ok(true)
}

fn namespace_of(client: &Client, workflow: &Value) -> String {
    let own = workflow["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty());
    own.map_or_else(|| client.namespace.clone(), str::to_owned)
}

pub(super) async fn submit(
    client: &Client,
    arguments: &Submit,
    workflows: Vec<Value>,
    console: &mut Console,
) -> Result<bool, Error> {
    let mut accepted = Vec::new();
    for workflow in workflows {
        let namespace = namespace_of(client, &workflow);
        let mut body = json!({"workflow": workflow});
        if arguments.server_dry_run {
            body["serverDryRun"] = json!(true);
        }
        let place = path(&["workflows", &namespace]);
        let (answer, warnings) = client.advised(Method::POST, &place, Request::body(body)).await?;
        tell_warnings(&warnings, console);
        let name = answer["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        print_accepted(&answer, arguments, console)?;
        accepted.push((namespace, name));
    }
    if arguments.server_dry_run {
        return Ok(true);
    }
    let mut good = true;
    for (namespace, name) in &accepted {
        good &= after(client, arguments, namespace, name, console).await?;
    }
    Ok(good)
}

pub(super) fn print_accepted(answer: &Value, arguments: &Submit, console: &mut Console) -> Result<(), Error> {
    let dry = arguments.server_dry_run && arguments.output.is_none();
    let output = if dry { Some(Output::Yaml) } else { arguments.output };
    if let Some(text) = formatted(answer, output)? {
        return console.print(&text);
    }
    if arguments.watch && console.interactive {
        return Ok(());
    }
    let text = crate::details::render(&Workflow::read(answer)?, &Look::default(), jiff::Timestamp::now());
    console.print(&text)
}

/// Watches, waits or prints logs as the flags say.
pub(super) async fn after(
    client: &Client,
    arguments: &Submit,
    namespace: &str,
    name: &str,
    console: &mut Console,
) -> Result<bool, Error> {
    if arguments.watch {
        return follow::watch(client, namespace, name, false, console).await;
    }
    if arguments.log {
        let logs = Logs { follow: true, container: "main".to_owned(), ..Logs::default() };
        follow::print_logs(client, namespace, name, &logs, console).await?;
    }
    if arguments.wait || arguments.log {
        return follow::wait(client, namespace, name, console).await;
    }
    console.hint(&format!(
        "follow it with: argosy watch {name} -n {namespace}; its output: argosy logs {name} -n {namespace}"
    ));
    Ok(true)
}
