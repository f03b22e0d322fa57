//! Bad days of three real clusters under three members, each in a network of its own: what networks.rs does to process
//! clusters, and what only a real cluster can lose, as its API server. After each: one committed result per node, exclusive
//! steps that never overlapped by what they wrote themselves, no Pod that is held, no namespace that is stuck. Runs where
//! ARGOSY_REAL_KUBERNETES=1 is set and clusters can be started; otherwise says why not.

#[path = "kubernetes_losses/volumes.rs"]
mod volumes;

use anyhow::{Context, ensure};
use argosy_testcluster::{Cluster, Federation};
use argosy_tests::bad_days;
use argosy_tests::cell::{Cell, Options};
use argosy_tests::day::{Day, LIMIT, attempts, pods};
use argosy_tests::networks::{self, Network};
use argosy_tests::pods::{no_clusters, say};
use argosy_tests::replicas::{Replicas, Service};
use argosy_tests::scenarios::{self, CLUSTERS, LEASE, MEMBERS};
use nix::sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM};
use nix::unistd::Pid;
use serde_json::json;
use std::sync::Arc;

/// `ARGOSY_NETWORKS=cut,agent` runs only scenarios whose names begin so.
#[test]
#[ignore = "takes some minutes: make test-full"]
fn whatever_three_real_clusters_lose_each_result_is_committed_once() -> anyhow::Result<()> {
    if let Some(reason) = no_clusters().or_else(networks::unavailable) {
        println!("SKIPPED: {reason}");
        return Ok(());
    }
    let federation = Federation::start()?;
    let clusters = federation.start_clusters(&CLUSTERS)?;
    say("three clusters");
    let network = Arc::new(Network::over(&federation, 3, &clusters.iter().collect::<Vec<_>>())?);
    federation.block_on(|| all(network, clusters))?
}

async fn all(network: Arc<Network>, clusters: Vec<Cluster>) -> anyhow::Result<()> {
    let options = Options {
        lease_ms: u64::try_from(LEASE.as_millis())?,
        // What runs stays where it is while its API server is away; what waits leaves.
        degraded_after_ms: Some(15_000),
        network: Some(Arc::clone(&network)),
        ..Options::default()
    };
    let mut cell = Cell::start(&options).await?;
    for cluster in clusters {
        let name = cluster.name.clone();
        cell.kubernetes.insert(name.clone(), Arc::new(cluster));
        cell.start_agent(&name).await?;
    }
    cell.wait_for_clusters(CLUSTERS.len()).await?;
    say("three agents enrolled");
    bad_days!(
        &mut cell,
        &network,
        api_server_killed,
        api_server_paused,
        executor_killed,
        scenarios::agent_killed,
        scenarios::agent_paused_past_its_lease,
        scenarios::cut_both_ways,
        scenarios::cut_from_agent_to_members,
        scenarios::cut_from_members_to_agent,
        scenarios::leader_cut_off_from_members,
        scenarios::leader_cut_off_from_agents,
        scenarios::leader_paused_while_steps_are_taken_over,
        scenarios::clocks_are_wrong,
        scenarios::links_are_slow_and_lose_packets,
        scenarios::control_plane_gone_for_longer_than_any_lease,
    );
    for (name, case) in [
        ("namespace_deleted", Namespace::WithMembers),
        ("namespace_deleted_without_members", Namespace::WithoutMembers),
        ("namespace_deleted_with_results_untold", Namespace::ResultsUntold),
    ] {
        if scenarios::is_wanted(name) {
            namespace_deleted(&mut cell, &name.replace('_', "-"), case).await.context(name)?;
            say(name);
        }
    }
    if scenarios::is_wanted("waiting_step_leaves") {
        waiting_step_leaves(&mut cell).await.context("waiting_step_leaves")?;
        say("waiting-step-leaves");
    }
    if scenarios::is_wanted("two_replicas") {
        two_replicas(&mut cell).await.context("two_replicas")?;
        say("two-replicas");
    }
    if scenarios::is_wanted("cluster_gone_for_good") {
        cluster_gone_for_good(&mut cell).await.context("cluster_gone_for_good")?;
        say("cluster-gone-for-good");
    }
    Ok(())
}

fn real(cell: &Cell, cluster: &str) -> anyhow::Result<Arc<Cluster>> {
    cell.kubernetes.get(cluster).cloned().context("a real cluster")
}

