//! `cp`: artifacts of a workflow to this machine, as Argo's command lays them out.

use serde_json::Value;
use std::path::{Component, Path, PathBuf};

use super::show::resolve;
use crate::client::{Client, encode};
use crate::{Console, Copy, Error};

/// One artifact to fetch.
struct Wanted<'a> {
    node: &'a str,
    template: &'a str,
    name: &'a str,
    /// The last part of its key.
    file: String,
}

/// Fetches every output artifact that the flags choose.
pub(super) async fn copy(client: &Client, arguments: &Copy, console: &mut Console) -> Result<bool, Error> {
    let name = resolve(client, &arguments.name).await?;
    let workflow = client.workflow(&client.namespace, &name).await?;
    let found = wanted(&workflow, arguments);
    if found.is_empty() {
        return Err(Error::Answer("no artifacts match: see `argosy get -o json` for their names".to_owned()));
    }
    for artifact in found {
        let place = arguments
            .path
            .replace("{namespace}", &client.namespace)
            .replace("{workflowName}", &name)
            .replace("{nodeId}", artifact.node)
            .replace("{templateName}", artifact.template)
            .replace("{artifactName}", artifact.name);
        let directory = below(&arguments.directory, &place)?;
        std::fs::create_dir_all(&directory).map_err(|error| file(&directory, &error))?;
        let target = below(&directory, &artifact.file)?;
        let parts = [client.namespace.as_str(), &name, artifact.node, artifact.name];
        let route =
            parts.iter().fold("/artifacts".to_owned(), |path, part| format!("{path}/{}", encode(part)));
        client.download(&route, &target).await?;
        console.print(&format!("Created {:?}\n", target.display().to_string()))?;
    }
    Ok(true)
}

fn wanted<'a>(workflow: &'a Value, arguments: &Copy) -> Vec<Wanted<'a>> {
    let nodes = workflow["status"]["nodes"].as_object().into_iter().flatten();
    let text = |value: &'a Value, field: &str| value[field].as_str().unwrap_or_default();
    let chosen = |flag: &Option<String>, found: &str| flag.as_deref().is_none_or(|wanted| wanted == found);
    let mut found = Vec::new();
    for (_, node) in nodes {
        let (id, template) = (text(node, "id"), text(node, "templateName"));
        if !chosen(&arguments.node_id, id) || !chosen(&arguments.template_name, template) {
            continue;
        }
        for artifact in node["outputs"]["artifacts"].as_array().into_iter().flatten() {
            let name = text(artifact, "name");
            // One that a DAG passes on is its task's.
            if !chosen(&arguments.artifact_name, name) || artifact["deleted"] == true {
                continue;
            }
            let keys = [("s3", "key"), ("gcs", "key"), ("oss", "key"), ("azure", "blob")];
            let key = keys.iter().find_map(|(kind, field)| artifact[*kind][*field].as_str()).unwrap_or(name);
            let file = key.rsplit('/').next().unwrap_or(name).to_owned();
            found.push(Wanted { node: id, template, name, file });
        }
    }
    found
}

fn file(path: &Path, error: &std::io::Error) -> Error {
    Error::File { path: path.display().to_string(), reason: error.to_string() }
}

/// A path that comes from elsewhere stays below the directory.
fn below(directory: &Path, path: &str) -> Result<PathBuf, Error> {
    let path = Path::new(path.trim_start_matches('/'));
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(directory.join(path));
    }
    Err(Error::Answer(format!(
        "the artifact's path {:?} leads out of the directory",
        path.display().to_string()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside_the_directory() {
        let root = Path::new("out");
        assert_eq!(below(root, "/a/b").unwrap(), Path::new("out/a/b"));
        assert!(below(root, "a/../../b").is_err());
    }
}
