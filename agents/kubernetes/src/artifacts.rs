//! A step's artifacts in its Pod. Pure.
//!
//! As in Argo, the init container loads the inputs, and the main container sees each mounted at its path; one below a volume
//! of the user's is loaded into that volume. Outputs are saved by the main container's own executor.

use crate::containers::mount;
use crate::names;
use argosy_executor::artifacts::{InputFile, of_template};
use argosy_executor::protocol::Task;
use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, PodSpec, Volume, VolumeMount};
use serde_json::Value;

/// Argo's name of the inputs' volume.
pub const INPUT_VOLUME: &str = "input-artifacts";
/// Where the init container sees it.
const INPUT_FOLDER: &str = "/argo/inputs/artifacts";
/// Where it sees the main container's own volumes.
const MIRROR_FOLDER: &str = "/mainctrfs";

/// Gives the main container's task what it saves.
pub fn add_outputs(task: &mut Task, template: &Value) {
    let (_, outputs, archive_logs, _) = of_template(template);
    task.output_files = outputs;
    task.archive_logs = archive_logs;
}

/// Logs of main containers are kept.
pub fn archives_logs(template: &Value) -> bool {
    let (_, _, archive_logs, _) = of_template(template);
    archive_logs
}

/// The inputs that have a source.
fn inputs(template: &Value) -> Vec<InputFile> {
    let (files, ..) = of_template(template);
    let list = template.pointer("/inputs/artifacts").and_then(Value::as_array);
    let kinds = ["s3", "gcs", "azure", "oss", "http", "artifactory", "git", "raw", "hdfs", "plugin"];
    let has_source = |name: &str| {
        list.into_iter().flatten().any(|artifact| {
            artifact.get("name").and_then(Value::as_str) == Some(name)
                && kinds.iter().any(|kind| artifact.get(*kind).is_some_and(Value::is_object))
        })
    };
    files.into_iter().filter(|file| has_source(&file.name)).collect()
}

/// The init container's task, with its mounts, the main containers' and the volume; `None` when there is nothing to load.
pub fn add_inputs(spec: &mut PodSpec, init: &mut Container, template: &Value) -> Option<Task> {
    let mut files = inputs(template);
    if files.is_empty() {
        return None;
    }
    let main = spec.containers.iter().find(|one| one.name == names::MAIN);
    let volumes: Vec<VolumeMount> =
        main.into_iter().flat_map(|main| main.volume_mounts.iter().flatten()).cloned().collect();
    let mut own = Vec::new();
    for file in &mut files {
        let around = volumes.iter().filter(|one| is_below(&file.path, &one.mount_path));
        if let Some(volume) = around.max_by_key(|one| one.mount_path.len()) {
            let mirror = format!("{MIRROR_FOLDER}{}", volume.mount_path);
            mount(init, &volume.name, &mirror, false);
            let mounts = init.volume_mounts.iter_mut().flatten();
            for mounted in mounts.filter(|one| one.mount_path == mirror) {
                mounted.sub_path.clone_from(&volume.sub_path);
                mounted.sub_path_expr.clone_from(&volume.sub_path_expr);
            }
            file.path = format!("{MIRROR_FOLDER}{}", file.path);
        } else {
            own.push(VolumeMount {
                name: INPUT_VOLUME.to_owned(),
                mount_path: file.path.clone(),
                sub_path: Some(file.name.clone()),
                ..VolumeMount::default()
            });
            file.path = format!("{INPUT_FOLDER}/{}", file.name);
        }
    }
    if !own.is_empty() {
        mount(init, INPUT_VOLUME, INPUT_FOLDER, false);
        for main in spec.containers.iter_mut().filter(|one| one.name == names::MAIN) {
            main.volume_mounts.get_or_insert_default().extend(own.clone());
        }
        spec.volumes.get_or_insert_default().push(Volume {
            name: INPUT_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
    }
    Some(Task { input_files: files, capture_result: false, ..Task::default() })
}

fn is_below(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn inputs_are_mounted_or_loaded_into_the_volume_around_them() {
        let template = json!({"inputs": {"artifacts": [
            {"name": "a", "path": "/tmp/a", "raw": {"data": "x"}},
            {"name": "b", "path": "/work/in/b", "s3": {"key": "k"}, "mode": 0o755},
            {"name": "none", "path": "/tmp/n", "optional": true},
        ]}});
        let mut spec: PodSpec = serde_json::from_value(json!({"containers": [
            {"name": "main", "volumeMounts": [{"name": "work", "mountPath": "/work", "subPath": "s"}]}, {"name": "side"},
        ]}))
        .unwrap();
        let mut init = Container::default();
        let task = add_inputs(&mut spec, &mut init, &template).unwrap();
        let paths: Vec<&str> = task.input_files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["/argo/inputs/artifacts/a", "/mainctrfs/work/in/b"]);
        let shown = serde_json::to_value(&spec).unwrap();
        assert_eq!(
            shown["containers"][0]["volumeMounts"][1],
            json!({"name": "input-artifacts", "mountPath": "/tmp/a", "subPath": "a"})
        );
        assert!(shown["containers"][1].get("volumeMounts").is_none());
        let mirrored = json!({"name": "work", "mountPath": "/mainctrfs/work", "subPath": "s"});
        assert_eq!(serde_json::to_value(&init).unwrap()["volumeMounts"][0], mirrored);
        assert!(add_inputs(&mut spec, &mut init, &json!({})).is_none());
    }
}
