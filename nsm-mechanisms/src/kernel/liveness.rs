use std::time::Duration;

use nsm_api::Connection;
use nsm_api::mechanism::FileUrl;
use nsm_kernel::{Liveness, Netns, Pinger, ProbePair};

/// Tells whether the other end of a kernel connection answers.
///
/// Every pair of a source and a destination address of one family is pinged from within the client's namespace, by one
/// socket for each namespace and family. What cannot be judged counts as alive: other mechanisms, and connections
/// without addresses on either side.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelLiveness;

/// How many requests in a row must be missed in one check. (The reference sends four in the same time, and never fewer.)
const MISSED: u32 = 3;

impl KernelLiveness {
    /// Whether every address answers within `timeout`: as soon as each has answered one request it is alive, and dead if one has
    /// left three unanswered, sent a third of `timeout` apart. A namespace that is gone answers nothing.
    ///
    /// Checked each 20 ms with 60 ms for an answer, a wire that breaks is found dead between 60 and 80 ms later.
    pub async fn is_alive(&self, connection: &Connection, timeout: Duration) -> bool {
        let pairs = pairs(connection);
        let Some(kernel) = connection.mechanism.as_ref().and_then(|mechanism| mechanism.as_kernel()) else {
            return true;
        };
        if pairs.is_empty() {
            return true;
        }
        let Ok(Some(FileUrl::Path(path))) = kernel.netns() else {
            return true;
        };
        let probe = async {
            let netns = Netns::open(path)?;
            Pinger::new(&netns).await?.probe(&pairs, timeout / MISSED, MISSED).await
        };
        match probe.await {
            Ok(Liveness::Alive(_)) => true,
            Ok(Liveness::Dead(pair)) => {
                tracing::debug!(id = connection.id, src = %pair.src, dst = %pair.dst, "no answer");
                false
            }
            Err(error) => {
                tracing::warn!(id = connection.id, %error, "the connection cannot be probed");
                false
            }
        }
    }
}

fn pairs(connection: &Connection) -> Vec<ProbePair> {
    let Some(ip) = connection.context.as_ref().and_then(|context| context.ip_context.as_ref()) else {
        return Vec::new();
    };
    let sources = ip.src_nets().map(|net| net.addr());
    let pair = |src: std::net::IpAddr| {
        let destinations = ip.dst_nets().map(|net| net.addr()).filter(move |dst| dst.is_ipv4() == src.is_ipv4());
        destinations.map(move |dst| ProbePair { src, dst })
    };
    sources.flat_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::{ConnectionContext, IpContext, Mechanism};

    fn connection(mechanism: Mechanism, src: &[&str], dst: &[&str]) -> Connection {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let ip = IpContext { src_ip_addrs: texts(src), dst_ip_addrs: texts(dst), ..Default::default() };
        let context = ConnectionContext { ip_context: Some(ip), ..Default::default() };
        Connection { mechanism: Some(mechanism), context: Some(context), ..Default::default() }
    }

    #[test]
    fn every_pair_of_one_family_is_probed() {
        let connection = connection(
            Mechanism::kernel(),
            &["10.0.0.1/32", "fd00::1/128"],
            &["10.0.0.0/32", "10.0.0.9/32", "fd00::/128"],
        );
        assert_eq!(pairs(&connection).len(), 3);
    }

    #[tokio::test]
    async fn what_cannot_be_judged_is_alive() {
        let second = Duration::from_secs(1);
        let far = ["192.0.2.1/32"];
        assert!(KernelLiveness.is_alive(&connection(Mechanism::memif(), &far, &far), second).await);
        assert!(KernelLiveness.is_alive(&connection(Mechanism::kernel(), &far, &[]), second).await);
        assert!(KernelLiveness.is_alive(&Connection::default(), second).await);
    }
}
