//! Artifacts: what is committed, where its bytes are, and what is to be done in object stores.
#![allow(clippy::unwrap_used, reason = "a test ends with its first surprise")]

mod world;

use argosy_model::{Fence, Limits};
use argosy_proto::command::{DeleteWorkflow, ReportArtifactTask, command::Body};
use argosy_proto::common::{AttemptPhase, AttemptReport, OutputArtifact, Verdict};
use argosy_proto::state::{ArtifactTask, ArtifactTaskKind};
use serde_json::{Value, json};
use world::{World, ended};

const REPOSITORY: &str =
    r#"{"s3": {"bucket": "b", "endpoint": "e:1", "accessKeySecret": {"name": "s", "key": "k"}}}"#;

fn world() -> World {
    let limits = Limits { artifact_sweep_after_ms: 60_000, artifact_tries_max: 3, ..Limits::default() };
    let mut world = World::new(limits);
    world.leader.artifact_repository = REPOSITORY.to_owned();
    world.join("east", 1_000_000);
    world.join("west", 1_000_000);
    world
}

/// A step that makes `x` under a key of its own and `y` under a made one, and one that reads `x`.
fn manifest(strategy: &str) -> Value {
    let container = json!({"image": "i", "command": ["c"]});
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "w"}, "spec": {
        "entrypoint": "main", "artifactGC": {"strategy": strategy},
        "templates": [
            {"name": "main", "steps": [
                [{"name": "a", "template": "make"}],
                [{"name": "b", "template": "read", "arguments": {"artifacts": [
                    {"name": "f", "from": "{{steps.a.outputs.artifacts.x}}"}]}}],
            ]},
            {"name": "make", "retryStrategy": {"limit": 2}, "container": container, "outputs": {"artifacts": [
                {"name": "x", "path": "/x", "s3": {"key": "user/x"}}, {"name": "y", "path": "/y", "globalName": "g"}]}},
            {"name": "read", "inputs": {"artifacts": [{"name": "f", "path": "/f"}]}, "container": container},
        ],
    }})
}

fn saved(fence: Fence, digest: &str) -> AttemptReport {
    let artifact =
        |name: &str| OutputArtifact { name: name.into(), digest: digest.into(), size: 7, directory: false };
    AttemptReport { artifacts: vec![artifact("x"), artifact("y")], ..ended(fence, AttemptPhase::Succeeded) }
}

fn tasks(world: &World, now_ms: i64) -> Vec<(u64, ArtifactTask)> {
    world.state.artifact_tasks_due(now_ms).map(|(number, task)| (number, task.clone())).collect()
}

fn report(world: &mut World, task: u64, error: &str) {
    let report = ReportArtifactTask { task, error: error.into(), permanent: false };
    world.command(Body::ReportArtifactTask(report)).unwrap();
    world.settle();
}

fn node(world: &World, name: &str) -> Value {
    let shown = world.json("w");
    let nodes = shown["status"]["nodes"].as_object().unwrap();
    nodes.values().find(|node| node["name"] == name).cloned().unwrap_or_default()
}

fn only(world: &World) -> (String, Fence) {
    let (cluster, fence, _) = world.to_run().into_iter().next().unwrap();
    (cluster, fence)
}

