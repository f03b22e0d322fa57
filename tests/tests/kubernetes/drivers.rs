//! Artifacts that drivers of Argo's keep ("artifact plugins").

use super::left::{exec, pods};
use super::{WAIT, sh, workflow};
use argosy_test_driver::store::Objects;
use argosy_testcluster::{Cluster, DRIVER_IMAGE, PAUSE_NAME};
use argosy_tests::cell::{Cell, TOKEN, binary};
use argosy_tests::manifests::node;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::process::Child;

/// The agents' drivers: one that works, and one that never opens its socket.
pub fn list() -> String {
    json!([
        {"name": "test", "image": DRIVER_IMAGE},
        {"name": "mute", "image": PAUSE_NAME, "connectionTimeoutSeconds": 2},
    ])
    .to_string()
}

/// `agent` is that of the first cluster.
pub async fn keep_artifacts(cell: &Cell, clusters: &[Cluster], agent: &Child) -> anyhow::Result<()> {
    for cluster in clusters {
        cluster.load_driver(&binary("argosy-test-driver")?)?;
    }
    let (_, objects) = Objects::serve(argosy_test_driver::ENDPOINT.parse()?)?;
    let failing = failing(cell).await?;
    argos_example(cell, &objects).await?;
    a_repository(cell, clusters, &objects).await?;
    garbage(cell, clusters, &objects).await?;
    a_cut_off_attempt_saves_nothing(cell, clusters, agent, &objects).await?;
    for (name, message) in failing {
        let done = cell.finished(&name, WAIT).await?;
        let told = node(&done, &name)["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((&done["status"]["phase"], told.as_str()), (&json!("Error"), message.as_str()));
    }
    Ok(())
}

fn told_to(driver: &str, configuration: &str, key: &str) -> Value {
    json!({"name": driver, "configuration": configuration, "key": key})
}

/// What fails, and with which message.
async fn failing(cell: &Cell) -> anyhow::Result<Vec<(String, String)>> {
    let mut failing = Vec::new();
    let output = |configuration: &str| {
        json!({"outputs": {"artifacts": [
        {"name": "x", "path": "/etc/group", "plugin": told_to("test", configuration, "k")}]}})
    };
    let input = |driver: &str| {
        json!({"inputs": {"artifacts": [
        {"name": "x", "path": "/tmp/x", "plugin": told_to(driver, "endpoint: store", "never/there")}]}})
    };
    let socket = "/tmp/artifact-plugins/mute/socket";
    for (name, artifacts, message) in [
        (
            "driver-refuses",
            output("fail: the disk is full"),
            "wait: Error (exit code 64): plugin test save failed: the disk is full; ".to_owned(),
        ),
        (
            "driver-breaks",
            output("break: not yours"),
            "wait: Error (exit code 64): plugin test save failed: rpc error: code = PermissionDenied desc = not yours; "
                .to_owned(),
        ),
        (
            "driver-has-nothing",
            input("test"),
            "init-artifact-test: Error (exit code 64): artifact x failed to load: plugin test load failed: \
             no such key: never/there"
                .to_owned(),
        ),
        (
            "driver-is-mute",
            input("mute"),
            format!(
                "init-artifact-mute: Error (exit code 64): failed to create plugin driver for mute: plugin mute expected \
                 unix socket at \"{socket}\" but it does not exist after waiting for 2 seconds"
            ),
        ),
        (
            "driver-is-unknown",
            input("absent"),
            "ARG1270: artifact driver absent not found: the agent's artifactDrivers do not name it".to_owned(),
        ),
    ] {
        let mut template = json!({"name": "main", "container": sh("true")});
        template.as_object_mut().unwrap().extend(artifacts.as_object().cloned().unwrap());
        failing.push((cell.submit(&workflow(name, json!([template]))).await?, message));
    }
    Ok(failing)
}

/// As Argo's example `artifact-passing-explicit-plugin.yaml` has it.
async fn argos_example(cell: &Cell, objects: &Objects) -> anyhow::Result<()> {
    let configuration = "bucket: my-bucket\nendpoint: minio:9000\ninsecure: true\naccessKeySecret:\n  name: my-minio-cred\n  \
        key: accesskey\nsecretKeySecret:\n  name: my-minio-cred\n  key: secretkey\n";
    let busybox = |script: &str| json!({"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": [script]});
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "generate-artifact", "template": "hello-world-to-file"}],
            [{"name": "consume-artifact", "template": "print-message-from-file", "arguments": {"artifacts": [
                {"name": "message", "from": "{{steps.generate-artifact.outputs.artifacts.hello-art}}"}]}}],
        ]},
        {"name": "hello-world-to-file", "container": busybox("sleep 1; echo hello world | tee /tmp/hello_world.txt"),
         "outputs": {"artifacts": [{"name": "hello-art", "path": "/tmp/hello_world.txt",
            "plugin": {"name": "test", "configuration": configuration, "key": "hi"}}]}},
        {"name": "print-message-from-file", "inputs": {"artifacts": [{"name": "message", "path": "/tmp/message"}]},
         "container": busybox("cat /tmp/message")},
    ]);
    let name = cell.submit(&workflow("explicit-plugin", templates)).await?;
    let done = cell.finished(&name, WAIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let url = format!("{}/api/v1/workflows/default/{name}/log?logOptions.container=main", cell.api(1));
    let log = cell.http.get(url).bearer_auth(TOKEN).send().await?.text().await?;
    assert_eq!(log.matches("\"content\":\"hello world\"").count(), 2, "{log}");
    let shown = node(&done, "generate-artifact")["outputs"]["artifacts"][0]["plugin"].clone();
    assert_eq!(shown, json!({"name": "test", "configuration": configuration, "key": "hi"}));
    assert!(objects.keys().iter().any(|key| key == "hi"), "{:?}", objects.keys());
    Ok(())
}

