//! The bytes of frames: agents and control planes of different builds talk to each other.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use argosy_link::control::assign_frame;
use argosy_proto::agent::{self, AgentFrame, ControlFrame, agent_frame, control_frame};
use argosy_proto::common::{
    Assignment, AttemptPhase, AttemptReport, ConfigMapName, ConfigMapNotice, Fence, ReportedConfigMap,
    Verdict,
};
use prost::Message;

const FENCE: Fence = Fence { incarnation: 1, index: 300, ordinal: 2 };
const FENCE_BYTES: [u8; 7] = [0x08, 1, 0x10, 0xac, 0x02, 0x18, 2];

fn framed(start: &[u8], tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = start.to_vec();
    bytes.push(tag);
    bytes.push(u8::try_from(body.len()).unwrap());
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn frames_of_the_agent_keep_their_bytes() {
    let up = |body| AgentFrame { version: 1, session_epoch: 7, body: Some(body) };
    let renew = agent::RenewLease { sequence: 5, runtime_healthy: true, ..agent::RenewLease::default() };
    let start = [0x08, 1, 0x10, 7];
    assert_eq!(
        up(agent_frame::Body::RenewLease(renew)).encode_to_vec(),
        framed(&start, 0x5a, &[0x08, 5, 0x20, 1])
    );

    let page = agent::Resync { held: Vec::new(), last: true, round: 3, page: 4 };
    let expected = framed(&start, 0x62, &[0x10, 1, 0x18, 3, 0x20, 4]);
    assert_eq!(up(agent_frame::Body::Resync(page)).encode_to_vec(), expected);

    let hello = agent::Hello { ledger: 5, ..agent::Hello::default() };
    let expected = framed(&start, 0x52, &[0xe0, 0x0d, 5]);
    assert_eq!(up(agent_frame::Body::Hello(hello)).encode_to_vec(), expected);

    let ask = agent::AskPermit { fence: Some(FENCE), holder: "h".to_owned() };
    let mut body = framed(&[], 0x0a, &FENCE_BYTES);
    body.extend([0x12, 1, b'h']);
    let expected = framed(&[0x08, 1, 0x10, 7, 0xe2], 0x0d, &body);
    assert_eq!(up(agent_frame::Body::AskPermit(ask)).encode_to_vec(), expected);

    let attempt = AttemptReport {
        fence: Some(FENCE),
        revision: 9,
        phase: AttemptPhase::Running.into(),
        permitted: true,
        ..AttemptReport::default()
    };
    let report = agent::Report { attempt: Some(attempt) };
    let mut record = framed(&[], 0x0a, &FENCE_BYTES);
    record.extend([0x10, 9, 0x18, 3, 0x20, 1]);
    let expected = framed(&start, 0x6a, &framed(&[], 0x0a, &record));
    assert_eq!(up(agent_frame::Body::Report(report)).encode_to_vec(), expected);
}

#[test]
fn frames_of_the_control_plane_keep_their_bytes() {
    let down = |body| ControlFrame { version: 1, session_epoch: 7, body: Some(body) };
    let start = [0x08, 1, 0x10, 7];
    let renewed = control_frame::Body::LeaseRenewed(agent::LeaseRenewed { sequence: 5 });
    assert_eq!(down(renewed).encode_to_vec(), framed(&start, 0x5a, &[0x08, 5]));

    let fence = framed(&[], 0x0a, &FENCE_BYTES);
    let assignment = Assignment { fence: Some(FENCE), ..Assignment::default() };
    let expected = framed(&start, 0x6a, &framed(&[], 0x0a, &fence));
    assert_eq!(assign_frame(7, assignment).encode_to_vec(), expected);

    let verdict = agent::PermitVerdict {
        fence: Some(FENCE),
        holder: "h".to_owned(),
        granted: true,
        reason: String::new(),
        exclusive_lease_ms: 3,
    };
    let mut body = fence.clone();
    body.extend([0x12, 1, b'h', 0x18, 1, 0x28, 3]);
    let expected = framed(&[0x08, 1, 0x10, 7, 0xe2], 0x0d, &body);
    assert_eq!(down(control_frame::Body::PermitVerdict(verdict)).encode_to_vec(), expected);

    let verdict =
        agent::ReportVerdict { fence: Some(FENCE), revision: 9, verdict: Verdict::Superseded.into() };
    let mut body = fence;
    body.extend([0x10, 9, 0x18, 2]);
    assert_eq!(
        down(control_frame::Body::ReportVerdict(verdict)).encode_to_vec(),
        framed(&start, 0x7a, &body)
    );
}

#[test]
fn frames_about_config_maps_keep_their_bytes() {
    let name = || Some(ConfigMapName { namespace: "n".to_owned(), name: "c".to_owned() });
    let name_bytes = [0x0a, 1, b'n', 0x12, 1, b'c'];
    let pair = |key: &str| std::collections::BTreeMap::from([(key.to_owned(), "v".to_owned())]);
    let pair_bytes = |key: u8| [0x0a, 1, key, 0x12, 1, b'v'];
    let changed = ReportedConfigMap {
        name: name(),
        labels: pair("l"),
        annotations: pair("a"),
        data: pair("d"),
        immutable: true,
    };
    let report = agent::ConfigMapsReported {
        revision: 3,
        present: name().into_iter().collect(),
        changed: vec![changed],
    };
    let mut contents = framed(&[], 0x0a, &name_bytes);
    contents.extend(framed(&[], 0x12, &pair_bytes(b'l')));
    contents.extend(framed(&[], 0x1a, &pair_bytes(b'a')));
    contents.extend(framed(&[], 0x22, &pair_bytes(b'd')));
    contents.extend([0x28, 1]);
    let body = framed(&framed(&[0x08, 3], 0x12, &name_bytes), 0x1a, &contents);
    let start = [0x08, 1, 0x10, 7, 0xd2];
    let up = AgentFrame {
        version: 1,
        session_epoch: 7,
        body: Some(agent_frame::Body::ConfigMapsReported(report)),
    };
    assert_eq!(up.encode_to_vec(), framed(&start, 0x0a, &body));

    let notice =
        ConfigMapNotice { name: name(), refused: true, code: "c".to_owned(), message: "m".to_owned() };
    let mut told = framed(&[], 0x0a, &name_bytes);
    told.extend([0x10, 1, 0x1a, 1, b'c', 0x22, 1, b'm']);
    let taken = agent::ConfigMapsTaken { revision: 3, notices: vec![notice] };
    let down = ControlFrame {
        version: 1,
        session_epoch: 7,
        body: Some(control_frame::Body::ConfigMapsTaken(taken)),
    };
    assert_eq!(down.encode_to_vec(), framed(&start, 0x0a, &framed(&[0x08, 3], 0x12, &told)));
}

#[test]
fn orders_of_drills_keep_their_bytes() {
    let down = |body| ControlFrame { version: 1, session_epoch: 7, body: Some(body) }.encode_to_vec();
    let silent = agent::FallSilent { drill: 5, for_ms: 9 };
    let start = |key| [0x08, 1, 0x10, 7, key];
    assert_eq!(
        down(control_frame::Body::FallSilent(silent)),
        framed(&start(0xb2), 0x0e, &[0x08, 5, 0x10, 9])
    );
    let fence = Fence { incarnation: 1, index: 2, ordinal: 3 };
    assert_eq!(
        down(control_frame::Body::Kill(agent::Kill { fence: Some(fence) })),
        framed(&start(0xba), 0x0e, &framed(&[], 0x0a, &[0x08, 1, 0x10, 2, 0x18, 3]))
    );
}
