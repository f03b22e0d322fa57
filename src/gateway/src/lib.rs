//! REST: the API that Argo's clients know, and the control plane's own few routes.
//!
//! The gateway translates: requests to commands and reads, replies and views to Argo's JSON, refusals to Argo's error
//! envelopes. It holds no workflow state, decides nothing and opens no socket: [`router`] is given to the server, which
//! listens, speaks TLS and implements [`Cell`].
//!
//! Invariants:
//! - An answered change is committed; an answer of unknown outcome says so and is safe to repeat with the same
//!   `Idempotency-Key`.
//! - GET and LIST see every change that was answered before, on any member, unless `consistency=stale` is asked for.
//! - Nothing under `/api` is answered without a token.
//! - Every body, stream, list and log line has a maximum ([`Limits`]).
//!
//! Failure model: without a leader, changes and reads fail with 503 (gRPC code 14) and change nothing; stale reads,
//! `/healthz` and `/metrics` go on. A watcher that falls behind is told so and cut off.

mod archive;
mod artifact;
mod auth;
mod authority;
mod cell;
mod cluster;
mod cluster_change;
mod config_map;
mod cron;
mod drill;
mod envelope;
mod event_binding;
mod failover;
mod fields;
mod http;
mod info;
mod list;
mod log;
mod member;
mod objects;
mod operator;
mod selector;
mod stream;
mod submission;
mod submit;
mod sync;
mod template;
#[cfg(feature = "testing")]
pub mod testing;
mod view;
mod watch;
mod workflow;

use argosy_telemetry::Metrics;
use axum::Router;
use axum::routing::{get, post, put};
use std::sync::Arc;
use tokio::sync::Semaphore;

pub use auth::{Identity, Role, Tokens, hash_token};
pub use cell::{
    ArchiveError, Archived, ArtifactPlace, Behind, Cell, CellStatus, Change, ClusterRecord, CommandError,
    Consistency, DrainRecord, DrillRecord, Invite, InviteRequest, LogError, LogQuery, LogSource,
    MemberStatus, NextTakeOver, ReadError, SessionStatus, StormStatus, Summary, View,
};
pub use cluster::{clock_is_off, standing_word, state_word};
pub use info::Version;
pub use view::archived_view;

/// What can go wrong before the gateway serves.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tokens file is of no use.
    #[error("tokens file {path}: {reason}")]
    Tokens {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
}

/// The gateway's named maxima.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of a too large body that are still read, so that its sender gets an answer.
    pub body_drain_bytes_max: usize,
    /// Watches and log streams open at once.
    pub streams_max: usize,
    /// Items of one list; the rest follows through `continue`.
    pub list_items_max: usize,
    /// Bytes of a log line; a longer one is split.
    pub log_line_bytes_max: usize,
    /// Log lines that wait for a slow reader.
    pub log_lines_queued_max: usize,
    /// Attempts whose output one request reads at once.
    pub log_sources_max: usize,
    /// Milliseconds between the signs of life of a quiet event stream.
    pub keep_alive_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 2 * 1024 * 1024,
            body_drain_bytes_max: 32 * 1024 * 1024,
            streams_max: 1_000,
            list_items_max: 500,
            log_line_bytes_max: 64 * 1024,
            log_lines_queued_max: 256,
            log_sources_max: 100,
            keep_alive_ms: 15_000,
        }
    }
}

/// What the server decides about the gateway.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Who may call.
    pub tokens: Tokens,
    /// The named maxima.
    pub limits: Limits,
    /// What `/api/v1/version` tells.
    pub version: Version,
    /// What `/api/v1/info` tells as Argo's managed namespace; empty for all.
    pub managed_namespace: String,
    /// Finished workflows go to an archive, which is part of lists.
    pub archive: bool,
    /// What decisions obey: plans of drills are made by it.
    pub decisions: argosy_model::Limits,
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct App<C> {
    pub cell: C,
    pub metrics: Metrics,
    pub tokens: Arc<Tokens>,
    pub limits: Arc<Limits>,
    pub version: Arc<Version>,
    pub managed_namespace: Arc<str>,
    pub archive: bool,
    pub decisions: Arc<argosy_model::Limits>,
    pub streams: Arc<Semaphore>,
}

/// All routes of the API listener.
pub fn router<C: Cell>(cell: C, metrics: Metrics, options: Options) -> Router {
    let app = App {
        cell,
        metrics,
        streams: Arc::new(Semaphore::new(options.limits.streams_max)),
        tokens: Arc::new(options.tokens),
        limits: Arc::new(options.limits),
        version: Arc::new(options.version),
        managed_namespace: options.managed_namespace.into(),
        archive: options.archive,
        decisions: Arc::new(options.decisions),
    };
    let guarded = api::<C>()
        .route("/metrics", get(info::metrics::<C>))
        .layer(axum::middleware::from_fn_with_state(app.clone(), http::authenticate::<C>));
    guarded
        .merge(open::<C>())
        .layer(axum::middleware::from_fn_with_state(app.clone(), http::observe::<C>))
        .with_state(app)
}

