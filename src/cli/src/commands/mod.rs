//! What each command does.

mod archive;
mod authority;
mod cluster;
mod cluster_change;
mod config_map;
mod copy;
mod cron;
mod drill;
mod drill_shown;
mod failover;
mod follow;
mod lint;
mod list;
mod manifest;
mod member;
mod operate;
mod recovery;
mod remove;
mod show;
mod submit;
mod sync;
mod template;

use serde_json::Value;
use std::process::ExitCode;

use crate::client::{Client, Request, path};
use crate::context::{Context, Settings};
use crate::style::Style;
use crate::{Cli, Command, Completion, Console, Error, Output};

/// Carries a user's command out on the process's console.
pub async fn run(cli: Cli) -> ExitCode {
    let mut console = Console::of_process();
    let context = match Context::path().and_then(|path| Context::load(&path)) {
        Ok(context) => context,
        // Without a home there is no context file; flags and environment may still do.
        Err(Error::Setup(_)) => Context::default(),
        Err(error) => {
            console.tell(&format!("{} {error}", Style::Red.paint("error:")));
            return ExitCode::FAILURE;
        }
    };
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        code = run_with(cli, &context, &mut console) => ExitCode::from(code),
        // As shells have it for SIGINT.
        () = interrupted => ExitCode::from(130),
    }
}

/// Carries a user's command out: 0 for done, 1 for failed.
pub async fn run_with(cli: Cli, context: &Context, console: &mut Console) -> u8 {
    let settings = Settings::resolve(&cli.global, context, |name| std::env::var(name).ok());
    let namespace = cli.global.namespace.as_deref().unwrap_or_default();
    match carry_out(cli.command, &settings, namespace, console).await {
        Ok(good) => u8::from(!good),
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            console.tell(&format!("{} {error}", Style::Red.paint("error:")));
            1
        }
    }
}

/// Prints the completion script of a shell for a whole command line, which may have more commands than a user's.
pub fn completion(arguments: &Completion, root: &mut clap::Command) {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, root, "argosy", &mut script);
    // A closed pipe is the reader's choice.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
}

/// True unless a workflow that was waited for has failed. `namespace` is the one that was asked for by name.
async fn carry_out(
    command: Command,
    settings: &Settings,
    namespace: &str,
    console: &mut Console,
) -> Result<bool, Error> {
    match command {
        Command::Lint(arguments) => return lint::lint(&arguments, settings, namespace, console).await,
        Command::Schema => {
            console.print(&argosy_spec::json_schema_text())?;
            return Ok(true);
        }
        Command::Completion(arguments) => {
            completion(&arguments, &mut <Cli as clap::CommandFactory>::command());
            return Ok(true);
        }
        Command::Version(arguments) if arguments.short => {
            console.print(&format!("{}\n", env!("CARGO_PKG_VERSION")))?;
            return Ok(true);
        }
        Command::Submit(arguments) if arguments.from.is_some() => {
            return submit::from_template(&Client::of(settings)?, &arguments, console).await;
        }
        Command::Submit(arguments) => {
            let workflows = submit::read(&arguments, console)?;
            if arguments.dry_run {
                return submit::print_only(&arguments, &workflows, console);
            }
            let client = Client::of(settings)?;
            return submit::submit(&client, &arguments, workflows, console).await;
        }
        Command::List(_)
        | Command::Get(_)
        | Command::Watch(_)
        | Command::Wait(_)
        | Command::Logs(_)
        | Command::Copy(_)
        | Command::Stop(_)
        | Command::Terminate(_)
        | Command::Suspend(_)
        | Command::Resume(_)
        | Command::Retry(_)
        | Command::Resubmit(_)
        | Command::Node(_)
        | Command::Template(_)
        | Command::ClusterTemplate(_)
        | Command::ConfigMap(_)
        | Command::Sync(_)
        | Command::Cron(_)
        | Command::Archive(_)
        | Command::Delete(_)
        | Command::Cluster(_)
        | Command::Drill(_)
        | Command::Failover(_)
        | Command::Ca(_)
        | Command::Member(_)
        | Command::Recovery(_)
        | Command::Version(_) => {}
    }
    ask(command, &Client::of(settings)?, console).await
}

