//! What changed between two states: for checkers and tests. Costs a look at every row.

use argosy_model::Fence;
use argosy_proto::state as row;
use imbl::OrdMap;
use std::sync::Arc;

use crate::State;
use crate::identity;

/// Rows that differ between an earlier state and a later one; `None` for what is gone in the later one.
#[derive(Debug, Default)]
pub struct Difference<'a> {
    /// Nodes by workflow and number.
    pub nodes: Vec<((u64, u32), Option<&'a row::Node>)>,
    /// Attempts by fence.
    pub attempts: Vec<(Fence, Option<&'a row::Attempt>)>,
}

/// Entries that are not the same value in both maps, by comparing every key: the persistent map's own difference was
/// seen to leave out changed entries.
fn changed<'a, K: Ord + Copy, V>(
    earlier: &'a OrdMap<K, Arc<V>>,
    later: &'a OrdMap<K, Arc<V>>,
) -> Vec<(K, Option<&'a V>)> {
    let same = |key: &K, row: &Arc<V>| earlier.get(key).is_some_and(|old| Arc::ptr_eq(old, row));
    let kept = later.iter().filter(|(key, row)| !same(key, row)).map(|(key, row)| (*key, Some(row.as_ref())));
    let gone = earlier.keys().filter(|key| !later.contains_key(*key)).map(|key| (*key, None));
    kept.chain(gone).collect()
}

impl State {
    /// What is left on a cluster that is drained: attempts that have not started, those that run, and for at most `names_max`
    /// of those that can't leave before they end, which workflow's node it is and why.
    #[must_use]
    pub fn left_on(
        &self,
        cluster: &str,
        names_max: usize,
    ) -> (usize, usize, Vec<(String, String, &'static str)>) {
        let (mut waiting, mut running, mut stuck) = (0, 0, Vec::new());
        for (_, attempt) in self.open_attempts(cluster).filter(|(_, attempt)| !attempt.fenced) {
            waiting += usize::from(!attempt.permitted);
            running += usize::from(attempt.permitted);
            if stuck.len() < names_max
                && let Some(why) = crate::recall::why_not(self, attempt)
                && let Some(workflow) = self.workflows.get(&attempt.workflow)
                && let Some(node) = self.node(attempt.workflow, attempt.node)
            {
                stuck.push((format!("{}/{}", workflow.namespace, workflow.name), node.name.clone(), why));
            }
        }
        (waiting, running, stuck)
    }

    /// An attempt of a step that has ended well, and runs again for its artifacts alone.
    #[must_use]
    pub fn reproduces(&self, fence: &Fence) -> bool {
        let work = self.attempt(fence).and_then(|attempt| self.works.get(&(attempt.workflow, attempt.node)));
        work.is_some_and(|work| work.reproduces && work.fence.as_ref() == Some(fence))
    }

    /// Clusters that were removed since an earlier state. Costs a look at all that are removed.
    #[must_use]
    pub fn clusters_removed_since(&self, earlier: &Self) -> Vec<String> {
        let removed = self.index.removed.iter().filter(|name| !earlier.index.removed.contains(*name));
        removed.map(|name| name.as_ref().to_owned()).collect()
    }

    /// Attempts of which something may be left on a cluster, whatever is wanted of them.
    pub fn attempts_open_on(&self, cluster: &str) -> impl Iterator<Item = (Fence, &row::Attempt)> + '_ {
        self.open_attempts(cluster).map(|(fence, attempt)| (fence, attempt.as_ref()))
    }

    /// What changed since an earlier state; rows that were written again with the same content may be among it.
    #[must_use]
    pub fn difference<'a>(&'a self, earlier: &'a State) -> Difference<'a> {
        Difference {
            nodes: changed(&earlier.nodes, &self.nodes),
            attempts: changed(&earlier.attempts, &self.attempts),
        }
    }

    /// Clusters that were invited and have not enrolled: names, each once, whose invites can still be used.
    #[must_use]
    pub fn clusters_invited(&self) -> std::collections::BTreeSet<&str> {
        let now = self.log_time().0;
        let open =
            self.invites.values().filter(|invite| invite.used_by.is_empty() && invite.expires_at_ms > now);
        open.map(|invite| invite.cluster.as_str()).filter(|name| self.cluster(name).is_none()).collect()
    }

    /// Why the certificate of that generation may not be used by the cluster's agent; generation 0 asks for any.
    #[must_use]
    pub fn identity_refusal(&self, cluster: &str, generation: u64) -> Option<argosy_proto::command::Refusal> {
        self.cluster(cluster).and_then(|row| identity::refusal(cluster, row, generation))
    }

    /// Which certificates of clusters' agents have ended, for those who keep a record of it outside of state.
    #[must_use]
    pub fn revocations(&self) -> Vec<argosy_proto::command::Revocation> {
        let ended = |(name, row): (&str, &row::Cluster)| identity::revocation(name, row.identity.as_ref()?);
        self.clusters().filter_map(ended).collect()
    }

    /// The cell's certificate authorities, once one was to be replaced.
    #[must_use]
    pub fn authorities(&self) -> Option<&row::Authorities> {
        self.authorities.as_deref()
    }

    /// Who keeps the roll of the certificate authority from its next step: name and why.
    #[must_use]
    pub fn authority_behind(&self) -> Vec<(String, String)> {
        self.authorities.as_ref().map(|row| identity::behind(self, row)).unwrap_or_default()
    }

    /// Members that joined the running cell, leave or have left, by number. Founders have no row until they leave.
    pub fn members(&self) -> impl Iterator<Item = (u64, &row::Member)> {
        self.members.iter().map(|(member, row)| (*member, row))
    }

    /// Whether the number belongs to a member that leaves or has left.
    #[must_use]
    pub fn member_left(&self, member: u64) -> bool {
        self.members.get(&member).is_some_and(|row| row.leaving)
    }

    /// All CronWorkflows that are not deleted, by number.
    pub fn crons(&self) -> impl Iterator<Item = (u64, &row::Cron)> {
        self.crons.iter().filter(|(_, row)| !row.deleted).map(|(id, row)| (*id, row.as_ref()))
    }

    /// All attempts that state still knows, by fence.
    pub fn attempts(&self) -> impl Iterator<Item = (&Fence, &row::Attempt)> {
        self.attempts.iter().map(|(fence, row)| (fence, row.as_ref()))
    }
}
