//! The Lease (coordination.k8s.io) that says which of several agents of this cluster acts.

use crate::runtime::NOT_FOUND;
use argosy_agent_runtime::election::{Record, Write};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};

/// One Lease by its name.
#[derive(Clone)]
pub struct NamedLease {
    api: Api<Lease>,
    name: String,
}

impl NamedLease {
    /// The Lease of that name; nothing is asked yet.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned() }
    }

    /// What it says now; nothing: it is not there.
    ///
    /// # Errors
    /// The API server's words.
    pub async fn read(&self) -> Result<Option<Record>, String> {
        Ok(self.get().await?.map(|lease| record(&lease)))
    }

    async fn get(&self) -> Result<Option<Lease>, String> {
        match self.api.get(&self.name).await {
            Ok(lease) => Ok(Some(lease)),
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Writes it if it has the version that the write names, and gives the new version.
    ///
    /// # Errors
    /// The API server's words: a conflict, or anything else. It may have been written all the same.
    pub async fn write(&self, write: &Write) -> Result<String, String> {
        let Write { holder, duration_ms, term, is_taken_over, version } = write;
        let now = MicroTime(Timestamp::now());
        let mut lease = match version {
            // Labels and annotations of others stay.
            Some(_) => self.get().await?.ok_or("the Lease is gone")?,
            None => Lease::default(),
        };
        let before = lease.spec.take().unwrap_or_default();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(holder.clone()),
            lease_duration_seconds: Some(i32::try_from(duration_ms.div_ceil(1_000)).unwrap_or(i32::MAX)),
            lease_transitions: Some(i32::try_from(*term).unwrap_or(i32::MAX)),
            acquire_time: if *is_taken_over { Some(now.clone()) } else { before.acquire_time },
            renew_time: Some(now),
            ..LeaseSpec::default()
        });
        lease.metadata.name = Some(self.name.clone());
        lease.metadata.resource_version.clone_from(version);
        let written = match version {
            Some(_) => self.api.replace(&self.name, &PostParams::default(), &lease).await,
            None => self.api.create(&PostParams::default(), &lease).await,
        };
        let written = written.map_err(|error| error.to_string())?;
        Ok(written.metadata.resource_version.unwrap_or_default())
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration_ms: spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .unwrap_or(0)
            .saturating_mul(1_000),
        term: spec.lease_transitions.and_then(|term| u64::try_from(term).ok()).unwrap_or(0),
        renewed: spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_lease_is_nobodys_and_a_held_one_is_read_whole() {
        let empty: Lease = serde_json::from_str(r#"{"metadata": {"resourceVersion": "5"}}"#).unwrap();
        assert_eq!(record(&empty), Record { version: "5".to_owned(), ..Record::default() });
        let held: Lease = serde_json::from_str(
            r#"{"metadata": {"resourceVersion": "6"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 10,
                "leaseTransitions": 3, "renewTime": "2026-01-01T00:00:00.000001Z"}}"#,
        )
        .unwrap();
        let read = record(&held);
        assert_eq!((read.holder.as_str(), read.duration_ms, read.term), ("a", 10_000, 3));
        assert!(read.renewed.contains("000001"), "{}", read.renewed);
        let odd = r#"{"spec": {"leaseDurationSeconds": -1, "leaseTransitions": -7}}"#;
        let odd: Lease = serde_json::from_str(odd).unwrap();
        assert_eq!((record(&odd).duration_ms, record(&odd).term), (0, 0));
    }
}
