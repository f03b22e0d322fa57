//! Types as far as they are known before evaluation. The language refuses what can't fit, even where it would not be
//! evaluated, with its own words.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use std::sync::Arc;

use crate::ast::{Infix, Kind, Node, Prefix};
use crate::environment::Env;
use crate::evaluate::names::{self, Signature};
use crate::lexer::Failure;
use crate::value::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Any,
    Nil,
    Bool,
    Int,
    Float,
    Text,
    List,
    Map,
    /// A map with keys of any type.
    Groups,
    Time,
    Duration,
    Zone,
    Function,
}

impl Type {
    fn text(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Nil => "nil",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float64",
            Self::Text => "string",
            Self::List => "[]interface {}",
            Self::Map => "map[string]interface {}",
            Self::Groups => "map[interface {}]interface {}",
            Self::Time => "time.Time",
            Self::Duration => "time.Duration",
            Self::Zone => "*time.Location",
            Self::Function => "func(...interface {}) (interface {}, error)",
        }
    }

    fn of(value: &Value) -> Self {
        match value {
            Value::Nil => Self::Nil,
            Value::Bool(_) => Self::Bool,
            Value::Int(_) => Self::Int,
            Value::Float(_) => Self::Float,
            Value::Text(_) => Self::Text,
            Value::List(_) => Self::List,
            Value::Map(map) if map.any_keys() => Self::Groups,
            Value::Map(_) => Self::Map,
            Value::Time(_) => Self::Time,
            Value::Duration(_) => Self::Duration,
            Value::Zone(_) => Self::Zone,
            Value::Version(_) | Value::Calendar(..) | Value::Function(_) => Self::Any,
        }
    }

    fn letter(letter: char) -> Self {
        match letter {
            'b' => Self::Bool,
            'i' => Self::Int,
            'f' => Self::Float,
            's' => Self::Text,
            'l' => Self::List,
            'm' => Self::Map,
            'k' => Self::Groups,
            't' => Self::Time,
            'd' => Self::Duration,
            'z' => Self::Zone,
            _ => Self::Any,
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Float | Self::Duration)
    }

    fn fits(self, letter: char) -> bool {
        match letter.to_ascii_lowercase() {
            _ if matches!(self, Self::Any | Self::Nil) => true,
            's' => self == Self::Text,
            'i' => self == Self::Int,
            'n' => self.is_number(),
            'v' => self.is_number() || self == Self::Text,
            'l' => self == Self::List,
            'm' => matches!(self, Self::Map | Self::Groups),
            'x' => matches!(self, Self::List | Self::Map | Self::Groups | Self::Text),
            _ => true,
        }
    }
}

struct Checker<'a> {
    env: &'a Env,
    variables: Vec<(Arc<str>, Type)>,
}

/// Checks an expression against the names it will be evaluated with.
pub(crate) fn check(root: &Node, env: &Env) -> Result<(), Failure> {
    Checker { env, variables: Vec::new() }.visit(root).map(|_| ())
}

fn refuse<T>(node: &Node, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(node.at, message))
}

