//! What operators do to workflows: suspend, resume, retry, resubmit, set.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::show::resolve;
use super::submit;
use crate::args::{NodeSet, Resubmit, Resume, Retry, Then};
use crate::client::{Client, Request, path};
use crate::{Console, Error, Names, Submit};

async fn put(client: &Client, name: &str, verb: &str, body: Value) -> Result<Value, Error> {
    let path = path(&["workflows", &client.namespace, name, verb]);
    client.json(Method::PUT, &path, Request::body(body)).await
}

pub(super) async fn suspend(
    client: &Client,
    arguments: &Names,
    console: &mut Console,
) -> Result<bool, Error> {
    for name in &arguments.names {
        let name = resolve(client, name).await?;
        put(client, &name, "suspend", json!({})).await?;
        console.print(&format!("workflow {name} suspended\n"))?;
    }
    Ok(true)
}

pub(super) async fn resume(
    client: &Client,
    arguments: &Resume,
    console: &mut Console,
) -> Result<bool, Error> {
    for name in &arguments.names {
        let name = resolve(client, name).await?;
        put(client, &name, "resume", json!({"nodeFieldSelector": arguments.node_field_selector})).await?;
        console.print(&format!("workflow {name} resumed\n"))?;
    }
    Ok(true)
}

pub(super) async fn set(client: &Client, arguments: &NodeSet, console: &mut Console) -> Result<bool, Error> {
    let name = resolve(client, &arguments.name).await?;
    let mut outputs = Map::new();
    for pair in &arguments.output_parameters {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            Error::Usage(format!("expected parameter of the form: NAME=VALUE. Received: {pair}"))
        })?;
        outputs.insert(key.to_owned(), json!(value));
    }
    let mut body = json!({
        "nodeFieldSelector": arguments.node_field_selector,
        "phase": arguments.phase,
        "message": arguments.message,
    });
    if !outputs.is_empty() {
        body["outputParameters"] = json!(Value::Object(outputs).to_string());
    }
    put(client, &name, "set", body).await?;
    console.print("workflow values set\n")?;
    Ok(true)
}

pub(super) async fn retry(client: &Client, arguments: &Retry, console: &mut Console) -> Result<bool, Error> {
    let mut good = true;
    for name in &arguments.names {
        let name = resolve(client, name).await?;
        let body = json!({
            "restartSuccessful": arguments.restart_successful,
            "nodeFieldSelector": arguments.node_field_selector,
            "parameters": arguments.parameters,
        });
        let answer = put(client, &name, "retry", body).await?;
        good &= follow(client, &arguments.then, &answer, console).await?;
    }
    Ok(good)
}

pub(super) async fn resubmit(
    client: &Client,
    arguments: &Resubmit,
    console: &mut Console,
) -> Result<bool, Error> {
    let mut good = true;
    for name in &arguments.names {
        let name = resolve(client, name).await?;
        let body = json!({"memoized": arguments.memoized, "parameters": arguments.parameters});
        let answer = put(client, &name, "resubmit", body).await?;
        good &= follow(client, &arguments.then, &answer, console).await?;
    }
    Ok(good)
}

async fn follow(client: &Client, then: &Then, answer: &Value, console: &mut Console) -> Result<bool, Error> {
    let like = Submit {
        watch: then.watch,
        wait: then.wait,
        log: then.log,
        output: then.output,
        ..Submit::default()
    };
    submit::print_accepted(answer, &like, console)?;
    let name = answer["metadata"]["name"].as_str().unwrap_or_default();
    submit::after(client, &like, &client.namespace, name, console).await
}
