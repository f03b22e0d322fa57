//! Artifacts that were lost with their cluster: who makes them again, when, and who does not.
#![allow(clippy::unwrap_used, reason = "a test ends with its first surprise")]

mod world;

use argosy_engine::{DesiredAttempt, State};
use argosy_model::{Fence, Limits};
use argosy_proto::command::{
    ChangeCluster, RemoveCluster, ReportArtifactTask, ShutdownWorkflow, command::Body,
};
use argosy_proto::common::{AttemptPhase, AttemptReport, OutputArtifact, OutputParameter, Verdict};
use argosy_proto::state::LossReason;
use serde_json::{Value, json};
use world::{World, ended};

/// A store of which every cluster has one.
const STORE: &str = "minio.argo:9000";

fn world() -> World {
    let mut world = World::new(Limits { artifact_sweep_after_ms: 60_000, ..Limits::default() });
    world.leader.artifact_repository =
        json!({"s3": {"bucket": "b", "endpoint": STORE, "accessKeySecret": {"name": "s", "key": "k"}}})
            .to_string();
    world.leader.cluster_stores = vec![format!("http://{STORE}")];
    world.join("east", 1_000_000);
    world
}

fn task(name: &str, template: &str, depends: &[&str], reads: &[&str]) -> Value {
    let given: Vec<Value> = reads
        .iter()
        .map(|from| json!({"name": from, "from": format!("{{{{tasks.{from}.outputs.artifacts.out}}}}")}))
        .collect();
    json!({"name": name, "template": template, "dependencies": depends, "arguments": {"artifacts": given}})
}

fn template(name: &str, reads: &[&str], annotations: Value) -> Value {
    let inputs: Vec<Value> =
        reads.iter().map(|name| json!({"name": name, "path": format!("/{name}")})).collect();
    json!({"name": name, "metadata": {"annotations": annotations}, "container": {"image": "i", "command": ["c"]},
        "inputs": {"artifacts": inputs},
        "outputs": {"artifacts": [{"name": "out", "path": "/out"}],
            "parameters": [{"name": "p", "valueFrom": {"path": "/p"}}]}})
}

/// `first` and `other` make something, `second` reads what `first` made, `third` what `second` made.
fn chain(annotations: Value) -> Value {
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "w"}, "spec": {
        "entrypoint": "main",
        "templates": [
            {"name": "main", "dag": {"tasks": [
                task("first", "make", &[], &[]),
                task("other", "make", &["first"], &[]),
                task("second", "middle", &["other"], &["first"]),
                task("third", "last", &["second"], &["second"]),
            ]}},
            template("make", &[], annotations.clone()),
            template("middle", &["first"], annotations),
            template("last", &["second"], json!({})),
        ],
    }})
}

fn safe() -> Value {
    json!({"argosy.dev/idempotent": "true"})
}

fn saved(fence: Fence, digest: &str) -> AttemptReport {
    let artifact = OutputArtifact { name: "out".into(), digest: digest.into(), size: 7, directory: false };
    let parameter = OutputParameter { name: "p".into(), value: digest.into() };
    AttemptReport {
        artifacts: vec![artifact],
        parameters: vec![parameter],
        ..ended(fence, AttemptPhase::Succeeded)
    }
}

/// The one attempt that is to run: cluster, fence, task.
fn only(world: &World) -> (String, Fence, String) {
    let run = world.to_run();
    assert_eq!(run.len(), 1, "{run:?}");
    run.into_iter().next().unwrap()
}

/// The one step that is to run does, saves its artifact, and has it copied to its key.
fn step(world: &mut World, name: &str, digest: &str) -> (String, Fence) {
    let (cluster, fence, node) = only(world);
    assert_eq!(node, name);
    world.running(&cluster, fence);
    assert_eq!(world.report(&cluster, saved(fence, digest)), Verdict::Accepted);
    publish(world, "");
    (cluster, fence)
}

fn publish(world: &mut World, error: &str) {
    world.settle();
    let due: Vec<u64> = world.state.artifact_tasks_due(world.now).map(|(number, _)| number).collect();
    for task in due {
        let report = ReportArtifactTask { task, error: error.into(), permanent: error == "denied" };
        world.command(Body::ReportArtifactTask(report)).unwrap();
    }
    world.settle();
}

