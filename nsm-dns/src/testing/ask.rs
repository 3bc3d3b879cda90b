//! What a program's resolver does.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Place;

/// Longer than anything may take that answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// The addresses that a server says a name has, IPv4 first; none if there is no such name.
///
/// # Errors
/// When it says that it cannot say, or says nothing.
pub async fn addresses(server: SocketAddr, name: &str) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        let answer = ask(&Place::Here, server, name, kind).await?;
        let code = answer.metadata.response_code;
        if !matches!(u16::from(code), 0 | 3) {
            return Err(io::Error::other(format!("{server} answers {code} for {name}")));
        }
        found.extend(answer.answers.iter().filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::from(address.0)),
            RData::AAAA(address) => Some(IpAddr::from(address.0)),
            _ => None,
        }));
    }
    Ok(found)
}

/// What a server says from there, asked over UDP, and over TCP if that is cut short.
///
/// # Errors
/// When it says nothing, or what is no answer.
pub async fn ask(place: &Place, server: SocketAddr, name: &str, kind: RecordType) -> io::Result<Message> {
    let asking = async {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).map_err(io::Error::other)?, kind));
        let octets = message.to_vec().map_err(io::Error::other)?;
        let socket = place.datagrams(server).await?;
        socket.send(&octets).await?;
        let mut buffer = vec![0; 4096];
        let length = socket.recv(&mut buffer).await?;
        let answer = Message::from_vec(&buffer[..length]).map_err(io::Error::other)?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        let mut stream = place.stream(server).await?;
        stream.write_u16(octets.len().try_into().unwrap_or(u16::MAX)).await?;
        stream.write_all(&octets).await?;
        let mut buffer = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut buffer).await?;
        Message::from_vec(&buffer).map_err(io::Error::other)
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|late| Err(late.into()))
}
