//! Conditions of CronWorkflows: `when`, and the stop strategy.

use argosy_expr::date::Time;
use argosy_expr::{Env, Expressions, Found, Limits, Lookup, Rules, Value, program, substitute_with, when};
use argosy_proto::state as row;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cron::Parsed;
use crate::draft::Draft;

/// Whether the stop strategy's condition holds.
pub(crate) fn stops(draft: &Draft, parsed: &Parsed, cron: u64) -> Result<bool, String> {
    let (Some(strategy), Some(row)) = (&parsed.cron.spec.stop_strategy, draft.state.crons.get(&cron)) else {
        return Ok(false);
    };
    let program = program::compile(&strategy.expression).map_err(|error| error.to_string())?;
    let env = environment(parsed, row);
    program.evaluate_bool(&env, &Limits::DEFAULT, draft.now().0).map_err(|error| error.to_string())
}

/// Whether `when` lets a workflow start.
pub(crate) fn lets_start(draft: &Draft, parsed: &Parsed, cron: u64) -> Result<bool, String> {
    let (condition, Some(row)) = (&parsed.cron.spec.when, draft.state.crons.get(&cron)) else {
        return Ok(true);
    };
    if condition.is_empty() {
        return Ok(true);
    }
    let env = environment(parsed, row);
    let tags = Tags(texts(parsed, row));
    let quoted = serde_json::Value::from(condition.as_str()).to_string();
    let expressions = Expressions { environment: &env, now_ms: draft.now().0 };
    let filled =
        substitute_with(&quoted, &tags, &expressions, &Rules::STRICT).map_err(|error| error.to_string())?;
    let filled: String = serde_json::from_str(&filled).map_err(|error| error.to_string())?;
    when::evaluate_literal(&filled).map_err(|error| error.to_string())
}

struct Tags(BTreeMap<String, String>);

impl Lookup for Tags {
    fn get(&self, name: &str) -> Option<Found<'_>> {
        self.0.get(name).map(|text| Found::Text(Cow::Borrowed(text)))
    }
}

/// Names as tags.
fn texts(parsed: &Parsed, row: &row::Cron) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut put = |name: &str, text: String| drop(names.insert(format!("cronworkflow.{name}"), text));
    put("name", row.name.clone());
    put("namespace", row.namespace.clone());
    put("succeeded", row.succeeded.to_string());
    put("failed", row.failed.to_string());
    let last = row.status.as_ref().map_or(0, |status| status.last_scheduled_ms);
    if last != 0 {
        put("lastScheduledTime", crate::view::time_text(last));
    }
    let metadata = &parsed.cron.metadata;
    for (kind, map) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
        for (key, value) in map {
            put(&format!("{kind}.{key}"), value.clone());
        }
        let json = serde_json::to_string(map).unwrap_or_default();
        put(kind, json.clone());
        put(&format!("{kind}.json"), json);
    }
    names
}

/// Names in expressions: numbers and times are such.
fn environment(parsed: &Parsed, row: &row::Cron) -> Env {
    let mut env = Env::default();
    let number = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    env.insert_text("cronworkflow.name", &row.name);
    env.insert_text("cronworkflow.namespace", &row.namespace);
    env.insert("cronworkflow.succeeded", number(row.succeeded));
    env.insert("cronworkflow.failed", number(row.failed));
    let last = row.status.as_ref().map_or(0, |status| status.last_scheduled_ms);
    let time = if last == 0 { None } else { Time::from_unix_ms(last).ok() };
    env.insert("cronworkflow.lastScheduledTime", time.map_or(Value::Nil, |time| Value::Time(Arc::new(time))));
    let metadata = &parsed.cron.metadata;
    for (kind, map) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
        for (key, value) in map {
            env.insert_text(&format!("cronworkflow.{kind}.{key}"), value);
        }
    }
    env
}
