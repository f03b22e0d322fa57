//! Argo's node field selectors: `displayName=a,phase!=Failed`.

use argosy_model::node_id;
use argosy_proto::command::Refusal;
use argosy_proto::state as row;

use crate::Code;
use crate::scope::display_name;
use crate::state::{State, phase_of};

/// Terms of one selector.
const TERMS_MAX: usize = 64;

/// A parsed selector: every term must hold.
#[derive(Debug)]
pub(crate) struct Selector(Vec<Term>);

#[derive(Debug)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// Reads `field=value`, `field==value` and `field!=value`, separated by commas.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut terms = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (field, value, true)
            } else {
                return Err(Code::InvalidArgument
                    .refuse(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            terms.push(Term { field: field.trim().to_owned(), value: value.trim().to_owned(), equal });
        }
        if terms.is_empty() || terms.len() > TERMS_MAX {
            return Err(Code::InvalidArgument.refuse(format!(
                "a node field selector must have 1 to {TERMS_MAX} terms, such as displayName=a"
            )));
        }
        Ok(Self(terms))
    }

    pub(crate) fn matches(&self, state: &State, workflow: u64, node: &row::Node) -> bool {
        self.0.iter().all(|term| {
            let found = field(state, workflow, node, &term.field).unwrap_or_default();
            (found == term.value) == term.equal
        })
    }
}

fn field(state: &State, workflow: u64, node: &row::Node, name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("inputs.parameters.") {
        let parameter = rest.strip_suffix(".value")?;
        return node.inputs.iter().find(|input| input.name == parameter)?.value.clone();
    }
    match name {
        "displayName" => Some(display_name(state, workflow, node)),
        "name" => Some(node.name.clone()),
        "templateName" => Some(node.template.clone()),
        "phase" => Some(phase_of(node).as_str().to_owned()),
        "id" => Some(node_id(&state.workflows.get(&workflow)?.name, &node.name)),
        _ => None,
    }
}
