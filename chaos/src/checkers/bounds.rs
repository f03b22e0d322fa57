use argosy_proto::common::Resources;

use super::Check;

/// What a cluster has and what placed attempts take of it, as committed state says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterUse {
    /// Its name.
    pub cluster: String,
    /// What it has.
    pub allocatable: Resources,
    /// State's own sum.
    pub used: Resources,
    /// The sum over its open attempts, counted anew.
    pub counted: Resources,
    /// Its open attempts.
    pub attempts: usize,
}

/// Invariant 7: no cluster is given more than it has, state's sums are right, queues stay within their maxima.
#[derive(Debug, Default)]
pub struct Bounds {
    judged: u64,
}

impl Bounds {
    /// Judgements made.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        self.judged
    }

    /// A cluster in a newly committed state. `may_exceed`: its capacity shrank while attempts were placed.
    ///
    /// # Errors
    /// It is overcommitted, or the sum is wrong.
    pub fn cluster(&mut self, seen: &ClusterUse, attempts_max: usize) -> Check {
        let ClusterUse { cluster, allocatable, used, counted, attempts } = seen;
        self.judged += 1;
        let amounts = |of: &Resources| [of.cpu_milli, of.memory_bytes, of.pods];
        if amounts(used) != amounts(counted) {
            return Err(format!(
                "cluster {cluster}: state says {used:?} is in use, its attempts add up to {counted:?}"
            ));
        }
        if amounts(used).into_iter().zip(amounts(allocatable)).any(|(used, has)| used > has) {
            return Err(format!("cluster {cluster} has {allocatable:?} and was given {used:?}"));
        }
        if *attempts > attempts_max {
            return Err(format!(
                "cluster {cluster} holds {attempts} attempts, at most {attempts_max} are allowed"
            ));
        }
        Ok(())
    }

    /// A mutex or semaphore in a newly committed state: how many hold it, and how many may.
    ///
    /// # Errors
    /// More hold it than may.
    pub fn lock(&mut self, name: &str, held: u32, limit: u32) -> Check {
        self.judged += 1;
        if held > limit {
            return Err(format!("{name} is held by {held}, at most {limit} may hold it"));
        }
        Ok(())
    }

    /// The length of a bounded queue.
    ///
    /// # Errors
    /// It is longer than its maximum.
    pub fn queue(&mut self, name: &str, length: usize, length_max: usize) -> Check {
        self.judged += 1;
        if length > length_max {
            return Err(format!("{name} holds {length}, at most {length_max} are allowed"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(pods: i64) -> Resources {
        Resources { pods, ..Resources::default() }
    }

    #[test]
    fn a_lock_with_too_many_holders_is_seen() {
        let mut bounds = Bounds::default();
        assert!(bounds.lock("argo/Mutex/m", 1, 1).is_ok());
        assert!(bounds.lock("argo/Mutex/m", 2, 1).is_err());
        assert!(bounds.lock("argo/Database/s", 1, 0).is_err());
    }

    #[test]
    fn overcommitment_a_wrong_sum_and_a_long_queue_are_seen() {
        let mut bounds = Bounds::default();
        let good =
            ClusterUse { allocatable: pods(2), used: pods(2), counted: pods(2), ..ClusterUse::default() };
        assert!(bounds.cluster(&good, 10).is_ok());
        assert!(bounds.cluster(&ClusterUse { used: pods(3), counted: pods(3), ..good.clone() }, 10).is_err());
        assert!(bounds.cluster(&ClusterUse { counted: pods(1), ..good.clone() }, 10).is_err());
        assert!(bounds.cluster(&ClusterUse { attempts: 11, ..good }, 10).is_err());
        assert!(bounds.queue("commands", 3, 3).is_ok());
        assert!(bounds.queue("commands", 4, 3).is_err());
        assert_eq!(bounds.exercised(), 6);
    }
}
