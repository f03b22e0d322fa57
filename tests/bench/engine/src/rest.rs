//! Memory of a node at rest: a workflow whose steps are over, by what the process holds before and after.

use crate::figures::{print_table, thousands};
use crate::world::{World, ended, fan_out};
use anyhow::Context;
use std::time::Duration;

/// Bytes of a page of memory.
const PAGE_BYTES: f64 = 4096.0;
/// Steps that end in one batch.
const REPORTS_MAX: usize = 256;

/// Runs a fan-out to its end and prints what a node costs.
pub fn run(nodes: usize) -> anyhow::Result<()> {
    let before = resident_bytes()?;
    let mut world = World::new()?;
    world.join("east", 256)?;
    world.submit(&fan_out(nodes))?;
    world.settle()?;
    let mut peak: f64 = 0.0;
    loop {
        let open = world.all_to_run("east", REPORTS_MAX);
        if open.is_empty() {
            break;
        }
        for fence in open {
            world.report("east", ended(fence))?;
        }
        world.settle()?;
        peak = peak.max(resident_bytes()? - before);
    }
    // A leader that steps down drops what it keeps for deciding.
    world.leader = argosy_engine::Leader::new(world.leader.limits.clone());
    let held = settled_bytes()? - before;
    let each = |bytes: f64| format!("{:.0} bytes", bytes / nodes as f64);
    let row = vec![thousands(nodes as f64), format!("{:.0} MiB", held / 1048576.0), each(held), each(peak)];
    print_table("Memory of nodes at rest", &["nodes", "held", "each", "each at the peak"], &[row]);
    Ok(())
}

/// What the process holds once the allocator has given back what is not used: it takes its time.
fn settled_bytes() -> anyhow::Result<f64> {
    const LOOK_EVERY: Duration = Duration::from_secs(3);
    let mut last = resident_bytes()?;
    loop {
        std::thread::sleep(LOOK_EVERY);
        let now = resident_bytes()?;
        if now >= last * 0.999 {
            return Ok(now);
        }
        last = now;
    }
}

fn resident_bytes() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/statm").context("the process's memory")?;
    let pages: f64 = text.split_whitespace().nth(1).context("resident pages")?.parse()?;
    Ok(pages * PAGE_BYTES)
}
