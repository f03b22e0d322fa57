use argosy_proto::command::{AbortDrill, BeginDrill, DrillAccepted, Refusal, Reply, reply};

use crate::commands::done;
use crate::draft::Draft;
use crate::{Code, Leader, drill};

/// A cluster is lost on purpose.
pub(crate) fn decide(draft: &mut Draft, leader: &mut Leader, command: &BeginDrill) -> Result<Reply, Refusal> {
    let drill = drill::begin(draft, leader, command, "")?;
    Ok(Reply { body: Some(reply::Body::DrillAccepted(DrillAccepted { drill })) })
}

/// Ends the loss of the drill under way; what it has come to is still watched and reported.
pub(crate) fn abort(draft: &mut Draft, command: &AbortDrill) -> Result<Reply, Refusal> {
    let id = match command.drill {
        0 => draft.state.drill_under_way().map(|(id, _)| id),
        id => draft.state.drill(id).map(|_| id),
    };
    let Some(id) = id else {
        return Err(Code::DrillMissing.refuse(match command.drill {
            0 => "no drill is under way".to_owned(),
            id => format!("drill {id} not found"),
        }));
    };
    if draft.state.drill_loss().is_none_or(|(running, _)| running != id) {
        return Err(Code::DrillOver.refuse(format!("the loss of drill {id} is over")));
    }
    let by = if command.actor.is_empty() { "an operator" } else { &command.actor };
    let why = if command.reason.is_empty() { format!("by {by}") } else { command.reason.clone() };
    drill::end_loss(draft, id, &why);
    Ok(done())
}
