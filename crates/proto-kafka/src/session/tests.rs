//! The session against the other side of the protocol, as written by others.

mod conduct;
mod core;
mod every;
mod harness;
mod long;