impl Checker<'_> {
    fn visit(&mut self, node: &Node) -> Result<Type, Failure> {
        match &node.kind {
            Kind::Nil => Ok(Type::Nil),
            Kind::Bool(_) => Ok(Type::Bool),
            Kind::Integer(_) => Ok(Type::Int),
            Kind::Float(_) => Ok(Type::Float),
            Kind::Text(_) => Ok(Type::Text),
            Kind::Identifier(name) => self.identifier(node, name),
            Kind::Pointer(name) => match &**name {
                "" | "acc" => Ok(Type::Any),
                "index" => Ok(Type::Int),
                other => refuse(node, format!("unknown pointer #{other}")),
            },
            Kind::Unary(operator, operand) => self.unary(node, *operator, operand),
            Kind::Binary(operator, left, right) => self.binary(node, *operator, left, right),
            Kind::Chain(inner) => {
                self.visit(inner)?;
                Ok(Type::Any)
            }
            Kind::Member { object, property, optional: _ } => self.member(node, object, property, false),
            Kind::Slice { object, from, to } => self.slice(node, object, [from, to]),
            Kind::Call { callee, arguments } => self.call(node, callee, arguments),
            Kind::Builtin { name, arguments } => self.builtin(node, name, arguments),
            Kind::Predicate(body) => self.visit(body),
            Kind::Let { name, value, body } => self.declaration(node, name, value, body),
            Kind::Conditional { condition, then, otherwise } => self.conditional(condition, then, otherwise),
            Kind::Array(items) => {
                items.iter().try_for_each(|item| self.visit(item).map(|_| ()))?;
                Ok(Type::List)
            }
            Kind::Map(pairs) => {
                for (key, value) in pairs {
                    self.visit(key)?;
                    self.visit(value)?;
                }
                Ok(Type::Map)
            }
            Kind::Sequence(nodes) => {
                let mut last = Type::Nil;
                for node in nodes {
                    last = self.visit(node)?;
                }
                Ok(last)
            }
        }
    }

    fn identifier(&self, node: &Node, name: &str) -> Result<Type, Failure> {
        if let Some((_, kind)) = self.variables.iter().rev().find(|(known, _)| &**known == name) {
            return Ok(*kind);
        }
        if let Some(value) = self.env.get(name) {
            return Ok(Type::of(value));
        }
        match name {
            "$env" | "sprig" => Ok(Type::Map),
            _ if names::is_function(name) => Ok(Type::Function),
            _ => refuse(node, format!("unknown name {name}")),
        }
    }

    fn unary(&mut self, node: &Node, operator: Prefix, operand: &Node) -> Result<Type, Failure> {
        let kind = self.visit(operand)?;
        let (fits, text) = match operator {
            Prefix::Not => (matches!(kind, Type::Bool | Type::Any), "not"),
            Prefix::Minus => (kind.is_number() || kind == Type::Any, "-"),
            Prefix::Plus => (kind.is_number() || kind == Type::Any, "+"),
        };
        if !fits {
            return refuse(node, format!("invalid operation: {text} (mismatched type {})", kind.text()));
        }
        Ok(if operator == Prefix::Not { Type::Bool } else { kind })
    }

    fn binary(&mut self, node: &Node, operator: Infix, left: &Node, right: &Node) -> Result<Type, Failure> {
        let (l, r) = (self.visit(left)?, self.visit(right)?);
        if operator == Infix::Modulo
            && matches!(right.kind, Kind::Integer(0))
            && matches!(left.kind, Kind::Integer(_))
        {
            return refuse(node, "integer divide by zero");
        }
        if operator == Infix::Matches
            && let Kind::Text(pattern) = &right.kind
        {
            crate::pattern::compile(pattern).map_err(|message| Failure::new(node.at, message))?;
        }
        result_type(operator, l, r).ok_or_else(|| {
            let message = format!(
                "invalid operation: {} (mismatched types {} and {})",
                operator.text(),
                l.text(),
                r.text()
            );
            Failure::new(node.at, message)
        })
    }

    fn member(&mut self, node: &Node, object: &Node, property: &Node, called: bool) -> Result<Type, Failure> {
        let base = self.visit(object)?;
        let index = self.visit(property)?;
        let name = if let Kind::Text(name) = &property.kind { Some(name) } else { None };
        match base {
            Type::Any | Type::Groups | Type::Time | Type::Duration | Type::Function | Type::Zone => {
                Ok(Type::Any)
            }
            Type::Map if matches!(index, Type::Text | Type::Any | Type::Nil) => Ok(Type::Any),
            Type::Map => refuse(
                property,
                format!("cannot use {} to get an element from {}", index.text(), base.text()),
            ),
            Type::List if matches!(index, Type::Int | Type::Any) => Ok(Type::Any),
            Type::List => refuse(
                property,
                format!("array elements can only be selected using an integer (got {})", index.text()),
            ),
            Type::Nil | Type::Bool | Type::Int | Type::Float | Type::Text => match name {
                Some(name) if called => refuse(node, format!("type {} has no method {name}", base.text())),
                Some(name) => refuse(node, format!("type {} has no field {name}", base.text())),
                None => refuse(node, format!("type {}[{}] is undefined", base.text(), index.text())),
            },
        }
    }

    fn slice(
        &mut self,
        node: &Node,
        object: &Node,
        bounds: [&Option<Box<Node>>; 2],
    ) -> Result<Type, Failure> {
        let kind = self.visit(object)?;
        if !matches!(kind, Type::Any | Type::Text | Type::List) {
            return refuse(node, format!("cannot slice {}", kind.text()));
        }
        for bound in bounds.into_iter().flatten() {
            let index = self.visit(bound)?;
            if !matches!(index, Type::Int | Type::Any) {
                return refuse(bound, format!("non-integer slice index {}", index.text()));
            }
        }
        Ok(kind)
    }

    fn call(&mut self, node: &Node, callee: &Node, arguments: &[Node]) -> Result<Type, Failure> {
        let kind = match &callee.kind {
            Kind::Member { object, property, optional: _ } => self.member(callee, object, property, true)?,
            _ => self.visit(callee)?,
        };
        if !matches!(kind, Type::Any | Type::Function) {
            return refuse(node, format!("{} is not callable", kind.text()));
        }
        for argument in arguments {
            self.visit(argument)?;
        }
        let Kind::Identifier(name) = &callee.kind else { return Ok(Type::Any) };
        if self.env.get(name).is_some() {
            return Ok(Type::Any);
        }
        Ok(match &**name {
            "asInt" => Type::Int,
            "asFloat" => Type::Float,
            "toJson" => Type::Text,
            _ => Type::Any,
        })
    }

    fn builtin(&mut self, node: &Node, name: &str, arguments: &[Node]) -> Result<Type, Failure> {
        let mut kinds = Vec::with_capacity(arguments.len());
        for argument in arguments {
            kinds.push(self.visit(argument)?);
        }
        if let Some(signature) = names::signature(name) {
            signature_fits(signature, node, arguments, &kinds)?;
            return Ok(Type::letter(signature.gives));
        }
        if let (Some(kind), Some(list)) = (kinds.first(), arguments.first())
            && !kind.fits('l')
        {
            return refuse(list, format!("builtin {name} takes only array (got {})", kind.text()));
        }
        let asks = matches!(
            name,
            "all"
                | "none"
                | "any"
                | "one"
                | "filter"
                | "count"
                | "find"
                | "findIndex"
                | "findLast"
                | "findLastIndex"
        );
        if asks
            && let (Some(kind), Some(predicate)) = (kinds.get(1), arguments.get(1))
            && !matches!(kind, Type::Bool | Type::Any)
        {
            return refuse(predicate, format!("predicate should return boolean (got {})", kind.text()));
        }
        Ok(match name {
            "all" | "none" | "any" | "one" => Type::Bool,
            "filter" | "map" | "sortBy" => Type::List,
            "count" | "findIndex" | "findLastIndex" => Type::Int,
            "groupBy" => Type::Groups,
            _ => Type::Any,
        })
    }

    fn declaration(
        &mut self,
        node: &Node,
        name: &Arc<str>,
        value: &Node,
        body: &Node,
    ) -> Result<Type, Failure> {
        if names::signature(name).is_some() || names::PREDICATES.iter().any(|(known, _)| *known == &**name) {
            return refuse(node, format!("cannot redeclare builtin {name}"));
        }
        if self.env.get(name).is_some() || names::is_function(name) || &**name == "sprig" {
            return refuse(node, format!("cannot redeclare {name}"));
        }
        if self.variables.iter().any(|(known, _)| known == name) {
            return refuse(node, format!("cannot redeclare variable {name}"));
        }
        let kind = self.visit(value)?;
        self.variables.push((name.clone(), kind));
        let result = self.visit(body);
        self.variables.pop();
        result
    }

    fn conditional(&mut self, condition: &Node, then: &Node, otherwise: &Node) -> Result<Type, Failure> {
        let kind = self.visit(condition)?;
        if !matches!(kind, Type::Bool | Type::Any) {
            let message = format!("non-bool expression (type {}) used as condition", kind.text());
            return refuse(condition, message);
        }
        Ok(match (self.visit(then)?, self.visit(otherwise)?) {
            (Type::Nil, kind) | (kind, Type::Nil) => kind,
            (then, otherwise) if then == otherwise => then,
            _ => Type::Any,
        })
    }
}