#[test]
fn a_node_ends_once_its_artifacts_are_under_the_keys_that_users_know() {
    let mut world = world();
    world.submit("w", &manifest("OnWorkflowDeletion")).unwrap();
    world.settle();
    let (cluster, fence) = only(&world);
    assert_eq!(world.report(&cluster, saved(fence, "d1")), Verdict::Accepted);
    world.settle();
    // The result is committed, and cannot come again.
    assert!(world.to_run().is_empty());
    assert_eq!(node(&world, "w[0].a(0)")["phase"], "Pending");
    let (number, task) = tasks(&world, world.now).remove(0);
    assert_eq!(
        (task.kind(), task.cluster.as_str(), task.namespace.as_str()),
        (ArtifactTaskKind::Publish, cluster.as_str(), "argo")
    );
    let copies: Vec<_> = task.copies.iter().map(|copy| (copy.from.as_str(), copy.to.as_str())).collect();
    let own = argosy_model::artifact_key(
        &argosy_model::artifact_prefix("test", "6b1c9a52-9d0e-4f0c-8a63-0d5b8f2a7c11"),
        &fence,
        "",
    );
    let pod = argosy_model::pod_name("w", "make", "w[0].a(0)");
    let made = format!("w/{pod}/y.tgz");
    assert_eq!(
        copies,
        [(format!("{own}user/x").as_str(), "user/x"), (format!("{own}{made}").as_str(), made.as_str())]
    );
    assert!(task.copies[0].location_json.contains("accessKeySecret"), "{}", task.copies[0].location_json);
    report(&mut world, number, "");
    assert_eq!(node(&world, "w[0].a(0)")["phase"], "Succeeded");
    assert_eq!(node(&world, "w[0].a")["outputs"]["artifacts"][0]["s3"], json!({"key": "user/x"}));
    let shown = world.json("w");
    assert_eq!(shown["status"]["outputs"]["artifacts"], json!([{"name": "g", "s3": {"key": made}}]));
    assert_eq!(shown["metadata"]["finalizers"], json!(["workflows.argoproj.io/artifact-gc"]));
    // The reader is told the key that was committed, its digest, and sees Argo's artifact.
    let (_, reader) = only(&world);
    let assignment = world.state.assignment(&reader).unwrap();
    let template: Value = serde_json::from_str(&assignment.template_json).unwrap();
    let input = &template["inputs"]["artifacts"][0];
    assert_eq!(
        input["argosy"],
        json!({"key": format!("{own}user/x"), "digest": "d1", "size": 7, "cluster": cluster})
    );
    assert_eq!((&input["path"], &input["s3"]["key"]), (&json!("/f"), &json!("user/x")));
    assert_eq!(
        node(&world, "w[1].b")["inputs"]["artifacts"],
        json!([{"name": "f", "path": "/f", "s3": {"key": "user/x"}}])
    );
    // At the end: what attempts kept for themselves goes later than any signed request lives.
    let (cluster, fence) = only(&world);
    world.end(&cluster, fence, AttemptPhase::Succeeded);
    world.settle();
    assert_eq!(world.phase("w"), "Succeeded");
    assert!(tasks(&world, world.now + 59_000).is_empty());
    let sweeps = tasks(&world, world.now + 60_000);
    assert_eq!(sweeps[0].1.kind(), ArtifactTaskKind::Sweep);
    assert!(own.starts_with(&sweeps[0].1.copies[0].from) && sweeps[0].1.copies[0].directory);
    // Deletion has both artifacts collected, though nothing is left of the workflow.
    world
        .command(Body::DeleteWorkflow(DeleteWorkflow { namespace: "argo".into(), name: "w".into() }))
        .unwrap();
    world.settle();
    let collect: Vec<_> = tasks(&world, world.now)
        .into_iter()
        .filter(|(_, task)| task.kind() == ArtifactTaskKind::Collect)
        .collect();
    let keys: Vec<_> = collect[0].1.copies.iter().map(|copy| copy.from.clone()).collect();
    assert_eq!(keys, ["user/x".to_owned(), made]);
    report(&mut world, collect[0].0, "");
}

#[test]
fn a_cut_off_attempts_artifacts_never_count() {
    let mut world = world();
    world.submit("w", &manifest("Never")).unwrap();
    world.settle();
    let (first, loser) = only(&world);
    world.running(&first, loser);
    world.take_over(&first, false);
    world.settle();
    let (second, winner, _) = world.to_run().into_iter().find(|(_, fence, _)| *fence != loser).unwrap();
    assert_ne!(first, second);
    assert_eq!(world.report(&second, saved(winner, "good")), Verdict::Accepted);
    world.settle();
    let (number, task) = tasks(&world, world.now).remove(0);
    // It comes back while the winner's artifacts are being copied.
    assert_eq!(world.report(&first, saved(loser, "late")), Verdict::Superseded);
    world.settle();
    assert_eq!(tasks(&world, world.now).len(), 1);
    assert!(task.copies.iter().all(|copy| copy.digest == "good"));
    report(&mut world, number, "");
    assert_eq!(node(&world, "w[0].a")["phase"], "Succeeded");
}

