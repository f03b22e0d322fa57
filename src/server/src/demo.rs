//! `argosy demo`: a cell, a workflow over three clusters, the loss of one of them, and how its steps move.

use crate::dev::{DevArguments, DevCell, interrupted};
use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The workflow, as in the repository.
const WORKFLOW: &str = include_str!("../../../examples/fan-out.yaml");
/// The demonstration's lease; the default is 15 s.
const LEASE_MS: u64 = 3_000;
/// For everything after the submission.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at the workflow.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// News above the tree.
const NEWS_SHOWN: usize = 10;
/// Terminal codes: home, and no wrapping of long lines, which would shift what is drawn below them.
const DRAW_FROM_THE_TOP: &str = "\x1b[H\x1b[?7l";
/// Clears what an earlier, longer line left.
const NEXT_LINE: &str = "\x1b[K\r\n";
/// Clears below, wraps again.
const DRAWN: &str = "\x1b[J\x1b[?7h";

/// Options of `argosy demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArguments {
    /// Without a terminal, and ending by itself: exit code 0 if every step moved and the workflow succeeded
    #[arg(long)]
    pub ci: bool,
    /// Keeps state, logs and certificates here [default: a fresh directory in the system's temporary one]
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// First port
    #[arg(long, default_value_t = 2746)]
    pub port: u16,
}