fn node(world: &World, name: &str) -> Value {
    let shown = world.json("w");
    let nodes = shown["status"]["nodes"].as_object().unwrap();
    nodes.values().find(|node| node["name"] == name).cloned().unwrap_or_default()
}

fn input(world: &World, fence: &Fence) -> Value {
    let template: Value =
        serde_json::from_str(&world.state.assignment(fence).unwrap().template_json).unwrap();
    template["inputs"]["artifacts"][0]["argosy"].clone()
}

fn lose(world: &mut World, cluster: &str) {
    world.take_over(cluster, true);
    world.settle();
}

/// How often steps of the workflow were run again.
fn count(world: &World) -> u32 {
    world.state.workflow(world.id("w").unwrap()).unwrap().reproductions
}

#[test]
fn only_what_the_waiting_step_needs_is_made_again_and_each_in_its_turn() {
    let mut world = world();
    world.submit("w", &chain(safe())).unwrap();
    world.settle();
    step(&mut world, "w.first", "f1");
    step(&mut world, "w.other", "o1");
    let (_, second) = step(&mut world, "w.second", "s1");
    let (_, reader, _) = only(&world);
    assert_eq!(input(&world, &reader)["cluster"], "east");
    world.join("west", 1_000_000);
    lose(&mut world, "east");
    // `third` needs `second`, which needs `first`: that one runs, the others wait for it.
    let message = node(&world, "w.third")["message"].clone();
    assert_eq!(message, "waits for second to make its artifacts again: cluster east is lost");
    let (cluster, fence) = step(&mut world, "w.first", "f1");
    assert_eq!(cluster, "west");
    let (_, again, _) = only(&world);
    assert_eq!(
        (&input(&world, &again)["cluster"], &input(&world, &again)["digest"]),
        (&json!("west"), &json!("f1"))
    );
    assert!(input(&world, &again)["key"].as_str().unwrap().contains(&argosy_model::display_fence(&fence)));
    let loaded = State::load(world.state.rows().into_iter()).unwrap();
    assert_eq!(loaded, world.state);
    // The second time it gives other parameters: nobody has them.
    step(&mut world, "w.second", "s2");
    let shown = node(&world, "w.second");
    assert_eq!(
        (&shown["phase"], &shown["outputs"]["parameters"][0]["value"]),
        (&json!("Succeeded"), &json!("s1"))
    );
    let again = &shown["reproductions"][0];
    assert_eq!(
        (&again["reason"], &again["lost"], &again["cluster"], &again["outcome"], &again["outputsDiffer"]),
        (&json!("artifact"), &json!("east"), &json!("west"), &json!("made"), &json!(true))
    );
    let (cluster, third, name) = only(&world);
    assert_eq!((cluster.as_str(), name.as_str()), ("west", "w.third"));
    assert_eq!(input(&world, &third)["digest"], "s2");
    assert_ne!(third, second);
    step(&mut world, "w.third", "t");
    assert_eq!(world.phase("w"), "Succeeded");
    assert_eq!(count(&world), 2, "`other` was not needed");
    // What the lost cluster says in the end counts for nothing.
    assert_eq!(world.report("east", saved(reader, "late")), Verdict::Superseded);
}

#[test]
fn a_step_is_run_again_once_however_many_wait_for_it() {
    let mut world = world();
    let readers = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "w"}, "spec": {
    "entrypoint": "main", "templates": [
        {"name": "main", "steps": [
            [{"name": "first", "template": "make"}],
            [{"name": "read", "template": "last", "withSequence": {"count": "5"}, "arguments": {"artifacts": [
                {"name": "second", "from": "{{steps.first.outputs.artifacts.out}}"}]}}],
        ]},
        template("make", &[], safe()),
        template("last", &["second"], json!({})),
    ]}});
    world.submit("w", &readers).unwrap();
    world.settle();
    step(&mut world, "w[0].first", "f1");
    assert_eq!(world.to_run().len(), 5);
    world.join("west", 1_000_000);
    lose(&mut world, "east");
    step(&mut world, "w[0].first", "f2");
    let run = world.to_run();
    assert!(run.len() == 5 && run.iter().all(|(cluster, ..)| cluster == "west"), "{run:?}");
    assert_eq!(count(&world), 1);
}

