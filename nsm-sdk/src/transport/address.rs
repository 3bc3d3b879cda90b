use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use nsm_api::mechanism::FileUrl;
use nsm_chain::FileId;

/// Where a role listens, and where one dials.
///
/// Written `unix:///run/nsm.sock`, `unix://relative.sock`, `tcp://host:port` or bare `host:port`; `mem://name` is a pipe
/// inside the process; `inode://<device>/<inode>` is a socket whose descriptor this process was given. `tcp://:5001` means every interface when listening and this machine when dialling; port 0 is any free one.
///
/// ```
/// use nsm_sdk::transport::Address;
///
/// let address: Address = "registry:5002".parse()?;
/// assert_eq!(address, Address::Tcp { host: "registry".into(), port: 5002 });
/// assert_eq!(address.to_string(), "tcp://registry:5002");
/// # Ok::<(), nsm_sdk::transport::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A unix stream socket.
    Unix(PathBuf),
    /// A TCP port of a host name or IP address (IPv6 without brackets).
    Tcp {
        /// Name or address; empty for the unspecified one.
        host: String,
        /// Port; 0 lets the system choose one.
        port: u16,
    },
    /// A pipe inside this process, by name.
    Memory(String),
    /// A unix stream socket of which this process has a descriptor ([`HeldSocket`](super::HeldSocket)), whatever its path.
    Held(FileId),
}

/// A text that is no address of a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address: {reason}; write unix:///path, tcp://host:port or host:port")]
pub struct AddressError {
    /// The text, at most the first 200 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| AddressError { text: text.chars().take(200).collect(), reason };
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(fail("it has spaces or control characters"));
        }
        match text.split_once("://") {
            Some(("unix", path)) => unix(path).map_err(fail),
            Some(("tcp", rest)) => tcp(rest.strip_suffix('/').unwrap_or(rest)).map_err(fail),
            Some(("mem", "")) => Err(fail("the name is missing")),
            Some(("mem", name)) => Ok(Self::Memory(name.to_owned())),
            Some(("inode", _)) => match text.parse() {
                Ok(FileUrl::Inode { device, inode }) => Ok(Self::Held(FileId { device, inode })),
                _ => Err(fail("device and inode must be decimal numbers")),
            },
            Some(_) => Err(fail("unknown scheme")),
            None => match text.strip_prefix("unix:") {
                // gRPC's own way to write it.
                Some(path) => unix(path).map_err(fail),
                None => tcp(text).map_err(fail),
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Memory(name) => write!(f, "mem://{name}"),
            Self::Held(file) => file.fmt(f),
        }
    }
}

fn unix(path: &str) -> Result<Address, &'static str> {
    match path.len() {
        0 => Err("the path is missing"),
        1..=LONGEST_PATH => Ok(Address::Unix(path.into())),
        _ => Err("the path of a unix socket has at most 107 bytes (unix(7))"),
    }
}

fn tcp(text: &str) -> Result<Address, &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let port = match port.bytes().all(|byte| byte.is_ascii_digit()) {
        true => port.parse().map_err(|_| "the port is no number from 0 to 65535")?,
        false => return Err("the port is no number from 0 to 65535"),
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(six) if six.parse::<std::net::Ipv6Addr>().is_ok() => six,
        Some(_) => return Err("no IPv6 address between the brackets"),
        None if host.contains(':') => return Err("an IPv6 address stands in brackets"),
        None => host,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    match host.len() <= LONGEST_HOST && host.chars().all(plain) {
        true => Ok(Address::Tcp { host: host.to_owned(), port }),
        false => Err("the host is no name or IP address"),
    }
}

/// `sun_path` holds 108 bytes with the final zero.
const LONGEST_PATH: usize = 107;
/// The longest domain name (RFC 1035 §2.3.4).
const LONGEST_HOST: usize = 253;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_reads_and_prints_as_a_url() {
        for (text, printed) in [
            ("unix:///run/nsm/a.sock", "unix:///run/nsm/a.sock"),
            ("unix:/run/nsm/a.sock", "unix:///run/nsm/a.sock"),
            ("unix://a.sock", "unix://a.sock"),
            ("tcp://nsmgr:5001", "tcp://nsmgr:5001"),
            ("tcp://nsmgr:5001/", "tcp://nsmgr:5001"),
            ("nsmgr:5001", "tcp://nsmgr:5001"),
            (":5001", "tcp://:5001"),
            ("[::1]:0", "tcp://[::1]:0"),
            ("127.0.0.1:80", "tcp://127.0.0.1:80"),
            ("mem://manager", "mem://manager"),
            ("inode://4/4026531840", "inode://4/4026531840"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), printed);
            assert_eq!(printed.parse(), Ok(address));
        }
    }

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        let long = format!("unix:///{}", "x".repeat(107));
        for text in [
            "",
            "nsmgr",
            "nsmgr:",
            "nsmgr:http",
            "nsmgr:+80",
            "nsmgr:65536",
            "::1:80",
            "[::g]:80",
            "http://a:1",
            "unix://",
            "mem://",
            "inode://4",
            "inode://4/x",
            "tcp://a:1/path",
            "tcp://user@a:1",
            "a b:1",
            "a\n:1",
            &long,
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_and_parses_again(text in "(unix://|tcp://|mem://|inode://|)\\PC{0,30}(:[0-9]{1,5})?") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
