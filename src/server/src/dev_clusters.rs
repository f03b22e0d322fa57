//! Clusters of `argosy dev`: of plain processes, or those of the user's own kubeconfig.

use crate::dev::DevArguments;
use anyhow::{Context, bail, ensure};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

/// Names of the process clusters.
const CLUSTER_NAMES: [&str; 9] =
    ["east", "west", "north", "south", "alpha", "beta", "gamma", "delta", "omega"];
/// Process clusters where no others are named.
const PROCESS_CLUSTERS: usize = 3;
/// Longest name of a cluster.
const NAME_BYTES_MAX: usize = 63;

/// A cluster that the cell begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DevCluster {
    pub name: String,
    /// Its context; none for a cluster of processes.
    pub context: Option<String>,
    /// Where its agent serves executors.
    executors: SocketAddr,
}

/// Clusters, and the address of this machine that all of them can reach.
#[derive(Debug)]
pub(crate) struct DevClusters {
    pub all: Vec<DevCluster>,
    pub address: IpAddr,
}

/// The clusters that the arguments ask for.
///
/// # Errors
/// Contexts that can't be used or told apart, or no address that they all reach.
pub(crate) fn choose(arguments: &DevArguments, first_port: u16) -> anyhow::Result<DevClusters> {
    let contexts = &arguments.contexts;
    let address = match arguments.host_address {
        Some(address) => address,
        None if contexts.is_empty() => Ipv4Addr::LOCALHOST.into(),
        None => common_address(arguments)?,
    };
    let processes =
        arguments.clusters.map_or(if contexts.is_empty() { PROCESS_CLUSTERS } else { 0 }, usize::from);
    let names = CLUSTER_NAMES.iter().take(processes).map(|name| ((*name).to_owned(), None));
    let named = contexts.iter().map(|context| (name_of(context), Some(context.clone())));
    let mut all: Vec<DevCluster> = Vec::new();
    for (name, context) in named.chain(names) {
        ensure!(!name.is_empty(), "no cluster's name can be made of context {context:?}: rename it");
        if let Some(same) = all.iter().find(|cluster| cluster.name == name) {
            let other = same.context.as_deref().unwrap_or("a process cluster");
            bail!(
                "{:?} and {other:?} would both be cluster {name}: rename the context",
                context.unwrap_or_default()
            );
        }
        let port = u16::try_from(all.len()).ok().and_then(|index| first_port.checked_add(index));
        let executors =
            SocketAddr::new(address, port.context("too many clusters for the ports that are left")?);
        all.push(DevCluster { name, context, executors });
    }
    ensure!(!all.is_empty(), "a cell without clusters runs nothing: name a --context, or some --clusters");
    Ok(DevClusters { all, address })
}

/// A cluster's name, of what may stand in the name of a context (an ARN, a user and a host).
fn name_of(context: &str) -> String {
    let last = context.rsplit(['/', '@']).find(|part| !part.is_empty()).unwrap_or_default();
    let kept = last.to_lowercase().replace(|character: char| !character.is_ascii_alphanumeric(), "-");
    let cut: String = kept.trim_matches('-').chars().take(NAME_BYTES_MAX).collect();
    cut.trim_end_matches('-').to_owned()
}

fn common_address(arguments: &DevArguments) -> anyhow::Result<IpAddr> {
    let mut found: Option<(IpAddr, &str)> = None;
    for context in &arguments.contexts {
        let output = Command::new(agent_program()?)
            .arg("--locate")
            .args(access(arguments, context))
            .output()
            .context("argosy-agent can't be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "context {context}: {} (--host-address IP names an address of this machine that its Pods reach)",
            said.trim().trim_start_matches("argosy-agent: ")
        );
        let address: IpAddr = String::from_utf8_lossy(&output.stdout).trim().parse()?;
        match found {
            Some((first, of)) if first != address => bail!(
                "{of} sees this machine as {first}, {context} as {address}: name one that both reach with --host-address"
            ),
            _ => found = Some((address, context)),
        }
    }
    Ok(found.context("a context")?.0)
}

