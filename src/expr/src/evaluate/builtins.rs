//! Built-in functions without a predicate.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::date::{self, Time, Zone};
use crate::evaluate::operators::double;
use crate::evaluate::{Machine, members, predicates, wrong_type};
use crate::value::{Key, Value};

pub(super) fn text_of(value: &Value) -> Result<&str, String> {
    value.as_text().ok_or_else(|| wrong_type(value, "string"))
}

fn int_of(value: &Value, name: &str) -> Result<i64, String> {
    match value {
        Value::Int(number) => Ok(*number),
        other => Err(format!("cannot use {} as argument (type int) to call {name}", other.go_type())),
    }
}

/// Go's name of a value's kind.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Nil => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
        Value::Time(_) => "struct",
        Value::Duration(_) => "int64",
        Value::Zone(_) | Value::Version(_) => "ptr",
        Value::Calendar(..) => "int",
        Value::Function(_) => "func",
    }
}

fn items_of<'a>(value: &'a Value, verb: &str) -> Result<&'a [Value], String> {
    match value {
        Value::List(list) => Ok(list.items()),
        other => Err(format!("cannot {verb} {}", kind_of(other))),
    }
}

pub(super) fn length(value: usize) -> Value {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Machine<'_> {
    /// Calls a built-in function with values.
    pub(crate) fn plain(&mut self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        self.spend(1 + arguments.len())?;
        match name {
            "len" | "type" | "abs" | "ceil" | "floor" | "round" | "int" | "float" | "string" => {
                let [value] = arguments else { return Err(count_message(1, arguments.len())) };
                self.one(name, value)
            }
            "max" | "min" | "mean" | "median" => self.statistics(name, arguments),
            "bitand" | "bitor" | "bitxor" | "bitnand" | "bitshl" | "bitshr" | "bitushr" | "bitnot" => {
                bits(name, arguments)
            }
            "now" | "date" | "duration" | "timezone" => self.times(name, arguments),
            "toJSON" | "fromJSON" | "toBase64" | "fromBase64" => {
                let [value] = arguments else { return Err(count_message(1, arguments.len())) };
                self.codec(name, value)
            }
            "first" | "last" | "get" | "take" | "keys" | "values" | "toPairs" | "fromPairs" | "reverse"
            | "uniq" | "concat" | "flatten" | "sort" => self.collection(name, arguments),
            _ => self.texts_of(name, arguments),
        }
    }

    fn one(&mut self, name: &str, value: &Value) -> Result<Value, String> {
        let refused = || format!("invalid argument for {name} (type {})", value.go_type());
        Ok(match name {
            "len" => match value {
                Value::Text(text) => {
                    self.spend(text.len() / 64)?;
                    length(text.chars().count())
                }
                Value::List(list) => length(list.items().len()),
                Value::Map(map) => length(map.entries().len()),
                _ => return Err(refused()),
            },
            "type" => Value::from(value.type_name()),
            "abs" => match value {
                Value::Int(number) => Value::Int(number.wrapping_abs()),
                Value::Float(number) => Value::Float(number.abs()),
                _ => return Err(refused()),
            },
            "ceil" => Value::Float(double(value).ok_or_else(refused)?.ceil()),
            "floor" => Value::Float(double(value).ok_or_else(refused)?.floor()),
            "round" => Value::Float(double(value).ok_or_else(refused)?.round()),
            "int" => match value {
                Value::Text(text) => {
                    let invalid = || format!("invalid operation: int({text})");
                    let plausible = text.strip_prefix(['+', '-']).unwrap_or(text);
                    if plausible.starts_with(['+', '-']) {
                        return Err(invalid());
                    }
                    Value::Int(text.parse().map_err(|_| invalid())?)
                }
                other => Value::Int(members::index(other)?),
            },
            "float" => match value {
                Value::Text(text) => Value::Float(
                    parse_double(text).ok_or_else(|| format!("invalid operation: float({text})"))?,
                ),
                other => Value::Float(
                    double(other).ok_or_else(|| format!("invalid operation: float({})", other.go_type()))?,
                ),
            },
            _ => {
                let text = self.display(value)?;
                self.text(text)?
            }
        })
    }

    fn statistics(&mut self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let mut numbers = Vec::new();
        for argument in arguments {
            if double(argument).is_none() && !matches!(argument, Value::List(_)) {
                if matches!(name, "max" | "min") && arguments.len() == 1 {
                    return Ok(argument.clone());
                }
                return Err(format!("invalid argument for {name} (type {})", argument.go_type()));
            }
            self.flatten_into(argument, &mut numbers)?;
        }
        let mut best: Option<Value> = None;
        let mut doubles = Vec::with_capacity(numbers.len());
        for number in numbers {
            let Some(value) = double(&number) else {
                return Err(format!("invalid argument for {name} (type {})", number.go_type()));
            };
            doubles.push(value);
            let better = match &best {
                None => true,
                Some(best) if name == "max" => self.sort_order(&number, best)?.is_gt(),
                Some(best) => self.sort_order(&number, best)?.is_lt(),
            };
            if better {
                best = Some(number);
            }
        }
        let count = doubles.len();
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        Ok(match name {
            "max" | "min" => best.unwrap_or(Value::Nil),
            _ if count == 0 => Value::Float(0.0),
            "mean" => Value::Float(doubles.iter().sum::<f64>() / count as f64),
            _ => {
                doubles.sort_by(f64::total_cmp);
                let middle = count / 2;
                if count % 2 == 1 {
                    Value::Float(doubles[middle])
                } else {
                    Value::Float(f64::midpoint(doubles[middle - 1], doubles[middle]))
                }
            }
        })
    }

    fn flatten_into(&mut self, value: &Value, out: &mut Vec<Value>) -> Result<(), String> {
        self.spend(1)?;
        let Value::List(list) = value else {
            self.charge(size_of::<Value>())?;
            out.push(value.clone());
            return Ok(());
        };
        list.items().iter().try_for_each(|item| self.flatten_into(item, out))
    }

    fn times(&mut self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        match (name, arguments) {
            ("now", []) => Ok(Value::Time(Arc::new(Time::from_unix_ms(self.now_ms())?))),
            ("now", [Value::Zone(zone)]) => {
                Ok(Value::Time(Arc::new(Time::from_unix_ms(self.now_ms())?.within((**zone).clone()))))
            }
            ("now", _) => Err(count_message(0, arguments.len())),
            ("duration", [text]) => date::parse_duration(text_of(text)?).map(Value::Duration),
            ("timezone", [name]) => Ok(Value::Zone(Arc::new(Zone::named(text_of(name)?)?))),
            ("date", [Value::Zone(zone), rest @ ..]) => parse_date(rest, zone),
            ("date", _) => parse_date(arguments, &Zone::utc()),
            _ => Err(format!("invalid arguments for {name}")),
        }
    }

    fn codec(&mut self, name: &str, value: &Value) -> Result<Value, String> {
        if name == "toJSON" {
            let text = value.json(true, self.text_room())?;
            return self.text(text);
        }
        let text = text_of(value)?;
        self.charge(text.len() * 2)?;
        match name {
            "fromJSON" => self.parse_json(text),
            "toBase64" => self.text(STANDARD.encode(text)),
            _ => {
                let clean: String =
                    text.chars().filter(|character| !matches!(character, '\r' | '\n')).collect();
                let bytes = STANDARD.decode(&clean).map_err(|error| {
                    format!("illegal base64 data at input byte {}", base64_place(&error, &clean))
                })?;
                self.text(String::from_utf8_lossy(&bytes))
            }
        }
    }

    /// The value of a JSON text.
    pub(crate) fn parse_json(&mut self, text: &str) -> Result<Value, String> {
        // A value takes some times more memory than its text.
        self.charge(text.len().saturating_mul(8))?;
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| crate::go::json_error(text, &error))?;
        Value::from_json(&value)
    }

    fn collection(&mut self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        match (name, arguments) {
            ("first", [value]) => Ok(members::fetch(value, &Value::Int(0)).unwrap_or(Value::Nil)),
            ("last", [value]) => Ok(members::fetch(value, &Value::Int(-1)).unwrap_or(Value::Nil)),
            ("get", [value, property]) => Ok(members::fetch(value, property).unwrap_or(Value::Nil)),
            ("take", [value, count]) => {
                let items = items_of(value, "take from")?;
                let count = members::index(count)?;
                let count = usize::try_from(count)
                    .map_err(|_| "reflect.Value.Slice: slice index out of bounds".to_owned())?;
                self.list(items[..count.min(items.len())].to_vec())
            }
            ("keys" | "values" | "toPairs", [value]) => self.parts(name, value),
            ("fromPairs", [value]) => self.map_of_pairs(value),
            ("reverse", [value]) => {
                let items = items_of(value, "reverse")?;
                self.list(items.iter().rev().cloned().collect())
            }
            ("uniq", [value]) => {
                let mut kept: Vec<Value> = Vec::new();
                for item in items_of(value, "uniq")? {
                    let mut known = false;
                    for other in &kept {
                        if self.equal(item, other)? {
                            known = true;
                            break;
                        }
                    }
                    if !known {
                        kept.push(item.clone());
                    }
                }
                self.list(kept)
            }
            ("concat", lists) => {
                let mut all = Vec::new();
                for list in lists {
                    let items = items_of(list, "concat")?;
                    self.charge(size_of_val(items))?;
                    all.extend_from_slice(items);
                }
                self.list(all)
            }
            ("flatten", [value]) => {
                items_of(value, "flatten")?;
                let mut all = Vec::new();
                self.flatten_into(value, &mut all)?;
                self.list(all)
            }
            ("sort", [value, order @ ..]) => {
                let items = items_of(value, "sort")?;
                let descending = order.first().map_or(Ok(false), predicates::descending)?;
                let mut pairs: Vec<_> = items.iter().map(|item| (item.clone(), Value::Nil)).collect();
                self.sort_pairs(&mut pairs, descending)?;
                self.list(pairs.into_iter().map(|(item, _)| item).collect())
            }
            _ => Err(count_message(1, arguments.len())),
        }
    }

    fn parts(&mut self, name: &str, value: &Value) -> Result<Value, String> {
        let Value::Map(map) = value else {
            return Err(match name {
                "toPairs" => format!("cannot transform {} to pairs", kind_of(value)),
                _ => format!("cannot get {name} from {}", kind_of(value)),
            });
        };
        let mut items = Vec::with_capacity(map.entries().len());
        for (key, value) in map.entries() {
            items.push(match name {
                "keys" => key.value(),
                "values" => value.clone(),
                _ => self.list(vec![key.value(), value.clone()])?,
            });
        }
        self.list(items)
    }

    fn map_of_pairs(&mut self, value: &Value) -> Result<Value, String> {
        let Value::List(list) = value else {
            return Err(format!("cannot transform {} from pairs", kind_of(value)));
        };
        let mut entries = BTreeMap::new();
        for pair in list.items() {
            let shown = || pair.display(1024).unwrap_or_default();
            let Value::List(pair_items) = pair else { return Err(format!("invalid pair {}", shown())) };
            let [key, value] = pair_items.items() else {
                return Err(format!("invalid pair length {}", shown()));
            };
            let key = Key::of(key)
                .ok_or_else(|| format!("runtime error: hash of unhashable type {}", key.go_type()))?;
            entries.insert(key, value.clone());
        }
        self.map(entries, true)
    }
}

