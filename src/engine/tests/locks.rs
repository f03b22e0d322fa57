//! Mutexes and semaphores: who gets them, who waits and how that shows, and that nobody waits for ever.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_engine::State;
use argosy_model::{Limits, WorkflowId};
use argosy_proto::command::{self as ask, ShutdownStrategy, command::Body};
use argosy_proto::common::AttemptPhase;
use serde_json::{Value, json};
use world::World;

fn world() -> World {
    let mut world = World::new(Limits::default());
    world.join("one", 1_000_000);
    world
}

fn pod(name: &str, extra: &Value) -> Value {
    let mut pod = json!({"name": name, "container": {"image": "busybox", "command": ["true"]}});
    pod.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    pod
}

fn manifest(name: &str, mut spec: Value) -> Value {
    spec["entrypoint"] = "main".into();
    json!({"metadata": {"name": name, "namespace": "argo"}, "spec": spec})
}

fn mutex(name: &str) -> Value {
    json!({"synchronization": {"mutexes": [{"name": name}]}})
}

fn limit_of(key: &str) -> Value {
    json!({"synchronization": {"semaphores": [{"database": {"key": key}}]}})
}

fn submit(world: &mut World, name: &str, spec: Value) {
    world.submit(name, &manifest(name, spec)).unwrap();
    world.settle();
}

/// One Pod under the workflow's own mutex.
fn whole(world: &mut World, name: &str, lock: &str, extra: &Value) {
    let mut spec = json!({"templates": [pod("main", &json!({}))]});
    spec.as_object_mut().unwrap().extend(mutex(lock).as_object().unwrap().clone());
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    submit(world, name, spec);
}

fn set_limit(world: &mut World, key: &str, limit: i32, create: bool) {
    let set = ask::SetSyncLimit {
        namespace: "argo".into(),
        key: key.into(),
        limit,
        create,
        ..ask::SetSyncLimit::default()
    };
    world.command(Body::SetSyncLimit(set)).unwrap();
    world.settle();
}

fn running(world: &World) -> Vec<String> {
    let mut names: Vec<String> = world.to_run().into_iter().map(|(_, _, node)| node).collect();
    names.sort();
    names
}

fn end(world: &mut World, node: &str, phase: AttemptPhase) {
    let (cluster, fence, _) = world.to_run().into_iter().find(|(_, _, name)| name == node).expect("it runs");
    world.now += 1000;
    world.end(&cluster, fence, phase);
    world.settle();
}

/// Ends one Pod after the other; gives the most that ran at the same time, and the names in order.
fn drain(world: &mut World) -> (usize, Vec<String>) {
    let (mut most, mut names) = (0, Vec::new());
    for _ in 0..1_000 {
        let open = world.to_run();
        most = most.max(open.len());
        let held = world.state.locks_held();
        assert!(held.values().all(|(held, limit)| held <= limit || *limit == 1), "{held:?}");
        let Some((_, _, node)) = open.into_iter().next() else { return (most, names) };
        names.push(node.clone());
        end(world, &node, AttemptPhase::Succeeded);
    }
    panic!("it does not end");
}

fn node<'a>(shown: &'a Value, display: &str) -> &'a Value {
    let nodes = shown["status"]["nodes"].as_object().unwrap();
    nodes.values().find(|node| node["displayName"] == display).unwrap_or(&Value::Null)
}

fn loop_of(template: &Value, items: u32) -> Value {
    let items: Vec<u32> = (0..items).collect();
    json!({"templates": [
        {"name": "main", "steps": [[{"name": "a", "template": "t", "withItems": items}]]}, template]})
}

