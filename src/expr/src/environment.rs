//! The names that an expression may use.

use std::sync::Arc;

use crate::ast::{Kind, Node};
use crate::evaluate::names;
use crate::value::{Map, VALUE_DEPTH_MAX, Value};
use crate::verbatim;

/// Names in scope, as nested maps: `workflow.parameters.a` is found in the map `parameters` of the map `workflow`.
///
/// A name that other names go on from (`workflow.parameters` beside `workflow.parameters.a`) is the map of those, whatever
/// value it was given. Cloning is cheap; a clone is copied where it is changed.
#[derive(Clone, Debug)]
pub struct Env {
    root: Arc<Map>,
    /// Some text in it was marked ([`crate::verbatim`]): so is what comes of it.
    verbatim: bool,
}

impl Default for Env {
    fn default() -> Self {
        Self { root: Arc::new(Map::empty()), verbatim: false }
    }
}

/// Where the names of expressions come from.
pub trait Environment {
    /// The names in scope for an expression that reads `paths` (each a name and the members asked of it). More names
    /// do no harm; a known name that is left out makes the expression stay unresolved.
    fn environment(&self, paths: &[Path]) -> Env;
}

impl Environment for Env {
    fn environment(&self, _: &[Path]) -> Env {
        self.clone()
    }
}

/// A name and the members asked of it.
pub type Path = Vec<Arc<str>>;

impl<N: AsRef<str>> FromIterator<(N, Value)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(names: I) -> Self {
        let mut env = Self::default();
        for (name, value) in names {
            env.insert(name.as_ref(), value);
        }
        env
    }
}

impl Env {
    /// Sets a dotted name. Names with more parts than values may be nested deep are left out.
    pub fn insert(&mut self, name: &str, value: Value) {
        let path: Vec<&str> = name.split('.').collect();
        if path.len() < VALUE_DEPTH_MAX as usize / 2 {
            Arc::make_mut(&mut self.root).insert(&path, value);
        }
    }

    /// Sets a dotted name to a text, without its marks.
    pub fn insert_text(&mut self, name: &str, text: &str) {
        self.verbatim |= verbatim::is_marked(text);
        self.insert(name, Value::from(&*verbatim::plain(text)));
    }

    pub(crate) fn is_verbatim(&self) -> bool {
        self.verbatim
    }

    /// Makes a name a map, whatever is or is not in it.
    pub fn open_map(&mut self, name: &str) {
        if !matches!(self.root.get(name), Some(Value::Map(_))) {
            self.insert(name, Value::Map(Arc::new(Map::empty())));
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.root.get(name)
    }

    pub(crate) fn all(&self) -> Value {
        Value::Map(self.root.clone())
    }

    /// Whether there is something at the end of `path`; functions count.
    pub fn knows(&self, path: &[Arc<str>]) -> bool {
        let [first, rest @ ..] = path else { return false };
        let Some(mut value) = self.root.get(first) else {
            return match rest {
                [] => names::is_function(first) || matches!(&**first, "sprig" | "$env"),
                [name] => &**first == "sprig" && names::is_sprig(name),
                [..] => false,
            };
        };
        for name in rest {
            let Value::Map(map) = value else { return false };
            let Some(next) = map.get(name) else { return false };
            value = next;
        }
        true
    }
}

/// The paths an expression needs: not those of its own variables, and none that `?.` or `??` guards.
pub(crate) fn required(node: &Node, bound: &mut Vec<Arc<str>>, out: &mut Vec<Path>) {
    collect(node, bound, out, true);
}

/// All paths an expression reads.
pub(crate) fn read(node: &Node, bound: &mut Vec<Arc<str>>, out: &mut Vec<Path>) {
    collect(node, bound, out, false);
}

fn collect(node: &Node, bound: &mut Vec<Arc<str>>, out: &mut Vec<Path>, skip_guarded: bool) {
    if let Kind::Let { name, value, body } = &node.kind {
        collect(value, bound, out, skip_guarded);
        bound.push(name.clone());
        collect(body, bound, out, skip_guarded);
        bound.pop();
        return;
    }
    if skip_guarded && let Kind::Binary(crate::ast::Infix::Coalesce, _, otherwise) = &node.kind {
        collect(otherwise, bound, out, skip_guarded);
        return;
    }
    if let Some(path) = node.path() {
        let guarded = skip_guarded && has_chain(node);
        if !guarded && !bound.contains(&path[0]) {
            out.push(path);
        }
        return;
    }
    node.each_child(&mut |child| collect(child, bound, out, skip_guarded));
}

fn has_chain(node: &Node) -> bool {
    let mut found = false;
    node.walk(&mut |node| {
        found |= matches!(node.kind, Kind::Chain(_));
        !found
    });
    found
}
