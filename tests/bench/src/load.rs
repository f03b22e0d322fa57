//! A closed loop: so many clients, each with one request under way, over a few connections.

use crate::etcd::{KvClient, MaintenanceClient, PutRequest, StatusRequest};
use crate::figures::Measured;
use anyhow::Context;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// Connections that the clients share.
const CONNECTIONS_MAX: usize = 16;

/// Size and length of the load.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub clients: usize,
    pub value_bytes: usize,
    pub warm_up: Duration,
    pub span: Duration,
}

fn endpoint(address: SocketAddr) -> anyhow::Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true))
}

/// The address of the member that leads, once one does.
pub async fn leader(addresses: &[SocketAddr]) -> anyhow::Result<SocketAddr> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        for address in addresses {
            let Ok(channel) = endpoint(*address)?.connect().await else { continue };
            let status = MaintenanceClient::new(channel).status(StatusRequest {}).await;
            let Ok(status) = status.map(tonic::Response::into_inner) else { continue };
            let own = status.header.unwrap_or_default().member_id;
            if status.leader != 0 && status.leader == own {
                return Ok(*address);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("no leader within 30 s at {addresses:?}")
}

/// Puts as fast as the answers come.
pub async fn put(address: SocketAddr, shape: Shape) -> anyhow::Result<Measured> {
    let mut channels = Vec::new();
    for _ in 0..shape.clients.min(CONNECTIONS_MAX) {
        channels.push(endpoint(address)?.connect().await.with_context(|| format!("{address}"))?);
    }
    let (counting, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..shape.clients)
        .map(|number| {
            let client = KvClient::new(channels[number % channels.len()].clone());
            tokio::spawn(put_in_turn(client, number, shape.value_bytes, counting.clone(), over.clone()))
        })
        .collect();
    tokio::time::sleep(shape.warm_up).await;
    counting.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    tokio::time::sleep(shape.span).await;
    over.store(true, Ordering::Relaxed);
    let span = begun.elapsed();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    Ok(Measured::new(latencies, span))
}

async fn put_in_turn(
    mut client: KvClient<Channel>,
    number: usize,
    value_bytes: usize,
    counting: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let value = vec![b'v'; value_bytes];
    for turn in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("client-{number}/{:04}", turn % 1_000).into_bytes();
        let counts = counting.load(Ordering::Relaxed);
        let begun = Instant::now();
        client.put(PutRequest { key, value: value.clone() }).await?;
        if counts && !over.load(Ordering::Relaxed) {
            latencies.push(begun.elapsed());
        }
    }
    Ok(latencies)
}
