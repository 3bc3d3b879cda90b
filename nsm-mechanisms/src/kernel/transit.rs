use nsm_chain::{Call, Element, Error, Next, Order, Result, Slot};
use nsm_kernel::{InterfaceName, Netns};

/// Has packets that come in through this connection's interface go on, in an endpoint that is a client again.
///
/// *Request*: what comes in through the kernel interface that was chosen is forwarded by the routes of the namespace, though that
/// has the addresses of both ends of the connection. *Close*: no longer.
///
/// It stands twice: before what keeps the two mechanisms apart ([`MechanismTranslation`](crate::MechanismTranslation)), for the caller's
/// wire, and behind [`KernelOffer`](crate::KernelOffer), for the one that leads on.
#[derive(Debug)]
pub struct KernelTransit {
    netns: Netns,
    passing: Slot<InterfaceName>,
}

impl KernelTransit {
    /// In this namespace.
    #[must_use]
    pub fn of(netns: &Netns) -> Self {
        Self { netns: netns.clone(), passing: Slot::new() }
    }

    async fn pass_on(&self, call: &Call) -> Result<()> {
        let state = call.state()?;
        let kernel = call.connection().mechanism.as_ref().and_then(|mechanism| mechanism.as_kernel());
        let name = kernel.and_then(|kernel| kernel.interface_name().ok().flatten());
        let name: InterfaceName = match name.map(str::parse) {
            Some(Ok(name)) => name,
            _ => {
                return Err(Error::unsupported("the connection has no kernel interface, and only those are passed on"));
            }
        };
        let known = self.passing.cloned(state);
        if known.as_ref() == Some(&name) {
            return Ok(());
        }
        let failed = |error| Error::internal(format!("packets of {name} cannot be passed on")).because(error);
        self.netns.pass_on(&name).await.map_err(failed)?;
        self.passing.set(state, name.clone());
        match known {
            Some(former) => self.netns.pass_no_more(&former).await.map_err(failed),
            None => Ok(()),
        }
    }
}

impl Element for KernelTransit {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let first = call.is_first();
        let call = next.request(call).await?;
        match self.pass_on(&call).await {
            Ok(()) => Ok(call),
            Err(error) if first => Err(next.undo(call, error).await),
            Err(error) => Err(error),
        }
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let passing = call.state().ok().and_then(|state| self.passing.take(state));
        let taken_back = match passing {
            Some(name) => self.netns.pass_no_more(&name).await,
            None => Ok(()),
        };
        let call = next.close(call).await?;
        taken_back.map(|()| call).map_err(|error| Error::internal("packets are still passed on").because(error))
    }

    fn order(&self) -> Order {
        Order { after: &["Begin"], before: &["Connect"], last: false }
    }
}
