use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nsm_api::SpiffeId;
use nsm_chain::{Result, Token, TokenError, Tokens, time};

use crate::identity::HmacTokens;

/// Whoever gives the programs of a mesh their certificates, if it is there.
#[derive(Clone)]
pub(super) struct Authority(Arc<Inner>);

struct Inner {
    present: AtomicBool,
    /// How long a certificate is good; none: for ever.
    certificates: Option<Duration>,
    tokens: Duration,
}

impl Authority {
    pub(super) fn new(tokens: Duration, certificates: Option<Duration>) -> Self {
        Self(Arc::new(Inner { present: AtomicBool::new(true), certificates, tokens }))
    }

    pub(super) fn set_present(&self, present: bool) {
        self.0.present.store(present, Ordering::SeqCst);
    }

    /// How long tokens live at most.
    pub(super) fn token_life(&self) -> Duration {
        self.0.tokens
    }

    /// The tokens of one program.
    pub(super) fn tokens(&self, id: &SpiffeId) -> Arc<dyn Tokens> {
        match self.0.certificates {
            Some(life) => {
                // Whoever starts while nobody is there has no certificate.
                let end = if self.is_present() { time::now() + life } else { UNIX_EPOCH };
                Arc::new(Certified { authority: self.clone(), id: id.to_string(), life, end: Mutex::new(end) })
            }
            None => Arc::new(HmacTokens::with_lifetime(id, self.0.tokens)),
        }
    }

    fn is_present(&self) -> bool {
        self.0.present.load(Ordering::SeqCst)
    }
}

/// Tokens that end with a certificate, which is replaced after half of its life if that is possible.
struct Certified {
    authority: Authority,
    id: String,
    life: Duration,
    end: Mutex<SystemTime>,
}

impl Tokens for Certified {
    fn token(&self, _audience: Option<&SpiffeId>) -> Result<Token, TokenError> {
        let now = time::now();
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if self.authority.is_present() && *end < now + self.life / 2 {
            *end = now + self.life;
        }
        let until = (now + self.authority.0.tokens).min(*end);
        let seconds = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expires = UNIX_EPOCH + Duration::from_secs(seconds);
        if expires <= now {
            return Err(TokenError { reason: format!("the certificate of {} has expired", self.id) });
        }
        Ok(Token { text: format!("{} until {seconds}", self.id).into(), expires })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", if self.is_present() { "present" } else { "absent" })
    }
}
