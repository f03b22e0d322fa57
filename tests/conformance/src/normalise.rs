//! A workflow as the API shows it, brought into the shape of a recording: what varies between runs becomes a placeholder.

use regex::{Captures, Regex};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// Characters of a value that are compared as they are; of the rest, length and digest.
const VALUE_CHARACTERS_MAX: usize = 4000;
/// Times this near to the workflow's creation vary between runs.
const NEAR_SECONDS: i64 = 172_800;

/// What a text's changing parts look like.
struct Patterns {
    time: Regex,
    posix: Regex,
    uuid: Regex,
    sha: Regex,
    container: Regex,
    address: Regex,
    seconds: Regex,
    request: Regex,
    after: Regex,
    duration: Regex,
    pointer: Regex,
    port: Regex,
    version: Regex,
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a constant")
}

impl Patterns {
    fn new() -> Self {
        Self {
            time: pattern(
                r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:Z| ?[+-]\d\d:?\d\d(?: [A-Z]{3,4})?)?(?: m=[+-][\d.]+)?",
            ),
            posix: pattern(r"\b1[6-9]\d{8}\b"),
            uuid: pattern(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"),
            sha: pattern(r"sha256:[0-9a-f]{64}"),
            container: pattern(r"\b[0-9a-f]{64}\b"),
            address: pattern(r"\b10\.(?:20\d|96)\.\d{1,3}\.\d{1,3}\b"),
            seconds: pattern(r"^\d+\.\d{6}$"),
            request: pattern(r"(?i)(request id|requestid|host id|hostid): ?[^,\s]+"),
            after: pattern(r"after \d+(?:\.\d+)?(?:ms|s)\b"),
            duration: pattern(r"\b\d+m?\d*\.\d+s\b"),
            pointer: pattern(r"0xc[0-9a-f]{6,}"),
            port: pattern(r":\d{5}->"),
            version: pattern(r#"resourceVersion: ?"?\d+"?"#),
        }
    }
}

static PATTERNS: LazyLock<Patterns> = LazyLock::new(Patterns::new);

/// Replaces what varies in the texts of one workflow.
pub struct Texts<'a> {
    patterns: &'static Patterns,
    name: String,
    uid: String,
    /// Node names by the number that ends their ids.
    nodes: BTreeMap<&'a str, &'a str>,
    id: Option<Regex>,
    created_s: Option<i64>,
}

/// Seconds since 1970 of a date and time.
fn seconds(parts: [i64; 6]) -> i64 {
    let [year, month, day, hour, minute, second] = parts;
    let (year, month_from_march) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    days * 86_400 + hour * 3600 + minute * 60 + second
}

fn time_of(found: &Captures<'_>) -> i64 {
    let mut parts = [0; 6];
    for (index, part) in parts.iter_mut().enumerate() {
        *part = found.get(index + 1).and_then(|text| text.as_str().parse().ok()).unwrap_or(0);
    }
    seconds(parts)
}

