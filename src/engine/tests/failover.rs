//! Exclusive steps, lost ledgers and the waits of take-overs, one rule each.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod world;

use argosy_engine::DesiredAttempt;
use argosy_model::{Fence, Limits};
use argosy_proto::command::{self as ask, command::Body, reply};
use argosy_proto::common::{AttemptPhase, AttemptReport, Runtime, Verdict};
use serde_json::{Value, json};
use world::World;

const EXCLUSIVE: &str = "argosy.dev/exclusive";

fn manifest(name: &str, template: &Value) -> Value {
    let mut leaf = json!({"name": "main", "container": {"image": "busybox"}});
    for (key, value) in template.as_object().unwrap() {
        leaf[key] = value.clone();
    }
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [leaf]},
    })
}

fn annotated(annotations: Value) -> Value {
    json!({"metadata": {"annotations": annotations}})
}

fn clusters() -> World {
    let mut world = World::new(Limits::default());
    world.join("east", 1000);
    world.join("west", 1000);
    world
}

fn placed(world: &mut World, name: &str, template: &Value) -> (String, Fence) {
    world.submit(name, &manifest(name, template)).unwrap();
    world.settle();
    let (cluster, fence, _) = world.to_run().pop().expect("it was placed");
    (cluster, fence)
}

fn ask_permit(world: &mut World, cluster: &str, fence: Fence, holder: &str) -> (bool, String) {
    let session_epoch = world.state.cluster(cluster).unwrap().session_epoch;
    let grant = ask::GrantPermit {
        cluster: cluster.to_owned(),
        session_epoch,
        fence: Some(fence),
        holder: holder.to_owned(),
    };
    match world.command(Body::GrantPermit(grant)).unwrap().body {
        Some(reply::Body::PermitDecided(decided)) => (decided.granted, decided.reason),
        other => panic!("{other:?}"),
    }
}

/// The cluster's agent comes back with this ledger, holding these attempts.
fn back(world: &mut World, cluster: &str, ledger: u64, held: Vec<AttemptReport>) -> ask::AttemptsResynced {
    let session_epoch = world.open_with(ask::OpenSession {
        cluster: cluster.to_owned(),
        cluster_uid: format!("uid-{cluster}"),
        agent_instance: 1,
        runtime: Runtime::Simulated.into(),
        allocatable: world.state.cluster(cluster).unwrap().allocatable.clone(),
        enforces_exclusive: true,
        ledger,
        ..ask::OpenSession::default()
    });
    let resync = ask::ResyncAttempts { cluster: cluster.to_owned(), session_epoch, held };
    let answer = world.command(Body::ResyncAttempts(resync)).unwrap().body;
    world.settle();
    match answer {
        Some(reply::Body::AttemptsResynced(resynced)) => resynced,
        other => panic!("{other:?}"),
    }
}

fn held(fence: Fence) -> AttemptReport {
    AttemptReport { fence: Some(fence), phase: AttemptPhase::Received.into(), ..AttemptReport::default() }
}

#[test]
fn the_permit_of_an_exclusive_step_is_one_holders_and_none_after_a_take_over() {
    let mut world = clusters();
    let template = annotated(json!({EXCLUSIVE: "true", "argosy.dev/exclusive-lease": "90s"}));
    let (cluster, fence) = placed(&mut world, "w", &template);
    let assignment = world.state.assignment(&fence).unwrap();
    assert!(assignment.exclusive && assignment.exclusive_lease_ms == 90_000);
    assert_eq!(world.state.exclusive_wait_ms(&fence), None, "nothing runs yet");
    assert!(ask_permit(&mut world, &cluster, fence, "pod").0);
    assert!(ask_permit(&mut world, &cluster, fence, "pod").0, "asked again");
    assert!(ask_permit(&mut world, &cluster, fence, "other").1.contains("another process"));
    assert_eq!(world.state.exclusive_wait_ms(&fence), Some(91_800), "its lease, and what clocks differ");
    // Neither what is safe to move nor five minutes' wait concerns it, but its own lease.
    world.take_over_beyond(&cluster, 0);
    world.take_over_beyond(&cluster, 91_799);
    world.settle();
    assert!(world.to_run().iter().all(|(_, other, _)| *other == fence));
    world.take_over_beyond(&cluster, 91_800);
    world.settle();
    let (elsewhere, new, _) = world.to_run().pop().expect("it runs again");
    assert_ne!(cluster, elsewhere);
    assert!(ask_permit(&mut world, &cluster, fence, "pod").1.contains("another attempt"));
    assert!(ask_permit(&mut world, &elsewhere, new, "pod-2").0);
}

