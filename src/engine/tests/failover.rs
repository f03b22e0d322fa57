//! Exclusive steps, lost ledgers and the waits of take-overs, one rule each.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod world;

use argosy_engine::DesiredAttempt;
use argosy_model::{Fence, Limits};
use argosy_proto::command::{self as ask, command::Body, reply};
use argosy_proto::common::{AttemptPhase, AttemptReport, Runtime, Verdict};
use argosy_proto::state::LossReason;
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
        runtime: Runtime::Simulated.into(),
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

fn change(world: &mut World, body: Body) -> Result<(), String> {
    let outcome = world.command(body).map(drop).map_err(|refusal| refusal.code);
    world.settle();
    outcome
}

fn cordon(cluster: &str, cordon: bool) -> Body {
    Body::ChangeCluster(ask::ChangeCluster {
        cluster: cluster.to_owned(),
        cordon: Some(cordon),
        ..ask::ChangeCluster::default()
    })
}

fn drain(cluster: &str, deadline_in_ms: u64) -> Body {
    let actor = String::new();
    Body::DrainCluster(ask::DrainCluster { cluster: cluster.to_owned(), deadline_in_ms, actor })
}

fn stopped(fence: Fence) -> AttemptReport {
    AttemptReport {
        fence: Some(fence),
        phase: AttemptPhase::Stopped.into(),
        revision: 5,
        ..AttemptReport::default()
    }
}

#[test]
fn a_cordoned_or_tainted_cluster_gets_nothing_new() {
    let mut world = clusters();
    change(&mut world, cordon("east", true)).unwrap();
    assert_eq!(placed(&mut world, "w", &json!({})).0, "west");
    let taint =
        argosy_proto::common::Taint { key: "gpu".into(), value: "only".into(), effect: "NoSchedule".into() };
    let tainted = |taint: &argosy_proto::common::Taint| {
        Body::ChangeCluster(ask::ChangeCluster {
            cluster: "west".into(),
            set_taints: vec![taint.clone()],
            ..ask::ChangeCluster::default()
        })
    };
    let other = argosy_proto::common::Taint { effect: "NoExecute".into(), ..taint.clone() };
    assert_eq!(change(&mut world, tainted(&other)), Err("ARG1019".to_owned()));
    change(&mut world, tainted(&taint)).unwrap();
    world.submit("v", &manifest("v", &json!({}))).unwrap();
    world.settle();
    assert!(world.json("v").to_string().contains("does not tolerate its taint gpu"));
    change(&mut world, cordon("east", false)).unwrap();
    assert!(world.to_run().iter().any(|(cluster, _, node)| cluster == "east" && node.starts_with('v')));
}

#[test]
fn labels_of_operators_choose_clusters() {
    let mut world = clusters();
    let label = ask::ChangeCluster {
        cluster: "west".into(),
        set_labels: [("region".to_owned(), "eu".to_owned())].into(),
        ..ask::ChangeCluster::default()
    };
    change(&mut world, Body::ChangeCluster(label)).unwrap();
    let template = json!({"nodeSelector": {"cluster.argosy.dev/region": "eu"}});
    assert_eq!(placed(&mut world, "w", &template).0, "west");
}

#[test]
fn a_drain_moves_what_has_not_started_and_lets_the_rest_end() {
    let mut world = clusters();
    let (cluster, fence) = placed(&mut world, "w", &json!({}));
    change(&mut world, drain(&cluster, 0)).unwrap();
    let wanted = world.wanted(&cluster);
    assert!(matches!(wanted.as_slice(), [(_, DesiredAttempt::Recall { .. })]), "{wanted:?}");
    // Given back: it goes elsewhere, and no take-over is counted.
    assert_eq!(world.report(&cluster, stopped(fence)), Verdict::Accepted);
    world.settle();
    let (elsewhere, _, _) = world.to_run().pop().expect("it goes on");
    assert_ne!(elsewhere, cluster);
    assert!(world.wanted(&cluster).is_empty());

    // One that has started in the meantime goes on.
    let mut world = clusters();
    let (cluster, fence) = placed(&mut world, "w", &json!({}));
    change(&mut world, drain(&cluster, 0)).unwrap();
    world.running(&cluster, fence);
    world.settle();
    assert_eq!(world.wanted(&cluster), [(fence, DesiredAttempt::Run)]);
    assert_eq!(world.end(&cluster, fence, AttemptPhase::Succeeded), Verdict::Accepted);
}

