//! The API's own rules: tokens, sizes, idempotency, paging, streams, clusters, and what happens without a leader.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod client;

use argosy_gateway::{Limits, metrics_router};
use axum::body::{Body, to_bytes};
use axum::http::Request;
use client::{Api, BODY_MAX, workflow};
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

#[tokio::test]
async fn nothing_without_a_token_and_nothing_beyond_it() {
    let api = Api::new();
    let none = api.call_with("GET", "/api/v1/workflows/ns", &[], Value::Null).await;
    assert_eq!((none.0, &none.1["code"]), (401, &json!(16)));
    let wrong =
        api.call_with("GET", "/api/v1/nonsense", &[("authorization", "Bearer guess")], Value::Null).await;
    assert_eq!(wrong.0, 401);
    let reader = [("authorization", "bearer reader")];
    assert_eq!(api.call_with("GET", "/api/v1/workflows/ns", &reader, Value::Null).await.0, 200);
    let refused =
        api.call_with("POST", "/api/v1/workflows/ns", &reader, workflow(json!({"name": "a"}))).await;
    assert_eq!((refused.0, &refused.1["code"]), (403, &json!(7)));
    let writer = [("authorization", "Bearer writer")];
    assert_eq!(api.call_with("POST", "/api/v1/clusters/x/invite", &writer, json!({})).await.0, 403);
    let page = api.metrics.render();
    assert!(page.contains("argosy_http_refused_total{reason=\"no_token\"} 1"), "{page}");
    assert!(page.contains("argosy_http_refused_total{reason=\"forbidden\"} 2"));
}

