//! What several targets need.

use prost::Message;

/// Runs it in a runtime of its own whose clock stands still but for whoever waits.
pub fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work);
}

/// Pieces, each with its length before it in two bytes, the high one first; the last one may be cut off.
pub struct Chunks<'a>(pub &'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let ([high, low], rest) = self.0.split_first_chunk()?;
        let (piece, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()));
        self.0 = rest;
        Some(piece)
    }
}

/// A message as it comes from the wire.
pub fn message<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}
