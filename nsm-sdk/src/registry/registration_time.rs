use std::sync::Arc;

use nsm_chain::{Call, Element, Next, Order, Result, Slot, time};

use super::Endpoints;

/// Says since when an endpoint is registered.
///
/// *Register*: the first one stamps the time, unless the caller brings one (its registry was restarted, say);
/// later ones keep it. *Unregister*: passes. It stands after `Begin`, in whose state the time is kept.
#[derive(Debug, Default)]
pub struct RegistrationTime {
    since: Slot<Stamp>,
}

type Stamp = std::time::SystemTime;

impl Element<Endpoints> for RegistrationTime {
    async fn request(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let state = Arc::clone(call.state()?);
        let brought = call.body().initial_registration_time.and_then(|time| Stamp::try_from(time).ok());
        let since = self.since.cloned(&state).or(brought).unwrap_or_else(time::now);
        self.since.set(&state, since);
        call.body_mut().initial_registration_time = Some(since.into());
        next.request(call).await
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nsm_api::registry::NetworkServiceEndpoint;
    use nsm_chain::{Begin, Chain, elements};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_registration_counts_until_the_name_is_unregistered() {
        let chain = Chain::new("registry", elements![Begin::default(), RegistrationTime::default()]).unwrap();
        let nse = NetworkServiceEndpoint { name: "nse-1".into(), ..Default::default() };
        let register =
            async || chain.request(Call::new(nse.clone())).await.unwrap().into_body().initial_registration_time;
        let first = register().await;
        assert_eq!(first, Some(time::now().into()));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(register().await, first);
        chain.close(Call::new(nse.clone())).await.unwrap();
        assert_ne!(register().await, first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_that_the_caller_brings_is_kept() {
        let chain = Chain::new("registry", elements![Begin::default(), RegistrationTime::default()]).unwrap();
        let since = Some((time::now() - Duration::from_secs(3600)).into());
        let nse =
            NetworkServiceEndpoint { name: "nse-1".into(), initial_registration_time: since, ..Default::default() };
        let body = chain.request(Call::new(nse)).await.unwrap().into_body();
        assert_eq!(body.initial_registration_time, since);
    }
}
