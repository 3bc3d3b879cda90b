//! Generates the message types of `nsm-api` and `nsm-spiffe` from their protos.
//!
//! `cargo run -p nsm-api-codegen` writes the files; `-- --check` writes nothing and exits with 1
//! when a checked-in file differs from what the protos say. No protoc is needed.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

/// A crate with a folder `proto`, from which its `src/generated` is made.
struct Target {
    name: &'static str,
    protos: &'static [&'static str],
    /// Only servers are wanted of it.
    client: bool,
    /// Hold a secret: the crate writes their `Debug` by hand.
    secret: &'static [&'static str],
}

const TARGETS: [Target; 2] = [
    Target {
        name: "nsm-api",
        protos: &[
            "connection.proto",
            "connectioncontext.proto",
            "ipam.proto",
            "networkservice.proto",
            "registry.proto",
        ],
        client: true,
        secret: &[".connection.PathSegment"],
    },
    Target {
        name: "nsm-spiffe",
        protos: &["workload.proto"],
        client: false,
        secret: &[".X509SVID", ".JWTSVID", ".ValidateJWTSVIDRequest"],
    },
];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let check = match env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => return Err(format!("unknown argument {other}; use --check or none").into()),
    };
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut stale = false;
    for target in &TARGETS {
        stale |= !target.update(&workspace.join(target.name), check)?;
    }
    Ok(if stale { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Target {
    /// Writes what differs, or only says so. Tells whether the files are now what the protos say.
    fn update(&self, folder: &Path, check: bool) -> Result<bool, Box<dyn Error>> {
        let generated = folder.join("src/generated");
        let scratch = Scratch::create()?;
        self.generate(&folder.join("proto"), &scratch.0)?;

        let fresh = read_all(&scratch.0)?;
        let current = read_all(&generated)?;
        if fresh == current {
            return Ok(true);
        }
        if check {
            eprintln!("{0}/src/generated is not what {0}/proto says: run `cargo run -p nsm-api-codegen`", self.name);
            return Ok(false);
        }
        for name in current.keys().filter(|name| !fresh.contains_key(*name)) {
            fs::remove_file(generated.join(name))?;
        }
        for (name, text) in fresh {
            fs::write(generated.join(name), text)?;
        }
        Ok(true)
    }

    fn generate(&self, protos: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
        let descriptors = protox::compile(self.protos, [protos])?;
        tonic_prost_build::configure()
            .build_transport(false)
            .build_client(self.client)
            // Sorted maps make encoding deterministic: equal messages have equal bytes.
            .btree_map(".")
            .skip_debug(self.secret)
            .out_dir(out)
            .compile_fds(descriptors)?;
        Ok(())
    }
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
