//! Reports of drills as metrics: the same on every member, since they are replicated.

use argosy_engine::State;
use argosy_engine::view::drill_mode_word;
use argosy_proto::state::Drill;
use argosy_telemetry::Metrics;
use std::collections::BTreeMap;

/// Shows what state knows of drills.
pub fn record(metrics: &Metrics, state: &State) {
    metrics.drill_under_way.reset();
    if let Some((_, drill)) = state.drill_under_way() {
        metrics
            .drill_under_way
            .with_label_values(&[drill.cluster.as_str(), drill_mode_word(drill.mode())])
            .set(1);
    }
    metrics.drills.reset();
    let mut newest: BTreeMap<(&str, &str), &Drill> = BTreeMap::new();
    for (_, drill) in state.drills().filter(|(_, drill)| drill.report.is_some()) {
        let passed = drill.report.as_ref().is_some_and(|report| report.passed);
        let verdict = match (drill.aborted.is_empty(), passed) {
            (false, _) => "aborted",
            (true, true) => "passed",
            (true, false) => "failed",
        };
        metrics.drills.with_label_values(&[verdict]).inc();
        newest.insert((&drill.cluster, drill_mode_word(drill.mode())), drill);
    }
    for family in [&metrics.drill_last_end, &metrics.drill_last_passed, &metrics.drill_last_steps] {
        family.reset();
    }
    metrics.drill_last_seconds.reset();
    for ((cluster, mode), drill) in newest {
        record_newest(metrics, cluster, mode, drill);
    }
}

fn record_newest(metrics: &Metrics, cluster: &str, mode: &str, drill: &Drill) {
    let report = drill.report.clone().unwrap_or_default();
    metrics.drill_last_end.with_label_values(&[cluster, mode]).set(drill.finished_at_ms / 1_000);
    metrics.drill_last_passed.with_label_values(&[cluster, mode]).set(i64::from(report.passed));
    let detected_ms = if drill.detected_at_ms == 0 { 0 } else { drill.detected_at_ms - drill.begun_at_ms };
    for (time, ms) in [
        ("detected", detected_ms),
        ("recover_p50", report.recover_p50_ms),
        ("recover_p99", report.recover_p99_ms),
        ("recover_max", report.recover_max_ms),
        ("objective_p99", drill.recover_p99_ms_max),
    ] {
        // What did not happen has no time.
        if ms != 0 {
            metrics.drill_last_seconds.with_label_values(&[cluster, mode, time]).set(ms as f64 / 1_000.0);
        }
    }
    for (what, count) in [
        ("touched", drill.touched),
        ("fenced", drill.fenced),
        ("broken", drill.broken),
        ("moved", drill.moved),
        ("recovered", drill.recovered),
        ("failed", drill.failed),
        ("superseded", drill.superseded),
        ("committed_twice", drill.committed_twice),
        ("lost", report.lost),
    ] {
        metrics.drill_last_steps.with_label_values(&[cluster, mode, what]).set(i64::from(count));
    }
}
