//! The world: sockets, files, threads, clock, randomness and HTTP. Everything below is pure; everything that happens
//! comes in and goes out here.
//!
//! Floor 6. [`serve`] runs a node until it is asked to end. Never: decides what a protocol or a queue means.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // This is the crate those belong into.

mod clock;
pub mod config;
mod data_dir;
pub mod disk;
mod http;
mod logs;
mod mailbox;
mod net;
mod node;
#[cfg(test)]
mod scratch;
mod supervise;
mod turn;
mod verifier;

pub use config::{Config, Flags, LogFormat};
pub use node::{Failure, Node, Signals, serve};
