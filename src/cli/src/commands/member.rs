//! Members of the control plane.

use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};

use super::cluster::print_items;
use crate::client::{Client, MemberInfo, Request, path};
use crate::style::Style;
use crate::table::{self, Cell};
use crate::{AddMember, Console, Error, Format, LeadMember, Member, RemoveMember, WaitMember};

/// Between two looks at the members while a change is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn member(client: &Client, command: Member, console: &mut Console) -> Result<bool, Error> {
    match command {
        Member::List(arguments) => list(client, &arguments, console).await,
        Member::Add(arguments) => add(client, &arguments, console).await,
        Member::Remove(arguments) => remove(client, &arguments, console).await,
        Member::Lead(arguments) => lead(client, &arguments, console).await,
    }
}

async fn list(client: &Client, arguments: &Format, console: &mut Console) -> Result<bool, Error> {
    if print_items(client, "members", arguments, console).await? {
        return Ok(true);
    }
    let mut rows: Vec<Vec<Cell>> = vec![
        ["ID", "ROLE", "ADDRESS", "API", "MATCHED", "APPLIED", "REACHABLE"]
            .map(|name| Cell::styled(name, Style::Bold))
            .into(),
    ];
    for member in client.members().await? {
        let style = if member.role == "leader" { Style::Green } else { Style::Plain };
        rows.push(vec![
            member.id.to_string().into(),
            Cell::styled(member.role, style),
            member.address.into(),
            member.api_address.into(),
            position(member.matched_index),
            position(member.applied_index),
            if member.reachable { "yes".into() } else { Cell::styled("no", Style::Red) },
        ]);
    }
    console.print(&table::render(&rows, 3))?;
    Ok(true)
}

/// A place in the log. Followers don't know each other's: only the leader says how far everybody is.
fn position(index: u64) -> Cell {
    if index == 0 { "-".into() } else { index.to_string().into() }
}

async fn add(client: &Client, arguments: &AddMember, console: &mut Console) -> Result<bool, Error> {
    let AddMember { id, peer, agent, api, replace, wait } = arguments;
    let body = json!({"id": id, "peer": peer, "agent": agent, "api": api, "replaces": replace.unwrap_or(0)});
    client.json(Method::POST, &path(&["members"]), Request::body(body)).await?;
    console.print(&format!("member {id} may join\n"))?;
    if wait.no_wait {
        console
            .hint("start it with `join: true` in its configuration; argosy member list shows how far it is");
        return Ok(true);
    }
    console.hint(&format!(
        "start member {id} now, with `join: true` in its configuration, if it does not run yet"
    ));
    let look = |members: &[MemberInfo]| {
        let old = replace.and_then(|old| members.iter().find(|member| member.id == old));
        let new = members.iter().find(|member| member.id == *id);
        let head = members.iter().map(|member| member.matched_index).max().unwrap_or_default();
        match (new, old) {
            (Some(new), None) if votes(new) => Look::Done(format!("member {id} votes")),
            (Some(new), Some(old)) if votes(new) => {
                Look::Waits(format!("member {id} votes, member {} leaves", old.id))
            }
            (Some(new), _) => Look::Waits(format!(
                "member {id} is {}{}: entry {} of {head}",
                new.role,
                if new.reachable { "" } else { " and not reachable" },
                new.matched_index
            )),
            (None, _) => Look::Waits(format!("member {id} is not known yet")),
        }
    };
    wait_for(client, wait, console, look).await
}

fn votes(member: &MemberInfo) -> bool {
    !matches!(member.role.as_str(), "learner" | "joining" | "leaving")
}

async fn remove(client: &Client, arguments: &RemoveMember, console: &mut Console) -> Result<bool, Error> {
    let RemoveMember { id, force, wait } = arguments;
    let force = if *force { "true" } else { "" };
    let request = Request::query([("force", force.to_owned())]);
    client.json(Method::DELETE, &path(&["members", &id.to_string()]), request).await?;
    console.print(&format!("member {id} is to leave\n"))?;
    if wait.no_wait {
        return Ok(true);
    }
    let look = |members: &[MemberInfo]| match members.iter().find(|member| member.id == *id) {
        None => Look::Done(format!("member {id} has left: stop it, and delete its data directory")),
        Some(member) => Look::Waits(format!("member {id} is {}", member.role)),
    };
    wait_for(client, wait, console, look).await
}

async fn lead(client: &Client, arguments: &LeadMember, console: &mut Console) -> Result<bool, Error> {
    let LeadMember { id, wait } = arguments;
    client.json(Method::PUT, &path(&["members", &id.to_string(), "lead"]), Request::default()).await?;
    if wait.no_wait {
        console.print(&format!("leadership goes to member {id}\n"))?;
        return Ok(true);
    }
    let look = |members: &[MemberInfo]| match members.iter().find(|member| member.role == "leader") {
        Some(leader) if leader.id == *id => Look::Done(format!("member {id} leads")),
        Some(leader) => Look::Waits(format!("member {} leads", leader.id)),
        None => Look::Waits("nobody leads".to_owned()),
    };
    wait_for(client, wait, console, look).await
}

enum Look {
    Done(String),
    Waits(String),
}

/// Looks at the members until the change is done; tells what is new on the way.
async fn wait_for(
    client: &Client,
    wait: &WaitMember,
    console: &mut Console,
    look: impl Fn(&[MemberInfo]) -> Look,
) -> Result<bool, Error> {
    let deadline = Instant::now() + wait.timeout;
    let mut told = String::new();
    loop {
        match look(&client.members().await?) {
            Look::Done(message) => {
                console.print(&format!("{}\n", Style::Green.paint(&message)))?;
                return Ok(true);
            }
            Look::Waits(message) if message != told => {
                console.tell(&message);
                told = message;
            }
            Look::Waits(_) => {}
        }
        if Instant::now() >= deadline {
            console.tell(&format!(
                "{} not done after {} s, it goes on: argosy member list shows how far it is",
                Style::Yellow.paint("waiting:"),
                wait.timeout.as_secs()
            ));
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
