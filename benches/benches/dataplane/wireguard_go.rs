//! WireGuard between two nodes as Debian has it: `wireguard-go`, set up by `wg` and `ip`.

use std::error::Error;
use std::fs;
use std::time::Duration;

use nsm_kernel::{Netns, Node};
use nsm_wireguard::PrivateKey;

use crate::traffic::{Running, spawn};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Two processes and their interfaces, 10.9.0.1 and 10.9.0.2, which end with this.
pub(crate) struct WireguardGo {
    running: Vec<Running>,
    sockets: Vec<String>,
}

impl WireguardGo {
    /// With the environment variable `WIREGUARD_GO` another build of it.
    pub(crate) async fn between(nodes: &[Node], mtu: u32) -> Outcome<Self> {
        let keys = [PrivateKey::generate()?, PrivateKey::generate()?];
        // From here on dropped, whatever fails.
        let mut go = Self { running: Vec::new(), sockets: Vec::new() };
        for at in [0, 1] {
            let (place, name) = (&nodes[at], format!("wgt{}", at + 1));
            let socket = format!("/var/run/wireguard/{name}.sock");
            // Of one that was killed.
            let _gone = fs::remove_file(&socket);
            let program = std::env::var("WIREGUARD_GO").unwrap_or_else(|_| "wireguard-go".to_owned());
            go.running.push(Running(spawn(&place.netns, &program, &["-f", &name]).await?));
            go.sockets.push(socket.clone());
            for _ in 0..500 {
                if fs::metadata(&socket).is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let secret = std::env::temp_dir().join(format!("nsm-dataplane-{}", std::process::id()));
            fs::write(&secret, keys[at].to_base64())?;
            let secret_path = secret.to_string_lossy().into_owned();
            let (key, endpoint) = (keys[1 - at].public_key().to_string(), format!("{}:51820", nodes[1 - at].ip()));
            let own = ["set", &name, "listen-port", "51820", "private-key", &secret_path];
            let peer = ["peer", &key, "allowed-ips", "0.0.0.0/0", "endpoint", &endpoint, "persistent-keepalive", "10"];
            let set = run(&place.netns, "wg", &[&own[..], &peer].concat()).await;
            fs::remove_file(&secret)?;
            set?;
            run(&place.netns, "ip", &["addr", "add", &format!("10.9.0.{}/24", at + 1), "dev", &name]).await?;
            run(&place.netns, "ip", &["link", "set", &name, "up", "mtu", &mtu.to_string()]).await?;
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

async fn run(netns: &Netns, program: &str, arguments: &[&str]) -> Outcome<()> {
    let output = spawn(netns, program, arguments).await?.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}
