//! `sim`: lives the lives of many seeds and says which of them broke a promise.
#![allow(clippy::disallowed_methods)] // It reads the clock, to say how fast it is.

use std::process::ExitCode;
use std::time::Instant;

use sim::Tally;

const USAGE: &str = "sim [--seeds N] [--from S]   run N seeds (300), beginning with S (1)
sim --seed S [--trace]       run one seed, perhaps telling its story
sim --planted [--seeds N]    find every planted bug within N seeds each (builds with --cfg planted)";

/// From how many seeds on everything must have been seen.
const ENOUGH: u64 = 200;

struct Options {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    trace: bool,
    planted: bool,
}

fn options() -> Option<Options> {
    let mut options = Options { seeds: 300, from: 1, seed: None, trace: false, planted: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok());
        match argument.as_str() {
            "--seeds" => options.seeds = number()?,
            "--from" => options.from = number()?,
            "--seed" => options.seed = Some(number()?),
            "--trace" => options.trace = true,
            "--planted" => options.planted = true,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if !options.trace {
        // A panic is a broken promise like others: it is told with its seed.
        std::panic::set_hook(Box::new(|_| {}));
    }
    match (options.planted, options.seed) {
        (true, _) => find_planted(options.seeds),
        (_, Some(seed)) => run_one(seed, options.trace),
        _ => run_many(options.from, options.seeds),
    }
}

fn run_one(seed: u64, trace: bool) -> ExitCode {
    let outcome = sim::run(seed, trace);
    print!("{}", outcome.tally);
    println!("trace {:016x}", outcome.trace);
    match outcome.broken {
        Some(broken) => told(seed, &broken),
        None => ExitCode::SUCCESS,
    }
}

fn told(seed: u64, broken: &str) -> ExitCode {
    println!("seed {seed} broke {broken}");
    println!("replay: cargo run --release -p sim -- --seed {seed} --trace");
    ExitCode::FAILURE
}

fn run_many(from: u64, seeds: u64) -> ExitCode {
    let began = Instant::now();
    let mut tally = Tally::default();
    let mut failed = 0;
    for seed in from..from + seeds {
        let outcome = sim::run(seed, false);
        tally += outcome.tally;
        if let Some(broken) = outcome.broken {
            told(seed, &broken);
            failed += 1;
        } else if seed % 16 == 0 && sim::run(seed, false).trace != outcome.trace {
            told(seed, "L7: the same seed had another trace");
            failed += 1;
        }
    }
    let rate = seeds as f64 / began.elapsed().as_secs_f64();
    println!("{seeds} seeds from {from}, {rate:.0} per second and core, {failed} failed");
    print!("{tally}");
    let missing = tally.missing();
    if seeds >= ENOUGH && !missing.is_empty() {
        println!("never seen, so nothing was shown: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(planted))]
fn find_planted(_: u64) -> ExitCode {
    eprintln!(
        "This build has no planted bugs: RUSTFLAGS='--cfg planted' cargo run --release -p sim -- --planted"
    );
    ExitCode::from(2)
}

#[cfg(planted)]
fn find_planted(seeds: u64) -> ExitCode {
    let mut missed = 0;
    for bug in sim::planted::WITHIN_SIGHT.iter().copied() {
        match sim::planted::find(bug, seeds) {
            Some((seed, broken)) => println!("{bug:?}: found by seed {seed}: {broken}"),
            None => {
                println!("{bug:?}: not found within {seeds} seeds");
                missed += 1;
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
