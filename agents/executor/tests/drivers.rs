//! Artifact drivers: the executor's containers in a Pod, as processes, beside a driver that another gRPC stack serves.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    dead_code,
    reason = "tests; each uses its part of support"
)]

mod support;

use argosy_agent_runtime::server::{Artifacts, Executors};
use argosy_executor::artifacts::{
    Answer, Driver, DriverArtifact, InputFile, Operation, OutputFile, Packing, Ticket, driver_folder,
    driver_socket,
};
use argosy_executor::protocol::{Task, TaskOutcome};
use argosy_proto::common::{Assignment, Fence};
use argosy_test_driver::store::Objects;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use support::{EXECUTOR, Events, fence, record, server, until};

/// A folder of a driver's that goes with the test.
struct Folder(String);

impl Folder {
    fn new(name: &str) -> Self {
        let driver = format!("{name}-{}", std::process::id());
        std::fs::create_dir_all(driver_folder(&driver)).unwrap();
        Self(driver)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(driver_folder(&self.0));
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the agent was asked.
#[derive(Default)]
struct Agent(Mutex<Vec<Operation>>);

#[async_trait::async_trait]
impl Artifacts for Agent {
    async fn answer(&self, _: &Fence, _: &Ticket, operation: Operation) -> Result<Answer, (String, bool)> {
        let name = if let Operation::Save { name } = &operation { name.clone() } else { String::new() };
        self.0.lock().unwrap().push(operation);
        if name == "barred" { Err(("not this one".to_owned(), true)) } else { Ok(Answer::Done) }
    }

    async fn read_file(&self, _: &Ticket, _: &str, _: u64) -> Result<Vec<u8>, (String, bool)> {
        Err(("nothing is read here".to_owned(), true))
    }

    async fn read_result(&self, _: &Fence, _: &Ticket, _: u64) -> Result<(String, Vec<u8>), (String, bool)> {
        Err(("no result is here".to_owned(), true))
    }

    async fn delete_result(&self, _: &Fence, _: &Ticket) -> Result<(), (String, bool)> {
        Ok(())
    }

    async fn archive(&self, _: &Fence, _: &Ticket, _: &str) -> Result<(std::fs::File, u64), (String, bool)> {
        Err(("nothing is packed here".to_owned(), true))
    }
}

fn command(executors: &Executors, of: Fence, task: &Task, words: &[&str]) -> Command {
    let mut command = Command::new(EXECUTOR);
    command.env_clear().envs(executors.environment(&of, task)).env("ARGOSY_HOLDER", "pod").args(words);
    command.env("PATH", "/usr/bin:/bin").stdout(Stdio::null());
    command
}

fn artifact(name: &str, configuration: &str) -> DriverArtifact {
    DriverArtifact {
        name: name.to_owned(),
        key: format!("keys/{name}"),
        configuration: configuration.to_owned(),
        ..DriverArtifact::default()
    }
}

/// Runs a step with these outputs to its end, the saver beside it.
async fn step(
    executors: &Executors,
    events: &mut Events,
    index: u64,
    shared: &Path,
    (driver, script, outputs): (&Driver, &str, Vec<OutputFile>),
) -> TaskOutcome {
    let of = fence(index);
    // Made by the Pod's builder from the assignment; the stand-in for the agent's stores looks at none of it.
    let template = json!({"name": "t", "container": {}, "outputs": {"artifacts": [{"name": "x"}]}});
    let assignment =
        Assignment { fence: Some(of), template_json: template.to_string(), ..Assignment::default() };
    let shared_directory = Some(shared.to_string_lossy().into_owned());
    let mut saver =
        Task { driver: Some(driver.clone()), shared_directory: shared_directory.clone(), ..Task::default() };
    executors.give_ticket(&assignment, &mut saver);
    let mut saving = Running(command(executors, of, &saver, &["driver-save"]).spawn().unwrap());
    let task =
        Task { output_files: outputs, shared_directory, ticket: saver.ticket.clone(), ..Task::default() };
    let mut running =
        Running(command(executors, of, &task, &["--", "/bin/sh", "-c", script]).spawn().unwrap());
    let holder = events.permit_asked(of).await;
    executors.grant(of, &holder);
    let outcome = record(executors, events, of).await;
    until("the step's executor ends", async || running.0.try_wait().unwrap().is_some()).await;
    assert!(saving.0.try_wait().unwrap().is_none(), "the saver waits for the kubelet's word");
    let killed = Command::new("kill").arg(saving.0.id().to_string()).status().unwrap();
    assert!(killed.success());
    until("the saver ends", async || saving.0.try_wait().unwrap().is_some()).await;
    outcome
}

fn output(name: &str, path: PathBuf, driver: &str, packing: Packing) -> OutputFile {
    OutputFile {
        name: name.to_owned(),
        path: path.to_string_lossy().into_owned(),
        optional: false,
        packing,
        is_url: false,
        driver: driver.to_owned(),
    }
}

fn load(executors: &Executors, index: u64, driver: &Driver, inputs: Vec<InputFile>) -> (bool, String) {
    let task = Task { driver: Some(driver.clone()), input_files: inputs, ..Task::default() };
    let done =
        command(executors, fence(index), &task, &["driver-load"]).stderr(Stdio::piped()).output().unwrap();
    (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_driver_saves_it_loads() {
    let root = tempfile::tempdir().unwrap();
    let (serving, executors, _sender, mut events) = server(root.path()).await;
    let agent = Arc::new(Agent::default());
    executors.set_artifacts(Arc::clone(&agent) as Arc<dyn Artifacts>);
    executors.lease_until(u64::MAX);
    let folder = Folder::new("saves");
    let (address, objects) = Objects::serve("127.0.0.1:0".parse().unwrap()).unwrap();
    let socket = PathBuf::from(driver_socket(&folder.0));
    let served = tokio::spawn(async move {
        argosy_test_driver::serve(&socket, std::future::pending()).await.unwrap();
    });
    let there = format!("endpoint: {address}");
    let driver = Driver {
        name: folder.0.clone(),
        connection_timeout_seconds: 10,
        artifacts: vec![
            artifact("tree", &there),
            artifact("plain", &there),
            artifact("packed", &there),
            artifact("full", "fail: the disk is full"),
            artifact("broken", "break: 100% not yours"),
            artifact("barred", &there),
        ],
    };
    let work = root.path().join("work");
    let out = |name: &str, file: &str, packing| output(name, work.join(file), &folder.0, packing);
    let outputs = vec![
        out("tree", "d", Packing::None),
        out("plain", "d/one.txt", Packing::None),
        out("packed", "d", Packing::Tar { level: None }),
        out("full", "d/one.txt", Packing::None),
        out("broken", "d/one.txt", Packing::None),
        out("barred", "d/one.txt", Packing::None),
        out("foreign", "d/one.txt", Packing::None),
    ];
    let script =
        format!("umask 077; mkdir -p {0}/d/e; echo 1 > {0}/d/one.txt; echo 2 > {0}/d/e/two", work.display());
    let shared = root.path().join("shared");
    let outcome = step(&executors, &mut events, 1, &shared, (&driver, &script, outputs)).await;
    let name = &folder.0;
    let problems = [
        format!("plugin {name} save failed: the disk is full"),
        format!("plugin {name} save failed: rpc error: code = PermissionDenied desc = 100% not yours"),
        "not this one".to_owned(),
        format!("the driver {name} keeps no artifact foreign"),
    ];
    assert_eq!(outcome.output_error, format!("{}; ", problems.join("; ")));
    let saved: Vec<(&str, bool)> =
        outcome.artifacts.iter().map(|one| (one.name.as_str(), one.directory)).collect();
    assert_eq!(saved, [("tree", true), ("plain", false), ("packed", false)]);
    assert_eq!((outcome.artifacts[1].size, outcome.artifacts[1].digest.len()), (2, 64));
    assert_eq!(objects.keys(), ["keys/packed", "keys/plain", "keys/tree/e/two", "keys/tree/one.txt"]);
    let saves = |operation: &&Operation| matches!(operation, Operation::Save { .. });
    let asked = agent.0.lock().unwrap().iter().filter(saves).count();
    assert_eq!(asked, 6, "the agent is asked before each save that the template declares");
    let left = std::fs::read_dir(shared.join("outputs/artifacts")).unwrap().count();
    assert_eq!(left, 0, "nothing stays of what was saved");

    let into = root.path().join("in");
    let input = |name: &str, mode| InputFile {
        name: name.to_owned(),
        path: into.join(name).to_string_lossy().into_owned(),
        mode,
        ..InputFile::default()
    };
    let wanted = vec![input("tree", None), input("plain", Some(0o640)), input("packed", None)];
    assert_eq!(load(&executors, 2, &driver, wanted), (true, String::new()));
    let read = |file: &str| std::fs::read_to_string(into.join(file)).unwrap();
    assert_eq!(
        (read("tree/e/two"), read("plain"), read("packed/one.txt")),
        ("2\n".into(), "1\n".into(), "1\n".into())
    );
    let mode = |file: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(into.join(file)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("plain"), mode("tree")), (0o640, 0o777));
    assert_eq!(std::fs::read_dir(&into).unwrap().count(), 3, "nothing is left beside them");
    let deleting =
        Driver { artifacts: vec![artifact("tree", &there), artifact("packed", &there)], ..driver.clone() };
    let task = Task { driver: Some(deleting), ..Task::default() };
    let deleted = command(&executors, fence(4), &task, &["driver-delete"]).status().unwrap();
    assert_eq!((deleted.success(), objects.keys()), (true, vec!["keys/plain".to_owned()]));
    let refusing = Driver { artifacts: vec![artifact("full", "fail: it is locked")], ..driver.clone() };
    let task = Task { driver: Some(refusing), ..Task::default() };
    let refused =
        command(&executors, fence(5), &task, &["driver-delete"]).stderr(Stdio::piped()).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(told, format!("argosy-executor: plugin {name} delete failed: it is locked\n"));
    objects.with(std::collections::BTreeMap::clear);
    let (done, told) = load(&executors, 3, &driver, vec![input("plain", None)]);
    let expected =
        format!("artifact plain failed to load: plugin {name} load failed: no such key: keys/plain\n");
    assert_eq!((done, told), (false, format!("argosy-executor: {expected}")));
    served.abort();
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_is_not_there_is_waited_for_and_named() {
    let root = tempfile::tempdir().unwrap();
    let (serving, executors, _sender, _events) = server(root.path()).await;
    let folder = Folder::new("mute");
    let name = &folder.0;
    let mut driver =
        Driver { name: name.clone(), connection_timeout_seconds: 1, artifacts: vec![artifact("x", "")] };
    let input = InputFile {
        name: "x".to_owned(),
        path: root.path().join("x").to_string_lossy().into_owned(),
        ..InputFile::default()
    };
    let (done, told) = load(&executors, 1, &driver, vec![input.clone()]);
    let socket = driver_socket(name);
    let expected = format!(
        "argosy-executor: failed to create plugin driver for {name}: plugin {name} expected unix socket at \"{socket}\" \
         but it does not exist after waiting for 1 seconds\n"
    );
    assert_eq!((done, told), (false, expected));
    // Somebody listens and says nothing.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    driver.connection_timeout_seconds = 20;
    driver.artifacts[0].connection_timeout_seconds = 1;
    let (done, told) = load(&executors, 2, &driver, vec![input]);
    let expected = format!("timeout waiting for plugin {name} connection to become ready");
    assert!(!done && told.contains(&expected), "{told}");
    serving.abort();
}
