//! Access to a cluster, and its identity.

use crate::runtime::TOO_MANY_REQUESTS;
use crate::transport::BoundedLayer;
use argosy_agent_runtime::Error;
use k8s_openapi::api::core::v1::{Namespace, Node, Secret};
use kube::api::ListParams;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// How long an API server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits before the API server is asked again.
const ASK_AGAIN_FIRST: Duration = Duration::from_millis(500);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10);
const FORBIDDEN: u16 = 403;
/// Any port does: a datagram socket that is connected sends nothing.
const DISCARD_PORT: u16 = 9;
const HOSTS_LOOKED_AT: u32 = 10;
/// The namespace whose uid stands for its cluster: every cluster has it, and it is never made anew.
const IDENTITY_NAMESPACE: &str = "kube-system";

/// A client by kubeconfig file and context; without both by the Pod's service account, or the user's own kubeconfig.
///
/// # Errors
/// [`Error::Setup`] when there is no usable access.
pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Client, Error> {
    let mut config = match (kubeconfig, context) {
        (None, None) => Config::infer().await.map_err(|error| setup("the cluster's access", &error))?,
        (file, context) => of_kubeconfig(file, context).await?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Tries again for minutes, and in silence; here every action is repeated by who wants it.
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config).map_err(|error| setup("the cluster's access", &error))?;
    Ok(builder.with_layer(&BoundedLayer).build())
}

async fn of_kubeconfig(file: Option<&Path>, context: Option<&str>) -> Result<Config, Error> {
    let place = file.map_or_else(|| "the kubeconfig".to_owned(), |file| file.display().to_string());
    let read = file.map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    let read = read.map_err(|error| setup(&place, &error))?;
    if let Some(wanted) = context
        && !read.contexts.iter().any(|known| known.name == wanted)
    {
        let known: Vec<&str> = read.contexts.iter().map(|known| known.name.as_str()).collect();
        return Err(Error::Setup(format!("{place} has no context {wanted:?}; it has {}", known.join(", "))));
    }
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(read, &options).await.map_err(|error| setup(&place, &error))
}

/// The address of this machine that the cluster's hosts, and so its Pods, can most likely reach: the one that packets to
/// a host leave from. Nothing is sent.
///
/// # Errors
/// [`Error::Setup`] when the hosts can't be listed, or this machine has no way to one.
pub async fn address_towards_hosts(client: &Client) -> Result<IpAddr, Error> {
    let hosts: Api<Node> = Api::all(client.clone());
    let hosts = hosts.list(&ListParams::default().limit(HOSTS_LOOKED_AT)).await;
    let hosts = hosts.map_err(|error| setup("the cluster's hosts", &error))?;
    let addresses = hosts.items.into_iter().filter_map(|host| host.status?.addresses).flatten();
    let internal = addresses.filter(|address| address.type_ == "InternalIP");
    let towards = internal.filter_map(|address| local_address(address.address.parse().ok()?));
    let found = towards.into_iter().find(|address| !address.is_loopback());
    found.ok_or_else(|| Error::Setup("no host of the cluster can be reached from this machine".to_owned()))
}

/// Where packets to a host would leave from.
fn local_address(host: IpAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if host.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((host, DISCARD_PORT)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// The uid that tells this cluster from every other: of kube-system, or of the given namespace where that may not be read. An API server that does not answer, or is not able to, is asked again: an
/// agent that starts while it is away waits for it.
///
/// # Errors
/// [`Error::Setup`] when the API server refuses it.
pub async fn cluster_uid(client: &Client, instead: Option<&str>) -> Result<String, Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut wait = ASK_AGAIN_FIRST;
    let mut name = IDENTITY_NAMESPACE;
    let found = loop {
        match namespaces.get(name).await {
            Ok(found) => break found,
            Err(kube::Error::Api(status))
                if status.code == FORBIDDEN && instead.is_some_and(|it| it != name) =>
            {
                name = instead.unwrap_or(name);
                continue;
            }
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != TOO_MANY_REQUESTS => {
                let error = kube::Error::Api(status);
                return Err(setup(&format!("the cluster's identity (uid of namespace {name})"), &error));
            }
            Err(error) => {
                tracing::warn!(%error, "the cluster's API does not tell its identity; it is asked again")
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(ASK_AGAIN_MAX);
    };
    found.metadata.uid.ok_or_else(|| Error::Setup(format!("namespace {name} has no uid")))
}

/// The namespace of the Pod that this process runs in; empty outside a cluster.
#[must_use]
pub fn own_namespace() -> String {
    let file = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
    std::fs::read_to_string(file).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn setup(what: &str, error: &dyn std::error::Error) -> Error {
    let mut text = format!("{what} cannot be used: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Error::Setup(text)
}

/// A key of a Secret as text; `None` when one of them is not there.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Option<String>, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = secrets.get_opt(name).await.map_err(|error| Error::Setup(error.to_string()))?;
    let value = found.and_then(|secret| secret.data?.remove(key));
    Ok(value.and_then(|value| String::from_utf8(value.0).ok()))
}
