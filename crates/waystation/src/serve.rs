//! `serve` and `check-config`: from flags to a running node.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use runtime::{Config, Flags, LogFormat};

use crate::exit::{self, Failure, failure};

/// Flags of `waystation serve`.
#[derive(Debug, Args)]
#[command(after_help = SERVE_HELP)]
pub struct Serve {
    /// Listen here; repeatable. The scheme names the protocol: amqp://HOST:PORT, kafka://HOST:PORT or http://HOST:PORT
    /// (health, metrics, status). Port 0 picks a free one, and the ready line names it.
    #[arg(long, value_name = "URL")]
    listen: Vec<String>,
    /// Where everything is kept; made if missing. One process at a time.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A TOML file with the same settings, limits and users.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Threads that carry connections and logs; fixed when the data directory is made. Default: one less than there
    /// are cores.
    #[arg(long, value_name = "N", value_parser = whole_number::<u16>)]
    shards: Option<u16>,
    /// Groups that queues are spread over; fixed when the data directory is made. Default: as many as shards.
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>)]
    groups: Option<u32>,
    /// How log lines on stderr look.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
}

const SERVE_HELP: &str = "\
Without flags: AMQP on 127.0.0.1:5672, Kafka on 127.0.0.1:9092, HTTP on 127.0.0.1:15672, data in ./waystation-data, and
the user guest with password guest, from this machine only; Kafka's clients on it need not log in. Listening on other
addresses needs a user in the configuration file; Kafka's clients then log in with SASL PLAIN.

Flags win over WAYSTATION__SECTION__KEY variables, and those over the file. For example:
    waystation serve --listen amqp://127.0.0.1:0 --listen kafka://127.0.0.1:0 --data-dir /tmp/try
    WAYSTATION__LIMITS__CONNECTIONS_MAX=500 waystation serve --config waystation.toml

When clients are let in, one line on stderr says so:
    waystation 0.1.0 ready: amqp://127.0.0.1:5672 kafka://127.0.0.1:9092 http://127.0.0.1:15672 data=waystation-data

Old messages leave the ring of segments for runs once a shard's ring is larger than ring_bytes_max (1 GiB).
Publishers of all protocols are held back while fewer than free_bytes_min (512 MiB) are free on the disk.
Where Kafka's clients come through a forwarded port, kafka_advertised (HOST:PORT) is the address they are told.

The first SIGTERM or SIGINT drains the node (at most 30 seconds), the second ends it at once. Either way, and after
kill -9, everything that was confirmed is there at the next start.";

/// A number, or why not in words; its bounds are those of the same setting in the file.
fn whole_number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "it must be a whole number, such as 2".to_owned())
}

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Serve {
    /// Runs the node.
    pub fn run(self) -> Result<(), Failure> {
        let format = self.log_format.map(|format| match format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        });
        let flags = Flags {
            data_dir: self.data_dir,
            listen: self.listen,
            shards: self.shards,
            groups: self.groups,
            log_format: format,
        };
        let config = Config::load(self.config.as_deref(), std::env::vars(), flags);
        let config = config.map_err(|message| failure(exit::CONFIG, message))?;
        runtime::serve(&config).map_err(|stopped| match stopped {
            runtime::Failure::DataDir(message) => failure(exit::DATA_DIR, message),
            runtime::Failure::Address(message) => failure(exit::UNAVAILABLE, message),
            runtime::Failure::Interrupted => failure(exit::FAILED, "asked to end before it was ready"),
            runtime::Failure::Halted(message) => failure(exit::FAILED, message),
        })
    }
}

/// Flags of `waystation check-config`.
#[derive(Debug, Args)]
pub struct CheckConfig {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl CheckConfig {
    /// Checks the file and the environment.
    pub fn run(self) -> Result<(), Failure> {
        let config = Config::load(Some(&self.file), std::env::vars(), Flags::default());
        let config = config.map_err(|message| failure(exit::CONFIG, message))?;
        let urls: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        let users: Vec<&str> = config.users.iter().map(|user| user.name.as_str()).collect();
        println!("{} is valid", self.file.display());
        println!("  listens on  {}", urls.join(" "));
        println!("  keeps data  {}", config.data_dir.display());
        println!("  lets in     {}", users.join(" "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_is_no_number_is_refused_in_words() {
        assert_eq!(whole_number::<u16>("2"), Ok(2));
        for text in ["x", "", "-1", "1.5", "65536"] {
            assert!(whole_number::<u16>(text).is_err_and(|why| why.contains("a whole number")), "{text}");
        }
    }
}
