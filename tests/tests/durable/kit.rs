//! A registry in a process of its own, and clients of it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use nsm_api::NetworkServiceEndpoint as Nse;
use nsm_chain::{Call, Chain, Closed, Record, RegistryPath, Result, Watch, elements};
use nsm_sdk::connect::Connect;
use nsm_sdk::identity::HmacTokens;
use nsm_sdk::registry::Endpoints;
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::transport::{Channels, DialOptions, Transport};

/// A directory with a socket and a store, and whoever serves them.
pub(crate) struct Registry {
    directory: PathBuf,
    process: Option<Child>,
    bytes: Option<String>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nsm-durable-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self { directory, process: None, bytes: None }
    }

    /// With so many bytes on its disk.
    pub(crate) fn on_a_disk_of(bytes: usize) -> Self {
        let mut registry = Self::new();
        registry.bytes = Some(bytes.to_string());
        registry
    }

    /// Where its store is, as it sees it.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory.join("store")
    }

    /// Starts it on what is there. False: this machine does not let it.
    pub(crate) fn start(&mut self) -> bool {
        let mut child = Command::new(env!("CARGO_BIN_EXE_durable-registry"))
            .arg(self.directory.join("socket"))
            .arg(self.disk().join("registry"))
            .args(&self.bytes)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line != "ready\n" {
            let code = child.wait().unwrap().code();
            assert_eq!(code, Some(77), "the registry did not start");
            return false;
        }
        self.process = Some(child);
        true
    }

    pub(crate) fn process(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.process.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn stop(&mut self) {
        let mut child = self.process.take().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// A client of that name, with a connection of its own.
    pub(crate) fn client(&self, who: &str) -> Client {
        let url = format!("unix://{}", self.directory.join("socket").display());
        let tokens = HmacTokens::new(&format!("spiffe://mesh/{who}").parse().unwrap());
        let channels = Arc::new(Channels::new(Transport::insecure(Arc::new(tokens)), DialOptions::default()));
        let connect = Connect::new(Arc::clone(&channels) as Arc<dyn nsm_sdk::connect::Links<Endpoints>>);
        let bare = Chain::new(who, elements![connect.to(url.as_str())]).unwrap();
        let lasting = RegistryClient::builder(who).connect(channels, url).build().unwrap();
        Client { bare, lasting }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        // What is left is in the temporary directory, at worst.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    /// Each call once: what it says is what the registry said.
    bare: Chain<Endpoints>,
    /// As programs have it: tries again, resumes watches.
    pub(crate) lasting: RegistryClient,
}

impl Client {
    pub(crate) async fn register(&self, nse: Nse) -> Result<Nse> {
        self.bare.request(call(nse)).await.map(Call::into_body)
    }

    pub(crate) async fn unregister(&self, nse: Nse) -> Result<Closed> {
        self.bare.close(call(nse)).await.map(|call| call.closed())
    }

    pub(crate) async fn find_all(&self) -> Result<Vec<Arc<Nse>>> {
        let found = self.bare.monitor(Watch::new(Nse::query(Nse::default(), false))).await?;
        found.map_ok(|change| change.record).try_collect().await
    }
}

fn call(nse: Nse) -> Call<Endpoints> {
    let mut call = Call::new(nse).within(Duration::from_secs(30));
    *call.extra_mut() = Some(RegistryPath::default());
    call
}

pub(crate) fn nse(name: &str) -> Nse {
    Nse {
        name: name.into(),
        network_service_names: vec!["vpn".into()],
        url: "tcp://10.0.0.1:5001".into(),
        ..Default::default()
    }
}
