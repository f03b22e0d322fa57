//! `depends`: which tasks, with which results, a task waits for.
//!
//! A bare task name means that it succeeded, was skipped, or runs as a daemon (or failed, where its `continueOn` says so:
//! the caller's closure decides that). All tasks named are waited for before anything is evaluated.

use std::fmt;

use crate::{Error, Limits};

/// A result of a task that a condition may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// `.Succeeded`
    Succeeded,
    /// `.Skipped`: its condition was false.
    Skipped,
    /// `.Failed`
    Failed,
    /// `.Errored`
    Errored,
    /// `.Omitted`: what it depends on did not come about.
    Omitted,
    /// `.Daemoned`: it runs and is ready.
    Daemoned,
    /// `.AnySucceeded`: at least one iteration of a loop succeeded.
    AnySucceeded,
    /// `.AllFailed`: every iteration of a loop failed.
    AllFailed,
}

impl Selector {
    /// The result of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Succeeded" => Self::Succeeded,
            "Skipped" => Self::Skipped,
            "Failed" => Self::Failed,
            "Errored" => Self::Errored,
            "Omitted" => Self::Omitted,
            "Daemoned" => Self::Daemoned,
            "AnySucceeded" => Self::AnySucceeded,
            "AllFailed" => Self::AllFailed,
            _ => return None,
        })
    }

    /// True for the results that only loops have.
    pub fn is_of_loops(self) -> bool {
        match self {
            Self::AnySucceeded | Self::AllFailed => true,
            Self::Succeeded
            | Self::Skipped
            | Self::Failed
            | Self::Errored
            | Self::Omitted
            | Self::Daemoned => false,
        }
    }
}

/// A task and the result asked for; `None` is the bare name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The task's name.
    pub task: String,
    /// The result.
    pub selector: Option<Selector>,
}

/// A condition over tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Depends {
    /// One task's result.
    Term(Term),
    /// The opposite.
    Not(Box<Depends>),
    /// All of them.
    All(Vec<Depends>),
    /// Any of them.
    Any(Vec<Depends>),
}

impl Depends {
    /// `dependencies: [a, b]` as a condition: every task by its bare name. `None` for an empty list.
    pub fn all_of<S: AsRef<str>>(tasks: &[S]) -> Option<Self> {
        let mut terms: Vec<Self> = tasks
            .iter()
            .map(|task| Self::Term(Term { task: task.as_ref().to_owned(), selector: None }))
            .collect();
        match terms.len() {
            0 | 1 => terms.pop(),
            _ => Some(Self::All(terms)),
        }
    }

    /// Evaluates it; `holds` says whether a term does.
    pub fn evaluate(&self, holds: &mut dyn FnMut(&Term) -> bool) -> bool {
        match self {
            Self::Term(term) => holds(term),
            Self::Not(inner) => !inner.evaluate(holds),
            Self::All(parts) => parts.iter().all(|part| part.evaluate(holds)),
            Self::Any(parts) => parts.iter().any(|part| part.evaluate(holds)),
        }
    }

    /// The terms, in the order of the text.
    pub fn terms(&self) -> Vec<&Term> {
        let mut terms = Vec::new();
        self.collect(&mut terms);
        terms
    }

    /// The names of the tasks, each once, in the order of the text.
    pub fn tasks(&self) -> Vec<&str> {
        let mut seen = std::collections::BTreeSet::new();
        self.terms().into_iter().map(|term| term.task.as_str()).filter(|task| seen.insert(*task)).collect()
    }

    fn collect<'a>(&'a self, terms: &mut Vec<&'a Term>) {
        match self {
            Self::Term(term) => terms.push(term),
            Self::Not(inner) => inner.collect(terms),
            Self::All(parts) | Self::Any(parts) => {
                for part in parts {
                    part.collect(terms);
                }
            }
        }
    }
}

