//! Built-in functions on texts.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use super::builtins::{count_message, length, text_of};
use super::{Machine, members, wrong_type};
use crate::value::Value;

/// Repetitions of a text at most.
const REPEAT_MAX: i64 = 1_000_000;

/// The byte position of a part, or -1.
fn place(found: Option<usize>) -> Value {
    found.map_or(Value::Int(-1), length)
}

impl Machine<'_> {
    pub(super) fn texts_of(&mut self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        if name == "join" {
            return self.join(arguments);
        }
        let [first, rest @ ..] = arguments else { return Err(count_message(1, 0)) };
        let text = text_of(first)?;
        self.spend(text.len() / 64)?;
        let second = rest.first().map(text_of_or_count).transpose()?;
        let number = |place: usize| rest.get(place).map(members::index).transpose();
        Ok(match (name, second) {
            ("trim", None) => self.text(text.trim())?,
            ("trim", Some(Part::Text(set))) => {
                self.text(text.trim_matches(|character| set.contains(character)))?
            }
            ("trimPrefix", part) => {
                let part = part.map_or(" ", Part::text);
                self.text(text.strip_prefix(part).unwrap_or(text))?
            }
            ("trimSuffix", part) => {
                let part = part.map_or(" ", Part::text);
                self.text(text.strip_suffix(part).unwrap_or(text))?
            }
            ("upper", None) => self.text(crate::go::upper(text))?,
            ("lower", None) => self.text(crate::go::lower(text))?,
            ("split" | "splitAfter", Some(Part::Text(by))) => {
                let parts = self.split(text, by, number(1)?.unwrap_or(-1), name == "splitAfter")?;
                self.texts(parts)?
            }
            ("replace", Some(Part::Text(from))) => {
                let to =
                    rest.get(1).map(text_of).transpose()?.ok_or_else(|| count_message(3, arguments.len()))?;
                self.replace(text, from, to, number(2)?.unwrap_or(-1))?
            }
            ("repeat", Some(part)) => {
                let times = part.number();
                self.repeat(text, times)?
            }
            ("indexOf", Some(Part::Text(part))) => place(text.find(part)),
            ("lastIndexOf", Some(Part::Text(part))) => place(text.rfind(part)),
            ("hasPrefix", Some(Part::Text(part))) => Value::Bool(text.starts_with(part)),
            ("hasSuffix", Some(Part::Text(part))) => Value::Bool(text.ends_with(part)),
            _ => return Err(format!("invalid arguments for {name}")),
        })
    }

    fn join(&mut self, arguments: &[Value]) -> Result<Value, String> {
        let Some(list) = arguments.first() else { return Err(count_message(1, 0)) };
        let Value::List(list) = list else {
            return Err(format!("invalid argument for join (type {})", list.go_type()));
        };
        let glue = arguments.get(1).map_or(Ok(""), text_of)?;
        let parts = list.items().iter().map(text_of).collect::<Result<Vec<_>, _>>()?;
        let bytes: usize = parts.iter().map(|part| part.len() + glue.len()).sum();
        self.charge(bytes)?;
        Ok(Value::from(parts.join(glue)))
    }

    /// Parts of a text as Go's `SplitN`: at most `most`; all when that is negative.
    pub(crate) fn split(
        &mut self,
        text: &str,
        by: &str,
        most: i64,
        keep: bool,
    ) -> Result<Vec<String>, String> {
        self.charge(text.len() * 2)?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if most == 0 {
            return Ok(Vec::new());
        }
        if by.is_empty() {
            self.charge(text.len().saturating_mul(size_of::<String>()))?;
            let mut parts: Vec<String> = Vec::new();
            for character in text.chars() {
                let full = parts.len() >= most;
                match parts.last_mut() {
                    Some(last) if full => last.push(character),
                    Some(_) | None => parts.push(character.to_string()),
                }
            }
            return Ok(parts);
        }
        self.charge(text.matches(by).count().saturating_mul(size_of::<String>()))?;
        let mut parts: Vec<String> = text.splitn(most, by).map(str::to_owned).collect();
        if keep {
            let last = parts.len().saturating_sub(1);
            parts.iter_mut().take(last).for_each(|part| part.push_str(by));
        }
        Ok(parts)
    }

    /// Replaces as Go's `strings.Replace`: the first `most`, all when that is negative.
    pub(crate) fn replace(&mut self, text: &str, from: &str, to: &str, most: i64) -> Result<Value, String> {
        self.spend(text.len() / 64)?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let hits = text.matches(from).take(most).count();
        self.charge(text.len().saturating_add(hits.saturating_mul(to.len())))?;
        Ok(Value::from(text.replacen(from, to, most)))
    }

    /// A text so many times in a row.
    pub(crate) fn repeat(&mut self, text: &str, times: i64) -> Result<Value, String> {
        if times < 0 {
            return Err(format!("invalid argument for repeat (expected positive integer, got {times})"));
        }
        if times > REPEAT_MAX {
            return Err("memory budget exceeded".to_owned());
        }
        let times = usize::try_from(times).unwrap_or(0);
        self.charge(text.len().saturating_mul(times))?;
        Ok(Value::from(text.repeat(times)))
    }
}

/// A second argument: a text, or the number that `repeat` takes.
enum Part<'a> {
    Text(&'a str),
    Number(i64),
}

impl<'a> Part<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::Number(_) => "",
        }
    }

    fn number(self) -> i64 {
        match self {
            Self::Text(_) => 0,
            Self::Number(number) => number,
        }
    }
}

fn text_of_or_count(value: &Value) -> Result<Part<'_>, String> {
    match value {
        Value::Text(text) => Ok(Part::Text(text)),
        Value::Int(_) | Value::Float(_) => Ok(Part::Number(members::index(value)?)),
        other => Err(wrong_type(other, "string")),
    }
}
