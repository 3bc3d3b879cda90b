//! BPF programs of a few instructions for the kernel's `clsact`, assembled here: no compiler and no object files.
//!
//! Instructions are those of the kernel's `Documentation/bpf/standardization/instruction-set.rst`, helpers and the fields of
//! a packet (`struct __sk_buff`) those of `linux/bpf.h`.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use nix::libc;

use crate::{Error, Result};

/// Result and first helper argument, the others, one that helpers keep, and the end of the stack.
pub(crate) const R0: u8 = 0;
pub(crate) const R1: u8 = 1;
pub(crate) const R2: u8 = 2;
pub(crate) const R3: u8 = 3;
pub(crate) const R4: u8 = 4;
pub(crate) const R6: u8 = 6;
pub(crate) const R10: u8 = 10;

/// How wide a load is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Width {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}

/// Functions of the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Helper {
    CloneRedirect = 13,
    VlanPush = 18,
    VlanPop = 19,
    Redirect = 23,
    LoadBytes = 26,
}

/// Goes on with the next filter, as if this one were not there (`linux/pkt_cls.h`).
pub(crate) const UNSPEC: i32 = -1;
/// Lets the packet pass.
pub(crate) const OK: i32 = 0;
/// Drops it.
pub(crate) const SHOT: i32 = 2;

/// A program in the making. What does not fit a case jumps to its label, which must come later.
#[derive(Debug, Default)]
pub(crate) struct Program {
    code: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
}

/// A place that is jumped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) u8);

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Program {
    fn push(&mut self, code: u8, (to, from): (u8, u8), offset: i16, immediate: i32) -> &mut Self {
        // The order of the two halves is that of the machine's octets.
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        self.code.push(Instruction { code, registers, offset, immediate });
        self
    }

    /// `to = value`
    pub(crate) fn set(&mut self, to: u8, value: i32) -> &mut Self {
        self.push(0xb7, (to, 0), 0, value)
    }

    /// `to = from`
    pub(crate) fn copy(&mut self, to: u8, from: u8) -> &mut Self {
        self.push(0xbf, (to, from), 0, 0)
    }

    /// `to += value`
    pub(crate) fn add(&mut self, to: u8, value: i32) -> &mut Self {
        self.push(0x07, (to, 0), 0, value)
    }

    /// `to &= value`
    pub(crate) fn and(&mut self, to: u8, value: i32) -> &mut Self {
        self.push(0x57, (to, 0), 0, value)
    }

    /// `to = *(from + offset)`
    pub(crate) fn load_from(&mut self, width: Width, to: u8, from: u8, offset: i16) -> &mut Self {
        self.push(0x61 | width as u8, (to, from), offset, 0)
    }

    /// Goes on at `label` if the lower 32 bits of `of` are not `value`.
    pub(crate) fn unless(&mut self, of: u8, value: i32, label: Label) -> &mut Self {
        self.jumps.push((self.code.len(), label));
        self.push(0x56, (of, 0), 0, value)
    }

    pub(crate) fn call(&mut self, helper: Helper) -> &mut Self {
        self.push(0x85, (0, 0), 0, helper as i32)
    }

    pub(crate) fn exit(&mut self) -> &mut Self {
        self.push(0x95, (0, 0), 0, 0)
    }

    /// Ends with this verdict.
    pub(crate) fn verdict(&mut self, verdict: i32) -> &mut Self {
        self.set(R0, verdict).exit()
    }

    /// Here is where jumps to `label` lead.
    pub(crate) fn label(&mut self, label: Label) -> &mut Self {
        let here = self.code.len();
        for (from, _) in self.jumps.extract_if(.., |(_, to)| *to == label) {
            // Relative to the instruction after the jump; programs here have some thirty.
            self.code[from].offset = i16::try_from(here - from - 1).unwrap_or(i16::MAX);
        }
        self
    }

    /// Has the kernel check it; it is there as long as the descriptor, or a filter that was made with it.
    pub(crate) fn load(&self) -> Result<OwnedFd> {
        let mut why = vec![0; 4096];
        load_program(&self.code, &mut why).map_err(|source| {
            let detail = match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => Some(
                    "it takes CAP_BPF and CAP_NET_ADMIN over the whole system: not those of a user namespace"
                        .to_owned(),
                ),
                // The last that the kernel says of what it does not like.
                _ => String::from_utf8_lossy(&why).trim_end_matches('\0').lines().next_back().map(str::to_owned),
            };
            Error::Kernel { operation: "load a BPF program".to_owned(), source, detail }
        })
    }
}

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads.
#[derive(Debug, Default)]
#[repr(C)]
struct LoadProgram {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[allow(unsafe_code, reason = "no safe wrapper of bpf(2) in nix or rustix")]
fn load_program(code: &[Instruction], why: &mut [u8]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
    let small = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let mut load = LoadProgram {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        count: small(code.len()),
        instructions: code.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        log_level: 1,
        log_size: small(why.len()),
        log: why.as_mut_ptr().addr() as u64,
        ..LoadProgram::default()
    };
    load.name[..3].copy_from_slice(b"nsm");
    // SAFETY: the attribute is as long as is said, and what it points to lives until the call returns; `why` is written to
    // within its length.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<LoadProgram>()) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_lead_to_their_labels() {
        let end = Label(1);
        let mut program = Program::default();
        program.unless(R1, 7, end).set(R2, 1).unless(R1, 8, end).label(end).verdict(OK);
        assert_eq!(program.code.iter().map(|i| i.offset).collect::<Vec<_>>(), [2, 0, 0, 0, 0]);
        assert!(program.jumps.is_empty());
    }
}
