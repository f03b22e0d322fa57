//! From tokens to a tree: precedence climbing, with bounded depth.

mod calls;

use std::sync::Arc;

use crate::Limits;
use crate::ast::{Infix, Kind, Node, Prefix};
use crate::lexer::{self, Failure, Token};

/// The tree may be this many times taller than parentheses may be deep: chains of operators make it tall.
const HEIGHT_FACTOR: u32 = 4;
/// Nodes of a tree. Comparisons in a row and `a ?: b` copy an operand, which must not double without end.
const NODES_MAX: u32 = 100_000;

/// Reads an expression.
pub(crate) fn parse(source: &str, limits: &Limits) -> Result<Node, Failure> {
    if source.len() > limits.expression_bytes_max {
        let message = format!("expression is longer than {} bytes; shorten it", limits.expression_bytes_max);
        return Err(Failure::new(0, message));
    }
    let tokens = lexer::read(source)?;
    let depth_max = u32::try_from(limits.depth_max).unwrap_or(u32::MAX);
    let mut parser = Parser { tokens, position: 0, depth: 0, depth_max, predicates: 0 };
    let node = parser.sequence()?;
    if parser.current().kind != lexer::Kind::End {
        return parser.unexpected();
    }
    Ok(node)
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
    depth: u32,
    depth_max: u32,
    /// Predicates around the current token.
    predicates: u32,
}

/// What is known of an operator: itself, precedence, whether it takes its right side first.
fn infix(text: &str) -> Option<(Infix, u32, bool)> {
    Some(match text {
        "||" => (Infix::Or, 10, false),
        "or" => (Infix::OrWord, 10, false),
        "&&" => (Infix::And, 15, false),
        "and" => (Infix::AndWord, 15, false),
        "==" => (Infix::Equal, 20, false),
        "!=" => (Infix::NotEqual, 20, false),
        "<" => (Infix::Less, 20, false),
        ">" => (Infix::More, 20, false),
        ">=" => (Infix::MoreOrEqual, 20, false),
        "<=" => (Infix::LessOrEqual, 20, false),
        "in" => (Infix::In, 20, false),
        "matches" => (Infix::Matches, 20, false),
        "contains" => (Infix::Contains, 20, false),
        "startsWith" => (Infix::StartsWith, 20, false),
        "endsWith" => (Infix::EndsWith, 20, false),
        ".." => (Infix::Range, 25, false),
        "+" => (Infix::Add, 30, false),
        "-" => (Infix::Subtract, 30, false),
        "*" => (Infix::Multiply, 60, false),
        "/" => (Infix::Divide, 60, false),
        "%" => (Infix::Modulo, 60, false),
        "**" => (Infix::Power, 100, true),
        "^" => (Infix::PowerSign, 100, true),
        "??" => (Infix::Coalesce, 500, false),
        _ => return None,
    })
}

fn is_order(operator: Infix) -> bool {
    matches!(operator, Infix::Less | Infix::LessOrEqual | Infix::More | Infix::MoreOrEqual)
}

fn may_be_negated(text: &str) -> bool {
    matches!(text, "in" | "matches" | "contains" | "startsWith" | "endsWith")
}

impl Parser {
    fn current(&self) -> &Token {
        &self.tokens[self.position.min(self.tokens.len() - 1)]
    }

    fn at(&self) -> u32 {
        self.current().at
    }

    fn advance(&mut self) -> Token {
        let token = self.current().clone();
        self.position += 1;
        token
    }

    fn is_operator(&self, text: &str) -> bool {
        self.current().is(lexer::Kind::Operator, text)
    }

    fn is_bracket(&self, text: &str) -> bool {
        self.current().is(lexer::Kind::Bracket, text)
    }

