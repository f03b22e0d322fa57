//! Backfills: a workflow for every time of the schedules between two, made as they can run.
//!
//! A backfill stands in the CronWorkflow's row with a cursor; each of its workflows has a name that follows from the
//! backfill's and its time. So it goes on where it was after a change of leaders, and asking for it again makes nothing
//! twice.

use argosy_model::WorkflowKey;
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;

use crate::cron::{Parsed, STARTS_PER_TICK_MAX, start};
use crate::draft::Draft;
use crate::{Code, Leader};

/// Longest part of a name before its time, so that the whole has Kubernetes' 63.
const PREFIX_LENGTH_MAX: usize = 52;
/// When one that finds the cell full tries again.
const RETRY_MS: i64 = 10_000;

/// What names of its workflows begin with.
pub(crate) fn prefix(cron: &str, name: &str) -> String {
    let full = format!("{cron}-backfill-{}", name.to_lowercase());
    if full.len() <= PREFIX_LENGTH_MAX {
        return full;
    }
    // Two long names must not become one.
    let digest = blake3::hash(full.as_bytes()).to_hex();
    let kept: String = full.chars().take(PREFIX_LENGTH_MAX - 9).collect();
    format!("{}-{}", kept.trim_end_matches(['-', '.']), &digest[..8])
}

/// Makes the workflows that may start now; gives the time when to look again, if it is not the end of a workflow that
/// is waited for.
pub(crate) fn go_on(draft: &mut Draft, leader: &mut Leader, parsed: &Parsed, cron: u64) -> Option<i64> {
    let row = draft.state.crons.get(&cron).cloned()?;
    let mut again: Option<i64> = None;
    for backfill in &row.backfills {
        let due = step(draft, leader, parsed, (cron, &row), backfill.clone());
        again = again.into_iter().chain(due).min();
    }
    again
}

fn step(
    draft: &mut Draft,
    leader: &mut Leader,
    parsed: &Parsed,
    (cron, row): (u64, &row::Cron),
    mut backfill: row::Backfill,
) -> Option<i64> {
    let anchor = row.anchor_ms.div_euclid(1000);
    let before = backfill.clone();
    let mut again = None;
    for _ in 0..STARTS_PER_TICK_MAX {
        let runs = draft
            .state
            .workflows
            .get(&backfill.running)
            .is_some_and(|row| row.finished_at_ms == 0 && !row.deleted);
        if runs && !backfill.parallel {
            break;
        }
        let cursor = backfill.cursor_ms.div_euclid(1000);
        let due =
            parsed.next(anchor.min(cursor), cursor).filter(|due| due.saturating_mul(1000) <= backfill.end_ms);
        let Some(due) = due.filter(|_| backfill.left > 0) else {
            draft.emit(Body::BackfillDone(fact::BackfillDone { cron, name: backfill.name }));
            return None;
        };
        match make(draft, leader, parsed, (cron, row), &backfill, due) {
            Ok(workflow) => {
                if workflow != 0 {
                    backfill.running = workflow;
                }
                backfill.cursor_ms = due.saturating_mul(1000);
                backfill.left -= 1;
            }
            Err(()) => {
                again = Some(draft.now().plus_ms(RETRY_MS).0);
                break;
            }
        }
    }
    if backfill != before {
        let more = again.is_none() && (backfill.parallel || backfill.running == 0);
        again = if more { Some(draft.now().0) } else { again };
        draft.emit(Body::BackfillSet(fact::BackfillSet { cron, backfill: Some(backfill) }));
    }
    again
}

/// The workflow of a time: its number, or 0 when it is there already or can't be made. An error: there is no room yet.
fn make(
    draft: &mut Draft,
    leader: &mut Leader,
    parsed: &Parsed,
    (cron, row): (u64, &row::Cron),
    backfill: &row::Backfill,
    due: i64,
) -> Result<u64, ()> {
    let name = format!("{}-{due}", prefix(&row.name, &backfill.name));
    let key = WorkflowKey { namespace: row.namespace.clone(), name: name.clone() };
    if draft.state.workflow_id(&key).is_some() {
        return Ok(0);
    }
    let due_ms = due.saturating_mul(1000);
    // As Go writes a time.
    let text = crate::view::time_text(due_ms).replace('T', " ").replace('Z', " +0000 UTC");
    let argument = (!backfill.argument.is_empty()).then_some((backfill.argument.as_str(), text));
    let submit = start::workflow(parsed, row, name, due_ms, &start::Extra { argument });
    match start::accept(draft, leader, &submit, cron, true) {
        Ok(workflow) => Ok(workflow),
        Err(refusal) if refusal.code == Code::TooManyWorkflows.as_str() => Err(()),
        Err(refusal) => {
            let mut status = start::status(draft, cron);
            status.written = true;
            status.submission_error = format!("Failed to submit Workflow: {}", refusal.message);
            start::set_status(draft, cron, status);
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_short_and_their_own() {
        assert_eq!(prefix("nightly", "June"), "nightly-backfill-june");
        let (one, other) = (prefix(&"c".repeat(50), "one"), prefix(&"c".repeat(50), "other"));
        assert!(one.len() <= 52 && other.len() <= 52, "{one} {other}");
        assert_ne!(one, other);
    }
}
