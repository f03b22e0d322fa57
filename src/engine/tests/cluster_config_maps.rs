//! ConfigMaps that clusters report: what workflows read of them, and what becomes of those that differ or are too many.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_engine::{Refusal, State, view};
use argosy_model::Limits;
use argosy_proto::command::{self as ask, command::Body, reply};
use argosy_proto::common::{AttemptPhase, ConfigMapName, ConfigMapNotice, ReportedConfigMap};
use serde_json::json;
use std::collections::BTreeMap;
use world::World;

fn named(name: &str) -> ConfigMapName {
    ConfigMapName { namespace: "argo".into(), name: name.into() }
}

fn config_map(name: &str, key: &str, value: &str) -> ReportedConfigMap {
    ReportedConfigMap {
        name: Some(named(name)),
        labels: BTreeMap::from([("workflows.argoproj.io/configmap-type".into(), "Parameter".into())]),
        data: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        ..ReportedConfigMap::default()
    }
}

/// Reports these as everything that the cluster has.
fn report(
    world: &mut World,
    cluster: &str,
    all: Vec<ReportedConfigMap>,
) -> Result<Vec<ConfigMapNotice>, Refusal> {
    let session_epoch = world.state.cluster(cluster).unwrap().session_epoch;
    let present = all.iter().filter_map(|one| one.name.clone()).collect();
    let report = ask::ReportConfigMaps { cluster: cluster.into(), session_epoch, present, changed: all };
    match world.command(Body::ReportConfigMaps(report))?.body {
        Some(reply::Body::ConfigMapsTaken(taken)) => Ok(taken.notices),
        other => panic!("{other:?}"),
    }
}

fn read(world: &World, name: &str) -> Option<String> {
    world.state.config_map("argo", name).map(|row| row.data["k"].clone())
}

#[test]
fn a_cluster_s_config_maps_are_read_until_they_are_withdrawn() {
    let mut world = World::new(Limits::default());
    world.join("east", 1_000);
    assert_eq!(
        report(&mut world, "east", vec![config_map("a", "k", "1"), config_map("b", "k", "2")]),
        Ok(vec![])
    );
    assert_eq!((read(&world, "a"), read(&world, "b")), (Some("1".into()), Some("2".into())));
    let shown = view::config_map_json(&world.state, "argo", "a").unwrap();
    assert_eq!(shown["metadata"]["annotations"], json!({"argosy.dev/cluster": "east"}));
    // The same again, as after a change of leaders, changes nothing.
    let before = world.state.config_map("argo", "a").unwrap().changed_sequence;
    report(&mut world, "east", vec![config_map("a", "k", "1"), config_map("b", "k", "2")]).unwrap();
    assert_eq!(world.state.config_map("argo", "a").unwrap().changed_sequence, before);
    report(&mut world, "east", vec![config_map("b", "k", "3")]).unwrap();
    assert_eq!((read(&world, "a"), read(&world, "b")), (None, Some("3".into())));
    let loaded = State::load(world.state.rows().into_iter()).unwrap();
    assert_eq!(loaded, world.state);
}

#[test]
fn a_parameter_comes_out_of_a_cluster_s_config_map() {
    let mut world = World::new(Limits::default());
    world.join("east", 1_000);
    report(&mut world, "east", vec![config_map("params", "greeting", "hello")]).unwrap();
    let source = json!({"configMapKeyRef": {"name": "params", "key": "greeting"}});
    let manifest = json!({"metadata": {"name": "w"}, "spec": {"entrypoint": "main", "templates": [
        {"name": "main", "inputs": {"parameters": [{"name": "p", "valueFrom": source}]}, "suspend": {"duration": "0"}}]}});
    world.submit("w", &manifest).unwrap();
    world.settle();
    assert_eq!(world.json("w")["status"]["nodes"]["w"]["inputs"]["parameters"][0]["value"], "hello");
}

#[test]
fn a_semaphore_s_limit_follows_a_cluster_s_config_map() {
    let mut world = World::new(Limits::default());
    world.join("east", 1_000_000);
    report(&mut world, "east", vec![config_map("limits", "n", "1")]).unwrap();
    let semaphore = json!({"semaphores": [{"configMapKeyRef": {"name": "limits", "key": "n"}}]});
    for name in ["a", "b"] {
        let manifest = json!({"metadata": {"name": name}, "spec": {"entrypoint": "main", "synchronization": semaphore,
            "templates": [{"name": "main", "container": {"image": "i", "command": ["true"]}}]}});
        world.submit(name, &manifest).unwrap();
        world.settle();
    }
    assert_eq!(world.to_run().len(), 1, "the second waits");
    report(&mut world, "east", vec![config_map("limits", "n", "2")]).unwrap();
    world.settle();
    assert_eq!(world.to_run().len(), 2, "a higher limit is seen at once");
    for (_, fence, _) in world.to_run() {
        world.end("east", fence, AttemptPhase::Succeeded);
    }
    world.settle();
    assert_eq!((world.phase("a"), world.phase("b")), ("Succeeded".into(), "Succeeded".into()));
}

