use serde_json::json;

use super::*;

/// The messages about a `spec`, with a container template `ok` and one `val` with an input added.
fn messages(mut spec: serde_json::Value) -> Vec<String> {
    let extra = [
        json!({"name": "ok", "container": {"image": "x"}}),
        json!({"name": "val", "inputs": {"parameters": [{"name": "v"}]}, "suspend": {}}),
    ];
    spec["templates"].as_array_mut().unwrap().extend(extra);
    let options = crate::Options::default();
    let document = crate::parse_value(json!({"spec": spec}), &options).unwrap();
    document.validate().into_iter().map(|problem| problem.message).collect()
}

fn steps(groups: serde_json::Value) -> serde_json::Value {
    json!({"entrypoint": "main", "templates": [{"name": "main", "steps": groups}]})
}

fn dag(tasks: serde_json::Value) -> serde_json::Value {
    json!({"entrypoint": "main", "templates": [{"name": "main", "dag": {"tasks": tasks}}]})
}

#[test]
fn all_problems_are_told_argos_first() {
    let spec = steps(json!([
        [{"name": "a", "template": "nope"}, {"name": "a", "template": "val"}],
        [{"name": "b c", "template": "ok", "when": "{{steps.x.status}} == {{inputs.parameters.y}}"}]
    ]));
    let found = messages(spec);
    assert_eq!(found[0], "templates.main.steps[0].a template name 'nope' undefined");
    for expected in [
        "templates.main.steps[0].name 'a' is not unique",
        "templates.main.steps[0].a templates.val inputs.parameters.v was not supplied",
        "templates.main.steps failed to resolve {{steps.x.status}}",
        "templates.main.steps failed to resolve {{inputs.parameters.y}}",
    ] {
        assert!(found.iter().any(|message| message == expected), "{expected} in {found:?}");
    }
    assert!(found.iter().any(|message| message.starts_with("templates.main.steps[1].name 'b c' is invalid")));
}

#[test]
fn cycles_and_unknown_tasks_of_a_graph() {
    let cycle = dag(json!([
        {"name": "a", "template": "ok", "dependencies": ["c"]},
        {"name": "b", "template": "ok", "dependencies": ["a"]},
        {"name": "c", "template": "ok", "dependencies": ["b"]},
    ]));
    assert_eq!(messages(cycle), ["templates.main sorting failed: graph with cycle"]);
    let unknown = dag(json!([{"name": "a", "template": "ok", "depends": "b.Failed || c"}]));
    assert_eq!(
        messages(unknown),
        [
            "templates.main sorting failed: invalid dependency b",
            "templates.main sorting failed: invalid dependency c"
        ]
    );
    assert_eq!(messages(dag(json!([]))), ["templates.main must have at least one task"]);
}

#[test]
fn an_argument_needs_its_task_among_the_ancestors() {
    let output = "{{tasks.a.outputs.result}}";
    let task = |name: &str, depends: &str| json!({"name": name, "template": "val", "depends": depends, "arguments": {"parameters": [{"name": "v", "value": output}]}});
    let spec = dag(
        json!([{"name": "a", "template": "ok"}, {"name": "b", "template": "ok", "depends": "a"}, task("c", "b"), task("d", "")]),
    );
    assert_eq!(messages(spec), ["templates.main.tasks.d missing dependency 'a' for parameter 'v'"]);
}

#[test]
fn a_loop_brings_its_items_into_scope() {
    let step = |items: serde_json::Value, value: &str| {
        steps(json!([[{"name": "a", "template": "val", "withItems": items,
            "arguments": {"parameters": [{"name": "v", "value": value}]}}]]))
    };
    assert_eq!(messages(step(json!([{"k": 1}]), "{{item.k}} {{item}}")), Vec::<String>::new());
    assert_eq!(
        messages(step(json!([1]), "{{item.k}}")),
        ["templates.main.steps failed to resolve {{item.k}}"]
    );
}

#[test]
fn a_template_named_by_a_parameter_is_looked_up_at_once() {
    let mut spec = steps(json!([[{"name": "a", "template": "{{workflow.parameters.t}}"}]]));
    spec["arguments"] = json!({"parameters": [{"name": "t", "value": "ok"}]});
    assert_eq!(messages(spec.clone()), Vec::<String>::new());
    spec["arguments"]["parameters"][0]["value"] = json!("nowhere");
    assert_eq!(messages(spec), ["templates.main.steps[0].a template name 'nowhere' undefined"]);
}

#[test]
fn names_that_are_known_only_when_it_runs() {
    let value = "{{workflow.scheduledTime}} {{workflow.duration}} {{workflow.creationTimestamp.Y}} {{node.name}} {{steps.name}}";
    let step =
        json!({"name": "a", "template": "val", "arguments": {"parameters": [{"name": "v", "value": value}]}});
    assert_eq!(messages(steps(json!([[step]]))), Vec::<String>::new());
    let makes = json!({"name": "makes", "inputs": {"parameters": [{"name": "n", "value": "x"}]}, "container": {"image": "x"},
        "outputs": {"parameters": [{"name": "o", "globalName": "{{inputs.parameters.n}}", "valueFrom": {"path": "/o"}}]}});
    let reads = json!({"name": "b", "template": "val", "arguments": {"parameters": [{"name": "v", "value": "{{workflow.outputs.parameters.any}}"}]}});
    let mut spec = steps(json!([[{"name": "a", "template": "makes"}], [reads]]));
    spec["templates"].as_array_mut().unwrap().push(makes);
    assert_eq!(messages(spec), Vec::<String>::new());
}

