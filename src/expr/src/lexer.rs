//! From an expression's text to tokens.

/// Kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Identifier,
    Number,
    Text,
    Operator,
    Bracket,
    End,
}

/// A token; of a text the unescaped value.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) at: u32,
}

impl Token {
    pub(crate) fn is(&self, kind: Kind, text: &str) -> bool {
        self.kind == kind && self.text == text
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::End => return formatter.write_str("EOF"),
            Kind::Identifier => "Identifier",
            Kind::Number => "Number",
            Kind::Text => "String",
            Kind::Operator => "Operator",
            Kind::Bracket => "Bracket",
        };
        let mut quoted = String::new();
        crate::go::push_quoted(&mut quoted, &self.text);
        write!(formatter, "{kind}(\"{quoted}\")")
    }
}

/// Where and why a text could not be read or evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) at: u32,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(at: u32, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    /// The message with the line it is about and a mark below the place.
    pub(crate) fn show(&self, source: &str) -> String {
        let (mut line_number, mut column, mut line_start) = (1, 0, 0);
        for (characters, (offset, character)) in source.char_indices().enumerate() {
            if characters == self.at as usize {
                break;
            }
            if character == '\n' {
                line_start = offset + 1;
                line_number += 1;
                column = 0;
            } else {
                column += 1;
            }
        }
        let line = source[line_start..].split('\n').next().unwrap_or_default();
        if line.is_empty() {
            return self.message.clone();
        }
        let dots = ".".repeat(column);
        format!("{} ({line_number}:{})\n | {line}\n | {dots}^", self.message, column + 1)
    }
}

const WORD_OPERATORS: [&str; 11] =
    ["not", "in", "or", "and", "matches", "contains", "startsWith", "endsWith", "let", "if", "else"];

struct Lexer {
    source: Vec<char>,
    /// First character not read yet.
    next: usize,
    tokens: Vec<Token>,
}

/// The tokens of an expression; the last is [`Kind::End`].
pub(crate) fn read(source: &str) -> Result<Vec<Token>, Failure> {
    let mut lexer = Lexer { source: source.chars().collect(), next: 0, tokens: Vec::new() };
    while lexer.next < lexer.source.len() {
        lexer.token()?;
    }
    let end = lexer.source.len().saturating_sub(1);
    lexer.emit(Kind::End, String::new(), end);
    Ok(lexer.tokens)
}

fn is_word(character: char) -> bool {
    character == '_' || character == '$' || character.is_alphanumeric()
}

impl Lexer {
    fn peek(&self) -> Option<char> {
        self.source.get(self.next).copied()
    }

    fn second(&self) -> Option<char> {
        self.source.get(self.next + 1).copied()
    }

    fn emit(&mut self, kind: Kind, text: String, start: usize) {
        let at = u32::try_from(start).unwrap_or(u32::MAX);
        self.tokens.push(Token { kind, text, at });
    }

    fn fail<T>(&self, at: usize, message: impl Into<String>) -> Result<T, Failure> {
        Err(Failure::new(u32::try_from(at).unwrap_or(u32::MAX), message))
    }

    fn accept(&mut self, characters: &str) -> bool {
        let found = self.peek().is_some_and(|character| characters.contains(character));
        self.next += usize::from(found);
        found
    }

    fn accept_run(&mut self, characters: &str) {
        while self.accept(characters) {}
    }

    fn word(&self, start: usize) -> String {
        self.source[start..self.next].iter().collect()
    }

    fn token(&mut self) -> Result<(), Failure> {
        let start = self.next;
        let first = self.source[start];
        match first {
            ' ' | '\t' | '\r' | '\n' => self.next += 1,
            '\'' | '"' => self.quoted(first)?,
            '`' => self.raw()?,
            '0'..='9' => self.number()?,
            '.' if self.second().is_some_and(|digit| digit.is_ascii_digit()) => self.number()?,
            '/' if self.second() == Some('/') => {
                while self.peek().is_some_and(|character| character != '\n') {
                    self.next += 1;
                }
            }
            '/' if self.second() == Some('*') => self.comment()?,
            '#' => {
                self.next += 1;
                self.emit(Kind::Operator, "#".to_owned(), start);
            }
            '(' | ')' | '[' | ']' | '{' | '}' => {
                self.next += 1;
                self.emit(Kind::Bracket, first.to_string(), start);
            }
            _ if is_word(first) => {
                while self.peek().is_some_and(is_word) {
                    self.next += 1;
                }
                let word = self.word(start);
                let kind =
                    if WORD_OPERATORS.contains(&word.as_str()) { Kind::Operator } else { Kind::Identifier };
                self.emit(kind, word, start);
            }
            _ => self.operator(first)?,
        }
        Ok(())
    }

