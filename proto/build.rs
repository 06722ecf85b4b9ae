//! Generates messages, clients and servers from the protos, without a protobuf compiler on the machine.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells build scripts where to write in the environment"
)]
fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    collect(Path::new("doseline"), &mut files)?;
    files.sort();
    println!("cargo:rerun-if-changed=doseline");
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("doseline.bin"), descriptors.encode_to_vec())?;
    let mut builder = tonic_prost_build::configure()
        .bytes(".")
        .include_file("packages.rs");
    // A round is three times as large as a booking's answer, and answers of bookings are moved about all day.
    for round in ["offer", "close", "list", "get"] {
        builder = builder.boxed(format!(
            ".doseline.inventory.v1.Answer.outcome.{round}_leftovers"
        ));
    }
    builder.compile_fds(descriptors.clone())?;
    fs::write(out.join("methods.rs"), methods(&descriptors)?)?;
    let lists = [
        "ListClinicsResponse",
        "ListSlotsResponse",
        "WatchAvailabilityResponse",
        "GetSupplyResponse",
    ];
    encoded_server(&out, &descriptors, "availability", &lists)?;
    let rooms = ["GetRoomResponse", "WatchRoomResponse"];
    encoded_server(&out, &descriptors, "room", &rooms)?;
    Ok(())
}

/// The gateway answers lists and rooms from memory with bytes encoded once, so their servers are generated again
/// with answer types that are already encoded (see `encoded.rs`).
fn encoded_server(
    out: &Path,
    descriptors: &prost_types::FileDescriptorSet,
    area: &str,
    answers: &[&str],
) -> Result<(), Box<dyn Error>> {
    let folder = out.join("encoded").join(area);
    fs::create_dir_all(&folder)?;
    let package = format!("doseline.{area}.v1");
    let mut builder = tonic_prost_build::configure()
        .build_client(false)
        .out_dir(&folder);
    for answer in answers {
        builder = builder.extern_path(format!(".{package}.{answer}"), "crate::encoded::Encoded");
    }
    builder
        .extern_path(format!(".{package}"), format!("crate::{area}"))
        .extern_path(".doseline.common.v1", "crate::common")
        .compile_fds(only_package(descriptors.clone(), &package))?;
    Ok(())
}

/// Every method that a gateway offers, as an enum: tables over methods are exhaustive matches, so a method that is
/// added and forgotten in one of them does not compile.
fn methods(descriptors: &prost_types::FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    let mut variants = String::new();
    let (mut all, mut paths, mut ops, mut parse) =
        (String::new(), String::new(), String::new(), String::new());
    for file in &descriptors.file {
        let package = file.package();
        let internal = [
            "doseline.inventory.v1",
            "doseline.admin.v1",
            "doseline.doorkeeper.v1",
            "doseline.regions.v1",
        ];
        if internal.contains(&package) {
            continue;
        }
        for service in &file.service {
            for method in &service.method {
                let (service, method) = (service.name(), method.name());
                let path = format!("/{package}.{service}/{method}");
                let op = snake(method);
                writeln!(variants, "/// `{service}.{method}`.\n{method},")?;
                writeln!(all, "Self::{method},")?;
                writeln!(paths, "Self::{method} => {path:?},")?;
                writeln!(ops, "Self::{method} => {op:?},")?;
                writeln!(parse, "{path:?} => Some(Self::{method}),")?;
            }
        }
    }
    Ok(format!(
        "/// A method of the public API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Method {{ {variants} }}
        impl Method {{
            /// Every public method.
            pub const ALL: &'static [Self] = &[{all}];
            /// The path of its calls.
            #[must_use]
            pub const fn path(self) -> &'static str {{ match self {{ {paths} }} }}
            /// Its name in logs, traces and metrics, such as `hold_slots`.
            #[must_use]
            pub const fn op(self) -> &'static str {{ match self {{ {ops} }} }}
            /// The method that is called by a path; `None` for what is not part of the public API.
            #[must_use]
            pub fn from_path(path: &str) -> Option<Self> {{ match path {{ {parse} _ => None }} }}
        }}"
    ))
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
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
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    Ok(())
}