#[test]
fn after_the_deadline_of_a_drain_safe_steps_are_moved_and_others_are_named() {
    for (annotations, moves) in [(json!({"argosy.dev/idempotent": "true"}), true), (json!({}), false)] {
        let mut world = clusters();
        let (cluster, fence) = placed(&mut world, "w", &annotated(annotations));
        world.running(&cluster, fence);
        change(&mut world, drain(&cluster, 60_000)).unwrap();
        assert_eq!(world.wanted(&cluster), [(fence, DesiredAttempt::Run)], "it may end until the deadline");
        world.now += 60_000;
        world.settle();
        let is_stopped = matches!(world.wanted(&cluster)[0].1, DesiredAttempt::Stop { .. });
        assert_eq!(is_stopped, moves);
        let (_, running, stuck) = world.state.left_on(&cluster, 10);
        assert_eq!((running, stuck.is_empty()), (1, moves));
        if moves {
            world.report(&cluster, stopped(fence));
            world.settle();
            assert_ne!(world.to_run()[0].0, cluster);
            assert_eq!(world.phase("w"), "Running");
        }
    }
}

#[test]
fn a_cluster_that_cannot_start_steps_gives_them_back_after_a_while() {
    let mut world = clusters();
    let (cluster, fence) = placed(&mut world, "w", &json!({}));
    let update = |healthy, world: &World| {
        Body::UpdateCluster(ask::UpdateCluster {
            cluster: cluster.clone(),
            allocatable: world.state.cluster(&cluster).unwrap().allocatable.clone(),
            runtime_healthy: healthy,
        })
    };
    let sick = update(false, &world);
    change(&mut world, sick).unwrap();
    world.now += 59_999;
    world.settle();
    assert_eq!(world.wanted(&cluster), [(fence, DesiredAttempt::Run)]);
    world.now += 1;
    world.settle();
    assert!(matches!(world.wanted(&cluster)[0].1, DesiredAttempt::Recall { .. }));
    let well = update(true, &world);
    change(&mut world, well).unwrap();
    assert!(world.state.cluster(&cluster).unwrap().drain.is_none());
}

#[test]
fn a_removed_cluster_holds_nothing_and_its_agent_is_turned_away() {
    let mut world = clusters();
    let (cluster, fence) = placed(&mut world, "w", &json!({}));
    world.running(&cluster, fence);
    let remove = |forget| {
        Body::RemoveCluster(ask::RemoveCluster { cluster: cluster.clone(), forget, actor: String::new() })
    };
    assert_eq!(change(&mut world, remove(false)), Err("ARG1220".to_owned()));
    change(&mut world, remove(true)).unwrap();
    assert!(world.to_run().is_empty(), "its agent may give start permits until its lease is over");
    world.now += 20_000;
    world.settle();
    assert_ne!(world.to_run()[0].0, cluster);
    assert!(world.wanted(&cluster).is_empty());
    assert_eq!(world.state.cluster(&cluster).unwrap().attempts_open, 0);
    assert_eq!(change(&mut world, remove(true)), Err("ARG1010".to_owned()));
    let open = ask::OpenSession {
        cluster: cluster.clone(),
        cluster_uid: format!("uid-{cluster}"),
        ..ask::OpenSession::default()
    };
    assert_eq!(change(&mut world, Body::OpenSession(open)), Err("ARG1221".to_owned()));
    // Invited again, it gets work once its agent is back, and not before.
    let token_hash = vec![9; 32];
    let invite =
        ask::CreateInvite { cluster: cluster.clone(), token_hash: token_hash.clone(), ttl_ms: 60_000 };
    change(&mut world, Body::CreateInvite(invite)).unwrap();
    let cluster_uid = format!("uid-{cluster}");
    let redeem =
        ask::RedeemInvite { cluster: cluster.clone(), cluster_uid, token_hash, ..Default::default() };
    change(&mut world, Body::RedeemInvite(redeem)).unwrap();
    world.submit("v", &manifest("v", &json!({}))).unwrap();
    world.settle();
    assert!(world.to_run().iter().all(|(on, ..)| *on != cluster));
    world.open(&cluster, 1000);
    world.submit("u", &manifest("u", &json!({}))).unwrap();
    world.settle();
    assert!(world.to_run().iter().any(|(on, ..)| *on == cluster));
}

