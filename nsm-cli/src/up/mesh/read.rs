//! From a text to a mesh, or to what is wrong with it: in which document, in which line, and what would be right.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use nsm_api::ServiceUrl;
use nsm_api::connectioncontext::DnsConfig;
use nsm_api::labels::NODE_NAME;
use nsm_api::mechanism::{KERNEL, MEMIF};
use nsm_api::yaml::{self, Document, Source, YamlError};
use nsm_kernel::Filter;
use serde::de::DeserializeOwned;
use serde_saphyr::Spanned;

use super::shape::{self, ANNOTATION, API_VERSION, Header};
use super::{Endpoint, Mesh, Pod};
use crate::failure::Failure;
use crate::lab::Function;

/// Kinds and their versions.
const KINDS: [(&str, &str); 4] =
    [("NetworkService", yaml::API_VERSION), ("Node", "v1"), ("Pod", "v1"), ("Endpoint", API_VERSION)];
/// What an endpoint can be.
const TYPES: [&str; 3] = ["icmp-responder", "passthrough", "firewall"];
/// Names of roles, and of the namespace that is the underlay's.
const RESERVED: [&str; 3] = ["registry", "operator", "underlay"];
/// So that the path of a socket (107 octets, unix(7)) has room for it.
const LONGEST_NAME: usize = 40;
/// The node of a file that names none.
const ONLY_NODE: &str = "node-1";

/// One document, and what is wrong with it.
struct Reader<'t> {
    file: &'t str,
    source: &'t Source<'t>,
}

/// A word, and where it stands.
type Word = Spanned<String>;

/// What a document says that can only be judged when all are read.
#[derive(Default)]
struct Later {
    nodes: Vec<(String, Option<Word>)>,
    services: Vec<Word>,
}

pub(super) fn mesh(file: &str, text: &str) -> Result<Mesh, Failure> {
    let mut mesh = Mesh::default();
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    let sources: Vec<Source<'_>> = yaml::sources(text).collect();
    let mut later = Vec::new();
    for source in &sources {
        let reader = Reader { file, source };
        let (name, unjudged) = reader.document(&mut mesh)?;
        if let Some(earlier) = places.insert(name.value.clone(), reader.place(&name)) {
            let cause = format!("there is a second {:?}; the first one is at {earlier}", name.value);
            return Err(reader.wrong(
                &name,
                cause,
                "give each node, network service, endpoint and pod a name of its own",
            ));
        }
        later.push((reader, unjudged));
    }
    if mesh.size() == 0 {
        let remedy = "add documents of kind NetworkService, Endpoint and Pod: see nsm up --help";
        return Err(Failure::at(file, "it describes no mesh: it has no document, or only nodes", remedy));
    }
    if mesh.nodes.is_empty() {
        mesh.nodes.push(ONLY_NODE.to_owned());
    }
    for (reader, unjudged) in later {
        reader.judge(unjudged, &mut mesh)?;
    }
    Ok(mesh)
}

