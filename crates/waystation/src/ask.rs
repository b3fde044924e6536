//! `health` and `status`: questions to a running node, over its HTTP address.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::exit::{self, Failure, failure};
use crate::show;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer at most.
const LARGEST: u64 = 256 << 20;

/// Where the node is.
#[derive(Debug, Args)]
struct Node {
    /// The node's HTTP address, as its ready line names it.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15672")]
    url: String,
}

/// Flags of `waystation health`.
#[derive(Debug, Args)]
pub struct Health {
    #[command(flatten)]
    node: Node,
}

/// Flags of `waystation status`.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    node: Node,
    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

/// How to print an answer.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Health {
    /// Prints the node's own words; fails when it is not ready.
    pub fn run(self) -> Result<(), Failure> {
        let answer = get(&self.node.url, "/health/ready")?;
        if answer.code == 200 {
            println!("{}", answer.body.trim_end());
            return Ok(());
        }
        Err(failure(exit::FAILED, format!("{} is not ready: {}", self.node.url, answer.body.trim_end())))
    }
}

impl Status {
    /// Prints the node's status.
    pub fn run(self) -> Result<(), Failure> {
        let answer = get(&self.node.url, "/api/status")?;
        let strange = |what: String| failure(exit::FAILED, format!("{}: {what}", self.node.url));
        if answer.code != 200 {
            return Err(strange(format!("answered with HTTP {}", answer.code)));
        }
        let status =
            serde_json::from_str(&answer.body).map_err(|error| strange(format!("no JSON: {error}")))?;
        match self.output {
            Output::Table => print!("{}", show::table(&status)),
            Output::Json => println!("{}", answer.body),
        }
        Ok(())
    }
}

/// An HTTP answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: u16,
    body: String,
}

fn get(url: &str, path: &str) -> Result<Answer, Failure> {
    let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let authority =
        authority.ok_or_else(|| failure(exit::USAGE, format!("'{url}' does not begin with http://")))?;
    let unreachable = |error: std::io::Error| {
        failure(
            exit::UNAVAILABLE,
            format!("cannot reach {url}: {error}; is the node running, and is this its HTTP address?"),
        )
    };
    let text = exchange(authority, path).map_err(unreachable)?;
    parse(&text).ok_or_else(|| failure(exit::FAILED, format!("{url} does not answer in HTTP")))
}

fn exchange(authority: &str, path: &str) -> std::io::Result<String> {
    let address = authority.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    write!(socket, "GET {path} HTTP/1.0\r\nhost: {authority}\r\n\r\n")?;
    let mut text = String::new();
    socket.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { code, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_code_and_a_body() {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\nrecovering\n");
        assert_eq!(answer, Some(Answer { code: 503, body: "recovering\n".into() }));
        assert_eq!(parse("SSH-2.0\r\n\r\n"), None);
    }
}
