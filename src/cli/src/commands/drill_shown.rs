//! How drills look.

use serde_json::Value;

use crate::style::Style;
use crate::table::{self, Cell};

/// Cells of the bar of time.
const BAR_WIDTH: u64 = 24;
/// Steps below a report, below what is under way, and of a plan.
const STEPS_SHOWN_MAX: usize = 5;
const PLANNED_SHOWN_MAX: usize = 40;

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn count(object: &Value, field: &str) -> u64 {
    object[field].as_u64().unwrap_or(0)
}

/// `0.35 s`, `12.4 s`, `2m 05s`.
fn span(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{:.2} s", ms as f64 / 1_000.0),
        10_000..60_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        _ => format!("{}m {:02}s", ms / 60_000, ms / 1_000 % 60),
    }
}

fn spans(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), span)
}

fn steps(count: u64) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

fn style_of(state: &str) -> Style {
    match state {
        "passed" => Style::Green,
        "failed" => Style::Red,
        "aborted" | "settling" => Style::Yellow,
        "running" => Style::Magenta,
        _ => Style::Plain,
    }
}

/// One line: which drill, of what, and how it stands.
pub(super) fn headline(drill: &Value) -> String {
    let cluster = Style::Bold.paint(text(drill, "cluster"));
    let mut line = format!(
        "drill {} {} {cluster} ({}",
        drill["id"],
        style_of(text(drill, "state")).paint(text(drill, "state")),
        text(drill, "mode")
    );
    if !text(drill, "scope").is_empty() {
        line += &format!(", {}", text(drill, "scope"));
    }
    line += &format!(", for {})", span(count(drill, "forMs")));
    if !text(drill, "aborted").is_empty() {
        line += &format!(": aborted {}", text(drill, "aborted"));
    }
    line
}

fn bar(elapsed_ms: u64, for_ms: u64) -> String {
    let full = (elapsed_ms.min(for_ms) * BAR_WIDTH).checked_div(for_ms).unwrap_or(BAR_WIDTH);
    let full = usize::try_from(full).unwrap_or_default();
    let empty = usize::try_from(BAR_WIDTH).unwrap_or_default().saturating_sub(full);
    format!("{}{}", Style::Magenta.paint(&"█".repeat(full)), Style::Dim.paint(&"░".repeat(empty)))
}

/// What a number that has to be nought looks like.
fn nought(number: u64) -> String {
    let style = if number == 0 { Style::Green } else { Style::Red };
    style.paint(&number.to_string())
}

