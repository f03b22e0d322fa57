//! Drills: begin, follow, show, compare, end, schedule.

use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

use super::cluster::print_items;
use super::{drill_shown as shown, formatted};
use crate::args::{
    Drill, DrillAbort, DrillCompare, DrillGet, DrillLoss, DrillRun, DrillSchedule, DrillScheduleCreate,
};
use crate::client::{Client, Request, path};
use crate::{Console, Error, Format, Output};

/// Between two looks at a drill.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) async fn drill(client: &Client, command: Drill, console: &mut Console) -> Result<bool, Error> {
    match command {
        Drill::Run(arguments) => run(client, &arguments, console).await,
        Drill::List(arguments) => list(client, &arguments, console).await,
        Drill::Get(arguments) => get(client, &arguments, console).await,
        Drill::Wait(arguments) => {
            let id = resolve(client, &arguments.drill).await?;
            follow(client, id, arguments.output, console).await
        }
        Drill::Compare(arguments) => compare(client, &arguments, console).await,
        Drill::Abort(arguments) => abort(client, &arguments, console).await,
        Drill::Schedule(DrillSchedule::Create(arguments)) => schedule(client, &arguments, console).await,
        Drill::Schedule(DrillSchedule::List(arguments)) => schedules(client, &arguments, console).await,
        Drill::Schedule(DrillSchedule::Delete(arguments)) => {
            let route = path(&["drill-schedules", &arguments.name]);
            client.json(Method::DELETE, &route, Request::default()).await?;
            console.print(&format!("drill schedule {} deleted\n", arguments.name))?;
            Ok(true)
        }
    }
}

fn body(loss: &DrillLoss) -> Value {
    let mut body = json!({
        "cluster": loss.lose,
        "mode": loss.mode.word(),
        "forSeconds": loss.span.as_secs(),
        "scope": loss.scope,
    });
    if let Some(span) = loss.objective {
        body["objective"] = json!({"recoverP99Ms": u64::try_from(span.as_millis()).unwrap_or(u64::MAX)});
    }
    body
}

async fn run(client: &Client, arguments: &DrillRun, console: &mut Console) -> Result<bool, Error> {
    let body = body(&arguments.loss);
    if arguments.dry_run {
        let plan = client.json(Method::POST, &path(&["drills", "plan"]), Request::body(body)).await?;
        match formatted(&plan, arguments.output)? {
            Some(text) => console.print(&text)?,
            None => console.print(&shown::plan(&plan))?,
        }
        return Ok(plan["refused"].is_null());
    }
    let begun = client.json(Method::POST, &path(&["drills"]), Request::body(body)).await?;
    let id = begun["id"].as_u64().unwrap_or(0);
    if arguments.wait {
        console.hint("Ctrl-C leaves it running: it ends by itself, or now with `argosy drill abort`");
        return follow(client, id, arguments.output, console).await;
    }
    match (arguments.output, formatted(&begun, arguments.output)?) {
        (Some(Output::Name), _) => console.print(&format!("{id}\n"))?,
        (_, Some(text)) => console.print(&text)?,
        (_, None) => console.print(&format!("{}\n", shown::headline(&begun)))?,
    }
    console.hint(&format!("follow it with: argosy drill wait {id}; end it now with: argosy drill abort"));
    Ok(true)
}

/// A number, or `@latest`.
async fn resolve(client: &Client, drill: &str) -> Result<u64, Error> {
    if drill != "@latest" {
        return drill
            .parse()
            .map_err(|_| Error::Usage(format!("{drill:?} is no number of a drill, nor @latest")));
    }
    let all = client.get(&path(&["drills"]), Request::default()).await?;
    let newest = all["items"].get(0).and_then(|drill| drill["id"].as_u64());
    newest.ok_or_else(|| Error::Usage("there was no drill yet: begin one with `argosy drill run`".to_owned()))
}

async fn one(client: &Client, id: u64) -> Result<Value, Error> {
    client.get(&path(&["drills", &id.to_string()]), Request::default()).await
}

fn is_over(drill: &Value) -> bool {
    !drill["report"].is_null()
}

