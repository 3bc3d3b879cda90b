use std::str::FromStr;

use tracing_subscriber::filter::LevelFilter;

use super::Malformed;

/// How much is logged, in the reference's words. What it ends or panics for is an error here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level(pub(crate) LevelFilter);

impl FromStr for Level {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Ok(Self(match text.to_ascii_lowercase().as_str() {
            "panic" | "fatal" | "error" => LevelFilter::ERROR,
            "warn" | "warning" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return Err(Malformed("no level; write TRACE, DEBUG, INFO, WARN or ERROR".into())),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_reference_are_known_in_any_case() {
        assert_eq!("Warning".parse(), Ok(Level(LevelFilter::WARN)));
        assert_eq!("FATAL".parse(), Ok(Level(LevelFilter::ERROR)));
        assert!("loud".parse::<Level>().is_err());
    }
}
