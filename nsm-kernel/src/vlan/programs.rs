//! What happens to a frame on its way into a VLAN and out of one.

use super::VlanPort;
use crate::bpf::{Helper, Label, OK, Program, R0, R1, R2, R3, R4, R6, R10, SHOT, UNSPEC, Width};

/// Tag protocol identifier, as the kernel has it in a packet's fields.
const TPID: u16 = 0x8100_u16.to_be();

/// Where fields are in `struct __sk_buff`.
const VLAN_PRESENT: i16 = 20;
const VLAN_TCI: i16 = 24;
const VLAN_PROTO: i16 = 28;

impl VlanPort {
    /// Sends what comes in through the port out of the uplink. Who is in one VLAN does not reach others by tags of its own.
    pub(super) fn out_of(&self, uplink: u32) -> Program {
        let drop = Label(0);
        let mut program = Program::default();
        program.copy(R6, R1).load_from(Width::Word, R0, R6, VLAN_PRESENT).unless(R0, 0, drop);
        if self.id != 0 {
            program.set(R2, TPID.into()).set(R3, self.id.into()).call(Helper::VlanPush).unless(R0, 0, drop);
        }
        program.set(R1, uplink.cast_signed()).set(R2, 0).call(Helper::Redirect).exit();
        program.label(drop).verdict(SHOT);
        program
    }

    /// Sends what comes in through the uplink for the host out of the port, with its tag; what is for a group goes on to others,
    /// too.
    pub(super) fn into(&self, port: u32) -> Program {
        let (others, one) = (Label(0), Label(1));
        let mut program = Program::default();
        program.copy(R6, R1).load_from(Width::Word, R0, R6, VLAN_PRESENT);
        if self.id == 0 {
            program.unless(R0, 0, others);
        } else {
            program.unless(R0, 1, others);
            program.load_from(Width::Word, R0, R6, VLAN_PROTO).unless(R0, TPID.into(), others);
            program.load_from(Width::Word, R0, R6, VLAN_TCI).and(R0, 0xfff).unless(R0, self.id.into(), others);
        }
        if let Some([a, b, c, d, e, f]) = self.mac {
            let (head, tail) = (i32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]).into());
            program
                .copy(R1, R6)
                .set(R2, 0)
                .copy(R3, R10)
                .add(R3, -8)
                .set(R4, 6)
                .call(Helper::LoadBytes)
                .unless(R0, 0, others);
            program.load_from(Width::Byte, R0, R10, -8).and(R0, 1).unless(R0, 1, one);
            program.copy(R1, R6).set(R2, port.cast_signed()).set(R3, 0).call(Helper::CloneRedirect).verdict(UNSPEC);
            program.label(one);
            program.load_from(Width::Word, R0, R10, -8).unless(R0, head, others);
            program.load_from(Width::Half, R0, R10, -4).unless(R0, tail, others);
        }
        program.set(R1, port.cast_signed()).set(R2, 0).call(Helper::Redirect).exit();
        program.label(others).verdict(UNSPEC);
        program
    }
}

/// Takes the tag off what goes out of a port.
pub(super) fn untag() -> Program {
    let mut program = Program::default();
    program.call(Helper::VlanPop).verdict(OK);
    program
}

/// Drops all that comes.
pub(super) fn nothing() -> Program {
    let mut program = Program::default();
    program.verdict(SHOT);
    program
}
