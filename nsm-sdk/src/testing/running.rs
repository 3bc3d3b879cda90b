use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_api::NetworkServiceEndpoint;
use nsm_chain::{Begin, Call, Chain, Element, Error, EventStream, Next, Node, OrderError, Protocol, Result, Watch};

use super::Mesh;
use super::census::Counted;
use crate::connect::Life;
use crate::registry::stacks::RegistryClient;

/// An endpoint or forwarder that runs in a test mesh until it is killed. It keeps itself registered.
#[derive(Clone)]
pub struct RunningEndpoint(Arc<Inner>);

struct Inner {
    mesh: Mesh,
    record: NetworkServiceEndpoint,
    node: Arc<str>,
    make: Box<Make>,
    process: Mutex<Option<Process>>,
}

/// What starts a program in a life of its own.
type Make = dyn Fn(&Life) -> Result<Process> + Send + Sync;

/// One life of an endpoint.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) life: Life,
    pub(super) chain: Chain,
    pub(super) counted: Counted,
    pub(super) registry: RegistryClient,
    pub(super) plug: Plug,
}

impl RunningEndpoint {
    pub(super) async fn run(
        mesh: &Mesh,
        node: &Arc<str>,
        record: NetworkServiceEndpoint,
        make: impl Fn(&Life) -> Result<Process> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (own, node) = (mesh.clone(), Arc::clone(node));
        let inner = Inner { mesh: own, node, record, make: Box::new(make), process: Mutex::default() };
        let running = Self(Arc::new(inner));
        running.restart().await?;
        // Who forgets what runs does not end it.
        mesh.hops.keep(&running.0.record.name, running.clone());
        Ok(running)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.0.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self) -> Result<Process> {
        let process = self.lock().clone();
        process.ok_or_else(|| Error::precondition(format!("{} was killed", self.name())).hint("restart it"))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.record.name
    }

    /// Whether it has been started and not been killed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.lock().is_some()
    }

    /// What is connected to it now.
    #[must_use]
    pub fn connections(&self) -> Arc<Begin> {
        self.lock().as_ref().map(|process| Arc::clone(&process.counted.connections)).unwrap_or_default()
    }

    /// Registers it with its manager, again if need be; from then on it stays registered.
    ///
    /// # Errors
    /// What the manager reports.
    pub async fn register(&self) -> Result<()> {
        let endpoints = self.process()?.registry.endpoints;
        endpoints.request(Call::new(self.0.record.clone()).within(PATIENCE)).await.map(drop)
    }

    /// Takes it out of the registry; it goes on serving.
    ///
    /// # Errors
    /// What the manager reports.
    pub async fn unregister(&self) -> Result<()> {
        let endpoints = self.process()?.registry.endpoints;
        endpoints.close(Call::new(self.0.record.clone()).within(PATIENCE)).await.map(drop)
    }

    /// Cuts it off: it neither answers nor asks, remembers everything, and stays registered until that expires.
    pub fn stop(&self) {
        self.0.mesh.calls.stop(&self.0.record.url);
        if let Some(process) = &*self.lock() {
            process.plug.pull();
        }
    }

    /// Lets it answer and ask again, with what it remembers.
    pub fn start(&self) {
        if let Some(process) = &*self.lock() {
            process.plug.put();
            let calls = self.0.mesh.calls.used_by(&process.life);
            calls.serve(self.0.record.url.as_str(), process.chain.clone());
        }
    }

    /// Kills it, with all it remembers and has programmed; it stays registered until that expires.
    pub fn kill(&self) {
        self.crash();
        self.0.mesh.wires.forget(self.name());
    }

    /// Kills it, with all it remembers; what it has programmed stays, as it does in a kernel. It stays registered until
    /// that expires.
    pub fn crash(&self) {
        self.0.mesh.end(self.name());
        self.stop();
        self.0.mesh.hops.ended(self.name());
        self.0.mesh.wires.kill(self.name());
        let former = self.lock().take();
        drop(former);
    }

    /// Starts it anew under the same name, and kills it before if it still runs. Its elements are the same ones.
    ///
    /// # Errors
    /// What the manager reports.
    pub async fn restart(&self) -> Result<()> {
        if self.is_running() {
            self.kill();
        }
        let life = self.0.mesh.begin(self.name(), &self.0.node);
        let process = (self.0.make)(&life)?;
        self.0.mesh.hops.runs(self.name(), process.counted.clone());
        *self.lock() = Some(process);
        self.start();
        self.register().await
    }
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// Through this an endpoint asks others; pulled, it reaches nobody.
#[derive(Clone, Default)]
pub(super) struct Plug(Arc<AtomicBool>);

impl Plug {
    fn pull(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn put(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn check(&self) -> Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(Error::unavailable("cut off by the test")) } else { Ok(()) }
    }

    pub(super) fn registry_client(&self, mesh: &Mesh, life: &Life, url: &str) -> Result<RegistryClient, OrderError> {
        let client = mesh.registry_client(life, url);
        client.before_services(Node::new(self.clone())).before_endpoints(Node::new(self.clone())).build()
    }
}

impl<P: Protocol> Element<P> for Plug {
    async fn request(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        self.check()?;
        next.request(call).await
    }

    async fn close(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        self.check()?;
        next.close(call).await
    }

    async fn monitor(&self, watch: Watch<P>, next: Next<'_, P>) -> Result<EventStream<P>> {
        self.check()?;
        next.monitor(watch).await
    }
}

impl fmt::Debug for RunningEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunningEndpoint({})", self.name())
    }
}
