//! Stored templates, of a namespace or of the whole cell.

use reqwest::Method;
use serde_json::{Value, json};

use super::{formatted, submit};
use crate::args::{Format, Template, TemplateFiles, TemplateGet, TemplateNames};
use crate::client::{Client, Request, path};
use crate::{Console, Error, Output};

/// Where the templates are.
struct Place<'a> {
    client: &'a Client,
    cluster_scope: bool,
}

impl Place<'_> {
    fn path(&self, rest: &[&str]) -> String {
        let mut parts = if self.cluster_scope {
            vec!["cluster-workflow-templates"]
        } else {
            vec!["workflow-templates", self.client.namespace.as_str()]
        };
        parts.extend(rest);
        path(&parts)
    }

    fn kind(&self) -> &'static str {
        if self.cluster_scope { "ClusterWorkflowTemplate" } else { "WorkflowTemplate" }
    }
}

pub(super) async fn run(
    client: &Client,
    cluster_scope: bool,
    command: Template,
    console: &mut Console,
) -> Result<bool, Error> {
    let place = Place { client, cluster_scope };
    match command {
        Template::List(arguments) => list(&place, &arguments, console).await,
        Template::Get(arguments) => get(&place, &arguments, console).await,
        Template::Create(arguments) => create(&place, &arguments, console).await,
        Template::Update(arguments) => update(&place, &arguments, console).await,
        Template::Delete(arguments) => delete(&place, &arguments, console).await,
        Template::Lint(arguments) => lint(&place, &arguments, console).await,
    }
}

async fn list(place: &Place<'_>, arguments: &Format, console: &mut Console) -> Result<bool, Error> {
    let answer = place.client.get(&place.path(&[]), Request::default()).await?;
    if let Some(Output::Json | Output::Yaml) = arguments.output {
        console.print(&formatted(&answer["items"], arguments.output)?.unwrap_or_default())?;
        return Ok(true);
    }
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        console.tell("No resources found");
        return Ok(true);
    }
    let header = !matches!(arguments.output, Some(Output::Name));
    if header {
        console.print("NAME\n")?;
    }
    for item in items {
        console.print(&format!("{}\n", item["metadata"]["name"].as_str().unwrap_or_default()))?;
    }
    Ok(true)
}

async fn get(place: &Place<'_>, arguments: &TemplateGet, console: &mut Console) -> Result<bool, Error> {
    let answer = place.client.get(&place.path(&[&arguments.name]), Request::default()).await?;
    print(&answer, arguments.output.or(Some(Output::Yaml)), console)
}

fn print(answer: &Value, output: Option<Output>, console: &mut Console) -> Result<bool, Error> {
    let output = output.filter(|output| *output != Output::Wide).unwrap_or(Output::Name);
    console.print(&formatted(answer, Some(output))?.unwrap_or_default())?;
    Ok(true)
}

fn read(place: &Place<'_>, files: &TemplateFiles, console: &mut Console) -> Result<Vec<Value>, Error> {
    let templates = submit::read_objects(&files.files, console)?;
    let other = templates.iter().find(|template| {
        template["kind"].as_str().is_some_and(|kind| !kind.is_empty() && kind != place.kind())
    });
    match other {
        Some(other) => Err(Error::Usage(format!(
            "the file holds a {}, and this command is for {}",
            other["kind"].as_str().unwrap_or_default(),
            place.kind()
        ))),
        None => Ok(templates),
    }
}

async fn create(place: &Place<'_>, arguments: &TemplateFiles, console: &mut Console) -> Result<bool, Error> {
    for template in read(place, arguments, console)? {
        let body = Request::body(json!({"template": template}));
        let answer = place.client.json(Method::POST, &place.path(&[]), body).await?;
        print(&answer, arguments.output, console)?;
    }
    Ok(true)
}

async fn update(place: &Place<'_>, arguments: &TemplateFiles, console: &mut Console) -> Result<bool, Error> {
    for mut template in read(place, arguments, console)? {
        let name = template["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if template["metadata"]["resourceVersion"].is_null() {
            let known = place.client.get(&place.path(&[&name]), Request::default()).await?;
            template["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"].clone();
        }
        let body = Request::body(json!({"template": template}));
        let answer = place.client.json(Method::PUT, &place.path(&[&name]), body).await?;
        print(&answer, arguments.output, console)?;
    }
    Ok(true)
}

async fn lint(place: &Place<'_>, arguments: &TemplateFiles, console: &mut Console) -> Result<bool, Error> {
    let templates = read(place, arguments, console)?;
    for template in &templates {
        let body = Request::body(json!({"template": template}));
        place.client.json(Method::POST, &place.path(&["lint"]), body).await?;
    }
    console.print(&format!("no linting errors found in {} template(s)\n", templates.len()))?;
    Ok(true)
}

async fn delete(place: &Place<'_>, arguments: &TemplateNames, console: &mut Console) -> Result<bool, Error> {
    for name in &arguments.names {
        place.client.json(Method::DELETE, &place.path(&[name]), Request::default()).await?;
        console.print(&format!("{} '{name}' deleted\n", place.kind()))?;
    }
    Ok(true)
}
