//! Benchmarks: what `tests/bench/run` measures and prints.
//!
//! `commit`: replicated commits of three members beside an etcd of three members, by one and the same load generator,
//! and submissions over the REST API. `steps`: no-op steps end to end on simulated clusters. (`engine` is a package of its
//! own beside this one, `chaos` the simulator's own binary.)
//!
//! What it does not do: no verdicts. Figures move from machine to machine; only those of one run compare.
//!
//! Failure model: a benchmark that can't start or loses something it was promised ends with an error.

mod agents;
mod cell;
mod commit;
mod etcd;
mod figures;
mod load;
mod member;
mod rest;
mod steps;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Benchmarks of Argosy.
#[derive(Debug, Parser)]
#[command(name = "argosy-bench")]
struct Arguments {
    /// Where members keep their data: the disk that is measured
    #[arg(long, default_value = "/var/tmp", global = true)]
    directory: PathBuf,
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// Replicated commits, beside etcd's
    Commit(commit::Arguments),
    /// Submissions over REST
    Rest(rest::Arguments),
    /// No-op steps end to end
    Steps(steps::Arguments),
    /// One member of the `commit` suite
    #[command(hide = true)]
    Member(member::Arguments),
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let directory = arguments.directory;
    // Beside members and etcd on a small machine: a thread less to switch to.
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.suite {
        Suite::Commit(arguments) => tokio.block_on(commit::run(&directory, &arguments)),
        Suite::Rest(arguments) => tokio.block_on(rest::run(&directory, &arguments)),
        Suite::Steps(arguments) => tokio.block_on(steps::run(&directory, &arguments)),
        Suite::Member(arguments) => tokio.block_on(member::run(arguments)),
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("argosy-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
