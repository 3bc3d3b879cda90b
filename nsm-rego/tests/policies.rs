//! Policies from files: which masks find what, and what a policy of one's own may be.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nsm_rego::{Masks, PolicyError, RegoPolicy, load};
use nsm_sdk::identity::{About, CustomPolicy, PolicyInput, PolicySet};
use serde_json::json;
use tokio::time::Instant;

/// A directory that is gone when the test is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nsm-rego-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const YES: &str = "package nsm\ndefault valid = true";

/// The names of what masks choose, with nothing on disk but what the test wrote.
fn chosen(scratch: &Scratch, masks: &[&str]) -> Result<Vec<String>, PolicyError> {
    let masks_at = Masks::default().in_directory(scratch.0.join("work")).below(scratch.0.join("root"));
    let set = masks_at.load(masks)?;
    let base = format!("{}/", scratch.0.display());
    Ok(set.rules().iter().map(|rule| rule.name().replace(&base, "")).collect())
}

#[test]
fn the_references_default_masks_are_the_stock_sets() {
    let names = |set: PolicySet| format!("{set:?}");
    let registry = ["etc/nsm/opa/common/.*.rego", "etc/nsm/opa/registry/.*.rego"];
    let with = |folder: &str| {
        let mut masks: Vec<String> = registry.iter().map(ToString::to_string).collect();
        masks.push(format!("etc/nsm/opa/{folder}/.*.rego"));
        names(load(&masks).unwrap())
    };
    assert_eq!(with("server"), names(PolicySet::registry_server()));
    assert_eq!(with("client"), names(PolicySet::registry_client()));
    let both = ["etc/nsm/opa/common/.*.rego", "etc/nsm/opa/server/.*.rego"];
    assert_eq!(names(load(&both).unwrap()), names(PolicySet::server()));
}

#[test]
fn masks_find_stock_policies_and_files_each_once_and_a_file_takes_the_place_of_a_stock_one() {
    let scratch = Scratch::new("masks");
    for (masks, found) in [
        (&["etc/nsm/opa/.*"][..], 7),
        (&["/etc/nsm/opa/common/.*.rego"], 3),
        (&["etc/nsm/opa/common/.*.rego", "/etc/nsm/opa/common/.*.rego", "etc/nsm/opa/common/tokens_valid.rego"], 3),
        (&[" etc/nsm/opa/(common|server)/.*_(signed|valid).rego ", ""], 2),
    ] {
        assert_eq!(chosen(&scratch, masks).unwrap().len(), found, "{masks:?}");
    }

    scratch.write("root/etc/nsm/opa/common/tokens_valid.rego", YES);
    scratch.write("root/etc/nsm/opa/common/more.rego", YES);
    scratch.write("root/etc/nsm/opa/common/..2026/more.rego", YES);
    scratch.write("root/etc/nsm/opa/common/README", "not a policy");
    scratch.write("work/etc/nsm/opa/common/tokens_expired.rego", YES);
    scratch.write("root/etc/nsm/opa/common/tokens_expired.rego", YES);
    scratch.write("work/mine/deep/a.rego", YES);
    scratch.write("root/mine/b.rego", YES);
    scratch.write("work/strange(name.rego", YES);
    let common = [
        "root/etc/nsm/opa/common/tokens_valid.rego",
        "work/etc/nsm/opa/common/tokens_expired.rego",
        "tokens_chained",
        "root/etc/nsm/opa/common/more.rego",
    ];
    for (masks, found) in [
        (&["etc/nsm/opa/common/.*.rego"][..], &common[..]),
        (&["/etc/nsm/opa/common/tokens_valid.rego"], &common[..1]),
        (&["mine/.*.rego"], &["work/mine/deep/a.rego"]),
        (&["/mine/.*.rego"], &["root/mine/b.rego"]),
        (&["mine/deep/a.rego", "mine/.*"], &["work/mine/deep/a.rego"]),
        (&["strange(name.rego"], &["work/strange(name.rego"]),
    ] {
        assert_eq!(chosen(&scratch, masks).unwrap(), found, "{masks:?}");
    }
}

#[test]
fn what_would_let_everybody_in_by_mistake_is_an_error_at_start() {
    let scratch = Scratch::new("errors");
    let error = |masks: &[&str]| chosen(&scratch, masks).unwrap_err().to_string();
    assert!(error(&[]).contains("say allow-all"));
    assert!(error(&["", " "]).contains("say allow-all"));
    assert!(error(&["allow-all", "etc/nsm/opa/.*"]).contains("among other policies"));
    assert!(error(&["etc/(.rego"]).contains("no regular expression"));
    let nothing = error(&["etc/nsm/opa/common/.*.rego", "etc/nsm/opa/comon/.*.rego"]);
    let root = scratch.0.join("root/etc/nsm/opa/comon");
    for part in ["\"etc/nsm/opa/comon/.*.rego\"", root.to_str().unwrap(), "etc/nsm/opa/common/tokens_valid.rego"] {
        assert!(nothing.contains(part), "{nothing}");
    }
    // Whole paths, not parts of them.
    assert!(error(&["nsm/opa/common/.*.rego"]).contains("matches nothing"));
    assert_eq!(chosen(&scratch, &["allow-all"]).unwrap(), Vec::<String>::new());
    scratch.write("work/bad.rego", "package nsm\nvalid {");
    let bad = error(&["bad.rego"]);
    assert!(bad.contains("bad.rego is no usable policy"), "{bad}");
}

