//! Names of network interfaces.

use thiserror::Error;

use crate::excerpt::excerpt;

/// Longest name of a Linux network interface in octets (`IFNAMSIZ` less the terminating zero).
pub const LONGEST_INTERFACE_NAME: usize = 15;

/// Why text cannot name a network interface.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name} cannot name a network interface: {reason}")]
pub struct InterfaceNameError {
    /// The name, quoted, cut when long.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Checks a name by the rules of the Linux kernel (`dev_valid_name`, and no `%`, which the kernel expands).
///
/// # Errors
/// [`InterfaceNameError`] says which rule is broken.
pub fn check_interface_name(name: &str) -> Result<(), InterfaceNameError> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > LONGEST_INTERFACE_NAME {
        "it is longer than 15 octets"
    } else if matches!(name, "." | "..") {
        "it is a name of folders"
    } else if name.contains(|c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control()) {
        "it has a slash, colon, percent sign, space or control character"
    } else {
        return Ok(());
    };
    Err(InterfaceNameError { name: excerpt(name), reason })
}

#[cfg(test)]
mod tests {
    use super::check_interface_name;

    #[test]
    fn the_kernels_rules_hold() {
        for name in ["nsm-1", "eth0.100", "fifteen-octets1"] {
            assert_eq!(check_interface_name(name), Ok(()), "{name}");
        }
        for name in ["", "sixteen-octets16", ".", "..", "a/b", "a b", "a:1", "veth%d", "a\0"] {
            assert!(check_interface_name(name).is_err(), "{name:?}");
        }
    }
}
