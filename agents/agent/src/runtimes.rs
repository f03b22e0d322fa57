//! Sets up the chosen runtime.

use crate::Config;
use crate::artifacts;
use crate::config::{ExecutorDelivery, RuntimeKind};
use crate::simulated::SimulatedRuntime;
use anyhow::Context;
use argosy_agent_runtime::server::{ExecutorServer, Executors, Options as ServerOptions};
use argosy_agent_runtime::{ExecutorAnswer, Policy, Runtime, RuntimeAction, RuntimeEvent};
use argosy_artifacts::Stores;
use argosy_kubernetes::KubernetesRuntime;
use argosy_kubernetes::pod::Delivery;
use argosy_link::Millis;
use argosy_process::{ProcessRuntime, host_resources};
use argosy_proto::common;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Who answers executors.
enum Answers {
    Server(Executors),
    Simulated(Arc<SimulatedRuntime>),
}

/// A runtime and the way back to its executors.
pub struct Running {
    pub runtime: Arc<dyn Runtime>,
    /// The object stores that the cluster has Secrets for.
    pub stores: Arc<Stores>,
    answers: Answers,
}

impl Running {
    /// Passes an action on. A permit goes with the end of the lease under which it is given.
    pub fn act(&self, action: RuntimeAction, lease_until: Millis) {
        if let (RuntimeAction::GrantPermit { fence, holder }, Answers::Server(executors)) =
            (&action, &self.answers)
        {
            executors.permit_until(*fence, holder, lease_until);
        }
        self.runtime.act(action);
    }

    /// Requests to stores are signed under a live lease only.
    pub fn lease_until(&self, until: Millis) {
        match &self.answers {
            Answers::Server(executors) => executors.lease_until(until),
            Answers::Simulated(_) => {}
        }
    }

    pub fn answer(&self, answer: ExecutorAnswer) {
        match &self.answers {
            Answers::Server(executors) => executors.answer(&answer),
            Answers::Simulated(runtime) => runtime.answer(answer),
        }
    }
}

/// The runtime's kind, as the link names it.
pub fn kind(config: &Config) -> common::Runtime {
    match config.runtime {
        RuntimeKind::Kubernetes => common::Runtime::Kubernetes,
        RuntimeKind::Process => common::Runtime::Process,
        RuntimeKind::Simulated => common::Runtime::Simulated,
    }
}

async fn connect(config: &Config) -> anyhow::Result<argosy_kubernetes::Client> {
    Ok(argosy_kubernetes::connect(config.kubeconfig.as_deref(), config.context.as_deref()).await?)
}

/// The address of this machine that the cluster's hosts can reach.
///
/// # Errors
/// No access, or there is none.
pub async fn locate(config: &Config) -> anyhow::Result<std::net::IpAddr> {
    Ok(argosy_kubernetes::address_towards_hosts(&connect(config).await?).await?)
}

/// What is needed before the agent knows who it is.
pub struct Prepared {
    pub kubernetes: Option<argosy_kubernetes::Client>,
    pub cluster_uid: String,
}

impl Prepared {
    pub async fn new(config: &Config) -> anyhow::Result<Self> {
        match config.runtime {
            RuntimeKind::Kubernetes => {
                let client = connect(config).await?;
                let cluster_uid =
                    argosy_kubernetes::cluster_uid(&client, config.namespaces.first().map(String::as_str))
                        .await?;
                Ok(Self { kubernetes: Some(client), cluster_uid })
            }
            RuntimeKind::Process | RuntimeKind::Simulated => {
                Ok(Self { kubernetes: None, cluster_uid: own_uid(config)? })
            }
        }
    }

