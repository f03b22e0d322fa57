//! Drills: what is counted, when they end, what is refused.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod world;

use argosy_engine::{Refusal, State, view};
use argosy_model::{Fence, Limits};
use argosy_proto::command::{self as ask, command::Body, reply};
use argosy_proto::common::{AttemptPhase, AttemptReport, Verdict};
use argosy_proto::state::DrillMode;
use serde_json::{Value, json};
use world::World;

const LEASE_AND_MARGIN_MS: i64 = 20_000;

fn fan_out(name: &str, steps: usize, template: &Value) -> Value {
    let mut leaf = json!({"name": "leaf", "container": {"image": "busybox"}});
    for (key, value) in template.as_object().unwrap() {
        leaf[key] = value.clone();
    }
    let tasks: Vec<Value> =
        (0..steps).map(|number| json!({"name": format!("s{number}"), "template": "leaf"})).collect();
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name, "labels": {"team": name}},
        "spec": {"entrypoint": "main", "templates": [{"name": "main", "dag": {"tasks": tasks}}, leaf]},
    })
}

/// Every step is tried again whatever ended it.
fn retried() -> Value {
    json!({"retryStrategy": {"limit": 3, "retryPolicy": "Always"}})
}

fn clusters(names: &[&str]) -> World {
    let mut world = World::new(Limits::default());
    for name in names {
        world.join(name, 1_000_000);
    }
    world
}

fn begin(world: &mut World, cluster: &str, mode: DrillMode, scope: &str) -> Result<u64, Refusal> {
    let command = ask::BeginDrill {
        cluster: cluster.to_owned(),
        mode: mode.into(),
        for_ms: 60_000,
        scope: scope.to_owned(),
        actor: "tester".to_owned(),
        ..ask::BeginDrill::default()
    };
    let reply = world.command(Body::BeginDrill(command))?;
    match reply.body {
        Some(reply::Body::DrillAccepted(accepted)) => Ok(accepted.drill),
        other => panic!("{other:?}"),
    }
}

fn shown(world: &World, drill: u64) -> Value {
    view::drill_json(&world.state, drill).expect("known")
}

fn refused(answer: Result<u64, Refusal>) -> (String, String) {
    let refusal = answer.expect_err("refused");
    (refusal.code, refusal.message)
}

/// Steps that run on a cluster, all with their start permits.
fn run_all(world: &mut World, cluster: &str) -> Vec<Fence> {
    let here: Vec<Fence> =
        world.to_run().into_iter().filter(|(at, ..)| at == cluster).map(|(_, fence, _)| fence).collect();
    for fence in &here {
        world.running(cluster, *fence);
    }
    here
}

/// The agent is back and holds what it held.
fn back(world: &mut World, cluster: &str, held: &[Fence]) {
    let session_epoch = world.open(cluster, 1_000_000);
    let report = |fence: &Fence| AttemptReport {
        fence: Some(*fence),
        revision: 2,
        phase: AttemptPhase::Running.into(),
        permitted: true,
        ..AttemptReport::default()
    };
    let held = held.iter().map(report).collect();
    let resync = ask::ResyncAttempts { cluster: cluster.to_owned(), session_epoch, held };
    world.command(Body::ResyncAttempts(resync)).unwrap();
    world.settle();
}

fn pass(world: &mut World, ms: i64) {
    world.now += ms;
    world.settle();
}

