use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kit::Room;

/// Starts it with its story piped to us.
fn started(room: &Room, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = room.quickstart(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let story = BufReader::new(child.stdout.take().unwrap());
    (child, story)
}

/// Reads up to the line that contains `text`, which is the last one given.
fn read_until(story: &mut impl BufRead, text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert!(story.read_line(&mut line).unwrap() > 0, "it ended before {text:?}: {lines:#?}");
        let found = line.contains(text);
        lines.push(line);
        if found {
            return lines;
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn it_stays_up_until_ctrl_c_and_then_leaves_nothing() {
    let room = Room::new();
    if room.run(&[]).is_none() {
        return;
    }
    let (mut child, mut story) = started(&room, &["--keep"]);
    read_until(&mut story, "until Ctrl-C");
    let hint = read_until(&mut story, "nse-1").concat();
    assert!(hint.contains("nsc-1") && hint.contains("ping -c 3 10.1.0.0") && hint.contains("ip addr"), "{hint}");
    assert!(child.try_wait().unwrap().is_none(), "it is still up");
    signal(&child, Signal::SIGINT);
    let rest = read_until(&mut story, "nothing left").concat();
    assert!(rest.contains("closed"), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    room.assert_empty();
}

#[test]
fn interrupted_at_any_step_it_cleans_up() {
    let room = Room::new();
    if room.run(&[]).is_none() {
        return;
    }
    let arguments = ["--nodes", "2", "--clients", "6"];
    for (step, how) in [
        ("underlay", Signal::SIGINT),
        ("manager", Signal::SIGTERM),
        ("service", Signal::SIGINT),
        ("endpoint", Signal::SIGINT),
        ("client", Signal::SIGINT),
    ] {
        let (mut child, mut story) = started(&room, &arguments);
        read_until(&mut story, step);
        signal(&child, how);
        let rest = read_until(&mut story, "nothing left").concat();
        // On a busy machine it may have come to its end before it was told.
        let code = child.wait().unwrap().code();
        assert!(code == Some(130) && rest.contains("interrupted") || code == Some(0), "{step}: {code:?} {rest}");
        room.assert_empty();
    }
}

#[test]
fn a_reader_who_goes_away_does_not_keep_it_from_cleaning_up() {
    let room = Room::new();
    if room.run(&[]).is_none() {
        return;
    }
    let (mut child, mut story) = started(&room, &[]);
    read_until(&mut story, "registry");
    drop(story);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    room.assert_empty();
}
