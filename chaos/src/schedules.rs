//! CronWorkflows in the simulated federation: what the operator stores, and what the checker is told of it.

use argosy_engine::State;
use argosy_model::Limits;
use argosy_proto::command::{CreateCron, command::Body};
use serde_json::json;

use crate::checkers::{CronSeen, Invariant};
use crate::clocks::WALL_START_MS;
use crate::random::Random;
use crate::users::NAMESPACE;
use crate::world::World;

/// The label that tells the checker the period.
const EVERY: &str = "every-seconds";
/// The label that tells it when starts end.
const UNTIL: &str = "until-ms";

/// A CronWorkflow that starts short workflows every few seconds until then.
pub(crate) fn create(random: &mut Random, name: &str, active_ms: u64) -> Body {
    let every = random.between(4, 12);
    let until = WALL_START_MS + i64::try_from(active_ms).unwrap_or(i64::MAX);
    let object = json!({
        "kind": "CronWorkflow",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": { EVERY: every.to_string(), UNTIL: until.to_string() },
        },
        "spec": {
            "schedules": [format!("@every {every}s")],
            "successfulJobsHistoryLimit": random.between(0, 2),
            "when": format!("{{{{= now().UnixMilli() < {until} }}}}"),
            "workflowSpec": {
                "entrypoint": "main",
                "templates": [{
                    "name": "main",
                    "container": {
                        "image": "simulated",
                        "command": ["simulate"],
                        "args": [format!("duration-ms={}", random.between(0, 6_000)), "exit-code=0"],
                        "resources": { "requests": { "cpu": "50m" } },
                    },
                    "retryStrategy": { "limit": "3" },
                }],
            },
        },
    });
    Body::CreateCron(CreateCron {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        manifest_json: object.to_string(),
        creator: "operator".to_owned(),
    })
}

/// What a state says of its CronWorkflows, by number.
pub(crate) fn seen(state: &State) -> Vec<(u64, CronSeen)> {
    let of = |(id, row): (u64, &argosy_proto::state::Cron)| {
        let object: serde_json::Value = serde_json::from_str(&row.json).ok()?;
        let label = |name: &str| object["metadata"]["labels"][name].as_str()?.parse::<i64>().ok();
        let seen = CronSeen {
            cron: row.name.clone(),
            every_ms: label(EVERY)? * 1_000,
            anchor_ms: row.anchor_ms.div_euclid(1_000) * 1_000,
            considered_ms: row.considered_ms,
            until_ms: label(UNTIL)?,
        };
        Some((id, seen))
    };
    state.crons().filter_map(of).collect()
}

impl World {
    /// Feeds the checker of schedules with a newly committed state.
    pub(crate) fn inspect_schedules(&mut self, after: &State) {
        let grace_ms = Limits::default().cron_grace_ms;
        for (id, cron) in seen(after) {
            let children: Vec<(i64, u64)> = after
                .workflows_in(NAMESPACE)
                .filter(|(_, row)| row.cron == id)
                .filter_map(|(workflow, row)| {
                    let due: i64 = row.name.rsplit('-').next()?.parse().ok()?;
                    Some((due * 1_000, workflow.0))
                })
                .collect();
            for (due_ms, workflow) in children {
                let check = self.checkers.schedules.child(&cron, due_ms, workflow);
                self.judge(Invariant::OneResult, check);
            }
            let check = self.checkers.schedules.moved(after.log_time().0, grace_ms, &cron);
            self.judge(Invariant::Durable, check);
        }
    }

    /// The last judgement on schedules.
    pub(crate) fn conclude_schedules(&mut self) {
        let log_ms = self.latest.log_time().0;
        for (_, cron) in seen(&self.latest) {
            let check = self.checkers.schedules.ended(log_ms, &cron);
            self.judge(Invariant::Ending, check);
        }
    }
}
