//! Artifacts that a driver keeps are deleted by a Pod with the driver: nobody else can.
//!
//! Its name follows from what is deleted, so that a deletion whose answer was lost is found again, and is not done twice at a
//! time. The Pod is no attempt: it has none of their labels, and nobody looks at it but whoever asked.

use crate::drivers;
use crate::observe::described;
use crate::runtime::{CONFLICT, NOT_FOUND, Shared};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Seconds that a driver may take, its start included.
const DELETION_SECONDS_MAX: i64 = 300;
/// How long the Pod is waited for beyond that: it may have to wait for a host.
const WAIT_BEYOND: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bytes of the digest in the Pod's name.
const NAME_BYTES: usize = 12;
/// What the Pod is for, as a label.
const LABEL: &str = "argosy.dev/artifact-gc";

/// Has the driver of a `plugin` location delete what is there.
pub async fn delete(shared: &Shared, namespace: &str, location: &Map<String, Value>) -> Result<(), String> {
    let served = &shared.config.namespaces;
    if !served.is_empty() && !served.iter().any(|served| served == namespace) {
        return Err(format!("namespace {namespace} is not served on this cluster"));
    }
    let pod = pod(shared, namespace, location)?;
    let name = pod.metadata.name.clone().unwrap_or_default();
    let pods = shared.pods(namespace);
    match pods.create(&PostParams::default(), &pod).await {
        Ok(_) => {}
        // An earlier try: its end counts.
        Err(kube::Error::Api(status)) if status.code == CONFLICT => {}
        Err(error) => return Err(error.to_string()),
    }
    let ended = end(&pods, &name).await;
    let gone = pods.delete(&name, &DeleteParams::default()).await;
    if let Err(error) = gone
        && !matches!(&error, kube::Error::Api(status) if status.code == NOT_FOUND)
    {
        tracing::warn!(pod = name, %error, "a Pod that deleted an artifact could not be removed");
    }
    ended
}

fn pod(shared: &Shared, namespace: &str, location: &Map<String, Value>) -> Result<Pod, String> {
    let settings = shared.settings();
    let mut spec = drivers::deletion(&settings, location).map_err(|error| error.to_string())?;
    spec.active_deadline_seconds = Some(DELETION_SECONDS_MAX);
    let deleted = Value::Object(location.clone()).to_string();
    let digest = Sha256::digest(format!("{}\n{}\n{deleted}", settings.cell, settings.cluster));
    let digest: String = digest.iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let metadata = ObjectMeta {
        name: Some(format!("artifact-gc-{digest}")),
        namespace: Some(namespace.to_owned()),
        labels: Some(BTreeMap::from([(LABEL.to_owned(), "true".to_owned())])),
        ..ObjectMeta::default()
    };
    let pod = Pod { metadata, spec: Some(spec), status: None };
    if let Some(policy) = &shared.config.policy {
        let shown = serde_json::to_value(&pod).map_err(|error| error.to_string())?;
        policy
            .check_pod(namespace, &shown, &settings.executor_image)
            .map_err(|refusal| refusal.to_string())?;
    }
    Ok(pod)
}

/// Waits for the Pod's end; what it says if it failed.
async fn end(pods: &Api<Pod>, name: &str) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(DELETION_SECONDS_MAX.unsigned_abs()) + WAIT_BEYOND;
    loop {
        let status = match pods.get_opt(name).await {
            Ok(Some(pod)) => pod.status.unwrap_or_default(),
            Ok(None) => return Err(format!("pod {name} is gone before it has ended")),
            // Whoever asked tries again; the Pod is found then.
            Err(error) => return Err(error.to_string()),
        };
        match status.phase.as_deref() {
            Some("Succeeded") => return Ok(()),
            Some("Failed") => return Err(described(&status)),
            _ if Instant::now() >= until => return Err(format!("pod {name} has not ended in time")),
            _ => sleep(LOOK_EVERY).await,
        }
    }
}
