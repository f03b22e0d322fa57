use std::collections::BTreeMap;

use super::Check;

/// A CronWorkflow of one `@every` schedule as a committed state shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronSeen {
    /// Its name.
    pub cron: String,
    /// The schedule's period.
    pub every_ms: i64,
    /// When it came into force, to the second.
    pub anchor_ms: i64,
    /// Times up to this one were dealt with.
    pub considered_ms: i64,
    /// From then on nothing has to start.
    pub until_ms: i64,
}

/// Part of the invariants 1 and 2: each time of a schedule starts at most one workflow, and none is lost while it is
/// dealt with within the grace, whoever leads. The times are computed here, not asked of the engine.
#[derive(Debug, Default)]
pub struct Schedules {
    /// The workflow of each time.
    started: BTreeMap<(String, i64), u64>,
    /// The cursor seen last.
    cursors: BTreeMap<String, i64>,
    judged: u64,
}

impl Schedules {
    /// Times judged.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        self.judged
    }

    /// What was started after a backup is forgotten: these are the cursors of the state in it.
    pub fn restored(&mut self, crons: impl Iterator<Item = CronSeen>) {
        self.started.clear();
        self.cursors = crons.map(|cron| (cron.cron, cron.considered_ms)).collect();
    }

    /// A workflow of the CronWorkflow is there, made for that time.
    ///
    /// # Errors
    /// Another was made for the same time, or it is no time of the schedule.
    pub fn child(&mut self, cron: &CronSeen, due_ms: i64, workflow: u64) -> Check {
        if due_ms <= cron.anchor_ms || (due_ms - cron.anchor_ms) % cron.every_ms != 0 {
            return Err(format!(
                "{} started a workflow for {due_ms}, which is no time of its schedule",
                cron.cron
            ));
        }
        let known = *self.started.entry((cron.cron.clone(), due_ms)).or_insert(workflow);
        if known == workflow {
            return Ok(());
        }
        Err(format!("{} started workflows {known} and {workflow} for the same time {due_ms}", cron.cron))
    }

    /// A state of that log time shows the CronWorkflow; its workflows were told before.
    ///
    /// # Errors
    /// The cursor passed a time within the grace, and no workflow was ever made for it; or the cursor went back.
    pub fn moved(&mut self, log_ms: i64, grace_ms: i64, cron: &CronSeen) -> Check {
        let before = self.cursors.insert(cron.cron.clone(), cron.considered_ms).unwrap_or(cron.anchor_ms);
        if cron.considered_ms < before {
            return Err(format!("{} went back from {before} to {}", cron.cron, cron.considered_ms));
        }
        if log_ms >= cron.until_ms {
            return Ok(());
        }
        let from = before.max(log_ms - grace_ms);
        let first = (from - cron.anchor_ms).div_euclid(cron.every_ms) + 1;
        let mut due_ms = cron.anchor_ms + first.max(1) * cron.every_ms;
        while due_ms <= cron.considered_ms {
            self.judged += 1;
            if !self.started.contains_key(&(cron.cron.clone(), due_ms)) {
                return Err(format!("{} lost its start at {due_ms}, passed at {log_ms}", cron.cron));
            }
            due_ms += cron.every_ms;
        }
        Ok(())
    }

    /// The run is over at that log time.
    ///
    /// # Errors
    /// The schedule stands still.
    pub fn ended(&self, log_ms: i64, cron: &CronSeen) -> Check {
        if cron.considered_ms + 2 * cron.every_ms >= log_ms {
            return Ok(());
        }
        Err(format!("{} stands still at {}, and it is {log_ms}", cron.cron, cron.considered_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: i64 = 30_000;

    fn cron(considered_ms: i64) -> CronSeen {
        CronSeen {
            cron: "c".into(),
            every_ms: 10_000,
            anchor_ms: 100_000,
            considered_ms,
            until_ms: 1_000_000,
        }
    }

    #[test]
    fn a_good_history_is_good() {
        let mut schedules = Schedules::default();
        for round in 1..=5 {
            let due = 100_000 + round * 10_000;
            let seen = cron(due + 3);
            assert_eq!(schedules.child(&seen, due, 7 + round as u64), Ok(()));
            assert_eq!(
                schedules.child(&seen, due, 7 + round as u64),
                Ok(()),
                "the same workflow, seen again"
            );
            assert_eq!(schedules.moved(due + 3, GRACE, &seen), Ok(()));
        }
        assert_eq!(schedules.exercised(), 5);
        assert_eq!(schedules.ended(160_000, &cron(150_003)), Ok(()));
    }

    #[test]
    fn a_time_that_starts_two_workflows_is_seen() {
        let mut schedules = Schedules::default();
        assert!(schedules.child(&cron(110_000), 110_000, 1).is_ok());
        assert!(schedules.child(&cron(110_000), 110_000, 2).is_err());
        assert!(schedules.child(&cron(110_000), 111_000, 3).is_err(), "no time of the schedule");
        assert!(schedules.child(&cron(110_000), 100_000, 4).is_err(), "before the first");
    }

    #[test]
    fn a_start_that_is_lost_is_seen() {
        let mut schedules = Schedules::default();
        assert!(schedules.child(&cron(120_001), 120_000, 1).is_ok());
        assert!(schedules.moved(120_001, GRACE, &cron(120_001)).is_err(), "nothing started at 110_000");
        // After a long outage only what is within the grace has to start.
        let mut schedules = Schedules::default();
        assert!(schedules.child(&cron(200_000), 180_000, 1).is_ok());
        assert!(schedules.child(&cron(200_000), 190_000, 2).is_ok());
        assert!(schedules.child(&cron(200_000), 200_000, 3).is_ok());
        assert!(schedules.moved(200_000, GRACE, &cron(200_000)).is_ok());
        assert!(schedules.moved(199_000, GRACE, &cron(190_000)).is_err(), "it went back");
    }

    #[test]
    fn a_schedule_that_stands_still_is_seen() {
        assert!(Schedules::default().ended(200_000, &cron(110_000)).is_err());
    }
}
