//! The programs of a cluster: where they come from, how they are called, when they are ready.

use crate::{Cluster, READY_TIMEOUT, certificates, images, network, output, record, wait_until};
use anyhow::{Context, Result, bail};
use std::fs::{create_dir_all, write};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// A file of this repository: of the checkout that the program runs in, else of the one that it was compiled in. Checkouts may
/// share what is compiled.
pub(crate) fn source(path: &str) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let compiled_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let found = here.ancestors().find(|folder| folder.join("tests/kubernetes/binaries/build").exists());
    found.unwrap_or(&compiled_in).join(path)
}

/// The folder of the clusters' programs, built once per machine.
pub fn binaries() -> Result<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || output(&mut Command::new(source("tests/kubernetes/binaries/build")));
    let folder = FOLDER
        .get_or_init(|| build().map(|text| PathBuf::from(text.trim())).map_err(|error| format!("{error:#}")));
    folder.clone().map_err(anyhow::Error::msg)
}

/// The executor's static binary: named by `ARGOSY_EXECUTOR`, or built.
fn executor() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("ARGOSY_EXECUTOR") {
        return Ok(named.into());
    }
    let built = output(&mut Command::new(source("tests/kubernetes/build-executor")))?;
    Ok(PathBuf::from(built.trim()))
}

fn image_archives(cluster: &Cluster) -> Result<Vec<PathBuf>> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making =
        MAKING.lock().map_err(|_| anyhow::anyhow!("making the images failed in another cluster"))?;
    let folder = cluster.folder.parent().context("a cluster lies in its run's folder")?.join("images");
    if folder.join("complete").exists() {
        return images::archives_in(&folder);
    }
    let archives = images::make(&folder, &cluster.binaries, Some(&executor()?))?;
    write(folder.join("complete"), "")?;
    Ok(archives)
}

fn spawn(
    cluster: &Cluster,
    program: impl AsRef<std::ffi::OsStr>,
    name: &str,
    arguments: &[String],
) -> Result<()> {
    let log = cluster.folder.join("log").join(name);
    record::spawn(cluster.command(program).args(arguments), &cluster.folder, &log).map(drop)
}

/// Starts everything and waits until the cluster takes Pods.
pub fn start(cluster: &Cluster, hub: &str) -> Result<()> {
    for name in ["log", "cni", "kubelet", "manifests"] {
        create_dir_all(cluster.folder.join(name))?;
    }
    let archives = image_archives(cluster)?;
    network::make_cluster(hub, &cluster.namespace, cluster.index)?;
    record::make_control_groups(&cluster.namespace)?;
    certificates::make(cluster)?;
    start_etcd(cluster)?;
    start_api_server(cluster)?;
    start_containerd(cluster)?;
    for archive in archives {
        images::load(&cluster.folder, &archive)?;
    }
    wait_for_api_server(cluster)?;
    start_controllers(cluster)?;
    start_kubelet(cluster)?;
    let get = |arguments: &[&str]| cluster.kubectl(arguments).unwrap_or_default();
    wait_for_host(cluster, &cluster.name)?;
    let account = ["-n", "default", "get", "serviceaccount", "default", "-o", "name"];
    wait_until("the default service account", READY_TIMEOUT, || !get(&account).is_empty())
}

/// Starts a second host of a cluster, in a place of its own, and waits until it is ready.
pub fn start_host(host: &Cluster, cluster: &Cluster, hub: &str) -> Result<()> {
    for name in ["log", "cni", "kubelet", "pki"] {
        create_dir_all(host.folder.join(name))?;
    }
    network::make_cluster(hub, &host.namespace, host.index)?;
    network::join_hosts((&cluster.namespace, cluster.index), (&host.namespace, host.index))?;
    record::make_control_groups(&host.namespace)?;
    std::fs::copy(cluster.folder.join("pki/ca.crt"), host.folder.join("pki/ca.crt"))?;
    let access = cluster.folder.join(format!("{}.kubeconfig", certificates::SECOND_KUBELET));
    std::fs::copy(access, host.folder.join("kubelet.kubeconfig"))?;
    start_containerd(host)?;
    for archive in image_archives(cluster)? {
        images::load(&host.folder, &archive)?;
    }
    start_kubelet(host)?;
    wait_for_host(cluster, &host.name)
}

