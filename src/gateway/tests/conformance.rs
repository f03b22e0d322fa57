//! Replays recorded answers of the real Argo server against the router with the real engine behind it.
//!
//! `ARGOSY_CONFORMANCE_DIR` names another directory of recordings (its `api` folder is read); without it the committed
//! copy of the recordings of these routes is used.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use argosy_gateway::testing::EngineCell;
use argosy_gateway::{Identity, Options, Role, Tokens, router};
use argosy_telemetry::Metrics;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tower::ServiceExt;

const BODY_MAX: usize = 1 << 20;

/// Recordings whose answers differ by decision, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("002-version", "the version and compiler are ours"),
    ("003-userinfo", "users come from tokens, not from Kubernetes certificates"),
    ("034-log-workflow-tail", "recorded without the lines that Argo's own executor prints last"),
    (
        "075-resume",
        "the workflow is told as it stands after the resume, Argo tells it before its controller looks",
    ),
    ("077-resume-finished", "without Pods there is no condition PodRunning"),
    (
        "093-retry-failed",
        "the workflow is told as it stands after the retry, Argo tells it before its nodes are made",
    ),
    ("113-create-cron-old-schedule-field", "the old field is read, with a warning"),
    ("164-bad-authorization-header", "a token that is not known is refused"),
];

struct Recording {
    name: String,
    value: Value,
}

fn recordings() -> Vec<Recording> {
    let given = std::env::var_os("ARGOSY_CONFORMANCE_DIR").map(|path| PathBuf::from(path).join("api"));
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/api");
    let committed: Vec<String> = names(&own);
    let directory = given.unwrap_or(own);
    let mut found: Vec<String> =
        names(&directory).into_iter().filter(|name| committed.contains(name)).collect();
    found.sort();
    let read = |name: String| {
        let text = std::fs::read_to_string(directory.join(format!("{name}.json"))).unwrap();
        Recording { value: serde_json::from_str(&text).unwrap(), name }
    };
    found.into_iter().map(read).collect()
}

fn names(directory: &PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned)).collect()
}

fn service(cell: &EngineCell) -> Router {
    let identity = Identity { name: "admin".to_owned(), role: Role::Admin };
    let options = Options {
        tokens: Tokens::default().with("t", identity),
        managed_namespace: "api".to_owned(),
        ..Options::default()
    };
    router(cell.clone(), Metrics::new(), options)
}

async fn call(service: &Router, method: &str, path: &str, body: Option<String>) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header("authorization", "Bearer t");
    let body = body.map_or_else(Body::empty, Body::from);
    service.clone().oneshot(request.body(body).unwrap()).await.unwrap()
}

fn workflow(name: Value, spec: Value) -> String {
    json!({"workflow": {"metadata": name, "spec": spec}}).to_string()
}

fn simple_spec() -> Value {
    json!({"entrypoint": "main", "templates": [{"name": "main", "container": {"image": "busybox", "command": ["true"]}}]})
}

/// What the recorder did between the recorded calls.
async fn between(cell: &EngineCell, service: &Router, name: &str) {
    match name {
        "018-get-workflow-generate-name" => {
            call(
                service,
                "POST",
                "/api/v1/workflows/api",
                Some(workflow(json!({"generateName": "api-gen-"}), simple_spec())),
            )
            .await;
            for (_, assignment) in cell.assignments() {
                cell.set_output(assignment.fence.unwrap(), "line one\nline two\nother\n");
            }
            cell.finish_all();
        }
        "079-create-long" | "081-suspend-again" => {}
        "080-suspend" | "084-stop" | "088-terminate" => {
            for (cluster, assignment) in cell.assignments() {
                cell.start(&cluster, assignment.fence.unwrap());
            }
        }
        "085-get-stopped" | "089-get-terminated" => {
            let state = argosy_gateway::Cell::read(cell, argosy_gateway::Consistency::Stale).await.unwrap();
            let fences: Vec<_> = state.attempts_on("eu").map(|(fence, _)| fence).collect();
            for fence in fences {
                cell.end("eu", fence, 143, "main: Error (exit code 143)");
            }
        }
        "066-get-submitted" => cell.finish_all(),
        "093-retry-failed" => end_open(cell, 1, "main: Error (exit code 1)"),
        "094-get-retried" => cell.finish_all(),
        "097-get-resubmitted" => {
            let body = json!({"parameters": ["c=3"]}).to_string();
            call(service, "PUT", "/api/v1/workflows/api/api-fail/resubmit", Some(body)).await;
            end_open(cell, 3, "main: Error (exit code 3)");
        }
        "100-delete" | "103-delete-force" => {
            let name = if name.starts_with("100") { "api-sub" } else { "api-appr" };
            call(
                service,
                "POST",
                "/api/v1/workflows/api",
                Some(workflow(json!({"name": name}), simple_spec())),
            )
            .await;
        }
        _ => {}
    }
}

