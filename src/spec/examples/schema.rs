//! Prints the JSON schema of manifests: `docs/argosy.schema.json` is made with it.

fn main() {
    print!("{}", argosy_spec::json_schema_text());
}
