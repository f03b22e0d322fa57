//! The rules that hold whatever happens: followers agree, stale fences change nothing, everything ends.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_engine::{
    BATCH_VERSION, Batch, Command, DesiredAttempt, Draft, Fact, Leader, Position, State, evolve,
};
use argosy_model::{Fence, Limits, LogTime};
use argosy_proto::command::{self as ask, command::Body, reply};
use argosy_proto::common::{AttemptPhase, AttemptReport, Resources, Verdict};
use argosy_proto::fact::{CellCreated, fact};
use prost::Message;
use serde_json::{Value, json};
use world::{World, ended};

fn pod() -> Value {
    json!({"name": "pod", "container": {"image": "busybox", "command": ["true"]}})
}

fn manifest(name: &str, templates: &[Value]) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": "argo"},
        "spec": {"entrypoint": "main", "templates": templates},
    })
}

fn one_pod(name: &str, extra: &Value) -> Value {
    let mut main = json!({"name": "main", "container": {"image": "busybox", "command": ["true"]}});
    main.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    manifest(name, &[main])
}

fn two_clusters() -> World {
    let mut world = World::new(Limits::default());
    world.join("east", 1000);
    world.join("west", 1000);
    world
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
    let mut wanted = manifest("w", &[json!({"name": "main", "container": {"image": "busybox"}}), pod()]);
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

fn empty_batch(state: &State, index: u64) -> Batch {
    Batch {
        version: BATCH_VERSION,
        id: 1,
        follows_sequence: state.sequence(),
        expected_index: index,
        log_time_ms: 1,
        facts: Vec::new(),
    }
}

#[test]
fn a_batch_that_does_not_follow_is_void() {
    let mut world = two_clusters();
    let position = Position { incarnation: 1, index: world.index + 1 };
    let before = world.state.clone();
    for batch in [
        Batch { follows_sequence: 0, ..empty_batch(&world.state, position.index) },
        Batch { expected_index: position.index + 1, ..empty_batch(&world.state, position.index) },
    ] {
        assert_eq!(evolve(&mut world.state, position, &batch), Ok(None));
        assert_eq!(world.state, before);
    }
}

#[test]
fn an_unknown_fact_or_version_is_an_error_and_changes_nothing() {
    let mut world = two_clusters();
    let position = Position { incarnation: 1, index: world.index + 1 };
    let before = world.state.clone();
    let known =
        Fact { body: Some(fact::Body::CellCreated(CellCreated { cell: "x".into(), incarnation: 9 })) };
    let misfit = Fact {
        body: Some(fact::Body::WorkflowDeleted(argosy_proto::fact::WorkflowDeleted { workflow: 999 })),
    };
    for batch in [
        Batch { facts: vec![known.clone(), Fact { body: None }], ..empty_batch(&before, position.index) },
        Batch { facts: vec![known, misfit], ..empty_batch(&before, position.index) },
        Batch { version: 2, ..empty_batch(&before, position.index) },
    ] {
        assert!(evolve(&mut world.state, position, &batch).is_err());
        assert_eq!(world.state, before);
    }
    // A fact of a later version: its field is not one of ours.
    let later = Fact::decode(&[0xfa, 0x3f, 0x00][..]).unwrap();
    assert_eq!(later.body, None);
}

#[test]
fn batches_keep_their_bytes() {
    let fact = Fact { body: Some(fact::Body::CellCreated(CellCreated { cell: "c".into(), incarnation: 2 })) };
    let batch = Batch {
        version: 1,
        id: 5,
        follows_sequence: 3,
        expected_index: 300,
        log_time_ms: 7,
        facts: vec![fact],
    };
    assert_eq!(
        batch.encode_to_vec(),
        [0x08, 1, 0x10, 5, 0x18, 3, 0x20, 0xac, 0x02, 0x28, 7, 0x32, 7, 0x0a, 5, 0x0a, 1, b'c', 0x10, 2]
    );
}

#[test]
fn rows_keep_their_bytes() {
    use argosy_proto::state as row;
    let node = row::Node {
        version: 1,
        parent: 2,
        ordinal: 3,
        name: "n".into(),
        r#type: 1,
        phase: 2,
        ..row::Node::default()
    };
    assert_eq!(node.encode_to_vec(), [0x08, 1, 0x10, 2, 0x18, 3, 0x22, 1, b'n', 0x28, 1, 0x30, 2]);
    let attempt =
        row::Attempt { version: 1, workflow: 2, node: 3, cluster: "c".into(), ..row::Attempt::default() };
    assert_eq!(attempt.encode_to_vec(), [0x08, 1, 0x10, 2, 0x18, 3, 0x22, 1, b'c']);
    let workflow = row::Workflow {
        version: 1,
        namespace: "a".into(),
        name: "b".into(),
        phase: 3,
        ..row::Workflow::default()
    };
    assert_eq!(workflow.encode_to_vec(), [0x08, 1, 0x12, 1, b'a', 0x1a, 1, b'b', 0x40, 3]);
    let meta = row::Meta { version: 1, sequence: 2, log_time_ms: 3, incarnation: 1, ..row::Meta::default() };
    assert_eq!(meta.encode_to_vec(), [0x08, 1, 0x10, 2, 0x18, 3, 0x20, 1]);
}

/// A small generator: the test is the same at every run.
struct Seed(u64);
impl Seed {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below.max(1)
    }
}

