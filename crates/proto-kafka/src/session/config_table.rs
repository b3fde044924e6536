//! What a topic can be configured with, as clients are shown it, and the little a broker is.
//!
//! Names and defaults are those of a Kafka 4 topic. Never: what a value does, or whether it is taken.

use super::reply::Node;

/// The kind of a value, as the protocol numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean = 1,
    Text = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

use Kind::*;

/// Name, kind and default.
pub(super) type Config = (&'static str, Kind, &'static str);

const FOREVER: &str = "9223372036854775807";

/// All configurations of a topic, by name.
pub(super) const TOPIC: [Config; 33] = [
    ("cleanup.policy", List, "delete"),
    ("compression.gzip.level", Int, "-1"),
    ("compression.lz4.level", Int, "9"),
    ("compression.type", Text, "producer"),
    ("compression.zstd.level", Int, "3"),
    ("delete.retention.ms", Long, "86400000"),
    ("file.delete.delay.ms", Long, "60000"),
    ("flush.messages", Long, FOREVER),
    ("flush.ms", Long, FOREVER),
    ("follower.replication.throttled.replicas", List, ""),
    ("index.interval.bytes", Int, "4096"),
    ("leader.replication.throttled.replicas", List, ""),
    ("local.retention.bytes", Long, "-2"),
    ("local.retention.ms", Long, "-2"),
    ("max.compaction.lag.ms", Long, FOREVER),
    ("max.message.bytes", Int, "1048588"),
    ("message.timestamp.after.max.ms", Long, "3600000"),
    ("message.timestamp.before.max.ms", Long, FOREVER),
    ("message.timestamp.type", Text, "CreateTime"),
    ("min.cleanable.dirty.ratio", Double, "0.5"),
    ("min.compaction.lag.ms", Long, "0"),
    ("min.insync.replicas", Int, "1"),
    ("preallocate", Boolean, "false"),
    ("remote.log.copy.disable", Boolean, "false"),
    ("remote.log.delete.on.disable", Boolean, "false"),
    ("remote.storage.enable", Boolean, "false"),
    ("retention.bytes", Long, "-1"),
    ("retention.ms", Long, "604800000"),
    ("segment.bytes", Int, "1073741824"),
    ("segment.index.bytes", Int, "10485760"),
    ("segment.jitter.ms", Long, "0"),
    ("segment.ms", Long, "604800000"),
    ("unclean.leader.election.enable", Boolean, "false"),
];

/// What is true of this broker under the names clients look for.
pub(super) fn of_broker(node: &Node) -> Vec<(&'static str, Kind, String)> {
    let listener = format!("PLAINTEXT://{}:{}", node.host, node.port);
    vec![
        ("advertised.listeners", Text, listener),
        ("auto.create.topics.enable", Boolean, "true".to_owned()),
        ("broker.id", Int, node.id.to_string()),
        ("connections.max.idle.ms", Long, "600000".to_owned()),
        ("default.replication.factor", Int, "1".to_owned()),
        ("delete.topic.enable", Boolean, "true".to_owned()),
        ("log.cleanup.policy", List, "delete".to_owned()),
        ("log.retention.bytes", Long, "-1".to_owned()),
        ("log.retention.ms", Long, "604800000".to_owned()),
        ("message.max.bytes", Int, "1048588".to_owned()),
        ("min.insync.replicas", Int, "1".to_owned()),
        ("node.id", Int, node.id.to_string()),
        ("num.partitions", Int, "1".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_configs_are_in_order_and_have_values_of_their_kind() {
        assert!(TOPIC.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (name, kind, default) in TOPIC {
            let is_sound = match kind {
                Boolean => default.parse::<bool>().is_ok(),
                Int => default.parse::<i32>().is_ok(),
                Long => default.parse::<i64>().is_ok(),
                Double => default.parse::<f64>().is_ok(),
                Text | List => true,
            };
            assert!(is_sound, "{name}");
        }
    }
}
