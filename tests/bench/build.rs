//! Compiles the part of etcd's API that the load generator speaks.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=etcd");
    let descriptors = protox::compile(["rpc.proto"], ["etcd"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