    fn unexpected<T>(&self) -> Result<T, Failure> {
        self.fail(format!("unexpected token {}", self.current()))
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, Failure> {
        Err(Failure::new(self.at(), message))
    }

    fn expect_operator(&mut self, text: &str) -> Result<(), Failure> {
        if !self.is_operator(text) {
            return self.unexpected();
        }
        self.position += 1;
        Ok(())
    }

    fn expect_bracket(&mut self, text: &str) -> Result<(), Failure> {
        if !self.is_bracket(text) {
            return self.unexpected();
        }
        self.position += 1;
        Ok(())
    }

    fn expect_identifier(&mut self) -> Result<Token, Failure> {
        if self.current().kind != lexer::Kind::Identifier {
            return self.unexpected();
        }
        Ok(self.advance())
    }

    /// Makes a node, refusing trees that grow too tall.
    fn node(&self, kind: Kind, at: u32) -> Result<Node, Failure> {
        let node = Node::new(kind, at);
        if node.height > self.depth_max.saturating_mul(HEIGHT_FACTOR) || node.size > NODES_MAX {
            return Err(Failure::new(at, "expression is nested too deeply; split it"));
        }
        Ok(node)
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        if self.depth >= self.depth_max {
            return self
                .fail(format!("expression is nested deeper than {} levels; split it", self.depth_max));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn sequence(&mut self) -> Result<Node, Failure> {
        let at = self.at();
        let first = self.expression(0)?;
        if !self.is_operator(";") {
            return Ok(first);
        }
        let mut nodes = vec![first];
        while self.is_operator(";") {
            self.position += 1;
            // A semicolon may end the text.
            if self.current().kind == lexer::Kind::End {
                break;
            }
            nodes.push(self.expression(0)?);
        }
        self.node(Kind::Sequence(nodes), at)
    }

    fn expression(&mut self, precedence: u32) -> Result<Node, Failure> {
        self.nested(|parser| {
            if precedence == 0 && parser.is_operator("let") {
                return parser.declaration();
            }
            if precedence == 0 && parser.is_operator("if") {
                return parser.branches();
            }
            let left = parser.primary()?;
            let mut node = parser.operators(left, precedence)?;
            while precedence == 0 && parser.is_operator("?") {
                node = parser.ternary(node)?;
            }
            Ok(node)
        })
    }

    fn operators(&mut self, mut left: Node, precedence: u32) -> Result<Node, Failure> {
        let mut previous = None;
        while self.current().kind == lexer::Kind::Operator {
            let before = self.position;
            let negated = self.is_operator("not");
            if negated {
                self.position += 1;
                if !may_be_negated(&self.current().text) {
                    return self.unexpected();
                }
            }
            if precedence == 0 && self.is_operator("|") {
                self.position += 1;
                let name = self.expect_identifier()?;
                left = self.call(name, Some(left))?;
                left = self.postfix(left)?;
                previous = None;
                continue;
            }
            let Some((operator, strength, right_first)) =
                infix(&self.current().text).filter(|(_, strength, _)| *strength >= precedence)
            else {
                self.position = before;
                break;
            };
            let token = self.advance();
            if previous == Some(Infix::Coalesce) && operator != Infix::Coalesce {
                let message = format!(
                    "Operator ({}) and coalesce expressions (??) cannot be mixed. Wrap either by parentheses.",
                    token.text
                );
                return Err(Failure::new(token.at, message));
            }
            if is_order(operator) {
                left = self.comparisons(left, operator, token.at, strength)?;
            } else {
                let right = self.expression(if right_first { strength } else { strength + 1 })?;
                left = self.node(Kind::Binary(operator, Box::new(left), Box::new(right)), token.at)?;
                if negated {
                    left = self.node(Kind::Unary(Prefix::Not, Box::new(left)), token.at)?;
                }
            }
            previous = Some(operator);
        }
        Ok(left)
    }

    /// `a < b < c` is `a < b && b < c`.
    fn comparisons(&mut self, first: Node, operator: Infix, at: u32, strength: u32) -> Result<Node, Failure> {
        let (mut left, mut operator, mut at) = (first, operator, at);
        let mut root: Option<Node> = None;
        loop {
            let right = self.expression(strength + 1)?;
            let more = (self.current().kind == lexer::Kind::Operator)
                .then(|| infix(&self.current().text))
                .flatten()
                .map(|(operator, ..)| operator)
                .filter(|operator| is_order(*operator));
            let next_left = more.map(|_| right.clone());
            let pair = self.node(Kind::Binary(operator, Box::new(left), Box::new(right)), at)?;
            let joined = match root {
                None => pair,
                Some(root) => self.node(Kind::Binary(Infix::And, Box::new(root), Box::new(pair)), at)?,
            };
            let (Some(next_operator), Some(next_left)) = (more, next_left) else { return Ok(joined) };
            root = Some(joined);
            (left, operator, at) = (next_left, next_operator, self.at());
            self.position += 1;
        }
    }

    fn declaration(&mut self) -> Result<Node, Failure> {
        self.position += 1;
        let name = self.expect_identifier()?;
        self.expect_operator("=")?;
        let value = self.expression(0)?;
        self.expect_operator(";")?;
        let body = self.sequence()?;
        let kind = Kind::Let { name: name.text.into(), value: Box::new(value), body: Box::new(body) };
        self.node(kind, name.at)
    }

    fn branches(&mut self) -> Result<Node, Failure> {
        let at = self.at();
        self.position += 1;
        let condition = self.expression(0)?;
        let then = self.block()?;
        self.expect_operator("else")?;
        let otherwise = if self.is_operator("if") { self.nested(Self::branches)? } else { self.block()? };
        let kind = Kind::Conditional {
            condition: Box::new(condition),
            then: Box::new(then),
            otherwise: Box::new(otherwise),
        };
        self.node(kind, at)
    }

    fn block(&mut self) -> Result<Node, Failure> {
        self.expect_bracket("{")?;
        let node = self.sequence()?;
        self.expect_bracket("}")?;
        Ok(node)
    }

    fn ternary(&mut self, condition: Node) -> Result<Node, Failure> {
        let at = self.at();
        self.position += 1;
        let then = if self.is_operator(":") { condition.clone() } else { self.expression(0)? };
        self.expect_operator(":")?;
        let otherwise = self.expression(0)?;
        let kind = Kind::Conditional {
            condition: Box::new(condition),
            then: Box::new(then),
            otherwise: Box::new(otherwise),
        };
        self.node(kind, at)
    }

    fn primary(&mut self) -> Result<Node, Failure> {
        let at = self.at();
        if self.current().kind == lexer::Kind::Operator {
            let prefix = match self.current().text.as_str() {
                "not" | "!" => Some((Prefix::Not, 50)),
                "-" => Some((Prefix::Minus, 90)),
                "+" => Some((Prefix::Plus, 90)),
                _ => None,
            };
            if let Some((operator, strength)) = prefix {
                self.position += 1;
                let operand = self.expression(strength)?;
                let node = self.node(Kind::Unary(operator, Box::new(operand)), at)?;
                return self.postfix(node);
            }
            if self.is_operator("#") || self.is_operator(".") {
                return self.pointer(at);
            }
            if self.is_operator("::") {
                self.position += 1;
                let name = self.expect_identifier()?;
                let call = self.call(name, None)?;
                return self.postfix(call);
            }
        }
        if self.is_bracket("(") {
            self.position += 1;
            let inner = self.sequence()?;
            self.expect_bracket(")")?;
            return self.postfix(inner);
        }
        self.secondary(at)
    }

    fn pointer(&mut self, at: u32) -> Result<Node, Failure> {
        if self.predicates == 0 {
            return self.fail("cannot use pointer accessor outside predicate");
        }
        let mut name: Arc<str> = "".into();
        if self.is_operator("#") {
            self.position += 1;
            if self.current().kind == lexer::Kind::Identifier && self.at() == at + 1 {
                name = self.advance().text.into();
            }
        }
        let node = self.node(Kind::Pointer(name), at)?;
        self.postfix(node)
    }

    fn secondary(&mut self, at: u32) -> Result<Node, Failure> {
        let node = match self.current().kind {
            lexer::Kind::Identifier => {
                let token = self.advance();
                match token.text.as_str() {
                    "true" => return self.node(Kind::Bool(true), at),
                    "false" => return self.node(Kind::Bool(false), at),
                    "nil" => return self.node(Kind::Nil, at),
                    _ if self.is_bracket("(") => self.call(token, None)?,
                    _ => self.node(Kind::Identifier(token.text.into()), at)?,
                }
            }
            lexer::Kind::Number => {
                let token = self.advance();
                return self.number(&token);
            }
            lexer::Kind::Text => {
                let token = self.advance();
                self.node(Kind::Text(token.text.into()), at)?
            }
            lexer::Kind::Bracket if self.is_bracket("[") => self.array()?,
            lexer::Kind::Bracket if self.is_bracket("{") => self.map()?,
            lexer::Kind::Bracket | lexer::Kind::Operator | lexer::Kind::End => return self.unexpected(),
        };
        self.postfix(node)
    }

    fn number(&mut self, token: &Token) -> Result<Node, Failure> {
        let text = token.text.replace('_', "").to_lowercase();
        let radix = match text.get(..2) {
            Some("0x") => 16,
            Some("0o") => 8,
            Some("0b") => 2,
            Some(_) | None => 10,
        };
        if radix == 10 && text.contains(['.', 'e']) {
            return match text.parse::<f64>() {
                Ok(number) if number.is_finite() => self.node(Kind::Float(number), token.at),
                Ok(_) | Err(_) => Err(Failure::new(
                    token.at,
                    format!(
                        "invalid float literal: strconv.ParseFloat: parsing \"{}\": invalid syntax",
                        token.text
                    ),
                )),
            };
        }
        let digits = if radix == 10 { text.as_str() } else { &text[2..] };
        match i64::from_str_radix(digits, radix) {
            Ok(number) => self.node(Kind::Integer(number), token.at),
            Err(error) => {
                let (kind, reason) = (
                    match radix {
                        16 => "hex",
                        8 => "octal",
                        2 => "binary",
                        _ => "integer",
                    },
                    if matches!(error.kind(), std::num::IntErrorKind::PosOverflow) {
                        "value out of range"
                    } else {
                        "invalid syntax"
                    },
                );
                let message =
                    format!("invalid {kind} literal: strconv.ParseInt: parsing \"{text}\": {reason}");
                Err(Failure::new(self.at(), message))
            }
        }
    }
}
