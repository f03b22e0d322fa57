//! Benchmarks of the executor's binary as its image holds it: how long it takes to start a command, how much memory it needs,
//! and how fast it moves artifacts between files and a store, beside curl with the same signed requests.
//!
//! The agent's own server answers it, in this process; the store is the embedded one, in a process of its own. What the
//! executor adds to a Pod is measured on a real cluster (`tests/tests/kubernetes_executor.rs`).
//!
//! No verdicts: figures move from machine to machine; only those of one run compare.

mod agent;
#[path = "../../src/figures.rs"]
mod figures;
mod starts;
mod transfers;

use anyhow::Context;
use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;

/// Benchmarks of the executor.
#[derive(Debug, Parser)]
#[command(name = "argosy-bench-executor")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From the start of the executor to the start of its command
    Starts {
        /// The executor's binary
        #[arg(long)]
        executor: PathBuf,
        /// How often
        #[arg(long, default_value_t = 200)]
        times: usize,
    },
    /// Up to a store and down again, beside curl
    Artifacts {
        /// The executor's binary
        #[arg(long)]
        executor: PathBuf,
        /// Where files and objects lie meanwhile
        #[arg(long)]
        directory: PathBuf,
        /// Size of the file, MiB
        #[arg(long, default_value_t = 512)]
        mebibytes: u64,
        /// How often each way
        #[arg(long, default_value_t = 2)]
        rounds: usize,
    },
    /// A store; prints where it listens
    #[command(hide = true)]
    Store {
        /// Where the objects lie
        directory: PathBuf,
    },
    /// Prints the time since the machine's start, nanoseconds
    #[command(hide = true)]
    Stamp,
}

/// CLOCK_MONOTONIC, nanoseconds: the same in all processes.
fn stamp() -> i128 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or((0, 0), |now| (now.tv_sec(), now.tv_nsec()));
    i128::from(now.0) * 1_000_000_000 + i128::from(now.1)
}

async fn store(directory: PathBuf) -> anyhow::Result<()> {
    let options = argosy_objects::Options::new(
        "127.0.0.1:0".parse().context("an address")?,
        directory,
        transfers::ACCESS_KEY,
        transfers::SECRET_KEY,
    );
    let server = argosy_objects::Server::start(options).await?;
    println!("{}", server.address());
    std::io::stdout().flush()?;
    server.run().await;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if matches!(arguments.command, Command::Stamp) {
        println!("{}", stamp());
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        match arguments.command {
            Command::Starts { executor, times } => starts::run(&executor, times).await,
            Command::Artifacts { executor, directory, mebibytes, rounds } => {
                transfers::run(&executor, &directory, mebibytes, rounds).await
            }
            Command::Store { directory } => store(directory).await,
            Command::Stamp => Ok(()),
        }
    })
}
