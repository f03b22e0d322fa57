//! Steps without a command: the executor does them itself.

mod http;
mod plugin;

pub use plugin::make_tokens;

use std::io::Write;

use crate::process::Signals;
use crate::protocol::{ParameterValue, TaskOutcome, Verdict, Work};

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

/// Does it, unless a signal comes first: then nothing is told, and whoever sent the signal knows why.
pub fn run(work: &Work, signals: &Signals, outcome: &mut TaskOutcome) {
    let (sender, done) = std::sync::mpsc::sync_channel(1);
    let doing = work.clone();
    std::thread::spawn(move || {
        let found = match &doing {
            Work::Http(template) => http::run(template),
            Work::Plugin(plugin) => plugin::run(plugin),
        };
        // Nobody waits any more when a signal came first.
        let _ = sender.send(found);
    });
    let found = loop {
        match done.recv_timeout(std::time::Duration::from_millis(50)) {
            Ok(found) => break found,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                if let Some(signal) = signals.within(std::time::Duration::ZERO) {
                    outcome.exit_code = 128 + signal as i32;
                    return;
                }
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                break Found::failed("the executor could not carry the step out".to_owned());
            }
        }
    };
    let _ = writeln!(std::io::stdout(), "{}", found.result.as_deref().unwrap_or(&found.verdict.message));
    outcome.result = found.result;
    outcome.parameters = found.parameters;
    outcome.verdict = Some(found.verdict);
}
