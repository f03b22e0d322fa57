//! The cost of one event depends on what it touches, not on the size of the workflow: counted as work, never timed.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_model::Limits;
use argosy_proto::common::AttemptPhase;
use serde_json::{Value, json};
use world::World;

fn limits() -> Limits {
    Limits { manifest_bytes_max: 64 << 20, attempts_per_cluster_max: 200_000, ..Limits::default() }
}

/// A world with one workflow of `size` leaves on a cluster with room for `room` of them.
fn started(wanted: &Value, room: i64) -> World {
    let mut world = World::new(limits());
    world.follows = false;
    world.join("east", room);
    world.submit("w", wanted).unwrap();
    world.settle();
    world
}

/// Work of reporting one leaf's end and of all that follows from it.
fn work_of_one_report(world: &mut World) -> u32 {
    let (cluster, fence, _) = world.to_run().into_iter().next().unwrap();
    let mut report = world::ended(fence, AttemptPhase::Succeeded);
    report.revision = 1;
    let epoch = world.state.cluster(&cluster).unwrap().session_epoch;
    let command = argosy_engine::Command {
        version: 1,
        idempotency_key: None,
        body: Some(argosy_proto::command::command::Body::ReportAttempt(
            argosy_proto::command::ReportAttempt { cluster, session_epoch: epoch, report: Some(report) },
        )),
    };
    let mut work = world.batch(|draft, leader| {
        draft.command(&command, leader).unwrap();
        draft.work()
    });
    loop {
        let (spent, more) = world.batch(|draft, leader| {
            let more = draft.advance(leader);
            (draft.work(), more)
        });
        work += spent;
        if !more {
            return work;
        }
    }
}

fn fan_out(size: usize) -> Value {
    json!({"metadata": {"name": "w"}, "spec": {"entrypoint": "main", "templates": [
        {"name": "main", "steps": [
            [{"name": "a", "template": "leaf", "withSequence": {"count": size.to_string()}}],
            [{"name": "b", "template": "leaf"}],
        ]},
        {"name": "leaf", "container": {"image": "i", "command": ["true"], "resources": {"requests": {"cpu": "1m"}}}},
    ]}})
}

fn wide_dag(size: usize) -> Value {
    let mut tasks: Vec<Value> =
        (0..size).map(|number| json!({"name": format!("t{number}"), "template": "leaf"})).collect();
    let names: Vec<String> = (0..size).map(|number| format!("t{number}")).collect();
    tasks.push(json!({"name": "last", "template": "leaf", "dependencies": names}));
    json!({"metadata": {"name": "w"}, "spec": {"entrypoint": "main", "templates": [
        {"name": "main", "dag": {"tasks": tasks}},
        {"name": "leaf", "container": {"image": "i", "command": ["true"], "resources": {"requests": {"cpu": "1m"}}}},
    ]}})
}

/// (largest batch, work of one report) for a size.
fn measure(wanted: &Value, nodes: usize) -> (u32, u32) {
    let mut world = started(wanted, 10);
    let row = world.state.workflow(world.id("w").unwrap()).unwrap();
    assert!(row.node_next as usize > nodes, "{} nodes were made", row.node_next);
    assert_eq!(world.to_run().len(), 10);
    let work = work_of_one_report(&mut world);
    assert_eq!(world.to_run().len(), 10, "the next one took its place");
    (world.work_max, work)
}

#[test]
fn one_report_costs_the_same_in_a_small_and_in_a_huge_fan_out() {
    let (_, small) = measure(&fan_out(100), 100);
    let (largest, huge) = measure(&fan_out(100_000), 100_000);
    assert_eq!(small, huge);
    assert!(huge < 20, "{huge} units for one report");
    // A unit may finish what it began: a batch goes over by a few.
    assert!(largest <= limits().decide_work_max + 16, "{largest} units in one batch");
}

#[test]
fn one_report_costs_the_same_in_a_small_and_in_a_wide_dag() {
    let (_, small) = measure(&wide_dag(100), 100);
    let (largest, huge) = measure(&wide_dag(25_000), 25_000);
    assert_eq!(small, huge);
    assert!(huge < 20, "{huge} units for one report");
    assert!(largest <= limits().decide_work_max + 16, "{largest} units in one batch");
}

#[test]
fn a_workflow_does_not_keep_others_waiting() {
    let mut world = World::new(Limits { decide_work_max: 100, ..limits() });
    world.join("east", 1_000_000);
    world.submit("big", &fan_out(5_000)).unwrap();
    world.batch(|draft, leader| draft.advance(leader));
    let mut small = fan_out(2);
    small["metadata"]["name"] = "small".into();
    world.submit("small", &small).unwrap();
    for _ in 0..6 {
        world.batch(|draft, leader| draft.advance(leader));
    }
    let row = |name: &str| world.state.workflow(world.id(name).unwrap()).unwrap();
    assert!(row("small").node_next > 4, "the small one's leaves are made");
    assert!(row("big").node_next < 1_000, "the big one is still growing");
}

#[test]
fn a_deleted_workflow_leaves_bit_by_bit_and_completely() {
    let mut world = World::new(Limits { decide_work_max: 500, ..limits() });
    world.join("east", 10);
    let before = world.state.rows().len();
    world.submit("w", &fan_out(5_000)).unwrap();
    world.settle();
    let batch = world.index;
    let delete = argosy_proto::command::DeleteWorkflow { namespace: "argo".into(), name: "w".into() };
    world.command(argosy_proto::command::command::Body::DeleteWorkflow(delete)).unwrap();
    assert!(world.id("w").is_none());
    world.submit("w", &fan_out(1)).unwrap();
    world.settle();
    assert!(world.index > batch + 5, "it takes several batches");
    let fences: Vec<_> = world.wanted("east").into_iter().map(|(fence, _)| fence).collect();
    for fence in fences {
        world.end("east", fence, AttemptPhase::Stopped);
    }
    let delete = argosy_proto::command::DeleteWorkflow { namespace: "argo".into(), name: "w".into() };
    world.command(argosy_proto::command::command::Body::DeleteWorkflow(delete)).unwrap();
    world.settle();
    for (cluster, fence, _) in world.to_run() {
        world.end(&cluster, fence, AttemptPhase::Stopped);
    }
    let fences: Vec<_> = world.wanted("east").into_iter().map(|(fence, _)| fence).collect();
    for fence in fences {
        world.end("east", fence, AttemptPhase::Stopped);
    }
    world.settle();
    assert_eq!(world.state.rows().len(), before);
}

#[test]
fn a_take_over_of_many_attempts_is_spread_over_batches() {
    let mut world = World::new(Limits { decide_work_max: 400, ..limits() });
    world.join("east", 3_000);
    world.submit("w", &fan_out(3_000)).unwrap();
    world.settle();
    assert_eq!(world.to_run().len(), 3_000);
    world.join("west", 3_000);
    world.work_max = 0;
    world.take_over("east", true);
    assert!(world.state.has_work());
    world.settle();
    assert!(world.work_max < 800, "{} units in one batch", world.work_max);
    let places: std::collections::BTreeSet<String> =
        world.to_run().into_iter().map(|(cluster, ..)| cluster).collect();
    assert_eq!((world.to_run().len(), places), (3_000, ["west".to_owned()].into()));
}
