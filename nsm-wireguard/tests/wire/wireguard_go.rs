//! Against Debian's `wireguard-go`, told by Debian's `wg` what to do.

use std::fs;
use std::time::Duration;

use nsm_wireguard::{Peering, PrivateKey};

use crate::{common::*, needs_wireguard_go};

/// `wireguard-go` at the second node; its interface is there, too, with the addresses of `nsm-2`.
struct Go {
    name: String,
    _running: Running,
}

impl Go {
    async fn start(lab: &Lab, number: usize) -> Self {
        let name = format!("wg{}n{number}", std::process::id() % 1_000_000);
        let place = lab.place(1);
        // Of one that was killed under the same number.
        let _gone = fs::remove_file(format!("/var/run/wireguard/{name}.sock"));
        let running = Running(spawn(place, "wireguard-go", &["-f", &name]).await);
        let go = Self { name, _running: running };
        eventually("wireguard-go listens to wg", async || fs::metadata(go.socket()).is_ok()).await;
        let secret = std::env::temp_dir().join(&go.name);
        fs::write(&secret, lab.keys[1].to_base64()).unwrap();
        let port = PORT.to_string();
        go.wg(lab, &["listen-port", &port, "private-key", secret.to_str().unwrap()]).await;
        fs::remove_file(&secret).unwrap();
        for address in ["10.9.0.2/24", "fd09::2/64"] {
            run(place, "ip", &["addr", "add", address, "dev", &go.name, "nodad"]).await;
        }
        run(place, "ip", &["link", "set", &go.name, "up", "mtu", &MTU.to_string()]).await;
        go
    }

    async fn add_peer(&self, lab: &Lab, key: &PrivateKey, more: &[&str]) {
        let key = key.public_key().to_string();
        let mut arguments = vec!["peer", &key, "allowed-ips", "10.9.0.0/24,fd09::/64"];
        arguments.extend(more);
        self.wg(lab, &arguments).await;
    }

    async fn wg(&self, lab: &Lab, arguments: &[&str]) {
        let mut all = vec!["set", &*self.name];
        all.extend(arguments);
        run(lab.place(1), "wg", &all).await;
    }

    async fn shown(&self, lab: &Lab, what: &str) -> String {
        let text = run(lab.place(1), "wg", &["show", &self.name, what]).await;
        text.split_whitespace().last().unwrap_or_default().to_owned()
    }

    fn socket(&self) -> String {
        format!("/var/run/wireguard/{}.sock", self.name)
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        let _left = fs::remove_file(self.socket());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_flow_both_ways_whoever_begins_the_handshake() {
    needs_wireguard_go!();
    for (number, prefix) in ["192.0.2.0/24", "fd07::/64"].into_iter().enumerate() {
        let lab = Lab::new(prefix).await;
        let go = Go::start(&lab, number).await;
        let node = lab.bind(0).await;
        let (a, b) = (&lab.workloads[0], lab.place(1));
        // It knows no address of ours and cannot begin: we do.
        go.add_peer(&lab, &lab.keys[0], &[]).await;
        let (near, tunnel) = lab.tunnel(0, &node).await;
        for (from, to) in [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")] {
            for size in [1, 100, MTU as usize - 48, 4000] {
                datagram_and_back(a, from, b, to, size).await;
                datagram_and_back(b, to, a, from, size).await;
            }
            stream(a, b, to, 4 << 20).await;
            stream(b, a, from, 4 << 20).await;
        }
        assert_ne!(go.shown(&lab, "latest-handshakes").await, "0");
        // Now we have a new socket and forgot the session; and it knows us by a new key, and begins because it has something
        // to send before we have.
        tunnel.close().await;
        drop(node);
        let mut lab = lab;
        go.wg(&lab, &["peer", &lab.keys[0].public_key().to_string(), "remove"]).await;
        lab.keys[0] = PrivateKey::generate().unwrap();
        let silent = Peering { endpoint: (lab.socket(1).ip(), 9).into(), ..lab.peering(0) };
        let mut node = None;
        let address = lab.socket(0);
        eventually("the port is free", async || {
            node = nsm_wireguard::Node::bind(lab.place(0), address).await.ok();
            node.is_some()
        })
        .await;
        let node = node.unwrap();
        // Ours sends to a port where nobody is, so nothing that it begins is heard.
        let tunnel = node.attach(&silent, &near).await.unwrap();
        let endpoint = address.to_string();
        go.add_peer(&lab, &lab.keys[0], &["endpoint", &endpoint, "persistent-keepalive", "1"]).await;
        eventually("its handshake is answered", async || tunnel.stats().handshake_age.is_some()).await;
        assert_ne!(go.shown(&lab, "latest-handshakes").await, "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keepalives_are_sent_and_a_new_session_takes_over_without_loss() {
    needs_wireguard_go!();
    let lab = Lab::new("192.0.2.0/24").await;
    let go = Go::start(&lab, 7).await;
    go.add_peer(&lab, &lab.keys[0], &["endpoint", &lab.socket(0).to_string()]).await;
    let node = lab.bind(0).await;
    let peering = Peering { keepalive: Some(Duration::from_secs(1)), ..lab.peering(0) };
    let (_near, tunnel) = node.create(&peering, (&lab.workloads[0], &spec(1))).await.unwrap();
    let (a, b) = (&lab.workloads[0], lab.place(1));
    datagram_and_back(a, "10.9.0.1", b, "10.9.0.2", 100).await;
    // Nobody sends packets, and still something is received.
    let octets = |text: String| text.parse::<u64>().unwrap();
    let received = async || {
        let text = run(lab.place(1), "wg", &["show", &go.name, "transfer"]).await;
        octets(text.split_whitespace().nth(1).unwrap().to_owned())
    };
    let before = received().await;
    eventually("a keepalive arrives", async || received().await >= before + 32).await;
    // The other side forgets the session; with its next packet it begins a new one, in the middle of a stream.
    let first = go.shown(&lab, "latest-handshakes").await;
    let age = tunnel.stats().handshake_age.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (server, client) = (
        b.udp_socket((ip("10.9.0.2"), 0).into()).await.unwrap(),
        a.udp_socket((ip("10.9.0.1"), 0).into()).await.unwrap(),
    );
    let public = lab.keys[0].public_key().to_string();
    go.wg(&lab, &["peer", &public, "remove"]).await;
    go.add_peer(&lab, &lab.keys[0], &["endpoint", &lab.socket(0).to_string()]).await;
    server.send_to(b"new session", client.local_addr().unwrap()).await.unwrap();
    let mut buffer = [0; 64];
    let (length, _) = tokio::time::timeout(PATIENCE, client.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer[..length], b"new session");
    assert_ne!(go.shown(&lab, "latest-handshakes").await, first);
    assert!(tunnel.stats().handshake_age.unwrap() < age + Duration::from_millis(1100), "a new session");
    datagram_and_back(a, "10.9.0.1", b, "10.9.0.2", 100).await;
    datagram_and_back(b, "10.9.0.2", a, "10.9.0.1", 100).await;
}
