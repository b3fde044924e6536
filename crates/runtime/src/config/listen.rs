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
    /// A port of 127.0.0.1.
    pub fn loopback(scheme: Scheme, port: u16) -> Listen {
        Listen { scheme, address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port) }
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
        let example = "write it like amqp://127.0.0.1:5672";
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong(format!("no protocol; {example}")))?;
        let known = Scheme::ALL.into_iter().find(|known| known.name() == scheme);
        let scheme =
            known.ok_or_else(|| wrong(format!("unknown protocol '{scheme}'; known: amqp, kafka, http")))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let rest = match rest.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => rest.to_owned(),
        };
        let address = rest
            .parse()
            .map_err(|_| wrong(format!("'{rest}' is not an IP address with a port; {example}")))?;
        Ok(Listen { scheme, address })
    }
}