#[tokio::test]
async fn health_and_metrics_need_no_token_on_their_listener() {
    let api = Api::new();
    let open = metrics_router(api.cell.clone(), api.metrics.clone());
    for (path, status) in
        [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/api/v1/workflows/ns", 404)]
    {
        let response =
            open.clone().oneshot(Request::builder().uri(path).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
    }
    api.cell.set_leader(false);
    assert_eq!(api.raw("GET", "/readyz", &[], "").await.status(), 503);
    assert_eq!(api.raw("GET", "/healthz", &[], "").await.status(), 200);
    assert_eq!(api.raw("GET", "/metrics", &[], "").await.status(), 401);
}

#[tokio::test]
async fn a_manifest_of_ten_megabytes_gets_a_clear_refusal() {
    let api = Api::new();
    let large =
        json!({"workflow": {"metadata": {"name": "a", "annotations": {"x": "y".repeat(10_000_000)}}}});
    let (status, answer) = api.call("POST", "/api/v1/workflows/ns", large).await;
    assert_eq!(status, 413);
    assert!(answer["message"].as_str().unwrap().contains("larger than 2097152 bytes"), "{answer}");
    assert!(api.metrics.render().contains("argosy_http_refused_total{reason=\"too_large\"} 1"));
    assert_eq!(api.call("GET", "/api/v1/workflows/ns", Value::Null).await.1["items"], Value::Null);
}

#[tokio::test]
async fn bad_manifests_are_refused_with_our_code_in_a_header() {
    let api = Api::new();
    let mut bad = workflow(json!({"name": "a"}));
    bad["workflow"]["spec"]["entrypoint"] = json!("nothing");
    let response =
        api.raw("POST", "/api/v1/workflows/ns", &[("authorization", "Bearer admin")], bad.to_string()).await;
    assert_eq!(response.status(), 400);
    assert!(response.headers()["argosy-error"].to_str().unwrap().starts_with("ARG"));
    let bytes = to_bytes(response.into_body(), BODY_MAX).await.unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("nothing"));
}

#[tokio::test]
async fn a_repeat_with_the_same_key_happens_once() {
    let api = Api::new();
    let headers = [("authorization", "Bearer admin"), ("idempotency-key", "k1")];
    let body = workflow(json!({"generateName": "g-"}));
    api.cell.lose_next_reply();
    let unknown = api.call_with("POST", "/api/v1/workflows/ns", &headers, body.clone()).await;
    assert_eq!((unknown.0, &unknown.1["code"]), (504, &json!(4)));
    let first = api.call_with("POST", "/api/v1/workflows/ns", &headers, body.clone()).await;
    let second = api.call_with("POST", "/api/v1/workflows/ns", &headers, body).await;
    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(first.1["metadata"]["name"], second.1["metadata"]["name"]);
    assert_eq!(first.1["metadata"]["uid"], second.1["metadata"]["uid"]);
    let listed = api.call("GET", "/api/v1/workflows/ns", Value::Null).await;
    assert_eq!(listed.1["items"].as_array().map(Vec::len), Some(1));
    let other = api.call_with("POST", "/api/v1/workflows/ns", &headers, workflow(json!({"name": "z"}))).await;
    assert_eq!(other.0, 409, "{}", other.1);
}

#[tokio::test]
async fn without_a_leader_only_stale_reads_go_on() {
    let api = Api::new();
    api.submit("a").await;
    api.cell.set_leader(false);
    assert_eq!(api.call("GET", "/api/v1/workflows/ns/a", Value::Null).await.0, 503);
    assert_eq!(api.call("POST", "/api/v1/workflows/ns", workflow(json!({"name": "b"}))).await.0, 503);
    let stale = api.call("GET", "/api/v1/workflows/ns/a?consistency=stale", Value::Null).await;
    assert_eq!((stale.0, &stale.1["metadata"]["name"]), (200, &json!("a")));
    assert_eq!(api.call("GET", "/api/v1/workflows/ns/a?consistency=maybe", Value::Null).await.0, 400);
}

#[tokio::test]
async fn lists_come_in_pages_and_no_larger_than_the_limit() {
    let api = Api::with(Limits { list_items_max: 2, ..Limits::default() });
    for name in ["a", "b", "c", "d", "e"] {
        api.submit(name).await;
    }
    let mut names = Vec::new();
    let mut next = String::new();
    loop {
        let path =
            format!("/api/v1/workflows/ns?listOptions.continue={next}&fields=metadata,items.metadata.name");
        let (_, page) = api.call("GET", &path, Value::Null).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()));
        next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if next.is_empty() {
            break;
        }
    }
    names.sort();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    let prefix = "/api/v1/workflows/ns?nameFilter=Prefix&listOptions.fieldSelector=metadata.name%3Db";
    assert_eq!(api.call("GET", prefix, Value::Null).await.1["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn watches_speak_in_events_to_those_who_ask_and_are_bounded() {
    let api = Api::with(Limits { streams_max: 1, ..Limits::default() });
    api.submit("a").await;
    let headers = [("authorization", "Bearer admin"), ("accept", "text/event-stream")];
    let response =
        api.raw("GET", "/api/v1/workflow-events/ns?fields=result.object.metadata.name", &headers, "").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut chunks = response.into_body().into_data_stream();
    let first = chunks.next().await.unwrap().unwrap();
    let event: Value = serde_json::from_slice(first.strip_prefix(b"data: ").unwrap()).unwrap();
    assert_eq!(event["result"]["type"], "ADDED");
    assert_eq!(event["result"]["object"]["metadata"], json!({"name": "a"}));

    let full = api.raw("GET", "/api/v1/workflow-events/ns", &headers[..1], "").await;
    assert_eq!(full.status(), 429);
    drop(chunks);
    assert_eq!(api.raw("GET", "/api/v1/workflow-events/ns", &headers[..1], "").await.status(), 200);
    let old =
        api.raw("GET", "/api/v1/workflow-events/ns?listOptions.resourceVersion=1", &headers[..1], "").await;
    assert_eq!(old.status(), 410);
}

#[tokio::test]
async fn logs_of_all_steps_or_of_one() {
    let api = Api::new();
    let steps = json!([[{"name": "a", "template": "say"}, {"name": "b", "template": "say"}]]);
    let templates = json!([{"name": "main", "steps": steps}, {"name": "say", "metadata": {"labels": {"kind": "talk"}}, "container": {"image": "i", "command": ["x"]}}]);
    let body = json!({"workflow": {"metadata": {"name": "w"}, "spec": {"entrypoint": "main", "templates": templates}}});
    assert_eq!(api.call("POST", "/api/v1/workflows/ns", body).await.0, 200);
    let assignments = api.cell.assignments();
    assert_eq!(assignments.len(), 2);
    for (_, assignment) in &assignments {
        let text = format!("from {}\nlast", assignment.node_name);
        api.cell.set_output(assignment.fence.unwrap(), &text);
    }
    api.cell.finish_all();
    let lines = |text: Value| -> Vec<Value> {
        text.as_str()
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["result"].take())
            .collect()
    };
    let (status, all) = api.call("GET", "/api/v1/workflows/ns/w/log", Value::Null).await;
    assert_eq!((status, lines(all).len()), (200, 4));
    let pod = &assignments[1].1.pod_name;
    let path = format!("/api/v1/workflows/ns/w/{pod}/log?logOptions.follow=true&grep=from");
    let response = api.raw("GET", &path, &[("authorization", "Bearer admin")], "").await;
    let bytes = to_bytes(response.into_body(), BODY_MAX).await.unwrap();
    let line: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        line["result"],
        json!({"content": format!("from {}", assignments[1].1.node_name), "podName": pod})
    );
    for (selector, count) in [
        ("workflows.argoproj.io/workflow=w", 4),
        ("workflows.argoproj.io/completed=false", 0),
        ("kind=talk", 4),
        ("kind!=talk", 0),
        ("no-such", 0),
    ] {
        let path = format!("/api/v1/workflows/ns/w/log?selector={selector}");
        let response = api.raw("GET", &path, &[("authorization", "Bearer admin")], "").await;
        let bytes = to_bytes(response.into_body(), BODY_MAX).await.unwrap();
        assert_eq!(
            bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(),
            count,
            "{selector}"
        );
    }
    for (query, status) in [("selector=a(", 400), ("logOptions.timestamps=perhaps", 400)] {
        let refused = api.call("GET", &format!("/api/v1/workflows/ns/w/log?{query}"), Value::Null).await;
        assert_eq!(refused.0, status, "{query}");
    }
}

