//! The binary `argosy`: a control-plane member, a whole cell for development, and the command line.

use anyhow::Context;
use argosy_cli::Cli;
use argosy_server::config::{SealConfig, ServerConfig};
use argosy_server::dev::{DevArguments, DevCell, interrupted};
use argosy_server::{backup, backup_place, core, demo, run};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// See src/decisions/0036-allocator.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    /// Run the embedded object store, for small installations
    Store(StoreArguments),
    /// Make the certificate authority of a new cell, and seal its key
    Pki {
        #[command(subcommand)]
        command: PkiCommand,
    },
    /// Make, check and restore backups of the whole cell
    Backup {
        #[command(subcommand)]
        command: BackupCommand,
    },
    /// Go on with the last member of a cell whose others are lost for good (docs/operations.md)
    Recover {
        /// The survivor's configuration; it must not run
        #[arg(long)]
        config: PathBuf,
        /// The numbers of all other members, as in 2,3
        #[arg(long, value_delimiter = ',')]
        lost: Vec<u64>,
    },
    #[command(flatten)]
    Client(argosy_cli::Command),
}

/// An S3-compatible store over a directory, as a process of its own.
#[derive(clap::Args)]
struct StoreArguments {
    /// Where to listen
    #[arg(long, env = "ARGOSY_STORE_LISTEN", default_value = "0.0.0.0:2750")]
    listen: std::net::SocketAddr,
    /// Where the objects lie
    #[arg(long, env = "ARGOSY_STORE_DATA_DIR")]
    data_dir: PathBuf,
    /// The bucket that is there from the beginning
    #[arg(long, env = "ARGOSY_STORE_BUCKET", default_value = "argosy")]
    bucket: String,
    /// A file that holds the access key
    #[arg(long, env = "ARGOSY_STORE_ACCESS_KEY_FILE")]
    access_key_file: PathBuf,
    /// A file that holds the secret key
    #[arg(long, env = "ARGOSY_STORE_SECRET_KEY_FILE")]
    secret_key_file: PathBuf,
    /// Connections at one time
    #[arg(long, default_value_t = 1_024)]
    connections_max: usize,
}

async fn store(arguments: StoreArguments) -> anyhow::Result<()> {
    let key = |path: &PathBuf| -> anyhow::Result<String> {
        let text = std::fs::read_to_string(path).with_context(|| format!("key file {}", path.display()))?;
        anyhow::ensure!(!text.trim().is_empty(), "key file {} is empty", path.display());
        Ok(text.trim().to_owned())
    };
    let options = argosy_objects::Options {
        bucket: arguments.bucket,
        connections_max: arguments.connections_max,
        ..argosy_objects::Options::new(
            arguments.listen,
            arguments.data_dir,
            key(&arguments.access_key_file)?,
            key(&arguments.secret_key_file)?,
        )
    };
    let server = argosy_objects::Server::start(options).await?;
    tracing::info!(address = %server.address(), "the object store is listening");
    tokio::select! {
        () = server.run() => {}
        () = interrupted() => {}
    }
    Ok(())
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
        #[command(flatten)]
        seal: SealArguments,
    },
    /// Seal the authority's key with a key that is kept elsewhere, or with another one; without an option: open it for good
    Seal {
        /// Where ca.pem and ca.key are
        #[arg(long)]
        dir: PathBuf,
        #[command(flatten)]
        seal: SealArguments,
        /// What it is sealed with now: a file
        #[arg(long)]
        from_file: Option<PathBuf>,
        /// What it is sealed with now: a variable of the environment
        #[arg(long)]
        from_environment: Option<String>,
        /// What it is sealed with now: a command that prints it (words separated by spaces)
        #[arg(long)]
        from_command: Option<String>,
    },
}

/// What the authority's key is sealed with, as `caSeal` of the members' configuration.
#[derive(clap::Args)]
struct SealArguments {
    /// A file that holds the key
    #[arg(long)]
    seal_file: Option<PathBuf>,
    /// A variable of the environment that holds it
    #[arg(long)]
    seal_environment: Option<String>,
    /// A command that prints it (words separated by spaces)
    #[arg(long)]
    seal_command: Option<String>,
}

fn seal_key(
    file: Option<PathBuf>,
    environment: Option<String>,
    command: Option<String>,
) -> anyhow::Result<Option<argosy_pki::SealKey>> {
    if file.is_none() && environment.is_none() && command.is_none() {
        return Ok(None);
    }
    let command = command.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    argosy_server::seal::key(Some(&SealConfig { file, environment, command }))
}

