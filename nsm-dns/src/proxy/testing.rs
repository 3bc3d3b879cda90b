//! Questions for unit tests.

use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::{Name, RecordType};

use super::question::{Asked, Question};

/// As a program asks it, without EDNS.
pub(super) fn question(name: &str, kind: RecordType) -> Question {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    Asked::read(&message.to_vec().unwrap()).unwrap().question
}