fn wait_for_host(cluster: &Cluster, name: &str) -> Result<()> {
    let ready = ["get", "node", name, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"];
    wait_until("the host to be ready", READY_TIMEOUT, || {
        cluster.kubectl(&ready).is_ok_and(|status| status == "True")
    })
}

fn start_etcd(cluster: &Cluster) -> Result<()> {
    let data = cluster.folder.join("etcd").display().to_string();
    let client = "http://127.0.0.1:2379";
    let arguments = [
        "--data-dir",
        &data,
        "--unsafe-no-fsync",
        "--listen-client-urls",
        client,
        "--advertise-client-urls",
        client,
        "--listen-peer-urls",
        "http://127.0.0.1:2380",
        "--log-level",
        "warn",
    ];
    spawn(cluster, cluster.binaries.join("etcd"), "etcd", &arguments.map(str::to_owned))
}

/// The name of the API server's program.
pub const API_SERVER: &str = "kube-apiserver";
const API_SERVER_STARTS_MAX: u32 = 3;

fn start_api_server(cluster: &Cluster) -> Result<()> {
    let pki = cluster.folder.join("pki").display().to_string();
    let arguments = [
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--secure-port=443".to_owned(),
        "--bind-address=0.0.0.0".to_owned(),
        format!("--advertise-address={}", cluster.address()),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        format!("--service-account-key-file={pki}/service-accounts.pub"),
        format!("--service-account-signing-key-file={pki}/service-accounts.key"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-cluster-ip-range=10.96.{}.0/24", cluster.index),
        "--authorization-mode=Node,RBAC".to_owned(),
        format!("--kubelet-client-certificate={pki}/admin.crt"),
        format!("--kubelet-client-key={pki}/admin.key"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--allow-privileged=true".to_owned(),
    ];
    spawn(cluster, cluster.binaries.join(API_SERVER), API_SERVER, &arguments)
}

/// Waits until the API server serves.
fn wait_for_api_server(cluster: &Cluster) -> Result<()> {
    let lives = || record::lives(&cluster.folder, API_SERVER);
    wait_until("the API server", READY_TIMEOUT, || {
        !lives() || cluster.kubectl(&["get", "--raw", "/readyz"]).is_ok()
    })?;
    if !lives() {
        bail!("the API server ended; see {}", cluster.folder.join("log").join(API_SERVER).display());
    }
    Ok(())
}

/// Starts the API server and waits until it serves. One that ends while it starts, since a busy machine let something of it
/// take too long, is started again, as a kubelet would.
pub fn bring_up_api_server(cluster: &Cluster) -> Result<()> {
    let mut last = Ok(());
    for _ in 0..API_SERVER_STARTS_MAX {
        start_api_server(cluster)?;
        last = wait_for_api_server(cluster);
        if last.is_ok() || record::lives(&cluster.folder, API_SERVER) {
            break;
        }
    }
    last
}

fn start_controllers(cluster: &Cluster) -> Result<()> {
    let folder = cluster.folder.display();
    let controllers = [
        format!("--kubeconfig={folder}/controllers.kubeconfig"),
        format!("--service-account-private-key-file={folder}/pki/service-accounts.key"),
        format!("--root-ca-file={folder}/pki/ca.crt"),
        "--use-service-account-credentials".to_owned(),
        "--leader-elect=false".to_owned(),
        "--controllers=*,-nodeipam,-cloud-node-lifecycle,-service-lb-controller".to_owned(),
    ];
    spawn(
        cluster,
        cluster.binaries.join("kube-controller-manager"),
        "kube-controller-manager",
        &controllers,
    )?;
    let kubeconfig = format!("{folder}/scheduler.kubeconfig");
    let scheduler = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
    ];
    spawn(cluster, cluster.binaries.join("kube-scheduler"), "kube-scheduler", &scheduler)
}

fn start_containerd(cluster: &Cluster) -> Result<()> {
    let folder = cluster.folder.display();
    let network = serde_json::json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [{
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
        "ipam": {"type": "host-local", "dataDir": cluster.folder.join("addresses"),
            "ranges": [[{"subnet": format!("10.{}.0.0/16", 100 + u16::from(cluster.index))}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }]});
    write(cluster.folder.join("cni/10-pods.conflist"), network.to_string())?;
    // restrict_oom_score_adj: without it runc fails where the score can't be lowered.
    let configuration = format!(
        r#"version = 2
root = "{folder}/containerd"
state = "{folder}/run"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
    );
    let file = cluster.folder.join("containerd.toml");
    write(&file, configuration)?;
    spawn(cluster, "containerd", "containerd", &["--config".to_owned(), file.display().to_string()])?;
    let socket = cluster.folder.join("containerd.sock");
    wait_until("containerd", READY_TIMEOUT, || {
        Command::new("ctr")
            .arg("-a")
            .arg(&socket)
            .arg("version")
            .output()
            .is_ok_and(|done| done.status.success())
    })
}

fn start_kubelet(cluster: &Cluster) -> Result<()> {
    let folder = cluster.folder.display();
    let configuration = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", cluster.namespace), "cgroupsPerQOS": true,
        "failSwapOn": false, "failCgroupV1": false,
        "podLogsDir": format!("{folder}/pod-logs"),
        "containerRuntimeEndpoint": format!("unix://{folder}/containerd.sock"),
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": format!("{folder}/pki/ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [cluster.address().to_string()], "clusterDomain": "cluster.local",
        "evictionHard": {"imagefs.available": "1%", "nodefs.available": "1%", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100, "maxPods": 500, "podPidsLimit": -1,
        "address": cluster.address().to_string(), "healthzPort": 0, "readOnlyPort": 0,
        "nodeStatusUpdateFrequency": "4s",
    });
    let file = cluster.folder.join("kubelet.json");
    write(&file, configuration.to_string())?;
    let arguments = [
        format!("--config={}", file.display()),
        format!("--kubeconfig={folder}/kubelet.kubeconfig"),
        format!("--hostname-override={}", cluster.name),
        format!("--node-ip={}", cluster.address()),
        format!("--root-dir={folder}/kubelet"),
    ];
    spawn(cluster, cluster.binaries.join("kubelet"), "kubelet", &arguments)
}

/// Ends the API server; its clients lose their connections.
pub fn stop_api_server(cluster: &Cluster) -> Result<()> {
    record::kill_recorded(&cluster.folder, &[API_SERVER])
}

/// Compacts etcd to its newest revision while the API server is down, so that neither it nor its cache knows older ones.
pub fn compact(cluster: &Cluster) -> Result<()> {
    let answer = post_to_etcd(cluster, "/v3/kv/range", r#"{"key":"AA==","count_only":true}"#)?;
    let (_, rest) =
        answer.split_once(r#""revision":""#).with_context(|| format!("etcd names its revision: {answer}"))?;
    let (revision, _) = rest.split_once('"').context("the revision ends")?;
    let answer = post_to_etcd(
        cluster,
        "/v3/kv/compaction",
        &format!(r#"{{"revision":"{revision}","physical":true}}"#),
    )?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("etcd did not compact: {answer}");
    }
    Ok(())
}

fn post_to_etcd(cluster: &Cluster, path: &str, body: &str) -> Result<String> {
    let namespace = cluster.namespace.as_str();
    let exchange = move || -> Result<String> {
        network::enter(namespace)?;
        let mut stream = TcpStream::connect("127.0.0.1:2379")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    std::thread::scope(|scope| {
        scope.spawn(exchange).join().map_err(|_| anyhow::anyhow!("talking to etcd panicked"))?
    })
}