#[test]
fn an_exclusive_step_of_a_removed_cluster_is_waited_for() {
    let mut world = clusters();
    let template = annotated(json!({EXCLUSIVE: "true", "argosy.dev/exclusive-lease": "100s"}));
    let (cluster, fence) = placed(&mut world, "w", &template);
    assert!(ask_permit(&mut world, &cluster, fence, "pod").0);
    let remove = ask::RemoveCluster { cluster: cluster.clone(), forget: true, actor: String::new() };
    change(&mut world, Body::RemoveCluster(remove)).unwrap();
    world.now += 121_999;
    world.settle();
    assert!(world.to_run().is_empty());
    world.now += 1;
    world.settle();
    assert_ne!(world.to_run()[0].0, cluster);
    assert_eq!(world.state.cluster(&cluster).unwrap().attempts_open, 0);
}

fn resume(world: &mut World, clusters: &[&str]) -> Result<(), String> {
    let clusters = clusters.iter().map(|name| (*name).to_owned()).collect();
    let body = Body::ResumeTakeOvers(ask::ResumeTakeOvers { clusters, actor: "ada".into() });
    world.command(body).map(drop).map_err(|refusal| refusal.code)
}

#[test]
fn a_held_take_over_is_resumed_until_the_next_session() {
    let mut world = clusters();
    assert_eq!(resume(&mut world, &[]), Err("ARG1190".to_owned()));
    assert_eq!(resume(&mut world, &["nowhere"]), Err("ARG1010".to_owned()));
    assert_eq!(resume(&mut world, &["east", "nowhere"]), Err("ARG1010".to_owned()));
    let epoch = world.state.cluster("east").unwrap().session_epoch;
    assert_eq!(world.state.cluster("east").unwrap().take_over_resumed_epoch, 0, "all of it or nothing");
    resume(&mut world, &["east"]).unwrap();
    let row = world.state.cluster("east").unwrap().clone();
    assert_eq!((row.take_over_resumed_epoch, row.take_over_resumed_by.as_str()), (epoch, "ada"));
    assert!(row.take_over_resumed_at_ms > 0);
    world.open("east", 1000);
    let row = world.state.cluster("east").unwrap();
    assert!(row.session_epoch > row.take_over_resumed_epoch, "it counts for what was silent then");
}

#[test]
fn waits_are_told_as_take_overs_obey_them() {
    use argosy_engine::TakeOverWait;
    let limits = Limits::default();
    let cases = [
        (json!({}), TakeOverWait::UnsafeStep(limits.takeover_after_unsafe_ms)),
        (annotated(json!({"argosy.dev/idempotent": "true"})), TakeOverWait::Lease),
        (annotated(json!({"argosy.dev/failover": "wait"})), TakeOverWait::Return),
    ];
    for (number, (template, after)) in cases.into_iter().enumerate() {
        let mut world = clusters();
        let name = format!("w{number}");
        let (cluster, fence) = placed(&mut world, &name, &template);
        assert_eq!(world.state.take_over_wait(&fence, &limits), Some(TakeOverWait::Lease), "nothing ran yet");
        world.running(&cluster, fence);
        assert_eq!(world.state.take_over_wait(&fence, &limits), Some(after), "{template}");
        let waiting = world.state.waiting_on(&cluster, &limits, 10);
        assert_eq!(
            waiting.iter().map(|one| (one.workflow.as_str(), one.wait)).collect::<Vec<_>>(),
            [(name.as_str(), after)]
        );
        let node = &world.json(&name)["status"]["nodes"][&name];
        assert_eq!(node["attempts"][0]["permit"], "granted", "{node}");
        world.take_over(&cluster, true);
        let waits = world.state.take_over_wait(&fence, &limits);
        assert_eq!(waits.is_some(), after == TakeOverWait::Return, "what is fenced waits no more");
    }
}

