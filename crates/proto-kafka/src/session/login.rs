//! Who comes in: by name and password (SASL PLAIN), or without a name where the broker allows it.
//!
//! In: the login's requests and the broker's verdict. Out: questions to the broker, responses. Never: looks at whether
//! a password is right.
//!
//! ```text
//! PLAIN  [identity to act as]  00  name  00  password
//! ```

use base::SendBuffer;
use model::Refusal;

use super::reply::{Asked, Reply};
use super::{Due, Session, Stage};
use crate::map;
use crate::wire::{Api, Decoder, Encoder, Header, Malformed, put_response};

/// The mechanisms that are offered.
const MECHANISMS: [&str; 1] = ["PLAIN"];

/// How far a login has come.
#[derive(Debug, Default)]
pub(super) struct Login {
    /// A mechanism was agreed on, in this version of the handshake.
    handshake: Option<i16>,
    /// Who waits for the verdict.
    waiting: Option<Waiting>,
}

/// How the verdict is told.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// In a response of this version and correlation.
    Response(&'static Api, i16, i32),
    /// By an empty frame: the oldest form has no response of its own.
    Token,
}

impl Login {
    /// Whether the next frame is a bare token.
    pub(super) fn is_raw(&self) -> bool {
        self.handshake == Some(0)
    }

    /// Answers the choice of a mechanism.
    pub(super) fn handshake(&mut self, asked: &mut Asked<'_>, is_open: bool) -> Result<Reply, Malformed> {
        let mechanism = asked.fields.string()?;
        let code = match MECHANISMS.contains(&mechanism) {
            _ if is_open => map::ILLEGAL_SASL_STATE,
            true => map::NONE,
            false => map::UNSUPPORTED_SASL_MECHANISM,
        };
        if code == map::NONE {
            self.handshake = Some(asked.version);
        }
        Ok(Reply::now(move |fields| {
            fields.i16(code);
            fields.list(MECHANISMS, Encoder::string);
        }))
    }
}

impl Session {
    /// A bare token behind a handshake of version 0.
    pub(super) fn raw_token(&mut self, token: &[u8]) -> Result<(), Malformed> {
        let (user, password) = plain(token).ok_or(Malformed)?;
        self.login.handshake = None;
        self.log_in(user, password, Waiting::Token);
        Ok(())
    }

    /// A token in a request of its own.
    pub(super) fn authenticate(
        &mut self,
        api: &'static Api,
        header: Header<'_>,
        mut fields: Decoder<'_>,
        out: &mut SendBuffer,
    ) -> Result<(), Malformed> {
        let token = fields.bytes()?;
        fields.tags()?;
        let waiting = Waiting::Response(api, header.version, header.correlation);
        if self.stage == Stage::Open || self.login.handshake.is_none() {
            put_verdict(waiting, map::ILLEGAL_SASL_STATE, Some("a handshake must come first"), out);
            return Ok(());
        }
        match plain(token) {
            Some((user, password)) => self.log_in(user, password, waiting),
            None => {
                put_verdict(waiting, map::SASL_AUTHENTICATION_FAILED, Some("not a PLAIN token"), out);
                self.end();
            }
        }
        Ok(())
    }

    fn log_in(&mut self, user: &str, password: &[u8], waiting: Waiting) {
        self.login.waiting = Some(waiting);
        self.stage = Stage::Admitting;
        self.outbox.push_back(Due::Authenticate { user: user.to_owned(), password: password.to_owned() });
    }

    /// The broker lets them in.
    pub(super) fn admitted(&mut self) {
        if self.stage == Stage::Admitting {
            self.stage = Stage::Entering;
            self.outbox.push_back(Due::Enter);
        }
    }

    /// They are in.
    pub(super) fn entered(&mut self, out: &mut SendBuffer) {
        if self.stage != Stage::Entering {
            return;
        }
        self.stage = Stage::Open;
        self.login.handshake = None;
        if let Some(waiting) = self.login.waiting.take() {
            put_verdict(waiting, map::NONE, None, out);
        }
    }

    /// They are not let in. Who gave no name is not told, as there is no response that could.
    pub(super) fn turned_away(&mut self, refusal: &Refusal, out: &mut SendBuffer) {
        if !matches!(self.stage, Stage::Admitting | Stage::Entering) {
            return;
        }
        if let Some(waiting @ Waiting::Response(..)) = self.login.waiting.take() {
            let text = match refusal {
                Refusal::AuthenticationFailed(_) => "Authentication failed: invalid user or password",
                _ => "Authentication failed: the user may not come in here",
            };
            put_verdict(waiting, map::SASL_AUTHENTICATION_FAILED, Some(text), out);
        }
        self.end();
    }
}

fn put_verdict(waiting: Waiting, code: map::Code, text: Option<&str>, out: &mut SendBuffer) {
    let Waiting::Response(api, version, correlation) = waiting else {
        out.tail().extend_from_slice(&[0; 4]);
        return;
    };
    let flexible = api.is_flexible(version);
    put_response(out.tail(), correlation, flexible, flexible, |fields| {
        fields.i16(code);
        fields.nullable_string(text);
        fields.bytes(&[]);
        if version >= 1 {
            fields.i64(0);
        }
        fields.tags();
    });
}

/// Name and password of a token. To act as somebody else than the name is not offered.
fn plain(token: &[u8]) -> Option<(&str, &[u8])> {
    let mut parts = token.splitn(3, |byte| *byte == 0);
    let (actor, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let user = std::str::from_utf8(user).ok()?;
    let may = !user.is_empty() && !password.contains(&0) && (actor.is_empty() || actor == user.as_bytes());
    may.then_some((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_token_has_a_name_and_a_password_and_acts_for_nobody_else() {
        assert_eq!(plain(b"\0ada\0secret"), Some(("ada", &b"secret"[..])));
        assert_eq!(plain(b"ada\0ada\0secret"), Some(("ada", &b"secret"[..])));
        assert_eq!(plain(b"bob\0ada\0secret"), None);
        assert_eq!(plain(b"ada\0secret"), None);
        assert_eq!(plain(b"\0\0secret"), None);
    }
}
