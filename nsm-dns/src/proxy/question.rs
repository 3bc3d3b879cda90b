//! What a program asks, and what it is told.

use hickory_resolver::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RecordType};

/// What fits into a UDP datagram where nobody says otherwise (RFC 1035, 4.2.1), in octets.
const PLAIN: u16 = 512;
/// What we take over UDP: passes every path unfragmented (DNS flag day 2020), in octets.
const PAYLOAD: u16 = 1232;
/// The most we send over UDP, whatever a program says it takes, in octets. It is on the same machine.
const MOST: u16 = 4096;
/// A header: what is shorter has no id to answer to.
const HEADER: usize = 12;

/// One question, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// In lower case, complete.
    pub(super) name: Name,
    pub(super) kind: RecordType,
    /// Whether servers are to look further than into what they have.
    recursion: bool,
    /// Whether they are to leave signatures unchecked.
    unchecked: bool,
    /// Whether it is wanted to know that they were checked.
    authentic: bool,
    /// With EDNS (RFC 6891): whether signatures are wanted.
    edns: Option<bool>,
}

/// A question as it came.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    id: u16,
    /// As it was written: it is answered in the same letters.
    query: Query,
    /// What the program takes over UDP, in octets.
    takes: u16,
}

/// What is not a question that can be asked on.
#[derive(Debug)]
pub(super) enum Rejected {
    /// No answer is owed: it is no question at all, or is too broken to tell.
    Dropped,
    /// It is answered at once.
    Answered(Box<Message>),
}

impl Asked {
    /// Reads a message of whoever sent it.
    pub(super) fn read(octets: &[u8]) -> Result<Self, Rejected> {
        let [first, second, flags, ..] = *octets else { return Err(Rejected::Dropped) };
        // An answer is never answered: two servers could go on so for ever.
        if octets.len() < HEADER || flags & 0x80 != 0 {
            return Err(Rejected::Dropped);
        }
        let id = u16::from_be_bytes([first, second]);
        let refuse = |op_code, code| Rejected::Answered(Box::new(Message::error_msg(id, op_code, code)));
        let op_code = OpCode::from_u8((flags >> 3) & 0x0f);
        if op_code != OpCode::Query {
            return Err(refuse(op_code, ResponseCode::NotImp));
        }
        let mut message = Message::from_vec(octets).map_err(|_| refuse(op_code, ResponseCode::FormErr))?;
        let (Some(query), true) = (message.queries.pop(), message.queries.is_empty()) else {
            return Err(refuse(op_code, ResponseCode::FormErr));
        };
        let edns = message.edns.as_ref();
        let mut name = query.name.to_lowercase();
        name.set_fqdn(true);
        let asked = Self {
            id,
            takes: edns.map_or(PLAIN, |edns| edns.max_payload().clamp(PLAIN, MOST)),
            question: Question {
                name,
                kind: query.query_type,
                recursion: message.metadata.recursion_desired,
                unchecked: message.metadata.checking_disabled,
                authentic: message.metadata.authentic_data,
                edns: edns.map(|edns| edns.flags().dnssec_ok),
            },
            query,
        };
        if edns.is_some_and(|edns| edns.version() != 0) {
            return Err(asked.refused(ResponseCode::BADVERS));
        }
        // Whole zones are not for sale, nor are the innards of servers.
        let kind = asked.question.kind;
        if asked.query.query_class != DNSClass::IN || matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            return Err(asked.refused(ResponseCode::Refused));
        }
        Ok(asked)
    }

    fn refused(&self, code: ResponseCode) -> Rejected {
        Rejected::Answered(Box::new(self.answer(refused(code))))
    }

    /// The answer to this question that says what another one says.
    pub(super) fn answer(&self, said: Message) -> Message {
        let mut answer = Message::response(self.id, OpCode::Query);
        answer.metadata.recursion_desired = self.question.recursion;
        answer.metadata.recursion_available = true;
        answer.metadata.checking_disabled = self.question.unchecked;
        answer.metadata.authoritative = said.metadata.authoritative;
        answer.metadata.authentic_data = said.metadata.authentic_data && self.question.wants_authentic();
        answer.metadata.response_code = said.metadata.response_code;
        answer.add_query(self.query.clone());
        (answer.answers, answer.authorities, answer.additionals) = (said.answers, said.authorities, said.additionals);
        match self.question.edns() {
            Some(edns) => drop(answer.set_edns(edns)),
            // Without EDNS there is no room for such a code.
            None if u16::from(answer.metadata.response_code) > 0x0f => {
                answer.metadata.response_code = ResponseCode::ServFail;
            }
            None => {}
        }
        answer
    }

    /// That answer over UDP; what does not fit is left out, and said to be.
    pub(super) fn datagram(&self, answer: &Message) -> Option<Vec<u8>> {
        let octets = answer.to_vec().ok()?;
        if octets.len() <= self.takes.into() { Some(octets) } else { answer.truncate().to_vec().ok() }
    }
}

impl Question {
    /// The same about another name.
    pub(super) fn about(&self, name: Name) -> Self {
        Self { name, ..self.clone() }
    }

    /// A message that asks it, with an id that nobody can guess.
    pub(super) fn message(&self, with_edns: bool) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = self.recursion;
        message.metadata.checking_disabled = self.unchecked;
        message.metadata.authentic_data = self.authentic;
        message.add_query(Query::query(self.name.clone(), self.kind));
        if let Some(edns) = self.edns().filter(|_| with_edns) {
            message.set_edns(edns);
        }
        message
    }

    /// Whether it goes out with EDNS.
    pub(super) fn has_edns(&self) -> bool {
        self.edns.is_some()
    }

    /// Our own, from hop to hop: no option of a program is passed on.
    fn edns(&self) -> Option<Edns> {
        self.edns.map(|dnssec| {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD).set_dnssec_ok(dnssec);
            edns
        })
    }

    fn wants_authentic(&self) -> bool {
        self.authentic || self.edns == Some(true)
    }

    /// Whether this answers that message of ours, and no other.
    pub(super) fn is_answered_by(&self, reply: &Message, id: u16) -> bool {
        let meta = &reply.metadata;
        let about = match reply.queries.as_slice() {
            [query] => {
                // Names are equal whatever the case of their letters.
                query.name == self.name && query.query_type == self.kind && query.query_class == DNSClass::IN
            }
            // Who does not understand EDNS may not have read as far as the question.
            [] => meta.response_code == ResponseCode::FormErr,
            _ => false,
        };
        meta.id == id && meta.message_type == MessageType::Response && meta.op_code == OpCode::Query && about
    }
}

/// An answer without records.
pub(super) fn refused(code: ResponseCode) -> Message {
    Message::error_msg(0, OpCode::Query, code)
}
