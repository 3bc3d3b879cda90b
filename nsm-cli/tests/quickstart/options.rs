use crate::kit::{NSM, Room, texts};
use std::process::Command;

#[test]
fn the_story_is_for_people() {
    let room = Room::new();
    if room.run(&[]).is_none() {
        return;
    }
    for (locale, arguments) in [("C", vec![]), ("C.UTF-8", vec!["--nodes", "2", "--clients", "3"])] {
        let output = room.quickstart(&arguments).env("LC_ALL", locale).output().unwrap();
        let story = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{story}");
        for said in
            ["registry", "forwarder-1", "ns-first", "nsm-1", "10.1.0.", "kernel programming", "census", "Try next"]
        {
            assert!(story.contains(said), "{said} in {story}");
        }
        // Nobody reads this at a terminal.
        assert!(!story.contains('\x1b'), "{story}");
        assert_eq!(story.is_ascii(), locale == "C", "{story}");
        let longest = story.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(100), "{longest:?} in {story}");
    }
}

#[test]
fn a_document_of_ones_own_is_applied() {
    let room = Room::new();
    let file = room.path().join("vpn.yaml");
    let service = "apiVersion: networkservicemesh.io/v1\nkind: NetworkService\nmetadata: {name: vpn}\nspec:\n  payload: IP\n  \
                   matches:\n    - source_selector: {app: web}\n      routes: [{destination_selector: {app: gateway}}]\n";
    let endpoint = |label: &str| {
        format!(
            "---\napiVersion: networkservicemesh.io/v1\nkind: NetworkServiceEndpoint\nmetadata: {{name: nse}}\nspec:\n  \
             network_service_names: [vpn]\n  network_service_labels: {{vpn: {{labels: {{app: {label}}}}}}}\n"
        )
    };
    std::fs::write(&file, format!("{service}{}{}", endpoint("other"), endpoint("gateway"))).unwrap();
    let arguments = ["--file", file.to_str().unwrap(), "--endpoints", "2", "--request", "kernel://vpn/tun-7?app=web"];
    let Some(run) = room.run(&arguments) else {
        return;
    };
    let [client] = run.assert_ok().as_slice() else { panic!("{:#}", run.report) };
    // Only the second endpoint has the label that the match selects.
    assert_eq!((&client["endpoint"], &client["interface"]), (&"nse-2".into(), &"tun-7".into()));
    assert_eq!(texts(&client["addresses"])[0], "10.2.0.1/32");
}

#[test]
fn the_command_line_is_checked_and_explained() {
    for wrong in [&["--nodes", "0"][..], &["--clients", "x"], &["--nonsense"]] {
        let output = Command::new(NSM).arg("quickstart").args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    let help = Command::new(NSM).args(["quickstart", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for said in ["--nodes", "--clients", "--endpoints", "--json", "--keep", "--file", "Exit codes", "Examples"] {
        assert!(help.contains(said), "{said}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}
