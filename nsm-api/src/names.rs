//! Names across domains: `name@domain`, split at the first `@`.

/// Stands between a name and its domain.
pub const SEPARATOR: char = '@';

/// Whether `name` says a domain.
pub fn is_interdomain(name: &str) -> bool {
    name.contains(SEPARATOR)
}

/// The part before the first `@`; all of it when there is none.
///
/// ```
/// assert_eq!(nsm_api::names::target("vpn@floating.domain"), "vpn");
/// ```
pub fn target(name: &str) -> &str {
    name.split_once(SEPARATOR).map_or(name, |(target, _)| target)
}

/// The part after the first `@`; empty when there is none.
pub fn domain(name: &str) -> &str {
    name.split_once(SEPARATOR).map_or("", |(_, domain)| domain)
}

/// `target@domain`, or `target` alone when the domain is empty.
pub fn join(target: &str, domain: &str) -> String {
    if domain.is_empty() { target.to_owned() } else { format!("{target}{SEPARATOR}{domain}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_separator_splits() {
        assert_eq!((target("a@b@c"), domain("a@b@c")), ("a", "b@c"));
        assert_eq!((target("a"), domain("a")), ("a", ""));
        assert!(is_interdomain("a@") && !is_interdomain("a"));
    }

    proptest! {
        #[test]
        fn join_undoes_the_split(target_part in "[^@]{0,8}", domain_part in ".{0,8}") {
            let name = join(&target_part, &domain_part);
            prop_assert_eq!(target(&name), target_part);
            prop_assert_eq!(domain(&name), domain_part);
        }
    }
}
