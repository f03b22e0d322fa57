//! What a cell does after its state was restored from a backup, while its clusters went on.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod world;

use argosy_engine::Code;
use argosy_model::{Fence, Limits};
use argosy_proto::command::{self as ask, Refusal, command::Body, reply};
use argosy_proto::common::{AttemptPhase, AttemptReport, Runtime};
use serde_json::{Value, json};
use world::World;

fn manifest(name: &str, annotations: &Value) -> Value {
    let leaf = json!({
        "name": "main", "container": {"image": "busybox"}, "metadata": {"annotations": annotations},
    });
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [leaf]},
    })
}

/// One cluster, where the workflow's step was sent.
fn placed(name: &str, annotations: &Value) -> (World, Fence) {
    let mut world = World::new(Limits::default());
    world.join("east", 1000);
    world.submit(name, &manifest(name, annotations)).unwrap();
    world.settle();
    let (_, fence, _) = world.to_run().pop().expect("it was placed");
    (world, fence)
}

/// The state goes on from a backup, in a log that begins anew.
fn restore(world: &mut World) {
    world.index = 1;
    let floor = world.state.incarnation();
    world.batch(|draft, _| draft.raise_incarnation(floor));
    world.settle();
}

/// The cluster's agent comes to the restored cell, holding these attempts.
fn back(world: &mut World, held: Vec<AttemptReport>) -> ask::AttemptsResynced {
    back_with(world, 1, held)
}

/// The same, with this ledger.
fn back_with(world: &mut World, ledger: u64, held: Vec<AttemptReport>) -> ask::AttemptsResynced {
    let session_epoch = world.open_with(ask::OpenSession {
        cluster: "east".to_owned(),
        cluster_uid: "uid-east".to_owned(),
        agent_instance: 1,
        runtime: Runtime::Simulated.into(),
        allocatable: world.state.cluster("east").unwrap().allocatable.clone(),
        enforces_exclusive: true,
        ledger,
        ..ask::OpenSession::default()
    });
    let resync = ask::ResyncAttempts { cluster: "east".to_owned(), session_epoch, held };
    let answer = world.command(Body::ResyncAttempts(resync)).unwrap().body;
    world.settle();
    match answer {
        Some(reply::Body::AttemptsResynced(resynced)) => resynced,
        other => panic!("{other:?}"),
    }
}

/// Of the lost part of history: one that runs a step of the workflow alone, or one that has not begun.
fn lost(index: u64, permitted: bool) -> AttemptReport {
    AttemptReport {
        fence: Some(Fence { incarnation: 1, index, ordinal: 0 }),
        revision: 1,
        phase: if permitted { AttemptPhase::Running } else { AttemptPhase::Pending }.into(),
        permitted,
        exclusive_workflow_uid: if permitted { "6b1c9a52-9d0e-4f0c-8a63-0d5b8f2a7c11" } else { "" }
            .to_owned(),
        ..AttemptReport::default()
    }
}

fn received(fence: Fence) -> AttemptReport {
    AttemptReport { fence: Some(fence), phase: AttemptPhase::Received.into(), ..AttemptReport::default() }
}

/// Its start waits, and this is why.
fn waits(world: &mut World, fence: Fence, why: &str) {
    let refusal = ask_permit(world, fence, "pod").expect_err("it waits");
    assert_eq!(refusal.code, Code::LostPartRuns.as_str());
    assert!(refusal.message.contains(why), "{}", refusal.message);
}

fn exclusive() -> Value {
    json!({"argosy.dev/exclusive": "true", "argosy.dev/exclusive-lease": "90s"})
}

fn ask_permit(world: &mut World, fence: Fence, holder: &str) -> Result<(bool, String), Refusal> {
    let session_epoch = world.state.cluster("east").unwrap().session_epoch;
    let (cluster, holder) = ("east".to_owned(), holder.to_owned());
    let grant = ask::GrantPermit { cluster, session_epoch, fence: Some(fence), holder };
    match world.command(Body::GrantPermit(grant))?.body {
        Some(reply::Body::PermitDecided(decided)) => Ok((decided.granted, decided.reason)),
        other => panic!("{other:?}"),
    }
}

