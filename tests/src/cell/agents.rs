//! The agents of a cell.

use super::files::log_directory;
use super::{Cell, binary};
use crate::pods::{self, AgentOptions};
use anyhow::Context;
use serde_json::json;
use std::path::PathBuf;

impl Cell {
    /// kill -9 of an agent; its steps run on.
    pub fn kill_agent(&mut self, cluster: &str) {
        let Some(agent) = self.agents.remove(cluster) else { return };
        if let Ok(pid) = i32::try_from(agent.pid()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// A signal to a running agent alone.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal_agent(&self, cluster: &str, signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
        let pid = self.agents.get(cluster).context("the agent does not run")?.pid();
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Gives every cluster a Secret.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_secret(&self, name: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let directory = self.directory.path().join("secrets").join("_").join(name);
        std::fs::create_dir_all(&directory)?;
        Ok(std::fs::write(directory.join(key), value)?)
    }

    /// Ends an agent and all of its steps at once, as a power cut would.
    pub fn lose_cluster(&mut self, cluster: &str) {
        if let Some(mut agent) = self.agents.remove(cluster) {
            agent.lose();
        }
    }

    fn policy_file(&self, cluster: &str) -> PathBuf {
        self.directory.path().join(format!("policy-{cluster}.yaml"))
    }

    /// What the owner of a cluster allows from the next start of its agent on.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_policy(&self, cluster: &str, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.policy_file(cluster), text)?)
    }

    /// Names that a cluster resolves in its own way, in the form of `/etc/hosts`, from the next start of its agent on.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_hosts(&self, cluster: &str, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.hosts_file(cluster), text)?)
    }

    fn hosts_file(&self, cluster: &str) -> PathBuf {
        self.directory.path().join(format!("hosts-{cluster}"))
    }

    /// A command with the cluster's own names, if it has any.
    fn with_hosts(&self, cluster: &str, binary: PathBuf, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
        let hosts = self.hosts_file(cluster);
        if !hosts.exists() {
            return (binary, arguments);
        }
        let namespaces: &[&str] = if nix::unistd::geteuid().is_root() {
            &["--mount"]
        } else {
            &["--user", "--map-root-user", "--mount"]
        };
        let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
        let mut all: Vec<String> =
            namespaces.iter().chain(&["sh", "-c", script]).map(|one| (*one).to_owned()).collect();
        all.extend([hosts.display().to_string(), binary.display().to_string()]);
        all.extend(arguments);
        (PathBuf::from("unshare"), all)
    }

    /// A command with the cluster's own variables, if it has any.
    fn with_variables(
        &self,
        cluster: &str,
        program: PathBuf,
        arguments: Vec<String>,
    ) -> (PathBuf, Vec<String>) {
        let Some(variables) = self.variables.get(cluster) else { return (program, arguments) };
        let mut all = variables.clone();
        all.push(program.display().to_string());
        all.extend(arguments);
        (PathBuf::from("env"), all)
    }

    /// Enrols a cluster and starts its agent, or starts it again.
    ///
    /// # Errors
    /// No invite, or the agent does not start.
    pub async fn start_agent(&mut self, cluster: &str) -> anyhow::Result<()> {
        let (program, arguments) = match self.kubernetes.get(cluster) {
            Some(real) => {
                let arguments = pods::agent_arguments(self, real, &AgentOptions::default()).await?;
                (binary("argosy-agent")?, arguments)
            }
            None => {
                let arguments = self.process_agent_arguments(cluster).await?;
                let (program, arguments) = self.with_hosts(cluster, binary("argosy-agent")?, arguments);
                self.with_variables(cluster, program, arguments)
            }
        };
        let log = log_directory(self.directory.path()).join(format!("cluster-{cluster}.log"));
        let process = self.launch(cluster, &format!("cluster {cluster}"), &program, &arguments, &log)?;
        self.agents.insert(cluster.to_owned(), process);
        Ok(())
    }

    async fn process_agent_arguments(&self, cluster: &str) -> anyhow::Result<Vec<String>> {
        let data = self.directory.path().join(format!("cluster-{cluster}"));
        std::fs::create_dir_all(&data)?;
        let mut arguments: Vec<String> = [
            "--cluster",
            cluster,
            "--runtime",
            "process",
            "--executor-listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0",
            "--data-dir",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(data.display().to_string());
        let secrets = self.directory.path().join("secrets");
        arguments.extend(["--artifact-secrets".to_owned(), secrets.display().to_string()]);
        let policy = self.policy_file(cluster);
        if policy.exists() {
            arguments.extend(["--policy".to_owned(), policy.display().to_string()]);
        }
        let invite = data.join("invite");
        if !invite.exists() {
            let answer =
                self.post(&format!("/api/v1/clusters/{cluster}/invite"), &json!({"ttlSeconds": 600})).await?;
            std::fs::write(&invite, answer["token"].as_str().context("an invite has a token")?)?;
        }
        arguments.extend(["--invite-file".to_owned(), invite.display().to_string()]);
        Ok(arguments)
    }
}
