//! Where the members are: from the configuration, and from replicated state for those that joined later.

use crate::config::MemberAddresses;
use crate::core::Published;
use argosy_model::MemberId;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// The members' addresses as they are now; cheap to clone.
#[derive(Clone)]
pub struct Directory {
    configured: Arc<BTreeMap<MemberId, MemberAddresses>>,
    published: watch::Receiver<Published>,
}

impl Directory {
    /// The configuration's members and those that state adds.
    #[must_use]
    pub fn new(
        configured: BTreeMap<MemberId, MemberAddresses>,
        published: watch::Receiver<Published>,
    ) -> Self {
        Self { configured: Arc::new(configured), published }
    }

    /// Everybody who is, becomes or was a member: whether they are let in, consensus decides.
    #[must_use]
    pub fn members(&self) -> BTreeMap<MemberId, MemberAddresses> {
        let mut members = self.configured.as_ref().clone();
        let published = self.published.borrow();
        for (member, row) in published.state.members() {
            if let Some(addresses) = &row.addresses {
                let addresses = MemberAddresses {
                    peer: addresses.peer.clone(),
                    agent: addresses.agent.clone(),
                    api: addresses.api.clone(),
                };
                members.insert(member, addresses);
            }
        }
        members
    }

    /// Those that have not left and are not on their way out: where agents and users may go.
    #[must_use]
    pub fn staying(&self) -> BTreeMap<MemberId, MemberAddresses> {
        let mut members = self.members();
        let published = self.published.borrow();
        members.retain(|member, _| !published.state.member_left(*member));
        members
    }
}
