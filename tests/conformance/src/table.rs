//! The outcomes by area, and the deviations that the documentation lists.

use std::collections::{BTreeMap, BTreeSet};

use crate::case::Case;

const DIFFERENCES: &str = include_str!("../../../docs/argo-differences.md");

/// What came of a case.
pub enum Outcome {
    /// Identical.
    Same,
    /// Something of it is not supported (yet, or in this mode): what.
    Unsupported(String),
    /// These differ.
    Different(Vec<String>),
    /// Argo never ends it, and here it ended so: better for the user, whatever the directory.
    Ended(String),
}

#[derive(Default)]
struct Row {
    same: usize,
    deviates: usize,
    different: usize,
    later: usize,
}

impl Row {
    fn total(&self) -> usize {
        self.same + self.deviates + self.different + self.later
    }

    fn add(&mut self, other: &Row) {
        self.same += other.same;
        self.deviates += other.deviates;
        self.different += other.different;
        self.later += other.later;
    }

    fn line(&self, owner: &str, area: &str) -> String {
        let Self { same, deviates, different, later } = self;
        format!("{owner:10} {area:14} {:>5} {same:>5} {deviates:>9} {different:>9} {later:>8}", self.total())
    }
}

/// Cases that the documentation lists as deviations: `area/name` in backquotes, in a table's first column.
#[must_use]
pub fn listed() -> BTreeSet<&'static str> {
    let rows = DIFFERENCES.lines().filter_map(|line| line.strip_prefix('|')?.split(" | ").next());
    cases_in(rows)
}

