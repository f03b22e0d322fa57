//! Groups of steps that share a volume of a cluster that is lost.

use anyhow::ensure;
use argosy_testcluster::Cluster;
use argosy_tests::cell::Cell;
use argosy_tests::day::LIMIT;
use argosy_tests::scenarios::MEMBERS;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const LOST: &str = "argosy_steps_lost_total{reason=\"volume\"}";

/// Two volumes on the host: there is nobody who makes them when they are asked for.
pub fn make(cluster: &Cluster) -> anyhow::Result<()> {
    for number in 1..=2 {
        let folder = cluster.folder().join(format!("volume-{number}"));
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("volume-{number}")},
            "spec": {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                "hostPath": {"path": folder, "type": "DirectoryOrCreate"}},
        });
        let file = cluster.folder().join(format!("volume-{number}.json"));
        std::fs::write(&file, volume.to_string())?;
        cluster.kubectl(&["apply", "-f", &file.display().to_string()])?;
    }
    Ok(())
}

/// Two workflows of two steps that share a volume. Of one the first step runs, of the other the second.
pub struct Groups {
    records: PathBuf,
}

impl Groups {
    /// Submits them and waits until those steps run.
    pub async fn begin(cell: &Cell, records: &Path) -> anyhow::Result<Self> {
        let groups = Self { records: records.to_owned() };
        let wait = |file: &str| {
            let records = records.display();
            format!(
                "echo $ARGOSY_FENCE >> {records}/{file}; until test -e {records}/go; do sleep 0.1; done; "
            )
        };
        let (make, read) = ("echo made > /work/file", "cat /work/file");
        cell.submit(&groups.workflow("volume-begun", &(wait("begun") + make), read)).await?;
        cell.submit(&groups.workflow("volume-used", make, &(wait("used") + read))).await?;
        for file in ["begun", "used"] {
            groups.runs(cell, file, 1).await?;
        }
        Ok(groups)
    }

    fn workflow(&self, name: &str, make: &str, read: &str) -> Value {
        let step = |name: &str, script: &str| {
            json!({"name": name, "metadata": {"annotations": {"argosy.dev/idempotent": "true"}}, "container": {
                "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": [script],
                "volumeMounts": [{"name": "work", "mountPath": "/work"}, {"name": "records", "mountPath": self.records}]}})
        };
        let order = json!([[{"name": "make", "template": "make"}], [{"name": "read", "template": "read"}]]);
        let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Mi"}}});
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": "default"},
            "spec": {"entrypoint": "main",
                "templates": [{"name": "main", "steps": order}, step("make", make), step("read", read)],
                "volumeClaimTemplates": [{"metadata": {"name": "work"}, "spec": claim}],
                "volumes": [{"name": "records", "hostPath": {"path": self.records, "type": "Directory"}}]},
        })
    }

    async fn runs(&self, cell: &Cell, file: &str, times: usize) -> anyhow::Result<()> {
        let count = || std::fs::read_to_string(self.records.join(file)).unwrap_or_default().lines().count();
        let what = format!("run {times} of {file}");
        cell.until(LIMIT, &what, async || (count() >= times).then_some(())).await
    }

    /// Nothing was made on the volume of one of them: it begins again in another cluster.
    pub async fn one_begins_again(&self, cell: &Cell) -> anyhow::Result<()> {
        self.runs(cell, "begun", 2).await
    }

    /// It succeeds. The other one says what was lost, and is counted.
    pub async fn end(&self, cell: &Cell) -> anyhow::Result<()> {
        let begun = cell.finished("volume-begun", LIMIT).await?;
        ensure!(begun["status"]["phase"] == "Succeeded", "{}", begun["status"]);
        let used = cell.finished("volume-used", LIMIT).await?;
        ensure!(used["status"]["phase"] == "Failed", "{}", used["status"]);
        let told = used.to_string();
        let words = "was lost with the volumes or daemons of this step's colocation group";
        ensure!(told.contains(words), "{}", used["status"]);
        cell.until(LIMIT, LOST, async || {
            for member in MEMBERS {
                if cell.count(member, LOST).await.is_ok_and(|count| count >= 1.0) {
                    return Some(());
                }
            }
            None
        })
        .await
    }
}
