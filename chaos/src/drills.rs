//! Drills in the simulation: somebody loses clusters on purpose while everything else goes wrong as well. A drill has to end
//! by itself whatever happens, and what it counts has to obey the invariants.

use argosy_engine::State;
use argosy_proto::command::{BeginDrill, command::Body};
use argosy_proto::state::{Drill, DrillMode};

use crate::random::Random;
use crate::users::Wish;

/// Between two acts, at most.
pub const PAUSE_MAX_MS: u64 = 20_000;
/// How long a drill is watched after its loss, at most: the clusters of some runs never come back.
pub const SETTLE_MAX_MS: i64 = 60_000;
/// Longest loss.
const LOSS_MAX_MS: u64 = 45_000;

/// What is lost, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The cluster.
    pub cluster: String,
    /// How.
    pub mode: DrillMode,
    /// For how long.
    pub for_ms: u64,
}

/// What somebody who drills does in a run.
#[must_use]
pub fn script(random: &mut Random, clusters: &[String], active_ms: u64) -> Vec<Wish> {
    let mut script = Vec::new();
    for number in 0..active_ms / PAUSE_MAX_MS {
        let Some(cluster) = random.pick(clusters).cloned() else { return script };
        let mode = match random.below(3) {
            0 => DrillMode::Block,
            1 => DrillMode::KillAgent,
            _ => DrillMode::KillPods,
        };
        script.push(Wish::Drill(Plan { cluster, mode, for_ms: random.between(1_000, LOSS_MAX_MS) }, number));
        if random.per_mille(250) {
            script.push(Wish::AbortDrill(number));
        }
    }
    script
}

/// The command of a plan.
#[must_use]
pub fn command(plan: &Plan) -> Body {
    Body::BeginDrill(BeginDrill {
        cluster: plan.cluster.clone(),
        mode: plan.mode.into(),
        for_ms: plan.for_ms,
        actor: "driller".to_owned(),
        ..BeginDrill::default()
    })
}

/// What is wrong with a report.
fn report_problem(id: u64, drill: &Drill) -> Option<String> {
    let report = drill.report.as_ref()?;
    if drill.committed_twice > 0 {
        return Some(format!(
            "drill {id} counted {} results that were committed twice",
            drill.committed_twice
        ));
    }
    if report.lost > 0 {
        return Some(format!("drill {id} counted {} lost steps: {:?}", report.lost, report.steps));
    }
    let most = drill.fenced + drill.broken;
    (drill.recovered > most || drill.moved > most)
        .then(|| format!("drill {id} moved more than it lost: {drill:?}"))
}

/// Drills whose reports were closed since an earlier state, against the invariants.
///
/// # Errors
/// What is wrong.
pub fn check_reports(before: &State, after: &State) -> Result<(), String> {
    let closed = |state: &State, id: u64| state.drill(id).is_some_and(|drill| drill.report.is_some());
    let fresh = after.drills().filter(|(id, _)| closed(after, *id) && !closed(before, *id));
    fresh.filter_map(|(id, drill)| report_problem(id, drill)).next().map_or(Ok(()), Err)
}

/// A drill is over in time, whatever became of leaders.
///
/// # Errors
/// It is not.
pub fn check_time(state: &State, grace_ms: i64) -> Result<(), String> {
    let now_ms = state.log_time().0;
    let Some((id, drill)) = state.drill_under_way() else { return Ok(()) };
    if drill.loss_ended_at_ms == 0 && now_ms > drill.ends_at_ms.saturating_add(grace_ms) {
        return Err(format!(
            "the loss of drill {id} goes on at {now_ms}, it was to end at {}",
            drill.ends_at_ms
        ));
    }
    if now_ms > drill.settle_at_ms.saturating_add(grace_ms) {
        return Err(format!("drill {id} has no report at {now_ms}, it was due at {}", drill.settle_at_ms));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use argosy_proto::state::DrillReport;

    #[test]
    fn a_driller_does_everything() {
        let mut random = Random::new(7);
        let script = script(&mut random, &["a".to_owned(), "b".to_owned()], 2_000_000);
        for mode in [DrillMode::Block, DrillMode::KillAgent, DrillMode::KillPods] {
            assert!(script.iter().any(|wish| matches!(wish, Wish::Drill(plan, _) if plan.mode == mode)));
        }
        assert!(script.iter().any(|wish| matches!(wish, Wish::AbortDrill(_))));
    }

    #[test]
    fn bad_reports_are_seen() {
        let good = Drill {
            fenced: 2,
            recovered: 2,
            moved: 2,
            report: Some(DrillReport::default()),
            ..Drill::default()
        };
        assert_eq!(report_problem(1, &good), None);
        let twice = Drill { committed_twice: 1, ..good.clone() };
        let lost = Drill { report: Some(DrillReport { lost: 1, ..DrillReport::default() }), ..good.clone() };
        let many = Drill { recovered: 3, ..good };
        assert!([twice, lost, many].iter().all(|drill| report_problem(1, drill).is_some()));
    }
}
