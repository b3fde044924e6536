//! What exists and where a message goes: virtual hosts, exchanges, queues, topics, bindings, placement, and the routing index
//! over them.
//!
//! Floor 2. In: committed commands of the metadata group, in order, and questions. Out: answers, refusals, targets of
//! a route. Every shard holds its own [`Topology`] and applies the same commands, so all of them agree and readers take
//! no lock. Never: messages, consumers, counts of either (only the host of a queue knows them), clocks, randomness.

mod alter;
mod arguments;
mod bindings;
mod checkpoint;
mod command;
mod command_topics;
mod configs;
mod exchanges;
mod fan;
mod headers;
mod queues;
mod records;
mod router;
mod stream_arguments;
mod topics;
mod topology;
mod trie;
mod values;

#[cfg(test)]
mod tests;

pub use alter::ConfigValues;
pub use command::{Change, Command};
pub use configs::{ConfigKind, TOPIC_CONFIGS, TopicConfig, TopicSettings, topic_config};
pub use records::{
    BindingId, BindingRecord, Destination, ExchangeId, ExchangeKind, ExchangeRecord, Owner, QueueKind,
    QueueRecord, Replica, Target,
};
pub use topics::{TopicRecord, check_topic_name, is_topic_name};
pub use topology::{Answer, Halt, Topology};
