//! What the kernel said, in the chain's words.

use nsm_chain::{Code, Error};
use nsm_kernel::Error as Kernel;

/// `what` failed because of `error`, which brings its own remedy.
pub(super) fn failed(what: impl Into<String>, error: Kernel) -> Error {
    let code = match &error {
        Kernel::InvalidName { .. } | Kernel::InvalidSpec { .. } | Kernel::NotANetns { .. } => Code::InvalidArgument,
        Kernel::NameTaken { .. } | Kernel::VniInUse { .. } => Code::AlreadyExists,
        Kernel::NamespaceGone { .. } | Kernel::LinkNotFound { .. } | Kernel::NoPrivileges { .. } => {
            Code::FailedPrecondition
        }
        Kernel::TablesExhausted { .. } => Code::ResourceExhausted,
        _ => Code::Internal,
    };
    Error::new(code, what.into()).because(error)
}