fn signature_fits(
    signature: &Signature,
    node: &Node,
    arguments: &[Node],
    kinds: &[Type],
) -> Result<(), Failure> {
    let endless = signature.takes.ends_with('*');
    let letters: Vec<char> = signature.takes.chars().filter(|letter| *letter != '*').collect();
    let least = letters.iter().filter(|letter| letter.is_ascii_lowercase()).count();
    let (given, name) = (kinds.len(), signature.name);
    if given < least || (given > letters.len() && !endless) {
        let message = if signature.counts || endless {
            let bound = if endless { "at least 1".to_owned() } else { least.to_string() };
            format!("invalid number of arguments (expected {bound}, got {given})")
        } else if given < least {
            format!("not enough arguments to call {name}")
        } else {
            format!("too many arguments to call {name}")
        };
        return refuse(node, message);
    }
    for (index, kind) in kinds.iter().enumerate() {
        let letter = *letters.get(index).or(letters.last()).unwrap_or(&'a');
        if kind.fits(letter) {
            continue;
        }
        if signature.counts {
            let message = match name {
                "first" | "last" => format!("cannot get {name} element from {}", kind.text()),
                "take" => format!("cannot take from {}", kind.text()),
                "keys" | "values" => format!("cannot get {name} from {}", kind.text()),
                "toPairs" => format!("cannot transform {} to pairs", kind.text()),
                "fromPairs" => format!("cannot transform {} from pairs", kind.text()),
                "reverse" | "uniq" | "concat" | "flatten" => format!("cannot {name} {}", kind.text()),
                _ => format!("invalid argument for {name} (type {})", kind.text()),
            };
            return refuse(node, message);
        }
        let expected = Type::letter(letter.to_ascii_lowercase()).text();
        let message = format!("cannot use {} as argument (type {expected}) to call {name} ", kind.text());
        return refuse(&arguments[index], message);
    }
    Ok(())
}

