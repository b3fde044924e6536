//! What a topic can be configured with: names, values, defaults, and what they come to.
//!
//! In: configurations as texts. Out: refusals that name what is wrong, and [`TopicSettings`]. Every name a Kafka 4 topic
//! has is taken if its value is one of its kind. Those that mean something here are in [`TopicSettings`]; the others are
//! kept and shown, and tune a way of storing that is not this one's. Batches are kept as they were received whatever
//! `compression.type` says. A value that promises what does not happen here is refused: remote storage.

use std::collections::BTreeMap;

use model::LogRefusal;

use ConfigKind::*;

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean,
    /// Of 32 bits, between these.
    Int(i32, i32),
    /// Of 64 bits, at least this.
    Long(i64),
    /// A number between these.
    Double(f64, f64),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Some of these, separated by commas, at least one.
    SomeOf(&'static [&'static str]),
    /// Anything, separated by commas.
    List,
    /// Only `false`: what `true` would ask for does not exist.
    OnlyFalse,
}

/// One configuration of a topic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicConfig {
    /// Its name.
    pub name: &'static str,
    /// What its value must look like.
    pub kind: ConfigKind,
    /// Its value where nothing else was said.
    pub default: &'static str,
}

const fn config(name: &'static str, kind: ConfigKind, default: &'static str) -> TopicConfig {
    TopicConfig { name, kind, default }
}

const FOREVER: &str = "9223372036854775807";

/// All configurations, by name.
pub const TOPIC_CONFIGS: [TopicConfig; 33] = [
    config("cleanup.policy", SomeOf(&["compact", "delete"]), "delete"),
    config("compression.gzip.level", Int(-1, 9), "-1"),
    config("compression.lz4.level", Int(1, 17), "9"),
    config(
        "compression.type",
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
    ),
    config("compression.zstd.level", Int(-131_072, 22), "3"),
    config("delete.retention.ms", Long(0), "86400000"),
    config("file.delete.delay.ms", Long(0), "60000"),
    config("flush.messages", Long(1), FOREVER),
    config("flush.ms", Long(0), FOREVER),
    config("follower.replication.throttled.replicas", List, ""),
    config("index.interval.bytes", Int(0, i32::MAX), "4096"),
    config("leader.replication.throttled.replicas", List, ""),
    config("local.retention.bytes", Long(-2), "-2"),
    config("local.retention.ms", Long(-2), "-2"),
    config("max.compaction.lag.ms", Long(1), FOREVER),
    config("max.message.bytes", Int(0, i32::MAX), "1048588"),
    config("message.timestamp.after.max.ms", Long(0), "3600000"),
    config("message.timestamp.before.max.ms", Long(0), FOREVER),
    config("message.timestamp.type", OneOf(&["CreateTime", "LogAppendTime"]), "CreateTime"),
    config("min.cleanable.dirty.ratio", Double(0.0, 1.0), "0.5"),
    config("min.compaction.lag.ms", Long(0), "0"),
    config("min.insync.replicas", Int(1, i32::MAX), "1"),
    config("preallocate", Boolean, "false"),
    config("remote.log.copy.disable", OnlyFalse, "false"),
    config("remote.log.delete.on.disable", OnlyFalse, "false"),
    config("remote.storage.enable", OnlyFalse, "false"),
    config("retention.bytes", Long(-1), "-1"),
    config("retention.ms", Long(-1), "604800000"),
    config("segment.bytes", Int(14, i32::MAX), "1073741824"),
    config("segment.index.bytes", Int(4, i32::MAX), "10485760"),
    config("segment.jitter.ms", Long(0), "0"),
    config("segment.ms", Long(1), "604800000"),
    config("unclean.leader.election.enable", Boolean, "false"),
];

/// What the configurations of a topic come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Milliseconds after which records go; `None`: never for their age.
    pub retention_ms: Option<u64>,
    /// Bytes beyond which the oldest records go; `None`: never for their size.
    pub retention_bytes: Option<u64>,
    /// Milliseconds after which what was appended is no longer the open end of its log.
    pub segment_ms: u64,
    /// Bytes of the open end of a log, at most.
    pub segment_bytes: u64,
    /// Whether only the newest record of each key needs to stay.
    pub compact: bool,
    /// Whether age and size let records go.
    pub delete: bool,
    /// The largest batch taken.
    pub max_message_bytes: u32,
    /// The same where the topic was told so, and does not just have it by default.
    pub told_max_message_bytes: Option<u32>,
    /// Whether records get the time of the log instead of the writer's.
    pub log_append_time: bool,
    /// Milliseconds that every record stays before it may be compacted away.
    pub min_compaction_lag_ms: u64,
    /// Thousandths of a log's bytes that must not be compacted yet to make a pass worth it.
    pub min_dirty_permille: u32,
    /// Milliseconds after which a record must be compacted away if it has to go at all.
    pub max_compaction_lag_ms: u64,
    /// Milliseconds that a compacted log keeps the mark of a deleted key.
    pub delete_retention_ms: u64,
    /// Milliseconds that a writer's time may lie behind the log's.
    pub timestamp_before_max_ms: u64,
    /// Milliseconds that a writer's time may lie before the log's.
    pub timestamp_after_max_ms: u64,
}

