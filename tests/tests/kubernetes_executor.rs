//! What the executor adds to a Pod that does nothing: one real cluster, where a plain Pod and an Argosy step of the same image
//! and command take turns, seen by one watch. A benchmark (`make bench SUITE=executor`); needs ARGOSY_REAL_KUBERNETES=1.
//!
//! The test clusters' containerd mounts no images, so the executor comes by an init container; a plain Pod with that same init
//! container says how much of it that is.

use anyhow::Context;
use argosy_testcluster::{Cluster, Federation};
use argosy_tests::cell::{Cell, Options};
use argosy_tests::pods::{AgentOptions, no_clusters, start_agent};
use futures::{Stream, TryStreamExt};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::PostParams;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "default";

#[test]
#[ignore = "a benchmark"]
fn a_pod_that_does_nothing() {
    if let Some(reason) = no_clusters() {
        return println!("SKIPPED: {reason}");
    }
    let federation = Federation::start().unwrap();
    let cluster = federation.start_cluster("east", 1).unwrap();
    let done = federation.block_on(|| measured(&federation, &cluster)).unwrap();
    done.unwrap();
}

type Events = Pin<Box<dyn Stream<Item = Result<Event<Pod>, Error>> + Send>>;

/// Pods as one watch shows them.
struct Watched {
    events: Events,
    /// When each was seen first.
    seen: BTreeMap<String, Instant>,
}

impl Watched {
    /// From the moment that a Pod with this beginning of a name is there until all its containers have ended well.
    async fn ended(&mut self, beginning: &str) -> anyhow::Result<(Pod, Duration)> {
        let ended = async {
            while let Some(event) = self.events.try_next().await? {
                let (Event::Apply(pod) | Event::InitApply(pod)) = event else { continue };
                let name = pod.metadata.name.clone().unwrap_or_default();
                let first = *self.seen.entry(name.clone()).or_insert_with(Instant::now);
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                anyhow::ensure!(phase != Some("Failed"), "{name} failed: {:?}", pod.status);
                if name.starts_with(beginning) && phase == Some("Succeeded") {
                    return Ok((pod, first.elapsed()));
                }
            }
            anyhow::bail!("the watch ended")
        };
        tokio::time::timeout(WAIT, ended).await.with_context(|| format!("{beginning} takes too long"))?
    }
}

fn container() -> Value {
    json!({"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["true"]})
}

fn plain(name: &str, by_init: Option<&Container>) -> anyhow::Result<Pod> {
    let mut main = container();
    main["name"] = "main".into();
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [main]}});
    if let Some(by_init) = by_init {
        // The cluster mounts the Pod's identity itself, by a name of its own.
        let mut by_init = by_init.clone();
        let mounts = by_init.volume_mounts.get_or_insert_default();
        mounts.retain(|mount| !mount.mount_path.starts_with("/var/run/secrets/"));
        let volumes: Vec<Value> =
            mounts.iter().map(|mount| json!({"name": mount.name, "emptyDir": {}})).collect();
        pod["spec"]["volumes"] = volumes.into();
        pod["spec"]["initContainers"] = json!([by_init]);
    }
    Ok(serde_json::from_value(pod)?)
}

async fn measured(federation: &Federation, cluster: &Cluster) -> anyhow::Result<()> {
    let rounds =
        std::env::var("ARGOSY_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(40);
    let options =
        Options { members: 1, address: federation.hub_address(), lease_ms: 20_000, ..Options::default() };
    let cell = Cell::start(&options).await?;
    let mut agent = start_agent(&cell, cluster, &AgentOptions::default()).await?;
    cell.wait_for_clusters(1).await?;
    let client: Client = argosy_kubernetes::connect(Some(&cluster.kubeconfig()), None).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let events = Box::pin(watcher(pods.clone(), Config::default()));
    let mut watched = Watched { events, seen: BTreeMap::new() };
    let (mut without, mut with, mut steps, mut workflows) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let name = format!("step-{round}");
        let workflow = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"entrypoint": "main", "templates": [{"name": "main", "container": container()}]}});
        let submitted = Instant::now();
        cell.submit(&workflow).await?;
        let (pod, step) = watched.ended(&format!("{name}-")).await?;
        cell.finished(&name, WAIT).await?;
        let whole = submitted.elapsed();
        let by_init = pod.spec.and_then(|spec| spec.init_containers).and_then(|mut all| all.pop());
        let by_init = by_init.context("the executor comes by an init container here")?;
        let mut alone = [Duration::ZERO; 2];
        for (time, (name, by_init)) in alone.iter_mut().zip([("plain", None), ("with-init", Some(&by_init))])
        {
            let name = format!("{name}-{round}");
            pods.create(&PostParams::default(), &plain(&name, by_init)?).await?;
            *time = watched.ended(&name).await?.1;
        }
        // The first of all also finds caches cold.
        if round > 0 {
            without.push(alone[0]);
            with.push(alone[1]);
            steps.push(step);
            workflows.push(whole);
        }
    }
    println!("{rounds} rounds                                              p50       p90");
    for (what, times) in [
        ("a plain Pod, from its creation to its end", &mut without),
        ("the same with the init container that brings the executor", &mut with),
        ("the Pod of an Argosy step", &mut steps),
        ("a workflow of that step, from submission to success", &mut workflows),
    ] {
        times.sort();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64();
        println!("{what:<60} {:.2} s    {:.2} s", at(50), at(90));
    }
    agent.kill()?;
    agent.wait()?;
    Ok(())
}
