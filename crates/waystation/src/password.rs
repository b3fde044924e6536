//! `hash-password`: from a password on standard input to what the configuration file stores.

use std::io::{IsTerminal, Read};

use crate::exit::{self, Failure, failure};

/// Longest password taken, in bytes.
const LONGEST: u64 = 1024;

/// Rounds of hashing: about a tenth of a second per attempt for whoever has stolen the file.
const ITERATIONS: u32 = 210_000;

/// Reads the password and prints its hash.
pub fn run() -> Result<(), Failure> {
    let unusable = |message: String| failure(exit::FAILED, message);
    if std::io::stdin().is_terminal() {
        eprintln!("type the password (it will be visible), then Enter and Ctrl-D:");
    }
    let mut text = String::new();
    let read = std::io::stdin().take(LONGEST + 2).read_to_string(&mut text);
    read.map_err(|error| unusable(format!("cannot read the password: {error}")))?;
    // A line ending belongs to the terminal or to echo, not to the password.
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() || password.len() as u64 > LONGEST {
        return Err(unusable(format!("a password has 1 to {LONGEST} bytes")));
    }
    let mut salt = [0; 16];
    let got = rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty());
    if got != Ok(salt.len()) {
        return Err(unusable("cannot get random numbers for the salt".into()));
    }
    println!("{}", auth::hash(password.as_bytes(), &salt, ITERATIONS));
    Ok(())
}