#[test]
fn a_mutex_lets_one_after_the_other_go_in_order() {
    let mut world = world();
    submit(&mut world, "w", loop_of(&pod("t", &mutex("m")), 4));
    let shown = world.json("w");
    let waits = node(&shown, "a(1:1)");
    assert_eq!(waits["phase"], "Pending");
    assert_eq!(waits["type"], "Pod");
    assert_eq!(waits["message"], "Waiting for argo/Mutex/m lock. Lock status: 0/1");
    assert_eq!(waits["synchronizationStatus"], json!({"waiting": "argo/Mutex/m"}));
    let first = node(&shown, "a(0:0)")["id"].as_str().unwrap();
    let holder = format!("argo/w/{first}");
    assert_eq!(
        shown["status"]["synchronization"],
        json!({"mutex": {
            "holding": [{"mutex": "argo/Mutex/m", "holder": holder}],
            "waiting": [{"mutex": "argo/Mutex/m", "holder": holder}],
        }})
    );
    // A member that starts now finds the same.
    assert_eq!(State::load(world.state.rows().into_iter()).unwrap(), world.state);
    let (most, names) = drain(&mut world);
    assert_eq!(most, 1);
    assert_eq!(names, ["w[0].a(0:0)", "w[0].a(1:1)", "w[0].a(2:2)", "w[0].a(3:3)"]);
    let shown = world.json("w");
    assert_eq!(shown["status"]["phase"], "Succeeded");
    assert_eq!(node(&shown, "a(3:3)")["message"], Value::Null);
    assert_eq!(shown["status"]["synchronization"], Value::Null);
    assert!(world.state.lock_totals().is_empty());
}

