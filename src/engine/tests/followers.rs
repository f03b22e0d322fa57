//! What every member does with the same batches: they agree whatever happens, bytes stay, and everything ends.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_engine::{BATCH_VERSION, Batch, DesiredAttempt, Fact, Leader, Position, State, evolve};
use argosy_model::{Fence, Limits};
use argosy_proto::command::{self as ask, command::Body};
use argosy_proto::common::{AttemptPhase, AttemptReport, Resources, Verdict};
use argosy_proto::fact::{CellCreated, fact};
use prost::Message;
use serde_json::{Value, json};
use world::{World, ended, manifest, two_clusters};

fn pod() -> Value {
    json!({"name": "pod", "container": {"image": "busybox", "command": ["true"]}})
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
    if seed.next(2) == 0 {
        let word = ["keep-original", "longest-running"][seed.next(2)];
        wanted["metadata"]["annotations"] = json!({"argosy.dev/on-reconnect": word});
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
        "AttemptReturned",
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
