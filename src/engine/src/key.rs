use argosy_model::Fence;

/// The key of a row in the `state` family: one byte of table, then big-endian parts, so that rows of a table are
/// contiguous and sorted as their parts are. Table bytes are never reused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The one row of counters.
    Meta,
    /// A workflow by number.
    Workflow(u64),
    /// A workflow's manifest.
    Manifest(u64),
    /// A node of a workflow.
    Node(u64, u32),
    /// What a leaf is to run.
    Work(u64, u32),
    /// A fan-out: workflow, group, slot.
    Expansion(u64, u32, u32),
    /// Fulfilled dependencies: workflow, DAG, task.
    Wait(u64, u32, u32),
    /// Work to be decided: workflow, sequence.
    Agenda(u64, u64),
    /// An attempt by its fence.
    Attempt(Fence),
    /// A timer: due, workflow, node, kind.
    Timer(i64, u64, u32, i32),
    /// A cluster by name.
    Cluster(String),
    /// An invite by the hash of its token.
    Invite(Vec<u8>),
    /// An idempotency key: tenant, key.
    Idempotency(String, String),
    /// A shape that found no cluster.
    Blocked(Vec<u8>),
    /// A stored template: of the cluster's scope, namespace, name.
    Template(bool, String, String),
    /// What a node of an earlier workflow came to: workflow, node name.
    Remembered(u64, String),
    /// An entry of a memoization cache: NAMESPACE/CACHE/KEY.
    Memo(String),
    /// A CronWorkflow by number.
    Cron(u64),
    /// A WorkflowEventBinding: namespace, name.
    EventBinding(String, String),
    /// What state keeps of an archived workflow, by its number.
    Archived(u64),
    /// A task in an object store.
    ArtifactTask(u64),
    /// A member that joined, leaves or has left.
    Member(u64),
    /// A ConfigMap: namespace, name, cluster that reported it (empty: the cell's own).
    ConfigMap(String, String, String),
    /// What a workflow (node 0) or node asks for or holds.
    LockRequest(u64, u32),
    /// A lock whose queue is to be looked at.
    LockCheck(String),
    /// A semaphore's limit that the control plane keeps: namespace, key.
    SyncLimit(String, String),
    /// The cell's certificate authorities.
    Authorities,
    /// A drill by number.
    Drill(u64),
    /// A step that a drill touched: drill, workflow, node.
    DrillStep(u64, u64, u32),
    /// A schedule of drills by name.
    DrillSchedule(String),
}

/// Longest text in a key. Longer names are refused before they come here; a key is read back only if it obeys this.
const TEXT_LENGTH_MAX: usize = 4096;

