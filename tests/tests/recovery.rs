//! Disasters, with real processes: a backup that is restored while steps run on, and a quorum that is lost for good.

use anyhow::{Context, ensure};
use argosy_tests::cell::{Cell, Options};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinSet;

const WAIT: Duration = Duration::from_secs(60);

/// A directory that steps see as well: /tmp is each step's own.
fn shared_directory() -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// A workflow whose step runs until its file appears, then writes how often it ran.
fn until_file(name: &str, directory: &Path) -> Value {
    let (go, ran) = (directory.join(format!("{name}.go")), directory.join(format!("{name}.ran")));
    let script = format!(
        "echo ran >> {}; while [ ! -e {} ]; do sleep 0.1; done; echo done",
        ran.display(),
        go.display()
    );
    let leaf =
        json!({"name": "main", "container": {"image": "busybox", "command": ["sh", "-c"], "args": [script]}});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [leaf]},
    })
}

fn ran(name: &str, directory: &Path) -> usize {
    let text = std::fs::read_to_string(directory.join(format!("{name}.ran"))).unwrap_or_default();
    text.lines().count()
}

async fn running(cell: &Cell, name: &str, directory: &Path) -> anyhow::Result<()> {
    cell.until(WAIT, "the step to run", async || (ran(name, directory) == 1).then_some(())).await?;
    cell.until(WAIT, "the step to be known as running", async || {
        let workflow = cell.get(&format!("/api/v1/workflows/default/{name}")).await.ok()?;
        let nodes = workflow["status"]["nodes"]
            .as_object()?
            .values()
            .any(|node| node["phase"] == "Running" && node["type"] == "Pod");
        nodes.then_some(())
    })
    .await
}

async fn cluster(cell: &Cell, name: &str) -> Option<Value> {
    cell.get(&format!("/api/v1/clusters/{name}")).await.ok()
}

/// A store beside the cell, and what tells `argosy` of it.
struct Bucket {
    environment: Vec<(String, String)>,
    _serving: JoinSet<()>,
}

impl Bucket {
    async fn start() -> anyhow::Result<Self> {
        let objects = tempfile::tempdir()?.keep();
        let options =
            argosy_objects::Options::new("127.0.0.1:0".parse()?, objects, "access-key", "secret-key");
        let server = argosy_objects::Server::start(options).await?;
        let endpoint = format!("http://{}", server.address());
        let environment = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "access-key"),
            ("AWS_SECRET_ACCESS_KEY", "secret-key"),
        ];
        let mut serving = JoinSet::new();
        serving.spawn(server.run());
        let owned = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Self { environment: owned.to_vec(), _serving: serving })
    }

    /// `argosy ARGUMENTS`, which has to go well.
    fn argosy(&self, cell: &Cell, arguments: &[&str]) -> anyhow::Result<String> {
        let (well, text) = cell.try_argosy_with(arguments, &self.environment)?;
        ensure!(well, "argosy {arguments:?}: {text}");
        Ok(text)
    }

    /// A backup of the cell in the bucket: its URL.
    fn backup_of(&self, cell: &Cell) -> anyhow::Result<String> {
        let printed = self.argosy(cell, &["backup", "create", "s3://argosy/cells/backups/"])?;
        ensure!(printed.contains("workflows under way"), "{printed}");
        let backup = printed.split(": ").next().context("a name")?.to_owned();
        ensure!(backup.starts_with("s3://argosy/cells/backups/") && backup.ends_with(".backup"), "{printed}");
        let verified = self.argosy(cell, &["backup", "verify", &backup])?;
        ensure!(verified.contains("whole"), "{verified}");
        Ok(backup)
    }
}

