//! State as rows of the `state` family, and back.

use std::sync::Arc;

use argosy_proto::state as row;
use prost::Message;

use crate::key::Key;
use crate::state::{NODE_ROW_VERSION, ROW_VERSION, State};

impl State {
    pub(crate) fn load_row(&mut self, key: Key, value: &[u8]) -> Option<()> {
        match key {
            Key::Meta => self.meta = read(value, |row: &row::Meta| row.version)?,
            Key::Workflow(id) => {
                drop(self.workflows.insert(id, Arc::new(read(value, |row: &row::Workflow| row.version)?)))
            }
            Key::Manifest(id) => {
                drop(self.manifests.insert(id, Arc::new(read(value, |row: &row::Manifest| row.version)?)))
            }
            Key::Node(id, node) => {
                let row = row::Node::decode(value).ok().filter(|row| row.version == NODE_ROW_VERSION)?;
                drop(self.nodes.insert((id, node), Arc::new(row)));
            }
            Key::Work(id, node) => {
                drop(self.works.insert((id, node), Arc::new(read(value, |row: &row::Work| row.version)?)))
            }
            Key::Expansion(id, node, slot) => {
                drop(
                    self.expansions
                        .insert((id, node, slot), Arc::new(read(value, |row: &row::Expansion| row.version)?)),
                );
            }
            Key::Wait(id, node, task) => {
                self.waits.insert((id, node, task), read(value, |row: &row::DagWait| row.version)?);
            }
            Key::Agenda(id, sequence) => {
                self.agenda.insert((id, sequence), read(value, |row: &row::AgendaItem| row.version)?);
            }
            Key::Attempt(fence) => {
                drop(self.attempts.insert(fence, Arc::new(read(value, |row: &row::Attempt| row.version)?)))
            }
            Key::Timer(due, id, node, kind) => {
                read(value, |row: &row::Timer| row.version)?;
                self.timers.insert((due, id, node, kind), ());
            }
            Key::Cluster(name) => {
                drop(
                    self.clusters
                        .insert(Arc::from(name), Arc::new(read(value, |row: &row::Cluster| row.version)?)),
                );
            }
            Key::Invite(hash) => {
                drop(self.invites.insert(hash, read(value, |row: &row::Invite| row.version)?))
            }
            Key::Idempotency(tenant, key) => {
                drop(
                    self.idempotency
                        .insert((tenant, key), Arc::new(read(value, |row: &row::Idempotency| row.version)?)),
                );
            }
            Key::Blocked(shape) => {
                drop(self.blocked.insert(shape, read(value, |row: &row::Blocked| row.version)?))
            }
            Key::ArtifactTask(task) => {
                let row = Arc::new(read(value, |row: &row::ArtifactTask| row.version)?);
                self.artifact_tasks.insert(task, row);
            }
            Key::Memo(entry) => {
                let memo = Arc::new(read(value, |row: &row::Memo| row.version)?);
                self.memos.insert(entry, memo);
            }
            Key::ConfigMap(namespace, name, cluster) => {
                let config_map = Arc::new(read(value, |row: &row::ConfigMap| row.version)?);
                self.config_maps.insert((namespace, name, cluster), config_map);
            }
            Key::LockRequest(id, node) => {
                let request = Arc::new(read(value, |row: &row::LockRequest| row.version)?);
                self.lock_requests.insert((id, node), request);
            }
            Key::LockCheck(lock) => {
                read(value, |row: &row::LockCheck| row.version)?;
                self.lock_checks.insert(Arc::from(lock));
            }
            Key::SyncLimit(namespace, key) => {
                let limit = read(value, |row: &row::SyncLimit| row.version)?;
                self.sync_limits.insert((namespace, key), limit);
            }
            Key::Template(cluster_scope, namespace, name) => {
                let template = Arc::new(read(value, |row: &row::Template| row.version)?);
                self.templates.insert((cluster_scope, namespace, name), template);
            }
            Key::Authorities => {
                self.authorities = Some(Arc::new(read(value, |row: &row::Authorities| row.version)?));
            }
            Key::Member(member) => {
                self.members.insert(member, read(value, |row: &row::Member| row.version)?);
            }
            Key::Cron(id) => {
                let cron = Arc::new(read(value, |row: &row::Cron| row.version)?);
                self.crons.insert(id, cron);
            }
            Key::Archived(id) => {
                let archived = Arc::new(read(value, |row: &row::Workflow| row.version)?);
                self.archived.insert(id, archived);
            }
            Key::EventBinding(namespace, name) => {
                let binding = Arc::new(read(value, |row: &row::EventBinding| row.version)?);
                self.event_bindings.insert((namespace, name), binding);
            }
            Key::Drill(id) => {
                let drill = Arc::new(read(value, |row: &row::Drill| row.version)?);
                self.drills.insert(id, drill);
            }
            Key::DrillStep(drill, id, node) => {
                let step = read(value, |row: &row::DrillStep| row.version)?;
                self.drill_steps.insert((drill, id, node), step);
            }
            Key::DrillSchedule(name) => {
                let schedule = Arc::new(read(value, |row: &row::DrillSchedule| row.version)?);
                self.drill_schedules.insert(name, schedule);
            }
            Key::Remembered(id, name) => {
                let remembered = Arc::new(read(value, |row: &row::Remembered| row.version)?);
                self.remembered.insert((id, name), remembered);
            }
        }
        Some(())
    }