#[tokio::test]
async fn clusters_are_invited_listed_and_shown() {
    let api = Api::new();
    let (status, invite) = api.call("POST", "/api/v1/clusters/us/invite", json!({"ttlSeconds": 60})).await;
    assert_eq!((status, &invite["token"]), (200, &json!("invite-us")), "{invite}");
    assert_eq!(api.call("POST", "/api/v1/clusters/US/invite", Value::Null).await.0, 400);
    assert_eq!(api.call("POST", "/api/v1/clusters/us/invite", json!({"ttlSeconds": 0})).await.0, 400);
    let (_, list) = api.call("GET", "/api/v1/clusters", Value::Null).await;
    let eu = list["items"].as_array().unwrap().iter().find(|item| item["name"] == "eu").unwrap();
    assert_eq!(eu["runtime"], "simulated");
    assert_eq!(api.call("GET", "/api/v1/clusters/eu", Value::Null).await.1["name"], "eu");
    assert_eq!(api.call("GET", "/api/v1/clusters/nowhere", Value::Null).await.0, 404);
    let (_, members) = api.call("GET", "/api/v1/members", Value::Null).await;
    assert_eq!((&members["leader"], &members["items"][0]["role"]), (&json!(1), &json!("leader")));
}

#[tokio::test]
async fn requests_are_named_and_counted_by_route() {
    let api = Api::new();
    let headers = [("authorization", "Bearer admin"), ("x-request-id", "mine")];
    let response = api.raw("GET", "/api/v1/workflows/ns/missing", &headers, "").await;
    assert_eq!(response.headers()["x-request-id"], "mine");
    let drawn = api.raw("GET", "/api/v1/version", &headers[..1], "").await;
    assert_eq!(drawn.headers()["x-request-id"].len(), 36);
    let page = api.metrics.render();
    let counted = "argosy_http_requests_total{code=\"404\",method=\"GET\",route=\"/api/v1/workflows/{namespace}/{name}\"} 1";
    assert!(page.contains(counted), "{page}");
}

