//! What every element that hands out addresses does around the rest of the chain.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use nsm_api::IpContext;
use nsm_chain::{Call, Error, Next, Result, State, Why};

use super::context::{ip_context, remove_dst, remove_src};
use super::{Exclusions, Pool};
use crate::path::NewSegment;

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
///
/// A connection that comes from another endpoint brings no addresses from there that are not ours: that endpoint gives
/// them to others. Of several such elements in a row the first one sees to that.
pub(super) async fn request(sources: &[&dyn Assign], strict: bool, mut call: Call, next: Next<'_>) -> Result<Call> {
    let state = Arc::clone(call.state()?);
    let (is_new, is_first) = (call.fact::<NewSegment>().is_some(), call.why() == Why::First);
    call.clear_fact::<NewSegment>();
    let context = ip_context(call.connection_mut());
    let excluded = Exclusions::of(context).map_err(|error| {
        Error::invalid("no address for the connection").because(error).hint("write each as 10.0.0.0/8 or fd00::/64")
    })?;
    let foreign = |address: IpAddr| !sources.iter().any(|source| source.pool().contains(address));
    // Where no mechanism is chosen yet, addresses of an endpoint's side tell that there was one before.
    let moved = is_new && (!is_first || context.dst_nets().any(|net| foreign(net.addr())));
    if strict || moved {
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

#[cfg(test)]
mod tests {
    use nsm_api::connection::{Path, PathSegment};
    use nsm_api::{Connection, ConnectionContext, IpContext, Mechanism};
    use nsm_chain::{Begin, Call, Chain, elements};

    use super::super::testing::texts;
    use super::super::{PointToPoint, SinglePoint};
    use super::*;
    use crate::path::UpdatePath;

    /// A connection that has these addresses, and was at this endpoint last if at any.
    fn brought(at: Option<&str>, src: &[&str], dst: &[&str]) -> Connection {
        let segment = |name: &str| PathSegment { name: name.into(), id: name.into(), ..Default::default() };
        let path_segments = std::iter::once("nsc").chain(at).map(segment).collect();
        let ip = IpContext { src_ip_addrs: texts(src), dst_ip_addrs: texts(dst), ..Default::default() };
        Connection {
            id: "nsc".into(),
            path: Some(Path { index: 0, path_segments }),
            context: Some(ConnectionContext { ip_context: Some(ip), ..Default::default() }),
            mechanism: at.map(|_| Mechanism::kernel()),
            ..Default::default()
        }
    }

    async fn given(chain: &Chain, connection: Connection) -> (Vec<String>, Vec<String>) {
        let answer = chain.request(Call::new(connection)).await.unwrap().into_body();
        let ip = answer.context.unwrap().ip_context.unwrap();
        (ip.src_ip_addrs, ip.dst_ip_addrs)
    }

    fn pool(prefix: &str) -> Pool {
        Pool::new([prefix.parse().unwrap()]).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_endpoint_gave_is_left_behind_and_what_this_one_gave_is_given_again() {
        let (v4, v6) = (PointToPoint::new(pool("10.0.0.0/24")), PointToPoint::new(pool("fd00::/64")));
        let row = Chain::new("nse", elements![UpdatePath::new("nse"), Begin::default(), v4, v6]).unwrap();
        let own = (["10.0.0.9/32", "fd00::9/128"], ["10.0.0.8/32", "fd00::8/128"]);
        let kept = (texts(&own.0), texts(&own.1));
        assert_eq!(given(&row, brought(Some("nse"), &own.0, &own.1)).await, kept, "known again after a restart");
        let row_elsewhere = brought(Some("other"), &["10.9.0.1/32", "fd09::1/128"], &["10.9.0.0/32"]);
        let fresh = (texts(&["10.0.0.1/32", "fd00::1/128"]), texts(&["10.0.0.0/32", "fd00::/128"]));
        assert_eq!(given(&row, row_elsewhere).await, fresh);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_client_brings_by_itself_stays() {
        let single = SinglePoint::new(pool("10.0.0.0/24")).unwrap();
        let chain = Chain::new("nse", elements![UpdatePath::new("nse"), Begin::default(), single]).unwrap();
        let (src, _) = given(&chain, brought(None, &["192.168.7.1/32"], &[])).await;
        assert_eq!(src, ["192.168.7.1/32", "10.0.0.1/24"]);
        let (src, _) = given(&chain, brought(Some("other"), &["10.9.0.1/24"], &[])).await;
        assert_eq!(src, ["10.0.0.2/24"]);
    }
}
