//! What steps need on a cluster: asked for, and clusters that lack it are passed over.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_model::Limits;
use argosy_proto::command::{self as ask, command::Body};
use argosy_proto::common::{Resources, Runtime};
use serde_json::json;
use std::collections::BTreeMap;
use world::World;

fn join(world: &mut World, cluster: &str) {
    world.join(cluster, 1_000_000);
    let session = ask::OpenSession {
        cluster: cluster.to_owned(),
        cluster_uid: format!("uid-{cluster}"),
        agent_instance: 2,
        runtime: Runtime::Kubernetes.into(),
        allocatable: Some(Resources {
            cpu_milli: 1_000_000,
            memory_bytes: 1 << 40,
            pods: 1_000,
            ..Resources::default()
        }),
        ..ask::OpenSession::default()
    };
    world.command(Body::OpenSession(session)).unwrap();
}

fn told(world: &mut World, cluster: &str, found: &[(&str, bool)]) {
    let found: BTreeMap<String, bool> =
        found.iter().map(|(name, found)| ((*name).to_owned(), *found)).collect();
    world
        .command(Body::FindPrerequisites(ask::FindPrerequisites { cluster: cluster.to_owned(), found }))
        .unwrap();
    world.settle();
}

fn manifest() -> serde_json::Value {
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "w"}, "spec": {"entrypoint": "m", "templates": [
        {"name": "m", "container": {"image": "i", "command": ["c"], "envFrom": [{"secretRef": {"name": "s"}}]}}]}})
}

#[test]
fn a_step_waits_for_word_and_goes_where_what_it_needs_is() {
    let mut world = World::new(Limits::default());
    join(&mut world, "east");
    join(&mut world, "west");
    world.submit("w", &manifest()).unwrap();
    world.settle();
    assert!(world.to_run().is_empty(), "nobody knows yet");
    let asked: Vec<_> = world.leader.questions["west"].iter().map(String::as_str).collect();
    assert_eq!(asked, ["Namespace argo", "Secret argo/s"]);
    told(&mut world, "east", &[("Namespace argo", true), ("Secret argo/s", false)]);
    told(&mut world, "west", &[("Namespace argo", false), ("Secret argo/s", true)]);
    assert!(world.to_run().is_empty());
    let shown = world.json("w").to_string();
    assert!(
        shown.contains("east: has no Secret argo/s") && shown.contains("west: has no Namespace argo"),
        "{shown}"
    );
    told(&mut world, "west", &[("Namespace argo", true)]);
    assert_eq!(world.to_run()[0].0, "west");
    // A new session knows nothing: what is there may have changed meanwhile.
    world
        .command(Body::OpenSession(ask::OpenSession {
            cluster: "west".to_owned(),
            cluster_uid: "uid-west".to_owned(),
            agent_instance: 3,
            runtime: Runtime::Kubernetes.into(),
            ..ask::OpenSession::default()
        }))
        .unwrap();
    assert!(world.state.cluster("west").unwrap().prerequisites.is_empty());
}

#[test]
fn with_one_cluster_all_is_as_in_argo() {
    let mut world = World::new(Limits::default());
    join(&mut world, "east");
    world.submit("w", &manifest()).unwrap();
    world.settle();
    assert_eq!(world.to_run()[0].0, "east");
    assert!(world.leader.questions.is_empty());
}
