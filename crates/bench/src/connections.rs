//! `waystation bench connections`: what an idle connection with one channel costs the server in memory.
//!
//! In: a URL and a count. Out: resident bytes of the server before and after, and per connection. Never publishes.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::procfs::Processes;
use crate::url::Url;

/// How long the server's memory is left to settle before it is read.
const SETTLE: Duration = Duration::from_secs(1);
/// Connections opened and closed first, so that what a server allocates once is not counted.
const FIRST: u32 = 10;

/// What idle connections cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Idle {
    /// Connections that were open together.
    pub(crate) count: u32,
    /// Resident bytes without them.
    pub(crate) before: u64,
    /// Resident bytes with them.
    pub(crate) after: u64,
}

impl Idle {
    /// Bytes per connection.
    pub(crate) fn each(&self) -> f64 {
        self.after.saturating_sub(self.before) as f64 / f64::from(self.count.max(1))
    }

    /// Name and value, one per line.
    pub(crate) fn table(&self) -> String {
        format!(
            "connections                       {}\nserver_resident_before_mb         {:.3}\n\
             server_resident_after_mb          {:.3}\nbytes_per_connection              {:.0}\n",
            self.count,
            self.before as f64 / 1e6,
            self.after as f64 / 1e6,
            self.each()
        )
    }

    /// The same as one JSON object.
    pub(crate) fn json(&self) -> String {
        serde_json::json!({
            "connections": self.count,
            "server_resident_before": self.before,
            "server_resident_after": self.after,
            "bytes_per_connection": self.each(),
        })
        .to_string()
    }
}

/// Opens `count` connections with one channel each, looks, and closes them.
pub(crate) fn run(url: &Url, count: u32, pids: &[u32]) -> Result<Idle> {
    let server = match pids {
        [] => Processes::listening_on(url.port),
        pids => Some(Processes::new(pids.to_vec())),
    };
    let resident = || server.as_ref().and_then(Processes::resident);
    let unseen = || Error::new("the server's process is not visible here: name it with --server-pid");
    allow_many_files();
    drop(open(url, FIRST)?);
    std::thread::sleep(SETTLE);
    let before = resident().ok_or_else(unseen)?;
    let held = open(url, count)?;
    std::thread::sleep(SETTLE);
    let after = resident().ok_or_else(unseen)?;
    drop(held);
    Ok(Idle { count, before, after })
}

/// Raises this process's bound on open files to the hardest the system allows it; servers started later inherit it.
pub(crate) fn allow_many_files() {
    let limits = getrlimit(Resource::Nofile);
    // Where this fails, opening the connections says why.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum });
}

fn open(url: &Url, count: u32) -> Result<Vec<Client>> {
    (0..count).map(|_| Client::connect(url)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_growth_is_shared_out() {
        let idle = Idle { count: 100, before: 1_000_000, after: 1_900_000 };
        assert!((idle.each() - 9000.0).abs() < 1e-9);
        assert!(idle.table().ends_with("bytes_per_connection              9000\n"));
        assert!(idle.json().contains("\"bytes_per_connection\":9000.0"));
        assert_eq!(Idle { after: 0, ..idle }.each(), 0.0);
    }
}
