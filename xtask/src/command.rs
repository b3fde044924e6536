//! Runs programs, shows what they print, and counts the tests they say they ran.
//!
//! In: a command. Out: whether it succeeded, and the sums of its "N passed" and "N failed".
//! Never: hides output; what a program prints goes on as it comes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::metadata;

/// Tests that ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that held.
    pub passed: u64,
    /// Those that did not.
    pub failed: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// cargo, at the root of the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(metadata::root());
    command
}

/// What pytest said of tests that did not run.
static SKIPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The tests that did not run so far, in pytest's words: how many, where, and why.
pub fn skipped() -> Vec<String> {
    SKIPPED.lock().map(|lines| lines.clone()).unwrap_or_default()
}

fn note_skipped(line: &str) {
    if line.starts_with("SKIPPED [")
        && let Ok(mut lines) = SKIPPED.lock()
    {
        lines.push(line.trim_end().to_owned());
    }
}

/// Runs a check that counts as one.
pub fn check(command: &mut Command) -> Result<Tally, String> {
    if status(command)? {
        Ok(Tally { passed: 1, failed: 0 })
    } else {
        Err(format!("failed: {}", shown(command)))
    }
}

/// Runs tests and counts them; an error carries the count too.
pub fn tests(command: &mut Command) -> Result<Tally, (Tally, String)> {
    let alone = |message: String| (Tally::default(), message);
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| alone(cannot(command, &error)))?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(|error| alone(cannot(command, &error)))?;
            let line = String::from_utf8_lossy(&line);
            tally += counted(&line);
            note_skipped(&line);
            println!("{line}");
        }
    }
    let status = child.wait().map_err(|error| alone(cannot(command, &error)))?;
    match (status.success(), tally) {
        (true, Tally { passed: 0, .. }) => Err((tally, format!("no test ran: {}", shown(command)))),
        (true, tally) => Ok(tally),
        (false, tally) => Err((tally, format!("failed: {}", shown(command)))),
    }
}

/// Runs a command and takes what it prints.
pub fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| cannot(command, &error))?;
    if !output.status.success() {
        return Err(format!("failed: {}", shown(command)));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("printed no text: {}", shown(command)))
}

/// Runs a command; whether it succeeded.
pub fn status(command: &mut Command) -> Result<bool, String> {
    let _ = std::io::stdout().flush();
    command.status().map(|status| status.success()).map_err(|error| cannot(command, &error))
}

fn cannot(command: &Command, error: &std::io::Error) -> String {
    format!("cannot run {}: {error}", shown(command))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The numbers of a summary line of cargo test or pytest; nothing for any other line.
fn counted(line: &str) -> Tally {
    let line = line.trim().trim_matches('=').trim();
    let seconds = line.split_once(" in ").and_then(|(_, rest)| rest.split(' ').next()?.strip_suffix('s'));
    let pytest = seconds.is_some_and(|seconds| seconds.parse::<f64>().is_ok());
    if !pytest && !line.starts_with("test result: ") {
        return Tally::default();
    }
    let words: Vec<&str> = line.split([' ', ',', ';', '.']).filter(|word| !word.is_empty()).collect();
    let before = |what: &[&str]| -> u64 {
        let pairs = words.windows(2).filter(|pair| what.contains(&pair[1]));
        pairs.filter_map(|pair| pair[0].parse::<u64>().ok()).sum()
    };
    Tally { passed: before(&["passed"]), failed: before(&["failed", "error", "errors"]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_counted_and_nothing_else() {
        let cargo =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.05s";
        assert_eq!(counted(cargo), Tally { passed: 12, failed: 0 });
        let broken = "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.05s";
        assert_eq!(counted(broken), Tally { passed: 2, failed: 3 });
        assert_eq!(counted("9 passed, 2 skipped in 69.80s (0:01:09)"), Tally { passed: 9, failed: 0 });
        assert_eq!(counted("151 passed, 2 skipped in 6.80s"), Tally { passed: 151, failed: 0 });
        assert_eq!(counted("=== 1 failed, 2 passed, 1 error in 6.80s ==="), Tally { passed: 2, failed: 2 });
        for other in ["test a_thing ... ok", "running 3 tests", "7 passed the door in time", ""] {
            assert_eq!(counted(other), Tally::default(), "{other}");
        }
    }

    #[test]
    fn what_did_not_run_is_remembered() {
        let lines = "SKIPPED [7] test_kcat.py:11: kcat is not installed\n3 passed, 7 skipped in 0.1s";
        assert!(tests(Command::new("printf").args(["%s\n", lines])).is_ok());
        assert!(skipped().contains(&"SKIPPED [7] test_kcat.py:11: kcat is not installed".to_owned()));
    }

    #[test]
    fn a_command_that_runs_no_tests_is_a_failure() {
        assert!(tests(&mut Command::new("true")).is_err());
        assert!(
            tests(Command::new("sh").args(["-c", "echo '3 passed in 0.1s'"]))
                == Ok(Tally { passed: 3, failed: 0 })
        );
        assert!(tests(Command::new("sh").args(["-c", "echo '3 passed in 0.1s'; exit 1"])).is_err());
        assert!(check(&mut Command::new("false")).is_err() && check(&mut Command::new("true")).is_ok());
    }
}
