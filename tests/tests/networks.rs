//! Bad days of a cell whose members and clusters each have a network of their own: links cut in one direction and in both,
//! agents and members killed and frozen, clocks that are wrong, links that lose packets, a control plane that is gone for
//! longer than any lease. After each: one committed result per node, exclusive steps that never overlapped by what they
//! wrote themselves, no process left behind, and the workflows are over.

use anyhow::Context;
use argosy_tests::bad_days;
use argosy_tests::cell::{Cell, Options};
use argosy_tests::networks::{self, Network};
use argosy_tests::scenarios::{self, CLUSTERS, LEASE};
use std::sync::Arc;

/// `ARGOSY_NETWORKS=cut,agent` runs only scenarios whose names begin so.
#[test]
fn whatever_happens_to_the_network_each_result_is_committed_once() -> anyhow::Result<()> {
    if let Some(reason) = networks::unavailable() {
        println!("SKIPPED: {reason}");
        return Ok(());
    }
    let network = Arc::new(Network::start(3, &CLUSTERS)?);
    network.block_on(|| all(Arc::clone(&network)))
}

async fn all(network: Arc<Network>) -> anyhow::Result<()> {
    let lease_ms = u64::try_from(LEASE.as_millis())?;
    let options = Options { lease_ms, network: Some(Arc::clone(&network)), ..Options::default() };
    let mut cell = Cell::start(&options).await?;
    for cluster in CLUSTERS {
        cell.start_agent(cluster).await?;
    }
    cell.wait_for_clusters(CLUSTERS.len()).await?;
    bad_days!(
        &mut cell,
        &network,
        scenarios::cut_both_ways,
        scenarios::cut_from_agent_to_members,
        scenarios::cut_from_members_to_agent,
        scenarios::agent_killed,
        scenarios::agent_paused_past_its_lease,
        scenarios::leader_cut_off_from_members,
        scenarios::leader_cut_off_from_agents,
        scenarios::leader_paused_while_steps_are_taken_over,
        scenarios::clocks_are_wrong,
        scenarios::links_are_slow_and_lose_packets,
        scenarios::control_plane_gone_for_longer_than_any_lease,
    );
    Ok(())
}
