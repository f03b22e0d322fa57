//! Logs of a Pod while it runs, and of the same step from its archive when the Pod is gone: the same commands.

use super::{WAIT, workflow};
use argosy_testcluster::Cluster;
use argosy_tests::cell::Cell;
use serde_json::json;

/// A step of three containers: what `main` writes has a gap of some seconds and waits for a file at its end.
const MAIN: &str =
    "echo early; sleep 3; echo late one; echo late two; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo end";

struct Reading<'a> {
    cell: &'a Cell,
    name: &'a str,
}

impl Reading<'_> {
    /// The lines of `argosy logs`, without the Pod's name.
    fn lines(&self, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut all = vec!["logs", self.name, "-n", "default", "--no-color"];
        all.extend(arguments);
        let text = self.cell.argosy(&all)?;
        Ok(text.lines().map(|line| line.split_once(": ").map_or(line, |(_, text)| text).to_owned()).collect())
    }

    /// Waits until the lines are these.
    async fn reach(&self, arguments: &[&str], wanted: &[&str]) -> anyhow::Result<()> {
        let what = format!("logs {arguments:?} to be {wanted:?}");
        self.cell.until(WAIT, &what, async || (self.lines(arguments).ok()? == wanted).then_some(())).await
    }

    fn are(&self, arguments: &[&str], wanted: &[&str]) -> anyhow::Result<()> {
        assert_eq!(self.lines(arguments)?, wanted, "{arguments:?}");
        Ok(())
    }
}

pub async fn are_the_same_live_and_archived(cell: &Cell, cluster: &Cluster) -> anyhow::Result<()> {
    let busybox = |name: &str, script: &str| json!({"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": [script]});
    // An init container that Kubernetes starts again and again has a run before this one.
    let mut again = busybox("again", "echo a run; sleep 2; exit 1");
    again["restartPolicy"] = json!("Always");
    let templates = json!([{"name": "main", "nodeSelector": {"cluster.argosy.dev/name": cluster.name},
        "metadata": {"labels": {"kind": "talk"}}, "initContainers": [again],
        "containerSet": {"containers": [busybox("main", MAIN), busybox("beside", "echo from beside")]}}]);
    let name = cell.submit(&workflow("talk", templates)).await?;
    let reading = Reading { cell, name: &name };
    reading.reach(&[], &["early", "late one", "late two"]).await?;
    let times = reading.lines(&["--timestamps"])?;
    let stamped: Vec<(&str, &str)> = times.iter().filter_map(|line| line.split_once(' ')).collect();
    assert!(
        stamped.iter().all(|(time, _)| time.starts_with("20") && time.ends_with('Z'))
            && stamped[1].1 == "late one",
        "{times:?}"
    );
    // Kubernetes counts whole seconds.
    let since = format!("{}Z", &stamped[1].0[..19]);
    reading.are(&["--since-time", &since], &["late one", "late two"])?;
    reading.are(&["--since", "1h"], &["early", "late one", "late two"])?;
    reading.are(&["--tail", "1"], &["late two"])?;
    reading.are(&["--tail", "0"], &[])?;
    reading.are(&["--grep", "e$"], &["late one"])?;
    reading.are(&["--limit-bytes", "7"], &["early", "l"])?;
    reading.are(&["-l", "kind=talk", "--tail", "1"], &["late two"])?;
    reading.are(&["-l", "kind!=talk"], &[])?;
    reading.are(&["-c", "beside"], &["from beside"])?;
    reading.reach(&["-c", "again", "--previous"], &["a run"]).await?;
    let (well, text) = cell.try_argosy(&["logs", &name, "-n", "default", "--previous"])?;
    assert!(!well && text.contains("previous terminated container \"main\""), "{text}");
    let following = {
        let mut command = cell.argosy_command(&["logs", &name, "-n", "default", "--no-color", "-f"])?;
        command.stdout(std::process::Stdio::piped());
        command.spawn()?
    };
    let listed = cluster.kubectl(&[
        "-n",
        "default",
        "get",
        "pods",
        "-l",
        "workflows.argoproj.io/workflow=talk",
        "-o",
        "name",
    ])?;
    cluster.kubectl(&["-n", "default", "exec", listed.trim(), "-c", "main", "--", "touch", "/tmp/go"])?;
    cell.finished(&name, WAIT).await?;
    let followed = String::from_utf8(following.wait_with_output()?.stdout)?;
    assert!(followed.contains("early") && followed.trim_end().ends_with("end"), "{followed}");

    cluster.kubectl(&["-n", "default", "delete", "pods", "--all", "--wait=true"])?;
    reading.reach(&[], &["early", "late one", "late two", "end"]).await?;
    reading.are(&["-f"], &["early", "late one", "late two", "end"])?;
    reading.are(&["--tail", "1"], &["end"])?;
    reading.are(&["--tail", "0"], &[])?;
    reading.are(&["--grep", "e$"], &["late one"])?;
    reading.are(&["--limit-bytes", "7"], &["early", "l"])?;
    reading.are(&["-l", "kind=talk", "--tail", "1"], &["end"])?;
    reading.are(&["-c", "beside"], &["from beside"])?;
    reading.are(&["--since", "1h", "--timestamps"], &["early", "late one", "late two", "end"])?;
    reading.are(&["--since-time", "2100-01-01T00:00:00Z"], &[])?;
    Ok(())
}
