//! Interface names.

use std::{fmt, str::FromStr};

use crate::Error;

/// A name the kernel accepts for an interface (`dev_valid_name`): 1 to 15 bytes, no `/`, `:` or white space,
/// not `.` or `..`, and no `%`, which the kernel would take for a pattern to number.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let reason = match name {
            "" => "it is empty",
            "." | ".." => "it names a directory",
            _ if name.len() > 15 => "it is longer than 15 bytes",
            _ if name.contains(['/', ':', '%']) => "it contains '/', ':' or '%'",
            _ if name.chars().any(|c| c.is_whitespace() || c.is_control()) => {
                "it contains white space or control characters"
            }
            // The kernel keeps its own settings under these names in /proc/sys/net/*/conf.
            "all" | "default" => "the kernel keeps it for itself",
            _ => return Ok(Self(name.to_owned())),
        };
        Err(Error::InvalidName { name: name.to_owned(), reason })
    }
}

impl TryFrom<&str> for InterfaceName {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self, Error> {
        name.parse()
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_the_kernel_would_refuse_are_refused_with_a_reason() {
        for bad in
            ["", ".", "..", "a/b", "a b", "a\tb", "nsm:1", "nsm%d", "0123456789abcdef", "a\0b", "all", "äöüäöüäö"]
        {
            let error = bad.parse::<InterfaceName>().unwrap_err();
            assert!(matches!(error, Error::InvalidName { .. }), "{bad:?}");
        }
        for good in ["nsm-1", "0123456789abcde", "a", "eth0.100", "äöü"] {
            assert_eq!(good.parse::<InterfaceName>().unwrap().as_str(), good);
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_short_and_stays_one_path_component(name in ".{0,20}") {
            if let Ok(name) = name.parse::<InterfaceName>() {
                prop_assert!((1..=15).contains(&name.as_str().len()));
                let path = std::path::Path::new("/run").join(name.as_str());
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/run")));
            }
        }
    }
}
