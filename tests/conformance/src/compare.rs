//! What is different between a recording and ours, both in a recording's shape.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

use crate::normalise::{Texts, normalise};

/// Messages of which either may be there: in Argo itself it is a race who tells.
const DEADLINE_RACE: [&str; 2] =
    ["Pod was active on the node longer than the specified deadline", "Step exceeded its deadline"];
/// What stands for a span of time.
const DURATION: &str = "$DUR";
/// A condition that is a race.
const POD_RUNNING: &str = "PodRunning";

/// What of a recording is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The end.
    End,
    /// A look at a workflow under way: progress lags behind the nodes until the controller looks again.
    Underway,
    /// The same in real time: whether a Pod has started yet hangs on its host as well.
    Live,
}

/// Every difference, each as one line.
#[must_use]
pub fn differences(recorded: &Value, ours: &Value, moment: Moment) -> Vec<String> {
    let mut found = Vec::new();
    let (mut expected, mut shown) = (recorded["workflow"].clone(), ours["workflow"].clone());
    if is_reduced(recorded) {
        keep_fields_of(&expected, &mut shown);
    }
    for side in [&mut expected, &mut shown] {
        forget_races(side, moment);
    }
    fields("workflow", &expected, &shown, &mut found);
    if recorded["meta"].is_object() {
        // The repository that a reference came to is compared with artifacts.
        let mut expected = recorded["meta"].clone();
        for key in ["artifactRepositoryRef", "artifactGCStatus"] {
            expected.as_object_mut().and_then(|meta| meta.remove(key));
        }
        forget_creator(&mut expected);
        fields("meta", &expected, &ours["meta"], &mut found);
    }
    nodes(recorded, ours, moment, &mut found);
    found
}

/// What was seen of a case.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The main workflow at the end, as the API shows it; `None`: it is gone.
    pub main: Option<Value>,
    /// Other workflows at the end.
    pub others: Vec<(String, Value)>,
    /// Looks on the way, by name.
    pub snapshots: Vec<(String, Value)>,
    /// Objects looked at, by name.
    pub objects: Map<String, Value>,
    /// Seen in real time.
    pub is_live: bool,
}

impl Seen {
    /// Every difference to what was recorded.
    #[must_use]
    pub fn differences(&self, record: &Value, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        match (&self.main, record["deleted"] == true) {
            (Some(_), true) => found.push("the workflow should be gone".to_owned()),
            (None, true) => {}
            (Some(shown), false) => found.extend(differences(record, &normalise(shown), Moment::End)),
            (None, false) => found.push("there is no workflow".to_owned()),
        }
        for (snapshot, shown) in &self.snapshots {
            let recorded = &record["snapshots"][snapshot];
            let moment = if self.is_live { Moment::Live } else { Moment::Underway };
            let all = differences(recorded, &normalise(shown), moment);
            found.extend(all.into_iter().map(|difference| format!("snapshot {snapshot}: {difference}")));
        }
        let shown = self.others.iter().map(|(name, shown)| (name.clone(), normalise(shown)));
        found.extend(others(&record["others"], &shown.collect::<Vec<_>>(), name));
        let none = Value::Null;
        let texts = Texts::of(self.main.as_ref().unwrap_or(&none));
        for (name, object) in &self.objects {
            let [mut recorded, mut shown] = [record["objects"][name].clone(), texts.value(object)];
            [&mut recorded, &mut shown].into_iter().for_each(open_entries);
            values(name, &recorded, &shown, &mut found);
        }
        found
    }
}

/// Entries of memoization caches are JSON in texts, which recordings hold as it is; where an entry's outputs came from is no
/// part of it, as with nodes.
fn open_entries(object: &mut Value) {
    for entry in object.get_mut("data").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        let read = entry.as_str().and_then(|text| serde_json::from_str::<Map<_, _>>(text).ok());
        if let Some(read) = read {
            *entry = Value::Object(read);
        }
        let outputs = entry.pointer_mut("/outputs/parameters").and_then(Value::as_array_mut);
        for output in outputs.into_iter().flatten().filter_map(Value::as_object_mut) {
            output.remove("valueFrom");
        }
    }
}

/// An older recording, which holds fewer fields: what it does not hold is not compared.
fn is_reduced(recorded: &Value) -> bool {
    recorded["nodes"].as_array().is_some_and(|nodes| nodes.iter().any(|node| node["path"].is_null()))
}

fn keep_fields_of(expected: &Value, shown: &mut Value) {
    let fields = ["path", "boundary", "artifactGCStatus", "conditions", "conditionStatus"];
    for field in fields.iter().filter(|field| expected[**field].is_null()) {
        shown.as_object_mut().and_then(|shown| shown.remove(*field));
    }
}

