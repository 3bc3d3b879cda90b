use std::collections::BTreeMap;
use std::str::FromStr;

use super::Malformed;

/// Pairs such as `app:web,tier:2`. A value may contain colons, a repeated key takes the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels(pub(crate) BTreeMap<String, String>);

impl Labels {
    /// Its pairs.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl FromStr for Labels {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let pair = |pair: &str| {
            let (key, value) = pair.split_once(':').ok_or_else(|| {
                Malformed(format!("{pair:?} has no colon; write pairs such as app:web, separated by commas"))
            })?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        };
        text.split(',').map(pair).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_may_have_colons_and_pairs_must() {
        let labels: Labels = "app:web, url:http://x:1".parse().unwrap();
        assert_eq!(labels.pairs().collect::<Vec<_>>(), [("app", "web"), ("url", "http://x:1")]);
        assert_eq!("".parse(), Ok(Labels::default()));
        assert!("app:web,".parse::<Labels>().unwrap_err().0.contains("no colon"));
    }

    proptest! {
        #[test]
        fn what_is_joined_is_taken_apart(pairs in prop::collection::btree_map("[a-z.]{1,5}", "[a-z:]{0,5}", 0..5)) {
            let text = pairs.iter().map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>().join(",");
            prop_assert_eq!(text.parse(), Ok(Labels(pairs)));
        }
    }
}
