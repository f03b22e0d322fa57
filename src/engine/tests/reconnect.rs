//! `argosy.dev/on-reconnect`: a lost cluster comes back with an attempt that was taken over.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_engine::DesiredAttempt;
use argosy_model::Fence;
use argosy_proto::command::{self as ask, command::Body, reply};
use argosy_proto::common::{AttemptPhase, AttemptReport, OutputArtifact, Verdict};
use serde_json::{Value, json};
use world::{World, ended, manifest, two_clusters};

fn workflow(annotations: &Value) -> Value {
    manifest(
        "w",
        &[
            json!({"name": "main", "metadata": {"annotations": annotations}, "container": {"image": "busybox"}}),
        ],
    )
}

fn of(policy: &str) -> Value {
    json!({"argosy.dev/idempotent": "true", "argosy.dev/on-reconnect": policy})
}

fn placed(world: &mut World) -> (String, Fence) {
    world.settle();
    let (cluster, fence, _) = world.to_run().pop().expect("it was placed");
    (cluster, fence)
}

fn now(fence: Fence, phase: AttemptPhase) -> AttemptReport {
    let permitted = phase != AttemptPhase::Pending;
    AttemptReport {
        fence: Some(fence),
        revision: 1,
        phase: phase.into(),
        permitted,
        ..AttemptReport::default()
    }
}

/// The cluster is back and holds these; what it may keep.
fn back(world: &mut World, cluster: &str, held: Vec<AttemptReport>) -> Vec<Fence> {
    let session_epoch = world.open(cluster, 1000);
    let resync = ask::ResyncAttempts { cluster: cluster.to_owned(), session_epoch, held };
    match world.command(Body::ResyncAttempts(resync)).unwrap().body {
        Some(reply::Body::AttemptsResynced(resynced)) => resynced.keep,
        other => panic!("{other:?}"),
    }
}

/// A step that ran in one cluster and, since that was lost, in another: both clusters and attempts.
fn taken_over(annotations: &Value) -> (World, (String, Fence), (String, Fence)) {
    let mut world = two_clusters();
    world.submit("w", &workflow(annotations)).unwrap();
    let (lost, original) = placed(&mut world);
    world.running(&lost, original);
    world.take_over(&lost, true);
    let (other, replacement) = placed(&mut world);
    assert_ne!(lost, other);
    world.running(&other, replacement);
    (world, (lost, original), (other, replacement))
}

fn desired(world: &World, cluster: &str, fence: Fence) -> Option<DesiredAttempt> {
    world.wanted(cluster).into_iter().find(|(it, _)| *it == fence).map(|(_, desired)| desired)
}

#[test]
fn the_original_counts_again_in_place_of_its_replacement() {
    for policy in ["keep-original", "longest-running"] {
        let (mut world, (lost, original), (other, replacement)) = taken_over(&of(policy));
        let keep = back(&mut world, &lost, vec![now(original, AttemptPhase::Running)]);
        assert_eq!(keep, [original], "{policy}");
        assert!(
            matches!(desired(&world, &other, replacement), Some(DesiredAttempt::Stop { .. })),
            "{policy}"
        );
        assert_eq!(world.end(&other, replacement, AttemptPhase::Succeeded), Verdict::Superseded);
        assert_eq!(world.phase("w"), "Running");
        assert_eq!(world.end(&lost, original, AttemptPhase::Succeeded), Verdict::Accepted);
        world.settle();
        assert_eq!(world.phase("w"), "Succeeded");
        for cluster in ["east", "west"] {
            let row = world.state.cluster(cluster).unwrap();
            let used = row.used.clone().unwrap_or_default();
            assert_eq!((row.attempts_open, used.pods, used.cpu_milli), (0, 0, 0), "{policy} {cluster}");
        }
    }
}

#[test]
fn without_that_word_and_for_exclusive_steps_the_replacement_stays() {
    let exclusive = json!({"argosy.dev/exclusive": "true"});
    for annotations in [json!({"argosy.dev/idempotent": "true"}), of("keep-replacement"), exclusive] {
        let (mut world, (lost, original), (other, replacement)) = taken_over(&annotations);
        assert!(back(&mut world, &lost, vec![now(original, AttemptPhase::Running)]).is_empty());
        assert_eq!(desired(&world, &other, replacement), Some(DesiredAttempt::Run));
    }
    // The word of the workflow does not reach an exclusive step either.
    let mut world = two_clusters();
    let mut mixed = workflow(&json!({"argosy.dev/exclusive": "true"}));
    mixed["metadata"]["annotations"] = json!({"argosy.dev/on-reconnect": "keep-original"});
    world.submit("w", &mixed).unwrap();
    let (lost, original) = placed(&mut world);
    world.running(&lost, original);
    world.take_over(&lost, true);
    world.settle();
    assert!(back(&mut world, &lost, vec![now(original, AttemptPhase::Running)]).is_empty());
}

