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
        /// Values of the keys `<<`.
        merges: Vec<Node>,
        seen: BTreeMap<String, usize>,
        key: Option<Key>,
    },
}

/// A key that waits for its value.
enum Key {
    Own(String, Mark),
    /// `<<`, which takes over the keys of other maps.
    Merge,
}

struct Loader<'a> {
    source: &'a Source<'a>,
    limits: &'a Limits,
    /// Lines of the text before the part that is being read.
    lines_before: usize,
    stack: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes_left: usize,
    documents: Vec<Node>,
    problems: Vec<Diagnostic>,
}

/// What was read of a text.
pub(crate) struct Read {
    /// The documents that can be read. Those without content are left out.
    pub(crate) documents: Vec<Node>,
    /// What is wrong with the others, or with the form of these.
    pub(crate) problems: Vec<Diagnostic>,
}

/// A text is YAML, whatever it holds.
pub(crate) fn is_readable(text: &str) -> bool {
    read(&Source::new("", text), text, &Limits::DEFAULT).problems.is_empty()
}

/// Reads all documents of a text. One that can't be read does not stop those after it.
pub(crate) fn read(source: &Source<'_>, text: &str, limits: &Limits) -> Read {
    let mut loader = Loader {
        source,
        limits,
        lines_before: 0,
        stack: Vec::new(),
        anchors: BTreeMap::new(),
        nodes_left: limits.nodes_max,
        documents: Vec::new(),
        problems: Vec::new(),
    };
    let mut rest = text;
    while let Some(line) = loader.part(rest) {
        // The line is broken; the next document begins below it.
        let lines = rest.split_inclusive('\n').enumerate().skip(line.saturating_sub(loader.lines_before));
        let Some(skipped) =
            lines.into_iter().find(|(_, line)| is_document_start(line)).map(|(index, _)| index)
        else {
            break;
        };
        let bytes: usize = rest.split_inclusive('\n').take(skipped).map(str::len).sum();
        if skipped == 0 || loader.problems.len() >= limits.problems_max {
            break;
        }
        rest = &rest[bytes..];
        loader.lines_before += skipped;
        loader.stack.clear();
    }
    Read { documents: loader.documents, problems: loader.problems }
}

fn is_document_start(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.chars().next().is_none_or(char::is_whitespace))
}

