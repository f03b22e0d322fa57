//! Following a workflow until it ends.

use jiff::Timestamp;
use std::time::Duration;

use super::show::resolve;
use crate::client::{Client, Lines, Request, path};
use crate::details;
use crate::model::Workflow;
use crate::style::Style;
use crate::tree::Look;
use crate::{Console, Error, Logs};

/// How often durations on the screen move on.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// Streams that break one after the other, without an event between them, until the command gives up.
const BREAKS_MAX: u32 = 10;
const BREAK_PAUSE: Duration = Duration::from_millis(500);

/// The states of one workflow, beginning with the present one; broken streams are taken up again.
struct Follower<'a> {
    client: &'a Client,
    namespace: &'a str,
    name: &'a str,
    lines: Option<Lines>,
    breaks: u32,
}

impl<'a> Follower<'a> {
    fn new(client: &'a Client, namespace: &'a str, name: &'a str) -> Self {
        Self { client, namespace, name, lines: None, breaks: 0 }
    }

    /// The next state; an error when the workflow is gone or nobody answers any more. Can be dropped at any time.
    async fn next(&mut self) -> Result<Workflow, Error> {
        loop {
            let request = self.request();
            let lines = match &mut self.lines {
                Some(lines) => lines,
                none => none
                    .insert(self.client.stream(&path(&["workflow-events", self.namespace]), request).await?),
            };
            match lines.next().await {
                Ok(Some(event)) => {
                    self.breaks = 0;
                    if event["type"] == "DELETED" {
                        return Err(Error::Refused {
                            status: 404,
                            message: format!("workflow {} was deleted", self.name),
                        });
                    }
                    return Workflow::read(&event["object"]);
                }
                Ok(None) | Err(Error::Interrupted(_)) => {}
                // The watch was too slow, or the member is going: another one will do.
                Err(Error::Refused { status: 429 | 503, .. }) => {}
                Err(error) => return Err(error),
            }
            self.lines = None;
            self.breaks += 1;
            if self.breaks > BREAKS_MAX {
                return Err(Error::Interrupted(format!(
                    "the watch of {} broke {BREAKS_MAX} times",
                    self.name
                )));
            }
            tokio::time::sleep(BREAK_PAUSE).await;
        }
    }

    fn request(&self) -> Request {
        Request::query([("listOptions.fieldSelector", format!("metadata.name={}", self.name))])
    }
}

/// Waits in silence; true if the workflow succeeded.
pub(super) async fn wait(
    client: &Client,
    namespace: &str,
    name: &str,
    console: &mut Console,
) -> Result<bool, Error> {
    let mut follower = Follower::new(client, namespace, name);
    loop {
        let workflow = follower.next().await?;
        if workflow.is_over() {
            let finished = workflow.status.finished_at.map(|at| at.to_string()).unwrap_or_default();
            console.print(&format!("{name} {} at {finished}\n", workflow.status_text()))?;
            return Ok(!workflow.has_failed());
        }
    }
}

/// Redraws in place for somebody who looks; otherwise prints a line for each step that changes and the whole at the end.
pub(super) async fn watch(
    client: &Client,
    namespace: &str,
    name: &str,
    no_utf8: bool,
    console: &mut Console,
) -> Result<bool, Error> {
    let look = Look { no_utf8, ..Look::default() };
    let mut follower = Follower::new(client, namespace, name);
    let mut screen = Screen::default();
    let mut told = Told::default();
    let mut workflow = follower.next().await?;
    loop {
        if !console.interactive {
            console.print(&told.news(&workflow))?;
        }
        if workflow.is_over() {
            let text = details::render(&workflow, &look, Timestamp::now());
            let last = if console.interactive { screen.redraw(&text) } else { format!("\n{text}") };
            console.print(&last)?;
            return Ok(!workflow.has_failed());
        }
        // One future over all redraws: a reconnection that takes longer than a tick must not begin anew at each.
        let next = follower.next();
        tokio::pin!(next);
        workflow = loop {
            if console.interactive {
                let text = details::render(&workflow, &look, Timestamp::now());
                console.print(&screen.redraw(&text))?;
            }
            tokio::select! {
                next = &mut next => break next?,
                () = tokio::time::sleep(REDRAW_EVERY), if console.interactive => {}
            }
        };
    }
}