fn some_workflow(seed: &mut Seed, name: &str) -> Value {
    let steps = json!({"name": "main", "steps": [
        [{"name": "a", "template": "pod"}, {"name": "l", "template": "again", "withItems": [1, 2, 3]}],
        [{"name": "b", "template": "graph", "when": if seed.next(3) == 0 { "false" } else { "true" }}],
        [{"name": "c", "template": "pod", "continueOn": {"failed": true}}],
    ]});
    let graph = json!({"name": "graph", "dag": {"tasks": [
        {"name": "x", "template": "pod"},
        {"name": "y", "template": "pod", "depends": "x"},
        {"name": "z", "template": "wait", "depends": "x.Failed || y"},
    ]}});
    let again = json!({"name": "again", "retryStrategy": {"limit": 1, "backoff": {"duration": "1s"}}, "container": {"image": "i"}});
    let wait = json!({"name": "wait", "suspend": {"duration": "2"}});
    let mut wanted = manifest(name, &[steps, graph, again, wait, pod()]);
    if seed.next(2) == 0 {
        wanted["spec"]["onExit"] = "pod".into();
    }
    if seed.next(4) == 0 {
        wanted["spec"]["activeDeadlineSeconds"] = (seed.next(30)).into();
    }
    wanted
}

/// Whatever an operator may do; refusals are as good as anything here.
fn operate(world: &mut World, seed: &mut Seed, round: usize) {
    let (namespace, name, actor) = ("argo".to_owned(), format!("w{}", seed.next(12)), "op".to_owned());
    let node_field_selector = ["", "displayName=b", "phase!=Pending"][seed.next(3)].to_owned();
    let parameters = if seed.next(3) == 0 { vec!["p=1".to_owned()] } else { Vec::new() };
    let body = match seed.next(6) {
        0 => Body::SuspendWorkflow(ask::SuspendWorkflow { namespace, name, actor }),
        1 => Body::ResumeWorkflow(ask::ResumeWorkflow { namespace, name, node_field_selector, actor }),
        2 => Body::SetNode(ask::SetNode {
            namespace,
            name,
            node_field_selector,
            phase: ["", "Failed"][seed.next(2)].to_owned(),
            message: "looked at".to_owned(),
            actor,
            ..ask::SetNode::default()
        }),
        3 | 4 => Body::RetryWorkflow(ask::RetryWorkflow {
            namespace,
            name,
            restart_successful: seed.next(2) == 0,
            node_field_selector,
            parameters,
            actor,
        }),
        _ => Body::ResubmitWorkflow(ask::ResubmitWorkflow {
            namespace,
            name,
            new_name: format!("w{}", 12 + seed.next(40)),
            new_uid: format!("again-{round}"),
            memoized: seed.next(2) == 0,
            parameters,
            creator: actor,
        }),
    };
    let _ = world.command(body);
}

