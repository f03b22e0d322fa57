use jiff::Timestamp;

use super::formatted;
use crate::client::{Client, Request, path};
use crate::details;
use crate::model::Workflow;
use crate::tree::Look;
use crate::{Console, Error, Get, Output};

/// The name behind `@latest`.
pub(super) async fn resolve(client: &Client, name: &str) -> Result<String, Error> {
    if name != "@latest" {
        return Ok(name.to_owned());
    }
    let request = Request::query([("fields", "metadata.name".to_owned())]);
    let workflow = client.get(&path(&["workflows", &client.namespace, name]), request).await?;
    Ok(workflow["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}

pub(super) async fn get(client: &Client, arguments: &Get, console: &mut Console) -> Result<bool, Error> {
    for name in &arguments.names {
        let workflow = client.workflow(&client.namespace, name).await?;
        let look = Look {
            wide: arguments.output == Some(Output::Wide),
            no_utf8: arguments.no_utf8,
            status: arguments.status.clone(),
        };
        let text = match formatted(&workflow, arguments.output)? {
            Some(text) => text,
            None => details::render(&Workflow::read(&workflow)?, &look, Timestamp::now()),
        };
        console.print(&text)?;
    }
    Ok(true)
}
