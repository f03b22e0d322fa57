//! `kubectl -o jsonpath=`: text with paths into an object in braces. Pure.

use serde_json::Value;

/// Nested ranges, filters and unions; no template a person writes comes near.
const DEPTH_MAX: usize = 16;
/// Values that one path may stand for.
const VALUES_MAX: usize = 100_000;

/// What a template comes to. A path that leads nowhere is nothing.
///
/// # Errors
/// Why the template can't be read.
pub fn evaluate(template: &str, object: &Value) -> Result<String, String> {
    let pieces = pieces(template)?;
    let mut shown = String::new();
    write(&pieces, object, object, &mut shown)?;
    Ok(shown)
}

enum Piece {
    Text(String),
    Path(Vec<Part>),
    Range(Vec<Part>, Vec<Piece>),
}

enum Part {
    /// The object itself, whatever is at hand.
    Root,
    Field(String),
    /// Every value below, at any depth, of that name.
    Below(String),
    All,
    Index(i64),
    Slice(Option<i64>, Option<i64>, i64),
    Union(Vec<String>),
    Filter {
        left: Vec<Part>,
        operator: String,
        right: Operand,
    },
}

enum Operand {
    Missing,
    Value(Value),
    Path(Vec<Part>),
}

fn pieces(template: &str) -> Result<Vec<Piece>, String> {
    let mut open: Vec<(Vec<Part>, Vec<Piece>)> = Vec::new();
    let mut made: Vec<Piece> = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let Some(start) = rest.find('{') else {
            made.push(Piece::Text(rest.to_owned()));
            break;
        };
        if start > 0 {
            made.push(Piece::Text(rest[..start].to_owned()));
        }
        let end = closing(&rest[start + 1..]).ok_or("unclosed action")?;
        let inside = rest[start + 1..start + 1 + end].trim();
        rest = &rest[start + end + 2..];
        if inside == "end" {
            let (path, outer) = open.pop().ok_or("not in range, nothing to end")?;
            let body = std::mem::replace(&mut made, outer);
            made.push(Piece::Range(path, body));
        } else if let Some(path) = inside.strip_prefix("range ") {
            if open.len() >= DEPTH_MAX {
                return Err("too many ranges in each other".to_owned());
            }
            open.push((parts(path.trim(), 0)?, std::mem::take(&mut made)));
        } else if let Some(text) = quoted(inside) {
            made.push(Piece::Text(text));
        } else {
            made.push(Piece::Path(parts(inside, 0)?));
        }
    }
    if open.is_empty() { Ok(made) } else { Err("unclosed range".to_owned()) }
}

/// Where the brace that is open closes; braces inside quotes don't count.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut before = ' ';
    for (at, next) in text.char_indices() {
        match (quote, next) {
            (Some(open), next) if next == open && before != '\\' => quote = None,
            (None, '"' | '\'') => quote = Some(next),
            (None, '}') => return Some(at),
            (Some(_) | None, _) => {}
        }
        before = next;
    }
    None
}

fn quoted(text: &str) -> Option<String> {
    let inner = ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))?;
    let mut plain = String::new();
    let mut letters = inner.chars();
    while let Some(next) = letters.next() {
        match next {
            '\\' => match letters.next() {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                Some('r') => plain.push('\r'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            other => plain.push(other),
        }
    }
    Some(plain)
}

fn parts(path: &str, depth: usize) -> Result<Vec<Part>, String> {
    if depth > DEPTH_MAX {
        return Err("too deep".to_owned());
    }
    let mut parts = Vec::new();
    let mut rest = path.trim();
    if let Some(after) = rest.strip_prefix(['$', '@']) {
        if rest.starts_with('$') {
            parts.push(Part::Root);
        }
        rest = after;
    }
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("..") {
            let (name, after) = name(after);
            parts.push(Part::Below(name));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            if after.starts_with('[') || after.is_empty() {
                rest = after;
                continue;
            }
            let (name, after) = name(after);
            parts.push(if name == "*" { Part::All } else { Part::Field(name) });
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let end = bracket(after).ok_or("unterminated array")?;
            parts.push(element(after[..end].trim(), depth)?);
            rest = &after[end + 1..];
        } else if parts.is_empty() && (first.is_ascii_alphanumeric() || first == '_') {
            let (name, after) = name(rest);
            parts.push(Part::Field(name));
            rest = after;
        } else {
            return Err(format!("unrecognized character in action: {first:?}"));
        }
    }
    Ok(parts)
}