async fn ask(command: Command, client: &Client, console: &mut Console) -> Result<bool, Error> {
    match command {
        Command::Submit(_) | Command::Lint(_) | Command::Schema | Command::Completion(_) => Ok(true),
        Command::List(arguments) => list::list(client, &arguments, console).await,
        Command::Get(arguments) => show::get(client, &arguments, console).await,
        Command::Watch(arguments) => {
            let name = show::resolve(client, &arguments.name).await?;
            follow::watch(client, &client.namespace, &name, arguments.no_utf8, console).await
        }
        Command::Wait(arguments) => {
            let mut good = true;
            for name in &arguments.names {
                let name = show::resolve(client, name).await?;
                good &= follow::wait(client, &client.namespace, &name, console).await?;
            }
            Ok(good)
        }
        Command::Logs(arguments) => follow::logs(client, &arguments, console).await,
        Command::Copy(arguments) => copy::copy(client, &arguments, console).await,
        Command::Stop(arguments) => remove::shutdown(client, &arguments, "stop", console).await,
        Command::Terminate(arguments) => remove::shutdown(client, &arguments, "terminate", console).await,
        Command::Suspend(arguments) => operate::suspend(client, &arguments, console).await,
        Command::Resume(arguments) => operate::resume(client, &arguments, console).await,
        Command::Retry(arguments) => operate::retry(client, &arguments, console).await,
        Command::Resubmit(arguments) => operate::resubmit(client, &arguments, console).await,
        Command::Node(crate::args::Node::Set(arguments)) => operate::set(client, &arguments, console).await,
        Command::Template(command) => template::run(client, false, command, console).await,
        Command::ClusterTemplate(command) => template::run(client, true, command, console).await,
        Command::Sync(command) => sync::run(client, command, console).await,
        Command::ConfigMap(command) => config_map::run(client, command, console).await,
        Command::Archive(command) => archive::run(client, command, console).await,
        Command::Cron(command) => cron::run(client, command, console).await,
        Command::Delete(arguments) => remove::delete(client, &arguments, console).await,
        Command::Cluster(command) => cluster::cluster(client, command, console).await,
        Command::Drill(command) => drill::drill(client, command, console).await,
        Command::Failover(command) => failover::failover(client, command, console).await,
        Command::Recovery(arguments) => recovery::recovery(client, &arguments, console).await,
        Command::Ca(command) => authority::authority(client, command, console).await,
        Command::Member(command) => member::member(client, command, console).await,
        Command::Version(_) => version(client, console).await,
    }
}

async fn version(client: &Client, console: &mut Console) -> Result<bool, Error> {
    console.print(&format!("argosy: v{}\n", env!("CARGO_PKG_VERSION")))?;
    match client.get(&path(&["version"]), Request::default()).await {
        Ok(version) => {
            let text = |field: &str| version[field].as_str().unwrap_or_default().to_owned();
            console.print(&format!("server: {}\n  Platform: {}\n", text("version"), text("platform")))?;
            Ok(true)
        }
        Err(error) => {
            console.tell(&format!("server: {error}"));
            Ok(false)
        }
    }
}

/// One object in the chosen format; `None` when it has to be shown as a table.
fn formatted(object: &Value, output: Option<Output>) -> Result<Option<String>, Error> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Ok(match output {
        None | Some(Output::Wide) => None,
        Some(Output::Json) => Some(format!("{object:#}\n")),
        Some(Output::Yaml) => {
            Some(serde_yaml::to_string(object).map_err(|error| Error::Answer(format!("as YAML: {error}")))?)
        }
        Some(Output::Name) => {
            let name = text("/metadata/name").or_else(|| text("/name"));
            Some(format!("{}\n", name.unwrap_or_default()))
        }
    })
}
