//! Memoization: a template whose outputs are known from an earlier run is not run again (Argo reference 4).
//!
//! Caches are the control plane's own, one per namespace and name; entries are never shared across namespaces.

use argosy_model::{NodePhase, NodeType, node_id};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::Template;
use serde_json::Value;

use crate::advance::{Turn, create, retry};
use crate::evolve_hold::memo_entry;
use crate::memo_prepared;
use crate::state::{phase_of, type_of};

/// Entries of all caches of a cell; beyond them nothing more is kept.
const ENTRIES_MAX: usize = 100_000;
/// Bytes of the outputs of one entry.
const ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a key.
const KEY_BYTES_MAX: usize = 1024;

/// What a template's cache has for a node about to be made.
pub(crate) struct Lookup {
    cache: String,
    key: String,
    /// The entry, when there is one that is not too old.
    pub hit: Option<Option<row::Outputs>>,
}

/// Looks a template's key up; `None` when it isn't memoized.
pub(crate) fn look_up(
    turn: &Turn<'_>,
    template: &Template,
    inputs: &[row::Parameter],
) -> Result<Option<Lookup>, String> {
    let Some(memoize) = &template.memoize else { return Ok(None) };
    let memoize = create::with_inputs(turn, template, memoize, inputs)?;
    let key = memoize.key;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let bounded = !key.is_empty() && key.len() <= KEY_BYTES_MAX;
    if !bounded || !key.chars().all(plain) || key.starts_with('-') {
        return Err(format!("invalid cache key: {key}"));
    }
    let cache = memoize.cache.config_map.name;
    let age_max_ms = age_ms(&memoize.max_age)?;
    let namespace = &turn.row().namespace;
    let entry = memo_entry(namespace, &cache, &key);
    let prepared = memo_prepared::find(&turn.draft.state, namespace, &cache, &key)?;
    let known = turn.draft.state.memos.get(entry.as_str()).map(|memo| memo.as_ref().clone());
    // What was computed here last wins over what somebody prepared before that.
    let newest = known.into_iter().chain(prepared).max_by_key(|memo| memo.created_at_ms);
    let hit = newest.filter(|memo| {
        age_max_ms.is_none_or(|age| turn.draft.now().0.saturating_sub(memo.created_at_ms) <= age)
    });
    let hit = hit.map(|memo| memo.outputs);
    Ok(Some(Lookup { cache, key, hit }))
}

/// A Go duration; `None` for none.
fn age_ms(text: &str) -> Result<Option<i64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || format!("invalid maxAge: time: invalid duration {}", Value::String(text.to_owned()));
    if text.parse::<i64>().is_ok_and(|number| number != 0) {
        return Err(format!("invalid maxAge: time: missing unit in duration {text:?}"));
    }
    retry::duration_ms(text).map(Some).map_err(|_| invalid())
}

/// Notes a node's key; a hit ends the node with the entry's outputs.
pub(crate) fn note(turn: &mut Turn<'_>, node: u32, found: &Lookup) {
    turn.draft.emit(Body::NodeMemoized(fact::NodeMemoized {
        workflow: turn.workflow,
        node,
        cache: found.cache.clone(),
        key: found.key.clone(),
        hit: found.hit.is_some(),
    }));
    if let Some(outputs) = &found.hit {
        turn.finish(node, NodePhase::Succeeded, String::new(), outputs.clone());
    } else {
        // One that needed no time is over already.
        store(turn, node);
    }
}

/// Notes the key of a Retry node at one of its tries.
pub(crate) fn note_try(turn: &mut Turn<'_>, retry: &row::Node, node: u32) {
    if !retry.rare().memo_key.is_empty() {
        let (cache, key) = (retry.rare().memo_cache.clone(), retry.rare().memo_key.clone());
        let workflow = turn.workflow;
        turn.draft.emit(Body::NodeMemoized(fact::NodeMemoized { workflow, node, cache, key, hit: false }));
    }
}

/// A node is over: what it came to is kept when its template asks for that.
pub(crate) fn store(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    let rare = node.rare();
    if rare.memo_key.is_empty() || rare.memo_hit || phase_of(&node) != NodePhase::Succeeded {
        return;
    }
    // The tries of a Retry node are told of its key; it is the node itself that is kept.
    if node.flag == i32::from(row::NodeFlag::Retried) && type_of(&turn.node(node.parent)) == NodeType::Retry {
        return;
    }
    let workflow = turn.row();
    let entry = memo_entry(&workflow.namespace, &rare.memo_cache, &rare.memo_key);
    let memos = &turn.draft.state.memos;
    let bytes = node.outputs.as_ref().map_or(0, prost::Message::encoded_len);
    if bytes > ENTRY_BYTES_MAX || (memos.len() >= ENTRIES_MAX && !memos.contains_key(entry.as_str())) {
        return;
    }
    turn.draft.emit(Body::MemoStored(fact::MemoStored {
        namespace: workflow.namespace.clone(),
        cache: rare.memo_cache.clone(),
        key: rare.memo_key.clone(),
        node_id: node_id(&workflow.name, &node.name),
        outputs: node.outputs.clone(),
    }));
}
