use argosy_proto::command::{AddMember, Refusal, Reply};
use argosy_proto::common::MemberAddresses;
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::Member;

use crate::Code;
use crate::commands::done;
use crate::draft::Draft;

/// Longest address.
const ADDRESS_BYTES_MAX: usize = 300;

/// A member is to join, or has other addresses now. What the replicated configuration has to say about it (who votes,
/// whether another change is under way) the member crate has asked before.
pub(crate) fn decide(draft: &mut Draft, command: &AddMember) -> Result<Reply, Refusal> {
    let (member, replaces) = (command.member, command.replaces);
    if member == 0 || member == replaces {
        return Err(Code::InvalidArgument.refuse(
            "a member's number is 1 or more, and it can't replace itself: take a number that is free",
        ));
    }
    if draft.state.member_left(member) {
        return Err(Code::MemberNumberUsed.refuse(format!(
            "member {member} has left the cell, and a number is never used again: take another"
        )));
    }
    let addresses = checked(command.addresses.as_ref())?;
    let row = Member { addresses: Some(addresses), replaces, ..Member::default() };
    let same = |old: &Member| old.addresses == row.addresses && old.replaces == row.replaces;
    if !draft.state.members.get(&member).is_some_and(same) {
        draft.emit(Body::MemberSet(fact::MemberSet { member, row: Some(row) }));
    }
    Ok(done())
}

fn checked(addresses: Option<&MemberAddresses>) -> Result<MemberAddresses, Refusal> {
    let addresses = addresses.cloned().unwrap_or_default();
    for (name, address) in [("peer", &addresses.peer), ("agent", &addresses.agent), ("api", &addresses.api)] {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        let valid = port.and_then(|port| port.parse::<u16>().ok()).is_some_and(|port| port != 0);
        if !valid || address.len() > ADDRESS_BYTES_MAX {
            return Err(Code::InvalidArgument.refuse(format!(
                "the {name} address {address:?} is not host:port, as in argosy-4.example:2748"
            )));
        }
    }
    Ok(addresses)
}
