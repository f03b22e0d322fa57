//! What operators say of clusters: cordon, uncordon, drain, labels, taints, approval, revocation, removal.

use argosy_proto::command::{
    ChangeCluster, ChangeIdentity, Command, DrainCluster, IdentityAction, RemoveCluster,
    command::Body as CommandBody,
};
use argosy_proto::common::Taint;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use crate::auth::Identity;
use crate::cluster::cluster_json;
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::http::{decode_object, idempotency_key, read_body};
use crate::workflow::COMMAND_VERSION;
use crate::{App, Cell, Consistency, View};

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidArgument, message.into())
}

/// One change: who asks, of which cluster, with which body.
struct Change<'a> {
    cluster: String,
    identity: &'a Identity,
    headers: &'a HeaderMap,
    bytes: Bytes,
    request: Map<String, Value>,
}

impl<'a> Change<'a> {
    async fn read<C: Cell>(
        app: &App<C>,
        cluster: String,
        identity: &'a Identity,
        headers: &'a HeaderMap,
        body: Body,
    ) -> Result<Self, ApiError> {
        let bytes = read_body(app, body).await?;
        let request = decode_object(&bytes)?;
        Ok(Self { cluster, identity, headers, bytes, request })
    }

    fn actor(&self) -> String {
        self.identity.name.clone()
    }

    fn texts(&self, field: &str) -> Vec<String> {
        let list = self.request.get(field).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Gives the command and shows the cluster as it is then; one that is gone is an empty object.
    async fn answer<C: Cell>(&self, app: &App<C>, verb: &str, body: CommandBody) -> ApiResult {
        let what = format!("{verb} {}", self.cluster);
        let command = Command {
            version: COMMAND_VERSION,
            idempotency_key: idempotency_key(self.identity, self.headers, &what, &self.bytes)?,
            body: Some(body),
        };
        app.cell.command(command).await?;
        tracing::info!(cluster = self.cluster, verb, by = self.identity.name, "operator");
        let view = app.cell.read(Consistency::Linearizable).await?;
        let status = app.cell.status();
        let record = view.clusters().into_iter().find(|record| record.name == self.cluster);
        Ok(Answer(record.map_or_else(|| json!({}), |record| cluster_json(&record, &status))))
    }
}

pub(crate) async fn cordon<C: Cell>(
    State(app): State<App<C>>,
    Path(name): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    cordoned(&app, name, &identity, &headers, body, true).await
}

pub(crate) async fn uncordon<C: Cell>(
    State(app): State<App<C>>,
    Path(name): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    cordoned(&app, name, &identity, &headers, body, false).await
}

async fn cordoned<C: Cell>(
    app: &App<C>,
    name: String,
    identity: &Identity,
    headers: &HeaderMap,
    body: Body,
    cordon: bool,
) -> ApiResult {
    let change = Change::read(app, name, identity, headers, body).await?;
    let command = ChangeCluster {
        cluster: change.cluster.clone(),
        cordon: Some(cordon),
        actor: change.actor(),
        ..ChangeCluster::default()
    };
    let verb = if cordon { "cordon" } else { "uncordon" };
    change.answer(app, verb, CommandBody::ChangeCluster(command)).await
}

/// Body: `{"deadlineSeconds":600}`; without one, what runs may end in its own time.
pub(crate) async fn drain<C: Cell>(
    State(app): State<App<C>>,
    Path(name): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let change = Change::read(&app, name, &identity, &headers, body).await?;
    let seconds = match change.request.get("deadlineSeconds") {
        None | Some(Value::Null) => 0,
        Some(value) => {
            value.as_u64().ok_or_else(|| bad("deadlineSeconds has to be a whole number of seconds"))?
        }
    };
    let command = DrainCluster {
        cluster: change.cluster.clone(),
        deadline_in_ms: seconds.saturating_mul(1000),
        actor: change.actor(),
    };
    change.answer(&app, "drain", CommandBody::DrainCluster(command)).await
}

/// Body: `{"set":{"region":"eu"},"remove":["zone"]}`.
pub(crate) async fn label<C: Cell>(
    State(app): State<App<C>>,
    Path(name): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let change = Change::read(&app, name, &identity, &headers, body).await?;
    let mut set_labels = BTreeMap::new();
    for (key, value) in change.request.get("set").and_then(Value::as_object).into_iter().flatten() {
        let value =
            value.as_str().ok_or_else(|| bad(format!("the value of label {key:?} has to be a text")))?;
        set_labels.insert(key.clone(), value.to_owned());
    }
    let command = ChangeCluster {
        cluster: change.cluster.clone(),
        set_labels,
        remove_labels: change.texts("remove"),
        actor: change.actor(),
        ..ChangeCluster::default()
    };
    change.answer(&app, "label", CommandBody::ChangeCluster(command)).await
}

/// Body: `{"set":[{"key":"gpu","value":"only","effect":"NoSchedule"}],"remove":["old"]}`.
pub(crate) async fn taint<C: Cell>(
    State(app): State<App<C>>,
    Path(name): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let change = Change::read(&app, name, &identity, &headers, body).await?;
    let text = |taint: &Value, field: &str| taint[field].as_str().unwrap_or_default().to_owned();
    let set = change.request.get("set").and_then(Value::as_array).into_iter().flatten();
    let set_taints = set
        .map(|taint| Taint {
            key: text(taint, "key"),
            value: text(taint, "value"),
            effect: text(taint, "effect"),
        })
        .collect();
    let command = ChangeCluster {
        cluster: change.cluster.clone(),
        set_taints,
        remove_taints: change.texts("remove"),
        actor: change.actor(),
        ..ChangeCluster::default()
    };
    change.answer(&app, "taint", CommandBody::ChangeCluster(command)).await
}

/// Body: `{"reason":"the host was sold"}`; the agent's certificates are not accepted any more, on open streams and new ones.
pub(crate) async fn revoke<C: Cell>(
    State(app): State<App<C>>,
    Path(name): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    identity_changed(&app, name, &identity, &headers, body, ("revoke", IdentityAction::Revoke)).await
}

/// Body: `{"reason":"seen on the console"}`; the cluster that has enrolled is used from here on.
pub(crate) async fn approve<C: Cell>(
    State(app): State<App<C>>,
    Path(name): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    identity_changed(&app, name, &identity, &headers, body, ("approve", IdentityAction::Approve)).await
}

async fn identity_changed<C: Cell>(
    app: &App<C>,
    name: String,
    identity: &Identity,
    headers: &HeaderMap,
    body: Body,
    (verb, action): (&str, IdentityAction),
) -> ApiResult {
    let change = Change::read(app, name, identity, headers, body).await?;
    let reason = match change.request.get("reason") {
        None | Some(Value::Null) => String::new(),
        Some(value) => value.as_str().ok_or_else(|| bad("reason has to be a text"))?.to_owned(),
    };
    let command = ChangeIdentity {
        cluster: change.cluster.clone(),
        action: action.into(),
        reason,
        actor: change.actor(),
    };
    change.answer(app, verb, CommandBody::ChangeIdentity(command)).await
}

/// Body: `{"forget":true}` gives up what the cluster still has.
pub(crate) async fn remove<C: Cell>(
    State(app): State<App<C>>,
    Path(name): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let change = Change::read(&app, name, &identity, &headers, body).await?;
    let command = RemoveCluster {
        cluster: change.cluster.clone(),
        forget: change.request.get("forget") == Some(&Value::Bool(true)),
        actor: change.actor(),
    };
    change.answer(&app, "remove", CommandBody::RemoveCluster(command)).await
}
