//! The binary `argosy-agent`: see the library.

use argosy_agent::Config;
use std::process::ExitCode;

fn main() -> ExitCode {
    let config = match Config::from_arguments(std::env::args_os()) {
        Ok(config) => config,
        Err(error) => error.exit(),
    };
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