fn backup_of(cell: &Cell) -> anyhow::Result<PathBuf> {
    let directory = cell.directory.path().join("backups");
    let printed = cell.argosy(&["backup", "create", &directory.display().to_string()])?;
    let found = std::fs::read_dir(&directory)?.next().context("a backup")??.path();
    ensure!(printed.contains("workflows under way"), "{printed}");
    cell.argosy(&["backup", "verify", &found.display().to_string()])?;
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_lies_in_a_directory_and_what_is_missing_in_a_bucket_is_said() -> anyhow::Result<()> {
    let cell = Cell::start(&Options { members: 1, ..Options::default() }).await?;
    backup_of(&cell)?;
    let bucket = Bucket::start().await?;
    let (well, text) =
        cell.try_argosy_with(&["backup", "verify", "s3://argosy/none.backup"], &bucket.environment)?;
    assert!(!well && text.contains("s3://argosy/none.backup: there is no such backup"), "{text}");
    let (well, text) = cell.try_argosy_with(&["backup", "create", "s3://nowhere/x"], &bucket.environment)?;
    assert!(!well && text.contains("s3://nowhere/x/"), "{text}");
    assert!(!text.contains("secret-key"), "{text}");
    Ok(())
}

/// Revokes a cluster's identity, and waits for the member to have that on its own record.
async fn revoke_and_record(cell: &Cell, name: &str, member: u64) -> anyhow::Result<()> {
    cell.argosy(&["cluster", "revoke", name, "--reason", "the host was sold"])?;
    let record = cell.configs[&member].pki_dir.join("revocations.json");
    cell.until(WAIT, "the revocation to be on record", async || {
        std::fs::read_to_string(&record).ok()?.contains(name).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cell_adopts_what_it_knows_and_leaves_the_rest_in_quarantine() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    let files = shared_directory()?;
    cell.start_agent("east").await?;
    cell.start_agent("sold").await?;
    cell.wait_for_clusters(2).await?;
    cell.argosy(&["cluster", "cordon", "sold"])?;
    cell.submit(&until_file("known", files.path())).await?;
    running(&cell, "known", files.path()).await?;
    let bucket = Bucket::start().await?;
    let backup = bucket.backup_of(&cell)?;
    revoke_and_record(&cell, "sold", 2).await?;
    cell.submit(&until_file("unknown", files.path())).await?;
    running(&cell, "unknown", files.path()).await?;
    for member in [1, 2, 3] {
        cell.kill_member(member);
        std::fs::remove_dir_all(&cell.configs[&member].data_dir)?;
    }
    let config = cell.directory.path().join("member-2.yaml").display().to_string();
    bucket.argosy(&cell, &["backup", "restore", &backup, "--config", &config])?;
    cell.start_member(2)?;
    cell.until(WAIT, "the cluster to be reconciled", async || {
        let recovery = cluster(&cell, "east").await?["recovery"].clone();
        (recovery["reconciling"] == json!(false)).then_some(())
    })
    .await?;
    // What was revoked after the backup was made stays out.
    cell.until(WAIT, "the revocation to be known again", async || {
        let cluster = cluster(&cell, "sold").await?;
        (cluster["identity"]["standing"] == json!("revoked")).then_some(())
    })
    .await?;
    let sold = cluster(&cell, "sold").await.context("the cluster")?;
    assert!(sold["recovery"]["reconciling"] == json!(true), "it was never let in: {sold}");
    let found = cluster(&cell, "east").await.context("the cluster")?["recovery"].clone();
    assert_eq!(found["adopted"], json!(2), "{found}");
    assert_eq!(found["rerun"], json!(0), "{found}");
    assert_eq!(found["quarantined"].as_array().map(Vec::len), Some(1), "{found}");
    let printed = cell.argosy(&["recovery"])?;
    assert!(printed.contains("reconciled"), "{printed}");
    // The known step goes on and is the only one of its kind.
    std::fs::write(files.path().join("known.go"), "")?;
    let done = cell.finished("known", WAIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    assert_eq!(ran("known", files.path()), 1);
    // The unknown one is stopped when the operator says so.
    cell.argosy(&["recovery", "--release", "east"])?;
    cell.until(WAIT, "the quarantine to be empty", async || {
        let recovery = cluster(&cell, "east").await?["recovery"].clone();
        recovery["quarantined"].as_array()?.is_empty().then_some(())
    })
    .await?;
    // A member that was lost joins again, under a new number or its old one.
    let addresses = cell.start_joining(4)?;
    let body = json!({"id": 4, "peer": addresses.peer, "agent": addresses.agent, "api": addresses.api});
    cell.post("/api/v1/members", &body).await?;
    cell.until(WAIT, "the new member to vote", async || {
        let members = cell.get("/api/v1/members").await.ok()?;
        let votes = |member: &Value| member["id"] == json!(4) && member["role"] == "follower";
        members["items"].as_array()?.iter().any(votes).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_member_goes_on_alone_and_its_steps_run_on() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    let files = shared_directory()?;
    cell.start_agent("east").await?;
    cell.wait_for_clusters(1).await?;
    cell.submit(&until_file("step", files.path())).await?;
    running(&cell, "step", files.path()).await?;
    for member in [1, 2, 3] {
        cell.kill_member(member);
    }
    let config = cell.directory.path().join("member-1.yaml").display().to_string();
    let refused = cell.argosy(&["recover", "--config", &config, "--lost", "2"]).expect_err("3 is not named");
    assert!(refused.to_string().contains("--lost 2,3"), "{refused}");
    cell.argosy(&["recover", "--config", &config, "--lost", "2,3"])?;
    cell.start_member(1)?;
    cell.until(WAIT, "the cluster to be reconciled", async || {
        let recovery = cluster(&cell, "east").await?["recovery"].clone();
        (recovery["adopted"] == json!(1)).then_some(())
    })
    .await?;
    std::fs::write(files.path().join("step.go"), "")?;
    let done = cell.finished("step", WAIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    assert_eq!(ran("step", files.path()), 1);
    Ok(())
}
