use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, Weak};

use nsm_chain::sync::tokio::runtime::Handle;
use nsm_chain::sync::tokio::time::Instant;
use nsm_chain::sync::{Mutex, MutexGuard, tokio};

use super::dial::Dialler;
use super::trunk::Trunk;
use super::{Address, DialOptions, Link, Transport, TransportError};

/// The links of a process: one shared connection per address.
///
/// A clone is another handle on the same pool. See [`Link`] for what happens when a connection is lost or an identity rotated.
#[derive(Clone)]
pub struct Channels {
    pool: Arc<Pool>,
}

pub(super) struct Pool {
    transport: Transport,
    options: DialOptions,
    links: Mutex<Links>,
}

#[derive(Default)]
struct Links {
    by_address: HashMap<Address, Pooled>,
    sweeping: bool,
}

struct Pooled {
    trunk: Arc<Trunk>,
    lease: Weak<Lease>,
    /// When its last user left; meaningless while there is one.
    idle_since: Instant,
}

/// Held by all clones of a link together.
pub(super) struct Lease {
    pub(super) trunk: Arc<Trunk>,
    pool: Weak<Pool>,
}

impl Channels {
    /// An empty pool.
    #[must_use]
    pub fn new(transport: Transport, options: DialOptions) -> Self {
        Self { pool: Arc::new(Pool { transport, options, links: Mutex::default() }) }
    }

    /// The link to `address`, with its handshake done: its peer is known, and so is the audience of tokens.
    ///
    /// All who ask at once share one dial.
    ///
    /// # Errors
    /// [`TransportError`], naming the address, what happened, and what to do.
    pub async fn get(&self, address: &Address) -> Result<Link, TransportError> {
        let link = self.link(address);
        link.connected().await?;
        Ok(link)
    }

    /// The link to `address`, opened by its first call.
    #[must_use]
    pub fn link(&self, address: &Address) -> Link {
        let mut links = self.pool.links();
        if let Some(lease) = links.by_address.get(address).and_then(|pooled| pooled.lease.upgrade()) {
            return Link { lease };
        }
        let pooled = links.by_address.entry(address.clone()).or_insert_with(|| {
            let dialler = Dialler::new(address.clone(), self.pool.transport.clone(), self.pool.options.clone());
            Pooled { trunk: Arc::new(Trunk::new(dialler)), lease: Weak::new(), idle_since: Instant::now() }
        });
        let trunk = Arc::clone(&pooled.trunk);
        let lease = Arc::new(Lease { trunk, pool: Arc::downgrade(&self.pool) });
        pooled.lease = Arc::downgrade(&lease);
        Link { lease }
    }

    /// How many links are kept, used or idle.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pool.links().by_address.len()
    }

    /// Whether there is no link at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The security of the links.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.pool.transport
    }
}

impl Pool {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last user of a link is gone: it waits out its idle time, unless it never stood.
    fn released(self: &Arc<Self>, address: &Address) {
        let mut links = self.links();
        let Some(pooled) = links.by_address.get_mut(address) else {
            return;
        };
        if pooled.lease.strong_count() > 0 {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) if pooled.trunk.is_up() && !self.options.idle.is_zero() => {
                pooled.idle_since = Instant::now();
                if !links.sweeping {
                    links.sweeping = true;
                    runtime.spawn(sweep(Arc::downgrade(self)));
                }
            }
            _ => drop(links.by_address.remove(address)),
        }
    }

    /// Drops what has been idle for long, and tells when to look again; none: nothing is idle.
    fn expire(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut links = self.links();
        let mut next = None;
        links.by_address.retain(|_, pooled| {
            let end = pooled.idle_since + self.options.idle;
            let used = pooled.lease.strong_count() > 0;
            let kept = used || end > now;
            if kept && !used {
                next = Some(next.map_or(end, |next: Instant| next.min(end)));
            }
            kept
        });
        links.sweeping = next.is_some();
        next
    }
}

/// One task for the whole pool, as long as something is idle.
async fn sweep(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.expire()) {
        tokio::time::sleep_until(next).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.released(&self.trunk.dialler.address);
        }
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.pool.links().by_address.keys()).finish()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.trunk.dialler.address).finish()
    }
}

#[cfg(test)]
#[cfg(feature = "shuttle")]
pub(super) mod models;
