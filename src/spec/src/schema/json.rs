//! The tables as a JSON schema, for the completion and the checks of editors.

use serde_json::{Map, Value, json};

use super::kinds::KINDS;
use super::laws::{Law, laws_of};
use super::notes::{Becomes, DEPRECATIONS, reason};
use super::{Field, Shape, Status, Type, types};

/// The JSON schema (draft 7, which editors know) of the YAML that is accepted: `docs/argosy.schema.json`.
pub fn json_schema() -> Value {
    let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
    let by_kind: Vec<Value> = KINDS
        .iter()
        .map(|(kind, fields)| {
            let mut condition = json!({"properties": {"kind": {"const": kind}}});
            if *kind != "Workflow" {
                // Without a kind it is a Workflow.
                condition["required"] = json!(["kind"]);
            }
            json!({"if": condition, "then": reference(fields)})
        })
        .collect();
    let definitions: Map<String, Value> =
        types().map(|fields| (fields.name.to_owned(), object(fields))).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Argo workflows, as Argosy reads them",
        "type": "object",
        "properties": {
            "apiVersion": {"const": crate::parse::VERSION},
            "kind": {"enum": kinds},
        },
        "allOf": by_kind,
        "definitions": definitions,
    })
}

/// The schema as a text.
pub fn json_schema_text() -> String {
    format!("{:#}\n", json_schema())
}

fn reference(fields: &Type) -> Value {
    json!({"$ref": format!("#/definitions/{}", fields.name)})
}

fn object(owner: &Type) -> Value {
    let mut properties: Map<String, Value> =
        owner.fields.iter().map(|field| (field.name.to_owned(), property(owner, field))).collect();
    for old in DEPRECATIONS.iter().filter(|old| old.owner == owner.name) {
        let mut value = match old.becomes {
            Becomes::OneOf(list) => match owner.field(list).map(|field| field.shape) {
                Some(Shape::Objects(fields)) => reference(fields),
                Some(Shape::List(element)) => shape(element),
                _ => json!({}),
            },
            Becomes::Nothing => json!({}),
        };
        if value.get("$ref").is_none() {
            value["deprecated"] = json!(true);
            value["description"] = json!(format!("Deprecated: {}.", old.says));
        }
        properties.insert(old.field.to_owned(), value);
    }
    let mut required = Vec::new();
    for (field, law) in laws_of(owner.name) {
        let property = &mut properties[field];
        match law {
            Law::Required => required.push(field),
            Law::OneOf(allowed) => {
                let texts = allowed.iter().map(|text| json!(text)).chain([Value::Null]);
                property["enum"] = texts.collect();
            }
            Law::Between(low, high) => {
                property["minimum"] = json!(low);
                property["maximum"] = json!(high);
            }
            Law::LengthAtMost(most) => property["maxLength"] = json!(most),
            Law::NotEmpty => {
                property["minLength"] = json!(1);
                property["minItems"] = json!(1);
            }
            Law::LabelName => property["pattern"] = json!("^[a-zA-Z_][a-zA-Z0-9_]*$"),
        }
    }
    let mut schema =
        json!({"type": ["object", "null"], "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(owner: &Type, field: &Field) -> Value {
    let why = reason(owner.name, field);
    match field.status {
        Status::Honoured | Status::Passed => shape(&field.shape),
        Status::Dropped => json!({"description": format!("Left out: {why}.")}),
        // As empty values are: they ask for nothing.
        Status::Refused => {
            json!({"enum": [null, false, [], {}], "description": format!("Not supported: {why}.")})
        }
    }
}

fn shape(shape: &Shape) -> Value {
    match shape {
        // Scalars become texts where a text is wanted.
        Shape::String | Shape::AnyString => json!({"type": ["string", "number", "boolean", "null"]}),
        Shape::Integer => json!({"type": ["integer", "null"]}),
        Shape::Boolean => json!({"type": ["boolean", "null"]}),
        Shape::IntOrString => json!({"type": ["integer", "string", "null"]}),
        Shape::Any => json!({}),
        Shape::Object(fields) => reference(fields),
        Shape::List(element) => json!({"type": ["array", "null"], "items": self::shape(element)}),
        Shape::Objects(fields) => json!({"type": ["array", "null"], "items": reference(fields)}),
        Shape::Map(element) => {
            json!({"type": ["object", "null"], "additionalProperties": self::shape(element)})
        }
        Shape::Groups(fields) => {
            let group = json!({"type": "array", "items": reference(fields)});
            json!({"type": ["array", "null"], "items": group})
        }
    }
}
