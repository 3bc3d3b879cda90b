use std::str::FromStr;

use super::Malformed;

/// On or off, in the words that Go's `strconv.ParseBool` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Switch(pub(crate) bool);

impl FromStr for Switch {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Self(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Self(false)),
            _ => Err(Malformed("it is neither on nor off; write true or false".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_of_go_are_known() {
        assert_eq!("True".parse(), Ok(Switch(true)));
        assert_eq!("0".parse(), Ok(Switch(false)));
        for other in ["", "yes", "tRUE", "on", " true"] {
            assert!(other.parse::<Switch>().is_err(), "{other:?}");
        }
    }
}
