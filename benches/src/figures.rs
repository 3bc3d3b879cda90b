use std::time::Duration;

use serde_json::{Map, Value, json};

/// Named figures, in the order they were measured.
#[derive(Debug, Default)]
pub struct Figures(Map<String, Value>);

impl Figures {
    /// Adds one.
    pub fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// Adds a time in microseconds.
    pub fn put_us(&mut self, key: &str, time: Duration) {
        self.put(key, json!((time.as_nanos() as f64 / 1e3 * 10.0).round() / 10.0));
    }

    /// Adds a time in milliseconds.
    pub fn put_ms(&mut self, key: &str, time: Duration) {
        self.put(key, json!((time.as_nanos() as f64 / 1e6 * 1000.0).round() / 1000.0));
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// As lines for a person.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.0.keys().map(String::len).max().unwrap_or_default();
        self.0.iter().map(|(key, value)| format!("{key:width$}  {value}\n")).collect()
    }
}

/// The smallest sample that this share of all does not exceed.
#[must_use]
pub fn quantile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    let at = (samples.len() as f64 * share).ceil() as usize;
    samples.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

/// The process's resident memory, as `/proc/self/status` has it.
#[must_use]
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
    kib * 1024
}

/// How many tasks the runtime has.
#[must_use]
pub fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
