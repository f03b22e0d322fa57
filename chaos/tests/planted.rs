//! Bugs planted in the product, each found by an invariant within a stated number of seeds (docs/proof.md has the table).
//!
//! `cargo test -p argosy-chaos --features planted` looks for those that show soon; with `-- --include-ignored` for all.

use argosy_chaos::planted::{EXPECTED, find_all};

/// Bugs that are found within so many seeds are looked for in every run of these tests.
const SOON: u64 = 2;

fn look_for(wanted: impl Fn(u64) -> bool) {
    let expected: Vec<_> = EXPECTED.iter().filter(|expected| wanted(expected.seeds_max)).collect();
    assert!(!expected.is_empty());
    let bugs: Vec<_> = expected.iter().map(|expected| (expected.bug, expected.seeds_max)).collect();
    let missed: Vec<String> = find_all(&bugs)
        .into_iter()
        .filter(|(bug, found)| {
            let expected = expected.iter().find(|expected| expected.bug == *bug);
            let promised = expected.map_or(&[][..], |expected| expected.invariants);
            !found.as_ref().is_some_and(|found| promised.contains(&found.invariant))
        })
        .map(|(bug, found)| format!("{bug:?}: {found:?}"))
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn bugs_that_show_soon_are_found() {
    look_for(|seeds_max| seeds_max <= SOON);
}

#[test]
#[ignore = "minutes: make test-full"]
fn bugs_that_take_longer_are_found() {
    look_for(|seeds_max| seeds_max > SOON);
}