/// What stands on the terminal, so that only this is written over.
#[derive(Default)]
struct Screen {
    lines: usize,
}

/// A text longer than this may not fit a terminal, and what has scrolled away can't be written over: then the screen is
/// cleared instead.
const LINES_IN_PLACE_MAX: usize = 40;

impl Screen {
    fn redraw(&mut self, text: &str) -> String {
        let lines = text.lines().count();
        let back = match self.lines {
            0 => String::new(),
            before if before.max(lines) > LINES_IN_PLACE_MAX => "\x1b[H\x1b[2J".to_owned(),
            before => format!("\x1b[{before}A\r"),
        };
        self.lines = lines;
        // Each line is cleared to its end, and what is left of a longer text below. Without wrapping, a line is one line.
        let body: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
        format!("{back}\x1b[?7l{body}\x1b[?7h\x1b[J")
    }
}

/// What has been told of each step.
#[derive(Default)]
struct Told {
    steps: std::collections::BTreeMap<String, (String, String)>,
    phase: String,
}

impl Told {
    fn news(&mut self, workflow: &Workflow) -> String {
        let mut news = String::new();
        let steps = workflow.status.nodes.values();
        let mut steps: Vec<_> =
            steps.filter(|node| matches!(node.r#type.as_str(), "Pod" | "Suspend" | "Skipped")).collect();
        steps.sort_by_key(|node| crate::tree::order(node));
        for node in steps {
            let state = (node.phase.clone(), node.cluster.clone());
            if self.steps.get(&node.id) == Some(&state) {
                continue;
            }
            let place = if node.cluster.is_empty() { String::new() } else { format!(" on {}", node.cluster) };
            let message = if node.message.is_empty() { String::new() } else { format!(": {}", node.message) };
            news.push_str(&format!("{}: {}{place}{message}\n", node.display_name, node.phase));
            self.steps.insert(node.id.clone(), state);
        }
        if self.phase != workflow.status.phase {
            self.phase.clone_from(&workflow.status.phase);
            news.push_str(&format!("{}: {}\n", workflow.metadata.name, workflow.status_text()));
        }
        news
    }
}

pub(super) async fn logs(client: &Client, arguments: &Logs, console: &mut Console) -> Result<bool, Error> {
    let name = resolve(client, &arguments.name).await?;
    print_logs(client, &client.namespace, &name, arguments, console).await?;
    Ok(true)
}

pub(super) async fn print_logs(
    client: &Client,
    namespace: &str,
    name: &str,
    arguments: &Logs,
    console: &mut Console,
) -> Result<(), Error> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let request = Request::query([
        ("podName", text(&arguments.pod)),
        ("grep", text(&arguments.grep)),
        ("selector", text(&arguments.selector)),
        ("logOptions.container", arguments.container.clone()),
        ("logOptions.follow", if arguments.follow { "true".to_owned() } else { String::new() }),
        ("logOptions.previous", if arguments.previous { "true".to_owned() } else { String::new() }),
        (
            "logOptions.sinceSeconds",
            arguments.since.map(|time| time.as_secs().to_string()).unwrap_or_default(),
        ),
        ("logOptions.sinceTime", text(&arguments.since_time)),
        ("logOptions.timestamps", if arguments.timestamps { "true".to_owned() } else { String::new() }),
        ("logOptions.limitBytes", arguments.limit_bytes.map(|bytes| bytes.to_string()).unwrap_or_default()),
        ("logOptions.tailLines", arguments.tail.map(|lines| lines.to_string()).unwrap_or_default()),
    ]);
    let mut lines = client.stream(&path(&["workflows", namespace, name, "log"]), request).await?;
    while let Some(line) = lines.next().await? {
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let pod = text("podName");
        console.print(&format!("{}: {}\n", Style::of_word(&pod).paint(&pod), text("content")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_is_written_over_in_place() {
        let mut screen = Screen::default();
        assert_eq!(screen.redraw("a\nb\n"), "\x1b[?7la\x1b[K\nb\x1b[K\n\x1b[?7h\x1b[J");
        assert_eq!(screen.redraw("c\n"), "\x1b[2A\r\x1b[?7lc\x1b[K\n\x1b[?7h\x1b[J");
        assert!(screen.redraw(&"x\n".repeat(100)).starts_with("\x1b[H\x1b[2J"));
    }
}
