use std::collections::BTreeMap;

use super::Check;

/// What elections rest on: the term that a member has written down never goes back, and in a term it votes for one member,
/// over restarts and snapshots too.
#[derive(Debug, Default)]
pub struct Votes {
    kept: BTreeMap<u64, (u64, Option<u64>)>,
    judged: u64,
}

impl Votes {
    /// Changes of a term or vote judged.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        self.judged
    }

    /// All members begin anew, in another history.
    pub fn restored(&mut self) {
        self.kept.clear();
    }

    /// A member has this term and vote in its store.
    ///
    /// # Errors
    /// It had a later term, or another vote in this one.
    pub fn kept(&mut self, member: u64, term: u64, vote: Option<u64>) -> Check {
        let Some((before, voted)) = self.kept.insert(member, (term, vote)) else { return Ok(()) };
        self.judged += u64::from((before, voted) != (term, vote));
        if term < before {
            return Err(format!(
                "member {member} was in term {before} and has written down that it is in term {term}"
            ));
        }
        match voted {
            Some(voted) if term == before && vote != Some(voted) => {
                let now = vote.map_or("nobody".to_owned(), |vote| format!("member {vote}"));
                Err(format!("member {member} has voted for member {voted} in term {term} and now for {now}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_that_go_back_and_second_votes_are_seen() {
        let mut votes = Votes::default();
        assert!(votes.kept(1, 3, None).is_ok());
        assert!(votes.kept(1, 3, Some(2)).is_ok());
        assert!(votes.kept(1, 3, Some(2)).is_ok());
        assert!(votes.kept(1, 3, Some(3)).is_err());
        assert!(votes.kept(2, 3, Some(3)).is_ok());
        assert!(votes.kept(2, 3, None).is_err(), "a forgotten vote can be given again");
        assert!(votes.kept(2, 4, Some(1)).is_ok());
        assert!(votes.kept(2, 3, None).is_err());
        assert_eq!(votes.exercised(), 5);
    }
}