#[test]
fn a_drill_counts_what_happens_and_ends_by_itself() {
    let mut world = clusters(&["east", "west"]);
    world.submit("w", &fan_out("w", 6, &retried())).unwrap();
    world.settle();
    let held = run_all(&mut world, "east");
    let others = run_all(&mut world, "west");
    assert_eq!((held.len(), others.len()), (3, 3));
    let drill = begin(&mut world, "east", DrillMode::Block, "").unwrap();
    assert_eq!(world.state.cluster_cut_off().map(|(name, _)| name.to_owned()), Some("east".to_owned()));
    pass(&mut world, LEASE_AND_MARGIN_MS);
    world.take_over_beyond("east", 0);
    world.settle();
    let running = shown(&world, drill);
    assert_eq!((&running["state"], &running["detectedMs"]), (&json!("running"), &json!(20_000)));
    assert_eq!(
        (&running["touched"], &running["fenced"], &running["moved"]),
        (&json!(3), &json!(3), &json!(3))
    );
    assert_eq!((&running["waiting"], &running["recovered"]), (&json!(3), &json!(0)));
    // Two run again at once, one after a second more.
    let mut moved: Vec<Fence> = world
        .to_run()
        .into_iter()
        .map(|(_, fence, _)| fence)
        .filter(|fence| !others.contains(fence))
        .collect();
    assert_eq!(moved.len(), 3);
    let last = moved.pop().unwrap();
    for fence in &moved {
        world.running("west", *fence);
    }
    pass(&mut world, 1_000);
    world.running("west", last);
    assert_eq!(shown(&world, drill)["waiting"], 0);
    // Its time is over: nobody has to say so.
    pass(&mut world, 60_000);
    assert_eq!(
        (shown(&world, drill)["state"].clone(), world.state.cluster_cut_off()),
        (json!("settling"), None)
    );
    back(&mut world, "east", &held);
    // One had ended meanwhile, and says so too late.
    assert_eq!(world.end("east", held[0], AttemptPhase::Succeeded), Verdict::Superseded);
    for fence in &held[1..] {
        world.end("east", *fence, AttemptPhase::Stopped);
    }
    pass(&mut world, LEASE_AND_MARGIN_MS);
    let report = shown(&world, drill);
    assert_eq!(report["state"], "passed", "{report:#}");
    let fields = ["superseded", "committedTwice", "recovered", "failed"].map(|field| report[field].clone());
    assert_eq!(fields, [json!(1), json!(0), json!(3), json!(0)]);
    let times = ["recoverP50Ms", "recoverP99Ms", "lost"].map(|field| report["report"][field].clone());
    assert_eq!(times, [json!(20_000), json!(21_000), json!(0)]);
    assert_eq!(
        (&report["steps"][0]["recoveredMs"], &report["steps"][0]["cluster"]),
        (&json!(21_000), &json!("west"))
    );
    // What is kept is kept in rows: a member that starts again knows it, and no step of the drill is left.
    let loaded = State::load(world.state.rows().into_iter()).unwrap();
    assert_eq!(loaded, world.state);
    assert!(!world.state.rows().iter().any(|(key, _)| key[0] == 231));
}

#[test]
fn a_step_that_runs_nowhere_fails_the_drill_and_a_slow_one_misses_the_objective() {
    let mut world = clusters(&["east", "west"]);
    world.submit("w", &fan_out("w", 2, &retried())).unwrap();
    world.settle();
    let held = run_all(&mut world, "east");
    run_all(&mut world, "west");
    let drill = begin(&mut world, "east", DrillMode::Block, "").unwrap();
    pass(&mut world, LEASE_AND_MARGIN_MS);
    world.take_over_beyond("east", 0);
    pass(&mut world, 45_000);
    back(&mut world, "east", &held);
    world.end("east", held[0], AttemptPhase::Stopped);
    pass(&mut world, LEASE_AND_MARGIN_MS);
    assert_eq!(shown(&world, drill)["state"], "settling", "a step waits");
    let waiting = world.to_run().into_iter().find(|(at, ..)| at == "west").unwrap();
    assert_eq!(shown(&world, drill)["steps"][0]["outcome"], "waiting");
    let fences: Vec<_> =
        world.to_run().into_iter().filter(|(at, ..)| at == "west").map(|(_, fence, _)| fence).collect();
    assert!(!waiting.2.is_empty());
    for fence in fences {
        world.running("west", fence);
    }
    world.settle();
    let report = shown(&world, drill);
    assert_eq!(report["state"], "failed");
    assert_eq!(report["report"]["reasons"][0], "recovery took 85000 ms at p99, the objective is 60000 ms");
}

#[test]
fn what_never_settles_is_closed_in_the_end() {
    let mut world = clusters(&["east", "west"]);
    world.submit("w", &fan_out("w", 2, &retried())).unwrap();
    world.settle();
    run_all(&mut world, "east");
    let drill = begin(&mut world, "east", DrillMode::Block, "").unwrap();
    pass(&mut world, LEASE_AND_MARGIN_MS);
    world.take_over_beyond("east", 0);
    pass(&mut world, 60_000 + Limits::default().drill_settle_max_ms);
    let report = shown(&world, drill);
    assert_eq!(report["state"], "failed");
    let reasons = report["report"]["reasons"].as_array().unwrap();
    assert_eq!(reasons, &[json!("1 steps have not run again"), json!("cluster east did not come back")]);
    assert!(world.state.drill_under_way().is_none());
}

