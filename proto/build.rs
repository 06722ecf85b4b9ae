//! Generates messages, clients and servers from the protos, without a protobuf compiler on the machine.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    collect(Path::new("doseline"), &mut files)?;
    files.sort();
    println!("cargo:rerun-if-changed=doseline");
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("doseline.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .include_file("packages.rs")
        .compile_fds(descriptors.clone())?;
    // The gateway answers lists from memory with bytes encoded once, so its server is generated again with an
    // answer type that is already encoded (see `encoded.rs`).
    let encoded = out.join("encoded");
    fs::create_dir_all(&encoded)?;
    let answers = ["ListClinicsResponse", "ListSlotsResponse", "WatchAvailabilityResponse"];
    let mut builder = tonic_prost_build::configure().build_client(false).out_dir(&encoded);
    for answer in answers {
        builder = builder.extern_path(
            format!(".doseline.availability.v1.{answer}"),
            "crate::encoded::Encoded",
        );
    }
    builder
        .extern_path(".doseline.availability.v1", "crate::availability")
        .extern_path(".doseline.common.v1", "crate::common")
        .compile_fds(only_package(descriptors, "doseline.availability.v1"))?;
    Ok(())
}

fn only_package(
    mut descriptors: prost_types::FileDescriptorSet,
    package: &str,
) -> prost_types::FileDescriptorSet {
    for file in &mut descriptors.file {
        if file.package() != package {
            file.service.clear();
        }
    }
    descriptors
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