fn random_step(world: &mut World, seed: &mut Seed, round: usize) {
    world.now += seed.next(3000) as i64;
    let clusters = ["east", "west", "north"];
    let cluster = clusters[seed.next(3)];
    match seed.next(17) {
        14 | 15 => operate(world, seed, round),
        0 | 1 => {
            let name = format!("w{}", seed.next(12));
            let wanted = some_workflow(seed, &name);
            if let Err(refusal) = world.submit(&name, &wanted) {
                assert_eq!(refusal.code, "ARG1004", "{}", refusal.message);
            }
        }
        2 => {
            let name = format!("w{}", seed.next(12));
            if seed.next(2) == 0 {
                let _ = world
                    .command(Body::DeleteWorkflow(ask::DeleteWorkflow { namespace: "argo".into(), name }));
            } else {
                let strategy = if seed.next(2) == 0 {
                    ask::ShutdownStrategy::Stop
                } else {
                    ask::ShutdownStrategy::Terminate
                };
                let _ = world.command(Body::ShutdownWorkflow(ask::ShutdownWorkflow {
                    namespace: "argo".into(),
                    name,
                    strategy: strategy.into(),
                    ..ask::ShutdownWorkflow::default()
                }));
            }
        }
        3 => world.take_over(cluster, seed.next(2) == 0),
        4 => drop(world.open(cluster, 4000)),
        5 => {
            let session_epoch = world.state.cluster(cluster).unwrap().session_epoch;
            let held: Vec<AttemptReport> = world
                .wanted(cluster)
                .into_iter()
                .filter(|_| seed.next(3) > 0)
                .map(|(fence, _)| AttemptReport {
                    fence: Some(fence),
                    revision: 2,
                    phase: AttemptPhase::Running.into(),
                    permitted: true,
                    ..AttemptReport::default()
                })
                .collect();
            world
                .command(Body::ResyncAttempts(ask::ResyncAttempts {
                    cluster: cluster.into(),
                    session_epoch,
                    held,
                }))
                .unwrap();
        }
        6..=10 => {
            let wanted = world.wanted(cluster);
            if let Some((fence, desired)) = wanted.get(seed.next(wanted.len())).cloned() {
                let phase = match (desired, seed.next(4)) {
                    (DesiredAttempt::Stop { .. }, 0 | 1) => AttemptPhase::Stopped,
                    (_, 0) => AttemptPhase::Failed,
                    (_, 1) => AttemptPhase::Running,
                    (_, _) => AttemptPhase::Succeeded,
                };
                let mut report = ended(fence, phase);
                report.revision = round as u64 + 1;
                world.report(cluster, report);
            }
        }
        _ => drop(world.batch(|draft, leader| draft.advance(leader))),
    }
}

fn suspended(world: &mut World, name: &str, suspended: bool) {
    let (namespace, name, actor) = ("argo".to_owned(), name.to_owned(), "op".to_owned());
    let body = if suspended {
        Body::SuspendWorkflow(ask::SuspendWorkflow { namespace, name, actor })
    } else {
        let node_field_selector = String::new();
        Body::ResumeWorkflow(ask::ResumeWorkflow { namespace, name, node_field_selector, actor })
    };
    world.command(body).unwrap();
}

#[test]
fn a_suspended_workflow_waits_without_work_and_goes_on_when_resumed() {
    let mut world = two_clusters();
    let steps = json!({"name": "main", "steps": [[{"name": "a", "template": "pod"}], [{"name": "b", "template": "pod"}]]});
    world.submit("w", &manifest("w", &[steps, pod()])).unwrap();
    world.settle();
    suspended(&mut world, "w", true);
    let (cluster, fence, _) = world.to_run().remove(0);
    assert_eq!(world.end(&cluster, fence, AttemptPhase::Succeeded), Verdict::Accepted);
    world.settle();
    assert!(world.to_run().is_empty() && !world.state.has_work(), "nothing new starts, and nothing spins");
    assert_eq!(world.json("w")["spec"]["suspend"], true);
    let loaded = State::load(world.state.rows().into_iter()).unwrap();
    assert!(!loaded.has_work(), "nor after a restart");
    suspended(&mut world, "w", false);
    world.settle();
    assert_eq!(world.to_run().len(), 1);
    assert_eq!(world.json("w")["metadata"]["labels"]["workflows.argoproj.io/action"], "Resume");
}

#[test]
fn a_template_that_changes_or_goes_changes_no_accepted_workflow() {
    let mut world = two_clusters();
    let template = |image: &str| {
        json!({"kind": "WorkflowTemplate", "metadata": {"name": "t"}, "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "container": {"image": image, "command": ["true"]}},
        ]}})
        .to_string()
    };
    let create = ask::CreateTemplate {
        namespace: "argo".into(),
        name: "t".into(),
        uid: "u".into(),
        manifest_json: template("old"),
        ..ask::CreateTemplate::default()
    };
    world.command(Body::CreateTemplate(create.clone())).unwrap();
    assert_eq!(world.command(Body::CreateTemplate(create)).unwrap_err().code, "ARG1024");
    let mut made = manifest("w", &[]);
    made["spec"] = json!({"workflowTemplateRef": {"name": "t"}});
    world.submit("w", &made).unwrap();
    let update = ask::UpdateTemplate {
        namespace: "argo".into(),
        name: "t".into(),
        manifest_json: template("new"),
        resource_version: "1".into(),
        ..ask::UpdateTemplate::default()
    };
    assert_eq!(world.command(Body::UpdateTemplate(update.clone())).unwrap_err().code, "ARG1026");
    let shown = argosy_engine::view::template_json(&world.state, false, "argo", "t").unwrap();
    let resource_version = shown["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    world.command(Body::UpdateTemplate(ask::UpdateTemplate { resource_version, ..update })).unwrap();
    let delete =
        ask::DeleteTemplate { namespace: "argo".into(), name: "t".into(), ..ask::DeleteTemplate::default() };
    world.command(Body::DeleteTemplate(delete)).unwrap();
    world.settle();
    let (_, fence, _) = world.to_run().remove(0);
    assert!(world.state.assignment(&fence).unwrap().template_json.contains("old"));
    made["metadata"]["name"] = "w2".into();
    assert_eq!(world.submit("w2", &made).unwrap_err().code, "ARG1025");
}

