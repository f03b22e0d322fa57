//! A small client of the own API, for `argosy dev` and the demonstration.

use anyhow::{Context, bail};
use argosy_pki::api_client_config;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use std::time::Duration;

/// Asks the members one after the other, so that one of them may be gone.
#[derive(Clone)]
pub struct LocalClient {
    http: reqwest::Client,
    servers: Vec<String>,
    token: String,
}

impl LocalClient {
    /// A client that trusts `roots` only.
    ///
    /// # Errors
    /// A root can't be used.
    pub fn new(
        servers: Vec<String>,
        token: String,
        roots: &[CertificateDer<'static>],
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(api_client_config(roots)?)
            .timeout(Duration::from_secs(15))
            .connect_timeout(Duration::from_secs(2))
            .build()?;
        Ok(Self { http, servers, token })
    }

    /// GET.
    ///
    /// # Errors
    /// No member answers with success.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(reqwest::Method::GET, path, None).await
    }

    /// POST under a fresh idempotency key.
    ///
    /// # Errors
    /// No member answers with success.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(reqwest::Method::POST, path, Some(body)).await
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let key = format!("{:032x}", rand::random::<u128>());
        let mut last = anyhow::anyhow!("there is no server");
        for server in &self.servers {
            let url = format!("https://{server}{path}");
            let mut request = self.http.request(method.clone(), &url).bearer_auth(&self.token);
            if let Some(body) = body {
                request = request.header("Idempotency-Key", &key).json(body);
            }
            match request.send().await {
                Ok(response) if response.status().is_success() => {
                    return response.json().await.with_context(|| format!("the answer of {url}"));
                }
                Ok(response) if response.status().is_client_error() => {
                    let status = response.status();
                    bail!("{url}: {status}: {}", response.text().await.unwrap_or_default());
                }
                Ok(response) => {
                    let status = response.status();
                    last = anyhow::anyhow!("{url}: {status}: {}", response.text().await.unwrap_or_default());
                }
                Err(error) => last = anyhow::Error::new(error).context(url),
            }
        }
        Err(last)
    }
}
