//! What is left when the command ended: result, output parameters, and the files that hold the outcome.

use crate::protocol::{
    EXIT_EXECUTOR_ERROR, PARAMETER_BYTES_MAX, ParameterSource, ParameterValue, RESULT_BYTES_MAX,
    TERMINATION_MESSAGE_BYTES_MAX, Task, TaskOutcome,
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

/// Reads the output parameters into the outcome, and says there what went wrong, in Argo's words.
pub fn read_parameters(sources: &[ParameterSource], outcome: &mut TaskOutcome) {
    for source in sources {
        let read = read_limited(&source.path);
        let value = match (read, &source.default) {
            (Ok(value), _) => value,
            (Err(error), Some(default)) if error.kind() == ErrorKind::NotFound => default.clone(),
            (Err(error), _) if error.kind() == ErrorKind::IsADirectory => {
                let copy = copy_of(&source.path, "/");
                // In Argo the main container makes an empty copy, and ends so whatever its command ended with.
                outcome.exit_code = EXIT_EXECUTOR_ERROR;
                outcome.message = format!(
                    "failed to copy {} to {copy}: write {copy}: copy_file_range: is a directory",
                    source.path
                );
                String::new()
            }
            (Err(error), _) => {
                if outcome.output_error.is_empty() {
                    outcome.output_error = describe(&source.path, &error);
                }
                continue;
            }
        };
        outcome.parameters.push(ParameterValue { name: source.name.clone(), value });
    }
}

/// Where Argo keeps the copy of a file, as it shows in messages.
fn copy_of(path: &str, separator: &str) -> String {
    format!("/var/run/argo/outputs/parameters{separator}{path}")
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
    let place = copy_of(path, if path.starts_with('/') { "" } else { "/" });
    match error.kind() {
        ErrorKind::NotFound => format!("open {place}: no such file or directory"),
        ErrorKind::PermissionDenied => format!("open {place}: permission denied"),
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
        let read = |default: Option<&str>| {
            let mut outcome = TaskOutcome::default();
            read_parameters(&[source(default)], &mut outcome);
            outcome
        };
        let outcome = read(Some("d"));
        assert_eq!((outcome.parameters[0].value.as_str(), outcome.output_error.as_str()), ("d", ""));
        let outcome = read(None);
        assert!(outcome.parameters.is_empty());
        assert_eq!(
            outcome.output_error,
            "open /var/run/argo/outputs/parameters/nowhere/at/all: no such file or directory"
        );
    }

    #[test]
    fn a_directory_ends_the_main_container_as_argos_does() {
        let path = std::env::temp_dir().display().to_string();
        let source =
            ParameterSource { name: "o".to_owned(), path: path.clone(), default: Some("d".to_owned()) };
        let mut outcome = TaskOutcome::default();
        read_parameters(&[source], &mut outcome);
        assert_eq!((outcome.exit_code, outcome.output_error.as_str()), (64, ""));
        let copy = format!("/var/run/argo/outputs/parameters/{path}");
        let message =
            format!("failed to copy {path} to {copy}: write {copy}: copy_file_range: is a directory");
        assert_eq!(outcome.message, message);
        assert_eq!(outcome.parameters[0].value, "");
    }
}
