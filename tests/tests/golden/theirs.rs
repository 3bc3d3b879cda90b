//! With Go: its check of what we write, and the corpus made anew.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{fs, io};

use nsm_tests::reference;
use serde::Serialize;

use crate::{corpus, headers, messages, tokens, values};

/// The reference's program; none where there is no Go, and none is required.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden-go");
        match reference::build("./cmd/golden", &program) {
            Ok(()) => Some(program),
            Err(unavailable) => {
                println!("golden: skipped: {}", unavailable.reason);
                assert!(!unavailable.required, "{}", unavailable.reason);
                None
            }
        }
    };
    PROGRAM.get_or_init(build).as_deref()
}

/// An empty directory for one test.
fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{}: {error}", directory.display()),
        _ => fs::create_dir_all(&directory).unwrap(),
    }
    directory
}

fn write(path: &Path, content: &impl Serialize) {
    fs::write(path, serde_json::to_vec(content).unwrap()).unwrap();
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_reference_takes_what_we_write() {
    let Some(program) = program() else { return };
    let directory = scratch("golden-ours");
    let messages: Vec<_> = messages::all().into_iter().map(|one| one.encoded).collect();
    write(&directory.join("messages.json"), &messages);
    write(&directory.join("headers.json"), &headers::ours());
    write(&directory.join("tokens.json"), &tokens::ours());
    write(&directory.join("files.json"), &values::files());
    run(Command::new(program).arg("--check").arg("--identities").arg(corpus::directory()).arg(&directory));
}

#[test]
fn the_corpus_is_what_the_reference_writes() {
    let Some(program) = program() else { return };
    let directory = scratch("golden-theirs");
    // Keys and signatures are random: these the program verifies and keeps.
    for file in ["client.pem", "client.key.pem", "server.pem", "server.key.pem", "tokens.json"] {
        fs::copy(corpus::directory().join(file), directory.join(file)).unwrap();
    }
    run(Command::new(program).arg(&directory));
    let names = |directory: &Path| {
        let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let files = names(&directory);
    assert_eq!(names(&corpus::directory()), files);
    for file in files {
        let (committed, anew) = (corpus::directory().join(&file), directory.join(&file));
        assert!(fs::read(&committed).unwrap() == fs::read(anew).unwrap(), "{} is stale", committed.display());
    }
}
