//! Settings in a file: TOML or YAML, one table of keys.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::failure::Failure;

/// One key of a file, with its value as a variable would have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) text: String,
}

/// Reads a file whose name says what it is.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, Failure> {
    let shown = path.display().to_string();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let parse = match extension {
        "toml" => toml,
        "yaml" | "yml" => yaml,
        _ => {
            let cause = "its name ends neither in .toml nor in .yaml or .yml";
            return Err(Failure::at(shown, cause, "name the file after what is in it"));
        }
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::at(&shown, error.to_string(), "give the path of a file that this user may read"))?;
    let entries = parse(&text).map_err(|cause| Failure::at(&shown, cause, "correct the file"))?;
    match entries.iter().enumerate().find(|(at, entry)| entries.iter().take(*at).any(|former| former.key == entry.key))
    {
        Some((_, twice)) => {
            let place = format!("{shown}, line {}", twice.line);
            Err(Failure::at(place, format!("{} is there twice", twice.key), "name each setting once"))
        }
        None => Ok(entries),
    }
}

fn toml(text: &str) -> Result<Vec<Entry>, String> {
    let Table(pairs) = toml::from_str::<Table<toml::Spanned<String>>>(text).map_err(|error| error.to_string())?;
    let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    pairs.into_iter().map(|(key, value)| entry(key.get_ref().clone(), line(key.span().start), &value)).collect()
}

fn yaml(text: &str) -> Result<Vec<Entry>, String> {
    type Pairs = Option<Table<serde_saphyr::Spanned<String>>>;
    let pairs = serde_saphyr::from_str::<Pairs>(text).map_err(|error| error.to_string())?;
    let line = |location: serde_saphyr::Location| usize::try_from(location.line()).unwrap_or(0);
    let pairs = pairs.map(|Table(pairs)| pairs).unwrap_or_default();
    pairs.into_iter().map(|(key, value)| entry(key.value, line(key.referenced), &value)).collect()
}

fn entry(key: String, line: usize, value: &Value) -> Result<Entry, String> {
    let text = text(value).ok_or_else(|| format!("line {line}: {key} has a value of a kind that no setting has"))?;
    Ok(Entry { key, line, text })
}

/// A value as a variable would have it: a list joined by commas, a table as pairs, a list of tables as JSON.
fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().any(Value::is_object) => value.to_string(),
        Value::Array(list) => {
            let parts = list.iter().map(|part| match part {
                // A group.
                Value::Array(_) => text(part).map(|text| format!("[{text}]")),
                _ => text(part),
            });
            parts.collect::<Option<Vec<_>>>()?.join(",")
        }
        Value::Object(table) => {
            let pair = |(key, value): (&String, &Value)| match value {
                Value::Array(_) | Value::Object(_) => None,
                _ => Some(format!("{key}:{}", text(value)?)),
            };
            table.iter().map(pair).collect::<Option<Vec<_>>>()?.join(",")
        }
    })
}

/// The pairs of a table, with keys of a kind that knows where it was.
struct Table<K>(Vec<(K, Value)>);

impl<'de, K: Deserialize<'de>> Deserialize<'de> for Table<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<K>(PhantomData<K>);
        impl<'de, K: Deserialize<'de>> Visitor<'de> for Pairs<K> {
            type Value = Table<K>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of settings, such as `log_level: DEBUG`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table<K>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Table(pairs))
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(entries: Result<Vec<Entry>, String>) -> Vec<(String, usize, String)> {
        let mut shown: Vec<_> = entries.unwrap().into_iter().map(|entry| (entry.key, entry.line, entry.text)).collect();
        shown.sort_by_key(|(_, line, _)| *line);
        shown
    }

    #[test]
    fn both_languages_say_the_same_and_know_their_lines() {
        let in_toml = "# settings\nlisten_on = [\"unix:///a\", \"tcp://:5001\"]\n\nlabels = { app = \"web\", tier = 2 }\n\
                       cidr_prefix = [[\"10.0.0.0/24\"], \"fd00::/64\"]\nregister_service = true\nvxlan_port = 4789\n\
                       dns_configs = [{ dns_server_ips = [\"10.0.0.1\"] }]\n";
        let in_yaml = "# settings\nlisten_on:\n  - unix:///a\n  - tcp://:5001\nlabels: {app: web, tier: 2}\n\
                       cidr_prefix: [[10.0.0.0/24], \"fd00::/64\"]\nregister_service: true\nvxlan_port: 4789\n\
                       dns_configs:\n  - dns_server_ips: [10.0.0.1]\n";
        let expected = [
            ("listen_on", "unix:///a,tcp://:5001"),
            ("labels", "app:web,tier:2"),
            ("cidr_prefix", "[10.0.0.0/24],fd00::/64"),
            ("register_service", "true"),
            ("vxlan_port", "4789"),
            ("dns_configs", r#"[{"dns_server_ips":["10.0.0.1"]}]"#),
        ];
        for (entries, lines) in [(toml(in_toml), [2, 4, 5, 6, 7, 8]), (yaml(in_yaml), [2, 5, 6, 7, 8, 9])] {
            let expected = expected.iter().zip(lines);
            let expected = expected.map(|((key, text), line)| ((*key).to_owned(), line, (*text).to_owned()));
            assert_eq!(shown(entries), expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_empty_file_sets_nothing_and_other_shapes_are_told() {
        assert!(yaml("# nothing\n").unwrap().is_empty());
        assert!(toml("").unwrap().is_empty());
        assert!(yaml("- a\n- b\n").is_err());
        assert!(toml("a = ").unwrap_err().contains("line 1"));
        assert!(yaml("labels: {app: [1]}\n").unwrap_err().contains("line 1: labels"));
    }

    #[test]
    fn the_name_says_what_it_is() {
        let failure = read(Path::new("/etc/nsm/settings.json")).unwrap_err();
        assert!(failure.cause.contains(".toml"), "{failure:?}");
        let failure = read(Path::new("/nonexistent/settings.toml")).unwrap_err();
        assert!(failure.cause.contains("No such file"), "{failure:?}");
    }
}
