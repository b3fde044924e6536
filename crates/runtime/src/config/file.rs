//! The configuration file's own shape, the environment laid over it, and what both mean.

use std::path::PathBuf;

use model::Limits;
use serde::Deserialize;
use shard::User;
use toml::{Table, Value};

use super::keys::{Known, unknown};
use super::kinds::{List, Listed, Number};
use super::{Config, ENVIRONMENT, LogFormat};

/// Keys at the top, and below which of them more keys stand.
const KNOWN: [Known; 11] = [
    Known { name: "data_dir", below: &[] },
    Known { name: "listen", below: &[] },
    Known { name: "shards", below: &[] },
    Known { name: "groups", below: &[] },
    Known { name: "segment_bytes", below: &[] },
    Known { name: "ring_bytes_max", below: &[] },
    Known { name: "free_bytes_min", below: &[] },
    Known { name: "kafka_advertised", below: &[] },
    Known { name: "log_format", below: &[] },
    Known { name: "limits", below: LimitSettings::KEYS },
    Known { name: "users", below: &["name", "password_hash", "loopback_only"] },
];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    data_dir: Option<PathBuf>,
    listen: Option<List<String>>,
    shards: Option<Number<u16>>,
    groups: Option<Number<u32>>,
    segment_bytes: Option<Number<u64>>,
    ring_bytes_max: Option<Number<u64>>,
    free_bytes_min: Option<Number<u64>>,
    kafka_advertised: Option<String>,
    log_format: Option<LogFormat>,
    #[serde(default)]
    limits: LimitSettings,
    users: Option<List<UserSettings>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "[[users]] with name and password_hash")]
struct UserSettings {
    name: String,
    password_hash: String,
    #[serde(default)]
    loopback_only: bool,
}

impl Listed for UserSettings {
    const EXPECTED: &str = "[[users]] with name and password_hash, once for each user";
}

macro_rules! limits {
    ($($name:ident: $t:ty = $min:literal),* $(,)?) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, expecting = "[limits] with keys below it")]
        struct LimitSettings { $($name: Option<Number<$t>>,)* }

        impl LimitSettings {
            const KEYS: &[&str] = &[$(stringify!($name)),*];

            fn resolve(self) -> Limits {
                let defaults = Limits::default();
                Limits { $($name: self.$name.map_or(defaults.$name, |Number(given)| given),)* }
            }
        }

        /// Refuses limits with which nothing would work.
        pub fn check_limits(limits: &Limits) -> Result<(), String> {
            $(at_least(stringify!($name), limits.$name as u64, $min)?;)*
            Ok(())
        }
    };
}

fn at_least(name: &str, value: u64, least: u64) -> Result<(), String> {
    if value < least {
        return Err(format!("limits.{name} is {value}; it must be at least {least}"));
    }
    Ok(())
}

limits! {
    message_bytes_max: usize = 1,
    request_bytes_max: usize = 65_536,
    entry_bytes_max: usize = 65_536,
    frame_bytes_max: u32 = 4_096,
    channels_max: u16 = 1,
    heartbeat_s: u16 = 0,
    handshake_ms: u64 = 100,
    unauthenticated_bytes_max: usize = 4_096,
    turn_bytes_max: usize = 4_096,
    partial_bytes_max: usize = 4_096,
    unconfirmed_bytes_max: usize = 4_096,
    uncommitted_bytes_max: usize = 4_096,
    park_ms_max: u64 = 0,
    send_bytes_max: usize = 4_096,
    settle_delay_ms: u64 = 0,
    nesting_max: u8 = 1,
    consumers_max: u32 = 1,
    queues_max: u32 = 1,
    bindings_max: u32 = 1,
    exchanges_max: u32 = 1,
    connections_max: u32 = 1,
    cache_bytes_max: usize = 0,
    read_bytes_max: usize = 65_536,
    offsets_retention_ms: u64 = 60_000,
}

/// The file's keys and values, known to be of the right kinds.
pub fn parse(name: &str, text: &str) -> Result<Table, String> {
    let read = || toml::from_str::<Settings>(text);
    // A number that no TOML has is told better by whoever knows what was expected.
    let told = |error| format!("{name}: {}", read().err().unwrap_or(error));
    let table: Table = toml::from_str(text).map_err(told)?;
    if let Some(complaint) = unknown(&table, &KNOWN) {
        return Err(format!("{name}: {complaint}"));
    }
    // Read here already because only the text's own reader can say in which line something is wrong.
    read().map_err(|error| format!("{name}: {error}"))?;
    Ok(table)
}

/// Lays one environment variable over the file.
pub fn overlay(table: &mut Table, variable: &str, text: &str) -> Result<(), String> {
    let path: Vec<String> = variable[ENVIRONMENT.len()..].split("__").map(str::to_lowercase).collect();
    let value = value_of(&path, text);
    match &path[..] {
        [key] => {
            table.insert(key.clone(), value);
        }
        [section, key] => {
            let below = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            let Some(below) = below.as_table_mut() else {
                return Err(format!("{variable}: '{section}' has no keys below it"));
            };
            below.insert(key.clone(), value);
        }
        _ => return Err(format!("{variable}: keys have at most two parts, SECTION__KEY")),
    }
    let told = |what: String| format!("environment variable {variable}: {what}");
    if let Some(complaint) = unknown(table, &KNOWN) {
        return Err(told(complaint));
    }
    table.clone().try_into::<Settings>().map_err(|error| told(error.message().to_owned()))?;
    Ok(())
}

/// A value as TOML writes it, else the text itself; addresses may also be separated by commas.
fn value_of(path: &[String], text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}")).ok();
    let value =
        parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()));
    match (path, &value) {
        ([key], Value::String(list)) if key == "listen" => {
            Value::Array(list.split(',').map(|url| Value::String(url.trim().to_owned())).collect())
        }
        _ => value,
    }
}

/// What the settings mean.
pub fn resolve(table: Table) -> Result<Config, String> {
    let settings: Settings = table.try_into().map_err(|error| format!("configuration: {error}"))?;
    let defaults = Config::default();
    let listen = match settings.listen {
        Some(List(urls)) => urls.iter().map(|url| url.parse()).collect::<Result<_, _>>()?,
        None => defaults.listen,
    };
    let users = match settings.users {
        Some(List(users)) => users.into_iter().map(user).collect::<Result<_, _>>()?,
        None => defaults.users,
    };
    let number = |given: Option<Number<u64>>, default| given.map_or(default, |Number(given)| given);
    Ok(Config {
        data_dir: settings.data_dir.unwrap_or(defaults.data_dir),
        listen,
        shards: settings.shards.map(|Number(given)| given),
        groups: settings.groups.map(|Number(given)| given),
        segment_bytes: number(settings.segment_bytes, defaults.segment_bytes),
        ring_bytes_max: number(settings.ring_bytes_max, defaults.ring_bytes_max),
        free_bytes_min: number(settings.free_bytes_min, defaults.free_bytes_min),
        kafka_advertised: settings.kafka_advertised,
        log_format: settings.log_format.unwrap_or(defaults.log_format),
        limits: settings.limits.resolve(),
        users,
    })
}

fn user(settings: UserSettings) -> Result<User, String> {
    let UserSettings { name, password_hash, loopback_only } = settings;
    if !password_hash.starts_with("pbkdf2-sha256$") {
        return Err(format!(
            "user '{name}': password_hash is not a hash; `waystation hash-password` makes one from a password"
        ));
    }
    Ok(User { name, password_hash, loopback_only })
}
