//! Compiles the schemas without protoc.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "argosy/common.proto",
        "argosy/agent.proto",
        "argosy/peer.proto",
        "argosy/command.proto",
        "argosy/fact.proto",
        "argosy/state.proto",
        "argo/artifact.proto",
    ];
    println!("cargo:rerun-if-changed=argosy");
    println!("cargo:rerun-if-changed=argo");
    let descriptors = protox::compile(files, ["."])?;
    let mut config = prost_build::Config::new();
    config.include_file("schemas.rs");
    config.btree_map(["."]);
    // There are very many nodes and attempts.
    config.boxed(".argosy.state.v1.Node.rare");
    config.boxed(".argosy.state.v1.Attempt.requests");
    config.type_attribute(".argosy.common.v1.Fence", "#[derive(PartialOrd, Ord)]");
    if std::env::var_os("CARGO_FEATURE_GRPC").is_some() {
        tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    } else {
        config.compile_fds(descriptors)?;
    }
    Ok(())
}
