//! Stores that are opened with the agent's own identity: its keys, what its Pod's identity is given for them, or a role that it
//! takes on.

use crate::{LIMIT, World, there_and_back};
use argosy_tests::manifests::node;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;

/// Who asks with the token of a Pod gets the store's keys for a while, as EKS has it.
async fn give(State(asked): State<Arc<AtomicUsize>>, headers: HeaderMap) -> Response {
    asked.fetch_add(1, Ordering::SeqCst);
    if headers.get("authorization").is_none_or(|token| token != "token-of-the-pod") {
        return StatusCode::FORBIDDEN.into_response();
    }
    let keys = json!({"AccessKeyId": "access-key", "SecretAccessKey": "secret-key", "Token": "for-a-while",
        "Expiration": "2126-01-01T00:00:00Z"});
    axum::Json(keys).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_opened_with_the_agents_own_identity() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = format!("http://{}/identity", listener.local_addr()?);
    let asked = Arc::new(AtomicUsize::new(0));
    let router = axum::Router::new().fallback(give).with_state(Arc::clone(&asked));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let files = tempfile::tempdir()?;
    let token = files.path().join("token");
    std::fs::write(&token, "token-of-the-pod")?;
    let keys = |secret: &str| {
        vec!["AWS_ACCESS_KEY_ID=access-key".to_owned(), format!("AWS_SECRET_ACCESS_KEY={secret}")]
    };
    let identity = vec![
        format!("AWS_CONTAINER_CREDENTIALS_FULL_URI={at}"),
        format!("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={}", token.display()),
    ];
    let clusters = [("keys", keys("secret-key")), ("identity", identity), ("stranger", keys("guessed"))];
    let world = World::start_with(&clusters).await?;
    for (cluster, _) in &clusters {
        let location = json!({"s3": {"endpoint": world.endpoint, "insecure": true, "bucket": "argosy",
            "region": "us-east-1", "useSDKCreds": true, "key": format!("own/{cluster}")}});
        let mut made = there_and_back(cluster, &location, &location);
        made["spec"]["nodeSelector"] = json!({"cluster.argosy.dev/name": cluster});
        let done = world.run(&made).await?;
        if *cluster == "stranger" {
            let message = node(&done, "make")["message"].as_str().unwrap_or_default();
            assert!(message.contains("403 Forbidden"), "{}", done["status"]);
            continue;
        }
        assert_eq!(done["status"]["phase"], "Succeeded", "{cluster}: {}", done["status"]);
        assert_eq!(node(&done, "use")["outputs"]["parameters"][0]["value"], format!("by {cluster}"));
        assert_eq!(node(&done, "make")["cluster"], *cluster);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "what was given is used until it runs out");
    Ok(())
}

/// How often roles were asked for.
#[derive(Default)]
struct Asked {
    given: AtomicUsize,
    late: AtomicUsize,
}

/// The service that gives roles, as STS has it: two roles may be taken on, by whom they are for. The first answer for `late` never comes.
async fn take_on(State(asked): State<Arc<Asked>>, headers: HeaderMap, body: String) -> Response {
    let signed = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_agent = signed.starts_with("AWS4-HMAC-SHA256 Credential=agents-key/")
        && signed.contains("/eu-west-1/sts/aws4_request")
        && signed.contains("Signature=");
    let is_for = |role: &str| body.contains(&format!("RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2F{role}&"));
    let is_role = body.contains("Action=AssumeRole&") && (is_for("w") || is_for("late"));
    if !is_agent || !is_role {
        let refusal = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not you</Message></Error></ErrorResponse>";
        return (StatusCode::FORBIDDEN, refusal).into_response();
    }
    if is_for("late") && asked.late.fetch_add(1, Ordering::SeqCst) == 0 {
        std::future::pending::<()>().await;
    }
    asked.given.fetch_add(1, Ordering::SeqCst);
    "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>access-key</AccessKeyId>\
     <SecretAccessKey>secret-key</SecretAccessKey><SessionToken>for-a-while</SessionToken>\
     </Credentials></AssumeRoleResult></AssumeRoleResponse>"
        .into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_opened_with_a_role_that_the_agent_takes_on() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = format!("http://{}/", listener.local_addr()?);
    let asked = Arc::new(Asked::default());
    let router = axum::Router::new().fallback(take_on).with_state(Arc::clone(&asked));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let own = ["AWS_ACCESS_KEY_ID=agents-key", "AWS_SECRET_ACCESS_KEY=agents-secret"];
    let own = own.into_iter().map(str::to_owned).chain([format!("AWS_ENDPOINT_URL_STS={at}")]).collect();
    let world = World::start_with(&[("east", own)]).await?;
    let using = |name: &str| {
        let location = json!({"s3": {"endpoint": world.endpoint, "insecure": true, "bucket": "argosy",
            "region": "eu-west-1", "roleARN": format!("arn:aws:iam::1:role/{name}"), "key": format!("role/{name}")}});
        there_and_back(name, &location, &location)
    };
    let waits = world.cell.submit(&using("late")).await?;
    for name in ["w", "x"] {
        let done = world.run(&using(name)).await?;
        if name == "x" {
            let message = node(&done, "make")["message"].as_str().unwrap_or_default();
            let reason = "role arn:aws:iam::1:role/x can't be taken on: the service answered 403 Forbidden: \
                          AccessDenied: not you";
            assert!(message.contains(reason), "{}", done["status"]);
            continue;
        }
        assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
        assert_eq!(node(&done, "use")["outputs"]["parameters"][0]["value"], "by w");
    }
    // The executor asks its agent again, as for a store that does not answer.
    let done = world.cell.finished(&waits, LIMIT).await?;
    assert_eq!(done["status"]["phase"], "Succeeded", "{}", done["status"]);
    assert_eq!(asked.late.load(Ordering::SeqCst), 2, "no answer, and one");
    assert_eq!(asked.given.load(Ordering::SeqCst), 2, "what a role gave is used for half an hour");
    Ok(())
}