impl Key {
    /// The row's bytes in the store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        match self {
            Self::Meta => out.push(1),
            Self::Workflow(workflow) => put(&mut out, 2, &[&workflow.to_be_bytes()]),
            Self::Manifest(workflow) => put(&mut out, 3, &[&workflow.to_be_bytes()]),
            Self::Node(workflow, node) => put(&mut out, 4, &[&workflow.to_be_bytes(), &node.to_be_bytes()]),
            Self::Work(workflow, node) => put(&mut out, 5, &[&workflow.to_be_bytes(), &node.to_be_bytes()]),
            Self::Expansion(workflow, node, slot) => {
                put(&mut out, 6, &[&workflow.to_be_bytes(), &node.to_be_bytes(), &slot.to_be_bytes()]);
            }
            Self::Wait(workflow, node, task) => {
                put(&mut out, 7, &[&workflow.to_be_bytes(), &node.to_be_bytes(), &task.to_be_bytes()]);
            }
            Self::Agenda(workflow, sequence) => {
                put(&mut out, 8, &[&workflow.to_be_bytes(), &sequence.to_be_bytes()])
            }
            Self::Attempt(fence) => put(
                &mut out,
                9,
                &[&fence.incarnation.to_be_bytes(), &fence.index.to_be_bytes(), &fence.ordinal.to_be_bytes()],
            ),
            Self::Timer(due, workflow, node, kind) => put(
                &mut out,
                10,
                &[
                    &sortable(*due).to_be_bytes(),
                    &workflow.to_be_bytes(),
                    &node.to_be_bytes(),
                    &kind.to_be_bytes(),
                ],
            ),
            Self::Cluster(name) => put(&mut out, 11, &[name.as_bytes()]),
            Self::Invite(hash) => put(&mut out, 12, &[hash]),
            Self::Idempotency(tenant, key) => {
                let length = u32::try_from(tenant.len()).unwrap_or(u32::MAX);
                put(&mut out, 13, &[&length.to_be_bytes(), tenant.as_bytes(), key.as_bytes()]);
            }
            Self::Blocked(shape) => put(&mut out, 14, &[shape]),
            Self::Template(cluster_scope, namespace, name) => {
                let length = u32::try_from(namespace.len()).unwrap_or(u32::MAX);
                let scope = [u8::from(*cluster_scope)];
                put(&mut out, 20, &[&scope, &length.to_be_bytes(), namespace.as_bytes(), name.as_bytes()]);
            }
            Self::Memo(entry) => put(&mut out, 40, &[entry.as_bytes()]),
            Self::Member(member) => put(&mut out, 240, &[&member.to_be_bytes()]),
            Self::ConfigMap(namespace, name, cluster) => {
                let lengths = [namespace, name].map(|text| u32::try_from(text.len()).unwrap_or(u32::MAX));
                let [namespace_length, name_length] = lengths.map(u32::to_be_bytes);
                let parts = [&namespace_length[..], namespace.as_bytes(), &name_length, name.as_bytes()];
                put(&mut out, 100, &parts);
                out.extend_from_slice(cluster.as_bytes());
            }
            Self::LockRequest(workflow, node) => {
                put(&mut out, 101, &[&workflow.to_be_bytes(), &node.to_be_bytes()]);
            }
            Self::LockCheck(lock) => put(&mut out, 102, &[lock.as_bytes()]),
            Self::SyncLimit(namespace, key) => {
                let length = u32::try_from(namespace.len()).unwrap_or(u32::MAX);
                put(&mut out, 103, &[&length.to_be_bytes(), namespace.as_bytes(), key.as_bytes()]);
            }
            Self::Authorities => out.push(183),
            Self::Drill(drill) => put(&mut out, 230, &[&drill.to_be_bytes()]),
            Self::DrillStep(drill, workflow, node) => {
                put(&mut out, 231, &[&drill.to_be_bytes(), &workflow.to_be_bytes(), &node.to_be_bytes()]);
            }
            Self::DrillSchedule(name) => put(&mut out, 232, &[name.as_bytes()]),
            Self::ArtifactTask(task) => put(&mut out, 200, &[&task.to_be_bytes()]),
            Self::Remembered(workflow, name) => {
                put(&mut out, 21, &[&workflow.to_be_bytes(), name.as_bytes()]);
            }
            Self::Cron(cron) => put(&mut out, 140, &[&cron.to_be_bytes()]),
            Self::Archived(workflow) => put(&mut out, 142, &[&workflow.to_be_bytes()]),
            Self::EventBinding(namespace, name) => {
                let length = u32::try_from(namespace.len()).unwrap_or(u32::MAX);
                put(&mut out, 141, &[&length.to_be_bytes(), namespace.as_bytes(), name.as_bytes()]);
            }
        }
        out
    }

    /// Reads what [`Key::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (table, rest) = bytes.split_first()?;
        let mut rest = Reader(rest);
        let key = match table {
            1 => Self::Meta,
            2 => Self::Workflow(rest.u64()?),
            3 => Self::Manifest(rest.u64()?),
            4 => Self::Node(rest.u64()?, rest.u32()?),
            5 => Self::Work(rest.u64()?, rest.u32()?),
            6 => Self::Expansion(rest.u64()?, rest.u32()?, rest.u32()?),
            7 => Self::Wait(rest.u64()?, rest.u32()?, rest.u32()?),
            8 => Self::Agenda(rest.u64()?, rest.u64()?),
            9 => Self::Attempt(Fence { incarnation: rest.u64()?, index: rest.u64()?, ordinal: rest.u32()? }),
            10 => Self::Timer(unsortable(rest.u64()?), rest.u64()?, rest.u32()?, rest.u32()?.cast_signed()),
            11 => Self::Cluster(rest.text(None)?),
            12 => Self::Invite(rest.bytes(None)?),
            13 => {
                let length = usize::try_from(rest.u32()?).ok()?;
                Self::Idempotency(rest.text(Some(length))?, rest.text(None)?)
            }
            14 => Self::Blocked(rest.bytes(None)?),
            20 => {
                let cluster_scope = match rest.bytes(Some(1))?.as_slice() {
                    [0] => false,
                    [1] => true,
                    _ => return None,
                };
                let length = usize::try_from(rest.u32()?).ok()?;
                Self::Template(cluster_scope, rest.text(Some(length))?, rest.text(None)?)
            }
            21 => Self::Remembered(rest.u64()?, rest.text(None)?),
            40 => Self::Memo(rest.text(None)?),
            140 => Self::Cron(rest.u64()?),
            142 => Self::Archived(rest.u64()?),
            141 => {
                let length = usize::try_from(rest.u32()?).ok()?;
                Self::EventBinding(rest.text(Some(length))?, rest.text(None)?)
            }
            240 => Self::Member(rest.u64()?),
            100 => {
                let length = usize::try_from(rest.u32()?).ok()?;
                let namespace = rest.text(Some(length))?;
                let length = usize::try_from(rest.u32()?).ok()?;
                Self::ConfigMap(namespace, rest.text(Some(length))?, rest.text(None)?)
            }
            101 => Self::LockRequest(rest.u64()?, rest.u32()?),
            102 => Self::LockCheck(rest.text(None)?),
            103 => {
                let length = usize::try_from(rest.u32()?).ok()?;
                Self::SyncLimit(rest.text(Some(length))?, rest.text(None)?)
            }
            183 => Self::Authorities,
            200 => Self::ArtifactTask(rest.u64()?),
            230 => Self::Drill(rest.u64()?),
            231 => Self::DrillStep(rest.u64()?, rest.u64()?, rest.u32()?),
            232 => Self::DrillSchedule(rest.text(None)?),
            _ => return None,
        };
        rest.0.is_empty().then_some(key)
    }
}

