//! A mesh of one node: five processes, the client and the endpoint in namespaces of their own.

use std::time::Duration;

use nsm_kernel::{Census, Netns, Pinger};
use tokio::time::{Instant, sleep};

use crate::kit::{PATIENCE, Program, Room};

pub(crate) struct Mesh {
    pub(crate) client_netns: Netns,
    pub(crate) endpoint_netns: Netns,
    pub(crate) registry: Option<Program>,
    pub(crate) manager: Option<Program>,
    pub(crate) forwarder: Option<Program>,
    pub(crate) endpoint: Option<Program>,
    pub(crate) client: Option<Program>,
    /// By which variable its programs have their identity.
    pub(crate) identity: (&'static str, String),
    /// Last: programs write into it until they are gone.
    pub(crate) room: Room,
}

impl Mesh {
    /// With every role but the client started; an authority on disk says who is who.
    pub(crate) async fn without_client() -> Self {
        Self::with_endpoint(&[]).await
    }

    /// The same, its endpoint with these settings too.
    pub(crate) async fn with_endpoint(settings: &[(&str, &str)]) -> Self {
        let room = Room::new();
        let identity = ("NSM_AUTHORITY", room.path("authority").display().to_string());
        let mut mesh = Self::empty(room, identity).await;
        mesh.start_registry().await;
        mesh.start_manager().await;
        mesh.start_forwarder().await;
        mesh.start_endpoint_with(settings).await;
        mesh
    }

    /// With nothing started.
    pub(crate) async fn empty(room: Room, identity: (&'static str, String)) -> Self {
        Self {
            room,
            identity,
            client_netns: Netns::create().await.unwrap(),
            endpoint_netns: Netns::create().await.unwrap(),
            registry: None,
            manager: None,
            forwarder: None,
            endpoint: None,
            client: None,
        }
    }

    pub(crate) async fn start_registry(&mut self) {
        let listen = self.room.socket("registry");
        self.start("registry", &[("NSM_LISTEN_ON", &listen)]).await;
    }

    pub(crate) async fn start_manager(&mut self) {
        let (listen, registry) = (self.room.socket("nsmgr"), self.room.socket("registry"));
        let settings = [("NSM_NAME", "nsmgr-1"), ("NSM_LISTEN_ON", &listen), ("NSM_REGISTRY_URL", &registry)];
        self.start("manager", &settings).await;
    }

    pub(crate) async fn start_forwarder(&mut self) {
        self.start_forwarder_with(&[]).await;
    }

    /// With these settings too.
    pub(crate) async fn start_forwarder_with(&mut self, settings: &[(&str, &str)]) {
        let (listen, manager) = (self.room.socket("forwarder"), self.room.socket("nsmgr"));
        // A mark of its own for each test.
        let name = self.room.path("x").parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let own = [("NSM_NAME", name.as_str()), ("NSM_LISTEN_ON", &listen), ("NSM_CONNECT_TO", &manager)];
        self.start("forwarder", &[&own, settings].concat()).await;
    }

    pub(crate) async fn start_endpoint(&mut self) {
        self.start_endpoint_with(&[]).await;
    }

    /// With these settings too.
    pub(crate) async fn start_endpoint_with(&mut self, settings: &[(&str, &str)]) {
        let manager = self.room.socket("nsmgr");
        let own = [
            ("NSM_NAME", "nse-1"),
            ("NSM_CONNECT_TO", manager.as_str()),
            ("NSM_SERVICE_NAMES", "vpn"),
            ("NSM_PAYLOAD", "IP"),
            ("NSM_CIDR_PREFIX", "172.16.1.0/24,fd00:172:16::/64"),
        ];
        self.start("endpoint", &[&own, settings].concat()).await;
    }

    pub(crate) async fn start_client(&mut self) {
        self.start_client_with(&[], "nsc-1-0 up: interface nsm-1, 172.16.1.1/32").await;
    }

    /// With these settings too, until it says this.
    pub(crate) async fn start_client_with(&mut self, settings: &[(&str, &str)], says: &str) {
        let manager = self.room.socket("nsmgr");
        let own = [
            ("NSM_NAME", "nsc-1"),
            ("NSM_CONNECT_TO", manager.as_str()),
            ("NSM_NETWORK_SERVICES", "kernel://vpn/nsm-1"),
        ];
        self.start("client", &[&own, settings].concat()).await;
        self.client.as_mut().unwrap().says(says).await;
    }

    async fn start(&mut self, role: &str, settings: &[(&str, &str)]) {
        let (netns, said) = match role {
            "endpoint" => (Some(&self.endpoint_netns), "listens on"),
            "client" => (Some(&self.client_netns), "asks"),
            _ => (None, "listens on"),
        };
        let mut program = self.room.start(role, self.room.nsm(role, netns, &self.with_identity(settings)));
        program.says(said).await;
        *self.place(role) = Some(program);
    }

    /// These settings, and the identity.
    pub(crate) fn with_identity<'a>(&'a self, settings: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [settings, &[(self.identity.0, self.identity.1.as_str())]].concat()
    }

    pub(crate) fn place(&mut self, role: &str) -> &mut Option<Program> {
        match role {
            "registry" => &mut self.registry,
            "manager" => &mut self.manager,
            "forwarder" => &mut self.forwarder,
            "endpoint" => &mut self.endpoint,
            "client" => &mut self.client,
            _ => panic!("{role}"),
        }
    }

    /// Waits until packets flow.
    pub(crate) async fn packets_flow(&self) {
        let begun = Instant::now();
        let pairs = [("172.16.1.1", "172.16.1.0"), ("fd00:172:16::1", "fd00:172:16::")];
        for (from, to) in pairs {
            while let Err(error) = self.ping(from, to).await {
                assert!(begun.elapsed() < PATIENCE, "no packets from {from} to {to}: {error}");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    pub(crate) async fn ping(&self, from: &str, to: &str) -> nsm_kernel::Result<()> {
        let pinger = Pinger::new(&self.client_netns).await?;
        pinger.ping(from.parse().unwrap(), to.parse().unwrap(), Duration::from_secs(1)).await.map(drop)
    }

    /// What is in both namespaces.
    pub(crate) async fn census(&self) -> [Census; 2] {
        [Census::take(&self.client_netns).await.unwrap(), Census::take(&self.endpoint_netns).await.unwrap()]
    }

    /// Tells every role that runs to end, the client first.
    pub(crate) async fn stop(&mut self) {
        for role in ["client", "forwarder", "endpoint", "manager", "registry"] {
            if let Some(program) = self.place(role).take() {
                program.stop().await;
            }
        }
    }
}
