//! Which functions a policy calls, found when it is loaded: regorus itself says so only when a call is reached.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::BUILTINS;
use serde_json::Value;

use crate::PolicyError;
use crate::builtins::ADDED;

/// One call in a policy.
struct Called {
    function: String,
    arguments: usize,
    line: u64,
}

/// Refuses a policy, given as its parsed module, that calls what there is not, or itself without end.
pub(crate) fn check(file: &str, package: &str, module: &Value) -> Result<(), PolicyError> {
    let rules = module["rules"].as_array();
    let mut own: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut all = Vec::new();
    for rule in rules.into_iter().flatten() {
        let mut called = Vec::new();
        calls(rule, &mut called);
        for call in &mut called {
            if let Some(local) = call.function.strip_prefix(package).and_then(|rest| rest.strip_prefix('.')) {
                call.function = local.to_owned();
            }
        }
        if let Some(name) = name(&rule["Spec"]["head"]["Func"]["refr"]).or_else(|| name(&rule["Default"]["refr"])) {
            own.entry(name).or_default().extend(called.iter().map(|call| call.function.clone()));
        }
        all.extend(called);
    }
    for Called { function, arguments, line } in all {
        if own.contains_key(&function) {
            continue;
        }
        let extension = ADDED.iter().find(|(name, _)| *name == function);
        if let Some((_, wanted)) = extension.filter(|(_, wanted)| usize::from(*wanted) != arguments) {
            let reason = format!("line {line}: {function} takes {wanted} arguments, not {arguments}");
            return Err(PolicyError::Rego { file: file.to_owned(), reason });
        }
        if extension.is_none() && function != "print" && !BUILTINS.contains_key(function.as_str()) {
            return Err(PolicyError::UnknownFunction { file: file.to_owned(), line, function });
        }
    }
    match own.keys().find(|name| calls_itself(name, &own)) {
        Some(name) => Err(PolicyError::Rego { file: file.to_owned(), reason: format!("{name} calls itself") }),
        None => Ok(()),
    }
}

fn calls_itself(name: &str, own: &BTreeMap<String, BTreeSet<String>>) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![name];
    while let Some(function) = next.pop() {
        for called in own.get(function).into_iter().flatten() {
            if called == name {
                return true;
            }
            if seen.insert(called) {
                next.push(called);
            }
        }
    }
    false
}

/// All calls anywhere below.
fn calls(tree: &Value, found: &mut Vec<Called>) {
    match tree {
        Value::Array(items) => items.iter().for_each(|item| calls(item, found)),
        Value::Object(fields) => {
            if let (Some(function), Some(arguments)) = (fields.get("fcn"), fields.get("params"))
                && let Some(function) = name(function)
            {
                let line = fields.get("span").and_then(|span| span["line"].as_u64()).unwrap_or_default();
                found.push(Called { function, arguments: arguments.as_array().map_or(0, Vec::len), line });
            }
            fields.values().for_each(|field| calls(field, found));
        }
        _ => {}
    }
}

/// `io.jwt.decode` out of a reference to it.
fn name(reference: &Value) -> Option<String> {
    if let Some(first) = reference["Var"]["value"].as_str() {
        return Some(first.to_owned());
    }
    let dot = reference.get("RefDot")?;
    Some(format!("{}.{}", name(&dot["refr"])?, dot["field"][1].as_str()?))
}
