use super::*;
use proptest::prelude::*;

fn refusal(rules: &[&str]) -> String {
    NatRules::parse(rules).unwrap_err().to_string()
}

fn chain(rules: &[&str], name: &str) -> Chain {
    let rules = NatRules::parse(rules).unwrap();
    rules.0.iter().find(|chain| chain.name == name).unwrap().clone()
}

#[test]
fn rules_stand_where_they_were_put() {
    let rules = [
        "-N NSM",
        "-A PREROUTING -j ACCEPT",
        "-t nat -I PREROUTING 1 -p tcp -i nsm-1 -j NSM",
        "-I PREROUTING 3 -j RETURN",
        "-A NSM -p udp -m multiport --dports 53,5000:5001 -j DNAT --to-destination 10.0.0.1-10.0.0.9:53 --persistent",
    ];
    let targets: Vec<_> = chain(&rules, "PREROUTING").rules.into_iter().map(|rule| rule.target.unwrap()).collect();
    assert_eq!(targets, [Target::Jump("NSM".into()), Target::Accept, Target::Return]);
    let own = chain(&rules, "NSM").rules;
    let port = |ports| Match { negated: false, field: Field::DestinationPorts(ports) };
    assert_eq!((own.len(), &own[1].matches[1]), (2, &port(5000..=5001)));
    let to = Translation {
        addresses: Some("10.0.0.1".parse().unwrap()..="10.0.0.9".parse().unwrap()),
        ports: Some(53..=53),
        flags: 8,
    };
    assert_eq!(own[0].target, Some(Target::Destination(to)));
}

#[test]
fn what_cannot_be_had_is_named() {
    for (rules, named) in [
        (&["-A PREROUTING -m string --string x -j ACCEPT"][..], "-m string"),
        (&["-A PREROUTING --tcp-flags SYN SYN -j ACCEPT"], "--tcp-flags"),
        (&["-F"], "-F"),
        (&["-t filter -A INPUT -j ACCEPT"], "filter"),
        (&["-A ISTIO_REDIRECT -j ACCEPT"], "ISTIO_REDIRECT"),
        (&["-A OUTPUT -j LOG"], "LOG"),
        (&["-N DNAT"], "DNAT"),
        (&["-N A", "-N A"], "there already"),
        (&["-A OUTPUT -j OUTPUT"], "jump to OUTPUT"),
        (&["-A OUTPUT -j DNAT"], "--to-destination"),
        (&["-A OUTPUT --dport 80 -j ACCEPT"], "ports need"),
        (&["-A OUTPUT -j REDIRECT --to-ports 80"], "ports need"),
        (&["-A OUTPUT -p tcp --dport 9:8 -j ACCEPT"], "9:8"),
        (&["-A OUTPUT -s fd00::1 -j ACCEPT"], "fd00::1"),
        (&["-A OUTPUT -s 10.0.0.1,10.0.0.2 -j ACCEPT"], "10.0.0.1,10.0.0.2"),
        (&["-A OUTPUT -o a/b -j ACCEPT"], "a/b"),
        (&["-I OUTPUT 2 -j ACCEPT"], "place 2"),
        (&["-I OUTPUT 0 -j ACCEPT"], "place"),
        (&["-A OUTPUT ! -j ACCEPT"], "! -j"),
        (&["-A OUTPUT -j ACCEPT !"], "says nothing"),
        (&["-A OUTPUT -p"], "-p says nothing"),
        (&["-A OUTPUT -j ACCEPT -j RETURN"], "-j"),
        (&[""], "empty"),
    ] {
        assert!(refusal(rules).contains(named), "{rules:?}: {}", refusal(rules));
    }
    assert!(refusal(&vec!["-A OUTPUT -j ACCEPT"; 513]).contains("more than 512"));
    let list = ["1"; 100].join(",");
    let rule = format!("-A OUTPUT -p tcp --sports {list} --dports {list} -j ACCEPT");
    assert!(refusal(&[&rule]).contains("more than 512"));
}

proptest! {
    #[test]
    fn whatever_peers_write_is_read_or_refused(
        words in prop::collection::vec(prop_oneof![
            prop::sample::select(vec!["-A", "-I", "-N", "PREROUTING", "X", "-p", "tcp", "-j", "DNAT", "!", "-s", "10.0.0.0/8",
                "--to-destination", "1.2.3.4:5-6", "--dports", "1,2", "--comment", "\"a", "-m", "0", "18446744073709551615"])
                .prop_map(str::to_owned),
            ".{0,12}"], 0..12)
    ) {
        let _outcome = NatRules::parse(["-N X".to_owned(), words.join(" ")]);
    }
}
