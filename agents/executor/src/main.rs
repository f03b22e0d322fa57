//! The executor's binary: see the library.

fn main() -> std::process::ExitCode {
    argosy_executor::main(std::env::args_os().skip(1).collect())
}
