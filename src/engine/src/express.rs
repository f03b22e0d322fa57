//! Names in scope for expressions, and texts filled in with tags and expressions.

use argosy_expr::environment::Path;
use argosy_expr::{Env, Environment, Error, Expressions, Found, Limits, Lookup, Rules, Value, program};
use argosy_expr::{substitute, substitute_with};
use std::collections::BTreeMap;

use crate::scope::Scope;

/// Names by their dotted form.
pub(crate) type Names = BTreeMap<String, String>;

/// Names that are maps in expressions, and JSON texts as tags.
const MAPS: [&str; 4] =
    ["workflow.parameters", "workflow.labels", "workflow.annotations", "inputs.parameters"];

/// The names of one map, for expressions.
pub(crate) struct Of<'a>(pub &'a Names);

impl Environment for Of<'_> {
    fn environment(&self, paths: &[Path]) -> Env {
        let mut env = Env::default();
        for path in paths {
            put(&mut env, self.0, path);
        }
        env
    }
}

/// Puts in the names that begin a path, and those that go on from it.
fn put(env: &mut Env, names: &Names, path: &Path) {
    for length in 1..=path.len() {
        let name = path[..length].join(".");
        let below = format!("{name}.");
        let more = names.range(below.clone()..).next().filter(|(found, _)| found.starts_with(&below));
        match (names.get(&name), more) {
            // A name that others go on from is the map of those.
            (Some(_), Some((found, value))) if length < path.len() => env.insert_text(found, value),
            (Some(value), None) if !MAPS.contains(&name.as_str()) => env.insert_text(&name, value),
            (Some(_) | None, _) => {}
        }
    }
    let below = format!("{}.", path.join("."));
    for (name, value) in names.range(below.clone()..).take_while(|(name, _)| name.starts_with(&below)) {
        env.insert_text(name, value);
    }
}

impl Environment for Scope<'_> {
    fn environment(&self, paths: &[Path]) -> Env {
        let mut env = Env::default();
        for path in paths {
            if let Some(first) = path.first().filter(|first| matches!(first.as_ref(), "steps" | "tasks")) {
                // Whichever sibling is asked of it.
                env.open_map(first);
            }
            put(&mut env, &self.parsed.globals, path);
            if path.first().is_some_and(|first| first.as_ref() == "workflow") {
                // Whatever is asked of it, the workflow is a map.
                self.put_found(&mut env, "workflow.name");
            }
            if path.first().is_some_and(|first| first.as_ref() == "lastRetry") {
                self.put_found(&mut env, "lastRetry.status");
            }
            put(&mut env, &self.locals, path);
            for name in self.below(path) {
                self.put_found(&mut env, &name);
            }
            self.put_found(&mut env, &path.join("."));
        }
        env
    }
}

impl Scope<'_> {
    fn put_found(&self, env: &mut Env, name: &str) {
        match self.get(name) {
            Some(Found::Text(text)) => env.insert_text(name, &text),
            Some(Found::Absent) => env.insert(name, Value::Nil),
            None => {}
        }
    }

    /// Names that go on from a path and are not kept in a map: those of a step or task.
    fn below(&self, path: &Path) -> Vec<String> {
        let [kind, sibling, ..] = path.as_slice() else { return Vec::new() };
        if !matches!(kind.as_ref(), "steps" | "tasks") {
            return Vec::new();
        }
        let fields =
            ["id", "status", "startedAt", "finishedAt", "hostNodeName", "exitCode", "outputs.result"];
        let mut names: Vec<String> = fields.iter().map(|field| format!("{kind}.{sibling}.{field}")).collect();
        let outputs = self.output_names(sibling).into_iter();
        names.extend(outputs.map(|output| format!("{kind}.{sibling}.outputs.parameters.{output}")));
        let path = path.join(".");
        // Whatever is asked of it, a step that is there is a map.
        let status = format!("{kind}.{sibling}.status");
        names.retain(|name| *name == status || name.len() > path.len() && name.starts_with(&path));
        names
    }
}

/// Fills in the tags and expressions of a JSON text.
pub(crate) fn fill(text: &str, scope: &Scope<'_>, rules: &Rules<'_>) -> Result<String, Error> {
    if !text.contains("{{=") {
        return substitute(text, scope, rules);
    }
    let expressions = Expressions { environment: scope, now_ms: scope.now.0 };
    substitute_with(text, scope, &expressions, rules)
}

/// As [`fill`], with the names of one map, leaving what they don't know.
pub(crate) fn fill_known(text: &str, names: &Names, now_ms: i64) -> Result<String, Error> {
    if !text.contains("{{=") {
        return substitute(text, names, &Rules::LENIENT);
    }
    let environment = Of(names);
    let expressions = Expressions { environment: &environment, now_ms };
    substitute_with(text, names, &expressions, &Rules::LENIENT)
}

/// Whether a condition holds.
pub(crate) fn holds(expression: &str, scope: &Scope<'_>) -> Result<bool, String> {
    let program = program::compile(expression).map_err(|error| error.to_string())?;
    let env = scope.environment(&program.paths());
    let value = program.evaluate(&env, &Limits::DEFAULT, scope.now.0).map_err(|error| error.to_string())?;
    if let Value::Bool(holds) = value {
        return Ok(holds);
    }
    let text = value.display(Limits::DEFAULT.output_bytes_max)?;
    // As Go's `%s` writes what is no text.
    let shown = if value.is_nil() {
        "%!s(<nil>)".to_owned()
    } else if matches!(value, Value::Int(_)) {
        format!("%!s(int={text})")
    } else if matches!(value, Value::Float(_)) {
        format!("%!s(float64={text})")
    } else {
        text
    };
    Err(format!("unable to cast expression result '{shown}' to bool"))
}

/// What an expression comes to: texts as they are, anything else as JSON; `None` for nil.
pub(crate) fn value(expression: &str, scope: &Scope<'_>) -> Result<Option<String>, String> {
    let program = program::compile(expression).map_err(|error| error.to_string())?;
    let env = scope.environment(&program.paths());
    let value = program.evaluate(&env, &Limits::DEFAULT, scope.now.0).map_err(|error| error.to_string())?;
    if value.is_nil() {
        return Ok(None);
    }
    if let Value::Text(text) = &value {
        return Ok(Some(text.to_string()));
    }
    value.json(false, Limits::DEFAULT.output_bytes_max).map(Some)
}

/// What an expression that should give a text comes to: the text, or else Go's name of what it is (`None` for nil).
pub(crate) fn text(
    expression: &str,
    scope: &Scope<'_>,
) -> Result<Result<String, Option<&'static str>>, String> {
    let program = program::compile(expression).map_err(|error| error.to_string())?;
    let env = scope.environment(&program.paths());
    let value = program.evaluate(&env, &Limits::DEFAULT, scope.now.0).map_err(|error| error.to_string())?;
    if let Value::Text(text) = &value {
        return Ok(Ok(text.to_string()));
    }
    Ok(Err((!value.is_nil()).then(|| value.go_type())))
}
