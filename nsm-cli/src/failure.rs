//! What went wrong, as a person needs it: where, why, and what to do.

use std::error::Error as StdError;
use std::fmt;

use nsm_chain::{Code, Error};
use serde::{Deserialize, Serialize};

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The hop, or the step of the lab, that failed.
    pub(crate) hop: String,
    /// The element of that hop's chain.
    pub(crate) element: Option<String>,
    /// What failed and why.
    pub(crate) cause: String,
    /// What to do.
    pub(crate) remedy: String,
}

/// EMFILE, as the standard library writes it; an error that came over gRPC is text.
const TOO_MANY_FILES: &str = "(os error 24)";
/// Where nobody knows better.
const LOOK_CLOSER: &str = "run it again with RUST_LOG=debug to see each step";

impl Failure {
    /// Something failed at this hop or step.
    pub(crate) fn at(hop: impl Into<String>, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { hop: hop.into(), element: None, cause: cause.into(), remedy: remedy.into() }
    }

    /// An error with its sources, at this hop or step. Errors of chains name the hop themselves.
    pub(crate) fn of(hop: &str, error: &(dyn StdError + 'static)) -> Self {
        let mut source = Some(error);
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<Error>() {
                return Self::of_chain(hop, error);
            }
            source = error.source();
        }
        Self::told(hop.to_owned(), with_sources(error))
    }

    /// The innermost report of a chain's error, which is the most precise.
    fn of_chain(hop: &str, error: &Error) -> Self {
        // "The time is over" is not why: the last try's failure is.
        let over = matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled);
        let telling = error.causes().iter().find(|cause| cause.code() == error.code());
        let last = error.source().filter(|_| over).and_then(|source| source.downcast_ref::<Error>());
        if let Some(inner) = last.or(telling) {
            return Self::of_chain(error.hop().unwrap_or(hop), inner);
        }
        let sources = error.source().map(|source| format!(": {}", with_sources(source)));
        let cause = format!("{}{}", error.what(), sources.unwrap_or_default());
        let hop = error.hop().unwrap_or(hop).to_owned();
        let failure = match error.remedy() {
            Some(remedy) => Self::at(hop, cause, remedy),
            None => Self::told(hop, cause),
        };
        Self { element: error.element().map(str::to_owned), ..failure }
    }

    /// Errors of the kernel and of parsers bring their remedy with them, as "what and why; what to do".
    fn told(hop: String, text: String) -> Self {
        match text.rsplit_once("; ") {
            Some((cause, remedy)) => Self::at(hop, cause, remedy),
            None if text.contains(TOO_MANY_FILES) => Self::at(hop, text, "raise the limit of open files (ulimit -n)"),
            None => Self::at(hop, text, LOOK_CLOSER),
        }
    }
}

/// Behind the name of a program.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let element = self.element.as_ref().map(|element| format!(", element {element}")).unwrap_or_default();
        write!(f, "failed at {}{element}\n  because     {}\n  what to do  {}", self.hop, self.cause, self.remedy)
    }
}

fn with_sources(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        // Many errors print what stands behind them.
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_try_is_told_and_not_that_time_is_over() {
        let inner = Error::taken("nsm-1 is taken")
            .because(std::io::Error::other("by another"))
            .hint("choose another name")
            .at_element("CrossConnect")
            .at_hop(&"forwarder-1".into());
        let outer = Error::deadline("the caller's time is over").because(inner).at_hop(&"nsc-1".into());
        let failure = Failure::of("the request", &outer);
        assert_eq!(failure.hop, "forwarder-1");
        assert_eq!(failure.element.as_deref(), Some("CrossConnect"));
        assert_eq!(failure.cause, "nsm-1 is taken: by another");
        assert_eq!(failure.remedy, "choose another name");
    }

    #[test]
    fn a_remedy_that_came_with_the_cause_is_told_apart() {
        let error = "sixteen-letters-x".parse::<nsm_kernel::InterfaceName>().unwrap_err();
        let failure = Failure::of("nsc-1", &error);
        assert!(failure.cause.ends_with("longer than 15 bytes"), "{failure:?}");
        assert!(failure.remedy.starts_with("choose"), "{failure:?}");
    }

    #[test]
    fn of_several_causes_the_telling_one_is_told() {
        let far = Error::unavailable("nse-1 is away").at_hop(&"nse-1".into());
        let near = Error::denied("not for you").hint("ask somebody").at_hop(&"nse-2".into());
        let failure = Failure::of("x", &Error::all_failed("none accepted", vec![far, near]));
        assert_eq!((failure.hop.as_str(), failure.remedy.as_str()), ("nse-2", "ask somebody"));
    }
}
