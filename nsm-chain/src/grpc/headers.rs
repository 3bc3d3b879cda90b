//! The headers that travel with each RPC: `nsm-client-token`, `nsm-client-token-expires`, `path`.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataMap;

use crate::{Error, PathToken, RegistryPath, Result, Token};

const TOKEN: &str = "nsm-client-token";
const EXPIRES: &str = "nsm-client-token-expires";
const PATH: &str = "path";
/// A header of more segments than any mesh has is not a path.
const MOST_SEGMENTS: usize = 256;

/// Puts the caller's token beside a call.
///
/// # Errors
/// When the token has bytes that no header can carry.
pub fn send_token(metadata: &mut MetadataMap, token: &Token) -> Result<()> {
    let unfit = |_| Error::internal("the token cannot travel in a header");
    metadata.insert(TOKEN, token.text.parse().map_err(unfit)?);
    metadata.insert(EXPIRES, rfc3339(token.expires).parse().map_err(unfit)?);
    Ok(())
}

/// The caller's token, if one came: both headers, exactly once.
///
/// # Errors
/// When one is missing, doubled or unreadable.
pub fn receive_token(metadata: &MetadataMap) -> Result<Option<Token>> {
    let one = |key| -> Result<Option<&str>> {
        let mut all = metadata.get_all(key).iter();
        match (all.next(), all.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                value.to_str().map(Some).map_err(|_| Error::invalid(format!("the header {key} is not text")))
            }
            (Some(_), Some(_)) => Err(Error::invalid(format!("the header {key} came more than once"))),
        }
    };
    match (one(TOKEN)?, one(EXPIRES)?) {
        (None, None) => Ok(None),
        (Some(text), Some(expires)) => {
            let expires = parse_rfc3339(expires)
                .ok_or_else(|| Error::invalid(format!("the header {EXPIRES} is not an RFC 3339 time")))?;
            Ok(Some(Token { text: text.into(), expires }))
        }
        _ => Err(Error::invalid(format!("{TOKEN} and {EXPIRES} must come together"))),
    }
}

#[derive(Serialize, Deserialize)]
struct PathHeader {
    #[serde(rename = "Index", alias = "index", default)]
    index: u32,
    #[serde(rename = "PathSegments", alias = "pathSegments", alias = "path_segments", default)]
    segments: Option<Vec<Option<Segment>>>,
}

#[derive(Serialize, Deserialize)]
struct Segment {
    #[serde(alias = "Token", default)]
    token: String,
}

/// Puts a registry path beside a call, or beside an answer.
///
/// # Errors
/// When a token has characters that no header can carry, as no JWT has.
pub fn send_path(metadata: &mut MetadataMap, path: &RegistryPath) -> Result<()> {
    let segments = path.tokens.iter().map(|token| Some(Segment { token: token.0.clone() })).collect();
    let header = PathHeader { index: u32::try_from(path.index).unwrap_or(u32::MAX), segments: Some(segments) };
    let text =
        serde_json::to_string(&header).map_err(|error| Error::internal("cannot write the path").because(error))?;
    let unfit = || Error::invalid("a token of the path cannot travel in a header");
    // What is not ASCII could be put there, and nobody would read it.
    let value = if text.is_ascii() { text.parse().map_err(|_| unfit())? } else { return Err(unfit()) };
    metadata.insert(PATH, value);
    Ok(())
}

/// The registry path that came, if one did; of several the last counts. An absent list or segment is an empty one.
///
/// # Errors
/// When it is not the JSON it should be, or longer than any path is.
pub fn receive_path(metadata: &MetadataMap) -> Result<Option<RegistryPath>> {
    let Some(value) = metadata.get_all(PATH).iter().next_back() else {
        return Ok(None);
    };
    let wrong = || Error::invalid("the header path is not a registry path");
    let text = value.to_str().map_err(|_| wrong())?;
    // serde would take a list for the object as well.
    if !text.trim_start().starts_with('{') {
        return Err(wrong());
    }
    let header: PathHeader = serde_json::from_str(text).map_err(|error| wrong().because(without_text(&error)))?;
    let segments = header.segments.unwrap_or_default();
    if segments.len() > MOST_SEGMENTS {
        return Err(Error::invalid(format!("a registry path of more than {MOST_SEGMENTS} segments")));
    }
    let tokens = segments.into_iter().map(|segment| PathToken(segment.map(|s| s.token).unwrap_or_default())).collect();
    Ok(Some(RegistryPath { index: header.index as usize, tokens }))
}

