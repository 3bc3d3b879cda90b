//! Chains and rules as nf_tables has them: each expression of a rule loads registers, compares them, or decides.

use std::ops::RangeInclusive;

use super::{Chain, Field, Match, Rule, Target, Translation};
use crate::nft::Attributes;

/// Where verdicts are put.
const VERDICT: u32 = 0;
/// Registers of 16 octets each.
const REGISTERS: [u32; 4] = [1, 2, 3, 4];

fn none() -> Attributes {
    Attributes::default()
}

/// NFTA_CHAIN_TABLE, _NAME; for one of a hook _HOOK with NFTA_HOOK_HOOKNUM and _PRIORITY, and _TYPE.
pub(super) fn chain(table: &str, chain: &Chain) -> Attributes {
    let named = none().text(1, table).text(3, &chain.name);
    match chain.hook {
        None => named,
        Some(hook) => {
            let place = none().number(1, hook.number).number(2, hook.priority.cast_unsigned());
            named.nested(4, &place).text(7, "nat")
        }
    }
}

/// NFTA_RULE_TABLE, _CHAIN, _EXPRESSIONS.
pub(super) fn rule(table: &str, chain: &str, rule: &Rule) -> Attributes {
    let mut list = Expressions::default();
    for one in &rule.matches {
        list.matching(one);
    }
    if let Some(target) = &rule.target {
        list.target(target);
    }
    none().text(1, table).text(2, chain).nested(4, &list.0)
}

/// What a rule does with a packet, step by step.
#[derive(Default)]
pub(crate) struct Expressions(Attributes);

impl From<Expressions> for Attributes {
    fn from(list: Expressions) -> Self {
        list.0
    }
}

impl Expressions {
    /// Only packets of this protocol.
    pub(crate) fn protocol(&mut self, number: u8) {
        self.meta(16, false, &[number]);
    }

    /// Only packets to these ports.
    pub(crate) fn destination_ports(&mut self, ports: &RangeInclusive<u16>) {
        self.ports(2, false, ports);
    }

    /// Only packets of a connection, in the sense of connection tracking, of which some went before, or of one that belongs to it.
    pub(crate) fn of_a_known_connection(&mut self) {
        /// `NF_CT_STATE_BIT` of `IP_CT_ESTABLISHED` and `IP_CT_RELATED`.
        const KNOWN: u32 = 2 | 4;
        // NFTA_CT_DREG, _KEY (NFT_CT_STATE).
        self.add("ct", none().number(1, REGISTERS[0]).number(2, 0));
        self.masked(&KNOWN.to_ne_bytes());
        self.compare(true, &[0; 4]);
    }

    /// NFTA_LIST_ELEM with NFTA_EXPR_NAME and _DATA.
    fn add(&mut self, name: &str, data: Attributes) {
        let list = std::mem::take(&mut self.0);
        self.0 = list.nested(1, &none().text(1, name).nested(2, &data));
    }

    fn matching(&mut self, one: &Match) {
        let negated = one.negated;
        match &one.field {
            // NFT_META_L4PROTO, _IIFNAME, _OIFNAME, _SKUID, _SKGID.
            Field::Protocol(number) => self.meta(16, negated, &[*number]),
            Field::InInterface(name, beginning) => self.meta(6, negated, &padded(name, *beginning)),
            Field::OutInterface(name, beginning) => self.meta(7, negated, &padded(name, *beginning)),
            Field::User(number) => self.meta(10, negated, &number.to_ne_bytes()),
            Field::Group(number) => self.meta(11, negated, &number.to_ne_bytes()),
            // Of the IPv4 header (1) and of what follows it (2).
            Field::Source(net) => self.network(12, negated, *net),
            Field::Destination(net) => self.network(16, negated, *net),
            Field::SourcePorts(ports) => self.ports(0, negated, ports),
            Field::DestinationPorts(ports) => self.ports(2, negated, ports),
        }
    }

    fn meta(&mut self, key: u32, negated: bool, value: &[u8]) {
        self.add("meta", none().number(1, REGISTERS[0]).number(2, key));
        // The name of an interface may be any.
        if !value.is_empty() {
            self.compare(negated, value);
        }
    }

    /// NFTA_CMP_SREG, _OP (NFT_CMP_EQ, _NEQ), _DATA.
    fn compare(&mut self, negated: bool, value: &[u8]) {
        self.add("cmp", none().number(1, REGISTERS[0]).number(2, negated.into()).nested(3, &none().bytes(1, value)));
    }

