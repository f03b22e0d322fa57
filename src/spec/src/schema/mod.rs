//! What a manifest may hold: one table per type, and the walk that checks a document against them.
//!
//! The tables list every field of Argo's types that can be written in a Workflow, each with what becomes of it. A field
//! that is listed as refused is known and not supported; one that isn't listed is unknown. Supporting a field is a
//! matter of changing its entry (and of doing what it asks for).

mod argo;
mod artifact;
mod json;
mod kinds;
mod kubernetes;
mod laws;
mod leaf;
mod notes;
mod walk;

pub use json::{json_schema, json_schema_text};
pub(crate) use kinds::KINDS;
pub(crate) use walk::{Rules, walk};

use std::fmt;

/// The shape of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    String,
    /// Argo's AnyString: any scalar, read as text.
    AnyString,
    Integer,
    Boolean,
    IntOrString,
    /// Whatever is there, as it is.
    Any,
    Object(&'static Type),
    List(&'static Shape),
    /// A list of objects.
    Objects(&'static Type),
    /// An object with free keys.
    Map(&'static Shape),
    /// The groups of a steps template. Inside them Argo reads scalars strictly: `name: yes` is no string there.
    Groups(&'static Type),
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String => formatter.write_str("string"),
            Self::AnyString => formatter.write_str("scalar"),
            Self::Integer => formatter.write_str("integer"),
            Self::Boolean => formatter.write_str("boolean"),
            Self::IntOrString => formatter.write_str("integer or string"),
            Self::Any => formatter.write_str("any"),
            Self::Object(fields) => formatter.write_str(fields.name),
            Self::List(element) => write!(formatter, "list of {element}"),
            Self::Objects(fields) => write!(formatter, "list of {}", fields.name),
            Self::Map(element) => write!(formatter, "map of {element}"),
            Self::Groups(fields) => write!(formatter, "list of lists of {}", fields.name),
        }
    }
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Argosy acts on it.
    Honoured,
    /// Handed to Kubernetes as it is.
    Passed,
    /// Read and left out: it means nothing in a submission.
    Dropped,
    /// Known and not supported: a manifest that uses it is refused by name.
    Refused,
}

/// A field of a type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) status: Status,
}

/// A type: Argo's or Kubernetes' name, and its fields.
#[derive(Debug)]
pub(crate) struct Type {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
}

impl Type {
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

const fn honoured(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, status: Status::Honoured }
}

const fn passed(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, status: Status::Passed }
}

const fn dropped(name: &'static str) -> Field {
    Field { name, shape: Shape::Any, status: Status::Dropped }
}

const fn refused(name: &'static str) -> Field {
    Field { name, shape: Shape::Any, status: Status::Refused }
}

/// A line of the table of fields, for the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldLine {
    /// The type's name, e.g. `WorkflowSpec`.
    pub owner: &'static str,
    /// The field's name in YAML.
    pub field: &'static str,
    /// Its shape in words.
    pub shape: String,
    /// What becomes of it.
    pub status: Status,
    /// Why it is left out or refused; empty otherwise.
    pub reason: &'static str,
}

/// All types.
fn types() -> impl Iterator<Item = &'static Type> {
    argo::TYPES
        .iter()
        .chain(artifact::TYPES)
        .chain(leaf::TYPES)
        .chain(kinds::TYPES)
        .chain(kubernetes::TYPES)
        .copied()
}

/// Every field that is known, by type.
pub fn field_table() -> Vec<FieldLine> {
    types()
        .flat_map(|owner| {
            owner.fields.iter().map(|field| FieldLine {
                owner: owner.name,
                field: field.name,
                shape: field.shape.to_string(),
                status: field.status,
                reason: notes::reason(owner.name, field),
            })
        })
        .collect()
}

/// Fields of older versions of Argo that are read, with a warning: type, field, and what to write instead.
pub fn deprecated_fields() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    notes::DEPRECATIONS.iter().map(|old| (old.owner, old.field, old.says))
}

/// The reasons that are given for fields: type (or `*` for any), field, reason.
pub fn field_reasons() -> &'static [(&'static str, &'static str, &'static str)] {
    notes::REASONS
}

/// The table of fields as a page of documentation: `docs/manifest-fields.md`.
pub fn field_page() -> String {
    let table = field_table();
    let count = |status| table.iter().filter(|line| line.status == status).count();
    let mut page = format!(
        "# Fields of a manifest\n\n\
         Made by `cargo run -p argosy-spec --example fields`. *Honoured*: Argosy acts on it. *Passed*: handed to Kubernetes as \
         it is. *Dropped*: read and left out. *Refused*: known to Argo, and a manifest that uses it is refused by name, for \
         the reason that is given. A field that is not listed is unknown and refused. Which clusters can run what is another \
         question, which `argosy lint` answers: [lint](lint.md). The same tables as a JSON schema: \
         `argosy.schema.json`.\n\n\
         {} fields: {} honoured, {} passed, {} dropped, {} refused.\n",
        table.len(),
        count(Status::Honoured),
        count(Status::Passed),
        count(Status::Dropped),
        count(Status::Refused),
    );
    let mut owner = "";
    for line in table {
        if line.owner != owner {
            owner = line.owner;
            page.push_str(&format!("\n## {owner}\n\n| field | shape | status | why |\n|---|---|---|---|\n"));
        }
        page.push_str(&format!(
            "| {} | {} | {:?} | {} |\n",
            line.field, line.shape, line.status, line.reason
        ));
    }
    page.push_str("\n## Deprecated\n\nRead as in older versions of Argo, with a warning.\n\n");
    page.push_str("| type | field | instead |\n|---|---|---|\n");
    for (owner, field, says) in deprecated_fields() {
        page.push_str(&format!("| {owner} | {field} | {says} |\n"));
    }
    page
}
