//! Argo's locations: fields, and the credentials that they name.

use crate::roles::{Role, Roles};
use crate::s3::http_client;
use crate::secrets::Secrets;
use crate::{Error, Limits};
use object_store::aws::{AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Secrets kept; beyond, all are read anew.
const KEPT_MAX: usize = 1_000;

/// Regions whose service of identities has been asked; beyond, all are asked anew.
const REGIONS_MAX: usize = 64;

/// Values of Secrets by namespace, name and key, each with the time it was read.
type Kept = BTreeMap<(String, String, String), (Instant, String)>;

/// Reads Secrets, each at most once in a while.
pub(crate) struct Credentials {
    secrets: Arc<dyn Secrets>,
    kept: Mutex<Kept>,
    kept_for: Duration,
    /// The agent's own identity at Amazon, by region: what it is given holds for an hour, and every request would ask for it.
    own: Mutex<BTreeMap<String, AwsCredentialProvider>>,
    roles: Roles,
}

impl Credentials {
    pub(crate) fn new(secrets: Arc<dyn Secrets>, limits: &Limits) -> Self {
        let kept_for = Duration::from_millis(limits.secrets_kept_ms);
        Self { secrets, kept: Mutex::default(), kept_for, own: Mutex::default(), roles: Roles::default() }
    }

    /// What the agent's environment says of its own identity at Amazon: keys, a web identity, the identity of its Pod, its
    /// task or its machine. It renews by itself what it is given.
    pub(crate) fn own(&self, region: &str) -> Result<AwsCredentialProvider, Error> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = own.get(region) {
            return Ok(Arc::clone(found));
        }
        // It is asked for no object, so any bucket will do.
        let built = AmazonS3Builder::from_env().with_region(region).with_bucket_name("none").build();
        let built =
            built.map_err(|error| Error::Location(format!("the agent's own credentials: {error}")))?;
        if own.len() >= REGIONS_MAX {
            own.clear();
        }
        own.insert(region.to_owned(), Arc::clone(built.credentials()));
        Ok(Arc::clone(built.credentials()))
    }

    /// What a role at Amazon gives to the agent's own identity.
    pub(crate) async fn of_role(&self, role: Role, limits: &Limits) -> Result<Arc<AwsCredential>, Error> {
        if let Some(known) = self.roles.known(&role) {
            return Ok(known);
        }
        let own = self.own(&role.region)?.get_credential().await;
        let own =
            own.map_err(|error| Error::Store(format!("no credentials to take on {}: {error}", role.arn)))?;
        self.roles.assume(role, &own, &http_client(None, limits)?).await
    }

    /// The value that a selector of a location names; `None` where there is no selector, or an optional one has nothing.
    pub(crate) async fn of(
        &self,
        namespace: &str,
        fields: &Map<String, Value>,
        field: &str,
    ) -> Result<Option<String>, Error> {
        let Some(selector) = fields.get(field).filter(|selector| selector.is_object()) else {
            return Ok(None);
        };
        let text = |name: &str| selector.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, key) = (text("name"), text("key"));
        let place = (namespace.to_owned(), name.clone(), key.clone());
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((read, value)) = kept.get(&place)
                && read.elapsed() < self.kept_for
            {
                return Ok(Some(value.clone()));
            }
        }
        match self.secrets.secret(namespace, &name, &key).await? {
            Some(value) => {
                let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() >= KEPT_MAX {
                    kept.clear();
                }
                kept.insert(place, (Instant::now(), value.clone()));
                Ok(Some(value))
            }
            None if selector.get("optional").and_then(Value::as_bool) == Some(true) => Ok(None),
            None => Err(Error::Secret { namespace: namespace.to_owned(), name, key }),
        }
    }
}

/// A text field; empty when it is not there.
pub(crate) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn flag(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).and_then(Value::as_bool).unwrap_or(false)
}

pub(crate) fn needed<'a>(kind: &str, fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, Error> {
    match text(fields, name) {
        "" => Err(Error::Location(format!("the artifact's location has no {kind}.{name}"))),
        found => Ok(found),
    }
}
