use std::str::FromStr;

use super::{Malformed, malformed};

/// Network services and the VLAN of each, such as `finance { vlan: 100; via: gw1 }, lab { vlan: 200; via: gw1 }`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VlanServices(pub(crate) Vec<VlanService>);

/// A network service whose clients are put into a VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VlanService {
    pub(crate) name: String,
    pub(crate) vlan: u16,
    pub(crate) via: String,
}

impl FromStr for VlanServices {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut services = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let missing = || Malformed(format!("{rest:?}: write name {{ vlan: 100; via: gw1 }}"));
            let (name, after) = rest.split_once('{').ok_or_else(missing)?;
            let (inside, after) = after.split_once('}').ok_or_else(missing)?;
            services.push(service(name.trim(), inside)?);
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(next) if next.trim().is_empty() => return Err(malformed("it ends with a comma")),
                Some(next) => next.trim_start(),
                None if after.is_empty() => after,
                None => return Err(malformed("services are separated by commas")),
            };
        }
        Ok(Self(services))
    }
}

fn service(name: &str, inside: &str) -> Result<VlanService, Malformed> {
    let (mut vlan, mut via) = (None, None);
    for part in inside.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once(':').map_or((part, ""), |(key, value)| (key.trim(), value.trim()));
        match key {
            "vlan" => {
                let number = value.parse().ok().filter(|number| *number <= 4094);
                vlan = Some(number.ok_or_else(|| {
                    Malformed(format!("{name}: vlan is 1 to 4094, or 0 for no tag, and not {value:?}"))
                })?);
            }
            "via" if !value.is_empty() => via = Some(value.to_owned()),
            _ => return Err(Malformed(format!("{name}: {part:?} is neither vlan: <number> nor via: <name>"))),
        }
    }
    match (name, vlan, via) {
        ("", ..) => Err(malformed("a service has no name")),
        (name, Some(vlan), Some(via)) => Ok(VlanService { name: name.to_owned(), vlan, via }),
        (name, None, _) => Err(Malformed(format!("{name} has no vlan"))),
        (name, _, None) => Err(Malformed(format!("{name} has no via: by what forwarders know the network"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_form_of_the_reference_is_read() {
        let VlanServices(services) = "finance { vlan: 100; via: gw1}, lab@here {via:gw2;vlan:0;}".parse().unwrap();
        let of = |name: &str, vlan, via: &str| VlanService { name: name.into(), vlan, via: via.into() };
        assert_eq!(services, [of("finance", 100, "gw1"), of("lab@here", 0, "gw2")]);
        assert_eq!("".parse(), Ok(VlanServices::default()));
    }

    #[test]
    fn a_mistake_is_named() {
        for (text, why) in [
            ("finance", "write name {"),
            ("finance { vlan: 100; via: gw1", "write name {"),
            ("finance { vlan: 4095; via: gw1 }", "\"4095\""),
            ("finance { vlan: 100 }", "no via"),
            ("finance { via: gw1 }", "no vlan"),
            ("finance { vlan: 1; via: }", "neither"),
            ("{ vlan: 1; via: a }", "no name"),
            ("a { vlan: 1; via: a } b { vlan: 1; via: a }", "separated by commas"),
            ("a { vlan: 1; via: a },", "comma"),
        ] {
            let error = text.parse::<VlanServices>().unwrap_err().0;
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[a-c{}:;, 0-9vlanvi]{0,40}") {
            let _ = text.parse::<VlanServices>();
        }
    }
}
