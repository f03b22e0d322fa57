use argosy_proto::command::{BackfillAccepted, BackfillCron, Refusal, Reply, reply};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use std::collections::BTreeSet;

use crate::commands::create_cron;
use crate::draft::Draft;
use crate::{Code, Leader, cron};

/// A workflow for every time of the schedules in a span. The times are counted here, so that one that is too long is
/// refused as a whole; the same backfill again is the same answer, and what was made is not made again.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &BackfillCron,
) -> Result<Reply, Refusal> {
    let id = create_cron::find(draft, &command.namespace, &command.cron)?;
    let refuse = |message: String| Code::BackfillRefused.refuse(message);
    let parsed = leader.cron(&draft.state, id).filter(|parsed| parsed.schedules.is_some());
    let parsed =
        parsed.ok_or_else(|| refuse("the cron workflow is not valid: correct it first".to_owned()))?;
    if command.name.is_empty() {
        return Err(refuse("a backfill needs a name: repeating it under the same name is safe".to_owned()));
    }
    let limit = command.workflows_max.clamp(1, leader.limits.backfill_workflows_max);
    let times = times(&parsed, command, limit).ok_or_else(|| {
        refuse(format!("the period holds more than {limit} times of the schedules: make it shorter"))
    })?;
    draft.spend(u32::try_from(times.len() / 16).unwrap_or(u32::MAX));
    let known = draft.state.crons.get(&id).map(|row| row.backfills.clone()).unwrap_or_default();
    let same = known.iter().find(|backfill| backfill.name == command.name);
    if same.is_none() && known.len() >= leader.limits.backfills_max {
        return Err(refuse(format!(
            "{} backfills of it are under way, which is the limit: wait for one to end",
            known.len()
        )));
    }
    if same.is_none() && !times.is_empty() {
        let backfill = row::Backfill {
            name: command.name.clone(),
            cursor_ms: command.start_ms,
            end_ms: command.end_ms,
            argument: command.argument.clone(),
            parallel: command.parallel,
            left: u32::try_from(times.len()).unwrap_or(limit),
            running: 0,
        };
        draft.emit(Body::BackfillSet(fact::BackfillSet { cron: id, backfill: Some(backfill) }));
        cron::wake(draft, id);
    }
    let times_ms = times.into_iter().map(|second| second.saturating_mul(1000)).collect();
    let prefix = cron::backfill_prefix(&command.cron, &command.name);
    Ok(Reply { body: Some(reply::Body::BackfillAccepted(BackfillAccepted { times_ms, prefix })) })
}

/// The times of the schedules after the start, to the end; `None` when there are more than allowed.
fn times(parsed: &cron::Parsed, command: &BackfillCron, limit: u32) -> Option<BTreeSet<i64>> {
    let mut found = BTreeSet::new();
    let (start, end) = (command.start_ms.div_euclid(1000), command.end_ms.div_euclid(1000));
    for schedule in parsed.schedules.iter().flatten() {
        let mut at = start;
        while let Some(next) = schedule.next(start, at).filter(|next| *next <= end) {
            found.insert(next);
            if found.len() > usize::try_from(limit).unwrap_or(usize::MAX) {
                return None;
            }
            at = next;
        }
    }
    Some(found)
}
