//! Limits of semaphores.

use reqwest::Method;
use serde_json::{Value, json};

use crate::args::{Sync, SyncKind, SyncLimit, SyncSet};
use crate::client::{Client, Request, path};
use crate::{Console, Error};

pub(super) async fn run(client: &Client, command: Sync, console: &mut Console) -> Result<bool, Error> {
    match command {
        Sync::Create(arguments) => set(client, &arguments, Method::POST, "created", console).await,
        Sync::Update(arguments) => set(client, &arguments, Method::PUT, "updated", console).await,
        Sync::Get(arguments) => get(client, &arguments, console).await,
        Sync::Delete(arguments) => delete(client, &arguments, console).await,
    }
}

fn number(kind: SyncKind) -> u8 {
    match kind {
        SyncKind::Configmap => 0,
        SyncKind::Database => 1,
    }
}

fn place(client: &Client, limit: &SyncLimit) -> String {
    path(&["sync", &client.namespace, &limit.key])
}

fn query(limit: &SyncLimit) -> Request {
    Request::query([("type", number(limit.kind).to_string()), ("cmName", limit.cm_name.clone())])
}

async fn set(
    client: &Client,
    arguments: &SyncSet,
    method: Method,
    done: &str,
    console: &mut Console,
) -> Result<bool, Error> {
    let SyncSet { place: limit, limit: number_of_holders } = arguments;
    let body = json!({
        "key": limit.key,
        "limit": number_of_holders,
        "type": number(limit.kind),
        "cmName": limit.cm_name,
    });
    let place =
        if method == Method::POST { path(&["sync", &client.namespace]) } else { place(client, limit) };
    let answer = client.json(method, &place, Request::body(body)).await?;
    console.print(&format!("Sync limit {done}\n{}", shown(&answer)))?;
    Ok(true)
}

fn shown(answer: &Value) -> String {
    let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    let config_map = text("cmName");
    let kept =
        if config_map.is_empty() { "control plane".to_owned() } else { format!("configmap {config_map}") };
    format!(
        "Key: {}\nNamespace: {}\nLimit: {}\nKept in: {kept}\n",
        text("key"),
        text("namespace"),
        answer["limit"]
    )
}

async fn get(client: &Client, limit: &SyncLimit, console: &mut Console) -> Result<bool, Error> {
    let answer = client.get(&place(client, limit), query(limit)).await?;
    console.print(&shown(&answer))?;
    Ok(true)
}

async fn delete(client: &Client, limit: &SyncLimit, console: &mut Console) -> Result<bool, Error> {
    client.json(Method::DELETE, &place(client, limit), query(limit)).await?;
    console.print(&format!("Sync limit {} deleted\n", limit.key))?;
    Ok(true)
}