#[test]
fn a_real_loss_stops_the_drill() {
    let mut world = clusters(&["east", "north", "west"]);
    let drill = begin(&mut world, "east", DrillMode::Block, "").unwrap();
    world.take_over_beyond("north", 0);
    assert_eq!(world.state.cluster_cut_off(), None);
    pass(&mut world, LEASE_AND_MARGIN_MS);
    let report = shown(&world, drill);
    assert_eq!(
        (&report["state"], &report["aborted"]),
        (&json!("aborted"), &json!("cluster north was lost for real"))
    );
    // The loss of the drilled cluster is what the drill is about.
    let drill = begin(&mut world, "east", DrillMode::Block, "").unwrap();
    world.take_over_beyond("east", 0);
    assert_eq!(shown(&world, drill)["state"], "running");
}

#[test]
fn an_operator_ends_it_early_once() {
    let mut world = clusters(&["east", "west"]);
    let abort = |drill| {
        Body::AbortDrill(ask::AbortDrill { drill, actor: "eve".to_owned(), ..ask::AbortDrill::default() })
    };
    assert_eq!(world.command(abort(0)).unwrap_err().code, "ARG1231");
    let drill = begin(&mut world, "east", DrillMode::KillAgent, "").unwrap();
    world.command(abort(0)).unwrap();
    assert_eq!(shown(&world, drill)["aborted"], "by eve");
    assert_eq!(world.command(abort(drill)).unwrap_err().code, "ARG1232");
    // A removed cluster is nothing to wait for.
    pass(&mut world, LEASE_AND_MARGIN_MS);
    let second = begin(&mut world, "east", DrillMode::Block, "").unwrap();
    world
        .command(Body::RemoveCluster(ask::RemoveCluster {
            cluster: "east".to_owned(),
            forget: true,
            actor: String::new(),
        }))
        .unwrap();
    assert_eq!(shown(&world, second)["aborted"], "cluster east was removed");
}

#[test]
fn a_drill_that_would_be_an_outage_is_refused() {
    let mut world = clusters(&["east"]);
    let (code, message) = refused(begin(&mut world, "east", DrillMode::Block, ""));
    assert_eq!(
        (code.as_str(), message.contains("no other cluster is ready")),
        ("ARG1230", true),
        "{message}"
    );
    world.join("west", 1_000_000);
    assert_eq!(refused(begin(&mut world, "nowhere", DrillMode::Block, "")).0, "ARG1010");
    assert!(
        refused(begin(&mut world, "east", DrillMode::Block, "team=w")).1.contains("--scope is for kill-pods")
    );
    assert!(
        refused(begin(&mut world, "east", DrillMode::KillPods, "==")).1.contains("unable to parse the scope")
    );
    let cordon = |cordon| {
        Body::ChangeCluster(ask::ChangeCluster {
            cluster: "west".to_owned(),
            cordon: Some(cordon),
            ..ask::ChangeCluster::default()
        })
    };
    world.command(cordon(true)).unwrap();
    assert_eq!(refused(begin(&mut world, "east", DrillMode::Block, "")).0, "ARG1230");
    world.command(cordon(false)).unwrap();
    begin(&mut world, "east", DrillMode::Block, "").unwrap();
    assert!(refused(begin(&mut world, "west", DrillMode::Block, "")).1.contains("one at a time"));
}

#[test]
fn the_plan_is_placements_own_answer() {
    let mut world = clusters(&["east", "west"]);
    let pinned = json!({"nodeSelector": {"cluster.argosy.dev/name": "east"}});
    world.submit("w", &fan_out("w", 2, &retried())).unwrap();
    world.submit("p", &fan_out("p", 1, &pinned)).unwrap();
    world.settle();
    run_all(&mut world, "east");
    let plan = world.state.drill_plan("east", DrillMode::Block, "", &Limits::default()).unwrap();
    let told: Vec<_> = plan
        .steps
        .iter()
        .map(|step| (step.node.as_str(), step.to.as_deref(), step.why_not.is_some(), step.wait_ms))
        .collect();
    assert!(told.contains(&("p.s0", None, true, Some(300_000))), "{told:?}");
    assert!(told.iter().any(|(node, to, ..)| node.starts_with("w.") && *to == Some("west")), "{told:?}");
    // What nobody would run again is not killed.
    let plan = world.state.drill_plan("east", DrillMode::KillPods, "", &Limits::default()).unwrap();
    assert_eq!((plan.touched(), plan.spared()), (1, 1));
    let scoped = world.state.drill_plan("east", DrillMode::KillPods, "team=p", &Limits::default()).unwrap();
    assert_eq!((scoped.touched(), scoped.spared()), (0, 1));
    let why = refused(begin(&mut world, "east", DrillMode::KillPods, "team=p")).1;
    assert!(
        why.contains("nothing on \"east\" is there to kill, of 1 steps"),
        "it would try nothing and pass: {why}"
    );
}

