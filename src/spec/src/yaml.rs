//! YAML text to trees of values with places.
//!
//! Anchors are copied where they are used, within a budget, so that a text that doubles itself many times ends in an
//! error instead of using up memory.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use crate::node::{Data, Entry, Mark, Node, Source};
use crate::{Diagnostic, Limits, scalar};

/// What is being built: a list, or a map with the key that waits for its value.
enum Open {
    List {
        at: Mark,
        anchor: usize,
        nodes: Vec<Node>,
    },
    Map {
        at: Mark,
        anchor: usize,
        entries: Vec<Entry>,
        seen: BTreeMap<String, usize>,
        key: Option<(String, Mark)>,
    },
}

struct Loader<'a> {
    source: &'a Source<'a>,
    limits: &'a Limits,
    stack: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes_left: usize,
    documents: Vec<Node>,
    problems: Vec<Diagnostic>,
}

fn mark(span: &Span) -> Mark {
    Mark { line: span.start.line(), column: span.start.col() + 1 }
}

/// A text is YAML, whatever it holds.
pub(crate) fn is_readable(text: &str) -> bool {
    read(&Source::new("", text), text, &Limits::DEFAULT).is_ok()
}

/// Reads all documents of a text. Documents without content are left out.
pub(crate) fn read(source: &Source<'_>, text: &str, limits: &Limits) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let options = granit_parser::options! {
        flow_nesting_limit: limits.depth_max,
        block_nesting_limit: limits.depth_max,
        emit_comments: false,
    };
    let mut loader = Loader {
        source,
        limits,
        stack: Vec::new(),
        anchors: BTreeMap::new(),
        nodes_left: limits.nodes_max,
        documents: Vec::new(),
        problems: Vec::new(),
    };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => {
                if let Err(problem) = loader.event(event, &span) {
                    loader.problems.push(*problem);
                    break;
                }
            }
            Err(error) => {
                let at = Mark { line: error.marker().line(), column: error.marker().col() + 1 };
                loader.problems.push(loader.unreadable(at, &error));
                break;
            }
        }
    }
    if loader.problems.is_empty() { Ok(loader.documents) } else { Err(loader.problems) }
}

