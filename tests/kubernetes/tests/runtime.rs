//! The Kubernetes runtime on a real cluster, driven as the reconciler drives it. Runs where ARGOSY_REAL_KUBERNETES=1 is set
//! and clusters can be started; otherwise says why not.
//!
//! One cluster serves all cases, since it takes longer to start than any of them to run. The agent's end (executor
//! server, runtime) runs inside the cluster's network, as an agent does.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]
#![expect(clippy::wildcard_enum_match_arm, reason = "each case looks for one kind of event")]

#[path = "runtime/config_maps.rs"]
mod config_maps;
#[path = "runtime/tasks.rs"]
mod tasks;

use argosy_agent_runtime::server::{ExecutorServer, Executors, Options};
use argosy_agent_runtime::{
    AttemptObservation, ExecutorAnswer, LogOptions, Runtime, RuntimeAction, RuntimeEvent, is_terminal,
};
use argosy_executor::protocol::TaskOutcome;
use argosy_kubernetes::pod::Settings;
use argosy_kubernetes::{Config, KubernetesRuntime, cluster_uid, connect};
use argosy_proto::common::{Assignment, AttemptPhase, Fence};
use argosy_testcluster::{Cluster, EXECUTOR_IMAGE, Federation, unavailable};
use futures::TryStreamExt;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const WAIT: Duration = Duration::from_secs(90);
const EVENTS_MAX: usize = 256;
const EXECUTOR_PORT: u16 = 2749;
/// What is in the ledger is held for so long.
const FINALIZER_MAX_MS: i64 = 2_000;
/// Its outcome is never acknowledged.
const UNHEARD: u64 = 70;

fn say(case: &str) {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    println!("{:>6.1} s  ok: {case}", START.get_or_init(Instant::now).elapsed().as_secs_f64());
}

fn skip_reason() -> Option<String> {
    if std::env::var("ARGOSY_REAL_KUBERNETES").as_deref() != Ok("1") {
        return Some("ARGOSY_REAL_KUBERNETES=1 is not set".into());
    }
    unavailable()
}

/// A reconciler reduced to what these tests need: permits are granted, outcomes recorded, everything is remembered.
struct Agent {
    runtime: Arc<KubernetesRuntime>,
    events: Arc<Mutex<Vec<RuntimeEvent>>>,
    tasks: JoinSet<()>,
}

