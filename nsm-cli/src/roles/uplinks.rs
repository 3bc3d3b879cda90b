//! The file that says by which interfaces a node reaches networks that have VLANs.

use std::collections::BTreeMap;
use std::path::Path;

use nsm_kernel::Netns;
use nsm_mechanisms::Vlans;
use serde::Deserialize;

use crate::failure::Failure;

/// As the reference's forwarders read it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    interfaces: Vec<Interface>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Interface {
    name: String,
    #[serde(default)]
    matches: Vec<Match>,
    /// What the reference's own examples have beside; it is not needed here.
    #[serde(default, rename = "bridge")]
    _bridge: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Match {
    #[serde(default)]
    label_selector: Vec<Selector>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Selector {
    via: String,
}

/// What these files name; none, if there are none.
pub(super) async fn vlans(forwarder: &str, files: impl Iterator<Item = &Path>) -> Result<Option<Vlans>, Failure> {
    let mut uplinks = BTreeMap::new();
    for file in files {
        let failed = |what: String| Failure::at(forwarder, format!("{}: {what}", file.display()), REMEDY);
        let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        for (via, name) in read(&text).map_err(failed)? {
            let clash = format!("{via} is where both {name} and another interface lead");
            if uplinks.insert(via, name.clone()).is_some_and(|other| other != name) {
                return Err(failed(clash));
            }
        }
    }
    if uplinks.is_empty() {
        return Ok(None);
    }
    tracing::info!(?uplinks, "networks with VLANs");
    let failed = |error: nsm_kernel::Error| Failure::of(forwarder, &error);
    let node = Netns::current().map_err(failed)?;
    Vlans::new(node, uplinks).await.map(Some).map_err(failed)
}

const REMEDY: &str = "write interfaces: [{name: eth1, matches: [{labelSelector: [{via: gw1}]}]}]";

/// Pairs of a label and an interface.
fn read(text: &str) -> Result<Vec<(String, String)>, String> {
    let file: Option<File> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let interfaces = file.into_iter().flat_map(|file| file.interfaces);
    let pairs = interfaces.flat_map(|Interface { name, matches, .. }| {
        let selectors = matches.into_iter().flat_map(|matches| matches.label_selector);
        selectors.map(move |Selector { via }| (via, name.clone())).collect::<Vec<_>>()
    });
    Ok(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_reference_is_read_and_mistakes_are_named() {
        let text =
            "interfaces:\n- name: eth1\n  matches:\n  - labelSelector:\n    - via: gw1\n    - via: gw2\n- name: eth2\n";
        let pair = |via: &str, name: &str| (via.to_owned(), name.to_owned());
        assert_eq!(read(text).unwrap(), [pair("gw1", "eth1"), pair("gw2", "eth1")]);
        assert_eq!(read("").unwrap(), []);
        for (text, why) in [("interfaces: eth1", "interfaces"), ("interfaces:\n- nam: eth1", "nam")] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
