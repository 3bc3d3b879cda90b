use crate::kit::{Room, TWO_NODES, printed, wire};

#[test]
fn a_file_is_drawn_without_privileges_and_without_a_lab() {
    let room = Room::new(TWO_NODES);
    let text = printed(room.of_file("graph", &[]).output().unwrap());
    assert!(text.contains("2 nodes, 4 network services, 4 endpoints, 4 pods, 6 connections planned"), "{text}");
    assert!(text.lines().any(|line| line.contains("web") && line.contains("▶  nse-first")), "{text}");
    assert!(text.lines().any(|line| line.contains("nse-database  serves backup, database")), "{text}");
    let boxes: Vec<usize> = text.lines().skip(1).map(|line| line.chars().count()).collect();
    assert!(boxes.windows(2).all(|pair| pair[0] == pair[1]), "all lines are as wide as the box: {text}");
    let view = room.view();
    assert_eq!(wire(&view, "collector", "nsm-1")["endpoint"], "nse-logs-2", "that of its node");
    assert!(view["process"].is_null());
}

#[test]
fn without_unicode_it_is_drawn_all_the_same() {
    let room = Room::new(TWO_NODES);
    let text = printed(room.of_file("graph", &[]).env("LC_ALL", "C").output().unwrap());
    assert!(text.is_ascii() && text.contains(". planned ..>"), "{text}");
}

#[test]
fn the_picture_has_every_node_workload_and_wire() {
    let room = Room::new(TWO_NODES);
    let picture = printed(room.of_file("graph", &["--svg", "-"]).output().unwrap());
    assert!(picture.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && picture.ends_with("</svg>\n"));
    assert_eq!(picture.matches("class=\"band\"").count(), 2);
    assert_eq!(picture.matches("class=\"card\"").count(), 8);
    for name in
        ["node-2", "vault", "nse-logs-1", "serves backup, database", "app=web", "ns-first, IP", "backup, ETHERNET"]
    {
        assert!(picture.contains(name), "{name} in {picture}");
    }
    let path = room.file().with_extension("svg");
    printed(room.of_file("graph", &[&format!("--svg={}", path.display())]).output().unwrap());
    assert_eq!(std::fs::read_to_string(path).unwrap(), picture);
}
