//! The inputs that a fuzzer has found, and those that it begins with, through the same functions.
#![expect(clippy::disallowed_methods, reason = "a test that reads files")]

#[path = "../../../tests/fuzz/src/lib.rs"]
mod targets;

#[test]
fn inputs_that_were_found_by_fuzzing_do_no_harm() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz");
    let mut inputs = 0;
    for (name, target) in targets::TARGETS {
        for directory in ["seeds", "regressions"] {
            let Ok(files) = std::fs::read_dir(format!("{root}/{directory}/{name}")) else { continue };
            for file in files {
                target(&std::fs::read(file.unwrap().path()).unwrap());
                inputs += 1;
            }
        }
    }
    assert!(inputs > 20, "only {inputs} inputs were found");
}
