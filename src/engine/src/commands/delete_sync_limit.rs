use argosy_proto::command::{DeleteSyncLimit, Refusal, Reply};
use argosy_proto::fact::{self, fact::Body};

use crate::Leader;
use crate::commands::{done, set_sync_limit, store_config_map};
use crate::draft::Draft;

/// The limit of a semaphore goes. Those that hold it go on; those that wait for it wait until it is there again.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &Leader,
    command: &DeleteSyncLimit,
) -> Result<Reply, Refusal> {
    let (namespace, key) = (command.namespace.clone(), command.key.clone());
    if command.config_map.is_empty() {
        if draft.state.sync_limit(&namespace, &key).is_none() {
            return Err(set_sync_limit::missing(&namespace));
        }
        draft.emit(Body::SyncLimitDeleted(fact::SyncLimitDeleted { namespace, key }));
        return Ok(done());
    }
    let place = (namespace, command.config_map.clone(), String::new());
    let Some(known) = draft.state.config_maps.get(&place).cloned() else {
        return Err(store_config_map::missing(&command.config_map));
    };
    let mut contents = known.as_ref().clone();
    if contents.data.remove(&key).is_some() {
        store_config_map::store(draft, leader, place, contents)?;
    }
    Ok(done())
}