fn put(out: &mut Vec<u8>, table: u8, parts: &[&[u8]]) {
    out.push(table);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Keeps the order of signed numbers in big-endian bytes.
fn sortable(number: i64) -> u64 {
    number.cast_unsigned() ^ (1 << 63)
}

fn unsortable(number: u64) -> i64 {
    (number ^ (1 << 63)).cast_signed()
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u64(&mut self) -> Option<u64> {
        let (head, tail) = self.0.split_first_chunk::<8>()?;
        self.0 = tail;
        Some(u64::from_be_bytes(*head))
    }

    fn u32(&mut self) -> Option<u32> {
        let (head, tail) = self.0.split_first_chunk::<4>()?;
        self.0 = tail;
        Some(u32::from_be_bytes(*head))
    }

    fn bytes(&mut self, length: Option<usize>) -> Option<Vec<u8>> {
        let length = length.unwrap_or(self.0.len());
        if length > TEXT_LENGTH_MAX {
            return None;
        }
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head.to_vec())
    }

    fn text(&mut self, length: Option<usize>) -> Option<String> {
        String::from_utf8(self.bytes(length)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<Key> {
        vec![
            Key::Meta,
            Key::Workflow(7),
            Key::Manifest(7),
            Key::Node(7, 3),
            Key::Work(7, 3),
            Key::Expansion(7, 3, 1),
            Key::Wait(7, 3, 1),
            Key::Agenda(7, 9),
            Key::Attempt(Fence { incarnation: 1, index: 2, ordinal: 3 }),
            Key::Timer(-5, 7, 3, 1),
            Key::Timer(5, 7, 3, 1),
            Key::Cluster("eu".into()),
            Key::Invite(vec![1, 2]),
            Key::Idempotency("t".into(), "k".into()),
            Key::Blocked(vec![9; 16]),
            Key::Template(false, "argo".into(), "t".into()),
            Key::Template(true, String::new(), "t".into()),
            Key::Remembered(7, "w.a".into()),
            Key::Memo("argo/cache/key".into()),
            Key::ConfigMap("argo".into(), "limits".into(), String::new()),
            Key::ConfigMap("argo".into(), "limits".into(), "eu".into()),
            Key::LockRequest(7, 3),
            Key::LockCheck("mutex argo/Mutex/m".into()),
            Key::SyncLimit("argo".into(), "limit".into()),
            Key::Cron(7),
            Key::EventBinding("argo".into(), "b".into()),
            Key::Archived(7),
            Key::Authorities,
            Key::ArtifactTask(7),
            Key::Drill(7),
            Key::DrillStep(7, 8, 9),
            Key::DrillSchedule("weekly".into()),
            Key::Member(4),
        ]
    }

    #[test]
    fn keys_read_back_and_keep_their_order() {
        let keys = every_kind();
        let encoded: Vec<_> = keys.iter().map(Key::encode).collect();
        for (key, bytes) in keys.iter().zip(&encoded) {
            assert_eq!(Key::decode(bytes).as_ref(), Some(key));
        }
        assert!(encoded.is_sorted());
    }

    #[test]
    fn keys_keep_their_bytes() {
        assert_eq!(Key::Node(258, 3).encode(), [4, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);
        assert_eq!(Key::Timer(1, 0, 0, 0).encode()[..9], [10, 0x80, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(
            Key::ConfigMap("n".into(), "cm".into(), "eu".into()).encode(),
            [100, 0, 0, 0, 1, b'n', 0, 0, 0, 2, b'c', b'm', b'e', b'u']
        );
        assert_eq!(Key::Drill(7).encode(), [230, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(
            Key::DrillStep(1, 2, 3).encode(),
            [231, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
        );
        assert_eq!(Key::DrillSchedule("w".into()).encode(), [232, b'w']);
    }

    #[test]
    fn foreign_bytes_are_no_key() {
        for bad in [&[][..], &[0], &[2, 1], &[99, 1, 2], &[13, 0, 0, 0, 9, 1], &[1, 1]] {
            assert_eq!(Key::decode(bad), None);
        }
    }
}
