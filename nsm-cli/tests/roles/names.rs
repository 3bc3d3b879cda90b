//! Names of endpoints, for programs in the client's namespace: asked by the system's own resolver, over the wire.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use nsm_dns::Place;
use nsm_dns::testing::{RecordType, Records, Server, ask};
use nsm_kernel::NamedNetns;
use tokio::time::{Instant, sleep};

use crate::kit::{PATIENCE, may_make_namespaces};
use crate::mesh::Mesh;

/// The endpoint's own address is its DNS server.
const CONFIGS: (&str, &str) =
    ("NSM_DNS_CONFIGS", r#"[{"dns_server_ips": ["172.16.1.0"], "search_domains": ["my.domain"]}]"#);
const BEFORE: &str = "# by hand\nnameserver 127.0.0.2\nsearch cluster.local\noptions timeout:2\n";
const PROXY: &str = "127.0.0.1:53";

/// A mesh whose client's namespace has a name and a file of DNS settings of its own.
struct Lab {
    mesh: Mesh,
    /// Behind the wire.
    inside: Server,
    /// The workload's own.
    outside: Server,
    files: Files,
    _name: NamedNetns,
}

/// The directory of a namespace under `/etc/netns`; removed at the end.
struct Files(PathBuf);

impl Files {
    fn settings(&self) -> String {
        std::fs::read_to_string(self.0.join("resolv.conf")).unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Lab {
    /// None where that cannot be had, which is said.
    async fn new() -> Option<Self> {
        if !may_make_namespaces() {
            return None;
        }
        if ["ip", "getent"].iter().any(|program| Command::new(program).arg("-V").output().is_err()) {
            println!("SKIPPED: ip(8) or getent(1) cannot be started");
            return None;
        }
        let mesh = Mesh::with_endpoint(&[CONFIGS]).await;
        let name = mesh.room.path("x").parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let named = match mesh.client_netns.named(&name, "of a test").await {
            Ok(named) => named,
            Err(error) => {
                println!("SKIPPED: {error}");
                return None;
            }
        };
        let files = Files(PathBuf::from("/etc/netns").join(&name));
        std::fs::create_dir_all(&files.0).unwrap();
        std::fs::write(files.0.join("resolv.conf"), BEFORE).unwrap();
        let inside = Server::listen(&Place::In(mesh.endpoint_netns.clone()), address("0.0.0.0:53")).await.unwrap();
        inside.set("web.my.domain.", Records::new().address("10.20.30.40".parse().unwrap()).living(60));
        let outside = Server::listen(&Place::In(mesh.client_netns.clone()), address("127.0.0.2:53")).await.unwrap();
        outside.set("example.test.", Records::new().address("192.0.2.7".parse().unwrap()).living(60));
        outside.set("db.cluster.local.", Records::new().address("192.0.2.8".parse().unwrap()));
        Some(Self { mesh, inside, outside, files, _name: named })
    }

    /// What a program in the client's namespace is told about a name; none: there is no such name.
    async fn found(&self, name: &str) -> Option<String> {
        let mut command = getent(&self.files.0, name);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // 2: not found.
        assert!(output.status.success() || output.status.code() == Some(2), "{output:?}", output = output.status);
        text.split_whitespace().next().map(str::to_owned)
    }

    async fn until_found(&self, name: &str, what: &str) {
        let begun = Instant::now();
        while self.found(name).await.as_deref() != Some(what) {
            assert!(begun.elapsed() < PATIENCE, "{name} is not found:\n{}", self.files.settings());
            sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn getent(files: &std::path::Path, name: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec"]).arg(files.file_name().unwrap()).args(["getent", "hosts", name]);
    command
}

#[tokio::test]
async fn names_of_an_endpoint_are_asked_over_the_wire_and_others_as_before() {
    let Some(mut lab) = Lab::new().await else { return };
    assert_eq!(lab.found("example.test").await.as_deref(), Some("192.0.2.7"));
    assert_eq!(lab.found("web.my.domain").await, None);
    let outside = lab.outside.asked();
    lab.mesh.start_client().await;
    assert!(
        lab.files.settings().contains("\nnameserver 127.0.0.1\nsearch cluster.local\n"),
        "{}",
        lab.files.settings()
    );
    lab.until_found("web.my.domain", "10.20.30.40").await;
    assert_eq!(lab.outside.asked(), outside, "nobody else learns of it");
    assert_eq!(lab.found("web").await.as_deref(), Some("10.20.30.40"), "its search domain is one");
    let inside = lab.inside.asked();
    assert_eq!(lab.found("example.test").await.as_deref(), Some("192.0.2.7"));
    assert_eq!(lab.found("db").await.as_deref(), Some("192.0.2.8"), "so is the one of before");
    assert_eq!(lab.found("nobody.test").await, None);
    assert!(lab.outside.asked() > outside);
    // Only db may be one of the inside's.
    assert!(lab.inside.asked() <= inside + 2, "{} {inside}", lab.inside.asked());
    let long = (0..100).fold(Records::new(), |records, number| records.text(&format!("{number:0>100}")));
    lab.inside.set("long.my.domain.", long);
    let client = Place::In(lab.mesh.client_netns.clone());
    let answer = ask(&client, address(PROXY), "long.my.domain.", RecordType::TXT).await.unwrap();
    assert_eq!(answer.answers.len(), 100);
    assert!(lab.inside.asked_by_stream() > 0);
    lab.mesh.client.take().unwrap().stop().await;
    assert_eq!(lab.files.settings(), BEFORE);
    let inside = lab.inside.asked();
    assert_eq!(lab.found("web.my.domain").await, None);
    assert_eq!(lab.found("example.test").await.as_deref(), Some("192.0.2.7"));
    assert_eq!(lab.inside.asked(), inside);
    lab.mesh.stop().await;
}

#[tokio::test]
async fn what_a_killed_client_has_left_is_put_right_by_its_next_life() {
    let Some(mut lab) = Lab::new().await else { return };
    lab.mesh.start_client().await;
    lab.mesh.client.take().unwrap().kill();
    assert!(lab.files.settings().contains("\nnameserver 127.0.0.1\n"), "{}", lab.files.settings());
    // A life that wants nothing.
    lab.mesh.start_client_with(&[("NSM_NETWORK_SERVICES", "")], "asks").await;
    assert_eq!(lab.files.settings(), BEFORE);
    lab.mesh.client.take().unwrap().stop().await;
    // Killed twice; the second time its file is found by a life that takes it over again at once.
    for _ in 0..2 {
        lab.mesh.start_client_with(&[], "nsc-1-0 up").await;
        lab.until_found("web.my.domain", "10.20.30.40").await;
        assert_eq!(lab.found("example.test").await.as_deref(), Some("192.0.2.7"), "it does not ask itself");
        lab.mesh.client.take().unwrap().kill();
    }
    lab.mesh.start_client_with(&[], "nsc-1-0 up").await;
    lab.mesh.client.take().unwrap().stop().await;
    assert_eq!(lab.files.settings(), BEFORE);
    lab.mesh.stop().await;
}

#[tokio::test]
async fn dns_that_is_not_wanted_or_cannot_be_had_leaves_the_connection_alone() {
    let Some(mut lab) = Lab::new().await else { return };
    lab.mesh.start_client_with(&[("NSM_LOCAL_DNS_SERVER_ENABLED", "false")], "nsc-1-0 up").await;
    assert_eq!(lab.files.settings(), BEFORE);
    lab.mesh.client.take().unwrap().stop().await;
    let taken = [("NSM_LOCAL_DNS_SERVER_ADDRESS", "127.0.0.2:53")];
    lab.mesh.start_client_with(&taken, "the DNS proxy cannot listen at 127.0.0.2:53").await;
    lab.mesh.client.as_mut().unwrap().says("nsc-1-0 up").await;
    assert_eq!(lab.files.settings(), BEFORE);
    lab.mesh.packets_flow().await;
    lab.mesh.client.take().unwrap().stop().await;
    lab.mesh.stop().await;
}
