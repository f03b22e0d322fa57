//! The tree of an expression, and walking over it.

use std::sync::Arc;

/// A part of an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Where it is: characters from the beginning of the text. Errors are reported there.
    pub at: u32,
    /// Levels of nodes in it, itself included.
    pub height: u32,
    /// Nodes in it, itself included.
    pub size: u32,
}

/// Operators before their operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// `!` and `not`
    Not,
    /// `-`
    Minus,
    /// `+`
    Plus,
}

/// Operators between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Infix {
    /// `||`
    Or,
    /// `or`: the same under another name, which errors repeat.
    OrWord,
    /// `&&`
    And,
    /// `and`
    AndWord,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    More,
    /// `>=`
    MoreOrEqual,
    /// `in`
    In,
    /// `matches`
    Matches,
    /// `contains`
    Contains,
    /// `startsWith`
    StartsWith,
    /// `endsWith`
    EndsWith,
    /// `..`
    Range,
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `**`
    Power,
    /// `^`
    PowerSign,
    /// `??`
    Coalesce,
}

impl Infix {
    /// The operator as errors spell it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::OrWord => "or",
            Self::And => "&&",
            Self::AndWord => "and",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::More => ">",
            Self::MoreOrEqual => ">=",
            Self::In => "in",
            Self::Matches => "matches",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Range => "..",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "**",
            Self::PowerSign => "^",
            Self::Coalesce => "??",
        }
    }
}

/// The kinds of nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `nil`
    Nil,
    /// `true`, `false`
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a point or exponent.
    Float(f64),
    /// A quoted text.
    Text(Arc<str>),
    /// A name.
    Identifier(Arc<str>),
    /// `#` (empty), `#acc`, `#index`: the element a predicate is asked about.
    Pointer(Arc<str>),
    /// An operator and its operand.
    Unary(Prefix, Box<Node>),
    /// An operator between two operands.
    Binary(Infix, Box<Node>, Box<Node>),
    /// As far as a `?.` inside may cut the evaluation short.
    Chain(Box<Node>),
    /// `object.name`, `object[index]`
    Member {
        /// What is looked into.
        object: Box<Node>,
        /// A [`Kind::Text`] for `.name`.
        property: Box<Node>,
        /// `?.`
        optional: bool,
    },
    /// `object[from:to]`
    Slice {
        /// What is cut.
        object: Box<Node>,
        /// The first kept.
        from: Option<Box<Node>>,
        /// The first not kept.
        to: Option<Box<Node>>,
    },
    /// A call of something that is not built into the language.
    Call {
        /// A name or a member.
        callee: Box<Node>,
        /// Its arguments.
        arguments: Vec<Node>,
    },
    /// A call of a built-in function.
    Builtin {
        /// Its name.
        name: &'static str,
        /// Its arguments; of some the second is a [`Kind::Predicate`].
        arguments: Vec<Node>,
    },
    /// What is evaluated once per element.
    Predicate(Box<Node>),
    /// `let name = value; body`
    Let {
        /// The variable.
        name: Arc<str>,
        /// Its value.
        value: Box<Node>,
        /// Where it is known.
        body: Box<Node>,
    },
    /// `condition ? then : otherwise`, `if condition { then } else { otherwise }`
    Conditional {
        /// The condition.
        condition: Box<Node>,
        /// If it holds.
        then: Box<Node>,
        /// If not.
        otherwise: Box<Node>,
    },
    /// `[a, b]`
    Array(Vec<Node>),
    /// `{k: v}`
    Map(Vec<(Node, Node)>),
    /// `a; b`: the value of the last.
    Sequence(Vec<Node>),
}

impl Node {
    /// A node; its height comes from its children.
    pub fn new(kind: Kind, at: u32) -> Self {
        let mut node = Self { kind, at, height: 1, size: 1 };
        let (mut tallest, mut all) = (0, 1_u32);
        node.each_child(&mut |child| {
            tallest = tallest.max(child.height);
            all = all.saturating_add(child.size);
        });
        node.height = tallest + 1;
        node.size = all;
        node
    }

    /// Calls `visit` with each direct child, in the order of the text.
    pub fn each_child<'a>(&'a self, visit: &mut dyn FnMut(&'a Node)) {
        match &self.kind {
            Kind::Nil
            | Kind::Bool(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Text(_)
            | Kind::Identifier(_)
            | Kind::Pointer(_) => {}
            Kind::Unary(_, operand) | Kind::Chain(operand) | Kind::Predicate(operand) => visit(operand),
            Kind::Binary(_, left, right) => {
                visit(left);
                visit(right);
            }
            Kind::Member { object, property, optional: _ } => {
                visit(object);
                visit(property);
            }
            Kind::Slice { object, from, to } => {
                visit(object);
                from.iter().chain(to).for_each(|bound| visit(bound));
            }
            Kind::Call { callee, arguments } => {
                visit(callee);
                arguments.iter().for_each(visit);
            }
            Kind::Builtin { name: _, arguments } => arguments.iter().for_each(visit),
            Kind::Let { name: _, value, body } => {
                visit(value);
                visit(body);
            }
            Kind::Conditional { condition, then, otherwise } => {
                visit(condition);
                visit(then);
                visit(otherwise);
            }
            Kind::Array(items) | Kind::Sequence(items) => items.iter().for_each(visit),
            Kind::Map(pairs) => {
                for (key, value) in pairs {
                    visit(key);
                    visit(value);
                }
            }
        }
    }

    /// Calls `visit` with this node and all below it; where it returns false, not with those below.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Node) -> bool) {
        if visit(self) {
            self.each_child(&mut |child| child.walk(visit));
        }
    }

    /// The names of `a.b['c']`, when the node is a name or members of one.
    pub fn path(&self) -> Option<Vec<Arc<str>>> {
        match &self.kind {
            Kind::Identifier(name) => Some(vec![name.clone()]),
            Kind::Chain(inner) => inner.path(),
            Kind::Member { object, property, optional: _ } => {
                let Kind::Text(name) = &property.kind else { return None };
                let mut path = object.path()?;
                path.push(name.clone());
                Some(path)
            }
            Kind::Nil
            | Kind::Bool(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Text(_)
            | Kind::Pointer(_)
            | Kind::Unary(..)
            | Kind::Binary(..)
            | Kind::Slice { .. }
            | Kind::Call { .. }
            | Kind::Builtin { .. }
            | Kind::Predicate(_)
            | Kind::Let { .. }
            | Kind::Conditional { .. }
            | Kind::Array(_)
            | Kind::Map(_)
            | Kind::Sequence(_) => None,
        }
    }
}
