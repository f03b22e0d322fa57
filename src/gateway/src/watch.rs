//! Watches of workflows.

use argosy_model::WorkflowKey;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;

use crate::envelope::{ApiError, Code};
use crate::fields::Fields;
use crate::http::Params;
use crate::list::Scope;
use crate::stream::{Framing, Place, respond};
use crate::{App, Cell, Change, Consistency, View};

pub(crate) async fn watch_all<C: Cell>(
    State(app): State<App<C>>,
    headers: HeaderMap,
    params: Params,
) -> Response {
    let framing = Framing::of(&headers);
    begin(&app, None, framing, &params).await.unwrap_or_else(|error| framing.refuse(&error))
}

pub(crate) async fn watch<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    params: Params,
) -> Response {
    let framing = Framing::of(&headers);
    begin(&app, Some(namespace), framing, &params).await.unwrap_or_else(|error| framing.refuse(&error))
}

/// One watch: which workflows, which of their fields.
#[derive(Clone)]
struct Watch {
    scope: Scope,
    fields: Fields,
}

impl Watch {
    fn event<V: View>(&self, kind: &str, view: &V, key: &WorkflowKey) -> Option<Value> {
        let workflow = self.fields.workflow(view.workflow_json(key)?);
        Some(json!({"type": kind, "object": workflow}))
    }

    /// What a batch means to this watch. A workflow whose labels move it into or out of scope appears or goes.
    fn events<V: View>(&self, change: &Change<V>) -> Vec<Value> {
        let mut events = Vec::new();
        for key in &change.workflows {
            let before = self.scope.find(&change.before, key).and_then(|_| change.before.workflow_id(key));
            let after = self.scope.find(&change.after, key).and_then(|_| change.after.workflow_id(key));
            match (before, after) {
                (None, None) => {}
                (None, Some(_)) => events.extend(self.event("ADDED", &change.after, key)),
                (Some(before), Some(after)) if before == after => {
                    events.extend(self.event("MODIFIED", &change.after, key))
                }
                (Some(_), Some(_)) => {
                    events.extend(self.event("DELETED", &change.before, key));
                    events.extend(self.event("ADDED", &change.after, key));
                }
                (Some(_), None) => events.extend(self.event("DELETED", &change.before, key)),
            }
        }
        events
    }
}

fn gone() -> ApiError {
    let message =
        "the requested resourceVersion is too old: list again and watch from the list's resourceVersion";
    ApiError { status: StatusCode::GONE, ..ApiError::new(Code::ResourceExhausted, message) }
}

async fn begin<C: Cell>(
    app: &App<C>,
    namespace: Option<String>,
    framing: Framing,
    params: &Params,
) -> Result<Response, ApiError> {
    let scope = Scope::parse(namespace, params)?;
    let fields = Fields::parse(params.get("fields").unwrap_or_default()).below("result.object");
    let from = params.number("listOptions.resourceVersion")?.filter(|version| *version > 0);
    let place = Place::take(app, "watch")?;
    // Subscribing comes first: a batch applied between the two is then in the view, in the changes, or in both.
    let changes = app.cell.changes();
    let view = app.cell.read(Consistency::Linearizable).await?;
    if let (Some(namespace), Some(name)) = (&scope.namespace, scope.name()) {
        let key = WorkflowKey { namespace: namespace.clone(), name: name.to_owned() };
        if view.workflow_id(&key).is_none() {
            return Err(ApiError::workflow_not_found(name));
        }
    }
    let seen = view.sequence();
    let watch = Watch { scope, fields };
    let present: Vec<WorkflowKey> = match from {
        None => view.workflow_keys(watch.scope.namespace.as_deref()),
        Some(version) if version >= seen => Vec::new(),
        Some(_) => return Err(gone()),
    };
    let first = watch.clone();
    let present = futures::stream::iter(present).filter_map(move |key| {
        let event = first.scope.find(&view, &key).and_then(|_| first.event("ADDED", &view, &key));
        std::future::ready(event.map(Ok))
    });
    let later = changes.flat_map(move |change| {
        let events = match change {
            Ok(change) if change.after.sequence() <= seen => Vec::new(),
            Ok(change) => watch.events(&change).into_iter().map(Ok).collect(),
            Err(behind) => vec![Err(ApiError::new(Code::ResourceExhausted, behind.to_string()))],
        };
        futures::stream::iter(events)
    });
    let keep_alive = Duration::from_millis(app.limits.keep_alive_ms);
    Ok(respond(framing, place, keep_alive, Box::pin(present.chain(later))))
}
