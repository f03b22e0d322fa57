//! Tags: `{{name}}` and `{{=expression}}` in the JSON text of an object.
//!
//! Substitution is textual: a value goes into the JSON text escaped, so it can't end the string it stands in, and the
//! caller parses the result again. One call is one pass: a tag inside a value that was put in is not read in the same
//! pass, but a later pass over the object will read it, as in Argo, unless its text is marked ([`crate::verbatim`]).

use std::borrow::Cow;

use crate::environment::Environment;
use crate::{Error, Limits, go, program, verbatim};

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A value.
    Text(Cow<'a, str>),
    /// A declared output of a skipped producer: known, and without a value.
    Absent,
}

/// Names in scope.
pub trait Lookup {
    /// What `name` stands for; `None` when it is not known (now).
    fn get(&self, name: &str) -> Option<Found<'_>>;
}

impl<F: Fn(&str) -> Option<String>> Lookup for F {
    fn get(&self, name: &str) -> Option<Found<'_>> {
        self(name).map(|text| Found::Text(Cow::Owned(text)))
    }
}

impl Lookup for std::collections::BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<Found<'_>> {
        std::collections::BTreeMap::get(self, name).map(|text| Found::Text(Cow::Borrowed(text)))
    }
}

/// Several scopes, the first that knows a name wins.
impl Lookup for &[&dyn Lookup] {
    fn get(&self, name: &str) -> Option<Found<'_>> {
        self.iter().find_map(|scope| scope.get(name))
    }
}

/// How unknown names are treated.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Names with one of these prefixes must be known; except those of artifacts, others stay as they are.
    pub strict_prefixes: &'a [&'a str],
    /// Every name must be known.
    pub strict: bool,
    /// Bounds.
    pub limits: Limits,
}

impl Rules<'static> {
    /// Unknown tags stay as they are.
    pub const LENIENT: Self = Self { strict_prefixes: &[], strict: false, limits: Limits::DEFAULT };
    /// References to steps and tasks must be known: for a step or task about to run.
    pub const STRICT_NODES: Self =
        Self { strict_prefixes: &["steps.", "tasks."], strict: false, limits: Limits::DEFAULT };
    /// Every tag must be known.
    pub const STRICT: Self = Self { strict_prefixes: &[], strict: true, limits: Limits::DEFAULT };
}

/// One piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text outside tags.
    Text(&'a str),
    /// The inside of `{{...}}`, not trimmed. May hold a `{{` when tags are nested.
    Tag(&'a str),
}

/// Splits a text at its tags: from `{{` to the next `}}`. An opening without a close is text.
pub fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    let mut pending: Option<&str> = None;
    std::iter::from_fn(move || {
        if let Some(tag) = pending.take() {
            return Some(Piece::Tag(tag));
        }
        if rest.is_empty() {
            return None;
        }
        let found = rest.find(OPEN).and_then(|start| {
            let inside = start + OPEN.len();
            rest[inside..].find(CLOSE).map(|length| (start, inside, inside + length))
        });
        let Some((start, inside, end)) = found else {
            return Some(Piece::Text(std::mem::take(&mut rest)));
        };
        let (before, tag) = (&rest[..start], &rest[inside..end]);
        rest = &rest[end + CLOSE.len()..];
        if before.is_empty() {
            return Some(Piece::Tag(tag));
        }
        pending = Some(tag);
        Some(Piece::Text(before))
    })
}

/// Whether the inside of a tag is an expression (`{{=...}}`).
pub fn is_expression(tag: &str) -> bool {
    tag.starts_with('=')
}

/// Whether a tag is opened after the last one that is closed.
pub fn is_unclosed(text: &str) -> bool {
    pieces(text).last().is_some_and(|last| matches!(last, Piece::Text(rest) if rest.contains(OPEN)))
}

/// The names of the simple tags of a text, trimmed, in order; of nested tags the inner one.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).filter_map(|piece| match piece {
        Piece::Tag(tag) if !is_expression(tag) => Some(tag.rsplit(OPEN).next().unwrap_or(tag).trim()),
        Piece::Tag(_) | Piece::Text(_) => None,
    })
}

/// What expression tags are evaluated with.
#[derive(Clone, Copy)]
pub struct Expressions<'a> {
    /// The names in scope.
    pub environment: &'a dyn Environment,
    /// What `now()` gives: milliseconds since 1970.
    pub now_ms: i64,
}

/// Names that get their values late: an expression that needs one of them waits for it.
const LATE: [&str; 4] = ["item", "retries", "workflow.status", "workflow.failures"];

fn is_late(name: &str) -> bool {
    LATE.contains(&name) || name.starts_with("item.") || name.starts_with("lastRetry.")
}

