//! Prints `docs/manifest-fields.md`: the fields of a manifest and what becomes of each.

fn main() {
    print!("{}", argosy_spec::field_page());
}
