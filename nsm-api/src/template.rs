//! Templates in selector values: the part of Go's `text/template` that network services use.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Replaces `{{.key}}` and `{{index . "key"}}` by the value of that key; other text stays.
///
/// As in Go, a key that is absent renders as `<no value>` in the first form and as nothing in the second, which
/// is there for keys that are not identifiers (`app.kubernetes.io/name`). Text that is not a
/// template of this subset is returned as it is, which is what the reference does with a template that Go
/// cannot parse. Text without `{{` is not copied.
///
/// ```
/// use std::collections::BTreeMap;
/// use nsm_api::template::render;
///
/// let labels = BTreeMap::from([("nodeName".to_owned(), "node-1".to_owned())]);
/// assert_eq!(render("on {{ .nodeName }}", &labels), "on node-1");
/// assert_eq!(render("{{.podName}}", &labels), "<no value>");
/// assert_eq!(render("{{broken", &labels), "{{broken");
/// ```
pub fn render<'t>(text: &'t str, labels: &BTreeMap<String, String>) -> Cow<'t, str> {
    if !text.contains("{{") {
        return Cow::Borrowed(text);
    }
    expand(text, labels).map_or(Cow::Borrowed(text), Cow::Owned)
}

fn expand(text: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, action)) = rest.split_once("{{") {
        out.push_str(before);
        let (value, after) = evaluate(action.trim_start(), labels)?;
        out.push_str(value);
        rest = after.trim_start().strip_prefix("}}")?;
    }
    out.push_str(rest);
    Some(out)
}

/// The value of the action that `text` begins with, and what follows it.
fn evaluate<'a>(text: &'a str, labels: &'a BTreeMap<String, String>) -> Option<(&'a str, &'a str)> {
    if let Some(field) = text.strip_prefix('.') {
        let end = field.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(field.len());
        let (key, after) = field.split_at(end);
        let identifier = key.starts_with(|c: char| c.is_alphabetic() || c == '_');
        return identifier.then(|| (labels.get(key).map_or("<no value>", String::as_str), after));
    }
    let operands = text.strip_prefix("index")?;
    let dot = operands.trim_start().strip_prefix('.')?;
    let (key, after) = quoted(dot.trim_start())?;
    let separate = operands.len() > operands.trim_start().len() && dot.len() > dot.trim_start().len();
    separate.then(|| (labels.get(key).map_or("", String::as_str), after))
}

/// A string in double quotes (without escapes) or back quotes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '`'))?;
    let (key, after) = text.get(1..)?.split_once(quote)?;
    let plain = quote == '`' || !key.contains(['\\', '\n']);
    plain.then_some((key, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rendered(text: &str) -> String {
        let pairs = [("nodeName", "node-1"), ("a.b/c", "dotted"), ("_x1", "x")];
        let labels = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        render(text, &labels).into_owned()
    }

    #[test]
    fn fields_and_index_are_replaced() {
        assert_eq!(rendered("{{.nodeName}}-{{ ._x1 }}!"), "node-1-x!");
        assert_eq!(rendered(r#"{{index . "a.b/c"}}{{ index  .  `nodeName` }}"#), "dottednode-1");
    }

    #[test]
    fn an_absent_key_renders_as_go_renders_it() {
        assert_eq!(rendered("{{.other}}"), "<no value>");
        assert_eq!(rendered(r#"<{{index . "other"}}>"#), "<>");
    }

    #[test]
    fn what_is_no_template_of_the_subset_stays_as_it_is() {
        for text in [
            "",
            "plain",
            "}}",
            "{{",
            "{{.",
            "{{.}}",
            "{{.a.b}}",
            "{{.1}}",
            "{{.nodeName",
            "{{ nodeName }}",
            "{{index .\"nodeName\"}}",
            "{{indexx . \"a\"}}",
            "{{index . \"a\\\"\"}}",
            "{{index . nodeName}}",
            "{{.nodeName}}{{",
        ] {
            assert_eq!(rendered(text), text);
        }
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(render("plain", &BTreeMap::new()), Cow::Borrowed("plain")));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(parts in prop::collection::vec("(\\{\\{|\\}\\}|index|\\.|\"|`| |.{0,3})", 0..10)) {
            let text = parts.concat();
            let once = rendered(&text);
            prop_assert!(text.contains("{{") || once == text);
        }

        #[test]
        fn every_identifier_renders_its_value(key in "[a-zA-Z_][a-zA-Z0-9_]{0,8}", value in ".{0,8}") {
            let labels = BTreeMap::from([(key.clone(), value.clone())]);
            let text = format!("{{{{ .{key} }}}}");
            prop_assert_eq!(render(&text, &labels), value.as_str());
        }
    }
}