pub(super) fn count_message(expected: usize, given: usize) -> String {
    format!("invalid number of arguments (expected {expected}, got {given})")
}

fn base64_place(error: &base64::DecodeError, text: &str) -> usize {
    match error {
        base64::DecodeError::InvalidByte(place, _) | base64::DecodeError::InvalidLastSymbol(place, _) => {
            *place
        }
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len() / 4 * 4,
    }
}

/// A number as Go's `ParseFloat` reads it.
pub(crate) fn parse_double(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_prefix(['+', '-']).unwrap_or(&lower);
    if matches!(bare, "inf" | "infinity" | "nan") {
        return lower.parse().ok();
    }
    let number: f64 = lower.parse().ok()?;
    number.is_finite().then_some(number)
}

fn bits(name: &str, arguments: &[Value]) -> Result<Value, String> {
    if name == "bitnot" {
        let [value] = arguments else { return Err(count_message(1, arguments.len())) };
        return Ok(Value::Int(!int_of(value, name)?));
    }
    let [left, right] = arguments else { return Err(count_message(2, arguments.len())) };
    let (left, right) = (int_of(left, name)?, int_of(right, name)?);
    if name.starts_with("bitsh") || name == "bitushr" {
        if right < 0 {
            return Err(format!("invalid operation: negative shift count {right} (type int)"));
        }
        let places = u32::try_from(right).unwrap_or(u32::MAX);
        return Ok(Value::Int(match name {
            "bitshl" => left.checked_shl(places).unwrap_or(0),
            "bitshr" => left.checked_shr(places).unwrap_or(if left < 0 { -1 } else { 0 }),
            _ => left.cast_unsigned().checked_shr(places).unwrap_or(0).cast_signed(),
        }));
    }
    Ok(Value::Int(match name {
        "bitand" => left & right,
        "bitor" => left | right,
        "bitxor" => left ^ right,
        _ => left & !right,
    }))
}

fn parse_date(arguments: &[Value], zone: &Zone) -> Result<Value, String> {
    let time = match arguments {
        [text] => date::parse_any(text_of(text)?, zone)?,
        [text, layout] => date::parse(text_of(layout)?, text_of(text)?, zone)?,
        [text, layout, name] => date::parse(text_of(layout)?, text_of(text)?, &Zone::named(text_of(name)?)?)?,
        _ => return Err(count_message(1, arguments.len())),
    };
    Ok(Value::Time(Arc::new(time)))
}
