//! ConfigMaps: how they are stored, and how parameters come out of them.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_engine::{Refusal, State, view};
use argosy_model::Limits;
use argosy_proto::command::{self as ask, command::Body};
use argosy_proto::common::AttemptPhase;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use world::World;

const PARAMETER: &[(&str, &str)] = &[("workflows.argoproj.io/configmap-type", "Parameter")];

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn store(name: &str, labels: &[(&str, &str)], data: &[(&str, &str)]) -> ask::StoreConfigMap {
    ask::StoreConfigMap {
        namespace: "argo".into(),
        name: name.into(),
        uid: "uid".into(),
        create: true,
        labels: texts(labels),
        data: texts(data),
        ..ask::StoreConfigMap::default()
    }
}

fn apply(world: &mut World, command: ask::StoreConfigMap) -> Result<(), Refusal> {
    world.command(Body::StoreConfigMap(command)).map(drop)
}

fn code(outcome: Result<(), Refusal>) -> String {
    outcome.expect_err("refused").code
}

#[test]
fn config_maps_are_made_changed_and_deleted() {
    let mut world = World::new(Limits::default());
    apply(&mut world, store("a", &[], &[("k", "1")])).unwrap();
    assert_eq!(code(apply(&mut world, store("a", &[], &[]))), "ARG1100");
    let mut change = store("a", &[], &[("k", "2")]);
    change.create = false;
    apply(&mut world, change.clone()).unwrap();
    assert_eq!(world.state.config_map("argo", "a").unwrap().data["k"], "2");
    change.resource_version = "1".into();
    assert_eq!(code(apply(&mut world, change.clone())), "ARG1102");
    change.resource_version =
        view::config_map_json(&world.state, "argo", "a").unwrap()["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .into();
    change.immutable = true;
    apply(&mut world, change.clone()).unwrap();
    change.resource_version.clear();
    change.data = texts(&[("k", "3")]);
    assert_eq!(code(apply(&mut world, change)), "ARG1103");
    let delete = || ask::DeleteConfigMap { namespace: "argo".into(), name: "a".into() };
    world.command(Body::DeleteConfigMap(delete())).unwrap();
    assert!(world.state.config_map("argo", "a").is_none());
    assert_eq!(world.command(Body::DeleteConfigMap(delete())).unwrap_err().code, "ARG1101");
    let mut missing = store("a", &[], &[]);
    missing.create = false;
    assert_eq!(code(apply(&mut world, missing)), "ARG1101");
}

#[test]
fn config_maps_have_bounds() {
    let limits = Limits {
        config_maps_max: 2,
        config_map_bytes_max: 100,
        config_maps_bytes_max: 150,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    assert_eq!(code(apply(&mut world, store("a", &[], &[("k", &"x".repeat(100))]))), "ARG1104");
    assert_eq!(code(apply(&mut world, store("a", &[], &[("a/b", "x")]))), "ARG1019");
    apply(&mut world, store("a", &[], &[("k", &"x".repeat(90))])).unwrap();
    assert_eq!(code(apply(&mut world, store("b", &[], &[("k", &"x".repeat(90))]))), "ARG1105");
    apply(&mut world, store("b", &[], &[("k", "x")])).unwrap();
    assert_eq!(code(apply(&mut world, store("c", &[], &[("k", "x")]))), "ARG1105");
    let mut smaller = store("a", &[], &[("k", "x")]);
    smaller.create = false;
    apply(&mut world, smaller).unwrap();
    let mut larger = store("b", &[], &[("k", &"x".repeat(90))]);
    larger.create = false;
    apply(&mut world, larger).unwrap();
    // What a member finds after a restart is what it had.
    let loaded = State::load(world.state.rows().into_iter()).unwrap();
    assert_eq!(loaded, world.state);
}

fn shows(world: &mut World, arguments: &Value, inputs: &Value) -> Value {
    let name = format!("w{}", world.index);
    let manifest = json!({"metadata": {"name": name}, "spec": {
    "entrypoint": "main",
    "templates": [
        {"name": "main", "steps": [[{"name": "a", "template": "show", "arguments": {"parameters": arguments}}]]},
        {"name": "show", "inputs": {"parameters": inputs}, "suspend": {"duration": "0"}},
    ]}});
    world.submit(&name, &manifest).unwrap();
    world.settle();
    let shown = world.json(&name);
    let nodes = shown["status"]["nodes"].as_object().unwrap();
    let step = nodes.values().find(|node| node["displayName"] == "a").unwrap();
    let group = nodes.values().find(|node| node["type"] == "StepGroup").unwrap();
    json!([step["inputs"]["parameters"][0]["value"], step["message"], group["message"]])
}

fn from(name: &str, key: &str, default: Option<&str>) -> Value {
    let mut source = json!({"configMapKeyRef": {"name": name, "key": key}});
    if let Some(default) = default {
        source["default"] = default.into();
    }
    json!([{"name": "p", "valueFrom": source}])
}

#[test]
fn inputs_and_arguments_come_out_of_config_maps() {
    let mut world = World::new(Limits::default());
    apply(&mut world, store("params", PARAMETER, &[("greeting", "hello")])).unwrap();
    apply(&mut world, store("plain", &[], &[("greeting", "hello")])).unwrap();
    let is = |shown: Value, value: &str| assert_eq!(shown[0], value, "{shown}");
    is(shows(&mut world, &json!([]), &from("params", "greeting", None)), "hello");
    is(shows(&mut world, &json!([]), &from("params", "nope", Some("other"))), "other");
    is(shows(&mut world, &json!([]), &from("nope", "greeting", Some("other"))), "other");
    is(shows(&mut world, &json!([{"name": "p", "value": "given"}]), &from("nope", "x", None)), "given");
    is(
        shows(&mut world, &from("params", "greeting", None), &json!([{"name": "p", "default": "d"}])),
        "hello",
    );
    let failed = shows(&mut world, &json!([]), &from("plain", "greeting", Some("other")));
    let message = "unable to retrieve inputs.parameters.p from ConfigMap: ConfigMap 'plain' needs to have the label workflows.argoproj.io/configmap-type: Parameter to load parameters";
    assert_eq!(failed[1], message);
    let group = failed[2].as_str().unwrap();
    assert!(group.starts_with("step group deemed errored due to child w"), "{group}");
    assert!(group.ends_with(&format!("[0].a error: {message}")), "{group}");
    let failed = shows(&mut world, &json!([]), &from("nope", "greeting", None));
    assert_eq!(
        failed[1],
        "unable to retrieve inputs.parameters.p from ConfigMap: ConfigMap 'nope' does not exist. Please make sure it has the label workflows.argoproj.io/configmap-type: Parameter to be detectable by the controller"
    );
}

#[test]
fn a_name_is_put_together_from_globals() {
    let mut world = World::new(Limits::default());
    apply(&mut world, store("params-w", PARAMETER, &[("greeting", "hello")])).unwrap();
    let inputs = from("params-{{workflow.name}}", "{{workflow.parameters.key}}", None);
    let manifest = json!({"metadata": {"name": "w"}, "spec": {
        "entrypoint": "main", "arguments": {"parameters": [{"name": "key", "value": "greeting"}]},
        "templates": [{"name": "main", "inputs": {"parameters": inputs}, "suspend": {"duration": "0"}}]}});
    world.submit("w", &manifest).unwrap();
    world.settle();
    assert_eq!(world.json("w")["status"]["nodes"]["w"]["inputs"]["parameters"][0]["value"], "hello");
}

fn of_workflow(name: &str, parameters: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {
    "entrypoint": "main", "arguments": {"parameters": parameters},
    "templates": [
        {"name": "main", "inputs": {"parameters": [{"name": "p"}]},
         "container": {"image": "busybox", "command": ["echo"], "args": ["{{workflow.parameters.p}} {{workflow.parameters}}"]}},
    ]}})
}