#[test]
fn what_the_replacement_has_committed_stays() {
    let (mut world, (lost, original), (other, replacement)) = taken_over(&of("keep-original"));
    assert_eq!(world.end(&other, replacement, AttemptPhase::Succeeded), Verdict::Accepted);
    world.settle();
    assert!(back(&mut world, &lost, vec![now(original, AttemptPhase::Running)]).is_empty());
    assert_eq!(world.end(&lost, original, AttemptPhase::Failed), Verdict::Superseded);
    assert_eq!(world.phase("w"), "Succeeded");
}

/// The replacement has ended, and its node has not: its artifact is on the way to the key that users know.
#[test]
fn a_replacement_whose_artifacts_are_being_copied_has_ended() {
    let mut world = two_clusters();
    world.leader.artifact_repository = r#"{"s3": {"bucket": "b", "endpoint": "e:1"}}"#.to_owned();
    let mut made = workflow(&of("keep-original"));
    made["spec"]["templates"][0]["outputs"] =
        json!({"artifacts": [{"name": "x", "path": "/x", "s3": {"key": "user/x"}}]});
    world.submit("w", &made).unwrap();
    let (lost, original) = placed(&mut world);
    world.running(&lost, original);
    world.take_over(&lost, true);
    let (other, replacement) = placed(&mut world);
    let artifact = OutputArtifact { name: "x".into(), digest: "d".into(), size: 7, directory: false };
    let report = AttemptReport { artifacts: vec![artifact], ..ended(replacement, AttemptPhase::Succeeded) };
    assert_eq!(world.report(&other, report), Verdict::Accepted);
    world.settle();
    assert_eq!(world.phase("w"), "Running");
    assert!(back(&mut world, &lost, vec![now(original, AttemptPhase::Running)]).is_empty());
    let (task, _) = world.state.artifact_tasks_due(world.now).next().unwrap();
    let copied = ask::ReportArtifactTask { task, error: String::new(), permanent: false };
    world.command(Body::ReportArtifactTask(copied)).unwrap();
    world.settle();
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn an_original_that_ended_meanwhile_brings_its_result() {
    let cases = [
        ("keep-original", AttemptPhase::Succeeded, "Succeeded"),
        ("keep-original", AttemptPhase::Failed, "Failed"),
        ("longest-running", AttemptPhase::Succeeded, "Succeeded"),
        // It came to nothing: the replacement goes on.
        ("longest-running", AttemptPhase::Failed, "Running"),
        ("keep-original", AttemptPhase::Stopped, "Running"),
    ];
    for (policy, phase, expected) in cases {
        let (mut world, (lost, original), _) = taken_over(&of(policy));
        let mut report = ended(original, phase);
        report.permitted = true;
        back(&mut world, &lost, vec![report]);
        world.settle();
        assert_eq!(world.phase("w"), expected, "{policy} {phase:?}");
    }
}

#[test]
fn an_original_counts_again_although_its_replacement_has_no_place_yet() {
    let mut world = two_clusters();
    world
        .command(Body::ChangeCluster(ask::ChangeCluster {
            cluster: "west".to_owned(),
            cordon: Some(true),
            ..ask::ChangeCluster::default()
        }))
        .unwrap();
    world.submit("w", &workflow(&of("keep-original"))).unwrap();
    let (lost, original) = placed(&mut world);
    world.running(&lost, original);
    world.take_over(&lost, true);
    world.settle();
    assert!(world.to_run().is_empty());
    assert_eq!(back(&mut world, &lost, vec![now(original, AttemptPhase::Running)]), [original]);
    world.settle();
    assert_eq!(world.to_run().len(), 1, "nothing else was placed for it");
    // Lost once more, it goes elsewhere as it did before.
    world.take_over(&lost, true);
    world.settle();
    assert_eq!(world.end(&lost, original, AttemptPhase::Succeeded), Verdict::Superseded);
    assert_eq!(world.phase("w"), "Running");
}

#[test]
fn who_was_told_once_that_it_does_not_count_never_does() {
    let mut world = two_clusters();
    world.submit("w", &workflow(&of("longest-running"))).unwrap();
    let (lost, original) = placed(&mut world);
    world.report(&lost, now(original, AttemptPhase::Pending));
    world.take_over(&lost, true);
    world.settle();
    assert!(back(&mut world, &lost, vec![now(original, AttemptPhase::Pending)]).is_empty());
    assert!(back(&mut world, &lost, vec![now(original, AttemptPhase::Running)]).is_empty());
}

#[test]
fn of_two_that_come_back_the_older_one_counts() {
    let (mut world, (lost, original), (other, replacement)) = taken_over(&of("keep-original"));
    world.take_over(&other, true);
    world.settle();
    assert_eq!(back(&mut world, &other, vec![now(replacement, AttemptPhase::Running)]), [replacement]);
    assert_eq!(back(&mut world, &lost, vec![now(original, AttemptPhase::Running)]), [original]);
    assert!(matches!(desired(&world, &other, replacement), Some(DesiredAttempt::Stop { .. })));
    assert!(back(&mut world, &other, vec![now(replacement, AttemptPhase::Running)]).is_empty());
    assert_eq!(world.end(&lost, original, AttemptPhase::Succeeded), Verdict::Accepted);
    world.settle();
    assert_eq!(world.phase("w"), "Succeeded");
}
