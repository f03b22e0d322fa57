//! A file to a store and back: by the executor, and by curl with requests signed the same way.

use crate::agent::{Agent, Run};
use crate::figures::print_table;
use anyhow::{Context, ensure};
use argosy_artifacts::{Error, Limits, Secrets, Store, Stores};
use argosy_model::artifact_key;
use argosy_proto::common::{Assignment, Fence};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const ACCESS_KEY: &str = "access-key";
pub const SECRET_KEY: &str = "secret-key";
const PREFIX: &str = ".argosy/bench/";
const MEBIBYTE: u64 = 1 << 20;
/// Of a file whose memory is compared.
const SMALL_MEBIBYTES: u64 = 16;

struct Keys;

#[async_trait]
impl Secrets for Keys {
    async fn secret(&self, _: &str, _: &str, key: &str) -> Result<Option<String>, Error> {
        Ok(Some(if key == "access" { ACCESS_KEY } else { SECRET_KEY }.to_owned()))
    }
}

/// The embedded store as a process of its own; ended with the value.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(directory: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("store").arg(directory).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned() })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One way of moving the file.
struct Way {
    name: &'static str,
    times: Vec<Duration>,
    memory: Option<u64>,
}

struct World {
    agent: Agent,
    store: Store,
    location: Value,
    source: PathBuf,
    target: PathBuf,
    fence: u64,
}

impl World {
    fn location(&self, key: &str) -> Value {
        let mut location = self.location.clone();
        location["key"] = key.into();
        location
    }

    fn assignment(&mut self, template: &Value) -> Assignment {
        self.fence += 1;
        let fence = Fence { incarnation: 1, index: self.fence, ordinal: 0 };
        Assignment {
            fence: Some(fence),
            namespace: "default".to_owned(),
            artifact_prefix: PREFIX.to_owned(),
            template_json: template.to_string(),
            ..Assignment::default()
        }
    }

    /// Up by an executor; the key that its attempt stored at.
    async fn save(&mut self, source: &Path) -> anyhow::Result<(Run, String)> {
        let artifact =
            json!({"name": "x", "path": source, "archive": {"none": {}}, "s3": self.location("by-executor")});
        let assignment = self.assignment(&json!({"outputs": {"artifacts": [artifact]}}));
        let run = self.agent.run(&assignment, &["true"]).await?;
        ensure!(run.outcome.output_error.is_empty(), "{}", run.outcome.output_error);
        let fence = assignment.fence.context("an assignment has a fence")?;
        Ok((run, artifact_key(PREFIX, &fence, "by-executor")))
    }

    /// Down by an executor, which checks the digest.
    async fn load(&mut self, key: &str, digest: &str) -> anyhow::Result<Run> {
        let artifact = json!({"name": "x", "path": self.target, "archive": {"none": {}}, "s3": self.location(key),
            "argosy": {"key": key, "digest": digest}});
        let assignment = self.assignment(&json!({"inputs": {"artifacts": [artifact]}}));
        let run = self.agent.run(&assignment, &["true"]).await?;
        ensure!(run.outcome.input_error.is_empty(), "{}", run.outcome.input_error);
        Ok(run)
    }
}

/// In turns, so that all meet the same disk.
pub async fn run(executor: &Path, directory: &Path, mebibytes: u64, rounds: usize) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("argosy-bench-").tempdir_in(directory)?;
    let serving = Serving::start(&directory.path().join("store"))?;
    let secret = |key: &str| json!({"name": "store", "key": key});
    let location = json!({"endpoint": serving.address, "insecure": true, "bucket": "argosy", "region": "us-east-1",
        "accessKeySecret": secret("access"), "secretKeySecret": secret("secret")});
    let stores = Arc::new(Stores::new(Arc::new(Keys), Limits::default()));
    let whole = json!({"s3": location});
    let store = stores.open("default", whole.as_object().context("an object")?).await?;
    let agent = Agent::start(executor, Some(stores)).await?;
    let source = directory.path().join("source");
    write_random(&source, mebibytes)?;
    let small = directory.path().join("small");
    write_random(&small, SMALL_MEBIBYTES)?;
    let target = directory.path().join("target");
    let mut world = World { agent, store, location, source: source.clone(), target, fence: 0 };
    let small_memory = world.save(&small).await?.0.resident_bytes_max;
    let way = |name| Way { name, times: Vec::new(), memory: None };
    let mut ways = [
        way("up: the executor, in parts, with a digest"),
        way("up: curl, one request"),
        way("down: the executor, digest checked"),
        way("down: curl"),
    ];
    for _ in 0..rounds {
        let [up, curl_up, down, curl_down] = &mut ways;
        let (run, key) = world.save(&source).await?;
        up.add(run.time, Some(run.resident_bytes_max));
        let put = world.store.sign_put("by-curl").await?.url;
        curl_up.add(curl(&["--upload-file", &world.source.to_string_lossy(), &put])?, None);
        let digest = run.outcome.artifacts.first().context("an artifact")?.digest.clone();
        let run = world.load(&key, &digest).await?;
        down.add(run.time, Some(run.resident_bytes_max));
        let get = world.store.sign_get(&key).await?.url;
        curl_down.add(curl(&["--output", &world.target.to_string_lossy(), &get])?, None);
        world.store.delete(&key).await?;
        world.store.delete("by-curl").await?;
    }
    let rows: Vec<Vec<String>> = ways.iter().map(|way| way.cells(mebibytes)).collect();
    let title = format!("A file of {mebibytes} MiB, a store on the same disk, the better of {rounds}");
    print_table(&title, &["", "MiB/s", "time", "peak memory"], &rows);
    println!("with a file of {SMALL_MEBIBYTES} MiB its peak was {:.1} MB", small_memory as f64 / 1e6);
    Ok(())
}

impl Way {
    fn add(&mut self, time: Duration, memory: Option<u64>) {
        self.times.push(time);
        self.memory = self.memory.max(memory);
    }

    fn cells(&self, mebibytes: u64) -> Vec<String> {
        let best = self.times.iter().min().copied().unwrap_or_default().as_secs_f64();
        let memory = self.memory.map_or_else(String::new, |bytes| format!("{:.1} MB", bytes as f64 / 1e6));
        vec![self.name.to_owned(), format!("{:.0}", mebibytes as f64 / best), format!("{best:.1} s"), memory]
    }
}

fn curl(arguments: &[&str]) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let status =
        Command::new("curl").args(["--silent", "--show-error", "--fail"]).args(arguments).status()?;
    ensure!(status.success(), "curl failed: {status}");
    Ok(begun.elapsed())
}

/// Bytes that nothing on the way can shorten, on the disk before anything is measured.
fn write_random(path: &Path, mebibytes: u64) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    let mut random = File::open("/dev/urandom")?;
    let mut piece = vec![0; usize::try_from(MEBIBYTE)?];
    for _ in 0..mebibytes {
        std::io::Read::read_exact(&mut random, &mut piece)?;
        file.write_all(&piece)?;
    }
    Ok(file.sync_all()?)
}
