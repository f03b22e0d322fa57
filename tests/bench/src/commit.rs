//! Replicated commits of three members, beside an etcd of three members under the same load on the same disk.

use crate::figures::{Measured, print_table};
use crate::{cell, etcd, load, member};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Options of the suite.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The etcd binary; without it, Argosy's members alone
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Numbers of clients
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    clients: Vec<usize>,
    /// Bytes of a value
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Each side is measured so many times, in turns; the best run of each is shown
    #[arg(long, default_value_t = 2)]
    rounds: usize,
}

/// Runs the suite.
pub async fn run(directory: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let probe = sync_probe(directory)?;
    println!(
        "disk: a write of {} bytes with fdatasync takes {:.2} ms (p50), {:.2} ms (p99)",
        arguments.value_bytes,
        probe.per_mille_ms(500),
        probe.per_mille_ms(990)
    );
    let mut own: Vec<Option<Measured>> = vec![None; arguments.clients.len()];
    let mut theirs = own.clone();
    for _ in 0..arguments.rounds {
        let held = tempfile::tempdir_in(directory)?;
        let (members, addresses) = member::start(held.path())?;
        measure(&addresses, arguments, &mut own).await?;
        drop(members);
        let Some(program) = &arguments.etcd else { continue };
        let (members, addresses) = etcd::start(program, held.path())?;
        measure(&addresses, arguments, &mut theirs).await?;
        drop(members);
    }
    let mut rows = Vec::new();
    for (at, clients) in arguments.clients.iter().enumerate() {
        let mut row = |who: &str, measured: &Measured, ratio: String| {
            rows.push(
                [vec![clients.to_string(), who.to_owned()], measured.cells().to_vec(), vec![ratio]].concat(),
            );
        };
        let Some(argosy) = &own[at] else { continue };
        let ratio = theirs[at].as_ref().map(|etcd| format!("{:.2}", argosy.per_second() / etcd.per_second()));
        row("argosy", argosy, ratio.unwrap_or_default());
        if let Some(etcd) = &theirs[at] {
            row("etcd", etcd, String::new());
        }
    }
    let title = format!(
        "Replicated commits, three members on one disk, {}-byte values, fsync on",
        arguments.value_bytes
    );
    print_table(&title, &["clients", "who", "commits/s", "p50", "p99", "ratio"], &rows);
    Ok(())
}

async fn measure(
    addresses: &[std::net::SocketAddr],
    arguments: &Arguments,
    best: &mut [Option<Measured>],
) -> anyhow::Result<()> {
    let leader = load::leader(addresses).await?;
    for (clients, best) in arguments.clients.iter().zip(best) {
        let shape = load::Shape {
            clients: *clients,
            value_bytes: arguments.value_bytes,
            warm_up: Duration::from_secs(2),
            span: Duration::from_secs(arguments.seconds),
        };
        let measured = load::put(leader, shape).await?;
        if best.as_ref().is_none_or(|best| best.per_second() < measured.per_second()) {
            *best = Some(measured);
        }
    }
    Ok(())
}

/// What one synced write costs here, whoever asks for it.
fn sync_probe(directory: &Path) -> anyhow::Result<Measured> {
    let held = tempfile::tempdir_in(directory)?;
    let mut file = std::fs::File::create(held.path().join("probe"))?;
    let begun = Instant::now();
    let mut latencies = Vec::new();
    for _ in 0..500 {
        let write = Instant::now();
        file.write_all(&[b'x'; 256])?;
        file.sync_data()?;
        latencies.push(write.elapsed());
    }
    Ok(Measured::new(latencies, begun.elapsed()))
}

/// This binary, for starting members.
pub fn own_binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    cell::executable(&own)
}
