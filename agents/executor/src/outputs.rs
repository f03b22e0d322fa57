//! What is left when the command ended: result, output parameters, and the files that hold the outcome.

use crate::protocol::{
    PARAMETER_BYTES_MAX, ParameterSource, ParameterValue, RESULT_BYTES_MAX, TERMINATION_MESSAGE_BYTES_MAX,
    Task, TaskOutcome,
};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

/// Standard output as Argo gives it: text, without one trailing newline. Its beginning may have been cut inside a character.
pub fn result_text(bytes: &[u8]) -> String {
    let is_inside = |byte: &&u8| **byte & 0xc0 == 0x80;
    let cut =
        if bytes.len() < RESULT_BYTES_MAX { 0 } else { bytes.iter().take(3).take_while(is_inside).count() };
    let text = String::from_utf8_lossy(&bytes[cut..]);
    text.strip_suffix('\n').unwrap_or(&text).to_owned()
}

/// What the command wrote for the kubelet, before the outcome takes its place.
pub fn termination_message(task: &Task) -> String {
    let Some(path) = &task.termination_message_file else { return String::new() };
    let mut bytes = Vec::new();
    let limit = u64::try_from(TERMINATION_MESSAGE_BYTES_MAX).unwrap_or(u64::MAX);
    match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// Reads the output parameters; the second value says what went wrong, in Argo's words.
pub fn read_parameters(sources: &[ParameterSource]) -> (Vec<ParameterValue>, String) {
    let mut values = Vec::new();
    let mut problem = String::new();
    for source in sources {
        let read = read_limited(&source.path);
        let value = match (read, &source.default) {
            (Ok(value), _) => value,
            (Err(error), Some(default)) if error.kind() == ErrorKind::NotFound => default.clone(),
            (Err(error), _) => {
                if problem.is_empty() {
                    problem = describe(&source.path, &error);
                }
                continue;
            }
        };
        values.push(ParameterValue { name: source.name.clone(), value });
    }
    (values, problem)
}

fn read_limited(path: &str) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(PARAMETER_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > PARAMETER_BYTES_MAX {
        return Err(std::io::Error::other(format!("larger than {PARAMETER_BYTES_MAX} bytes")));
    }
    Ok(result_text(&bytes))
}

/// Argo's sidecar reads a copy of the file, and its path shows in the message.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the system's errors, of which a few have words of Argo's"
)]
fn describe(path: &str, error: &std::io::Error) -> String {
    let place =
        format!("/var/run/argo/outputs/parameters{}{path}", if path.starts_with('/') { "" } else { "/" });
    match error.kind() {
        ErrorKind::NotFound => format!("open {place}: no such file or directory"),
        ErrorKind::PermissionDenied => format!("open {place}: permission denied"),
        ErrorKind::IsADirectory => format!("read {place}: is a directory"),
        _ => format!("open {place}: {error}"),
    }
}

/// Leaves the outcome where the task says; a failure is only said, since the agent gets the outcome as well.
pub fn leave(task: &Task, outcome: &TaskOutcome) {
    let json = match serde_json::to_vec(outcome) {
        Ok(json) => json,
        Err(error) => return eprintln!("argosy-executor: cannot encode the outcome: {error}"),
    };
    if let Some(path) = &task.outcome_file
        && let Err(error) = write_whole(Path::new(path), &json)
    {
        eprintln!("argosy-executor: cannot write {path}: {error}");
    }
    if let Some(path) = &task.termination_message_file
        && json.len() <= TERMINATION_MESSAGE_BYTES_MAX
        && let Err(error) = std::fs::write(path, &json)
    {
        eprintln!("argosy-executor: cannot write {path}: {error}");
    }
}

/// The outcome is left in a place that is read after the executor ended, if the agent does not take it.
pub fn is_left(task: &Task, outcome: &TaskOutcome) -> bool {
    let small = || serde_json::to_vec(outcome).is_ok_and(|json| json.len() <= TERMINATION_MESSAGE_BYTES_MAX);
    task.outcome_file.is_some() || (task.termination_message_file.is_some() && small())
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_newline_goes() {
        for (given, text) in [("a\n\n", "a\n"), ("a", "a"), ("\n", ""), ("", ""), ("a\r\n", "a\r")] {
            assert_eq!(result_text(given.as_bytes()), text);
        }
    }

    #[test]
    fn a_missing_file_is_its_default_or_argos_error() {
        let source = |default: Option<&str>| ParameterSource {
            name: "o".to_owned(),
            path: "/nowhere/at/all".to_owned(),
            default: default.map(str::to_owned),
        };
        let (values, problem) = read_parameters(&[source(Some("d"))]);
        assert_eq!((values[0].value.as_str(), problem.as_str()), ("d", ""));
        let (values, problem) = read_parameters(&[source(None)]);
        assert!(values.is_empty());
        assert_eq!(
            problem,
            "open /var/run/argo/outputs/parameters/nowhere/at/all: no such file or directory"
        );
    }
}
