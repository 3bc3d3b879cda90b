//! Runs storms over simulated meshes, many seeds after the other on two threads, and says what did not hold.
//!
//! `cargo run --release -p nsm-tests --bin storm -- --profile kill --seeds 1000 [--from 1]`; with `--trace` it prints all
//! that happened in each of these seeds.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use nsm_sim::storm::{Outcome, Profile, Storm};
use nsm_tests::heap;
use tokio::time::Instant;

/// Half of a storm is spent allocating.
#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

#[derive(Debug, Parser)]
#[command(about = "Storms over simulated meshes: one seed, one storm")]
struct Options {
    /// kill, partition, slow, expiry or mixed; all five, if not given
    #[arg(long)]
    profile: Option<Profile>,
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first one
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Ends with the first seed that finds a violation
    #[arg(long)]
    until_violation: bool,
    /// Prints all that happens
    #[arg(long)]
    trace: bool,
    /// How many at the same time
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// How often it says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Of all storms of a profile no more than so many octets of memory may be left: what the process itself keeps.
const LEFT: i64 = 64 * 1024;

/// How many failing seeds are told of in full.
const TOLD: usize = 20;

fn main() -> ExitCode {
    let options = Options::parse();
    let profiles = options.profile.map_or_else(|| Profile::ALL.to_vec(), |profile| vec![profile]);
    let mut violated = false;
    for profile in profiles {
        violated |= run(profile, &options) > 0;
    }
    if violated { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs one profile, and says how many violations there were.
fn run(profile: Profile, options: &Options) -> usize {
    let begun = Instant::now();
    heap::count(true);
    let held = heap::held();
    let (next, end) = (AtomicU64::new(options.from), options.from.saturating_add(options.seeds));
    let told = Mutex::new((0, 0, Instant::now()));
    let healed = Mutex::new(BTreeMap::<u128, u64>::new());
    println!("{} seeds {} to {}", profile.name(), options.from, end.saturating_sub(1));
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end {
                        return;
                    }
                    let outcome = storm(profile, seed, options.trace);
                    if let (Some(after), Ok(mut healed)) = (outcome.healed, healed.lock()) {
                        *healed.entry(after.as_millis()).or_default() += 1;
                    }
                    let Ok(mut told) = told.lock() else { return };
                    let (failed, violations, last) = &mut *told;
                    tell(profile, seed, &outcome, options.trace, *failed);
                    *failed += usize::from(!outcome.violations.is_empty());
                    *violations += outcome.violations.len();
                    if options.until_violation && *failed > 0 {
                        next.store(end, Ordering::SeqCst);
                    }
                    if last.elapsed() >= PROGRESS {
                        *last = Instant::now();
                        progress(profile, seed - options.from + 1, options.seeds, *violations, begun);
                    }
                }
            });
        }
    });
    let left = heap::held() - held;
    let mut violations = told.lock().map_or(1, |told| told.1);
    if left > LEFT {
        violations += 1;
        println!("{left} octets of memory are held more than before the first storm, where {LEFT} may be");
    }
    let healed = healed.lock().map(|healed| healed.clone()).unwrap_or_default();
    let slowest = healed.keys().last().copied().unwrap_or_default();
    println!(
        "{}: {} seeds, {violations} violations ({:.1} s; healed after {} ms in half of them, {slowest} ms at most; {} KiB left)",
        profile.name(),
        options.seeds,
        begun.elapsed().as_secs_f64(),
        median(&healed),
        left / 1024
    );
    violations
}

fn storm(profile: Profile, seed: u64, trace: bool) -> Outcome {
    let storm = Storm::new(profile, seed);
    let storm = if trace { storm.recorded() } else { storm };
    catch_unwind(AssertUnwindSafe(|| storm.run())).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Outcome { violations: vec![format!("it panicked: {said}")], trace: 0, lines: Vec::new(), healed: None }
    })
}

fn tell(profile: Profile, seed: u64, outcome: &Outcome, trace: bool, failed: usize) {
    for line in &outcome.lines {
        println!("{line}");
    }
    if trace {
        println!("seed {seed}: trace {:016x}, healed after {:?}", outcome.trace, outcome.healed);
    }
    if outcome.violations.is_empty() || failed >= TOLD {
        return;
    }
    println!(
        "seed {seed} of {}: {} violations, trace {:016x}",
        profile.name(),
        outcome.violations.len(),
        outcome.trace
    );
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    println!(
        "  again: cargo run --release -p nsm-tests --bin storm -- --profile {} --seeds 1 --from {seed} --trace",
        profile.name()
    );
}

fn progress(profile: Profile, done: u64, seeds: u64, violations: usize, begun: Instant) {
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    let line = format!("{}: {done} of {seeds} seeds, {violations} violations, {rate:.0} a second", profile.name());
    if std::io::stderr().is_terminal() {
        eprint!("\r{line}");
        let _ = std::io::stderr().flush();
    } else {
        eprintln!("{line}");
    }
}

fn median(healed: &BTreeMap<u128, u64>) -> u128 {
    let half = healed.values().sum::<u64>() / 2;
    let mut seen = 0;
    let found = healed.iter().find(|(_, count)| {
        seen += **count;
        seen > half
    });
    found.map(|(after, _)| *after).unwrap_or_default()
}
