//! `docs/elements.md` names every public element, and nothing else.

use std::collections::BTreeSet;

use crate::{library_sources, read};

/// An element: its name, and its file.
type Found = (String, String);

/// The types that implement `Element` in this file and are public.
fn elements(path: &str, code: &str) -> Vec<Found> {
    let words: Vec<&str> = code.split_whitespace().collect();
    let is_element = |word: &&str| *word == "Element" || word.starts_with("Element<");
    let mut found = Vec::new();
    for at in 0..words.len().saturating_sub(2) {
        // `impl<...> Element<...> for Name<...>`; generics may have spaces in them.
        if is_element(&words[at])
            && words[at + 1] == "for"
            && words[..at].iter().rev().take(12).any(|word| word.starts_with("impl"))
        {
            let name: String = words[at + 2].chars().take_while(|c| c.is_alphanumeric()).collect();
            let public = [" ", "<", "(", ";"].iter().any(|end| code.contains(&format!("pub struct {name}{end}")));
            if public {
                found.push((name, path.to_owned()));
            }
        }
    }
    found
}

/// The lines of the page's tables: `` | [`Name`](../path) | ``.
fn listed(page: &str) -> Vec<Found> {
    page.lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("| [`")?.split_once("`](../")?;
            let (path, _) = rest.split_once(')')?;
            Some((name.to_owned(), path.to_owned()))
        })
        .collect()
}

#[test]
fn the_page_names_every_element_and_no_other() {
    let code: BTreeSet<Found> = library_sources().iter().flat_map(|(path, code)| elements(path, code)).collect();
    let lines = listed(&read("docs/elements.md"));
    let page: BTreeSet<Found> = lines.iter().cloned().collect();
    assert_eq!(page.len(), lines.len(), "an element is listed twice");
    let missing: Vec<_> = code.difference(&page).collect();
    let gone: Vec<_> = page.difference(&code).collect();
    assert!(missing.is_empty() && gone.is_empty(), "docs/elements.md lacks {missing:#?}, and has {gone:#?} too much");
    assert!(code.len() > 50, "the search found only {code:?}");
}

#[test]
fn what_the_page_says_is_checked_is_what_an_element_demands() {
    let sources = library_sources();
    let page = read("docs/elements.md");
    let mut wrong = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| [`")) {
        let (name, path) = listed(line).remove(0);
        let stands = line.trim_end_matches('|').rsplit(" | ").next().unwrap_or_default();
        let said: BTreeSet<&str> = stands.split("**").skip(1).step_by(2).collect();
        let (_, code) = sources.iter().find(|(source, _)| *source == path).unwrap();
        let demanded = demands(code, &name);
        if !demanded.iter().map(String::as_str).eq(said.iter().copied()) {
            wrong.push(format!("{name} in {path}: the page says {said:?}, the code {demanded:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The names in an element's `order`; `last` where nothing may follow.
fn demands(code: &str, name: &str) -> BTreeSet<String> {
    let is_impl = |block: &&str| {
        let head = block.split('{').next().unwrap_or_default();
        let (before, after) = head.split_once(" for ").unwrap_or_default();
        before.contains("Element") && after.trim_start().split(|c: char| !c.is_alphanumeric()).next() == Some(name)
    };
    let code = code.split("\nmod tests").next().unwrap_or_default();
    let blocks = code.split("\nimpl").filter(is_impl);
    let order =
        blocks.filter_map(|block| block.split("fn order(&self)").nth(1)).flat_map(|text| text.split("\n    }").next());
    order
        .flat_map(|text| {
            let quoted = text.split('"').skip(1).step_by(2).map(str::to_owned);
            quoted.chain(text.contains("Order::LAST").then(|| "last".to_owned())).collect::<Vec<_>>()
        })
        .collect()
}
