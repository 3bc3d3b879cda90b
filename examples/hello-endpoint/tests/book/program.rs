//! The program of the chapter is the one of the example, and it works.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::read;

#[test]
fn the_chapter_quotes_the_program_as_it_is() {
    let chapter = read("docs/first-endpoint.md");
    let quoted = chapter.split("```rust,no_run\n").nth(1).unwrap().split("```").next().unwrap();
    let program = read("examples/hello-endpoint/src/main.rs");
    assert_eq!(quoted, program);
    assert!(program.lines().count() <= 40, "the example promises at most 40 lines");
}

/// Ends the program, whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a network namespace of its own, as root of a user namespace; as root where that is not allowed.
fn start() -> Option<Running> {
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hello-endpoint"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut alone = command();
    nsm_kernel::in_user_namespace(&mut alone);
    match alone.spawn() {
        Ok(child) => Some(Running(child)),
        Err(error) if nsm_kernel::privileges().net_admin => {
            eprintln!("in this namespace, since {}", nsm_kernel::blocked(error));
            Some(Running(command().spawn().unwrap()))
        }
        Err(error) => {
            println!("skipped: {}", nsm_kernel::blocked(error));
            None
        }
    }
}

#[test]
fn the_program_serves_a_client_and_leaves_in_order() {
    let Some(mut running) = start() else { return };
    let mut said = Vec::new();
    let output = BufReader::new(running.0.stdout.take().unwrap());
    for line in output.lines().map(Result::unwrap) {
        let last = line == "Ctrl-C ends it";
        said.push(line);
        if last {
            break;
        }
    }
    let mut complaints = String::new();
    if said.len() == 4 {
        kill(Pid::from_raw(running.0.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    }
    running.0.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    let ended = running.0.wait().unwrap();
    assert!(
        said.len() == 4 && said[2].starts_with("172.16.1.0 answers 172.16.1.1 in "),
        "{said:?}, and on standard error: {complaints}"
    );
    assert!(ended.success(), "{ended}: {complaints}");
    assert_eq!(complaints, "");
}

#[test]
fn the_readme_quotes_the_examples_as_they_are() {
    let trimmed = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let examples = ["hello-endpoint/src/main.rs", "in-process-test/tests/port_blocks.rs"];
    let examples: String = examples.iter().map(|path| trimmed(&read(format!("examples/{path}")))).collect();
    let readme = read("README.md");
    let quoted: Vec<_> = readme.split("```rust\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    assert_eq!(quoted.len(), 3);
    for block in quoted {
        assert!(examples.contains(&trimmed(block)), "no example has\n{block}");
    }
}
