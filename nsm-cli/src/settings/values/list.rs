use std::fmt::Display;
use std::ops::Deref;
use std::str::FromStr;

use super::Malformed;

/// Values separated by commas. Space around one is ignored; empty text is a list of none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T: FromStr<Err: Display>> FromStr for List<T> {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.trim().is_empty() {
            return Ok(Self(Vec::new()));
        }
        let one = |(at, part): (usize, &str)| {
            part.trim().parse().map_err(|error| Malformed(format!("number {} of the list: {error}", at + 1)))
        };
        text.split(',').enumerate().map(one).collect::<Result<_, _>>().map(Self)
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        assert_eq!("1, 2,3".parse(), Ok(List(vec![1, 2, 3])));
        assert_eq!(" ".parse(), Ok(List::<u8>(vec![])));
        let error = "1,x".parse::<List<u8>>().unwrap_err().0;
        assert!(error.starts_with("number 2 of the list: "), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_joined_is_taken_apart(numbers in prop::collection::vec(any::<u16>(), 0..9)) {
            let text = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            prop_assert_eq!(text.parse(), Ok(List(numbers)));
        }
    }
}
