use std::collections::BTreeMap;

use super::Check;

/// Invariant 5: equal log index, equal state hash; over restarts and snapshots too.
#[derive(Debug, Default)]
pub struct Agreement {
    hashes: BTreeMap<u64, (u64, [u8; 32])>,
    compared: u64,
}

impl Agreement {
    /// Comparisons made.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        self.compared
    }

    /// Another history begins, in another log.
    pub fn restored(&mut self) {
        self.hashes.clear();
    }

    /// A member has applied the log up to this index and has this state.
    ///
    /// # Errors
    /// Another member, or the same one before a restart, had another state at the index.
    pub fn applied(&mut self, member: u64, index: u64, hash: [u8; 32]) -> Check {
        let (first, known) = *self.hashes.entry(index).or_insert((member, hash));
        if known != hash {
            return Err(format!("members {first} and {member} differ at log index {index}"));
        }
        self.compared += u64::from(first != member);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diverged_member_is_seen() {
        let mut agreement = Agreement::default();
        assert!(agreement.applied(1, 7, [1; 32]).is_ok());
        assert_eq!(agreement.exercised(), 0);
        assert!(agreement.applied(2, 7, [1; 32]).is_ok());
        assert_eq!(agreement.exercised(), 1);
        assert!(agreement.applied(3, 7, [2; 32]).is_err());
    }

    #[test]
    fn a_member_that_comes_back_with_another_past_is_seen() {
        let mut agreement = Agreement::default();
        assert!(agreement.applied(1, 7, [1; 32]).is_ok());
        assert!(agreement.applied(1, 7, [2; 32]).is_err());
    }
}
