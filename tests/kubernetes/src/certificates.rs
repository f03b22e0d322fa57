//! Certificates and access files of one test cluster.

use crate::Cluster;
use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs::{create_dir_all, write};
use std::net::{IpAddr, Ipv4Addr};

/// Of a second host, should there be one.
pub const SECOND_KUBELET: &str = "kubelet-2";

/// Name, organisation, common name. Kubernetes reads group and user from the last two.
const LEAVES: [(&str, &str, &str); 6] = [
    ("apiserver", "", "kube-apiserver"),
    ("admin", "system:masters", "admin"),
    ("kubelet", "system:nodes", "system:node:"),
    (SECOND_KUBELET, "system:nodes", "system:node:"),
    ("controllers", "", "system:kube-controller-manager"),
    ("scheduler", "", "system:kube-scheduler"),
];

/// The service account of `deploy/agent/rbac.yaml`.
const AGENT_ACCOUNT: &str = "system:serviceaccount:argosy:argosy-agent";

/// Makes a CA, a leaf for each part, the service-account key and one kubeconfig for each client.
pub fn make(cluster: &Cluster) -> Result<()> {
    let folder = cluster.folder.join("pki");
    create_dir_all(&folder)?;
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.distinguished_name.push(DnType::CommonName, format!("test-ca-{}", cluster.name));
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    write(folder.join("ca.crt"), authority.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(authority, key);
    let accounts = KeyPair::generate()?;
    write(folder.join("service-accounts.key"), accounts.serialize_pem())?;
    write(folder.join("service-accounts.pub"), accounts.public_key_pem())?;
    for (name, organisation, common) in LEAVES {
        let common = match name {
            "kubelet" => format!("{common}{}", cluster.name),
            SECOND_KUBELET => format!("{common}{}", cluster.second_host_name()),
            _ => common.to_owned(),
        };
        let mut leaf = CertificateParams::new(
            ["localhost", "kubernetes", "kubernetes.default.svc", &cluster.name].map(str::to_owned),
        )?;
        for address in [Ipv4Addr::LOCALHOST, cluster.address(), Ipv4Addr::new(10, 96, cluster.index, 1)] {
            leaf.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(address)));
        }
        leaf.distinguished_name.push(DnType::CommonName, common);
        if !organisation.is_empty() {
            leaf.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        write(folder.join(format!("{name}.crt")), leaf.signed_by(&key, &issuer)?.pem())?;
        write(folder.join(format!("{name}.key")), key.serialize_pem())?;
        kubeconfig(cluster, name, name, None)?;
    }
    // As an agent in a Pod would be: by impersonation it has the service account's rights and no others.
    kubeconfig(cluster, "agent", "admin", Some(AGENT_ACCOUNT))
}

fn kubeconfig(cluster: &Cluster, file: &str, name: &str, act_as: Option<&str>) -> Result<()> {
    let pki = cluster.folder.join("pki");
    let mut text = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("https://{}", cluster.address()), "certificate-authority": pki.join("ca.crt")}}],
        "users": [{"name": "test", "user": {"client-certificate": pki.join(format!("{name}.crt")), "client-key": pki.join(format!("{name}.key"))}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    if let Some(account) = act_as {
        text["users"][0]["user"]["as"] = account.into();
    }
    write(cluster.folder.join(format!("{file}.kubeconfig")), serde_json::to_string_pretty(&text)?)?;
    Ok(())
}
