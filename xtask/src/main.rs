//! Developer commands: `cargo xtask test | sim`.
//!
//! In: a command line, run anywhere in the workspace. Out: what the commands it starts print, one heading per step
//! and one summary line; exit status 1 with the name of the step that failed.
//! Never: part of the broker; needs nothing but a Rust toolchain and Python.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // A program that runs programs touches files and clocks.

mod clients;
mod command;
mod floors;
mod json;
mod metadata;
mod policy;
mod source;
mod steps;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask test [--list] [--only STEP] [--from STEP]   everything that must hold, in order
cargo xtask sim [--seeds N] [--from S] [ARGUMENT…]       the simulator, any number of seeds";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["test", rest @ ..] => test(rest),
        ["sim", rest @ ..] => steps::simulate(rest),
        _ => Err(USAGE.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn test(arguments: &[&str]) -> Result<(), String> {
    let all = steps::all();
    let known = |name: &str| {
        all.iter()
            .position(|step| step.name == name)
            .ok_or_else(|| format!("no step '{name}'; --list names them"))
    };
    match arguments {
        [] => steps::run(&all),
        ["--list"] => {
            all.iter().for_each(|step| println!("{:12} {}", step.name, step.heading));
            Ok(())
        }
        ["--only", name] => {
            let at = known(name)?;
            steps::run(&all[at..=at])
        }
        ["--from", name] => steps::run(&all[known(name)?..]),
        _ => Err(USAGE.to_string()),
    }
}