#[tokio::test]
async fn config_maps_are_stored_and_shown_as_kubernetes_does() {
    let api = Api::new();
    let all = "/api/v1/configmaps/ns";
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "limits", "labels": {"workflows.argoproj.io/configmap-type": "Parameter"}},
        "data": {"n": "2"},
    });
    let (status, answer) = api.call("GET", all, Value::Null).await;
    assert_eq!((status, &answer["items"]), (200, &Value::Null));
    let (status, made) = api.call("POST", all, json!({"configMap": object})).await;
    assert_eq!(status, 200, "{made}");
    assert_eq!((&made["data"]["n"], &made["metadata"]["namespace"]), (&json!("2"), &json!("ns")));
    assert_eq!(api.call("POST", all, json!({"configMap": object})).await.0, 409);
    let mut changed = made.clone();
    changed["data"]["n"] = json!("3");
    let (status, answer) = api.call("PUT", &format!("{all}/limits"), json!({"configMap": changed})).await;
    assert_eq!((status, &answer["data"]["n"]), (200, &json!("3")), "{answer}");
    assert_eq!(api.call("PUT", &format!("{all}/limits"), json!({"configMap": changed})).await.0, 409);
    assert_eq!(api.call("PUT", &format!("{all}/other"), json!({"configMap": object})).await.0, 404);
    for (field, value) in
        [("binaryData", json!({"x": "eA=="})), ("data", json!({"n": 2})), ("kind", json!("Secret"))]
    {
        let mut odd = object.clone();
        odd[field] = value;
        assert_eq!(api.call("POST", all, json!({"configMap": odd})).await.0, 400, "{field}");
    }
    let reader = [("authorization", "Bearer reader")];
    assert_eq!(api.call_with("POST", all, &reader, json!({"configMap": object})).await.0, 403);
    assert_eq!(api.call_with("GET", &format!("{all}/limits"), &reader, Value::Null).await.0, 200);
    assert_eq!(api.call("GET", all, Value::Null).await.1["items"].as_array().unwrap().len(), 1);
    assert_eq!(api.call("DELETE", &format!("{all}/limits"), Value::Null).await.0, 200);
    assert_eq!(api.call("GET", &format!("{all}/limits"), Value::Null).await.0, 404);
}

fn cron(name: &str) -> Value {
    json!({"cronWorkflow": {
        "metadata": {"name": name, "labels": {"team": "blue"}},
        "spec": {"schedules": ["@hourly"], "workflowSpec": spec()},
    }})
}

fn spec() -> Value {
    json!({"entrypoint": "main", "templates": [{"name": "main", "container": {"image": "busybox"}}]})
}

#[tokio::test]
async fn cron_workflows_start_and_are_backfilled() {
    let api = Api::new();
    assert_eq!(api.call("POST", "/api/v1/cron-workflows/ns", cron("tick")).await.0, 200);
    (0..240).for_each(|_| api.cell.pass_ms(15_000));
    let (_, shown) = api.call("GET", "/api/v1/cron-workflows/ns/tick", Value::Null).await;
    assert_eq!(shown["status"]["phase"], "Active");
    let name = shown["status"]["active"][0]["name"].as_str().unwrap().to_owned();
    let (status, child) = api.call("GET", &format!("/api/v1/workflows/ns/{name}"), Value::Null).await;
    assert_eq!((status, &child["metadata"]["ownerReferences"][0]["name"]), (200, &json!("tick")));
    for (selector, count) in [("team=blue", 1), ("team=red", 0)] {
        let path = format!("/api/v1/cron-workflows/?listOptions.labelSelector={selector}");
        let (_, list) = api.call("GET", &path, Value::Null).await;
        assert_eq!(list["items"].as_array().map_or(0, Vec::len), count);
    }
    let backfill = json!({"name": "b", "start": "2020-01-01T00:00:00Z", "end": "2020-01-01T03:00:00Z", "parallel": true});
    let path = "/api/v1/cron-workflows/ns/tick/backfill";
    let (status, answer) = api.call("POST", path, backfill.clone()).await;
    assert_eq!((status, &answer["prefix"]), (200, &json!("tick-backfill-b")));
    assert_eq!(
        answer["times"],
        json!(["2020-01-01T01:00:00Z", "2020-01-01T02:00:00Z", "2020-01-01T03:00:00Z"])
    );
    api.cell.settle();
    assert_eq!(api.call("GET", "/api/v1/workflows/ns/tick-backfill-b-1577840400", Value::Null).await.0, 200);
    assert_eq!(api.call("POST", path, json!({"name": "b", "start": "soon", "end": ""})).await.0, 400);
}

#[tokio::test]
async fn an_object_of_another_kind_is_no_cron_workflow() {
    let api = Api::new();
    let (status, answer) = api.call("POST", "/api/v1/cron-workflows/ns", json!({"workflow": {}})).await;
    assert_eq!(
        (status, &answer["message"]),
        (404, &json!("cron workflow was not found in the request body"))
    );
    let workflow = json!({"workflow": {"kind": "CronWorkflow", "metadata": {"name": "w"}, "spec": spec()}});
    assert_eq!(api.call("POST", "/api/v1/workflows/ns", workflow).await.0, 400);
    let missing = json!({"cronWorkflow": {"metadata": {"name": "c"}, "spec": {
        "schedules": ["@hourly"], "workflowSpec": {"workflowTemplateRef": {"name": "nobody"}}}}});
    let (status, answer) = api.call("POST", "/api/v1/cron-workflows/ns", missing).await;
    assert_eq!(status, 400);
    assert!(answer["message"].as_str().unwrap().starts_with("cannot validate Workflow: "), "{answer}");
}

