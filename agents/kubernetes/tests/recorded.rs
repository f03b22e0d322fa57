//! Pods that the real Argo made, recorded: ours show a user's containers the same.
//!
//! Not compared, since no container of the user's sees it: Argo's containers `init` and `wait`, what they mount, owners,
//! and the Pod's time to end, to which the executor's hand-over is added. Ours has more variables (`ARGOSY_...`).

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use argosy_executor::protocol::Task;
use argosy_kubernetes::pod::{self, Settings};
use argosy_proto::common::{Assignment, Fence};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Cases without a Pod of the user's, and why.
const NO_POD: [(&str, &str); 4] = [
    ("podspec-http-agent", "Argo's agent runs it; ours is in no Pod of the workflow"),
    ("podspec-names-of-pods", "records names, which the engine makes"),
    ("podspec-patch-invalid", "there is none: see below"),
    ("podspec-pod-disruption-budget", "records the budget"),
];
/// Volumes that only Argo's own containers mount.
const ARGOS_OWN: [&str; 4] = ["tmp-dir-argo", "exec-sa-token", "s3-cred", "input-artifacts"];
/// Seconds for the executor's hand-over.
const HANDOVER: i64 = 5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/cases/podspec")
}

fn workflow_of(case: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(format!("{case}.yaml"))).unwrap();
    serde_yaml::from_str(&text).unwrap()
}

/// The attempt that makes the recorded Pod. Its template is the one that Argo handed to its own `init`.
fn assignment(case: &str, recorded: &Value) -> Assignment {
    let variables = recorded.pointer("/spec/initContainers/0/env").unwrap().as_array().unwrap();
    let value = |name: &str| {
        variables.iter().find(|one| one["name"] == name).map(|one| one["value"].clone()).unwrap()
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let annotation = |name: &str| text(&recorded["annotations"][format!("workflows.argoproj.io/{name}")]);
    Assignment {
        fence: Some(Fence { incarnation: 1, index: 2, ordinal: 3 }),
        namespace: "argo".into(),
        workflow: "$WF".into(),
        node_id: annotation("node-id"),
        node_name: annotation("node-name"),
        pod_name: text(&recorded["name"]),
        template_json: value("ARGO_TEMPLATE").to_string(),
        workflow_pod_json: workflow_of(case)["spec"].to_string(),
        on_exit: recorded["labels"].get("workflows.argoproj.io/on-exit").is_some(),
        stop_grace_ms: 30_000,
        capture_result: Some(value("ARGO_INCLUDE_SCRIPT_OUTPUT") == "true"),
        ..Assignment::default()
    }
}

fn built(assignment: &Assignment) -> Result<Value, pod::Error> {
    let environment = |task: &Task| task.to_environment();
    let pod = pod::build(assignment, &Settings::default(), &environment, 0)?;
    Ok(serde_json::to_value(pod).unwrap())
}

/// What a container's user sees of it.
fn seen(container: &Value) -> Value {
    let mut shown = Map::new();
    for field in ["name", "image", "imagePullPolicy", "securityContext", "workingDir", "ports"] {
        if let Some(value) = container.get(field) {
            shown.insert(field.into(), value.clone());
        }
    }
    let words = |field: &str| container[field].as_array().cloned().unwrap_or_default();
    let mut command = words("command");
    if let Some(at) = command.iter().position(|word| word == "--") {
        command.drain(..=at);
    }
    command.extend(words("args"));
    // The executor adds the script's path itself.
    command.retain(|word| word != "/argo/staging/script");
    shown.insert("words".into(), command.into());
    let variables =
        words("env").into_iter().filter(|one| !one["name"].as_str().unwrap().starts_with("ARGOSY_"));
    let variables = variables.map(|mut one| {
        if let Some(text) = one["value"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
            one["value"] = text;
        }
        one
    });
    shown.insert("env".into(), variables.collect::<Vec<_>>().into());
    let mounts = words("volumeMounts").into_iter().filter(|mount| mount["name"] != "input-artifacts");
    shown.insert("volumeMounts".into(), mounts.collect::<Vec<_>>().into());
    // The API server fills requests from limits.
    let mut resources = container["resources"].as_object().cloned().unwrap_or_default();
    if let Some(limits) = resources.get("limits").cloned() {
        resources.entry("requests").or_insert(limits);
    }
    shown.insert("resources".into(), resources.into());
    shown.into()
}

fn seen_pod(spec: &Value) -> Value {
    let mut shown = BTreeMap::new();
    for field in
        ["automountServiceAccountToken", "hostname", "restartPolicy", "hostNetwork", "dnsPolicy", "dnsConfig"]
    {
        if let Some(value) = spec.get(field) {
            shown.insert(field, value.clone());
        }
    }
    shown.insert("account", spec.get("serviceAccountName").cloned().unwrap_or_else(|| "default".into()));
    let volumes = spec["volumes"].as_array().unwrap().iter().cloned();
    let mut volumes: Vec<Value> =
        volumes.filter(|volume| !ARGOS_OWN.iter().any(|own| volume["name"] == *own)).collect();
    volumes.sort_by_key(|volume| volume["name"].to_string());
    shown.insert("volumes", volumes.into());
    for list in ["containers", "initContainers"] {
        let own = |one: &&Value| one["name"] != "wait" && one["name"] != "init";
        let containers = spec[list].as_array().into_iter().flatten().filter(own).map(seen);
        shown.insert(list, containers.collect::<Vec<_>>().into());
    }
    json!(shown)
}

#[test]
fn a_users_containers_see_what_they_see_in_argos_pods() {
    let mut compared = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_case = path.extension().is_some_and(|extension| extension == "yaml");
        if !is_case || NO_POD.iter().any(|(case, _)| *case == name) {
            continue;
        }
        let recording: Value =
            serde_json::from_str(&std::fs::read_to_string(path.with_extension("json")).unwrap()).unwrap();
        for recorded in recording.pointer("/objects/pods").unwrap().as_array().unwrap() {
            let ours = built(&assignment(&name, recorded)).unwrap();
            let (ours_seen, argos) = (seen_pod(&ours["spec"]), seen_pod(&recorded["spec"]));
            assert_eq!(ours_seen, argos, "{name}: {ours_seen:#}\n{argos:#}");
            let grace = |spec: &Value| spec["terminationGracePeriodSeconds"].as_i64().unwrap();
            assert_eq!(grace(&ours["spec"]), grace(&recorded["spec"]) + HANDOVER, "{name}");
            for kind in ["labels", "annotations"] {
                for (key, value) in recorded[kind].as_object().unwrap() {
                    let own = &ours["metadata"][kind][key];
                    // A label value has no dollar sign.
                    let is_same = own == value
                        || value.as_str().unwrap().replace('$', "") == own.as_str().unwrap_or_default();
                    assert!(is_same, "{name}: {kind} {key}: {own} is not {value}");
                }
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 13, "every recorded Pod of a user's");
}

#[test]
fn an_invalid_patch_is_argos_error() {
    let workflow = workflow_of("podspec-patch-invalid");
    let template = &workflow["spec"]["templates"][0];
    let assignment = Assignment { template_json: template.to_string(), ..Assignment::default() };
    let recording = std::fs::read_to_string(folder().join("podspec-patch-invalid.json")).unwrap();
    let recording: Value = serde_json::from_str(&recording).unwrap();
    assert_eq!(recording["nodes"][0]["message"], built(&assignment).unwrap_err().to_string());
}
