//! Throughput of this crate and of `wireguard-go` between the same two namespaces, in turns, with the same `iperf3`:
//!
//! ```sh
//! cargo run --release -p nsm-wireguard --example throughput -- [turns] [seconds]
//! ```
//!
//! With the environment variable `WIREGUARD_GO` another build of it is measured.
//! Needs root, and Debian's packages `wireguard-go`, `wireguard-tools`, `iperf3` and `iputils-ping`.

use std::error::Error;
use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nsm_kernel::{InterfaceSpec, Netns, Node as Place, Underlay};
use nsm_wireguard::{Node, Peering, PrivateKey, Tunnel};

type Outcome<T> = Result<T, Box<dyn Error>>;

const PORT: u16 = 51_820;
const MTU: u32 = 1420;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let turns: usize = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let seconds: u32 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let underlay = Underlay::create(2, "192.0.2.0/24".parse()?).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    println!("{:<14} {:>14} {:>14} {:>16}", "", "TCP Gbit/s", "4 TCP Gbit/s", "ping avg µs");
    let bare = measure(underlay.nodes(), "192.0.2.2", seconds).await?;
    bare.print("no tunnel");
    for _ in 0..turns {
        let go = WireguardGo::between(underlay.nodes()).await?;
        let measured = measure(underlay.nodes(), "10.9.0.2", seconds).await?;
        drop(go);
        measured.print("wireguard-go");
        theirs.push(measured);

        let tunnels = nsm(underlay.nodes()).await?;
        let measured = measure(underlay.nodes(), "10.9.0.2", seconds).await?;
        measured.print("nsm-wireguard");
        ours.push(measured);
        for (interface, tunnel) in tunnels {
            tunnel.close().await;
            interface.delete().await?;
        }
    }
    let ratio = |of: fn(&Measured) -> f64| median(&ours, of) / median(&theirs, of);
    println!("ratio of medians: one stream {:.2}, four streams {:.2}", ratio(|m| m.one), ratio(|m| m.four));
    Ok(())
}

struct Measured {
    one: f64,
    four: f64,
    ping: f64,
}

impl Measured {
    fn print(&self, what: &str) {
        println!("{what:<14} {:>14.2} {:>14.2} {:>16.0}", self.one, self.four, self.ping);
    }
}