impl<'a> Texts<'a> {
    /// For the texts of a workflow.
    #[must_use]
    pub fn of(workflow: &'a Value) -> Self {
        let metadata = &workflow["metadata"];
        let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
        let (name, uid) = (text("name"), text("uid"));
        let patterns = &*PATTERNS;
        let mut nodes = BTreeMap::new();
        for (id, node) in workflow["status"]["nodes"].as_object().into_iter().flatten() {
            let number = id.rsplit('-').next().unwrap_or_default();
            if *id != name && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
                nodes.insert(number, node["name"].as_str().unwrap_or(id));
            }
        }
        let created = metadata["creationTimestamp"].as_str().unwrap_or_default();
        let created_s = patterns.time.captures(created).map(|found| time_of(&found));
        let id = (!name.is_empty())
            .then(|| pattern(&format!(r"{}(-[A-Za-z0-9.-]*?)?-(\d{{5,10}})(\D|$)", regex::escape(&name))));
        Self { patterns, name, uid, nodes, id, created_s }
    }

    /// A text.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if !self.uid.is_empty() {
            text = text.replace(&self.uid, "$UID");
        }
        if let Some(id) = &self.id {
            text = id.replace_all(&text, |found: &Captures<'_>| self.id(found)).into_owned();
            text = text.replace(&self.name, "$WF");
        }
        let patterns = self.patterns;
        for (pattern, placeholder) in [
            (&patterns.sha, "$$SHA256"),
            (&patterns.container, "$$HEX64"),
            (&patterns.uuid, "$$UUID"),
            (&patterns.address, "$$IP"),
        ] {
            text = pattern.replace_all(&text, placeholder).into_owned();
        }
        text = patterns.time.replace_all(&text, |found: &Captures<'_>| self.time(found)).into_owned();
        text = patterns.posix.replace_all(&text, |found: &Captures<'_>| self.posix(&found[0])).into_owned();
        text = patterns.request.replace_all(&text, "$1: $$REQ").into_owned();
        if patterns.seconds.is_match(&text) {
            "$DURATION".clone_into(&mut text);
        }
        shortened(text)
    }

    fn id(&self, found: &Captures<'_>) -> String {
        let (kind, number, after) = (found.get(1), &found[2], &found[3]);
        match self.nodes.get(number) {
            Some(node) => {
                let shown = if kind.is_some() { "$POD" } else { "$ID" };
                format!("{shown}{{{}}}{after}", node.replace(&self.name, "$WF"))
            }
            None => format!("$WF{}-$HASH{after}", kind.map_or("", |kind| kind.as_str())),
        }
    }

    fn time(&self, found: &Captures<'_>) -> String {
        let near = self.created_s.is_none_or(|created| (time_of(found) - created).abs() < NEAR_SECONDS);
        if near { "$TIME".to_owned() } else { found[0].to_owned() }
    }

    fn posix(&self, found: &str) -> String {
        let at: i64 = found.parse().unwrap_or(0);
        let near = self.created_s.is_some_and(|created| (at - created).abs() < NEAR_SECONDS);
        if near { "$POSIX".to_owned() } else { found.to_owned() }
    }

    /// A message: durations, addresses of memory and ports vary, too.
    #[must_use]
    pub fn message(&self, text: &str) -> String {
        let mut text = self.text(text);
        let patterns = self.patterns;
        for (pattern, placeholder) in [
            (&patterns.after, "after $$DUR"),
            (&patterns.duration, "$$DUR"),
            (&patterns.pointer, "$$PTR"),
            (&patterns.port, ":$$PORT->"),
            (&patterns.version, "resourceVersion: $$RV"),
        ] {
            text = pattern.replace_all(&text, placeholder).into_owned();
        }
        text
    }

    /// All texts of a value, keys included.
    #[must_use]
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| (self.text(key), self.value(value))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

fn shortened(text: String) -> String {
    let count = text.chars().count();
    if count <= VALUE_CHARACTERS_MAX {
        return text;
    }
    let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let head: String = text.chars().take(VALUE_CHARACTERS_MAX).collect();
    format!("{head}...({} more, sha256 {digest})", count - VALUE_CHARACTERS_MAX)
}

/// A node's place among boundaries: display names of those around it, and its own.
fn path(nodes: &Map<String, Value>, id: &str, texts: &Texts<'_>) -> String {
    let (mut seen, mut parts, mut next) = (BTreeSet::new(), Vec::new(), Some(id));
    while let Some(id) = next.filter(|id| seen.insert((*id).to_owned())) {
        let Some(node) = nodes.get(id) else {
            parts.push(texts.text(id));
            break;
        };
        let display = node["displayName"].as_str().filter(|display| !display.is_empty());
        parts.push(texts.text(display.or(node["name"].as_str()).unwrap_or_default()));
        next = node["boundaryID"].as_str().filter(|boundary| !boundary.is_empty());
    }
    parts.reverse();
    parts.join("/")
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(_) => false,
    }
}

fn parameters(texts: &Texts<'_>, list: &Value) -> Value {
    let one = |parameter: &Value| {
        let mut kept = Map::new();
        for key in ["name", "value", "default", "globalName", "enum"] {
            if let Some(value) = parameter.get(key) {
                kept.insert(key.to_owned(), texts.value(value));
            }
        }
        Value::Object(kept)
    };
    list.as_array().into_iter().flatten().map(one).collect()
}

/// Inputs or outputs: of artifacts their names.
fn side(texts: &Texts<'_>, side: &Value, outputs: bool) -> Value {
    let mut kept = Map::new();
    if !is_empty(&side["parameters"]) {
        kept.insert("parameters".into(), parameters(texts, &side["parameters"]));
    }
    if let Some(artifacts) = side["artifacts"].as_array().filter(|artifacts| !artifacts.is_empty()) {
        let names: Value = artifacts.iter().map(|artifact| texts.value(&artifact["name"])).collect();
        kept.insert("artifacts".into(), names);
        let named = artifacts.iter().filter(|artifact| !is_empty(&artifact["globalName"]));
        let text = |value: &Value| texts.text(value.as_str().unwrap_or_default());
        let globals: Map<String, Value> =
            named.map(|artifact| (text(&artifact["name"]), text(&artifact["globalName"]).into())).collect();
        if !globals.is_empty() {
            kept.insert("artifactGlobalNames".into(), globals.into());
        }
    }
    if outputs {
        if let Some(result) = side.get("result") {
            kept.insert("result".into(), texts.value(result));
        }
        if let Some(code) = side.get("exitCode") {
            kept.insert("exitCode".into(), code.clone());
        }
    }
    Value::Object(kept)
}

fn names(nodes: &Map<String, Value>, ids: &Value, texts: &Texts<'_>) -> Value {
    let name = |id: &Value| {
        let id = id.as_str().unwrap_or_default();
        match nodes.get(id) {
            Some(node) => texts.text(node["name"].as_str().unwrap_or_default()),
            None => format!("?{}", texts.text(id)),
        }
    };
    let mut names: Vec<String> = ids.as_array().into_iter().flatten().map(name).collect();
    names.sort();
    names.into()
}

fn node(nodes: &Map<String, Value>, id: &str, found: &Value, texts: &Texts<'_>) -> Value {
    let text = |key: &str| texts.text(found[key].as_str().unwrap_or_default());
    let mut shown = json!({
        "path": path(nodes, id, texts), "name": text("name"), "displayName": text("displayName"),
        "type": found["type"], "phase": found["phase"], "children": names(nodes, &found["children"], texts),
    });
    let mut put = |key: &str, value: Value| {
        if !is_empty(&value) {
            shown[key] = value;
        }
    };
    put("message", texts.message(found["message"].as_str().unwrap_or_default()).into());
    put("templateName", text("templateName").into());
    put("templateRef", texts.value(&found["templateRef"]));
    put("templateScope", text("templateScope").into());
    if let Some(boundary) = found["boundaryID"].as_str().filter(|boundary| !boundary.is_empty()) {
        put("boundary", path(nodes, boundary, texts).into());
    }
    put("outboundNodes", names(nodes, &found["outboundNodes"], texts));
    put("inputs", side(texts, &found["inputs"], false));
    put("outputs", side(texts, &found["outputs"], true));
    put("nodeFlag", found["nodeFlag"].clone());
    put("progress", found["progress"].clone());
    put("failedPodRestarts", found["failedPodRestarts"].clone());
    if let Some(status) = found["memoizationStatus"].as_object() {
        let text = |key: &str| status.get(key).map_or(Value::Null, |value| texts.value(value));
        let hit = status.get("hit").cloned().unwrap_or_default();
        put("memoizationStatus", json!({"hit": hit, "cacheName": text("cacheName"), "key": text("key")}));
    }
    if !found["daemoned"].is_null() {
        shown["daemoned"] = found["daemoned"].clone();
    }
    if !found["synchronizationStatus"].is_null() {
        shown["synchronizationStatus"] = true.into();
    }
    shown
}

fn conditions(status: &Value, texts: &Texts<'_>) -> [(&'static str, Value); 3] {
    let all = status["conditions"].as_array().into_iter().flatten();
    let (mut kinds, mut states, mut messages) = (Vec::new(), Map::new(), Map::new());
    for condition in all {
        let kind = condition["type"].as_str().unwrap_or_default().to_owned();
        if !is_empty(&condition["status"]) {
            states.insert(kind.clone(), condition["status"].clone());
        }
        if let Some(message) = condition["message"].as_str().filter(|message| !message.is_empty()) {
            messages.insert(kind.clone(), texts.message(message).into());
        }
        kinds.push(kind);
    }
    kinds.sort();
    [("conditions", kinds.into()), ("conditionStatus", states.into()), ("conditionMessages", messages.into())]
}

