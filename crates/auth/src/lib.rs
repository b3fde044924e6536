//! Who somebody is: password hashes, and the decision about a user and where they come from.
//!
//! Floor 2. In: names, passwords and hashes as data, and whether a peer is on this machine. Out: decisions and refusals.
//! Never: the bytes of any protocol's own login (front ends read those), randomness (salts are given), files, and
//! permissions, which are asked about elsewhere. Hashing is slow on purpose: it belongs on a thread that may be slow.

mod authenticator;
mod password;

pub use authenticator::{Authenticator, Decision, User};
pub use password::{hash, plain, verify};
