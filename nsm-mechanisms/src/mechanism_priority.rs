use nsm_chain::{Call, Element, Next, Order, Result};

/// Puts mechanism preferences into an order.
///
/// *Request*: preferences of the listed types come first, in the list's order; the others follow as they were.
/// *Close* passes. It stands behind whatever adds preferences.
#[derive(Debug, Clone)]
pub struct MechanismPriority {
    types: Vec<String>,
}

impl MechanismPriority {
    /// With these types, the best first; upper or lower case.
    #[must_use]
    pub fn new<T: AsRef<str>>(types: impl IntoIterator<Item = T>) -> Self {
        Self { types: types.into_iter().map(|name| name.as_ref().to_uppercase()).collect() }
    }

    fn rank(&self, type_name: &str) -> usize {
        self.types.iter().position(|name| name == type_name).unwrap_or(self.types.len())
    }
}

impl Element for MechanismPriority {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        call.extra_mut().sort_by_key(|mechanism| self.rank(&mechanism.r#type));
        next.request(call).await
    }

    fn order(&self) -> Order {
        Order { after: &[], before: &["Connect"], last: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::{Connection, Mechanism};
    use nsm_chain::{Chain, elements};

    #[tokio::test]
    async fn listed_types_come_first_and_the_others_keep_their_order() {
        let chain = Chain::new("nsc", elements![MechanismPriority::new(["wireguard", "VXLAN"])]).unwrap();
        let named = |mut mechanism: Mechanism, name: &str| {
            mechanism.set_parameter("name", name);
            mechanism
        };
        let preferences = vec![
            Mechanism::kernel(),
            named(Mechanism::vxlan(), "first"),
            Mechanism::memif(),
            named(Mechanism::vxlan(), "second"),
            Mechanism::wireguard(),
        ];
        let call = chain.request(Call::request(Connection::default(), preferences)).await.unwrap();
        let order: Vec<_> = call.preferences().iter().map(|m| (m.r#type.as_str(), m.parameter("name"))).collect();
        assert_eq!(
            order,
            [
                ("WIREGUARD", None),
                ("VXLAN", Some("first")),
                ("VXLAN", Some("second")),
                ("KERNEL", None),
                ("MEMIF", None)
            ]
        );
    }
}
