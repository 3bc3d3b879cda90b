//! Every mix of the Go reference's roles and ours, as processes on real sockets.
//!
//! `cargo test -p nsm-tests --test interop` runs all of it and prints a matrix; arguments after `--` choose meshes by
//! parts of their names, such as `unix/ttoto` or `tcp`. Without a Go toolchain it is skipped, unless
//! `NSM_INTEROP_REQUIRED` is set.

mod language;
mod matrix;
mod mesh;
mod ours;
mod programs;
mod role;
mod scenarios;

use std::process::ExitCode;

use matrix::Matrix;
use programs::Programs;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, role, rest @ ..] = arguments.as_slice()
        && first == ours::COMMAND
    {
        return ours::main(role, rest);
    }
    if arguments.iter().any(|argument| argument == "--list") {
        println!("every_mix: test");
        return ExitCode::SUCCESS;
    }
    // What the built-in harness would take is for other tests.
    let filters: Vec<_> = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    let meshes = matrix::chosen(&filters);
    if meshes.is_empty() {
        println!("interop: no mesh has {filters:?} in its name");
        return ExitCode::SUCCESS;
    }
    let programs = match Programs::build() {
        Ok(programs) => programs,
        Err(unavailable) => {
            println!("interop: skipped: {}", unavailable.reason);
            return if unavailable.required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = runtime else {
        println!("interop: no runtime");
        return ExitCode::FAILURE;
    };
    let matrix = Matrix(runtime.block_on(matrix::run(&programs, meshes)));
    println!("\n{matrix}");
    for row in matrix.failed() {
        println!("RED {row}");
    }
    for (row, logs) in matrix.logs() {
        println!("logs of {row}\n  in {}", logs.display());
    }
    let failed = matrix.failed().count();
    println!("{} meshes: {} passed, {failed} failed\n", matrix.0.len(), matrix.0.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
