use std::fmt;
use std::time::Duration;

use crate::protocol::Mode;
use crate::shm::Ring;
use crate::{Error, Result};

/// How an interface is to be. What is not said is as VPP and DPDK have it.
///
/// ```
/// use nsm_memif::{Config, protocol::Mode};
///
/// let config = Config::new(7).mode(Mode::Ip).secret("tell nobody")?.ring_size(512)?;
/// assert_eq!(config.id(), 7);
/// # Ok::<(), nsm_memif::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) id: u32,
    pub(crate) mode: Mode,
    pub(crate) secret: Option<Secret>,
    pub(crate) name: String,
    pub(crate) log2_ring_size: u8,
    pub(crate) buffer_size: u32,
    pub(crate) queues: u16,
    pub(crate) timeout: Duration,
    pub(crate) trust_unsealed_memory: bool,
}

/// The most queues of one direction.
const MOST_QUEUES: u16 = 256;

impl Config {
    /// Interface `id` of its socket: both ends say the same number. Ethernet, no secret, one queue in each direction with
    /// 1024 buffers of 2048 octets, five seconds for the peer to answer.
    #[must_use]
    pub fn new(id: u32) -> Self {
        Self {
            id,
            mode: Mode::Ethernet,
            secret: None,
            name: format!("memif{id}"),
            log2_ring_size: 10,
            buffer_size: 2048,
            queues: 1,
            timeout: Duration::from_secs(5),
            trust_unsealed_memory: false,
        }
    }

    /// What packets begin with; both ends say the same.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// A secret that the client sends and the server compares.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] unless it has 1 to 23 octets and no zero among them.
    pub fn secret(mut self, secret: &str) -> Result<Self> {
        self.secret = Some(Secret::new(secret)?);
        Ok(self)
    }

    /// Name of the interface as the peer shows it; cut to 31 octets.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Number of buffers of each ring. The client's is used, unless the server allows less.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] unless it is a power of two up to 16384.
    pub fn ring_size(mut self, buffers: u16) -> Result<Self> {
        let log2 = u8::try_from(buffers.checked_ilog2().unwrap_or_default()).unwrap_or(u8::MAX);
        if !buffers.is_power_of_two() || log2 > Ring::LARGEST_LOG2 {
            let reason = format!("{buffers} buffers; it takes a power of two up to {}", 1 << Ring::LARGEST_LOG2);
            return Err(Error::InvalidConfig { setting: "ring_size", reason });
        }
        self.log2_ring_size = log2;
        Ok(self)
    }

    /// Octets of each buffer, rounded up to whole cache lines; a longer packet takes several. The client's is used.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] unless it is 64 to 65536.
    pub fn buffer_size(mut self, octets: u32) -> Result<Self> {
        if !(64..=65536).contains(&octets) {
            let reason = format!("{octets} octets; it takes 64 to 65536");
            return Err(Error::InvalidConfig { setting: "buffer_size", reason });
        }
        self.buffer_size = octets.next_multiple_of(64);
        Ok(self)
    }

    /// Number of queues in each direction, for as many threads. The client's is used, unless the server allows less.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] unless it is 1 to 256.
    pub fn queues(mut self, queues: u16) -> Result<Self> {
        if !(1..=MOST_QUEUES).contains(&queues) {
            let reason = format!("{queues} queues; it takes 1 to {MOST_QUEUES}");
            return Err(Error::InvalidConfig { setting: "queues", reason });
        }
        self.queues = queues;
        Ok(self)
    }

    /// How long the peer may take until the interface is up.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Maps a client's memory even if it could be shrunk, or is of huge pages, as with DPDK's `zero-copy=yes`.
    ///
    /// A peer that shrinks it ends this process with SIGBUS. So this is for peers that are trusted not to.
    #[must_use]
    pub fn trust_unsealed_memory(mut self, trust: bool) -> Self {
        self.trust_unsealed_memory = trust;
        self
    }

    /// Number of the interface.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

/// A secret of an interface.
#[derive(Clone)]
pub(crate) struct Secret([u8; 24]);

impl Secret {
    fn new(secret: &str) -> Result<Self> {
        // VPP and DPDK end it with a zero.
        if !(1..24).contains(&secret.len()) || secret.contains('\0') {
            let reason = format!("{} octets; it takes 1 to 23, without zeros", secret.len());
            return Err(Error::InvalidConfig { setting: "secret", reason });
        }
        let mut octets = [0; 24];
        octets[..secret.len()].copy_from_slice(secret.as_bytes());
        Ok(Self(octets))
    }

    pub(crate) fn octets(&self) -> [u8; 24] {
        self.0
    }

    /// Whether it is the same. Takes as long whichever octet differs.
    pub(crate) fn is(&self, other: &[u8; 24]) -> bool {
        self.0.iter().zip(other).fold(0, |differs, (ours, theirs)| differs | (ours ^ theirs)) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_said_with_what_may_be() {
        let refused = [
            Config::new(0).ring_size(1000).unwrap_err().to_string(),
            Config::new(0).ring_size(32768).unwrap_err().to_string(),
            Config::new(0).ring_size(0).unwrap_err().to_string(),
            Config::new(0).buffer_size(63).unwrap_err().to_string(),
            Config::new(0).queues(0).unwrap_err().to_string(),
            Config::new(0).secret("").unwrap_err().to_string(),
            Config::new(0).secret(&"x".repeat(24)).unwrap_err().to_string(),
        ];
        assert!(refused.iter().all(|error| error.contains("it takes")), "{refused:?}");
        assert_eq!(Config::new(0).buffer_size(100).unwrap().buffer_size, 128);
        let config = Config::new(0).secret("hush").unwrap();
        assert!(!format!("{config:?}").contains("hush"));
    }
}
