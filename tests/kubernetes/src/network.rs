//! Namespaces, links and the bridge between them.

use crate::output;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use std::ffi::OsStr;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

fn ip(namespace: Option<&str>, arguments: &str) -> Result<String> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    output(command.args(arguments.split_whitespace()))
}

fn file(namespace: &str) -> PathBuf {
    Path::new("/var/run/netns").join(namespace)
}

/// Whether a namespace of that name is there.
pub fn exists(namespace: &str) -> bool {
    file(namespace).exists()
}

/// Proves that namespaces, virtual links and bridges can be made.
pub fn probe() -> Result<()> {
    let name = format!("argosy-probe-{:x}-{:?}", std::process::id(), std::thread::current().id());
    let name = name.replace(['(', ')'], "");
    ip(None, &format!("netns add {name}"))?;
    let made = ip(Some(&name), "link add b0 type bridge")
        .and_then(|_| ip(Some(&name), "link add v0 type veth peer name v1"));
    ip(None, &format!("netns del {name}"))?;
    made.map(drop)
}

/// The hub: a bridge that clusters are joined to, with the hub's address on it.
pub fn make_hub(hub: &str) -> Result<()> {
    ip(None, &format!("netns add {hub}"))?;
    ip(Some(hub), "link set lo up")?;
    ip(Some(hub), "link add hub0 type bridge")?;
    ip(Some(hub), "addr add 10.200.0.1/16 dev hub0")?;
    ip(Some(hub), "link set hub0 up").map(drop)
}

/// One more address of the hub.
pub fn add_hub_address(hub: &str, address: Ipv4Addr) -> Result<()> {
    ip(Some(hub), &format!("addr add {address}/16 dev hub0")).map(drop)
}

/// A cluster's namespace and its link to the hub. The service address is local, so that Pods reach the API server there
/// without kube-proxy.
pub fn make_cluster(hub: &str, namespace: &str, index: u8) -> Result<()> {
    ip(None, &format!("netns add {namespace}"))?;
    ip(Some(hub), &format!("link add c{index} type veth peer name up0 netns {namespace}"))?;
    ip(Some(hub), &format!("link set c{index} master hub0"))?;
    ip(Some(hub), &format!("link set c{index} up"))?;
    ip(Some(hub), &format!("route add 10.{}.0.0/16 via 10.200.{index}.1", 100 + u16::from(index)))?;
    ip(Some(namespace), "link set lo up")?;
    ip(Some(namespace), &format!("addr add 10.200.{index}.1/16 dev up0"))?;
    ip(Some(namespace), &format!("addr add 10.96.{index}.1/32 dev lo"))?;
    ip(Some(namespace), "link set up0 up")?;
    ip(Some(namespace), "route add default via 10.200.0.1 dev up0").map(drop)
}

/// Lets the Pods of two hosts of one cluster reach each other, and those of the second one the API server. Each host has a
/// namespace that [`make_cluster`] made.
pub fn join_hosts((first, index): (&str, u8), (second, second_index): (&str, u8)) -> Result<()> {
    let pods = |index: u8| 100 + u16::from(index);
    ip(Some(first), &format!("route add 10.{}.0.0/16 via 10.200.{second_index}.1", pods(second_index)))?;
    ip(Some(second), &format!("route add 10.{}.0.0/16 via 10.200.{index}.1", pods(index)))?;
    ip(Some(second), &format!("route add 10.96.{index}.1/32 via 10.200.{index}.1")).map(drop)
}

/// Cuts or restores a link at the hub's end: in the cluster the carrier is lost, its own addresses stay in place.
pub fn set_link(hub: &str, index: u8, up: bool) -> Result<()> {
    ip(Some(hub), &format!("link set c{index} {}", if up { "up" } else { "down" })).map(drop)
}

/// Removes a cluster's link, if it is there.
pub fn remove_link(hub: &str, index: u8) {
    let _ = ip(Some(hub), &format!("link del c{index}"));
}

/// Removes a namespace, if it is there. Its links go with it.
pub fn remove(namespace: &str) -> Result<()> {
    if exists(namespace) { ip(None, &format!("netns del {namespace}")).map(drop) } else { Ok(()) }
}

/// The processes in a namespace.
pub fn processes(namespace: &str) -> Vec<i32> {
    if !exists(namespace) {
        return Vec::new();
    }
    let listed = ip(None, &format!("netns pids {namespace}")).unwrap_or_default();
    listed.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// The names of all namespaces.
pub fn all() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/var/run/netns") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A program in a network namespace. `nsenter`, not `ip netns exec`: the latter hides the control groups.
pub fn command_in(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", file(namespace).display())).arg("--").arg(program);
    command
}

/// Moves the calling thread into a network namespace.
pub fn enter(namespace: &str) -> Result<()> {
    let namespace = file(namespace);
    let handle = File::open(&namespace).with_context(|| format!("open {}", namespace.display()))?;
    setns(handle, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", namespace.display()))
}

/// Makes and runs a future on a runtime all of whose threads are in a network namespace. The calling thread stays where it is.
pub fn block_on<T: Send, F: Future<Output = T>>(
    namespace: &str,
    make: impl FnOnce() -> F + Send,
) -> Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || -> Result<T> {
            enter(namespace)?;
            let place = namespace.to_owned();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .on_thread_start(move || enter(&place).expect("a namespace stays while its run lives"))
                .build()?;
            Ok(runtime.block_on(make()))
        });
        match inside.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
