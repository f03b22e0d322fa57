//! Facts and rows outlive the code that wrote them: a tag, once given, keeps its name and type for ever.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

const FACT: &str = include_str!("../../../proto/argosy/fact.proto");
const STATE: &str = include_str!("../../../proto/argosy/state.proto");
const KNOWN: &str = include_str!("schema.txt");

struct Fields {
    found: BTreeSet<String>,
    /// Tags that went.
    reserved: BTreeSet<String>,
}

/// Every field and enum value of a schema as `file.Message tag name type`.
fn fields(file: &str, text: &str) -> Fields {
    let (mut found, mut reserved) = (BTreeSet::new(), BTreeSet::new());
    let mut message = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap().trim();
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [kind @ ("message" | "enum"), name, ..] = words.as_slice() {
            assert!(!kind.is_empty());
            (*name).clone_into(&mut message);
        }
        if let Some(tags) = line.strip_prefix("reserved ").and_then(|line| line.strip_suffix(';')) {
            reserved.extend(tags.split(',').map(|tag| format!("{file}.{message} {}", tag.trim())));
            continue;
        }
        let Some((left, tag)) = line.strip_suffix(';').and_then(|line| line.rsplit_once('=')) else {
            continue;
        };
        if left.starts_with("syntax") {
            continue;
        }
        let (kind, name) = left.trim().rsplit_once(' ').unwrap_or(("value", left.trim()));
        found.insert(format!("{file}.{message} {} {name} {kind}", tag.trim()));
    }
    Fields { found, reserved }
}

/// `file.Message tag` of a field.
fn tag(field: &str) -> String {
    field.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn tags_keep_their_meaning() {
    let Fields { found: mut now, mut reserved } = fields("fact", FACT);
    let state = fields("state", STATE);
    now.extend(state.found);
    reserved.extend(state.reserved);
    let known: BTreeSet<String> = KNOWN.lines().map(str::to_owned).collect();
    let changed: Vec<_> = known.difference(&now).filter(|field| !reserved.contains(&tag(field))).collect();
    assert!(changed.is_empty(), "these changed or went without being reserved: {changed:#?}");
    let new: Vec<_> = now.difference(&known).cloned().collect();
    assert!(new.is_empty(), "append these to tests/schema.txt:\n{}", new.join("\n"));
    let tags: BTreeSet<_> = now.iter().map(|field| tag(field)).collect();
    assert_eq!(tags.len(), now.len(), "a tag was given twice");
    let again: Vec<_> = tags.intersection(&reserved).collect();
    assert!(again.is_empty(), "reserved, and used again: {again:?}");
}
