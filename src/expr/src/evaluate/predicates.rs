//! Built-in functions that ask a predicate about each element.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::ast::{Infix, Node};
use crate::evaluate::{Machine, Outcome, Scope, Stop, failed, wrong_type};
use crate::value::{Key, Value};

impl Machine<'_> {
    #[inline(never)]
    pub(super) fn predicate_builtin(&mut self, node: &Node, name: &str, arguments: &[Node]) -> Outcome {
        let [list, rest @ ..] = arguments else {
            return Err(failed(node, "expected at least 1 arguments"));
        };
        let value = self.evaluate(list)?;
        let items: Vec<Value> = match &value {
            Value::List(list) => {
                self.charge(size_of_val(list.items())).map_err(|message| failed(node, message))?;
                list.items().to_vec()
            }
            other => {
                let message = format!("reflect: call of reflect.Value.Len on {} Value", other.type_name());
                return Err(failed(node, message));
            }
        };
        match (name, rest) {
            ("count", []) => self.count(node, &items, None),
            ("sum", []) => self.sum(node, items),
            ("count", [predicate, ..]) => self.count(node, &items, Some(predicate)),
            ("sum", [predicate, ..]) => {
                let values = self.mapped(&items, predicate)?;
                self.sum(node, values)
            }
            ("map", [predicate, ..]) => {
                let values = self.mapped(&items, predicate)?;
                self.list(values).map_err(|message| failed(node, message))
            }
            ("filter", [predicate, ..]) => {
                let mut kept = Vec::new();
                for (index, item) in items.into_iter().enumerate() {
                    if self.asked(&item, index, predicate)? {
                        kept.push(item);
                    }
                }
                self.list(kept).map_err(|message| failed(node, message))
            }
            ("all" | "none" | "any" | "one", [predicate, ..]) => self.quantity(name, &items, predicate),
            ("find" | "findIndex" | "findLast" | "findLastIndex", [predicate, ..]) => {
                self.find(name, &items, predicate)
            }
            ("groupBy", [predicate, ..]) => self.group(node, items, predicate),
            ("sortBy", [predicate, order @ ..]) => self.sort_by(node, items, predicate, order),
            ("reduce", [predicate, start @ ..]) => self.reduce(node, items, predicate, start),
            _ => Err(failed(node, format!("expected at least 2 arguments to call {name}"))),
        }
    }

    /// The predicate's answer for an element.
    fn answer(&mut self, element: Value, index: usize, accumulator: Value, predicate: &Node) -> Outcome {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        self.scopes.push(Scope { element, index, accumulator });
        let outcome = self.evaluate(predicate);
        self.scopes.pop();
        match outcome {
            Err(Stop::Chain) => Ok(Value::Nil),
            outcome => outcome,
        }
    }

    fn asked(&mut self, item: &Value, index: usize, predicate: &Node) -> Result<bool, Stop> {
        match self.answer(item.clone(), index, Value::Nil, predicate)? {
            Value::Bool(flag) => Ok(flag),
            other => Err(failed(predicate, wrong_type(&other, "bool"))),
        }
    }

    fn mapped(&mut self, items: &[Value], predicate: &Node) -> Result<Vec<Value>, Stop> {
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            values.push(self.answer(item.clone(), index, Value::Nil, predicate)?);
        }
        Ok(values)
    }

    fn count(&mut self, node: &Node, items: &[Value], predicate: Option<&Node>) -> Outcome {
        let mut count = 0;
        for (index, item) in items.iter().enumerate() {
            let counts = match (predicate, item) {
                (Some(predicate), item) => self.asked(item, index, predicate)?,
                (None, Value::Bool(flag)) => *flag,
                (None, other) => return Err(failed(node, wrong_type(other, "bool"))),
            };
            count += i64::from(counts);
        }
        Ok(Value::Int(count))
    }

    fn sum(&mut self, node: &Node, values: Vec<Value>) -> Outcome {
        let mut total = Value::Int(0);
        for value in values {
            total = self.operate(Infix::Add, &total, &value).map_err(|message| failed(node, message))?;
        }
        Ok(total)
    }

    fn quantity(&mut self, name: &str, items: &[Value], predicate: &Node) -> Outcome {
        let mut hits = 0;
        for (index, item) in items.iter().enumerate() {
            let holds = self.asked(item, index, predicate)?;
            hits += usize::from(holds);
            match name {
                "all" if !holds => return Ok(Value::Bool(false)),
                "any" if holds => return Ok(Value::Bool(true)),
                "none" if holds => return Ok(Value::Bool(false)),
                _ => {}
            }
        }
        Ok(Value::Bool(match name {
            "one" => hits == 1,
            "any" => false,
            _ => true,
        }))
    }

    fn find(&mut self, name: &str, items: &[Value], predicate: &Node) -> Outcome {
        let last = matches!(name, "findLast" | "findLastIndex");
        for step in 0..items.len() {
            let index = if last { items.len() - 1 - step } else { step };
            if self.asked(&items[index], index, predicate)? {
                return Ok(match name {
                    "find" | "findLast" => items[index].clone(),
                    _ => Value::Int(i64::try_from(index).unwrap_or(i64::MAX)),
                });
            }
        }
        Ok(match name {
            "find" | "findLast" => Value::Nil,
            _ => Value::Int(-1),
        })
    }

    fn group(&mut self, node: &Node, items: Vec<Value>, predicate: &Node) -> Outcome {
        let mut groups: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
        for (index, item) in items.into_iter().enumerate() {
            let answer = self.answer(item.clone(), index, Value::Nil, predicate)?;
            let Some(key) = Key::of(&answer) else {
                let message = format!("runtime error: hash of unhashable type {}", answer.go_type());
                return Err(failed(node, message));
            };
            groups.entry(key).or_default().push(item);
        }
        let mut entries = BTreeMap::new();
        for (key, items) in groups {
            let list = self.list(items).map_err(|message| failed(node, message))?;
            entries.insert(key, list);
        }
        self.map(entries, true).map_err(|message| failed(node, message))
    }

    fn sort_by(&mut self, node: &Node, items: Vec<Value>, predicate: &Node, order: &[Node]) -> Outcome {
        let keys = self.mapped(&items, predicate)?;
        let descending = match order.first() {
            None => false,
            Some(order) => {
                let order = self.evaluate(order)?;
                descending(&order).map_err(|message| failed(node, message))?
            }
        };
        let mut pairs: Vec<(Value, Value)> = keys.into_iter().zip(items).collect();
        self.sort_pairs(&mut pairs, descending).map_err(|message| failed(node, message))?;
        let items = pairs.into_iter().map(|(_, item)| item).collect();
        self.list(items).map_err(|message| failed(node, message))
    }

    /// Sorts by the first of each pair; equal ones keep their order.
    pub(crate) fn sort_pairs(
        &mut self,
        pairs: &mut [(Value, Value)],
        descending: bool,
    ) -> Result<(), String> {
        let mut problem = None;
        pairs.sort_by(|(left, _), (right, _)| {
            if problem.is_some() {
                return Ordering::Equal;
            }
            let ordering = self.sort_order(left, right).unwrap_or_else(|message| {
                problem = Some(message);
                Ordering::Equal
            });
            if descending { ordering.reverse() } else { ordering }
        });
        problem.map_or(Ok(()), Err)
    }

    fn reduce(&mut self, node: &Node, items: Vec<Value>, predicate: &Node, start: &[Node]) -> Outcome {
        let mut items = items.into_iter().enumerate();
        let mut accumulator = match start.first() {
            Some(start) => self.evaluate(start)?,
            None => match items.next() {
                Some((_, first)) => first,
                None => return Err(failed(node, "reduce of empty array with no initial value")),
            },
        };
        for (index, item) in items {
            accumulator = self.answer(item, index, accumulator, predicate)?;
        }
        Ok(accumulator)
    }
}

/// The order of sorting: `asc` or `desc`.
pub(super) fn descending(order: &Value) -> Result<bool, String> {
    match order.as_text() {
        Some("asc") => Ok(false),
        Some("desc") => Ok(true),
        Some(other) => Err(format!("invalid order {other}, expected asc or desc")),
        None => Err(wrong_type(order, "string")),
    }
}
