//! Who may talk to whom: real handshakes over memory, one for each row of the matrix.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use argosy_pki::{
    AgentIdentity, AgentKey, Authority, ClientRole, Credentials, Error, Identity, Lifetimes, NoneRevoked,
    Revocations, api_client_config, api_server_config, client_config, explain, generation,
    pinned_client_config, server_config, server_name,
};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOUR_MS: i64 = 3_600_000;
const DAY: Duration = Duration::from_secs(86_400);

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn authority(cell: &str) -> Authority {
    Authority::create(cell, now_ms() - 30 * 24 * HOUR_MS, Lifetimes::default()).unwrap()
}

fn agent_issued_at(authority: &Authority, cluster: &str, issued_ms: i64) -> AgentIdentity {
    let directory = tempfile::tempdir().unwrap();
    let key = AgentKey::load_or_create(directory.path()).unwrap();
    let signed =
        authority.sign_agent(&key.signing_request().unwrap(), cluster, 1, issued_ms, HOUR_MS).unwrap();
    let plain = |certificates: &[argosy_pki::CertificateDer<'static>]| {
        certificates.iter().map(|certificate| certificate.to_vec()).collect::<Vec<_>>()
    };
    AgentIdentity::new(&key, plain(&signed.chain), plain(&authority.roots())).unwrap()
}

fn agent(authority: &Authority) -> Credentials {
    agent_issued_at(authority, "eu-1", now_ms()).credentials
}

fn member(authority: &Authority, id: u64) -> Credentials {
    authority.issue_member(id, &["127.0.0.1".to_owned(), "m1.example".to_owned()], now_ms()).unwrap()
}

fn server(authority: &Authority, clients: ClientRole) -> ServerConfig {
    server_config(&member(authority, 1), &authority.roots(), authority.trust_domain(), clients).unwrap()
}

fn client(credentials: &Credentials, authority: &Authority) -> ClientConfig {
    client_config(credentials, &authority.roots(), authority.trust_domain()).unwrap()
}

/// The client's certificates as the server saw them, or the first side's refusal.
fn shake(server: ServerConfig, client: ClientConfig) -> Result<Vec<Vec<u8>>, String> {
    shake_named(server, client, server_name())
}

fn shake_named(
    server: ServerConfig,
    client: ClientConfig,
    name: argosy_pki::ServerName<'static>,
) -> Result<Vec<Vec<u8>>, String> {
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(|error| format!("server: {}", explain(&error)))?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(|error| format!("client: {}", explain(&error)))?;
        }
        if !server.is_handshaking() && !client.is_handshaking() && !client.wants_write() {
            let certificates = server.peer_certificates().unwrap_or_default();
            return Ok(certificates.iter().map(|certificate| certificate.to_vec()).collect());
        }
    }
    panic!("the handshake does not end");
}

fn without_certificate(authority: &Authority) -> ClientConfig {
    pinned_client_config(authority.fingerprint()).unwrap()
}

#[test]
fn members_and_agents_of_the_cell_connect_and_are_known() {
    let cell = authority("cell-a");
    let seen = shake(server(&cell, ClientRole::Agents), client(&agent(&cell), &cell)).unwrap();
    assert_eq!(Identity::from_certificate(&seen[0]).unwrap(), Identity::Cluster("eu-1".to_owned()));
    let seen = shake(server(&cell, ClientRole::Members), client(&member(&cell, 2), &cell)).unwrap();
    assert_eq!(Identity::from_certificate(&seen[0]).unwrap(), Identity::Member(2));
}

