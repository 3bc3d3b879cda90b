//! The client's side: it makes the memory, and says where everything is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::control::{Control, within};
use crate::interrupt::{Interrupt, Wakes};
use crate::link::Link;
use crate::protocol::{AddRing, Direction, Hello, Init, Message, VERSION};
use crate::queue::{Buffers, Place};
use crate::shm::{Region, Ring};
use crate::{Address, Config, Error, Memif, Peer, Receiver, Result, Sender, Violation};

impl Memif {
    /// Connects to a server as the client, which makes the shared memory. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if nobody listens there, [`Error::Refused`] if the server wants no such client,
    /// [`Error::TimedOut`] if it says nothing; others as they say.
    pub async fn connect(address: &Address, config: &Config) -> Result<Self> {
        let socket = async {
            loop {
                match address.dial() {
                    Err(Error::Unreachable { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(QUEUE_FULL).await;
                    }
                    dialled => return dialled,
                }
            }
        };
        Self::connect_on(within(config.timeout, "its acceptance", socket).await?, config).await
    }

    /// As [`connect`](Self::connect), on a socket that is connected already: one that came by its descriptor, say.
    ///
    /// # Errors
    /// As there.
    pub async fn connect_on(socket: OwnedFd, config: &Config) -> Result<Self> {
        let control = Control::new(socket)?;
        match within(config.timeout, "its part of the handshake", introduce(&control, config)).await {
            Ok((memory, peer)) => memory.into_memif(control, peer),
            Err(error) => {
                control.disconnect(&error);
                Err(error)
            }
        }
    }
}

/// Between two tries to get into the queue of a server that is busy.
const QUEUE_FULL: Duration = Duration::from_millis(5);

async fn introduce(control: &Control, config: &Config) -> Result<(Memory, Peer)> {
    let Message::Hello(hello) = expect(control, "HELLO").await? else { return Err(unreachable("HELLO")) };
    if !(hello.min_version..=hello.max_version).contains(&VERSION) {
        let ([min, min_minor], [max, max_minor]) = (hello.min_version.to_be_bytes(), hello.max_version.to_be_bytes());
        return Err(Error::Version { min, min_minor, max, max_minor });
    }
    let memory = Memory::new(config, &hello)?;
    let init = Init {
        version: VERSION,
        id: config.id,
        mode: config.mode,
        secret: config.secret.as_ref().map_or([0; 24], |secret| secret.octets()),
        name: crate::PROGRAM.to_owned(),
    };
    told(control, &Message::Init(init), None, "ACK").await?;
    let region = Message::AddRegion { index: 0, size: memory.length as u64 };
    told(control, &region, Some(memory.file.as_fd()), "ACK").await?;
    for queue in &memory.queues {
        let Queue { direction, index, offset, .. } = *queue;
        let log2_size = memory.log2_ring_size;
        let ring = AddRing { direction, index, region: 0, offset, log2_size, private_header: 0 };
        told(control, &Message::AddRing(ring), Some(queue.interrupt.as_fd()), "ACK").await?;
    }
    let connect = Message::Connect { interface: config.name.clone() };
    let Message::Connected { interface } = told(control, &connect, None, "CONNECTED").await? else {
        return Err(unreachable("CONNECTED"));
    };
    Ok((memory, Peer { program: hello.name, interface }))
}

/// Sends it and waits for the answer. A server that closed has perhaps said why.
async fn told(
    control: &Control,
    message: &Message,
    file: Option<BorrowedFd<'_>>,
    answer: &'static str,
) -> Result<Message> {
    match control.send(message, file).await {
        Err(gone @ Error::Closed(_)) => expect(control, answer).await.and(Err(gone)),
        Err(error) => Err(error),
        Ok(()) => expect(control, answer).await,
    }
}

async fn expect(control: &Control, expected: &'static str) -> Result<Message> {
    match control.receive().await?.0 {
        message if message.name() == expected => Ok(message),
        Message::Disconnect { reason, .. } => Err(Error::Refused { reason }),
        other => Err(Violation::OutOfTurn { got: other.name(), expected }.into()),
    }
}

/// `expect` returns no other message.
fn unreachable(expected: &'static str) -> Error {
    Violation::OutOfTurn { got: "another message", expected }.into()
}

/// The one region of a client: first all rings, those to the server first, then the buffers of each in the same order.
struct Memory {
    region: Arc<Region>,
    length: usize,
    file: OwnedFd,
    log2_ring_size: u8,
    buffer_size: u32,
    queues: Vec<Queue>,
}

struct Queue {
    direction: Direction,
    index: u16,
    offset: u32,
    first_buffer: u32,
    interrupt: Interrupt,
}

/// Octets between two buffers: a cache line, so that their first lines, all that short packets have, are in different sets of
/// the cache.
const COLOUR: usize = 64;

impl Memory {
    fn new(config: &Config, hello: &Hello) -> Result<Self> {
        let log2_ring_size = config.log2_ring_size.min(hello.max_log2_ring_size);
        let to_server = config.queues.min(hello.max_ring_to_server.saturating_add(1));
        let to_client = config.queues.min(hello.max_ring_to_client.saturating_add(1));
        let rings = usize::from(to_server) + usize::from(to_client);
        let ring = Ring::length(log2_ring_size).next_multiple_of(64);
        let buffers = (config.buffer_size as usize + COLOUR) << log2_ring_size;
        let length = rings * (ring + buffers);
        if u32::try_from(length).is_err() {
            let reason =
                format!("{rings} rings with their buffers take {length} octets; it takes up to 4 GiB together");
            return Err(Error::InvalidConfig { setting: "queues", reason });
        }
        let (region, file) = Region::create(length).map_err(|error| Error::system("make memory for a memif", error))?;
        let region = Arc::new(region);
        let numbers = (0..to_server).map(|index| (Direction::ToServer, index));
        let numbers = numbers.chain((0..to_client).map(|index| (Direction::ToClient, index)));
        let mut queues = Vec::with_capacity(rings);
        for (at, (direction, index)) in numbers.enumerate() {
            let (offset, first_buffer) = ((at * ring) as u32, (rings * ring + at * buffers) as u32);
            let interrupt = Interrupt::new().map_err(|error| Error::system("make an eventfd for a memif", error))?;
            queues.push(Queue { direction, index, offset, first_buffer, interrupt });
        }
        let memory = Self { region, length, file, log2_ring_size, buffer_size: config.buffer_size, queues };
        memory.queues.iter().try_for_each(|queue| memory.ring(queue).map(|ring| ring.initialise()))?;
        Ok(memory)
    }

    fn ring(&self, queue: &Queue) -> Result<Ring> {
        let ring = Ring::new(&self.region, queue.offset, self.log2_ring_size);
        ring.map_err(|reason| Error::InvalidConfig { setting: "ring_size", reason })
    }

    fn into_memif(mut self, control: Control, peer: Peer) -> Result<Memif> {
        let link = Arc::new(Link::new(control, None));
        let regions: Arc<[Arc<Region>]> = Arc::new([Arc::clone(&self.region)]);
        let (mut receivers, mut senders) = (Vec::new(), Vec::new());
        for queue in std::mem::take(&mut self.queues) {
            let (size, stride) = (self.buffer_size, self.buffer_size + COLOUR as u32);
            let buffers = Buffers::Ours { first: queue.first_buffer, size, stride };
            let place = Place { ring: self.ring(&queue)?, buffers };
            let (link, regions) = (Arc::clone(&link), Arc::clone(&regions));
            if queue.direction == Direction::ToServer {
                senders.push(Sender::new(link, regions, place, queue.index, queue.interrupt));
            } else {
                receivers.push(Receiver::new(link, regions, place, queue.index, Wakes::new(queue.interrupt)?));
            }
        }
        Ok(Memif { link, receivers, senders, peer })
    }
}
