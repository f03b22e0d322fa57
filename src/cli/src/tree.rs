//! The steps of a workflow as a tree (Argo reference 6).

use std::collections::BTreeMap;

use crate::model::{Lease, Node, Reproduction, Workflow};
use crate::style::Style;
use crate::table::Cell;
use crate::time;

/// How a tree is drawn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub wide: bool,
    pub no_utf8: bool,
    /// Only steps in this phase.
    pub status: Option<String>,
}

struct Tree<'a> {
    workflow: &'a Workflow,
    look: &'a Look,
    now: jiff::Timestamp,
    /// What hangs below each node, in order.
    below: BTreeMap<&'a str, Vec<&'a Node>>,
    rows: Vec<Vec<Cell>>,
}

/// The rows of the table, header included; none when there is no step yet.
pub(crate) fn rows(workflow: &Workflow, look: &Look, now: jiff::Timestamp) -> Vec<Vec<Cell>> {
    let (below, roots) = arrange(workflow);
    let mut tree = Tree { workflow, look, now, below, rows: Vec::new() };
    let main = workflow.metadata.name.as_str();
    let (first, rest): (Vec<&Node>, Vec<&Node>) = roots.into_iter().partition(|node| node.id == main);
    for root in first {
        tree.node(root, " ", " ");
    }
    for root in rest {
        tree.rows.push(vec![Cell::default()]);
        tree.node(root, " ", " ");
    }
    if tree.rows.is_empty() {
        return Vec::new();
    }
    let mut header: Vec<Cell> = ["STEP", "TEMPLATE", "PODNAME", "CLUSTER", "DURATION", "MESSAGE"]
        .map(|name| Cell::styled(name, Style::Bold))
        .into();
    if look.wide {
        let more = ["NODENAME", "FENCE", "LEASE", "PERMIT", "TAKE-OVER"];
        header.extend(more.map(|name| Cell::styled(name, Style::Bold)));
    }
    tree.rows.insert(0, header);
    tree.rows
}