#[test]
fn nothing_is_made_again_once_its_cluster_is_back() {
    let mut world = world();
    world.submit("w", &chain(safe())).unwrap();
    world.settle();
    step(&mut world, "w.first", "f1");
    step(&mut world, "w.other", "o1");
    lose(&mut world, "east");
    assert!(world.to_run().is_empty());
    world.open("east", 1_000_000);
    world.settle();
    assert_eq!(node(&world, "w.first")["reproductions"][0]["outcome"], "notNeeded");
    step(&mut world, "w.second", "s1");
    step(&mut world, "w.third", "t");
    assert_eq!(world.phase("w"), "Succeeded");
}

/// `second` waits for what `first` made on a lost cluster; what it says then.
fn waiting(annotations: Value) -> (World, String) {
    let mut world = world();
    world.submit("w", &chain(annotations)).unwrap();
    world.settle();
    step(&mut world, "w.first", "f1");
    step(&mut world, "w.other", "o1");
    // It has not started: whatever is said of it, it can be moved.
    world.join("west", 1_000_000);
    lose(&mut world, "east");
    let message = node(&world, "w.second")["message"].as_str().unwrap_or_default().to_owned();
    (world, message)
}

#[test]
fn a_step_that_may_not_run_twice_is_not_run_twice() {
    let lost = "and with it its input first: first is not run again for it, as";
    let (world, message) = waiting(json!({"argosy.dev/exclusive": "true"}));
    assert_eq!(message, format!("cluster east is lost, {lost} it is exclusive"));
    assert_eq!(world.lost("w"), [(LossReason::Artifact, 1)]);
    assert_eq!(world.phase("w"), "Error");
    let (mut world, message) = waiting(json!({"argosy.dev/failover": "fail"}));
    assert!(message.starts_with("waits for cluster east, which is lost, before first makes"), "{message}");
    world.now += world.leader.limits.takeover_after_unsafe_ms;
    world.settle();
    assert_eq!(
        node(&world, "w.second")["message"],
        format!("cluster east is lost, {lost} its failover is `fail`")
    );
    let (mut world, message) = waiting(json!({"argosy.dev/failover": "wait"}));
    assert_eq!(message, "waits for cluster east, which is lost: the failover of first is `wait`");
    world.now += 10 * world.leader.limits.takeover_after_unsafe_ms;
    world.settle();
    assert_eq!(node(&world, "w.second")["phase"], "Pending");
    let remove = RemoveCluster { cluster: "east".into(), forget: true, actor: String::new() };
    world.command(Body::RemoveCluster(remove)).unwrap();
    world.settle();
    assert_eq!(
        node(&world, "w.second")["message"],
        format!("cluster east was removed, {lost} its failover is `wait`")
    );
    assert_eq!(count(&world), 0);
}

#[test]
fn a_step_of_which_nothing_is_said_waits_as_one_that_was_running() {
    let (mut world, message) = waiting(json!({}));
    assert_eq!(
        message,
        "waits for cluster east, which is lost, before first makes its artifacts again: nothing says that it may run twice"
    );
    assert!(world.to_run().is_empty());
    world.now += world.leader.limits.takeover_after_unsafe_ms;
    world.settle();
    step(&mut world, "w.first", "f2");
    step(&mut world, "w.second", "s1");
    assert_eq!(count(&world), 1);
}

