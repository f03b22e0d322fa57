//! Templates beside plain containers: daemons, container sets, requests, plugins, and what needs Kubernetes.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_engine::DesiredAttempt;
use argosy_model::{Fence, Limits, Resources};
use argosy_proto::command::{self as ask, command::Body};
use argosy_proto::common::{AttemptPhase, AttemptReport, ContainerState, OutputParameter, Runtime};
use serde_json::{Value, json};
use world::{World, ended, manifest};

fn pod(name: &str, extra: &Value) -> Value {
    let mut template = json!({"name": name, "container": {"image": "busybox", "command": ["true"]}});
    template.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    template
}

fn daemon(extra: &Value) -> Value {
    let mut template = pod("server", &json!({"daemon": true}));
    template.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    template
}

/// A server, then a client that is given its address.
fn server_and_client(extra: &Value) -> Value {
    let argument = json!({"parameters": [{"name": "ip", "value": "{{steps.server.ip}}"}]});
    let main = json!({"name": "main", "steps": [
        [{"name": "server", "template": "server"}],
        [{"name": "client", "template": "client", "arguments": argument}],
    ]});
    let client = pod("client", &json!({"inputs": {"parameters": [{"name": "ip"}]}}));
    manifest("w", &[main, daemon(extra), client])
}

fn started(manifest: &Value) -> World {
    let mut world = World::new(Limits::default());
    world.join("east", 1000);
    world.join("west", 1000);
    world.submit("w", manifest).unwrap();
    world.settle();
    world
}

/// Where a node runs.
fn place(world: &World, node: &str) -> (String, Fence) {
    let found = world.to_run().into_iter().find(|(_, _, name)| name == node);
    let (cluster, fence, _) = found.unwrap_or_else(|| panic!("{node} does not run: {:?}", world.to_run()));
    (cluster, fence)
}

fn ready(world: &mut World, node: &str, ip: &str) -> (String, Fence) {
    let (cluster, fence) = place(world, node);
    let report = AttemptReport {
        fence: Some(fence),
        revision: 2,
        phase: AttemptPhase::Running.into(),
        permitted: true,
        ready: true,
        pod_ip: ip.to_owned(),
        ..AttemptReport::default()
    };
    world.report(&cluster, report);
    world.settle();
    (cluster, fence)
}

fn end(world: &mut World, node: &str, phase: AttemptPhase) {
    let (cluster, fence) = place(world, node);
    world.end(&cluster, fence, phase);
    world.settle();
}

fn node<'a>(shown: &'a Value, name: &str) -> &'a Value {
    let nodes = shown["status"]["nodes"].as_object().unwrap();
    nodes.values().find(|node| node["name"] == name).unwrap_or_else(|| panic!("no node {name}"))
}

fn stops(world: &World, cluster: &str, fence: Fence) -> bool {
    world
        .wanted(cluster)
        .iter()
        .any(|(at, desired)| *at == fence && matches!(desired, DesiredAttempt::Stop { .. }))
}

#[test]
fn a_daemon_lets_the_next_step_go_on_once_it_is_ready_and_ends_with_its_template() {
    let mut world = started(&server_and_client(&json!({})));
    let (cluster, fence) = place(&world, "w[0].server");
    world.running(&cluster, fence);
    world.settle();
    // Running is not ready: as in Argo, the node waits until all containers are.
    assert_eq!(node(&world.json("w"), "w[0].server")["phase"], "Pending");
    ready(&mut world, "w[0].server", "10.1.2.3");
    let shown = world.json("w");
    assert_eq!(node(&shown, "w[0].server")["daemoned"], true);
    assert_eq!(node(&shown, "w[0].server")["phase"], "Running");
    assert_eq!(node(&shown, "w[0].server")["podIP"], "10.1.2.3");
    assert_eq!(node(&shown, "w[0]")["phase"], "Succeeded");
    let client = node(&shown, "w[1].client");
    assert_eq!(client["inputs"]["parameters"][0]["value"], "10.1.2.3");
    // The address is one of that cluster.
    assert_eq!(place(&world, "w[1].client").0, cluster);
    end(&mut world, "w[1].client", AttemptPhase::Succeeded);
    let shown = world.json("w");
    assert_eq!(shown["status"]["phase"], "Succeeded");
    assert_eq!(node(&shown, "w[0].server")["phase"], "Succeeded");
    assert_eq!(node(&shown, "w[0].server")["daemoned"], Value::Null);
    assert_eq!(shown["status"]["progress"], "2/2");
    assert!(stops(&world, &cluster, fence), "the daemon is ended");
    world.end(&cluster, fence, AttemptPhase::Stopped);
    world.settle();
    assert_eq!(node(&world.json("w"), "w[0].server")["phase"], "Succeeded");
    assert!(world.wanted(&cluster).is_empty());
}