fn median(all: &[Measured], of: fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

async fn measure(nodes: &[Place], to: &'static str, seconds: u32) -> Outcome<Measured> {
    // The first packets make the handshake.
    spawn(&nodes[0].netns, "ping", &["-c", "3", "-i", "0.2", "-W", "5", to]).await?.wait_with_output()?;
    let pinged = spawn(&nodes[0].netns, "ping", &["-q", "-c", "200", "-i", "0.005", to]).await?.wait_with_output()?;
    let ping = String::from_utf8_lossy(&pinged.stdout)
        .rsplit(" = ")
        .next()
        .and_then(|times| times.split('/').nth(1)?.parse::<f64>().ok())
        .ok_or("ping got no answers")?;
    let mut throughput = [0.0; 2];
    for (value, streams) in throughput.iter_mut().zip(["1", "4"]) {
        let mut server = Running(spawn(&nodes[1].netns, "iperf3", &["-s", "-1"]).await?);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let seconds = seconds.to_string();
        let arguments = ["-c", to, "-P", streams, "-t", &seconds, "-O", "1", "-f", "m"];
        let client = spawn(&nodes[0].netns, "iperf3", &arguments).await?;
        let output = tokio::task::spawn_blocking(move || client.wait_with_output()).await??;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().rfind(|line| line.ends_with("receiver")).ok_or_else(|| format!("iperf3: {text}"))?;
        let rate =
            line.split("Mbits/sec").next().and_then(|begin| begin.split_whitespace().last()?.parse::<f64>().ok());
        *value = rate.ok_or("iperf3 printed no rate")? / 1000.0;
        server.0.wait()?;
    }
    Ok(Measured { one: throughput[0], four: throughput[1], ping: ping * 1000.0 })
}

async fn nsm(nodes: &[Place]) -> Outcome<Vec<(nsm_kernel::Interface, Tunnel)>> {
    let keys = [PrivateKey::generate()?, PrivateKey::generate()?];
    let mut made = Vec::new();
    for at in [1, 0] {
        let place = &nodes[at];
        let node = Node::bind(&place.netns, (place.ip(), PORT).into()).await?;
        let peering = Peering {
            private_key: keys[at].clone(),
            peer: keys[1 - at].public_key(),
            endpoint: (nodes[1 - at].ip(), PORT).into(),
            keepalive: Some(Duration::from_secs(10)),
        };
        let spec = InterfaceSpec::new("wg", "nsm:throughput")?
            .with_mtu(MTU)
            .with_address(format!("10.9.0.{}/24", at + 1).parse()?);
        made.push(node.create(&peering, (&place.netns, &spec)).await?);
    }
    Ok(made)
}

/// A child that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

struct WireguardGo {
    running: Vec<Running>,
    sockets: Vec<String>,
}

impl WireguardGo {
    async fn between(nodes: &[Place]) -> Outcome<Self> {
        let keys = [PrivateKey::generate()?, PrivateKey::generate()?];
        // From here on dropped, whatever fails.
        let mut go = Self { running: Vec::new(), sockets: Vec::new() };
        for at in [0, 1] {
            let (place, name) = (&nodes[at], format!("wgt{}", at + 1));
            let socket = format!("/var/run/wireguard/{name}.sock");
            // Of one that was killed.
            let _gone = fs::remove_file(&socket);
            let program = std::env::var("WIREGUARD_GO").unwrap_or_else(|_| "wireguard-go".to_owned());
            go.running.push(Running(spawn(&place.netns, program, &["-f", &name]).await?));
            while fs::metadata(&socket).is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            go.sockets.push(socket);
            let secret = std::env::temp_dir().join(format!("nsm-throughput-{}", std::process::id()));
            fs::write(&secret, keys[at].to_base64())?;
            let (port, key, endpoint) =
                (PORT.to_string(), keys[1 - at].public_key().to_string(), format!("{}:{PORT}", nodes[1 - at].ip()));
            let secret_path = secret.to_string_lossy().into_owned();
            let peer = ["peer", &key, "allowed-ips", "0.0.0.0/0", "endpoint", &endpoint, "persistent-keepalive", "10"];
            let mut arguments = vec!["set", &name, "listen-port", &port, "private-key", &secret_path];
            arguments.extend(peer);
            run(&place.netns, "wg", &arguments).await?;
            fs::remove_file(&secret)?;
            run(&place.netns, "ip", &["addr", "add", &format!("10.9.0.{}/24", at + 1), "dev", &name]).await?;
            run(&place.netns, "ip", &["link", "set", &name, "up", "mtu", &MTU.to_string()]).await?;
        }
        Ok(go)
    }
}

impl Drop for WireguardGo {
    fn drop(&mut self) {
        self.running.clear();
        // It leaves them when it is killed.
        self.sockets.drain(..).for_each(|socket| drop(fs::remove_file(socket)));
    }
}

async fn run(netns: &Netns, program: &'static str, arguments: &[&str]) -> Outcome<()> {
    let output = spawn(netns, program, arguments).await?.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

async fn spawn(netns: &Netns, program: impl Into<String>, arguments: &[&str]) -> Outcome<Child> {
    let program = program.into();
    let missing = format!("{program} could not be run; install wireguard-go wireguard-tools iperf3 iputils-ping");
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let spawned = netns
        .run(move || -> io::Result<Child> {
            Command::new(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        })
        .await;
    Ok(spawned.map_err(|error| format!("{missing}: {error}"))?)
}
