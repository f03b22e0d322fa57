//! ConfigMaps that workflows read: told as the cluster has them, with the rights that the agent's role gives.

use super::{Agent, say};
use argosy_agent_runtime::RuntimeEvent;
use argosy_proto::common::ReportedConfigMap;
use argosy_testcluster::Cluster;

const TYPE: &str = "workflows.argoproj.io/configmap-type";

/// Waits until the newest list of this namespace has these names and values.
async fn newest(agent: &Agent, namespace: &str, wanted: &[(&str, &str)]) {
    let of_namespace =
        |one: &&ReportedConfigMap| one.name.as_ref().is_some_and(|name| name.namespace == namespace);
    let shown = |one: &ReportedConfigMap| (one.name.clone().unwrap_or_default().name, one.data["k"].clone());
    let wanted: Vec<_> = wanted.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let start = std::time::Instant::now();
    loop {
        let newest = agent.events.lock().unwrap().iter().rev().find_map(|event| match event {
            RuntimeEvent::ConfigMaps(all) => {
                Some(all.iter().filter(of_namespace).map(shown).collect::<Vec<_>>())
            }
            _ => None,
        });
        if newest.as_ref() == Some(&wanted) {
            return;
        }
        assert!(start.elapsed() < super::WAIT, "wanted {wanted:?}, told {newest:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

pub async fn are_told_as_they_change(agent: &Agent, cluster: &Cluster) {
    let on = |words: &str| {
        let words: Vec<&str> = ["-n", "told"].into_iter().chain(words.split(' ')).collect();
        cluster.kubectl(&words).unwrap();
    };
    cluster.kubectl(&["create", "namespace", "told"]).unwrap();
    for name in ["params", "limits", "plain", "plugin"] {
        on(&format!("create configmap {name} --from-literal=k=1"));
    }
    on(&format!("label configmap params {TYPE}=Parameter"));
    on(&format!("label configmap limits {TYPE}=Semaphore"));
    on(&format!("label configmap plugin {TYPE}=ExecutorPlugin"));
    newest(agent, "told", &[("limits", "1"), ("params", "1")]).await;
    on(r#"patch configmap limits --type=merge -p {"data":{"k":"2"}}"#);
    newest(agent, "told", &[("limits", "2"), ("params", "1")]).await;
    on("delete configmap limits");
    on(&format!("label configmap params {TYPE}-"));
    newest(agent, "told", &[]).await;
    say("ConfigMaps");
}
