//! How much a connection may carry.

use nsm_api::ConnectionContext;
use nsm_chain::{Call, Element, Error, Next, Result};
use nsm_kernel::Rate;

/// Limits how much a connection may carry, each way: tells the forwarders by two entries of its extra context, `rate_limit_up`
/// (from the client to the endpoint) and `rate_limit_down`. Each is a [`Rate`], such as `100Mbit`, or `0`, which is none,
/// whatever the default of a forwarder.
///
/// A forwarder limits what the interface at the client sends, and what the one at the endpoint sends: over a tunnel, each
/// on its own node. A change takes effect with the next Request, on the wire that is there. A forwarder that does not know these
/// entries, such as the reference's, limits nothing.
///
/// *Request*: sets the entries of the directions that it was given, whatever the caller asked for; the others stay. *Close* passes.
/// It stands in an endpoint, anywhere.
///
/// ```
/// # use nsm_mechanisms::RateLimit;
/// let both = RateLimit::both("100Mbit".parse()?);
/// let more_to_the_client = both.down("1Gbit".parse()?);
/// # Ok::<(), nsm_kernel::RateError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimit {
    up: Option<Limit>,
    down: Option<Limit>,
}

/// A rate, or none.
type Limit = Option<Rate>;

const UP: &str = "rate_limit_up";
const DOWN: &str = "rate_limit_down";

impl RateLimit {
    /// Either way no more than this.
    #[must_use]
    pub fn both(rate: Rate) -> Self {
        Self { up: Some(Some(rate)), down: Some(Some(rate)) }
    }

    /// From the client to the endpoint no more than this.
    #[must_use]
    pub fn up(self, rate: Rate) -> Self {
        Self { up: Some(Some(rate)), ..self }
    }

    /// From the endpoint to the client no more than this.
    #[must_use]
    pub fn down(self, rate: Rate) -> Self {
        Self { down: Some(Some(rate)), ..self }
    }

    /// No limit either way, also where a forwarder would set one.
    #[must_use]
    pub fn none() -> Self {
        Self { up: Some(None), down: Some(None) }
    }

    /// What a connection says.
    pub(crate) fn of(context: &ConnectionContext) -> Result<Self> {
        let read = |key: &str| {
            let text = context.extra_context.get(key).map(String::as_str).filter(|text| !text.is_empty());
            match text {
                None => Ok(None),
                Some("0") => Ok(Some(None)),
                Some(text) => text.parse().map(|rate| Some(Some(rate))).map_err(|error: nsm_kernel::RateError| {
                    Error::invalid(format!("{key} of the connection's extra context is wrong")).because(error)
                }),
            }
        };
        Ok(Self { up: read(UP)?, down: read(DOWN)? })
    }

    /// Says it where the connection says nothing.
    pub(crate) fn fill(self, context: &mut ConnectionContext) {
        for (key, text) in self.entries() {
            let said = context.extra_context.entry(key.to_owned()).or_default();
            if said.is_empty() {
                *said = text;
            }
        }
    }

    fn entries(self) -> impl Iterator<Item = (&'static str, String)> {
        let text = |limit: Limit| limit.map_or_else(|| "0".to_owned(), |rate| rate.to_string());
        [(UP, self.up), (DOWN, self.down)].into_iter().filter_map(move |(key, limit)| Some((key, text(limit?))))
    }

    /// What the interface at the client may send.
    pub(crate) fn of_client(self) -> Option<Rate> {
        self.up.flatten()
    }

    /// What the interface at the endpoint may send.
    pub(crate) fn of_endpoint(self) -> Option<Rate> {
        self.down.flatten()
    }
}

impl Element for RateLimit {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let context = call.connection_mut().context.get_or_insert_default();
        context.extra_context.extend(self.entries().map(|(key, text)| (key.to_owned(), text)));
        next.request(call).await
    }
}

#[cfg(test)]
mod tests {
    use nsm_api::Connection;
    use nsm_chain::{Chain, Code, elements};

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn what_the_endpoint_says_is_what_a_forwarder_reads() {
        let limit = RateLimit::both(rate("10Mbit")).down(rate("1Gbit"));
        let chain = Chain::new("nse", elements![limit]).unwrap();
        let mut asked = Connection::default();
        let entry = (UP.to_owned(), "5Gbit".to_owned());
        asked.context.get_or_insert_default().extra_context = [entry, ("other".into(), "stays".into())].into();
        let call = chain.request(Call::new(asked)).await.unwrap();
        let context = call.connection().context.as_ref().unwrap();
        assert_eq!((context.extra_context[UP].as_str(), context.extra_context["other"].as_str()), ("10Mbit", "stays"));
        assert_eq!(RateLimit::of(context).unwrap(), limit);
        assert_eq!((limit.of_client(), limit.of_endpoint()), (Some(rate("10Mbit")), Some(rate("1Gbit"))));
    }

    #[test]
    fn a_default_fills_what_is_not_said_and_none_is_said_by_0() {
        let said = |entries: &[(&str, &str)]| {
            let extra_context = entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            RateLimit::of(&ConnectionContext { extra_context, ..Default::default() })
        };
        let limits = |entries: &[(&str, &str)]| {
            let mut context = ConnectionContext::default();
            context.extra_context.extend(entries.iter().map(|(key, value)| (key.to_string(), value.to_string())));
            RateLimit::both(rate("1Mbit")).fill(&mut context);
            let limit = RateLimit::of(&context).unwrap();
            (limit.of_client(), limit.of_endpoint())
        };
        assert_eq!(limits(&[]), (Some(rate("1Mbit")), Some(rate("1Mbit"))));
        assert_eq!(limits(&[(UP, "0"), (DOWN, "")]), (None, Some(rate("1Mbit"))));
        assert_eq!(said(&[(DOWN, "0")]).unwrap(), RateLimit { up: None, down: RateLimit::none().down });
        let error = said(&[(DOWN, "fast")]).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains(DOWN) && error.to_string().contains("100Mbit"), "{error}");
    }
}
