//! Keys of a tunnel's ends.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::{Error, Result};

/// Octets of a key (Curve25519, RFC 7748).
const LENGTH: usize = 32;

/// What one end of a tunnel keeps to itself. Its memory is overwritten when it is dropped, and neither `{}` nor `{:?}` shows it.
///
/// ```
/// # fn main() -> Result<(), nsm_wireguard::Error> {
/// let key = nsm_wireguard::PrivateKey::generate()?;
/// assert_eq!(format!("{key:?}"), "PrivateKey(..)");
/// println!("others know us as {}", key.public_key());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PrivateKey(x25519::StaticSecret);

/// What the other end knows of a [`PrivateKey`]. In text it is base64, as `wg` writes keys and as the parameters
/// `src_public_key` and `dst_public_key` of NSM's mechanism have them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; LENGTH]);

/// Of what private keys are made: one for each name, the same whenever it is asked for, and nobody who knows some of them knows
/// others. So a process with a key for each of many connections keeps none of them.
///
/// ```
/// # fn main() -> Result<(), nsm_wireguard::Error> {
/// let secret = nsm_wireguard::Secret::generate()?;
/// assert_eq!(secret.key("a").public_key(), secret.key("a").public_key());
/// assert_ne!(secret.key("a").public_key(), secret.key("b").public_key());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// A new one, from the system's random numbers.
    ///
    /// # Errors
    /// [`Error::NoRandom`] where the system has none.
    pub fn generate() -> Result<Self> {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map(Self).map_err(|_| Error::NoRandom)
    }

    /// The key of this name: HMAC-SHA256 of it (RFC 2104), which has just the length of a key.
    #[must_use]
    pub fn key(&self, name: &str) -> PrivateKey {
        let mut octets = [0; LENGTH];
        octets.iter_mut().zip(hmac::sign(&self.0, name.as_bytes()).as_ref()).for_each(|(octet, of)| *octet = *of);
        PrivateKey::from(octets)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl PrivateKey {
    /// A new one, from the system's random numbers.
    ///
    /// # Errors
    /// [`Error::NoRandom`] where the system has none.
    pub fn generate() -> Result<Self> {
        let mut octets = [0; LENGTH];
        SystemRandom::new().fill(&mut octets).map_err(|_| Error::NoRandom)?;
        Ok(Self::from(octets))
    }

    /// What to tell the other end.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.0).to_bytes())
    }

    /// As `wg` wants it, to give to another implementation. Do not log it.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0.as_bytes())
    }

    pub(crate) fn secret(&self) -> &x25519::StaticSecret {
        &self.0
    }
}

impl From<[u8; LENGTH]> for PrivateKey {
    fn from(octets: [u8; LENGTH]) -> Self {
        Self(octets.into())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl PublicKey {
    pub(crate) fn x25519(&self) -> x25519::PublicKey {
        self.0.into()
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    /// # Errors
    /// [`Error::InvalidKey`] if it is not base64 of 32 octets.
    fn from_str(text: &str) -> Result<Self> {
        let octets = STANDARD.decode(text).ok().and_then(|octets| octets.try_into().ok());
        octets.map(Self).ok_or(Error::InvalidKey { length: text.len() })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_read_as_wg_writes_it() {
        // What `wg pubkey` of wireguard-tools says of this key.
        let secret = std::array::from_fn(|at| at as u8);
        let public = PrivateKey::from(secret).public_key();
        assert_eq!(public.to_string(), "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=");
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        for text in ["", "AAAA", "not base64 at all", &"A".repeat(1000)] {
            let error = text.parse::<PublicKey>().unwrap_err().to_string();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let key = PrivateKey::generate().unwrap();
        assert!(!format!("{key:?}").contains(&key.to_base64()));
        assert_ne!(PrivateKey::generate().unwrap().public_key(), key.public_key());
    }
}