impl Agent {
    async fn start(cluster: &Cluster, data: &Path) -> Self {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        // The same in every life of the agent, as a Service's address is.
        let listen = SocketAddr::new(cluster.address().into(), EXECUTOR_PORT);
        let options = Options { answer_wait_ms: 200, ..Options::new(listen, data) };
        let server = ExecutorServer::start(options, sender.clone()).await.unwrap();
        let executors = server.executors();
        let client = connect(Some(&cluster.agent_kubeconfig().unwrap()), None).await.unwrap();
        let settings = Settings {
            cell: "cell-1".into(),
            cluster: cluster.name.clone(),
            executor_image: EXECUTOR_IMAGE.into(),
            ..Settings::default()
        };
        // The agent's own program evaluates jq filters.
        let own = std::env::current_exe().unwrap();
        let resources = argosy_kubernetes::resource::Settings {
            directory: Some(data.join("resources")),
            jq: Some(own.parent().unwrap().parent().unwrap().join("argosy-agent")),
            poll_every_ms: 500,
            ..argosy_kubernetes::resource::Settings::default()
        };
        let config = Config { resources, finalizer_max_ms: FINALIZER_MAX_MS, ..Config::new(settings) };
        let runtime = KubernetesRuntime::start(config, client, executors.clone(), sender).unwrap();
        let runtime = Arc::new(runtime);
        let events = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run());
        tasks.spawn(answer(Arc::downgrade(&runtime), executors, receiver, Arc::clone(&events)));
        Self { runtime, events, tasks }
    }

    async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    async fn wait_for<T>(&self, what: &str, pick: impl Fn(&RuntimeEvent) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = self.events.lock().unwrap().iter().find_map(&pick) {
                return found;
            }
            assert!(start.elapsed() < WAIT, "no {what}; seen: {:#?}", self.events.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn outcome(&self, fence: Fence) -> TaskOutcome {
        let pick = |event: &RuntimeEvent| match event {
            RuntimeEvent::Outcome { fence: of, outcome, .. } if *of == fence => Some(outcome.clone()),
            _ => None,
        };
        self.wait_for("outcome", pick).await
    }

    async fn observed(
        &self,
        fence: Fence,
        what: &str,
        wanted: impl Fn(&AttemptObservation) -> bool,
    ) -> AttemptObservation {
        let pick = |event: &RuntimeEvent| match event {
            RuntimeEvent::Observed(seen) if seen.fence == fence && wanted(seen) => Some(seen.clone()),
            _ => None,
        };
        self.wait_for(what, pick).await
    }

    async fn end(&self, fence: Fence) -> AttemptObservation {
        self.observed(fence, "end", |seen| is_terminal(seen.phase)).await
    }

    async fn running(&self, fence: Fence) -> AttemptObservation {
        self.observed(fence, "start", |seen| seen.phase == AttemptPhase::Running).await
    }

    async fn log(&self, fence: Fence, options: LogOptions) -> String {
        let stream = self.runtime.logs(fence, options).await.unwrap();
        let chunks: Vec<_> =
            tokio::time::timeout(WAIT, stream.try_collect()).await.expect("the log ends").unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }

    fn run(&self, fence: Fence, template: &Value) -> Fence {
        self.runtime.act(RuntimeAction::Ensure(assignment(fence, "default", template)));
        fence
    }
}

async fn answer(
    runtime: std::sync::Weak<KubernetesRuntime>,
    executors: Executors,
    mut receiver: mpsc::Receiver<RuntimeEvent>,
    events: Arc<Mutex<Vec<RuntimeEvent>>>,
) {
    while let Some(event) = receiver.recv().await {
        match &event {
            RuntimeEvent::PermitAsked { fence, holder } => {
                let Some(runtime) = runtime.upgrade() else { return };
                runtime.act(RuntimeAction::GrantPermit { fence: *fence, holder: holder.clone() });
            }
            RuntimeEvent::Outcome { fence, holder, .. } if fence.index != UNHEARD => {
                executors.answer(&ExecutorAnswer::OutcomeRecorded { fence: *fence, holder: holder.clone() });
            }
            _ => {}
        }
        events.lock().unwrap().push(event);
    }
}

fn fence(index: u64) -> Fence {
    Fence { incarnation: 1, index, ordinal: 0 }
}

fn assignment(fence: Fence, namespace: &str, template: &Value) -> Assignment {
    Assignment {
        fence: Some(fence),
        namespace: namespace.into(),
        workflow: "w".into(),
        node_id: format!("w-{}", fence.index),
        node_name: format!("w.n{}", fence.index),
        pod_name: format!("w-t-{}", fence.index),
        template_json: template.to_string(),
        stop_grace_ms: 2_000,
        ..Assignment::default()
    }
}

fn shell(script: &str) -> Value {
    json!({"name": "t", "container": {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": [script]}})
}

fn pod_exists(cluster: &Cluster, handle: &str) -> bool {
    let (namespace, name) = handle.split_once('/').unwrap();
    !cluster
        .kubectl(&["-n", namespace, "get", "pod", name, "--ignore-not-found", "-o", "name"])
        .unwrap()
        .is_empty()
}

#[test]
fn the_kubernetes_runtime_on_a_real_cluster() {
    if let Some(reason) = skip_reason() {
        println!("SKIPPED: {reason}");
        return;
    }
    let federation = Federation::start().unwrap();
    say("network");
    let cluster = federation.start_cluster("k1", 1).unwrap();
    say("cluster");
    let data = federation.folder().join("agent");
    std::fs::create_dir_all(&data).unwrap();
    cluster.block_on(|| all_cases(&cluster, &data)).unwrap();
}

async fn all_cases(cluster: &Cluster, data: &Path) {
    let client = connect(Some(&cluster.agent_kubeconfig().unwrap()), None).await.unwrap();
    let uid = cluster_uid(&client, None).await.unwrap();
    assert_eq!(uid.len(), 36, "{uid}");
    let agent = Agent::start(cluster, data).await;
    let listed = |event: &RuntimeEvent| match event {
        RuntimeEvent::Listed(seen) => Some(seen.clone()),
        _ => None,
    };
    assert!(agent.wait_for("list", listed).await.is_empty());
    // Its executor goes on offering the outcome while the other cases run.
    let unheard = agent.run(fence(UNHEARD), &shell("echo unheard"));
    capacity_is_told(&agent).await;
    results_and_failures(&agent).await;
    what_cannot_start_says_why(&agent).await;
    the_finalizer_holds_until_release(&agent, cluster).await;
    a_permit_has_one_holder(&agent, cluster).await;
    a_stop_ends_the_step(&agent, cluster).await;
    tasks::all_cases(&agent, cluster).await;
    config_maps::are_told_as_they_change(&agent, cluster).await;
    let end = agent.end(unheard).await;
    assert_eq!(
        (end.phase, end.message.as_str()),
        (AttemptPhase::Succeeded, ""),
        "the termination message has the outcome"
    );
    say("outcome from the termination message");
    let agent = a_running_step_survives_its_agent(agent, cluster, data).await;
    history_that_the_server_forgot_is_listed_again(&agent, cluster).await;
}

async fn capacity_is_told(agent: &Agent) {
    let pick = |event: &RuntimeEvent| match event {
        RuntimeEvent::Capacity { allocatable, healthy: true } => Some(allocatable.clone()),
        _ => None,
    };
    let capacity = agent.wait_for("capacity", pick).await;
    assert!(capacity.cpu_milli > 0 && capacity.memory_bytes > 0 && capacity.pods > 0, "{capacity:?}");
    say("capacity");
}

async fn results_and_failures(agent: &Agent) {
    let hello = agent.run(fence(1), &shell("echo hello"));
    let failing = agent.run(fence(2), &shell("echo broken; exit 3"));
    let script = json!({"name": "t",
        "script": {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh"], "source": "echo from a script; printf 42 > /tmp/answer"},
        "outputs": {"parameters": [
            {"name": "answer", "valueFrom": {"path": "/tmp/answer"}},
            {"name": "other", "valueFrom": {"path": "/tmp/other", "default": "none"}}]}});
    let script = agent.run(fence(3), &script);
    let missing = json!({"name": "t", "container": {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["true"]},
        "outputs": {"parameters": [{"name": "x", "valueFrom": {"path": "/tmp/missing"}}]}});
    let missing = agent.run(fence(4), &missing);

    let outcome = agent.outcome(hello).await;
    assert_eq!((outcome.exit_code, outcome.result.as_deref()), (0, Some("hello")));
    let end = agent.end(hello).await;
    assert_eq!((end.phase, end.host.as_str()), (AttemptPhase::Succeeded, "k1"));
    assert!(
        end.holder.is_some() && end.started_at_ms > 0 && end.finished_at_ms >= end.started_at_ms,
        "{end:?}"
    );
    assert_eq!(agent.log(hello, LogOptions::default()).await, "hello\n");

    assert_eq!(agent.outcome(failing).await.exit_code, 3);
    let end = agent.end(failing).await;
    assert_eq!(
        (end.phase, end.message.as_str(), end.exit_code),
        (AttemptPhase::Failed, "main: Error (exit code 3)", Some(3))
    );

    let outcome = agent.outcome(script).await;
    assert_eq!(outcome.result.as_deref(), Some("from a script"));
    let parameters: Vec<_> =
        outcome.parameters.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
    assert_eq!(parameters, [("answer", "42"), ("other", "none")]);

    let outcome = agent.outcome(missing).await;
    assert!(outcome.output_error.contains("/tmp/missing: no such file or directory"), "{outcome:?}");
    say("result, exit code, script, output parameters, log");
}

async fn what_cannot_start_says_why(agent: &Agent) {
    agent.runtime.act(RuntimeAction::Ensure(assignment(fence(10), "nowhere", &shell("true"))));
    let end = agent.end(fence(10)).await;
    assert_eq!(end.phase, AttemptPhase::Error);
    assert!(end.message.contains("\"nowhere\" not found; create namespace nowhere"), "{}", end.message);

    let no_command = agent.run(fence(11), &json!({"name": "t", "container": {"image": "busybox"}}));
    assert!(agent.end(no_command).await.message.contains("has no command"));

    let no_image = json!({"name": "t", "container": {"image": "not-here:1", "imagePullPolicy": "Never", "command": ["true"]}});
    let no_image = agent.run(fence(12), &no_image);
    let seen = agent.observed(no_image, "reason", |seen| seen.message.contains("not-here")).await;
    assert!(
        seen.phase == AttemptPhase::Pending && seen.message.starts_with("ErrImageNeverPull: "),
        "{seen:?}"
    );

    let mut huge = shell("true");
    huge["nodeSelector"] = json!({"no-such-host": "x"});
    let unschedulable = agent.run(fence(13), &huge);
    agent.observed(unschedulable, "reason", |seen| seen.message.starts_with("Unschedulable: ")).await;
    for fence in [no_image, unschedulable] {
        agent.runtime.act(RuntimeAction::Stop { fence, grace_ms: 0 });
    }
    assert_eq!(agent.end(unschedulable).await.message, "pod deleted");
    agent.end(no_image).await;
    say("prerequisites, image, scheduling");
}

async fn the_finalizer_holds_until_release(agent: &Agent, cluster: &Cluster) {
    let step = agent.run(fence(20), &shell("echo kept"));
    agent.outcome(step).await;
    let handle = agent.end(step).await.handle;
    let (namespace, name) = handle.split_once('/').unwrap();
    cluster.kubectl(&["-n", namespace, "delete", "pod", name, "--wait=false"]).unwrap();
    let deleting = cluster
        .kubectl(&["-n", namespace, "get", "pod", name, "-o", "jsonpath={.metadata.deletionTimestamp}"])
        .unwrap();
    assert!(!deleting.is_empty() && pod_exists(cluster, &handle));
    agent.runtime.act(RuntimeAction::Release(step));
    gone(cluster, &handle).await;

    let kept = agent.run(fence(21), &shell("echo kept"));
    let handle = agent.end(kept).await.handle;
    assert!(!is_let_go(cluster, &handle));
    agent.runtime.act(RuntimeAction::Release(kept));
    poll("release", || is_let_go(cluster, &handle)).await;
    assert_eq!(agent.log(kept, LogOptions { tail_lines: 1, ..LogOptions::default() }).await, "kept\n");
    say("finalizer until release, log after it");

    // No verdict comes, but the end is in the ledger.
    let unanswered = agent.run(fence(22), &shell("true"));
    let handle = agent.end(unanswered).await.handle;
    assert!(!is_let_go(cluster, &handle));
    agent.runtime.act(RuntimeAction::Recorded(unanswered));
    poll("the finalizer's time to be over", || is_let_go(cluster, &handle)).await;
    agent.runtime.act(RuntimeAction::Release(unanswered));
    say("a recorded end is not held for ever");
}

/// Whether a Pod is there for its log only.
fn is_let_go(cluster: &Cluster, handle: &str) -> bool {
    let (namespace, name) = handle.split_once('/').unwrap();
    let state = r"jsonpath={.metadata.labels.workflows\.argoproj\.io/completed}{.metadata.finalizers}";
    cluster.kubectl(&["-n", namespace, "get", "pod", name, "-o", state]).unwrap() == "true"
}

async fn poll(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < WAIT, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn gone(cluster: &Cluster, handle: &str) {
    poll("the Pod to go", || !pod_exists(cluster, handle)).await;
}

async fn a_permit_has_one_holder(agent: &Agent, cluster: &Cluster) {
    let step = agent.run(fence(30), &shell("sleep 300"));
    let seen = agent.running(step).await;
    agent.runtime.act(RuntimeAction::GrantPermit { fence: step, holder: "another".into() });
    // The next action of the same lane comes after it.
    agent.runtime.act(RuntimeAction::Ensure(assignment(step, "default", &shell("sleep 300"))));
    let repeats = || {
        agent
            .events
            .lock()
            .unwrap()
            .iter()
            .filter(|event| **event == RuntimeEvent::Observed(seen.clone()))
            .count()
    };
    poll("the repeated Ensure", || repeats() > 1).await;
    let (namespace, name) = seen.handle.split_once('/').unwrap();
    let holder = cluster
        .kubectl(&[
            "-n",
            namespace,
            "get",
            "pod",
            name,
            "-o",
            r"jsonpath={.metadata.uid} {.metadata.annotations.argosy\.dev/permit}",
        ])
        .unwrap();
    let (uid, bound) = holder.split_once(' ').unwrap();
    assert_eq!((uid, Some(bound)), (bound, seen.holder.as_deref()));
    agent.runtime.act(RuntimeAction::Stop { fence: step, grace_ms: 0 });
    agent.end(step).await;
    say("one holder");
}

async fn a_stop_ends_the_step(agent: &Agent, cluster: &Cluster) {
    let step = agent.run(
        fence(40),
        &shell("trap 'echo stopping; exit 7' TERM; echo ready; while true; do sleep 0.1; done"),
    );
    let handle = agent.running(step).await.handle;
    let following = LogOptions { follow: true, ..LogOptions::default() };
    let stop_when_ready = async {
        loop {
            if agent.log(step, LogOptions::default()).await.contains("ready") {
                return agent.runtime.act(RuntimeAction::Stop { fence: step, grace_ms: 5_000 });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (log, ()) = tokio::join!(agent.log(step, following), stop_when_ready);
    // The shell may say in between or afterwards that its own child was signalled as well.
    let own: Vec<&str> = log.lines().filter(|line| !line.is_empty() && *line != "Terminated").collect();
    assert_eq!(own, ["ready", "stopping"], "{log}");
    assert_eq!(agent.outcome(step).await.exit_code, 7);
    agent.end(step).await;
    assert!(pod_exists(cluster, &handle), "the finalizer keeps a stopped Pod until its release");
    agent.runtime.act(RuntimeAction::Release(step));
    gone(cluster, &handle).await;

    // Nothing is there: said, not waited for.
    agent.runtime.act(RuntimeAction::Stop { fence: fence(41), grace_ms: 0 });
    agent.wait_for("gone", |event| (*event == RuntimeEvent::Gone(fence(41))).then_some(())).await;
    say("stop");
}

async fn a_running_step_survives_its_agent(agent: Agent, cluster: &Cluster, data: &Path) -> Agent {
    let step =
        agent.run(fence(50), &shell("echo begun; while [ ! -e /tmp/end ]; do sleep 0.1; done; echo done"));
    let before = agent.running(step).await;
    agent.stop().await;

    let agent = Agent::start(cluster, data).await;
    let listed = |event: &RuntimeEvent| match event {
        RuntimeEvent::Listed(seen) => {
            Some(seen.iter().filter(|one| one.fence == step).cloned().collect::<Vec<_>>())
        }
        _ => None,
    };
    let adopted = agent.wait_for("list", listed).await;
    assert_eq!(adopted, std::slice::from_ref(&before));
    let (namespace, name) = before.handle.split_once('/').unwrap();
    cluster.kubectl(&["-n", namespace, "exec", name, "-c", "main", "--", "touch", "/tmp/end"]).unwrap();
    let outcome = agent.outcome(step).await;
    assert_eq!((outcome.exit_code, outcome.result.as_deref()), (0, Some("begun\ndone")));
    assert_eq!(agent.end(step).await.phase, AttemptPhase::Succeeded);
    agent.runtime.act(RuntimeAction::Release(step));
    say("adoption");
    agent
}

async fn history_that_the_server_forgot_is_listed_again(agent: &Agent, cluster: &Cluster) {
    let waiting = agent.run(fence(60), &shell("sleep 300"));
    agent.running(waiting).await;
    tokio::task::block_in_place(|| cluster.restart_api_server_compacted()).unwrap();
    let step = agent.run(fence(61), &shell("echo after"));
    // An action that met the server's absence is repeated by the reconciler.
    let ended = async {
        loop {
            agent.run(step, &shell("echo after"));
            tokio::time::sleep(Duration::from_millis(500)).await;
            let is_end = |event: &RuntimeEvent| matches!(event, RuntimeEvent::Observed(seen) if seen.fence == step && is_terminal(seen.phase));
            if agent.events.lock().unwrap().iter().any(is_end) {
                return;
            }
        }
    };
    tokio::time::timeout(WAIT, ended).await.expect("the watch goes on");
    assert_eq!(agent.outcome(step).await.result.as_deref(), Some("after"));
    let lost = agent.events.lock().unwrap().contains(&RuntimeEvent::Gone(waiting));
    assert!(!lost, "a Pod that is there was thought gone");
    agent.runtime.act(RuntimeAction::Stop { fence: waiting, grace_ms: 0 });
    agent.end(waiting).await;
    say("resumed after 410");
}
