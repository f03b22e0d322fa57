//! etcd's messages, and an etcd of three members.

#[allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated code")]
mod generated {
    tonic::include_proto!("etcdserverpb");
}
pub use generated::kv_client::KvClient;
pub use generated::kv_server::{Kv, KvServer};
pub use generated::maintenance_client::MaintenanceClient;
pub use generated::maintenance_server::{Maintenance, MaintenanceServer};
pub use generated::{PutRequest, PutResponse, ResponseHeader, StatusRequest, StatusResponse};

use argosy_server::processes::Process;
use std::net::SocketAddr;
use std::path::Path;

/// Starts three members of etcd with its defaults (every commit is synced); gives them and their client addresses.
pub fn start(program: &Path, directory: &Path) -> anyhow::Result<(Vec<Process>, Vec<SocketAddr>)> {
    let mut clients = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..3 {
        clients.push(crate::cell::free_address()?);
        peers.push(crate::cell::free_address()?);
    }
    let cluster: Vec<String> =
        peers.iter().enumerate().map(|(at, peer)| format!("m{at}=http://{peer}")).collect();
    let cluster = cluster.join(",");
    let mut members = Vec::new();
    for (at, (client, peer)) in clients.iter().zip(&peers).enumerate() {
        let arguments = [
            format!("--name=m{at}"),
            format!("--data-dir={}", directory.join(format!("etcd-{at}")).display()),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster={cluster}"),
            "--initial-cluster-state=new".to_owned(),
            "--log-level=error".to_owned(),
        ];
        let log = directory.join(format!("etcd-{at}.log"));
        members.push(Process::start(&format!("etcd {at}"), program, &arguments, &log)?);
    }
    Ok((members, clients))
}