impl fmt::Display for Depends {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, between) = match self {
            Self::Term(Term { task, selector: None }) => return formatter.write_str(task),
            Self::Term(Term { task, selector: Some(selector) }) => {
                return write!(formatter, "{task}.{selector:?}");
            }
            Self::Not(inner) => return write!(formatter, "!{inner}"),
            Self::All(parts) => (parts, " && "),
            Self::Any(parts) => (parts, " || "),
        };
        formatter.write_str("(")?;
        for (index, part) in parts.iter().enumerate() {
            write!(formatter, "{}{part}", if index == 0 { "" } else { between })?;
        }
        formatter.write_str(")")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    And,
    Or,
    Not,
    Open,
    Close,
}

/// A task that a text names, and the text of the result asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mention<'a> {
    /// The task's name.
    pub task: &'a str,
    /// The result, known or not.
    pub result: Option<&'a str>,
}

/// The tasks that a text names, whether or not it can be read as a whole. Words such as `and` are names, as in Argo.
pub fn mentions(text: &str) -> Vec<Mention<'_>> {
    let is_name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
    let words = text.split(|character| !is_name(character));
    let words = words.map(|word| word.trim_start_matches(['-', '.', '_'])).filter(|word| !word.is_empty());
    let parts = words.flat_map(|word| match word.split_once('.') {
        Some((task, result)) if is_result(result) => vec![Mention { task, result: Some(result) }],
        // Without a capital it is no result: Argo reads two names.
        Some(_) => word.split('.').map(|task| Mention { task, result: None }).collect(),
        None => vec![Mention { task: word, result: None }],
    });
    parts.collect()
}

fn is_result(word: &str) -> bool {
    word.len() > 1 && word.starts_with(|first: char| first.is_ascii_uppercase())
}

