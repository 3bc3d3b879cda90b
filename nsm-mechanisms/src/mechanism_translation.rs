use nsm_api::Mechanism;
use nsm_chain::{Call, Element, Next, Order, Result, Slot};

/// Keeps the mechanism towards the caller apart from the one towards the next hop.
///
/// *Request*: goes on without preferences and with the mechanism that was negotiated with the next hop before (none the
/// first time); the caller gets its own mechanism and preferences back. *Close*: goes on with the mechanism negotiated
/// with the next hop.
///
/// It stands in an endpoint that is also a client, behind what completed the caller's mechanism and before what offers
/// one of its own. A forwarder's [`CrossConnect`](crate::CrossConnect) does this by itself.
#[derive(Debug, Default)]
pub struct MechanismTranslation {
    inner: Slot<Mechanism>,
}

impl Element for MechanismTranslation {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let state = std::sync::Arc::clone(call.state()?);
        let preferences = std::mem::take(call.extra_mut());
        // A copy: what is changed further on by a Request that then fails must not be kept.
        let inner = self.inner.cloned(&state);
        let outer = std::mem::replace(&mut call.connection_mut().mechanism, inner);
        let mut call = next.request(call).await?;
        if let Some(inner) = std::mem::replace(&mut call.connection_mut().mechanism, outer) {
            self.inner.set(&state, inner);
        }
        *call.extra_mut() = preferences;
        Ok(call)
    }

    async fn close(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let inner = call.state().ok().and_then(|state| self.inner.take(state));
        let outer = std::mem::replace(&mut call.connection_mut().mechanism, inner);
        let mut call = next.close(call).await?;
        call.connection_mut().mechanism = outer;
        Ok(call)
    }

    fn order(&self) -> Order {
        Order { after: &["Begin"], before: &["KernelOffer", "MemifOffer", "Connect"], last: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::Connection;
    use nsm_chain::{Begin, Chain, Error, elements};
    use std::sync::{Arc, Mutex};

    type Seen = Arc<Mutex<Vec<(usize, Option<String>)>>>;

    /// Answers with VXLAN, and fails when told to.
    struct Further {
        seen: Seen,
        fails: Arc<Mutex<bool>>,
    }

    impl Further {
        fn note(&self, call: &Call) -> Result<()> {
            let mechanism = call.connection().mechanism.as_ref().map(|m| m.r#type.clone());
            self.seen.lock().unwrap().push((call.preferences().len(), mechanism));
            if *self.fails.lock().unwrap() { Err(Error::unavailable("down")) } else { Ok(()) }
        }
    }

    impl Element for Further {
        async fn request(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
            self.note(&call)?;
            call.connection_mut().mechanism = Some(Mechanism::vxlan());
            Ok(call)
        }

        async fn close(&self, call: Call, _next: Next<'_>) -> Result<Call> {
            self.note(&call).map(|()| call)
        }
    }

    fn chain() -> (Chain, Seen, Arc<Mutex<bool>>) {
        let (seen, fails) = (Seen::default(), Arc::new(Mutex::new(false)));
        let further = Further { seen: Arc::clone(&seen), fails: Arc::clone(&fails) };
        let chain = Chain::new("nse", elements![Begin::default(), MechanismTranslation::default(), further]).unwrap();
        (chain, seen, fails)
    }

    fn asked() -> Call {
        let mechanism = Some(Mechanism::kernel());
        Call::request(Connection { id: "1".into(), mechanism, ..Default::default() }, vec![Mechanism::kernel()])
    }

    #[tokio::test]
    async fn each_side_sees_its_own_mechanism() {
        let (chain, seen, _) = chain();
        let call = chain.request(asked()).await.unwrap();
        assert_eq!(call.connection().mechanism, Some(Mechanism::kernel()));
        assert_eq!(call.preferences().len(), 1);
        chain.request(asked()).await.unwrap();
        chain.close(Call::new(asked().into_body())).await.unwrap();
        let vxlan = || Some("VXLAN".to_owned());
        assert_eq!(*seen.lock().unwrap(), [(0, None), (0, vxlan()), (0, vxlan())]);
    }

    #[tokio::test]
    async fn a_close_that_fails_is_told_and_forgets_all_the_same() {
        let (chain, seen, fails) = chain();
        chain.request(asked()).await.unwrap();
        *fails.lock().unwrap() = true;
        assert!(chain.close(asked()).await.is_err());
        *fails.lock().unwrap() = false;
        chain.request(asked()).await.unwrap();
        assert_eq!(seen.lock().unwrap().last().unwrap().1, None);
    }
}
