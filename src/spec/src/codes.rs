//! The codes of problems.

/// Every code that a [`crate::Diagnostic`] may carry, with its meaning. Codes are stable: none is used again for
/// something else.
pub const CODES: &[(&str, &str)] = &[
    ("ARG0001", "the text is not readable YAML or JSON, or holds no document"),
    ("ARG0002", "the text is too long, too deep or has too many values"),
    ("ARG0003", "a value is of the wrong type"),
    ("ARG0004", "a field is unknown"),
    ("ARG0005", "a field of Argo is not supported"),
    ("ARG0006", "a key is given twice"),
    ("ARG0007", "the kind or apiVersion is not supported"),
    ("ARG0010", "something required is missing"),
    ("ARG0011", "a template that is named does not exist"),
    ("ARG0012", "a name is not allowed"),
    ("ARG0013", "a name is not unique"),
    ("ARG0014", "a template has no type, or several"),
    ("ARG0015", "a graph of tasks has a cycle, or names a task or result that it has not"),
    ("ARG0016", "a reference in a tag can't be resolved"),
    ("ARG0017", "a parameter has no value"),
    ("ARG0018", "a value, or a combination of values, is not allowed"),
    ("ARG0019", "a field is not valid in this type of template"),
    ("ARG0020", "expression tags (`{{=...}}`) were not supported (no longer told)"),
    ("ARG0021", "an `argosy.dev/...` annotation has an unknown value, or is misspelt"),
    ("ARG0160", "a field is of an older version of Argo (a warning)"),
    ("ARG0161", "a text is read as something else than what is written (a warning)"),
    ("ARG0162", "a field is written in another case (a warning)"),
    ("ARG0163", "a stored template that is referred to does not exist"),
    ("ARG1121", "no cluster that has joined can run such a template"),
    ("ARG1242", "clusters that run steps as processes leave a field out (a warning)"),
    ("ARG1243", "no cluster that has joined is one that a step asks for (a warning)"),
    ("ARG1244", "the agents refused the steps of a template (a warning; no longer told)"),
    ("ARG0220", "a template can't be exclusive: its processes can't be ended with their lease"),
];