#[test]
fn a_step_that_does_not_make_its_artifacts_again_ends_its_readers() {
    let (mut world, _) = waiting(safe());
    let (cluster, fence, name) = only(&world);
    assert_eq!(name, "w.first");
    world.end(&cluster, fence, AttemptPhase::Failed);
    world.settle();
    let shown = node(&world, "w.second");
    assert_eq!(shown["phase"], "Error");
    assert_eq!(
        shown["message"],
        "cluster east is lost, and with it its input first: first was run again for it, and failed: main: Error (exit code 1)"
    );
    assert_eq!(node(&world, "w.first")["phase"], "Succeeded");
    let (mut world, _) = waiting(safe());
    let (cluster, fence, _) = only(&world);
    world.report(&cluster, saved(fence, "f2"));
    publish(&mut world, "denied");
    let message = node(&world, "w.second")["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with("failed: failed to put file: denied"), "{message}");
    assert_eq!(world.phase("w"), "Error");
}

#[test]
fn a_step_is_run_again_so_often_and_no_more() {
    let (mut world, _) = waiting(safe());
    world.leader.limits.reproductions_per_node_max = 1;
    step(&mut world, "w.first", "f2");
    assert_eq!(only(&world).2, "w.second");
    world.join("north", 1_000_000);
    lose(&mut world, "west");
    assert_eq!(
        node(&world, "w.second")["message"],
        "cluster west is lost, and with it its input first: first is not run again for it, as it has been run again 1 times (the limit is 1)"
    );
}

#[test]
fn what_runs_again_is_moved_as_any_step_when_its_cluster_is_lost() {
    let (mut world, _) = waiting(safe());
    let (cluster, fence, _) = only(&world);
    world.running(&cluster, fence);
    world.join("north", 1_000_000);
    lose(&mut world, "west");
    assert_eq!(node(&world, "w.first")["phase"], "Succeeded");
    let (cluster, _) = step(&mut world, "w.first", "f2");
    assert_eq!(cluster, "north");
    assert_eq!(world.report("west", saved(fence, "late")), Verdict::Superseded);
    step(&mut world, "w.second", "s1");
    assert_eq!(count(&world), 1);
}

#[test]
fn nothing_is_made_again_for_a_workflow_that_ends() {
    let (mut world, _) = waiting(safe());
    let (cluster, fence, _) = only(&world);
    world.running(&cluster, fence);
    let shutdown = ShutdownWorkflow {
        namespace: "argo".into(),
        name: "w".into(),
        strategy: argosy_proto::command::ShutdownStrategy::Terminate.into(),
        ..ShutdownWorkflow::default()
    };
    world.command(Body::ShutdownWorkflow(shutdown)).unwrap();
    world.settle();
    assert_eq!(world.phase("w"), "Failed");
    let wanted = world.wanted(&cluster);
    let stops = |desired: &DesiredAttempt| matches!(desired, DesiredAttempt::Stop { fenced: true, .. });
    assert!(wanted.iter().any(|(one, desired)| *one == fence && stops(desired)), "{wanted:?}");
    assert_eq!(world.end(&cluster, fence, AttemptPhase::Stopped), Verdict::Superseded);
    assert!(world.wanted(&cluster).is_empty());
    assert_eq!(node(&world, "w.first")["reproductions"][0]["outcome"], "notNeeded");
}

#[test]
fn a_reader_that_finds_nothing_waits_for_it_if_its_cluster_is_lost() {
    let mut world = world();
    // Nobody said that every cluster has a store of its own.
    world.leader.cluster_stores.clear();
    world.submit("w", &chain(safe())).unwrap();
    world.settle();
    step(&mut world, "w.first", "f1");
    step(&mut world, "w.other", "o1");
    let lacking = |fence: Fence| AttemptReport {
        message: "artifact first failed to load: The specified key does not exist.".into(),
        missing_artifacts: vec!["first".into()],
        ..ended(fence, AttemptPhase::Error)
    };
    world.join("west", 1_000_000);
    lose(&mut world, "east");
    let (cluster, fence, name) = only(&world);
    assert_eq!((cluster.as_str(), name.as_str()), ("west", "w.second"));
    assert_eq!(world.report("west", lacking(fence)), Verdict::Accepted);
    world.settle();
    assert_eq!(
        node(&world, "w.second")["message"],
        "waits for first to make its artifacts again: cluster east is lost"
    );
    step(&mut world, "w.first", "f2");
    // Its cluster is there now: what it does not find, it does not find.
    let (_, fence, _) = only(&world);
    world.report("west", lacking(fence));
    world.settle();
    assert_eq!(
        node(&world, "w.second")["message"],
        "artifact first failed to load: The specified key does not exist."
    );
    assert_eq!(count(&world), 1);
}

/// `c` reads what `a` made in east and `b` in west.
fn apart(annotations: Value) -> World {
    let mut world = world();
    let pinned = |name: &str, cluster: &str| {
        let mut made = template(name, &[], annotations.clone());
        made["nodeSelector"] = json!({"cluster.argosy.dev/region": cluster});
        made
    };
    world.join("west", 1_000_000);
    for (cluster, region) in [("east", "a"), ("west", "b")] {
        let labels = [("region".to_owned(), region.to_owned())].into();
        let change =
            ChangeCluster { cluster: cluster.into(), set_labels: labels, ..ChangeCluster::default() };
        world.command(Body::ChangeCluster(change)).unwrap();
    }
    let manifest = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "w"}, "spec": {
    "entrypoint": "main", "templates": [
        {"name": "main", "dag": {"tasks": [
            task("a", "in-east", &[], &[]),
            task("b", "in-west", &["a"], &[]),
            task("c", "both", &["b"], &["a", "b"]),
        ]}},
        pinned("in-east", "a"), pinned("in-west", "b"), template("both", &["a", "b"], json!({})),
    ]}});
    world.submit("w", &manifest).unwrap();
    world.settle();
    step(&mut world, "w.a", "a1");
    step(&mut world, "w.b", "b1");
    world
}