#[test]
fn each_wrong_client_is_refused_with_its_own_reason() {
    let (cell, other) = (authority("cell-a"), authority("cell-b"));
    // Same name, other key: only the signature tells.
    let impostor = authority("cell-a");
    let expired = agent_issued_at(&cell, "eu-1", now_ms() - 3 * HOUR_MS).credentials;
    let early = agent_issued_at(&cell, "eu-1", now_ms() + HOUR_MS).credentials;
    let rows: Vec<(ClientRole, ClientConfig, &str)> = vec![
        (ClientRole::Agents, without_certificate(&cell), "showed no certificate"),
        (ClientRole::Agents, client(&agent(&other), &cell), "another certificate authority"),
        (ClientRole::Agents, client(&agent(&impostor), &cell), "another certificate authority"),
        (ClientRole::Agents, client(&expired, &cell), "has expired"),
        (ClientRole::Agents, client(&early, &cell), "not valid yet"),
        (
            ClientRole::Agents,
            client(&member(&cell, 2), &cell),
            "member 2 may not connect here: a cluster's agent",
        ),
        (ClientRole::Members, client(&agent(&cell), &cell), "cluster eu-1 may not connect here: a member"),
        (ClientRole::Members, without_certificate(&cell), "showed no certificate"),
    ];
    let mut reasons = Vec::new();
    for (role, client, expected) in rows {
        let reason = shake(server(&cell, role), client).unwrap_err();
        assert!(
            reason.starts_with("server: ") && reason.contains(expected),
            "{reason:?} should say {expected:?}"
        );
        reasons.push(reason);
    }
    reasons.sort();
    reasons.dedup();
    assert_eq!(reasons.len(), 6, "{reasons:#?}");
}

#[test]
fn each_wrong_server_is_refused_by_its_client() {
    let (cell, impostor, other) = (authority("cell-a"), authority("cell-a"), authority("cell-b"));
    let credentials = agent(&cell);
    let of = |authority: &Authority| {
        server_config(&member(authority, 1), &cell.roots(), "cell-a", ClientRole::Agents).unwrap()
    };
    let reason = shake(of(&impostor), client(&credentials, &cell)).unwrap_err();
    assert!(reason.starts_with("client: ") && reason.contains("another certificate authority"), "{reason}");
    let reason = shake(of(&other), client(&credentials, &cell)).unwrap_err();
    assert!(reason.contains("belongs to cell \"cell-b\", not to \"cell-a\""), "{reason}");

    let agent_as_server = server_config(&agent(&cell), &cell.roots(), "cell-a", ClientRole::Agents).unwrap();
    let reason = shake(agent_as_server, client(&credentials, &cell)).unwrap_err();
    assert!(reason.contains("cluster eu-1 may not connect here: a member"), "{reason}");

    let old = cell.issue_member(1, &[], now_ms() - 3 * HOUR_MS).unwrap();
    let expired = server_config(&old, &cell.roots(), "cell-a", ClientRole::Agents).unwrap();
    let reason = shake(expired, client(&credentials, &cell)).unwrap_err();
    assert!(reason.starts_with("client: ") && reason.contains("has expired"), "{reason}");
}

#[test]
fn enrolment_goes_without_certificate_to_the_pinned_cell_only() {
    let (cell, other) = (authority("cell-a"), authority("cell-a"));
    let enrolling = || {
        server(
            &cell,
            ClientRole::AgentsEnrolling { renewal_grace: 7 * DAY, revocations: Arc::new(NoneRevoked) },
        )
    };
    assert_eq!(shake(enrolling(), without_certificate(&cell)).unwrap(), Vec::<Vec<u8>>::new());
    let reason = shake(enrolling(), pinned_client_config(other.fingerprint()).unwrap()).unwrap_err();
    assert!(reason.contains("does not belong to the cell that made the invite"), "{reason}");

    // A server that shows the pinned CA without having its signature gains nothing.
    let mut forged = member(&other, 1);
    forged.chain.push(cell.roots().remove(0));
    let forged = server_config(&forged, &cell.roots(), "cell-a", ClientRole::Agents).unwrap();
    let reason = shake(forged, without_certificate(&cell)).unwrap_err();
    assert!(reason.contains("another certificate authority"), "{reason}");

    let reason = shake(enrolling(), client(&agent(&other), &cell)).unwrap_err();
    assert!(reason.contains("another certificate authority"), "{reason}");
}

