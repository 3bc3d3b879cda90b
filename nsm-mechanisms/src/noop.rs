use nsm_chain::Element;

/// Accepts a mechanism that needs nothing done: `NOOP`, where the two ends find their packets by themselves.
///
/// *Request and Close* pass. It stands in [`Mechanisms`](crate::Mechanisms).
#[derive(Debug, Clone, Copy, Default)]
pub struct Noop;

impl Element for Noop {}
