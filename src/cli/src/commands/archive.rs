//! The archive: Argo's verbs.

use reqwest::Method;
use serde_json::{Value, json};

use super::{formatted, list};
use crate::archive_args::{
    Archive, ArchiveGet, ArchiveLabel, ArchiveList, ArchiveNames, ArchiveResubmit, ArchiveRetry,
};
use crate::client::{Client, Request, path};
use crate::model::Workflow;
use crate::tree::Look;
use crate::{Console, Error, Output};

pub(super) async fn run(client: &Client, command: Archive, console: &mut Console) -> Result<bool, Error> {
    match command {
        Archive::List(arguments) => list_all(client, &arguments, console).await,
        Archive::Get(arguments) => get(client, &arguments, console).await,
        Archive::Delete(arguments) => delete(client, &arguments, console).await,
        Archive::Retry(arguments) => retry(client, &arguments, console).await,
        Archive::Resubmit(arguments) => resubmit(client, &arguments, console).await,
        Archive::ListLabelKeys => labels(client, "archived-workflows-label-keys", None, console).await,
        Archive::ListLabelValues(ArchiveLabel { selector }) => {
            labels(client, "archived-workflows-label-values", Some(selector), console).await
        }
    }
}

async fn list_all(client: &Client, arguments: &ArchiveList, console: &mut Console) -> Result<bool, Error> {
    let mut found: Vec<Value> = Vec::new();
    let mut offset = String::new();
    loop {
        let request = Request::query([
            ("namespace", client.namespace.clone()),
            ("listOptions.labelSelector", arguments.selector.clone().unwrap_or_default()),
            ("listOptions.limit", arguments.chunk_size.to_string()),
            ("listOptions.continue", offset),
        ]);
        let answer = client.get(&path(&["archived-workflows"]), request).await?;
        found.extend(answer["items"].as_array().cloned().unwrap_or_default());
        offset = answer["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if offset.is_empty() {
            break;
        }
    }
    list::print(&found, arguments.output, console)?;
    Ok(true)
}

/// The uid of what was named: a uid itself, or the name of an archived workflow of the namespace.
async fn uid_of(client: &Client, name: &str) -> Result<String, Error> {
    let request = Request::query([
        ("namespace", client.namespace.clone()),
        ("listOptions.fieldSelector", format!("metadata.name={name}")),
    ]);
    let answer = client.get(&path(&["archived-workflows"]), request).await?;
    let found = answer["items"][0]["metadata"]["uid"].as_str();
    Ok(found.unwrap_or(name).to_owned())
}

fn show(workflow: &Value, output: Option<Output>, console: &mut Console) -> Result<(), Error> {
    match formatted(workflow, output)? {
        Some(text) => console.print(&text),
        None => {
            let read = Workflow::read(workflow)?;
            console.print(&crate::details::render(&read, &Look::default(), jiff::Timestamp::now()))
        }
    }
}

async fn get(client: &Client, arguments: &ArchiveGet, console: &mut Console) -> Result<bool, Error> {
    for name in &arguments.which.names {
        let uid = uid_of(client, name).await?;
        let workflow = client.get(&path(&["archived-workflows", &uid]), Request::default()).await?;
        show(&workflow, arguments.output, console)?;
    }
    Ok(true)
}

async fn delete(client: &Client, arguments: &ArchiveNames, console: &mut Console) -> Result<bool, Error> {
    for name in &arguments.names {
        let uid = uid_of(client, name).await?;
        client.json(Method::DELETE, &path(&["archived-workflows", &uid]), Request::default()).await?;
        console.print(&format!("Archived workflow '{uid}' deleted\n"))?;
    }
    Ok(true)
}

async fn retry(client: &Client, arguments: &ArchiveRetry, console: &mut Console) -> Result<bool, Error> {
    for name in &arguments.which.names {
        let uid = uid_of(client, name).await?;
        let body = json!({
            "uid": uid,
            "restartSuccessful": arguments.restart_successful,
            "nodeFieldSelector": arguments.node_field_selector,
            "parameters": arguments.parameters,
        });
        let place = path(&["archived-workflows", &uid, "retry"]);
        let workflow = client.json(Method::PUT, &place, Request::body(body)).await?;
        show(&workflow, arguments.output, console)?;
    }
    Ok(true)
}

async fn resubmit(
    client: &Client,
    arguments: &ArchiveResubmit,
    console: &mut Console,
) -> Result<bool, Error> {
    for name in &arguments.which.names {
        let uid = uid_of(client, name).await?;
        let body = json!({"uid": uid, "memoized": arguments.memoized, "parameters": arguments.parameters});
        let place = path(&["archived-workflows", &uid, "resubmit"]);
        let workflow = client.json(Method::PUT, &place, Request::body(body)).await?;
        show(&workflow, arguments.output, console)?;
    }
    Ok(true)
}

async fn labels(
    client: &Client,
    route: &str,
    key: Option<String>,
    console: &mut Console,
) -> Result<bool, Error> {
    let request = Request::query([("listOptions.labelSelector", key.unwrap_or_default())]);
    let answer = client.get(&path(&[route]), request).await?;
    for item in answer["items"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        console.print(&format!("{item}\n"))?;
    }
    Ok(true)
}
