//! Failover: what is silent, what waits and for what, and the storm brake.

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::formatted;
use crate::args::{Failover, FailoverResume};
use crate::client::{Client, Request, path};
use crate::model::{Lease, TakeOver};
use crate::style::Style;
use crate::table::{self, Cell};
use crate::{Console, Error, Format, time};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    storm_brake: StormBrake,
    clusters: Vec<Cluster>,
    waiting: Vec<Waiting>,
    queued: Vec<Queued>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StormBrake {
    held: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    until_resumed: bool,
    reason: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Cluster {
    name: String,
    state: String,
    attempts: u64,
    lease: Lease,
    take_over: Option<TakeOver>,
    take_over_resumed: Option<Resumed>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Resumed {
    cluster: String,
    by: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Waiting {
    namespace: String,
    workflow: String,
    node: String,
    cluster: String,
    fence: String,
    take_over: TakeOver,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Queued {
    namespace: String,
    workflow: String,
    node: String,
    reason: String,
}

pub(super) async fn failover(
    client: &Client,
    command: Failover,
    console: &mut Console,
) -> Result<bool, Error> {
    match command {
        Failover::Status(arguments) => status(client, &arguments, console).await,
        Failover::Resume(arguments) => resume(client, &arguments, console).await,
    }
}

fn read<T: for<'a> Deserialize<'a>>(answer: &Value) -> Result<T, Error> {
    T::deserialize(answer).map_err(|error| Error::Answer(error.to_string()))
}

async fn status(client: &Client, arguments: &Format, console: &mut Console) -> Result<bool, Error> {
    let answer = client.get(&path(&["failover"]), Request::default()).await?;
    let text = match formatted(&answer, arguments.output)? {
        Some(text) => text,
        None => shown(&read(&answer)?, Timestamp::now()),
    };
    console.print(&text)?;
    Ok(true)
}

fn storm_line(storm: &StormBrake, now: Timestamp) -> String {
    let Some(since) = storm.since else { return "off".to_owned() };
    let since = time::short(time::seconds(since, now));
    let state = match (storm.held, storm.until) {
        (false, _) => "released".to_owned(),
        (true, Some(until)) => {
            format!("holds take-overs for at most {} more", time::short(time::seconds(now, until)))
        }
        (true, None) if storm.until_resumed => "holds take-overs until they are resumed".to_owned(),
        (true, None) => "holds take-overs".to_owned(),
    };
    format!("{state}: {} {since} ago", storm.reason)
}

fn header(names: &[&str]) -> Vec<Cell> {
    names.iter().map(|name| Cell::styled(*name, Style::Bold)).collect()
}

fn cluster_row(cluster: &Cluster, now: Timestamp) -> Vec<Cell> {
    let mut waits = cluster.take_over.as_ref().map(|waits| waits.text(now)).unwrap_or_default();
    if let Some(resumed) = &cluster.take_over_resumed {
        waits = format!("{waits} resumed by {}", resumed.by).trim_start().to_owned();
    }
    vec![
        cluster.name.clone().into(),
        Cell::styled(&cluster.state, super::cluster::style_of_state(&cluster.state)),
        cluster.lease.text().into(),
        cluster.attempts.to_string().into(),
        waits.into(),
    ]
}

fn shown(status: &Status, now: Timestamp) -> String {
    let mut text = format!("Storm brake: {}\n", storm_line(&status.storm_brake, now));
    let mut part = |rows: Vec<Vec<Cell>>| {
        if rows.len() > 1 {
            text.push('\n');
            text.push_str(&table::render(&rows, 3));
        }
    };
    let mut rows = vec![header(&["CLUSTER", "STATE", "LEASE", "STEPS", "NEXT TAKE-OVER"])];
    rows.extend(status.clusters.iter().map(|cluster| cluster_row(cluster, now)));
    part(rows);
    let mut rows = vec![header(&["NAMESPACE", "WORKFLOW", "STEP", "CLUSTER", "FENCE", "TAKE-OVER"])];
    rows.extend(status.waiting.iter().map(|one| {
        let texts = [&one.namespace, &one.workflow, &one.node, &one.cluster, &one.fence];
        texts.into_iter().map(|text| text.clone().into()).chain([one.take_over.text(now).into()]).collect()
    }));
    part(rows);
    let mut rows = vec![header(&["NAMESPACE", "WORKFLOW", "STEP TAKEN OVER", "WAITS FOR A PLACE"])];
    rows.extend(status.queued.iter().map(|one| {
        let reason = if one.reason.is_empty() { "placement" } else { &one.reason };
        vec![
            one.namespace.clone().into(),
            one.workflow.clone().into(),
            one.node.clone().into(),
            reason.into(),
        ]
    }));
    part(rows);
    if status.clusters.is_empty() {
        text.push_str("All clusters are in touch\n");
    }
    text
}

async fn resume(client: &Client, arguments: &FailoverResume, console: &mut Console) -> Result<bool, Error> {
    let body = arguments.cluster.as_ref().map_or_else(|| json!({}), |cluster| json!({"cluster": cluster}));
    let answer = client.json(Method::POST, &path(&["failover", "resume"]), Request::body(body)).await?;
    let text = match formatted(&answer, arguments.output)? {
        Some(text) => text,
        None => {
            let resumed: Vec<Resumed> = read(&answer["resumed"])?;
            resumed.iter().map(|one| format!("take-over of cluster {} goes on\n", one.cluster)).collect()
        }
    };
    console.print(&text)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_day_on_one_page() {
        let answer = json!({
            "stormBrake": {"held": true, "since": "2026-01-05T15:00:00Z", "untilResumed": true, "silent": 3, "fleet": 4,
                "reason": "3 of 4 clusters went silent together"},
            "clusters": [
                {"name": "eu", "state": "silent", "attempts": 2, "lease": {"state": "expired", "silentSeconds": 200},
                    "takeOver": {"waitsFor": "stormBrake", "at": "2026-01-05T15:00:05Z", "untilResumed": true}},
                {"name": "us", "state": "lost", "attempts": 1, "lease": {"state": "takenOver", "silentSeconds": 90},
                    "takeOver": {"waitsFor": "lease", "at": "2026-01-05T15:05:00Z"}, "takeOverResumed": {"by": "ada"}},
            ],
            "waiting": [{"namespace": "ci", "workflow": "w", "node": "w.a", "cluster": "us", "fence": "1.9.0",
                "takeOver": {"waitsFor": "exclusiveLease", "at": "2026-01-05T15:05:00Z"}}],
            "queued": [{"namespace": "ci", "workflow": "w", "node": "w.b", "reason": "no room"}],
        });
        let text = shown(&read(&answer).unwrap(), "2026-01-05T15:03:20Z".parse().unwrap());
        let expected = "\
Storm brake: holds take-overs until they are resumed: 3 of 4 clusters went silent together 3m ago

CLUSTER   STATE    LEASE                   STEPS   NEXT TAKE-OVER
eu        silent   expired, silent 3m      2       held until resumed (storm brake)
us        lost     taken over, silent 1m   1       in 1m (lease) resumed by ada

NAMESPACE   WORKFLOW   STEP   CLUSTER   FENCE   TAKE-OVER
ci          w          w.a    us        1.9.0   in 1m (exclusive lease)

NAMESPACE   WORKFLOW   STEP TAKEN OVER   WAITS FOR A PLACE
ci          w          w.b               no room
";
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), expected);
    }

    #[test]
    fn a_good_day_in_two_lines() {
        let text = shown(&read(&json!({"stormBrake": {"held": false}})).unwrap(), Timestamp::UNIX_EPOCH);
        assert_eq!(text, "Storm brake: off\nAll clusters are in touch\n");
    }
}
