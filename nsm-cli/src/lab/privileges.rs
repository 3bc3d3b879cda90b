//! What the kernel must let us do.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::failure::Failure;

/// How often a re-execution is tried again that came while a thread was still on its way out.
const TRIES: u32 = 50;

/// Makes sure that this process may make network namespaces and program them: as root it may, anybody else goes on as
/// root of a user namespace of its own, by starting the program again. Must be called before a runtime is started.
pub(crate) fn obtain() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        let held = nsm_kernel::privileges();
        match held.obstacle {
            None => return Ok(()),
            Some(error) if held.in_user_namespace => return Err(blocked(&error)),
            Some(_) => {}
        }
    }
    let mut tries = 0;
    loop {
        let Err(error) = nsm_kernel::reexec_in_user_namespace();
        // The thread that looked for privileges may not have ended altogether; the kernel wants us alone.
        if error.errno() != Some(nix::libc::EINVAL) || tries == TRIES {
            return Err(blocked(&error));
        }
        tries += 1;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn blocked(error: &nsm_kernel::Error) -> Failure {
    let remedy = "run it as root, or allow user namespaces: they give an ordinary user network namespaces of their own";
    Failure::at("privileges", error.to_string(), remedy)
}

/// Lets this process open as many descriptors as it may, and makes sure that they are enough for so many nodes,
/// endpoints and clients: running out of them in the middle would also keep it from cleaning up.
pub(crate) fn descriptors(nodes: u64, endpoints: u64, clients: u64) -> Result<(), Failure> {
    // Measured at rest: 12 for each node, 6 for each endpoint, 3 for each client. Workers have some 200 at times.
    let needed = 300 + 16 * nodes + 8 * endpoints + 4 * clients;
    let failed = |error| Failure::at("descriptors", format!("the limit of open files cannot be read: {error}"), RAISE);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "the limit of open files stays low");
    }
    let (allowed, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if allowed < needed {
        let cause = format!("some {needed} open files are needed, and this process may have {allowed}");
        return Err(Failure::at("descriptors", cause, RAISE));
    }
    Ok(())
}

const RAISE: &str = "raise the hard limit (ulimit -Hn), or ask for fewer clients, endpoints or nodes";
