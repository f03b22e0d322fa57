//! A manifest of many templates: read from YAML, and validated.

use crate::figures::{print_table, thousands};
use anyhow::{Context, ensure};
use std::fmt::Write;
use std::time::Instant;

/// Times reading and validating, and prints the better of three runs.
pub fn run(templates: usize) -> anyhow::Result<()> {
    let text = text(templates)?;
    let limits = argosy_spec::Limits { bytes_max: 64 << 20, ..argosy_spec::Limits::default() };
    let options = argosy_spec::Options { limits, ..argosy_spec::Options::default() };
    let mut best = (f64::MAX, f64::MAX);
    for _ in 0..3 {
        let begun = Instant::now();
        let documents = argosy_spec::parse_yaml("bench", &text, &options).map_err(|problems| {
            anyhow::anyhow!("{:?}", problems.first().map(argosy_spec::Diagnostic::line))
        })?;
        let read = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let problems = documents.first().context("a document")?.validate();
        let validated = begun.elapsed().as_secs_f64();
        ensure!(problems.is_empty(), "{:?}", problems.first());
        best = (best.0.min(read), best.1.min(validated));
    }
    let row = vec![
        thousands(templates as f64),
        format!("{} KiB", text.len() >> 10),
        format!("{:.0} ms", best.0 * 1e3),
        format!("{:.0} ms", best.1 * 1e3),
    ];
    print_table("A manifest, read and validated", &["templates", "YAML", "read", "validated"], &[row]);
    Ok(())
}

/// A DAG of tasks, each with a template of its own, and values passed along.
fn text(templates: usize) -> anyhow::Result<String> {
    let mut text = String::from(
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: many}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    dag:\n      tasks:\n",
    );
    for number in 0..templates {
        // A tree: each task waits for the one at half its number.
        let waits = if number == 0 { String::new() } else { format!(", depends: t{}", (number - 1) / 2) };
        writeln!(
            text,
            "      - {{name: t{number}, template: leaf-{number}{waits}, arguments: {{parameters: [{{name: p, value: v{number}}}]}}}}",
        )?;
    }
    for number in 0..templates {
        writeln!(
            text,
            "  - name: leaf-{number}\n    inputs: {{parameters: [{{name: p}}]}}\n    container: {{image: busybox, command: [echo], args: [\"{{{{inputs.parameters.p}}}}\"]}}"
        )?;
    }
    Ok(text)
}
