//! Addresses and SHA-1.

use std::collections::BTreeMap;

use super::arguments::Arguments;
use crate::evaluate::Machine;
use crate::value::{Key, Value};

pub(super) fn call(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Result<Option<Value>, String> {
    let value = match given.name {
        "urlParse" => parsed(machine, given.text(0)?)?,
        "urlJoin" => joined(machine, given)?,
        "sha1sum" => {
            let text = given.text(0)?;
            machine.charge(text.len() * 2)?;
            machine.text(sha1(text.as_bytes()))?
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

/// The parts of an address: scheme, user, host with port, path, query, fragment.
fn parsed(machine: &mut Machine<'_>, address: &str) -> Result<Value, String> {
    machine.charge(address.len() * 2)?;
    let (rest, fragment) = address.split_once('#').unwrap_or((address, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_scheme = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character))
    };
    let (scheme, rest) = rest.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", rest));
    let (authority, path, opaque) = match rest.strip_prefix("//") {
        Some(rest) => {
            let place = rest.find('/').unwrap_or(rest.len());
            (&rest[..place], &rest[place..], "")
        }
        None if scheme.is_empty() || rest.starts_with('/') => ("", rest, ""),
        None => ("", "", rest),
    };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let without_port =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let hostname = without_port.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let parts = [
        ("scheme", scheme.to_lowercase()),
        ("userinfo", user.to_owned()),
        ("host", host.to_owned()),
        ("hostname", hostname.to_owned()),
        ("path", unescaped(path)),
        ("opaque", opaque.to_owned()),
        ("query", query.to_owned()),
        ("fragment", fragment.to_owned()),
    ];
    let mut entries = BTreeMap::new();
    for (name, text) in parts {
        entries.insert(Key::Text(name.into()), machine.text(text)?);
    }
    machine.map(entries, false)
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn joined(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Result<Value, String> {
    let Value::Map(parts) = given.value(0)? else { return Err(given.refuse()) };
    let part = |name: &str| parts.get(name).and_then(Value::as_text).unwrap_or_default();
    let mut out = String::new();
    if !part("scheme").is_empty() {
        out.push_str(part("scheme"));
        out.push(':');
    }
    if part("opaque").is_empty() {
        if !part("host").is_empty() || !part("userinfo").is_empty() {
            out.push_str("//");
            if !part("userinfo").is_empty() {
                out.push_str(part("userinfo"));
                out.push('@');
            }
            out.push_str(part("host"));
        }
        out.push_str(&part("path").replace(' ', "%20"));
    } else {
        out.push_str(part("opaque"));
    }
    for (mark, name) in [('?', "query"), ('#', "fragment")] {
        if !part(name).is_empty() {
            out.push(mark);
            out.push_str(part(name));
        }
    }
    machine.text(out)
}

/// SHA-1 in hexadecimal: for names and cache keys, not for secrets.
fn sha1(bytes: &[u8]) -> String {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, byte| (word << 8) | u32::from(*byte));
        }
        for place in 16..80 {
            let mixed = words[place - 3] ^ words[place - 8] ^ words[place - 14] ^ words[place - 16];
            words[place] = mixed.rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (round, word) in words.iter().enumerate() {
            let (mixed, constant) = match round / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999_u32),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (total, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *total = total.wrapping_add(part);
        }
    }
    state.iter().map(|word| format!("{word:08x}")).collect()
}
