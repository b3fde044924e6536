//! From the protocol header to an open connection: greeting, login, tuning, virtual host.

use base::SendBuffer;
use model::{Arguments, Refusal, Value};

use super::outbox::Due;
use super::{Session, Stage};
use crate::map::{self, Fault};
use crate::wire::frame::{FRAME_MAX_MIN, METHOD};
use crate::wire::{Frame, Method, ReplyCode, table};

/// What the client said it understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub consumer_cancel_notify: bool,
    pub connection_blocked: bool,
    pub authentication_failure_close: bool,
}

const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// Name and password of a login.
type Login = (String, Vec<u8>);

impl Session {
    pub(super) fn start(&mut self, out: &mut Vec<u8>) {
        self.stage = Stage::Starting;
        Method::ConnectionStart {
            version_major: 0,
            version_minor: 9,
            server_properties: self.server_properties(),
            mechanisms: b"PLAIN AMQPLAIN",
            locales: b"en_US",
        }
        .put(0, out);
    }

    fn server_properties(&self) -> Arguments {
        let capabilities = CAPABILITIES.map(|name| (name.to_owned(), Value::Bool(true)));
        let text = |name: &str, text: &str| (name.to_owned(), Value::text(text));
        Arguments(vec![
            ("capabilities".to_owned(), Value::Table(Arguments(capabilities.to_vec()))),
            text("cluster_name", &self.product.cluster_name),
            text("copyright", "Copyright the Waystation authors"),
            text("information", "Licensed under the Apache License 2.0"),
            text("platform", "Rust"),
            text("product", "Waystation"),
            text("version", &self.product.version),
        ])
    }

    /// A frame of a connection that is not open yet.
    pub(super) fn handshake_frame(&mut self, frame: Frame<'_>, out: &mut SendBuffer) {
        if frame.kind == crate::wire::frame::HEARTBEAT && frame.channel == 0 && frame.is_empty() {
            return;
        }
        let method = match (frame.kind, frame.channel) {
            (METHOD, 0) => Method::decode(frame.payload, self.limits.nesting_max),
            (kind, _) => return self.break_off(super::inbound::unexpected(kind, frame), (0, 0), out),
        };
        match method {
            Ok(method) => self.handshake_method(method, out),
            Err(malformed) => self.break_off(malformed.into(), super::inbound::ids_of(frame.payload), out),
        }
    }

    fn handshake_method(&mut self, method: Method<'_>, out: &mut SendBuffer) {
        let ids = method.ids();
        let result = match (self.stage, method) {
            (Stage::Starting, Method::ConnectionStartOk { client_properties, mechanism, response, .. }) => {
                self.capabilities = capabilities_of(&client_properties);
                self.start_ok(mechanism, response)
            }
            (Stage::Tuning, Method::ConnectionTuneOk { channel_max, frame_max, heartbeat }) => {
                self.tune_ok(channel_max, frame_max, heartbeat)
            }
            (Stage::Opening, Method::ConnectionOpen { virtual_host, .. }) => {
                self.stage = Stage::Entering;
                self.vhost = virtual_host.to_owned();
                self.outbox.push_back(Due::Enter { vhost: virtual_host.to_owned() });
                Ok(())
            }
            (_, Method::ConnectionClose { .. }) => return self.client_closes(out),
            (stage, _) => {
                let text = format!("unexpected method in connection state {stage:?}");
                Err(Fault::new(ReplyCode::ChannelError, text))
            }
        };
        if let Err(fault) = result {
            let ids = if ids == (10, 31) { (10, 30) } else { ids };
            self.break_off(fault, ids, out);
        }
    }

    /// Ends a handshake: silently towards somebody unknown, with the reason otherwise.
    fn break_off(&mut self, fault: Fault, ids: (u16, u16), out: &mut SendBuffer) {
        match self.stage {
            Stage::Starting => self.stage = Stage::Ended,
            _ => self.fail_connection(fault, ids, out),
        }
    }

    fn start_ok(&mut self, mechanism: &str, response: &[u8]) -> Result<(), Fault> {
        let (mechanism, login) = match mechanism {
            "PLAIN" => ("PLAIN", plain(response)),
            "AMQPLAIN" => ("AMQPLAIN", amqplain(response)),
            other => {
                let text = format!("unknown authentication mechanism '{other}'");
                return Err(Fault::new(ReplyCode::CommandInvalid, text));
            }
        };
        let Some((user, password)) = login else {
            return Err(Fault::new(ReplyCode::SyntaxError, "the login has a wrong form"));
        };
        self.mechanism = mechanism;
        self.user.clone_from(&user);
        self.stage = Stage::Authenticating;
        self.outbox.push_back(Due::Authenticate { user, password });
        Ok(())
    }

    pub(super) fn admitted(&mut self, out: &mut SendBuffer) {
        if self.stage != Stage::Authenticating {
            return;
        }
        self.stage = Stage::Tuning;
        Method::ConnectionTune {
            channel_max: self.limits.channels_max,
            frame_max: self.limits.frame_bytes_max,
            heartbeat: self.limits.heartbeat_s,
        }
        .put(0, out.tail());
    }