#[tokio::test]
async fn event_bindings_are_kept() {
    let api = Api::new();
    let binding = |selector: &str| {
        json!({"workflowEventBinding": {
            "metadata": {"name": "b"},
            "spec": {"event": {"selector": selector}, "submit": {"workflowTemplateRef": {"name": "t"}}},
        }})
    };
    let path = "/api/v1/workflow-event-bindings/ns";
    assert_eq!(api.call("POST", path, binding("payload.x ==")).await.0, 400);
    let (status, shown) = api.call("POST", path, binding("payload.x == 1")).await;
    assert_eq!((status, &shown["spec"]["event"]["selector"]), (200, &json!("payload.x == 1")));
    assert_eq!(api.call("POST", path, binding("true")).await.0, 409);
    let (_, list) = api.call("GET", path, Value::Null).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(api.call("DELETE", &format!("{path}/b"), Value::Null).await.0, 200);
    assert_eq!(api.call("GET", &format!("{path}/b"), Value::Null).await.0, 404);
}

/// A finished workflow of that name; its uid.
async fn finished(api: &Api, name: &str, label: &str) -> String {
    let workflow =
        json!({"workflow": {"metadata": {"name": name, "labels": {"team": label}}, "spec": spec()}});
    let (_, made) = api.call("POST", "/api/v1/workflows/ns", workflow).await;
    api.cell.finish_all();
    api.cell.pass_ms(2_000);
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn archived_workflows_are_found_with_the_live_ones() {
    let api = Api::archiving();
    let uid = finished(&api, "old", "blue").await;
    finished(&api, "new", "red").await;
    assert_eq!(api.call("DELETE", "/api/v1/workflows/ns/old", Value::Null).await.0, 200);
    api.cell.settle();
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, all) = api.call("GET", "/api/v1/workflows/ns", Value::Null).await;
    assert_eq!(names(&all), ["new", "old"]);
    let mark = "workflows.argoproj.io/workflow-archiving-status";
    assert_eq!(all["items"][1]["metadata"]["labels"][mark], "Persisted");
    let (_, blue) =
        api.call("GET", "/api/v1/workflows/ns?listOptions.labelSelector=team%3Dblue", Value::Null).await;
    assert_eq!(names(&blue), ["old"]);
    let base = "/api/v1/archived-workflows";
    for (query, count) in [
        ("", 1),
        ("?namespace=other", 0),
        ("?namePrefix=ol", 1),
        ("?listOptions.labelSelector=team%3Dred", 0),
        ("?listOptions.fieldSelector=metadata.namespace%3Dns,spec.startedAt%3E2000-01-01T00:00:00Z", 1),
        ("?listOptions.fieldSelector=spec.startedAt%3C2000-01-01T00:00:00Z", 0),
        ("?listOptions.fieldSelector=metadata.name%3Dl&nameFilter=Contains", 1),
    ] {
        let (status, list) = api.call("GET", &format!("{base}{query}"), Value::Null).await;
        assert_eq!((status, names(&list).len()), (200, count), "{query}");
    }
    assert_eq!(api.call("GET", &format!("{base}?listOptions.fieldSelector=x%3D1"), Value::Null).await.0, 400);
    let (status, full) = api.call("GET", &format!("{base}/{uid}"), Value::Null).await;
    assert_eq!((status, &full["status"]["phase"]), (200, &json!("Succeeded")));
    assert_eq!(full["status"]["nodes"]["old"]["phase"], "Succeeded");
    // By its name, too, as Argo's server falls back.
    let (status, by_name) = api.call("GET", "/api/v1/workflows/ns/old", Value::Null).await;
    assert_eq!((status, &by_name["metadata"]["uid"]), (200, &json!(uid)));
    let (_, keys) = api.call("GET", "/api/v1/archived-workflows-label-keys", Value::Null).await;
    assert!(keys["items"].as_array().unwrap().contains(&json!("team")));
    let path = "/api/v1/archived-workflows-label-values?listOptions.labelSelector=team";
    assert_eq!(api.call("GET", path, Value::Null).await.1, json!({"items": ["blue"]}));
    let (status, again) = api.call("PUT", &format!("{base}/{uid}/resubmit"), json!({})).await;
    assert_eq!(status, 200, "{again}");
    assert!(again["metadata"]["name"].as_str().unwrap().starts_with("old-"));
    assert_eq!(api.call("DELETE", &format!("{base}/{uid}"), Value::Null).await.0, 200);
    assert_eq!(api.call("GET", &format!("{base}/{uid}"), Value::Null).await.0, 404);
    assert_eq!(api.call("GET", "/api/v1/workflows/ns/old", Value::Null).await.0, 404);
}

