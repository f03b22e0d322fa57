//! Artifacts in replayed recordings: the repositories that cases name, an object store that keeps only keys, and the
//! comparison of whole artifacts with what Argo showed.

use argosy_conformance::artifacts::{ADDRESS, fill};
use argosy_proto::command::{ReportArtifactTask, StoreConfigMap, command::Body};
use argosy_proto::common::OutputArtifact;
use serde_json::Value;
use std::collections::BTreeSet;

use crate::stage::Stage;

/// The repositories that every case may name.
pub fn set_up(stage: &mut Stage) {
    let s3 = format!(
        "s3:\n  bucket: my-bucket\n  endpoint: {ADDRESS}:9000\n  insecure: true\n  region: us-east-1\n  \
         accessKeySecret: {{name: s3-cred, key: accesskey}}\n  secretKeySecret: {{name: s3-cred, key: secretkey}}\n"
    );
    let data = [
        ("s3".to_owned(), format!("{s3}  keyFormat: \"{{{{workflow.name}}}}/{{{{pod.name}}}}\"\n")),
        ("s3-logs".to_owned(), format!("archiveLogs: true\n{s3}")),
    ];
    let _ = stage.world.command(Body::StoreConfigMap(StoreConfigMap {
        namespace: "argo".into(),
        name: "corpus-artifact-repositories".into(),
        create: true,
        uid: "uid-repositories".into(),
        data: data.into_iter().collect(),
        ..StoreConfigMap::default()
    }));
}

/// Does what is to be done in the object store; true when there was something.
pub fn store(stage: &mut Stage) -> bool {
    let (world, bucket) = (&mut stage.world, &mut stage.bucket);
    let due: Vec<_> =
        world.state.artifact_tasks_due(world.now).map(|(number, task)| (number, task.clone())).collect();
    for (task, contents) in &due {
        for copy in &contents.copies {
            if copy.to.is_empty() {
                bucket.remove(&copy.from);
            } else {
                bucket.insert(copy.to.clone());
            }
        }
        world
            .command(Body::ReportArtifactTask(ReportArtifactTask { task: *task, ..Default::default() }))
            .unwrap();
    }
    !due.is_empty()
}

/// The artifacts that a recorded node saved.
pub fn reported(node: &Value) -> Vec<OutputArtifact> {
    let names = node["outputs"]["artifacts"].as_array().into_iter().flatten();
    names
        .map(|name| OutputArtifact {
            name: name.as_str().unwrap().to_owned(),
            digest: "0".repeat(64),
            size: 1,
            directory: false,
        })
        .collect()
}

/// The keys under the workflow's name.
pub fn compare_bucket(
    workflow: &str,
    ours: &Value,
    recorded: &Value,
    bucket: &BTreeSet<String>,
) -> Vec<String> {
    let recorded = fill(recorded, workflow, ours);
    let recorded: BTreeSet<&str> =
        recorded.as_array().into_iter().flatten().map(|object| object["key"].as_str().unwrap()).collect();
    let prefix = format!("{workflow}/");
    let found: BTreeSet<&str> =
        bucket.iter().map(String::as_str).filter(|key| key.starts_with(&prefix)).collect();
    if recorded == found {
        Vec::new()
    } else {
        vec![format!("bucket: recorded {recorded:?}, ours {found:?}")]
    }
}
