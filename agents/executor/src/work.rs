//! Steps without a command: the executor does them itself.

mod data;
mod http;
mod plugin;

pub use plugin::make_tokens;

use std::io::Write;
use std::sync::Arc;

use crate::files::Session;
use crate::process::Signals;
use crate::protocol::{EXIT_EXECUTOR_ERROR, ParameterValue, TaskOutcome, Verdict, Work};

/// What a step came to.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub verdict: Verdict,
    pub result: Option<String>,
    pub parameters: Vec<ParameterValue>,
}

impl Found {
    fn failed(message: String) -> Self {
        Self { verdict: Verdict { failed: true, message, ..Verdict::default() }, ..Self::default() }
    }
}

/// How it ends.
enum Ended {
    /// With a word on it.
    Found(Found),
    /// As a command ends: with a result, or with a message and Argo's exit code.
    AsCommand(Result<String, String>),
}

/// Does it, unless a signal comes first: then nothing is told, and whoever sent the signal knows why.
pub fn run(work: &Work, session: Option<&Arc<Session>>, signals: &Signals, outcome: &mut TaskOutcome) {
    let (sender, done) = std::sync::mpsc::sync_channel(1);
    let (doing, session) = (work.clone(), session.cloned());
    std::thread::spawn(move || {
        let ended = match &doing {
            Work::Http(template) => Ended::Found(http::run(template)),
            Work::Plugin(plugin) => Ended::Found(plugin::run(plugin)),
            Work::Data(expressions) => Ended::AsCommand(data::run(expressions, session.as_deref())),
        };
        // Nobody waits any more when a signal came first.
        let _ = sender.send(ended);
    });
    let ended = loop {
        match done.recv_timeout(std::time::Duration::from_millis(50)) {
            Ok(ended) => break ended,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                if let Some(signal) = signals.within(std::time::Duration::ZERO) {
                    outcome.exit_code = 128 + signal as i32;
                    return;
                }
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                break Ended::Found(Found::failed("the executor could not carry the step out".to_owned()));
            }
        }
    };
    let said = match ended {
        Ended::Found(found) => {
            let said = found.result.clone().unwrap_or_else(|| found.verdict.message.clone());
            outcome.result = found.result;
            outcome.parameters = found.parameters;
            outcome.verdict = Some(found.verdict);
            said
        }
        Ended::AsCommand(Ok(result)) => {
            outcome.result = Some(result.clone());
            result
        }
        Ended::AsCommand(Err(message)) => {
            outcome.exit_code = EXIT_EXECUTOR_ERROR;
            outcome.message.clone_from(&message);
            message
        }
    };
    // The step's log is for people: what counts has been kept.
    let _ = writeln!(std::io::stdout(), "{said}");
}
