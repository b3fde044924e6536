//! What the node is to be: defaults, the configuration file, the environment, flags; the later wins.
//!
//! In: TOML text, `WAYSTATION__SECTION__KEY` variables, flags. Out: a [`Config`] that has been checked, or a message
//! that names the key, where it stands and what to do.

mod file;
mod keys;
mod kinds;
mod listen;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::Limits;
use shard::User;

pub use listen::{Listen, Scheme};

/// Bytes of one log segment unless configured.
const SEGMENT_BYTES: u64 = 64 << 20;
const RING_BYTES_MAX: u64 = 1 << 30;
/// Free bytes below which publishers are held back unless configured: room for a few segments.
const FREE_BYTES_MIN: u64 = 512 << 20;
/// Prefix of environment variables; `__` stands between the parts of a key.
pub const ENVIRONMENT: &str = "WAYSTATION__";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// What is listened on.
    pub listen: Vec<Listen>,
    /// Shards; `None`: as many as the data directory has, or one less than there are cores.
    pub shards: Option<u16>,
    /// Queue groups; `None`: as many as the data directory has, or as there are shards.
    pub groups: Option<u32>,
    /// Bytes of one log segment.
    pub segment_bytes: u64,
    /// Bytes of segments per shard beyond which old messages are moved to runs; at least four segments.
    pub ring_bytes_max: u64,
    /// Publishers are held back while the data directory's file system has fewer free bytes than this.
    pub free_bytes_min: u64,
    /// Host and port that Kafka's clients are told; `None`: those of the socket they came through.
    pub kafka_advertised: Option<String>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Bounds.
    pub limits: Limits,
    /// Who may come in.
    pub users: Vec<User>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: PathBuf::from("waystation-data"),
            listen: vec![
                Listen::loopback(Scheme::Amqp),
                Listen::loopback(Scheme::Kafka),
                Listen::loopback(Scheme::Http),
            ],
            shards: None,
            groups: None,
            segment_bytes: SEGMENT_BYTES,
            ring_bytes_max: RING_BYTES_MAX,
            free_bytes_min: FREE_BYTES_MIN,
            kafka_advertised: None,
            log_format: LogFormat::Text,
            limits: Limits::default(),
            users: vec![guest()],
        }
    }
}

/// What the command line says; it wins over everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// See [`Config::data_dir`].
    pub data_dir: Option<PathBuf>,
    /// See [`Config::listen`]; empty when not given.
    pub listen: Vec<String>,
    /// See [`Config::shards`].
    pub shards: Option<u16>,
    /// See [`Config::groups`].
    pub groups: Option<u32>,
    /// See [`Config::log_format`].
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// Reads the file (if any), lays the environment and the flags over it, and checks the outcome.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Flags,
    ) -> Result<Config, String> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read the configuration file {}: {error}", path.display()))?,
            None => String::new(),
        };
        let name = path.map_or_else(|| "configuration".to_owned(), |path| path.display().to_string());
        Config::read(&name, &text, environment, flags)
    }

    /// As [`Config::load`], with the file's name and text given.
    pub fn read(
        name: &str,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Flags,
    ) -> Result<Config, String> {
        let mut settings = file::parse(name, text)?;
        let variables: BTreeMap<String, String> =
            environment.into_iter().filter(|(key, _)| key.starts_with(ENVIRONMENT)).collect();
        for (variable, value) in &variables {
            file::overlay(&mut settings, variable, value)?;
        }
        let mut config = file::resolve(settings)?;
        config.apply(flags)?;
        config.check()?;
        Ok(config)
    }

    fn apply(&mut self, flags: Flags) -> Result<(), String> {
        if let Some(data_dir) = flags.data_dir {
            self.data_dir = data_dir;
        }
        if !flags.listen.is_empty() {
            self.listen = flags.listen.iter().map(|url| url.parse()).collect::<Result<_, _>>()?;
        }
        self.shards = flags.shards.or(self.shards);
        self.groups = flags.groups.or(self.groups);
        self.log_format = flags.log_format.unwrap_or(self.log_format);
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        self.check_sizes()?;
        self.check_users()?;
        self.check_advertised()?;
        self.check_listen()
    }

    fn check_advertised(&self) -> Result<(), String> {
        let Some(told) = &self.kafka_advertised else { return Ok(()) };
        let parts = told.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
        match parts {
            Some((host, Ok(1..))) if is_host(host) => Ok(()),
            _ => Err(format!(
                "kafka_advertised is '{told}'; it must be a host and a port that clients can connect to, without a \
                 protocol, for example broker.example.org:9092 or [2001:db8::1]:9092"
            )),
        }
    }

    fn check_sizes(&self) -> Result<(), String> {
        if let Some(shards) = self.shards.filter(|shards| !(1..=256).contains(shards)) {
            return Err(format!("shards is {shards}; it must be 1 to 256"));
        }
        if let Some(groups) = self.groups.filter(|groups| !(1..=65_536).contains(groups)) {
            return Err(format!("groups is {groups}; it must be 1 to 65536"));
        }
        let segment = self.segment_bytes;
        if !segment.is_multiple_of(1 << 20) || !(4 << 20..=1 << 30).contains(&segment) {
            return Err(format!(
                "segment_bytes is {segment}; it must be a multiple of 1048576 between 4194304 and 1073741824"
            ));
        }
        // What is not copied out of old segments does not free them: with less the disk would stay full.
        let batch = commitlog::evacuation_bytes_max(segment);
        if self.free_bytes_min <= batch {
            return Err(format!(
                "free_bytes_min is {}; it must be more than {batch}, which moving old messages takes at once with a \
                 segment_bytes of {segment}",
                self.free_bytes_min
            ));
        }
        file::check_limits(&self.limits)
    }

    fn check_users(&self) -> Result<(), String> {
        for (at, user) in self.users.iter().enumerate() {
            if user.name.is_empty() {
                return Err("a user has an empty name".into());
            }
            if self.users[..at].iter().any(|other| other.name == user.name) {
                return Err(format!("user '{}' is configured twice", user.name));
            }
        }
        Ok(())
    }

    fn check_listen(&self) -> Result<(), String> {
        if self.listen.is_empty() {
            return Err(
                "nothing to listen on: give at least one address, for example amqp://127.0.0.1:5672".into()
            );
        }
        let guest_only = self.users == [guest()];
        for (at, listen) in self.listen.iter().enumerate() {
            let same = |other: &&Listen| other.address == listen.address && listen.address.port() != 0;
            if let Some(other) = self.listen[..at].iter().find(same) {
                return Err(format!("{other} and {listen} are the same address; give each its own port"));
            }
            if guest_only && !listen.address.ip().to_canonical().is_loopback() {
                return Err(format!(
                    "refusing to listen on {listen}: it can be reached from other machines, and no user is \
                     configured (guest/guest is for this machine only). Add a user to the configuration file: \
                     [[users]] with name and password_hash; `waystation hash-password` makes the hash"
                ));
            }
        }
        Ok(())
    }
}

/// Whether clients could look for a host of this name: a name, an address of IPv4, or one of IPv6 in brackets.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    }
}

/// The user of a node that has none configured.
fn guest() -> User {
    User { name: "guest".into(), password_hash: auth::plain(b"guest"), loopback_only: true }
}

#[cfg(test)]
mod tests;
