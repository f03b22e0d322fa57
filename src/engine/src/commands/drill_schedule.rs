//! Schedules of drills: the times are Argo's cron, the drills begin as an operator's would.

use argosy_proto::command::{BeginDrill, CreateDrillSchedule, DeleteDrillSchedule, Refusal, Reply};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::{self as row, TimerKind};
use argosy_spec::Schedule;

use crate::commands::{done, find_cluster};
use crate::draft::Draft;
use crate::state::{ROW_VERSION, State};
use crate::{Code, Leader, drill};

/// Bytes of a name, as of a label's value.
const NAME_BYTES_MAX: usize = 63;

fn read(cron: &str, timezone: &str) -> Result<Schedule, String> {
    let zoned = if timezone.is_empty() { cron.to_owned() } else { format!("CRON_TZ={timezone} {cron}") };
    Schedule::parse(&zoned)
}

pub(crate) fn create(
    draft: &mut Draft,
    leader: &Leader,
    command: &CreateDrillSchedule,
) -> Result<Reply, Refusal> {
    let name = &command.name;
    let bad = |message: String| Code::InvalidArgument.refuse(message);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(bad(format!(
            "the name of a schedule has 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -, not {name:?}"
        )));
    }
    if draft.state.drill_schedules.contains_key(name) {
        return Err(Code::DrillScheduleExists.refuse(format!("drill schedule {name:?} already exists")));
    }
    if draft.state.drill_schedules.len() >= leader.limits.drill_schedules_max {
        let max = leader.limits.drill_schedules_max;
        return Err(Code::TooManyDrillSchedules
            .refuse(format!("the cell has its {max} drill schedules: delete some")));
    }
    let wanted = command.drill.clone().unwrap_or_default();
    let for_ms = drill::check(&wanted, &leader.limits)?;
    find_cluster(&draft.state, &wanted.cluster)?;
    argosy_model::LabelSelector::parse(&wanted.scope)
        .map_err(|error| bad(format!("unable to parse the scope: {error}")))?;
    read(&command.cron, &command.timezone)
        .map_err(|error| bad(format!("cron schedule is malformed: {error}")))?;
    let now_ms = draft.now().0;
    let row = row::DrillSchedule {
        version: ROW_VERSION,
        id: draft.state.meta.workflow_next,
        cron: command.cron.clone(),
        timezone: command.timezone.clone(),
        cluster: wanted.cluster,
        mode: wanted.mode,
        scope: wanted.scope,
        for_ms,
        recover_p99_ms_max: i64::try_from(wanted.recover_p99_ms_max).unwrap_or(i64::MAX),
        actor: wanted.actor,
        created_at_ms: now_ms,
        considered_ms: now_ms,
        ..row::DrillSchedule::default()
    };
    store(draft, name, row);
    Ok(done())
}

pub(crate) fn delete(draft: &mut Draft, command: &DeleteDrillSchedule) -> Result<Reply, Refusal> {
    let name = &command.name;
    if !draft.state.drill_schedules.contains_key(name) {
        return Err(Code::DrillScheduleMissing.refuse(format!("drill schedule {name:?} not found")));
    }
    draft.emit(Body::DrillScheduleDeleted(fact::DrillScheduleDeleted { name: name.clone() }));
    Ok(done())
}

/// When a schedule is due next, in milliseconds.
pub(crate) fn next_ms(row: &row::DrillSchedule) -> Option<i64> {
    let schedule = read(&row.cron, &row.timezone).ok()?;
    let (anchor, after) = (row.created_at_ms.div_euclid(1000), row.considered_ms.div_euclid(1000));
    schedule.next(anchor, after)?.checked_mul(1000)
}

fn store(draft: &mut Draft, name: &str, row: row::DrillSchedule) {
    let (id, due_ms) = (row.id, next_ms(&row));
    draft
        .emit(Body::DrillScheduleStored(fact::DrillScheduleStored { name: name.to_owned(), row: Some(row) }));
    if let Some(due_ms) = due_ms {
        let kind = TimerKind::DrillSchedule.into();
        let timer = row::Timer { version: ROW_VERSION, due_ms, workflow: id, node: 0, kind };
        draft.emit(Body::TimerSet(fact::TimerSet { timer: Some(timer) }));
    }
}

fn by_id(state: &State, id: u64) -> Option<(String, row::DrillSchedule)> {
    let found = state.drill_schedules.iter().find(|(_, row)| row.id == id)?;
    Some((found.0.clone(), found.1.as_ref().clone()))
}

/// The timer of a schedule came: a drill begins, or is refused, and that is noted. A time that has passed by more than the
/// grace of CronWorkflows is left out: a drill that nobody expects any more is no service.
pub(crate) fn tick(draft: &mut Draft, leader: &mut Leader, id: u64) {
    let Some((name, mut row)) = by_id(&draft.state, id) else { return };
    let now_ms = draft.now().0;
    let Some(due_ms) = next_ms(&row).filter(|due_ms| *due_ms <= now_ms) else { return };
    row.last_at_ms = due_ms;
    row.considered_ms = now_ms;
    row.last_drill = 0;
    if now_ms.saturating_sub(due_ms) > leader.limits.cron_grace_ms {
        "the control plane was not there in time".clone_into(&mut row.last_refusal);
    } else {
        let command = BeginDrill {
            cluster: row.cluster.clone(),
            mode: row.mode,
            for_ms: row.for_ms.unsigned_abs(),
            scope: row.scope.clone(),
            recover_p99_ms_max: row.recover_p99_ms_max.unsigned_abs(),
            actor: row.actor.clone(),
        };
        match drill::begin(draft, leader, &command, &name) {
            Ok(drill) => {
                row.last_drill = drill;
                row.last_refusal.clear();
            }
            Err(refusal) => row.last_refusal = refusal.message,
        }
    }
    store(draft, &name, row);
}
