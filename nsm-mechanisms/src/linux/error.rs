//! What the kernel and our tunnels said, in the chain's words.

use nsm_chain::{Code, Error};
use nsm_kernel::Error as Kernel;
use nsm_wireguard::Error as Wireguard;

/// Why an interface could not be made.
#[derive(Debug)]
pub(super) enum Trouble {
    Kernel(Kernel),
    Wireguard(Wireguard),
}

impl From<Kernel> for Trouble {
    fn from(error: Kernel) -> Self {
        Self::Kernel(error)
    }
}

impl From<Wireguard> for Trouble {
    fn from(error: Wireguard) -> Self {
        match error {
            Wireguard::Kernel(error) => Self::Kernel(error),
            error => Self::Wireguard(error),
        }
    }
}

/// `what` failed because of `error`, which brings its own remedy.
pub(super) fn failed(what: impl Into<String>, error: impl Into<Trouble>) -> Error {
    match error.into() {
        Trouble::Kernel(error) => Error::new(code_of(&error), what.into()).because(error),
        Trouble::Wireguard(error) => {
            let code = match &error {
                Wireguard::InvalidKey { .. } | Wireguard::WeakKey | Wireguard::OwnKey => Code::InvalidArgument,
                Wireguard::Unreachable { .. } => Code::Unimplemented,
                Wireguard::Exhausted(_) => Code::ResourceExhausted,
                Wireguard::Socket { .. } | Wireguard::Device { .. } => Code::FailedPrecondition,
                _ => Code::Internal,
            };
            Error::new(code, what.into()).because(error)
        }
    }
}

fn code_of(error: &Kernel) -> Code {
    match error {
        Kernel::InvalidName { .. } | Kernel::InvalidSpec { .. } | Kernel::NotANetns { .. } => Code::InvalidArgument,
        Kernel::NameTaken { .. } | Kernel::VniInUse { .. } => Code::AlreadyExists,
        Kernel::NamespaceGone { .. }
        | Kernel::LinkNotFound { .. }
        | Kernel::NoPrivileges { .. }
        | Kernel::NoUnderlay { .. }
        | Kernel::Uplink { .. }
        | Kernel::UnderlayTooNarrow { .. } => Code::FailedPrecondition,
        Kernel::TablesExhausted { .. } => Code::ResourceExhausted,
        _ => Code::Internal,
    }
}