    fn operator(&mut self, first: char) -> Result<(), Failure> {
        let start = self.next;
        let followers = match first {
            '?' => ".?",
            '|' => "|",
            ':' => ":",
            '.' => ".",
            '&' | '!' | '=' | '*' | '<' | '>' => "&=*",
            ',' | ';' | '%' | '+' | '-' | '^' | '/' => "",
            other => {
                let code = u32::from(other);
                return self.fail(start, format!("unrecognized character: U+{code:04X} '{other}'"));
            }
        };
        self.next += 1;
        self.accept(followers);
        let text = self.word(start);
        self.emit(Kind::Operator, text, start);
        Ok(())
    }

    fn comment(&mut self) -> Result<(), Failure> {
        self.next += 2;
        loop {
            match self.peek() {
                None => return self.fail(self.next, "unclosed comment"),
                Some('*') if self.second() == Some('/') => {
                    self.next += 2;
                    return Ok(());
                }
                Some(_) => self.next += 1,
            }
        }
    }

    fn number(&mut self) -> Result<(), Failure> {
        let start = self.next;
        let mut digits = "0123456789_";
        if self.accept("0") {
            if self.accept("xX") {
                digits = "0123456789abcdefABCDEF_";
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        self.accept_run(digits);
        if self.peek() == Some('.') && self.second() != Some('.') {
            self.next += 1;
            self.accept_run(digits);
        } else if self.peek() == Some('.') {
            let text = self.word(start);
            self.emit(Kind::Number, text, start);
            return Ok(());
        }
        if self.accept("eE") {
            self.accept("+-");
            self.accept_run(digits);
        }
        if self.peek().is_some_and(is_word) {
            self.next += 1;
            let word = self.word(start);
            return self.fail(self.next - 1, format!("bad number syntax: \"{word}\""));
        }
        let text = self.word(start);
        self.emit(Kind::Number, text, start);
        Ok(())
    }

    fn raw(&mut self) -> Result<(), Failure> {
        let start = self.next;
        self.next += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return self.fail(self.next, "literal not terminated"),
                Some('`') if self.second() == Some('`') => {
                    text.push('`');
                    self.next += 2;
                }
                Some('`') => break,
                Some(character) => {
                    text.push(character);
                    self.next += 1;
                }
            }
        }
        self.next += 1;
        self.emit(Kind::Text, text, start);
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<(), Failure> {
        let start = self.next;
        self.next += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None | Some('\n') => return self.fail(self.next, "literal not terminated"),
                Some('\\') => {
                    self.next += 1;
                    self.escape(&mut text)?;
                }
                Some(character) => {
                    self.next += 1;
                    if character == quote {
                        break;
                    }
                    text.push(character);
                }
            }
        }
        self.emit(Kind::Text, text, start);
        Ok(())
    }

    fn escape(&mut self, text: &mut String) -> Result<(), Failure> {
        let Some(character) = self.peek() else {
            return self.fail(self.next, "literal not terminated");
        };
        self.next += 1;
        let plain = match character {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '`' | '?' => character,
            'x' => self.code(2, 16)?,
            'u' if self.peek() == Some('{') => self.braced()?,
            'u' => self.code(4, 16)?,
            'U' => self.code(8, 16)?,
            '0'..='3' => {
                self.next -= 1;
                self.code(3, 8)?
            }
            _ => return self.fail(self.next - 1, "unable to unescape string"),
        };
        text.push(plain);
        Ok(())
    }

    fn code(&mut self, digits: usize, radix: u32) -> Result<char, Failure> {
        let end = (self.next + digits).min(self.source.len());
        let text: String = self.source[self.next..end].iter().collect();
        let character = (text.chars().count() == digits)
            .then(|| u32::from_str_radix(&text, radix).ok().and_then(char::from_u32))
            .flatten();
        let Some(character) = character else {
            return self.fail(self.next, "unable to unescape string");
        };
        self.next = end;
        Ok(character)
    }

    fn braced(&mut self) -> Result<char, Failure> {
        self.next += 1;
        let start = self.next;
        while self.peek().is_some_and(|digit| digit.is_ascii_hexdigit()) && self.next - start < 8 {
            self.next += 1;
        }
        let character = u32::from_str_radix(&self.word(start), 16).ok().and_then(char::from_u32);
        match character {
            Some(character) if self.accept("}") => Ok(character),
            Some(_) | None => self.fail(start, "unable to unescape string"),
        }
    }
}
