//! `argosy dev --context A --context B`: two real clusters, as a laptop's user has them, and nothing installed in them. Runs
//! where ARGOSY_REAL_KUBERNETES=1 is set and clusters can be started; otherwise says why not.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use argosy_testcluster::{Cluster, EXECUTOR_IMAGE, Federation, wait_until};
use argosy_tests::cell::binary;
use argosy_tests::pods::{no_clusters, say};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(120);

/// A laptop: its home, and its kubeconfig.
struct Laptop<'a> {
    federation: &'a Federation,
    home: tempfile::TempDir,
    kubeconfig: PathBuf,
}

impl<'a> Laptop<'a> {
    fn new(federation: &'a Federation, clusters: &[Cluster]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let kubeconfig = home.path().join("kubeconfig");
        std::fs::write(&kubeconfig, merged(clusters).to_string()).unwrap();
        Self { federation, home, kubeconfig }
    }

    fn argosy(&self) -> Command {
        let mut command = self.federation.command(binary("argosy").unwrap());
        command.env("ARGOSY_HOME", self.home.path().join("argosy")).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// `argosy ARGUMENTS`: whether it went well, and what it printed.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.argosy().args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    }
}

/// One kubeconfig whose contexts are the clusters.
fn merged(clusters: &[Cluster]) -> Value {
    let mut all = json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []});
    for cluster in clusters {
        let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
        let own: Value = serde_json::from_str(&text).unwrap();
        for part in ["clusters", "users", "contexts"] {
            let mut entry = own[part][0].clone();
            entry["name"] = json!(format!("admin@{}", cluster.name));
            if part == "contexts" {
                entry["context"] = json!({"cluster": entry["name"], "user": entry["name"]});
            }
            all[part].as_array_mut().unwrap().push(entry);
        }
    }
    all
}

/// What a cluster has that an installation would add to.
fn installed(cluster: &Cluster) -> String {
    let kinds = "namespaces,serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings,secrets,deployments,\
                 customresourcedefinitions";
    cluster.kubectl(&["get", kinds, "--all-namespaces", "-o", "name"]).unwrap()
}

fn step(name: &str, cluster: &str, rest: Value) -> Value {
    let mut template = json!({"name": name, "nodeSelector": {"cluster.argosy.dev/name": cluster}});
    for (field, value) in rest.as_object().unwrap() {
        template[field.as_str()] = value.clone();
    }
    template
}

/// Makes a file in one cluster and reads it in the other.
fn workflow() -> Value {
    let shell = |script: &str| json!({"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-ec"], "args": [script]});
    let make = json!({
        "container": shell("echo made in a real Pod > /tmp/file"),
        "outputs": {"artifacts": [{"name": "file", "path": "/tmp/file"}]},
    });
    let read = json!({
        "container": shell("cat /tmp/file"),
        "inputs": {"artifacts": [{"name": "file", "path": "/tmp/file"}]},
    });
    let from = json!({"artifacts": [{"name": "file", "from": "{{steps.make.outputs.artifacts.file}}"}]});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "laptop"},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [
                [{"name": "make", "template": "make"}],
                [{"name": "read", "template": "read", "arguments": from}],
            ]},
            step("make", "east", make), step("read", "west", read),
        ]},
    })
}

/// Whether a step ran on the host of a cluster.
fn ran_on(laptop: &Laptop<'_>, step: &str, cluster: &str) -> bool {
    let workflow: Value = serde_json::from_str(&laptop.run(&["get", "laptop", "-o", "json"]).1).unwrap();
    let nodes = workflow["status"]["nodes"].as_object().unwrap();
    nodes.values().any(|node| node["displayName"] == step && node["hostNodeName"] == cluster)
}

fn log(home: &Path) -> PathBuf {
    let logs = std::env::var_os("ARGOSY_TEST_LOGS").map_or_else(|| home.to_owned(), PathBuf::from);
    std::fs::create_dir_all(&logs).unwrap();
    logs.join("dev.log")
}

#[test]
fn contexts_of_a_kubeconfig_join_with_nothing_installed() {
    if let Some(reason) = no_clusters() {
        return println!("SKIPPED: {reason}");
    }
    let federation = Federation::start().unwrap();
    let clusters = federation.start_clusters(&["east", "west"]).unwrap();
    say("two clusters");
    let laptop = Laptop::new(&federation, &clusters);
    let before: Vec<String> = clusters.iter().map(installed).collect();
    let (well, text) = laptop.run(&["dev", "--context", "nowhere"]);
    assert!(!well && text.contains("it has admin@east, admin@west"), "{text}");
    let log = log(laptop.home.path());
    let mut dev = laptop.argosy();
    dev.args(["dev", "--members", "1", "--context", "admin@east", "--context", "admin@west"])
        .args(["--executor-image", EXECUTOR_IMAGE]);
    let mut dev = federation.spawn(&mut dev, &log).unwrap();
    let printed = || std::fs::read_to_string(&log).unwrap_or_default();
    let started =
        wait_until("all clusters to be connected", WAIT, || printed().contains("all clusters are connected"));
    assert!(started.is_ok(), "{}", printed());
    let (well, text) = laptop.run(&["cluster", "list"]);
    assert!(well && text.contains("east") && text.contains("west"), "{text}");
    say("both are clusters of the cell");
    let file = laptop.home.path().join("workflow.json");
    std::fs::write(&file, workflow().to_string()).unwrap();
    let (well, text) = laptop.run(&["submit", "--wait", &file.display().to_string()]);
    assert!(well, "{text}{}", laptop.run(&["get", "laptop"]).1);
    let (well, text) = laptop.run(&["logs", "laptop"]);
    assert!(well && text.contains("made in a real Pod"), "{text}");
    for (step, cluster) in [("make", "east"), ("read", "west")] {
        assert!(ran_on(&laptop, step, cluster), "{}", laptop.run(&["get", "laptop", "-o", "json"]).1);
    }
    say("an artifact passed from one to the other");
    let after: Vec<String> = clusters.iter().map(installed).collect();
    assert_eq!(before, after, "something was installed");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(dev.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    let ended = wait_until("argosy dev to end", WAIT, || dev.try_wait().unwrap().is_some());
    assert!(ended.is_ok(), "{}", printed());
    say("and it ended when it was told to");
}
