//! The suites of tests-clients: an environment with the client libraries, and how each suite is started.
//!
//! In: the built broker. Out: the counts of the suites.
//! The environment is made once in the build folder and again when requirements.txt changes.
//! Never: touches the machine's own Python packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{self, Tally};
use crate::metadata;

/// The manifest of the lapin tutorials, a workspace of its own.
pub const LAPIN: &str = "tests-clients/lapin/Cargo.toml";

type Outcome = Result<Tally, (Tally, String)>;

fn alone(reason: String) -> (Tally, String) {
    (Tally::default(), reason)
}

fn folder() -> PathBuf {
    metadata::root().join("tests-clients")
}

/// Python of the environment, in the folder of the suites, pointed at the built broker and at no other server.
fn python() -> Result<Command, String> {
    let target = metadata::workspace()?.target;
    let mut command = Command::new(environment(&target)?.join("bin/python"));
    command
        .current_dir(folder())
        .env("WAYSTATION_BINARY", target.join("release/waystation"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("WAYSTATION_AMQP_URL")
        .env_remove("WAYSTATION_KAFKA_URL");
    Ok(command)
}

/// The environment with the pinned client libraries, made if it is not there as requirements.txt wants it.
fn environment(target: &Path) -> Result<PathBuf, String> {
    let (place, wanted) = (target.join("venv"), folder().join("requirements.txt"));
    let requirements =
        std::fs::read_to_string(&wanted).map_err(|error| format!("{}: {error}", wanted.display()))?;
    let stamp = place.join("made-from-requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == requirements) {
        return Ok(place);
    }
    println!("making {} from {}", place.display(), wanted.display());
    make(&place)?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    command::check(Command::new(place.join("bin/python")).args(pip).arg(&wanted))?;
    std::fs::write(&stamp, requirements).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(place)
}

fn make(place: &Path) -> Result<(), String> {
    let attempt = || command::status(Command::new("python3").args(["-m", "venv", "--clear"]).arg(place));
    if attempt()? {
        return Ok(());
    }
    // Debian keeps the module that makes environments in a package of its own.
    if debian("python3-venv") && attempt()? {
        return Ok(());
    }
    Err("python3 -m venv does not work here; on Debian: apt-get install python3-venv".into())
}

/// Installs a package of Debian's; whether that worked. A machine that was just made does not know its packages yet.
fn debian(package: &str) -> bool {
    let apt = |arguments: &[&str]| {
        command::status(Command::new("apt-get").args(arguments)).is_ok_and(|succeeded| succeeded)
    };
    let install = || apt(&["install", "--yes", "--quiet", "--no-install-recommends", package]);
    install() || (apt(&["update", "--quiet"]) && install())
}

/// Tutorials, semantics, misuse, hostile bytes.
pub fn suite() -> Outcome {
    command::tests(python().map_err(alone)?.args(["-m", "pytest", "--color=no", "-rs"]))
}

/// Kafka's clients. kcat is installed where it is missing and can be had; Java's tools are used where there are a JVM
/// and Maven. Where either is not to be had its tests do not run, which is said at the end of everything too.
pub fn kafka() -> Outcome {
    let found = || Command::new("kcat").arg("-V").output().is_ok_and(|output| output.status.success());
    let is_there = found() || (debian("kcat") && found());
    if !is_there {
        println!(
            "kcat is not here and cannot be installed: its tests are skipped; on Debian: apt-get install kcat"
        );
    }
    let java = metadata::workspace().map_err(alone)?.target.join("kafka-java");
    let mut run = python().map_err(alone)?;
    run.current_dir(folder().join("kafka")).env("WAYSTATION_KAFKA_MAVEN", java);
    command::tests(run.args(["-m", "pytest", "--color=no", "-rs", "-n", "3", "--dist", "loadfile"]))
}

/// Rounds of kill -9 under Kafka's clients; each counts as one test.
pub fn kafka_kill9(rounds: u64) -> Outcome {
    rounds_of("kafka/durability/kill9.py", rounds)
}

/// The lapin tutorials against a broker of their own.
pub fn lapin() -> Outcome {
    let target = metadata::workspace().map_err(alone)?.target.join("lapin");
    let manifest = metadata::root().join(LAPIN);
    let test = |command: &mut Command| {
        command
            .args(["test", "--locked", "--quiet", "--manifest-path"])
            .arg(&manifest)
            .env("CARGO_TARGET_DIR", &target);
    };
    let mut build = command::cargo();
    test(&mut build);
    command::check(build.arg("--no-run")).map_err(alone)?;
    let mut run = python().map_err(alone)?;
    run.args(["with_broker.py"]).arg(command::cargo().get_program());
    test(&mut run);
    command::tests(&mut run)
}

/// Rounds of kill -9; each counts as one test.
pub fn kill9(rounds: u64) -> Outcome {
    rounds_of("durability/kill9.py", rounds)
}

fn rounds_of(program: &str, rounds: u64) -> Outcome {
    let mut run = python().map_err(alone)?;
    command::check(run.args([program, "--rounds", &rounds.to_string()])).map_err(alone)?;
    Ok(Tally { passed: rounds, failed: 0 })
}
