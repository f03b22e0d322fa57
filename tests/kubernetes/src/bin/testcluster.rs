//! Test clusters by hand: `testcluster up NAME INDEX`, `testcluster down NAME|--all`, `testcluster check`.
//!
//! Exit code 3 says that clusters can't be started on this machine, and prints why.

use argosy_testcluster::{Federation, unavailable};
use std::process::ExitCode;

/// The run that clusters started by hand belong to.
const RUN: &str = "cli";
const EXIT_UNAVAILABLE: u8 = 3;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    if let Some(reason) = unavailable() {
        eprintln!("skipped: {reason}");
        return Ok(ExitCode::from(EXIT_UNAVAILABLE));
    }
    match words[..] {
        ["check"] => println!("test clusters can be started here"),
        ["up", name, index] => {
            let cluster = Federation::attach(RUN)?.start_cluster(name, index.parse()?)?;
            println!("cluster {name} is ready: {}", cluster.address());
            println!(
                "nsenter --net=/var/run/netns/{} kubectl --kubeconfig {} get nodes",
                cluster.namespace(),
                cluster.kubeconfig().display()
            );
        }
        ["cut" | "restore", name, index] => {
            let cluster = Federation::attach(RUN)?.cluster(name, index.parse()?);
            if words[0] == "cut" { cluster.cut()? } else { cluster.restore()? }
        }
        ["down", "--all"] => Federation::remove_leftovers()?,
        ["down", name] => Federation::attach(RUN)?.cluster(name, 0).delete()?,
        _ => {
            eprintln!(
                "usage: testcluster check | up NAME INDEX | cut NAME INDEX | restore NAME INDEX | down NAME|--all"
            );
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}
