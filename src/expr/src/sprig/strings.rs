//! Texts, encodings, regular expressions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256, Sha512};

use super::arguments::Arguments;
use crate::evaluate::Machine;
use crate::value::Value;

type Answer = Result<Option<Value>, String>;

pub(super) fn call(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Answer {
    let bytes: usize = given.values.iter().filter_map(Value::as_text).map(str::len).sum();
    machine.spend(bytes / 16)?;
    let value = match given.name {
        "hello" => Value::from("Hello!"),
        "fail" => return Err(given.text(0)?.to_owned()),
        "trim" => machine.text(given.text(0)?.trim())?,
        "upper" => machine.text(crate::go::upper(given.text(0)?))?,
        "lower" => machine.text(crate::go::lower(given.text(0)?))?,
        "title" => machine.text(capitals(given.text(0)?, true))?,
        "untitle" => machine.text(capitals(given.text(0)?, false))?,
        "swapcase" => machine.text(swapped(given.text(0)?))?,
        "nospace" => machine.text(given.text(0)?.split_whitespace().collect::<String>())?,
        "initials" => machine.text(
            given.text(0)?.split_whitespace().filter_map(|word| word.chars().next()).collect::<String>(),
        )?,
        "snakecase" => machine.text(words(given.text(0)?).join("_"))?,
        "kebabcase" => machine.text(words(given.text(0)?).join("-"))?,
        "camelcase" => {
            machine.text(words(given.text(0)?).iter().map(|word| capitals(word, true)).collect::<String>())?
        }
        "trimall" | "trimAll" => {
            let set = given.text(0)?;
            machine.text(given.text(1)?.trim_matches(|character| set.contains(character)))?
        }
        "trimSuffix" => {
            let text = given.text(1)?;
            machine.text(text.strip_suffix(given.text(0)?).unwrap_or(text))?
        }
        "trimPrefix" => {
            let text = given.text(1)?;
            machine.text(text.strip_prefix(given.text(0)?).unwrap_or(text))?
        }
        "contains" => Value::Bool(given.text(1)?.contains(given.text(0)?)),
        "hasPrefix" => Value::Bool(given.text(1)?.starts_with(given.text(0)?)),
        "hasSuffix" => Value::Bool(given.text(1)?.ends_with(given.text(0)?)),
        "replace" => machine.replace(given.text(2)?, given.text(0)?, given.text(1)?, -1)?,
        "repeat" => machine.repeat(given.text(1)?, given.int(0)?)?,
        "trunc" => machine.text(truncated(given.text(1)?, given.int(0)?))?,
        "substr" => machine.text(part(given.text(2)?, given.int(0)?, given.int(1)?))?,
        "abbrev" => machine.text(abbreviated(given.text(1)?, 0, given.int(0)?))?,
        "abbrevboth" => machine.text(abbreviated(given.text(2)?, given.int(0)?, given.int(1)?))?,
        "wrap" => machine.text(wrapped(given.text(1)?, given.int(0)?, "\n"))?,
        "wrapWith" => machine.text(wrapped(given.text(2)?, given.int(0)?, given.text(1)?))?,
        "indent" | "nindent" => indented(machine, given)?,
        "plural" => Value::from(if given.int(2)? == 1 { given.text(0)? } else { given.text(1)? }),
        "quote" | "squote" | "cat" => joined(machine, given)?,
        "toString" => {
            let text = machine.display(given.value(0)?)?;
            machine.text(text)?
        }
        _ => return encodings(machine, given),
    };
    Ok(Some(value))
}

fn encodings(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Answer {
    let value = match given.name {
        "b64enc" => machine.text(STANDARD.encode(given.text(0)?))?,
        "b64dec" => {
            let decoded = STANDARD.decode(given.text(0)?);
            let text = decoded.map_or_else(
                |_| "illegal base64 data at input byte 0".to_owned(),
                |bytes| String::from_utf8_lossy(&bytes).into_owned(),
            );
            machine.text(text)?
        }
        "b32enc" => machine.text(base32(given.text(0)?.as_bytes()))?,
        "b32dec" => machine.text(from_base32(given.text(0)?))?,
        "sha256sum" => machine.text(hexadecimal(&Sha256::digest(given.text(0)?)))?,
        "sha512sum" => machine.text(hexadecimal(&Sha512::digest(given.text(0)?)))?,
        "adler32sum" => machine.text(adler32(given.text(0)?.as_bytes()).to_string())?,
        "fromJson" => machine.parse_json(given.text(0)?)?,
        "toJson" | "toRawJson" | "toPrettyJson" => {
            let text = given.value(0)?.json(given.name == "toPrettyJson", machine.text_room())?;
            let text = if given.name == "toRawJson" { unescaped_html(&text) } else { text };
            machine.text(text)?
        }
        "base" | "osBase" => machine.text(base(given.text(0)?))?,
        "dir" | "osDir" => machine.text(directory(given.text(0)?))?,
        "clean" | "osClean" => machine.text(clean(given.text(0)?))?,
        "ext" | "osExt" => {
            let last = given.text(0)?.rsplit('/').next().unwrap_or_default();
            machine.text(last.rfind('.').map_or("", |place| &last[place..]))?
        }
        "isAbs" | "osIsAbs" => Value::Bool(given.text(0)?.starts_with('/')),
        _ => return patterns(machine, given),
    };
    Ok(Some(value))
}

fn patterns(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Answer {
    if !given.name.starts_with("regex") {
        return Ok(None);
    }
    if given.name == "regexQuoteMeta" {
        return machine.text(quoted_pattern(given.text(0)?)).map(Some);
    }
    let pattern = machine.pattern(given.text(0)?)?;
    let text = given.text(1)?;
    let most = || given.int(2).map(|most| usize::try_from(most).unwrap_or(usize::MAX));
    let value = match given.name {
        "regexMatch" => Value::Bool(pattern.is_match(text)),
        "regexFind" => machine.text(pattern.find(text).map_or("", |found| found.as_str()))?,
        "regexFindAll" => {
            let mut found = Vec::new();
            for part in pattern.find_iter(text).take(most()?) {
                found.push(machine.text(part.as_str())?);
            }
            machine.list(found)?
        }
        "regexReplaceAll" | "regexReplaceAllLiteral" => {
            replaced(machine, &pattern, text, given.text(2)?, given.name == "regexReplaceAll")?
        }
        "regexSplit" => {
            let most = most()?;
            if most == 0 {
                return machine.list(Vec::new()).map(Some);
            }
            let mut parts = Vec::new();
            for part in pattern.splitn(text, most) {
                parts.push(machine.text(part)?);
            }
            machine.list(parts)?
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn replaced(
    machine: &mut Machine<'_>,
    pattern: &regex::Regex,
    text: &str,
    by: &str,
    expand: bool,
) -> Result<Value, String> {
    let mut out = String::new();
    let mut end = 0;
    for found in pattern.captures_iter(text) {
        let whole = found.get(0).expect("a match has a whole");
        out.push_str(&text[end..whole.start()]);
        if expand {
            found.expand(by, &mut out);
        } else {
            out.push_str(by);
        }
        machine.spend(1 + by.len() / 16)?;
        if out.len() > machine.text_room() {
            return Err("memory budget exceeded".to_owned());
        }
        end = whole.end();
    }
    out.push_str(&text[end..]);
    machine.text(out)
}

fn quoted_pattern(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

fn capitals(text: &str, upper: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for character in text.chars() {
        if begins && upper {
            out.extend(character.to_uppercase());
        } else if begins {
            out.extend(character.to_lowercase());
        } else {
            out.push(character);
        }
        begins = if upper && character.is_ascii() {
            !character.is_ascii_alphanumeric() && character != '_'
        } else {
            character.is_whitespace()
        };
    }
    out
}

fn swapped(text: &str) -> String {
    let swap = |character: char| -> String {
        if character.is_uppercase() {
            character.to_lowercase().collect()
        } else {
            character.to_uppercase().collect()
        }
    };
    text.chars().map(swap).collect()
}

/// The words of a name in any case, in lower case.
fn words(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut words: Vec<String> = vec![String::new()];
    for (place, character) in characters.iter().enumerate() {
        if character.is_whitespace() || matches!(character, '_' | '-' | '.') {
            words.push(String::new());
            continue;
        }
        let before = place.checked_sub(1).and_then(|place| characters.get(place));
        let after = characters.get(place + 1);
        let rises = character.is_uppercase()
            && (before.is_some_and(|before| before.is_lowercase() || before.is_numeric())
                || (before.is_some_and(|before| before.is_uppercase())
                    && after.is_some_and(|after| after.is_lowercase())));
        if rises {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(character.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The largest place not above `place` that is between two characters.
fn floor(text: &str, place: usize) -> usize {
    (0..=place.min(text.len())).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(0)
}

fn truncated(text: &str, length: i64) -> &str {
    let size = i64::try_from(text.len()).unwrap_or(i64::MAX);
    if length < 0 && size.saturating_add(length) > 0 {
        let from = usize::try_from(size + length).unwrap_or(0);
        return &text[floor(text, from)..];
    }
    if length >= 0 && size > length {
        return &text[..floor(text, usize::try_from(length).unwrap_or(0))];
    }
    text
}

fn part(text: &str, from: i64, to: i64) -> &str {
    let end = usize::try_from(to).ok().filter(|end| *end <= text.len()).unwrap_or(text.len());
    let end = floor(text, end);
    let start = floor(text, usize::try_from(from).unwrap_or(0)).min(end);
    &text[start..end]
}

fn abbreviated(text: &str, offset: i64, width: i64) -> String {
    let characters: Vec<char> = text.chars().collect();
    let size = i64::try_from(characters.len()).unwrap_or(i64::MAX);
    let cut = |from: i64, to: i64| -> String {
        let from = usize::try_from(from).unwrap_or(0);
        let to = usize::try_from(to).unwrap_or(0).min(characters.len());
        characters.get(from..to).unwrap_or_default().iter().collect()
    };
    if width < 4 || size <= width || (offset > 4 && width < 7) {
        return text.to_owned();
    }
    if offset <= 4 {
        return format!("{}...", cut(0, width - 3));
    }
    let offset = offset.min(size);
    if offset.saturating_add(width - 3) < size {
        let middle = cut(offset, offset + width - 6);
        return format!("...{middle}...");
    }
    format!("...{}", cut(size - (width - 3), size))
}

fn wrapped(text: &str, width: i64, by: &str) -> String {
    let width = usize::try_from(width).unwrap_or(0).max(1);
    let mut out = String::new();
    let mut line = 0;
    for word in text.split(' ') {
        let size = word.chars().count();
        if !out.is_empty() {
            if line + 1 + size > width {
                out.push_str(by);
                line = 0;
            } else {
                out.push(' ');
                line += 1;
            }
        }
        out.push_str(word);
        line += size;
    }
    out
}

fn indented(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Result<Value, String> {
    let (spaces, text) = (given.int(0)?, given.text(1)?);
    let Value::Text(pad) = machine.repeat(" ", spaces)? else { return Err(given.refuse()) };
    let lines = text.matches('\n').count() + 1;
    machine.charge(lines.saturating_mul(pad.len()))?;
    let lead = if given.name == "nindent" { "\n" } else { "" };
    machine.text(format!("{lead}{pad}{}", text.replace('\n', &format!("\n{pad}"))))
}

fn joined(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Result<Value, String> {
    let mut parts = Vec::new();
    for value in given.values.iter().filter(|value| !value.is_nil()) {
        let text = machine.display(value)?;
        parts.push(match given.name {
            "quote" => {
                let mut quoted = "\"".to_owned();
                crate::go::push_quoted(&mut quoted, &text);
                quoted + "\""
            }
            "squote" => format!("'{text}'"),
            _ => text,
        });
    }
    machine.text(parts.join(" "))
}

fn unescaped_html(text: &str) -> String {
    text.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    (b << 16) | a
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn base32(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(5) {
        let mut group = [0_u8; 8];
        group[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(group);
        let letters = (chunk.len() * 8).div_ceil(5);
        for place in 0..8 {
            let five = usize::try_from((bits >> (35 - 5 * place)) & 31).unwrap_or(0);
            out.push(if place < letters { char::from(BASE32[five]) } else { '=' });
        }
    }
    out
}

fn from_base32(text: &str) -> String {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let Some(five) = BASE32.iter().position(|known| *known == letter) else {
            return "illegal base32 data at input byte 0".to_owned();
        };
        bits = (bits << 5) | u32::try_from(five).unwrap_or(0);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap_or(0));
        }
        bits &= (1 << count) - 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            other => kept.push(other),
        }
    }
    let joined = kept.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

fn base(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    match (path.is_empty(), trimmed.is_empty()) {
        (true, _) => ".".to_owned(),
        (false, true) => "/".to_owned(),
        (false, false) => trimmed.rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

fn directory(path: &str) -> String {
    clean(path.rfind('/').map_or("", |place| &path[..=place]))
}
