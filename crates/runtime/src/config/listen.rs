//! An address to listen on, as a URL: the scheme names the protocol.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// What an address speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// AMQP 0-9-1.
    Amqp,
    /// Kafka.
    Kafka,
    /// Health, metrics and status.
    Http,
}

impl Scheme {
    const ALL: [Scheme; 3] = [Scheme::Amqp, Scheme::Kafka, Scheme::Http];

    fn name(self) -> &'static str {
        match self {
            Scheme::Amqp => "amqp",
            Scheme::Kafka => "kafka",
            Scheme::Http => "http",
        }
    }

    /// The port that clients try first.
    pub(super) fn usual_port(self) -> u16 {
        match self {
            Scheme::Amqp => 5672,
            Scheme::Kafka => 9092,
            Scheme::Http => 15672,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A protocol and an address; port 0 takes any free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What is spoken.
    pub scheme: Scheme,
    /// Where.
    pub address: SocketAddr,
}

impl Listen {
    /// The port of 127.0.0.1 that clients try first.
    pub fn loopback(scheme: Scheme) -> Listen {
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Listen { scheme, address: SocketAddr::new(host, scheme.usual_port()) }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.address)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(url: &str) -> Result<Listen, String> {
        let wrong = |what: String| format!("cannot listen on '{url}': {what}");
        let no_protocol = || wrong("no protocol; write it like amqp://127.0.0.1:5672".to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(no_protocol)?;
        let known = Scheme::ALL.into_iter().find(|known| known.name() == scheme);
        let scheme =
            known.ok_or_else(|| wrong(format!("unknown protocol '{scheme}'; known: amqp, kafka, http")))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let rest = match rest.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => rest.to_owned(),
        };
        let address = rest.parse().map_err(|_| {
            let example = format!("{scheme}://127.0.0.1:{}", scheme.usual_port());
            wrong(format!("'{rest}' is not an IP address with a port; write it like {example}"))
        })?;
        Ok(Listen { scheme, address })
    }
}