/// A name up to the next sign; a backslash takes the next sign's meaning away.
fn name(text: &str) -> (String, &str) {
    let mut plain = String::new();
    let mut letters = text.char_indices();
    while let Some((at, next)) = letters.next() {
        match next {
            '.' | '[' | ' ' => return (plain, &text[at..]),
            '\\' => plain.extend(letters.next().map(|(_, next)| next)),
            other => plain.push(other),
        }
    }
    (plain, "")
}

fn bracket(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0_usize;
    for (at, next) in text.char_indices() {
        match (quote, next) {
            (Some(open), next) if next == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(next),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn element(inside: &str, depth: usize) -> Result<Part, String> {
    if inside == "*" {
        return Ok(Part::All);
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return self::filter(filter, depth);
    }
    if inside.starts_with(['"', '\'']) {
        let names: Option<Vec<String>> = inside.split(',').map(|name| quoted(name.trim())).collect();
        return names.map(Part::Union).ok_or_else(|| format!("invalid array index {inside}"));
    }
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_| format!("invalid array index {text}")),
    };
    let numbers: Vec<&str> = inside.split(':').collect();
    match numbers.as_slice() {
        [one] if one.contains(',') => {
            Ok(Part::Union(one.split(',').map(|name| name.trim().to_owned()).collect()))
        }
        [one] => number(one)?.map(Part::Index).ok_or_else(|| format!("invalid array index {inside}")),
        [start, end] => Ok(Part::Slice(number(start)?, number(end)?, 1)),
        [start, end, step] => {
            let step = number(step)?.unwrap_or(1);
            if step < 1 {
                return Err("step must be > 0".to_owned());
            }
            Ok(Part::Slice(number(start)?, number(end)?, step))
        }
        _ => Err(format!("invalid array index {inside}")),
    }
}

fn filter(text: &str, depth: usize) -> Result<Part, String> {
    let found = ["==", "!=", "<=", ">=", "<", ">"]
        .into_iter()
        .filter_map(|operator| outside_quotes(text, operator).map(|at| (at, operator)))
        .min();
    let Some((at, operator)) = found else {
        return Ok(Part::Filter {
            left: parts(text, depth + 1)?,
            operator: String::new(),
            right: Operand::Missing,
        });
    };
    let right = text[at + operator.len()..].trim();
    let right = if let Some(text) = quoted(right) {
        Operand::Value(Value::String(text))
    } else if let Ok(value) = serde_json::from_str(right) {
        Operand::Value(value)
    } else {
        Operand::Path(parts(right, depth + 1)?)
    };
    Ok(Part::Filter { left: parts(text[..at].trim(), depth + 1)?, operator: operator.to_owned(), right })
}

fn outside_quotes(text: &str, sign: &str) -> Option<usize> {
    text.match_indices(sign).map(|(at, _)| at).find(|at| {
        let before = &text[..*at];
        ['"', '\''].iter().all(|quote| before.matches(*quote).count().is_multiple_of(2))
    })
}

fn write(pieces: &[Piece], root: &Value, here: &Value, shown: &mut String) -> Result<(), String> {
    for piece in pieces {
        match piece {
            Piece::Text(text) => shown.push_str(text),
            Piece::Path(path) => {
                let found = follow(path, root, here)?;
                let texts: Vec<String> = found.into_iter().map(text_of).collect();
                shown.push_str(&texts.join(" "));
            }
            Piece::Range(path, body) => {
                for value in follow(path, root, here)? {
                    write(body, root, value, shown)?;
                }
            }
        }
    }
    Ok(())
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn follow<'a>(path: &[Part], root: &'a Value, here: &'a Value) -> Result<Vec<&'a Value>, String> {
    let mut found: Vec<&Value> = vec![here];
    for part in path {
        let mut next = Vec::new();
        for value in found {
            step(part, root, value, &mut next)?;
            if next.len() > VALUES_MAX {
                return Err(format!("the path stands for more than {VALUES_MAX} values"));
            }
        }
        found = next;
    }
    Ok(found)
}

fn step<'a>(part: &Part, root: &'a Value, value: &'a Value, next: &mut Vec<&'a Value>) -> Result<(), String> {
    match part {
        Part::Root => next.push(root),
        Part::Field(name) => next.extend(value.get(name)),
        Part::Below(name) => below(name, value, next),
        Part::All => match value {
            Value::Array(items) => next.extend(items),
            Value::Object(fields) => next.extend(fields.values()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        },
        Part::Index(index) => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let at = usize::try_from(*index)
                .ok()
                .or_else(|| items.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?));
            match at.and_then(|at| items.get(at)) {
                Some(item) => next.push(item),
                None if items.is_empty() => {}
                None => {
                    return Err(format!("array index out of bounds: index {index}, length {}", items.len()));
                }
            }
        }
        Part::Slice(start, end, every) => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
            let bound = |at: i64| {
                usize::try_from(if at < 0 { at + length } else { at }.clamp(0, length)).unwrap_or(0)
            };
            let (start, end) = (bound(start.unwrap_or(0)), bound(end.unwrap_or(length)));
            let every = usize::try_from(*every).unwrap_or(1).max(1);
            next.extend(items.get(start..end).unwrap_or_default().iter().step_by(every));
        }
        Part::Union(names) => {
            for name in names {
                next.extend(value.get(name));
                next.extend(name.parse::<usize>().ok().and_then(|at| value.get(at)));
            }
        }
        Part::Filter { left, operator, right } => {
            for item in value.as_array().into_iter().flatten() {
                if passes(left, operator, right, root, item)? {
                    next.push(item);
                }
            }
        }
    }
    Ok(())
}

