//! What changed between two states: for checkers and tests. Costs about as much as there are changes.

use argosy_model::Fence;
use argosy_proto::state as row;
use imbl::ordmap::DiffItem;

use crate::State;

/// Rows that differ between an earlier state and a later one; `None` for what is gone in the later one.
#[derive(Debug, Default)]
pub struct Difference<'a> {
    /// Nodes by workflow and number.
    pub nodes: Vec<((u64, u32), Option<&'a row::Node>)>,
    /// Attempts by fence.
    pub attempts: Vec<(Fence, Option<&'a row::Attempt>)>,
}

impl State {
    /// What changed since an earlier state.
    #[must_use]
    pub fn difference<'a>(&'a self, earlier: &'a State) -> Difference<'a> {
        let nodes = earlier.nodes.diff(&self.nodes).map(|item| match item {
            DiffItem::Add(key, row) | DiffItem::Update { new: (key, row), .. } => (*key, Some(row.as_ref())),
            DiffItem::Remove(key, _) => (*key, None),
        });
        let attempts = earlier.attempts.diff(&self.attempts).map(|item| match item {
            DiffItem::Add(fence, row) | DiffItem::Update { new: (fence, row), .. } => {
                (*fence, Some(row.as_ref()))
            }
            DiffItem::Remove(fence, _) => (*fence, None),
        });
        Difference { nodes: nodes.collect(), attempts: attempts.collect() }
    }

    /// Clusters that were invited and have not enrolled: names, each once, whose invites can still be used.
    #[must_use]
    pub fn clusters_invited(&self) -> std::collections::BTreeSet<&str> {
        let now = self.log_time().0;
        let open =
            self.invites.values().filter(|invite| invite.used_by.is_empty() && invite.expires_at_ms > now);
        open.map(|invite| invite.cluster.as_str()).filter(|name| self.cluster(name).is_none()).collect()
    }

    /// All attempts that state still knows, by fence.
    pub fn attempts(&self) -> impl Iterator<Item = (&Fence, &row::Attempt)> {
        self.attempts.iter().map(|(fence, row)| (fence, row.as_ref()))
    }
}
