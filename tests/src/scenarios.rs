//! Bad days of three clusters under three members, each in a network of its own: what is broken, and what has to be seen
//! while it is. What has to be true afterwards is [`Day::end`]'s.

#![expect(clippy::missing_errors_doc, reason = "what a scenario says went otherwise is its error")]

use crate::cell::{Cell, TOKEN};
use crate::day::{Day, LIMIT};
use crate::networks::{Network, member_place};
use anyhow::{Context, ensure};
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The clusters.
pub const CLUSTERS: [&str; 3] = ["east", "west", "north"];
/// The members.
pub const MEMBERS: [u64; 3] = [1, 2, 3];
/// Of the agents.
pub const LEASE: Duration = Duration::from_secs(3);
/// Of steps that must not overlap, as their templates say.
const EXCLUSIVE_LEASE: Duration = Duration::from_secs(5);

/// Whether a scenario is to be run: `ARGOSY_NETWORKS=cut,agent` runs those whose names begin so; without it all are.
#[must_use]
pub fn is_wanted(name: &str) -> bool {
    let wanted = std::env::var("ARGOSY_NETWORKS").unwrap_or_default();
    wanted.split(',').any(|start| name.starts_with(start))
}

/// Begins a day, breaks something, mends it, ends the day and says how long it all took.
#[macro_export]
macro_rules! bad_days {
    ($cell:expr, $network:expr, $($scenario:path),+ $(,)?) => {$({
        let name = stringify!($scenario).rsplit("::").next().unwrap_or_default().trim();
        if $crate::scenarios::is_wanted(name) {
            let began = std::time::Instant::now();
            let day = $crate::day::Day::begin($cell, &name.replace('_', "-")).await.context(name)?;
            $scenario($cell, $network, &day).await.context(name)?;
            $network.heal()?;
            day.end($cell).await.context(name)?;
            println!("{name}: {:.1} s", began.elapsed().as_secs_f64());
        }
    })+};
}

/// Nothing passes between a cluster and everybody else.
pub async fn cut_both_ways(cell: &mut Cell, network: &Network, day: &Day) -> anyhow::Result<()> {
    network.cut(&day.cluster)?;
    day.taken_over(cell).await
}

/// Members hear nothing of a cluster that hears them.
pub async fn cut_from_agent_to_members(cell: &mut Cell, network: &Network, day: &Day) -> anyhow::Result<()> {
    for member in MEMBERS {
        network.silence(&day.cluster, &member_place(member))?;
    }
    day.taken_over(cell).await
}

/// A cluster hears nothing of members that hear it.
pub async fn cut_from_members_to_agent(cell: &mut Cell, network: &Network, day: &Day) -> anyhow::Result<()> {
    for member in MEMBERS {
        network.silence(&member_place(member), &day.cluster)?;
    }
    day.taken_over(cell).await
}

/// Its steps run on without it, until they are taken over.
pub async fn agent_killed(cell: &mut Cell, _: &Network, day: &Day) -> anyhow::Result<()> {
    cell.kill_agent(&day.cluster);
    day.taken_over(cell).await?;
    cell.start_agent(&day.cluster).await
}

/// It believes that its lease lives when it wakes.
pub async fn agent_paused_past_its_lease(cell: &mut Cell, _: &Network, day: &Day) -> anyhow::Result<()> {
    cell.signal_agent(&day.cluster, SIGSTOP)?;
    day.taken_over(cell).await?;
    cell.signal_agent(&day.cluster, SIGCONT)
}

/// Agents and users still reach it. The others elect another one, and what they promise is kept.
pub async fn leader_cut_off_from_members(
    cell: &mut Cell,
    network: &Network,
    day: &Day,
) -> anyhow::Result<()> {
    let old = cell.leader().await?;
    for other in MEMBERS.into_iter().filter(|member| *member != old) {
        network.silence(&member_place(old), &member_place(other))?;
        network.silence(&member_place(other), &member_place(old))?;
    }
    another_leader(cell, old).await?;
    cell.wait_for_clusters(cell.agents.len()).await?;
    day.goes_on(cell).await
}

/// Members reach each other; every cluster has lost the leader and has to go by another member.
pub async fn leader_cut_off_from_agents(cell: &mut Cell, network: &Network, day: &Day) -> anyhow::Result<()> {
    let leader = member_place(cell.leader().await?);
    for cluster in cell.agents.keys() {
        network.silence(cluster, &leader)?;
        network.silence(&leader, cluster)?;
    }
    // Until their streams are found out to be dead, clusters count as connected.
    tokio::time::sleep(2 * LEASE).await;
    cell.wait_for_clusters(cell.agents.len()).await?;
    day.goes_on(cell).await
}

