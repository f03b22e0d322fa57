//! Drains, and how labels and taints are written.

use reqwest::Method;
use serde_json::{Map, Value, json};
use std::time::Duration;

use crate::client::{Client, Request, path};
use crate::{ClusterDrain, Console, Error};

/// Between two looks at a cluster that is drained.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Drains, and shows what is left until nothing is. Started again it goes on where it was.
pub(super) async fn drain(
    client: &Client,
    arguments: &ClusterDrain,
    console: &mut Console,
) -> Result<bool, Error> {
    let name = &arguments.name;
    let body = json!({"deadlineSeconds": arguments.deadline.map_or(0, |deadline| deadline.as_secs())});
    let mut cluster =
        client.json(Method::POST, &path(&["clusters", name, "drain"]), Request::body(body)).await?;
    let mut told = String::new();
    loop {
        let line = progress(name, &cluster);
        if line != told {
            console.print(&line)?;
            told = line;
        }
        let left = cluster["attempts"].as_u64().unwrap_or(0);
        // Whoever uncordons the cluster meanwhile ends the drain.
        if arguments.no_wait || left == 0 || cluster["drain"].is_null() {
            return Ok(true);
        }
        tokio::time::sleep(LOOK_EVERY).await;
        cluster = client.get(&path(&["clusters", name]), Request::default()).await?;
    }
}

fn progress(name: &str, cluster: &Value) -> String {
    let left = cluster["attempts"].as_u64().unwrap_or(0);
    if left == 0 {
        return format!("cluster {name} is empty\n");
    }
    let drain = &cluster["drain"];
    let number = |field: &str| drain[field].as_u64().unwrap_or(0);
    let mut text = format!(
        "cluster {name}: {left} left, {} not started, {} running\n",
        number("waiting"),
        number("running")
    );
    for stuck in drain["cannotMove"].as_array().into_iter().flatten() {
        let word = |field: &str| stuck[field].as_str().unwrap_or_default();
        text += &format!("  {} {}: {}\n", word("workflow"), word("node"), word("reason"));
    }
    text
}

/// `KEY=VALUE` sets, `KEY-` removes.
pub(super) fn labels(marks: &[String]) -> Result<Value, Error> {
    let (mut set, mut remove) = (Map::new(), Vec::new());
    for mark in marks {
        match (mark.split_once('='), mark.strip_suffix('-')) {
            (Some((key, value)), _) if !key.is_empty() => {
                set.insert(key.to_owned(), json!(value));
            }
            (None, Some(key)) if !key.is_empty() => remove.push(json!(key)),
            _ => {
                return Err(Error::Usage(format!(
                    "{mark:?} is no label: write KEY=VALUE, or KEY- to remove one"
                )));
            }
        }
    }
    Ok(json!({"set": set, "remove": remove}))
}

/// `KEY=VALUE:NoSchedule` sets, `KEY-` removes.
pub(super) fn taints(marks: &[String]) -> Result<Value, Error> {
    let (mut set, mut remove) = (Vec::new(), Vec::new());
    for mark in marks {
        match (mark.rsplit_once(':'), mark.strip_suffix('-')) {
            (Some((pair, effect)), _) if !pair.is_empty() => {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                set.push(json!({"key": key, "value": value, "effect": effect}));
            }
            (None, Some(key)) if !key.is_empty() => remove.push(json!(key)),
            _ => {
                return Err(Error::Usage(format!(
                    "{mark:?} is no taint: write KEY=VALUE:NoSchedule, or KEY- to remove one"
                )));
            }
        }
    }
    Ok(json!({"set": set, "remove": remove}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read() {
        let words = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let labels = labels(&words(&["region=eu", "zone-"])).unwrap();
        assert_eq!(labels, json!({"set": {"region": "eu"}, "remove": ["zone"]}));
        assert!(super::labels(&words(&["region"])).is_err());
        let taints = taints(&words(&["gpu=only:NoSchedule", "old-"])).unwrap();
        assert_eq!(
            taints,
            json!({"set": [{"key": "gpu", "value": "only", "effect": "NoSchedule"}], "remove": ["old"]})
        );
        assert!(super::taints(&words(&["gpu=only"])).is_err());
    }

    #[test]
    fn progress_names_what_cannot_move() {
        let cluster = json!({"attempts": 2, "drain": {"waiting": 0, "running": 2, "cannotMove": [
            {"workflow": "argo/w", "node": "w.a", "reason": "it runs"}]}});
        assert_eq!(
            progress("eu", &cluster),
            "cluster eu: 2 left, 0 not started, 2 running\n  argo/w w.a: it runs\n"
        );
        assert_eq!(progress("eu", &json!({"attempts": 0})), "cluster eu is empty\n");
    }
}
