//! What an operator does to clusters while work goes on, and how it is put right in the end.

use std::collections::BTreeMap;

use argosy_proto::command::{ChangeCluster, DrainCluster, RemoveCluster, command::Body};

use crate::random::Random;
use crate::users::Wish;

/// Between two acts, at most.
const PAUSE_MAX_MS: u64 = 12_000;
/// Longest deadline of a drain.
const DEADLINE_MAX_MS: u64 = 20_000;

/// Orders of an operator that mostly removes clusters, in a hundred.
const FORGETS_PER_CENT: u64 = 80;

/// What is asked of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing new there, or again.
    Cordon(bool),
    /// Out of it, by then; 0: in its own time.
    Drain(u64),
    /// Registered no more.
    Remove {
        /// Whatever it holds.
        forget: bool,
    },
}

/// How a cluster stands by what was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It is cordoned.
    pub cordoned: bool,
    /// It is removed.
    pub removed: bool,
}

impl Standing {
    /// After an order that was carried out.
    #[must_use]
    pub fn after(self, order: Order) -> Self {
        match order {
            Order::Cordon(cordoned) => Self { cordoned, ..self },
            Order::Drain(_) => Self { cordoned: true, ..self },
            Order::Remove { .. } => Self { removed: true, cordoned: false },
        }
    }
}

/// An operator of clusters: one thing at a time, and no outcome is left open.
#[derive(Debug)]
pub struct Operator {
    random: Random,
    clusters: BTreeMap<String, Standing>,
    next: u64,
    /// Removes clusters rather than anything else.
    forgets: bool,
}

impl Operator {
    /// For these clusters.
    #[must_use]
    pub fn new(random: Random, clusters: impl IntoIterator<Item = String>) -> Self {
        let clusters = clusters.into_iter().map(|name| (name, Standing::default())).collect();
        Self { random, clusters, next: 0, forgets: false }
    }

    /// One that mostly removes clusters, whatever they hold.
    #[must_use]
    pub fn forgetting(self, forgets: bool) -> Self {
        Self { forgets, ..self }
    }

    /// How long until the next act.
    pub fn pause_ms(&mut self) -> u64 {
        self.random.between(500, PAUSE_MAX_MS)
    }

    /// All clusters are registered, and open to work.
    #[must_use]
    pub fn is_content(&self) -> bool {
        self.clusters.values().all(|standing| *standing == Standing::default())
    }

    /// It turns out to stand so.
    pub fn finds(&mut self, cluster: &str, standing: Standing) {
        if let Some(known) = self.clusters.get_mut(cluster) {
            *known = standing;
        }
    }

    /// How a cluster stands.
    #[must_use]
    pub fn standing(&self, cluster: &str) -> Standing {
        self.clusters.get(cluster).copied().unwrap_or_default()
    }

    /// What to do next; a cluster that was removed is invited and enrolled again. At the end only what puts things right.
    pub fn wishes(&mut self, at_the_end: bool) -> Vec<Wish> {
        self.next += 1;
        let number = self.next;
        let names: Vec<String> = self.clusters.keys().cloned().collect();
        let wrong = || {
            let not_well = |name: &&String| self.standing(name) != Standing::default();
            names.iter().find(not_well).cloned()
        };
        let Some(name) = (if at_the_end { wrong() } else { self.random.pick(&names).cloned() }) else {
            return Vec::new();
        };
        let standing = self.standing(&name);
        if standing.removed {
            return vec![Wish::Invite(name.clone(), number), Wish::Redeem(name, number)];
        }
        let order = match self.random.below(100) {
            _ if at_the_end => Order::Cordon(false),
            drawn if self.forgets && drawn < FORGETS_PER_CENT => Order::Remove { forget: true },
            0..=29 if standing.cordoned => Order::Cordon(false),
            0..=29 => Order::Cordon(true),
            30..=44 => Order::Cordon(false),
            45..=74 => Order::Drain(self.random.between(0, 2) * self.random.between(1, DEADLINE_MAX_MS / 2)),
            75..=86 => Order::Remove { forget: false },
            _ => Order::Remove { forget: true },
        };
        vec![Wish::Order(name, order, number)]
    }

    /// A wish was fulfilled.
    pub fn done(&mut self, wish: &Wish) {
        let (name, standing) = match wish {
            Wish::Order(name, order, _) => (name, self.standing(name).after(*order)),
            Wish::Redeem(name, _) => (name, Standing::default()),
            Wish::Submit(_)
            | Wish::Stop(_)
            | Wish::Delete(_)
            | Wish::Read
            | Wish::Invite(..)
            | Wish::Drill(..)
            | Wish::AbortDrill(_)
            | Wish::AddMember(_)
            | Wish::Release(_)
            | Wish::Schedule(..) => return,
        };
        self.clusters.insert(name.clone(), standing);
    }
}

/// The command of an order.
#[must_use]
pub fn command(cluster: String, order: Order, actor: String) -> Body {
    match order {
        Order::Cordon(cordon) => Body::ChangeCluster(ChangeCluster {
            cluster,
            cordon: Some(cordon),
            actor,
            ..ChangeCluster::default()
        }),
        Order::Drain(deadline_in_ms) => Body::DrainCluster(DrainCluster { cluster, deadline_in_ms, actor }),
        Order::Remove { forget } => Body::RemoveCluster(RemoveCluster { cluster, forget, actor }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_does_everything_and_puts_it_right() {
        let names = || ["a".to_owned(), "b".to_owned()];
        let mut operator = Operator::new(Random::new(3), names());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            for wish in operator.wishes(false) {
                if let Wish::Order(_, order, _) = &wish {
                    let text = format!("{order:?}");
                    seen.insert(text.split(['(', ' ']).next().unwrap_or_default().to_owned());
                }
                operator.done(&wish);
            }
        }
        assert!(!operator.is_content());
        while !operator.is_content() {
            operator.wishes(true).iter().for_each(|wish| operator.done(wish));
        }
        assert!(operator.wishes(true).is_empty());
        assert_eq!(seen.len(), 3);
    }
}
