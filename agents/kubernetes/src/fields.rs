//! Typed parts of a template and of a workflow's specification. Pure.

use crate::pod::Error;
use serde_json::Value;

/// A template or workflow spec, of which typed parts are taken.
pub struct Part<'a> {
    pub what: &'static str,
    pub value: &'a Value,
}

impl Part<'_> {
    pub fn get<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.value.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
        let parsed = T::deserialize(value);
        parsed
            .map(Some)
            .map_err(|error| Error::Malformed { what: self.what, reason: format!("{field}: {error}") })
    }

    pub fn list<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<Vec<T>, Error> {
        Ok(self.get(field)?.unwrap_or_default())
    }
}

/// The template's value where it has one, else the workflow's, as Argo chooses for most fields.
pub struct Chosen<'a> {
    pub template: Part<'a>,
    pub workflow: Part<'a>,
}

impl Chosen<'_> {
    pub fn either<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<Option<T>, Error> {
        Ok(match self.template.get(field)? {
            Some(value) => Some(value),
            None => self.workflow.get(field)?,
        })
    }

    pub fn both<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<Vec<T>, Error> {
        let mut all = self.workflow.list(field)?;
        all.extend(self.template.list(field)?);
        Ok(all)
    }

    pub fn either_list<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<Vec<T>, Error> {
        let own = self.template.list(field)?;
        if own.is_empty() { self.workflow.list(field) } else { Ok(own) }
    }
}

/// Reads JSON; nothing at all is an empty object.
pub fn parse(what: &'static str, json: &str) -> Result<Value, Error> {
    let json = if json.is_empty() { "{}" } else { json };
    serde_json::from_str(json).map_err(|error| Error::Malformed { what, reason: error.to_string() })
}

/// True for a value that says something.
pub fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::Object(_) => true,
    }
}
