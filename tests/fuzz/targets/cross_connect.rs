//! What a forwarder is asked for and answered: contexts, mechanisms and paths of strangers program no wire that a Close
//! does not take away again.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use nsm_api::connection::Connection;
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_chain::{Begin, Call, Chain, Element, Next, NextHop, Result, elements};
use nsm_fuzz::{Chunks, message, run};
use nsm_mechanisms::memory::Fabric;
use nsm_mechanisms::{CrossConnect, Underlay};

/// The next hop: answers with its own connection, or the first preference as it is.
#[derive(Clone)]
struct Further(Option<Connection>);

impl Element for Further {
    async fn request(&self, mut call: Call, _next: Next<'_>) -> Result<Call> {
        match &self.0 {
            Some(answer) => {
                let (id, path) = (call.body().id.clone(), call.body().path.clone());
                *call.body_mut() = Connection { id, path, ..answer.clone() };
            }
            None => {
                let first = call.preferences().first().cloned();
                call.body_mut().mechanism = first;
            }
        }
        Ok(call)
    }

    async fn close(&self, call: Call, _next: Next<'_>) -> Result<Call> {
        Ok(call)
    }
}

/// Says where the next hop is.
struct To(&'static str);

impl Element for To {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        call.set_fact(NextHop(self.0.into()));
        next.request(call).await
    }
}

async fn forwarder(to: &'static str, requests: Vec<NetworkServiceRequest>, answer: Option<Connection>) {
    let fabric = Fabric::new();
    let begin = Arc::new(Begin::default());
    let cross = CrossConnect::new(fabric.forwarder("fwd", Some(Underlay::new([10, 0, 0, 1].into()))));
    let list = elements![Arc::clone(&begin), To(to), cross, Further(answer)];
    let chain = Chain::new("fwd", list).unwrap();
    for request in requests {
        let connection = request.connection.unwrap_or_default();
        let _ = chain.request(Call::request(connection, request.mechanism_preferences)).await;
    }
    assert!(fabric.wires().len() <= begin.handles().len(), "a wire that nobody asked for");
    for handle in begin.handles() {
        let _ = handle.close().await;
    }
    assert!(begin.handles().is_empty());
    assert_eq!(fabric.wires().len(), 0, "a wire is left");
}

fuzz_target!(|data: &[u8]| {
    let Some((flags, rest)) = data.split_first() else { return };
    let mut chunks = Chunks(rest);
    let answer = (flags & 1 != 0).then(|| chunks.next().and_then(message)).flatten();
    let requests: Vec<NetworkServiceRequest> = chunks.take(4).filter_map(message).collect();
    let to = if flags & 2 == 0 { "unix:///nse.sock" } else { "tcp://192.0.2.1:5001" };
    run(forwarder(to, requests, answer));
});
