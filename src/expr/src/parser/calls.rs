//! Calls, literals of lists and maps, members.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use super::Parser;
use crate::ast::{Kind, Node};
use crate::evaluate::names::{self, PREDICATES};
use crate::lexer::{self, Failure, Token};

impl Parser {
    /// A call by name; `piped` is what stands before a `|`.
    pub(super) fn call(&mut self, token: Token, piped: Option<Node>) -> Result<Node, Failure> {
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

    pub(super) fn array(&mut self) -> Result<Node, Failure> {
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

    pub(super) fn map(&mut self) -> Result<Node, Failure> {
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

    pub(super) fn postfix(&mut self, mut node: Node) -> Result<Node, Failure> {
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
