//! The binary `argosy`: a control-plane member, a whole cell for development, and the command line.

use argosy_cli::Cli;
use argosy_server::config::ServerConfig;
use argosy_server::dev::{DevArguments, DevCell, interrupted};
use argosy_server::{core, demo, run};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// Runs Argo workflows over many clusters.
#[derive(Parser)]
#[command(name = "argosy", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    global: argosy_cli::GlobalArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a control-plane member
    Server {
        /// Its configuration (see docs/configuration.md)
        #[arg(long)]
        config: PathBuf,
    },
    /// Run a cell of members and process clusters on this machine
    Dev(DevArguments),
    /// Run the demonstration: a cell, a workflow, and the loss of a cluster
    Demo(demo::DemoArguments),
    /// Make the certificate authority of a new cell
    Pki {
        #[command(subcommand)]
        command: PkiCommand,
    },
    #[command(flatten)]
    Client(argosy_cli::Command),
}

#[derive(Subcommand)]
enum PkiCommand {
    /// Write ca.pem and ca.key; copy the directory to every member
    Init {
        /// The cell's name
        #[arg(long)]
        cell: String,
        /// Where to
        #[arg(long)]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    runtime.block_on(async {
        match carry_out(arguments).await {
            Ok(code) => code,
            Err(error) => fail(&error),
        }
    })
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

async fn carry_out(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Server { config } => {
            argosy_telemetry::init(&argosy_telemetry::Options::from_environment())?;
            let stop = CancellationToken::new();
            let on_signal = stop.clone();
            tokio::spawn(async move {
                interrupted().await;
                on_signal.cancel();
            });
            run::run(ServerConfig::read(&config)?, stop).await?;
        }
        Command::Dev(options) => {
            let cell = tokio::select! {
                started = DevCell::start(&options, &|text| eprintln!("{text}")) => started?,
                () = interrupted() => return Ok(ExitCode::FAILURE),
            };
            println!("{}", demo::how_to_go_on(&cell));
            cell.run_until_interrupted().await?;
        }
        Command::Demo(options) => return demo::run(options).await,
        Command::Pki { command: PkiCommand::Init { cell, dir } } => {
            let now_ms = core::clock().wall_ms;
            argosy_pki::Authority::load_or_create(&dir, &cell, now_ms, argosy_pki::Lifetimes::default())?;
            println!("the authority of cell {cell} is in {}: keep ca.key secret", dir.display());
        }
        Command::Client(argosy_cli::Command::Completion(shell)) => {
            argosy_cli::completion(&shell, &mut <Arguments as clap::CommandFactory>::command());
        }
        Command::Client(command) => {
            return Ok(argosy_cli::run(Cli { global: arguments.global, command }).await);
        }
    }
    Ok(ExitCode::SUCCESS)
}
