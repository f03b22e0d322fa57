//! Tokens of a condition and the rules about which may follow which.
#![expect(clippy::wildcard_enum_match_arm, reason = "only parentheses are special")]

use std::fmt;

use super::time;
use super::value::{Pattern, Value};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unknown,
    Prefix,
    Numeric,
    Boolean,
    String,
    Pattern,
    Time,
    Variable,
    Accessor,
    Separator,
    Comparator,
    Logical,
    Modifier,
    Clause,
    ClauseClose,
    Ternary,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unknown => "UNKNOWN",
            Self::Prefix => "PREFIX",
            Self::Numeric => "NUMERIC",
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Pattern => "PATTERN",
            Self::Time => "TIME",
            Self::Variable => "VARIABLE",
            Self::Accessor => "ACCESSOR",
            Self::Separator => "SEPARATOR",
            Self::Comparator => "COMPARATOR",
            Self::Logical => "LOGICALOP",
            Self::Modifier => "MODIFIER",
            Self::Clause => "CLAUSE",
            Self::ClauseClose => "CLAUSE_CLOSE",
            Self::Ternary => "TERNARY",
        })
    }
}

/// A token and its value: the literal's, or the text of an operator.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) value: Value,
}

impl Token {
    /// The operator's text; empty for literals.
    pub(super) fn symbol(&self) -> &str {
        match &self.value {
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Pattern(_) | Value::Nil => "",
        }
    }

    fn new(kind: Kind, value: Value) -> Self {
        Self { kind, value }
    }

    fn text(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, value: Value::String(text.into()) }
    }
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
}

impl Reader<'_> {
    /// Reads on while `accept` holds; white space ends the token.
    fn word(&mut self, first: char, accept: fn(char) -> bool) -> String {
        let mut word = String::from(first);
        loop {
            match self.rest.peek().copied() {
                // A backslash takes the next character as it is.
                Some('\\') => {
                    self.rest.next();
                    word.extend(self.rest.next());
                }
                Some(next) if !next.is_whitespace() && accept(next) => {
                    self.rest.next();
                    word.push(next);
                }
                Some(_) | None => return word,
            }
        }
    }

    /// Reads to a closing character and past it; `None` when there is none.
    fn quoted(&mut self, is_end: fn(char) -> bool) -> Option<String> {
        let mut text = String::new();
        while let Some(next) = self.rest.next() {
            if next == '\\' {
                text.extend(self.rest.next());
            } else if is_end(next) {
                return Some(text);
            } else {
                text.push(next);
            }
        }
        None
    }
}

fn is_quote(character: char) -> bool {
    character == '\'' || character == '"'
}

fn is_numeric(character: char) -> bool {
    character.is_ascii_digit() || character == '.'
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '.'
}

fn is_symbol(character: char) -> bool {
    !(character.is_alphanumeric() || matches!(character, '(' | ')' | '[' | ']') || is_quote(character))
}

/// Splits a condition into tokens.
pub(super) fn read(text: &str) -> Result<Vec<Token>, String> {
    let mut reader = Reader { rest: text.chars().peekable() };
    let mut tokens = Vec::new();
    let mut before = Kind::Unknown;
    while let Some(character) = reader.rest.next() {
        if character.is_whitespace() {
            continue;
        }
        let token = token(&mut reader, character, before)?;
        before = token.kind;
        tokens.push(token);
    }
    let mut depth = 0_i64;
    for token in &tokens {
        match token.kind {
            Kind::Clause => depth += 1,
            Kind::ClauseClose => depth -= 1,
            _other => {}
        }
    }
    if depth == 0 { Ok(tokens) } else { Err("Unbalanced parenthesis".to_owned()) }
}

fn token(reader: &mut Reader<'_>, first: char, before: Kind) -> Result<Token, String> {
    if is_numeric(first) {
        return number(reader, first);
    }
    if first == ',' {
        return Ok(Token::text(Kind::Separator, ","));
    }
    if first == '[' {
        let name = reader.quoted(|character| character == ']');
        return name
            .map(|name| Token::text(Kind::Variable, name))
            .ok_or_else(|| "Unclosed parameter bracket".to_owned());
    }
    if first.is_alphabetic() {
        return word(reader.word(first, is_name));
    }
    if is_quote(first) {
        let text = reader.quoted(is_quote).ok_or_else(|| "Unclosed string literal".to_owned())?;
        return Ok(match time::seconds(&text) {
            Some(seconds) => Token::new(Kind::Time, Value::Number(seconds)),
            None => Token::text(Kind::String, text),
        });
    }
    if first == '(' {
        return Ok(Token::text(Kind::Clause, "("));
    }
    if first == ')' {
        return Ok(Token::text(Kind::ClauseClose, ")"));
    }
    symbol(reader.word(first, is_symbol), before)
}

fn number(reader: &mut Reader<'_>, first: char) -> Result<Token, String> {
    if first == '0' && reader.rest.peek() == Some(&'x') {
        reader.rest.next();
        let mut digits = String::new();
        while let Some(digit) = reader.rest.next_if(char::is_ascii_hexdigit) {
            digits.push(digit);
        }
        return match u64::from_str_radix(&digits, 16) {
            #[expect(clippy::cast_precision_loss, reason = "the language has doubles only")]
            Ok(value) => Ok(Token::new(Kind::Numeric, Value::Number(value as f64))),
            Err(_) => Err(format!("Unable to parse hex value '{digits}' to uint64\n")),
        };
    }
    let digits = reader.word(first, is_numeric);
    match digits.parse::<f64>() {
        Ok(value) => Ok(Token::new(Kind::Numeric, Value::Number(value))),
        Err(_) => Err(format!("Unable to parse numeric value '{digits}' to float64\n")),
    }
}

