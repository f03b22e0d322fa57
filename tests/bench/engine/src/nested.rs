//! Steps within steps: each level is a template of its own that calls the next.

use crate::figures::{print_table, thousands};
use crate::world::{World, ended};
use anyhow::{Context, ensure};
use argosy_proto::command::{self as ask, command::Body};
use serde_json::{Value, json};
use std::time::Instant;

/// Times such a workflow from its submission to its end. The depth that a cell allows is raised for this.
pub fn run(depth: usize) -> anyhow::Result<()> {
    let mut world = World::new()?;
    world.join("east", 10_000)?;
    let begun = Instant::now();
    world.submit(&manifest(depth))?;
    world.settle()?;
    let down = begun.elapsed();
    let fence = world.to_run("east").context("the innermost step runs")?;
    let epoch = world.state.cluster("east").context("a cluster")?.session_epoch;
    let report =
        ask::ReportAttempt { cluster: "east".into(), session_epoch: epoch, report: Some(ended(fence)) };
    let begun = Instant::now();
    world.command(Body::ReportAttempt(report))?;
    world.settle()?;
    let up = begun.elapsed();
    ensure!(world.state.workflows_active() == 0, "the workflow is over");
    let milliseconds = |span: std::time::Duration| format!("{:.0} ms", span.as_secs_f64() * 1e3);
    let row = vec![thousands(depth as f64), milliseconds(down), milliseconds(up)];
    print_table("Steps within steps", &["levels", "submitted to running", "ended to over"], &[row]);
    Ok(())
}

fn manifest(depth: usize) -> Value {
    let level = |number: usize| json!({"name": format!("l{number}"), "steps": [[{"name": "s", "template": format!("l{}", number + 1)}]]});
    let mut templates: Vec<Value> = (0..depth).map(level).collect();
    templates.push(json!({"name": format!("l{depth}"), "container": {"image": "i", "command": ["true"]}}));
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "deep", "namespace": "default"},
        "spec": {"entrypoint": "l0", "templates": templates},
    })
}
