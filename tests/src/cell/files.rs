//! What a cell's processes read before they start: addresses, authorities, configurations.

use super::Options;
use crate::networks::member_place;
use anyhow::bail;
use argosy_server::config::{
    ApiConfig, ConsensusConfig, FailoverConfig, Listen, MemberAddresses, ServerConfig,
};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below those that the kernel gives to outgoing connections: nobody takes a port between its choice and the start of
/// its member, or while that member is down.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

pub(super) fn free_address(address: Ipv4Addr) -> anyhow::Result<SocketAddr> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    for _ in PORTS {
        // Test processes that run side by side begin at different places.
        let next = std::process::id().wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + next % count)?;
        if let Ok(listener) = TcpListener::bind((address, port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port of {PORTS:?} is free on {address}")
}

/// Logs outlive the test where the runner asks for it.
pub(super) fn log_directory(cell: &Path) -> PathBuf {
    let name = cell.file_name().unwrap_or_default();
    let directory = match std::env::var_os("ARGOSY_TEST_LOGS") {
        Some(logs) => PathBuf::from(logs).join(name),
        None => cell.join("logs"),
    };
    let _ = std::fs::create_dir_all(&directory);
    directory
}

pub(super) fn addresses_of(listen: &Listen) -> MemberAddresses {
    MemberAddresses {
        peer: listen.peer.to_string(),
        agent: listen.agent.to_string(),
        api: listen.api.to_string(),
    }
}

/// Each member has its own, as on machines of their own; what the tests read is the first one's.
pub(super) fn pki_directory(cell: &Path, member: u64) -> PathBuf {
    if member == 1 { cell.join("pki") } else { cell.join(format!("pki-{member}")) }
}

/// Gives each member its copy of the cell's authority, as its operator does.
pub(super) fn hand_out_authority(cell: &Path, members: u64) -> anyhow::Result<()> {
    for member in 2..=members {
        let own = pki_directory(cell, member);
        std::fs::create_dir_all(&own)?;
        for name in ["ca.pem", "ca.key"] {
            std::fs::copy(cell.join("pki").join(name), own.join(name))?;
        }
    }
    Ok(())
}

pub(super) fn configurations(options: &Options, path: &Path) -> anyhow::Result<BTreeMap<u64, ServerConfig>> {
    let mut listens = BTreeMap::new();
    for member in 1..=options.members {
        let listen = match &options.network {
            Some(network) => {
                let address = network.address(&member_place(member))?;
                let at = |port| SocketAddr::from((address, port));
                Listen { api: at(7_001), agent: at(7_002), peer: at(7_003), metrics: at(7_004) }
            }
            None => {
                let free = || free_address(options.address);
                Listen { api: free()?, agent: free()?, peer: free()?, metrics: free()? }
            }
        };
        listens.insert(member, listen);
    }
    let members: BTreeMap<_, _> =
        listens.iter().map(|(member, listen)| (*member, addresses_of(listen))).collect();
    let mut configs = BTreeMap::new();
    for (member, listen) in listens {
        let config = ServerConfig {
            drills: argosy_server::config::DrillConfig::default(),
            retention: argosy_server::config::RetentionConfig::default(),
            cron: argosy_server::config::CronConfig::default(),
            cell: "test".to_owned(),
            member,
            data_dir: path.join(format!("member-{member}")),
            pki_dir: pki_directory(path, member),
            ca_seal: None,
            members: members.clone(),
            join: false,
            workflow_defaults: None,
            listen,
            api: ApiConfig { tokens_file: Some(path.join("tokens.json")), ..ApiConfig::default() },
            failover: FailoverConfig {
                lease_ms: options.lease_ms,
                margin_ms: options.margin_ms.unwrap_or(options.lease_ms / 3),
                takeover_after_unsafe_ms: options.takeover_after_unsafe_ms,
                degraded_after_ms: options
                    .degraded_after_ms
                    .unwrap_or(FailoverConfig::default().degraded_after_ms),
                ..FailoverConfig::default()
            },
            consensus: ConsensusConfig {
                log_entries_kept: options.log_entries_kept,
                ..options.consensus.clone()
            },
            identity: options.identity.clone(),
            artifact_repository: options.artifact_repository.clone(),
            artifact_sweep_after_ms: options.artifact_sweep_after_ms,
            reproductions: options.reproductions.clone(),
        };
        std::fs::write(path.join(format!("member-{member}.yaml")), serde_yaml::to_string(&config)?)?;
        configs.insert(member, config);
    }
    Ok(configs)
}