fn refused(fence: Fence) -> AttemptReport {
    AttemptReport {
        fence: Some(fence),
        revision: 1,
        phase: AttemptPhase::Error.into(),
        message: "ARG1191: rule images".into(),
        refused: true,
        ..AttemptReport::default()
    }
}

#[test]
fn what_one_clusters_owner_refuses_runs_on_another() {
    let mut world = clusters();
    let (cluster, fence) = placed(&mut world, "w", &json!({}));
    assert_eq!(world.report(&cluster, refused(fence)), Verdict::Accepted);
    world.settle();
    let (elsewhere, new, _) = world.to_run().pop().expect("it is placed again");
    assert_ne!(elsewhere, cluster);
    assert_eq!(world.phase("w"), "Running");
    assert!(world.wanted(&cluster).is_empty(), "nothing is left there");
    let work = world.state.attempt(&new).unwrap();
    assert_eq!(world.state.attempts().filter(|(_, one)| one.workflow == work.workflow).count(), 2);

    // Once the other is lost the owner's word still counts, unlike the exclusion of a cluster that came back.
    world.take_over(&elsewhere, true);
    world.settle();
    assert!(world.to_run().is_empty(), "it waits for a cluster that may run it");
    let shown = world.json("w");
    let message = shown["status"]["nodes"]["w"]["message"].as_str().unwrap();
    assert!(message.contains("its owner's policy refuses the step"), "{message}");
}

#[test]
fn what_every_owner_refuses_is_an_error_in_the_agents_words() {
    let mut world = clusters();
    let (cluster, fence) = placed(&mut world, "w", &json!({}));
    world.report(&cluster, refused(fence));
    world.settle();
    let (elsewhere, fence, _) = world.to_run().pop().unwrap();
    assert_eq!(world.report(&elsewhere, refused(fence)), Verdict::Accepted);
    world.settle();
    let shown = world.json("w");
    assert_eq!(shown["status"]["phase"], "Error");
    assert_eq!(shown["status"]["nodes"]["w"]["message"], "ARG1191: rule images");
}

#[test]
fn a_refusal_of_what_ran_is_its_end() {
    let mut world = clusters();
    let (cluster, fence) = placed(&mut world, "w", &json!({}));
    world.running(&cluster, fence);
    world.report(&cluster, AttemptReport { revision: 9, ..refused(fence) });
    world.settle();
    assert!(world.to_run().is_empty(), "it may have done something: it does not run again by itself");
    assert_eq!(world.phase("w"), "Error");
}

/// `make` and `use` share a volume; `wait` does not and runs in the west, between them.
fn shared_volume(name: &str, make: &Value, consumer: &Value) -> Value {
    let leaf = |name: &str, mounts: bool, extra: &Value| {
        let mut leaf = json!({"name": name, "container": {"image": "busybox"}});
        if mounts {
            leaf["container"]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        }
        leaf.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        leaf
    };
    let step = |name: &str| json!([{"name": name, "template": name}]);
    let west = json!({"nodeSelector": {"cluster.argosy.dev/name": "west"}});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {
            "entrypoint": "main",
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
            "templates": [
                {"name": "main", "steps": [step("make"), step("wait"), step("use")]},
                leaf("make", true, make), leaf("wait", false, &west), leaf("use", true, consumer),
            ],
        },
    })
}

fn in_the_east() -> Value {
    json!({"nodeSelector": {"cluster.argosy.dev/name": "east"}})
}

/// What runs now, and where.
fn only_one(world: &World) -> (String, Fence) {
    let mut running = world.to_run();
    let (cluster, fence, _) = running.pop().expect("something runs");
    assert!(running.is_empty());
    (cluster, fence)
}

fn finish(world: &mut World, wanted: &str) {
    let (cluster, fence) = only_one(world);
    assert_eq!(cluster, wanted);
    world.running(&cluster, fence);
    world.end(&cluster, fence, AttemptPhase::Succeeded);
    world.settle();
}

fn give_up(world: &mut World, cluster: &str) {
    let cluster = cluster.to_owned();
    let remove = ask::RemoveCluster { cluster, forget: true, actor: String::new() };
    change(world, Body::RemoveCluster(remove)).unwrap();
    world.settle();
}