#[test]
fn inputs_that_no_cluster_has_together_end_their_reader() {
    let world = apart(json!({}));
    assert_eq!(
        node(&world, "w.c")["message"],
        "it needs a, which only cluster east has, and b, which only cluster west has: b is not run again for it, as nothing says that it may run twice, and its cluster is there"
    );
    // What may run twice does, where it can: this one may not leave its region.
    let world = apart(safe());
    assert_eq!(
        node(&world, "w.c")["message"],
        "waits for b to make its artifacts again: only cluster west has them"
    );
    assert_eq!(count(&world), 1);
}

#[test]
fn a_step_whose_cluster_is_lost_before_its_artifacts_are_copied_is_taken_over() {
    let mut world = world();
    world.submit("w", &chain(safe())).unwrap();
    world.settle();
    let (_, fence, _) = only(&world);
    world.running("east", fence);
    world.report("east", saved(fence, "f1"));
    world.join("west", 1_000_000);
    lose(&mut world, "east");
    publish(&mut world, "no cluster is connected");
    let (cluster, _) = step(&mut world, "w.first", "f2");
    assert_eq!(cluster, "west");
    assert_eq!(node(&world, "w.first")["outputs"]["parameters"][0]["value"], "f2");
    step(&mut world, "w.other", "o1");
    step(&mut world, "w.second", "s1");
    step(&mut world, "w.third", "t");
    assert_eq!((world.phase("w"), count(&world)), ("Succeeded".to_owned(), 0));
}

/// A store inside one cluster that all clusters reach, and another one for what belongs into it when that is lost.
fn world_of_one_store() -> World {
    let mut world = world();
    world.leader.cluster_stores.clear();
    world.leader.store_clusters = [(format!("https://{STORE}"), "east".to_owned())].into();
    world.leader.refuge_repository =
        json!({"s3": {"bucket": "spare", "endpoint": "spare.example", "keyFormat": "x/{{pod.name}}"}})
            .to_string();
    world
}

fn template_of(world: &World, fence: &Fence) -> Value {
    serde_json::from_str(&world.state.assignment(fence).unwrap().template_json).unwrap()
}

