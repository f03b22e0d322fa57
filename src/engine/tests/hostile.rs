//! Manifests made to do harm: each ends soon, with a message, in little memory.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test; it measures time"
)]

mod world;

use argosy_model::Limits;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use world::World;

/// Enough for the slowest of them on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// How a workflow ends whose `main` is this template: its phase and what is said.
#[track_caller]
fn ends(template: Value) -> (String, String) {
    let began = Instant::now();
    let mut world = World::new(Limits::default());
    world.join("one", 1_000_000);
    let mut main = template;
    main["name"] = json!("main");
    let nap = json!({"name": "nap", "inputs": {"parameters": [{"name": "v", "default": ""}]}, "suspend": {"duration": "0"}});
    let manifest = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "w", "namespace": "argo"},
        "spec": {"entrypoint": "main", "templates": [main, nap]},
    });
    let outcome = match world.submit("w", &manifest) {
        Err(refusal) => ("Refused".to_owned(), refusal.message),
        Ok(_) => {
            world.settle();
            let status = world.json("w")["status"].clone();
            let of_nodes = status["nodes"].as_object().into_iter().flatten();
            let messages: Vec<&str> = of_nodes.filter_map(|(_, node)| node["message"].as_str()).collect();
            (status["phase"].as_str().unwrap_or_default().to_owned(), messages.join("\n"))
        }
    };
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    outcome
}

fn step(fields: Value) -> Value {
    let mut step = json!({"name": "a", "template": "nap"});
    step.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"steps": [[step]]})
}

fn value(expression: &str) -> Value {
    step(json!({"arguments": {"parameters": [{"name": "v", "value": format!("{{{{={expression}}}}}")}]}}))
}

#[track_caller]
fn refused(template: Value, part: &str) {
    let (phase, message) = ends(template);
    assert!(["Refused", "Error", "Failed"].contains(&phase.as_str()), "{phase}: {message:.300}");
    assert!(message.contains(part), "{message:.300}");
}

#[test]
fn loops_over_more_than_there_may_be() {
    refused(
        step(json!({"withSequence": {"count": "100000000"}})),
        "the loop has 100000000 items, and a workflow may have 1000000 nodes",
    );
    refused(
        step(json!({"withSequence": {"start": "-9223372036854775808", "end": "9223372036854775807"}})),
        "items",
    );
    refused(step(json!({"withSequence": {"count": "9223372036854775807", "start": "5"}})), "items");
}

#[test]
fn a_format_that_makes_every_item_large() {
    refused(
        step(json!({"withSequence": {"count": "10", "format": "x".repeat(1_000_000)}})),
        "format of withSequence is longer than",
    );
    let (phase, _) = ends(step(json!({"withSequence": {"count": "3", "format": "%0999999999d"}})));
    assert_eq!(phase, "Succeeded");
}

#[test]
fn expressions_that_grow_or_never_end() {
    refused(value("sprig.repeat(2000000000, 'ab')"), "budget exceeded");
    refused(value("reduce(1..40, #acc + #acc, 'x')"), "budget exceeded");
    refused(value("len(map(1..2000, map(1..2000, #)))"), "");
    refused(value("1..2000000000"), "budget exceeded");
    refused(value("sprig.regexReplaceAll('', repeat('a', 100000), repeat('b', 100000))"), "budget");
    refused(value(&"(".repeat(50_000)), "nested deeper");
}

#[test]
fn patterns_that_look_back() {
    let (phase, message) = ends(value("repeat('a', 30000) + 'b' matches '^(a+)+$'"));
    assert_eq!(phase, "Succeeded", "{message}");
    refused(value("'a' matches 'a{1000}{1000}{1000}'"), "error parsing regexp");
}

#[test]
fn conditions_and_dependencies_without_end() {
    refused(step(json!({"when": "(".repeat(60_000)})), "");
    refused(step(json!({"when": format!("1{}", " + 1".repeat(20_000))})), "");
    let task = |depends: String| json!({"dag": {"tasks": [{"name": "a", "template": "nap"}, {"name": "b", "template": "nap", "depends": depends}]}});
    refused(task(format!("{}a", "!".repeat(50_000))), "");
    refused(task(format!("{}a{}", "(".repeat(50_000), ")".repeat(50_000))), "");
}

#[test]
fn tags_that_double_themselves() {
    let doubled = "{{inputs.parameters.v}}".repeat(50_000);
    let main = json!({
        "inputs": {"parameters": [{"name": "v", "value": "x".repeat(200_000)}]},
        "steps": [[{"name": "a", "template": "nap", "arguments": {"parameters": [{"name": "v", "value": doubled}]}}]],
    });
    refused(main, "");
}

#[test]
fn templates_that_call_themselves() {
    refused(json!({"steps": [[{"name": "a", "template": "main"}]]}), "depth");
}
