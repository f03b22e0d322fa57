use super::Check;

/// Invariant 6: after the faults, every workflow ends and no attempt is left in any runtime.
#[derive(Debug, Default)]
pub struct Ending {
    judged: u64,
}

impl Ending {
    /// Workflows and runtimes judged.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        self.judged
    }

    /// A workflow at the end of the quiet time.
    ///
    /// # Errors
    /// It is not over.
    pub fn workflow(&mut self, workflow: &str, completed: bool, describe: impl FnOnce() -> String) -> Check {
        self.judged += 1;
        if completed { Ok(()) } else { Err(format!("workflow {workflow} has not ended: {}", describe())) }
    }

    /// What a cluster still holds at the end of the quiet time.
    ///
    /// # Errors
    /// Anything is left.
    pub fn cluster(&mut self, cluster: &str, left: &[String]) -> Check {
        self.judged += 1;
        if left.is_empty() {
            return Ok(());
        }
        Err(format!(
            "cluster {cluster} still holds {} attempts nobody wants: {}",
            left.len(),
            left.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_that_hangs_and_a_forgotten_pod_are_seen() {
        let mut ending = Ending::default();
        assert!(ending.workflow("w", true, String::new).is_ok());
        assert!(ending.workflow("w", false, || "waits".to_owned()).is_err());
        assert!(ending.cluster("a", &[]).is_ok());
        assert!(ending.cluster("a", &["1.2.3".to_owned()]).is_err());
        assert_eq!(ending.exercised(), 4);
    }
}