#[test]
fn a_policy_is_refused_at_load_for_what_it_could_not_do_later() {
    for (text, reason) in [
        ("package nsm\nvalid { http.send({}) }", "p.rego, line 2: there is no function http.send"),
        (
            "package nsm\nvalid {\n x := [y | y := crypto.sha256(\"a\")]\n}",
            "line 3: there is no function crypto.sha256",
        ),
        ("package nsm\nvalid { not helper(1) }", "there is no function helper"),
        ("package nsm\nvalid { io.jwt.decode(\"a\", [_, x, _]); x }", "io.jwt.decode takes 1 arguments, not 2"),
        ("package nsm\nvalid { f(1) }\nf(x) { g(x) }\ng(x) { data.nsm.f(x) }", "calls itself"),
        ("package nsm\nallow = true", "no rule valid"),
        ("package nsm\nvalid = ", "p.rego is no usable policy"),
        ("not rego", "p.rego is no usable policy"),
        ("", "p.rego is no usable policy"),
    ] {
        let error = RegoPolicy::new("p.rego", text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    for text in [
        "package nsm\nvalid { f(2) }\nf(x) { startswith(\"ab\", \"a\"); data.nsm.g(x) }\ng(x) { x > 1 }",
        "package site.names.deep\nimport future.keywords.in\nvalid { 1 in [1] }",
        "package test\ndefault valid = true",
    ] {
        let policy = RegoPolicy::new("p.rego", text).unwrap();
        assert!(policy.allows(&json!({}), UNIX_EPOCH).unwrap(), "{text}");
    }
}

#[test]
fn true_allows_false_and_nothing_deny_and_what_breaks_is_no_verdict() {
    let policy = |rule: &str| RegoPolicy::new("p.rego", &format!("package nsm\n{rule}")).unwrap();
    let asked = |rule: &str| policy(rule).allows(&json!({ "index": 3 }), UNIX_EPOCH + Duration::from_secs(10));
    assert!(asked("valid { input.index == 3 }").unwrap());
    assert!(!asked("valid { input.index == 4 }").unwrap());
    assert!(!asked("valid { input.nothing.at.all }").unwrap());
    assert!(!asked("valid { io.jwt.decode(\"junk\") }").unwrap());
    assert!(!asked("valid { io.jwt.decode(7) }").unwrap());
    assert!(!asked("valid = false").unwrap());
    assert!(asked("valid = 7").is_err());
    assert!(asked("valid = true { input.index }\nvalid = false { input.index }").is_err());
    assert!(asked("valid { time.now_ns() == 10000000000 }").unwrap());
    // Asked again, with another document, it has forgotten the first.
    let same = policy("valid { input.index == 3 }");
    for index in [3, 4, 3] {
        assert_eq!(same.allows(&json!({ "index": index }), UNIX_EPOCH).unwrap(), index == 3);
    }
}

#[test]
fn an_evaluation_without_end_is_broken_off() {
    let endless =
        "package nsm\nvalid { n := numbers.range(1, 3000); a := n[_]; b := n[_]; c := n[_]; a * b * c == -1 }";
    let policy = RegoPolicy::new("endless.rego", endless).unwrap();
    let start = Instant::now();
    let input = PolicyInput { tokens: &[], index: 0, peer: None, owner: None, about: About::Tokens, now: UNIX_EPOCH };
    let denied = PolicySet::of([nsm_sdk::identity::Rule::custom(policy)]).check(&input).unwrap_err();
    assert!(denied.failed, "{denied}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// The example of docs/policies.md.
#[test]
fn the_documents_example_lets_in_what_it_says() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policies.md")).unwrap();
    let text = page.split("```rego\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let policy = RegoPolicy::new("docs/policies.md", text).unwrap();
    let asks = |name: &str, id: &str| {
        let document = json!({ "resource_name": name, "resource_id": id });
        policy.allows(&document, UNIX_EPOCH).unwrap()
    };
    assert!(asks("db-1", "spiffe://example.org/ns/databases/sa/db"));
    assert!(!asks("db-1", "spiffe://example.org/ns/guests/sa/db"));
    assert!(asks("web-1", "spiffe://example.org/ns/guests/sa/web"));
    assert!(!asks("db-1", ""));
}
