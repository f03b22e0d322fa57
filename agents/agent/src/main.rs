//! The binary `argosy-agent`: see the library.

use argosy_agent::Config;
use argosy_kubernetes::resource::jq;
use std::io::Read;
use std::process::ExitCode;

/// See src/decisions/0036-allocator.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    if std::env::args_os().skip(1).eq([jq::ARGUMENT]) {
        return evaluate_jq();
    }
    let config = match Config::from_arguments(std::env::args_os()) {
        Ok(config) => config,
        Err(error) => error.exit(),
    };
    if config.locate {
        return locate(&config);
    }
    let result = argosy_telemetry::init(&argosy_telemetry::Options::from_environment())
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?))
        .and_then(|tokio| tokio.block_on(argosy_agent::run(config)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("argosy-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn locate(config: &Config) -> ExitCode {
    let tokio =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from);
    match tokio.and_then(|tokio| tokio.block_on(argosy_agent::locate(config))) {
        Ok(address) => {
            println!("{address}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("argosy-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Evaluates the one filter that the agent hands over, within bounds: it is a user's program.
fn evaluate_jq() -> ExitCode {
    let bound = nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_AS,
        jq::MEMORY_BYTES_MAX,
        jq::MEMORY_BYTES_MAX,
    );
    let mut question = String::new();
    let answer = bound
        .map_err(|error| error.to_string())
        .and_then(|()| std::io::stdin().read_to_string(&mut question).map_err(|error| error.to_string()))
        .and_then(|_| jq::answer(&question));
    match answer {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