/// A workflow of the API in the shape of a recording: `workflow` and `nodes`.
#[must_use]
pub fn normalise(workflow: &Value) -> Value {
    let texts = Texts::of(workflow);
    let status = &workflow["status"];
    let none = Map::new();
    let nodes = status["nodes"].as_object().unwrap_or(&none);
    let mut shown: Vec<Value> = nodes.iter().map(|(id, found)| node(nodes, id, found, &texts)).collect();
    let sorts = |node: &Value| (node["name"].to_string(), node["path"].to_string());
    shown.sort_by_key(sorts);
    let mut kept = Map::new();
    let mut put = |key: &str, value: Value| {
        if !is_empty(&value) {
            kept.insert(key.to_owned(), value);
        }
    };
    put("phase", status["phase"].clone());
    put("message", texts.message(status["message"].as_str().unwrap_or_default()).into());
    put("progress", status["progress"].clone());
    put("outputs", side(&texts, &status["outputs"], true));
    for (key, value) in conditions(status, &texts) {
        put(key, value);
    }
    let sorted = |names: Vec<String>| {
        let mut names = names;
        names.sort();
        Value::from(names)
    };
    let stored = status["storedTemplates"].as_object().into_iter().flatten();
    put("storedTemplates", sorted(stored.map(|(key, _)| texts.text(key)).collect()));
    let claims = status["persistentVolumeClaims"].as_array().into_iter().flatten();
    let claims = claims.map(|claim| claim["name"].as_str().unwrap_or_default().to_owned());
    put("persistentVolumeClaims", sorted(claims.collect()));
    for key in ["artifactGCStatus", "offloadNodeStatusVersion", "compressedNodes"] {
        let shown = if key == "offloadNodeStatusVersion" { "offloadNodeStatus" } else { key };
        put(shown, (!is_empty(&status[key])).into());
    }
    json!({"workflow": kept, "nodes": shown, "meta": meta(workflow, &texts)})
}

