//! `status.synchronization`: what a workflow holds and waits for, as Argo shows it.

use argosy_model::WorkflowId;
use argosy_proto::state as row;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use crate::State;
use crate::locks::{is_mutex, name_of, shown};

/// Holders of one semaphore that are listed.
const HOLDERS_MAX: usize = 1_000;

#[derive(Default)]
struct Shown {
    /// Semaphores and their holders: by lock, in order.
    semaphores: BTreeMap<String, Vec<String>>,
    mutexes: Vec<Value>,
}

pub(super) fn synchronization(state: &State, id: WorkflowId) -> Option<Value> {
    let (mut holding, mut waiting) = (Shown::default(), Shown::default());
    let mine = state.lock_requests.range((id.0, 0)..=(id.0, u32::MAX));
    for (owner, request) in mine {
        let own = state.lock_owner_name(*owner);
        // A place to run is no lock of the user's.
        for lock in request.locks.iter().filter(|lock| lock.kind() != row::LockKind::Workflows) {
            if request.held {
                holding.add(lock, vec![own.clone()]);
            } else {
                let holders = state.index.locks.holders_of(&name_of(lock)).take(HOLDERS_MAX);
                waiting.add(lock, holders.map(|holder| state.lock_owner_name(holder)).collect());
            }
        }
    }
    let mut found = Map::new();
    for (kind, of) in
        [("semaphore", Shown::semaphores as fn(&Shown) -> Vec<Value>), ("mutex", Shown::mutexes)]
    {
        let mut fields = Map::new();
        for (word, shown) in [("holding", &holding), ("waiting", &waiting)] {
            let list = of(shown);
            if !list.is_empty() {
                fields.insert(word.to_owned(), Value::Array(list));
            }
        }
        if !fields.is_empty() {
            found.insert(kind.to_owned(), Value::Object(fields));
        }
    }
    (!found.is_empty()).then_some(Value::Object(found))
}

impl Shown {
    fn add(&mut self, lock: &row::Lock, holders: Vec<String>) {
        let name = shown(lock);
        if is_mutex(lock) {
            if let Some(holder) = holders.first() {
                let entry = json!({"mutex": name, "holder": holder});
                if !self.mutexes.contains(&entry) {
                    self.mutexes.push(entry);
                }
            }
            return;
        }
        let known = self.semaphores.entry(name).or_default();
        for holder in holders {
            if known.len() < HOLDERS_MAX && !known.contains(&holder) {
                known.push(holder);
            }
        }
    }

    fn semaphores(&self) -> Vec<Value> {
        let entry = |(name, holders): (&String, &Vec<String>)| {
            if holders.is_empty() {
                json!({"semaphore": name})
            } else {
                json!({"semaphore": name, "holders": holders})
            }
        };
        self.semaphores.iter().map(entry).collect()
    }

    fn mutexes(&self) -> Vec<Value> {
        self.mutexes.clone()
    }
}
