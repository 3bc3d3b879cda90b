use serde_json::Value;

use crate::kit::Room;

/// Runs into a failure, and says where, why and what to do about it.
fn failure(room: &Room, arguments: &[&str]) -> Option<Value> {
    let run = room.run(arguments)?;
    assert_eq!((run.code, &run.report["ok"]), (Some(1), &false.into()), "{:#}", run.report);
    run.assert_nothing_left();
    let error = &run.report["error"];
    for field in ["hop", "cause", "remedy"] {
        assert!(!error[field].as_str().unwrap().is_empty(), "{error:#}");
    }
    room.assert_empty();
    Some(error.clone())
}

#[test]
fn an_interface_name_that_is_taken_is_reported_by_the_forwarder() {
    let room = Room::new();
    // Every namespace has an interface of this name.
    let Some(error) = failure(&room, &["--request", "kernel://ns-first/lo", "--timeout", "1"]) else {
        return;
    };
    assert_eq!((&error["hop"], &error["element"]), (&"forwarder-1".into(), &"CrossConnect".into()));
    assert!(error["cause"].as_str().unwrap().contains("interface name lo is taken"), "{error:#}");
    assert!(error["remedy"].as_str().unwrap().contains("another name"), "{error:#}");
}

#[test]
fn over_two_nodes_the_forwarder_of_the_client_reports_what_it_could_not_make() {
    let room = Room::new();
    let arguments = ["--nodes", "2", "--clients", "3", "--request", "kernel://ns-first/lo", "--timeout", "1"];
    let Some(error) = failure(&room, &arguments) else {
        return;
    };
    assert_eq!(error["hop"], "forwarder-1", "{error:#}");
}

#[test]
fn an_unknown_service_is_reported_by_the_manager() {
    let room = Room::new();
    let Some(error) = failure(&room, &["--request", "kernel://nowhere/nsm-1", "--timeout", "1"]) else {
        return;
    };
    assert_eq!(error["hop"], "nsmgr-1");
    assert!(error["cause"].as_str().unwrap().contains("nowhere"), "{error:#}");
}

#[test]
fn what_cannot_be_asked_for_is_refused_at_once() {
    let room = Room::new();
    for url in ["kernel://ns-first/a-name-that-is-too-long", "kernel://", "memif://ns-first/nsm-1", "nonsense"] {
        let Some(error) = failure(&room, &["--request", url]) else {
            return;
        };
        assert_eq!(error["hop"], "nsc-1", "{error:#}");
    }
}

#[test]
fn a_file_that_is_none_is_named() {
    let room = Room::new();
    let Some(error) = failure(&room, &["--file", "/nonexistent/service.yaml"]) else {
        return;
    };
    assert_eq!(error["hop"], "/nonexistent/service.yaml");
}

#[test]
fn too_few_descriptors_are_told_before_anything_is_started() {
    let room = Room::new();
    if room.run(&[]).is_none() {
        return;
    }
    let script = "ulimit -n 150; exec \"$0\" quickstart --json --clients 60 --timeout 1 2>/dev/null";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, crate::kit::NSM]).env("XDG_RUNTIME_DIR", room.path());
    let run = crate::kit::Run::of(command.output().unwrap()).unwrap();
    assert_eq!((run.code, &run.report["error"]["hop"]), (Some(1), &"descriptors".into()), "{:#}", run.report);
    run.assert_nothing_left();
    room.assert_empty();
}

#[test]
fn a_failure_is_told_in_the_story_too() {
    let room = Room::new();
    if room.run(&[]).is_none() {
        return;
    }
    let output = room.quickstart(&["--request", "kernel://nowhere/nsm-1", "--timeout", "1"]).output().unwrap();
    let story = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for said in ["failed at   nsmgr-1", "because", "what to do", "nothing left"] {
        assert!(story.contains(said), "{said} in {story}");
    }
    assert!(!story.contains("Try next"));
}
