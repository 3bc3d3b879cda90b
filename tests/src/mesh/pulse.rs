//! Packets at a fixed pace, to find out when they are not answered.

use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nsm_kernel::Netns;
use tokio::time::Instant;

use super::Failure;
use super::role::ECHO_PORT;

/// Sends a UDP packet every few milliseconds to all addresses at which an endpoint may answer, from within a namespace.
///
/// Only the process of an endpoint answers: an interface that outlived it does not. A beat is answered if any address
/// answered it.
#[derive(Debug)]
pub struct Pulse {
    beats: Arc<Mutex<Vec<Beat>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
struct Beat {
    sent: Instant,
    answered: bool,
}

/// What a pulse missed in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Missed {
    /// Beats that nobody answered.
    pub lost: usize,
    /// From the first beat that was lost in a row to the next one that was answered: the longest.
    pub longest: Duration,
}

impl Pulse {
    /// Starts one.
    ///
    /// # Errors
    /// When there can be no socket.
    pub async fn start(netns: &Netns, targets: Vec<Ipv4Addr>, every: Duration) -> Result<Self, Failure> {
        let socket = netns.run(|| UdpSocket::bind(("0.0.0.0", 0))).await?;
        let (beats, stopping) = (Arc::default(), Arc::default());
        let beating = Beating { socket, targets, every, beats: Arc::clone(&beats), stopping: Arc::clone(&stopping) };
        let thread = std::thread::Builder::new().name("pulse".to_owned()).spawn(move || beating.run())?;
        Ok(Self { beats, stopping, thread: Some(thread) })
    }

    /// How many beats there were.
    #[must_use]
    pub fn beats(&self) -> usize {
        lock(&self.beats).len()
    }

    /// What it missed of those beats, by their numbers. Answers of the last ones there are may still be on their way.
    #[must_use]
    pub fn missed(&self, of: Range<usize>) -> Missed {
        let beats = lock(&self.beats);
        let mut missed = Missed::default();
        let mut since = None;
        let stretch = beats.get(of).unwrap_or_default();
        for beat in stretch {
            if beat.answered {
                if let Some(since) = since.take() {
                    missed.longest = missed.longest.max(beat.sent - since);
                }
            } else {
                missed.lost += 1;
                since.get_or_insert(beat.sent);
            }
        }
        if let (Some(since), Some(last)) = (since, stretch.last()) {
            missed.longest = missed.longest.max(last.sent - since);
        }
        missed
    }

    /// Whether the last few beats but for those on their way were answered.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        let beats = lock(&self.beats);
        let settled = beats.len().saturating_sub(4);
        beats[settled.saturating_sub(4)..settled].iter().all(|beat| beat.answered)
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to fail with.
            let _ended = thread.join();
        }
    }
}

struct Beating {
    socket: UdpSocket,
    targets: Vec<Ipv4Addr>,
    every: Duration,
    beats: Arc<Mutex<Vec<Beat>>>,
    stopping: Arc<AtomicBool>,
}

impl Beating {
    fn run(self) {
        let mut next = Instant::now();
        while !self.stopping.load(Ordering::Relaxed) {
            let number = {
                let mut beats = lock(&self.beats);
                beats.push(Beat { sent: Instant::now(), answered: false });
                beats.len() - 1
            };
            for target in &self.targets {
                // Most of them lead nowhere now.
                let _no_route = self.socket.send_to(&(number as u64).to_be_bytes(), (*target, ECHO_PORT));
            }
            // One that comes too late to be sent in time is not made up for.
            next = (next + self.every).max(Instant::now());
            self.listen(next);
        }
    }

    fn listen(&self, until: Instant) {
        let mut packet = [0; 64];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                return;
            }
            // An error is that nothing came, or that somewhere nobody listens.
            if let Ok(length) = self.socket.recv(&mut packet)
                && let Some(number) = packet.get(..length).and_then(|packet| packet.first_chunk())
                && let Some(beat) = lock(&self.beats).get_mut(u64::from_be_bytes(*number) as usize)
                && beat.sent.elapsed() < LATE
            {
                beat.answered = true;
            }
        }
    }
}

/// An answer after this time is none.
const LATE: Duration = Duration::from_secs(1);

fn lock(beats: &Mutex<Vec<Beat>>) -> MutexGuard<'_, Vec<Beat>> {
    beats.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(answered: &[bool]) -> Pulse {
        let begun = Instant::now();
        let beat = |(at, answered): (usize, &bool)| Beat {
            sent: begun + Duration::from_millis(5) * at as u32,
            answered: *answered,
        };
        let beats = answered.iter().enumerate().map(beat).collect();
        Pulse { beats: Arc::new(Mutex::new(beats)), stopping: Arc::default(), thread: None }
    }

    #[test]
    fn the_longest_row_of_lost_beats_counts() {
        let (yes, no) = (true, false);
        let missed = |answered: &[bool], from| {
            let missed = pulse(answered).missed(from..answered.len());
            (missed.lost, missed.longest.as_millis())
        };
        assert_eq!(missed(&[yes, yes, yes], 0), (0, 0));
        assert_eq!(missed(&[yes, no, yes, no, no, no, yes], 0), (4, 15));
        assert_eq!(missed(&[no, no, no, yes, no, yes], 3), (1, 5));
        assert_eq!(missed(&[yes, no, no], 0), (2, 5), "it is still silent");
        assert_eq!(missed(&[], 0), (0, 0));
    }
}