const HELD: argosy_gateway::StormStatus =
    argosy_gateway::StormStatus { held: true, since_ms: 60_000, release_in_ms: None, silent: 3, fleet: 3 };

#[tokio::test]
async fn a_node_of_a_silent_cluster_shows_lease_permit_and_take_over() {
    let api = Api::new();
    api.submit("w").await;
    api.cell.settle();
    let (cluster, assignment) = api.cell.assignments().pop().unwrap();
    api.cell.start(&cluster, assignment.fence.unwrap());
    let node = |shown: &Value| shown["status"]["nodes"]["w"].clone();
    let (_, shown) = api.call("GET", "/api/v1/workflows/ns/w", Value::Null).await;
    let live = node(&shown);
    assert_eq!(
        (&live["lease"]["state"], &live["attempts"][0]["permit"]),
        (&json!("live"), &json!("granted"))
    );
    assert_eq!(live["takeOver"], json!(null));

    api.cell.fall_silent("eu", 16_000, None);
    let (_, shown) = api.call("GET", "/api/v1/workflows/ns/w", Value::Null).await;
    let silent = node(&shown);
    assert_eq!(silent["lease"], json!({"state": "expired", "remainingSeconds": 0, "silentSeconds": 16}));
    assert_eq!(silent["takeOver"]["waitsFor"], "unsafeStep");
    let at: jiff::Timestamp = silent["takeOver"]["at"].as_str().unwrap().parse().unwrap();
    let (_, failover) = api.call("GET", "/api/v1/failover", Value::Null).await;
    let observed: jiff::Timestamp = failover["observedAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        at.as_second() - observed.as_second(),
        304,
        "lease, margin and five minutes from its last sign"
    );
    assert_eq!(failover["waiting"][0]["takeOver"], silent["takeOver"]);
    assert_eq!(failover["clusters"][0]["takeOver"]["waitsFor"], "lease");
    assert_eq!(failover["stormBrake"], json!({"held": false}));
}

#[tokio::test]
async fn a_held_take_over_is_shown_and_resumed_by_an_admin_once() {
    let api = Api::new();
    let resume = "/api/v1/failover/resume";
    let (status, refused) = api.call("POST", resume, json!({})).await;
    assert_eq!(status, 409, "nothing is held: {refused}");
    api.cell.fall_silent("eu", 60_000, Some(HELD));
    let (_, cluster) = api.call("GET", "/api/v1/clusters/eu", Value::Null).await;
    assert_eq!(cluster["takeOver"]["waitsFor"], "stormBrake", "{cluster}");
    assert_eq!(cluster["takeOver"]["untilResumed"], true);
    assert_eq!(cluster["stormBrake"]["reason"], "3 of 3 clusters went silent together");
    assert_eq!(api.call_with("POST", resume, &[("authorization", "Bearer writer")], json!({})).await.0, 403);
    assert_eq!(api.call("POST", resume, json!({"cluster": "mars"})).await.0, 404);

    let headers = [("authorization", "Bearer admin"), ("idempotency-key", "once")];
    let first = api.raw("POST", resume, &headers, "{}").await;
    assert_eq!(first.status(), 200);
    let (_, cluster) = api.call("GET", "/api/v1/clusters/eu", Value::Null).await;
    assert_eq!(cluster["takeOverResumed"]["by"], "admin");
    // Nothing is held any more: the same request still has its first answer, a new one is told so.
    api.cell.fall_silent("eu", 61_000, None);
    assert_eq!(api.raw("POST", resume, &headers, "{}").await.status(), 200);
    assert_eq!(api.call("POST", resume, json!({"cluster": "eu"})).await.0, 409);
}
