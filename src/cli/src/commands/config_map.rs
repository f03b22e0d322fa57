//! ConfigMaps that workflows read.

use reqwest::Method;
use serde_json::{Value, json};

use super::{formatted, submit};
use crate::args::{ConfigMap, ConfigMapFiles, ConfigMapGet, ConfigMapNames, Format};
use crate::client::{Client, Request, path};
use crate::{Console, Error, Output};

pub(super) async fn run(client: &Client, command: ConfigMap, console: &mut Console) -> Result<bool, Error> {
    match command {
        ConfigMap::Apply(arguments) => apply(client, &arguments, console).await,
        ConfigMap::List(arguments) => list(client, &arguments, console).await,
        ConfigMap::Get(arguments) => get(client, &arguments, console).await,
        ConfigMap::Delete(arguments) => delete(client, &arguments, console).await,
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Reads all files before anything is changed.
fn read(files: &ConfigMapFiles, console: &mut Console) -> Result<Vec<Value>, Error> {
    let objects = submit::read_objects(&files.files, console)?;
    for object in &objects {
        if text(object, "/kind") != "ConfigMap" {
            return Err(Error::Usage(format!(
                "the file holds a {}, and this command is for ConfigMap",
                object["kind"].as_str().unwrap_or("document without kind")
            )));
        }
        if text(object, "/metadata/name").is_empty() {
            return Err(Error::Usage("a ConfigMap in the file has no metadata.name".to_owned()));
        }
    }
    Ok(objects)
}

async fn apply(client: &Client, files: &ConfigMapFiles, console: &mut Console) -> Result<bool, Error> {
    for object in read(files, console)? {
        let own = text(&object, "/metadata/namespace");
        let namespace = if own.is_empty() { client.namespace.clone() } else { own.to_owned() };
        let name = text(&object, "/metadata/name").to_owned();
        let place = path(&["configmaps", &namespace, &name]);
        let body = || Request::body(json!({"configMap": object}));
        let (answer, done) = match client.json(Method::PUT, &place, body()).await {
            Err(Error::Refused { status: 404, .. }) => {
                let all = path(&["configmaps", &namespace]);
                (client.json(Method::POST, &all, body()).await?, "created")
            }
            other => (other?, "configured"),
        };
        match files.output {
            None => console.print(&format!("configmap/{name} {done}\n"))?,
            Some(_) => print(&answer, files.output, console)?,
        }
    }
    Ok(true)
}

fn print(answer: &Value, output: Option<Output>, console: &mut Console) -> Result<(), Error> {
    let output = output.filter(|output| *output != Output::Wide).unwrap_or(Output::Yaml);
    console.print(&formatted(answer, Some(output))?.unwrap_or_default())
}

async fn list(client: &Client, arguments: &Format, console: &mut Console) -> Result<bool, Error> {
    let answer = client.get(&path(&["configmaps", &client.namespace]), Request::default()).await?;
    if let Some(Output::Json | Output::Yaml) = arguments.output {
        console.print(&formatted(&answer["items"], arguments.output)?.unwrap_or_default())?;
        return Ok(true);
    }
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        console.tell("No resources found");
        return Ok(true);
    }
    if arguments.output == Some(Output::Name) {
        for item in items {
            console.print(&format!("{}\n", text(item, "/metadata/name")))?;
        }
        return Ok(true);
    }
    let wide = items.iter().map(|item| text(item, "/metadata/name").len()).max().unwrap_or(0).max(4);
    console.print(&format!("{:wide$}   DATA   TYPE        FROM\n", "NAME"))?;
    for item in items {
        let data = item["data"].as_object().map_or(0, serde_json::Map::len);
        let kind = text(item, "/metadata/labels/workflows.argoproj.io~1configmap-type");
        let from = text(item, "/metadata/annotations/argosy.dev~1cluster");
        let from = if from.is_empty() { "cell" } else { from };
        console
            .print(&format!("{:wide$}   {data:<4}   {kind:<9}   {from}\n", text(item, "/metadata/name")))?;
    }
    Ok(true)
}

async fn get(client: &Client, arguments: &ConfigMapGet, console: &mut Console) -> Result<bool, Error> {
    let place = path(&["configmaps", &client.namespace, &arguments.name]);
    let answer = client.get(&place, Request::default()).await?;
    print(&answer, arguments.output, console)?;
    Ok(true)
}

async fn delete(client: &Client, arguments: &ConfigMapNames, console: &mut Console) -> Result<bool, Error> {
    for name in &arguments.names {
        let place = path(&["configmaps", &client.namespace, name]);
        client.json(Method::DELETE, &place, Request::default()).await?;
        console.print(&format!("configmap \"{name}\" deleted\n"))?;
    }
    Ok(true)
}
