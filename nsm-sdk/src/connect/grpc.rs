use futures::FutureExt;
use futures::future::BoxFuture;
use nsm_chain::grpc::GrpcLink;
use nsm_chain::{Element, Error, Node, Protocol, Result};

use super::Links;
use crate::transport::{Address, Channels, Link};

/// Over gRPC: one shared connection to each peer.
impl<P: Protocol> Links<P> for Channels
where
    GrpcLink<Link>: Element<P>,
{
    fn link<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Node<P>>> {
        let link = url
            .parse::<Address>()
            .map(|address| Node::new(GrpcLink::new(Self::link(self, &address), url)))
            .map_err(|error| Error::invalid(format!("{url:?} is not the URL of a hop")).because(error));
        std::future::ready(link).boxed()
    }
}