fn forget_races(workflow: &mut Value, moment: Moment) {
    if let Some(kinds) = workflow.get_mut("conditions").and_then(Value::as_array_mut) {
        kinds.retain(|kind| kind != POD_RUNNING);
    }
    for key in ["conditionStatus", "conditionMessages"] {
        workflow.get_mut(key).and_then(Value::as_object_mut).and_then(|states| states.remove(POD_RUNNING));
    }
    if moment != Moment::End {
        // Conditions are not part of a look.
        for key in ["progress", "conditions", "conditionStatus", "conditionMessages"] {
            workflow.as_object_mut().and_then(|workflow| workflow.remove(key));
        }
    }
    if let Some(fields) = workflow.as_object_mut() {
        fields.retain(|_, value| !is_nothing(value));
    }
}

fn forget_creator(meta: &mut Value) {
    for key in ["labels", "annotations"] {
        let all = meta.get_mut(key).and_then(Value::as_object_mut);
        all.into_iter()
            .for_each(|all| all.retain(|key, _| !key.starts_with("workflows.argoproj.io/creator")));
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null()
        || value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(Map::is_empty)
}

fn nodes(recorded: &Value, ours: &Value, moment: Moment, found: &mut Vec<String>) {
    let by_name = |record: &Value| -> BTreeMap<String, Value> {
        let all = record["nodes"].as_array().cloned().unwrap_or_default();
        all.into_iter().map(|node| (node["name"].as_str().unwrap_or_default().to_owned(), node)).collect()
    };
    let mut mine = by_name(ours);
    for (name, mut expected) in by_name(recorded) {
        let Some(mut shown) = mine.remove(&name) else {
            found.push(format!("{name}: missing"));
            continue;
        };
        if moment != Moment::End {
            for node in [&mut expected, &mut shown] {
                node.as_object_mut().and_then(|node| node.remove("progress"));
            }
        }
        if is_reduced(recorded) {
            keep_fields_of(&expected, &mut shown);
        }
        if moment == Moment::Live && is_under_way(&expected) && is_under_way(&shown) {
            shown["phase"] = expected["phase"].clone();
        }
        if hit_deadline(&expected) && hit_deadline(&shown) {
            // Whoever tells first may know it or not: both are recorded (`deadline/deadline-template-retried`,
            // `deadline/deadline-template-running-pod`).
            for node in [&mut expected, &mut shown] {
                if let Some(outputs) = node.get_mut("outputs").and_then(Value::as_object_mut) {
                    outputs.remove("exitCode");
                }
            }
        }
        fields(&name, &expected, &shown, found);
    }
    found.extend(mine.keys().map(|name| format!("{name}: not in the recording")));
}

fn is_under_way(node: &Value) -> bool {
    node["type"] == "Pod" && (node["phase"] == "Pending" || node["phase"] == "Running")
}

fn hit_deadline(node: &Value) -> bool {
    node["message"].as_str().is_some_and(|text| DEADLINE_RACE.iter().any(|message| text.contains(message)))
}

/// Compares two objects field by field.
fn fields(of: &str, expected: &Value, shown: &Value, found: &mut Vec<String>) {
    let none = Map::new();
    let sides = [expected.as_object().unwrap_or(&none), shown.as_object().unwrap_or(&none)];
    let keys: BTreeSet<&String> = sides.iter().flat_map(|side| side.keys()).collect();
    for key in keys {
        let (expected, shown) = (&expected[key.as_str()], &shown[key.as_str()]);
        if !same(key, expected, shown) {
            found.push(format!("{of} {key}: recorded {expected}, ours {shown}"));
        }
    }
}

fn same(key: &str, expected: &Value, shown: &Value) -> bool {
    if expected == shown || is_nothing(expected) && is_nothing(shown) {
        return true;
    }
    let (Some(expected), Some(shown)) = (expected.as_str(), shown.as_str()) else {
        return expected.is_null() && shown == "" || shown.is_null() && expected == "";
    };
    if key == "message" && expected.contains(DURATION) {
        return same_but_durations(expected, shown);
    }
    let races = |text: &str| DEADLINE_RACE.iter().any(|message| text.contains(message));
    key == "message" && races(expected) && races(shown)
}

/// Any span of time may stand where a recording has the placeholder.
fn same_but_durations(expected: &str, shown: &str) -> bool {
    let parts: Vec<String> = expected.split(DURATION).map(regex::escape).collect();
    let pattern = format!("^{}$", parts.join(r"(?:\$DUR|(?:\d+h)?(?:\d+m)?\d+(?:\.\d+)?m?s)"));
    regex::Regex::new(&pattern).is_ok_and(|pattern| pattern.is_match(shown))
}

/// Differences of two values, place by place: for objects that are recorded as they are.
pub fn values(at: &str, expected: &Value, shown: &Value, found: &mut Vec<String>) {
    match (expected, shown) {
        (Value::Object(one), Value::Object(other)) => {
            for key in one.keys().chain(other.keys()).collect::<BTreeSet<_>>() {
                values(&format!("{at}.{key}"), &expected[key.as_str()], &shown[key.as_str()], found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (number, (one, other)) in one.iter().zip(other).enumerate() {
                values(&format!("{at}[{number}]"), one, other, found);
            }
        }
        _ if expected == shown || is_nothing(expected) && is_nothing(shown) => {}
        _ => found.push(format!("{at}: recorded {expected}, ours {shown}")),
    }
}

/// Recordings of workflows beside the main one (`others`), each matched with the one of ours that is most like it.
#[must_use]
pub fn others(recorded: &Value, ours: &[(String, Value)], main: &str) -> Vec<String> {
    let mut left: Vec<(String, &Value)> =
        ours.iter().map(|(name, shown)| (shown_name(name, main), shown)).collect();
    let mut found = Vec::new();
    for expected in recorded.as_array().into_iter().flatten() {
        let name = expected["name"].as_str().unwrap_or_default();
        let may_be = |own: &str| match name.strip_suffix("$RANDOM") {
            Some(start) => own.starts_with(start),
            None => own == name,
        };
        let judged = left.iter().enumerate().filter(|(_, (own, _))| may_be(own));
        let judged = judged.map(|(place, (_, shown))| (place, differences(expected, shown, Moment::End)));
        match judged.min_by_key(|(_, differences)| differences.len()) {
            Some((place, differences)) => {
                left.remove(place);
                found.extend(differences.into_iter().map(|difference| format!("{name}: {difference}")));
            }
            None => found.push(format!("{name}: missing")),
        }
    }
    found.extend(left.iter().map(|(name, _)| format!("{name}: not in the recording")));
    found
}

fn shown_name(name: &str, main: &str) -> String {
    name.replace(main, "$WF")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(workflow: Value, node: Value) -> Value {
        json!({"workflow": workflow, "nodes": [node], "meta": {"labels": {"a": "b"}}})
    }

    #[test]
    fn each_field_counts_and_races_do_not() {
        let recorded = of(
            json!({"phase": "Failed", "conditions": ["Completed", "PodRunning"], "progress": "1/2"}),
            json!({"name": "$WF", "phase": "Failed", "message": "Step exceeded its deadline", "progress": "0/1"}),
        );
        let mut ours = recorded.clone();
        ours["workflow"]["conditions"] = json!(["Completed"]);
        ours["nodes"][0]["message"] = json!("Pod was active on the node longer than the specified deadline");
        assert_eq!(differences(&recorded, &ours, Moment::End), Vec::<String>::new());
        ours["nodes"][0]["progress"] = json!("1/1");
        ours["meta"]["labels"]["a"] = json!("c");
        assert_eq!(differences(&recorded, &ours, Moment::End).len(), 2);
        assert_eq!(differences(&recorded, &ours, Moment::Underway).len(), 1);
        ours["nodes"][0]["daemoned"] = json!(false);
        ours["nodes"][0]["name"] = json!("$WF.x");
        assert_eq!(
            differences(&recorded, &ours, Moment::End).len(),
            3,
            "one missing, one too many, and meta"
        );
    }

    #[test]
    fn what_hangs_on_the_moment_is_no_difference() {
        let look = |phase: &str, message: &str, outputs: Value| {
            let node =
                json!({"name": "$WF", "type": "Pod", "phase": phase, "message": message, "outputs": outputs});
            of(json!({"phase": "Running"}), node)
        };
        let (pending, running) = (look("Pending", "", json!(null)), look("Running", "", json!(null)));
        assert_eq!(differences(&pending, &running, Moment::Live).len(), 0);
        assert_eq!(differences(&pending, &running, Moment::Underway).len(), 1);
        assert_eq!(differences(&pending, &look("Failed", "", json!(null)), Moment::Live).len(), 1);
        let late = |code: Value| look("Failed", "Step exceeded its deadline", json!({"exitCode": code}));
        assert_eq!(differences(&late(json!(null)), &late(json!("143")), Moment::End).len(), 0);
        let failed = |code: &str| look("Failed", "", json!({"exitCode": code}));
        assert_eq!(differences(&failed("1"), &failed("2"), Moment::End).len(), 1);
    }

    #[test]
    fn entries_of_caches_are_compared_as_json() {
        let mut text = json!({"data": {"k": r#"{"outputs":{"parameters":[{"name":"x","value":"v"}]}}"#}});
        let parameter = json!({"name": "x", "value": "v", "valueFrom": {"path": "/x"}});
        let mut read = json!({"data": {"k": {"outputs": {"parameters": [parameter]}}}});
        [&mut text, &mut read].into_iter().for_each(open_entries);
        assert_eq!(text, read);
    }

    #[test]
    fn others_are_matched_by_name_and_likeness() {
        let failed = json!({"name": "$WF-$RANDOM", "workflow": {"phase": "Failed"}, "nodes": []});
        let good = json!({"name": "$WF-$RANDOM", "workflow": {"phase": "Succeeded"}, "nodes": []});
        let ours = [("w-1".to_owned(), good.clone()), ("w-2".to_owned(), failed.clone())];
        assert_eq!(others(&json!([failed, good]), &ours, "w"), Vec::<String>::new());
        assert_eq!(others(&json!([failed]), &ours, "w"), ["$WF-1: not in the recording"]);
    }
}
