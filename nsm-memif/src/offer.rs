use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::control::Control;
use crate::interrupt::{Interrupt, Wakes};
use crate::link::Link;
use crate::protocol::{AddRing, Direction, Message};
use crate::queue::{Buffers, Place};
use crate::shm::{Region, Ring};
use crate::{Config, Error, Memif, Peer, Receiver, Result, Sender, Violation};

/// What a client has offered so far: memory, and rings in it. All is checked as it comes.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    regions: Vec<Arc<Region>>,
    to_server: Vec<(Ring, Interrupt)>,
    to_client: Vec<(Ring, Interrupt)>,
}

impl Offer {
    /// The most regions of a client.
    pub(crate) const MOST_REGIONS: u16 = 64;
    /// The most rings of one direction.
    pub(crate) const MOST_RINGS: u16 = 256;

    /// Takes everything until CONNECT; with it the client's name of the interface.
    pub(crate) async fn receive(control: &Control, config: &Config) -> Result<(Self, String)> {
        let mut offer = Self::default();
        loop {
            match control.receive().await? {
                (Message::AddRegion { index, size }, file) => {
                    let added = offer.add_region(index, size, file, config.trust_unsealed_memory);
                    added.map_err(|reason| Violation::Region { index, reason })?;
                }
                (Message::AddRing(ring), file) => {
                    let added = offer.add_ring(ring, file);
                    added.map_err(|reason| Violation::Ring { index: ring.index, reason })?;
                }
                (Message::Connect { interface }, _) => {
                    offer.check()?;
                    return Ok((offer, interface));
                }
                (Message::Disconnect { reason, .. }, _) => return Err(Error::Refused { reason }),
                (other, _) => {
                    return Err(Violation::OutOfTurn { got: other.name(), expected: "ADD_RING or CONNECT" }.into());
                }
            }
            control.send(&Message::Ack, None).await?;
        }
    }

    fn add_region(&mut self, index: u16, size: u64, file: Option<OwnedFd>, trusting: bool) -> Result<(), String> {
        in_turn(index, self.regions.len(), Self::MOST_REGIONS)?;
        let file = file.ok_or("no descriptor came with it")?;
        self.regions.push(Arc::new(Region::open(&file, size, trusting)?));
        Ok(())
    }

    fn add_ring(&mut self, ring: AddRing, file: Option<OwnedFd>) -> Result<(), String> {
        let rings = match ring.direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        };
        in_turn(ring.index, rings.len(), Self::MOST_RINGS)?;
        if ring.private_header != 0 {
            return Err("private headers are not spoken here".to_owned());
        }
        let interrupt = Interrupt::from_peer(file.ok_or("no descriptor came with it")?)?;
        let region = self.regions.get(usize::from(ring.region)).ok_or("its region was not added")?;
        rings.push((Ring::new(region, ring.offset, ring.log2_size)?, interrupt));
        Ok(())
    }

    /// Every ring must be one by now.
    fn check(&self) -> Result<(), Violation> {
        for (index, (ring, _)) in self.to_server.iter().enumerate().chain(self.to_client.iter().enumerate()) {
            if !ring.is_initialised() {
                let index = u16::try_from(index).unwrap_or(u16::MAX);
                return Err(Violation::Ring { index, reason: "it does not begin with the cookie".to_owned() });
            }
        }
        Ok(())
    }

    /// Takes possession of the rings, and only then lets the client begin.
    pub(crate) async fn into_memif(self, link: Link, peer: Peer, config: &Config) -> Result<Memif> {
        let regions: Arc<[Arc<Region>]> = self.regions.into();
        let link = Arc::new(link);
        let (mut receivers, mut senders) = (Vec::new(), Vec::new());
        for (number, (ring, interrupt)) in (0..).zip(self.to_server) {
            let place = Place { ring, buffers: Buffers::Peers };
            let wakes = Wakes::new(interrupt)?;
            receivers.push(Receiver::new(Arc::clone(&link), Arc::clone(&regions), place, number, wakes));
        }
        for (number, (ring, interrupt)) in (0..).zip(self.to_client) {
            let place = Place { ring, buffers: Buffers::Peers };
            senders.push(Sender::new(Arc::clone(&link), Arc::clone(&regions), place, number, interrupt));
        }
        link.send(&Message::Connected { interface: config.name.clone() }).await?;
        Ok(Memif { link, receivers, senders, peer })
    }
}

/// Numbers come in order, from 0.
fn in_turn(index: u16, have: usize, most: u16) -> Result<(), String> {
    if usize::from(index) != have {
        return Err(format!("number {have} would be next"));
    }
    if index >= most { Err(format!("there can be {most}")) } else { Ok(()) }
}
