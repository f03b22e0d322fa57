//! A `plugin` template: Argo's protocol for executor plugins, which are servers beside the executor in its Pod.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::Found;
use crate::protocol::{ParameterValue, Plugins, RESULT_BYTES_MAX, Verdict};
use crate::web::{self, Request};

const PATH: &str = "/api/v1/template.execute";
/// How long a plugin may think about one question; Argo's.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Times a question is put to a plugin that is not there yet or busy, and the first wait; Argo's.
const TRIES_MAX: u32 = 5;
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// How long plugins may take to start.
const START_MAX: Duration = Duration::from_secs(120);
/// Between two questions of a step that goes on and doesn't say when to ask again.
const REQUEUE: Duration = Duration::from_secs(10);
const REQUEUE_MIN: Duration = Duration::from_millis(100);
/// Bytes of an answer beyond its result.
const ANSWER_BYTES_MAX: usize = 4 * RESULT_BYTES_MAX;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reply {
    node: Option<Node>,
    requeue: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Node {
    phase: String,
    message: Option<String>,
    outputs: Option<Outputs>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Outputs {
    result: Option<String>,
    parameters: Option<Vec<Value>>,
}

/// What a plugin says to a question.
enum Said {
    /// It is not its template, or it knows no such question: nothing.
    Nothing,
    Node(Node, Option<String>),
    /// Argo's message of a failure for good.
    Refused(String),
}

pub fn run(plugins: &Plugins) -> Found {
    let question = json!({"workflow": {"metadata": plugins.workflow}, "template": plugins.template});
    let started = Instant::now();
    'again: loop {
        for plugin in &plugins.sidecars {
            let token = token(&plugins.tokens_directory, &plugin.name);
            match ask(&format!("http://127.0.0.1:{}{PATH}", plugin.port), &token, &question, started) {
                Said::Nothing => {}
                Said::Refused(message) => return Found::failed(message),
                Said::Node(node, requeue) => {
                    if let Some(found) = node.ended() {
                        return found;
                    }
                    let wait = requeue.as_deref().and_then(span).unwrap_or(REQUEUE);
                    thread::sleep(wait.max(REQUEUE_MIN));
                    continue 'again;
                }
            }
        }
        return Found::failed("no plugin executed the template".to_owned());
    }
}

fn token(directory: &str, plugin: &str) -> String {
    let path = Path::new(directory).join(plugin).join("token");
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn ask(url: &str, token: &str, question: &Value, started: Instant) -> Said {
    let request = Request {
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: vec![
            ("Authorization".to_owned(), format!("Bearer {token}")),
            ("Content-Type".to_owned(), "application/json".to_owned()),
        ],
        body: question.to_string().into_bytes(),
        insecure: false,
        body_bytes_max: ANSWER_BYTES_MAX,
    };
    let mut wait = WAIT_FIRST;
    let mut tries = 0;
    loop {
        let problem = match web::send(&request, ANSWER_MAX) {
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                match answer.status {
                    200 => {
                        return match serde_json::from_str::<Reply>(&body) {
                            Ok(Reply { node: Some(node), requeue }) => Said::Node(node, requeue),
                            Ok(Reply { node: None, .. }) => Said::Nothing,
                            Err(error) => Said::Refused(error.to_string()),
                        };
                    }
                    404 => return Said::Nothing,
                    503 => format!("503 Service Unavailable: {body}"),
                    code => return Said::Refused(format!("{code}: {body}")),
                }
            }
            Err(error) => error,
        };
        tries += 1;
        // A plugin that has not begun to listen is not counted against it for a while.
        let starts = problem.contains("connection refused") && started.elapsed() < START_MAX;
        if tries >= TRIES_MAX && !starts {
            return Said::Refused(problem);
        }
        thread::sleep(wait);
        wait = if starts { WAIT_FIRST } else { wait * 2 };
    }
}

impl Node {
    /// What the step came to; nothing while it goes on.
    fn ended(self) -> Option<Found> {
        let (failed, error) = match self.phase.as_str() {
            "Succeeded" => (false, false),
            "Failed" => (true, false),
            "Error" => (true, true),
            _ => return None,
        };
        let outputs = self.outputs.unwrap_or_default();
        let parameters = outputs.parameters.unwrap_or_default();
        let parameter = |one: &Value| {
            let value = one.get("value")?;
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    value.to_string()
                }
            };
            Some(ParameterValue { name: one.get("name")?.as_str()?.to_owned(), value })
        };
        Some(Found {
            verdict: Verdict { failed, error, message: self.message.unwrap_or_default() },
            result: outputs.result,
            parameters: parameters.iter().filter_map(parameter).collect(),
        })
    }
}

