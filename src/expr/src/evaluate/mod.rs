//! The evaluator: walks the tree with counted steps and counted memory.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

mod builtins;
mod members;
pub(crate) mod names;
mod operators;
pub(crate) use operators::double as operators_double;
mod predicates;
mod texts;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Limits;
use crate::ast::{Infix, Kind, Node, Prefix};
use crate::environment::Env;
use crate::lexer::Failure;
use crate::value::{Function, Key, Value};

/// Why an evaluation ends early.
pub(crate) enum Stop {
    /// A `?.` met nil: as far as the chain reaches, the value is nil.
    Chain,
    /// An error.
    Failed(Failure),
}

type Outcome = Result<Value, Stop>;

/// What a predicate is asked about.
struct Scope {
    element: Value,
    index: i64,
    accumulator: Value,
}

/// One evaluation.
pub(crate) struct Machine<'a> {
    env: &'a Env,
    limits: &'a Limits,
    now_ms: i64,
    steps_left: u64,
    memory_left: usize,
    variables: Vec<(Arc<str>, Value)>,
    scopes: Vec<Scope>,
}

/// Bytes that a value takes by itself.
const VALUE_BYTES: usize = size_of::<Value>();
/// Text bytes handled in one step.
const BYTES_PER_STEP: usize = 64;

impl<'a> Machine<'a> {
    pub(crate) fn new(env: &'a Env, limits: &'a Limits, now_ms: i64) -> Self {
        Self {
            env,
            limits,
            now_ms,
            steps_left: limits.steps_max,
            memory_left: limits.memory_bytes_max,
            variables: Vec::new(),
            scopes: Vec::new(),
        }
    }

    pub(crate) fn run(&mut self, root: &Node) -> Result<Value, Failure> {
        match self.evaluate(root) {
            Ok(value) => Ok(value),
            Err(Stop::Chain) => Ok(Value::Nil),
            Err(Stop::Failed(failure)) => Err(failure),
        }
    }

    /// Counts work.
    pub(crate) fn spend(&mut self, steps: usize) -> Result<(), String> {
        match self.steps_left.checked_sub(steps as u64) {
            Some(left) => {
                self.steps_left = left;
                Ok(())
            }
            None => {
                Err(format!("expression takes more than {} steps; make it simpler", self.limits.steps_max))
            }
        }
    }

