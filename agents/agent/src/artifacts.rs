//! Object stores: the agent signs for its steps, and does what the control plane asks.

use crate::Config;
use argosy_agent_runtime::Runtime;
use argosy_agent_runtime::policy::{CODE, Policy};
use argosy_agent_runtime::server::Artifacts;
use argosy_artifacts::{DirectorySecrets, Error, Limits, NoSecrets, Operation, Secrets, Stores, operate};
use argosy_executor::artifacts::{Answer, Operation as Question, Ticket};
use argosy_kubernetes::Client;
use argosy_proto::common::Fence;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;

/// Bytes of one piece of an answer: far less than a frame may have.
const PIECE_BYTES_MAX: usize = 256 * 1024;

/// The stores of a cluster: with the Secrets of its namespaces, or of a directory.
pub fn stores(config: &Config, kubernetes: Option<Client>) -> Arc<Stores> {
    let directory = config.artifact_secrets.clone().map(DirectorySecrets);
    let secrets: Arc<dyn Secrets> = match (kubernetes, directory) {
        (Some(client), directory) => Arc::new(ClusterSecrets { client, directory }),
        (None, Some(directory)) => Arc::new(directory),
        (None, None) => Arc::new(NoSecrets),
    };
    let limits = Limits {
        url_life_ms: config.artifact_url_life_ms,
        result_after_ms: config.result_object_after_ms,
        ..Limits::default()
    };
    let stores = Stores::new(secrets, limits).with_known_hosts(config.git_known_hosts.clone());
    Arc::new(stores.with_work_directory(config.data_dir.join("clones")))
}

/// Secrets of the agent's own directory, and of the cluster's API server.
struct ClusterSecrets {
    client: Client,
    directory: Option<DirectorySecrets>,
}

#[async_trait]
impl Secrets for ClusterSecrets {
    async fn secret(&self, namespace: &str, name: &str, key: &str) -> Result<Option<String>, Error> {
        if let Some(directory) = &self.directory
            && let Some(found) = directory.secret(namespace, name, key).await?
        {
            return Ok(Some(found));
        }
        let found = argosy_kubernetes::secret(&self.client, namespace, name, key).await;
        found.map_err(|error| Error::Store(format!("secret {namespace}/{name} can't be read: {error}")))
    }
}

/// Answers executors.
pub struct Signer(pub Arc<Stores>);

#[async_trait]
impl Artifacts for Signer {
    async fn answer(
        &self,
        fence: &Fence,
        ticket: &Ticket,
        question: Question,
    ) -> Result<Answer, (String, bool)> {
        let answered = argosy_artifacts::answer(&self.0, fence, ticket, question).await;
        answered.map_err(|refusal| (refusal.message, refusal.permanent))
    }

    async fn read_file(
        &self,
        ticket: &Ticket,
        name: &str,
        bytes_max: u64,
    ) -> Result<Vec<u8>, (String, bool)> {
        let read = argosy_artifacts::read_file(&self.0, ticket, name, bytes_max).await;
        read.map_err(|refusal| (refusal.message, refusal.permanent))
    }

    async fn archive(
        &self,
        _fence: &Fence,
        ticket: &Ticket,
        name: &str,
    ) -> Result<(std::fs::File, u64), (String, bool)> {
        match argosy_artifacts::archive(&self.0, ticket, name).await {
            Ok(archive) => Ok((archive.file, archive.bytes)),
            Err(refusal) => Err((refusal.message, refusal.permanent)),
        }
    }

    async fn read_result(
        &self,
        fence: &Fence,
        ticket: &Ticket,
        bytes: u64,
    ) -> Result<(String, Vec<u8>), (String, bool)> {
        let read = argosy_artifacts::read_result(&self.0, fence, ticket, bytes).await;
        read.map_err(|refusal| (refusal.message, refusal.permanent))
    }

    async fn delete_result(&self, fence: &Fence, ticket: &Ticket) -> Result<(), (String, bool)> {
        let deleted = argosy_artifacts::delete_result(&self.0, fence, ticket).await;
        deleted.map_err(|refusal| (refusal.message, refusal.permanent))
    }
}

/// Does what the control plane asks, in the namespace that the owner of the cluster has for it; what comes of it, in pieces.
pub async fn carry_out(
    stores: &Stores,
    runtime: &dyn Runtime,
    policy: Option<&Policy>,
    operation: &str,
) -> Result<BoxStream<'static, Result<Bytes, String>>, String> {
    let mut operation: Operation = serde_json::from_str(operation)
        .map_err(|error| format!("this agent does not know the operation: {error}; upgrade it"))?;
    if let Some(policy) = policy {
        let namespace = operation.namespace_mut();
        let local = policy.local_namespace(namespace).map(str::to_owned);
        *namespace = local
            .ok_or_else(|| format!("{CODE}: namespace {namespace:?} is another one's in this cluster"))?;
    }
    // What a driver keeps, only its container can delete.
    if let Operation::Delete { namespace, location, key, .. } = &operation
        && let Some(plugin) = location.get("plugin").and_then(serde_json::Value::as_object)
    {
        let mut plugin = plugin.clone();
        plugin.insert("key".to_owned(), key.clone().into());
        let deleted = runtime.delete_artifact(namespace, &plugin).await;
        return deleted.map(|()| futures::stream::empty().boxed()).map_err(|error| error.to_string());
    }
    let outcome = operate(stores, operation).await.map_err(|error| error.to_string())?;
    let pieces = |part: Result<Bytes, Error>| {
        let parts: Vec<Result<Bytes, String>> = match part {
            Ok(mut bytes) => {
                let mut cut = Vec::with_capacity(bytes.len() / PIECE_BYTES_MAX + 1);
                while bytes.len() > PIECE_BYTES_MAX {
                    cut.push(Ok(bytes.split_to(PIECE_BYTES_MAX)));
                }
                cut.push(Ok(bytes));
                cut
            }
            Err(error) => vec![Err(error.to_string())],
        };
        futures::stream::iter(parts)
    };
    Ok(outcome.flat_map(pieces).boxed())
}
