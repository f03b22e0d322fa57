//! Success and failure conditions: Kubernetes' label selectors over fields of an object. Pure.

use serde_json::Value;

/// One term of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// In order, as Kubernetes shows sets.
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Exists,
    DoesNotExist,
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    GreaterThan,
    LessThan,
}

impl Operator {
    /// As Go prints it.
    fn word(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::DoesNotExist => "!",
            Self::Equals => "=",
            Self::DoubleEquals => "==",
            Self::NotEquals => "!=",
            Self::In => "in",
            Self::NotIn => "notin",
            Self::GreaterThan => "gt",
            Self::LessThan => "lt",
        }
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{{{} {} [{}]}}", self.key, self.operator.word(), self.values.join(" "))
    }
}

/// What a look at the object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All success terms hold.
    Met,
    /// Not yet.
    Waits,
    /// A failure term holds: Argo's message.
    Failed(String),
}

/// The terms of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    success: Vec<Requirement>,
    failure: Vec<Requirement>,
}

impl Conditions {
    /// Reads both; empty texts have no terms.
    ///
    /// # Errors
    /// Argo's message for a text that is no selector.
    pub fn new(success: &str, failure: &str) -> Result<Self, String> {
        let read = |kind: &str, text: &str| {
            parse(text).map_err(|error| format!("{kind} condition '{text}' failed to parse: {error}"))
        };
        Ok(Self { success: read("success", success)?, failure: read("fail", failure)? })
    }

    /// Nothing is to be waited for.
    pub fn is_empty(&self) -> bool {
        self.success.is_empty() && self.failure.is_empty()
    }

    /// Looks at an object.
    pub fn judge(&self, object: &Value) -> Verdict {
        if let Some(term) = self.failure.iter().find(|term| term.holds(object)) {
            return Verdict::Failed(format!("failure condition '{term}' evaluated true"));
        }
        if self.success.iter().all(|term| term.holds(object)) { Verdict::Met } else { Verdict::Waits }
    }
}

impl Requirement {
    fn holds(&self, object: &Value) -> bool {
        let found = field(object, &self.key);
        let is_among = |text: &String| self.values.contains(text);
        match self.operator {
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::Equals | Operator::DoubleEquals | Operator::In => found.as_ref().is_some_and(is_among),
            Operator::NotEquals | Operator::NotIn => !found.as_ref().is_some_and(is_among),
            Operator::GreaterThan | Operator::LessThan => {
                let number = |text: Option<&String>| text?.parse::<i64>().ok();
                match (number(found.as_ref()), number(self.values.first())) {
                    (Some(own), Some(bound)) if self.operator == Operator::GreaterThan => own > bound,
                    (Some(own), Some(bound)) => own < bound,
                    (None, _) | (_, None) => false,
                }
            }
        }
    }
}

/// A field by its dotted path, as text: texts as they are, other values as JSON.
fn field(object: &Value, path: &str) -> Option<String> {
    let mut at = object;
    for part in path.split('.') {
        at = match at {
            Value::Object(fields) => fields.get(part)?,
            Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
        };
    }
    Some(match at {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => at.to_string(),
    })
}

/// A selector's words: names and values, and the signs between them.
fn words(text: &str) -> Vec<String> {
    const SIGNS: [char; 8] = ['=', '!', '(', ')', ',', '<', '>', ' '];
    let mut words: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
            continue;
        } else if ["==", "!="].iter().any(|sign| rest.starts_with(sign)) {
            2
        } else if SIGNS.contains(&first) {
            1
        } else {
            rest.find(|next: char| SIGNS.contains(&next) || next.is_whitespace()).unwrap_or(rest.len())
        };
        words.push(rest[..length].to_owned());
        rest = &rest[length..];
    }
    words
}

fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let words = words(text);
    let mut words = words.iter().map(String::as_str).peekable();
    let mut terms = Vec::new();
    while words.peek().is_some() {
        terms.push(term(&mut words)?);
        match words.next() {
            None => break,
            Some(",") if words.peek().is_some() => {}
            Some(",") => return Err("found '', expected: identifier after ','".to_owned()),
            Some(other) => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
        }
    }
    Ok(terms)
}

fn term<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Result<Requirement, String> {
    let absent = words.next_if_eq(&"!").is_some();
    let key = words
        .next()
        .filter(|word| is_name(word))
        .ok_or("found '', expected: !, identifier, or 'end of string'")?;
    let made = |operator, values| Requirement { key: key.to_owned(), operator, values };
    if absent {
        return Ok(made(Operator::DoesNotExist, Vec::new()));
    }
    let operator = match words.peek().copied() {
        None | Some(",") => return Ok(made(Operator::Exists, Vec::new())),
        Some("=") => Operator::Equals,
        Some("==") => Operator::DoubleEquals,
        Some("!=") => Operator::NotEquals,
        Some("in") => Operator::In,
        Some("notin") => Operator::NotIn,
        Some(">") => Operator::GreaterThan,
        Some("<") => Operator::LessThan,
        Some(other) => {
            return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"));
        }
    };
    words.next();
    if !matches!(operator, Operator::In | Operator::NotIn) {
        // An absent value is the empty one.
        let value = words.next_if(|word| is_name(word)).unwrap_or_default();
        return Ok(made(operator, vec![value.to_owned()]));
    }
    if words.next() != Some("(") {
        return Err("found '', expected: '('".to_owned());
    }
    let mut values = Vec::new();
    loop {
        match words.next() {
            Some(")") => break,
            Some(",") => {}
            Some(word) if is_name(word) => values.push(word.to_owned()),
            Some(other) => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
            None => return Err("found '', expected: ',' or ')'".to_owned()),
        }
    }
    values.sort();
    values.dedup();
    Ok(made(operator, values))
}

fn is_name(word: &str) -> bool {
    word.chars().all(|next| next.is_ascii_alphanumeric() || matches!(next, '-' | '_' | '.' | '/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(success: &str, failure: &str) -> Verdict {
        let object = json!({"status": {"phase": "Running", "succeeded": 3, "conditions": [{"type": "Ready"}], "on": true}});
        Conditions::new(success, failure).unwrap().judge(&object)
    }

    #[test]
    fn terms_are_kubernetes_selectors_over_fields() {
        for met in [
            "status.phase == Running",
            "status.phase=Running,status.succeeded > 2",
            "status.phase in (Succeeded, Running)",
            "status.phase notin (Failed)",
            "status.phase != Failed",
            "status.conditions.0.type == Ready",
            "status.phase",
            "!status.reason",
            "status.on == true",
            "",
        ] {
            assert_eq!(judge(met, ""), Verdict::Met, "{met}");
        }
        for waits in [
            "status.phase == Done",
            "status.succeeded > 3",
            "status.succeeded < 3",
            "status.reason",
            "status.phase > 1",
        ] {
            assert_eq!(judge(waits, ""), Verdict::Waits, "{waits}");
        }
    }

    #[test]
    fn a_failure_is_told_as_argo_does() {
        let failed = judge("status.phase == Running", "status.phase == Running");
        let told = "failure condition '{status.phase == [Running]}' evaluated true";
        assert_eq!(failed, Verdict::Failed(told.to_owned()));
        let failed = judge("", "status.phase in (b, Running, a)");
        let told = "failure condition '{status.phase in [Running a b]}' evaluated true";
        assert_eq!(failed, Verdict::Failed(told.to_owned()));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for bad in ["a ~ b", "a in b", "a in (b", "a == b c", ",", "a,", "(a)"] {
            let error = Conditions::new(bad, "").unwrap_err();
            assert!(error.starts_with("success condition '"), "{bad}: {error}");
        }
    }
}