/// A Go duration of one unit or several: `2m`, `1m30s`, `500ms`.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|next: char| !(next.is_ascii_digit() || next == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|next: char| next.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * seconds;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total).ok()
}

/// Makes the token of each plugin, in a folder of its own which that plugin alone sees.
///
/// # Errors
/// When the folder can't be written.
pub fn make_tokens(directory: &Path, plugins: &[&str]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for plugin in plugins {
        let mut bytes = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
            .map_err(|_| std::io::Error::other("no random numbers"))?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = directory.join(plugin);
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("token");
        std::fs::write(&file, token)?;
        // The plugin may run as any user.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o444))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PluginSidecar;
    use crate::web::tests::serve;

    fn asked(answers: &[&str]) -> (Found, Vec<String>) {
        let whole = |body: &&str| match body.split_once(' ') {
            Some((code, body)) if code.parse::<u16>().is_ok() => {
                format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            }
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        };
        let (url, seen) = serve(answers.iter().map(whole).collect());
        let port = url.rsplit_once(':').unwrap().1.parse().unwrap();
        let directory = tempfile::tempdir().unwrap();
        make_tokens(directory.path(), &["hello"]).unwrap();
        let plugins = Plugins {
            sidecars: vec![PluginSidecar { name: "hello".into(), port }],
            workflow: json!({"name": "w", "namespace": "n", "uid": "u"}),
            template: json!({"name": "t", "plugin": {"hello": {}}}),
            tokens_directory: directory.path().to_string_lossy().into_owned(),
        };
        (run(&plugins), seen.iter().collect())
    }

    #[test]
    fn a_plugin_is_asked_again_until_its_step_is_over() {
        let (found, asked) = asked(&[
            r#"{"node":{"phase":"Running","message":"soon"},"requeue":"100ms"}"#,
            r#"{"node":{"phase":"Succeeded","message":"done","outputs":{"result":"r","parameters":[{"name":"p","value":1}]}}}"#,
        ]);
        assert_eq!(
            (found.verdict.failed, found.verdict.message.as_str(), found.result.as_deref()),
            (false, "done", Some("r"))
        );
        assert_eq!(found.parameters, [ParameterValue { name: "p".into(), value: "1".into() }]);
        let question = asked[0].split_once("\r\n\r\n").unwrap().1;
        let question: Value = serde_json::from_str(question).unwrap();
        assert_eq!(question["workflow"]["metadata"], json!({"name": "w", "namespace": "n", "uid": "u"}));
        assert_eq!(question["template"]["plugin"], json!({"hello": {}}));
        let header = asked[0].lines().find_map(|line| line.strip_prefix("Authorization: Bearer ")).unwrap();
        assert_eq!(header.len(), 64);
    }

    #[test]
    fn what_no_plugin_takes_fails_and_what_one_refuses_fails() {
        assert_eq!(asked(&["{}"]).0.verdict.message, "no plugin executed the template");
        assert_eq!(asked(&["404 no"]).0.verdict.message, "no plugin executed the template");
        assert_eq!(asked(&["403 no"]).0.verdict.message, "403: no");
        let (found, _) = asked(&[r#"{"node":{"phase":"Error","message":"m"}}"#]);
        assert!(found.verdict.failed && found.verdict.error && found.verdict.message == "m");
    }
}