fn cases_in(texts: impl Iterator<Item = &'static str>) -> BTreeSet<&'static str> {
    texts.flat_map(|text| text.split('`')).filter(|word| is_case(word)).collect()
}

/// Outcomes of many cases.
#[derive(Default)]
pub struct Table {
    listed: BTreeSet<&'static str>,
    rows: BTreeMap<(String, String), Row>,
    reasons: BTreeMap<String, Vec<String>>,
    differences: Vec<(String, bool, Vec<String>)>,
    /// Listed as deviations, and the same now.
    needless: Vec<String>,
    /// Pods of a real cluster: where only these deviate, a case is listed in another column.
    of_pods: bool,
}

impl Table {
    /// An empty table that knows the listed deviations.
    #[must_use]
    pub fn new() -> Self {
        Self { listed: listed(), ..Self::default() }
    }

    /// An empty table for Pods of a real cluster, which also knows what deviates there alone: cases in other columns.
    #[must_use]
    pub fn of_pods() -> Self {
        let rows = DIFFERENCES.lines().filter(|line| line.starts_with('|'));
        Self { listed: cases_in(rows), of_pods: true, ..Self::default() }
    }

    /// Counts a case.
    pub fn add(&mut self, case: &Case, outcome: Outcome) {
        let area = case.name.split('/').next().unwrap_or_default().to_owned();
        let row = self.rows.entry((case.facts.owner.clone(), area)).or_default();
        let listed = self.listed.contains(case.name.as_str());
        let mut differ = |is_listed: bool, what: Vec<String>| {
            self.differences.push((case.name.clone(), is_listed, what));
        };
        match outcome {
            Outcome::Same => {
                row.same += 1;
                if listed && !self.of_pods {
                    self.needless.push(case.name.clone());
                }
            }
            Outcome::Ended(how) => {
                row.deviates += 1;
                differ(true, vec![format!("Argo never ends it; here: {how}")]);
            }
            Outcome::Unsupported(reason) if listed => {
                row.deviates += 1;
                differ(true, vec![reason]);
            }
            Outcome::Unsupported(reason) => {
                row.later += 1;
                self.reasons.entry(reason).or_default().push(case.name.clone());
            }
            Outcome::Different(differences) => {
                *if listed { &mut row.deviates } else { &mut row.different } += 1;
                differ(listed, differences);
            }
        }
    }

    /// What makes the run a failure; `all`: every case of the project was run, so what is listed must be among them.
    #[must_use]
    pub fn problems(&self, all: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let different: usize = self.rows.values().map(|row| row.different).sum();
        if different > 0 {
            problems.push(format!("{different} cases differ that docs/argo-differences.md does not list"));
        }
        if self.rows.values().map(Row::total).sum::<usize>() == 0 {
            problems.push("no case was run".to_owned());
        }
        for case in &self.needless {
            problems.push(format!("docs/argo-differences.md lists {case}, which is the same"));
        }
        if all {
            // Recordings of some listed cases are not among those of the project; their areas are.
            let areas: BTreeSet<&str> = self.rows.keys().map(|(_, area)| area.as_str()).collect();
            let is_known = |case: &&&str| case.split('/').next().is_some_and(|area| areas.contains(area));
            let unknown = self.listed.iter().filter(|case| !is_known(case));
            problems.extend(unknown.map(|case| format!("docs/argo-differences.md lists {case} of no area")));
        }
        problems
    }

    /// Cases of an owner that are not supported.
    #[must_use]
    pub fn later(&self, owner: &str) -> usize {
        self.rows.iter().filter(|((of, _), _)| of == owner).map(|(_, row)| row.later).sum()
    }

    /// Prints differences that nobody listed (with `all`, every one), what is not supported, and the table.
    pub fn print(&self, all: bool) {
        for (case, _, differences) in self.differences.iter().filter(|(_, listed, _)| all || !listed) {
            println!("DIFFERENT {case}");
            for difference in differences.iter().take(if all { usize::MAX } else { 4 }) {
                println!("    {difference}");
            }
        }
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, cases)| std::cmp::Reverse(cases.len()));
        for (reason, cases) in reasons {
            let shown: String = reason.chars().take(160).collect();
            println!("not yet {:4} {shown} [{}]", cases.len(), cases.join(" "));
        }
        println!(
            "\n{:10} {:14} {:>5} {:>5} {:>9} {:>9} {:>8}",
            "owner", "area", "cases", "same", "deviates", "different", "not yet"
        );
        let (mut sums, mut sum) = (BTreeMap::<&str, Row>::new(), Row::default());
        for ((owner, area), row) in &self.rows {
            println!("{}", row.line(owner, area));
            sums.entry(owner).or_default().add(row);
            sum.add(row);
        }
        for (owner, row) in &sums {
            println!("{}", row.line(owner, "all"));
        }
        println!("{}", sum.line("all", ""));
        let listed = self.differences.iter().filter(|(_, listed, _)| *listed);
        let listed: Vec<&str> = listed.map(|(case, ..)| case.as_str()).collect();
        println!("deviations, listed in docs/argo-differences.md: {}", listed.join(", "));
    }
}

fn is_case(word: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    word.split_once('/').is_some_and(|(area, name)| plain(area) && plain(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Facts;

    fn case(name: &str) -> Case {
        Case {
            name: name.to_owned(),
            facts: Facts { owner: "language".into(), containers: false, needs: Vec::new() },
            setup: Vec::new(),
            objects: Vec::new(),
            script: Vec::new(),
            record: serde_json::Value::Null,
        }
    }

    #[test]
    fn unlisted_differences_and_needless_entries_are_problems() {
        let mut table = Table::new();
        let known = *table.listed.iter().next().unwrap();
        table.add(&case("steps/one"), Outcome::Same);
        table.add(&case(known), Outcome::Different(vec!["x".into()]));
        assert_eq!(table.problems(false), Vec::<String>::new());
        table.add(&case("steps/two"), Outcome::Different(vec!["x".into()]));
        table.add(&case(known), Outcome::Same);
        assert_eq!(table.problems(false).len(), 2);
        let seen = known.split('/').next().unwrap();
        let elsewhere = table.listed.iter().filter(|case| !case.starts_with(&format!("{seen}/")));
        let elsewhere = elsewhere.filter(|case| !case.starts_with("steps/")).count();
        assert_eq!(table.problems(true).len(), 2 + elsewhere);
    }
}
