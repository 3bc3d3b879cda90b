use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nsm_api::mechanism::KERNEL;
use nsm_api::{Connection, Mechanism, NetworkService};
use nsm_chain::{Call, Node, elements};
use nsm_mechanisms::{Class, CrossConnect, Dataplane, KernelAccept, Mechanisms, Programmed, Wire};
use nsm_sdk::identity::{DevAuthority, HmacTokens};
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::{EndpointRole, ForwarderRole, ManagerRole, RegistryRole, Running, Site, client};
use nsm_sdk::stacks::Client;
use nsm_sdk::transport::Transport;

/// How the roles of a mesh talk to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// No TLS; HS256 tokens of one hour, everybody is let in: what the reference's own tests do.
    Insecure,
    /// Mutual TLS with an authority in the process, ES256 tokens, the stock policies on.
    Mtls,
}

/// Registry, manager, forwarder, endpoint and clients, each on its own unix socket, in this process.
pub struct Mesh {
    directory: PathBuf,
    sites: Sites,
    roles: Vec<Running>,
}

enum Sites {
    Insecure,
    Mtls(DevAuthority),
}

/// The service all endpoints of a mesh serve.
const SERVICE: &str = "bench";

impl Mesh {
    /// A mesh without endpoints. Mechanisms are negotiated, nothing is programmed.
    pub async fn new(security: Security) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("nsm-bench-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for sockets");
        let sites = match security {
            Security::Insecure => Sites::Insecure,
            Security::Mtls => Sites::Mtls(DevAuthority::new("example.org").expect("an authority")),
        };
        let mut mesh = Self { directory, sites, roles: Vec::new() };

        let registry = RegistryRole::new("registry", mesh.site("registry")).listen_on(mesh.url("registry"));
        mesh.roles.push(registry.serve().await.expect("a registry"));
        let manager =
            ManagerRole::new("nsmgr", mesh.site("nsmgr")).listen_on(mesh.url("nsmgr")).registry(mesh.url("registry"));
        mesh.roles.push(manager.serve().await.expect("a manager"));
        let wire = elements![CrossConnect::new(Nothing)];
        let forwarder = ForwarderRole::new("forwarder", mesh.site("forwarder"), mesh.url("nsmgr"), wire)
            .listen_on(mesh.url("forwarder"));
        mesh.roles.push(forwarder.serve().await.expect("a forwarder"));

        let service = NetworkService { name: SERVICE.into(), payload: "IP".into(), ..Default::default() };
        let registrar = RegistryClient::builder("registrar")
            .connect(mesh.site("registrar").channels(), mesh.url("registry"))
            .build()
            .expect("a registry client");
        registrar
            .services
            .request(Call::new(service).within(Duration::from_secs(10)))
            .await
            .expect("a network service");
        mesh
    }

    fn url(&self, name: &str) -> String {
        format!("unix://{}/{name}.sock", self.directory.display())
    }

    fn site(&self, name: &str) -> Site {
        match &self.sites {
            Sites::Insecure => {
                let id = format!("spiffe://example.org/{name}").parse().expect("an id");
                Site::over(Transport::insecure(Arc::new(HmacTokens::new(&id))))
            }
            Sites::Mtls(authority) => Site::mtls(authority.issue(&format!("/{name}")).expect("an identity")),
        }
    }

    /// An endpoint that accepts everything. Dropping it stops it at once and leaves it registered, as a crash would.
    pub async fn endpoint(&self, name: &str) -> Running {
        let kernel = Mechanisms::new().with(KERNEL, KernelAccept::new()).expect("an order that works");
        let endpoint = EndpointRole::new(name, self.site(name))
            .listen_on(self.url(name))
            .serves(SERVICE)
            .registers_at(self.url("nsmgr"))
            .with(elements![kernel]);
        endpoint.serve().await.expect("an endpoint")
    }

    /// A client with heal and refresh, and elements of one's own before the manager.
    #[must_use]
    pub fn client(&self, elements: Vec<Node>) -> Client {
        client("nsc", &self.site("nsc"), &self.url("nsmgr")).with(elements).build().expect("a client")
    }

    /// Asks for a connection of this id.
    pub async fn connect(&self, client: &Client, id: &str) -> Connection {
        let mut kernel = Mechanism::kernel();
        kernel.set_parameter("name", "nsm-1");
        kernel.set_parameter("inodeURL", "file:///proc/self/ns/net");
        let asked = nsm_api::NetworkServiceRequest {
            connection: Some(Connection { id: id.into(), network_service: SERVICE.into(), ..Default::default() }),
            mechanism_preferences: vec![kernel],
        };
        client.request(asked, Duration::from_secs(30)).await.expect("a connection")
    }

    /// Asks again for what came back.
    pub async fn refresh(&self, client: &Client, connection: Connection) -> Connection {
        let asked = nsm_api::NetworkServiceRequest { connection: Some(connection), mechanism_preferences: Vec::new() };
        client.request(asked, Duration::from_secs(30)).await.expect("a refresh")
    }

    /// Stops all roles and removes the sockets.
    pub async fn stop(self) {
        for role in self.roles.into_iter().rev() {
            // The next mesh starts fresh: what could not be told to one that is stopped already does not matter.
            let _stopped = role.shutdown().await;
        }
        std::fs::remove_dir_all(&self.directory).expect("the directory is removed");
    }
}

/// A data plane that programs nothing, as the reference's stand-in.
struct Nothing;

impl Dataplane for Nothing {
    type Lease = ();

    fn accepts(&self, _payload: &str) -> Vec<&'static str> {
        vec![KERNEL]
    }

    fn offers(&self, _id: &str, _class: Class, _payload: &str) -> Vec<Mechanism> {
        vec![Mechanism::kernel()]
    }

    fn accept(&self, _id: &str, _mechanism: &mut Mechanism, _held: Option<&()>) -> nsm_chain::Result<()> {
        Ok(())
    }

    async fn connect(&self, _wire: &Wire) -> nsm_chain::Result<Programmed> {
        Ok(Programmed::Unchanged)
    }

    async fn disconnect(&self, _id: &str) -> nsm_chain::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mesh").field(&self.roles).finish()
    }
}
