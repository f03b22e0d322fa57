//! Benchmarks of what decides, alone: no disk, no network, one thread. A package of its own, so that it is built without
//! the rest of the system.
//!
//! Suites: a manifest of many templates, read and validated; the cost of one event in small and huge workflows; memory
//! of a node at rest; a wide fan-out from submission until everything is assigned; the loss of a cluster; steps within
//! steps.
//!
//! No verdicts: figures move from machine to machine; only those of one run compare.

mod events;
#[path = "../../src/figures.rs"]
#[expect(dead_code, reason = "shared with the other benchmarks, which use more of it")]
mod figures;
mod loss;
mod manifest;
mod nested;
mod rest;
mod world;

use clap::Parser;
use std::process::ExitCode;

/// See src/decisions/0036-allocator.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Benchmarks of the engine alone.
#[derive(Debug, Parser)]
#[command(name = "argosy-bench-engine")]
struct Arguments {
    /// Nodes of the workflows whose events are timed
    #[arg(long, value_delimiter = ',', default_value = "10,10000,1000000")]
    nodes: Vec<usize>,
    /// Events that are timed for each size
    #[arg(long, default_value_t = 5_000)]
    events: usize,
    /// Width of the fan-out that is assigned whole
    #[arg(long, default_value_t = 100_000)]
    width: usize,
    /// Templates of the manifest that is read
    #[arg(long, default_value_t = 5_000)]
    templates: usize,
    /// Steps templates within each other
    #[arg(long, default_value_t = 1_000)]
    depth: usize,
    /// Running steps of a cluster that dies
    #[arg(long, default_value_t = 10_000)]
    losing: usize,
    /// Nodes whose memory is measured
    #[arg(long, default_value_t = 200_000)]
    resting: usize,
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // First: what others leave to the allocator would be counted as used.
    rest::run(arguments.resting)?;
    manifest::run(arguments.templates)?;
    events::run(&arguments.nodes, arguments.events)?;
    events::fan_out_assigned(arguments.width)?;
    loss::run(arguments.losing)?;
    nested::run(arguments.depth)
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("argosy-bench-engine: {error:#}");
            ExitCode::FAILURE
        }
    }
}