/// A drill under way, to be drawn over and over.
pub(super) fn progress(drill: &Value) -> String {
    let (elapsed, for_ms) = (count(drill, "elapsedMs"), count(drill, "forMs"));
    let mut lines = vec![headline(drill)];
    lines.push(if text(drill, "state") == "running" {
        format!("  {}  {} of {}", bar(elapsed, for_ms), span(elapsed.min(for_ms)), span(for_ms))
    } else {
        "  the loss is over; waiting for the cluster and its steps to settle".to_owned()
    });
    let kills = text(drill, "mode") == "kill-pods";
    let detected = match drill["detectedMs"].as_u64() {
        Some(ms) => Style::Green.paint(&format!("after {}", span(ms))),
        None => Style::Yellow.paint("not yet"),
    };
    lines.push(format!("  detected   {detected}"));
    let lost = if kills { ("broken", "killed") } else { ("fenced", "fenced") };
    lines.push(format!(
        "  steps      {} touched, {} {}, {} placed again, {} running again, {} waiting",
        count(drill, "touched"),
        count(drill, lost.0),
        lost.1,
        count(drill, "moved"),
        Style::Green.paint(&count(drill, "recovered").to_string()),
        count(drill, "waiting"),
    ));
    lines.extend(shown_steps(drill));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// One line for whoever reads a log.
pub(super) fn news(drill: &Value) -> String {
    let detected = drill["detectedMs"]
        .as_u64()
        .map_or_else(|| "not detected".to_owned(), |ms| format!("detected after {}", span(ms)));
    format!(
        "drill {} {}: {detected}, {} touched, {} fenced, {} broken, {} placed again, {} running again, {} waiting\n",
        drill["id"],
        text(drill, "state"),
        count(drill, "touched"),
        count(drill, "fenced"),
        count(drill, "broken"),
        count(drill, "moved"),
        count(drill, "recovered"),
        count(drill, "waiting"),
    )
}

/// The report of a drill that is over: its verdict first.
pub(super) fn report(drill: &Value) -> String {
    let report = &drill["report"];
    let state = text(drill, "state");
    let verdict = style_of(state).paint(&state.to_uppercase());
    let what =
        if text(drill, "mode") == "kill-pods" { "lost Pods and was watched for" } else { "was lost for" };
    let mut lines = vec![format!(
        "{}  drill {}: cluster {} {what} {} ({})",
        verdict,
        drill["id"],
        Style::Bold.paint(text(drill, "cluster")),
        spans(&drill["lossMs"]),
        text(drill, "mode"),
    )];
    for reason in report["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        lines.push(format!("  {} {reason}", Style::Red.paint("✖")));
    }
    let detected = match drill["detectedMs"].as_u64() {
        Some(ms) => format!("{} after it began", span(ms)),
        None => "not".to_owned(),
    };
    let spared = match count(drill, "spared") {
        0 => String::new(),
        number => format!(", {number} spared"),
    };
    let rows = [
        ("detected", detected),
        (
            "touched",
            format!(
                "{}: {} fenced, {} broken, {} stayed with the cluster{spared}",
                steps(count(drill, "touched")),
                count(drill, "fenced"),
                count(drill, "broken"),
                count(drill, "stayed"),
            ),
        ),
        ("moved", format!("{} placed again, {} ran again", count(drill, "moved"), count(drill, "recovered"))),
        (
            "time to recover",
            format!(
                "p50 {}  p99 {}  longest {}  (objective: p99 within {})",
                spans(&report["recoverP50Ms"]),
                Style::Bold.paint(&spans(&report["recoverP99Ms"])),
                spans(&report["recoverMaxMs"]),
                spans(&drill["objective"]["recoverP99Ms"]),
            ),
        ),
        ("superseded", format!("{} late results refused", count(drill, "superseded"))),
        ("committed twice", nought(count(drill, "committedTwice"))),
        ("lost", nought(count(report, "lost"))),
        ("failed", nought(count(drill, "failed"))),
    ];
    lines.extend(rows.iter().map(|(name, value)| format!("  {name:<17}{value}")));
    if count(drill, "touched") == 0 {
        lines.push(
            Style::Dim.paint("  nothing was there that could be lost: submit work before the next drill"),
        );
    }
    lines.extend(shown_steps(drill));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn shown_steps(drill: &Value) -> Vec<String> {
    let steps = drill["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<Cell>> = steps.iter().take(STEPS_SHOWN_MAX).map(step).collect();
    let mut lines: Vec<String> = table::render(&rows, 2).lines().map(|line| format!("    {line}")).collect();
    if steps.len() > STEPS_SHOWN_MAX {
        lines.push(format!(
            "    ... {} more: argosy drill get {} -o yaml",
            steps.len() - STEPS_SHOWN_MAX,
            drill["id"]
        ));
    }
    lines
}

fn step(step: &Value) -> Vec<Cell> {
    let outcome = text(step, "outcome");
    let style = match outcome {
        "recovered" => Style::Green,
        "waiting" => Style::Yellow,
        "lost" | "failed" => Style::Red,
        _ => Style::Plain,
    };
    let to = if text(step, "cluster").is_empty() {
        String::new()
    } else {
        format!("to {}", text(step, "cluster"))
    };
    let after = step["recoveredMs"].as_u64().map_or_else(String::new, |ms| format!("after {}", span(ms)));
    vec![
        format!("{}/{}", text(step, "namespace"), text(step, "node")).into(),
        Cell::styled(outcome, style),
        to.into(),
        after.into(),
    ]
}

fn header(names: &[&str]) -> Vec<Cell> {
    names.iter().map(|name| Cell::styled(*name, Style::Bold)).collect()
}

/// Drills, one line each.
pub(super) fn table_of(drills: &[Value]) -> String {
    let names = [
        "DRILL", "STATE", "CLUSTER", "MODE", "BEGUN", "FOR", "DETECTED", "MOVED", "P99", "TWICE", "LOST",
        "BY",
    ];
    let mut rows = vec![header(&names)];
    for drill in drills {
        let state = text(drill, "state");
        let by =
            if text(drill, "schedule").is_empty() { text(drill, "actor") } else { text(drill, "schedule") };
        rows.push(vec![
            drill["id"].to_string().into(),
            Cell::styled(state, style_of(state)),
            text(drill, "cluster").into(),
            text(drill, "mode").into(),
            text(drill, "begunAt").into(),
            span(count(drill, "forMs")).into(),
            spans(&drill["detectedMs"]).into(),
            count(drill, "moved").to_string().into(),
            spans(&drill["report"]["recoverP99Ms"]).into(),
            count(drill, "committedTwice").to_string().into(),
            count(&drill["report"], "lost").to_string().into(),
            by.into(),
        ]);
    }
    table::render(&rows, 3)
}

/// Reports in columns, a line for each number; the last column tells how the last differs from the first.
pub(super) fn side_by_side(drills: &[Value]) -> String {
    let mut rows = vec![vec![Cell::default()]];
    rows[0].extend(drills.iter().map(|drill| Cell::styled(format!("DRILL {}", drill["id"]), Style::Bold)));
    rows[0].push(Cell::styled("CHANGE", Style::Bold));
    for (name, field) in
        [("verdict", "state"), ("cluster", "cluster"), ("mode", "mode"), ("begun", "begunAt")]
    {
        let mut row: Vec<Cell> = vec![name.into()];
        row.extend(drills.iter().map(|drill| Cell::styled(text(drill, field), style_of(text(drill, field)))));
        rows.push(row);
    }
    let times = [
        ("detected", "/detectedMs"),
        ("recover p50", "/report/recoverP50Ms"),
        ("recover p99", "/report/recoverP99Ms"),
        ("recover longest", "/report/recoverMaxMs"),
    ];
    let counts = [
        ("touched", "/touched"),
        ("fenced", "/fenced"),
        ("broken", "/broken"),
        ("moved", "/moved"),
        ("recovered", "/recovered"),
        ("failed", "/failed"),
        ("superseded", "/superseded"),
        ("committed twice", "/committedTwice"),
        ("lost", "/report/lost"),
    ];
    rows.extend(times.iter().map(|(name, at)| compared(drills, name, at, &span)));
    rows.extend(counts.iter().map(|(name, at)| compared(drills, name, at, &|number| number.to_string())));
    table::render(&rows, 3)
}

fn compared(drills: &[Value], name: &str, at: &str, word: &dyn Fn(u64) -> String) -> Vec<Cell> {
    let numbers: Vec<Option<u64>> =
        drills.iter().map(|drill| drill.pointer(at).and_then(Value::as_u64)).collect();
    let mut row: Vec<Cell> = vec![name.into()];
    row.extend(numbers.iter().map(|number| Cell::from(number.map_or_else(|| "-".to_owned(), word))));
    let change = match (numbers.first().copied().flatten(), numbers.last().copied().flatten()) {
        (Some(first), Some(last)) if last > first => format!("+{}", word(last - first)),
        (Some(first), Some(last)) if last < first => format!("-{}", word(first - last)),
        _ => String::new(),
    };
    row.push(change.into());
    row
}

/// What a drill would touch.
pub(super) fn plan(plan: &Value) -> String {
    let all = plan["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let cluster = text(plan, "cluster");
    let others: Vec<&str> =
        plan["otherClusters"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut out = format!(
        "A drill ({}) of cluster {} would touch {}; {} could move now",
        text(plan, "mode"),
        Style::Bold.paint(cluster),
        steps(count(plan, "touched")),
        count(plan, "movable"),
    );
    if count(plan, "spared") > 0 {
        out += &format!("; {} would be spared", count(plan, "spared"));
    }
    out += ".\n";
    if text(plan, "mode") != "kill-pods" {
        out += &format!("It would be detected after about {}.\n", spans(&plan["detectedAfterMs"]));
    }
    if !others.is_empty() {
        out += &format!("Other clusters with room: {}.\n", others.join(", "));
    }
    if let Some(refusal) = plan["refused"].as_str() {
        out += &format!("{} {refusal}\n", Style::Red.paint("It would be refused:"));
    }
    if all.is_empty() {
        return out + "Nothing that it would touch is there now.\n";
    }
    let mut rows = vec![header(&["WORKFLOW", "STEP", "NOW", "MOVES", "TO", "WHY NOT"])];
    rows.extend(all.iter().take(PLANNED_SHOWN_MAX).map(planned));
    out += &table::render(&rows, 3);
    if all.len() > PLANNED_SHOWN_MAX {
        out += &format!("... {} more: add -o yaml\n", all.len() - PLANNED_SHOWN_MAX);
    }
    out
}

fn planned(step: &Value) -> Vec<Cell> {
    let moves = match step["movesAfterMs"].as_u64() {
        _ if step["spared"] == true => Cell::styled("spared", Style::Dim),
        Some(0) => Cell::styled("at once", Style::Green),
        Some(ms) => Cell::styled(format!("{} later", span(ms)), Style::Yellow),
        None => Cell::styled("never", Style::Red),
    };
    vec![
        format!("{}/{}", text(step, "namespace"), text(step, "workflow")).into(),
        text(step, "node").into(),
        if step["running"] == true { "running" } else { "not started" }.into(),
        moves,
        Cell::styled(text(step, "to"), Style::Cyan),
        text(step, "whyNot").into(),
    ]
}

/// Schedules, one line each.
pub(super) fn schedules(found: &[Value]) -> String {
    let mut rows = vec![header(&["NAME", "SCHEDULE", "CLUSTER", "MODE", "FOR", "NEXT", "LAST", "CAME TO"])];
    for schedule in found {
        let came_to = match (schedule["lastDrill"].as_u64(), schedule["lastRefusal"].as_str()) {
            (Some(drill), _) => format!("drill {drill}").into(),
            (None, Some(refusal)) => Cell::styled(refusal, Style::Yellow),
            (None, None) => Cell::default(),
        };
        let cron = [text(schedule, "cron"), text(schedule, "timezone")].join(" ");
        rows.push(vec![
            text(schedule, "name").into(),
            cron.trim().into(),
            text(schedule, "cluster").into(),
            text(schedule, "mode").into(),
            span(count(schedule, "forMs")).into(),
            text(schedule, "nextAt").into(),
            text(schedule, "lastAt").into(),
            came_to,
        ]);
    }
    table::render(&rows, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn drill() -> Value {
        json!({
            "id": 7, "cluster": "eu", "mode": "block", "state": "passed", "forMs": 20_000, "lossMs": 20_000,
            "elapsedMs": 5_000, "begunAt": "2026-01-01T00:00:00Z", "actor": "eve", "detectedMs": 4_100,
            "touched": 3, "stayed": 1, "fenced": 2, "broken": 0, "moved": 2, "recovered": 2, "waiting": 0,
            "failed": 0, "superseded": 1, "committedTwice": 0, "spared": 0,
            "objective": {"recoverP99Ms": 60_000},
            "report": {"passed": true, "reasons": [], "lost": 0, "recoverP50Ms": 4_300, "recoverP99Ms": 4_520, "recoverMaxMs": 4_520},
            "steps": [{"namespace": "argo", "node": "w.a", "outcome": "recovered", "cluster": "us", "recoveredMs": 4_520}],
        })
    }

    #[test]
    fn a_report_begins_with_its_verdict() {
        let text = plain(&report(&drill()));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "PASSED  drill 7: cluster eu was lost for 20.0 s (block)");
        assert_eq!(lines[1], "  detected         4.10 s after it began");
        assert_eq!(
            lines[4],
            "  time to recover  p50 4.30 s  p99 4.52 s  longest 4.52 s  (objective: p99 within 1m 00s)"
        );
        assert_eq!(lines[9], "    argo/w.a  recovered  to us  after 4.52 s");
        let mut failed = drill();
        failed["state"] = json!("failed");
        failed["report"]["reasons"] = json!(["1 steps were lost"]);
        assert!(
            plain(&report(&failed)).starts_with(
                "FAILED  drill 7: cluster eu was lost for 20.0 s (block)\n  ✖ 1 steps were lost\n"
            )
        );
    }

    #[test]
    fn what_is_under_way_has_a_bar() {
        let mut running = drill();
        (running["state"], running["report"], running["detectedMs"]) =
            (json!("running"), Value::Null, Value::Null);
        let text = plain(&progress(&running));
        assert!(text.contains("██████░░░░░░░░░░░░░░░░░░  5.00 s of 20.0 s"), "{text}");
        assert!(text.contains("detected   not yet"));
    }

    #[test]
    fn reports_side_by_side_tell_the_change() {
        let mut later = drill();
        (later["id"], later["report"]["recoverP99Ms"]) = (json!(9), json!(3_520));
        let text = plain(&side_by_side(&[drill(), later]));
        assert!(
            text.contains("recover p99       4.52 s                 3.52 s                 -1.00 s"),
            "{text}"
        );
        assert!(!text.contains("+"));
    }

    #[test]
    fn a_plan_tells_where_steps_could_go_and_why_not() {
        let text = plain(&plan(&json!({
            "cluster": "eu", "mode": "block", "touched": 2, "movable": 1, "detectedAfterMs": 20_000, "otherClusters": ["us"],
            "steps": [
                {"namespace": "argo", "workflow": "w", "node": "w.a", "running": true, "movesAfterMs": 0, "to": "us"},
                {"namespace": "argo", "workflow": "w", "node": "w.b", "running": true, "movesAfterMs": null, "whyNot": "its failover is `wait`"},
            ],
        })));
        assert!(text.starts_with("A drill (block) of cluster eu would touch 2 steps; 1 could move now.\nIt would be detected after about 20.0 s.\n"), "{text}");
        assert!(text.contains("argo/w     w.b    running   never          its failover is `wait`"), "{text}");
    }
}
