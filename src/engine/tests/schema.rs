//! Facts and rows outlive the code that wrote them: a tag, once given, keeps its name and type for ever.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

const FACT: &str = include_str!("../../../proto/argosy/fact.proto");
const STATE: &str = include_str!("../../../proto/argosy/state.proto");
const KNOWN: &str = include_str!("schema.txt");

/// Every field and enum value of a schema as `file.Message tag name type`.
fn fields(file: &str, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut message = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap().trim();
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [kind @ ("message" | "enum"), name, ..] = words.as_slice() {
            assert!(!kind.is_empty());
            (*name).clone_into(&mut message);
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
    found
}

#[test]
fn tags_keep_their_meaning() {
    let mut now = fields("fact", FACT);
    now.extend(fields("state", STATE));
    let known: BTreeSet<String> = KNOWN.lines().map(str::to_owned).collect();
    let changed: Vec<_> = known.difference(&now).collect();
    assert!(changed.is_empty(), "these changed or went without being reserved: {changed:#?}");
    let new: Vec<_> = now.difference(&known).cloned().collect();
    assert!(new.is_empty(), "append these to tests/schema.txt:\n{}", new.join("\n"));
    let tags: BTreeSet<_> = now.iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>()).collect();
    assert_eq!(tags.len(), now.len(), "a tag was given twice");
}
