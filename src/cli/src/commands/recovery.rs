//! What a recovery came to.

use reqwest::Method;

use crate::client::{Client, ClusterInfo, Request, path};
use crate::style::Style;
use crate::table::{self, Cell};
use crate::{Console, Error, Recovery};

/// Steps named below the table.
const STEPS_SHOWN_MAX: usize = 20;

pub(super) async fn recovery(
    client: &Client,
    arguments: &Recovery,
    console: &mut Console,
) -> Result<bool, Error> {
    if let Some(cluster) = &arguments.release {
        client.json(Method::DELETE, &path(&["clusters", cluster, "quarantine"]), Request::default()).await?;
        console.print(&format!("what was in quarantine on {cluster} is stopped\n"))?;
        return Ok(true);
    }
    let clusters = client.clusters().await?;
    let concerned: Vec<&ClusterInfo> = clusters.iter().filter(|cluster| cluster.recovery.is_some()).collect();
    if concerned.is_empty() {
        console.print("This cell never had to be recovered\n")?;
        return Ok(true);
    }
    let header = ["CLUSTER", "STATE", "ADOPTED", "QUARANTINED", "RUN AGAIN"];
    let mut rows: Vec<Vec<Cell>> = vec![header.iter().map(|name| Cell::styled(*name, Style::Bold)).collect()];
    rows.extend(concerned.iter().map(|cluster| row(cluster)));
    console.print(&table::render(&rows, 3))?;
    let steps: Vec<_> = concerned
        .iter()
        .filter_map(|cluster| Some((&cluster.name, cluster.recovery.as_ref()?)))
        .flat_map(|(name, recovery)| recovery.rerun_named.iter().map(move |step| (name, step)))
        .collect();
    for (cluster, step) in steps.iter().take(STEPS_SHOWN_MAX) {
        console.print(&format!(
            "run again: {}/{} {}: cluster {cluster} does not hold it any more, it may have run\n",
            step.namespace, step.workflow, step.node
        ))?;
    }
    if steps.len() > STEPS_SHOWN_MAX {
        console.print(&format!("... and {} more\n", steps.len() - STEPS_SHOWN_MAX))?;
    }
    if concerned.iter().any(|cluster| waits(cluster)) {
        console.hint("nothing is placed on a cluster before its agent has told what runs there");
    } else if concerned.iter().any(|cluster| !quarantined(cluster).is_empty()) {
        console.hint("what is in quarantine ends by itself; stop it with: argosy recovery --release CLUSTER");
    }
    Ok(true)
}

fn waits(cluster: &ClusterInfo) -> bool {
    cluster.recovery.as_ref().is_some_and(|recovery| recovery.reconciling)
}

fn quarantined(cluster: &ClusterInfo) -> &[String] {
    cluster.recovery.as_ref().map(|recovery| recovery.quarantined.as_slice()).unwrap_or_default()
}

fn row(cluster: &ClusterInfo) -> Vec<Cell> {
    let recovery = cluster.recovery.clone().unwrap_or_default();
    let state = if recovery.reconciling {
        Cell::styled("reconciling", Style::Yellow)
    } else {
        Cell::styled("reconciled", Style::Green)
    };
    let count = |count: u64| if recovery.reconciling { "-".to_owned() } else { count.to_string() };
    vec![
        cluster.name.clone().into(),
        state,
        count(recovery.adopted).into(),
        count(recovery.quarantined.len() as u64).into(),
        count(recovery.rerun).into(),
    ]
}