impl Loader<'_> {
    /// Reads a part of the text to its end, or to a line that can't be read.
    fn part(&mut self, text: &str) -> Option<usize> {
        let options = granit_parser::options! {
            flow_nesting_limit: self.limits.depth_max,
            block_nesting_limit: self.limits.depth_max,
            emit_comments: false,
        };
        for event in Parser::new_from_str_with_options(text, options) {
            match event {
                Ok((event, span)) => {
                    if let Err(problem) = self.event(event, &span) {
                        let line = problem.place.as_ref().map_or(usize::MAX, |place| place.line);
                        // Too much is too much for the documents after it as well.
                        let is_over = problem.code == "ARG0002";
                        self.problems.push(*problem);
                        return (!is_over).then_some(line);
                    }
                }
                Err(error) => {
                    let line = error.marker().line() + self.lines_before;
                    let at = Mark { line, column: error.marker().col() + 1 };
                    self.problems.push(self.unreadable(at, &error));
                    return Some(line);
                }
            }
        }
        None
    }

    fn mark(&self, span: &Span) -> Mark {
        Mark { line: span.start.line() + self.lines_before, column: span.start.col() + 1 }
    }

    fn problem(&self, code: &'static str, at: Mark, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(Diagnostic { place: self.source.place(at), ..Diagnostic::plain(code, "", message) })
    }

    fn unreadable(&self, at: Mark, error: &granit_parser::ScanError) -> Diagnostic {
        let at_end = at.line >= self.source.lines.len();
        let problem = *self.problem("ARG0001", at, format!("this is not readable YAML: {}", error.info()));
        let line = self.source.lines.get(at.line.saturating_sub(1)).copied().unwrap_or_default();
        let indent: String = line.chars().take_while(|next| next.is_whitespace()).collect();
        if indent.contains('\t') {
            problem.suggest("YAML is indented with spaces; this line begins with a tab")
        } else if at_end {
            problem.suggest("the text ends here: is it complete?")
        } else {
            problem
        }
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Box<Diagnostic>> {
        let at = self.mark(span);
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain;
                let data = self.scalar(&text, is_plain, tag.as_deref(), at)?;
                let is_merge = is_plain && tag.is_none() && &*text == MERGE;
                self.add(Node { at, data }, anchor, is_merge)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(Open::List { at, anchor, nodes: Vec::new() }, at)?
            }
            Event::MappingStart(_, anchor, _) => {
                let (entries, merges, seen) = (Vec::new(), Vec::new(), BTreeMap::new());
                self.open(Open::Map { at, anchor, entries, merges, seen, key: None }, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(anchor) => self.alias(anchor, at)?,
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | _ => {}
        }
        Ok(())
    }

    /// The value of a scalar. A tag of YAML's own says what it is; one of somebody else's makes it a text.
    fn scalar(
        &self,
        text: &str,
        is_plain: bool,
        tag: Option<&granit_parser::Tag>,
        at: Mark,
    ) -> Result<Data, Box<Diagnostic>> {
        let own = |name: &str| tag.is_some_and(|tag| tag.is_yaml_core_schema_tag(name));
        let core = |tag: &granit_parser::Tag| {
            tag.suffix_in_namespace("tag:yaml.org,2002:").map(std::borrow::Cow::into_owned)
        };
        let data = match tag.map(core) {
            None if is_plain => scalar::plain(text),
            None => Data::String(text.to_owned()),
            Some(None) => Data::String(text.to_owned()),
            Some(Some(_)) if own("str") => Data::String(text.to_owned()),
            Some(Some(name)) if name == "binary" => return self.binary(text, at),
            Some(Some(name)) => match scalar::tagged(&name, text) {
                Some(data) => data,
                None if ["int", "float", "bool", "null", "timestamp"].contains(&name.as_str()) => {
                    let shown: String = text.chars().take(SHOWN_MAX).collect();
                    return Err(self.problem(
                        "ARG0001",
                        at,
                        format!("cannot decode `{shown}` as a !!{name}"),
                    ));
                }
                None => Data::String(text.to_owned()),
            },
        };
        if let Data::Float(value) = data
            && !value.is_finite()
        {
            let message = format!("`{text}` is a number that JSON has no word for");
            return Err(Box::new(self.problem("ARG0001", at, message).suggest("put it in quotes")));
        }
        Ok(data)
    }

    fn binary(&self, text: &str, at: Mark) -> Result<Data, Box<Diagnostic>> {
        use base64::Engine;
        let packed: String = text.chars().filter(|next| !next.is_whitespace()).collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(packed);
        let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let wrong = || self.problem("ARG0001", at, "a !!binary value must be text in base64");
        text.map(Data::String).ok_or_else(wrong)
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
            Some(Open::Map { at, anchor, entries, merges, .. }) => {
                let entries = merged(entries, merges).map_err(|at| {
                    self.problem("ARG0001", at, "map merge requires map or sequence of maps as the value")
                })?;
                (Node { at, data: Data::Map(entries) }, anchor)
            }
            None => return Ok(()),
        };
        self.add(node, anchor, false)
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
        self.add(node, 0, false)
    }

    fn add(&mut self, node: Node, anchor: usize, is_merge: bool) -> Result<(), Box<Diagnostic>> {
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
        let twice = match self.stack.last_mut() {
            None => {
                if node.data != Data::Null {
                    self.documents.push(node);
                }
                None
            }
            Some(Open::List { nodes, .. }) => {
                nodes.push(node);
                None
            }
            Some(Open::Map { entries, merges, seen, key, .. }) => match key.take() {
                None if is_merge => {
                    *key = Some(Key::Merge);
                    None
                }
                None => match scalar::key_of(&node.data) {
                    Some(text) => {
                        *key = Some(Key::Own(text, node.at));
                        None
                    }
                    None => return Err(self.problem("ARG0001", node.at, NO_KEY)),
                },
                Some(Key::Merge) => {
                    merges.push(node);
                    None
                }
                Some(Key::Own(name, at)) => match seen.get(&name).copied() {
                    // The first counts; the second is told of.
                    Some(first) => Some((name, at, first)),
                    None => {
                        seen.insert(name.clone(), at.line);
                        entries.push(Entry { key: name, at, value: node });
                        None
                    }
                },
            },
        };
        if let Some((name, at, first)) = twice {
            let message = format!("key \"{name}\" is given twice, before in line {first}");
            let problem = self.problem("ARG0006", at, message).suggest("remove one of the two");
            if self.problems.len() < self.limits.problems_max {
                self.problems.push(problem);
            }
        }
        Ok(())
    }
}

/// Characters that are shown of a value.
const SHOWN_MAX: usize = 40;
const NO_KEY: &str = "a key must be a plain value, not null, a list or an object";

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
        Data::Null | Data::Bool(_) | Data::Letter(_) | Data::Number(_) | Data::Float(_) => 0,
        Data::String(text) => text.len() / TEXT_PER_VALUE,
        Data::List(nodes) => nodes.iter().map(weight).sum(),
        Data::Map(entries) => {
            entries.iter().map(|entry| entry.key.len() / TEXT_PER_VALUE + weight(&entry.value)).sum::<usize>()
        }
    }
}

const MERGE: &str = "<<";

/// Resolves `<<: *anchor`: own keys win, then the earlier of several. Where a value is no map: its place.
fn merged(mut own: Vec<Entry>, merges: Vec<Node>) -> Result<Vec<Entry>, Mark> {
    if merges.is_empty() {
        return Ok(own);
    }
    let mut known: std::collections::BTreeSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
    for merge in merges {
        let parts = if let Data::List(nodes) = merge.data { nodes } else { vec![merge] };
        for part in parts {
            let Data::Map(inherited) = part.data else { return Err(part.at) };
            for entry in inherited {
                if known.insert(entry.key.clone()) {
                    own.push(entry);
                }
            }
        }
    }
    Ok(own)
}
