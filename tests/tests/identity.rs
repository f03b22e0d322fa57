//! Who is who, with members and agents as processes: revoked, stolen, approved, and away for longer than a certificate holds.
#![allow(clippy::unwrap_used, reason = "a test")]

use anyhow::{Context, ensure};
use argosy_server::config::{FailoverConfig, IdentityConfig};
use argosy_tests::cell::{Cell, Options, binary};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(60);

fn short_lives(members: u64, certificate_life_ms: i64) -> Options {
    let identity = IdentityConfig { certificate_life_ms, ..IdentityConfig::default() };
    Options { members, identity, ..Options::default() }
}

async fn cell_with(options: &Options, clusters: &[&str]) -> anyhow::Result<Cell> {
    let mut cell = Cell::start(options).await?;
    for cluster in clusters {
        cell.start_agent(cluster).await?;
    }
    cell.wait_for_clusters(clusters.len()).await?;
    Ok(cell)
}

async fn cluster(cell: &Cell, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let path = format!("/api/v1/clusters/{name}");
    cell.until(WAIT, what, async || cell.get(&path).await.ok().filter(|cluster| is(cluster))).await
}

/// A step that runs until the file is there.
fn step(name: &str, end: &Path) -> Value {
    let script = format!("while [ ! -e {} ]; do sleep 0.1; done", end.display());
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [{
            "name": "main", "metadata": {"annotations": {"argosy.dev/idempotent": "true"}},
            "container": {"image": "busybox", "command": ["sh", "-c"], "args": [script]},
        }]},
    })
}

fn data(cell: &Cell, cluster: &str) -> PathBuf {
    cell.directory.path().join(format!("cluster-{cluster}"))
}

/// A copy of an agent's identity, as a thief would take it.
fn steal(cell: &Cell, cluster: &str) -> anyhow::Result<PathBuf> {
    let thief = cell.directory.path().join("thief");
    std::fs::create_dir_all(thief.join("identity"))?;
    for entry in std::fs::read_dir(data(cell, cluster).join("identity"))? {
        let path = entry?.path();
        std::fs::copy(&path, thief.join("identity").join(path.file_name().context("a file has a name")?))?;
    }
    // Of process clusters the uid is kept beside.
    std::fs::copy(data(cell, cluster).join("cluster-uid"), thief.join("cluster-uid"))?;
    Ok(thief)
}

/// The thief's agent, killed when it is dropped.
struct Thief(std::process::Child, PathBuf);

