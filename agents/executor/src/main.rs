//! The executor's binary.
fn main() {}
