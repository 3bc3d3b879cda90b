//! Endpoints that are clients of the next domain.

use nsm_api::{ServiceUrl, SpiffeId};
use nsm_chain::{Call, Element, Next, Node as Step, Result, Tokens, elements};
use nsm_mechanisms::MechanismTranslation;
use nsm_sdk::connect::{Connect, Links};
use nsm_sdk::context::ReplaceEndpointName;
use nsm_sdk::identity::Es256Tokens;
use nsm_sdk::path::UpdatePath;

use crate::kit::{Node, SOON, Seen, World, accepts, ask, path};

/// Goes on to another network service, by a kernel interface.
struct GoOn(String);

impl Element for GoOn {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        // Without a namespace: there are no descriptors here that could pass one.
        *call.extra_mut() = vec![ServiceUrl::to_mechanism(&"kernel://onward/nsm-2".parse().unwrap())];
        let asked = std::mem::replace(&mut call.body_mut().network_service, self.0.clone());
        let mut call = next.request(call).await?;
        call.body_mut().network_service = asked;
        Ok(call)
    }

    async fn close(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        call.body_mut().network_service.clone_from(&self.0);
        next.close(call).await
    }
}

/// A client in an endpoint's process has a segment of its own: the endpoint's token is for that client, not for its caller.
struct Vouch(Es256Tokens, SpiffeId);

impl Element for Vouch {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let token = self.0.token(Some(&self.1))?;
        let path = call.body_mut().path.get_or_insert_default();
        let before = path.index as usize - 1;
        path.path_segments[before].token = token.text.as_ref().into();
        next.request(call).await
    }
}

/// What makes an endpoint of this node a client of `service`.
fn goes_on(node: &Node, name: &str, service: &str) -> Vec<Step> {
    let client = format!("{name}-client");
    let id = node.identity(&client).svid().unwrap().id().clone();
    let links: std::sync::Arc<dyn Links<nsm_chain::Service>> = node.site(&client).channels();
    elements![
        MechanismTranslation::default(),
        GoOn(service.to_owned()),
        ReplaceEndpointName::new(),
        UpdatePath::new(client),
        Vouch(Es256Tokens::new(node.identity(name), SOON), id),
        Connect::new(links).to(node.url.as_str()),
    ]
}

#[tokio::test]
async fn a_chain_of_endpoints_through_five_domains_makes_a_path_of_36() {
    const DOMAINS: usize = 5;
    let world = World::new().await;
    let (mut domains, mut nodes, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=DOMAINS {
        let mut domain = world.domain(&format!("d{number}")).await;
        domain.network_service(&format!("vpn-{number}")).await;
        nodes.push(domain.node(1).await);
        domains.push(domain);
    }
    let seen = Seen::default();
    for (at, node) in nodes.iter().enumerate() {
        let (number, name) = (at + 1, format!("nse-{}", at + 1));
        let mut elements = elements![seen.clone(), accepts()];
        if number < DOMAINS {
            elements.extend(goes_on(node, &name, &format!("vpn-{}@{}.test", number + 1, domains[number].name())));
        }
        endpoints.push(node.endpoint_with(&name, &format!("vpn-{number}"), elements).await);
    }
    let client = nodes[0].client("nsc");
    let connection = ask(&client, "vpn-1", "c").await.unwrap();
    assert_eq!(path(&connection).split(' ').count(), 8 * (DOMAINS - 1) + 4, "{}", path(&connection));
    assert!(path(&connection).ends_with("proxy-d4 proxy-d5 nsmgr-d51 forwarder-d51 nse-5"), "{}", path(&connection));
    ask(&client, "vpn-1", "c").await.unwrap();
    assert_eq!((seen.requests(), seen.closes()), (2 * DOMAINS, 0));
    client.close(connection, SOON).await.unwrap();
    assert_eq!(seen.closes(), DOMAINS);
    for (domain, node) in domains.iter().zip(&nodes) {
        domain.is_empty(&[node]).await;
    }
}