/// Ends what runs.
fn end_open(cell: &EngineCell, code: i32, message: &str) {
    for (cluster, assignment) in cell.assignments() {
        cell.end(&cluster, assignment.fence.unwrap(), code, message);
    }
}

async fn version_of(service: &Router, path: &str) -> String {
    let response = call(service, "GET", path, None).await;
    let body: Value =
        serde_json::from_slice(&to_bytes(response.into_body(), BODY_MAX).await.unwrap()).unwrap();
    body["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}

/// The name that a resubmission of `api-fail` drew.
async fn resubmitted(service: &Router) -> String {
    let path = "/api/v1/workflows/api?listOptions.labelSelector=workflows.argoproj.io/resubmitted-from-workflow=api-fail";
    let response = call(service, "GET", path, None).await;
    let body: Value =
        serde_json::from_slice(&to_bytes(response.into_body(), BODY_MAX).await.unwrap()).unwrap();
    body["items"][0]["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Fills in what was drawn at random.
fn concrete_path(path: &str, generated: &str) -> String {
    path.replace("api-gen-$RANDOM", generated)
}

/// Ours, or left out of the recordings.
const LEFT_OUT: [&str; 6] =
    ["cluster", "attempts", "hostNodeName", "resourcesDuration", "continue", "remainingItemCount"];

/// Every difference between the recorded value and ours, by path.
fn differences(path: &str, recorded: &Value, ours: &Value, found: &mut Vec<String>) {
    match (recorded, ours) {
        (Value::String(text), Value::String(own)) if text.contains("$RANDOM") => {
            if !own.starts_with(text.trim_end_matches("$RANDOM")) {
                found.push(format!("{path}: {text} != {own}"));
            }
        }
        (Value::String(text), Value::String(own)) if text.ends_with("-$UNIX") => {
            if !own.starts_with(text.trim_end_matches("$UNIX")) {
                found.push(format!("{path}: {text} != {own}"));
            }
        }
        (Value::String(mask), own) if mask.starts_with('$') => {
            if own.is_null() || own == "" {
                found.push(format!("{path}: {mask} is missing"));
            }
        }
        (Value::Object(recorded), Value::Object(own)) => {
            let keys: std::collections::BTreeSet<&String> = recorded.keys().chain(own.keys()).collect();
            for key in keys.into_iter().filter(|key| !LEFT_OUT.contains(&key.as_str())) {
                match (recorded.get(key), own.get(key)) {
                    (Some(recorded), Some(own)) => {
                        differences(&format!("{path}.{key}"), recorded, own, found)
                    }
                    (Some(recorded), None) => {
                        found.push(format!("{path}.{key}: missing, recorded {recorded}"))
                    }
                    (None, own) => found
                        .push(format!("{path}.{key}: not recorded, ours {}", own.unwrap_or(&Value::Null))),
                }
            }
        }
        (Value::Array(recorded), Value::Array(own)) if recorded.len() == own.len() => {
            for (place, (recorded, own)) in recorded.iter().zip(own).enumerate() {
                differences(&format!("{path}[{place}]"), recorded, own, found);
            }
        }
        (recorded, own) if recorded == own => {}
        (recorded, own) => found.push(format!("{path}: recorded {recorded}, ours {own}")),
    }
}

async fn compare(recorded: &Value, response: Response<Body>) -> Vec<String> {
    let mut found = Vec::new();
    let status = response.status().as_u16();
    if recorded["status"] != status {
        found.push(format!("status: recorded {}, ours {status}", recorded["status"]));
    }
    for (name, value) in recorded["headers"].as_object().into_iter().flatten() {
        if name == "Transfer-Encoding" {
            continue;
        }
        let own = response.headers().get(name).and_then(|value| value.to_str().ok());
        if own != value.as_str() {
            found.push(format!("header {name}: recorded {value}, ours {own:?}"));
        }
    }
    let served = response.headers().contains_key("grpc-metadata-content-type");
    if served && recorded["headers"].get("Grpc-Metadata-Content-Type").is_none() {
        found.push("header Grpc-Metadata-Content-Type: not recorded".to_owned());
    }
    let bytes = to_bytes(response.into_body(), BODY_MAX).await.unwrap();
    if let Some(body) = recorded.get("body") {
        let own = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        differences("", body, &own, &mut found);
    } else if let Some(lines) = recorded.get("stream") {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let own: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        differences("", lines, &Value::Array(own), &mut found);
    }
    found
}

/// The watch is recorded with its events shortened, each once.
async fn replay_watch(cell: &EngineCell, service: &Router, recorded: &Value) -> Vec<String> {
    let path = recorded["request"]["path"].as_str().unwrap();
    let response = call(service, "GET", path, None).await;
    let mut found = Vec::new();
    let metadata = json!({"name": "api-watch", "labels": {"w": "api-watch"}});
    call(service, "POST", "/api/v1/workflows/api", Some(workflow(metadata, simple_spec()))).await;
    call(service, "POST", "/api/v1/workflows/api", Some(workflow(json!({"name": "other"}), simple_spec())))
        .await;
    cell.finish_all();
    call(service, "DELETE", "/api/v1/workflows/api/api-watch", None).await;
    let mut text = String::new();
    let mut chunks = response.into_body().into_data_stream();
    while !text.contains("DELETED") {
        text.push_str(&String::from_utf8_lossy(&chunks.next().await.unwrap().unwrap()));
    }
    let mut events: Vec<Value> = Vec::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let object = &event["result"]["object"];
        let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
        let short = json!({"result": {"type": event["result"]["type"], "object": {
            "metadata.name": object["metadata"]["name"], "status.phase": object["status"]["phase"], "keys": keys}}});
        if !events.contains(&short) {
            events.push(short);
        }
    }
    differences("", &recorded["response"]["stream"], &Value::Array(events), &mut found);
    found
}

#[tokio::test]
async fn answers_are_argos() {
    let cell = EngineCell::default();
    cell.connect("eu");
    let service = service(&cell);
    let mut generated = String::new();
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let all = recordings();
    for recording in &all {
        between(&cell, &service, &recording.name).await;
        if generated.is_empty() {
            let assignments = cell.assignments();
            let drawn =
                assignments.iter().find(|(_, assignment)| assignment.workflow.starts_with("api-gen-"));
            generated = drawn.map(|(_, assignment)| assignment.workflow.clone()).unwrap_or_default();
        }
        if generated.is_empty() && recording.name.starts_with("018") {
            let response =
                call(&service, "GET", "/api/v1/workflows/api/@latest?fields=metadata.name", None).await;
            let body: Value =
                serde_json::from_slice(&to_bytes(response.into_body(), BODY_MAX).await.unwrap()).unwrap();
            generated = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        }
        let found = if recording.name.starts_with("105") {
            replay_watch(&cell, &service, &recording.value).await
        } else {
            let request = &recording.value["request"];
            let mut path = concrete_path(request["path"].as_str().unwrap(), &generated);
            let mut recorded = recording.value["response"].clone();
            if path.contains("api-fail-$RANDOM") {
                let drawn = resubmitted(&service).await;
                path = path.replace("api-fail-$RANDOM", &drawn);
                let text = recorded.to_string().replace("api-fail-$RANDOM", &drawn);
                recorded = serde_json::from_str(&text).unwrap();
            }
            let body = request.get("rawBody").and_then(Value::as_str).map(str::to_owned);
            let mut body = body.or_else(|| request.get("body").map(Value::to_string));
            if recording.name.starts_with("053") {
                let version = version_of(&service, "/api/v1/workflow-templates/api/api-tpl").await;
                body = body.map(|body| body.replace("$RV", &version));
            }
            if recording.name.starts_with("122") {
                let version = version_of(&service, "/api/v1/cron-workflows/api/api-cron").await;
                body = body.map(|body| body.replace("$RV", &version));
            }
            let response = call(&service, request["method"].as_str().unwrap(), &path, body).await;
            compare(&recorded, response).await
        };
        if !found.is_empty() {
            wrong.insert(recording.name.clone(), found);
        }
    }
    println!("{} of {} recorded answers match", all.len() - wrong.len(), all.len());
    for (name, reason) in DIFFERENT {
        if wrong.remove(*name).is_some() {
            println!("{name}: differs by decision: {reason}");
        }
    }
    for (name, found) in &wrong {
        println!("{name}");
        found.iter().for_each(|line| println!("    {line}"));
    }
    assert!(wrong.is_empty(), "{} recorded answers differ", wrong.len());
}
