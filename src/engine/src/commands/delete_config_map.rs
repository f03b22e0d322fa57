use argosy_proto::command::{DeleteConfigMap, Refusal, Reply};
use argosy_proto::fact::{self, fact::Body};

use crate::commands::{done, store_config_map};
use crate::draft::Draft;

/// A ConfigMap of the cell's own goes; one that a cluster reported under that name is read from then on.
pub(crate) fn decide(draft: &mut Draft, command: &DeleteConfigMap) -> Result<Reply, Refusal> {
    let key = (command.namespace.clone(), command.name.clone(), String::new());
    if !draft.state.config_maps.contains_key(&key) {
        return Err(store_config_map::missing(&command.name));
    }
    draft.emit(Body::ConfigMapDeleted(fact::ConfigMapDeleted {
        namespace: key.0,
        name: key.1,
        cluster: key.2,
    }));
    Ok(done())
}
