use super::Check;

/// Invariant 4: while every cluster is well and in reach, the loss of members, of whatever number and for whatever time,
/// takes nothing over and fails nothing.
#[derive(Debug, Default)]
pub struct Outage {
    /// Only members are touched in this run; else nothing is judged.
    pub members_only: bool,
    outages: u64,
    judged: u64,
}

impl Outage {
    /// Judgements after an outage.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        if self.outages > 0 { self.judged } else { 0 }
    }

    /// No quorum of members is up.
    pub fn began(&mut self) {
        self.outages += u64::from(self.members_only);
    }

    /// An attempt's fence was voided by a take-over.
    ///
    /// # Errors
    /// Its cluster was never out of order.
    pub fn taken_over(&mut self, fence: &str, cluster: &str) -> Check {
        if self.members_only {
            return Err(format!(
                "attempt {fence} was taken over from cluster {cluster}, which was well all the time"
            ));
        }
        Ok(())
    }

    /// A workflow that nobody stopped has ended.
    ///
    /// # Errors
    /// Not as its steps say.
    pub fn ended(&mut self, workflow: &str, expected_success: bool, phase: &str, message: &str) -> Check {
        if !self.members_only {
            return Ok(());
        }
        self.judged += 1;
        if expected_success != (phase == "Succeeded") {
            return Err(format!(
                "workflow {workflow} ended {phase} ({message}); by its steps it {}",
                if expected_success { "succeeds" } else { "fails" }
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_take_over_or_a_failure_with_all_clusters_well_is_seen() {
        let mut outage = Outage { members_only: true, ..Outage::default() };
        outage.began();
        assert!(outage.taken_over("1.2.3", "a").is_err());
        assert!(outage.ended("w", true, "Failed", "lost").is_err());
        assert!(outage.ended("w", false, "Succeeded", "").is_err());
        assert!(outage.ended("w", true, "Succeeded", "").is_ok());
        assert_eq!(outage.exercised(), 3);
    }

    #[test]
    fn runs_that_touch_clusters_are_not_judged() {
        let mut outage = Outage::default();
        outage.began();
        assert!(outage.taken_over("1.2.3", "a").is_ok());
        assert!(outage.ended("w", true, "Failed", "").is_ok());
        assert_eq!(outage.exercised(), 0);
    }
}
