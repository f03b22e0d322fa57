//! Drills and their schedules over the API: planned, begun once, shown, aborted.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod client;

use client::Api;
use serde_json::{Value, json};

const DRILLS: &str = "/api/v1/drills";
const SCHEDULES: &str = "/api/v1/drill-schedules";

/// Two clusters; a step runs on one of them, whose name this gives.
async fn running() -> (Api, String) {
    let api = Api::new();
    api.cell.connect("us");
    api.submit("works").await;
    api.cell.settle();
    let (cluster, assignment) = api.cell.assignments().into_iter().next().unwrap();
    api.cell.start(&cluster, assignment.fence.unwrap());
    (api, cluster)
}

#[tokio::test]
async fn a_drill_is_planned_begun_once_shown_and_aborted() {
    let (api, cluster) = running().await;
    let wanted =
        json!({"cluster": cluster, "mode": "block", "forSeconds": 60, "objective": {"recoverP99Ms": 9_000}});
    let (status, plan) = api.call("POST", "/api/v1/drills/plan", wanted.clone()).await;
    assert_eq!(status, 200, "{plan}");
    assert_eq!(api.call("GET", DRILLS, Value::Null).await.1["items"], json!([]), "a plan does nothing");

    let headers = [("authorization", "Bearer admin"), ("idempotency-key", "once")];
    let (status, first) = api.call_with("POST", DRILLS, &headers, wanted.clone()).await;
    assert_eq!(status, 200, "{first}");
    assert_eq!((&first["cluster"], &first["mode"]), (&json!(cluster), &json!("block")), "{first}");
    let (_, again) = api.call_with("POST", DRILLS, &headers, wanted.clone()).await;
    assert_eq!(again["id"], first["id"], "the same request has its first answer");
    let (status, second) = api.call("POST", DRILLS, wanted).await;
    assert_eq!((status, &second["code"]), (409, &json!(9)), "one at a time: {second}");

    let path = format!("{DRILLS}/{}", first["id"]);
    let reader = [("authorization", "Bearer reader")];
    assert_eq!(api.call_with("GET", &path, &reader, Value::Null).await.0, 200);
    let (status, aborted) = api.call("POST", &format!("{path}/abort"), json!({"reason": "enough"})).await;
    assert_eq!(status, 200, "{aborted}");
    assert!(aborted.to_string().contains("enough"), "{aborted}");
    assert_eq!(api.call("GET", DRILLS, Value::Null).await.1["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_drill_is_said() {
    let (api, cluster) = running().await;
    for (wrong, word) in [
        (json!({}), "cluster"),
        (json!({"cluster": cluster, "mode": "nuke"}), "mode"),
        (json!({"cluster": cluster, "forSeconds": "long"}), "forSeconds"),
        (json!({"cluster": cluster, "scope": 3}), "scope"),
        (json!({"cluster": cluster, "objective": {"recoverP99Ms": -1}}), "objective.recoverP99Ms"),
    ] {
        for path in [DRILLS, "/api/v1/drills/plan"] {
            let (status, answer) = api.call("POST", path, wrong.clone()).await;
            assert_eq!(status, 400, "{answer}");
            assert!(answer["message"].as_str().unwrap().contains(word), "{answer}");
        }
    }
    assert_eq!(api.call("POST", DRILLS, json!({"cluster": "mars", "forSeconds": 60})).await.0, 404);
    assert_eq!(api.call("GET", "/api/v1/drills/77", Value::Null).await.0, 404);
    assert_eq!(api.call("POST", "/api/v1/drills/77/abort", json!({})).await.0, 404);
    // Who may submit workflows may not lose clusters.
    for token in ["Bearer writer", "Bearer reader"] {
        let headers = [("authorization", token)];
        assert_eq!(api.call_with("POST", DRILLS, &headers, json!({"cluster": cluster})).await.0, 403);
        assert_eq!(api.call_with("POST", SCHEDULES, &headers, json!({})).await.0, 403);
    }
}

#[tokio::test]
async fn schedules_of_drills_are_kept() {
    let (api, cluster) = running().await;
    let weekly = json!({"name": "weekly", "cron": "0 4 * * 1", "timezone": "Europe/Berlin", "cluster": cluster, "forSeconds": 60});
    let (status, made) = api.call("POST", SCHEDULES, weekly.clone()).await;
    assert_eq!((status, &made["name"]), (200, &json!("weekly")), "{made}");
    let (_, listed) = api.call("GET", SCHEDULES, Value::Null).await;
    assert_eq!(listed["items"], json!([made]));
    let mut wrong = weekly;
    wrong["cron"] = json!("now and then");
    wrong["name"] = json!("other");
    let (status, refused) = api.call("POST", SCHEDULES, wrong).await;
    assert_eq!(status, 400, "{refused}");
    assert_eq!(api.call("DELETE", &format!("{SCHEDULES}/weekly"), Value::Null).await.0, 200);
    assert_eq!(api.call("DELETE", &format!("{SCHEDULES}/weekly"), Value::Null).await.0, 404);
    assert_eq!(api.call("GET", SCHEDULES, Value::Null).await.1["items"], json!([]));
}