fn word(name: String) -> Result<Token, String> {
    match name.as_str() {
        "true" => return Ok(Token::new(Kind::Boolean, Value::Bool(true))),
        "false" => return Ok(Token::new(Kind::Boolean, Value::Bool(false))),
        "in" | "IN" => return Ok(Token::text(Kind::Comparator, "in")),
        _ => {}
    }
    if !name.contains('.') {
        return Ok(Token::text(Kind::Variable, name));
    }
    if name.ends_with('.') {
        return Err(format!("Hanging accessor on token '{name}'"));
    }
    for part in name.split('.').skip(1) {
        if part.chars().next().is_some_and(char::is_lowercase) {
            return Err(format!("Unable to access unexported field '{part}' in token '{name}'"));
        }
    }
    Ok(Token::text(Kind::Accessor, name))
}

fn symbol(text: String, before: Kind) -> Result<Token, String> {
    // A minus is a sign where a value may start, and an operator elsewhere.
    if may_follow(before, Kind::Prefix) && matches!(text.as_str(), "-" | "!" | "~") {
        return Ok(Token::text(Kind::Prefix, text));
    }
    let kind = match text.as_str() {
        "+" | "-" | "*" | "/" | "%" | "**" | "&" | "|" | "^" | ">>" | "<<" => Kind::Modifier,
        "&&" | "||" => Kind::Logical,
        "==" | "!=" | ">" | ">=" | "<" | "<=" | "=~" | "!~" => Kind::Comparator,
        "?" | ":" | "??" => Kind::Ternary,
        _ => return Err(format!("Invalid token: '{text}'")),
    };
    Ok(Token::text(kind, text))
}

/// Whether a token of kind `next` may come after one of kind `before`.
fn may_follow(before: Kind, next: Kind) -> bool {
    use Kind as K;
    let literal = matches!(next, K::Numeric | K::Boolean | K::Variable | K::String);
    let start = literal || matches!(next, K::Prefix | K::Accessor | K::Clause);
    match before {
        K::Unknown => start || matches!(next, K::Pattern | K::Time),
        K::Clause => start || matches!(next, K::Pattern | K::Time | K::ClauseClose),
        K::ClauseClose => {
            literal
                || matches!(
                    next,
                    K::Comparator | K::Modifier | K::Pattern | K::Time | K::Clause | K::ClauseClose
                )
                || matches!(next, K::Logical | K::Ternary | K::Separator)
        }
        K::Numeric | K::Boolean | K::String | K::Time | K::Pattern | K::Variable => {
            matches!(
                next,
                K::Modifier | K::Comparator | K::Logical | K::ClauseClose | K::Ternary | K::Separator
            )
        }
        K::Modifier => start || next == K::ClauseClose,
        K::Comparator => start || matches!(next, K::Time | K::ClauseClose | K::Pattern),
        K::Logical => start || matches!(next, K::Time | K::ClauseClose),
        K::Ternary => start || matches!(next, K::Time | K::Separator),
        K::Prefix => {
            matches!(next, K::Numeric | K::Boolean | K::Variable | K::Accessor | K::Clause | K::ClauseClose)
        }
        K::Accessor => {
            matches!(next, K::Clause | K::Modifier | K::Comparator | K::Logical | K::ClauseClose)
                || matches!(next, K::Ternary | K::Separator)
        }
        K::Separator => start || next == K::Time,
    }
}

/// Checks the order of tokens.
pub(super) fn check(tokens: &[Token]) -> Result<(), String> {
    let start = Token::new(Kind::Unknown, Value::Nil);
    let mut last = &start;
    for token in tokens {
        if !may_follow(last.kind, token.kind) {
            if last.kind == Kind::Variable && token.kind == Kind::Clause {
                return Err(format!("Undefined function {}", last.value));
            }
            let (from, to) = (last.kind, token.kind);
            return Err(format!(
                "Cannot transition token types from {from} [{}] to {to} [{}]",
                printed(last),
                printed(token)
            ));
        }
        last = token;
    }
    match last.kind {
        Kind::Unknown
        | Kind::Prefix
        | Kind::Separator
        | Kind::Comparator
        | Kind::Logical
        | Kind::Modifier
        | Kind::Clause
        | Kind::Ternary => Err("Unexpected end of expression".to_owned()),
        Kind::Numeric
        | Kind::Boolean
        | Kind::String
        | Kind::Pattern
        | Kind::Time
        | Kind::Variable
        | Kind::Accessor
        | Kind::ClauseClose => Ok(()),
    }
}

/// A token's value as Go prints it: parentheses are runes there, so their number shows.
fn printed(token: &Token) -> String {
    match token.kind {
        Kind::Clause => "40".to_owned(),
        Kind::ClauseClose => "41".to_owned(),
        _other => token.value.to_string(),
    }
}

/// Compiles the literal patterns right of `=~` and `!~`.
pub(super) fn compile_patterns(tokens: &mut [Token]) -> Result<(), String> {
    for index in 1..tokens.len() {
        let operator = &tokens[index - 1];
        let matches = operator.kind == Kind::Comparator && matches!(operator.symbol(), "=~" | "!~");
        if matches && tokens[index].kind == Kind::String {
            let pattern = Pattern::new(tokens[index].symbol())?;
            tokens[index] = Token::new(Kind::Pattern, Value::Pattern(pattern));
        }
    }
    Ok(())
}
