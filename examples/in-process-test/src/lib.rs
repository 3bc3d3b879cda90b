//! A network function of one's own: address translation in which each client gets a block of the public address's
//! ports (as RFC 7422 has it), and its unit test, `tests/port_blocks.rs`, in one process.

#![deny(missing_docs)]

mod blocks;

pub use blocks::{Block, Blocks};

use std::sync::Arc;

use nsm_chain::{Call, Element, Error, Next, Order, Result, Slot};

/// Under this key of the extra context a client finds its ports, such as `1024-2047`.
pub const PORTS: &str = "nat/ports";

/// Gives each connection a block of ports.
///
/// *Request*: a connection gets a block at first and keeps it; when none is left the Request fails. *Close*: the block
/// goes with the connection's state, as it does when the first Request fails further on.
///
/// It stands in an endpoint, after `Begin`, which makes that state.
#[derive(Debug)]
pub struct PortBlocks {
    blocks: Arc<Blocks>,
    held: Slot<Arc<Block>>,
}

impl PortBlocks {
    /// Gives of these.
    #[must_use]
    pub fn of(blocks: Arc<Blocks>) -> Self {
        Self { blocks, held: Slot::new() }
    }
}

impl Element for PortBlocks {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let state = Arc::clone(call.state()?);
        let block = match self.held.cloned(&state) {
            Some(block) => block,
            None => {
                let block = Blocks::take(&self.blocks).ok_or_else(|| {
                    Error::exhausted("all port blocks are in use").hint("add a public address, or make blocks smaller")
                })?;
                self.held.set(&state, Arc::clone(&block));
                block
            }
        };
        let context = call.connection_mut().context.get_or_insert_default();
        context.extra_context.insert(PORTS.into(), block.to_string());
        next.request(call).await
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}
