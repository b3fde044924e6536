//! The load generator behind `waystation bench`: it drives any AMQP 0-9-1 or Kafka server over plain TCP, checks
//! every message it gets back and reports rate, latency and the server's CPU per message.
//!
//! Floor 7. In: command-line options. Out: a report on stdout, progress on stderr. Never links the broker itself:
//! what it measures, it measures from outside, and peers are measured by the same code.
// A load generator is a program, not a machine: it opens sockets, reads clocks and /proc, and starts servers.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod cli;
mod client;
mod clients;
mod connections;
mod course;
mod drive;
mod error;
mod frames;
mod http;
mod kafka;
mod latency;
mod load;
mod peers;
mod procfs;
mod report;
mod socket;
mod url;

pub use cli::{Bench, command, run};