/// Replaces the simple tags and the expressions of a JSON text.
///
/// The rules for expressions are Argo's: the text is unescaped as JSON first; a syntax error is an error always; an
/// expression that needs a late name, or that fails and needs an unknown name, stays; nil is no result. A text goes in
/// escaped, any other result as its JSON text.
///
/// # Errors
/// As [`substitute`]; [`Error::Expression`] for a syntax error, and, unless the rules are lenient, for an expression that
/// fails although its names are known.
pub fn substitute_with(
    text: &str,
    scope: &dyn Lookup,
    expressions: &Expressions<'_>,
    rules: &Rules<'_>,
) -> Result<String, Error> {
    substitute_all(text, scope, Some(expressions), rules)
}

/// Replaces the simple tags of a JSON text; expressions stay.
///
/// # Errors
/// [`Error::Unresolved`] for an unknown name that the rules want known, [`Error::Absent`] for one without a value,
/// [`Error::TooLong`] and [`Error::TooManyTags`] at the limits.
pub fn substitute(text: &str, scope: &dyn Lookup, rules: &Rules<'_>) -> Result<String, Error> {
    substitute_all(text, scope, None, rules)
}

fn substitute_all(
    text: &str,
    scope: &dyn Lookup,
    expressions: Option<&Expressions<'_>>,
    rules: &Rules<'_>,
) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut tags = 0_usize;
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Tag(tag) => {
                tags += 1;
                if tags > rules.limits.tags_max {
                    return Err(Error::TooManyTags { tags_max: rules.limits.tags_max });
                }
                match (tag.strip_prefix('='), expressions) {
                    (Some(expression), Some(expressions)) => {
                        evaluate(&mut out, tag, expression, expressions, rules)?;
                    }
                    (Some(_), None) => push_tag(&mut out, tag),
                    (None, _) => replace(&mut out, tag, scope, rules)?,
                }
            }
        }
        if out.len() > rules.limits.output_bytes_max {
            return Err(Error::TooLong { bytes_max: rules.limits.output_bytes_max });
        }
    }
    Ok(out)
}

fn replace(out: &mut String, tag: &str, scope: &dyn Lookup, rules: &Rules<'_>) -> Result<(), Error> {
    let name = tag.trim();
    match scope.get(name) {
        Some(Found::Text(value)) => {
            go::push_quoted(out, &value);
            return Ok(());
        }
        Some(Found::Absent) => return Err(Error::Absent(name.to_owned())),
        None => {}
    }
    // `{{outer.{{inner}}}}`: this pass resolves the inner tag only and leaves the outer one for the next.
    if let Some(start) = tag.rfind(OPEN).filter(|start| *start > 0)
        && let Some(Found::Text(value)) = scope.get(tag[start + OPEN.len()..].trim())
    {
        out.push_str(OPEN);
        out.push_str(&tag[..start]);
        go::push_quoted(out, &value);
        return Ok(());
    }
    // An artifact is no text: what refers to one follows it by itself.
    let strict = rules.strict || rules.strict_prefixes.iter().any(|prefix| name.starts_with(prefix));
    if strict && !name.contains(".artifacts.") {
        return Err(Error::Unresolved(tag.to_owned()));
    }
    push_tag(out, tag);
    Ok(())
}

fn push_tag(out: &mut String, tag: &str) {
    out.push_str(OPEN);
    out.push_str(tag);
    out.push_str(CLOSE);
}

/// A JSON text in which nothing opens a tag.
fn push_verbatim(out: &mut String, json: &str) {
    let mut before = ' ';
    for character in json.chars() {
        if before == '{' && character == '{' {
            out.push_str(verbatim::BRACE);
        } else {
            out.push(character);
        }
        before = character;
    }
}

