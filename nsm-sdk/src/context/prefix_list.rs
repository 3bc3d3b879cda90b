//! A YAML file with a list of prefixes, and when to read it again.

use std::collections::HashSet;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::Deserialize;

/// More than this is not a list of prefixes.
const MAX_BYTES: u64 = 1 << 20;

/// Why a file is not a list of prefixes.
#[derive(Debug, thiserror::Error)]
pub enum PrefixListError {
    /// The system does not let it be read.
    #[error("it cannot be read")]
    Unreadable(#[from] io::Error),
    /// It is a directory, a device, or something else one does not read.
    #[error("it is not a regular file")]
    NotFile,
    /// It is larger than 1 MiB.
    #[error("it is larger than 1 MiB")]
    TooLarge,
    /// It is not YAML of the expected shape.
    #[error("it is not YAML with a list named prefixes: {0}")]
    Malformed(String),
    /// An entry is not a prefix.
    #[error("prefixes[{index}] is {text:?}, not a prefix such as 10.0.0.0/8")]
    NotPrefix {
        /// Its place in the list.
        index: usize,
        /// Its beginning.
        text: String,
    },
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    inode: u64,
    bytes: u64,
}

/// What a look at the file found.
#[derive(Debug)]
pub(super) enum Found {
    /// It is not there.
    Missing,
    /// It is as it was.
    Same,
    /// It has no content: somebody has just made it, or is about to write it.
    Empty,
    /// It is new or has changed.
    Prefixes(Stamp, Arc<[String]>),
}

/// Looks at the file, and reads it if it is not what it was. Blocks.
pub(super) fn look(path: &Path, known: Option<Stamp>) -> Result<Found, PrefixListError> {
    let file = match std::fs::metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Found::Missing);
        }
        Err(error) => return Err(error.into()),
        Ok(metadata) if !metadata.is_file() => return Err(PrefixListError::NotFile),
        Ok(metadata) => metadata,
    };
    let stamp = Stamp { modified: file.modified().ok(), inode: file.ino(), bytes: file.len() };
    if known == Some(stamp) {
        return Ok(Found::Same);
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(PrefixListError::TooLarge);
    }
    if text.trim().is_empty() {
        return Ok(Found::Empty);
    }
    Ok(Found::Prefixes(stamp, parse(&text)?))
}

/// The prefixes, each once and without host bits, in the file's order.
fn parse(text: &str) -> Result<Arc<[String]>, PrefixListError> {
    #[derive(Deserialize)]
    struct File {
        prefixes: Option<Vec<String>>,
    }
    let file: File = serde_saphyr::from_str(text)
        .map_err(|error| PrefixListError::Malformed(error.without_snippet().to_string()))?;
    let read = |(index, text): (usize, &String)| {
        let prefix = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        prefix.map_err(|_| PrefixListError::NotPrefix { index, text: text.chars().take(48).collect() })
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
        assert!(matches!(look(Path::new("/dev/null"), None), Err(PrefixListError::NotFile)));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(prefixes:)?[ \\n-]{0,4}.{0,40}") {
            let _ = parse(&text);
        }
    }
}