    /// A refusal that is about the connection itself.
    pub(super) fn refused(&mut self, refusal: &Refusal, out: &mut SendBuffer) {
        match self.stage {
            Stage::Authenticating if self.capabilities.authentication_failure_close => {
                let text = format!(
                    "Login was refused using authentication mechanism {}. For details see the broker logfile.",
                    self.mechanism
                );
                self.fail_connection(Fault::new(ReplyCode::AccessRefused, text), (0, 0), out);
            }
            Stage::Authenticating => self.stage = Stage::Ended,
            Stage::Entering => {
                let fault = map::entry_fault_of(refusal, &self.vhost);
                self.fail_connection(fault, (10, 40), out);
            }
            _ => self.fail_connection(map::fault_of(refusal, &self.vhost), (0, 0), out),
        }
    }

    fn tune_ok(&mut self, channel_max: u16, frame_max: u32, heartbeat: u16) -> Result<(), Fault> {
        let (frames, channels) = (self.limits.frame_bytes_max, u32::from(self.limits.channels_max));
        negotiated("frame_max", frame_max, FRAME_MAX_MIN, frames)?;
        negotiated("channel_max", u32::from(channel_max), 1, channels)?;
        self.frame_max = frame_max as usize;
        self.channel_max = channel_max;
        self.clock.beat_every(heartbeat);
        self.stage = Stage::Opening;
        Ok(())
    }

    pub(super) fn entered(&mut self, out: &mut SendBuffer) {
        if self.stage == Stage::Entering {
            self.stage = Stage::Open;
            Method::ConnectionOpenOk {}.put(0, out.tail());
        }
    }

    /// A method of the open connection itself.
    pub(super) fn connection_method(&mut self, payload: &[u8], out: &mut SendBuffer) {
        match Method::decode(payload, self.limits.nesting_max) {
            Ok(Method::ConnectionClose { .. }) => self.client_closes(out),
            // Passwords do not expire here, so the new one changes nothing.
            Ok(Method::ConnectionUpdateSecret { .. }) => {
                Method::ConnectionUpdateSecretOk {}.put(0, out.tail());
            }
            Ok(method) => {
                let text = "unexpected method in connection state running";
                self.fail_connection(Fault::new(ReplyCode::ChannelError, text), method.ids(), out);
            }
            Err(malformed) => {
                self.fail_connection(malformed.into(), super::inbound::ids_of(payload), out);
            }
        }
    }

    pub(super) fn blocked(&mut self, reason: Option<&str>, out: &mut SendBuffer) {
        if self.stage != Stage::Open || !self.capabilities.connection_blocked {
            return;
        }
        match reason {
            Some(reason) => Method::ConnectionBlocked { reason }.put(0, out.tail()),
            None => Method::ConnectionUnblocked {}.put(0, out.tail()),
        }
    }
}

fn negotiated(field: &str, given: u32, least: u32, most: u32) -> Result<(), Fault> {
    let fault = |word: &str, bound: &str, value: u32| {
        let detail = if given == 0 { " (no limit)" } else { "" };
        let text = format!(
            "negotiated {field} = {given}{detail} is {word} than the {bound} allowed value ({value})"
        );
        Err(Fault::new(ReplyCode::NotAllowed, text))
    };
    match given {
        0 => fault("higher", "maximum", most),
        given if given < least.min(most) => fault("lower", "minimum", least),
        given if given > most => fault("higher", "maximum", most),
        _ => Ok(()),
    }
}

fn capabilities_of(properties: &Arguments) -> Capabilities {
    let Some(Value::Table(table)) = properties.get("capabilities") else { return Capabilities::default() };
    let has = |name: &str| matches!(table.get(name), Some(Value::Bool(true)));
    Capabilities {
        consumer_cancel_notify: has("consumer_cancel_notify"),
        connection_blocked: has("connection.blocked"),
        authentication_failure_close: has("authentication_failure_close"),
    }
}

/// An identity to act as (ignored), the name and the password, with zero bytes between.
fn plain(response: &[u8]) -> Option<Login> {
    let mut parts = response.splitn(3, |byte| *byte == 0);
    let (_, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    Some((String::from_utf8(user.to_vec()).ok()?, password.to_vec()))
}

/// The fields of a table without its length.
fn amqplain(response: &[u8]) -> Option<Login> {
    let login = table::decode_fields(response, 2).ok()?;
    let user = login.get("LOGIN")?.as_str()?.to_owned();
    match login.get("PASSWORD")? {
        Value::Text(password) | Value::Bytes(password) => Some((user, password.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_of_both_mechanisms() {
        assert_eq!(plain(b"\0guest\0pa\0ss"), Some(("guest".into(), b"pa\0ss".to_vec())));
        assert_eq!(plain(b"admin\0u\0"), Some(("u".into(), vec![])));
        assert_eq!(plain(b"\0guest"), None);
        let fields = b"\x05LOGINS\0\0\0\x01u\x08PASSWORDS\0\0\0\x02pw";
        assert_eq!(amqplain(fields), Some(("u".into(), b"pw".to_vec())));
        assert_eq!(amqplain(b"\x05LOGINS\0\0\0\x01u"), None);
    }
}