#[test]
fn a_copy_is_tried_again_and_given_up_in_the_end() {
    let mut world = world();
    world.submit("w", &manifest("Never")).unwrap();
    world.settle();
    let (cluster, fence) = only(&world);
    world.report(&cluster, saved(fence, "d"));
    world.settle();
    for round in 1..3_i64 {
        let (number, _) = tasks(&world, world.now).remove(0);
        report(&mut world, number, "no cluster is connected");
        assert!(tasks(&world, world.now).is_empty(), "not at once");
        world.now += round * 2_000;
    }
    let (number, task) = tasks(&world, world.now).remove(0);
    assert_eq!((task.tries, task.message.as_str()), (2, "no cluster is connected"));
    report(&mut world, number, "denied");
    let ended = node(&world, "w[0].a(0)");
    assert_eq!(ended["phase"], "Error");
    assert_eq!(ended["message"], "wait: Error (exit code 64): failed to put file: denied; ");
    assert!(ended["outputs"]["artifacts"].is_null());
    // A report that comes again changes nothing.
    report(&mut world, number, "");
    assert_eq!(node(&world, "w[0].a(0)")["phase"], "Error");
}

#[test]
fn state_with_artifacts_loads_as_it_was() {
    let mut world = world();
    world.submit("w", &manifest("OnWorkflowCompletion")).unwrap();
    world.settle();
    let (cluster, fence) = only(&world);
    world.report(&cluster, saved(fence, "d"));
    world.settle();
    let loaded = argosy_engine::State::load(world.state.rows().into_iter()).unwrap();
    assert_eq!(loaded, world.state);
}

/// A cluster that is cut off may yet leave the result of its attempt in the store: nobody may ever tell of it.
#[test]
fn what_an_attempt_leaves_that_nobody_hears_of_is_swept() {
    let template = |name: &str| json!([{"name": name, "container": {"image": "i", "command": ["c"]}, "retryStrategy": {"limit": 1}}]);
    let of = |name: &str| {
        json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
            "spec": {"entrypoint": "main", "templates": template("main")}})
    };
    let mut world = world();
    world.submit("heard", &of("heard")).unwrap();
    world.settle();
    let (cluster, fence) = only(&world);
    world.running(&cluster, fence);
    world.end(&cluster, fence, AttemptPhase::Succeeded);
    world.settle();
    assert_eq!(world.phase("heard"), "Succeeded");
    assert!(tasks(&world, world.now + 60_000).is_empty(), "nothing was stored");
    world.submit("w", &of("w")).unwrap();
    world.settle();
    let (lost, original) = only(&world);
    world.running(&lost, original);
    world.take_over(&lost, true);
    world.settle();
    let (other, replacement) = only(&world);
    world.end(&other, replacement, AttemptPhase::Succeeded);
    world.settle();
    assert_eq!(world.phase("w"), "Succeeded");
    assert!(tasks(&world, world.now + 59_000).is_empty());
    let sweeps = tasks(&world, world.now + 60_000);
    assert_eq!((sweeps.len(), sweeps[0].1.kind()), (1, ArtifactTaskKind::Sweep));
    let uid = &world.json("w")["metadata"]["uid"];
    let left =
        argosy_model::result_key(&argosy_model::artifact_prefix("test", uid.as_str().unwrap()), &original);
    let copy = &sweeps[0].1.copies[0];
    assert!(left.starts_with(&copy.from) && copy.location_json.contains("accessKeySecret"), "{copy:?}");
}
