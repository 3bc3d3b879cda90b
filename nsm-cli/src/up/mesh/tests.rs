use super::*;

const SERVICE: &str = "\
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: vpn}
spec: {payload: IP, matches: [{routes: [{destination_selector: {app: vpn}}]}]}
---
";
const ENDPOINT: &str = "\
apiVersion: nsm/v1
kind: Endpoint
metadata: {name: nse, labels: {app: vpn}}
spec: {type: icmp-responder, services: [vpn], cidrPrefixes: [172.16.1.0/24]}
---
";
const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: default
  labels: {app: web}
  annotations:
    networkservicemesh.io: kernel://vpn/nsm-1?tier=front
spec:
  containers: [{name: nginx, image: nginx}]
";

fn parse(text: &str) -> Result<Mesh, Failure> {
    Mesh::parse("mesh.yaml", text)
}

/// What is wrong with the three documents after this edit.
fn wrong(from: &str, to: &str) -> String {
    let text = format!("{SERVICE}{ENDPOINT}{POD}");
    assert!(text.contains(from), "{from}");
    parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn a_mesh_is_read_as_people_write_it() {
    let mesh = parse(&format!("{SERVICE}{ENDPOINT}{POD}")).unwrap();
    assert_eq!(mesh.nodes, ["node-1"]);
    let pod = &mesh.pods["web"];
    assert_eq!((pod.node.as_str(), pod.containers), ("node-1", 1));
    assert_eq!(pod.wants[0].to_string(), "kernel://vpn/nsm-1?tier=front");
    let labels = pod.labels_for("web", &pod.wants[0]);
    let expected = [("app", "web"), ("nodeName", "node-1"), ("podName", "web"), ("tier", "front")];
    assert_eq!(labels, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    assert_eq!(mesh.endpoints["nse"].serves["vpn"]["app"], "vpn");
    assert_eq!(mesh.candidates("web", &pod.wants[0]), ["nse"]);
}

#[test]
fn what_is_wrong_is_said_with_its_place_what_is_allowed_and_what_to_do() {
    for (from, to, said) in [
        (
            "kind: Pod",
            "kind: Pood",
            &["document 3, line 12", "\"Pood\"", "Node, Pod, Endpoint", "did you mean Pod?"][..],
        ),
        ("kind: Pod", "kind: Deployment", &["document 3, line 12", "write a document of kind Pod"]),
        ("kind: Endpoint", "kind: NetworkServiceEndpoint", &["document 2, line 7", "write kind Endpoint"]),
        ("apiVersion: v1", "apiVersion: apps/v1", &["document 3, line 11", "write apiVersion: v1"]),
        (
            "icmp-responder",
            "icmp-respnder",
            &[
                "document 2, line 9",
                "must be one of icmp-responder, passthrough, firewall",
                "did you mean icmp-responder?",
            ],
        ),
        ("services: [vpn]", "services: [vnp]", &["document 2, line 9", "there is vpn", "did you mean vpn?"]),
        (
            "kernel://vpn",
            "kernel://other",
            &["document 3, line 18", "there is vpn", "add a document of kind NetworkService"],
        ),
        ("kernel://vpn", "vfio://vpn", &["document 3, line 18", "asks for VFIO", "write kernel://"]),
        ("kernel://vpn", "kernel:/vpn", &["document 3, line 18", "it has no ://"]),
        (
            "networkservicemesh.io: kernel",
            "networkservicemesh: kernel",
            &["line 18", "did you mean \"networkservicemesh.io\"?"],
        ),
        ("172.16.1.0/24", "172.16.1.0", &["document 2, line 9", "no prefix", "172.16.1.0/24"]),
        ("172.16.1.0/24", "172.16.1.9/24", &["document 2, line 9", "write 172.16.1.0/24"]),
        ("cidrPrefixes: [172.16.1.0/24]", "cidrPrefixes: []", &["document 2, line 8", "no addresses to give"]),
        (
            "cidrPrefixes: [172.16.1.0/24]",
            "cidrPrefixes: [172.16.1.0/24], dnsConfigs: [{nameservers: [dns]}]",
            &["document 2, line 9", "\"dns\", which is no IP address"],
        ),
        (
            "cidrPrefixes: [172.16.1.0/24]",
            "cidrPrefixes: [172.16.1.0/24], filter: [allow icmp]",
            &["line 9", "has no filter"],
        ),
        ("icmp-responder", "passthrough", &["document 2, line 9", "gives no addresses", "leave cidrPrefixes"]),
        (
            "labels: {app: vpn}}\nspec: {type: icmp-responder, services: [vpn], cidrPrefixes: [172.16.1.0/24]}",
            "labels: {}}\nspec: {type: passthrough, services: [vpn]}",
            &["document 2, line 8", "would go on to itself", "add labels"],
        ),
        (
            "type: icmp-responder, services: [vpn], cidrPrefixes: [172.16.1.0/24]",
            "type: firewall, services: [vpn]",
            &["document 2, line 8", "nothing would pass", "allow tcp 8080"],
        ),
        (
            "type: icmp-responder, services: [vpn], cidrPrefixes: [172.16.1.0/24]",
            "type: firewall, services: [vpn], filter: [allow icmp, allow tpc 80]",
            &["document 2, line 9", "\"tpc\""],
        ),
        ("cidrPrefixes", "cidrPrefixs", &["document 2", "line 9", "unknown field", "did you mean cidrPrefixes?"]),
        (
            "spec:\n  containers",
            "spec:\n  nodename: x\n  containers",
            &["document 3", "line 20", "did you mean nodeName?"],
        ),
        (
            "spec:\n  containers",
            "spec:\n  nodeName: node-2\n  containers",
            &["line 20", "there is node-1", "did you mean node-1?"],
        ),
        ("name: web", "name: Web", &["document 3, line 14", "lower-case"]),
        ("name: web", "name: nse", &["document 3, line 14", "document 2, line 8", "a name of its own"]),
        ("name: web", "name: registry", &["the name of a part of every lab"]),
        ("kernel://vpn/nsm-1?tier=front", "kernel://vpn/a,kernel://vpn/a", &["two interfaces are called a"]),
        (
            "destination_selector",
            "destinationSelector",
            &["document 1", "line 4", "did you mean destination_selector?"],
        ),
    ] {
        let error = wrong(from, to);
        for part in said {
            assert!(error.contains(part), "{to}: {part:?} in {error}");
        }
    }
}

#[test]
fn with_several_nodes_each_workload_says_where_it_is() {
    let node = |name: &str| format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n---\n");
    let text = format!("{}{}{SERVICE}{ENDPOINT}", node("left"), node("right"));
    let error = parse(&text).unwrap_err().to_string();
    assert!(
        error.contains("document 4") && error.contains("left, right") && error.contains("nodeName: left"),
        "{error}"
    );
    assert_eq!(
        parse(&text.replace("spec: {type", "spec: {nodeName: right, type")).unwrap().endpoints["nse"].node,
        "right"
    );
}

#[test]
fn a_file_without_a_mesh_is_refused() {
    for text in ["", "# nothing\n", "apiVersion: v1\nkind: Node\nmetadata: {name: left}\n", "[", "kind: 7"] {
        parse(text).unwrap_err();
    }
}

/// The YAML of the page, with what it takes for granted.
#[test]
fn the_documents_of_the_page_are_read() {
    let page = include_str!("../../../../docs/labs.md");
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 6);
    let taken = ["ns-first", "backup"].map(|name| SERVICE.replace("name: vpn", &format!("name: {name}"))).concat();
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: node-2}\n";
    let mesh = parse(&format!("{taken}{}---\n{node}", blocks.join("---\n"))).unwrap();
    assert_eq!((mesh.nodes.len(), mesh.services.len(), mesh.endpoints.len(), mesh.pods.len()), (2, 3, 3, 1));
    assert_eq!(mesh.candidates("web", &mesh.pods["web"].wants[1]), ["nse-database"]);
}
