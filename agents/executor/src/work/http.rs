//! An `http` template: one request, and what its answer means.

use std::time::Duration;

use argosy_expr::{Env, Limits, program};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Found;
use crate::protocol::{self, RESULT_BYTES_MAX};
use crate::web::{self, Answer, Request};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Template {
    method: String,
    url: String,
    headers: Vec<Header>,
    timeout_seconds: Option<i64>,
    success_condition: String,
    body: String,
    body_from: Option<BodyFrom>,
    insecure_skip_verify: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Header {
    name: String,
    value: String,
    value_from: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct BodyFrom {
    bytes: Option<String>,
}

pub fn run(template: &Value) -> Found {
    match ask(template, &|name| std::env::var(name).ok()) {
        Ok(found) => found,
        Err(message) => Found::failed(message),
    }
}

fn ask(template: &Value, variable: &dyn Fn(&str) -> Option<String>) -> Result<Found, String> {
    let template = Template::deserialize(template).map_err(|error| format!("http: {error}"))?;
    let mut headers = Vec::with_capacity(template.headers.len());
    for (number, header) in template.headers.iter().enumerate() {
        let value = match header.value_from {
            // Kubernetes puts the Secret's value there.
            Some(_) => variable(&protocol::header_variable(number))
                .ok_or_else(|| format!("the secret of header {:?} is not there", header.name))?,
            None => header.value.clone(),
        };
        headers.push((header.name.clone(), value));
    }
    let request = Request {
        method: template.method.clone(),
        url: template.url.clone(),
        headers,
        body: template.body()?,
        insecure: template.insecure_skip_verify,
        body_bytes_max: RESULT_BYTES_MAX,
    };
    let seconds = template.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let answer = web::send(&request, seconds.map_or(web::TIME_MAX, Duration::from_secs))?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let refusal = template.refusal(&request, &answer, &body)?;
    let mut found = refusal.map_or_else(Found::default, Found::failed);
    found.result = Some(body);
    Ok(found)
}

impl Template {
    fn body(&self) -> Result<Vec<u8>, String> {
        use base64::Engine;
        match self.body_from.as_ref().and_then(|from| from.bytes.as_ref()) {
            Some(bytes) => base64::engine::general_purpose::STANDARD
                .decode(bytes)
                .map_err(|error| format!("bodyFrom.bytes: {error}")),
            None => Ok(self.body.clone().into_bytes()),
        }
    }

    /// Why the answer is no success; Argo's words.
    fn refusal(&self, request: &Request, answer: &Answer, body: &str) -> Result<Option<String>, String> {
        let condition = &self.success_condition;
        if condition.is_empty() {
            let fits = (200..300).contains(&answer.status);
            return Ok((!fits).then(|| format!("received non-2xx response code: {}", answer.status)));
        }
        let mut env = Env::default();
        // What a Secret holds is not for expressions.
        let sent = self.headers.iter().map(|header| (header.name.clone(), header.value.clone()));
        let texts = [("method", &self.method), ("url", &self.url), ("body", &self.body)];
        let mut values: Vec<(String, Value)> =
            texts.into_iter().map(|(name, text)| (format!("request.{name}"), text.as_str().into())).collect();
        values.push(("request.bodyBytes".to_owned(), json!(request.body)));
        values.push(("request.headers".to_owned(), by_name(sent)));
        values.push(("response.body".to_owned(), body.into()));
        values.push(("response.headers".to_owned(), by_name(answer.headers.iter().cloned())));
        for (name, value) in values {
            env.insert(&name, argosy_expr::Value::from_json(&value)?);
        }
        env.insert("response.statusCode", argosy_expr::Value::Int(answer.status.into()));
        let program = program::compile(condition).map_err(|error| error.to_string())?;
        let holds = program.evaluate_bool(&env, &Limits::DEFAULT, 0).map_err(|error| error.to_string())?;
        Ok((!holds).then(|| format!("successCondition '{condition}' evaluated false")))
    }
}

/// Headers as Go has them: a list of values for each name.
fn by_name(headers: impl Iterator<Item = (String, String)>) -> Value {
    let mut all = serde_json::Map::new();
    for (name, value) in headers {
        let values = all.entry(web::canonical(&name)).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(value.into());
        }
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::tests::serve;

    fn answered(template: &Value, answer: &str) -> (Result<Found, String>, String) {
        let (url, asked) = serve(vec![answer.to_owned()]);
        let mut template = template.clone();
        template["url"] = format!("{url}/json").into();
        let secret = |name: &str| (name == "ARGOSY_HTTP_HEADER_1").then(|| "s3cret".to_owned());
        (ask(&template, &secret), asked.recv().unwrap())
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-answer: 42\r\n\r\nready";

    #[test]
    fn an_answer_is_judged_as_argo_does() {
        for (condition, answer, told) in [
            ("", OK, ""),
            ("", "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", "received non-2xx response code: 500"),
            ("response.statusCode in 200..299", OK, ""),
            ("response.statusCode == 404", "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", ""),
            ("response.headers[\"X-Answer\"][0] == \"42\"", OK, ""),
            ("response.body contains \"ready\" && request.method == \"\"", OK, ""),
            (
                "response.body contains \"absent\"",
                OK,
                "successCondition 'response.body contains \"absent\"' evaluated false",
            ),
        ] {
            let (found, _) = answered(&json!({"successCondition": condition}), answer);
            let found = found.unwrap();
            assert_eq!(
                (found.verdict.message.as_str(), found.verdict.failed),
                (told, !told.is_empty()),
                "{condition}"
            );
            assert!(found.result.is_some(), "the body is the result of a failure, too");
        }
        assert!(answered(&json!({"successCondition": "response."}), OK).0.is_err());
    }

    #[test]
    fn headers_and_bodies_are_sent_as_written() {
        let template = json!({
            "method": "PUT", "bodyFrom": {"bytes": "aGkA"},
            "headers": [{"name": "A", "value": "1"}, {"name": "Token", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        });
        let (found, asked) = answered(&template, OK);
        assert!(found.is_ok());
        assert!(asked.starts_with("PUT /json HTTP/1.1\r\n") && asked.ends_with("\r\n\r\nhi\0"), "{asked}");
        assert!(asked.contains("\r\nA: 1\r\n") && asked.contains("\r\nToken: s3cret\r\n"), "{asked}");
    }
}