fn evaluate(
    out: &mut String,
    tag: &str,
    expression: &str,
    expressions: &Expressions<'_>,
    rules: &Rules<'_>,
) -> Result<(), Error> {
    let lenient = rules.strict_prefixes.is_empty() && !rules.strict;
    let Ok(source) = serde_json::from_str::<String>(&format!("\"{expression}\"")) else {
        if lenient {
            push_tag(out, tag);
            return Ok(());
        }
        return Err(Error::Expression(format!("failed to unmarshal JSON expression: {expression}")));
    };
    let in_tag = |error: Error| Error::Expression(format!("failed to evaluate expression: {error}"));
    let program = program::compile_within(&source, &rules.limits).map_err(in_tag)?;
    let env = expressions.environment.environment(&program.paths());
    if rules.strict
        && let Some(name) = program.first_unknown(&env)
    {
        return Err(Error::Expression(format!("failed to evaluate expression: {name} is missing")));
    }
    let missing = program.missing(&env);
    let demanded = |name: &String| {
        rules.strict_prefixes.iter().any(|prefix| name.starts_with(prefix))
            && !name.contains(".outputs.artifacts.")
    };
    // Guarded or not: an item is looked for once there is one.
    let unknown = program.unknown(&env);
    if !rules.strict && unknown.iter().any(|name| is_late(name)) {
        push_tag(out, tag);
        return Ok(());
    }
    if missing.iter().any(demanded) {
        return Err(Error::Unresolved(tag.to_owned()));
    }
    let result =
        program.evaluate(&env, &rules.limits, expressions.now_ms).map_err(in_tag).and_then(|value| {
            if value.is_nil() {
                return Err(Error::Expression(format!("failed to evaluate expression {source:?}")));
            }
            let json = value.json(false, rules.limits.output_bytes_max);
            let json = json.map_err(|message| {
                Error::Expression(format!("failed to marshal evaluated expression: {message}"))
            })?;
            Ok(json)
        });
    match result {
        // A JSON text loses its quotes: the tag stands inside a text already.
        Ok(json) => match json.strip_prefix('"').and_then(|json| json.strip_suffix('"')) {
            Some(inner) if env.is_verbatim() => push_verbatim(out, inner),
            Some(inner) => out.push_str(inner),
            None if env.is_verbatim() => go::push_quoted(out, &verbatim::mark(&json)),
            None => go::push_quoted(out, &json),
        },
        Err(_) if lenient || (!unknown.is_empty() && !rules.strict) => push_tag(out, tag),
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn scope(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn known_tags_are_replaced_and_unknown_ones_stay() {
        let scope = scope(&[("a", "1"), ("workflow.name", "w")]);
        let out =
            substitute("x{{a}} {{ workflow.name }} {{b}} {{}} {{ }}}}", &scope, &Rules::LENIENT).unwrap();
        assert_eq!(out, "x1 w {{b}} {{}} {{ }}}}");
    }

    #[test]
    fn an_opening_without_a_close_is_text() {
        assert_eq!(substitute("a {{ b", &scope(&[]), &Rules::STRICT).unwrap(), "a {{ b");
    }

    #[test]
    fn values_are_escaped_for_json() {
        let scope = scope(&[("a", "q\"\\\n\u{1}é")]);
        assert_eq!(substitute("\"{{a}}\"", &scope, &Rules::STRICT).unwrap(), "\"q\\\"\\\\\\n\\x01é\"");
    }

    #[test]
    fn nested_tags_resolve_inside_out_one_pass_at_a_time() {
        let scope = scope(&[("which", "p2"), ("p.p2", "two")]);
        let once = substitute("{{p.{{which}}}}", &scope, &Rules::LENIENT).unwrap();
        assert_eq!(once, "{{p.p2}}");
        assert_eq!(substitute(&once, &scope, &Rules::LENIENT).unwrap(), "two");
    }

    #[test]
    fn three_braces_keep_the_outer_pair() {
        let scope = scope(&[("p", "x")]);
        let out = substitute("{{{p}}}", &scope, &Rules::LENIENT).unwrap();
        assert_eq!(out, "{{{p}}}");
    }

    #[test]
    fn strict_prefixes_refuse_what_is_unknown_except_artifacts() {
        let none = scope(&[]);
        let error = substitute("{{steps.a.outputs.result}}", &none, &Rules::STRICT_NODES).unwrap_err();
        assert_eq!(error.to_string(), "failed to resolve {{steps.a.outputs.result}}");
        substitute("{{steps.a.outputs.artifacts.x}} {{item}}", &none, &Rules::STRICT_NODES).unwrap();
        assert!(substitute("{{item}}", &none, &Rules::STRICT).is_err());
    }

    #[test]
    fn expressions_stay() {
        assert_eq!(substitute("{{=a+b}}", &scope(&[("=a+b", "no")]), &Rules::STRICT).unwrap(), "{{=a+b}}");
    }

    #[test]
    fn output_and_tags_are_bounded() {
        let scope = scope(&[("a", "0123456789")]);
        let limits = Limits { output_bytes_max: 15, tags_max: 2, ..Limits::DEFAULT };
        let rules = Rules { limits, ..Rules::STRICT };
        assert_eq!(substitute("{{a}}{{a}}", &scope, &rules), Err(Error::TooLong { bytes_max: 15 }));
        let limits = Limits { tags_max: 2, ..Limits::DEFAULT };
        let rules = Rules { limits, ..Rules::STRICT };
        assert_eq!(substitute("{{a}}{{a}}{{a}}", &scope, &rules), Err(Error::TooManyTags { tags_max: 2 }));
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives(text in "[{}= a.\\\\\"é\u{1}]{0,60}", value in ".{0,20}") {
            let pairs = scope(&[("a", value.as_str()), ("", "empty")]);
            let _ = substitute(&text, &pairs, &Rules::LENIENT);
            let joined: String = pieces(&text).map(|piece| match piece {
                Piece::Text(text) => text.to_owned(),
                Piece::Tag(tag) => format!("{{{{{tag}}}}}"),
            }).collect();
            proptest::prop_assert_eq!(joined, text);
        }
    }
}