fn access(arguments: &DevArguments, context: &str) -> Vec<String> {
    let mut access = vec!["--context".to_owned(), context.to_owned()];
    if let Some(kubeconfig) = &arguments.kubeconfig {
        access.extend(["--kubeconfig".to_owned(), kubeconfig.display().to_string()]);
    }
    access
}

/// The agent's program, beside this one.
pub(crate) fn agent_program() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("argosy-agent"))
}

/// An address as such if this machine has it, else (it is translated on the way) every address.
pub(crate) fn listening(address: SocketAddr) -> SocketAddr {
    if TcpListener::bind((address.ip(), 0)).is_ok() {
        return address;
    }
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port())
}

impl DevCluster {
    /// What tells the agent of its cluster.
    pub(crate) fn arguments(&self, arguments: &DevArguments) -> Vec<String> {
        let own = ["--cluster", &self.name, "--metrics-listen", "127.0.0.1:0"].map(str::to_owned);
        let mut all = own.to_vec();
        match &self.context {
            None => {
                all.extend(["--runtime", "process", "--executor-listen", "127.0.0.1:0"].map(str::to_owned))
            }
            Some(context) => {
                all.extend(access(arguments, context));
                all.extend(["--runtime".to_owned(), "kubernetes".to_owned()]);
                all.push(format!("--executor-listen={}", listening(self.executors)));
                all.push(format!("--executor-address={}", self.executors));
                if let Some(image) = &arguments.executor_image {
                    all.push(format!("--executor-image={image}"));
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(contexts: &[&str]) -> DevArguments {
        DevArguments {
            contexts: contexts.iter().map(|context| (*context).to_owned()).collect(),
            host_address: Some(Ipv4Addr::LOCALHOST.into()),
            ..DevArguments::default()
        }
    }

    fn names(arguments: &DevArguments) -> Vec<String> {
        choose(arguments, 3000).unwrap().all.into_iter().map(|cluster| cluster.name).collect()
    }

    #[test]
    fn clusters_are_named_after_their_contexts() {
        let found = names(&arguments(&["kind-a", "arn:aws:eks:eu-west-1:1:cluster/Prod_1", "admin@home"]));
        assert_eq!(found, ["kind-a", "prod-1", "home"]);
        assert_eq!(names(&arguments(&[])), ["east", "west", "north"]);
        assert_eq!(names(&DevArguments { clusters: Some(1), ..arguments(&["b"]) }), ["b", "east"]);
    }

    #[test]
    fn contexts_that_can_not_be_told_apart_are_refused() {
        let twice = choose(&arguments(&["one/a", "two/a"]), 3000).unwrap_err().to_string();
        assert!(twice.contains("one/a") && twice.contains("two/a"), "{twice}");
        let clash = choose(&DevArguments { clusters: Some(1), ..arguments(&["east"]) }, 3000);
        assert!(clash.unwrap_err().to_string().contains("rename the context"));
        assert!(choose(&arguments(&["///"]), 3000).is_err());
    }

    #[test]
    fn executors_find_the_agent_of_their_cluster_at_one_place() {
        let chosen = choose(&arguments(&["a", "b"]), 3000).unwrap();
        let of = |cluster: &DevCluster| cluster.arguments(&arguments(&["a", "b"])).join(" ");
        assert!(of(&chosen.all[0]).contains("--executor-address=127.0.0.1:3000"), "{}", of(&chosen.all[0]));
        assert!(of(&chosen.all[1]).contains("--context b --runtime kubernetes"), "{}", of(&chosen.all[1]));
        assert!(of(&chosen.all[1]).contains("--executor-address=127.0.0.1:3001"), "{}", of(&chosen.all[1]));
    }
}
