//! What every element that hands out addresses does around the rest of the chain.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use nsm_api::IpContext;
use nsm_chain::{Call, Error, Next, Result, State};

use super::context::{ip_context, remove_dst, remove_src};
use super::{Exclusions, Pool};

/// Something that gives addresses of one pool to a connection.
pub(super) trait Assign: fmt::Debug + Send + Sync {
    /// What it gives of.
    fn pool(&self) -> &Pool;

    /// Writes the connection's addresses into the context: those it has, or else new ones. Nothing is in the
    /// connection's state before [`Granted::keep`].
    fn assign(&self, state: &State, context: &mut IpContext, excluded: &Exclusions) -> Result<Granted>;
}

/// Addresses written into a Request. They become the connection's by `keep`; dropped, they go back to their pool.
pub(super) struct Granted(Option<Keep>);

type Keep = Box<dyn FnOnce(&State) + Send>;

impl Granted {
    /// The connection has them already.
    pub(super) const HELD: Self = Self(None);

    /// New ones, and how the connection gets them.
    pub(super) fn new(keep: impl FnOnce(&State) + Send + 'static) -> Self {
        Self(Some(Box::new(keep)))
    }

    fn keep(self, state: &State) {
        if let Some(keep) = self.0 {
            keep(state);
        }
    }
}

/// Assigns of each source, goes on, and keeps what was assigned if that went well.
pub(super) async fn request(sources: &[&dyn Assign], strict: bool, mut call: Call, next: Next<'_>) -> Result<Call> {
    let state = Arc::clone(call.state()?);
    let context = ip_context(call.connection_mut());
    let excluded = Exclusions::of(context).map_err(|error| {
        Error::invalid("no address for the connection").because(error).hint("write each as 10.0.0.0/8 or fd00::/64")
    })?;
    if strict {
        let foreign = |address: IpAddr| !sources.iter().any(|source| source.pool().contains(address));
        remove_src(context, foreign);
        remove_dst(context, foreign);
    }
    let granted = sources.iter().map(|source| source.assign(&state, context, &excluded)).collect::<Result<Vec<_>>>()?;
    let call = next.request(call).await?;
    for granted in granted {
        granted.keep(&state);
    }
    Ok(call)
}
