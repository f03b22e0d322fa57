//! The cell's certificate authorities: ours, not Argo's.

use argosy_proto::command::{Command, RollAction, RollAuthority, command};
use argosy_proto::state::RollPhase;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::auth::Identity;
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::http::{Params, decode_object, idempotency_key, read_body};
use crate::list::view;
use crate::workflow::{COMMAND_VERSION, time_text};
use crate::{App, Cell, Consistency, View};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shown<C: Cell>(app: &App<C>, view: &C::View) -> Value {
    let behind: Vec<Value> = view
        .authority_behind()
        .into_iter()
        .map(|(name, reason)| json!({"name": name, "reason": reason}))
        .collect();
    let mut value = json!({"phase": "none", "behind": behind, "bundle": app.cell.trust_roots_pem()});
    let Some(row) = view.authorities() else { return value };
    value["phase"] = json!(match row.phase() {
        RollPhase::Unspecified => "none",
        RollPhase::Trust => "trust",
        RollPhase::Issue => "issue",
    });
    value["since"] = json!(time_text(row.since_ms));
    value["present"] = json!(hex(&row.present));
    if !row.next.is_empty() {
        value["next"] = json!(hex(&row.next));
    }
    if !row.actor.is_empty() {
        value["by"] = json!(row.actor);
    }
    value
}

/// How far a roll is, who is behind, and whom clients have to trust.
pub(crate) async fn get<C: Cell>(State(app): State<App<C>>, params: Params) -> ApiResult {
    let view = view(&app, &params).await?;
    Ok(Answer(shown(&app, &view)))
}

/// Body: `{"action":"begin"}`, or `{"action":"finish","force":false}`.
pub(crate) async fn roll<C: Cell>(
    State(app): State<App<C>>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let request = decode_object(&bytes)?;
    let force = request.get("force") == Some(&Value::Bool(true));
    let actor = identity.name.clone();
    match request.get("action").and_then(Value::as_str) {
        Some("begin") => app.cell.begin_roll(actor).await?,
        Some("finish") => {
            let roll =
                RollAuthority { action: RollAction::Finish.into(), force, actor, ..RollAuthority::default() };
            let command = Command {
                version: COMMAND_VERSION,
                idempotency_key: idempotency_key(&identity, &headers, "finish the roll", &bytes)?,
                body: Some(command::Body::RollAuthority(roll)),
            };
            app.cell.command(command).await?;
        }
        _ => return Err(ApiError::new(Code::InvalidArgument, "action has to be begin or finish")),
    }
    tracing::warn!(action = %request["action"], force, by = identity.name, "the certificate authority is rolled");
    let view = app.cell.read(Consistency::Linearizable).await?;
    Ok(Answer(shown(&app, &view)))
}
