//! Locks that can never be had: what waits for them is part of what holds them, or the holders wait for each other.
//!
//! Argo leaves such workflows waiting for ever. Only holders with nodes below them can be in the way: a leaf ends.

use argosy_proto::state as row;
use std::collections::{BTreeMap, BTreeSet};

use crate::locks::{Owner, name_of, shown};
use crate::state::State;

/// Requests looked at for one that is new; beyond that nothing is said, and the waiting shows.
const REQUESTS_MAX: usize = 256;

/// Why a new node below `parent` would wait for ever for these locks; `None` when it would not.
pub(crate) fn find(state: &State, parent: Owner, locks: &[row::Lock]) -> Option<String> {
    let mut stuck = Stuck { state, waiting: BTreeMap::new() };
    // The new one has no number yet: it stands for itself under that of its parent's.
    stuck.collect(locks)?;
    let mut lost: BTreeSet<Owner> = stuck.waiting.keys().copied().collect();
    loop {
        let free: Vec<Owner> = lost
            .iter()
            .filter(|owner| !stuck.is_stuck(&stuck.waiting[*owner], &lost, parent))
            .copied()
            .collect();
        if free.is_empty() {
            break;
        }
        for owner in free {
            lost.remove(&owner);
        }
    }
    let (lock, holder) = stuck.blocked_by(locks, &lost, parent)?;
    Some(stuck.words(lock, holder, &lost, parent))
}

struct Stuck<'a> {
    state: &'a State,
    /// Requests that wait and could be part of a circle, with their locks.
    waiting: BTreeMap<Owner, Vec<row::Lock>>,
}

impl Stuck<'_> {
    /// Everything that waits below the holders of these locks, and below the holders of what that waits for; `None`
    /// when that is more than can be looked at.
    fn collect(&mut self, locks: &[row::Lock]) -> Option<()> {
        let mut open: Vec<row::Lock> = locks.to_vec();
        let mut seen = BTreeSet::new();
        while let Some(lock) = open.pop() {
            let name = name_of(&lock);
            if !seen.insert(name.clone()) {
                continue;
            }
            for holder in self.state.index.locks.holders_of(&name).take(REQUESTS_MAX) {
                if !self.state.is_composite(holder) {
                    continue;
                }
                for node in self.state.index.locks.waiting_in(holder.0, 1) {
                    let owner = (holder.0, node);
                    if self.waiting.contains_key(&owner) || !self.is_below(owner, holder) {
                        continue;
                    }
                    if self.waiting.len() >= REQUESTS_MAX {
                        return None;
                    }
                    let locks = self.state.lock_request(owner).map(|request| request.locks.clone());
                    open.extend(locks.clone().unwrap_or_default());
                    self.waiting.insert(owner, locks.unwrap_or_default());
                }
            }
        }
        Some(())
    }

    /// The node is part of what the holder is.
    fn is_below(&self, owner: Owner, holder: Owner) -> bool {
        if owner.0 != holder.0 {
            return false;
        }
        let mut next = owner.1;
        while next != 0 && next != holder.1 {
            next = self.state.node(owner.0, next).map_or(0, |row| row.parent);
        }
        next == holder.1
    }

    /// The holder ends only after one of those that are stuck, or after the new one.
    fn is_blocked(&self, holder: Owner, lost: &BTreeSet<Owner>, parent: Owner) -> bool {
        let holds_new = parent.0 == holder.0 && self.is_below(parent, holder);
        self.state.is_composite(holder)
            && (holds_new || lost.iter().any(|owner| self.is_below(*owner, holder)))
    }

    /// A lock of which every place is taken by a holder that is blocked.
    fn blocked_by<'l>(
        &self,
        locks: &'l [row::Lock],
        lost: &BTreeSet<Owner>,
        parent: Owner,
    ) -> Option<(&'l row::Lock, Owner)> {
        locks.iter().find_map(|lock| {
            let limit = usize::try_from(self.state.lock_limit(lock)).unwrap_or(usize::MAX);
            let holders: Vec<Owner> =
                self.state.index.locks.holders_of(&name_of(lock)).take(REQUESTS_MAX).collect();
            let blocked: Vec<Owner> =
                holders.iter().copied().filter(|holder| self.is_blocked(*holder, lost, parent)).collect();
            let first = blocked.first().copied();
            first.filter(|_| blocked.len() >= limit).map(|first| (lock, first))
        })
    }

    fn is_stuck(&self, locks: &[row::Lock], lost: &BTreeSet<Owner>, parent: Owner) -> bool {
        self.blocked_by(locks, lost, parent).is_some()
    }

    fn words(&self, lock: &row::Lock, holder: Owner, lost: &BTreeSet<Owner>, parent: Owner) -> String {
        let (name, holder_name) = (shown(lock), self.state.lock_owner_name(holder));
        if parent.0 == holder.0 && self.is_below(parent, holder) {
            return format!("deadlock: {name} is held by {holder_name}, which ends only after this step");
        }
        let waits = lost.iter().find(|owner| self.is_below(**owner, holder));
        let waits = waits.and_then(|owner| self.state.waits_for(*owner)).map(|(name, _)| name);
        let waits = waits.unwrap_or_default();
        format!(
            "deadlock: {name} is held by {holder_name}, in which a step waits for {waits}, and so for this workflow"
        )
    }
}