#[test]
fn the_cell_s_own_wins_and_then_the_first_cluster_by_name() {
    let mut world = World::new(Limits::default());
    world.join("east", 1_000);
    world.join("west", 1_000);
    assert_eq!(report(&mut world, "west", vec![config_map("a", "k", "of west")]), Ok(vec![]));
    let notices = report(&mut world, "east", vec![config_map("a", "k", "of east")]).unwrap();
    let told = &notices[0];
    assert_eq!((told.code.as_str(), told.refused, &told.name), ("ARG1170", false, &Some(named("a"))));
    let said = r#"ConfigMap argo/a of cluster "east" differs from that of cluster "west"; workflows read that of cluster "east""#;
    assert_eq!(told.message, said);
    assert_eq!(read(&world, "a").unwrap(), "of east");
    let annotations = |world: &World| {
        view::config_map_json(&world.state, "argo", "a").unwrap()["metadata"]["annotations"].clone()
    };
    let shown = json!({"argosy.dev/cluster": "east", "argosy.dev/differs-in": "west"});
    assert_eq!(annotations(&world), shown);
    let own = ask::StoreConfigMap {
        namespace: "argo".into(),
        name: "a".into(),
        create: true,
        data: BTreeMap::from([("k".into(), "own".into())]),
        ..ask::StoreConfigMap::default()
    };
    world.command(Body::StoreConfigMap(own)).unwrap();
    assert_eq!(read(&world, "a").unwrap(), "own");
    assert_eq!(annotations(&world), json!({"argosy.dev/differs-in": "east,west"}));
    let notices = report(&mut world, "west", vec![config_map("a", "k", "own")]).unwrap();
    assert!(notices[0].message.ends_with("workflows read the cell's own"), "{notices:?}");
    assert_eq!(annotations(&world), json!({"argosy.dev/differs-in": "east"}));
    let delete = ask::DeleteConfigMap { namespace: "argo".into(), name: "a".into() };
    world.command(Body::DeleteConfigMap(delete)).unwrap();
    assert_eq!(read(&world, "a").unwrap(), "of east");
    report(&mut world, "east", vec![]).unwrap();
    assert_eq!(read(&world, "a").unwrap(), "own", "that of west is left");
}

#[test]
fn what_is_too_much_is_refused_and_not_read_as_it_was() {
    let limits = Limits {
        config_maps_per_cluster_max: 2,
        config_maps_bytes_per_cluster_max: 400,
        config_map_bytes_max: 250,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    world.join("east", 1_000);
    let big = "x".repeat(120);
    report(&mut world, "east", vec![config_map("a", "k", &big), config_map("b", "k", &big)]).unwrap();
    let three = ["a", "b", "c"].map(|name| config_map(name, "k", "1")).to_vec();
    assert_eq!(report(&mut world, "east", three).unwrap_err().code, "ARG1105");
    assert_eq!(read(&world, "a"), Some(big.clone()), "a refused report changes nothing");
    let notices =
        report(&mut world, "east", vec![config_map("a", "k", &big.repeat(2)), config_map("b", "k", &big)]);
    let notices = notices.unwrap();
    assert_eq!((notices.len(), notices[0].refused, notices[0].code.as_str()), (1, true, "ARG1104"));
    assert_eq!((read(&world, "a"), read(&world, "b")), (None, Some(big.clone())));
    let wide = vec![config_map("b", "k", &big), config_map("c", "k", &"x".repeat(180))];
    let notices = report(&mut world, "east", wide).unwrap();
    assert_eq!((notices[0].code.as_str(), notices[0].name.clone()), ("ARG1105", Some(named("c"))));
    let old = ask::ReportConfigMaps {
        cluster: "east".into(),
        session_epoch: 77,
        ..ask::ReportConfigMaps::default()
    };
    assert_eq!(world.command(Body::ReportConfigMaps(old)).unwrap_err().code, "ARG1017");
    assert_eq!(read(&world, "b"), Some(big));
}

#[test]
fn a_removed_cluster_s_config_maps_are_read_no_more() {
    let mut world = World::new(Limits::default());
    world.join("east", 1_000);
    world.join("west", 1_000);
    report(&mut world, "east", vec![config_map("a", "k", "1"), config_map("b", "k", "1")]).unwrap();
    report(&mut world, "west", vec![config_map("a", "k", "2")]).unwrap();
    world
        .command(Body::RemoveCluster(ask::RemoveCluster { cluster: "east".into(), ..Default::default() }))
        .unwrap();
    assert_eq!((read(&world, "a"), read(&world, "b")), (Some("2".into()), None));
}