/// Labels and annotations that tell who asked, and when: not compared.
const OWN_MARKS: [&str; 5] = [
    "workflows.argoproj.io/pod-name-format",
    "workflows.argoproj.io/creator",
    "workflows.argoproj.io/creator-email",
    "workflows.argoproj.io/creator-preferred-username",
    "kubectl.kubernetes.io/last-applied-configuration",
];

fn meta(workflow: &Value, texts: &Texts<'_>) -> Value {
    let mut shown = Map::new();
    let mut put = |key: &str, value: Value| {
        if !is_empty(&value) {
            shown.insert(key.to_owned(), value);
        }
    };
    let metadata = &workflow["metadata"];
    for key in ["labels", "annotations"] {
        let all = metadata[key].as_object().into_iter().flatten();
        let kept = all.filter(|(key, _)| !OWN_MARKS.contains(&key.as_str()));
        let kept: Map<String, Value> =
            kept.map(|(key, value)| (texts.text(key), texts.value(value))).collect();
        put(key, kept.into());
    }
    put("finalizers", texts.value(&metadata["finalizers"]));
    for key in ["shutdown", "suspend"] {
        put(&format!("spec.{key}"), workflow["spec"][key].clone());
    }
    put("synchronization", texts.value(&workflow["status"]["synchronization"]));
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow() -> Value {
        json!({
            "metadata": {"name": "wf", "uid": "6b1c9a52-9d0e-4f0c-8a63-0d5b8f2a7c11", "creationTimestamp": "2026-01-02T03:04:05Z"},
            "status": {"phase": "Failed", "nodes": {
                "wf": {"name": "wf", "displayName": "wf", "type": "Steps", "phase": "Failed", "children": ["wf-1234567"],
                       "message": "child 'wf-1234567' failed"},
                "wf-1234567": {"name": "wf[0]", "displayName": "[0]", "boundaryID": "wf", "type": "StepGroup", "phase": "Failed"},
            }},
        })
    }

    #[test]
    fn what_varies_becomes_a_placeholder() {
        let workflow = workflow();
        let texts = Texts::of(&workflow);
        for (text, expected) in [
            ("wf-main-1234567 and wf-1234567", "$POD{$WF[0]} and $ID{$WF[0]}"),
            ("wf-99999", "$WF-$HASH"),
            ("at 2026-01-02T09:00:00Z", "at $TIME"),
            ("at 2020-01-02T09:00:00Z", "at 2020-01-02T09:00:00Z"),
            ("10.200.3.1:9000", "$IP:9000"),
            ("12.345678", "$DURATION"),
            ("6b1c9a52-9d0e-4f0c-8a63-0d5b8f2a7c11", "$UID"),
            ("1767323045", "$POSIX"),
        ] {
            assert_eq!(texts.text(text), expected);
        }
        assert_eq!(texts.message("timed out after 3.2s"), "timed out after $DUR");
    }

    #[test]
    fn nodes_have_paths_and_names_instead_of_ids() {
        let shown = normalise(&workflow());
        assert_eq!(shown["nodes"][0]["children"], json!(["$WF[0]"]));
        assert_eq!(shown["nodes"][0]["message"], "child '$ID{$WF[0]}' failed");
        assert_eq!(shown["nodes"][1]["path"], "$WF/[0]");
        assert_eq!(shown["nodes"][1]["boundary"], "$WF");
    }
}