#[test]
fn names_of_tasks_that_are_waited_for_begin_with_a_letter() {
    let spec =
        dag(json!([{"name": "1a", "template": "ok"}, {"name": "b", "template": "ok", "depends": "1a"}]));
    assert_eq!(
        messages(spec)[0],
        "templates.main.tasks.1a name cannot begin with a digit when using either 'depends' or 'dependencies'"
    );
    assert_eq!(messages(dag(json!([{"name": "1a", "template": "ok"}]))), Vec::<String>::new());
}

#[test]
fn a_timeout_has_a_unit() {
    let spec = |timeout: &str| json!({"entrypoint": "a", "templates": [{"name": "a", "timeout": timeout, "container": {"image": "x"}}]});
    assert_eq!(messages(spec("30")), ["a has invalid duration format in timeout."]);
    assert_eq!(messages(spec("30s")), Vec::<String>::new());
}

#[test]
fn recursion_and_long_chains_of_calls_end() {
    let looping = steps(json!([[{"name": "again", "template": "main"}]]));
    assert_eq!(messages(looping), Vec::<String>::new());
    let chain: Vec<_> = (0..5_000)
        .map(|index| json!({"name": format!("t{index}"), "steps": [[{"name": "n", "template": format!("t{}", index + 1)}]]}))
        .collect();
    let found = messages(json!({"entrypoint": "t0", "templates": chain}));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("template name 't5000' undefined"));
}

#[test]
fn a_large_graph_is_checked_in_reasonable_work() {
    let tasks: Vec<_> = (0..5_000)
        .map(|index| {
            let before = if index == 0 { json!([]) } else { json!([format!("t{}", index - 1)]) };
            json!({"name": format!("t{index}"), "template": "ok", "dependencies": before})
        })
        .collect();
    assert_eq!(messages(dag(json!(tasks))), Vec::<String>::new());
}

#[test]
fn annotations_of_ours_have_known_values() {
    let spec = json!({"entrypoint": "a", "templates": [
        {"name": "a", "metadata": {"annotations": {"argosy.dev/failover": "sometimes"}}, "container": {"image": "x"}}
    ]});
    assert_eq!(messages(spec), ["annotation `argosy.dev/failover` can't be `sometimes`"]);
}

#[test]
fn what_becomes_of_an_original_that_comes_back_is_not_for_choice() {
    let with = |name: &str, value: &str| {
        let metadata = json!({"annotations": {name: value}});
        json!({"entrypoint": "a", "templates": [{"name": "a", "metadata": metadata, "container": {"image": "x"}}]})
    };
    for value in ["keep-original", "longest-running"] {
        assert!(messages(with("argosy.dev/on-reconnect", value)).is_empty());
        let expected = format!("annotation `argosy.dev/failover` can't be `{value}`");
        assert_eq!(messages(with("argosy.dev/failover", value)), [expected]);
    }
    assert!(messages(with("argosy.dev/on-reconnect", "keep-replacement")).is_empty());
    let expected = "annotation `argosy.dev/on-reconnect` can't be `both`";
    assert_eq!(messages(with("argosy.dev/on-reconnect", "both")), [expected]);
    let metadata =
        json!({"annotations": {"argosy.dev/on-reconnect": "keep-original", "argosy.dev/exclusive": "true"}});
    let exclusive = json!({"entrypoint": "a", "templates": [{"name": "a", "metadata": metadata, "container": {"image": "x"}}]});
    let expected = "annotation `argosy.dev/on-reconnect` can't be that of an exclusive step: what was taken over has stopped by itself";
    assert_eq!(messages(exclusive), [expected]);
}

#[test]
fn a_misspelt_annotation_of_ours_is_not_passed_over() {
    let with = |name: &str| {
        let metadata = json!({"annotations": {name: "true"}});
        json!({"entrypoint": "a", "templates": [{"name": "a", "metadata": metadata, "container": {"image": "x"}}]})
    };
    assert_eq!(messages(with("argosy.dev/idempotant")), ["annotation `argosy.dev/idempotant` is unknown"]);
    assert_eq!(messages(with("argosy.dev/onReconnect")), ["annotation `argosy.dev/onReconnect` is unknown"]);
    assert_eq!(messages(with("argosy.dev/placement")), ["annotation `argosy.dev/placement` does nothing"]);
    let of_all = "annotation `argosy.dev/expand-outputs` counts for whole workflows only";
    assert_eq!(messages(with("argosy.dev/expand-outputs")), [of_all]);
    assert!(messages(with("argosy.dev/team-note")).is_empty());
    assert!(messages(with("example.com/idempotent")).is_empty());
}

#[test]
fn the_number_of_problems_is_bounded() {
    let wrong: Vec<_> =
        (0..1_000).map(|index| json!({"name": format!("s{index}"), "template": "nope"})).collect();
    assert_eq!(messages(steps(json!([wrong]))).len(), PROBLEMS_MAX);
}
