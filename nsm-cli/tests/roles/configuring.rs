use std::process::{Command, Output};

use crate::kit::{NSM, Room, write};

const ROLES: [&str; 9] =
    ["registry", "manager", "forwarder", "endpoint", "client", "manager-proxy", "registry-proxy", "apply", "agent"];

fn run(role: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(NSM);
    command.arg(role).args(arguments).env_clear().envs(variables.iter().copied());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn without_an_identity_every_role_says_what_to_set() {
    let room = Room::new();
    let file = room.path("vpn.yaml");
    write(
        &file,
        "apiVersion: networkservicemesh.io/v1\nkind: NetworkService\nmetadata: {name: vpn}\nspec: {payload: IP}\n",
    );
    for role in ROLES.into_iter().filter(|role| *role != "agent") {
        let arguments: &[&str] = if role == "apply" { &[file.to_str().unwrap()] } else { &[] };
        let output = run(role, arguments, &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{role}: {said}");
        for what in ["has no identity", "SPIFFE_ENDPOINT_SOCKET", "--authority", "--insecure"] {
            assert!(said.contains(what), "{role} does not say {what}: {said}");
        }
    }
}

#[test]
fn a_setting_that_is_wrong_ends_it_before_anything_is_done() {
    for (role, variable, value, expected) in [
        ("registry", "NSM_EXPIRE_PERIOD", "1", "1h2m3.5s"),
        ("manager", "NSM_LISTEN_ON", "unix:///a.sock,http://b", "unix:///path"),
        ("forwarder", "NSM_TUNNEL_IP", "10.0.0", "IP address"),
        ("forwarder", "NSM_LABELS", "p2p", "app:web"),
        ("endpoint", "NSM_CIDR_PREFIX", "10.0.0.0", "172.16.0.0/16"),
        ("endpoint", "NSM_IPAM_POLICY", "rude", "polite"),
        ("endpoint", "NSM_DNS_CONFIGS", "{}", "JSON"),
        ("client", "NSM_NETWORK_SERVICES", "vpn", "kernel://service@domain"),
        ("client", "NSM_AWARENESS_GROUPS", "kernel://a", "[url,url],[url]"),
        ("client", "NSM_LIVENESS_CHECK_ENABLED", "yes", "true or false"),
    ] {
        let output = run(role, &[], &[(variable, value)]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{role} {variable}: {said}");
        for what in [&format!("failed at variable {variable}"), value, expected] {
            assert!(said.contains(what), "{what}: {said}");
        }
    }
    for role in ROLES {
        assert_eq!(run(role, &["--nonsense"], &[]).status.code(), Some(2), "{role}");
    }
}

#[test]
fn what_is_set_is_printed_with_its_source_and_may_be_given_back() {
    let room = Room::new();
    let file = room.path("nsmgr.yaml");
    write(&file, "# of this node\nregistry_url: registry:5002\nlisten_on: [\"unix:///a.sock\", \"tcp://:5001\"]\n");
    let variables = [("NSM_NAME", "nsmgr-1"), ("NSM_CONFIG", file.to_str().unwrap()), ("NSM_PPROF_ENABLED", "true")];
    let output = run("manager", &["--dial-timeout", "2s", "--print-config"], &variables);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (setting, source) in [
        ("name = \"nsmgr-1\"", "variable NSM_NAME".to_owned()),
        ("dial_timeout = \"2s\"", "flag --dial-timeout".to_owned()),
        ("registry_url = \"registry:5002\"", format!("{}, line 2", file.display())),
        ("listen_on = \"unix:///a.sock,tcp://:5001\"", format!("{}, line 3", file.display())),
        ("max_token_lifetime = \"10m\"", "default".to_owned()),
    ] {
        let line =
            printed.lines().find(|line| line.starts_with(setting)).unwrap_or_else(|| panic!("{setting}: {printed}"));
        assert!(line.ends_with(&format!("# {source}")), "{line}");
    }
    let again = room.path("again.toml");
    write(&again, &printed);
    let output = run("manager", &["--config", again.to_str().unwrap(), "--print-config"], &[]);
    let values =
        |text: &str| text.lines().map(|line| line.split(" # ").next().unwrap().trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(values(&text(&output.stdout)), values(&printed));
}

#[test]
fn the_help_is_a_hundred_columns_wide_at_most() {
    for role in ROLES {
        let help = text(&run(role, &["--help"], &[]).stdout);
        assert!(help.contains("Every setting is taken from its variable"), "{help}");
        let longest = help.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(100), "{longest:?} in {help}");
    }
}

#[test]
fn policies_that_choose_nothing_are_an_error_before_anybody_is_let_in() {
    for (role, variable) in [
        ("registry", "NSM_REGISTRY_SERVER_POLICIES"),
        ("manager", "NSM_REGISTRY_CLIENT_POLICIES"),
        ("endpoint", "NSM_REGISTRY_CLIENT_POLICIES"),
        ("registry-proxy", "NSM_REGISTRY_SERVER_POLICIES"),
    ] {
        let output = run(role, &["--authority", "/nonexistent"], &[(variable, "etc/nsm/opa/nothing/.*.rego")]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{role}: {said}");
        assert!(said.contains(&format!("failed at {variable}")) && said.contains("nothing"), "{said}");
    }
}

#[test]
fn a_manager_proxy_names_what_it_lacks() {
    let variables = [("NSM_INSECURE", "true"), ("NSM_REGISTRY_URL", "registry:5002")];
    let output = run("manager-proxy", &[], &variables);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.contains("set NSM_REGISTRY_PROXY_URL to a URL")), (Some(1), true), "{said}");
}
