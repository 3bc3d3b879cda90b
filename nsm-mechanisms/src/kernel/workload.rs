use nsm_api::Mechanism;
use nsm_api::mechanism::{FileUrl, LONGEST_INTERFACE_NAME, ParameterError, check_interface_name};
use nsm_chain::{Error, Result};
use nsm_kernel::Netns;

use crate::Random;

/// The network namespace in which interfaces are wanted.
#[derive(Debug, Clone)]
pub struct Workload {
    url: FileUrl,
    /// Kept open: the URL names our descriptor.
    _netns: Option<Netns>,
}

impl Workload {
    /// The namespace of this process.
    #[must_use]
    pub fn own() -> Self {
        Self { url: FileUrl::Path(format!("/proc/{}/ns/net", std::process::id()).into()), _netns: None }
    }

    /// A namespace held by this process for another one.
    #[must_use]
    pub fn of(netns: &Netns) -> Self {
        Self { url: FileUrl::Path(netns.path()), _netns: Some(netns.clone()) }
    }

    /// A namespace that only its name is known of: of another machine, or of a simulation
    /// ([`memory`](crate::memory)).
    #[must_use]
    pub fn at(url: FileUrl) -> Self {
        Self { url, _netns: None }
    }

    /// Its URL, as the parameter `inodeURL` has it at rest.
    #[must_use]
    pub fn url(&self) -> &FileUrl {
        &self.url
    }

    /// Puts namespace and name into a KERNEL mechanism; a name that is there already must be one the kernel takes.
    pub(super) fn fill(&self, mechanism: &mut Mechanism, name: impl FnOnce() -> String) -> Result<(), ParameterError> {
        let missing = match mechanism.as_kernel() {
            Some(kernel) => kernel.interface_name()?.is_none(),
            None => return Ok(()),
        };
        if let Some(mut kernel) = mechanism.as_kernel_mut() {
            if missing {
                kernel.set_interface_name(&name())?;
            }
            kernel.set_netns(&self.url);
        }
        Ok(())
    }
}

impl Default for Workload {
    fn default() -> Self {
        Self::own()
    }
}

/// How many characters of the service's name an interface's name begins with; the rest is random.
const SERVICE_PART: usize = 10;

/// `<first ten of the service's name>-<random>`, fifteen octets in all, as the reference builds it.
pub(super) fn generated(service: &str, random: &Random) -> String {
    const LETTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let usable = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' }
    };
    let mut name: String = service.chars().take(SERVICE_PART).map(usable).collect();
    name.push('-');
    while name.len() < LONGEST_INTERFACE_NAME {
        name.push(char::from(LETTERS[random.below(LETTERS.len() as u32) as usize]));
    }
    name
}

/// A wanted name cut to what the kernel takes.
pub(super) fn fixed(name: &str) -> Result<String> {
    let mut end = name.len().min(LONGEST_INTERFACE_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let name = &name[..end];
    check_interface_name(name).map_err(|error| Error::invalid("the interface name cannot be used").because(error))?;
    Ok(name.to_owned())
}

pub(super) fn refused(error: ParameterError) -> Error {
    Error::invalid("the KERNEL mechanism cannot be used").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_fixed_name_is_cut_and_an_impossible_one_refused() {
        assert_eq!(fixed("network-service-1").unwrap(), "network-service");
        assert_eq!(fixed("nsm-ääääääääää").unwrap(), "nsm-äääää");
        assert!(fixed("a/b").is_err() && fixed("").is_err());
    }

    proptest! {
        #[test]
        fn any_service_gives_a_name_the_kernel_takes(service in ".{0,20}", seed in any::<u64>()) {
            let name = generated(&service, &Random::seeded(seed));
            prop_assert_eq!(check_interface_name(&name), Ok(()));
            prop_assert_eq!(name.len(), LONGEST_INTERFACE_NAME);
        }
    }
}
