//! What fields of the language bound or change while a workflow runs; how it ends is what the recordings check.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_model::Limits;
use argosy_proto::common::AttemptPhase;
use serde_json::{Value, json};
use world::World;

fn world() -> World {
    let mut world = World::new(Limits::default());
    world.join("one", 1_000_000);
    world
}

fn pod(name: &str) -> Value {
    json!({"name": name, "container": {"image": "busybox", "command": ["true"]}})
}

fn manifest(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec.as_object_mut().unwrap().insert("entrypoint".into(), "main".into());
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": "argo"},
        "spec": spec,
    })
}

/// Ends one Pod after the other; gives the most that ran at the same time, and the names in order.
fn drain(world: &mut World) -> (usize, Vec<String>) {
    let (mut most, mut names) = (0, Vec::new());
    world.settle();
    for _ in 0..1_000 {
        let open = world.to_run();
        most = most.max(open.len());
        let Some((cluster, fence, node)) = open.into_iter().next() else { return (most, names) };
        names.push(node);
        world.now += 1;
        world.end(&cluster, fence, AttemptPhase::Succeeded);
        world.settle();
    }
    panic!("it does not end");
}

#[test]
fn parallelism_of_a_workflow_bounds_its_pods() {
    let mut world = world();
    let items: Vec<u32> = (0..7).collect();
    let spec = json!({"parallelism": 2, "templates": [
        {"name": "main", "steps": [[{"name": "a", "template": "pod", "withItems": items}]]}, pod("pod")]});
    world.submit("w", &manifest("w", spec)).unwrap();
    let (most, names) = drain(&mut world);
    assert_eq!((most, names.len()), (2, 7));
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn parallelism_of_a_template_bounds_tasks_items_and_tries() {
    let mut world = world();
    let mut retried = pod("pod");
    retried["retryStrategy"] = json!({"limit": 1});
    let spec = json!({"templates": [
        {"name": "main", "parallelism": 2, "dag": {"tasks": [
            {"name": "a", "template": "pod"}, {"name": "b", "template": "pod"}, {"name": "c", "template": "pod"},
            {"name": "d", "template": "pod", "withItems": [1, 2, 3]},
            {"name": "e", "template": "pod", "depends": "a"}]}},
        retried]});
    world.submit("w", &manifest("w", spec)).unwrap();
    let (most, names) = drain(&mut world);
    assert_eq!((most, names.len()), (2, 7));
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn nothing_more_starts_after_a_failure_with_fail_fast() {
    let mut world = world();
    let spec = json!({"templates": [
        {"name": "main", "parallelism": 1, "failFast": true,
         "steps": [[{"name": "a", "template": "pod", "withItems": [1, 2, 3]}]]}, pod("pod")]});
    world.submit("w", &manifest("w", spec)).unwrap();
    world.settle();
    let (cluster, fence, _) = world.to_run().remove(0);
    world.end(&cluster, fence, AttemptPhase::Failed);
    world.settle();
    assert!(world.to_run().is_empty());
    assert_eq!(world.phase("w"), "Failed");
}

#[test]
fn a_step_is_over_after_its_exit_hook_and_waits_for_it() {
    let mut world = world();
    let spec = json!({"templates": [
        {"name": "main", "steps": [
            [{"name": "a", "template": "pod", "hooks": {"exit": {"template": "hook"}}}, {"name": "b", "template": "pod"}],
            [{"name": "c", "template": "pod"}]]},
        pod("pod"), pod("hook")]});
    world.submit("w", &manifest("w", spec)).unwrap();
    let (_, names) = drain(&mut world);
    assert_eq!(names.last().unwrap(), "w[1].c");
    assert!(names.contains(&"w[0].a.onExit".to_owned()));
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn a_hook_runs_when_its_expression_holds_and_once() {
    let mut world = world();
    let running = "steps['a'].status == 'Running'";
    let spec = json!({"templates": [
        {"name": "main", "steps": [[{"name": "a", "template": "nap", "hooks": {
            "begun": {"template": "pod", "expression": running},
            "lost": {"template": "pod", "expression": "steps['a'].status == 'Failed'"}}}]]},
        {"name": "nap", "suspend": {"duration": "5"}}, pod("pod")]});
    world.submit("w", &manifest("w", spec)).unwrap();
    let (_, before) = drain(&mut world);
    world.now += 5_000;
    let (_, after) = drain(&mut world);
    let mut names = before;
    names.extend(after);
    assert_eq!(names, ["w[0].a.hooks.begun"]);
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn memoized_outputs_serve_later_workflows_of_the_namespace() {
    let mut world = world();
    let spec = json!({"templates": [{"name": "main",
        "memoize": {"key": "k-{{workflow.parameters.p}}", "maxAge": "1h", "cache": {"configMap": {"name": "c"}}},
        "container": {"image": "busybox", "command": ["true"]}}],
        "arguments": {"parameters": [{"name": "p", "value": "1"}]}});
    for (name, pods) in [("first", 1), ("second", 0)] {
        world.submit(name, &manifest(name, spec.clone())).unwrap();
        assert_eq!(drain(&mut world).1.len(), pods, "{name}");
        assert_eq!(world.phase(name), "Succeeded");
    }
    assert_eq!(world.json("second")["status"]["nodes"]["second"]["memoizationStatus"]["hit"], true);
    world.now += 3_600_001;
    world.submit("late", &manifest("late", spec)).unwrap();
    assert_eq!(drain(&mut world).1.len(), 1);
}

#[test]
fn a_pod_that_no_cluster_takes_fails_at_its_timeout() {
    let mut world = world();
    let spec = json!({"templates": [{"name": "main", "timeout": "4s",
        "container": {"image": "busybox", "resources": {"requests": {"cpu": "100000"}}}}]});
    world.submit("w", &manifest("w", spec)).unwrap();
    world.settle();
    world.now += 4_000;
    world.settle();
    assert_eq!(world.phase("w"), "Error");
    assert_eq!(world.json("w")["status"]["nodes"]["w"]["message"], "timeout");
}

#[test]
fn workflow_metadata_is_the_workflows_own() {
    let mut world = world();
    let spec = json!({"workflowMetadata": {"labels": {"team": "blue"}, "annotations": {"note": "n"}},
        "templates": [{"name": "main", "steps": [[{"name": "a", "template": "nap",
            "arguments": {"parameters": [{"name": "v", "value": "{{workflow.labels.team}}"}]}}]]},
            {"name": "nap", "inputs": {"parameters": [{"name": "v"}]}, "suspend": {"duration": "0"}}]});
    world.submit("w", &manifest("w", spec)).unwrap();
    drain(&mut world);
    let shown = world.json("w");
    assert_eq!(shown["metadata"]["labels"]["team"], "blue");
    assert_eq!(shown["metadata"]["annotations"]["note"], "n");
    let nodes = shown["status"]["nodes"].as_object().unwrap();
    let step = nodes.values().find(|node| node["name"] == "w[0].a").unwrap();
    assert_eq!(step["inputs"]["parameters"][0]["value"], "blue");
}

#[test]
fn labels_are_computed_when_a_workflow_is_accepted() {
    let mut world = world();
    let nap = json!([{"name": "main", "suspend": {"duration": "0"}, "inputs": {"parameters": [{"name": "v", "default": "{{workflow.labels.computed}}"}]}}]);
    let labels = |expression: &str| json!({"labels": {"s": "t"}, "labelsFrom": {"computed": {"expression": expression}}});
    let spec = json!({"workflowMetadata": labels("workflow.parameters.p + '-' + workflow.labels.s"),
        "arguments": {"parameters": [{"name": "p", "value": "pv"}]}, "templates": nap});
    world.submit("w", &manifest("w", spec)).unwrap();
    drain(&mut world);
    let shown = world.json("w");
    assert_eq!(shown["metadata"]["labels"]["computed"], "pv-t");
    assert_eq!(shown["status"]["nodes"]["w"]["inputs"]["parameters"][0]["value"], "pv-t");
    let wrong = json!({"workflowMetadata": labels("1 + 1"), "templates": nap});
    world.submit("v", &manifest("v", wrong)).unwrap();
    drain(&mut world);
    assert_eq!(world.phase("v"), "Error");
    assert_eq!(
        world.json("v")["status"]["message"],
        "failed to evaluate label \"computed\" expression \"1 + 1\" evaluted to int but must be a string"
    );
}

#[test]
fn a_stop_ends_a_step_that_waits_for_its_next_try_at_once() {
    let mut world = world();
    let retried = json!({"name": "main", "retryStrategy": {"limit": 3, "backoff": {"duration": "1h"}},
        "container": {"image": "busybox", "command": ["false"]}});
    world.submit("w", &manifest("w", json!({"templates": [retried]}))).unwrap();
    world.settle();
    let (cluster, fence, _) = world.to_run().pop().unwrap();
    world.end(&cluster, fence, AttemptPhase::Failed);
    world.settle();
    assert_eq!(world.json("w")["status"]["nodes"]["w"]["message"], "Backoff for 1h0m0s");
    let stop = argosy_proto::command::ShutdownWorkflow {
        namespace: "argo".into(),
        name: "w".into(),
        strategy: argosy_proto::command::ShutdownStrategy::Stop.into(),
        ..Default::default()
    };
    world.command(argosy_proto::command::command::Body::ShutdownWorkflow(stop)).unwrap();
    world.settle();
    assert_eq!(world.phase("w"), "Failed");
    assert_eq!(world.json("w")["status"]["nodes"]["w"]["message"], "Stopped with strategy 'Stop'");
    assert_eq!(world.state.next_timer(), None, "no timer is left of it");
}

#[test]
fn labels_from_expressions_are_the_workflows_own() {
    let mut world = world();
    let metadata = json!({"labelsFrom": {"computed": {"expression": "workflow.parameters.p + '-x'"}}});
    let mut main = pod("main");
    main["container"]["args"] = json!(["{{workflow.labels.computed}}"]);
    let spec = json!({"arguments": {"parameters": [{"name": "p", "value": "v"}]}, "workflowMetadata": metadata,
        "templates": [main]});
    world.submit("w", &manifest("w", spec)).unwrap();
    world.settle();
    assert_eq!(world.json("w")["metadata"]["labels"]["computed"], "v-x");
    let (_, fence, _) = world.to_run().pop().unwrap();
    assert!(world.state.assignment(&fence).unwrap().template_json.contains("\"v-x\""));
}

#[test]
fn a_try_after_a_failure_keeps_away_from_the_host_and_the_cluster() {
    let mut world = world();
    world.join("two", 1_000_000);
    let mut main = pod("main");
    main["retryStrategy"] = json!({"limit": 2, "affinity": {"nodeAntiAffinity": {}}});
    world.submit("w", &manifest("w", json!({"templates": [main]}))).unwrap();
    let mut clusters = Vec::new();
    for hosts in [json!(null), json!(["h0"]), json!(["h0", "h1"])] {
        world.settle();
        let (cluster, fence, _) = world.to_run().pop().unwrap();
        let template = world.state.assignment(&fence).unwrap().template_json;
        let template: Value = serde_json::from_str(&template).unwrap();
        let terms = &template["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(terms["nodeSelectorTerms"][0]["matchExpressions"][0]["values"], hosts);
        let host = format!("h{}", clusters.len());
        let mut report = world::ended(fence, AttemptPhase::Failed);
        report.host = host;
        world.report(&cluster, report);
        clusters.push(cluster);
    }
    assert_ne!(clusters[0], clusters[1], "the second try has another cluster");
}

#[test]
fn the_cells_defaults_lie_under_the_workflow_and_its_template() {
    let mut world = world();
    world.leader.defaults = Some(std::sync::Arc::new(json!({
        "metadata": {"labels": {"team": "a", "kind": "batch"}},
        "spec": {"parallelism": 2, "arguments": {"parameters": [{"name": "who", "value": "default"}]}},
    })));
    let items: Vec<u32> = (0..5).collect();
    let templates = json!([
        {"name": "main", "steps": [[{"name": "a", "template": "pod", "withItems": items}]]}, pod("pod")]);
    world.submit("w", &manifest("w", json!({"templates": templates}))).unwrap();
    assert_eq!(drain(&mut world).0, 2, "the default's parallelism");
    let shown = world.json("w");
    assert_eq!(shown["metadata"]["labels"]["team"], "a");
    assert_eq!(shown["spec"]["arguments"]["parameters"][0]["value"], "default");
    let mut own = manifest("own", json!({"templates": templates, "parallelism": 4}));
    own["metadata"]["labels"] = json!({"team": "b"});
    world.submit("own", &own).unwrap();
    assert_eq!(drain(&mut world).0, 4, "the workflow's own wins");
    assert_eq!(world.json("own")["metadata"]["labels"]["team"], "b");
    assert_eq!(world.json("own")["metadata"]["labels"]["kind"], "batch");
}

/// What a container printed, to be read by nobody.
const PRINTED: &str =
    "{{workflow.parameters.secret}} {{=workflow.parameters.secret}} {{{workflow.parameters.secret}}}";

/// A step's result goes on to a step, through a template of steps with an expression, and as the item of a loop.
fn passed_on(name: &str, annotation: Option<&str>) -> Value {
    let with = |value: &str| json!({"parameters": [{"name": "v", "value": value}]});
    let takes = |template: Value| {
        let mut template = template;
        template["inputs"] = json!({"parameters": [{"name": "v"}]});
        template
    };
    let mut show = pod("show");
    show["container"]["args"] = json!(["<{{inputs.parameters.v}}>"]);
    show["retryStrategy"] = json!({"limit": "1"});
    let result = "{{steps.print.outputs.result}}";
    let below = json!({"name": "below", "steps": [
        [{"name": "plain", "template": "show", "arguments": with("{{inputs.parameters.v}}")},
         {"name": "expression", "template": "show", "arguments": with("{{=inputs.parameters.v}}")}],
    ]});
    let main = json!({"name": "main", "steps": [
        [{"name": "print", "template": "print"}],
        [{"name": "direct", "template": "show", "arguments": with(result)},
         {"name": "below", "template": "below", "arguments": with(result)},
         {"name": "each", "template": "show", "arguments": with("{{item}}"),
          "withParam": "[{{=toJson(steps.print.outputs.result)}}]"}],
    ]});
    let spec = json!({"arguments": {"parameters": [{"name": "secret", "value": "s3cret"}]},
        "templates": [main, pod("print"), takes(show), takes(below)]});
    let mut manifest = manifest(name, spec);
    if let Some(value) = annotation {
        manifest["metadata"]["annotations"] = json!({"argosy.dev/expand-outputs": value});
    }
    manifest
}

/// What the steps show that a step's result was passed on to.
fn shown(annotation: Option<&str>) -> Vec<String> {
    let mut world = world();
    world.submit("w", &passed_on("w", annotation)).unwrap();
    world.settle();
    let (cluster, fence, _) = world.to_run().pop().unwrap();
    let mut report = world::ended(fence, AttemptPhase::Succeeded);
    report.result = Some(PRINTED.to_owned());
    world.report(&cluster, report);
    world.settle();
    let running = world.to_run();
    let args = running.iter().map(|(_, fence, _)| {
        let template = world.state.assignment(fence).unwrap().template_json;
        let template: Value = serde_json::from_str(&template).unwrap();
        template["container"]["args"][0].as_str().unwrap().to_owned()
    });
    let args: Vec<String> = args.collect();
    assert_eq!(args.len(), 4, "{}", world.json("w"));
    let tree = world.json("w").to_string();
    assert!(!tree.contains('\u{fdd0}') && !tree.contains("u007b"), "{tree}");
    args
}

#[test]
fn what_containers_put_out_is_text_however_it_is_passed_on() {
    for value in [None, Some("false")] {
        assert_eq!(shown(value), vec![format!("<{PRINTED}>"); 4]);
    }
    assert!(
        shown(Some("true")).iter().all(|shown| shown.contains("s3cret")),
        "as in Argo, where it is asked for"
    );
}
