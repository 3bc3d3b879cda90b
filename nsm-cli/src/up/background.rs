//! `--detach`: the lab is another process, and this one ends when that is up.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use super::room::Room;
use crate::failure::Failure;
use crate::story::Story;

/// What tells our child that it is one, in the place of `--detach`.
const FLAG: &str = "--in-background";

/// Starts the same command again, tells its story until the lab is up, and ends. If it does not come up, its end is ours.
pub(super) fn start(room: &Room, story: &Story) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure::of("background", &error);
    let log = room.begin_log()?;
    let program = std::env::current_exe().map_err(failed)?;
    let own = std::env::args_os().skip(1);
    let arguments = own.map(|argument| if argument == "--detach" { FLAG.into() } else { argument });
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    // It closes its end when it is up, and when it ends.
    let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
    for line in lines.map_while(Result::ok) {
        story.say(&line);
    }
    if room.is_up() {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(if code == 0 { ExitCode::FAILURE } else { ExitCode::from(code) })
}

/// In the child: whoever closes the terminal, or presses Ctrl-C in it, does not mean us.
pub(super) fn leave_terminal() {
    if let Err(error) = nix::unistd::setsid() {
        eprintln!("nsm: still of the session of its terminal: {error}");
    }
}

/// In the child: it is up, and the parent is told by the end of our output.
pub(super) fn go() {
    let told = File::options().write(true).open("/dev/null").map(nix::unistd::dup2_stdout);
    if let Ok(Err(error)) = told {
        tracing::warn!(%error, "standard output stays open");
    }
}
