//! The book beside the code: what it names is there, what it quotes is as it is, where it leads is something.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod elements;
mod errors;
mod links;
mod program;

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below `folder` with this extension, as paths from the root.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The libraries' sources, without unit tests and comments.
fn library_sources() -> Vec<(String, String)> {
    let crates =
        ["nsm-api", "nsm-chain", "nsm-kernel", "nsm-wireguard", "nsm-memif", "nsm-mechanisms", "nsm-sdk", "nsm-dns"];
    let paths = crates.iter().flat_map(|name| files(&format!("{name}/src"), "rs"));
    let is_test = |path: &PathBuf| {
        path.components().any(|part| ["tests", "tests.rs", "testing.rs"].iter().any(|it| part.as_os_str() == *it))
    };
    paths
        .filter(|path| !is_test(path))
        .map(|path| {
            let text = read(&path);
            // Also where tests are for some features only.
            let tests = text.find("\n#[cfg(test)]\nmod tests {").or(text.find("\n#[cfg(test)]\n#[cfg("));
            let code = &text[..tests.unwrap_or(text.len())];
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            (path.display().to_string(), lines.collect::<Vec<_>>().join("\n"))
        })
        .collect()
}