impl Reader<'_> {
    /// Reads it into the mesh; gives its name, and what is to be judged when all is read.
    fn document(&self, mesh: &mut Mesh) -> Result<(Word, Later), Failure> {
        let header: Header = self.shaped()?;
        let kinds = KINDS.map(|(kind, _)| kind);
        let Some((kind, version)) = KINDS.into_iter().find(|(kind, _)| *kind == header.kind.value) else {
            let near = did_you_mean(&header.kind.value, kinds);
            let cause = format!("kind is {:?}: it must be one of {}", header.kind.value, kinds.join(", "));
            let remedy = match header.kind.value.as_str() {
                "NetworkServiceEndpoint" => "endpoints register themselves: write kind Endpoint".to_owned(),
                "Deployment" | "DaemonSet" | "ReplicaSet" => "write a document of kind Pod for each".to_owned(),
                _ => near.unwrap_or_else(|| "correct the kind, or leave the document out".to_owned()),
            };
            return Err(self.wrong(&header.kind, cause, remedy));
        };
        if header.api_version.value != version {
            let cause = format!("apiVersion of {kind} is {:?}: it must be {version}", header.api_version.value);
            return Err(self.wrong(&header.api_version, cause, format!("write apiVersion: {version}")));
        }
        match kind {
            "NetworkService" => self.service(mesh),
            "Node" => self.node(mesh),
            "Pod" => self.pod(mesh),
            _ => self.endpoint(mesh),
        }
    }

    fn service(&self, mesh: &mut Mesh) -> Result<(Word, Later), Failure> {
        let read = self.source.read().map_err(|error| self.malformed(&error))?;
        let name = self.shaped::<shape::Named>()?.metadata.name;
        if let Document::NetworkService(service) = read {
            mesh.services.insert(service.name.clone(), service);
        }
        Ok((name, Later::default()))
    }

    fn node(&self, mesh: &mut Mesh) -> Result<(Word, Later), Failure> {
        let node: shape::Node = self.shaped()?;
        let name = self.workload_name(node.metadata.name)?;
        mesh.nodes.push(name.value.clone());
        Ok((name, Later::default()))
    }

    fn pod(&self, mesh: &mut Mesh) -> Result<(Word, Later), Failure> {
        let shape::Pod { metadata, spec, .. } = self.shaped()?;
        let name = self.workload_name(metadata.name)?;
        if let Some((key, value)) = metadata.annotations.iter().find(|(key, _)| is_nearly(key, ANNOTATION)) {
            let cause = format!("annotation {key:?} says nothing to anybody");
            return Err(self.wrong(value, cause, format!("did you mean {ANNOTATION:?}?")));
        }
        let (mut wants, mut later) = (Vec::new(), Later::default());
        if let Some(text) = metadata.annotations.get(ANNOTATION) {
            wants = self.urls(text)?;
            let word = |url: &ServiceUrl| Spanned::new(url.service.clone(), text.referenced, text.defined);
            later.services = wants.iter().map(word).collect();
        }
        let node = spec.node_name.as_ref().map(|node| node.value.clone()).unwrap_or_default();
        later.nodes.push((name.value.clone(), spec.node_name));
        let pod = Pod { node, labels: metadata.labels, wants, containers: spec.containers.len() };
        mesh.pods.insert(name.value.clone(), pod);
        Ok((name, later))
    }

    fn endpoint(&self, mesh: &mut Mesh) -> Result<(Word, Later), Failure> {
        let shape::Endpoint { metadata, spec, .. } = self.shaped()?;
        let name = self.workload_name(metadata.name)?;
        let kind = &spec.function;
        if !TYPES.contains(&kind.value.as_str()) {
            let cause = format!("type is {:?}: it must be one of {}", kind.value, TYPES.join(", "));
            let remedy = did_you_mean(&kind.value, TYPES).unwrap_or_else(|| format!("write type: {}", TYPES[0]));
            return Err(self.wrong(kind, cause, remedy));
        }
        if spec.services.is_empty() {
            let cause = "services is empty: nobody can ask for this endpoint";
            return Err(self.wrong(&name, cause, "name the network services that it serves"));
        }
        let function = self.function(&name, &metadata.labels, &spec)?;
        let dns = spec.dns_configs.iter().map(|config| self.dns_config(config)).collect::<Result<_, _>>()?;
        let node = spec.node_name.as_ref().map(|node| node.value.clone()).unwrap_or_default();
        let serves = spec.services.iter().map(|service| (service.value.clone(), metadata.labels.clone())).collect();
        let later = Later { nodes: vec![(name.value.clone(), spec.node_name)], services: spec.services };
        mesh.endpoints.insert(name.value.clone(), Endpoint { node, function, serves, dns });
        Ok((name, later))
    }

    fn function(
        &self,
        name: &Word,
        labels: &BTreeMap<String, String>,
        spec: &shape::EndpointSpec,
    ) -> Result<Function, Failure> {
        let kind = spec.function.value.as_str();
        let rules = spec.filter.iter().map(|rule| rule.value.as_str());
        for (rule, text) in spec.filter.iter().zip(rules.clone()) {
            Filter::parse([text]).map_err(|error| self.wrong(rule, error.to_string(), "correct the rule"))?;
        }
        if let Some(rule) = spec.filter.first().filter(|_| kind != "firewall") {
            return Err(self.wrong(rule, format!("{kind} has no filter"), "write type: firewall, or leave it out"));
        }
        if kind == "icmp-responder" {
            return Ok(Function::IcmpResponder(self.prefixes(name, &spec.cidr_prefixes)?));
        }
        let servers = spec.dns_configs.iter().flat_map(|config| &config.nameservers);
        if let Some(word) = spec.cidr_prefixes.iter().chain(servers).next() {
            let cause =
                format!("a {kind} gives no addresses and names no servers: those of the endpoint behind it hold");
            return Err(self.wrong(word, cause, "leave cidrPrefixes and dnsConfigs out"));
        }
        if labels.is_empty() {
            let cause = format!("a {kind} without labels would go on to itself: no rule tells it from its clients");
            return Err(self.wrong(
                name,
                cause,
                "add labels, and a rule with source_selector of them to the network service",
            ));
        }
        if kind == "firewall" && spec.filter.is_empty() {
            let cause = "filter is empty: nothing would pass";
            return Err(self.wrong(name, cause, "say what may pass, such as filter: [allow icmp, allow tcp 8080]"));
        }
        let filter = (kind == "firewall").then(|| Filter::parse(rules)).transpose();
        let filter = filter.map_err(|error| self.wrong(name, error.to_string(), "correct the filter"))?;
        Ok(Function::Passthrough { labels: labels.clone(), filter })
    }

    fn dns_config(&self, config: &shape::DnsConfig) -> Result<DnsConfig, Failure> {
        if let Some(word) = config.nameservers.iter().find(|word| word.value.parse::<IpAddr>().is_err()) {
            let cause = format!("dnsConfigs has the name server {:?}, which is no IP address", word.value);
            return Err(self.wrong(word, cause, "write addresses, such as the endpoint's own: 172.16.1.0"));
        }
        let dns_server_ips = config.nameservers.iter().map(|word| word.value.clone()).collect();
        Ok(DnsConfig { dns_server_ips, search_domains: config.searches.clone() })
    }

    fn prefixes(&self, name: &Word, words: &[Word]) -> Result<Vec<IpNet>, Failure> {
        let mut prefixes: Vec<IpNet> = Vec::new();
        for word in words {
            let prefix = word.value.parse::<IpNet>().map_err(|_| {
                let cause = format!("cidrPrefixes has {:?}, which is no prefix", word.value);
                self.wrong(word, cause, "write prefixes such as 172.16.1.0/24 and fd00:172:16::/64")
            })?;
            if prefix.addr() != prefix.network() {
                let cause = format!("cidrPrefixes has {prefix}, which has bits set behind its length");
                return Err(self.wrong(word, cause, format!("write {}", prefix.trunc())));
            }
            prefixes.push(prefix);
        }
        if prefixes.is_empty() {
            let cause = "cidrPrefixes is empty: the endpoint has no addresses to give";
            return Err(self.wrong(name, cause, "add cidrPrefixes: [172.16.1.0/24], or with an IPv6 prefix beside it"));
        }
        Ok(prefixes)
    }

    fn urls(&self, text: &Word) -> Result<Vec<ServiceUrl>, Failure> {
        let urls = ServiceUrl::parse_list(&text.value).map_err(|error| {
            let cause = format!("annotation {ANNOTATION}: {} is no service URL: {}", error.text, error.reason);
            self.wrong(text, cause, "write kernel://service/interface?label=value, several by commas")
        })?;
        if let Some(other) = urls.iter().find(|url| ![KERNEL, MEMIF].contains(&&*url.mechanism)) {
            let cause = format!("annotation {ANNOTATION}: {other} asks for {}", other.mechanism);
            let remedy = "a lab has kernel interfaces and shared memory: write kernel://service/interface or memif://…";
            return Err(self.wrong(text, cause, remedy));
        }
        let mut taken = BTreeSet::new();
        if let Some(twice) = urls.iter().filter_map(|url| url.interface.as_ref()).find(|name| !taken.insert(*name)) {
            let cause = format!("annotation {ANNOTATION}: two interfaces are called {twice}");
            return Err(self.wrong(text, cause, "give each interface of a pod a name of its own"));
        }
        Ok(urls)
    }

    /// What only the whole file can tell: nodes and network services that are named must be there.
    fn judge(&self, later: Later, mesh: &mut Mesh) -> Result<(), Failure> {
        for (name, node) in later.nodes {
            let node = self.node_of(node, &mesh.nodes)?;
            if let Some(pod) = mesh.pods.get_mut(&name) {
                node.clone_into(&mut pod.node);
            }
            if let Some(endpoint) = mesh.endpoints.get_mut(&name) {
                for labels in endpoint.serves.values_mut() {
                    labels.entry(NODE_NAME.to_owned()).or_insert_with(|| node.clone());
                }
                endpoint.node = node;
            }
        }
        for service in later.services {
            if !mesh.services.contains_key(&service.value) {
                let known: Vec<&str> = mesh.services.keys().map(String::as_str).collect();
                let cause = format!("there is no network service {:?}; there is {}", service.value, listed(&known));
                let add = || format!("add a document of kind NetworkService with metadata.name: {}", service.value);
                return Err(self.wrong(&service, cause, did_you_mean(&service.value, known).unwrap_or_else(add)));
            }
        }
        Ok(())
    }

    fn node_of(&self, wanted: Option<Word>, nodes: &[String]) -> Result<String, Failure> {
        let known: Vec<&str> = nodes.iter().map(String::as_str).collect();
        match (wanted, known.as_slice()) {
            (None, [only]) => Ok((*only).to_owned()),
            (None, _) => {
                let place = format!("{}, document {}", self.file, self.source.position());
                let cause = format!("spec.nodeName is missing, and there are several nodes: {}", known.join(", "));
                Err(Failure::at(place, cause, format!("add nodeName: {}", known.first().unwrap_or(&ONLY_NODE))))
            }
            (Some(node), _) if known.contains(&node.value.as_str()) => Ok(node.value),
            (Some(node), _) => {
                let cause = format!("there is no node {:?}; there is {}", node.value, listed(&known));
                let add = || format!("add a document of kind Node with metadata.name: {}", node.value);
                Err(self.wrong(&node, cause, did_you_mean(&node.value, known).unwrap_or_else(add)))
            }
        }
    }

    /// Names become those of namespaces, sockets and identities.
    fn workload_name(&self, name: Word) -> Result<Word, Failure> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let text = name.value.as_str();
        let reason = if text.is_empty() || text.len() > LONGEST_NAME {
            "it must have from 1 to 40 letters"
        } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(plain) {
            "it must be of lower-case letters, digits, dashes and dots, and begin with a letter or digit"
        } else if RESERVED.contains(&text) || text.starts_with("nsmgr-") || text.starts_with("forwarder-") {
            "that is the name of a part of every lab"
        } else {
            return Ok(name);
        };
        let cause = format!("metadata.name is {text:?}: {reason}");
        Err(self.wrong(&name, cause, "choose another name"))
    }

    fn shaped<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        self.source.deserialize().map_err(|error| self.malformed(&error))
    }

    /// An unknown field is likely a mistyped one; what is allowed is in the message of the reader.
    fn malformed(&self, error: &YamlError) -> Failure {
        let text = error.to_string();
        let near = text.split_once("unknown field `").and_then(|(_, rest)| {
            let (wrong, rest) = rest.split_once('`')?;
            let word = |c: char| !c.is_alphanumeric() && c != '_';
            did_you_mean(wrong, rest.split(word).filter(|word| !word.is_empty()))
        });
        Failure::at(self.file, text, near.unwrap_or_else(|| "correct the document".to_owned()))
    }

    fn wrong(&self, at: &Word, cause: impl Into<String>, remedy: impl Into<String>) -> Failure {
        Failure::at(format!("{}, {}", self.file, self.place(at)), cause, remedy)
    }

    fn place(&self, at: &Word) -> String {
        let line = usize::try_from(at.referenced.line()).unwrap_or_default() + self.source.lines_before();
        format!("document {}, line {line}", self.source.position())
    }
}

/// The likeliest of what is known for a word that was mistyped.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // In a short word two letters that changed places are half of it.
    let like = |other: &str| {
        let (word, other) = (word.to_ascii_lowercase(), other.to_ascii_lowercase());
        let swapped = if strsim::osa_distance(&word, &other) == 1 { 0.9 } else { 0.0 };
        strsim::jaro_winkler(&word, &other).max(swapped)
    };
    let scored = known.into_iter().map(|other| (like(other), other)).filter(|(score, _)| *score > 0.8);
    let (_, best) = scored.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    Some(format!("did you mean {best}?"))
}

fn is_nearly(word: &str, known: &str) -> bool {
    word != known && strsim::jaro_winkler(word, known) > 0.95
}

fn listed(words: &[&str]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
