//! A YAML file with a list of prefixes.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::files::{FileError, yaml};

/// The prefixes, each once and without host bits, in the file's order.
pub(super) fn parse(text: &str) -> Result<Vec<String>, FileError> {
    #[derive(Deserialize)]
    struct File {
        prefixes: Option<Vec<String>>,
    }
    let file: File = yaml(text, "a list named prefixes")?;
    let read = |(index, text): (usize, &String)| {
        let prefix = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let shown = || text.chars().take(48).collect::<String>();
        prefix.map_err(|_| {
            FileError::Malformed(format!("prefixes[{index}] is {:?}, not a prefix such as 10.0.0.0/8", shown()))
        })
    };
    let prefixes = file.prefixes.unwrap_or_default();
    let prefixes: Vec<IpNet> = prefixes.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    let mut seen = HashSet::new();
    Ok(prefixes
        .iter()
        .map(IpNet::trunc)
        .filter(|prefix| seen.insert(*prefix))
        .map(|prefix| prefix.to_string())
        .collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_prefix_is_read_once_and_without_host_bits() {
        let text =
            "# kept by the collector\nprefixes:\n- 10.96.0.7/12\n- fd00::/64\n- 10.96.0.0/12\n- 10.0.0.1\nother: 1\n";
        assert_eq!(*parse(text).unwrap(), ["10.96.0.0/12", "fd00::/64", "10.0.0.1/32"]);
        for none in ["prefixes: []", "prefixes:", "other: 1"] {
            assert!(parse(none).unwrap().is_empty(), "{none}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text| parse(text).unwrap_err().to_string();
        assert_eq!(
            error("prefixes: [10.0.0.0/8, 10.0.0.0/33]"),
            r#"prefixes[1] is "10.0.0.0/33", not a prefix such as 10.0.0.0/8"#
        );
        assert!(
            error("prefixes: 7").starts_with("it is not YAML with a list named prefixes"),
            "{}",
            error("prefixes: 7")
        );
        assert!(error("- 10.0.0.0/8").starts_with("it is not YAML with a list named prefixes"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(prefixes:)?[ \\n-]{0,4}.{0,40}") {
            let _ = parse(&text);
        }
    }
}
