//! The TUN device: large pieces in and out of the workload's kernel, cut and joined here.

use std::io;

use tun_rs::{
    AsyncDevice, DeviceBuilder, SyncDevice, VIRTIO_NET_HDR_GSO_UDP_L4, VIRTIO_NET_HDR_LEN, VirtioNetHdr, gso_split,
};

/// Octets before a packet that is written, for the kernel's description of it (`struct virtio_net_hdr`).
pub(crate) const HEADROOM: usize = VIRTIO_NET_HDR_LEN;
/// The most that one read gives.
const LARGEST_READ: usize = HEADROOM + 65_535;
/// Not a packet to be cut (`VIRTIO_NET_HDR_GSO_NONE`).
const WHOLE: u8 = 0;
/// The checksum is still to be completed (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
const NEEDS_CHECKSUM: u8 = 1;
/// Packets are padded to a multiple of this (WireGuard paper, section 5.4.6).
pub(crate) const PADDING: usize = 16;
const SHORTEST_TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Opens the TUN device of this name in the calling thread's namespace; makes it, if there is none. It stays when its
/// descriptor is closed: what a workload has bound to it survives this process.
pub(crate) fn open(name: &str) -> io::Result<SyncDevice> {
    let device = DeviceBuilder::new().name(name).offload(true).inherit_enable_state().build_sync()?;
    device.persist()?;
    device.set_nonblocking(true)?;
    Ok(device)
}

/// As [`open`], but only what is there.
pub(crate) fn open_there(name: &str) -> io::Result<SyncDevice> {
    if !std::fs::exists(format!("/proc/sys/net/ipv4/conf/{name}"))? {
        return Err(io::ErrorKind::NotFound.into());
    }
    open(name)
}

/// For the runtime of the caller.
pub(crate) fn into_async(device: SyncDevice) -> io::Result<AsyncDevice> {
    AsyncDevice::new(device)
}

/// Whether an error says that the interface is gone for good.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    // The kernel's EBADFD: "File descriptor in bad state", what tun_chr_read_iter and tun_chr_write_iter say without a device.
    error.raw_os_error() == Some(rustix::io::Errno::BADFD.raw_os_error())
}

/// What one read of the device gave, as packets.
pub(crate) struct Segments {
    read: Vec<u8>,
    cut: Vec<u8>,
    sizes: Vec<usize>,
    /// Room for each packet in `cut`.
    stride: usize,
    count: usize,
    whole: usize,
}

impl Segments {
    pub(crate) fn new() -> Self {
        Self {
            read: vec![0; LARGEST_READ + PADDING],
            cut: Vec::new(),
            sizes: Vec::new(),
            stride: 1,
            count: 0,
            whole: 0,
        }
    }

    /// Reads once. An error of kind `InvalidInput` or `InvalidData` says that what was read cannot be cut.
    pub(crate) fn read(&mut self, device: &AsyncDevice) -> io::Result<()> {
        (self.count, self.whole) = (0, 0);
        let length = device.try_recv(&mut self.read[..LARGEST_READ])?;
        self.cut(length)
    }

    fn cut(&mut self, length: usize) -> io::Result<()> {
        let header = VirtioNetHdr::decode(self.read.get(..length).unwrap_or_default())?;
        let packet = &mut self.read[HEADROOM..length];
        if header.gso_type == WHOLE {
            if header.flags & NEEDS_CHECKSUM != 0 {
                complete_checksum(packet, header.csum_start.into(), header.csum_offset.into());
            }
            self.whole = packet.len();
            return Ok(());
        }
        let header = VirtioNetHdr { hdr_len: header_length(&header, packet)?, ..header };
        let (head, size) = (usize::from(header.hdr_len), usize::from(header.gso_size.max(1)));
        let count = packet.len().saturating_sub(head).div_ceil(size);
        self.stride = head + size + PADDING;
        self.cut.resize(self.cut.len().max(count * self.stride), 0);
        self.sizes.resize(self.sizes.len().max(count), 0);
        let mut pieces: Vec<&mut [u8]> = self.cut.chunks_mut(self.stride).take(count).collect();
        let v6 = packet[0] >> 4 == 6;
        self.count = gso_split(packet, header, &mut pieces, &mut self.sizes[..count], 0, v6)?;
        Ok(())
    }

    /// Each packet with zeros behind it, as far as it is to be padded: to a multiple of 16 octets, not beyond `mtu`. And the
    /// packet's own length.
    pub(crate) fn padded(&mut self, mtu: usize) -> impl Iterator<Item = (&[u8], usize)> {
        let pad = move |room: &mut [u8], length: usize| {
            let padded = length.next_multiple_of(PADDING).min(mtu).max(length).min(room.len());
            room[length..padded].fill(0);
            padded
        };
        let whole = self.whole;
        let whole = (whole > 0).then(|| {
            let room = &mut self.read[HEADROOM..];
            let padded = pad(room, whole);
            (&room[..padded], whole)
        });
        let pieces = self.cut.chunks_mut(self.stride).zip(&self.sizes).take(self.count);
        let pieces = pieces.map(move |(room, length)| {
            let padded = pad(room, *length);
            (&room[..padded], *length)
        });
        whole.into_iter().chain(pieces)
    }
}

/// Where the payload of a large packet begins. The kernel's own number is that of the first piece as a whole where it
/// forwarded the packet.
fn header_length(header: &VirtioNetHdr, packet: &[u8]) -> io::Result<u16> {
    let transport = usize::from(header.csum_start);
    let length = if header.gso_type == VIRTIO_NET_HDR_GSO_UDP_L4 {
        UDP_HEADER
    } else {
        // Data offset, in words of 4 octets (RFC 9293, section 3.1).
        let offset = packet.get(transport + 12).map_or(0, |octet| usize::from(octet >> 4) * 4);
        if offset < SHORTEST_TCP_HEADER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the TCP header is cut short"));
        }
        offset
    };
    match u16::try_from(transport + length) {
        Ok(end) if packet.len() > usize::from(end) => Ok(end),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the packet is shorter than its headers")),
    }
}

/// Completes the checksum of what begins at `start`, which the kernel left to its device: at `start + offset` there is the sum
/// of the pseudo header so far (RFC 1071).
fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) {
    let Some(summed) = packet.get_mut(start..).filter(|summed| summed.len() >= offset + 2) else { return };
    let mut words = summed.chunks_exact(2);
    let mut sum: u64 = words.by_ref().map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    sum += words.remainder().first().map_or(0, |last| u64::from(*last) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Of UDP 0 says that there is none (RFC 768); to all that know checksums the two are the same.
    let checksum = match !(sum as u16) {
        0 => 0xffff,
        checksum => checksum,
    };
    summed[offset..offset + 2].copy_from_slice(&checksum.to_be_bytes());
}