/// A condition as Argo expands it: a name alone stands for "it ended well enough".
pub fn expanded(text: &str) -> String {
    let is_name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
    let (mut out, mut rest) = (String::new(), text.trim_end());
    while let Some(start) = rest.find(is_name) {
        let end = rest[start..].find(|c| !is_name(c)).map_or(rest.len(), |length| start + length);
        out.push_str(&rest[..start]);
        let name = rest[start..end].replace('-', "_");
        if name.contains('.') {
            out.push_str(&name);
        } else {
            out.push_str(&format!("({name}.Succeeded || {name}.Skipped || {name}.Daemoned)"));
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Reads a condition: names with an optional `.Result`, `&&` `||` `!` and parentheses.
///
/// # Errors
/// [`Error::Depends`] with what is wrong and where.
pub fn parse(text: &str) -> Result<Depends, Error> {
    let limits = Limits::DEFAULT;
    if text.len() > limits.condition_bytes_max {
        return Err(Error::Depends(format!("depends is longer than {} bytes", limits.condition_bytes_max)));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens: &tokens, next: 0, depth_left: limits.depth_max };
    let parsed = parser.any()?;
    match parser.tokens.get(parser.next) {
        None => Ok(parsed),
        Some(extra) => Err(parser.unexpected(extra)),
    }
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, Error> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_name =
            |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
        let (token, length) = if rest.starts_with("&&") {
            (Token::And, 2)
        } else if rest.starts_with("||") {
            (Token::Or, 2)
        } else if first == '!' {
            (Token::Not, 1)
        } else if first == '(' {
            (Token::Open, 1)
        } else if first == ')' {
            (Token::Close, 1)
        } else if first.is_ascii_alphanumeric() {
            let end = rest.find(|character| !is_name(character)).unwrap_or(rest.len());
            (Token::Name(&rest[..end]), end)
        } else {
            return Err(Error::Depends(format!("depends '{text}' has an unexpected '{first}'")));
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token<'a>],
    next: usize,
    depth_left: usize,
}

impl Parser<'_> {
    fn unexpected(&self, token: &Token<'_>) -> Error {
        let shown = match token {
            Token::Name(name) => name,
            Token::And => "&&",
            Token::Or => "||",
            Token::Not => "!",
            Token::Open => "(",
            Token::Close => ")",
        };
        Error::Depends(format!("depends '{}' has an unexpected '{shown}'", self.text))
    }

    fn take(&mut self, token: &Token<'_>) -> bool {
        let found = self.tokens.get(self.next) == Some(token);
        self.next += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<Depends, Error> {
        let mut parts = vec![self.all()?];
        while self.take(&Token::Or) {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Depends::Any(parts) })
    }

    fn all(&mut self) -> Result<Depends, Error> {
        let mut parts = vec![self.one()?];
        while self.take(&Token::And) {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Depends::All(parts) })
    }

    fn one(&mut self) -> Result<Depends, Error> {
        let Some(token) = self.tokens.get(self.next).cloned() else {
            return Err(Error::Depends(format!("depends '{}' ends where a task was expected", self.text)));
        };
        self.next += 1;
        match token {
            Token::Name(name) => term(name),
            Token::Not | Token::Open => {
                let deep = || {
                    Error::Depends(format!("depends is nested more than {} deep", Limits::DEFAULT.depth_max))
                };
                self.depth_left = self.depth_left.checked_sub(1).ok_or_else(deep)?;
                let parsed = if token == Token::Not {
                    Depends::Not(Box::new(self.one()?))
                } else {
                    let inner = self.any()?;
                    if !self.take(&Token::Close) {
                        return Err(Error::Depends(format!("depends '{}' lacks a closing ')'", self.text)));
                    }
                    inner
                };
                self.depth_left += 1;
                Ok(parsed)
            }
            Token::And | Token::Or | Token::Close => Err(self.unexpected(&token)),
        }
    }
}

fn term(name: &str) -> Result<Depends, Error> {
    let (task, selector) = match name.split_once('.') {
        None => (name, None),
        Some((task, result)) => match Selector::parse(result) {
            Some(selector) => (task, Some(selector)),
            None => {
                return Err(Error::Depends(format!("task result '{result}' for task '{task}' is invalid")));
            }
        },
    };
    Ok(Depends::Term(Term { task: task.to_owned(), selector }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence_and_spelling() {
        for (text, expected) in [
            ("a", "a"),
            ("a && b || !c.Failed", "((a && b) || !c.Failed)"),
            ("a-1.Succeeded && (b || c)", "(a-1.Succeeded && (b || c))"),
            ("!(a.Errored||b)", "!(a.Errored || b)"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn tasks_are_named_once_in_order() {
        assert_eq!(parse("b && (a || b.Failed) && !c").unwrap().tasks(), ["b", "a", "c"]);
        assert_eq!(Depends::all_of(&["x", "y"]).unwrap().tasks(), ["x", "y"]);
        assert_eq!(Depends::all_of::<&str>(&[]), None);
    }

    #[test]
    fn mentions_are_found_in_any_text() {
        let found: Vec<_> =
            mentions("a && (b-1.Failed ||").iter().map(|mention| (mention.task, mention.result)).collect();
        assert_eq!(found, [("a", None), ("b-1", Some("Failed"))]);
    }

    #[test]
    fn evaluation() {
        let parsed = parse("(a.Succeeded || a.Skipped) && !b").unwrap();
        let mut holds = |term: &Term| term.task == "a" && term.selector == Some(Selector::Skipped);
        assert!(parsed.evaluate(&mut holds));
        assert!(!parsed.evaluate(&mut |_: &Term| true));
    }

    #[test]
    fn problems_are_named() {
        for (text, expected) in [
            ("a.Finished", "task result 'Finished' for task 'a' is invalid"),
            ("a &&", "depends 'a &&' ends where a task was expected"),
            ("a b", "depends 'a b' has an unexpected 'b'"),
            ("(a", "depends '(a' lacks a closing ')'"),
            ("a & b", "depends 'a & b' has an unexpected '&'"),
            ("", "depends '' ends where a task was expected"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
        assert!(parse(&"(".repeat(5_000)).unwrap_err().to_string().contains("deep"));
        assert!(parse(&"!".repeat(5_000)).unwrap_err().to_string().contains("deep"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(text in "[ab.&|!() Sné-]{0,30}") {
            if let Ok(parsed) = parse(&text) {
                let again = parse(&parsed.to_string()).unwrap();
                proptest::prop_assert_eq!(again.tasks(), parsed.tasks());
            }
        }
    }
}
