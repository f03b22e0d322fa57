//! Argo's SyncService: limits of semaphores, in a ConfigMap of the cell's own or kept by the control plane (what Argo
//! calls its database).

use argosy_proto::command::{Command, DeleteSyncLimit, SetSyncLimit, command::Body as CommandBody};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::auth::Identity;
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::http::{Params, decode_object, idempotency_key, read_body};
use crate::workflow::COMMAND_VERSION;
use crate::{App, Cell, Consistency, View};

/// Where a limit is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ConfigMap,
    Database,
}

impl Kind {
    fn of_number(number: i64) -> Result<Self, ApiError> {
        match number {
            0 => Ok(Self::ConfigMap),
            1 => Ok(Self::Database),
            _ => Err(invalid(format!("unsupported sync config type: {number}"))),
        }
    }

    fn of_json(value: Option<&Value>) -> Result<Self, ApiError> {
        match value {
            None | Some(Value::Null) => Ok(Self::ConfigMap),
            Some(Value::Number(number)) => Self::of_number(number.as_i64().unwrap_or(-1)),
            Some(Value::String(text)) if ["CONFIGMAP", "CONFIG_MAP"].contains(&text.as_str()) => {
                Ok(Self::ConfigMap)
            }
            Some(Value::String(text)) if text == "DATABASE" => Ok(Self::Database),
            Some(other) => Err(invalid(format!("unsupported sync config type: {other}"))),
        }
    }

    /// In a query it is a number, as in Argo.
    fn of_query(params: &Params) -> Result<Self, ApiError> {
        let Some(text) = params.get("type") else { return Ok(Self::ConfigMap) };
        match text.parse() {
            Ok(number) => Self::of_number(number),
            Err(_) => {
                Err(ApiError::undecodable(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
            }
        }
    }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidArgument, message)
}

/// One limit.
struct Limit {
    namespace: String,
    key: String,
    kind: Kind,
    config_map: String,
}

impl Limit {
    fn of_request(request: &Map<String, Value>, namespace: String, key: String) -> Result<Self, ApiError> {
        let kind = Kind::of_json(request.get("type"))?;
        let config_map = request.get("cmName").and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { namespace, key, kind, config_map }.checked()
    }

    fn of_query(params: &Params, namespace: String, key: String) -> Result<Self, ApiError> {
        let config_map = params.get("cmName").unwrap_or_default().to_owned();
        Self { namespace, key, kind: Kind::of_query(params)?, config_map }.checked()
    }

    fn checked(mut self) -> Result<Self, ApiError> {
        match self.kind {
            Kind::ConfigMap if self.config_map.is_empty() => {
                Err(invalid("cmName is required for a limit in a ConfigMap"))
            }
            Kind::ConfigMap => Ok(self),
            Kind::Database => {
                self.config_map.clear();
                Ok(self)
            }
        }
    }

    fn shown(&self, limit: i64) -> Value {
        let mut shown = json!({"namespace": self.namespace, "key": self.key, "limit": limit});
        match self.kind {
            Kind::ConfigMap => shown["cmName"] = json!(self.config_map),
            Kind::Database => shown["type"] = json!(1),
        }
        shown
    }

    async fn give<C: Cell>(
        &self,
        app: &App<C>,
        caller: (&Identity, &HeaderMap, &Bytes),
        verb: &str,
        body: CommandBody,
    ) -> Result<(), ApiError> {
        let (identity, headers, bytes) = caller;
        let what = format!("{verb} sync limit {}/{}/{}", self.namespace, self.config_map, self.key);
        let command = Command {
            version: COMMAND_VERSION,
            idempotency_key: idempotency_key(identity, headers, &what, bytes)?,
            body: Some(body),
        };
        app.cell.command(command).await?;
        tracing::info!(key = self.key, namespace = self.namespace, verb, by = identity.name, "sync limit");
        Ok(())
    }

    async fn set<C: Cell>(
        &self,
        app: &App<C>,
        caller: (&Identity, &HeaderMap, &Bytes),
        request: &Map<String, Value>,
        create: bool,
    ) -> ApiResult {
        let limit = request.get("limit").and_then(Value::as_i64).and_then(|limit| i32::try_from(limit).ok());
        let limit = limit.unwrap_or(0);
        let command = SetSyncLimit {
            namespace: self.namespace.clone(),
            key: self.key.clone(),
            config_map: self.config_map.clone(),
            limit,
            create,
            uid: uuid::Uuid::new_v4().to_string(),
        };
        let verb = if create { "create" } else { "update" };
        self.give(app, caller, verb, CommandBody::SetSyncLimit(command)).await?;
        Ok(Answer(self.shown(i64::from(limit))))
    }
}

pub(crate) async fn create<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let request = decode_object(&bytes)?;
    let key = request.get("key").and_then(Value::as_str).unwrap_or_default().to_owned();
    let limit = Limit::of_request(&request, namespace, key)?;
    limit.set(&app, (&identity, &headers, &bytes), &request, true).await
}

pub(crate) async fn update<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, key)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let request = decode_object(&bytes)?;
    let limit = Limit::of_request(&request, namespace, key)?;
    limit.set(&app, (&identity, &headers, &bytes), &request, false).await
}

pub(crate) async fn get<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, key)): Path<(String, String)>,
    params: Params,
) -> ApiResult {
    let limit = Limit::of_query(&params, namespace, key)?;
    let view = app.cell.read(Consistency::Linearizable).await?;
    let Limit { namespace, key, config_map, .. } = &limit;
    let missing = |message: String| Err(ApiError::new(Code::NotFound, message));
    if limit.kind == Kind::Database {
        return match view.sync_limit(namespace, key) {
            Some(found) => Ok(Answer(limit.shown(found.into()))),
            None => missing(format!("Database sync limit not found in namespace {namespace:?}.")),
        };
    }
    let Some(found) = view.config_map(namespace, config_map) else {
        return missing(format!("configmaps {config_map:?} not found"));
    };
    let Some(text) = found["data"].get(key).and_then(Value::as_str) else {
        return missing(format!("key {key} not found in configmap {namespace}/{config_map}"));
    };
    match text.parse::<i64>() {
        Ok(found) => Ok(Answer(limit.shown(found))),
        Err(_) => {
            Err(invalid(format!("invalid limit format for key {key} in configmap {namespace}/{config_map}")))
        }
    }
}

pub(crate) async fn delete<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, key)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    params: Params,
) -> ApiResult {
    let limit = Limit::of_query(&params, namespace, key)?;
    let command = DeleteSyncLimit {
        namespace: limit.namespace.clone(),
        key: limit.key.clone(),
        config_map: limit.config_map.clone(),
    };
    let body = CommandBody::DeleteSyncLimit(command);
    limit.give(&app, (&identity, &headers, &Bytes::new()), "delete", body).await?;
    Ok(Answer(json!({})))
}
