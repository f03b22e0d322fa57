//! Output parameters by jq filter. A filter may run for ever or fill memory, so it runs in a process of its own, which is
//! bounded: the agent's own program with the one argument [`ARGUMENT`].

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Ctx, Vars, data, unwrap_valr};
use jaq_json::{Val, read};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

/// The argument that makes the agent's program evaluate one filter and end.
pub const ARGUMENT: &str = "evaluate-jq";
/// How long a filter may take.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes that it may give.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of memory that it may take.
pub const MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Question {
    filter: String,
    input: String,
}

/// Evaluates a filter: its outputs, each in a line, texts without quotes.
///
/// # Errors
/// Why it can't be read, or what it said.
pub fn evaluate(filter: &str, input: &str) -> Result<String, String> {
    let input = read::parse_single(input.as_bytes()).map_err(|error| error.to_string())?;
    let loader = Loader::new(jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs()));
    let arena = Arena::default();
    let modules = loader
        .load(&arena, File { code: filter, path: () })
        .map_err(|_| format!("jq: the filter cannot be read: {filter}"))?;
    let compiled = jaq_core::Compiler::default()
        .with_funs(jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs()))
        .compile(modules)
        .map_err(|_| format!("jq: the filter names something that is not there: {filter}"))?;
    let context = Ctx::<data::JustLut<Val>>::new(&compiled.lut, Vars::new([]));
    let mut lines = String::new();
    for output in compiled.id.run((context, input)).map(unwrap_valr) {
        let text = output.map_err(|error| format!("jq: {error}"))?.to_string();
        let plain = serde_json::from_str::<String>(&text).unwrap_or(text);
        lines.push_str(&plain);
        lines.push('\n');
        if lines.len() > OUTPUT_BYTES_MAX {
            return Err(format!("jq: the filter gives more than {OUTPUT_BYTES_MAX} bytes"));
        }
    }
    Ok(lines.trim().to_owned())
}

/// What the process does: a question on its standard input, the answer on its standard output.
///
/// # Errors
/// For its standard error.
pub fn answer(question: &str) -> Result<String, String> {
    let question: Question = serde_json::from_str(question).map_err(|error| error.to_string())?;
    evaluate(&question.filter, &question.input)
}

/// Asks a process of its own.
///
/// # Errors
/// What the filter said, or that it was ended.
pub async fn ask(program: &Path, filter: &str, input: &str) -> Result<String, String> {
    let question = Question { filter: filter.to_owned(), input: input.to_owned() };
    let question = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
    let mut child = tokio::process::Command::new(program)
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_clear()
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("jq: cannot start {}: {error}", program.display()))?;
    let mut stdin = child.stdin.take();
    let work = async {
        if let Some(stdin) = &mut stdin {
            // One that ends early says why on its standard error.
            let _ = stdin.write_all(&question).await;
        }
        drop(stdin.take());
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(TIME_MAX, work).await {
        Ok(output) => output.map_err(|error| format!("jq: {error}"))?,
        Err(_) => return Err(format!("jq: the filter takes more than {} seconds", TIME_MAX.as_secs())),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        let said = text(&output.stderr);
        Err(if said.is_empty() {
            "jq: the filter was ended: it takes too much memory".to_owned()
        } else {
            said
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_lines_without_quotes() {
        let input = r#"{"a":{"b":[1,"x",{"c":true}]}}"#;
        for (filter, expected) in [
            (".a.b[0]", "1"),
            (".a.b[1]", "x"),
            (".a.b[2]", r#"{"c":true}"#),
            (".a.b[]", "1\nx\n{\"c\":true}"),
            (".a.b | length", "3"),
            (".none", "null"),
        ] {
            assert_eq!(evaluate(filter, input).as_deref(), Ok(expected), "{filter}");
        }
        for bad in [".a |", "nothing", ".a.b.c"] {
            assert!(evaluate(bad, input).is_err(), "{bad}");
        }
    }
}
