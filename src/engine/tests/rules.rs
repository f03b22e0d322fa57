//! The rules that hold whatever happens: followers agree, stale fences change nothing, everything ends.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_engine::{Command, DesiredAttempt, Draft, Position};
use argosy_model::{Fence, Limits, LogTime};
use argosy_proto::command::{self as ask, command::Body, reply};
use argosy_proto::common::{AttemptPhase, AttemptReport, Resources, Verdict};
use argosy_proto::state::LossReason;
use serde_json::{Value, json};
use world::{World, manifest, two_clusters};

fn one_pod(name: &str, extra: &Value) -> Value {
    let mut main = json!({"name": "main", "container": {"image": "busybox", "command": ["true"]}});
    main.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    manifest(name, &[main])
}

/// Submits one Pod and gives where it runs.
fn running_pod(world: &mut World, name: &str, extra: &Value) -> (String, Fence) {
    world.submit(name, &one_pod(name, extra)).unwrap();
    world.settle();
    let (cluster, fence, _) =
        world.to_run().into_iter().find(|(_, _, node)| node.starts_with(name)).expect("it was placed");
    (cluster, fence)
}

#[test]
fn a_pod_runs_and_its_workflow_succeeds() {
    let mut world = two_clusters();
    let (cluster, fence) = running_pod(&mut world, "w", &json!({}));
    let assignment = world.state.assignment(&fence).unwrap();
    assert_eq!((assignment.node_name.as_str(), assignment.pod_name.as_str()), ("w", "w"));
    assert!(assignment.template_json.contains("busybox"));
    assert_eq!(world.running(&cluster, fence), Verdict::Accepted);
    assert_eq!(world.json("w")["status"]["nodes"]["w"]["phase"], "Running");
    assert_eq!(world.end(&cluster, fence, AttemptPhase::Succeeded), Verdict::Accepted);
    world.settle();
    let shown = world.json("w");
    assert_eq!(shown["status"]["phase"], "Succeeded");
    assert_eq!(shown["metadata"]["labels"]["workflows.argoproj.io/completed"], "true");
    assert_eq!(shown["status"]["nodes"]["w"]["cluster"], cluster);
    assert!(world.wanted(&cluster).is_empty());
    assert_eq!(world.state.cluster(&cluster).unwrap().used.clone().unwrap_or_default(), Resources::default());
}