/// Which node hangs below which: a step below its group, a try below its retry, all else below its boundary. Containers
/// and task groups are not shown.
fn arrange(workflow: &Workflow) -> (BTreeMap<&str, Vec<&Node>>, Vec<&Node>) {
    let nodes = &workflow.status.nodes;
    let mut owner: BTreeMap<&str, &str> = BTreeMap::new();
    for node in nodes.values().filter(|node| matches!(node.r#type.as_str(), "StepGroup" | "Retry")) {
        for child in &node.children {
            // The next group of steps is a child of this group's steps, not of the group.
            if nodes.get(child).is_some_and(|child| child.r#type != "StepGroup") {
                owner.insert(child, &node.id);
            }
        }
    }
    let mut below: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    let mut roots = Vec::new();
    let drawn = |node: &&Node| {
        !matches!(node.r#type.as_str(), "Container" | "TaskGroup" | "") && node.phase != "Omitted"
    };
    for node in nodes.values().filter(drawn) {
        match owner
            .get(node.id.as_str())
            .copied()
            .or(Some(node.boundary_id.as_str()).filter(|id| !id.is_empty()))
        {
            Some(parent) => below.entry(parent).or_default().push(node),
            None => roots.push(node),
        }
    }
    for children in below.values_mut() {
        children.sort_by_key(|node| order(node));
    }
    roots.sort_by_key(|node| order(node));
    (below, roots)
}

/// By start, then the number of the loop's item or the group, then the name.
pub(crate) fn order(node: &Node) -> (jiff::Timestamp, u64, &str) {
    let number = node.display_name.rsplit(['(', '[']).next().unwrap_or_default();
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    (node.started_at.unwrap_or(jiff::Timestamp::MAX), digits.parse().unwrap_or(0), &node.name)
}

impl<'a> Tree<'a> {
    fn node(&mut self, node: &'a Node, lead: &str, trail: &str) {
        let children = self.below.get(node.id.as_str()).cloned().unwrap_or_default();
        match node.r#type.as_str() {
            "StepGroup" => self.group(&children, lead, trail),
            "Retry" if children.len() == 1 => self.node(children[0], lead, trail),
            _ => {
                if self.shown(node) {
                    self.row(node, lead);
                }
                self.children(&children, trail);
            }
        }
    }

    fn shown(&self, node: &Node) -> bool {
        self.look.status.as_ref().is_none_or(|status| status.eq_ignore_ascii_case(&node.phase))
    }

    fn children(&mut self, children: &[&'a Node], trail: &str) {
        let [middle, last, through] = self.connectors(["├─", "└─", "│ "]);
        for (place, child) in children.iter().enumerate() {
            if place + 1 == children.len() {
                self.node(child, &format!("{trail}{last}"), &format!("{trail}  "));
            } else {
                self.node(child, &format!("{trail}{middle}"), &format!("{trail}{through}"));
            }
        }
    }

    /// A group of parallel steps has no row: its first step stands on its line.
    fn group(&mut self, children: &[&'a Node], lead: &str, trail: &str) {
        let [alone, first, middle] = self.connectors(["──", "┬─", "├─"]);
        let [last, through, _] = self.connectors(["└─", "│ ", ""]);
        for (place, child) in children.iter().enumerate() {
            let is_last = place + 1 == children.len();
            let own_lead = match (place, is_last) {
                (0, true) => format!("{lead}{alone}"),
                (0, false) => format!("{lead}{first}"),
                (_, false) => format!("{trail}{middle}"),
                (_, true) => format!("{trail}{last}"),
            };
            let own_trail = if is_last { format!("{trail}  ") } else { format!("{trail}{through}") };
            self.node(child, &own_lead, &own_trail);
        }
    }

    fn connectors(&self, symbols: [&'static str; 3]) -> [&'static str; 3] {
        if !self.look.no_utf8 {
            return symbols;
        }
        symbols.map(|symbol| match symbol {
            "├─" => "|-",
            "└─" => "`-",
            "│ " => "| ",
            "──" => "--",
            "┬─" => "+-",
            other => other,
        })
    }

    fn row(&mut self, node: &Node, lead: &str) {
        let icon = icon(node, self.look.no_utf8);
        let step = Cell {
            text: format!("{lead}{icon} {}", node.display_name),
            painted: Some((icon, Style::of_phase(&node.phase))),
            style: Style::Plain,
        };
        let template = match &node.template_ref {
            Some(reference) => format!("{}/{}", reference.name, reference.template),
            None => node.template_name.clone(),
        };
        let (pod, duration) = if node.r#type == "Pod" {
            let own = node.template_ref.as_ref().map_or(&node.template_name, |reference| &reference.template);
            let pod = argosy_model::pod_name(&self.workflow.metadata.name, own, &node.name);
            (pod, duration(node, self.now))
        } else {
            Default::default()
        };
        let cells = vec![
            step,
            template.into(),
            pod.into(),
            cluster(node),
            duration.into(),
            node.message.clone().into(),
        ];
        self.rows.push(cells);
        if self.look.wide
            && let Some(row) = self.rows.last_mut()
        {
            row.push(node.host_node_name.clone().into());
            row.extend(failover(node, self.now));
        }
    }
}

/// Fence and permit of the newest attempt, the lease of its cluster, and what it waits for while that is silent.
fn failover(node: &Node, now: jiff::Timestamp) -> [Cell; 4] {
    let newest = node.attempts.last();
    let fence = newest.map(|attempt| attempt.fence.clone()).unwrap_or_default();
    let permit = newest.map(|attempt| attempt.permit.clone()).unwrap_or_default();
    let style = match node.lease.as_ref().map(|lease| lease.state.as_str()) {
        Some("expired" | "takenOver") => Style::Yellow,
        _ => Style::Plain,
    };
    let lease = node.lease.as_ref().map(Lease::text).unwrap_or_default();
    let take_over = node.take_over.as_ref().map(|take_over| take_over.text(now));
    // What has ended is not taken over.
    let again = || node.reproductions.last().map(Reproduction::text);
    let take_over = take_over.or_else(again).unwrap_or_default();
    [fence.into(), Cell::styled(lease, style), permit.into(), Cell::styled(take_over, Style::Yellow)]
}

/// The cluster, and the one it was taken over from.
fn cluster(node: &Node) -> Cell {
    let before = node.attempts.iter().rev().nth(1).map(|attempt| attempt.cluster.as_str());
    match before {
        Some(before) if !node.cluster.is_empty() => {
            Cell::styled(format!("{} (was {before})", node.cluster), Style::Magenta)
        }
        _ => node.cluster.clone().into(),
    }
}

fn duration(node: &Node, now: jiff::Timestamp) -> String {
    node.started_at
        .map(|began| time::short(time::seconds(began, node.finished_at.unwrap_or(now))))
        .unwrap_or_default()
}

fn icon(node: &Node, no_utf8: bool) -> String {
    if no_utf8 {
        return if node.phase.is_empty() { "Pending".to_owned() } else { node.phase.clone() };
    }
    match node.phase.as_str() {
        "Running" if node.r#type == "Suspend" => "ǁ",
        "" | "Pending" => "◷",
        "Running" => "●",
        "Succeeded" => "✔",
        "Skipped" | "Omitted" => "○",
        "Failed" => "✖",
        "Error" => "⚠",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(id: &str, kind: &str, phase: &str, boundary: &str, children: &[&str]) -> serde_json::Value {
        json!({"id": id, "name": id, "displayName": id.rsplit('.').next(), "type": kind, "phase": phase, "boundaryID": boundary,
               "templateName": "t", "children": children, "startedAt": "2026-01-05T15:04:05Z", "finishedAt": "2026-01-05T15:04:08Z"})
    }

    fn draw(nodes: &[serde_json::Value], look: &Look) -> String {
        let nodes: serde_json::Map<_, _> =
            nodes.iter().map(|node| (node["id"].as_str().unwrap().to_owned(), node.clone())).collect();
        let workflow =
            Workflow::read(&json!({"metadata": {"name": "w"}, "status": {"nodes": nodes}})).unwrap();
        let now = "2026-01-05T15:05:05Z".parse().unwrap();
        let text = crate::table::render(&rows(&workflow, look, now), 2);
        anstream::adapter::strip_str(&text).to_string()
    }

    fn steps() -> Vec<serde_json::Value> {
        let mut moved = node("w.hello2b", "Pod", "Running", "w", &[]);
        moved["cluster"] = json!("us");
        moved["attempts"] = json!([{"fence": "1.1.0", "cluster": "eu"}, {"fence": "1.2.0", "cluster": "us"}]);
        moved["finishedAt"] = json!(null);
        vec![
            node("w", "Steps", "Running", "", &["w[0]"]),
            node("w[0]", "StepGroup", "Succeeded", "w", &["w.hello1"]),
            node("w.hello1", "Pod", "Succeeded", "w", &["w[1]"]),
            node("w[1]", "StepGroup", "Running", "w", &["w.hello2a", "w.hello2b"]),
            node("w.hello2a", "Pod", "Failed", "w", &[]),
            moved,
        ]
    }

    #[test]
    fn steps_look_as_in_argo_with_their_clusters() {
        let expected = "\
STEP           TEMPLATE  PODNAME         CLUSTER      DURATION  MESSAGE
 ● w           t
 ├───✔ hello1  t         w-t-2467082131               3s
 └─┬─✖ hello2a  t         w-t-1
   └─● hello2b  t         w-t-2
";
        let drawn = draw(&steps(), &Look::default());
        let shape = |text: &str| {
            text.lines()
                .map(|line| line.split("  ").next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(shape(&drawn), shape(expected));
        assert!(drawn.contains("us (was eu)  1m"), "{drawn}");
    }

    #[test]
    fn wide_shows_fence_lease_permit_and_take_over() {
        let mut lost = node("w", "Pod", "Running", "", &[]);
        lost["cluster"] = json!("eu");
        lost["attempts"] = json!([{"fence": "1.7.0", "cluster": "eu", "permit": "granted"}]);
        lost["lease"] = json!({"state": "expired", "remainingSeconds": 0, "silentSeconds": 17});
        lost["takeOver"] = json!({"waitsFor": "unsafeStep", "at": "2026-01-05T15:10:08Z"});
        let look = Look { wide: true, ..Look::default() };
        let drawn = draw(&[lost.clone()], &look);
        let header = drawn.lines().next().unwrap();
        assert!(header.ends_with("NODENAME  FENCE  LEASE                PERMIT   TAKE-OVER"), "{drawn}");
        assert!(drawn.contains("1.7.0  expired, silent 17s  granted  in 5m (unsafe step)"), "{drawn}");
        lost["takeOver"] =
            json!({"waitsFor": "stormBrake", "at": "2026-01-05T15:05:00Z", "untilResumed": true});
        assert!(draw(&[lost.clone()], &look).contains("held until resumed (storm brake)"));
        let mut again = node("w", "Pod", "Succeeded", "", &[]);
        again["reproductions"] =
            json!([{"outcome": "failed", "lost": "eu", "message": "no"}, {"outcome": "made", "lost": "us"}]);
        assert!(draw(&[again], &look).contains("made again after the loss of us"));
        assert!(!draw(&[lost], &Look::default()).contains("FENCE"), "only where it was asked for");
    }

    #[test]
    fn a_retry_with_one_try_and_omitted_steps_have_no_row() {
        let nodes = [
            node("w", "DAG", "Succeeded", "", &["w.a", "w.b"]),
            node("w.a", "Retry", "Succeeded", "w", &["w.a(0)"]),
            node("w.a(0)", "Pod", "Succeeded", "w", &[]),
            node("w.b", "Retry", "Succeeded", "w", &["w.b(0)", "w.b(1)"]),
            node("w.b(1)", "Pod", "Succeeded", "w", &[]),
            node("w.b(0)", "Pod", "Failed", "w", &[]),
            node("w.c", "Skipped", "Omitted", "w", &[]),
        ];
        let drawn = draw(&nodes, &Look { no_utf8: false, ..Look::default() });
        let first: Vec<&str> = drawn
            .lines()
            .skip(1)
            .map(|line| line.split("  t").next().unwrap_or_default().trim_end())
            .collect();
        assert_eq!(first, [" ✔ w", " ├─✔ a(0)", " └─✔ b", "   ├─✖ b(0)", "   └─✔ b(1)"]);
        let plain = draw(&nodes, &Look { no_utf8: true, ..Look::default() });
        assert!(plain.is_ascii() && plain.contains("   `-Succeeded b(1)"), "{plain}");
    }

    #[test]
    fn an_exit_handler_stands_apart() {
        let nodes = [node("w", "Pod", "Failed", "", &[]), node("w-123", "Pod", "Succeeded", "", &[])];
        let drawn = draw(&nodes, &Look::default());
        assert_eq!(drawn.lines().nth(2), Some(""));
        assert!(drawn.lines().nth(3).is_some_and(|line| line.starts_with(" ✔ w-123")));
    }
}
