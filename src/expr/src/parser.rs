//! From tokens to a tree: precedence climbing, with bounded depth.

use std::sync::Arc;

use crate::Limits;
use crate::ast::{Infix, Kind, Node, Prefix};
use crate::evaluate::names::{self, PREDICATES};
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
        "or" | "||" => (Infix::Or, 10, false),
        "and" | "&&" => (Infix::And, 15, false),
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
        "**" | "^" => (Infix::Power, 100, true),
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

    /// A call by name; `piped` is what stands before a `|`.
    fn call(&mut self, token: Token, piped: Option<Node>) -> Result<Node, Failure> {
        if let Some((name, shape)) = PREDICATES.iter().find(|(name, _)| *name == token.text) {
            let arguments = self.predicate_arguments(shape, piped)?;
            return self.node(Kind::Builtin { name, arguments }, token.at);
        }
        if let Some(name) = names::builtin(&token.text) {
            let arguments = self.arguments(piped)?;
            return self.node(Kind::Builtin { name, arguments }, token.at);
        }
        let callee = self.node(Kind::Identifier(token.text.into()), token.at)?;
        let arguments = self.arguments(piped)?;
        self.node(Kind::Call { callee: Box::new(callee), arguments }, token.at)
    }

    fn arguments(&mut self, piped: Option<Node>) -> Result<Vec<Node>, Failure> {
        let mut arguments: Vec<Node> = piped.into_iter().collect();
        let before = arguments.len();
        self.expect_bracket("(")?;
        while !self.is_bracket(")") {
            if arguments.len() > before {
                self.expect_operator(",")?;
                if self.is_bracket(")") {
                    break;
                }
            }
            arguments.push(self.expression(0)?);
        }
        self.expect_bracket(")")?;
        Ok(arguments)
    }

    /// `shape` has a letter per argument: `e` expression, `p` predicate, capital when it may be left out.
    fn predicate_arguments(&mut self, shape: &str, piped: Option<Node>) -> Result<Vec<Node>, Failure> {
        let mut arguments: Vec<Node> = piped.into_iter().collect();
        let shape = &shape[arguments.len()..];
        self.expect_bracket("(")?;
        for (index, letter) in shape.chars().enumerate() {
            if self.is_bracket(")") {
                if letter.is_ascii_uppercase() {
                    break;
                }
                return self.fail(format!("expected at least {} arguments", shape.len()));
            }
            if index > 0 {
                self.expect_operator(",")?;
            }
            let argument =
                if letter.eq_ignore_ascii_case(&'p') { self.predicate()? } else { self.expression(0)? };
            arguments.push(argument);
        }
        if self.is_operator(",") {
            self.position += 1;
        }
        self.expect_bracket(")")?;
        Ok(arguments)
    }

    fn predicate(&mut self) -> Result<Node, Failure> {
        let at = self.at();
        let braced = self.is_bracket("{");
        self.position += usize::from(braced);
        self.predicates += 1;
        let body = if braced { self.sequence() } else { self.expression(0) };
        self.predicates -= 1;
        let body = body?;
        if braced {
            self.expect_bracket("}")?;
        }
        self.node(Kind::Predicate(Box::new(body)), at)
    }

    fn array(&mut self) -> Result<Node, Failure> {
        let at = self.at();
        self.position += 1;
        let mut items = Vec::new();
        while !self.is_bracket("]") {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.is_bracket("]") {
                    break;
                }
            }
            items.push(self.expression(0)?);
        }
        self.expect_bracket("]")?;
        self.node(Kind::Array(items), at)
    }

    fn map(&mut self) -> Result<Node, Failure> {
        let at = self.at();
        self.position += 1;
        let mut pairs = Vec::new();
        while !self.is_bracket("}") {
            if !pairs.is_empty() {
                self.expect_operator(",")?;
                if self.is_bracket("}") {
                    break;
                }
            }
            let key = match self.current().kind {
                lexer::Kind::Number | lexer::Kind::Text | lexer::Kind::Identifier => {
                    let token = self.advance();
                    self.node(Kind::Text(token.text.into()), at)?
                }
                lexer::Kind::Bracket if self.is_bracket("(") => self.expression(0)?,
                lexer::Kind::Bracket | lexer::Kind::Operator | lexer::Kind::End => {
                    return self.fail(format!(
                        "a map key must be a quoted string, a number, a identifier, or an expression enclosed in parentheses (unexpected token {})",
                        self.current()
                    ));
                }
            };
            self.expect_operator(":")?;
            let value = self.expression(0)?;
            pairs.push((key, value));
        }
        self.expect_bracket("}")?;
        self.node(Kind::Map(pairs), at)
    }

    fn postfix(&mut self, mut node: Node) -> Result<Node, Failure> {
        loop {
            if self.is_operator("?.") || self.is_operator(".") {
                let mut optional = self.is_operator("?.");
                self.position += 1;
                if optional && self.is_bracket("[") {
                    node = self.index(node, true)?;
                    continue;
                }
                let (inner, chained) = unchain(node);
                let property = self.property()?;
                let at = property.at;
                let was_optional = optional;
                node = self.node(
                    Kind::Member { object: Box::new(inner), property: Box::new(property), optional },
                    at,
                )?;
                if self.is_bracket("(") {
                    let arguments = self.arguments(None)?;
                    node = self.node(Kind::Call { callee: Box::new(node), arguments }, at)?;
                }
                optional = was_optional || chained;
                if optional {
                    node = self.node(Kind::Chain(Box::new(node)), at)?;
                }
            } else if self.is_bracket("[") {
                node = self.index(node, false)?;
            } else {
                return Ok(node);
            }
        }
    }

    fn property(&mut self) -> Result<Node, Failure> {
        let token = self.advance();
        let is_name = token.kind == lexer::Kind::Identifier
            || (token.kind == lexer::Kind::Operator
                && token.text.starts_with(|first: char| first.is_alphabetic()));
        if !is_name {
            return self.fail("expected name");
        }
        self.node(Kind::Text(token.text.into()), token.at)
    }

    fn index(&mut self, object: Node, optional: bool) -> Result<Node, Failure> {
        let at = self.at();
        self.position += 1;
        let (object, chained) = if optional { unchain(object) } else { (object, false) };
        let from = if self.is_operator(":") { None } else { Some(self.expression(0)?) };
        let kind = if self.is_operator(":") {
            self.position += 1;
            let to = if self.is_bracket("]") { None } else { Some(Box::new(self.expression(0)?)) };
            Kind::Slice { object: Box::new(object), from: from.map(Box::new), to }
        } else {
            let Some(property) = from else { return self.unexpected() };
            Kind::Member { object: Box::new(object), property: Box::new(property), optional }
        };
        self.expect_bracket("]")?;
        let node = self.node(kind, at)?;
        if optional || chained { self.node(Kind::Chain(Box::new(node)), at) } else { Ok(node) }
    }
}

/// What a chain holds, so that it can be made longer; and whether there was one.
fn unchain(node: Node) -> (Node, bool) {
    match node.kind {
        Kind::Chain(inner) => (*inner, true),
        kind => (Node { kind, ..node }, false),
    }
}