#[test]
fn killed_pods_are_run_again_by_their_retry() {
    let mut world = clusters(&["east", "west"]);
    world.submit("w", &fan_out("w", 4, &retried())).unwrap();
    world.settle();
    run_all(&mut world, "east");
    run_all(&mut world, "west");
    let drill = begin(&mut world, "east", DrillMode::KillPods, "team=w").unwrap();
    let killed: Vec<Fence> = world.state.attempts_to_kill().collect();
    assert_eq!((killed.len(), world.state.cluster_cut_off()), (2, None));
    pass(&mut world, 500);
    for fence in &killed {
        world.end("east", *fence, AttemptPhase::Error);
    }
    world.settle();
    assert_eq!(world.state.attempts_to_kill().count(), 0);
    assert_eq!((&shown(&world, drill)["broken"], &shown(&world, drill)["waiting"]), (&json!(2), &json!(2)));
    pass(&mut world, 250);
    run_all(&mut world, "east");
    run_all(&mut world, "west");
    pass(&mut world, 60_000);
    pass(&mut world, LEASE_AND_MARGIN_MS);
    let report = shown(&world, drill);
    assert_eq!(report["state"], "passed", "{report:#}");
    assert_eq!(
        (&report["detectedMs"], &report["report"]["recoverMaxMs"], &report["recovered"]),
        (&json!(500), &json!(750), &json!(2))
    );
}

#[test]
fn reports_are_bounded_and_the_oldest_leave() {
    let mut world = World::new(Limits { drill_reports_max: 2, ..Limits::default() });
    world.join("east", 1_000);
    world.join("west", 1_000);
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(begin(&mut world, "east", DrillMode::Block, "").unwrap());
        pass(&mut world, 60_000);
        pass(&mut world, LEASE_AND_MARGIN_MS);
    }
    let kept: Vec<u64> = world.state.drills().map(|(id, _)| id).collect();
    assert_eq!(kept, made[1..]);
}

#[test]
fn schedules_begin_drills_and_tell_what_came_of_it() {
    let mut world = clusters(&["east", "west"]);
    let schedule = |name: &str, cron: &str| {
        Body::CreateDrillSchedule(ask::CreateDrillSchedule {
            name: name.to_owned(),
            cron: cron.to_owned(),
            drill: Some(ask::BeginDrill {
                cluster: "east".to_owned(),
                mode: DrillMode::Block.into(),
                for_ms: 10_000,
                ..ask::BeginDrill::default()
            }),
            ..ask::CreateDrillSchedule::default()
        })
    };
    assert!(world.command(schedule("bad", "* *")).unwrap_err().message.contains("malformed"));
    world.command(schedule("often", "@every 2m")).unwrap();
    assert_eq!(world.command(schedule("often", "@every 2m")).unwrap_err().code, "ARG1233");
    pass(&mut world, 120_000);
    let shown = view::drill_schedules_json(&world.state);
    let first = shown[0]["lastDrill"].as_u64().expect("it began one");
    assert_eq!(view::drill_json(&world.state, first).unwrap()["schedule"], "often");
    pass(&mut world, 10_000);
    pass(&mut world, LEASE_AND_MARGIN_MS);
    let over = view::drill_json(&world.state, first).unwrap();
    assert_eq!(over["state"], "failed", "it was shorter than the lease: nothing was tried");
    assert!(over["report"]["reasons"][0].as_str().unwrap().contains("nothing was tried"), "{over}");
    // The next one is refused, and the one after that comes too late.
    let cordon = ask::ChangeCluster {
        cluster: "west".to_owned(),
        cordon: Some(true),
        ..ask::ChangeCluster::default()
    };
    world.command(Body::ChangeCluster(cordon)).unwrap();
    pass(&mut world, 90_000);
    assert!(
        view::drill_schedules_json(&world.state)[0]["lastRefusal"]
            .as_str()
            .unwrap()
            .contains("no other cluster")
    );
    pass(&mut world, 200_000);
    assert_eq!(
        view::drill_schedules_json(&world.state)[0]["lastRefusal"],
        "the control plane was not there in time"
    );
    assert_eq!(world.state.drills().count(), 1);
    world.command(Body::DeleteDrillSchedule(ask::DeleteDrillSchedule { name: "often".to_owned() })).unwrap();
    pass(&mut world, 300_000);
    assert!(view::drill_schedules_json(&world.state).is_empty());
}
