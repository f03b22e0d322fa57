//! A `data` template: the paths that a store has below a location, sifted by expressions.

use std::time::SystemTime;

use argosy_expr::{Env, Limits, Value, program};

use crate::artifacts::{Answer, Operation};
use crate::files::Session;
use crate::protocol::RESULT_BYTES_MAX;

/// The result as JSON, or Argo's message.
pub fn run(expressions: &[String], session: Option<&Session>) -> Result<String, String> {
    let paths = match session.map(|session| session.ask(Operation::Paths)) {
        None => Err("no valid source is used for data template".to_owned()),
        Some(answer) => {
            answer.and_then(listed).map_err(|message| format!("unable to source artifact paths: {message}"))
        }
    };
    paths
        .map_err(|message| format!("unable to process data source: {message}"))
        .and_then(|paths| transformed(&paths, expressions))
        .map_err(|message| format!("unable to process data template: {message}"))
}

fn listed(answer: Answer) -> Result<Vec<String>, String> {
    let Answer::Paths { paths } = answer else {
        return Err("the agent does not list stores; upgrade it".to_owned());
    };
    Ok(paths)
}

fn transformed(paths: &[String], expressions: &[String]) -> Result<String, String> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let mut data = Value::texts(paths);
    for (number, expression) in
        expressions.iter().enumerate().filter(|(_, expression)| !expression.is_empty())
    {
        data = step(expression, data, now_ms).map_err(|message| {
            format!("unable to process data transformation: error processing data step {number}: {message}")
        })?;
    }
    data.json(false, RESULT_BYTES_MAX)
}

fn step(expression: &str, data: Value, now_ms: i64) -> Result<Value, String> {
    let program = program::compile(expression).map_err(|error| error.to_string())?;
    let mut env = Env::default();
    env.insert("data", data);
    program.evaluate(&env, &Limits::DEFAULT, now_ms).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(expressions: &[&str]) -> Result<String, String> {
        let paths = ["d/a.txt", "d/b.bin", "d/<c>.txt"].map(str::to_owned);
        let expressions: Vec<String> = expressions.iter().map(ToString::to_string).collect();
        transformed(&paths, &expressions)
    }

    #[test]
    fn expressions_follow_each_other() {
        assert_eq!(of(&[]).unwrap(), r#"["d/a.txt","d/b.bin","d/\u003cc\u003e.txt"]"#);
        assert_eq!(of(&["filter(data, {# endsWith '.bin'})", "", "data[0]"]).unwrap(), r#""d/b.bin""#);
        assert_eq!(
            of(&["map(filter(data, {# contains 'a'}), {{'path': #, 'size': len(#)}})"]).unwrap(),
            r#"[{"path":"d/a.txt","size":7}]"#
        );
        assert_eq!(of(&["len(data)"]).unwrap(), "3");
    }

    #[test]
    fn what_goes_wrong_says_where() {
        assert_eq!(
            of(&["data", "filter(data,"]).unwrap_err(),
            "unable to process data transformation: error processing data step 1: unexpected token EOF (1:12)\n | filter(data,\n | ...........^"
        );
        assert!(of(&["other"]).unwrap_err().contains("data step 0: unknown name other"));
        let source = run(&[], None).unwrap_err();
        assert_eq!(
            source,
            "unable to process data template: unable to process data source: no valid source is used for data template"
        );
    }
}