/// Runs the demonstration.
///
/// # Errors
/// Something did not start, or did not go as it should.
pub async fn run(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    let data_dir = match arguments.data_dir {
        Some(directory) => directory,
        None => std::env::temp_dir().join(format!("argosy-demo-{}", std::process::id())),
    };
    let options = DevArguments {
        data_dir: Some(data_dir),
        port: arguments.port,
        lease_ms: LEASE_MS,
        reset: true,
        ..DevArguments::default()
    };
    println!(
        "This demonstration uses a lease of {} s, so that a lost cluster is found out sooner than by the default of 15 s.",
        LEASE_MS / 1_000
    );
    let mut cell = tokio::select! {
        started = DevCell::start(&options, &|text| println!("  {text}")) => started?,
        // What was started ends with the future that holds it.
        () = interrupted() => return Ok(ExitCode::FAILURE),
    };
    let mut stage = Stage::new(arguments.ci);
    let outcome = tokio::select! {
        outcome = stage.play(&mut cell) => outcome,
        () = interrupted() => {
            cell.stop();
            println!("\nstopped");
            return Ok(if arguments.ci { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    };
    let failed = outcome.is_err();
    if let Err(error) = &outcome {
        println!("the demonstration FAILED: {error:#}");
    }
    if arguments.ci || failed {
        cell.stop();
        return Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    println!("{}", how_to_go_on(&cell));
    cell.run_until_interrupted().await?;
    Ok(ExitCode::SUCCESS)
}

/// Where the API is, and commands to try.
#[must_use]
pub fn how_to_go_on(cell: &DevCell) -> String {
    let binary = std::env::current_exe().unwrap_or_else(|_| "argosy".into());
    let servers =
        cell.servers.iter().map(|server| format!("https://{server}")).collect::<Vec<_>>().join("  ");
    format!(
        "
API of the members   {servers}
token                {token}
logs                 {logs}

Try in another terminal (the command line finds the cell by itself):
  export PATH={path}:$PATH
  argosy cluster list
  argosy submit --watch examples/steps.yaml
  argosy list
  argosy logs @latest

Ctrl-C stops everything.",
        token = cell.directory.join("token").display(),
        logs = cell.directory.join("logs").display(),
        path = binary.parent().unwrap_or(&binary).display(),
    )
}

/// What has been seen of one attempt.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    cluster: String,
    phase: String,
}

/// The live view and what it has told so far.
struct Stage {
    terminal: bool,
    told: Vec<String>,
    attempts: BTreeMap<(String, String), Seen>,
    began: Instant,
}

impl Stage {
    fn new(ci: bool) -> Self {
        Self {
            terminal: !ci && std::io::stdout().is_terminal(),
            told: Vec::new(),
            attempts: BTreeMap::new(),
            began: Instant::now(),
        }
    }

    async fn play(&mut self, cell: &mut DevCell) -> anyhow::Result<()> {
        let manifest: Value = serde_yaml::from_str(WORKFLOW)?;
        let submitted = cell.client.post("/api/v1/workflows/default", &json!({"workflow": manifest})).await?;
        let name =
            submitted["metadata"]["name"].as_str().context("a submitted workflow has a name")?.to_owned();
        self.began = Instant::now();
        if self.terminal {
            print!("\x1b[2J");
        }
        self.tell(&format!("submitted workflow {name}"));
        let path = format!("/api/v1/workflows/default/{name}");
        let lost = self.until_spread(cell, &path).await?;
        let (cluster, mut agent) = take_agent(cell, &lost)?;
        self.tell(&format!("cluster {cluster} loses its power: agent and steps are killed"));
        agent.lose();
        let workflow = self.until_over(cell, &path).await?;
        self.verdict(&workflow, &cluster)
    }

    /// Waits until steps run on every cluster; chooses the one with most of them.
    async fn until_spread(&mut self, cell: &DevCell, path: &str) -> anyhow::Result<String> {
        let wanted = cell.agents.len();
        loop {
            self.look(cell, path).await?;
            let mut running: BTreeMap<&str, usize> = BTreeMap::new();
            for seen in self.attempts.values().filter(|seen| seen.phase == "Running") {
                *running.entry(&seen.cluster).or_default() += 1;
            }
            if running.len() >= wanted
                && let Some((cluster, _)) = running.iter().max_by_key(|(_, steps)| **steps)
            {
                return Ok((*cluster).to_owned());
            }
            self.in_time("steps to run on every cluster")?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn until_over(&mut self, cell: &DevCell, path: &str) -> anyhow::Result<Value> {
        loop {
            let workflow = self.look(cell, path).await?;
            if matches!(workflow["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Error")) {
                return Ok(workflow);
            }
            self.in_time("the workflow to end")?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn in_time(&self, what: &str) -> anyhow::Result<()> {
        ensure!(self.began.elapsed() < TIME_LIMIT, "waited {} s for {what}", TIME_LIMIT.as_secs());
        Ok(())
    }

    /// Reads the workflow, tells what is new and draws it.
    async fn look(&mut self, cell: &DevCell, path: &str) -> anyhow::Result<Value> {
        let workflow = cell.client.get(path).await?;
        let nodes = workflow["status"]["nodes"].as_object().cloned().unwrap_or_default();
        for node in nodes.values() {
            let display = node["displayName"].as_str().unwrap_or_default().to_owned();
            for attempt in node["attempts"].as_array().into_iter().flatten() {
                self.attempt(&display, attempt);
            }
        }
        self.draw(&workflow);
        Ok(workflow)
    }

    fn attempt(&mut self, node: &str, attempt: &Value) {
        let text = |name: &str| attempt[name].as_str().unwrap_or_default().to_owned();
        let fence = text("fence");
        let seen = Seen { cluster: text("cluster"), phase: text("phase") };
        let key = (node.to_owned(), fence.clone());
        if self.attempts.get(&key) == Some(&seen) {
            return;
        }
        let again = self.attempts.keys().any(|(other, other_fence)| other == node && *other_fence != fence);
        let news = match (seen.phase.as_str(), self.attempts.contains_key(&key)) {
            ("Fenced", _) => Some(format!(
                "{node}: its attempt on {} is fenced: whatever it reports is refused",
                seen.cluster
            )),
            (_, false) if again => Some(format!("{node}: starts again on {}", seen.cluster)),
            (_, false) => Some(format!("{node}: goes to {}", seen.cluster)),
            (_, true) => None,
        };
        self.attempts.insert(key, seen);
        if let Some(news) = news {
            self.tell(&news);
        }
    }

    fn tell(&mut self, text: &str) {
        let line = format!("{:5.1} s  {text}", self.began.elapsed().as_secs_f64());
        let loss = text.contains("fenced") || text.contains("killed");
        let line = if self.terminal && loss { format!("\x1b[35m{line}\x1b[0m") } else { line };
        if !self.terminal {
            println!("  {line}");
        }
        self.told.push(line);
    }

    /// The last news above the tree of steps, drawn over what was there.
    fn draw(&mut self, workflow: &Value) {
        if !self.terminal {
            return;
        }
        let tree = argosy_cli::workflow_text(workflow).unwrap_or_default();
        let news = self.told.iter().rev().take(NEWS_SHOWN).rev().map(String::as_str);
        let mut screen = String::from(DRAW_FROM_THE_TOP);
        for line in news.chain([""]).chain(tree.trim_end().lines()) {
            screen.push_str(line);
            screen.push_str(NEXT_LINE);
        }
        screen.push_str(DRAWN);
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(screen.as_bytes());
        let _ = out.flush();
    }

    /// What was promised: everything of the lost cluster moved, and each step has one result.
    fn verdict(&mut self, workflow: &Value, lost: &str) -> anyhow::Result<()> {
        if !self.terminal {
            anstream::print!("{}", argosy_cli::workflow_text(workflow).unwrap_or_default());
        }
        let phase = workflow["status"]["phase"].as_str().unwrap_or_default();
        ensure!(phase == "Succeeded", "the workflow ended {phase}: {}", workflow["status"]["message"]);
        let fenced: Vec<&(String, String)> = self
            .attempts
            .iter()
            .filter(|(_, seen)| seen.cluster == lost && seen.phase == "Fenced")
            .map(|(key, _)| key)
            .collect();
        ensure!(!fenced.is_empty(), "no step of cluster {lost} was fenced");
        for (node, _) in &fenced {
            let elsewhere = |(key, seen): (&(String, String), &Seen)| key.0 == *node && seen.cluster != lost;
            ensure!(self.attempts.iter().any(elsewhere), "{node} did not move");
        }
        println!(
            "\n{} steps of the lost cluster {lost} were fenced and ran elsewhere; the workflow succeeded {:.1} s after its submission.",
            fenced.len(),
            self.began.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

fn take_agent(cell: &mut DevCell, cluster: &str) -> anyhow::Result<(String, crate::processes::Process)> {
    let index =
        cell.agents.iter().position(|(name, _)| name == cluster).context("the cluster has an agent")?;
    Ok(cell.agents.remove(index))
}
