use std::str::FromStr;

use ipnet::IpNet;

use super::{Malformed, malformed};

/// Prefixes in groups, such as `[172.16.0.0/16,172.17.0.0/16],fd00::/64`. A prefix without brackets is a group of its
/// own. A connection gets addresses of each group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CidrGroups(pub(crate) Vec<Vec<IpNet>>);

impl FromStr for CidrGroups {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut groups = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (group, after) = match rest.strip_prefix('[') {
                Some(inside) => inside.split_once(']').ok_or_else(|| Malformed("a ] is missing".into()))?,
                None => rest.split_at(rest.find(',').unwrap_or(rest.len())),
            };
            let nets = group.split(',').map(|net| net.trim().parse::<IpNet>().map_err(|_| not_a_prefix(net)));
            groups.push(nets.collect::<Result<_, _>>()?);
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(next) if next.trim().is_empty() => return Err(malformed("it ends with a comma")),
                Some(next) => next.trim_start(),
                None if after.is_empty() => after,
                None => return Err(malformed("groups are separated by commas")),
            };
        }
        Ok(Self(groups))
    }
}

fn not_a_prefix(text: &str) -> Malformed {
    Malformed(format!("{text:?} is no prefix; write 172.16.0.0/16 or fd00::/64, groups as [a,b],[c]"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn groups_and_single_prefixes_mix() {
        let CidrGroups(groups) = "[10.0.0.0/24,10.1.0.0/24], fd00::/64 ,[10.2.0.0/16]".parse().unwrap();
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1]);
        assert_eq!("".parse(), Ok(CidrGroups(vec![])));
    }

    #[test]
    fn what_is_no_group_is_refused() {
        for text in ["10.0.0.0", "[10.0.0.0/24", "10.0.0.0/24,", "[]", "[10.0.0.0/24]10.1.0.0/24", "10.0.0.0/33"] {
            assert!(text.parse::<CidrGroups>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(groups in prop::collection::vec(prop::collection::vec((any::<u32>(), 0u8..=32), 1..4), 0..4)) {
            let groups: Vec<Vec<IpNet>> = groups
                .into_iter()
                .map(|group| group.into_iter().map(|(ip, len)| format!("{}/{len}", std::net::Ipv4Addr::from(ip)).parse().unwrap()).collect())
                .collect();
            let text: Vec<String> = groups
                .iter()
                .map(|group| format!("[{}]", group.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")))
                .collect();
            prop_assert_eq!(text.join(",").parse(), Ok(CidrGroups(groups)));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[\\[\\]0-9./:, a-f]{0,30}") {
            let _ = text.parse::<CidrGroups>();
        }
    }
}
