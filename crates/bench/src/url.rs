//! `amqp://user:password@host:port/vhost`: what the bench needs to log in, with the defaults every AMQP tool has.
//! In: the text of `--url`. Out: the parts, percent-decoded. Never resolves names.

use crate::error::{Error, Result};

/// The address and credentials of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// User name, `guest` if absent.
    pub(crate) user: String,
    /// Password, `guest` if absent.
    pub(crate) password: String,
    /// Host name or address, `127.0.0.1` if absent.
    pub(crate) host: String,
    /// TCP port, 5672 if absent.
    pub(crate) port: u16,
    /// Virtual host, `/` if absent.
    pub(crate) vhost: String,
}

impl Url {
    /// Parses `amqp://[user[:password]@][host][:port][/vhost]`.
    pub(crate) fn parse(text: &str) -> Result<Url> {
        let bad = |why: &str| Error::new(format!("--url {text}: {why}"));
        let rest = text.strip_prefix("amqp://").ok_or_else(|| bad("it must begin with amqp://"))?;
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = split_port(address).ok_or_else(|| bad("the port is no number"))?;
        let decode = |part: &str, default: &str| match part {
            "" => Ok(default.to_owned()),
            part => {
                percent_decoded(part).ok_or_else(|| bad("a % is not followed by two hex digits of UTF-8"))
            }
        };
        Ok(Url {
            user: decode(user, "guest")?,
            password: decode(password, "guest")?,
            host: decode(host, "127.0.0.1")?,
            port,
            vhost: decode(vhost, "/")?,
        })
    }

    /// `host:port` as a socket address text.
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether the host is this machine by an address everybody knows.
    pub(crate) fn is_loopback(&self) -> bool {
        matches!(self.host.as_str(), "localhost" | "::1") || self.host.starts_with("127.")
    }
}

/// Splits `host[:port]`, with `[v6]` brackets taken off.
fn split_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = match address.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':').unwrap_or(port)),
        None => address.rsplit_once(':').unwrap_or((address, "")),
    };
    if port.is_empty() { Some((host, 5672)) } else { Some((host, port.parse().ok()?)) }
}

fn percent_decoded(part: &str) -> Option<String> {
    let mut out = Vec::with_capacity(part.len());
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_default() {
        let url = Url::parse("amqp://").unwrap();
        assert_eq!((url.user.as_str(), url.password.as_str()), ("guest", "guest"));
        assert_eq!((url.address().as_str(), url.vhost.as_str()), ("127.0.0.1:5672", "/"));
        assert!(url.is_loopback());
    }

    #[test]
    fn all_parts_are_read_and_decoded() {
        let url = Url::parse("amqp://a%40b:p%3Aw@mq.example:5673/%2fteam").unwrap();
        assert_eq!((url.user.as_str(), url.password.as_str()), ("a@b", "p:w"));
        assert_eq!((url.address().as_str(), url.vhost.as_str()), ("mq.example:5673", "/team"));
        assert!(!url.is_loopback());
        assert_eq!(Url::parse("amqp://[::1]:7").unwrap().address(), "[::1]:7");
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for text in ["http://x", "amqp://x:port", "amqp://x/%4", "amqp://x/%zz"] {
            assert!(Url::parse(text).unwrap_err().to_string().contains(text));
        }
    }
}
