use crate::kit::{Room, TWO_NODES};

/// What a file with this edit comes to.
fn said(from: &str, to: &str) -> String {
    let room = Room::new(TWO_NODES);
    room.edit(from, to);
    let output = room.of_file("up", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&room.lab), "the file is named: {said}");
    said
}

#[test]
fn a_mistake_in_the_file_is_said_before_anything_is_made() {
    for (from, to, parts) in [
        ("nodeName: node-2", "nodeName: node-3", ["document 7, line", "node-1, node-2", "did you mean node-"]),
        (
            "kernel://logs/nsm-3",
            "kernel://log/nsm-3",
            ["document 11, line", "backup, database, logs, ns-first", "did you mean logs?"],
        ),
        (
            "cidrPrefixes: [172.16.3.0/24]",
            "cidrPrefix: [172.16.3.0/24]",
            ["document 9", "unknown field", "did you mean cidrPrefixes?"],
        ),
    ] {
        let said = said(from, to);
        for part in parts {
            assert!(said.contains(part), "{part:?} in {said}");
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_said() {
    let room = Room::new(TWO_NODES);
    for command in ["up", "graph"] {
        let output = room.nsm(command, &["/nonexistent/mesh.yaml"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("/nonexistent/mesh.yaml") && said.contains("give the path"), "{said}");
    }
}

#[test]
fn without_a_lab_that_is_up_there_is_nothing_to_enter_or_to_take_down() {
    let room = Room::new(TWO_NODES);
    let output = room.nsm("exec", &["web"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no lab is up"));
    let output = room.nsm("down", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("no lab is up"));
}