    /// The bytes of a row; `None` when there is none.
    pub(crate) fn row(&self, key: &Key) -> Option<Vec<u8>> {
        match key {
            Key::Meta => Some(self.meta.encode_to_vec()),
            Key::Workflow(id) => self.workflows.get(id).map(|row| row.encode_to_vec()),
            Key::Manifest(id) => self.manifests.get(id).map(|row| row.encode_to_vec()),
            Key::Node(id, node) => self.nodes.get(&(*id, *node)).map(|row| row.encode_to_vec()),
            Key::Work(id, node) => self.works.get(&(*id, *node)).map(|row| row.encode_to_vec()),
            Key::Expansion(id, node, slot) => {
                self.expansions.get(&(*id, *node, *slot)).map(|row| row.encode_to_vec())
            }
            Key::Wait(id, node, task) => self.waits.get(&(*id, *node, *task)).map(Message::encode_to_vec),
            Key::Agenda(id, sequence) => self.agenda.get(&(*id, *sequence)).map(Message::encode_to_vec),
            Key::Attempt(fence) => self.attempts.get(fence).map(|row| row.encode_to_vec()),
            Key::Timer(due, id, node, kind) => self.timers.get(&(*due, *id, *node, *kind)).map(|()| {
                let timer = row::Timer {
                    version: ROW_VERSION,
                    due_ms: *due,
                    workflow: *id,
                    node: *node,
                    kind: *kind,
                };
                timer.encode_to_vec()
            }),
            Key::Cluster(name) => self.clusters.get(name.as_str()).map(|row| row.encode_to_vec()),
            Key::Invite(hash) => self.invites.get(hash).map(Message::encode_to_vec),
            Key::Idempotency(tenant, key) => {
                self.idempotency.get(&(tenant.clone(), key.clone())).map(|row| row.encode_to_vec())
            }
            Key::Blocked(shape) => self.blocked.get(shape).map(Message::encode_to_vec),
            Key::ArtifactTask(task) => self.artifact_tasks.get(task).map(|row| row.encode_to_vec()),
            Key::Memo(entry) => self.memos.get(entry.as_str()).map(|row| row.encode_to_vec()),
            Key::LockRequest(id, node) => {
                self.lock_requests.get(&(*id, *node)).map(|row| row.encode_to_vec())
            }
            Key::LockCheck(lock) => self
                .lock_checks
                .contains(lock.as_str())
                .then(|| row::LockCheck { version: ROW_VERSION }.encode_to_vec()),
            Key::SyncLimit(namespace, key) => {
                self.sync_limits.get(&(namespace.clone(), key.clone())).map(Message::encode_to_vec)
            }
            Key::ConfigMap(namespace, name, cluster) => {
                let key = (namespace.clone(), name.clone(), cluster.clone());
                self.config_maps.get(&key).map(|row| row.encode_to_vec())
            }
            Key::Template(cluster_scope, namespace, name) => self
                .templates
                .get(&(*cluster_scope, namespace.clone(), name.clone()))
                .map(|row| row.encode_to_vec()),
            Key::Authorities => self.authorities.as_ref().map(|row| row.encode_to_vec()),
            Key::Member(member) => self.members.get(member).map(Message::encode_to_vec),
            Key::Cron(id) => self.crons.get(id).map(|row| row.encode_to_vec()),
            Key::Archived(id) => self.archived.get(id).map(|row| row.encode_to_vec()),
            Key::EventBinding(namespace, name) => {
                self.event_bindings.get(&(namespace.clone(), name.clone())).map(|row| row.encode_to_vec())
            }
            Key::Drill(id) => self.drills.get(id).map(|row| row.encode_to_vec()),
            Key::DrillStep(drill, id, node) => {
                self.drill_steps.get(&(*drill, *id, *node)).map(Message::encode_to_vec)
            }
            Key::DrillSchedule(name) => self.drill_schedules.get(name).map(|row| row.encode_to_vec()),
            Key::Remembered(id, name) => {
                self.remembered.get(&(*id, name.clone())).map(|row| row.encode_to_vec())
            }
        }
    }