impl TopicSettings {
    /// What these come to; a value that cannot be counts as its default.
    pub fn of(configs: &BTreeMap<String, String>) -> TopicSettings {
        let text = |name| value_of(configs, name);
        let number = |name| text(name).parse::<i64>().unwrap_or(0);
        let unless_negative = |name| u64::try_from(number(name)).ok();
        let at_least_0 = |name| unless_negative(name).unwrap_or(0);
        let max_message_bytes = u32::try_from(number("max.message.bytes")).unwrap_or(0);
        let policy = |wanted| text("cleanup.policy").split(',').any(|one| one.trim() == wanted);
        TopicSettings {
            retention_ms: unless_negative("retention.ms"),
            retention_bytes: unless_negative("retention.bytes"),
            segment_ms: at_least_0("segment.ms"),
            segment_bytes: at_least_0("segment.bytes"),
            compact: policy("compact"),
            delete: policy("delete"),
            max_message_bytes,
            told_max_message_bytes: configs.get("max.message.bytes").map(|_| max_message_bytes),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            min_compaction_lag_ms: at_least_0("min.compaction.lag.ms"),
            min_dirty_permille: permille(text("min.cleanable.dirty.ratio")),
            max_compaction_lag_ms: at_least_0("max.compaction.lag.ms"),
            delete_retention_ms: at_least_0("delete.retention.ms"),
            timestamp_before_max_ms: at_least_0("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: at_least_0("message.timestamp.after.max.ms"),
        }
    }
}

/// A ratio as thousandths.
fn permille(ratio: &str) -> u32 {
    ratio.trim().parse::<f64>().map_or(500, |ratio| (ratio * 1000.0) as u32)
}

/// The configuration of this name.
pub fn topic_config(name: &str) -> Option<&'static TopicConfig> {
    TOPIC_CONFIGS.iter().find(|config| config.name == name)
}

fn value_of<'a>(configs: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    let config = topic_config(name).expect("settings are made of configurations that exist");
    match configs.get(name) {
        Some(value) if config.kind.takes(value) => value,
        _ => config.default,
    }
}

/// Refuses a name that is not known or a value it cannot have.
pub(crate) fn check_config(name: &str, value: &str) -> Result<(), LogRefusal> {
    let config = known(name)?;
    if config.kind.takes(value) {
        return Ok(());
    }
    let text = format!("configuration '{name}': '{value}' is not {}", config.kind.expected());
    Err(LogRefusal::InvalidConfig(text))
}

/// A value as it is kept: without white space around it, and `true` and `false` in small letters.
pub(crate) fn plain(name: &str, value: &str) -> String {
    let value = value.trim();
    match topic_config(name).map(|config| config.kind) {
        Some(Boolean | OnlyFalse) => value.to_ascii_lowercase(),
        _ => value.to_owned(),
    }
}

/// Refuses configurations of which one rules another out.
pub(crate) fn check_together(configs: &BTreeMap<String, String>) -> Result<(), LogRefusal> {
    let settings = TopicSettings::of(configs);
    let (least, most) = (settings.min_compaction_lag_ms, settings.max_compaction_lag_ms);
    if least <= most {
        return Ok(());
    }
    Err(LogRefusal::InvalidConfig(format!(
        "configuration 'min.compaction.lag.ms': {least} is more than the {most} of 'max.compaction.lag.ms'"
    )))
}

pub(crate) fn known(name: &str) -> Result<&'static TopicConfig, LogRefusal> {
    topic_config(name).ok_or_else(|| {
        let text = match nearest(name) {
            Some(near) => format!("there is no configuration '{name}': did you mean '{near}'?"),
            None => format!("there is no configuration '{name}'"),
        };
        LogRefusal::InvalidConfig(text)
    })
}

impl ConfigKind {
    fn takes(self, value: &str) -> bool {
        match self {
            Boolean => matches!(value, "true" | "false"),
            Int(least, most) => value.parse().is_ok_and(|number| (least..=most).contains(&number)),
            Long(least) => value.parse::<i64>().is_ok_and(|number| number >= least),
            Double(least, most) => value.parse().is_ok_and(|number| (least..=most).contains(&number)),
            OneOf(allowed) => allowed.contains(&value),
            SomeOf(allowed) => value.split(',').all(|one| allowed.contains(&one.trim())),
            List => true,
            OnlyFalse => value == "false",
        }
    }

    fn expected(self) -> String {
        match self {
            Boolean => "true or false".into(),
            Int(least, i32::MAX) => format!("an integer of at least {least}"),
            Int(least, most) => format!("an integer from {least} to {most}"),
            Long(least) => format!("an integer of at least {least}"),
            Double(least, most) => format!("a number from {least} to {most}"),
            OneOf(allowed) => format!("one of {}", allowed.join(", ")),
            SomeOf(allowed) => format!("a list of {}", allowed.join(", ")),
            List => "a list".into(),
            OnlyFalse => "false: there is no remote storage".into(),
        }
    }