/// Shows a drill until its verdict, in place where somebody looks; true if it passed.
async fn follow(
    client: &Client,
    id: u64,
    output: Option<Output>,
    console: &mut Console,
) -> Result<bool, Error> {
    let quiet = output.is_some_and(|output| output != Output::Wide);
    let (mut told, mut lines) = (String::new(), 0);
    loop {
        let drill = one(client, id).await?;
        if is_over(&drill) {
            match formatted(&drill, output)? {
                Some(text) => console.print(&text)?,
                None => console.print(&format!("{}{}", up(lines), shown::report(&drill)))?,
            }
            return Ok(drill["report"]["passed"] == true);
        }
        if !quiet && console.interactive {
            let text = shown::progress(&drill);
            console.print(&format!("{}{text}", up(lines)))?;
            lines = text.lines().count();
        } else if !quiet {
            let line = shown::news(&drill);
            if line != told {
                console.print(&line)?;
                told = line;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Back over what was drawn.
fn up(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

async fn get(client: &Client, arguments: &DrillGet, console: &mut Console) -> Result<bool, Error> {
    let drill = one(client, resolve(client, &arguments.drill).await?).await?;
    match formatted(&drill, arguments.output)? {
        Some(text) => console.print(&text)?,
        None if is_over(&drill) => console.print(&shown::report(&drill))?,
        None => console.print(&shown::progress(&drill))?,
    }
    Ok(true)
}

async fn list(client: &Client, arguments: &Format, console: &mut Console) -> Result<bool, Error> {
    if print_items(client, "drills", arguments, console).await? {
        return Ok(true);
    }
    let all = client.get(&path(&["drills"]), Request::default()).await?;
    let drills = all["items"].as_array().cloned().unwrap_or_default();
    if drills.is_empty() {
        console.print("No drills found\n")?;
        console.hint("begin one with: argosy drill run --lose CLUSTER --for 1m --wait");
        return Ok(true);
    }
    console.print(&shown::table_of(&drills))?;
    Ok(true)
}

async fn compare(client: &Client, arguments: &DrillCompare, console: &mut Console) -> Result<bool, Error> {
    let mut drills = Vec::new();
    for name in &arguments.drills {
        drills.push(one(client, resolve(client, name).await?).await?);
    }
    console.print(&shown::side_by_side(&drills))?;
    Ok(true)
}

async fn abort(client: &Client, arguments: &DrillAbort, console: &mut Console) -> Result<bool, Error> {
    let route = path(&["drills", &arguments.drill.to_string(), "abort"]);
    let drill = client.json(Method::POST, &route, Request::body(json!({"reason": arguments.reason}))).await?;
    console.print(&format!("{}\n", shown::headline(&drill)))?;
    if drill["mode"] == "kill-agent" {
        console.hint("the agent was told when to come back, and hears nothing before that");
    }
    Ok(true)
}

async fn schedule(
    client: &Client,
    arguments: &DrillScheduleCreate,
    console: &mut Console,
) -> Result<bool, Error> {
    let mut body = body(&arguments.loss);
    body["name"] = json!(arguments.name);
    body["cron"] = json!(arguments.cron);
    body["timezone"] = json!(arguments.timezone.as_deref().unwrap_or_default());
    let made = client.json(Method::POST, &path(&["drill-schedules"]), Request::body(body)).await?;
    let next = made["nextAt"].as_str().unwrap_or("never");
    console.print(&format!("drill schedule {} created, next at {next}\n", arguments.name))?;
    Ok(true)
}

async fn schedules(client: &Client, arguments: &Format, console: &mut Console) -> Result<bool, Error> {
    if print_items(client, "drill-schedules", arguments, console).await? {
        return Ok(true);
    }
    let all = client.get(&path(&["drill-schedules"]), Request::default()).await?;
    let found = all["items"].as_array().cloned().unwrap_or_default();
    if found.is_empty() {
        console.print("No drill schedules found\n")?;
        return Ok(true);
    }
    console.print(&shown::schedules(&found))?;
    Ok(true)
}
