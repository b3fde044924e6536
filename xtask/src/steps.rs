//! The steps of `cargo xtask test`, in the order in which they fail soonest.
//!
//! In: nothing but the workspace. Out: a heading per step, what it prints, and `N passed, N failed` at the end.
//! Stops at the first step that fails and names it.
//! Never: skips a step, nor takes a test command that ran no test for a success.

use std::process::Command;
use std::time::Instant;

use crate::command::{self, Tally, cargo};
use crate::{clients, floors, metadata, policy, tidy};

/// How a step ends: the tests it ran, and why it failed.
type Outcome = Result<Tally, (Tally, String)>;

/// One step.
pub struct Step {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What it shows.
    pub heading: &'static str,
    run: fn() -> Outcome,
}

/// All of them, in order.
pub fn all() -> Vec<Step> {
    let step = |name, heading, run| Step { name, heading, run };
    vec![
        step("format", "the code is formatted", format as fn() -> Outcome),
        step("tidy", "file sizes, heads, no notes for later", tidy_check),
        step(
            "floors",
            "crates import only from floors below; no IO, thread or clock on floors 0 to 5",
            floor_check,
        ),
        step("policy", "every direct dependency has its reason in deny.toml", policy_check),
        step("clippy", "no warnings", clippy),
        step("unit", "unit and property tests of every crate", unit),
        step("fuzz", "the fuzz targets compile", fuzz),
        step("build", "the broker as users run it", build),
        step("planted", "every planted bug is found", planted),
        step("simulator", "whole nodes on virtual disks and clocks, 300 seeds", simulator),
        step(
            "disk",
            "the disk adapter's calls cut at 1,000 points, with one shard and with two; a failed sync",
            disk,
        ),
        step("clients", "real clients: tutorials, semantics, misuse, hostile bytes", clients_suite),
        step("lapin", "the tutorials with lapin", lapin),
        step("kafka", "Kafka's clients: records, groups, administration, hostile bytes, restarts", kafka),
        step("kill9", "kill -9 under load, 20 rounds with 1, 2 and 7 shards", kill9),
        step("kafka-kill9", "kill -9 under Kafka's clients, 10 rounds", kafka_kill9),
    ]
}

/// Runs steps up to the first that fails.
pub fn run(steps: &[Step]) -> Result<(), String> {
    let (begun, mut total, mut failure) = (Instant::now(), Tally::default(), None);
    for step in steps {
        println!("\n== {}: {}", step.name, step.heading);
        let begun = Instant::now();
        let outcome = (step.run)();
        println!("-- {} took {:.1} s", step.name, begun.elapsed().as_secs_f64());
        match outcome {
            Ok(tally) => total += tally,
            Err((tally, reason)) => {
                total += Tally { failed: tally.failed.max(1), ..tally };
                failure = Some(format!("step {} failed: {reason}", step.name));
                break;
            }
        }
    }
    println!("\n{:.0} s", begun.elapsed().as_secs_f64());
    command::skipped().iter().for_each(|line| println!("NOT RUN: {line}"));
    if let Some(reason) = &failure {
        println!("{reason}");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    failure.map_or(Ok(()), Err)
}

fn alone(reason: String) -> (Tally, String) {
    (Tally::default(), reason)
}

fn check(command: &mut Command) -> Outcome {
    command::check(command).map_err(alone)
}

/// A check of this program's own: passes when it has nothing to complain about.
fn complaints(found: Result<Vec<String>, String>) -> Outcome {
    let found = found.map_err(alone)?;
    found.iter().for_each(|complaint| println!("{complaint}"));
    match found.len() {
        0 => Ok(Tally { passed: 1, failed: 0 }),
        count => Err((Tally { passed: 0, failed: count as u64 }, format!("{count} complaints"))),
    }
}

fn format() -> Outcome {
    let mut tally = check(cargo().args(["fmt", "--all", "--check"]))?;
    tally += check(cargo().args(["fmt", "--check", "--manifest-path", clients::LAPIN]))?;
    Ok(tally)
}

fn tidy_check() -> Outcome {
    complaints(tidy::breaches(metadata::root()))
}

fn floor_check() -> Outcome {
    let packages = metadata::workspace().map_err(alone)?.packages;
    let mut tally = complaints(Ok(floors::import_breaches(&packages)))?;
    tally += complaints(floors::purity_breaches(&packages))?;
    Ok(tally)
}

fn policy_check() -> Outcome {
    let packages = metadata::workspace().map_err(alone)?.packages;
    let path = metadata::root().join("deny.toml");
    let deny =
        std::fs::read_to_string(&path).map_err(|error| alone(format!("{}: {error}", path.display())))?;
    complaints(Ok(policy::breaches(&packages, &deny)))
}

fn clippy() -> Outcome {
    check(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

/// They are a workspace of their own, which nobody else would miss; to run them takes a nightly compiler, to check does
/// not.
fn fuzz() -> Outcome {
    let target = metadata::workspace().map_err(alone)?.target.join("fuzz");
    let manifest = metadata::root().join("fuzz/Cargo.toml");
    let mut command = cargo();
    command.args(["check", "--locked", "--quiet", "--manifest-path"]).arg(manifest);
    check(command.env("CARGO_TARGET_DIR", target))
}

fn unit() -> Outcome {
    command::tests(cargo().args(["test", "--workspace", "--locked", "--quiet"]))
}

fn build() -> Outcome {
    check(cargo().args(["build", "--release", "--locked", "-p", "waystation"]))
}

/// The bugs of base::planted are compiled in, in a build folder of their own: the tests whose names say so and the
/// simulator must find them.
fn planted() -> Outcome {
    let target = metadata::workspace().map_err(alone)?.target.join("planted");
    let with_bugs = |arguments: &[&str]| {
        let mut command = cargo();
        command.args(arguments).env("RUSTFLAGS", "--cfg planted").env("CARGO_TARGET_DIR", &target);
        command
    };
    let test = ["test", "--release", "--locked", "--quiet", "-p", "commitlog", "-p", "queue", "planted"];
    let mut tally = command::tests(&mut with_bugs(&test))?;
    let find = ["run", "--release", "--locked", "--quiet", "-p", "sim", "--", "--planted", "--seeds", "3000"];
    tally += check(&mut with_bugs(&find))?;
    Ok(tally)
}

fn simulator() -> Outcome {
    check(cargo().args(["run", "--release", "--locked", "--quiet", "-p", "sim", "--", "--seeds", "300"]))
}

fn disk() -> Outcome {
    command::tests(cargo().args([
        "test",
        "--release",
        "--locked",
        "-p",
        "waystation",
        "--test",
        "crash_record",
    ]))
}

fn clients_suite() -> Outcome {
    build()?;
    clients::suite()
}

fn lapin() -> Outcome {
    build()?;
    clients::lapin()
}

fn kafka() -> Outcome {
    build()?;
    clients::kafka()
}

fn kill9() -> Outcome {
    build()?;
    clients::kill9(20)
}

fn kafka_kill9() -> Outcome {
    build()?;
    clients::kafka_kill9(10)
}

/// `cargo xtask sim`: hands its arguments to the simulator.
pub fn simulate(arguments: &[&str]) -> Result<(), String> {
    let mut command = cargo();
    command.args(["run", "--release", "--locked", "--quiet", "-p", "sim", "--"]).args(arguments);
    command::check(&mut command).map(|_| ())
}