/// What the cluster's API server does is known, and steps that come meanwhile run elsewhere.
async fn degraded(cell: &Cell, day: &Day) -> anyhow::Result<()> {
    cell.until(LIMIT, "the cluster to be degraded", async || {
        let cluster = cell.get(&format!("/api/v1/clusters/{}", day.cluster)).await.ok()?;
        (cluster["state"] == "degraded").then_some(())
    })
    .await?;
    day.goes_on(cell).await
}

/// Its Pods run on and end meanwhile; the agent hears of it when there is an API server again.
async fn api_server_killed(cell: &mut Cell, _: &Network, day: &Day) -> anyhow::Result<()> {
    let cluster = real(cell, &day.cluster)?;
    cluster.kill_api_server()?;
    degraded(cell, day).await?;
    day.let_go()?;
    day.all_ended(cell).await?;
    cluster.start_api_server()?;
    day.nothing_moved()
}

async fn api_server_paused(cell: &mut Cell, _: &Network, day: &Day) -> anyhow::Result<()> {
    let cluster = real(cell, &day.cluster)?;
    cluster.signal_api_server(SIGSTOP)?;
    degraded(cell, day).await?;
    tokio::time::sleep(2 * LEASE).await;
    day.let_go()?;
    day.all_ended(cell).await?;
    cluster.signal_api_server(SIGCONT)?;
    day.nothing_moved()
}

/// Its command dies with it; the step is tried again.
async fn executor_killed(cell: &mut Cell, _: &Network, day: &Day) -> anyhow::Result<()> {
    let executor = day.exclusive_processes().into_iter().find(|pid| is_first_of_container(*pid));
    let executor = executor.context("the executor of the exclusive step")?;
    nix::sys::signal::kill(Pid::from_raw(executor), SIGKILL)?;
    day.taken_over(cell).await
}

fn is_first_of_container(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
}

/// When the namespace of a day is deleted.
#[derive(Clone, Copy, PartialEq)]
enum Namespace {
    /// While its steps run.
    WithMembers,
    /// While its steps run, and no member does.
    WithoutMembers,
    /// When its steps have ended, and no member was there to be told.
    ResultsUntold,
}

/// The namespace of a day is deleted in every cluster, which may not take for ever.
async fn namespace_deleted(cell: &mut Cell, name: &str, case: Namespace) -> anyhow::Result<()> {
    let day = Day::begin(cell, name).await?;
    if case != Namespace::WithMembers {
        MEMBERS.into_iter().for_each(|member| cell.kill_member(member));
    }
    if case == Namespace::ResultsUntold {
        day.let_go()?;
        day.all_ended(cell).await?;
        // What is written last has not ended yet.
        day.no_process_is_left(cell).await?;
    }
    day.delete_namespace(cell)?;
    if case != Namespace::WithMembers {
        for member in MEMBERS {
            cell.start_member(member)?;
        }
        cell.leader().await?;
        cell.wait_for_clusters(CLUSTERS.len()).await?;
    }
    let safe = format!("safe-{name}");
    if case == Namespace::ResultsUntold {
        let ended = cell.finished_in(day.namespace(), &safe, LIMIT).await?;
        ensure!(ended["status"]["phase"] == "Succeeded", "a result is lost: {}", ended["status"]);
        ensure!(day.runs_of_safe_steps() == 3, "a step ran twice");
    }
    // Pods that were deleted end their steps. Another try waits for the namespace, if it is not there by then.
    for workflow in [&safe, &format!("alone-{name}")] {
        cell.try_argosy(&["terminate", workflow, "-n", day.namespace()])?;
        let ended = cell.finished_in(day.namespace(), workflow, LIMIT).await?;
        let succeeded = ended["status"]["phase"] == "Succeeded";
        ensure!(!succeeded || case == Namespace::ResultsUntold, "{}", ended["status"]);
    }
    day.nothing_is_left_behind(cell).await
}

