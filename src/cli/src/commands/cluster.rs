//! Clusters.

use reqwest::Method;
use serde_json::{Value, json};

use super::{cluster_change, formatted};
use crate::client::{Amounts, Client, ClusterInfo, Request, path};
use crate::style::Style;
use crate::table::{self, Cell};
use crate::{Cluster, Console, Error, Format, Invite, Output};

pub(super) async fn cluster(client: &Client, command: Cluster, console: &mut Console) -> Result<bool, Error> {
    match command {
        Cluster::Invite(arguments) => invite(client, &arguments, console).await,
        Cluster::List(arguments) => list(client, &arguments, console).await,
        Cluster::Cordon(arguments) => change(client, &arguments.name, "cordon", json!({}), console).await,
        Cluster::Uncordon(arguments) => change(client, &arguments.name, "uncordon", json!({}), console).await,
        Cluster::Drain(arguments) => cluster_change::drain(client, &arguments, console).await,
        Cluster::Label(arguments) => {
            let body = cluster_change::labels(&arguments.marks)?;
            change(client, &arguments.name, "label", body, console).await
        }
        Cluster::Taint(arguments) => {
            let body = cluster_change::taints(&arguments.marks)?;
            change(client, &arguments.name, "taint", body, console).await
        }
        Cluster::Approve(arguments) => {
            change(client, &arguments.name, "approve", json!({"reason": arguments.reason}), console).await
        }
        Cluster::Revoke(arguments) => {
            change(client, &arguments.name, "revoke", json!({"reason": arguments.reason}), console).await?;
            console.hint(&format!("to let it in again: argosy cluster invite {}", arguments.name));
            Ok(true)
        }
        Cluster::Remove(arguments) => {
            let body = json!({"forget": arguments.forget});
            change(client, &arguments.name, "remove", body, console).await
        }
        Cluster::Replace(arguments) => {
            change(client, &arguments.name, "remove", json!({"forget": true}), console).await?;
            invite(client, &arguments, console).await
        }
        Cluster::Rejoin(arguments) => invite(client, &arguments, console).await,
        Cluster::Get(arguments) => {
            let answer = client.get(&path(&["clusters", &arguments.name]), Request::default()).await?;
            // A cluster has no short form: without a format all of it is printed.
            let output = arguments.output.filter(|output| *output != Output::Wide).unwrap_or(Output::Yaml);
            console.print(&formatted(&answer, Some(output))?.unwrap_or_default())?;
            Ok(true)
        }
    }
}

/// Gives an order about a cluster and says how the cluster stands.
async fn change(
    client: &Client,
    name: &str,
    verb: &str,
    body: Value,
    console: &mut Console,
) -> Result<bool, Error> {
    let answer = client.json(Method::POST, &path(&["clusters", name, verb]), Request::body(body)).await?;
    let state = answer["state"].as_str().unwrap_or("removed");
    console.print(&format!("cluster {name} {state}\n"))?;
    Ok(true)
}

async fn invite(client: &Client, arguments: &Invite, console: &mut Console) -> Result<bool, Error> {
    let body = json!({"ttlSeconds": arguments.ttl.as_secs()});
    let answer = client
        .json(Method::POST, &path(&["clusters", &arguments.name, "invite"]), Request::body(body))
        .await?;
    let token = answer["token"].as_str().unwrap_or_default();
    match arguments.output {
        Some(Output::Json | Output::Yaml) => {
            console.print(&formatted(&answer, arguments.output)?.unwrap_or_default())?
        }
        None | Some(Output::Name | Output::Wide) => console.print(&format!("{token}\n"))?,
    }
    console.hint(&format!(
        "good for one agent until {}; on the cluster: argosy-agent --cluster {} --invite TOKEN",
        answer["expiresAt"].as_str().unwrap_or_default(),
        arguments.name,
    ));
    Ok(true)
}

pub(super) fn style_of_state(state: &str) -> Style {
    match state {
        "connected" => Style::Green,
        "lost" | "revoked" | "locked" => Style::Red,
        "silent" | "degraded" | "reconciling" | "unapproved" => Style::Yellow,
        _ => Style::Plain,
    }
}

fn cores(milli: i64) -> String {
    if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") }
}

fn memory(bytes: i64) -> String {
    const UNITS: [(&str, i64); 3] = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{}{unit}", bytes / size),
        None => bytes.to_string(),
    }
}

fn used(requested: &Amounts, allocatable: &Amounts) -> [Cell; 3] {
    [
        format!("{}/{}", cores(requested.cpu_milli), cores(allocatable.cpu_milli)).into(),
        format!("{}/{}", memory(requested.memory_bytes), memory(allocatable.memory_bytes)).into(),
        format!("{}/{}", requested.pods, allocatable.pods).into(),
    ]
}

fn row(cluster: &ClusterInfo) -> Vec<Cell> {
    let lease = cluster.lease_remaining_seconds.map(|seconds| format!("{seconds}s")).unwrap_or_default();
    let mut cells: Vec<Cell> = vec![
        cluster.name.clone().into(),
        Cell::styled(&cluster.state, style_of_state(&cluster.state)),
        cluster.runtime.clone().into(),
        cluster.attempts.to_string().into(),
    ];
    cells.extend(used(&cluster.requested, &cluster.allocatable));
    cells.extend([lease.into(), cluster.agent_version.clone().into()]);
    cells
}

async fn list(client: &Client, arguments: &Format, console: &mut Console) -> Result<bool, Error> {
    if print_items(client, "clusters", arguments, console).await? {
        return Ok(true);
    }
    let clusters = client.clusters().await?;
    if clusters.is_empty() {
        console.print("No clusters found\n")?;
        console.hint("invite one with: argosy cluster invite NAME");
        return Ok(true);
    }
    let header = ["NAME", "STATE", "RUNTIME", "STEPS", "CPU", "MEMORY", "PODS", "LEASE", "AGENT"];
    let mut rows: Vec<Vec<Cell>> = vec![header.iter().map(|name| Cell::styled(*name, Style::Bold)).collect()];
    rows.extend(clusters.iter().map(row));
    console.print(&table::render(&rows, 3))?;
    Ok(true)
}

/// The list in another format than the table; false when it has to be a table.
pub(super) async fn print_items(
    client: &Client,
    what: &str,
    arguments: &Format,
    console: &mut Console,
) -> Result<bool, Error> {
    let Some(output) = arguments.output.filter(|output| *output != Output::Wide) else { return Ok(false) };
    let answer = client.get(&path(&[what]), Request::default()).await?;
    let text = match output {
        Output::Name => {
            let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let name =
                |item: &Value| item["name"].as_str().map_or_else(|| item["id"].to_string(), str::to_owned);
            items.iter().map(|item| format!("{}\n", name(item))).collect()
        }
        Output::Json | Output::Yaml | Output::Wide => {
            formatted(&answer["items"], Some(output))?.unwrap_or_default()
        }
    };
    console.print(&text)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_on_one_line() {
        let cluster = ClusterInfo {
            name: "eu".into(),
            state: "connected".into(),
            runtime: "process".into(),
            labels: std::collections::BTreeMap::new(),
            agent_version: "0.1.0".into(),
            attempts: 2,
            lease_remaining_seconds: Some(18),
            recovery: None,
            allocatable: Amounts { cpu_milli: 4000, memory_bytes: 8 << 30, pods: 110 },
            requested: Amounts { cpu_milli: 1500, memory_bytes: 300 << 20, pods: 2 },
        };
        let text = table::render(&[row(&cluster)], 2);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "eu  connected  process  2  1500m/4  300Mi/8Gi  2/110  18s  0.1.0\n"
        );
    }
}
