//! Reads the counters that a server shows at its metrics address. In: a URL. Out: the sum of each `waystation_*`
//! family. One request per look, plain HTTP, no library: the answer is text of which a dozen lines are wanted.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::error::{Error, Result, Trying};

/// Counters and gauges by name, all labels added up.
pub(crate) type Counters = BTreeMap<String, f64>;

/// Fetches and parses `http://host:port/path`.
pub(crate) fn counters(url: &str) -> Result<Counters> {
    let what = format!("reading {url}");
    let rest =
        url.strip_prefix("http://").ok_or_else(|| Error::new("--metrics-url must begin with http://"))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let mut stream = TcpStream::connect(address).trying(&what)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).trying(&what)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).trying(&what)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    if !status.contains(" 200") {
        return Err(Error::new(format!("{what}: {status}")));
    }
    Ok(parsed(&answer))
}

/// The `waystation_*` samples of an exposition in text form.
fn parsed(text: &str) -> Counters {
    let mut counters = Counters::new();
    for line in text.lines().filter(|line| line.starts_with("waystation_")) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let value = line.rsplit('}').next().unwrap_or(line).split_whitespace();
        let value = if line.contains('{') { value.clone().next() } else { value.clone().nth(1) };
        if let Some(value) = value.and_then(|value| value.parse::<f64>().ok()) {
            *counters.entry(name.to_owned()).or_default() += value;
        }
    }
    counters
}

/// How much the counter `name` grew.
pub(crate) fn growth(before: &Counters, after: &Counters, name: &str) -> Option<f64> {
    Some(after.get(name)? - before.get(name).copied().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_family_are_added_up() {
        let before = parsed("# HELP waystation_log_syncs x\nwaystation_log_syncs_total 3\nother 4\n");
        let after = parsed(
            "waystation_log_syncs_total{shard=\"0\"} 5 1700000000\r\nwaystation_log_syncs_total{shard=\"a b\"} 7.5\r\n",
        );
        assert_eq!(growth(&before, &after, "waystation_log_syncs_total"), Some(9.5));
        assert_eq!(growth(&before, &after, "absent"), None);
    }
}
