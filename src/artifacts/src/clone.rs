//! Git repositories: the agent clones, and hands the executor an archive. The login stays with the agent.

use crate::Error;
use crate::executor::{Refusal, artifact, refused};
use crate::location::{flag, needed, text};
use crate::store::Stores;
use argosy_executor::artifacts::Ticket;
use argosy_git::{Archive, Login, PrivateKey, Request, clone};
use argosy_spec::artifact::relocate;
use serde_json::{Map, Value};
use std::time::Duration;

/// Packs the repository that an input of a ticket names; the caller has checked that the ticket is the attempt's.
///
/// # Errors
/// Why there is no archive.
pub async fn archive(stores: &Stores, ticket: &Ticket, name: &str) -> Result<Archive, Refusal> {
    let mut inputs = ticket.inputs.iter();
    let input = inputs.find(|input| input.get("name").and_then(Value::as_str) == Some(name));
    let mut artifact = artifact(input.ok_or_else(|| refused("the step has no such input artifact"))?)?;
    relocate(&mut artifact.location, &ticket.archive_location);
    let fields = artifact.location.get("git").and_then(Value::as_object);
    let fields = fields.ok_or_else(|| refused("the artifact is no repository"))?;
    let request = request(stores, &ticket.namespace, fields).await?;
    let limits = &stores.limits;
    let cloned = async {
        // Never closed.
        let _permit = stores.clones.acquire().await;
        clone(&request, &stores.work_directory, &limits.clone).await
    };
    match tokio::time::timeout(Duration::from_millis(limits.clone_ms), cloned).await {
        Ok(Ok(archive)) => Ok(archive),
        Ok(Err(error)) => Err(Refusal { permanent: error.is_permanent(), message: error.to_string() }),
        Err(_) => {
            let message = format!("the clone took longer than {} s", limits.clone_ms / 1000);
            Err(Refusal { message, permanent: true })
        }
    }
}

async fn request(stores: &Stores, namespace: &str, fields: &Map<String, Value>) -> Result<Request, Error> {
    let of = async |field: &str| stores.credentials.of(namespace, fields, field).await;
    let (user, password) = (of("usernameSecret").await?, of("passwordSecret").await?);
    let login = (user.is_some() || password.is_some())
        .then(|| Login { user: user.unwrap_or_default(), password: password.unwrap_or_default() });
    let fetch = fields.get("fetch").and_then(Value::as_array).into_iter().flatten();
    Ok(Request {
        repo: needed("git", fields, "repo")?.to_owned(),
        revision: text(fields, "revision").to_owned(),
        depth: fields.get("depth").and_then(Value::as_u64).unwrap_or(0),
        fetch: fetch.filter_map(Value::as_str).map(str::to_owned).collect(),
        single_branch: flag(fields, "singleBranch"),
        branch: text(fields, "branch").to_owned(),
        without_submodules: flag(fields, "disableSubmodules"),
        insecure_skip_tls: flag(fields, "insecureSkipTLS"),
        login,
        private_key: of("sshPrivateKeySecret").await?.map(PrivateKey),
        known_hosts: stores.known_hosts.clone(),
        insecure_ignore_host_key: flag(fields, "insecureIgnoreHostKey"),
    })
}
