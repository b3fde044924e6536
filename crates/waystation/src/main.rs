//! The `waystation` program: runs a node, and asks running ones how they are.
//!
//! Floor 7. Reads flags, prints, and chooses exit codes; everything else happens in the crates below.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // A program of its own, above the pure floors.

mod ask;
mod exit;
mod password;
mod serve;
mod show;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A message broker for clients that already exist. Every confirmed message of a durable queue is on disk before its
/// confirm leaves.
#[derive(Debug, Parser)]
#[command(name = "waystation", version, after_help = exit::TABLE, arg_required_else_help = true)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node in the foreground until it is asked to end (SIGTERM or Ctrl-C drains it first).
    Serve(serve::Serve),
    /// Check a configuration file and the environment without starting anything.
    CheckConfig(serve::CheckConfig),
    /// Read a password from standard input and print its hash for `password_hash` in the configuration file.
    HashPassword,
    /// Ask a running node whether it can serve clients; exit code 1 when it cannot.
    Health(ask::Health),
    /// Show what a running node is doing: its shards with their figures, its queues, its partitions.
    Status(ask::Status),
    /// Measure this broker, or any other server of AMQP 0-9-1 or Kafka.
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let program = match Program::try_parse() {
        Ok(program) => program,
        Err(error) => {
            // A broken pipe while printing help is nobody's problem.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    let outcome = match program.command {
        Command::Serve(serve) => serve.run(),
        Command::CheckConfig(check) => check.run(),
        Command::HashPassword => password::run(),
        Command::Health(health) => health.run(),
        Command::Status(status) => status.run(),
        Command::Bench(bench) => return bench.run(),
    };
    match outcome {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            eprintln!("waystation: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
