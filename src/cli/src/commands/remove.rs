//! Stopping and deleting.

use reqwest::Method;
use serde_json::{Value, json};

use super::list::{Wanted, find};
use super::show::resolve;
use crate::client::{Client, Request, path};
use crate::{Console, Delete, Error, Stop};

const PAGE: u32 = 500;
const FIELDS: &str = "metadata,items.metadata.name,items.metadata.namespace,items.metadata.labels";
/// Of archived workflows: they are listed, and can be neither stopped nor deleted as live ones.
const ARCHIVED: &str = "workflows.argoproj.io/workflow-archiving-status";

fn keys(found: &[Value]) -> Vec<(String, String)> {
    let text =
        |workflow: &Value, field: &str| workflow["metadata"][field].as_str().unwrap_or_default().to_owned();
    let live = found.iter().filter(|workflow| workflow["metadata"]["labels"][ARCHIVED] != "Persisted");
    live.map(|workflow| (text(workflow, "namespace"), text(workflow, "name"))).collect()
}

pub(super) async fn shutdown(
    client: &Client,
    arguments: &Stop,
    verb: &str,
    console: &mut Console,
) -> Result<bool, Error> {
    let mut targets = Vec::new();
    for name in &arguments.names {
        targets.push((client.namespace.clone(), resolve(client, name).await?));
    }
    if let Some(selector) = &arguments.selector {
        let wanted =
            Wanted { selector: Some(selector.clone()), running: true, chunk_size: PAGE, ..Wanted::default() };
        targets.extend(keys(&find(client, &wanted, FIELDS).await?));
    } else if arguments.names.is_empty() {
        return Err(Error::Usage(format!("nothing to {verb}: name workflows, or select them with -l")));
    }
    let word = if verb == "stop" { "stopped" } else { "terminated" };
    for (namespace, name) in targets {
        if arguments.dry_run {
            console.print(&format!("workflow {name} {word} (dry-run)\n"))?;
            continue;
        }
        let mut body = json!({});
        for (field, value) in
            [("message", &arguments.message), ("nodeFieldSelector", &arguments.node_field_selector)]
        {
            if !value.is_empty() {
                body[field] = json!(value);
            }
        }
        client.json(Method::PUT, &path(&["workflows", &namespace, &name, verb]), Request::body(body)).await?;
        console.print(&format!("workflow {name} {word}\n"))?;
    }
    Ok(true)
}

pub(super) async fn delete(
    client: &Client,
    arguments: &Delete,
    console: &mut Console,
) -> Result<bool, Error> {
    let mut targets = Vec::new();
    for name in &arguments.names {
        targets.push((client.namespace.clone(), resolve(client, name).await?));
    }
    let selects = arguments.completed
        || arguments.selector.is_some()
        || arguments.prefix.is_some()
        || arguments.older.is_some();
    if arguments.all || selects {
        let wanted = Wanted {
            all_namespaces: arguments.all_namespaces,
            selector: arguments.selector.clone(),
            prefix: arguments.prefix.clone(),
            completed: arguments.completed,
            older: arguments.older,
            chunk_size: PAGE,
            ..Wanted::default()
        };
        targets.extend(keys(&find(client, &wanted, FIELDS).await?));
    } else if targets.is_empty() {
        return Err(Error::Usage(
            "nothing to delete: name workflows, or say --all, --completed, --older or -l".to_owned(),
        ));
    }
    if targets.is_empty() {
        console.print("No resources found\n")?;
    }
    for (namespace, name) in targets {
        if arguments.dry_run {
            console.print(&format!("Workflow '{name}' deleted (dry-run)\n"))?;
            continue;
        }
        client.json(Method::DELETE, &path(&["workflows", &namespace, &name]), Request::default()).await?;
        console.print(&format!("Workflow '{name}' deleted\n"))?;
    }
    Ok(true)
}