#[test]
fn followers_agree_whatever_happens_and_everything_ends() {
    let mut kinds = std::collections::BTreeMap::new();
    for start in 0..12 {
        let mut seed = Seed(start);
        // Small batches, so that every cascade is cut somewhere.
        let mut world = World::new(Limits {
            decide_work_max: 10 + u32::try_from(seed.next(40)).unwrap(),
            ..Limits::default()
        });
        world.keep_batches = true;
        for cluster in ["east", "west", "north"] {
            world.join(cluster, 4000);
        }
        for round in 0..400 {
            random_step(&mut world, &mut seed, round);
            if seed.next(8) == 0 {
                world.leader = Leader::new(world.leader.limits.clone());
            }
        }
        assert_eq!(world.state, world.follower);
        assert_eq!(State::load(world.state.rows().into_iter()).unwrap(), world.state, "seed {start}");
        end_of_all(&mut world, start);
        for fact in world.batches.iter().flat_map(|batch| &batch.facts) {
            let text = format!("{:?}", fact.body.as_ref().unwrap());
            *kinds.entry(text.split('(').next().unwrap().to_owned()).or_insert(0_u32) += 1;
        }
    }
    println!("{kinds:?}");
    for kind in [
        "AttemptFenced",
        "AttemptStopped",
        "ShutdownRequested",
        "WorkflowDeleted",
        "LoopExpanded",
        "DependencyMet",
        "AgendaMoved",
        "PlacementBlocked",
        "TimerSet",
        "ClusterLost",
        "WorkflowSuspended",
        "WorkflowReopened",
        "NodesRemoved",
        "NodeReopened",
        "NodeRemembered",
    ] {
        assert!(kinds.contains_key(kind), "no {kind} in all the histories");
    }
}

/// Clusters are back and every attempt ends: so must every workflow.
fn end_of_all(world: &mut World, start: u64) {
    for cluster in ["east", "west", "north"] {
        world.open(cluster, 1_000_000);
    }
    for name in (0..52).map(|number| format!("w{number}")) {
        let (namespace, actor) = ("argo".to_owned(), "op".to_owned());
        let node_field_selector = String::new();
        let resume = ask::ResumeWorkflow { namespace, name, node_field_selector, actor };
        let _ = world.command(Body::ResumeWorkflow(resume));
    }
    for round in 0..20_000 {
        world.settle();
        let open: Vec<(String, Fence, DesiredAttempt)> = ["east", "west", "north"]
            .iter()
            .flat_map(|cluster| {
                world
                    .wanted(cluster)
                    .into_iter()
                    .map(|(fence, desired)| ((*cluster).to_owned(), fence, desired))
            })
            .collect();
        if let Some((cluster, fence, desired)) = open.into_iter().next() {
            let phase =
                if desired == DesiredAttempt::Run { AttemptPhase::Succeeded } else { AttemptPhase::Stopped };
            let mut report = ended(fence, phase);
            report.revision = 1_000_000 + round;
            world.report(&cluster, report);
        } else if let Some(due) = world.state.next_timer() {
            world.now = world.now.max(due.0);
        } else {
            break;
        }
    }
    for (_, row) in world.state.workflows_in("") {
        assert!(row.finished_at_ms != 0, "seed {start}: {} does not end", row.name);
    }
    assert_eq!(world.state.next_timer(), None, "seed {start}");
    for (name, row) in world.state.clusters() {
        assert_eq!(row.attempts_open, 0, "seed {start}: {name}");
        assert_eq!(row.used.clone().unwrap_or_default(), Resources::default(), "seed {start}: {name}");
    }
    assert_eq!(world.state, world.follower);
    assert_eq!(State::load(world.state.rows().into_iter()).unwrap(), world.state);
}