    /// Starts the server for executors and the runtime; tasks run in `tasks`.
    pub async fn start(
        self,
        config: &Config,
        policy: Option<Arc<Policy>>,
        (cell, cluster): (&str, &str),
        events: mpsc::Sender<RuntimeEvent>,
        tasks: &mut tokio::task::JoinSet<()>,
    ) -> anyhow::Result<Running> {
        let stores = artifacts::stores(config, self.kubernetes.clone());
        if config.runtime == RuntimeKind::Simulated {
            let allocatable = config.capacity(argosy_simulated::Options::default().allocatable);
            let seed =
                std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), cluster);
            let runtime = Arc::new(SimulatedRuntime::start(seed, allocatable, events));
            return Ok(Running {
                runtime: Arc::clone(&runtime) as Arc<dyn Runtime>,
                stores,
                answers: Answers::Simulated(runtime),
            });
        }
        let options = ServerOptions {
            address: config.executor_address,
            artifact_parts_at_once: config.artifact_parts_at_once,
            ..ServerOptions::new(config.executor_listen, &config.data_dir)
        };
        let server = ExecutorServer::start(options, events.clone()).await?;
        let executors = server.executors();
        executors.set_artifacts(Arc::new(artifacts::Signer(Arc::clone(&stores))));
        tracing::info!(address = %executors.address(), "serving executors");
        tasks.spawn(server.run());
        let runtime: Arc<dyn Runtime> = match self.kubernetes {
            Some(client) => {
                let settings = argosy_kubernetes::pod::Settings {
                    cell: cell.to_owned(),
                    cluster: cluster.to_owned(),
                    executor_image: config.executor_image.clone(),
                    delivery: match config.executor_delivery {
                        ExecutorDelivery::Auto | ExecutorDelivery::InitContainer => Delivery::InitContainer,
                        ExecutorDelivery::ImageVolume => Delivery::ImageVolume,
                    },
                    images: config.images.0.clone(),
                    artifact_drivers: config.artifact_drivers.0.clone(),
                };
                let options = argosy_kubernetes::Config {
                    image_volumes_where_possible: config.executor_delivery == ExecutorDelivery::Auto,
                    own_namespace: argosy_kubernetes::own_namespace(),
                    namespaces: config.namespaces.clone(),
                    capacity: config.capacity(common::Resources::default()),
                    resources: argosy_kubernetes::resource::Settings {
                        directory: Some(config.data_dir.join("resources")),
                        jq: Some(std::env::current_exe()?),
                        ..argosy_kubernetes::resource::Settings::default()
                    },
                    config_maps: argosy_kubernetes::config_maps::Settings {
                        enabled: !config.no_config_maps,
                        namespaces: if config.config_map_namespaces.is_empty() {
                            config.namespaces.clone()
                        } else {
                            config.config_map_namespaces.clone()
                        },
                        count_max: config.config_maps_max,
                        bytes_max: config.config_maps_bytes_max,
                    },
                    finalizer_max_ms: config.finalizer_max_ms,
                    host_lost_after_ms: config.host_lost_after_ms,
                    policy,
                    ..argosy_kubernetes::Config::new(settings)
                };
                Arc::new(KubernetesRuntime::start(options, client, executors.clone(), events)?)
            }
            None => Arc::new(process(config, &executors, events)?),
        };
        Ok(Running { runtime, stores, answers: Answers::Server(executors) })
    }
}

fn process(
    config: &Config,
    executors: &Executors,
    events: mpsc::Sender<RuntimeEvent>,
) -> anyhow::Result<ProcessRuntime> {
    let executor = match &config.executor {
        Some(executor) => executor.clone(),
        None => std::env::current_exe()?.with_file_name("argosy-executor"),
    };
    let mut options =
        argosy_process::Options::new(std::path::absolute(&config.data_dir)?, std::path::absolute(executor)?);
    options.allocatable = config.capacity(host_resources());
    options.isolate = !config.no_isolation;
    Ok(ProcessRuntime::start(options, executors.clone(), events)?)
}

/// Made once, kept in the data directory.
fn own_uid(config: &Config) -> anyhow::Result<String> {
    let path = config.data_dir.join("cluster-uid");
    match std::fs::read_to_string(&path) {
        Ok(uid) if !uid.trim().is_empty() => Ok(uid.trim().to_owned()),
        Ok(_) | Err(_) => {
            let uid = uuid::Uuid::new_v4().to_string();
            std::fs::write(&path, &uid).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(uid)
        }
    }
}