fn pki(command: PkiCommand) -> anyhow::Result<()> {
    let lifetimes = argosy_pki::Lifetimes::default();
    match command {
        PkiCommand::Init { cell, dir, seal } => {
            let seal = seal_key(seal.seal_file, seal.seal_environment, seal.seal_command)?;
            let is_sealed = seal.is_some();
            let files = argosy_pki::AuthorityFiles::new(&dir, lifetimes, seal);
            match files.load()? {
                Some(loaded) => anyhow::ensure!(
                    loaded.issuing.trust_domain() == cell,
                    "{} holds the authority of cell {}",
                    dir.display(),
                    loaded.issuing.trust_domain()
                ),
                None => {
                    files.save(&argosy_pki::Authority::create(&cell, core::clock().wall_ms, lifetimes)?)?
                }
            }
            let advice = if is_sealed { "it is sealed" } else { "keep ca.key secret" };
            println!("the authority of cell {cell} is in {}: {advice}", dir.display());
        }
        PkiCommand::Seal { dir, seal, from_file, from_environment, from_command } => {
            let from = seal_key(from_file, from_environment, from_command)?;
            let to = seal_key(seal.seal_file, seal.seal_environment, seal.seal_command)?;
            let told = if to.is_some() { "sealed" } else { "in the clear" };
            argosy_pki::AuthorityFiles::new(&dir, lifetimes, from).seal_again(to)?;
            println!("the key in {} is {told} now: set caSeal of the members accordingly", dir.display());
        }
    }
    Ok(())
}

#[derive(Subcommand)]
enum BackupCommand {
    /// Write a backup of the running cell to a directory or a bucket, and read it back
    Create {
        /// Where to: a directory, made if missing, or s3://BUCKET/PREFIX (AWS_* in the environment name the store)
        place: String,
    },
    /// Check that a backup is whole and can be restored
    Verify {
        /// The backup: a file or s3://BUCKET/KEY
        backup: String,
    },
    /// Make a member's store from a backup; the others join it afterwards
    Restore {
        /// The backup: a file or s3://BUCKET/KEY
        backup: String,
        /// Configuration of the member that the cell begins anew with
        #[arg(long)]
        config: PathBuf,
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

async fn backup(command: BackupCommand, global: &argosy_cli::GlobalArguments) -> anyhow::Result<()> {
    let told = |checked: &backup::Checked| {
        let header = &checked.header;
        format!(
            "cell {}, incarnation {}, batch {}, {} rows, {} workflows under way",
            header.cell, header.incarnation, header.sequence, checked.rows, checked.workflows_active
        )
    };
    match command {
        BackupCommand::Create { place } => {
            let client = argosy_cli::client::Client::connect(global)?;
            let (backup, checked) = backup_place::create(&place, &client).await?;
            println!("{backup}: {}", told(&checked));
        }
        BackupCommand::Verify { backup } => {
            let local = backup_place::local(&backup).await?;
            println!("{backup}: whole; {}", told(&backup::verify(&local.path)?))
        }
        BackupCommand::Restore { backup, config } => {
            let config = ServerConfig::read(&config)?;
            let local = backup_place::local(&backup).await?;
            println!("restored: {}", told(&backup::restore(&local.path, &config)?));
            println!(
                "next: start member {} alone, look at `argosy recovery`, then let others join (argosy member add)",
                config.member
            );
        }
    }
    Ok(())
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
        Command::Store(options) => {
            argosy_telemetry::init(&argosy_telemetry::Options::from_environment())?;
            store(options).await?;
        }
        Command::Demo(options) => return demo::run(options).await,
        Command::Pki { command } => pki(command)?,
        Command::Backup { command } => backup(command, &arguments.global).await?,
        Command::Recover { config, lost } => {
            let config = ServerConfig::read(&config)?;
            let outlived = backup::recover(&config, &lost)?;
            let member = config.member;
            println!(
                "member {member} is the only one of its cell now, with entries up to {} ({} were known to be committed)",
                outlived.last_index, outlived.commit_index
            );
            println!(
                "never start the lost members again. Next: argosy server, then argosy recovery; docs/operations.md says how to add members"
            );
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `argosy pki seal` had two groups of one name.
    #[test]
    fn the_command_line_is_well_formed() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