/// The routes of the metrics listener, which asks for no token.
pub fn metrics_router<C: Cell>(cell: C, metrics: Metrics) -> Router {
    let options = Options::default();
    let app = App {
        cell,
        metrics,
        streams: Arc::new(Semaphore::new(0)),
        tokens: Arc::default(),
        limits: Arc::new(options.limits),
        version: Arc::default(),
        managed_namespace: "".into(),
        archive: false,
        decisions: Arc::default(),
    };
    Router::new()
        .route("/metrics", get(info::metrics::<C>))
        .route("/healthz", get(info::alive))
        .route("/readyz", get(info::ready::<C>))
        .with_state(app)
}

fn api<C: Cell>() -> Router<App<C>> {
    let workflow = get(workflow::get::<C>).delete(workflow::delete::<C>);
    let sync_limit = get(sync::get::<C>).put(sync::update::<C>).delete(sync::delete::<C>);
    let config_map = get(config_map::get::<C>).put(config_map::update::<C>).delete(config_map::delete::<C>);
    templates::<C>()
        .merge(crons::<C>())
        .merge(archived::<C>())
        .merge(drills::<C>())
        .route("/api/v1/workflows/", get(list::list_all::<C>))
        .route("/api/v1/workflows/{namespace}/submit", post(submit::submit::<C>).get(submit::get_submit::<C>))
        .route("/api/v1/workflows/{namespace}", get(list::list::<C>).post(workflow::create::<C>))
        .route("/api/v1/workflows/{namespace}/lint", post(workflow::lint::<C>).get(workflow::get_lint::<C>))
        .route("/api/v1/workflows/{namespace}/{name}", workflow)
        .route("/api/v1/workflows/{namespace}/{name}/suspend", put(operator::suspend::<C>))
        .route("/api/v1/workflows/{namespace}/{name}/resume", put(operator::resume::<C>))
        .route("/api/v1/workflows/{namespace}/{name}/set", put(operator::set::<C>))
        .route("/api/v1/workflows/{namespace}/{name}/stop", put(operator::stop::<C>))
        .route("/api/v1/workflows/{namespace}/{name}/terminate", put(operator::terminate::<C>))
        .route("/api/v1/workflows/{namespace}/{name}/retry", put(operator::retry::<C>))
        .route("/api/v1/workflows/{namespace}/{name}/resubmit", put(operator::resubmit::<C>))
        .route("/api/v1/workflows/{namespace}/{name}/log", get(log::of_workflow::<C>))
        .route("/api/v1/workflows/{namespace}/{name}/{pod}/log", get(log::of_pod::<C>))
        .route("/artifacts/{namespace}/{name}/{node}/{artifact}", get(artifact::output::<C>))
        .route("/input-artifacts/{namespace}/{name}/{node}/{artifact}", get(artifact::input::<C>))
        .route("/artifacts-by-uid/{uid}/{node}/{artifact}", get(artifact::output_by_uid::<C>))
        .route("/input-artifacts-by-uid/{uid}/{node}/{artifact}", get(artifact::input_by_uid::<C>))
        .route("/artifact-files/{namespace}/{discriminator}/{id}/{*rest}", get(artifact::file::<C>))
        .route("/api/v1/workflow-events/", get(watch::watch_all::<C>))
        .route("/api/v1/workflow-events/{namespace}", get(watch::watch::<C>))
        .route("/api/v1/configmaps/{namespace}", get(config_map::list::<C>).post(config_map::create::<C>))
        .route("/api/v1/configmaps/{namespace}/{name}", config_map)
        .route("/api/v1/sync/{namespace}", post(sync::create::<C>))
        .route("/api/v1/sync/{namespace}/{key}", sync_limit)
        .route("/api/v1/info", get(info::info::<C>))
        .route("/api/v1/version", get(info::version::<C>))
        .route("/api/v1/userinfo", get(info::user))
        .route("/api/v1/tracking/event", post(info::tracking))
        .route("/api/v1/authority", get(authority::get::<C>))
        .route("/api/v1/authority/roll", post(authority::roll::<C>))
        .route("/api/v1/failover", get(failover::status::<C>))
        .route("/api/v1/failover/resume", post(failover::resume::<C>))
        .route("/api/v1/clusters", get(cluster::list::<C>))
        .route("/api/v1/clusters/{name}", get(cluster::get::<C>))
        .route("/api/v1/clusters/{name}/invite", post(cluster::invite::<C>))
        .route("/api/v1/clusters/{name}/cordon", post(cluster_change::cordon::<C>))
        .route("/api/v1/clusters/{name}/uncordon", post(cluster_change::uncordon::<C>))
        .route("/api/v1/clusters/{name}/drain", post(cluster_change::drain::<C>))
        .route("/api/v1/clusters/{name}/label", post(cluster_change::label::<C>))
        .route("/api/v1/clusters/{name}/taint", post(cluster_change::taint::<C>))
        .route("/api/v1/clusters/{name}/approve", post(cluster_change::approve::<C>))
        .route("/api/v1/clusters/{name}/revoke", post(cluster_change::revoke::<C>))
        .route("/api/v1/clusters/{name}/remove", post(cluster_change::remove::<C>))
        .route("/api/v1/clusters/{name}/quarantine", axum::routing::delete(cluster::release_quarantine::<C>))
        .route("/api/v1/backup", get(member::backup::<C>))
        .route("/api/v1/members", get(member::list::<C>).post(member::add::<C>))
        .route("/api/v1/members/{id}", axum::routing::delete(member::remove::<C>))
        .route("/api/v1/members/{id}/lead", put(member::lead::<C>))
        .route("/api/{*rest}", axum::routing::any(info::not_implemented))
        .method_not_allowed_fallback(info::not_implemented)
}

