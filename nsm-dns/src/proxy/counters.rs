//! What became of questions.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counted {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// What a proxy counts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Counted {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Counted {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// A name of the kind that metrics have.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

counted! {
    /// Questions that came.
    Questions = "questions",
    /// Answered by what was kept.
    Kept = "kept",
    /// No server could say anything: answered with SERVFAIL, or what the servers refused with.
    Failed = "failed",
    /// What came was no question.
    Malformed = "malformed",
    /// More questions at once than are taken: left unanswered, to be asked again.
    Overload = "overload",
    /// Our own question came back to us: answered with SERVFAIL.
    Loop = "loop",
    /// What came from a server answers nothing that it was asked. It may be forged.
    Stray = "stray",
    /// Asked again over TCP, because the answer is long.
    Stream = "stream",
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many of each.
#[derive(Debug, Default)]
pub(super) struct Counters([AtomicU64; Counted::ALL.len()]);

impl Counters {
    pub(super) fn count(&self, what: Counted) {
        self.0[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn of(&self, what: Counted) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }
}