    /// NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN.
    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        self.add("payload", none().number(1, REGISTERS[0]).number(2, base).number(3, offset).number(4, length));
    }

    /// NFTA_BITWISE_SREG, _DREG, _LEN, _MASK, _XOR.
    fn masked(&mut self, mask: &[u8; 4]) {
        let masked = none().number(1, REGISTERS[0]).number(2, REGISTERS[0]).number(3, 4);
        self.add("bitwise", masked.nested(4, &none().bytes(1, mask)).nested(5, &none().bytes(1, &[0; 4])));
    }

    fn network(&mut self, offset: u32, negated: bool, net: ipnet::Ipv4Net) {
        self.payload(1, offset, 4);
        self.masked(&net.netmask().octets());
        self.compare(negated, &net.network().octets());
    }

    /// NFTA_RANGE_SREG, _OP (NFT_RANGE_EQ, _NEQ), _FROM_DATA, _TO_DATA.
    fn ports(&mut self, offset: u32, negated: bool, ports: &RangeInclusive<u16>) {
        self.payload(2, offset, 2);
        let range = none().number(1, REGISTERS[0]).number(2, negated.into());
        let range = range.nested(3, &none().bytes(1, &ports.start().to_be_bytes()));
        self.add("range", range.nested(4, &none().bytes(1, &ports.end().to_be_bytes())));
    }

    fn target(&mut self, target: &Target) {
        match target {
            Target::Accept => self.verdict(1, None),
            // NFT_JUMP, _GOTO, _RETURN.
            Target::Jump(chain) => self.verdict(-3, Some(chain)),
            Target::Goto(chain) => self.verdict(-4, Some(chain)),
            Target::Return => self.verdict(-5, None),
            Target::Source(to) => self.nat(0, to),
            Target::Destination(to) => self.nat(1, to),
            // NFTA_MASQ_FLAGS, _REG_PROTO_MIN, _REG_PROTO_MAX; NFTA_REDIR_REG_PROTO_MIN, _REG_PROTO_MAX, _FLAGS.
            Target::Masquerade(to) => self.new_ports("masq", to, [2, 3, 1]),
            Target::Redirect(to) => self.new_ports("redir", to, [1, 2, 3]),
        }
    }

    /// NFTA_IMMEDIATE_DREG, _DATA with NFTA_DATA_VERDICT: NFTA_VERDICT_CODE, _CHAIN.
    pub(crate) fn verdict(&mut self, code: i32, chain: Option<&str>) {
        let verdict = none().number(1, code.cast_unsigned());
        let verdict = chain.map_or_else(|| verdict.clone(), |chain| verdict.clone().text(2, chain));
        self.add("immediate", none().number(1, VERDICT).nested(2, &none().nested(2, &verdict)));
    }

    fn load(&mut self, register: u32, value: &[u8]) {
        self.add("immediate", none().number(1, register).nested(2, &none().bytes(1, value)));
    }

    fn load_ports(&mut self, [low, high]: [u32; 2], ports: &RangeInclusive<u16>) {
        self.load(low, &ports.start().to_be_bytes());
        self.load(high, &ports.end().to_be_bytes());
    }

    /// NFTA_NAT_TYPE, _FAMILY (IPv4), _REG_ADDR_MIN, _REG_ADDR_MAX, _REG_PROTO_MIN, _REG_PROTO_MAX, _FLAGS.
    fn nat(&mut self, kind: u32, to: &Translation) {
        let [first, last, low, high] = REGISTERS;
        let mut nat = none().number(1, kind).number(2, 2);
        if let Some(addresses) = &to.addresses {
            self.load(first, &addresses.start().octets());
            self.load(last, &addresses.end().octets());
            nat = nat.number(3, first).number(4, last);
        }
        if let Some(ports) = &to.ports {
            self.load_ports([low, high], ports);
            nat = nat.number(5, low).number(6, high);
        }
        self.add("nat", if to.flags == 0 { nat } else { nat.number(7, to.flags) });
    }

    fn new_ports(&mut self, name: &str, to: &Translation, [from, until, flags]: [u16; 3]) {
        /// `NF_NAT_RANGE_PROTO_SPECIFIED`: without it `masq` leaves ports as they are.
        const PORTS: u32 = 2;
        let [low, high, ..] = REGISTERS;
        let Some(ports) = &to.ports else {
            return self.add(name, none().number(flags, to.flags));
        };
        self.load_ports([low, high], ports);
        self.add(name, none().number(from, low).number(until, high).number(flags, to.flags | PORTS));
    }
}

/// As the kernel compares names: a whole one fills its field, a beginning does not.
fn padded(name: &str, beginning: bool) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    if !beginning {
        bytes.resize(16, 0);
    }
    bytes
}