#[test]
fn a_report_that_comes_twice_changes_nothing() {
    let mut world = two_clusters();
    let (cluster, fence) = running_pod(&mut world, "w", &json!({}));
    world.end(&cluster, fence, AttemptPhase::Succeeded);
    world.settle();
    let before = world.state.hash();
    assert_eq!(world.end(&cluster, fence, AttemptPhase::Succeeded), Verdict::Accepted);
    assert_eq!(world.end(&cluster, fence, AttemptPhase::Failed), Verdict::Superseded);
    assert_eq!(world.state.hash(), before);
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn a_fence_that_nobody_gave_is_unknown() {
    let mut world = two_clusters();
    let (cluster, fence) = running_pod(&mut world, "w", &json!({}));
    let stranger = Fence { ordinal: fence.ordinal + 1000, ..fence };
    assert_eq!(world.end(&cluster, stranger, AttemptPhase::Succeeded), Verdict::Unknown);
    let other = if cluster == "east" { "west" } else { "east" };
    assert_eq!(world.end(other, fence, AttemptPhase::Succeeded), Verdict::Unknown, "another cluster's fence");
    assert_eq!(world.phase("w"), "Running");
}

#[test]
fn a_taken_over_step_runs_elsewhere_and_its_old_result_is_refused() {
    let mut world = two_clusters();
    let (cluster, old) = running_pod(&mut world, "w", &json!({"retryStrategy": {"limit": 0}}));
    world.running(&cluster, old);
    world.take_over(&cluster, false);
    world.settle();
    let (elsewhere, new, _) = world.to_run().pop().expect("it runs again");
    assert_ne!(cluster, elsewhere);
    assert!(new > old, "a later fence is greater");
    assert_eq!(world.end(&cluster, old, AttemptPhase::Succeeded), Verdict::Superseded);
    world.settle();
    assert_eq!(world.phase("w"), "Running");
    assert!(world.wanted(&cluster).is_empty(), "nothing is left of the old attempt");
    assert_eq!(world.end(&elsewhere, new, AttemptPhase::Succeeded), Verdict::Accepted);
    world.settle();
    let shown = world.json("w");
    assert_eq!(shown["status"]["phase"], "Succeeded");
    let attempts =
        shown["status"]["nodes"].as_object().unwrap().values().find_map(|node| node.get("attempts")).unwrap();
    assert_eq!(attempts.as_array().unwrap().len(), 2);
}

#[test]
fn a_running_step_that_is_not_safe_waits_for_the_longer_time() {
    let mut world = two_clusters();
    let (cluster, fence) = running_pod(&mut world, "w", &json!({}));
    world.running(&cluster, fence);
    world.take_over(&cluster, false);
    world.settle();
    assert_eq!(world.wanted(&cluster), [(fence, DesiredAttempt::Run)]);
    assert!(world.state.cluster(&cluster).unwrap().lost);
    world.take_over(&cluster, true);
    world.settle();
    assert!(matches!(world.wanted(&cluster)[0].1, DesiredAttempt::Stop { fenced: true, .. }));
    assert_eq!(world.to_run().len(), 1);
}

#[test]
fn without_a_start_permit_or_with_the_users_word_a_step_moves_at_once() {
    for (permitted, annotation) in
        [(false, json!({})), (true, json!({"metadata": {"annotations": {"argosy.dev/idempotent": "true"}}}))]
    {
        let mut world = two_clusters();
        let (cluster, fence) = running_pod(&mut world, "w", &annotation);
        if permitted {
            world.running(&cluster, fence);
        }
        world.take_over(&cluster, false);
        world.settle();
        assert_ne!(world.to_run()[0].0, cluster);
    }
}

#[test]
fn the_users_word_on_failover_is_kept() {
    for (word, phase, moved) in
        [("wait", "Running", false), ("fail", "Error", false), ("reschedule", "Running", true)]
    {
        let mut world = two_clusters();
        let annotation = json!({"metadata": {"annotations": {"argosy.dev/failover": word}}});
        let (cluster, fence) = running_pod(&mut world, "w", &annotation);
        world.running(&cluster, fence);
        world.take_over(&cluster, word != "reschedule");
        world.settle();
        assert_eq!((word, world.phase("w").as_str()), (word, phase));
        assert_eq!(
            world.to_run().first().is_some_and(|(elsewhere, ..)| *elsewhere != cluster),
            moved,
            "{word}"
        );
        let counted: &[_] = if word == "fail" { &[(LossReason::FailoverFail, 1)] } else { &[] };
        assert_eq!(world.lost("w"), counted, "{word}");
    }
}

#[test]
fn a_take_over_of_an_older_session_is_void() {
    let mut world = two_clusters();
    let (cluster, fence) = running_pod(&mut world, "w", &json!({}));
    let session_epoch = world.state.cluster(&cluster).unwrap().session_epoch;
    world.open(&cluster, 1000);
    let take = ask::TakeOver {
        cluster: cluster.clone(),
        session_epoch,
        scope: ask::TakeOverScope::All.into(),
        beyond_ms: 0,
    };
    world.command(Body::TakeOver(take)).unwrap();
    assert_eq!(world.wanted(&cluster), [(fence, DesiredAttempt::Run)]);
    assert!(!world.state.cluster(&cluster).unwrap().lost);
}

#[test]
fn a_step_that_loses_every_cluster_ends_as_poison() {
    let mut world = two_clusters();
    running_pod(&mut world, "w", &json!({}));
    for _ in 0..10 {
        world.settle();
        let Some((cluster, _, _)) = world.to_run().pop() else { break };
        world.take_over(&cluster, true);
        world.open(&cluster, 1000);
    }
    world.settle();
    let shown = world.json("w");
    assert_eq!(shown["status"]["phase"], "Error");
    assert!(shown["status"]["message"].as_str().unwrap().contains("taken over 3 times"), "{shown}");
    assert_eq!(world.lost("w"), [(LossReason::TakeoverLimit, 1)]);
}

#[test]
fn resync_says_keep_or_stop_and_finds_what_is_gone() {
    let mut world = two_clusters();
    let (cluster, fence) = running_pod(&mut world, "w", &json!({}));
    let resync = |world: &mut World, held: Vec<AttemptReport>| {
        let session_epoch = world.state.cluster(&cluster).unwrap().session_epoch;
        let body = ask::ResyncAttempts { cluster: cluster.clone(), session_epoch, held };
        match world.command(Body::ResyncAttempts(body)).unwrap().body {
            Some(reply::Body::AttemptsResynced(resynced)) => resynced,
            other => panic!("{other:?}"),
        }
    };
    assert!(resync(&mut world, Vec::new()).keep.is_empty());
    assert_eq!(world.wanted(&cluster), [(fence, DesiredAttempt::Run)], "never received: it is sent again");
    let stranger = Fence { index: 999, ..fence };
    let held = |fence| AttemptReport {
        fence: Some(fence),
        revision: 1,
        phase: AttemptPhase::Running.into(),
        permitted: true,
        ..AttemptReport::default()
    };
    let answer = resync(&mut world, vec![held(fence), held(stranger)]);
    assert_eq!((answer.keep, answer.stop), (vec![fence], vec![stranger]));
    resync(&mut world, Vec::new());
    world.settle();
    let shown = world.json("w");
    assert_eq!(
        (&shown["status"]["phase"], &shown["status"]["message"]),
        (&json!("Error"), &json!("pod deleted"))
    );
}

#[test]
fn a_resync_of_an_older_session_is_refused() {
    let mut world = two_clusters();
    let body = ask::ResyncAttempts { cluster: "east".into(), session_epoch: 99, held: Vec::new() };
    assert_eq!(world.command(Body::ResyncAttempts(body)).unwrap_err().code, "ARG1017");
}

#[test]
fn retries_end_at_their_limit() {
    let mut world = two_clusters();
    world.submit("w", &one_pod("w", &json!({"retryStrategy": {"limit": "2"}}))).unwrap();
    let mut tries = 0;
    loop {
        world.settle();
        let Some((cluster, fence, _)) = world.to_run().pop() else { break };
        world.end(&cluster, fence, AttemptPhase::Failed);
        tries += 1;
    }
    assert_eq!(tries, 3);
    assert_eq!(world.json("w")["status"]["message"], "No more retries left");
}

#[test]
fn stop_ends_what_runs_and_runs_the_exit_handler() {
    let mut world = two_clusters();
    let other = json!({"name": "pod", "container": {"image": "busybox", "command": ["true"]}});
    let mut wanted = manifest("w", &[json!({"name": "main", "container": {"image": "busybox"}}), other]);
    wanted["spec"]["onExit"] = "pod".into();
    world.submit("w", &wanted).unwrap();
    world.settle();
    let (cluster, fence, _) = world.to_run().pop().unwrap();
    let stop = ask::ShutdownWorkflow {
        namespace: "argo".into(),
        name: "w".into(),
        strategy: ask::ShutdownStrategy::Stop.into(),
        ..ask::ShutdownWorkflow::default()
    };
    world.command(Body::ShutdownWorkflow(stop.clone())).unwrap();
    world.settle();
    assert!(matches!(world.wanted(&cluster)[0].1, DesiredAttempt::Stop { fenced: false, .. }));
    assert_eq!(world.end(&cluster, fence, AttemptPhase::Stopped), Verdict::Accepted);
    world.settle();
    let (cluster, fence, node) = world.to_run().pop().expect("the exit handler");
    assert_eq!(node, "w.onExit");
    world.end(&cluster, fence, AttemptPhase::Succeeded);
    world.settle();
    let shown = world.json("w");
    assert_eq!(shown["status"]["phase"], "Failed");
    assert_eq!(shown["status"]["message"], "Stopped with strategy 'Stop'");
    assert_eq!(shown["spec"]["shutdown"], "Stop");
    let refusal = world.command(Body::ShutdownWorkflow(stop)).unwrap_err();
    assert_eq!(refusal.message, "cannot shutdown a completed workflow: workflow: \"w\", namespace: \"argo\"");
    assert_eq!((refusal.grpc_code, refusal.http_status), (13, 500));
}

#[test]
fn deleting_stops_attempts_and_keeps_the_order_until_they_are_gone() {
    let mut world = two_clusters();
    let (cluster, fence) = running_pod(&mut world, "w", &json!({}));
    let delete = ask::DeleteWorkflow { namespace: "argo".into(), name: "w".into() };
    world.command(Body::DeleteWorkflow(delete.clone())).unwrap();
    world.settle();
    assert!(world.id("w").is_none());
    assert!(matches!(world.wanted(&cluster)[0].1, DesiredAttempt::Stop { fenced: true, .. }));
    assert_eq!(world.end(&cluster, fence, AttemptPhase::Stopped), Verdict::Superseded);
    assert!(world.wanted(&cluster).is_empty());
    let refusal = world.command(Body::DeleteWorkflow(delete)).unwrap_err();
    assert_eq!((refusal.message.as_str(), refusal.grpc_code), ("workflows.argoproj.io \"w\" not found", 5));
}

#[test]
fn names_are_unique_and_free_again_after_a_delete() {
    let mut world = two_clusters();
    running_pod(&mut world, "w", &json!({}));
    let refusal = world.submit("w", &one_pod("w", &json!({}))).unwrap_err();
    assert_eq!(
        (refusal.message.as_str(), refusal.grpc_code, refusal.http_status),
        ("workflows.argoproj.io \"w\" already exists", 6, 409)
    );
    world
        .command(Body::DeleteWorkflow(ask::DeleteWorkflow { namespace: "argo".into(), name: "w".into() }))
        .unwrap();
    world.submit("w", &one_pod("w", &json!({}))).unwrap();
}

#[test]
fn invites_are_used_once_and_each_wrong_one_has_its_answer() {
    let mut world = World::new(Limits::default());
    let token_hash = vec![7; 32];
    let redeem = |cluster: &str, hash: &[u8]| {
        Body::RedeemInvite(ask::RedeemInvite {
            cluster: cluster.into(),
            cluster_uid: "u".into(),
            token_hash: hash.to_vec(),
            ..Default::default()
        })
    };
    world
        .command(Body::CreateInvite(ask::CreateInvite {
            cluster: "east".into(),
            token_hash: token_hash.clone(),
            ttl_ms: 1000,
        }))
        .unwrap();
    assert_eq!(world.command(redeem("east", &[8; 32])).unwrap_err().code, "ARG1013");
    assert_eq!(world.command(redeem("west", &token_hash)).unwrap_err().code, "ARG1016");
    world.command(redeem("east", &token_hash)).unwrap();
    assert_eq!(world.command(redeem("east", &token_hash)).unwrap_err().code, "ARG1015");
    world
        .command(Body::CreateInvite(ask::CreateInvite {
            cluster: "west".into(),
            token_hash: vec![9; 32],
            ttl_ms: 1000,
        }))
        .unwrap();
    world.now += 1000;
    assert_eq!(world.command(redeem("west", &[9; 32])).unwrap_err().code, "ARG1014");
    let bad = ask::CreateInvite { cluster: "A b".into(), token_hash: vec![1; 32], ttl_ms: 1000 };
    assert_eq!(world.command(Body::CreateInvite(bad)).unwrap_err().code, "ARG1009");
    let bad = ask::CreateInvite { cluster: "a".into(), token_hash: vec![1; 32], ttl_ms: u64::MAX };
    assert_eq!(world.command(Body::CreateInvite(bad)).unwrap_err().code, "ARG1018");
}

#[test]
fn sessions_need_a_registered_cluster_and_its_uid() {
    let mut world = two_clusters();
    let open = |cluster: &str, uid: &str| {
        Body::OpenSession(ask::OpenSession {
            cluster: cluster.into(),
            cluster_uid: uid.into(),
            ..ask::OpenSession::default()
        })
    };
    assert_eq!(world.command(open("north", "x")).unwrap_err().code, "ARG1010");
    assert_eq!(world.command(open("east", "x")).unwrap_err().code, "ARG1011");
    assert_eq!(world.open("east", 1), 2);
    assert_eq!(world.open("east", 1), 3);
}

#[test]
fn an_idempotency_key_gives_the_same_answer_once() {
    let mut world = two_clusters();
    let submit = |name: &str, digest: u8| Command {
        version: 1,
        idempotency_key: Some(ask::IdempotencyKey {
            tenant: "t".into(),
            key: "k".into(),
            digest: vec![digest],
        }),
        body: Some(Body::SubmitWorkflow(ask::SubmitWorkflow {
            cron: String::new(),
            namespace: "argo".into(),
            name: name.into(),
            uid: "u".into(),
            manifest_json: one_pod(name, &json!({})).to_string(),
            creator: String::new(),
        })),
    };
    let first = world.batch(|draft, leader| draft.command(&submit("w", 1), leader)).unwrap();
    assert_eq!(world.batch(|draft, leader| draft.command(&submit("w", 1), leader)).unwrap(), first);
    assert_eq!(
        world.batch(|draft, leader| draft.command(&submit("x", 2), leader)).unwrap_err().code,
        "ARG1008"
    );
    let mut long = submit("x", 2);
    long.idempotency_key.as_mut().unwrap().key = "k".repeat(10_000);
    assert_eq!(world.batch(|draft, leader| draft.command(&long, leader)).unwrap_err().code, "ARG1019");
    world.now += Limits::default().idempotency_ttl_ms;
    world.batch(|draft, leader| draft.command(&submit("x", 2), leader)).unwrap();
}

#[test]
fn bounds_on_workflows_hold() {
    let mut world =
        World::new(Limits { workflows_active_max: 2, workflows_finished_max: 1, ..Limits::default() });
    world.join("east", 1000);
    world.submit("a", &one_pod("a", &json!({}))).unwrap();
    world.submit("b", &one_pod("b", &json!({}))).unwrap();
    assert_eq!(world.submit("c", &one_pod("c", &json!({}))).unwrap_err().code, "ARG1007");
    world.settle();
    for (cluster, fence, _) in world.to_run() {
        world.now += 1;
        world.end(&cluster, fence, AttemptPhase::Succeeded);
    }
    world.settle();
    world.submit("c", &one_pod("c", &json!({}))).unwrap();
    assert!(world.id("a").is_none() != world.id("b").is_none(), "the oldest finished one left");
}

#[test]
fn capacity_is_deducted_and_waiting_steps_take_what_is_freed() {
    let mut world = World::new(Limits::default());
    world.join("east", 1000);
    let wanted = json!({"container": {"image": "busybox", "resources": {"requests": {"cpu": "600m"}}}});
    world.submit("a", &one_pod("a", &wanted)).unwrap();
    world.submit("b", &one_pod("b", &wanted)).unwrap();
    world.settle();
    assert_eq!(world.to_run().len(), 1);
    assert!(!world.state.has_work(), "nothing to do until capacity changes");
    let waiting = if world.to_run()[0].2 == "a" { "b" } else { "a" };
    let message = world.json(waiting)["status"]["nodes"][waiting]["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "no cluster can take it: east: not enough cpu");
    let (cluster, fence, _) = world.to_run().pop().unwrap();
    world.end(&cluster, fence, AttemptPhase::Succeeded);
    world.settle();
    assert_eq!(world.to_run().len(), 1);
}

#[test]
fn steps_that_share_a_volume_stay_in_one_cluster() {
    let mut world = two_clusters();
    let mounted = |name: &str| json!({"name": name, "container": {"image": "busybox", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}});
    let main = json!({"name": "main", "steps": [[{"name": "a", "template": "one"}, {"name": "b", "template": "two"}, {"name": "c", "template": "one"}]]});
    let mut wanted = manifest("w", &[main, mounted("one"), mounted("two")]);
    wanted["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    world.submit("w", &wanted).unwrap();
    world.settle();
    let places: std::collections::BTreeSet<String> =
        world.to_run().into_iter().map(|(cluster, ..)| cluster).collect();
    assert_eq!((world.to_run().len(), places.len()), (3, 1));
    wanted["spec"]["templates"][1]["nodeSelector"] = json!({"cluster.argosy.dev/name": "east"});
    wanted["spec"]["templates"][2]["nodeSelector"] = json!({"cluster.argosy.dev/name": "west"});
    wanted["metadata"]["name"] = "x".into();
    assert_eq!(world.submit("x", &wanted).unwrap_err().code, "ARG1020");
}

#[test]
fn a_deadline_ends_the_workflow() {
    let mut world = two_clusters();
    let mut wanted = one_pod("w", &json!({}));
    wanted["spec"]["activeDeadlineSeconds"] = 10.into();
    world.submit("w", &wanted).unwrap();
    world.settle();
    assert_eq!(world.state.next_timer(), Some(LogTime(world.now + 10_000)));
    let (cluster, fence, _) = world.to_run().pop().unwrap();
    world.now += 10_000;
    world.settle();
    assert!(matches!(world.wanted(&cluster)[0].1, DesiredAttempt::Stop { .. }));
    world.end(&cluster, fence, AttemptPhase::Stopped);
    world.settle();
    let shown = world.json("w");
    assert_eq!(
        (&shown["status"]["phase"], &shown["status"]["message"]),
        (&json!("Failed"), &json!("Step exceeded its deadline"))
    );
}

#[test]
fn a_refused_command_leaves_the_draft_as_it_was() {
    let mut world = two_clusters();
    world.index += 1;
    let position = Position { incarnation: 1, index: world.index };
    let mut draft = Draft::new(&world.state, position, LogTime(world.now), 1);
    let bad = Command {
        version: 1,
        idempotency_key: None,
        body: Some(Body::DeleteWorkflow(ask::DeleteWorkflow {
            namespace: "argo".into(),
            name: "none".into(),
        })),
    };
    assert!(draft.command(&bad, &mut world.leader).is_err());
    assert!(draft.is_empty());
    assert_eq!(draft.state, world.state);
    let unknown = Command { version: 1, idempotency_key: None, body: None };
    assert_eq!(draft.command(&unknown, &mut world.leader).unwrap_err().code, "ARG1001");
}
