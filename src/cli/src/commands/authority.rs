//! The cell's certificate authority.

use reqwest::Method;
use serde_json::{Value, json};

use crate::args::Authority;
use crate::client::{Client, Request, path};
use crate::{Console, Error};

pub(super) async fn authority(
    client: &Client,
    command: Authority,
    console: &mut Console,
) -> Result<bool, Error> {
    match command {
        Authority::Bundle => {
            let answer = client.get(&path(&["authority"]), Request::default()).await?;
            console.print(answer["bundle"].as_str().unwrap_or_default())?;
            Ok(true)
        }
        Authority::Roll(arguments) if arguments.check => {
            let answer = client.get(&path(&["authority"]), Request::default()).await?;
            console.print(&standing(&answer))?;
            Ok(behind(&answer).is_empty())
        }
        Authority::Roll(arguments) => {
            let action = if arguments.finish { "finish" } else { "begin" };
            let body = json!({"action": action, "force": arguments.force});
            let answer =
                client.json(Method::POST, &path(&["authority", "roll"]), Request::body(body)).await?;
            console.print(&standing(&answer))?;
            if !arguments.finish {
                console.hint("users take the new authority as well: argosy ca bundle > ca.pem");
            }
            Ok(true)
        }
    }
}

fn behind(answer: &Value) -> Vec<&Value> {
    answer["behind"].as_array().into_iter().flatten().collect()
}

/// How far the roll is, and who is waited for.
fn standing(answer: &Value) -> String {
    let behind = behind(answer);
    let mut text = match (answer["phase"].as_str().unwrap_or_default(), behind.is_empty()) {
        ("trust", _) => {
            "the new authority is being made known; it issues once everybody trusts it\n".to_owned()
        }
        ("issue", false) => "the new authority issues; these have certificates of the old one\n".to_owned(),
        ("issue", true) => {
            "the new authority issues, and nobody needs the old one: argosy ca roll --finish\n".to_owned()
        }
        _ => "no roll is under way\n".to_owned(),
    };
    for one in behind {
        let word = |field: &str| one[field].as_str().unwrap_or_default();
        text += &format!("  {}: {}\n", word("name"), word("reason"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_behind_is_named() {
        let answer = json!({"phase": "issue", "behind": [{"name": "cluster eu", "reason": "it is old"}]});
        assert!(standing(&answer).ends_with("  cluster eu: it is old\n"));
        assert!(standing(&json!({"phase": "issue", "behind": []})).contains("--finish"));
        assert_eq!(standing(&json!({"phase": "none", "behind": []})), "no roll is under way\n");
    }
}
