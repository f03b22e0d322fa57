//! Runs seeds of the simulated federation and says which ones break an invariant.

use argosy_chaos::checkers::Invariant;
use argosy_chaos::{Options, Report, World};
use clap::Parser;
use std::process::ExitCode;

/// The simulated federation: members, agents, clusters and users in one thread, from one seed.
#[derive(Debug, Parser)]
#[command(name = "argosy-chaos", version)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from", "minutes"])]
    seed: Option<u64>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
    /// Go on with further seeds for so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// A line for each seed, not only for those that fail.
    #[arg(long)]
    verbose: bool,
    /// Clusters come and go, and workflows hand artifacts on in stores of which every cluster has its own; whether members know.
    #[arg(long)]
    handovers: Option<bool>,
    /// The control plane is lost in every seed, and a backup restored.
    #[arg(long, conflicts_with = "handovers")]
    restores: bool,
    /// Agents are in replicas in every seed, and executors are killed.
    #[arg(long, conflicts_with_all = ["handovers", "restores"])]
    replicas: bool,
    /// Certificates over weeks, instead of the federation.
    #[arg(long, conflicts_with = "handovers")]
    identities: bool,
    /// Look for the bugs that can be planted, and print how soon each is found.
    #[cfg(feature = "planted")]
    #[arg(long)]
    planted: bool,
    /// Look for this one alone, as docs/proof.md calls it, in at most as many seeds as `--seeds` says.
    #[cfg(feature = "planted")]
    #[arg(long)]
    bug: Option<String>,
}

/// The table of planted bugs; whether each was found as is promised.
#[cfg(feature = "planted")]
fn look_for_planted(arguments: &Arguments) -> ExitCode {
    use argosy_chaos::planted::{EXPECTED, find_all};
    use argosy_model::planted::Bug;
    let promised = |bug: Bug| EXPECTED.iter().find(|expected| expected.bug == bug);
    let bugs: Vec<(Bug, u64)> = match &arguments.bug {
        Some(name) => Bug::ALL
            .into_iter()
            .filter(|bug| format!("{bug:?}") == *name)
            .map(|bug| (bug, arguments.seeds))
            .collect(),
        None => EXPECTED.iter().map(|expected| (expected.bug, expected.seeds_max)).collect(),
    };
    println!("{:<22} {:<62} {:>8} {:>6}  broken invariant", "bug", "rule that it breaks", "found in", "seed");
    let mut all_found = !bugs.is_empty();
    for (bug, found) in find_all(&bugs) {
        let (name, rule) = (format!("{bug:?}"), bug.rule());
        match found {
            Some(found) => {
                let is_promised =
                    promised(bug).is_none_or(|expected| expected.invariants.contains(&found.invariant));
                all_found &= is_promised;
                let mark = if is_promised { "" } else { " (NOT AS PROMISED)" };
                println!(
                    "{name:<22} {rule:<62} {:>8} {:>6}  {}{mark}: {}",
                    found.tried, found.seed, found.invariant as u8, found.how
                );
            }
            None => {
                all_found = false;
                println!("{name:<22} {rule:<62} NOT FOUND");
            }
        }
    }
    if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Weeks of certificates, seed by seed.
fn run_identities(arguments: &Arguments) -> ExitCode {
    use argosy_chaos::identities::{Options, World};
    let first = arguments.seed.unwrap_or(arguments.from);
    let last = arguments.seed.unwrap_or(arguments.from.saturating_add(arguments.seeds).saturating_sub(1));
    let mut failed = 0_u64;
    for seed in first..=last {
        let options = Options { echo_trace: arguments.trace, ..Options::of_seed(seed) };
        let report = match World::run(options) {
            Ok(report) => report,
            Err(error) => {
                eprintln!("seed {seed}: {error}");
                return ExitCode::FAILURE;
            }
        };
        let is_whole = report.violations.is_empty();
        failed += u64::from(!is_whole);
        println!(
            "seed {seed:<6} {:>6} renewals {:>3} back after a day {:>2} locked {:>2} rolls {:>6} refused  {} {}",
            report.renewals,
            report.returned,
            report.locked,
            report.rolls,
            report.refused,
            &report.fingerprint[..12],
            if is_whole { "ok" } else { "FAILED" },
        );
        report.violations.iter().for_each(|violation| println!("  {violation}"));
    }
    println!("{} seeds, {failed} failed", last - first + 1);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Wall time of the run; the federation itself never sees it.
struct Stopwatch {
    #[expect(clippy::disallowed_types, reason = "measures the simulator, not the simulated")]
    begun: std::time::Instant,
}

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "measures the simulator, not the simulated"
    )]
    fn start() -> Self {
        Self { begun: std::time::Instant::now() }
    }

    fn minutes(&self) -> f64 {
        self.begun.elapsed().as_secs_f64() / 60.0
    }
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    virtual_ms: u64,
    exercised: [u64; 7],
    failed: Vec<u64>,
    counts: argosy_chaos::Counts,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.virtual_ms += report.virtual_ms;
        for (sum, judged) in self.exercised.iter_mut().zip(report.exercised) {
            *sum += judged;
        }
        if !report.violations.is_empty() {
            self.failed.push(report.options.seed);
        }
        let (sum, counts) = (&mut self.counts, report.counts);
        sum.events += counts.events;
        sum.workflows += counts.workflows;
        sum.attempts += counts.attempts;
        sum.taken_over += counts.taken_over;
        sum.returned += counts.returned;
        sum.repeated += counts.repeated;
        sum.faults += counts.faults;
        sum.crashes += counts.crashes;
        sum.snapshots += counts.snapshots;
        sum.restores += counts.restores;
        sum.followed += counts.followed;
        sum.executors_killed += counts.executors_killed;
        sum.reproduced += counts.reproduced;
        sum.reproduced_apart += counts.reproduced_apart;
        sum.recovered += counts.recovered;
    }

    fn print(&self, minutes: f64) {
        let counts = self.counts;
        println!("\n{:<50} {:>12}", "invariant", "judgements");
        for (invariant, judged) in Invariant::ALL.into_iter().zip(self.exercised) {
            let name = format!("{} {}", invariant as u8, invariant.title());
            let judged = if judged == 0 { "not exercised".to_owned() } else { judged.to_string() };
            println!("{name:<50} {judged:>12}");
        }
        println!(
            "\n{} workflows, {} attempts, {} take-overs ({} of them counted again), {} commands begun again elsewhere, {} faults, {} crashes, {} snapshots, {} restores, {} replicas that followed one which stood still, {} executors killed, {} events",
            counts.workflows,
            counts.attempts,
            counts.taken_over,
            counts.returned,
            counts.repeated,
            counts.faults,
            counts.crashes,
            counts.snapshots,
            counts.restores,
            counts.followed,
            counts.executors_killed,
            counts.events,
        );
        println!(
            "{} steps run again for artifacts, {} of them for a reader elsewhere; {} workflows ended well after that",
            counts.reproduced, counts.reproduced_apart, counts.recovered
        );
        let hours = self.virtual_ms as f64 / 3_600_000.0;
        let each = |amount: f64| amount / minutes.max(1.0 / 6_000.0);
        println!(
            "{} seeds, {} failed; {:.1} simulated hours in {:.1} minutes: {:.0} seeds and {:.1} simulated hours per minute",
            self.seeds,
            self.failed.len(),
            hours,
            minutes,
            each(self.seeds as f64),
            each(hours),
        );
    }
}

