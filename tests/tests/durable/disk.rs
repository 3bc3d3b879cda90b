use std::io::Write;
use std::time::Duration;

use nsm_chain::Code;
use tokio::time::timeout;

use crate::kit::{Registry, nse};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_registrations_and_nothing_else_until_there_is_space() {
    let mut registry = Registry::on_a_disk_of(8 << 20);
    if !registry.start() {
        println!("skipped: this machine lets nobody mount a file system");
        return;
    }
    let client = registry.client("alice");
    client.register(nse("first")).await.unwrap();

    let ballast = format!("/proc/{}/root{}", registry.process(), registry.disk().join("ballast").display());
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    // Room for some.
    file.set_len(file.metadata().unwrap().len() - (256 << 10)).unwrap();
    let mut kept = vec!["first".to_owned()];
    let refused = loop {
        let name = format!("nse-{:05}", kept.len());
        match client.register(nse(&name)).await {
            Ok(_) => kept.push(name),
            Err(error) => break error,
        }
        assert!(kept.len() < 20_000, "the disk never was full");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.to_string().contains("free some space"), "{refused}");
    let names = async || {
        let found = client.find_all().await.unwrap();
        found.into_iter().map(|nse| nse.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, kept);
    println!("full after {} registrations: {refused}", kept.len());

    std::fs::remove_file(&ballast).unwrap();
    drop(file);
    let works_again = async {
        while let Err(error) = client.register(nse("nse-last")).await {
            assert!(matches!(error.code(), Code::ResourceExhausted | Code::Unavailable), "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(20), works_again).await.expect("it works again");
    kept.push("nse-last".to_owned());
    assert_eq!(names().await, kept);
}