#[test]
fn an_exclusive_step_without_a_permit_moves_at_once() {
    let mut world = clusters();
    let (cluster, fence) = placed(&mut world, "w", &annotated(json!({EXCLUSIVE: "true"})));
    world.take_over_beyond(&cluster, 0);
    world.settle();
    assert_ne!(world.to_run()[0].1, fence);
    assert!(!ask_permit(&mut world, &cluster, fence, "pod").0);
}

#[test]
fn exclusive_steps_go_only_where_they_can_be_ended() {
    let mut world = World::new(Limits::default());
    world.join("east", 1000);
    world.open_with(ask::OpenSession {
        cluster: "east".to_owned(),
        cluster_uid: "uid-east".to_owned(),
        allocatable: world.state.cluster("east").unwrap().allocatable.clone(),
        enforces_exclusive: false,
        ..ask::OpenSession::default()
    });
    world.submit("w", &manifest("w", &annotated(json!({EXCLUSIVE: "true"})))).unwrap();
    world.submit("v", &manifest("v", &json!({}))).unwrap();
    world.settle();
    assert_eq!(world.to_run().len(), 1, "the other one is placed");
    assert!(world.json("w").to_string().contains("can't end an exclusive step's processes"));
}

#[test]
fn an_attempt_that_a_lost_ledger_may_have_run_is_not_sent_again() {
    // (annotations, node's phase right after, whether it moved at once, and after five minutes)
    for (annotations, phase, at_once, later) in [
        (json!({"argosy.dev/idempotent": "true"}), "Running", true, true),
        (json!({}), "Running", false, true),
        (json!({"argosy.dev/failover": "reschedule"}), "Running", true, true),
        (json!({"argosy.dev/failover": "wait"}), "Error", false, false),
        (json!({"argosy.dev/failover": "fail"}), "Running", false, false),
        // Its permit is in the log: state knows that it did not start.
        (json!({EXCLUSIVE: "true"}), "Running", true, true),
    ] {
        let mut world = clusters();
        let (cluster, fence) = placed(&mut world, "w", &annotated(annotations.clone()));
        back(&mut world, &cluster, 2, Vec::new());
        let runs = |world: &World| world.to_run().iter().any(|(_, new, _)| *new != fence);
        assert!(!world.wanted(&cluster).contains(&(fence, DesiredAttempt::Run)), "{annotations}: sent again");
        assert_eq!((world.phase("w").as_str(), runs(&world)), (phase, at_once), "{annotations}");
        world.now += 320_000;
        world.settle();
        assert_eq!(runs(&world), later, "{annotations}");
        assert_eq!(world.end(&cluster, fence, AttemptPhase::Succeeded), Verdict::Superseded, "{annotations}");
    }
}

#[test]
fn a_permitted_exclusive_attempt_of_a_lost_ledger_is_waited_for() {
    let mut world = clusters();
    let template = annotated(json!({EXCLUSIVE: "true", "argosy.dev/exclusive-lease": "100s"}));
    let (cluster, fence) = placed(&mut world, "w", &template);
    assert!(ask_permit(&mut world, &cluster, fence, "pod").0);
    back(&mut world, &cluster, 2, Vec::new());
    world.now += 121_999;
    world.settle();
    assert!(world.to_run().is_empty());
    world.now += 1;
    world.settle();
    assert_eq!(world.to_run().len(), 1);
}

#[test]
fn an_attempt_that_a_new_ledger_turns_out_to_hold_goes_on() {
    let mut world = clusters();
    let (cluster, fence) = placed(&mut world, "w", &json!({}));
    back(&mut world, &cluster, 2, Vec::new());
    let resynced = back(&mut world, &cluster, 2, vec![held(fence)]);
    assert_eq!(resynced.keep, [fence]);
    world.now += 1_000_000;
    world.settle();
    assert_eq!(world.to_run().len(), 1);
    assert_eq!(world.end(&cluster, fence, AttemptPhase::Succeeded), Verdict::Accepted);
}

#[test]
fn what_is_assigned_to_the_new_ledger_is_sent_again_as_ever() {
    let mut world = clusters();
    back(&mut world, "east", 2, Vec::new());
    back(&mut world, "west", 2, Vec::new());
    let (cluster, fence) = placed(&mut world, "w", &json!({}));
    back(&mut world, &cluster, 2, Vec::new());
    assert_eq!(world.wanted(&cluster), [(fence, DesiredAttempt::Run)]);
}

#[test]
fn a_permit_that_never_reached_its_agent_moves_the_step_at_once() {
    let mut world = clusters();
    let (cluster, fence) = placed(&mut world, "w", &annotated(json!({EXCLUSIVE: "true"})));
    assert!(ask_permit(&mut world, &cluster, fence, "pod").0);
    back(&mut world, &cluster, 1, Vec::new());
    assert!(world.to_run().iter().any(|(_, new, _)| *new != fence));
    assert_eq!(world.phase("w"), "Running");
}
