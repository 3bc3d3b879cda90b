//! Our error as a gRPC status, and back.

use std::error::Error as StdError;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::Error;

const HOP: &str = "nsm-error-hop";
const ELEMENT: &str = "nsm-error-element";
const HINT: &str = "nsm-error-hint";
/// Headers stay small: a peer limits all of them together.
const LONGEST: usize = 512;

impl From<Error> for Status {
    /// The text is the error's one line; what only our log may know stays here.
    fn from(error: Error) -> Self {
        let mut metadata = MetadataMap::new();
        for (key, value) in [(HOP, error.hop()), (ELEMENT, error.element()), (HINT, error.remedy())] {
            if let Some(value) = value.and_then(header) {
                metadata.insert(key, value);
            }
        }
        Self::with_metadata(error.code(), error.to_string(), metadata)
    }
}

fn header(text: &str) -> Option<MetadataValue<Ascii>> {
    let plain: String =
        text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(LONGEST).collect();
    plain.parse().ok()
}

/// What a peer answered, as our error. If the peer said which hop and element failed, that is kept.
pub(crate) fn received(status: &Status, link: &str) -> Error {
    let said = |key| status.metadata().get(key).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (hop, element, hint) = (said(HOP), said(ELEMENT), said(HINT));
    if let Some(hop) = hop {
        // The text repeats place and remedy: take them off, they are fields again.
        let mut what = status.message().to_owned();
        let place = element.as_ref().map_or_else(|| format!("{hop}: "), |element| format!("{hop}/{element}: "));
        if let Some(rest) = what.strip_prefix(&place) {
            what = rest.to_owned();
        }
        let mut error = Error::new(status.code(), what).at_hop(&hop.into());
        if let Some(hint) = hint {
            if let Some(rest) = error.what().strip_suffix(&format!(" ({hint})")).map(str::to_owned) {
                error = error.with_what(rest);
            }
            error = error.hint(hint);
        }
        return match element {
            Some(element) => error.at_element(element),
            None => error,
        };
    }
    let text = status.message();
    let mut error = match status.code() {
        Code::Unavailable if text.is_empty() => Error::unavailable(format!("{link} does not answer")),
        Code::Unavailable => Error::unavailable(text.to_owned()),
        Code::Unimplemented => Error::unsupported(format!("{link} does not serve this: {text}")),
        code => return Error::new(code, format!("{link} answered: {text}")),
    };
    if let Some(source) = status.source() {
        error = error.because(source.to_string());
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_cause_and_remedy_survive_the_wire_but_detail_does_not() {
        let sent = Error::denied("no sufficient privileges")
            .with_detail("tokens_chained")
            .hint("ask for a certificate")
            .at_element("Authorize")
            .at_hop(&"nsmgr-1".into());
        let text = sent.to_string();
        let status = Status::from(sent);
        assert!(!format!("{status:?}").contains("tokens_chained"));
        let got = received(&status, "unix:///x").at_element("Connect").at_hop(&"nsc".into());
        assert_eq!(got.to_string(), text);
        assert_eq!(
            (got.hop(), got.element(), got.remedy()),
            (Some("nsmgr-1"), Some("Authorize"), Some("ask for a certificate"))
        );
        assert_eq!(got.code(), Code::PermissionDenied);
    }

    #[test]
    fn a_foreign_status_keeps_code_and_text() {
        let got = received(&Status::unknown("boom"), "tcp://1.2.3.4:5");
        assert_eq!(got.to_string(), "tcp://1.2.3.4:5 answered: boom");
    }
}