#[test]
fn a_daemon_that_ends_by_itself_fails_the_steps_around_it() {
    let mut world = started(&server_and_client(&json!({})));
    let (cluster, fence) = ready(&mut world, "w[0].server", "10.1.2.3");
    world.end(&cluster, fence, AttemptPhase::Succeeded);
    world.settle();
    let shown = world.json("w");
    assert_eq!(node(&shown, "w[0].server")["phase"], "Failed");
    assert_eq!(node(&shown, "w[0].server")["message"], Value::Null);
    assert_eq!(node(&shown, "w[0]")["phase"], "Failed");
    assert_eq!(shown["status"]["phase"], "Failed");
    let message = shown["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("child 'w-") && message.ends_with("' failed"), "{message}");
    // What ran beside it is ended, too.
    let (fence, desired) = world.wanted(&cluster).pop().unwrap();
    assert!(matches!(desired, DesiredAttempt::Stop { .. }));
    world.end(&cluster, fence, AttemptPhase::Stopped);
    world.settle();
    let shown = world.json("w");
    let open = shown["status"]["nodes"].as_object().unwrap().values();
    assert!(open.into_iter().all(|node| node["phase"] != "Running" && node["phase"] != "Pending"));
}

#[test]
fn a_daemon_that_fails_is_tried_again_while_the_step_beside_it_goes_on() {
    let mut world = started(&server_and_client(&json!({"retryStrategy": {"limit": 2}})));
    let (cluster, fence) = ready(&mut world, "w[0].server(0)", "10.1.2.3");
    assert_eq!(node(&world.json("w"), "w[0].server")["daemoned"], true);
    world.end(&cluster, fence, AttemptPhase::Failed);
    world.settle();
    ready(&mut world, "w[0].server(1)", "10.1.2.4");
    let shown = world.json("w");
    assert_eq!(node(&shown, "w[0].server")["podIP"], "10.1.2.4");
    assert_eq!(node(&shown, "w")["phase"], "Running");
    end(&mut world, "w[1].client", AttemptPhase::Succeeded);
    let shown = world.json("w");
    for name in ["w[0].server", "w[0].server(1)", "w[1].client", "w"] {
        assert_eq!(node(&shown, name)["phase"], "Succeeded", "{name}");
    }
    assert_eq!(node(&shown, "w[0].server(0)")["phase"], "Failed");
}

#[test]
fn a_daemon_is_not_counted_by_parallelism() {
    // In Argo this hangs for ever: the daemon holds the only place.
    let mut manifest = server_and_client(&json!({}));
    manifest["spec"]["parallelism"] = 1.into();
    let mut world = started(&manifest);
    ready(&mut world, "w[0].server", "10.1.2.3");
    end(&mut world, "w[1].client", AttemptPhase::Succeeded);
    assert_eq!(world.phase("w"), "Succeeded");
}

#[test]
fn a_daemon_as_entrypoint_ends_the_workflow_once_it_is_ready() {
    let main = pod("main", &json!({"daemon": true}));
    let mut world = started(&manifest("w", &[main]));
    let (cluster, fence) = ready(&mut world, "w", "10.1.2.3");
    let shown = world.json("w");
    assert_eq!(
        (shown["status"]["phase"].as_str(), node(&shown, "w")["phase"].as_str()),
        (Some("Succeeded"), Some("Succeeded"))
    );
    assert!(stops(&world, &cluster, fence));
}

#[test]
fn a_stopped_workflow_ends_its_daemons() {
    let mut world = started(&server_and_client(&json!({})));
    let (cluster, fence) = ready(&mut world, "w[0].server", "10.1.2.3");
    let stop = ask::ShutdownWorkflow {
        namespace: "argo".into(),
        name: "w".into(),
        strategy: ask::ShutdownStrategy::Stop.into(),
        ..ask::ShutdownWorkflow::default()
    };
    world.command(Body::ShutdownWorkflow(stop)).unwrap();
    world.settle();
    let client = world.wanted(&cluster).into_iter().map(|(at, _)| at).find(|at| *at != fence).unwrap();
    world.end(&cluster, client, AttemptPhase::Stopped);
    world.settle();
    assert_eq!(world.phase("w"), "Failed");
    assert!(stops(&world, &cluster, fence));
}

#[test]
fn a_lost_cluster_takes_its_daemon_and_the_step_that_uses_it_along() {
    let mut world = started(&server_and_client(&json!({})));
    let (cluster, _) = ready(&mut world, "w[0].server", "10.1.2.3");
    let (_, client) = place(&world, "w[1].client");
    world.running(&cluster, client);
    world.take_over(&cluster, true);
    world.settle();
    let shown = world.json("w");
    assert_eq!(shown["status"]["phase"], "Failed");
    let message = node(&shown, "w[0].server")["message"].as_str().unwrap();
    assert!(message.contains("was lost with the volumes or daemons"), "{message}");
    assert!(world.to_run().is_empty(), "nothing goes on with an address that nobody has");
}

fn set() -> Value {
    json!({"name": "main", "containerSet": {"containers": [
        {"name": "a", "image": "busybox", "command": ["true"]},
        {"name": "main", "image": "busybox", "command": ["true"], "dependencies": ["a"]},
    ]}})
}

fn container(name: &str, phase: AttemptPhase, message: &str) -> ContainerState {
    ContainerState {
        name: name.into(),
        phase: phase.into(),
        message: message.into(),
        ..ContainerState::default()
    }
}

#[test]
fn containers_of_a_set_are_nodes_that_move_with_what_is_reported() {
    let mut world = started(&manifest("w", &[set()]));
    let (cluster, fence) = place(&world, "w");
    let report = AttemptReport {
        fence: Some(fence),
        revision: 1,
        phase: AttemptPhase::Running.into(),
        permitted: true,
        containers: vec![
            container("a", AttemptPhase::Succeeded, ""),
            container("main", AttemptPhase::Running, ""),
        ],
        ..AttemptReport::default()
    };
    world.report(&cluster, report);
    let shown = world.json("w");
    assert_eq!(node(&shown, "w.a")["phase"], "Succeeded");
    assert_eq!(node(&shown, "w.main")["phase"], "Running");
    assert_eq!(node(&shown, "w")["children"].as_array().unwrap().len(), 1);
    assert_eq!(node(&shown, "w.a")["children"].as_array().unwrap().len(), 1);
    assert_eq!(shown["status"]["progress"], "1/3");
    // Elsewhere none of them has run.
    world.take_over(&cluster, true);
    world.settle();
    let shown = world.json("w");
    assert_eq!(node(&shown, "w.a")["phase"], "Pending");
    assert_eq!(shown["status"]["progress"], "0/3");
    let (cluster, fence) = place(&world, "w");
    let mut over = ended(fence, AttemptPhase::Failed);
    over.containers = vec![container("a", AttemptPhase::Error, "a: Error (exit code 64): ")];
    world.report(&cluster, over);
    world.settle();
    let shown = world.json("w");
    assert_eq!(node(&shown, "w.a")["message"], "a: Error (exit code 64): ");
    // Of the other one nothing was told: it ends with its Pod.
    assert_eq!(node(&shown, "w.main")["phase"], "Failed");
    assert_eq!(shown["status"]["progress"], "0/3");
}

#[test]
fn requests_and_plugins_yield_what_they_report() {
    let main =
        json!({"name": "main", "steps": [[{"name": "h", "template": "h"}, {"name": "p", "template": "p"}]]});
    let templates = [
        main,
        json!({"name": "h", "http": {"url": "http://example/"}}),
        json!({"name": "p", "plugin": {"hello": {}}}),
    ];
    let mut world = started(&manifest("w", &templates));
    let (cluster, fence) = place(&world, "w[0].h");
    let mut over = ended(fence, AttemptPhase::Succeeded);
    (over.exit_code, over.result) = (None, Some("body".into()));
    world.report(&cluster, over);
    let (cluster, fence) = place(&world, "w[0].p");
    let mut over = ended(fence, AttemptPhase::Succeeded);
    over.exit_code = None;
    over.parameters = vec![OutputParameter { name: "undeclared".into(), value: "1".into() }];
    world.report(&cluster, over);
    world.settle();
    let shown = world.json("w");
    assert_eq!(node(&shown, "w[0].h")["type"], "HTTP");
    assert_eq!(node(&shown, "w[0].h")["outputs"], json!({"result": "body"}));
    assert_eq!(node(&shown, "w[0].p")["type"], "Plugin");
    let parameters = json!([{"name": "undeclared", "value": "1"}]);
    assert_eq!(node(&shown, "w[0].p")["outputs"]["parameters"], parameters);
    assert_eq!(shown["status"]["phase"], "Succeeded");
}

#[test]
fn a_stop_fails_a_request_in_argos_words() {
    let main = json!({"name": "main", "http": {"url": "http://example/"}});
    let mut world = started(&manifest("w", &[main]));
    let (cluster, fence) = place(&world, "w");
    world.running(&cluster, fence);
    let stop = ask::ShutdownWorkflow {
        namespace: "argo".into(),
        name: "w".into(),
        strategy: ask::ShutdownStrategy::Stop.into(),
        ..ask::ShutdownWorkflow::default()
    };
    world.command(Body::ShutdownWorkflow(stop)).unwrap();
    world.settle();
    world.end(&cluster, fence, AttemptPhase::Stopped);
    world.settle();
    let shown = world.json("w");
    assert_eq!(node(&shown, "w")["phase"], "Failed");
    assert_eq!(node(&shown, "w")["message"], "Stopped with strategy 'Stop'");
}

#[test]
fn pending_timeout_fails_a_step_that_found_no_place() {
    let main = pod("main", &json!({"pendingTimeout": "30s"}));
    let mut world = World::new(Limits::default());
    world.submit("w", &manifest("w", &[main])).unwrap();
    world.settle();
    world.now += 31_000;
    world.settle();
    let shown = world.json("w");
    assert_eq!(
        (node(&shown, "w")["phase"].as_str(), node(&shown, "w")["message"].as_str()),
        (Some("Failed"), Some("timeout"))
    );
}

#[test]
fn what_needs_kubernetes_is_refused_while_only_process_clusters_have_joined() {
    let mut world = World::new(Limits::default());
    world.join("laptop", 1000);
    open_as(&mut world, "laptop", Runtime::Process);
    let refusal = world.submit("w", &manifest("w", &[set()])).unwrap_err();
    assert_eq!(refusal.code, "ARG1121");
    assert_eq!(
        refusal.message,
        "template 'main': containerSet templates need a Kubernetes cluster, and only process clusters have joined"
    );
    world.submit("w", &manifest("w", &[daemon(&json!({"name": "main"}))])).unwrap();
}

/// A new session of a cluster, which now runs steps in another way.
fn open_as(world: &mut World, cluster: &str, runtime: Runtime) {
    let open = ask::OpenSession {
        cluster: cluster.into(),
        cluster_uid: format!("uid-{cluster}"),
        agent_instance: 2,
        runtime: runtime.into(),
        allocatable: Some(Resources { cpu_milli: 1000, pods: 100, ..Resources::default() }),
        ..ask::OpenSession::default()
    };
    world.command(Body::OpenSession(open)).unwrap();
}

/// A laptop and a Kubernetes cluster, and a step that may go to either but for what is given.
fn laptop_and_kubernetes() -> World {
    let mut world = World::new(Limits::default());
    for (cluster, runtime) in [("laptop", Runtime::Process), ("remote", Runtime::Kubernetes)] {
        world.join(cluster, 1000);
        open_as(&mut world, cluster, runtime);
    }
    world
}

#[test]
fn what_a_process_has_not_goes_to_kubernetes() {
    for (extra, cluster) in [
        (json!({}), "laptop"),
        (json!({"volumes": [{"name": "v", "emptyDir": {}}]}), "remote"),
        (json!({"podSpecPatch": "{}"}), "remote"),
        (json!({"container": {"image": "x"}}), "remote"),
        (
            json!({"container": {"image": "x", "command": ["x"], "envFrom": [{"secretRef": {"name": "s"}}]}}),
            "remote",
        ),
        (
            json!({"container": {"image": "x", "command": ["x"], "env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}}),
            "remote",
        ),
    ] {
        let mut world = laptop_and_kubernetes();
        world.submit("w", &manifest("w", &[pod("main", &extra)])).unwrap();
        world.settle();
        assert_eq!(place(&world, "w").0, cluster, "{extra}");
    }
    let mut world = laptop_and_kubernetes();
    let mut patched = manifest("w", &[pod("main", &json!({}))]);
    patched["spec"]["podSpecPatch"] = json!("{}");
    world.submit("w", &patched).unwrap();
    world.settle();
    assert_eq!(place(&world, "w").0, "remote");
}

/// The daemon alone would have gone to the laptop, and its client would have waited for ever.
#[test]
fn steps_that_belong_together_go_where_all_of_them_can_run() {
    let mut world = laptop_and_kubernetes();
    let mut flow = server_and_client(&json!({}));
    flow["spec"]["templates"][2]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    world.submit("w", &flow).unwrap();
    world.settle();
    assert_eq!(place(&world, "w[0].server").0, "remote");
}

#[test]
fn a_step_that_asks_for_a_cluster_that_cannot_run_it_is_refused() {
    let mut world = laptop_and_kubernetes();
    let mut set = set();
    set["nodeSelector"] = json!({"cluster.argosy.dev/name": "laptop"});
    let refusal = world.submit("w", &manifest("w", &[set])).unwrap_err();
    assert_eq!(refusal.code, "ARG1121");
    assert_eq!(
        refusal.message,
        "template 'main': containerSet templates need a Kubernetes cluster, and its nodeSelector asks for process clusters (laptop)"
    );
}