/// What an operator makes of two types; `None` when it can't.
fn result_type(operator: Infix, l: Type, r: Type) -> Option<Type> {
    let any_of = |fits: &dyn Fn(Type) -> bool| match (l, r) {
        (Type::Any, Type::Any) => true,
        (Type::Any, other) | (other, Type::Any) => fits(other),
        (l, r) => fits(l) && fits(r),
    };
    let text = |kind: Type| kind == Type::Text;
    let int = |kind: Type| kind == Type::Int;
    let both_any_or = |same: bool, fits: &dyn Fn(Type) -> bool| {
        if l == Type::Any || r == Type::Any { any_of(fits) } else { same }
    };
    let number_pair = l.is_number() && r.is_number();
    let combined = if l == Type::Int && r == Type::Int {
        Type::Int
    } else if l == Type::Duration || r == Type::Duration {
        Type::Duration
    } else if number_pair {
        Type::Float
    } else {
        Type::Any
    };
    match operator {
        Infix::Equal | Infix::NotEqual => {
            let fits = matches!(l, Type::Any | Type::Nil)
                || matches!(r, Type::Any | Type::Nil)
                || number_pair
                || l == r;
            fits.then_some(Type::Bool)
        }
        Infix::Or | Infix::OrWord | Infix::And | Infix::AndWord => {
            any_of(&|kind| kind == Type::Bool).then_some(Type::Bool)
        }
        Infix::Less | Infix::LessOrEqual | Infix::More | Infix::MoreOrEqual => {
            let same = number_pair || (l == r && matches!(l, Type::Text | Type::Time));
            let fits = |kind: Type| kind.is_number() || matches!(kind, Type::Text | Type::Time);
            both_any_or(same, &fits).then_some(Type::Bool)
        }
        Infix::Subtract => {
            let same = number_pair || (l == Type::Time && matches!(r, Type::Time | Type::Duration));
            let kind = match (l, r) {
                (Type::Time, Type::Time) => Type::Duration,
                (Type::Time, Type::Duration) => Type::Time,
                _ => combined,
            };
            both_any_or(same, &|kind| kind.is_number() || kind == Type::Time).then_some(kind)
        }
        Infix::Add => {
            let time = matches!((l, r), (Type::Time, Type::Duration) | (Type::Duration, Type::Time));
            let same = number_pair || (l == Type::Text && r == Type::Text) || time;
            let kind = if time {
                Type::Time
            } else if text(l) && text(r) {
                Type::Text
            } else {
                combined
            };
            let fits = |kind: Type| kind.is_number() || matches!(kind, Type::Text | Type::Time);
            both_any_or(same, &fits).then_some(kind)
        }
        Infix::Multiply => any_of(&Type::is_number).then_some(combined),
        Infix::Divide | Infix::Power | Infix::PowerSign => any_of(&Type::is_number).then_some(Type::Float),
        Infix::Modulo => any_of(&int).then_some(if l == r { l } else { Type::Any }),
        Infix::In => {
            let fits = match r {
                Type::Map => matches!(l, Type::Any | Type::Nil | Type::Text),
                Type::List | Type::Groups | Type::Any => true,
                Type::Text => l == Type::Any,
                Type::Nil
                | Type::Bool
                | Type::Int
                | Type::Float
                | Type::Time
                | Type::Duration
                | Type::Zone
                | Type::Function => false,
            };
            fits.then_some(Type::Bool)
        }
        Infix::Matches | Infix::Contains | Infix::StartsWith | Infix::EndsWith => {
            any_of(&text).then_some(Type::Bool)
        }
        Infix::Range => any_of(&int).then_some(Type::List),
        Infix::Coalesce => Some(match (l, r) {
            (Type::Nil, other) | (other, Type::Nil) => other,
            (l, r) if l == r => l,
            _ => Type::Any,
        }),
    }
}
