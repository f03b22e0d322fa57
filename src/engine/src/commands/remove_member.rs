use argosy_proto::command::{RemoveMember, Reply};
use argosy_proto::fact::{self, fact::Body};

use crate::commands::done;
use crate::draft::Draft;

/// A member leaves for good. Whether the others can do without it, the member crate has asked before.
pub(crate) fn decide(draft: &mut Draft, command: &RemoveMember) -> Reply {
    let member = command.member;
    let mut row = draft.state.members.get(&member).cloned().unwrap_or_default();
    if !row.leaving {
        row.leaving = true;
        draft.emit(Body::MemberSet(fact::MemberSet { member, row: Some(row) }));
    }
    done()
}