impl Loader<'_> {
    fn problem(&self, code: &'static str, at: Mark, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(Diagnostic { place: self.source.place(at), ..Diagnostic::plain(code, "", message) })
    }

    fn unreadable(&self, at: Mark, error: &granit_parser::ScanError) -> Diagnostic {
        let at_end = at.line >= self.source.lines.len();
        let problem = *self.problem("ARG0001", at, format!("this is not readable YAML: {}", error.info()));
        if at_end { problem.suggest("the text ends here: is it complete?") } else { problem }
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Box<Diagnostic>> {
        let at = mark(span);
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let data = match tag.as_deref().and_then(granit_parser::Tag::core_suffix) {
                    Some("str" | "binary") => Data::String(text.into_owned()),
                    _ if style == ScalarStyle::Plain => scalar::plain(&text),
                    _ => Data::String(text.into_owned()),
                };
                self.add(Node { at, data }, anchor)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(Open::List { at, anchor, nodes: Vec::new() }, at)?
            }
            Event::MappingStart(_, anchor, _) => {
                let (entries, seen) = (Vec::new(), BTreeMap::new());
                self.open(Open::Map { at, anchor, entries, seen, key: None }, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(anchor) => self.alias(anchor, at)?,
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | _ => {}
        }
        Ok(())
    }

    fn open(&mut self, open: Open, at: Mark) -> Result<(), Box<Diagnostic>> {
        if self.stack.len() >= self.limits.depth_max {
            let message = format!("nested more than {} deep", self.limits.depth_max);
            return Err(self.problem("ARG0002", at, message));
        }
        self.stack.push(open);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Box<Diagnostic>> {
        let (node, anchor) = match self.stack.pop() {
            Some(Open::List { at, anchor, nodes }) => (Node { at, data: Data::List(nodes) }, anchor),
            Some(Open::Map { at, anchor, entries, .. }) => {
                (Node { at, data: Data::Map(merged(entries)) }, anchor)
            }
            None => return Ok(()),
        };
        self.add(node, anchor)
    }

    fn alias(&mut self, anchor: usize, at: Mark) -> Result<(), Box<Diagnostic>> {
        let Some((node, size)) = self.anchors.get(&anchor).cloned_if(self.nodes_left) else {
            let known = self.anchors.contains_key(&anchor);
            let message = if known {
                format!("aliases expand to more than {} values", self.limits.nodes_max)
            } else {
                "an alias stands inside the value that it names".to_owned()
            };
            return Err(self.problem("ARG0002", at, message));
        };
        self.nodes_left -= size;
        self.add(node, 0)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Box<Diagnostic>> {
        let Some(left) = self.nodes_left.checked_sub(1) else {
            return Err(self.problem(
                "ARG0002",
                node.at,
                format!("more than {} values", self.limits.nodes_max),
            ));
        };
        self.nodes_left = left;
        if anchor != 0 {
            let size = weight(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let (key_problem, problem) = match self.stack.last_mut() {
            None => {
                if node.data != Data::Null {
                    self.documents.push(node);
                }
                (None, None)
            }
            Some(Open::List { nodes, .. }) => {
                nodes.push(node);
                (None, None)
            }
            Some(Open::Map { entries, seen, key, .. }) => match key.take() {
                None => match scalar::key_of(&node.data) {
                    Some(text) => {
                        *key = Some((text, node.at));
                        (None, None)
                    }
                    None => (None, Some(node.at)),
                },
                Some((name, at)) => {
                    let first = if name == MERGE { None } else { seen.insert(name.clone(), at.line) };
                    entries.push(Entry { key: name.clone(), at, value: node });
                    (first.map(|first| (name, at, first)), None)
                }
            },
        };
        if let Some(at) = problem {
            return Err(self.problem("ARG0001", at, "a key must be a plain value, not a list or an object"));
        }
        if let Some((name, at, first)) = key_problem {
            let message = format!("key \"{name}\" is given twice, before in line {first}");
            let problem = self.problem("ARG0006", at, message);
            self.problems.push(*problem);
        }
        Ok(())
    }
}

/// Clones an anchor's node when the budget allows it.
trait ClonedIf {
    fn cloned_if(self, budget: usize) -> Option<(Node, usize)>;
}

impl ClonedIf for Option<&(Node, usize)> {
    fn cloned_if(self, budget: usize) -> Option<(Node, usize)> {
        self.filter(|(_, size)| *size <= budget).cloned()
    }
}

/// Bytes of text that weigh as much as one value.
const TEXT_PER_VALUE: usize = 64;

/// What a copy of a node costs, in values.
fn weight(node: &Node) -> usize {
    1 + match &node.data {
        Data::Null | Data::Bool(_) | Data::Letter(_) | Data::Number(_) => 0,
        Data::String(text) => text.len() / TEXT_PER_VALUE,
        Data::List(nodes) => nodes.iter().map(weight).sum(),
        Data::Map(entries) => {
            entries.iter().map(|entry| entry.key.len() / TEXT_PER_VALUE + weight(&entry.value)).sum::<usize>()
        }
    }
}

const MERGE: &str = "<<";

/// Resolves `<<: *anchor`: own keys win, then the earlier of several.
fn merged(entries: Vec<Entry>) -> Vec<Entry> {
    if !entries.iter().any(|entry| entry.key == MERGE) {
        return entries;
    }
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.key == MERGE);
    let mut known: std::collections::BTreeSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
    for merge in merges {
        let parts = match merge.value.data {
            Data::List(nodes) => nodes,
            Data::Null
            | Data::Bool(_)
            | Data::Letter(_)
            | Data::Number(_)
            | Data::String(_)
            | Data::Map(_) => vec![merge.value],
        };
        for part in parts {
            let Data::Map(inherited) = part.data else { continue };
            for entry in inherited {
                if known.insert(entry.key.clone()) {
                    own.push(entry);
                }
            }
        }
    }
    own
}
