//! Roles at Amazon that an agent takes on with its own identity (STS `AssumeRole`).

use crate::s3::element;
use crate::{Error, s3};
use bytes::Bytes;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequest;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use url::Url;
use url::form_urlencoded::Serializer;

/// How long what a role gives is to hold, seconds: what every role allows.
const ROLE_SECONDS: u64 = 3_600;
/// It is used for half of that: URLs that are signed with it have to live on for a while.
const USED_FOR: Duration = Duration::from_secs(ROLE_SECONDS / 2);
/// Roles kept; beyond, all are taken on anew.
const ROLES_MAX: usize = 64;
/// Where tools of Amazon look for another address of the service.
const ADDRESS_VARIABLE: &str = "AWS_ENDPOINT_URL_STS";
const FORM: &str = "application/x-www-form-urlencoded";

/// A role, and the region whose service is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Role {
    pub arn: String,
    pub region: String,
}

/// What roles gave, each with the time it was asked for.
type Kept = BTreeMap<Role, (Instant, Arc<AwsCredential>)>;

/// The roles that were taken on.
#[derive(Default)]
pub(crate) struct Roles(Mutex<Kept>);

impl Roles {
    fn kept<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        // The map is whole after each statement, so a panic elsewhere does not spoil it.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a role gave a while ago.
    pub(crate) fn known(&self, role: &Role) -> Option<Arc<AwsCredential>> {
        let known = self.kept(|kept| kept.get(role).cloned());
        known.filter(|(asked, _)| asked.elapsed() < USED_FOR).map(|(_, credential)| credential)
    }

    /// Asks for the keys of a role, with those of `own`.
    pub(crate) async fn assume(
        &self,
        role: Role,
        own: &AwsCredential,
        client: &reqwest::Client,
    ) -> Result<Arc<AwsCredential>, Error> {
        let asked = Instant::now();
        let failed = |why: String| Error::Store(format!("role {} can't be taken on: {why}", role.arn));
        let request = signed(&role, own).map_err(failed)?;
        let answer = s3::text_of("the service", client.execute(request).await).await.map_err(failed)?;
        let credential = read(&answer).ok_or_else(|| failed("the answer holds no keys".to_owned()))?;
        let credential = Arc::new(credential);
        self.kept(|kept| {
            if kept.len() >= ROLES_MAX {
                kept.clear();
            }
            kept.insert(role, (asked, Arc::clone(&credential)));
        });
        Ok(credential)
    }
}

fn address(region: &str) -> Result<Url, String> {
    let address = std::env::var(ADDRESS_VARIABLE).unwrap_or_else(|_| {
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("https://sts.{region}.amazonaws.com{suffix}/")
    });
    address.parse().map_err(|error| format!("{ADDRESS_VARIABLE} {address:?}: {error}"))
}

fn signed(role: &Role, own: &AwsCredential) -> Result<reqwest::Request, String> {
    let address = address(&role.region)?;
    let seconds = ROLE_SECONDS.to_string();
    let fields = [
        ("Action", "AssumeRole"),
        ("Version", "2011-06-15"),
        ("RoleArn", role.arn.as_str()),
        ("RoleSessionName", "argosy"),
        ("DurationSeconds", seconds.as_str()),
    ];
    let body = Bytes::from(Serializer::new(String::new()).extend_pairs(fields).finish());
    let request = http::Request::post(address.as_str()).header("content-type", FORM);
    let mut request: HttpRequest = request.body(body.clone().into()).map_err(|error| error.to_string())?;
    let signs = AwsAuthorizer::new(own, "sts", &role.region);
    signs.try_authorize(&mut request, None).map_err(|error| error.to_string())?;
    let mut sent = reqwest::Request::new(reqwest::Method::POST, address);
    *sent.headers_mut() = request.headers().clone();
    *sent.body_mut() = Some(body.into());
    Ok(sent)
}

fn read(answer: &str) -> Option<AwsCredential> {
    let text = |name| element(answer, name).filter(|text| !text.is_empty());
    let (key_id, secret_key) = (text("AccessKeyId")?, text("SecretAccessKey")?);
    Some(AwsCredential { key_id, secret_key, token: text("SessionToken") })
}
