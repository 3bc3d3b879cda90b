//! Generates `nsm-api/src/generated` from `nsm-api/proto`.
//!
//! `cargo run -p nsm-api-codegen` writes the files; `-- --check` writes nothing and exits with 1
//! when a checked-in file differs from what the protos say. No protoc is needed.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

const PROTOS: [&str; 5] =
    ["connection.proto", "connectioncontext.proto", "ipam.proto", "networkservice.proto", "registry.proto"];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let check = match env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => return Err(format!("unknown argument {other}; use --check or none").into()),
    };
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = api.join("src/generated");
    let scratch = Scratch::create()?;
    generate(&api.join("proto"), &scratch.0)?;

    let fresh = read_all(&scratch.0)?;
    let current = read_all(&target)?;
    if fresh == current {
        return Ok(ExitCode::SUCCESS);
    }
    if check {
        eprintln!("nsm-api/src/generated is not what nsm-api/proto says: run `cargo run -p nsm-api-codegen`");
        return Ok(ExitCode::FAILURE);
    }
    for name in current.keys().filter(|name| !fresh.contains_key(*name)) {
        fs::remove_file(target.join(name))?;
    }
    for (name, text) in fresh {
        fs::write(target.join(name), text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn generate(protos: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(PROTOS, [protos])?;
    tonic_prost_build::configure()
        .build_transport(false)
        // Sorted maps make encoding deterministic: equal messages have equal bytes.
        .btree_map(".")
        // Holds a token; nsm-api writes its Debug by hand.
        .skip_debug([".connection.PathSegment"])
        .out_dir(out)
        .compile_fds(descriptors)?;
    Ok(())
}

fn read_all(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    fs::read_dir(folder)?
        .map(|entry| {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok((name, fs::read_to_string(entry.path())?))
        })
        .collect()
}

/// A folder of this process that is gone when it ends.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn create() -> io::Result<Self> {
        let folder = env::temp_dir().join(format!("nsm-api-codegen-{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing is lost when this fails: a leftover in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