    /// Whether single values can be added to it and taken from it.
    pub fn is_list(self) -> bool {
        matches!(self, SomeOf(_) | List)
    }
}

/// The known name that takes the fewest changes of letters, where that is few.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > 64 {
        return None;
    }
    let near = TOPIC_CONFIGS.iter().map(|config| (distance(name, config.name), config.name)).min()?;
    (near.0 <= name.len().max(3) / 3).then_some(near.1)
}

fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(configs: &[(&str, &str)]) -> TopicSettings {
        TopicSettings::of(
            &configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        )
    }

    #[test]
    fn names_are_in_order_and_defaults_are_values() {
        assert!(TOPIC_CONFIGS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for config in TOPIC_CONFIGS {
            assert_eq!(check_config(config.name, config.default), Ok(()), "{}", config.name);
        }
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused_by_name() {
        for (name, good, bad) in [
            ("cleanup.policy", "delete,compact", "delete,shred"),
            ("cleanup.policy", "compact", ""),
            ("retention.ms", "-1", "-2"),
            ("retention.bytes", "9223372036854775807", "9223372036854775808"),
            ("max.message.bytes", "0", "2147483648"),
            ("segment.bytes", "14", "13"),
            ("min.cleanable.dirty.ratio", "0.25", "NaN"),
            ("compression.type", "zstd", "rar"),
            ("message.timestamp.type", "LogAppendTime", "logappendtime"),
            ("preallocate", "true", "yes"),
            ("remote.storage.enable", "false", "true"),
            ("min.insync.replicas", "1", "0"),
            ("segment.ms", "1", "1.5"),
        ] {
            assert_eq!(check_config(name, good), Ok(()), "{name}");
            let refused = check_config(name, bad);
            assert!(
                matches!(&refused, Err(LogRefusal::InvalidConfig(text)) if text.contains(name)),
                "{name}"
            );
        }
    }

    #[test]
    fn values_are_kept_in_their_plain_form() {
        for (name, given, kept) in [
            ("preallocate", "True", "true"),
            ("remote.storage.enable", " FALSE ", "false"),
            ("retention.ms", " 100\n", "100"),
            ("message.timestamp.type", "LogAppendTime ", "LogAppendTime"),
            ("no.such.name", "True", "True"),
        ] {
            assert_eq!(plain(name, given), kept);
        }
    }

    #[test]
    fn a_lag_beyond_the_longest_is_refused() {
        let lags = |least: &str, most: &str| {
            let pairs = [("min.compaction.lag.ms", least), ("max.compaction.lag.ms", most)];
            check_together(&pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
        };
        assert_eq!(lags("50", "50"), Ok(()));
        assert!(matches!(lags("51", "50"), Err(LogRefusal::InvalidConfig(_))));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let refusal = |name| match check_config(name, "1") {
            Err(LogRefusal::InvalidConfig(text)) => text,
            other => panic!("taken: {other:?}"),
        };
        assert!(refusal("retention.msec").contains("'retention.ms'"));
        assert!(refusal("retension.bytes").contains("'retention.bytes'"));
        assert!(!refusal("quite.another.thing.altogether").contains("mean"));
        assert!(!refusal(&"x".repeat(10_000)).contains("mean"));
    }

    #[test]
    fn distances_are_counted_in_letters() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", "abc"), distance("abc", ""), distance("abc", "abc")), (3, 3, 0));
    }

    #[test]
    fn settings_are_what_the_texts_say() {
        let plain = settings(&[]);
        assert_eq!((plain.retention_ms, plain.retention_bytes), (Some(604_800_000), None));
        assert_eq!((plain.compact, plain.delete, plain.log_append_time), (false, true, false));
        assert_eq!((plain.segment_ms, plain.segment_bytes), (604_800_000, 1 << 30));
        assert_eq!((plain.max_message_bytes, plain.told_max_message_bytes), (1_048_588, None));
        assert_eq!(plain.delete_retention_ms, 86_400_000);
        assert_eq!((plain.timestamp_after_max_ms, plain.max_compaction_lag_ms), (3_600_000, i64::MAX as u64));
        let other = settings(&[
            ("retention.ms", "-1"),
            ("retention.bytes", "5"),
            ("cleanup.policy", "compact, delete"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.compaction.lag.ms", "7"),
        ]);
        assert_eq!((other.retention_ms, other.retention_bytes), (None, Some(5)));
        assert_eq!((other.compact, other.delete, other.log_append_time), (true, true, true));
        assert_eq!(other.min_compaction_lag_ms, 7);
        for told in [200, 1_048_588] {
            let bounded = settings(&[("max.message.bytes", &told.to_string())]);
            assert_eq!((bounded.max_message_bytes, bounded.told_max_message_bytes), (told, Some(told)));
        }
        assert!(!settings(&[("cleanup.policy", "compact")]).delete);
        assert_eq!(settings(&[("retention.ms", "soon")]), plain, "not a value");
    }
}