#[test]
fn a_semaphore_lets_as_many_go_as_its_limit_says_and_follows_it() {
    let mut world = world();
    set_limit(&mut world, "two", 2, true);
    submit(&mut world, "w", loop_of(&pod("t", &limit_of("two")), 6));
    assert_eq!(running(&world).len(), 2);
    set_limit(&mut world, "two", 4, false);
    assert_eq!(running(&world).len(), 4);
    set_limit(&mut world, "two", 1, false);
    for left in [3, 2, 1] {
        let first = running(&world).remove(0);
        end(&mut world, &first, AttemptPhase::Succeeded);
        assert_eq!(running(&world).len(), left);
    }
    assert_eq!(drain(&mut world).1.len(), 3);
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn limits_come_out_of_config_maps_and_are_followed() {
    let mut world = world();
    let set = |world: &mut World, limit: i32, create: bool| {
        let set = ask::SetSyncLimit {
            namespace: "argo".into(),
            key: "n".into(),
            config_map: "limits".into(),
            limit,
            create,
            uid: "uid".into(),
        };
        world.command(Body::SetSyncLimit(set)).map(drop).map_err(|refusal| refusal.code)
    };
    set(&mut world, 1, true).unwrap();
    assert_eq!(set(&mut world, 1, true), Err("ARG1106".to_owned()));
    assert_eq!(set(&mut world, 0, false), Err("ARG1019".to_owned()));
    let by = json!({"synchronization": {"semaphores": [{"configMapKeyRef": {"name": "limits", "key": "{{inputs.parameters.k}}"}}]}});
    let mut template = pod("t", &by);
    template["inputs"] = json!({"parameters": [{"name": "k", "value": "n"}]});
    submit(&mut world, "w", loop_of(&template, 3));
    assert_eq!(running(&world).len(), 1);
    let shown = world.json("w");
    assert_eq!(
        node(&shown, "a(1:1)")["message"],
        "Waiting for argo/ConfigMap/limits/n lock. Lock status: 0/1"
    );
    set(&mut world, 3, false).unwrap();
    world.settle();
    assert_eq!(running(&world).len(), 3);
}

#[test]
fn a_workflow_waits_as_a_whole_and_its_time_begins_when_it_begins() {
    let mut world = world();
    whole(&mut world, "a", "m", &json!({}));
    whole(&mut world, "b", "m", &json!({"activeDeadlineSeconds": 100}));
    let shown = world.json("b");
    assert_eq!(shown["status"]["phase"], "Pending");
    assert_eq!(shown["status"]["message"], "Waiting for argo/Mutex/m lock. Lock status: 0/1");
    assert_eq!(shown["status"]["startedAt"], Value::Null);
    assert_eq!(
        shown["status"]["synchronization"],
        json!({"mutex": {"waiting": [{"mutex": "argo/Mutex/m", "holder": "argo/a"}]}})
    );
    assert_eq!(running(&world), ["a"]);
    world.now += 500_000;
    end(&mut world, "a", AttemptPhase::Failed);
    assert_eq!(running(&world), ["b"]);
    let shown = world.json("b");
    assert_eq!((&shown["status"]["phase"], &shown["status"]["message"]), (&json!("Running"), &Value::Null));
    world.now += 99_000;
    world.settle();
    assert_eq!(running(&world), ["b"]);
    end(&mut world, "b", AttemptPhase::Succeeded);
    assert_eq!(world.phase("b"), "Succeeded");
}

#[test]
fn the_higher_priority_goes_first() {
    let mut world = world();
    whole(&mut world, "a", "m", &json!({}));
    whole(&mut world, "low", "m", &json!({"priority": -1}));
    whole(&mut world, "first", "m", &json!({}));
    whole(&mut world, "second", "m", &json!({}));
    whole(&mut world, "high", "m", &json!({"priority": 5}));
    assert_eq!(drain(&mut world).1, ["a", "high", "first", "second", "low"]);
}

#[test]
fn all_locks_are_taken_at_once() {
    let mut world = world();
    let both = json!({"synchronization": {"mutexes": [{"name": "x"}, {"name": "y"}]}});
    let spec = json!({"templates": [
        {"name": "main", "dag": {"tasks": [
            {"name": "x", "template": "x"}, {"name": "y", "template": "y"},
            {"name": "both", "template": "both"}, {"name": "x2", "template": "x"}]}},
        pod("x", &mutex("x")), pod("y", &mutex("y")), pod("both", &both)]});
    submit(&mut world, "w", spec);
    assert_eq!(running(&world), ["w.x", "w.y"]);
    end(&mut world, "w.x", AttemptPhase::Succeeded);
    // The one that came before waits for the other lock: one of its own workflow may go first.
    assert_eq!(running(&world), ["w.x2", "w.y"]);
    end(&mut world, "w.y", AttemptPhase::Succeeded);
    assert_eq!(running(&world), ["w.x2"]);
    end(&mut world, "w.x2", AttemptPhase::Succeeded);
    assert_eq!(running(&world), ["w.both"]);
    end(&mut world, "w.both", AttemptPhase::Succeeded);
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn steps_dags_suspensions_and_retried_steps_hold_their_locks_to_their_end() {
    let mut world = world();
    let mut steps = json!({"name": "steps", "steps": [[{"name": "x", "template": "pod"}], [{"name": "y", "template": "pod"}]]});
    steps["synchronization"] = mutex("m")["synchronization"].clone();
    let mut retried = pod("retried", &mutex("m"));
    retried["retryStrategy"] = json!({"limit": 1});
    let mut suspend = json!({"name": "suspend", "suspend": {"duration": "0"}});
    suspend["synchronization"] = mutex("m")["synchronization"].clone();
    let spec = json!({"templates": [
        {"name": "main", "dag": {"tasks": [
            {"name": "a", "template": "steps"}, {"name": "b", "template": "retried"},
            {"name": "c", "template": "suspend"}, {"name": "d", "template": "steps"}]}},
        steps, retried, suspend, pod("pod", &json!({}))]});
    submit(&mut world, "w", spec);
    let shown = world.json("w");
    let types: Vec<_> = ["b", "c", "d"].map(|name| node(&shown, name)["type"].clone()).to_vec();
    assert_eq!(types, ["Retry", "Suspend", "Steps"]);
    assert!(["b", "c", "d"].iter().all(|name| node(&shown, name)["phase"] == "Pending"));
    assert_eq!(running(&world), ["w.a[0].x"]);
    end(&mut world, "w.a[0].x", AttemptPhase::Succeeded);
    assert_eq!(running(&world), ["w.a[1].y"]);
    end(&mut world, "w.a[1].y", AttemptPhase::Succeeded);
    assert_eq!(running(&world), ["w.b(0)"]);
    end(&mut world, "w.b(0)", AttemptPhase::Failed);
    assert_eq!(running(&world), ["w.b(1)"]);
    end(&mut world, "w.b(1)", AttemptPhase::Succeeded);
    assert_eq!(node(&world.json("w"), "c")["phase"], "Succeeded");
    assert_eq!(running(&world), ["w.d[0].x"]);
    assert_eq!(node(&world.json("w"), "d")["phase"], "Running");
    drain(&mut world);
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn what_is_stopped_or_deleted_holds_and_waits_no_more() {
    for delete in [false, true] {
        let mut world = world();
        for name in ["a", "b", "c"] {
            whole(&mut world, name, "m", &json!({}));
        }
        let gone = |world: &mut World, name: &str| {
            let (namespace, name) = ("argo".to_owned(), name.to_owned());
            let body = if delete {
                Body::DeleteWorkflow(ask::DeleteWorkflow { namespace, name })
            } else {
                Body::ShutdownWorkflow(ask::ShutdownWorkflow {
                    namespace,
                    name,
                    strategy: ShutdownStrategy::Stop.into(),
                    ..ask::ShutdownWorkflow::default()
                })
            };
            world.command(body).unwrap();
            world.settle();
        };
        gone(&mut world, "b");
        if !delete {
            let shown = world.json("b");
            assert_eq!(shown["status"]["phase"], "Failed");
            assert_eq!(shown["status"]["message"], "Stopped with strategy 'Stop'");
            assert_eq!(node(&shown, "b")["message"], "workflow shutdown with strategy: Stop");
        }
        gone(&mut world, "a");
        if !delete {
            // It is stopped once its Pod is.
            let (fence, _) = world.wanted("one").remove(0);
            world.end("one", fence, AttemptPhase::Failed);
            world.settle();
        }
        assert_eq!(running(&world), ["c"], "deleted: {delete}");
        end(&mut world, "c", AttemptPhase::Succeeded);
        assert!(world.state.lock_totals().is_empty());
    }
}

#[test]
fn nodes_that_wait_end_with_their_workflow() {
    for composite in [false, true] {
        let mut world = world();
        let mut template = if composite {
            json!({"name": "t", "steps": [[{"name": "x", "template": "pod"}]]})
        } else {
            pod("t", &json!({}))
        };
        template["synchronization"] = mutex("m")["synchronization"].clone();
        whole(&mut world, "holder", "m", &json!({}));
        let mut spec = loop_of(&template, 2);
        spec["templates"].as_array_mut().unwrap().push(pod("pod", &json!({})));
        spec["activeDeadlineSeconds"] = json!(10);
        submit(&mut world, "w", spec);
        world.now += 10_000;
        world.settle();
        let shown = world.json("w");
        assert_eq!(shown["status"]["phase"], "Failed", "{shown}");
        assert_eq!(node(&shown, "a(0:0)")["message"], "Step exceeded its deadline");
        end(&mut world, "holder", AttemptPhase::Succeeded);
        assert!(!world.state.has_work() && world.state.lock_totals().is_empty());
    }
}

#[test]
fn a_template_timeout_counts_while_a_node_waits() {
    let mut world = world();
    whole(&mut world, "holder", "m", &json!({}));
    let mut template = pod("main", &mutex("m"));
    template["timeout"] = json!("5s");
    submit(&mut world, "w", json!({"templates": [template]}));
    world.now += 5_000;
    world.settle();
    assert_eq!(node(&world.json("w"), "w")["message"], "timeout");
}

#[test]
fn a_step_that_waits_for_its_own_workflow_is_in_error() {
    let mut world = world();
    let mut spec = json!({"templates": [pod("main", &mutex("m"))]});
    spec["synchronization"] = mutex("m")["synchronization"].clone();
    submit(&mut world, "w", spec.clone());
    let shown = world.json("w");
    assert_eq!(shown["status"]["phase"], "Error");
    let why = "deadlock: argo/Mutex/m is held by argo/w, which ends only after this step";
    assert_eq!(shown["status"]["message"], format!("error in entry template execution: {why}"));
    assert_eq!(node(&shown, "w")["message"], why);
    // With an end in sight it waits for that, as in Argo.
    spec["activeDeadlineSeconds"] = json!(6);
    submit(&mut world, "v", spec);
    let shown = world.json("v");
    assert_eq!(node(&shown, "v")["message"], "Waiting for argo/Mutex/m lock. Lock status: 0/1");
    world.now += 6_000;
    world.settle();
    let shown = world.json("v");
    assert_eq!(
        (&shown["status"]["phase"], &shown["status"]["message"]),
        (&json!("Failed"), &json!("Step exceeded its deadline"))
    );
    assert!(!world.state.has_work());
}

#[test]
fn steps_that_wait_for_each_other_do_not_wait_for_ever() {
    let mut world = world();
    let nested = |outer: &str, inner: &str| {
        let mut main = json!({"name": "main", "steps": [[{"name": "x", "template": "pod"}], [{"name": "y", "template": "inner"}]]});
        main["synchronization"] = mutex(outer)["synchronization"].clone();
        json!({"templates": [main, pod("inner", &mutex(inner)), pod("pod", &json!({}))]})
    };
    submit(&mut world, "a", nested("m", "n"));
    submit(&mut world, "b", nested("n", "m"));
    end(&mut world, "a[0].x", AttemptPhase::Succeeded);
    assert_eq!(node(&world.json("a"), "y")["phase"], "Pending");
    end(&mut world, "b[0].x", AttemptPhase::Succeeded);
    let shown = world.json("b");
    let why = "deadlock: argo/Mutex/m is held by argo/a/a, in which a step waits for argo/Mutex/n, and so for this workflow";
    assert_eq!(node(&shown, "y")["message"], why, "{shown}");
    assert_eq!(shown["status"]["phase"], "Failed");
    assert_eq!(running(&world), ["a[1].y"]);
    drain(&mut world);
    assert_eq!(world.phase("a"), "Succeeded");
}

#[test]
fn waiting_for_a_leaf_or_for_room_is_no_deadlock() {
    let mut world = world();
    set_limit(&mut world, "two", 2, true);
    // The workflow takes one of two places; its steps share the other.
    let mut spec = loop_of(&pod("t", &limit_of("two")), 3);
    spec["synchronization"] = limit_of("two")["synchronization"].clone();
    submit(&mut world, "w", spec);
    assert_eq!(
        drain(&mut world),
        (1, vec!["w[0].a(0:0)".into(), "w[0].a(1:1)".into(), "w[0].a(2:2)".into()])
    );
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn what_cannot_be_locked_is_told() {
    let mut world = world();
    let of = |synchronization: Value| json!({"synchronization": synchronization, "templates": [pod("main", &json!({}))]});
    for (name, synchronization, why) in [
        (
            "a",
            json!({"semaphores": [{}]}),
            "requested configuration is invalid: cannot get LockName for a Semaphore without a ConfigMapRef or Database",
        ),
        (
            "b",
            json!({"semaphores": [{"configMapKeyRef": {"name": "no", "key": "n"}}]}),
            "failed to initialize semaphore argo/ConfigMap/no/n with limit",
        ),
        (
            "c",
            json!({"mutexes": [{"name": "m"}, {"name": "m"}]}),
            "requested configuration is invalid: Duplicate synchronization item found",
        ),
        (
            "d",
            json!({"semaphores": [{"namespace": "other", "database": {"key": "k"}}]}),
            "failed to initialize semaphore other/Database/k with limit",
        ),
    ] {
        submit(&mut world, name, of(synchronization));
        let shown = world.json(name);
        assert_eq!(shown["status"]["phase"], "Failed");
        assert_eq!(shown["status"]["message"], format!("Failed to acquire the synchronization lock. {why}"));
        assert!(shown["status"]["nodes"].as_object().is_none_or(serde_json::Map::is_empty));
    }
    submit(&mut world, "e", json!({"templates": [pod("main", &limit_of("k"))]}));
    let shown = world.json("e");
    assert_eq!(
        shown["status"]["message"],
        "error in entry template execution: failed to initialize semaphore argo/Database/k with limit"
    );
    assert_eq!(node(&shown, "e")["type"], "Skipped");
    assert!(!world.state.has_work() && world.state.lock_totals().is_empty());
}

#[test]
fn a_retried_workflow_asks_again() {
    let mut world = world();
    let mut inner = json!({"name": "inner", "steps": [[{"name": "x", "template": "pod"}, {"name": "y", "template": "pod"}]]});
    inner["synchronization"] = mutex("n")["synchronization"].clone();
    let spec = json!({"templates": [
        {"name": "main", "steps": [[{"name": "a", "template": "inner"}]]}, inner, pod("pod", &json!({}))]});
    submit(&mut world, "w", spec);
    end(&mut world, "w[0].a[0].x", AttemptPhase::Succeeded);
    end(&mut world, "w[0].a[0].y", AttemptPhase::Failed);
    assert_eq!(world.phase("w"), "Failed");
    submit(&mut world, "other", json!({"templates": [pod("main", &mutex("n"))]}));
    assert_eq!(running(&world), ["other"]);
    let retry =
        ask::RetryWorkflow { namespace: "argo".into(), name: "w".into(), ..ask::RetryWorkflow::default() };
    world.command(Body::RetryWorkflow(retry)).unwrap();
    world.settle();
    assert_eq!(running(&world), ["other"]);
    assert_eq!(node(&world.json("w"), "a")["message"], "Waiting for argo/Mutex/n lock. Lock status: 0/1");
    end(&mut world, "other", AttemptPhase::Succeeded);
    assert_eq!(running(&world), ["w[0].a[0].y"]);
    end(&mut world, "w[0].a[0].y", AttemptPhase::Succeeded);
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn a_retried_workflow_waits_for_its_own_lock() {
    let mut world = world();
    whole(&mut world, "a", "m", &json!({}));
    end(&mut world, "a", AttemptPhase::Failed);
    whole(&mut world, "b", "m", &json!({}));
    let retry =
        ask::RetryWorkflow { namespace: "argo".into(), name: "a".into(), ..ask::RetryWorkflow::default() };
    world.command(Body::RetryWorkflow(retry)).unwrap();
    world.settle();
    assert_eq!(running(&world), ["b"]);
    assert_eq!(world.json("a")["status"]["message"], "Waiting for argo/Mutex/m lock. Lock status: 0/1");
    end(&mut world, "b", AttemptPhase::Succeeded);
    assert_eq!(drain(&mut world).1, ["a"]);
    assert_eq!(world.phase("a"), "Succeeded");
}

#[test]
fn parallelism_holds_for_those_that_waited_and_waiting_takes_no_place() {
    let mut world = world();
    set_limit(&mut world, "many", 1, true);
    let items: Vec<u32> = (0..3).collect();
    let spec = json!({"parallelism": 2, "templates": [
        {"name": "main", "steps": [[
            {"name": "a", "template": "t", "withItems": items}, {"name": "b", "template": "pod", "withItems": items}]]},
        pod("t", &limit_of("many")), pod("pod", &json!({}))]});
    submit(&mut world, "w", spec);
    // Two of three wait, and take no place of those that run.
    assert_eq!(running(&world), ["w[0].a(0:0)", "w[0].b(0:0)"]);
    set_limit(&mut world, "many", 3, false);
    assert_eq!(running(&world).len(), 2);
    let (most, names) = drain(&mut world);
    assert_eq!((most, names.len()), (2, 6));
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn a_holder_on_a_lost_cluster_keeps_its_place() {
    let mut world = world();
    world.join("two", 1_000_000);
    let mut template = pod("t", &mutex("m"));
    template["retryStrategy"] = json!({"limit": 1});
    submit(&mut world, "w", loop_of(&template, 2));
    let (cluster, fence, name) = world.to_run().remove(0);
    world.running(&cluster, fence);
    world.take_over(&cluster, true);
    world.settle();
    let open = world.to_run();
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(open[0].0 != cluster && open[0].2 == name);
    let id: WorkflowId = world.id("w").unwrap();
    let attempt = world.state.attempt(&open[0].1).unwrap().clone();
    assert!(world.state.is_under_lock(id, attempt.node));
    assert!(!world.state.is_under_lock(id, 1));
}

#[test]
fn a_memoized_step_looks_once_it_has_its_lock() {
    let mut world = world();
    let mut template = pod("t", &mutex("m"));
    template["memoize"] = json!({"key": "k", "maxAge": "1h", "cache": {"configMap": {"name": "c"}}});
    template["outputs"] = json!({"parameters": [{"name": "o", "valueFrom": {"path": "/o", "default": "d"}}]});
    submit(&mut world, "w", loop_of(&template, 3));
    assert_eq!(drain(&mut world).1, ["w[0].a(0:0)"]);
    let shown = world.json("w");
    assert_eq!(shown["status"]["phase"], "Succeeded");
    assert_eq!(node(&shown, "a(2:2)")["memoizationStatus"]["hit"], true);
}

#[test]
fn prepared_caches_are_read() {
    let mut world = world();
    let text = r#"{"nodeID":"old","outputs":{"parameters":[{"name":"x","value":"from-cache"}],"exitCode":"0"},"creationTimestamp":"2020-01-01T00:00:00Z","lastHitTimestamp":"2020-01-01T00:00:00Z"}"#;
    for (name, label) in [("good", Some("Cache")), ("bad", None)] {
        let labels = label.map(|label| ("workflows.argoproj.io/configmap-type".to_owned(), label.to_owned()));
        let store = ask::StoreConfigMap {
            namespace: "argo".into(),
            name: name.into(),
            create: true,
            labels: labels.into_iter().collect(),
            data: [("k".to_owned(), text.to_owned())].into_iter().collect(),
            ..ask::StoreConfigMap::default()
        };
        world.command(Body::StoreConfigMap(store)).unwrap();
    }
    let run = |world: &mut World, name: &str, cache: &str, max_age: &str| {
        let memoize =
            json!({"memoize": {"key": "k", "maxAge": max_age, "cache": {"configMap": {"name": cache}}}});
        submit(world, name, json!({"templates": [pod("main", &memoize)]}));
        world.json(name)
    };
    let shown = run(&mut world, "hit", "good", "876000h");
    assert_eq!(node(&shown, "hit")["outputs"]["parameters"][0]["value"], "from-cache", "{shown}");
    assert_eq!(shown["status"]["phase"], "Succeeded");
    let shown = run(&mut world, "old", "good", "1h");
    assert_eq!(node(&shown, "old")["memoizationStatus"]["hit"], false);
    let shown = run(&mut world, "bad", "bad", "876000h");
    assert_eq!(
        shown["status"]["message"],
        "error in entry template execution: memoization configmap doesn't have workflows.argoproj.io/configmap-type label, refusing to use it"
    );
}

#[test]
fn a_suspended_workflow_keeps_its_place_in_the_queue() {
    let mut world = world();
    whole(&mut world, "a", "m", &json!({}));
    whole(&mut world, "b", "m", &json!({"suspend": true}));
    whole(&mut world, "c", "m", &json!({}));
    end(&mut world, "a", AttemptPhase::Succeeded);
    assert!(running(&world).is_empty());
    let resume =
        ask::ResumeWorkflow { namespace: "argo".into(), name: "b".into(), ..ask::ResumeWorkflow::default() };
    world.command(Body::ResumeWorkflow(resume)).unwrap();
    world.settle();
    assert_eq!(drain(&mut world).1, ["b", "c"]);
}

/// `parallelism` of Argo's controller and namespaces (T69): a workflow that is under way is never postponed.
#[test]
fn only_so_many_workflows_run_at_once() {
    let mut world = world();
    let place = |world: &mut World, namespace: &str, limit: i32, create: bool| {
        let set = ask::SetSyncLimit {
            namespace: namespace.into(),
            key: "argosy-workflows".into(),
            limit,
            create,
            ..ask::SetSyncLimit::default()
        };
        world.command(Body::SetSyncLimit(set)).unwrap();
        world.settle();
    };
    let begin = |world: &mut World, name: &str, priority: i32| {
        submit(world, name, json!({"priority": priority, "templates": [pod("main", &json!({}))]}));
    };
    place(&mut world, "argo", 1, true);
    for (name, priority) in [("first", 0), ("second", 0), ("third", 5)] {
        begin(&mut world, name, priority);
    }
    let phases = |world: &World| {
        ["first", "second", "third"]
            .map(|name| world.json(name)["status"]["phase"].as_str().unwrap().to_owned())
    };
    assert_eq!(phases(&world), ["Running", "Pending", "Pending"]);
    let waiting = world.json("second");
    assert_eq!(
        waiting["status"]["message"],
        "Workflow processing has been postponed because too many workflows are already running"
    );
    assert!(waiting["status"]["synchronization"].is_null());
    // The one of higher priority goes first.
    let (_, fence, _) = world.to_run().into_iter().next().unwrap();
    world.end("one", fence, AttemptPhase::Succeeded);
    world.settle();
    assert_eq!(phases(&world), ["Succeeded", "Pending", "Running"]);
    // The cell's own limit holds beside the namespace's.
    place(&mut world, "argo", 5, false);
    assert_eq!(phases(&world), ["Succeeded", "Running", "Running"]);
    place(&mut world, "*", 1, true);
    begin(&mut world, "fourth", 0);
    begin(&mut world, "fifth", 0);
    let phase = |world: &World, name: &str| world.json(name)["status"]["phase"].clone();
    assert_eq!((phase(&world, "fourth"), phase(&world, "fifth")), (json!("Running"), json!("Pending")));
    // A limit that goes lets everybody run.
    let delete =
        ask::DeleteSyncLimit { namespace: "*".into(), key: "argosy-workflows".into(), ..Default::default() };
    world.command(Body::DeleteSyncLimit(delete)).unwrap();
    world.settle();
    assert_eq!(phase(&world, "fifth"), json!("Running"));
}
