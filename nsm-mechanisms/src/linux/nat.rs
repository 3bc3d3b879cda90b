//! The NAT rules that a KERNEL mechanism asks for: `IPTables4NatTemplate`.

use nsm_api::ConnectionContext;
use nsm_api::mechanism::{Kernel, keys};
use nsm_chain::{Error, Result};
use nsm_kernel::NatRules;

/// Peers write it.
const LONGEST: usize = 64 * 1024;

/// What the template, if there is one, comes to at an interface of this name: commands of iptables, separated by semicolons. In
/// them stand, as in the reference's, `{{ .NsmInterfaceName }}`, and `{{ index .NsmSrcIPs 0 }}` and `{{ index .NsmDstIPs 0 }}` for
/// one of the addresses of the client and of the endpoint.
pub(super) fn rules(kernel: Kernel<'_>, interface: &str, context: &ConnectionContext) -> Result<Option<NatRules>> {
    let Some(template) = kernel.iptables4_nat_template().filter(|template| !template.trim().is_empty()) else {
        return Ok(None);
    };
    let key = keys::IPTABLES4_NAT_TEMPLATE;
    if template.len() > LONGEST {
        return Err(Error::invalid(format!("{key} is longer than {LONGEST} octets")));
    }
    let text = filled(template, interface, context)?;
    let commands = text.split(';').map(str::trim).filter(|command| !command.is_empty());
    let rules = NatRules::parse(commands);
    rules.map(Some).map_err(|error| Error::invalid(format!("{key} cannot be programmed")).because(error))
}

fn filled(template: &str, interface: &str, context: &ConnectionContext) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((action, after)) = after.split_once("}}") else {
            return Err(wrong("an action that does not end"));
        };
        text += before;
        text += &value(action, interface, context)?;
        if text.len() > LONGEST {
            return Err(wrong("too many actions"));
        }
        rest = after;
    }
    Ok(text + rest)
}

fn value(action: &str, interface: &str, context: &ConnectionContext) -> Result<String> {
    let words: Vec<_> = action.split_ascii_whitespace().collect();
    let ip = context.ip_context.as_ref();
    match words[..] {
        [".NsmInterfaceName"] => Ok(interface.to_owned()),
        ["index", list @ (".NsmSrcIPs" | ".NsmDstIPs"), at] => {
            let at: usize = at.parse().map_err(|_| wrong(action))?;
            let found = match list {
                ".NsmSrcIPs" => ip.and_then(|ip| ip.src_nets().nth(at)),
                _ => ip.and_then(|ip| ip.dst_nets().nth(at)),
            };
            found.map(|net| net.addr().to_string()).ok_or_else(|| {
                wrong(action)
                    .hint(format!("the connection has no address number {at} on that side: give it one before"))
            })
        }
        _ => Err(wrong(action)),
    }
}

fn wrong(action: &str) -> Error {
    let action: String = action.trim().chars().take(64).collect();
    Error::invalid(format!("{} says {action:?} in its braces, which has no value", keys::IPTABLES4_NAT_TEMPLATE))
        .hint("write {{ .NsmInterfaceName }}, {{ index .NsmSrcIPs 0 }} or {{ index .NsmDstIPs 0 }}")
}

#[cfg(test)]
mod tests {
    use nsm_api::{IpContext, Mechanism};
    use nsm_chain::Code;
    use proptest::prelude::*;

    use super::*;

    fn of(template: &str) -> Result<Option<NatRules>> {
        let mut mechanism = Mechanism::kernel();
        mechanism.as_kernel_mut().unwrap().set_iptables4_nat_template(template);
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let ip = IpContext {
            src_ip_addrs: texts(&["10.0.0.1/32", "10.0.0.2/24"]),
            dst_ip_addrs: texts(&["10.0.0.9/32"]),
            ..Default::default()
        };
        rules(
            mechanism.as_kernel().unwrap(),
            "nse-1",
            &ConnectionContext { ip_context: Some(ip), ..Default::default() },
        )
    }

    #[test]
    fn a_template_becomes_rules_of_its_interface_and_addresses() {
        let template = "-N NSM; -A NSM -j DNAT --to-destination {{ index .NsmSrcIPs 1 }};\
            -A OUTPUT -p tcp -o {{.NsmInterfaceName}} -d {{ index .NsmDstIPs 0 }} -j NSM;";
        let written =
            ["-N NSM", "-A NSM -j DNAT --to-destination 10.0.0.2", "-A OUTPUT -p tcp -o nse-1 -d 10.0.0.9 -j NSM"];
        assert_eq!(of(template).unwrap(), Some(NatRules::parse(written).unwrap()));
        assert_eq!(of(" ").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        for (template, named) in [
            ("-A OUTPUT -m string -j ACCEPT", "-m string"),
            ("-A OUTPUT -d {{ index .NsmDstIPs 1 }} -j ACCEPT", "no address number 1"),
            ("-A OUTPUT -d {{ index .NsmDstIPs x }} -j ACCEPT", "NsmDstIPs x"),
            ("-A OUTPUT -d {{ .Other }} -j ACCEPT", ".Other"),
            ("-A OUTPUT -d {{ .NsmDstIPs", "does not end"),
            (&"-A OUTPUT -j ACCEPT;".repeat(600), "more than 512"),
            (&format!("x{}", " ".repeat(70_000)), "longer than"),
        ] {
            let error = of(template).unwrap_err();
            let said = format!("{error} {:?}", error.remedy());
            assert!(said.contains(named) && error.code() == Code::InvalidArgument, "{said}");
        }
    }

    proptest! {
        #[test]
        fn whatever_peers_write_is_read_or_refused(
            parts in prop::collection::vec(prop_oneof![".{0,9}", Just("{{".to_owned()), Just("}}".to_owned()),
                Just("index .NsmSrcIPs 0".to_owned()), Just(";".to_owned()), Just("-A OUTPUT ".to_owned())], 0..9)
        ) {
            let _outcome = of(&parts.concat());
        }
    }
}