/// Made in one cluster under a name that the repository makes, read in the other by somebody else, logs kept.
async fn a_repository(cell: &Cell, clusters: &[Cluster], objects: &Objects) -> anyhow::Result<()> {
    let repository = "archiveLogs: true\nplugin:\n  name: test\n  configuration: 'endpoint: store'\n  \
        keyFormat: 'kept/{{workflow.name}}/{{pod.name}}'\n";
    cell.post(
        "/api/v1/configmaps/default",
        &json!({"configMap": {"metadata": {"name": "driver-repository"}, "data": {"plugin": repository}}}),
    )
    .await?;
    let on = |cluster: &Cluster| json!({"cluster.argosy.dev/name": cluster.name});
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "make", "template": "make"}],
            [{"name": "read", "template": "read", "arguments": {"artifacts": [
                {"name": "f", "from": "{{steps.make.outputs.artifacts.x}}"},
                {"name": "g", "from": "{{steps.make.outputs.artifacts.tree}}"},
            ]}}],
        ]},
        {"name": "make", "nodeSelector": on(&clusters[0]),
         "container": sh("mkdir -p /tmp/x/d; echo 1 > /tmp/x/a; echo 2 > /tmp/x/d/b; echo told; test ! -e /tmp/artifact-plugins"),
         "outputs": {"artifacts": [
            {"name": "x", "path": "/tmp/x"},
            {"name": "tree", "path": "/tmp/x", "archive": {"none": {}}, "plugin": {"key": "{{workflow.name}}/tree"}},
            {"name": "none", "path": "/tmp/none", "optional": true},
         ]}},
        {"name": "read", "nodeSelector": on(&clusters[1]), "securityContext": {"runAsUser": 1234},
         "volumes": [{"name": "work", "emptyDir": {}}],
         "inputs": {"artifacts": [{"name": "f", "path": "/in/f"}, {"name": "g", "path": "/work/deep/g"}]},
         "container": {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-ec"],
            "volumeMounts": [{"name": "work", "mountPath": "/work"}],
            "args": ["cat /in/f/a /in/f/d/b /work/deep/g/d/b > /tmp/out"]},
         "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out"}}]}},
    ]);
    let mut kept = workflow("plugin-repository", templates);
    kept["spec"]["artifactRepositoryRef"] = json!({"configMap": "driver-repository", "key": "plugin"});
    let name = cell.submit(&kept).await?;
    let done = cell.finished(&name, WAIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    assert_eq!(node(&done, "read")["outputs"]["parameters"][0]["value"], "1\n2\n2");
    let names: Vec<String> = node(&done, "make")["outputs"]["artifacts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|artifact| artifact["name"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(names, ["x", "tree", "main-logs"]);
    let keys = objects.keys();
    let below = format!("kept/{name}/");
    for end in ["/x.tgz", "/main.log"] {
        assert!(keys.iter().any(|key| key.starts_with(&below) && key.ends_with(end)), "{end} in {keys:?}");
    }
    assert!(keys.contains(&format!("{name}/tree/d/b")), "{keys:?}");
    let log = objects.with(|objects| {
        let mut logs = objects.iter().filter(|(key, _)| key.starts_with(&below) && key.ends_with("main.log"));
        logs.any(|(_, log)| log == b"told\n")
    });
    assert!(log, "the log is what the step said");
    nobody_else_reads(cell, clusters, &done).await
}

/// Outside of Pods nothing reads them, and whoever asks is told so: for the artifact, and for the log once its Pod is gone.
async fn nobody_else_reads(cell: &Cell, clusters: &[Cluster], done: &Value) -> anyhow::Result<()> {
    let name = done["metadata"]["name"].as_str().unwrap_or_default();
    let id = node(done, "make")["id"].as_str().unwrap_or_default().to_owned();
    for path in [
        format!("/artifacts/default/{name}/{id}/x"),
        format!("/artifact-files/default/workflows/{name}/{id}/outputs/x"),
    ] {
        let url = format!("{}{path}", cell.api(1));
        let answer = cell.http.get(url).bearer_auth(TOKEN).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        assert!(status.is_server_error() && text.contains("ARG1271"), "{path}: {status}: {text}");
    }
    for cluster in clusters {
        cluster.kubectl(&["-n", "default", "delete", "pods", "--all", "--wait=true"])?;
    }
    let (_, text) = cell.try_argosy(&["logs", name, "-n", "default"])?;
    assert!(text.contains("ARG1271"), "{text}");
    Ok(())
}

/// What is to go with its workflow is deleted by a Pod with the driver, which goes as well.
async fn garbage(cell: &Cell, clusters: &[Cluster], objects: &Objects) -> anyhow::Result<()> {
    let of = |name: &str, path: &str| json!({"name": name, "path": path, "archive": {"none": {}}, "plugin": told_to("test", "endpoint: store", &format!("gc/{name}"))});
    let mut stays = of("stays", "/tmp/x/a");
    stays["artifactGC"] = json!({"strategy": "Never"});
    let templates = json!([{"name": "main", "container": sh("mkdir -p /tmp/x; echo 1 > /tmp/x/a"),
        "outputs": {"artifacts": [of("tree", "/tmp/x"), of("file", "/tmp/x/a"), stays]}}]);
    let mut collected = workflow("plugin-gc", templates);
    collected["spec"]["artifactGC"] = json!({"strategy": "OnWorkflowCompletion"});
    let name = cell.submit(&collected).await?;
    let done = cell.finished(&name, WAIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let left =
        || -> Vec<String> { objects.keys().into_iter().filter(|key| key.starts_with("gc/")).collect() };
    let begun = std::time::Instant::now();
    while left() != ["gc/stays"] {
        assert!(begun.elapsed() < WAIT, "left: {:?}", left());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let selected = ["-n", "default", "get", "pods", "-l", "argosy.dev/artifact-gc", "-o", "name"];
    let pods =
        || -> String { clusters.iter().filter_map(|cluster| cluster.kubectl(&selected).ok()).collect() };
    while !pods().trim().is_empty() {
        assert!(begun.elapsed() < WAIT, "Pods that deleted are still there: {}", pods());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    Ok(())
}

/// A step that ends while its agent stands still is taken over, and its own save, which waits for the agent, never comes: what is
/// stored under the key stays its successor's.
async fn a_cut_off_attempt_saves_nothing(
    cell: &Cell,
    clusters: &[Cluster],
    agent: &Child,
    objects: &Objects,
) -> anyhow::Result<()> {
    let (name, [cut, other]) = ("plugin-late", clusters) else { anyhow::bail!("two clusters") };
    let script = "hostname > /tmp/x; touch /tmp/begun; until test -e /tmp/go; do sleep 0.2; done; rm /tmp/go";
    let mut late = workflow(
        name,
        json!([{"name": "main", "retryStrategy": {"limit": 2, "retryPolicy": "Always"}, "container": sh(script),
        "outputs": {"artifacts": [
            {"name": "x", "path": "/tmp/x", "archive": {"none": {}}, "plugin": told_to("test", "endpoint: store", "late")}]}}]),
    );
    late["spec"]["archiveLogs"] = false.into();
    let begun = async |cluster: &Cluster| {
        let what = format!("the step to run in {}", cluster.name);
        let runs = async || exec(cluster, name, &["test", "-e", "/tmp/begun"]).then_some(());
        cell.until(WAIT, &what, runs).await
    };
    let ends = async |cluster: &Cluster| {
        assert!(exec(cluster, name, &["touch", "/tmp/go"]), "the step still runs in {}", cluster.name);
        // What comes after the command, the save among it, is the executor's.
        let over = async || (!exec(cluster, name, &["test", "-e", "/tmp/go"])).then_some(());
        cell.until(WAIT, "the step's command to end", over).await
    };
    cell.argosy(&["cluster", "cordon", &other.name])?;
    cell.submit(&late).await?;
    begun(cut).await?;
    cell.argosy(&["cluster", "uncordon", &other.name])?;
    let process = Pid::from_raw(i32::try_from(agent.id())?);
    kill(process, Signal::SIGSTOP)?;
    ends(cut).await?;
    begun(other).await?;
    ends(other).await?;
    let done = cell.finished(name, WAIT).await?;
    let successor = pods(other, name)[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    assert_eq!(pods(cut, name)[0]["status"]["phase"], "Running", "its save waits");
    kill(process, Signal::SIGCONT)?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    let over = async || pods(cut, name).iter().all(|pod| pod["status"]["phase"] != "Running").then_some(());
    cell.until(WAIT, "the cut-off attempt to end", over).await?;
    let stored = objects.with(|objects| objects.get("late").cloned()).unwrap_or_default();
    assert_eq!(String::from_utf8(stored)?.trim(), successor);
    Ok(())
}