fn below<'a>(name: &str, value: &'a Value, next: &mut Vec<&'a Value>) {
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        if name.is_empty() || name == "*" {
            next.push(value);
        } else {
            next.extend(value.get(name));
        }
        match value {
            Value::Array(items) => open.extend(items.iter().rev()),
            Value::Object(fields) => open.extend(fields.values().collect::<Vec<_>>().into_iter().rev()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

fn passes(
    left: &[Part],
    operator: &str,
    right: &Operand,
    root: &Value,
    item: &Value,
) -> Result<bool, String> {
    let Some(left) = follow(left, root, item)?.first().copied() else { return Ok(false) };
    let right = match right {
        Operand::Missing => return Ok(true),
        Operand::Value(value) => value,
        Operand::Path(path) => match follow(path, root, item)?.first().copied() {
            Some(value) => value,
            None => return Ok(false),
        },
    };
    let order = match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.partial_cmp(&right),
        (None, _) | (_, None) => Some(text_of(left).cmp(&text_of(right))),
    };
    Ok(order.is_some_and(|order| match operator {
        "==" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        ">" => order.is_gt(),
        "<=" => order.is_le(),
        _ => order.is_ge(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_come_to_what_kubectl_prints() {
        let object = json!({
            "metadata": {"name": "n", "labels": {"a.b/c": "d"}},
            "spec": {"replicas": 2, "list": [{"name": "x", "v": 1}, {"name": "y", "v": 2}, {"name": "z", "v": 3}]},
        });
        for (template, expected) in [
            ("{.metadata.name}", "n"),
            ("{ $.metadata.name }", "n"),
            ("name={.metadata.name}, {.spec.replicas}", "name=n, 2"),
            ("{.spec.list[0].name}", "x"),
            ("{.spec.list[-1].name}", "z"),
            ("{.spec.list[*].name}", "x y z"),
            ("{.spec.list[0:2].v}", "1 2"),
            ("{.spec.list[?(@.name==\"y\")].v}", "2"),
            ("{.spec.list[?(@.v>1)].name}", "y z"),
            ("{.metadata.labels.a\\.b/c}", "d"),
            ("{.metadata.labels['a.b/c']}", "d"),
            ("{range .spec.list[*]}{.name}={.v}{\"\\n\"}{end}", "x=1\ny=2\nz=3\n"),
            ("{.metadata.nothing}", ""),
            ("{.metadata.labels}", r#"{"a.b/c":"d"}"#),
            ("{..name}", "n x y z"),
        ] {
            assert_eq!(evaluate(template, &object).as_deref(), Ok(expected), "{template}");
        }
        for bad in ["{.a", "{end}", "{range .a}", "{.spec.list[x]}", "{.spec.list[9]}"] {
            assert!(evaluate(bad, &object).is_err(), "{bad}");
        }
    }
}
