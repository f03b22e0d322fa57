//! The leader's duty in object stores: what state wants done there, some agent does. Level-triggered: a new leader begins
//! where state stands, and everything may be done twice.

use crate::cell::MemberCell;
use argosy_artifacts::Operation;
use argosy_gateway::{Cell, CommandError};
use argosy_proto::command::{Command, ReportArtifactTask, command};
use argosy_proto::state::{ArtifactCopy, ArtifactTask};
use futures::StreamExt;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Tasks under way at one time.
const TASKS_MAX: usize = 32;
/// Between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What one agent may take for one operation, copies of large objects included.
const OPERATION_MAX: Duration = Duration::from_secs(2 * 3600);

/// Does what is due while this member leads, until it stops.
pub async fn keep(cell: MemberCell, stop: CancellationToken) {
    let mut under_way: BTreeSet<u64> = BTreeSet::new();
    let mut tasks: JoinSet<u64> = JoinSet::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(ended) = tasks.join_next() => {
                if let Ok(task) = ended {
                    under_way.remove(&task);
                }
            }
            _ = look.tick() => {
                let status = cell.status();
                if status.leader != Some(status.member) {
                    tasks.abort_all();
                    under_way.clear();
                    continue;
                }
                let state = cell.published.borrow().state.clone();
                let now_ms = crate::core::clock().wall_ms.max(state.log_time().0);
                for (number, task) in state.artifact_tasks_due(now_ms) {
                    if under_way.len() >= TASKS_MAX {
                        cell.metrics.limit_hit("artifact_tasks_under_way_max");
                        break;
                    }
                    if under_way.insert(number) {
                        tasks.spawn(carry_out(cell.clone(), number, task.clone()));
                    }
                }
            }
        }
    }
}

async fn carry_out(cell: MemberCell, number: u64, task: ArtifactTask) -> u64 {
    let mut error = String::new();
    for copy in &task.copies {
        if let Err(problem) = one(&cell, &task, copy).await {
            error = problem;
            break;
        }
    }
    if !error.is_empty() {
        tracing::warn!(task = number, error, "a task in an object store failed");
    }
    let report = ReportArtifactTask { task: number, error, permanent: false };
    let command =
        Command { version: 1, idempotency_key: None, body: Some(command::Body::ReportArtifactTask(report)) };
    match cell.command(command).await {
        Ok(_) => {}
        // It is still in state, and done again.
        Err(CommandError::NotLeader | CommandError::Overloaded | CommandError::Unknown) => {}
        Err(CommandError::Refused(refusal)) => {
            tracing::error!(code = refusal.code, refusal.message, "a task's report was refused");
        }
    }
    number
}

/// Tries the clusters that are connected, the one that made the artifact first: any with the Secrets will do.
async fn one(cell: &MemberCell, task: &ArtifactTask, copy: &ArtifactCopy) -> Result<(), String> {
    let location: Map<String, Value> = serde_json::from_str(&copy.location_json)
        .map_err(|error| format!("the location can't be read: {error}"))?;
    let namespace = task.namespace.clone();
    let operation = if copy.to.is_empty() {
        Operation::Delete { namespace, location, key: copy.from.clone(), below: copy.directory }
    } else {
        Operation::Copy {
            namespace,
            location,
            from: copy.from.clone(),
            to: copy.to.clone(),
            directory: copy.directory,
            size: copy.size,
        }
    };
    let operation = serde_json::to_string(&operation).map_err(|error| error.to_string())?;
    let mut clusters: Vec<String> =
        cell.status().sessions.into_iter().map(|session| session.cluster).collect();
    clusters.sort_by_key(|name| (*name != task.cluster, name.clone()));
    let mut last = "no cluster is connected".to_owned();
    for cluster in clusters {
        let asked = tokio::time::timeout(OPERATION_MAX, ask(cell, &cluster, operation.clone()));
        match asked.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = format!("cluster {cluster}: {error}"),
            Err(_) => last = format!("cluster {cluster} does not answer"),
        }
    }
    Err(last)
}

async fn ask(cell: &MemberCell, cluster: &str, operation: String) -> Result<(), String> {
    let mut parts = cell.operate(cluster, operation).await.map_err(|error| error.to_string())?;
    while let Some(part) = parts.next().await {
        part.map_err(|error| error.to_string())?;
    }
    Ok(())
}