    /// Counts memory, before it is taken.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), String> {
        match self.memory_left.checked_sub(bytes) {
            Some(left) => {
                self.memory_left = left;
                self.spend(bytes / BYTES_PER_STEP)
            }
            None => Err("memory budget exceeded".to_owned()),
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// How long a text may still grow.
    pub(crate) fn text_room(&self) -> usize {
        self.memory_left.min(self.limits.output_bytes_max)
    }

    pub(crate) fn text(&mut self, text: impl Into<String>) -> Result<Value, String> {
        let text = text.into();
        self.charge(text.len() + VALUE_BYTES)?;
        Ok(Value::from(text))
    }

    pub(crate) fn list(&mut self, items: Vec<Value>) -> Result<Value, String> {
        self.charge((items.len() + 1) * VALUE_BYTES)?;
        self.spend(items.len())?;
        Value::list(items)
    }

    pub(crate) fn texts(&mut self, items: Vec<String>) -> Result<Value, String> {
        let items = items.into_iter().map(|text| self.text(text)).collect::<Result<Vec<_>, _>>()?;
        self.list(items)
    }

    pub(crate) fn map(&mut self, entries: BTreeMap<Key, Value>, any_keys: bool) -> Result<Value, String> {
        self.charge((entries.len() + 1) * 4 * VALUE_BYTES)?;
        Value::keyed(entries, any_keys)
    }

    /// A value as `%v` shows it.
    pub(crate) fn display(&mut self, value: &Value) -> Result<String, String> {
        let text = value.display(self.text_room())?;
        self.charge(text.len())?;
        Ok(text)
    }

    fn evaluate(&mut self, node: &Node) -> Outcome {
        self.spend(1).map_err(|message| failed(node, message))?;
        match &node.kind {
            Kind::Nil => Ok(Value::Nil),
            Kind::Bool(flag) => Ok(Value::Bool(*flag)),
            Kind::Integer(number) => Ok(Value::Int(*number)),
            Kind::Float(number) => Ok(Value::Float(*number)),
            Kind::Text(text) => Ok(Value::Text(text.clone())),
            Kind::Identifier(name) => self.identifier(node, name),
            Kind::Pointer(name) => self.pointer(node, name),
            Kind::Unary(operator, operand) => self.unary(node, *operator, operand),
            Kind::Binary(operator, left, right) => self.binary(node, *operator, left, right),
            Kind::Chain(inner) => match self.evaluate(inner) {
                Err(Stop::Chain) => Ok(Value::Nil),
                outcome => outcome,
            },
            Kind::Member { object, property, optional } => self.member(node, object, property, *optional),
            Kind::Slice { object, from, to } => self.slice(node, object, from.as_deref(), to.as_deref()),
            Kind::Call { callee, arguments } => self.call(node, callee, arguments),
            Kind::Builtin { name, arguments } => self.builtin(node, name, arguments),
            Kind::Predicate(body) => self.evaluate(body),
            Kind::Let { name, value, body } => self.declaration(name, value, body),
            Kind::Conditional { condition, then, otherwise } => {
                let holds = self.condition(condition)?;
                self.evaluate(if holds { then } else { otherwise })
            }
            Kind::Array(items) => self.array(node, items),
            Kind::Map(pairs) => self.map_literal(node, pairs),
            Kind::Sequence(nodes) => self.sequence(nodes),
        }
    }

    #[inline(never)]
    fn identifier(&mut self, node: &Node, name: &Arc<str>) -> Outcome {
        if let Some((_, value)) = self.variables.iter().rev().find(|(known, _)| known == name) {
            return Ok(value.clone());
        }
        if let Some(value) = self.env.get(name) {
            return Ok(value.clone());
        }
        match &**name {
            "$env" => Ok(self.env.all()),
            "asInt" | "asFloat" | "toJson" | "jsonpath" => {
                Ok(function(name.clone(), "func(...interface {}) (interface {}, error)"))
            }
            other => Err(failed(node, format!("unknown name {other}"))),
        }
    }

    #[inline(never)]
    fn pointer(&mut self, node: &Node, name: &str) -> Outcome {
        let Some(scope) = self.scopes.last() else {
            return Err(failed(node, "cannot use pointer accessor outside predicate"));
        };
        match name {
            "" => Ok(scope.element.clone()),
            "acc" => Ok(scope.accumulator.clone()),
            "index" => Ok(Value::Int(scope.index)),
            other => Err(failed(node, format!("unknown pointer #{other}"))),
        }
    }

    #[inline(never)]
    fn unary(&mut self, node: &Node, operator: Prefix, operand: &Node) -> Outcome {
        let value = self.evaluate(operand)?;
        operators::unary(operator, value).map_err(|message| failed(node, message))
    }

    #[inline(never)]
    fn binary(&mut self, node: &Node, operator: Infix, left: &Node, right: &Node) -> Outcome {
        match operator {
            Infix::And | Infix::AndWord => Ok(Value::Bool(self.condition(left)? && self.condition(right)?)),
            Infix::Or | Infix::OrWord => Ok(Value::Bool(self.condition(left)? || self.condition(right)?)),
            Infix::Coalesce => match self.evaluate(left) {
                Ok(Value::Nil) | Err(Stop::Chain) => self.evaluate(right),
                outcome => outcome,
            },
            Infix::Equal
            | Infix::NotEqual
            | Infix::Less
            | Infix::LessOrEqual
            | Infix::More
            | Infix::MoreOrEqual
            | Infix::In
            | Infix::Matches
            | Infix::Contains
            | Infix::StartsWith
            | Infix::EndsWith
            | Infix::Range
            | Infix::Add
            | Infix::Subtract
            | Infix::Multiply
            | Infix::Divide
            | Infix::Modulo
            | Infix::Power
            | Infix::PowerSign => {
                let left = self.evaluate(left)?;
                let right = self.evaluate(right)?;
                self.operate(operator, &left, &right).map_err(|message| failed(node, message))
            }
        }
    }

    fn condition(&mut self, node: &Node) -> Result<bool, Stop> {
        match self.evaluate(node)? {
            Value::Bool(flag) => Ok(flag),
            other => Err(failed(node, wrong_type(&other, "bool"))),
        }
    }

    #[inline(never)]
    fn declaration(&mut self, name: &Arc<str>, value: &Node, body: &Node) -> Outcome {
        let value = self.evaluate(value)?;
        self.variables.push((name.clone(), value));
        let outcome = self.evaluate(body);
        self.variables.pop();
        outcome
    }

    fn sequence(&mut self, nodes: &[Node]) -> Outcome {
        let mut last = Value::Nil;
        for node in nodes {
            last = self.evaluate(node)?;
        }
        Ok(last)
    }

    fn all(&mut self, nodes: &[Node]) -> Result<Vec<Value>, Stop> {
        let mut values = Vec::with_capacity(nodes.len());
        for node in nodes {
            values.push(self.evaluate(node)?);
        }
        Ok(values)
    }

    #[inline(never)]
    fn array(&mut self, node: &Node, items: &[Node]) -> Outcome {
        let values = self.all(items)?;
        self.list(values).map_err(|message| failed(node, message))
    }

    #[inline(never)]
    fn map_literal(&mut self, node: &Node, pairs: &[(Node, Node)]) -> Outcome {
        let mut entries = BTreeMap::new();
        for (key, value) in pairs {
            let key_value = self.evaluate(key)?;
            let Value::Text(name) = key_value else {
                return Err(failed(node, wrong_type(&key_value, "string")));
            };
            let value = self.evaluate(value)?;
            entries.insert(Key::Text(name), value);
        }
        self.map(entries, false).map_err(|message| failed(node, message))
    }

    #[inline(never)]
    fn member(&mut self, node: &Node, object: &Node, property: &Node, optional: bool) -> Outcome {
        if let (Kind::Identifier(name), Kind::Text(function_name)) = (&object.kind, &property.kind)
            && &**name == "sprig"
            && self.env.get(name).is_none()
        {
            if !names::is_sprig(function_name) {
                return Ok(Value::Nil);
            }
            return Ok(function(
                format!("sprig.{function_name}").into(),
                "func(...interface {}) interface {}",
            ));
        }
        let value = self.evaluate(object)?;
        if optional && value.is_nil() {
            return Err(Stop::Chain);
        }
        let property = self.evaluate(property)?;
        members::fetch(&value, &property).map_err(|message| failed(node, message))
    }

    #[inline(never)]
    fn slice(&mut self, node: &Node, object: &Node, from: Option<&Node>, to: Option<&Node>) -> Outcome {
        let value = self.evaluate(object)?;
        let mut bounds = [None, None];
        for (bound, place) in [from, to].into_iter().zip(&mut bounds) {
            if let Some(bound) = bound {
                let index = self.evaluate(bound)?;
                *place = Some(members::index(&index).map_err(|message| failed(node, message))?);
            }
        }
        self.cut(&value, bounds).map_err(|message| failed(node, message))
    }

    #[inline(never)]
    fn call(&mut self, node: &Node, callee: &Node, arguments: &[Node]) -> Outcome {
        let callable = match &callee.kind {
            // A chain that ends in a call is cut short as a whole.
            Kind::Member { object, property, optional } => {
                self.member(callee, object, property, *optional)?
            }
            _ => self.evaluate(callee)?,
        };
        let values = self.all(arguments)?;
        let Value::Function(function) = callable else {
            let message = if callable.is_nil() {
                "reflect: call of reflect.Value.Call on zero Value".to_owned()
            } else {
                format!("{} is not callable", callable.go_type())
            };
            return Err(failed(node, message));
        };
        self.invoke(&function, &values).map_err(|message| failed(node, message))
    }

    fn invoke(&mut self, function: &Function, arguments: &[Value]) -> Result<Value, String> {
        self.spend(1 + arguments.len())?;
        if !function.receiver.is_nil() {
            return self.method(&function.receiver, &function.name, arguments);
        }
        if let Some(name) = function.name.strip_prefix("sprig.") {
            return crate::sprig::call(self, name, arguments);
        }
        match &*function.name {
            "asInt" => self.plain("int", arguments),
            "asFloat" => self.plain("float", arguments),
            "toJson" => {
                let [value] = arguments else { return Err("toJson takes one argument".to_owned()) };
                let text = value.json(false, self.text_room())?;
                self.text(text)
            }
            "jsonpath" => {
                let [Value::Text(document), Value::Text(path)] = arguments else {
                    return Err("jsonpath takes a JSON text and a path".to_owned());
                };
                self.charge(document.len() * 4)?;
                crate::jsonpath::read(self, document, path)
            }
            other => Err(format!("unknown name {other}")),
        }
    }

    /// Whether a JSON path's filter holds for an element; a filter that can't be evaluated for it does not.
    pub(crate) fn filter_holds(&mut self, filter: &str, element: &Value) -> Result<bool, String> {
        self.spend(1 + filter.len())?;
        let source = crate::jsonpath::filter_expression(filter);
        let root = crate::parser::parse(&source, self.limits).map_err(|failure| failure.message)?;
        let mut env = Env::default();
        env.insert(crate::jsonpath::ELEMENT, element.clone());
        let mut inner = Machine::new(&env, self.limits, self.now_ms);
        (inner.steps_left, inner.memory_left) = (self.steps_left, self.memory_left);
        let outcome = inner.evaluate(&root);
        (self.steps_left, self.memory_left) = (inner.steps_left, inner.memory_left);
        self.spend(1)?;
        Ok(match outcome {
            Ok(Value::Bool(flag)) => flag,
            Ok(value) => !value.is_nil(),
            Err(_) => false,
        })
    }

    #[inline(never)]
    fn builtin(&mut self, node: &Node, name: &'static str, arguments: &[Node]) -> Outcome {
        if names::PREDICATES.iter().any(|(known, _)| *known == name) {
            return self.predicate_builtin(node, name, arguments);
        }
        let values = self.all(arguments)?;
        self.plain(name, &values).map_err(|message| failed(node, message))
    }
}

fn function(name: Arc<str>, type_text: &'static str) -> Value {
    Value::Function(Arc::new(Function { receiver: Box::new(Value::Nil), name, type_text }))
}

pub(crate) fn failed(node: &Node, message: impl Into<String>) -> Stop {
    Stop::Failed(Failure::new(node.at, message))
}

/// Go's message for a value of another type than was counted on.
pub(crate) fn wrong_type(value: &Value, expected: &str) -> String {
    let given = if value.is_nil() { "nil" } else { value.go_type() };
    format!("interface conversion: interface {{}} is {given}, not {expected}")
}