#[test]
fn an_expired_agent_may_come_back_within_the_grace_to_renew() {
    let cell = authority("cell-a");
    let enrolling = || {
        server(
            &cell,
            ClientRole::AgentsEnrolling { renewal_grace: 7 * DAY, revocations: Arc::new(NoneRevoked) },
        )
    };
    let late = agent_issued_at(&cell, "eu-1", now_ms() - 6 * 24 * HOUR_MS).credentials;
    assert!(late.validity.is_over(now_ms()));
    assert_eq!(shake(enrolling(), client(&late, &cell)).unwrap().len(), 2);
    let too_late = agent_issued_at(&cell, "eu-1", now_ms() - 8 * 24 * HOUR_MS).credentials;
    let reason = shake(enrolling(), client(&too_late, &cell)).unwrap_err();
    assert!(reason.contains("can no longer be renewed"), "{reason}");
}

/// Certificates of the cluster below a generation.
#[derive(Debug)]
struct Below(u64);

impl Revocations for Below {
    fn is_revoked(&self, cluster: &str, generation: u64) -> bool {
        cluster == "eu-1" && generation < self.0
    }
}

#[test]
fn a_revoked_certificate_is_turned_away_at_the_handshake_and_says_so() {
    let cell = authority("cell-a");
    let role =
        |below| ClientRole::AgentsEnrolling { renewal_grace: 7 * DAY, revocations: Arc::new(Below(below)) };
    let first = agent(&cell);
    assert_eq!(generation(&first.chain[0]).unwrap(), 1);
    assert_eq!(generation(&member(&cell, 1).chain[0]).unwrap(), 0, "members' are not numbered");
    assert_eq!(shake(server(&cell, role(1)), client(&first, &cell)).unwrap().len(), 2);
    let reason = shake(server(&cell, role(2)), client(&first, &cell)).unwrap_err();
    assert!(reason.contains("was revoked"), "{reason}");
}

#[test]
fn renewals_of_many_are_spread_and_none_is_late() {
    let validity = agent(&authority("cell-a")).validity;
    let life_s = validity.not_after_s - validity.not_before_s;
    let times: Vec<i64> = (0..1_000_u64).map(|draw| validity.renew_at_jittered_ms(draw * 7_919)).collect();
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*last <= validity.renew_at_ms() && *first >= validity.renew_at_ms() - life_s * 100);
    assert!(last - first > life_s * 90, "they are spread over a tenth of the life");
    let short = Lifetimes::with_leaf(60_000);
    assert_eq!(short.backdate_ms, 6_000, "else half of a short life would be over at once");
}

#[test]
fn the_api_is_verified_by_name() {
    let cell = authority("cell-a");
    let credentials = cell.issue_server(&["api.example".to_owned()], HOUR_MS, now_ms()).unwrap();
    for name in ["localhost", "127.0.0.1", "api.example"] {
        let name = name.try_into().unwrap();
        let client = api_client_config(&cell.roots()).unwrap();
        shake_named(api_server_config(&credentials).unwrap(), client, name).unwrap();
    }
    let client = api_client_config(&cell.roots()).unwrap();
    let other = "other.example".try_into().unwrap();
    assert!(shake_named(api_server_config(&credentials).unwrap(), client, other).is_err());
    // And is no member: an agent does not take it for one.
    let api = server_config(&credentials, &cell.roots(), "cell-a", ClientRole::Agents).unwrap();
    let reason = shake(api, client_config(&agent(&cell), &cell.roots(), "cell-a").unwrap()).unwrap_err();
    assert!(reason.contains("names no identity"), "{reason}");
}