/// It may have run, ended and been released in the part of history that is lost. The new log's positions are lower than those of
/// the backup's attempts, and were taken for older.
#[test]
fn what_a_restored_cell_does_not_find_is_not_sent_again_under_its_old_fence() {
    for (idempotent, runs_again) in [("false", false), ("true", true)] {
        let (mut world, fence) = placed("w", &json!({"argosy.dev/idempotent": idempotent}));
        assert!(fence.index > 3, "{fence:?}");
        restore(&mut world);
        back(&mut world, Vec::new());
        let fences: Vec<Fence> = world.to_run().into_iter().map(|(_, fence, _)| fence).collect();
        assert!(!fences.contains(&fence), "sent again under the fence that may have run");
        assert_eq!(fences.iter().any(|fence| fence.incarnation == 2), runs_again);
        let found = world.state.recovery_of("east").unwrap();
        assert_eq!((found.reconciling, found.adopted, found.rerun), (false, 0, 1));
    }
}

#[test]
fn an_exclusive_step_waits_for_what_a_lost_part_of_history_may_run() {
    let (mut world, known) = placed("w", &exclusive());
    restore(&mut world);
    // In the lost part the step was given to another attempt, which runs; and another one had not begun.
    let resynced = back(&mut world, vec![received(known), lost(500, true), lost(501, false)]);
    assert_eq!(resynced.keep.len(), 3);
    let unpermitted = Fence { incarnation: 1, index: 501, ordinal: 0 };
    let refused = ask_permit(&mut world, unpermitted, "pod-0").unwrap();
    assert!(!refused.0 && refused.1.contains("a part of history that is lost"), "{refused:?}");
    waits(&mut world, known, "112 s more");
    world.now += Limits::default().lease_and_margin_ms + 91_799;
    waits(&mut world, known, "1 s more");
    world.now += 1;
    waits(&mut world, known, "attempt 1.500.0 of a lost part of history is in quarantine on cluster east");
    world.end("east", Fence { incarnation: 1, index: 500, ordinal: 0 }, AttemptPhase::Succeeded);
    assert!(ask_permit(&mut world, known, "pod").unwrap().0);
    assert!(ask_permit(&mut world, known, "pod").unwrap().0, "asked again");
}

/// Restores, seed 265: it stayed in quarantine for ever, since no step of state's waits for it.
#[test]
fn quarantine_ends_with_the_ledger_that_knew_of_it_and_exclusive_starts_wait_once_more() {
    let (mut world, known) = placed("w", &exclusive());
    restore(&mut world);
    back(&mut world, vec![received(known), lost(500, true), lost(501, false)]);
    world.now += 1_000_000;
    waits(&mut world, known, "attempt 1.500.0 of a lost part of history is in quarantine on cluster east");
    back_with(&mut world, 2, vec![received(known)]);
    assert_eq!(world.state.recovery_of("east").unwrap().quarantined, []);
    assert_eq!(world.state.cluster("east").unwrap().attempts_open, 1);
    waits(&mut world, known, "112 s more");
    world.now += Limits::default().lease_and_margin_ms + 91_800;
    assert!(ask_permit(&mut world, known, "pod").unwrap().0);
}

/// Restores, seed 236: what was in quarantine there stayed in state for ever.
#[test]
fn quarantine_ends_with_its_cluster() {
    let (mut world, known) = placed("w", &json!({}));
    restore(&mut world);
    back(&mut world, vec![received(known), lost(500, true), lost(501, false)]);
    assert_eq!(world.state.recovery_of("east").unwrap().quarantined.len(), 2);
    let (cluster, actor) = ("east".to_owned(), String::new());
    world.command(Body::RemoveCluster(ask::RemoveCluster { cluster, forget: true, actor })).unwrap();
    world.settle();
    let gone = [500, 501].map(|index| Fence { incarnation: 1, index, ordinal: 0 });
    assert!(gone.iter().all(|fence| world.state.attempt(fence).is_none()));
    assert!(world.state.attempt(&known).is_some(), "its clock runs");
}
