//! Label selectors as Kubernetes reads them.

use std::collections::BTreeMap;

/// A selector that can't be read, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSelector(pub String);

/// Requirements of one selector.
pub const REQUIREMENTS_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

/// All requirements must hold; none = everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<(String, Test)>);

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> &'a str {
        let rest = self.rest.trim_start();
        for symbol in ["==", "!=", "=", "!", "(", ")", ",", ">", "<"] {
            if rest.starts_with(symbol) {
                return &rest[..symbol.len()];
            }
        }
        let end = rest
            .find(|letter: char| letter.is_whitespace() || "=!(),<>".contains(letter))
            .unwrap_or(rest.len());
        &rest[..end]
    }

    fn next(&mut self) -> &'a str {
        let token = self.peek();
        self.rest = &self.rest.trim_start()[token.len()..];
        token
    }
}

fn is_word(token: &str) -> bool {
    !token.is_empty() && !token.starts_with(['=', '!', '(', ')', ',', '>', '<'])
}

fn found<T>(token: &str, expected: &str) -> Result<T, InvalidSelector> {
    Err(InvalidSelector(format!("found '{token}', expected: {expected}")))
}

impl LabelSelector {
    /// Reads Kubernetes' syntax: `a=b,c!=d,e in (f,g),h,!i,j>3`.
    ///
    /// # Errors
    /// What is wrong, in Kubernetes' words.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        let mut tokens = Tokens { rest: text };
        let mut requirements = Vec::new();
        if tokens.peek().is_empty() {
            return Ok(Self(requirements));
        }
        loop {
            if requirements.len() == REQUIREMENTS_MAX {
                return Err(InvalidSelector(format!(
                    "more than {REQUIREMENTS_MAX} requirements in one selector"
                )));
            }
            requirements.push(requirement(&mut tokens)?);
            match tokens.next() {
                "" => return Ok(Self(requirements)),
                "," => {}
                other => return found(other, "',' or 'end of string'"),
            }
        }
    }

    /// Selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels that it speaks of.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Whether all requirements hold.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, test)| {
            let value = labels.get(key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match test {
                Test::Exists => value.is_some(),
                Test::Missing => value.is_none(),
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Greater(bound) => number().is_some_and(|number| number > *bound),
                Test::Less(bound) => number().is_some_and(|number| number < *bound),
            }
        })
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<(String, Test), InvalidSelector> {
    let first = tokens.next();
    if first == "!" {
        let key = tokens.next();
        return if is_word(key) { Ok((key.to_owned(), Test::Missing)) } else { found(key, "identifier") };
    }
    if !is_word(first) {
        return found(first, "!, identifier, or 'end of string'");
    }
    let key = first.to_owned();
    if matches!(tokens.peek(), "" | ",") {
        return Ok((key, Test::Exists));
    }
    let test = match tokens.next() {
        "=" | "==" => Test::In(vec![value(tokens)?]),
        "!=" => Test::NotIn(vec![value(tokens)?]),
        "in" => Test::In(values(tokens)?),
        "notin" => Test::NotIn(values(tokens)?),
        ">" => Test::Greater(number(tokens)?),
        "<" => Test::Less(number(tokens)?),
        other => return found(other, "in, notin, =, ==, !=, gt, lt"),
    };
    Ok((key, test))
}

fn value(tokens: &mut Tokens<'_>) -> Result<String, InvalidSelector> {
    match tokens.peek() {
        "" | "," => Ok(String::new()),
        word if is_word(word) => Ok(tokens.next().to_owned()),
        other => found(other, "identifier"),
    }
}

fn number(tokens: &mut Tokens<'_>) -> Result<i64, InvalidSelector> {
    let text = value(tokens)?;
    text.parse().map_err(|_| {
        InvalidSelector(format!(
            "values: Invalid value: {text:?}: for 'Gt', 'Lt' operators, the value must be an integer"
        ))
    })
}

fn values(tokens: &mut Tokens<'_>) -> Result<Vec<String>, InvalidSelector> {
    match tokens.next() {
        "(" => {}
        other => return found(other, "'('"),
    }
    let mut values = Vec::new();
    loop {
        values.push(match tokens.peek() {
            "," | ")" => String::new(),
            _ => value(tokens)?,
        });
        match tokens.next() {
            "," if values.len() < REQUIREMENTS_MAX => {}
            ")" => return Ok(values),
            other => return found(other, "',' or ')'"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LabelSelector::parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn every_operator() {
        let labels = [("app", "x"), ("n", "5")];
        for yes in [
            "",
            "app=x",
            "app == x",
            "app!=y",
            "app in (x,y)",
            "app notin (y)",
            "app",
            "!zzz",
            "n>4",
            "n<6",
            "zzz!=1",
            "app=x,n=5",
        ] {
            assert!(matches(yes, &labels), "{yes}");
        }
        for no in [
            "app=y",
            "app!=x",
            "app in (y)",
            "app notin (x)",
            "!app",
            "zzz",
            "n>5",
            "zzz=1",
            "app=x,n=6",
            "app=",
        ] {
            assert!(!matches(no, &labels), "{no}");
        }
    }

    #[test]
    fn errors_are_kubernetes_own() {
        let message = |text: &str| LabelSelector::parse(text).unwrap_err().to_string();
        assert_eq!(message("==bad"), "found '==', expected: !, identifier, or 'end of string'");
        assert_eq!(message("a b"), "found 'b', expected: in, notin, =, ==, !=, gt, lt");
        assert!(LabelSelector::parse("a in (").is_err());
        assert!(LabelSelector::parse("a=b,").is_err());
        assert!(LabelSelector::parse("é=ü").is_ok());
    }
}