/// A parse error by place only: its text may quote a token.
fn without_text(error: &serde_json::Error) -> String {
    format!("{:?} error at column {}", error.classify(), error.column())
}

/// A time as RFC 3339 with nanoseconds, in UTC.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let (seconds, nanos) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let extra = i64::from(before.subsec_nanos() > 0);
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            (-whole - extra, (1_000_000_000 - before.subsec_nanos()) % 1_000_000_000)
        }
    };
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// A time from RFC 3339, with any fraction and any offset.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().try_fold(0_i64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
    };
    let is = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|byte| any.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month)
        || !(1..=days_in(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0_u32;
    if is(at, b".") {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        for place in 0..9 {
            let digit = if place < digits { u32::from(bytes[at + 1 + place] - b'0') } else { 0 };
            nanos = nanos * 10 + digit;
        }
        if digits == 0 {
            return None;
        }
        at += 1 + digits;
    }
    let offset = if is(at, b"Zz") && bytes.len() == at + 1 {
        0
    } else if is(at, b"+-") && is(at + 3, b":") && bytes.len() == at + 6 {
        let size = number(at + 1, at + 3)? * 3600 + number(at + 4, at + 6)? * 60;
        if is(at, b"-") { -size } else { size }
    } else {
        return None;
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base =
        if seconds < 0 { SystemTime::UNIX_EPOCH.checked_sub(whole) } else { SystemTime::UNIX_EPOCH.checked_add(whole) };
    base?.checked_add(Duration::from_nanos(nanos.into()))
}

/// How many days a month has.
fn days_in(year: i64, month: i64) -> i64 {
    let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days(next_year, next, 1) - days(year, month, 1)
}

/// Days since 1970-01-01 of a date in the Gregorian calendar, counted in eras of 400 years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (year + era * 400 + i64::from(month <= 2), month, of_year - (153 * march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unix(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_not_sent() {
        let mut metadata = MetadataMap::new();
        metadata.insert(PATH, r#"{"Index":0,"PathSegments":[{"token":"\u1013"}]}"#.parse().unwrap());
        let path = receive_path(&metadata).unwrap().unwrap();
        let error = send_path(&mut MetadataMap::new(), &path).unwrap_err();
        assert_eq!(error.code(), crate::Code::InvalidArgument);
    }

    #[test]
    fn known_times_read_as_they_should() {
        assert_eq!(parse_rfc3339("2001-09-09T01:46:40Z"), Some(unix(1_000_000_000)));
        assert_eq!(
            parse_rfc3339("2001-09-09T03:46:40.000000001+02:00"),
            Some(unix(1_000_000_000) + Duration::from_nanos(1))
        );
        assert_eq!(parse_rfc3339("2024-02-29T00:00:00-00:30"), Some(unix(1_709_166_600)));
        assert_eq!(rfc3339(unix(1_709_164_800)), "2024-02-29T00:00:00.000000000Z");
        for wrong in [
            "",
            "2024-02-29",
            "2024-13-01T00:00:00Z",
            "2024-02-29T00:00:00",
            "2024-02-29T00:00:00.Z",
            "2024-02-29T00:00:00+1",
            "2023-02-29T00:00:00Z",
            "2024-04-31T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_time_comes_back(seconds in 0_u64..200_000_000_000, nanos in 0_u32..1_000_000_000) {
            let time = unix(seconds) + Duration::from_nanos(nanos.into());
            if seconds < 253_402_300_800 {
                prop_assert_eq!(parse_rfc3339(&rfc3339(time)), Some(time));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse_rfc3339(&text);
        }
    }

    #[test]
    fn a_path_travels_in_the_case_the_reference_writes() {
        let mut metadata = MetadataMap::new();
        let path = RegistryPath { index: 1, tokens: vec![PathToken("a".into()), PathToken("b".into())] };
        send_path(&mut metadata, &path).unwrap();
        assert_eq!(metadata.get("path").unwrap(), r#"{"Index":1,"PathSegments":[{"token":"a"},{"token":"b"}]}"#);
        assert_eq!(receive_path(&metadata).unwrap(), Some(path));
    }

    #[test]
    fn null_lists_and_segments_are_empty_and_junk_is_refused_without_quoting_it() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("path", text.parse().unwrap());
            receive_path(&metadata)
        };
        assert_eq!(read(r#"{"Index":0,"PathSegments":null}"#).unwrap(), Some(RegistryPath::default()));
        assert_eq!(read(r#"{"PathSegments":[null]}"#).unwrap().unwrap().tokens.len(), 1);
        let error = read(r#"{"Index":"secret-token"}"#).unwrap_err();
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
