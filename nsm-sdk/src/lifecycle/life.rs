//! One connection's state, and who wants to know of it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::reader::Told;
use super::{Change, Ending, Interface};
use crate::lifetime::Reason;

/// Whoever wants to be told at once.
pub(super) type Listener = dyn Fn(&str, &Change) + Send + Sync;

/// What there is to know of a connection now. It counts what a slow reader may have missed.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(super) phase: Phase,
    pub(super) last: Interface,
    /// How often it was down, and why the last time.
    pub(super) outages: u64,
    pub(super) outage: Option<Reason>,
    /// How often it was mended while it stayed up, and why the last time.
    pub(super) mends: u64,
    pub(super) mended: Option<Reason>,
}

impl Status {
    /// As it is, or was last.
    pub(crate) fn interface(&self) -> &Interface {
        &self.last
    }

    pub(crate) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Up,
    Down,
    Gone(Ending),
}

/// One connection, from its first success to its end.
pub(super) struct Life {
    id: Arc<str>,
    status: watch::Sender<Status>,
    listener: Option<(Arc<Listener>, Mutex<Told>)>,
}

impl Life {
    /// A connection that is up now.
    pub(super) fn begin(id: Arc<str>, now: Interface, listener: Option<Arc<Listener>>) -> Self {
        let status = Status { phase: Phase::Up, last: now, outages: 0, outage: None, mends: 0, mended: None };
        let life = Self {
            id,
            status: watch::Sender::new(status),
            listener: listener.map(|listener| (listener, Mutex::default())),
        };
        life.change(|_| {});
        life
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn up(&self, now: Interface) {
        self.change(|status| {
            if let (Phase::Up, Some(why)) = (status.phase, status.last.broken()) {
                status.mends += 1;
                status.mended = Some(why);
            }
            status.phase = Phase::Up;
            status.last = now;
        });
    }

    /// It is being mended while what there is stands.
    pub(super) fn breaks(&self, why: Reason) {
        self.change(|status| {
            if status.phase == Phase::Up {
                status.last = status.last.breaks(why);
            }
        });
    }

    pub(super) fn down(&self, why: Reason) {
        self.change(|status| {
            if status.phase == Phase::Up {
                status.phase = Phase::Down;
                status.outages += 1;
                status.outage = Some(why);
            }
        });
    }

    pub(super) fn gone(&self, how: Ending) {
        self.change(|status| status.phase = Phase::Gone(how));
    }

    /// Changes what there is to know, and tells of it: one after the other, in the order in which it happens.
    fn change(&self, change: impl FnOnce(&mut Status)) {
        let mut told = self
            .listener
            .as_ref()
            .map(|(listener, told)| (listener, told.lock().unwrap_or_else(PoisonError::into_inner)));
        self.status.send_modify(change);
        if let Some((listener, told)) = &mut told {
            let status = self.status.borrow().clone();
            while let Some(change) = told.news(&status) {
                listener(&self.id, &change);
            }
        }
    }
}
