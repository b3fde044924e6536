//! The decision about a user who gives a name: is there one, may they come from there, which hash to check.
//!
//! In: the configured users, a name, whether the peer is on this machine. Out: a [`Decision`], cheap, and from it, with
//! the password and the time that hashing takes, a refusal or none. Never: a difference in answer or work between a
//! name that is not known and a wrong password, so that names cannot be found out by trying.

use std::collections::BTreeMap;

use model::Refusal;

use crate::password::{iterations, plain, verify};

/// A user as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The text that [`crate::hash`] or [`crate::plain`] made.
    pub password_hash: String,
    /// Whether the user is accepted from this machine only.
    pub loopback_only: bool,
}

/// What is to be done about somebody who gave a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is no such user. The hash is nobody's and is checked all the same.
    Unknown {
        /// Costs as much as a real one.
        hash: String,
    },
    /// The user may not come from where they do; nothing is checked.
    NotFromHere(String),
    /// The password decides.
    Verify {
        /// What it must agree with.
        hash: String,
    },
}

impl Decision {
    /// Carries the decision out. Slow: the hash is computed here.
    pub fn check(&self, password: &[u8]) -> Result<(), Refusal> {
        let admitted = match self {
            Decision::NotFromHere(reason) => return Err(Refusal::AuthenticationFailed(reason.clone())),
            Decision::Verify { hash } => verify(password, hash),
            Decision::Unknown { hash } => {
                // Checked for its cost only; what comes of it must not count.
                std::hint::black_box(verify(password, hash));
                false
            }
        };
        match admitted {
            true => Ok(()),
            false => Err(Refusal::AuthenticationFailed("the name or the password is wrong".into())),
        }
    }
}

/// The configured users.
#[derive(Clone, Debug)]
pub struct Authenticator {
    users: BTreeMap<String, User>,
    nobody: String,
}

impl Authenticator {
    /// Knows these users; of two with one name, the later one.
    pub fn new(users: impl IntoIterator<Item = User>) -> Authenticator {
        let users: BTreeMap<_, _> = users.into_iter().map(|user| (user.name.clone(), user)).collect();
        // As costly as the costliest real one. The hash of no known password: all zeros.
        let costliest = users.values().map(|user| iterations(&user.password_hash)).max().unwrap_or(0);
        let nobody = match costliest {
            0 => plain(&[0; 16]),
            rounds => format!("pbkdf2-sha256${rounds}${}${}", "00".repeat(16), "00".repeat(32)),
        };
        Authenticator { users, nobody }
    }

    /// What is to be done about `name`, whose peer is on this machine or not.
    pub fn decide(&self, name: &str, loopback: bool) -> Decision {
        match self.users.get(name) {
            None => Decision::Unknown { hash: self.nobody.clone() },
            Some(user) if user.loopback_only && !loopback => {
                Decision::NotFromHere(format!("user '{name}' is accepted from this machine only"))
            }
            Some(user) => Decision::Verify { hash: user.password_hash.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::hash;

    fn user(name: &str, password_hash: String, loopback_only: bool) -> User {
        User { name: name.into(), password_hash, loopback_only }
    }

    fn both() -> Authenticator {
        let ann = hash(b"secret", b"0123456789abcdef", 20);
        Authenticator::new([user("guest", plain(b"guest"), true), user("ann", ann, false)])
    }

    #[test]
    fn the_right_password_from_the_right_place_is_let_in() {
        let users = both();
        assert_eq!(users.decide("guest", true).check(b"guest"), Ok(()));
        assert_eq!(users.decide("ann", true).check(b"secret"), Ok(()));
        assert_eq!(users.decide("ann", false).check(b"secret"), Ok(()));
        assert!(users.decide("ann", true).check(b"guest").is_err());
    }

    #[test]
    fn a_local_user_is_told_so_from_elsewhere() {
        let decision = both().decide("guest", false);
        let Decision::NotFromHere(reason) = &decision else { panic!("{decision:?}") };
        assert!(reason.contains("guest"));
        assert_eq!(decision.check(b"guest"), Err(Refusal::AuthenticationFailed(reason.clone())));
    }

    #[test]
    fn an_unknown_name_looks_and_costs_like_a_wrong_password() {
        let users = both();
        let unknown = users.decide("bob", false);
        let Decision::Unknown { hash } = &unknown else { panic!("{unknown:?}") };
        assert_eq!(iterations(hash), 20, "the work of the costliest user");
        assert_eq!(unknown.check(b"secret"), users.decide("ann", false).check(b"wrong"));
    }

    #[test]
    fn nobody_has_no_password() {
        for users in [both(), Authenticator::new([])] {
            for password in [&b""[..], &[0; 16], &[0; 32]] {
                assert!(users.decide("bob", true).check(password).is_err());
            }
        }
    }
}