fn says_that_the_volume_is_lost(world: &World, name: &str) -> bool {
    let shown = world.json(name);
    let nodes = shown["status"]["nodes"].as_object().unwrap();
    let of = |node: &&Value| node["templateName"] == "use" && node["type"] == "Pod";
    let lost: Vec<_> = nodes.values().filter(of).collect();
    let words = "cluster east was lost with the volumes";
    world.phase(name) == "Failed"
        && world.lost(name) == [(LossReason::Volume, 1)]
        && lost.len() == 1
        && lost[0]["phase"] == "Error"
        && lost[0]["message"].as_str().unwrap().starts_with(words)
}

#[test]
fn a_group_that_made_nothing_in_its_lost_cluster_begins_again_elsewhere() {
    let mut world = clusters();
    world.submit("w", &shared_volume("w", &json!({}), &json!({}))).unwrap();
    world.settle();
    let (lost, fence) = only_one(&world);
    world.running(&lost, fence);
    world.take_over(&lost, true);
    world.settle();
    let kept = if lost == "east" { "west" } else { "east" };
    assert_eq!(only_one(&world).0, kept);
    assert_eq!(world.end(&lost, fence, AttemptPhase::Succeeded), Verdict::Superseded);
    finish(&mut world, kept);
    finish(&mut world, "west");
    finish(&mut world, kept);
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn a_try_that_would_rather_be_on_another_host_stays_with_its_volume() {
    let mut world = clusters();
    let elsewhere = json!({"retryStrategy": {"limit": 1, "affinity": {"nodeAntiAffinity": {}}}});
    world.submit("w", &shared_volume("w", &elsewhere, &json!({}))).unwrap();
    world.settle();
    let (home, fence) = only_one(&world);
    world.running(&home, fence);
    world.end(&home, fence, AttemptPhase::Failed);
    world.settle();
    finish(&mut world, &home);
    finish(&mut world, "west");
    finish(&mut world, &home);
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn a_group_does_not_begin_again_while_another_step_uses_its_volume() {
    let mut world = clusters();
    let mut wanted = shared_volume("w", &in_the_east(), &json!({}));
    wanted["spec"]["templates"][0]["steps"] =
        json!([[{"name": "a", "template": "make"}, {"name": "b", "template": "use"}]]);
    world.submit("w", &wanted).unwrap();
    world.settle();
    assert_eq!(world.to_run().len(), 2);
    world.take_over("east", true);
    world.settle();
    assert!(world.to_run().iter().all(|(cluster, ..)| cluster == "east"), "never half of it in the west");
}

#[test]
fn a_step_that_waits_for_a_volume_of_a_removed_cluster_ends_with_that_reason() {
    let mut world = clusters();
    // Tried again for ever, it would fail for ever.
    let retried = json!({"retryStrategy": {"retryPolicy": "Always"}});
    for (name, consumer) in [("once", json!({})), ("again", retried)] {
        world.submit(name, &shared_volume(name, &in_the_east(), &consumer)).unwrap();
        world.settle();
        finish(&mut world, "east");
        let (west, fence) = only_one(&world);
        if name == "once" {
            // Its last step waits for the cordoned cluster.
            change(&mut world, cordon("east", true)).unwrap();
            finish(&mut world, "west");
            assert!(world.to_run().is_empty());
            assert_eq!(world.phase(name), "Running");
            change(&mut world, cordon("east", false)).unwrap();
            world.settle();
            finish(&mut world, "east");
        } else {
            world.running(&west, fence);
        }
    }
    world.submit("asleep", &shared_volume("asleep", &in_the_east(), &json!({}))).unwrap();
    world.settle();
    let others: Vec<_> = world.to_run().into_iter().filter(|(cluster, ..)| cluster == "east").collect();
    world.end("east", others[0].1, AttemptPhase::Succeeded);
    world.settle();
    change(&mut world, cordon("east", true)).unwrap();
    for (cluster, fence, _) in world.to_run() {
        world.end(&cluster, fence, AttemptPhase::Succeeded);
    }
    world.settle();
    assert!(world.to_run().is_empty(), "what is left waits for the cordoned cluster");
    give_up(&mut world, "east");
    assert!(says_that_the_volume_is_lost(&world, "asleep"));
    assert!(says_that_the_volume_is_lost(&world, "again"));
    assert_eq!(world.phase("once"), "Succeeded");
}