/// It believes that it leads when it wakes, and that a cluster has what others have by now.
pub async fn leader_paused_while_steps_are_taken_over(
    cell: &mut Cell,
    network: &Network,
    day: &Day,
) -> anyhow::Result<()> {
    let old = cell.leader().await?;
    cell.signal_member(old, SIGSTOP)?;
    network.cut(&day.cluster)?;
    another_leader(cell, old).await?;
    let taken = day.taken_over(cell).await;
    cell.signal_member(old, SIGCONT)?;
    taken
}

/// The cluster's wall clock is ten minutes ahead, that of one of the followers twenty. Leases are counted by clocks that
/// nobody sets.
pub async fn clocks_are_wrong(cell: &mut Cell, network: &Network, day: &Day) -> anyhow::Result<()> {
    let wrong = wrong_clock(&day.directory())?;
    let leader = cell.leader().await?;
    let follower = MEMBERS.into_iter().find(|member| *member != leader).context("a follower")?;
    let offset = |seconds: u64| {
        let library = wrong.display().to_string();
        let seconds = ("ARGOSY_TEST_CLOCK_AHEAD_SECONDS".to_owned(), seconds.to_string());
        vec![("LD_PRELOAD".to_owned(), library), seconds]
    };
    network.set_environment(&day.cluster, offset(600));
    network.set_environment(&member_place(follower), offset(1_200));
    cell.kill_agent(&day.cluster);
    cell.kill_member(follower);
    cell.start_agent(&day.cluster).await?;
    cell.start_member(follower)?;
    let ahead = cell
        .until(LIMIT, "the agent's clock to be known as wrong", async || {
            let cluster = cell.get(&format!("/api/v1/clusters/{}", day.cluster)).await.ok()?;
            let offset = cluster["clockOffsetMs"].as_i64()?;
            (offset.abs() > 500_000).then_some(offset)
        })
        .await?;
    println!("the clock of {} is off by {ahead} ms", day.cluster);
    network.cut(&day.cluster)?;
    day.taken_over(cell).await?;
    for place in [day.cluster.clone(), member_place(follower)] {
        network.set_environment(&place, Vec::new());
    }
    cell.kill_agent(&day.cluster);
    cell.kill_member(follower);
    network.join(&day.cluster)?;
    cell.start_member(follower)?;
    cell.start_agent(&day.cluster).await
}

/// Of every cluster.
pub async fn links_are_slow_and_lose_packets(
    cell: &mut Cell,
    network: &Network,
    day: &Day,
) -> anyhow::Result<()> {
    for cluster in cell.agents.keys() {
        network.worsen(cluster, 10, 512)?;
    }
    // Leases are renewed over such links for a while.
    tokio::time::sleep(2 * LEASE).await;
    day.goes_on(cell).await
}

/// Nothing expires meanwhile but exclusive steps, which end themselves.
pub async fn control_plane_gone_for_longer_than_any_lease(
    cell: &mut Cell,
    _: &Network,
    day: &Day,
) -> anyhow::Result<()> {
    let before = day.runs_of_safe_steps();
    MEMBERS.into_iter().for_each(|member| cell.kill_member(member));
    tokio::time::sleep(2 * (LEASE + EXCLUSIVE_LEASE)).await;
    for member in MEMBERS {
        cell.start_member(member)?;
    }
    cell.leader().await?;
    cell.wait_for_clusters(cell.agents.len()).await?;
    day.taken_over(cell).await?;
    ensure!(day.runs_of_safe_steps() == before, "an outage of the control plane moved steps");
    Ok(())
}

async fn another_leader(cell: &Cell, old: u64) -> anyhow::Result<()> {
    cell.until(LIMIT, "another leader", async || {
        // The old one may still take itself for the leader.
        for member in MEMBERS.into_iter().filter(|member| *member != old) {
            let url = format!("{}/api/v1/members", cell.api(member));
            let request = cell.http.get(url).bearer_auth(TOKEN);
            let Ok(answer) = request.timeout(Duration::from_secs(2)).send().await else { continue };
            let Ok(members) = answer.json::<serde_json::Value>().await else { continue };
            let mut items = members["items"].as_array().into_iter().flatten();
            if items.any(|item| item["role"] == "leader" && item["id"].as_u64() != Some(old)) {
                return Some(());
            }
        }
        None
    })
    .await
}

/// A library that puts the wall clock of the programs that load it ahead: nothing in the product can be switched so.
fn wrong_clock(directory: &Path) -> anyhow::Result<PathBuf> {
    let library = directory.join("wrong-clock.so");
    let mut compiler = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-x", "c", "-", "-o"])
        .arg(&library)
        .stdin(Stdio::piped())
        .spawn()?;
    let source = include_bytes!("wrong_clock.c");
    compiler.stdin.take().context("a pipe")?.write_all(source)?;
    ensure!(compiler.wait()?.success(), "the clock's library can't be compiled");
    Ok(library)
}
