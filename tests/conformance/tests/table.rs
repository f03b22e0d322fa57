//! The outcomes by area, and the deviations that the documentation lists.

use crate::Outcome;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const DIFFERENCES: &str = include_str!("../../../docs/argo-differences.md");
#[derive(Default)]
struct Row {
    same: usize,
    deviates: usize,
    different: usize,
    /// Not supported yet, by owner.
    later: BTreeMap<String, usize>,
}

pub struct Table {
    owners: Value,
    listed: BTreeSet<&'static str>,
    rows: BTreeMap<String, Row>,
    reasons: BTreeMap<String, usize>,
    differences: Vec<(String, bool, Vec<String>)>,
}

impl Table {
    pub fn new(home: &Path) -> Self {
        let owners = std::fs::read_to_string(home.join("manifest.json")).unwrap();
        Self {
            owners: serde_json::from_str(&owners).unwrap(),
            listed: DIFFERENCES.split('`').filter(|word| is_case(word)).collect(),
            rows: BTreeMap::new(),
            reasons: BTreeMap::new(),
            differences: Vec::new(),
        }
    }

    pub fn add(&mut self, case: &str, outcome: Outcome) {
        let area = case.split('/').next().unwrap().to_owned();
        let row = self.rows.entry(area).or_default();
        let listed = self.listed.contains(case);
        match outcome {
            Outcome::Same => row.same += 1,
            Outcome::Unsupported(reason) if listed => {
                row.deviates += 1;
                self.differences.push((case.to_owned(), true, vec![reason]));
            }
            Outcome::Unsupported(reason) => {
                let owner = self.owners[case]["owner"].as_str().unwrap_or("language").to_owned();
                *row.later.entry(owner).or_default() += 1;
                *self.reasons.entry(reason).or_default() += 1;
            }
            Outcome::Different(differences) => {
                if listed {
                    row.deviates += 1;
                } else {
                    row.different += 1;
                }
                self.differences.push((case.to_owned(), listed, differences));
            }
        }
    }

    pub fn unexpected(&self) -> usize {
        self.rows.values().map(|row| row.different).sum()
    }

    pub fn total(&self) -> usize {
        self.rows.values().map(Row::total).sum()
    }

    /// Prints differences that nobody listed (with `all`, every one), what is not supported yet, and the table.
    pub fn print(&self, all: bool) {
        for (case, _, differences) in self.differences.iter().filter(|(_, listed, _)| all || !listed) {
            println!("DIFFERENT {case}");
            for difference in differences.iter().take(if all { usize::MAX } else { 4 }) {
                println!("    {difference}");
            }
        }
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in reasons {
            println!("not yet {count:4} {}", reason.chars().take(160).collect::<String>());
        }
        println!(
            "\n{:14} {:>5} {:>5} {:>9} {:>9}  not yet",
            "area", "cases", "same", "deviates", "different"
        );
        let mut sum = Row::default();
        for (area, row) in &self.rows {
            println!("{}", row.line(area));
            sum.same += row.same;
            sum.deviates += row.deviates;
            sum.different += row.different;
            for (owner, count) in &row.later {
                *sum.later.entry(owner.clone()).or_default() += count;
            }
        }
        println!("{}", sum.line("all"));
        let listed: Vec<&str> = self
            .differences
            .iter()
            .filter(|(_, listed, _)| *listed)
            .map(|(case, ..)| case.as_str())
            .collect();
        println!("deviations, listed in docs/argo-differences.md: {}", listed.join(", "));
    }
}

impl Row {
    fn total(&self) -> usize {
        self.same + self.deviates + self.different + self.later.values().sum::<usize>()
    }

    fn line(&self, name: &str) -> String {
        let later: Vec<String> = self.later.iter().map(|(owner, count)| format!("{owner} {count}")).collect();
        format!(
            "{name:14} {:>5} {:>5} {:>9} {:>9}  {}",
            self.total(),
            self.same,
            self.deviates,
            self.different,
            later.join(", ")
        )
    }
}

fn is_case(word: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    word.split_once('/').is_some_and(|(area, name)| plain(area) && plain(name))
}
