//! Metrics and health.

use anyhow::Context;
use argosy_agent_runtime::Figure;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// What the page shows, written by the agent's task.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub cluster: String,
    /// This replica is the cluster's agent, and serves its executors.
    pub is_active: bool,
    /// In step with the control plane.
    pub is_synced: bool,
    pub lease_remaining_ms: u64,
    pub attempts: BTreeMap<&'static str, u64>,
    pub others: Vec<Figure>,
}

pub type SharedFigures = Arc<Mutex<Figures>>;

impl Figures {
    fn render(&self) -> String {
        let cluster = self.cluster.replace(['\\', '"', '\n'], "_");
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(text, "# HELP argosy_agent_{name} {help}\n# TYPE argosy_agent_{name} {kind}");
        };
        let help =
            "1 while this replica is the cluster's agent: the only one, or the holder of the Lease; else 0.";
        head(&mut text, "leader", "gauge", help);
        let _ = writeln!(text, "argosy_agent_leader{{cluster=\"{cluster}\"}} {}", u8::from(self.is_active));
        head(&mut text, "synced", "gauge", "1 while the agent is in step with the control plane, else 0.");
        let _ = writeln!(text, "argosy_agent_synced{{cluster=\"{cluster}\"}} {}", u8::from(self.is_synced));
        head(&mut text, "lease_remaining_seconds", "gauge", "Seconds for which start permits may be given.");
        let seconds = self.lease_remaining_ms / 1000;
        let _ = writeln!(text, "argosy_agent_lease_remaining_seconds{{cluster=\"{cluster}\"}} {seconds}");
        head(&mut text, "attempts", "gauge", "Attempts held, by phase.");
        for (phase, count) in &self.attempts {
            let _ =
                writeln!(text, "argosy_agent_attempts{{cluster=\"{cluster}\",phase=\"{phase}\"}} {count}");
        }
        for Figure { name, help, is_gauge, value } in &self.others {
            head(&mut text, name, if *is_gauge { "gauge" } else { "counter" }, help);
            let _ = writeln!(text, "argosy_agent_{name}{{cluster=\"{cluster}\"}} {value}");
        }
        text
    }
}

/// Serves `/metrics`, `/healthz` (the process works), `/activez` (this replica serves executors) and `/readyz` (in step with
/// the control plane).
pub async fn serve(
    listen: SocketAddr,
    figures: SharedFigures,
    tasks: &mut tokio::task::JoinSet<()>,
) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| {
        format!("cannot serve metrics on {listen}; choose another address with --metrics-listen")
    })?;
    tracing::info!(address = %listener.local_addr()?, "serving metrics");
    let (shown, active) = (Arc::clone(&figures), Arc::clone(&figures));
    let router = Router::new()
        .route("/metrics", get(async move || shown.lock().unwrap_or_else(PoisonError::into_inner).render()))
        .route("/healthz", get(async || "ok"))
        .route(
            "/activez",
            get(async move || {
                if active.lock().unwrap_or_else(PoisonError::into_inner).is_active {
                    (StatusCode::OK, "this replica is the cluster's agent")
                } else {
                    (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "another replica is the cluster's agent, or none is yet",
                    )
                }
            }),
        )
        .route(
            "/readyz",
            get(async move || {
                if figures.lock().unwrap_or_else(PoisonError::into_inner).is_synced {
                    (StatusCode::OK, "in step with the control plane")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "not in step with the control plane")
                }
            }),
        );
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the metrics page ended");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_prometheus_text() {
        let figures = Figures {
            cluster: "eu".to_owned(),
            is_active: true,
            is_synced: true,
            lease_remaining_ms: 12_900,
            attempts: BTreeMap::from([("Running", 3)]),
            others: vec![
                Figure::counter("permits_granted_total", "Start permits given.", 7),
                Figure::gauge("creations_waiting", "Creations that wait.", 2),
            ],
        };
        let page = figures.render();
        for line in [
            "argosy_agent_leader{cluster=\"eu\"} 1",
            "argosy_agent_synced{cluster=\"eu\"} 1",
            "argosy_agent_lease_remaining_seconds{cluster=\"eu\"} 12",
            "argosy_agent_attempts{cluster=\"eu\",phase=\"Running\"} 3",
            "# TYPE argosy_agent_permits_granted_total counter",
            "argosy_agent_permits_granted_total{cluster=\"eu\"} 7",
            "# TYPE argosy_agent_creations_waiting gauge",
            "argosy_agent_creations_waiting{cluster=\"eu\"} 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in {page}");
        }
    }
}