#[test]
fn what_a_request_asks_for_is_not_granted() {
    let cell = authority("cell-a");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    let uri = rcgen::string::Ia5String::try_from("spiffe://cell-a/member/1").unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = params.serialize_request(&key).unwrap();
    match cell.sign_agent(request.der(), "eu-1", 1, now_ms(), HOUR_MS) {
        Ok(signed) => {
            assert_eq!(
                Identity::from_certificate(&signed.chain[0]).unwrap(),
                Identity::Cluster("eu-1".to_owned())
            );
            assert!(!signed.chain[0].windows(12).any(|window| window == b"evil.example"));
        }
        Err(error) => assert!(matches!(error, Error::BadRequest { .. }), "{error}"),
    }
}

#[test]
fn a_request_must_be_signed_with_its_own_key() {
    let cell = authority("cell-a");
    let directory = tempfile::tempdir().unwrap();
    let mut request = AgentKey::load_or_create(directory.path()).unwrap().signing_request().unwrap();
    assert!(cell.check_request(&request, "eu-1").is_ok());
    assert!(matches!(cell.check_request(&request, "Not a label"), Err(Error::BadName { .. })));
    *request.last_mut().unwrap() ^= 1;
    assert!(matches!(cell.check_request(&request, "eu-1"), Err(Error::BadRequest { .. })));
    for bytes in [vec![], vec![0x30; 50], vec![0; 20_000]] {
        assert!(matches!(cell.check_request(&bytes, "eu-1"), Err(Error::BadRequest { .. })));
    }
}

#[test]
fn files_keep_the_identity_and_the_key_is_the_owners() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;

    let authority_directory = directory.path().join("ca");
    let first =
        Authority::load_or_create(&authority_directory, "cell-a", now_ms(), Lifetimes::default()).unwrap();
    let again =
        Authority::load_or_create(&authority_directory, "cell-a", now_ms(), Lifetimes::default()).unwrap();
    assert_eq!(first.fingerprint(), again.fingerprint());
    assert_eq!(mode(&authority_directory.join("ca.key")), 0o600);
    let foreign = Authority::load_or_create(&authority_directory, "cell-b", now_ms(), Lifetimes::default());
    assert!(matches!(foreign, Err(Error::ForeignCell { .. })));
    // Certificates of before and after the restart work together.
    shake(server(&again, ClientRole::Agents), client(&agent(&first), &first)).unwrap();

    let agent_directory = directory.path().join("agent");
    assert!(AgentIdentity::load(&agent_directory).unwrap().is_none());
    let key = AgentKey::load_or_create(&agent_directory).unwrap();
    assert!(AgentIdentity::load(&agent_directory).unwrap().is_none(), "a key alone is no enrolment");
    let request = AgentKey::load_or_create(&agent_directory).unwrap().signing_request().unwrap();
    let signed = again.sign_agent(&request, "eu-1", 1, now_ms(), HOUR_MS).unwrap();
    let chain = signed.chain.iter().map(|certificate| certificate.to_vec()).collect();
    let roots = again.roots().iter().map(|certificate| certificate.to_vec()).collect();
    AgentIdentity::new(&key, chain, roots).unwrap().save(&agent_directory).unwrap();
    assert_eq!(mode(&agent_directory.join("key.pem")), 0o600);
    let loaded = AgentIdentity::load(&agent_directory).unwrap().unwrap();
    assert_eq!((loaded.cluster.as_str(), loaded.trust_domain.as_str()), ("eu-1", "cell-a"));
    assert_eq!(loaded.credentials.chain, signed.chain);
    shake(server(&first, ClientRole::Agents), client(&loaded.credentials, &first)).unwrap();

    std::fs::write(agent_directory.join("cert.pem"), "torn").unwrap();
    assert!(matches!(AgentIdentity::load(&agent_directory), Err(Error::BadFile { .. })));
    std::fs::remove_file(authority_directory.join("ca.key")).unwrap();
    assert!(matches!(
        Authority::load(&authority_directory, Lifetimes::default()),
        Err(Error::BadFile { .. })
    ));
}