    /// Every row, for snapshots made in memory and for tests.
    #[must_use]
    pub fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut keys = vec![Key::Meta];
        keys.extend(self.workflows.keys().map(|id| Key::Workflow(*id)));
        keys.extend(self.manifests.keys().map(|id| Key::Manifest(*id)));
        keys.extend(self.nodes.keys().map(|(id, node)| Key::Node(*id, *node)));
        keys.extend(self.works.keys().map(|(id, node)| Key::Work(*id, *node)));
        keys.extend(self.expansions.keys().map(|(id, node, slot)| Key::Expansion(*id, *node, *slot)));
        keys.extend(self.waits.keys().map(|(id, node, task)| Key::Wait(*id, *node, *task)));
        keys.extend(self.agenda.keys().map(|(id, sequence)| Key::Agenda(*id, *sequence)));
        keys.extend(self.attempts.keys().map(|fence| Key::Attempt(*fence)));
        keys.extend(self.timers.keys().map(|(due, id, node, kind)| Key::Timer(*due, *id, *node, *kind)));
        keys.extend(self.clusters.keys().map(|name| Key::Cluster(name.to_string())));
        keys.extend(self.invites.keys().map(|hash| Key::Invite(hash.clone())));
        keys.extend(
            self.idempotency.keys().map(|(tenant, key)| Key::Idempotency(tenant.clone(), key.clone())),
        );
        keys.extend(self.blocked.keys().map(|shape| Key::Blocked(shape.clone())));
        keys.extend(self.memos.keys().cloned().map(Key::Memo));
        keys.extend(self.lock_requests.keys().map(|(id, node)| Key::LockRequest(*id, *node)));
        keys.extend(self.lock_checks.iter().map(|lock| Key::LockCheck(lock.to_string())));
        keys.extend(
            self.sync_limits.keys().map(|(namespace, key)| Key::SyncLimit(namespace.clone(), key.clone())),
        );
        keys.extend(self.config_maps.keys().map(|(namespace, name, cluster)| {
            Key::ConfigMap(namespace.clone(), name.clone(), cluster.clone())
        }));
        keys.extend(self.artifact_tasks.keys().copied().map(Key::ArtifactTask));
        keys.extend(self.templates.keys().map(|(cluster_scope, namespace, name)| {
            Key::Template(*cluster_scope, namespace.clone(), name.clone())
        }));
        keys.extend(self.authorities.iter().map(|_| Key::Authorities));
        keys.extend(self.members.keys().map(|member| Key::Member(*member)));
        keys.extend(self.crons.keys().map(|id| Key::Cron(*id)));
        keys.extend(self.archived.keys().map(|id| Key::Archived(*id)));
        let bindings = self.event_bindings.keys();
        keys.extend(bindings.map(|(namespace, name)| Key::EventBinding(namespace.clone(), name.clone())));
        keys.extend(self.drills.keys().copied().map(Key::Drill));
        let steps = self.drill_steps.keys();
        keys.extend(steps.map(|(drill, id, node)| Key::DrillStep(*drill, *id, *node)));
        keys.extend(self.drill_schedules.keys().cloned().map(Key::DrillSchedule));
        keys.extend(self.remembered.keys().map(|(id, name)| Key::Remembered(*id, name.clone())));
        keys.iter().filter_map(|key| self.row(key).map(|value| (key.encode(), value))).collect()
    }
}

fn read<M: Message + Default>(value: &[u8], version: impl Fn(&M) -> u32) -> Option<M> {
    let row = M::decode(value).ok()?;
    (version(&row) == ROW_VERSION).then_some(row)
}
