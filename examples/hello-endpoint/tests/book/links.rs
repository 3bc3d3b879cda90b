//! Links of the README and the book lead to something, and the table of contents is complete.

use std::path::{Path, PathBuf};

use crate::{files, read, root};

fn pages() -> Vec<PathBuf> {
    let mut pages = files("docs", "md");
    pages.extend(["README.md", "examples/README.md", "nsm-sdk/README.md"].map(PathBuf::from));
    pages
}

/// The targets of a page's links to files.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).map(str::to_owned).collect()
}

#[test]
fn every_link_leads_to_something() {
    let mut broken = Vec::new();
    for page in pages() {
        let folder = page.parent().unwrap_or(Path::new(""));
        for link in links(&read(&page)) {
            if !root().join(folder).join(&link).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let contents = links(&read("docs/SUMMARY.md"));
    for page in files("docs", "md") {
        let name = page.strip_prefix("docs").unwrap().display().to_string();
        assert!(name == "SUMMARY.md" || contents.contains(&name), "docs/SUMMARY.md lacks {name}");
    }
}
