//! Regular expressions as Go reads them. Matching takes time linear in the text.
#![expect(clippy::wildcard_enum_match_arm, reason = "kinds of another crate without a counterpart in Go")]

/// Bytes of a compiled pattern, so that a hostile one stays small.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// Compiles a pattern.
///
/// # Errors
/// Go's message where there is a counterpart.
pub(crate) fn compile(text: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(&translated(text))
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|_| syntax_error(text))
}

/// Go's classes know ASCII only, and its brackets hold no further brackets.
fn translated(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut in_class = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('s') => out.push_str("[\\t\\n\\f\\r ]"),
                Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
                Some('b') if !in_class => out.push_str("(?-u:\\b)"),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            '[' if in_class && characters.peek() != Some(&':') => out.push_str("\\["),
            '&' | '~' if in_class => out.extend(['\\', character]),
            '[' => {
                let named = in_class;
                in_class = true;
                out.push('[');
                if named {
                    // `[:alpha:]` up to its own end.
                    for inner in characters.by_ref() {
                        out.push(inner);
                        if inner == ']' {
                            break;
                        }
                    }
                    continue;
                }
                if characters.peek() == Some(&'^') {
                    out.extend(characters.next());
                }
                // A bracket that closes at once stands for itself.
                if characters.peek() == Some(&']') {
                    characters.next();
                    out.push_str("\\]");
                }
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            other => out.push(other),
        }
    }
    out
}

fn syntax_error(text: &str) -> String {
    use regex_syntax::ast::ErrorKind;
    let Err(regex_syntax::Error::Parse(error)) = regex_syntax::Parser::new().parse(text) else {
        return format!("error parsing regexp: expression too large: `{text}`");
    };
    let span = error.span();
    let part = text.get(span.start.offset..span.end.offset).unwrap_or(text);
    let from = text.get(span.start.offset..).unwrap_or(text);
    let (what, shown) = match error.kind() {
        ErrorKind::GroupUnclosed => ("missing closing )", text),
        ErrorKind::GroupUnopened => ("unexpected )", text),
        ErrorKind::ClassUnclosed => ("missing closing ]", from),
        ErrorKind::ClassRangeInvalid => ("invalid character class range", part),
        ErrorKind::RepetitionMissing => {
            ("missing argument to repetition operator", from.get(..1).unwrap_or(from))
        }
        ErrorKind::EscapeUnexpectedEof => ("trailing backslash at end of expression", ""),
        ErrorKind::EscapeUnrecognized => ("invalid escape sequence", part),
        _ => ("invalid syntax", part),
    };
    format!("error parsing regexp: {what}: `{shown}`")
}
