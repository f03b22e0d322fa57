//! Whether a step that ended well may run again for its artifacts, and when.

use argosy_model::{NodePhase, NodeType};
use argosy_proto::state as row;
use argosy_spec::Failover;

use super::find;
use crate::Leader;
use crate::leader::Parsed;
use crate::state::{State, phase_of, type_of};

/// When a step may run again.
pub(super) enum Verdict {
    Now,
    /// When its cluster has been lost for so long: it may come back, and nothing says that the step is safe to repeat.
    At(i64),
    /// Not while its cluster may come back.
    Return,
}

/// Whether the step may run again, now that its artifacts can't be had from a cluster, or why it does not.
pub(super) fn verdict(
    state: &State,
    leader: &mut Leader,
    workflow: u64,
    node: u32,
    lost: &str,
    now_ms: i64,
) -> Result<Verdict, String> {
    let parsed = leader.parsed(state, workflow).ok_or("its manifest can't be read")?;
    let row = state.node(workflow, node).ok_or("it is not there any more")?;
    let template = parsed.template(&row.template).ok_or("its template is not there any more")?;
    if type_of(row) != NodeType::Pod || phase_of(row) != NodePhase::Succeeded || template.daemon {
        return Err("it is no step that ended well".to_owned());
    }
    if template.exclusive().or_else(|| parsed.manifest.exclusive()) == Some(true) {
        return Err("it is exclusive".to_owned());
    }
    if had_lock(state, &parsed, workflow, node) {
        return Err("it ran under a lock, which it has given back".to_owned());
    }
    let group = parsed.groups.get(&row.template);
    let pin = group.and_then(|group| state.workflows.get(&workflow)?.pins.get(group));
    if pin.is_some_and(|pin| find::is_gone(state, pin)) {
        return Err("the volumes or daemons of its colocation group are lost as well".to_owned());
    }
    let max = leader.limits.reproductions_per_node_max;
    let not_counted = i32::from(row::ReproductionEnd::NotNeeded);
    let before = row.rare().reproductions.iter().filter(|one| one.end != not_counted).count();
    if before >= max {
        let failed = row.rare().reproductions.last().filter(|last| !last.message.is_empty());
        let why = failed.map(|last| format!(", and failed: {}", last.message)).unwrap_or_default();
        return Err(format!("it has been run again {before} times (the limit is {max}){why}"));
    }
    let removed = find::is_removed(state, lost);
    let retried = template.retry_strategy.is_some() || parsed.manifest.spec.retry_strategy.is_some();
    let word = template.failover().or_else(|| parsed.manifest.failover());
    if retried || template.idempotent() || parsed.manifest.idempotent() {
        return Ok(Verdict::Now);
    }
    match word {
        Some(Failover::Reschedule) => return Ok(Verdict::Now),
        Some(Failover::Wait) if find::is_gone(state, lost) && !removed => return Ok(Verdict::Return),
        Some(Failover::Wait) => return Err("its failover is `wait`".to_owned()),
        Some(Failover::Fail) | None => {}
    }
    if !find::is_gone(state, lost) {
        return Err("nothing says that it may run twice, and its cluster is there".to_owned());
    }
    let lost_at_ms = state.cluster(lost).map_or(0, |row| row.lost_at_ms);
    let due_ms = lost_at_ms.saturating_add(leader.limits.takeover_after_unsafe_ms);
    if !removed && now_ms < due_ms {
        return Ok(Verdict::At(due_ms));
    }
    if word == Some(Failover::Fail) { Err("its failover is `fail`".to_owned()) } else { Ok(Verdict::Now) }
}

/// The step, or something around it that has ended, ran under a mutex or semaphore: others may have it now.
fn had_lock(state: &State, parsed: &Parsed, workflow: u64, node: u32) -> bool {
    let mut next = node;
    while let Some(row) = state.node(workflow, next) {
        let template = parsed.template(&row.template);
        let asks = template.is_some_and(|template| template.synchronization.is_some());
        if asks && phase_of(row).is_fulfilled() {
            return true;
        }
        if row.parent == 0 {
            return false;
        }
        next = row.parent;
    }
    false
}
