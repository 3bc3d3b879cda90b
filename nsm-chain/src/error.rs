//! The one error of a chain: which hop, which element, what failed, why, and what to do.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

pub use tonic::Code;

/// A result of a chain.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, where, why, and what to do about it.
///
/// Its text is one line: `hop/element: what: why (hint)`. It never contains a token. What only our own log may know,
/// such as the name of the policy that refused, is in [`Error::detail`] and not in the text.
///
/// ```
/// # use nsm_chain::Error;
/// let error = Error::not_found("no endpoint of vpn has color=red").hint("register one, or change the labels asked for");
/// assert_eq!(error.to_string(), "no endpoint of vpn has color=red (register one, or change the labels asked for)");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    hop: Option<Arc<str>>,
    element: Option<Cow<'static, str>>,
    what: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    detail: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    causes: Vec<Error>,
    changed_nothing: bool,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $code:ident),* $(,)?) => {
        $($(#[$doc])* #[must_use] pub fn $name(what: impl Into<Cow<'static, str>>) -> Self {
            Self::new(Code::$code, what)
        })*
    };
}

impl Error {
    /// An error with its gRPC code.
    #[must_use]
    pub fn new(code: Code, what: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            code,
            hop: None,
            element: None,
            what: what.into(),
            hint: None,
            detail: None,
            source: None,
            causes: Vec::new(),
            changed_nothing: false,
        }))
    }

    constructors! {
        /// The message is malformed or contradicts itself.
        invalid => InvalidArgument,
        /// What is asked for does not exist.
        not_found => NotFound,
        /// The caller may not do this.
        denied => PermissionDenied,
        /// A peer or resource is out of reach for now.
        unavailable => Unavailable,
        /// A pool, a table or a limit is used up.
        exhausted => ResourceExhausted,
        /// The system is not in the state this needs.
        precondition => FailedPrecondition,
        /// What is asked for cannot be done here.
        unsupported => Unimplemented,
        /// The name is taken by somebody else.
        taken => AlreadyExists,
        /// A defect, ours or the machine's.
        internal => Internal,
        /// The caller's time is over.
        deadline => DeadlineExceeded,
        /// The caller gave up.
        cancelled => Cancelled,
    }

    /// Every one of several tries failed. Keeps each cause, and the most telling code.
    #[must_use]
    pub fn all_failed(what: impl Into<Cow<'static, str>>, causes: Vec<Self>) -> Self {
        let code = causes.iter().map(Self::code).min_by_key(|code| telling(*code)).unwrap_or(Code::Unavailable);
        let mut error = Self::new(code, what);
        error.0.causes = causes;
        error
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Says why, by the error below.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what only our own log may show.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    pub(crate) fn with_what(mut self, what: String) -> Self {
        self.0.what = what.into();
        self
    }

    /// Says that a Close was refused before anything was undone: at this hop the connection stays as it is.
    #[must_use]
    pub fn changing_nothing(mut self) -> Self {
        self.0.changed_nothing = true;
        self
    }

    /// Names the element it came from, unless an inner one has been named.
    #[must_use]
    pub fn at_element(mut self, element: impl Into<Cow<'static, str>>) -> Self {
        self.0.element.get_or_insert(element.into());
        self
    }

    /// Names the hop it came from, unless one has been named.
    #[must_use]
    pub fn at_hop(mut self, hop: &Arc<str>) -> Self {
        if self.0.hop.is_none() {
            self.0.hop = Some(Arc::clone(hop));
        }
        // What stayed as it was there is not what is here.
        self.0.changed_nothing = false;
        self
    }

    /// The gRPC code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The hop that failed.
    #[must_use]
    pub fn hop(&self) -> Option<&str> {
        self.0.hop.as_deref()
    }

    /// The element that failed.
    #[must_use]
    pub fn element(&self) -> Option<&str> {
        self.0.element.as_deref()
    }

    /// What failed, without place and remedy.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// What only our own log may show.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// Whether this hop refused a Close before anything was undone.
    #[must_use]
    pub fn changed_nothing(&self) -> bool {
        self.0.changed_nothing
    }

    /// What each try failed with.
    #[must_use]
    pub fn causes(&self) -> &[Self] {
        &self.0.causes
    }

    /// Whether an error of type `E` is among its sources, its own or those of its causes.
    #[must_use]
    pub fn is_caused_by<E: StdError + 'static>(&self) -> bool {
        let mut source = self.source();
        while let Some(error) = source {
            if error.is::<E>() {
                return true;
            }
            source = error.source();
        }
        self.0.causes.iter().any(Self::is_caused_by::<E>)
    }
}

/// Lower is more telling: a refusal says more than an unreachable peer.
fn telling(code: Code) -> u8 {
    match code {
        Code::PermissionDenied | Code::Unauthenticated => 0,
        Code::InvalidArgument | Code::Unimplemented => 1,
        Code::ResourceExhausted | Code::AlreadyExists | Code::FailedPrecondition => 2,
        Code::NotFound => 3,
        Code::DeadlineExceeded => 4,
        Code::Unavailable => 5,
        Code::Cancelled => 7,
        _ => 6,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        match (&inner.hop, &inner.element) {
            (Some(hop), Some(element)) => write!(f, "{hop}/{element}: ")?,
            (Some(place), None) => write!(f, "{place}: ")?,
            (None, Some(place)) => write!(f, "{place}: ")?,
            (None, None) => {}
        }
        f.write_str(&inner.what)?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            // An error of ours already prints what stands behind it.
            source = if error.is::<Self>() { None } else { error.source() };
        }
        for (at, cause) in inner.causes.iter().enumerate() {
            write!(f, "{}{cause}", if at == 0 { ": " } else { "; " })?;
        }
        match &inner.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.code)?;
        match &self.0.detail {
            Some(detail) => write!(f, " [{detail}]"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl From<crate::TokenError> for Error {
    fn from(error: crate::TokenError) -> Self {
        Self::unavailable("no token of this workload").because(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_hop_element_cause_and_remedy_in_one_line() {
        let error = Error::unavailable("cannot reach unix:///nsm.sock")
            .because(std::io::Error::other("refused"))
            .hint("start the manager")
            .at_element("connect")
            .at_element("begin")
            .at_hop(&"forwarder-1".into())
            .at_hop(&"nsmgr-1".into());
        assert_eq!(
            error.to_string(),
            "forwarder-1/connect: cannot reach unix:///nsm.sock: refused (start the manager)"
        );
        assert!(error.is_caused_by::<std::io::Error>());
    }

    #[test]
    fn an_aggregate_keeps_each_cause_and_the_most_telling_code() {
        let error = Error::all_failed(
            "every endpoint of vpn failed",
            vec![Error::unavailable("nse-1 is down"), Error::denied("nse-2 said no")],
        );
        assert_eq!(error.code(), Code::PermissionDenied);
        assert_eq!(error.causes().len(), 2);
        assert_eq!(error.to_string(), "every endpoint of vpn failed: nse-1 is down; nse-2 said no");
    }

    #[test]
    fn detail_is_for_the_log_only() {
        let error = Error::denied("no sufficient privileges").with_detail("policy tokens_chained");
        assert!(!error.to_string().contains("tokens_chained"));
        assert!(format!("{error:?}").contains("tokens_chained"));
    }
}
