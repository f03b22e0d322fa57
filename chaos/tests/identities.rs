//! Certificates over weeks, with the lengths that they have in production.

use argosy_chaos::identities::{Options, Report, World};

/// 7 and 8: one question was asked twice, the earlier answer was kept, and the agent locked at its next start. 41 and 51: the
/// question of a process that had ended arrived after the next one had taken its place, and locked it.
const ONCE_FAILED: [u64; 4] = [7, 8, 41, 51];

fn run(options: Options) -> Report {
    World::run(options).expect("keys and certificates can be made")
}

fn describe(seed: u64, report: &Report) -> String {
    format!("seed {seed}: {}\n{}", report.violations.join("; "), report.trace.join("\n"))
}

#[test]
fn agents_that_are_off_for_a_day_come_back_and_copied_keys_are_locked() {
    let (mut returned, mut locked, mut rolls, mut refused) = (0, 0, 0, 0);
    for seed in [1, 2].into_iter().chain(ONCE_FAILED) {
        let report = run(Options::of_seed(seed));
        assert!(report.violations.is_empty(), "{}", describe(seed, &report));
        returned += report.returned;
        locked += report.locked;
        rolls += report.rolls;
        refused += report.refused;
    }
    assert!(returned >= 10, "agents came back after a day: {returned}");
    assert!(locked >= 2, "copied keys were used: {locked}");
    assert!(rolls >= 5, "authorities were rolled: {rolls}");
    assert!(refused > 0, "nobody was refused");
}

#[test]
fn a_seed_of_weeks_replays() {
    let fingerprint = || run(Options { days: 12, ..Options::of_seed(3) }).fingerprint;
    assert_eq!(fingerprint(), fingerprint());
}

/// What the world is told to get wrong has to be seen.
#[test]
fn a_grace_that_is_too_short_and_revocations_that_nobody_reads_are_seen() {
    let short = run(Options { renewal_grace_ms: 2 * 3_600_000, ..Options::of_seed(1) });
    assert!(!short.violations.is_empty(), "an agent that was off for a day came back without a grace");
    let blind = (1..=6).map(|seed| run(Options { ignores_revocations: true, ..Options::of_seed(seed) }));
    let seen = blind.filter(|report| report.violations.iter().any(|text| text.contains("revoked"))).count();
    assert!(seen > 0, "revoked certificates were let in, and nobody noticed");
}

/// Two hundred agents that were enrolled within a minute don't renew within a minute for ever.
#[test]
fn renewals_of_agents_that_enrolled_together_spread() {
    let report = run(Options { agents: 200, days: 1, is_calm: true, ..Options::of_seed(1) });
    assert!(report.violations.is_empty(), "{}", describe(1, &report));
    assert!(report.renewals > 200 * 24, "{} renewals", report.renewals);
    assert!(report.renewals_per_minute_max <= 40, "{} in one minute", report.renewals_per_minute_max);
}
