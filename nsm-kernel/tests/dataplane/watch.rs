use std::process::{Command, Stdio};
use std::time::Duration;

use nsm_kernel::{Event, Events, Holders, Netns, Snapshot, delete_link};

use crate::{
    common::{PATIENCE, ends, two_namespaces, wire},
    needs_net_admin,
};

/// What is heard within a moment.
async fn heard(events: &Events) -> Vec<Event> {
    let mut all = Vec::new();
    while let Ok(more) = tokio::time::timeout(Duration::from_millis(200), events.next()).await {
        all.extend(more.unwrap());
    }
    all
}

#[tokio::test]
async fn changes_are_heard_in_the_namespaces_that_are_listened_to_and_no_others() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let events = Events::open().await.unwrap();
    events.add(&a).await.unwrap();
    events.add(&a).await.unwrap();
    let wire = wire(&a, &b).await;
    let index = wire.a().index();
    let made = heard(&events).await;
    let whole = |event: &Event| matches!(event, Event::Link(id, state) if *id == a.id() && state.index() == index && state.shows(wire.a().spec()));
    assert!(made.iter().all(|event| !matches!(event, Event::Link(id, _) if *id == b.id())), "{made:?}");
    assert!(made.iter().any(whole), "{made:?}");

    delete_link(&a, "nsm-1", "nsm:test").await.unwrap();
    let gone = heard(&events).await;
    assert!(gone.contains(&Event::Less { netns: a.id(), index }), "{gone:?}");

    events.retain(|_| false);
    let _again = self::wire(&a, &b).await;
    assert_eq!(heard(&events).await, []);
}

#[tokio::test]
async fn listening_keeps_no_namespace_alive() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let events = Events::open().await.unwrap();
    let holders = Holders::new().unwrap();
    events.add(&a).await.unwrap();
    holders.add(a.id());
    events.add(&b).await.unwrap();
    let wire = wire(&a, &b).await;
    heard(&events).await;
    let far = Event::Less { netns: b.id(), index: wire.b().index() };
    // The last handles: the kernel ends the namespace, and with it both ends of the pair.
    drop((a, wire));
    let vanished = async { while !events.next().await.unwrap().contains(&far) {} };
    tokio::time::timeout(PATIENCE, vanished).await.unwrap();
}

#[tokio::test]
async fn a_namespace_is_given_up_when_its_last_process_has_ended() {
    needs_net_admin!();
    let (netns, empty) = two_namespaces().await;
    let sleeper = || {
        let netns = netns.clone();
        async move { netns.run(|| Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn()).await.unwrap() }
    };
    let mut processes = [sleeper().await, sleeper().await];
    let holders = Holders::new().unwrap();
    holders.add(netns.id());
    holders.add(empty.id());
    let mut gone = std::pin::pin!(holders.next());
    for process in &mut processes {
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut gone).await.is_err());
        assert_eq!(holders.watched(), 1);
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert_eq!(tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap(), [netns.id()]);
    assert_eq!(holders.watched(), 0);
}

#[tokio::test]
async fn what_another_process_keeps_by_a_descriptor_is_not_given_up_until_that_ends() {
    needs_net_admin!();
    let (netns, home) = two_namespaces().await;
    let mut inside = netns.run(|| Command::new("sleep").arg("1000").spawn()).await.unwrap();
    // Its standard input is the namespace.
    let file = std::fs::File::open(netns.path()).unwrap();
    let mut keeper = home.run(|| Command::new("sleep").arg("1000").stdin(file).spawn()).await.unwrap();
    let holders = Holders::new().unwrap();
    holders.add(netns.id());
    let mut gone = std::pin::pin!(holders.next());
    let mut early = false;
    for process in [&mut inside, &mut keeper] {
        early |= tokio::time::timeout(Duration::from_millis(300), &mut gone).await.is_ok();
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert!(!early);
    assert_eq!(tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap(), [netns.id()]);
}

#[tokio::test]
async fn a_snapshot_shows_what_is_there_and_nothing_else() {
    needs_net_admin!();
    let (a, b) = two_namespaces().await;
    let (near, far) = ends("nsm:test");
    let mut wire = wire(&a, &b).await;
    let shot = Snapshot::take(&a).await.unwrap();
    assert_eq!(shot.netns(), a.id());
    assert!(shot.shows(&near) && !shot.shows(&far));
    let names: Vec<_> = shot.marked("nsm:").map(|link| link.name).collect();
    assert_eq!(names, ["nsm-1"]);
    assert_eq!(shot.marked("other:").count(), 0);

    let more = near
        .clone()
        .with_address("10.9.0.1/32".parse().unwrap())
        .with_neighbour("10.9.0.2".parse().unwrap(), [2, 0, 0, 0, 0, 9]);
    assert!(!shot.shows(&more));
    wire.update(&more, &far).await.unwrap();
    let shot = Snapshot::take(&a).await.unwrap();
    assert!(shot.shows(&more) && shot.shows(&near));
    let marked_otherwise = nsm_kernel::InterfaceSpec { alias: "nsm:other".to_owned(), ..near };
    assert!(!shot.shows(&marked_otherwise));
}

#[tokio::test]
async fn nothing_is_held_of_what_is_only_watched() {
    needs_net_admin!();
    let netns = Netns::create().await.unwrap();
    let id = netns.id();
    let events = Events::open().await.unwrap();
    let holders = Holders::new().unwrap();
    events.add(&netns).await.unwrap();
    holders.add(id);
    drop(netns);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let held = open.filter_map(|entry| std::fs::metadata(entry.path()).ok()).any(|file| {
        use std::os::unix::fs::MetadataExt;
        (file.dev(), file.ino()) == (id.dev, id.ino)
    });
    assert!(!held);
}
