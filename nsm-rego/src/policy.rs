use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use nsm_sdk::identity::CustomPolicy;
use nsm_sdk::nsm_chain::BoxError;
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};

use crate::{PolicyError, builtins, functions};

/// A policy written in Rego, in the reference's dialect (v0): its rule `valid` must be true.
///
/// ```
/// use nsm_rego::RegoPolicy;
/// use nsm_sdk::identity::{PolicySet, Rule};
///
/// let short = RegoPolicy::new("short.rego", "package nsm\nvalid { count(input.path_segments) <= 8 }")?;
/// let policies = PolicySet::of([Rule::custom(short)]);
/// # Ok::<(), nsm_rego::PolicyError>(())
/// ```
///
/// It has the functions of regorus for numbers, strings, lists, sets, objects, types and encoding, and `io.jwt.decode`,
/// `io.jwt.verify_es256`, `time.now_ns`. A policy that calls others, or a function of its own from within itself, is
/// refused when it is loaded. An evaluation that takes more than a quarter of a second is broken off.
#[derive(Clone)]
pub struct RegoPolicy {
    file: Box<str>,
    rule: String,
    /// Parsed and ready; each call works on a copy, which costs some reference counts.
    engine: Engine,
}

/// Some ten thousand times what a policy takes.
const LONGEST: Duration = Duration::from_millis(250);
/// Steps between looks at the clock.
const EVERY: NonZeroU32 = NonZeroU32::MIN.saturating_add(999);

impl RegoPolicy {
    /// The policy in `text`, called `file` in errors and logs.
    ///
    /// # Errors
    /// [`PolicyError::Rego`] or [`PolicyError::UnknownFunction`], naming the file.
    pub fn new(file: &str, text: &str) -> Result<Self, PolicyError> {
        let wrong = |reason: String| PolicyError::Rego { file: file.to_owned(), reason };
        let mut engine = Engine::new();
        engine.set_rego_v0(true);
        // What a function cannot make sense of is undefined, and so does not hold.
        engine.set_strict_builtin_errors(false);
        engine.set_execution_timer_config(ExecutionTimerConfig { limit: LONGEST, check_interval: EVERY });
        builtins::add(&mut engine).map_err(wrong)?;
        let package = engine.add_policy(file.to_owned(), text.to_owned()).map_err(|error| wrong(error.to_string()))?;
        let rule = format!("{package}.valid");
        match engine.has_declared_rule_rooted_at(file, "valid") {
            Ok(true) => {}
            Ok(false) => return Err(wrong("it has no rule valid".to_owned())),
            Err(error) => return Err(wrong(error.to_string())),
        }
        let tree = engine.get_ast_as_json().map_err(|error| wrong(error.to_string()))?;
        let tree: serde_json::Value = serde_json::from_str(&tree).map_err(|error| wrong(error.to_string()))?;
        functions::check(file, &package, &tree[0]["ast"])?;
        // Analysed now, and not by each call's copy. What it makes of nothing does not matter.
        engine.set_input(Value::new_object());
        let _of_nothing = engine.eval_rule(rule.clone());
        Ok(Self { file: file.into(), rule, engine })
    }
}

impl CustomPolicy for RegoPolicy {
    fn name(&self) -> &str {
        &self.file
    }

    fn allows(&self, document: &serde_json::Value, now: SystemTime) -> Result<bool, BoxError> {
        let mut engine = self.engine.clone();
        builtins::add_now(&mut engine, now)?;
        engine.set_input(document.clone().into());
        match engine.eval_rule(self.rule.clone()).map_err(|error| error.to_string())? {
            Value::Bool(valid) => Ok(valid),
            Value::Undefined => Ok(false),
            _ => Err("its rule valid is neither true nor false".into()),
        }
    }
}

impl fmt::Debug for RegoPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegoPolicy").field(&self.file).finish()
    }
}