fn line(report: &Report) -> String {
    let (options, counts) = (&report.options, report.counts);
    let result = if report.violations.is_empty() { "ok" } else { "FAILED" };
    format!(
        "seed {:<8} {:<10} {} members {} clusters {:>4} s {:>7} events {:>4} workflows {:>5} attempts {:>4} take-overs {:>3} crashes  {} {result}",
        options.seed,
        options.kind,
        options.members,
        options.clusters,
        report.virtual_ms / 1_000,
        counts.events,
        counts.workflows,
        counts.attempts,
        counts.taken_over,
        counts.crashes,
        &report.fingerprint[..12],
    )
}

fn tell(report: &Report, verbose: bool, trace: bool) {
    if verbose || !report.violations.is_empty() {
        println!("{}", line(report));
    }
    if report.violations.is_empty() {
        return;
    }
    if !trace {
        let tail = report.trace.len().saturating_sub(15);
        report.trace[tail..].iter().for_each(|line| println!("    {line}"));
    }
    report.violations.iter().for_each(|violation| println!("  {violation}"));
    println!("  repeat it with:  make chaos SEED={}", report.options.seed);
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "planted")]
    if arguments.planted || arguments.bug.is_some() {
        return look_for_planted(&arguments);
    }
    if arguments.identities {
        return run_identities(&arguments);
    }
    let watch = Stopwatch::start();
    let mut totals = Totals::default();
    let mut seed = arguments.seed.unwrap_or(arguments.from);
    let last = arguments.seed.unwrap_or(arguments.from.saturating_add(arguments.seeds).saturating_sub(1));
    loop {
        let in_time = arguments.minutes.is_some_and(|minutes| watch.minutes() < minutes as f64);
        if seed > last && !in_time {
            break;
        }
        let options = match arguments.handovers {
            Some(is_told) => Options::of_handovers(seed, is_told),
            None if arguments.replicas => Options::of_replicas(seed),
            None if arguments.restores => Options::of_restores(seed),
            None => Options::of_seed(seed),
        };
        let report = World::run(Options { echo_trace: arguments.trace, ..options });
        tell(&report, arguments.verbose || arguments.seed.is_some(), arguments.trace);
        totals.add(&report);
        if totals.seeds.is_multiple_of(100) {
            eprintln!(
                "{} seeds, {} failed, {:.1} minutes",
                totals.seeds,
                totals.failed.len(),
                watch.minutes()
            );
        }
        seed += 1;
    }
    totals.print(watch.minutes());
    if totals.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