impl Thief {
    fn start(data: &Path) -> anyhow::Result<Self> {
        let log = data.join("log");
        let arguments = ["--runtime", "simulated", "--metrics-listen", "127.0.0.1:0", "--data-dir"];
        let child = Command::new(binary("argosy-agent")?)
            .args(arguments)
            .arg(data)
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()?;
        Ok(Self(child, log))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.1).unwrap_or_default()
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gives the running agent a new invite, as its operator would.
fn invite_again(cell: &Cell, name: &str) -> anyhow::Result<()> {
    let token = cell.argosy(&["cluster", "invite", name])?;
    std::fs::write(data(cell, name).join("invite"), token.lines().next().context("a token")?)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_is_out_at_once_and_in_again_with_a_new_invite() -> anyhow::Result<()> {
    let cell = cell_with(&Options::default(), &["east", "west"]).await?;
    let shared = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let end = shared.path().join("end");
    cell.argosy(&["cluster", "cordon", "west"])?;
    let name = cell.submit(&step("moves", &end)).await?;
    cluster(&cell, "east", "the step to run", |east| east["attempts"] == 1).await?;
    cell.argosy(&["cluster", "uncordon", "west"])?;
    let thief = steal(&cell, "east")?;
    let lease_ms = Options::default().lease_ms;
    let renew_every = FailoverConfig { lease_ms, ..FailoverConfig::default() }.times().renew_every_ms;

    let began = Instant::now();
    let text = cell.argosy(&["cluster", "revoke", "east", "--reason", "the host was sold"])?;
    ensure!(text.contains("cluster east revoked"), "{text}");
    let east = cluster(&cell, "east", "its session to end", |east| east["connected"] != true).await?;
    // The status is kept every 250 ms, the leader tells the others every second.
    let bound = Duration::from_millis(renew_every + 2_000);
    ensure!(began.elapsed() < bound, "{:?} for a heartbeat of {renew_every} ms", began.elapsed());
    assert_eq!(
        (&east["state"], &east["identity"]["reason"]),
        (&json!("revoked"), &json!("the host was sold"))
    );
    assert_eq!(east["identity"]["by"], "admin");
    // Its steps move as those of any lost cluster.
    cluster(&cell, "west", "the step to move", |west| west["attempts"] == 1).await?;
    // Whoever has its certificate does not get through a handshake, at no member.
    let thief = Thief::start(&thief)?;
    cell.until(WAIT, "the copy to be turned away", async || {
        thief.log().contains("CertificateRevoked").then_some(())
    })
    .await?;
    for member in cell.members.keys() {
        let start = "argosy_tls_refused_total{listener=\"agent\",reason=\"revoked\"}";
        cell.counted(*member, start, 1.0).await?;
    }

    invite_again(&cell, "east")?;
    let east = cluster(&cell, "east", "it to be back", |east| east["state"] == "connected").await?;
    assert_eq!(east["identity"]["standing"], "active");
    std::fs::write(&end, "")?;
    assert_eq!(cell.finished(&name, WAIT).await?["status"]["phase"], "Succeeded");
    ensure!(!thief.log().contains("in step"), "the copy has never been let in: {}", thief.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_key_used_twice_is_detected_locked_and_alarmed() -> anyhow::Result<()> {
    let cell = cell_with(&Options::default(), &["east"]).await?;
    let stolen = steal(&cell, "east")?;
    let thief = Thief::start(&stolen)?;
    let east = cluster(&cell, "east", "the identity to be locked", |east| east["state"] == "locked").await?;
    ensure!(east["identity"]["reason"].as_str().is_some_and(|why| why.contains("two processes")), "{east}");
    let leader = cell.leader().await?;
    cell.counted(leader, "argosy_identities{standing=\"locked\"}", 1.0).await?;
    cell.until(WAIT, "the alarm", async || {
        let logs = cell.members.keys().filter_map(|member| cell.log(*member).ok());
        logs.into_iter().any(|log| log.contains("ALARM: the identity of a cluster is locked")).then_some(())
    })
    .await?;
    cluster(&cell, "east", "both to be out", |east| east["connected"] != true).await?;
    // With a new key the agent is back, and the copy stays out.
    invite_again(&cell, "east")?;
    cluster(&cell, "east", "the agent to be back", |east| east["state"] == "connected").await?;
    drop(thief);
    let thief = Thief::start(&stolen)?;
    cell.until(WAIT, "the copy to stay out", async || {
        thief.log().contains("CertificateRevoked").then_some(())
    })
    .await?;
    assert_eq!(cell.get("/api/v1/clusters/east").await?["state"], "connected");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_over_the_session_and_outlive_outages_of_both_sides() -> anyhow::Result<()> {
    let life = Duration::from_secs(10);
    let mut cell = cell_with(&short_lives(1, 10_000), &["east"]).await?;
    let generation = |east: &Value| east["identity"]["generation"].as_u64().unwrap_or(0);
    let seen = |east: &Value| east["identity"]["inUse"] == true;
    let member = 1;
    let sessions = cell.count(member, "argosy_tls_refused_total").await?;
    cluster(&cell, "east", "three renewals", |east| generation(east) >= 4 && seen(east)).await?;
    let log = cell.log(member)?;
    ensure!(!log.contains("ALARM"), "{log}");
    assert_eq!(cell.count(member, "argosy_tls_refused_total").await? - sessions, 0.0);
    assert_eq!(log.matches("enrolled a cluster").count(), 1);

    // The whole control plane is away for longer than a certificate holds, while a step runs and ends.
    let shared = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let end = shared.path().join("end");
    let name = cell.submit(&step("through", &end)).await?;
    cluster(&cell, "east", "the step to run", |east| east["attempts"] == 1).await?;
    cell.kill_member(member);
    tokio::time::sleep(life + Duration::from_secs(2)).await;
    std::fs::write(&end, "")?;
    cell.start_member(member)?;
    assert_eq!(cell.finished(&name, WAIT).await?["status"]["phase"], "Succeeded", "its result was kept");

    // And the agent.
    cell.kill_agent("east");
    let before = generation(&cell.get("/api/v1/clusters/east").await?);
    tokio::time::sleep(life + Duration::from_secs(2)).await;
    cell.start_agent("east").await?;
    cluster(&cell, "east", "the agent to be back with a new certificate", |east| {
        east["connected"] == true && generation(east) > before && seen(east)
    })
    .await?;
    assert_eq!(cell.get("/api/v1/clusters/east").await?["identity"]["standing"], "active");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_not_used_before_it_is_approved() -> anyhow::Result<()> {
    let identity = IdentityConfig { approve_clusters: true, ..IdentityConfig::default() };
    let mut cell = Cell::start(&Options { members: 1, identity, ..Options::default() }).await?;
    cell.start_agent("east").await?;
    cluster(&cell, "east", "it to connect", |east| east["connected"] == true).await?;
    let shared = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let end = shared.path().join("end");
    std::fs::write(&end, "")?;
    let name = cell.submit(&step("waits", &end)).await?;
    let path = format!("/api/v1/workflows/default/{name}");
    cell.until(WAIT, "the step to say why it waits", async || {
        cell.get(&path).await.ok().filter(|workflow| workflow.to_string().contains("it is not approved yet"))
    })
    .await?;
    let text = cell.argosy(&["cluster", "list"])?;
    ensure!(text.contains("unapproved"), "{text}");
    cell.argosy(&["cluster", "approve", "east"])?;
    assert_eq!(cell.finished(&name, WAIT).await?["status"]["phase"], "Succeeded");
    let east = cell.get("/api/v1/clusters/east").await?;
    ensure!(east["clockOffsetMs"].as_i64().is_some_and(|offset| offset.abs() < 2_000), "{east}");
    assert_eq!(east["clockAlarm"], false);
    Ok(())
}

/// Starts workflows of one short step, one after the other, until it is told to end; how many.
async fn load(cell: &Cell, ends: &AtomicBool) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let leaf = json!({"name": "main", "container": {"image": "busybox", "command": ["sh", "-c"], "args": ["sleep 0.2"]}});
        let workflow = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "load-"},
            "spec": {"entrypoint": "main", "templates": [leaf]},
        });
        names.push(cell.submit(&workflow).await?);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(names)
}

/// Waits until `argosy ca roll --check` is content.
async fn nobody_is_behind(cell: &Cell) -> anyhow::Result<()> {
    let ready = "nobody needs the old one";
    cell.until(WAIT * 3, "everybody to have moved to the new authority", async || {
        cell.try_argosy(&["ca", "roll", "--check"]).ok().filter(|(well, text)| *well && text.contains(ready))
    })
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_rolled_three_times_under_load_and_nothing_is_lost() -> anyhow::Result<()> {
    // Certificates of one minute.
    let mut cell = cell_with(&short_lives(3, 60_000), &["east", "west"]).await?;
    let first = std::fs::read_to_string(cell.directory.path().join("pki").join("ca.pem"))?;
    let before = cell.argosy(&["ca", "roll", "--check"])?;
    ensure!(before.contains("no roll is under way"), "{before}");
    let mut names = Vec::new();
    for round in 1..=3 {
        let ends = AtomicBool::new(false);
        let roll = async {
            let begun = cell.argosy(&["ca", "roll"]);
            let rolled = match begun {
                Ok(_) => nobody_is_behind(&cell).await,
                Err(error) => Err(error),
            };
            ends.store(true, Ordering::Relaxed);
            rolled
        };
        let (rolled, load) = tokio::join!(roll, load(&cell, &ends));
        rolled.with_context(|| format!("roll {round}"))?;
        names.extend(load?);
        let (well, text) = cell.try_argosy(&["ca", "roll"])?;
        ensure!(!well && text.contains("under way"), "{text}");
        cell.argosy(&["ca", "roll", "--finish"])?;
        for directory in ["pki", "pki-2", "pki-3"] {
            let path = cell.directory.path().join(directory).join("ca.pem");
            cell.until(WAIT, "the old authority to be dropped", async || {
                let text = std::fs::read_to_string(&path).ok()?;
                (text.matches("BEGIN CERTIFICATE").count() == 1).then_some(())
            })
            .await?;
        }
        cell.trust_again()?;
        cell.until(WAIT, "the API to be served from the new authority", async || {
            cell.get("/api/v1/clusters").await.ok()
        })
        .await?;
    }
    ensure!(std::fs::read_to_string(cell.directory.path().join("pki").join("ca.pem"))? != first);
    ensure!(names.len() > 50, "{} workflows", names.len());
    for name in &names {
        assert_eq!(cell.finished(name, WAIT).await?["status"]["phase"], "Succeeded", "{name}");
    }
    // The two members that were not asked to make a key had it from the one that was, each time.
    let mut fetched = 0;
    for member in cell.members.keys() {
        fetched += cell.log(*member)?.matches("took the key of the next certificate authority").count();
    }
    assert_eq!(fetched, 6);
    // Nobody came back because of it: one session for each cluster, one enrolment, no step elsewhere.
    for cluster in ["east", "west"] {
        let log = cell.cluster_log(cluster)?;
        assert_eq!(log.matches("in step with the control plane").count(), 1, "{log}");
    }
    for member in cell.members.keys() {
        assert_eq!(cell.count(*member, "argosy_takeovers_total").await?, 0.0);
        assert_eq!(cell.count(*member, "argosy_agent_frames_refused_total").await?, 0.0);
    }
    // A member and an agent that start from their files alone.
    cell.kill_member(2);
    cell.start_member(2)?;
    cell.kill_agent("west");
    cell.start_agent("west").await?;
    cell.wait_for_clusters(2).await?;
    let path = cell.api(2) + "/api/v1/clusters";
    cell.until(WAIT, "the member to serve", async || {
        let answer = cell.http.get(&path).bearer_auth(argosy_tests::cell::TOKEN).send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await?;
    Ok(())
}
