use std::fmt;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use nsm_api::registry::NetworkService;
use nsm_chain::{Call, elements};
use nsm_mechanisms::{CrossConnect, Linux};
use nsm_sdk::identity::DevAuthority;
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::{ForwarderRole, ManagerRole, Running, Site};

use crate::{Result, Visitor};

/// A node of one machine: a manager that keeps all records itself, and a Linux forwarder, on unix sockets with mutual
/// TLS.
pub struct Neighbourhood {
    authority: DevAuthority,
    sockets: Sockets,
    manager: Running,
    forwarder: Running,
    services: RegistryClient,
}

impl Neighbourhood {
    /// Starts both, and registers the network service.
    ///
    /// # Errors
    /// When this process may not make network namespaces, or a role does not start.
    pub async fn start(service: &str) -> Result<Self> {
        if let Some(obstacle) = nsm_kernel::privileges().obstacle {
            return Err(obstacle.into());
        }
        let authority = DevAuthority::new("hello.example")?;
        let site = |name: &str| Ok::<_, Box<dyn std::error::Error>>(Site::mtls(authority.issue(&format!("/{name}"))?));
        let sockets = Sockets::create()?;

        let manager = ManagerRole::new("nsmgr", site("nsmgr")?).listen_on(sockets.url("nsmgr")).serve().await?;
        let wire = elements![CrossConnect::new(Linux::new("forwarder")?)];
        let forwarder = ForwarderRole::new("forwarder", site("forwarder")?, manager.url(), wire)
            .listen_on(sockets.url("forwarder"))
            .serve()
            .await?;

        let services =
            RegistryClient::builder("operator").connect(site("operator")?.channels(), manager.url()).build()?;
        let named =
            NetworkService { name: service.to_owned(), payload: nsm_api::payload::IP.into(), ..Default::default() };
        services.services.request(Call::new(named)).await?;
        Ok(Self { authority, sockets, manager, forwarder, services })
    }

    /// An identity for the role of that name.
    ///
    /// # Errors
    /// When the name fits no SPIFFE ID.
    pub fn site(&self, name: &str) -> Result<Site> {
        Ok(Site::mtls(self.authority.issue(&format!("/{name}"))?))
    }

    /// The URL of a socket for the role of that name.
    #[must_use]
    pub fn socket(&self, name: &str) -> String {
        self.sockets.url(name)
    }

    /// Where the manager is reached.
    #[must_use]
    pub fn manager(&self) -> String {
        self.manager.url()
    }

    /// Lets a client in a network namespace of its own ask for what a service URL says, and ping what it gets.
    ///
    /// # Errors
    /// When it gets nothing, or the other end does not answer.
    pub async fn visit(&self, url: &str) -> Result<Visitor> {
        Visitor::arrive(&self.site("nsc")?, &self.manager(), url).await
    }

    /// Takes all of it down.
    ///
    /// # Errors
    /// What could not be undone.
    pub async fn shutdown(self) -> Result {
        let unregistered = self.services.unregister_all().await;
        let forwarder = self.forwarder.shutdown().await;
        self.manager.shutdown().await?;
        forwarder?;
        Ok(unregistered?)
    }
}

impl fmt::Debug for Neighbourhood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Neighbourhood({}, {})", self.manager, self.forwarder)
    }
}

/// A directory for sockets, for this user only, removed when dropped.
struct Sockets(PathBuf);

impl Sockets {
    fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("hello-endpoint-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn url(&self, name: &str) -> String {
        format!("unix://{}/{name}.sock", self.0.display())
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}