#[test]
fn arguments_of_a_workflow_keep_their_values_until_it_is_retried() {
    let mut world = World::new(Limits::default());
    world.join("one", 1000);
    apply(&mut world, store("params", PARAMETER, &[("greeting", "hello")])).unwrap();
    world.submit("w", &of_workflow("w", &from("params", "greeting", None))).unwrap();
    let mut change = store("params", PARAMETER, &[("greeting", "later")]);
    change.create = false;
    apply(&mut world, change).unwrap();
    world.settle();
    let runs = |world: &World, text: &str| {
        let (_, fence, _) = world.to_run().remove(0);
        let template: Value =
            serde_json::from_str(&world.state.assignment(&fence).unwrap().template_json).unwrap();
        let said = template["container"]["args"][0].as_str().unwrap();
        let list = r#"[{"name":"p","valueFrom":{"configMapKeyRef":{"name":"params","key":"greeting"}}}]"#;
        assert_eq!(said, format!("{text} {list}"));
        assert_eq!(world.json("w")["status"]["nodes"]["w"]["inputs"]["parameters"][0]["value"], text);
        fence
    };
    let fence = runs(&world, "hello");
    world.end("one", fence, AttemptPhase::Failed);
    world.settle();
    let retry =
        ask::RetryWorkflow { namespace: "argo".into(), name: "w".into(), ..ask::RetryWorkflow::default() };
    world.command(Body::RetryWorkflow(retry)).unwrap();
    world.settle();
    runs(&world, "later");
}

#[test]
fn a_workflow_without_its_config_map_fails_at_once() {
    let mut world = World::new(Limits::default());
    let submit = |world: &mut World, name: &str, parameters: Value| {
        world.submit(name, &of_workflow(name, &parameters)).unwrap();
        world.settle();
        world.json(name)["status"].clone()
    };
    let status = submit(&mut world, "a", from("nope", "k", None));
    assert_eq!(status["phase"], "Failed");
    assert_eq!(
        status["message"],
        "failed to set global parameters: failed to set global parameter p from configmap with name nope and key k: ConfigMap 'nope' does not exist. Please make sure it has the label workflows.argoproj.io/configmap-type: Parameter to be detectable by the controller"
    );
    assert!(!status["finishedAt"].is_null());
    let status = submit(&mut world, "b", json!([{"name": "p", "valueFrom": {"supplied": {}}}]));
    assert_eq!(
        status["message"],
        "failed to set global parameters: either value or valueFrom must be specified in order to set global parameter p"
    );
    assert!(!world.state.has_work());
}
