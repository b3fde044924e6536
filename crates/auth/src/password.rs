//! Password hashes as text.
//!
//! ```text
//! pbkdf2-sha256$ITERATIONS$SALT$HASH    PBKDF2 with HMAC-SHA-256; 32 bytes of hash
//! plain$PASSWORD                        the password itself: only for the built-in guest, whose password is public
//! ```
//! Salt, hash and password are in hexadecimal. In: passwords and such text. Out: such text, or whether they agree,
//! compared in constant time. Never: a panic or a match on text that is not a hash.

use std::fmt::Write;

use pbkdf2::pbkdf2_hmac_array;
use sha2::Sha256;
use subtle::ConstantTimeEq;

const PBKDF2: &str = "pbkdf2-sha256";
const PLAIN: &str = "plain";
/// About ten seconds of work: a larger number in a configuration is a mistake, not a wish.
const ITERATIONS_MAX: u32 = 10_000_000;

/// What one hash text says.
enum Stored {
    Pbkdf2 { iterations: u32, salt: Vec<u8>, hash: [u8; 32] },
    Plain(Vec<u8>),
}

/// The text to store for a password. The salt should be 16 random bytes; at least one iteration is made.
pub fn hash(password: &[u8], salt: &[u8], iterations: u32) -> String {
    let iterations = iterations.clamp(1, ITERATIONS_MAX);
    let hash = derive(password, salt, iterations);
    format!("{PBKDF2}${iterations}${}${}", to_hex(salt), to_hex(&hash))
}

/// The text to store for a password that is no secret. Only for the built-in guest.
pub fn plain(password: &[u8]) -> String {
    format!("{PLAIN}${}", to_hex(password))
}

/// Whether this is the password of this text. Text that is not a hash is nobody's.
pub fn verify(password: &[u8], password_hash: &str) -> bool {
    match parse(password_hash) {
        Some(Stored::Pbkdf2 { iterations, salt, hash }) => {
            derive(password, &salt, iterations).ct_eq(&hash).into()
        }
        Some(Stored::Plain(stored)) => stored.ct_eq(password).into(),
        None => false,
    }
}

/// The iterations that checking a password against this text takes; 0 where it takes none.
pub(crate) fn iterations(password_hash: &str) -> u32 {
    match parse(password_hash) {
        Some(Stored::Pbkdf2 { iterations, .. }) => iterations,
        Some(Stored::Plain(_)) | None => 0,
    }
}

fn derive(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations)
}

fn parse(text: &str) -> Option<Stored> {
    let (scheme, rest) = text.split_once('$')?;
    match scheme {
        PLAIN => from_hex(rest).map(Stored::Plain),
        PBKDF2 => {
            let mut fields = rest.split('$');
            let iterations = fields.next()?.parse().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?;
            let salt = from_hex(fields.next()?)?;
            let hash = from_hex(fields.next()?)?.try_into().ok()?;
            fields.next().is_none().then_some(Stored::Pbkdf2 { iterations, salt, hash })
        }
        _ => None,
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string can always grow");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn matches_the_vectors_of_rfc_7914() {
        // Section 11 gives PBKDF2-HMAC-SHA-256 of 64 bytes; the first 32 do not depend on the length asked for.
        let vectors: [(&[u8], &[u8], u32, &str); 2] = [
            (b"passwd", b"salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"),
            (
                b"Password",
                b"NaCl",
                80_000,
                "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56",
            ),
        ];
        for (password, salt, iterations, expected) in vectors {
            let text = hash(password, salt, iterations);
            assert_eq!(text, format!("pbkdf2-sha256${iterations}${}${expected}", to_hex(salt)));
            assert!(verify(password, &text));
        }
    }

    #[test]
    fn matches_the_rfc_6070_inputs_with_sha256() {
        let expected = "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a";
        assert_eq!(hash(b"password", b"salt", 4096), format!("pbkdf2-sha256$4096$73616c74${expected}"));
    }

    #[test]
    fn only_the_password_is_let_in() {
        for text in [hash(b"secret", b"0123456789abcdef", 10), plain(b"secret")] {
            assert!(verify(b"secret", &text));
            for wrong in [&b"Secret"[..], b"secret ", b"secre", b""] {
                assert!(!verify(wrong, &text), "{text}");
            }
        }
        assert!(verify(b"", &plain(b"")) && !verify(b"x", &plain(b"")));
    }

    #[test]
    fn malformed_hashes_are_nobodys() {
        let good = hash(b"", b"salt", 1);
        let bad = [
            String::new(),
            "plain".into(),
            "plain$0".into(),
            "plain$zz".into(),
            "plain$+1".into(),
            "md5$1$00$00".into(),
            "pbkdf2-sha256$0$73616c74$".into(),
            "pbkdf2-sha256$1$73616c74$".into(),
            good.replace("$1$", "$0$"),
            good.replace("$1$", "$4000000000$"),
            good.replace("$1$", "$-1$"),
            format!("{good}00"),
            format!("{good}$00"),
            good[..good.len() - 2].into(),
        ];
        for text in bad {
            assert!(!verify(b"", &text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(password in proptest::collection::vec(any::<u8>(), 0..9), text in "(plain|pbkdf2-sha256)?[$0-9a-fé]{0,40}") {
            // Bounded, so that a drawn number of iterations does not slow the test down.
            prop_assume!(iterations(&text) < 1000);
            let _ = verify(&password, &text);
        }

        #[test]
        fn any_password_is_its_own(password in proptest::collection::vec(any::<u8>(), 0..80), other in any::<u8>()) {
            let text = hash(&password, &[other], 2);
            prop_assert!(verify(&password, &text));
            let longer = [password.as_slice(), &[other | 1]].concat();
            prop_assert!(!verify(&longer, &text));
            prop_assert!(verify(&password, &plain(&password)));
        }
    }
}