#[test]
fn what_the_store_of_a_lost_cluster_had_is_made_again_in_another_store() {
    let mut world = world_of_one_store();
    world.submit("w", &chain(safe())).unwrap();
    world.settle();
    for name in ["w.first", "w.other", "w.second"] {
        step(&mut world, name, name);
    }
    world.join("west", 1_000_000);
    let (_, reader, _) = only(&world);
    lose(&mut world, "east");
    // The reader could not be in the lost cluster, and is not bound to any.
    assert!(world.state.assignment(&reader).is_none());
    for name in ["w.first", "w.second"] {
        let (_, fence, _) = only(&world);
        let outputs = template_of(&world, &fence)["outputs"]["artifacts"][0].clone();
        let key = outputs["s3"]["key"].as_str().unwrap_or_default().to_owned();
        let store = (&outputs["s3"]["bucket"], &outputs["s3"]["endpoint"]);
        assert_eq!(store, (&json!("spare"), &json!("spare.example")));
        assert!(key.starts_with("east/b/w/") && key.ends_with("/out.tgz"), "{key}");
        assert!(outputs["s3"]["accessKeySecret"].is_null(), "{outputs}");
        step(&mut world, name, &format!("{name} again"));
        let shown = node(&world, name)["outputs"]["artifacts"][0]["s3"].clone();
        assert_eq!((&shown["bucket"], &shown["key"]), (&json!("spare"), &json!(key)), "{shown}");
    }
    let (_, reader, name) = only(&world);
    assert_eq!(name, "w.third");
    let taken = template_of(&world, &reader)["inputs"]["artifacts"][0].clone();
    let taken = (&taken["s3"]["endpoint"], &taken["argosy"]["digest"]);
    assert_eq!(taken, (&json!("spare.example"), &json!("w.second again")));
    assert_eq!(count(&world), 2);
    // What it makes goes there as well.
    step(&mut world, "w.third", "t1");
    assert_eq!(node(&world, "w.third")["outputs"]["artifacts"][0]["s3"]["bucket"], "spare");
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn a_reader_that_can_not_reach_the_store_of_a_lost_cluster_waits_for_its_input() {
    for is_lost in [true, false] {
        let mut world = world_of_one_store();
        world.submit("w", &chain(safe())).unwrap();
        world.settle();
        step(&mut world, "w.first", "f1");
        world.join("west", 1_000_000);
        let cordon = ChangeCluster { cluster: "east".into(), cordon: Some(true), ..ChangeCluster::default() };
        world.command(Body::ChangeCluster(cordon)).unwrap();
        step(&mut world, "w.other", "o1");
        // The store is in the other cluster, which does not keep it from running here.
        let (cluster, reader, _) = only(&world);
        assert_eq!(cluster, "west");
        world.running("west", reader);
        if is_lost {
            lose(&mut world, "east");
        }
        let unreached = AttemptReport {
            message: "artifact first failed to load: connection refused".into(),
            unreached_artifacts: vec!["first".into()],
            ..ended(reader, AttemptPhase::Error)
        };
        assert_eq!(world.report("west", unreached), Verdict::Accepted);
        world.settle();
        if is_lost {
            let waits = "waits for first to make its artifacts again: cluster east is lost";
            assert_eq!(node(&world, "w.second")["message"], waits);
            step(&mut world, "w.first", "f2");
            assert_eq!(only(&world).2, "w.second");
        } else {
            // An error as any other.
            assert_eq!(node(&world, "w.second")["phase"], "Error");
        }
        assert_eq!(count(&world), u32::from(is_lost));
    }
}

#[test]
fn a_store_in_a_cluster_that_nobody_knows_is_there() {
    let mut world = world_of_one_store();
    world.leader.store_clusters = [(STORE.to_owned(), "eats".to_owned())].into();
    world.submit("w", &chain(safe())).unwrap();
    world.settle();
    let (_, fence, _) = only(&world);
    let template = template_of(&world, &fence);
    assert_eq!(template["archiveLocation"]["s3"]["bucket"], "b", "{template}");
    assert!(template["outputs"]["artifacts"][0]["s3"].is_null(), "{template}");
}

#[test]
fn without_another_store_a_reader_is_told_that_its_input_is_lost() {
    let mut world = world_of_one_store();
    world.leader.refuge_repository.clear();
    world.submit("w", &chain(safe())).unwrap();
    world.settle();
    for name in ["w.first", "w.other"] {
        step(&mut world, name, name);
    }
    world.join("west", 1_000_000);
    lose(&mut world, "east");
    world.settle();
    assert_eq!(
        node(&world, "w.second")["message"],
        "cluster east is lost, and with it its input first: first is not run again for it, as its store is in that cluster and there is no other (reproductions.repository)"
    );
    assert_eq!(count(&world), 0);
}