fn templates<C: Cell>() -> Router<App<C>> {
    use template::{cluster, namespaced};
    let one = |namespaced: bool| {
        if namespaced {
            get(namespaced::get::<C>).put(namespaced::update::<C>).delete(namespaced::delete::<C>)
        } else {
            get(cluster::get::<C>).put(cluster::update::<C>).delete(cluster::delete::<C>)
        }
    };
    let all = "/api/v1/workflow-templates/{namespace}";
    let of_cell = "/api/v1/cluster-workflow-templates";
    Router::new()
        .route(all, get(namespaced::list::<C>).post(namespaced::create::<C>))
        .route(&format!("{all}/lint"), post(namespaced::lint::<C>))
        .route(&format!("{all}/{{name}}"), one(true))
        .route(of_cell, get(cluster::list::<C>).post(cluster::create::<C>))
        .route(&format!("{of_cell}/lint"), post(cluster::lint::<C>))
        .route(&format!("{of_cell}/{{name}}"), one(false))
}

fn crons<C: Cell>() -> Router<App<C>> {
    let all = "/api/v1/cron-workflows/{namespace}";
    let bindings = "/api/v1/workflow-event-bindings/{namespace}";
    Router::new()
        .route("/api/v1/cron-workflows/", get(cron::list_all::<C>))
        .route(all, get(cron::list::<C>).post(cron::create::<C>))
        .route(&format!("{all}/lint"), post(cron::lint::<C>).get(cron::get_lint::<C>))
        .route(
            &format!("{all}/{{name}}"),
            get(cron::get::<C>).put(cron::update::<C>).delete(cron::delete::<C>),
        )
        .route(&format!("{all}/{{name}}/suspend"), put(cron::suspend::<C>))
        .route(&format!("{all}/{{name}}/resume"), put(cron::resume::<C>))
        .route(&format!("{all}/{{name}}/backfill"), post(cron::backfill::<C>))
        .route(bindings, get(event_binding::list::<C>).post(event_binding::create::<C>))
        .route(
            &format!("{bindings}/{{name}}"),
            get(event_binding::get::<C>).delete(event_binding::delete::<C>),
        )
}

fn archived<C: Cell>() -> Router<App<C>> {
    let all = "/api/v1/archived-workflows";
    Router::new()
        .route(all, get(archive::list::<C>))
        .route(&format!("{all}-label-keys"), get(archive::label_keys::<C>))
        .route(&format!("{all}-label-values"), get(archive::label_values::<C>))
        .route(&format!("{all}/{{uid}}"), get(archive::get::<C>).delete(archive::delete::<C>))
        .route(&format!("{all}/{{uid}}/retry"), put(archive::retry::<C>))
        .route(&format!("{all}/{{uid}}/resubmit"), put(archive::resubmit::<C>))
}

fn drills<C: Cell>() -> Router<App<C>> {
    Router::new()
        .route("/api/v1/drills", get(drill::list::<C>).post(drill::begin::<C>))
        .route("/api/v1/drills/plan", post(drill::plan::<C>))
        .route("/api/v1/drills/{id}", get(drill::get::<C>))
        .route("/api/v1/drills/{id}/abort", post(drill::abort::<C>))
        .route("/api/v1/drill-schedules", get(drill::schedules::<C>).post(drill::create_schedule::<C>))
        .route("/api/v1/drill-schedules/{name}", axum::routing::delete(drill::delete_schedule::<C>))
}

fn open<C: Cell>() -> Router<App<C>> {
    Router::new()
        .route("/", get(info::root))
        .route("/healthz", get(info::alive))
        .route("/readyz", get(info::ready::<C>))
        .route("/oauth2/redirect", get(info::no_single_sign_on))
        .fallback(info::not_found)
}