/// A Pod waits for a host when its cluster's API server dies: its step runs elsewhere, and never there, although there is a
/// host by the time when there is an API server again. Then the Pod ends.
async fn waiting_step_leaves(cell: &mut Cell) -> anyhow::Result<()> {
    let [home, others @ ..] = CLUSTERS;
    let cluster = real(cell, home)?;
    for other in others {
        real(cell, other)?.kubectl(&["label", "nodes", "--all", "day=fits"])?;
        cell.argosy(&["cluster", "cordon", other])?;
    }
    let records = tempfile::tempdir_in(cell.directory.path())?;
    let write = format!("echo $ARGOSY_FENCE >> {}/runs", records.path().display());
    let leaf = json!({"name": "main", "nodeSelector": {"day": "fits"}, "container": {"image": "busybox",
        "command": ["sh", "-c"], "args": [write], "imagePullPolicy": "IfNotPresent",
        "volumeMounts": [{"name": "records", "mountPath": records.path()}]}});
    let workflow = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"name": "waits-for-a-host"}, "spec": {"entrypoint": "main", "templates": [leaf],
        "volumes": [{"name": "records", "hostPath": {"path": records.path(), "type": "Directory"}}]}});
    cell.submit(&workflow).await?;
    let shown = || cluster.kubectl(&["get", "pods", "-o", "name"]).unwrap_or_default();
    cell.until(LIMIT, "its Pod", async || shown().contains("waits-for-a-host").then_some(())).await?;
    for other in others {
        cell.argosy(&["cluster", "uncordon", other])?;
    }
    cluster.kill_api_server()?;
    let ended = cell.finished("waits-for-a-host", LIMIT).await?;
    ensure!(ended["status"]["phase"] == "Succeeded", "{}", ended["status"]);
    let attempts = attempts(pods(&ended).first().context("a Pod")?);
    let phases: Vec<_> = attempts.iter().map(|one| (&one["cluster"], &one["permit"])).collect();
    ensure!(phases[0] == (&json!(home), &json!("none")) && phases.len() == 2, "{attempts:?}");
    cluster.start_api_server()?;
    say("an API server again");
    cluster.kubectl(&["label", "nodes", "--all", "day=fits"])?;
    cell.until(LIMIT, "the Pod that waited to go or end", async || {
        let active =
            ["get", "pods", "-o", "name", "--field-selector", "status.phase!=Failed,status.phase!=Succeeded"];
        cluster.kubectl(&active).ok()?.trim().is_empty().then_some(())
    })
    .await?;
    let runs = std::fs::read_to_string(records.path().join("runs"))?;
    ensure!(runs.lines().count() == 1, "it ran {runs:?}");
    cell.wait_for_clusters(CLUSTERS.len()).await
}

/// The replica that acts is killed, then the other one is stopped past its Lease and resumed.
async fn two_replicas(cell: &mut Cell) -> anyhow::Result<()> {
    let home = CLUSTERS[0];
    let cluster = real(cell, home)?;
    cell.kill_agent(home);
    let _service = Service::start(Arc::clone(&cluster));
    let mut replicas = Replicas::new(cell, &cluster)?;
    replicas.start(0).await?;
    replicas.until(0, true).await?;
    replicas.start(1).await?;
    replicas.until(1, false).await?;
    cell.wait_for_clusters(CLUSTERS.len()).await?;
    let day = Day::begin_in(cell, "replicas", home).await?;
    replicas.signal(0, SIGKILL)?;
    replicas.ends(0).await?;
    replicas.until(1, true).await?;
    replicas.start(0).await?;
    replicas.until(0, false).await?;
    replicas.signal(1, SIGSTOP)?;
    replicas.until(0, true).await?;
    replicas.signal(1, SIGCONT)?;
    ensure!(!replicas.ends(1).await?, "a replica that lost its Lease ends, and not well");
    cell.wait_for_clusters(CLUSTERS.len()).await?;
    day.end(cell).await?;
    replicas.signal(0, SIGTERM)?;
    ensure!(replicas.ends(0).await?, "a replica that is asked to ends well");
    cell.start_agent(home).await?;
    cell.wait_for_clusters(CLUSTERS.len()).await
}

/// Hosts, API server and agent. What ran there runs elsewhere, but for steps whose group had its volume there, and the
/// cluster is forgotten.
async fn cluster_gone_for_good(cell: &mut Cell) -> anyhow::Result<()> {
    let [home, others @ ..] = CLUSTERS;
    for cluster in cell.kubernetes.values() {
        volumes::make(cluster)?;
    }
    for other in others {
        cell.argosy(&["cluster", "cordon", other])?;
    }
    let day = Day::begin(cell, "gone").await?;
    let volumes = volumes::Groups::begin(cell, &day.directory()).await?;
    for other in others {
        cell.argosy(&["cluster", "uncordon", other])?;
    }
    let lost = cell.kubernetes.remove(home).context("a real cluster")?;
    cell.lose_cluster(home);
    lost.delete()?;
    day.taken_over(cell).await?;
    volumes.one_begins_again(cell).await?;
    cell.argosy(&["cluster", "remove", home, "--forget"])?;
    day.let_go()?;
    volumes.end(cell).await?;
    day.end(cell).await
}
