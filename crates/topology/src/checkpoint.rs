//! The whole state as bytes, and back.
//!
//! ```text
//!  0 format u16           3; 2 had no start of topic ids, 1 neither kinds of queues nor topics; both are still read
//!  2 version u64
//! 10 next queue u64       18 next exchange u64       26 next binding u64
//! 34 start of topic ids u64
//! 42 varint count of groups, per group: u32, varint count of replicas, per replica: node u16, shard u16
//!    varint count of virtual hosts, per host: name
//!    varint count of exchanges, per exchange: id u64, vhost, name, kind u8,
//!      flags (durable, auto-delete, internal, has home), home u64 if it has one, arguments
//!    varint count of queues, per queue: id u64, kind u8, vhost, name, group u32,
//!      flags (durable, auto-delete, has home), home u64 if it has one, exclusive owner, arguments
//!    varint count of bindings, per binding: id u64, source u64, u8 (0 queue, 1 exchange), destination u64, key, arguments
//!    varint count of topics, per topic: id u128, vhost, name, varint count of partitions, per partition: queue u64,
//!      varint count of configurations, per one: name, value
//! ```
//! Numbers are little endian; texts, flags and arguments as in `values`, owners as in `command`. Everything is in the
//! order of ids, coordinators in that of their creation, so equal states have equal bytes. Never: indexes; they are built again and may change their form.

use std::collections::BTreeMap;

use base::{Put, Reader};
use model::{Arguments, Damaged, GroupId, Limits, Origin, QueueId};

use crate::command::{put_optional_owner, put_replicas, read_optional_owner, read_replicas};
use crate::command_topics::{put_topic_id, read_topic_id};
use crate::topics::TopicRecord;
use crate::values::{put_arguments, put_flags, put_text, read_arguments, read_flags, read_text};
use crate::{
    BindingId, BindingRecord, Destination, ExchangeId, ExchangeKind, ExchangeRecord, QueueKind, QueueRecord,
    Topology,
};

const FORMAT: u16 = 3;

/// A sink that keeps only a 64-bit FNV-1a hash of what is put in.
struct Hash(u64);

impl Put for Hash {
    fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl Topology {
    /// Appends the whole state.
    pub fn encode<P: Put>(&self, out: &mut P) {
        out.put_u16_le(FORMAT);
        for number in [self.version, self.next_queue, self.next_exchange, self.bindings.next, self.topic_ids]
        {
            out.put_u64_le(number);
        }
        out.put_varint(self.groups.len() as u64);
        for (group, replicas) in &self.groups {
            out.put_u32_le(group.0);
            put_replicas(out, replicas);
        }
        out.put_varint(self.vhosts.len() as u64);
        self.vhosts.keys().for_each(|name| put_text(out, name));
        out.put_varint(self.exchanges.len() as u64);
        self.exchanges().for_each(|exchange| put_exchange(out, exchange));
        out.put_varint(self.queues.len() as u64);
        self.queues().for_each(|queue| put_queue(out, queue));
        out.put_varint(self.bindings.records.len() as u64);
        self.bindings().for_each(|binding| put_binding(out, binding));
        out.put_varint(self.topics.len() as u64);
        self.topics.values().for_each(|topic| put_topic(out, topic));
    }

    /// The state of these bytes. The limits are the reader's own: they are not part of the state.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Topology, Damaged> {
        let mut reader = Reader::new(bytes);
        let reader = &mut reader;
        let format = reader.u16_le()?;
        if !(1..=FORMAT).contains(&format) {
            return Err(Damaged("a topology checkpoint of a format that is not known here"));
        }
        let mut topology = Topology::empty(limits);
        topology.version = reader.u64_le()?;
        topology.next_queue = reader.u64_le()?;
        topology.next_exchange = reader.u64_le()?;
        topology.bindings.next = reader.u64_le()?;
        topology.topic_ids = if format > 2 { reader.u64_le()? } else { 0 };
        topology.read_groups(reader)?;
        for _ in 0..reader.varint()? {
            let name = read_text(reader)?;
            topology.add_vhost(&name);
        }
        for _ in 0..reader.varint()? {
            topology.read_exchange(reader)?;
        }
        for _ in 0..reader.varint()? {
            topology.read_queue(reader, format)?;
        }
        for _ in 0..reader.varint()? {
            topology.read_binding(reader)?;
        }
        if format > 1 {
            topology.read_topics(reader)?;
        }
        if reader.is_empty() { Ok(topology) } else { Err(Damaged("a topology checkpoint goes on too long")) }
    }

    /// A hash of the whole state: equal on every replica that has applied the same commands.
    pub fn hash(&self) -> u64 {
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        self.encode(&mut hash);
        hash.0
    }

    fn read_groups(&mut self, reader: &mut Reader<'_>) -> Result<(), Damaged> {
        for _ in 0..reader.varint()? {
            let group = GroupId(reader.u32_le()?);
            let replicas = read_replicas(reader)?;
            self.groups.insert(group, replicas);
        }
        Ok(())
    }

    fn read_exchange(&mut self, reader: &mut Reader<'_>) -> Result<(), Damaged> {
        let id = ExchangeId(reader.u64_le()?);
        let vhost = read_text(reader)?;
        let name = read_text(reader)?;
        let kind = ExchangeKind::from_byte(reader.u8()?).ok_or(Damaged("an exchange of an unknown type"))?;
        let [durable, auto_delete, internal, has_home] = read_flags(reader)?;
        let home = read_home(reader, has_home)?;
        let arguments = read_arguments(reader)?;
        let taken = self.exchanges.contains_key(&id) || self.exchange(&vhost, &name).is_some();
        if taken || id.0 >= self.next_exchange || !self.has_vhost(&vhost) {
            return Err(Damaged("an exchange that cannot be"));
        }
        let record =
            ExchangeRecord { id, vhost, name, kind, durable, auto_delete, internal, arguments, home };
        self.add_exchange(record);
        Ok(())
    }

    fn read_queue(&mut self, reader: &mut Reader<'_>, format: u16) -> Result<(), Damaged> {
        let id = QueueId(reader.u64_le()?);
        let kind = if format > 1 { QueueKind::from_byte(reader.u8()?) } else { Some(QueueKind::Queue) };
        let kind = kind.ok_or(Damaged("a queue of an unknown kind"))?;
        let vhost = read_text(reader)?;
        let name = read_text(reader)?;
        let group = GroupId(reader.u32_le()?);
        let [durable, auto_delete, has_home] = read_flags(reader)?;
        let home = read_home(reader, has_home)?;
        let exclusive = read_optional_owner(reader)?;
        let arguments = read_arguments(reader)?;
        let taken = self.queues.contains_key(&id) || self.queue(&vhost, &name).is_some();
        let has_place =
            if kind == QueueKind::Coordinator { vhost.is_empty() } else { self.has_vhost(&vhost) };
        if taken || id.0 >= self.next_queue || !has_place {
            return Err(Damaged("a queue that cannot be"));
        }
        let queue =
            QueueRecord { id, kind, vhost, name, group, durable, exclusive, auto_delete, arguments, home };
        self.add_queue(queue);
        Ok(())
    }

    fn read_topics(&mut self, reader: &mut Reader<'_>) -> Result<(), Damaged> {
        for _ in 0..reader.varint()? {
            let topic = read_topic(reader)?;
            let is_free = |queue: &QueueId| {
                let stream = self.queues.get(queue).filter(|queue| queue.kind == QueueKind::Stream);
                stream.is_some_and(|queue| queue.vhost == topic.vhost) && !self.topic_of.contains_key(queue)
            };
            let host = self.vhosts.get(&topic.vhost);
            let named = host.is_some_and(|host| !host.topics.contains_key(&topic.name));
            let mut once = topic.partitions.clone();
            once.sort_unstable();
            once.dedup();
            let apart = once.len() == topic.partitions.len();
            let taken = self.topics.contains_key(&topic.id);
            if !named || taken || !apart || once.is_empty() || !once.iter().all(is_free) {
                return Err(Damaged("a topic that cannot be"));
            }
            self.add_topic(topic);
        }
        let streams = self.queues.values().filter(|queue| queue.kind == QueueKind::Stream).count();
        if streams == self.topic_of.len() { Ok(()) } else { Err(Damaged("a stream without a topic")) }
    }

    fn read_binding(&mut self, reader: &mut Reader<'_>) -> Result<(), Damaged> {
        let id = BindingId(reader.u64_le()?);
        let source = ExchangeId(reader.u64_le()?);
        let [to_exchange] = read_flags(reader)?;
        let number = reader.u64_le()?;
        let (destination, exists) = if to_exchange {
            (Destination::Exchange(ExchangeId(number)), self.exchanges.contains_key(&ExchangeId(number)))
        } else {
            (Destination::Queue(QueueId(number)), self.queues.contains_key(&QueueId(number)))
        };
        let key = read_text(reader)?;
        let arguments = read_arguments(reader)?;
        let binding = BindingRecord { id, source, destination, key, arguments };
        let taken = self.bindings.records.contains_key(&id) || self.bindings.find(&binding).is_some();
        if taken || id.0 >= self.bindings.next || !exists || !self.exchanges.contains_key(&source) {
            return Err(Damaged("a binding that cannot be"));
        }
        self.add_binding(binding);
        Ok(())
    }
}

fn put_exchange<P: Put>(out: &mut P, exchange: &ExchangeRecord) {
    out.put_u64_le(exchange.id.0);
    put_text(out, &exchange.vhost);
    put_text(out, &exchange.name);
    out.put_u8(exchange.kind as u8);
    let home = exchange.home;
    put_flags(out, &[exchange.durable, exchange.auto_delete, exchange.internal, home.is_some()]);
    home.into_iter().for_each(|home| out.put_u64_le(home.0));
    put_arguments(out, &exchange.arguments);
}

fn put_queue<P: Put>(out: &mut P, queue: &QueueRecord) {
    out.put_u64_le(queue.id.0);
    out.put_u8(queue.kind as u8);
    put_text(out, &queue.vhost);
    put_text(out, &queue.name);
    out.put_u32_le(queue.group.0);
    put_flags(out, &[queue.durable, queue.auto_delete, queue.home.is_some()]);
    queue.home.into_iter().for_each(|home| out.put_u64_le(home.0));
    put_optional_owner(out, queue.exclusive);
    put_arguments(out, &queue.arguments);
}

fn put_binding<P: Put>(out: &mut P, binding: &BindingRecord) {
    out.put_u64_le(binding.id.0);
    out.put_u64_le(binding.source.0);
    let (to_exchange, number) = match binding.destination {
        Destination::Queue(queue) => (false, queue.0),
        Destination::Exchange(exchange) => (true, exchange.0),
    };
    put_flags(out, &[to_exchange]);
    out.put_u64_le(number);
    put_text(out, &binding.key);
    put_arguments(out, &binding.arguments);
}

fn put_topic<P: Put>(out: &mut P, topic: &TopicRecord) {
    put_topic_id(out, topic.id);
    put_text(out, &topic.vhost);
    put_text(out, &topic.name);
    out.put_varint(topic.partitions.len() as u64);
    topic.partitions.iter().for_each(|queue| out.put_u64_le(queue.0));
    out.put_varint(topic.configs.len() as u64);
    for (name, value) in &topic.configs {
        put_text(out, name);
        put_text(out, value);
    }
}

/// A topic without its arguments, which are its stream's.
fn read_topic(reader: &mut Reader<'_>) -> Result<TopicRecord, Damaged> {
    let id = read_topic_id(reader)?;
    let vhost = read_text(reader)?;
    let name = read_text(reader)?;
    let mut partitions = Vec::new();
    for _ in 0..reader.varint()? {
        partitions.push(QueueId(reader.u64_le()?));
    }
    let mut configs = BTreeMap::new();
    for _ in 0..reader.varint()? {
        configs.insert(read_text(reader)?, read_text(reader)?);
    }
    Ok(TopicRecord { id, vhost, name, partitions, configs, arguments: Arguments::default() })
}

fn read_home(reader: &mut Reader<'_>, present: bool) -> Result<Option<Origin>, Damaged> {
    present.then(|| reader.u64_le().map(Origin)).transpose().map_err(Damaged::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::command::tests::any_command;
    use proptest::prelude::*;

    fn bytes_of(topology: &Topology) -> Vec<u8> {
        let mut bytes = Vec::new();
        topology.encode(&mut bytes);
        bytes
    }

    #[test]
    fn example_bytes_decode() {
        let mut bytes = vec![3, 0]; // format
        for number in [5u64, 2, 2, 2, 7] {
            bytes.extend_from_slice(&number.to_le_bytes()); // version, next queue, exchange, binding, topic ids
        }
        bytes.extend_from_slice(&[1, 3, 0, 0, 0, 1, 1, 0, 2, 0]); // group 3 on shard 2 of node 1
        bytes.extend_from_slice(&[1, 1, b'/']); // virtual host
        bytes.extend_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 1, b'/', 1, b'e', 1, 0b0001, 0]); // direct, durable
        bytes.extend_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, b'/', 1, b'q', 3, 0, 0, 0, 0b001, 0, 0]);
        bytes.extend_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]); // from exchange 1, to a queue
        bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 1, b'k', 0]); // number 1, key k
        bytes.extend_from_slice(&[0]); // no topic
        let topology = Topology::decode(&bytes, &Limits::default()).expect("the layout as drawn");
        let queue = topology.queue("/", "q").expect("it is in the bytes");
        let mut targets = Vec::new();
        topology.route("/", "e", "k", &mut || None, &mut targets).expect("it is in the bytes");
        assert_eq!(targets, [queue.target()]);
        assert_eq!((topology.version(), queue.group, topology.topic_ids), (5, GroupId(3), 7));
        assert_eq!(bytes_of(&topology), bytes);
    }

    #[test]
    fn example_bytes_with_a_topic_and_a_coordinator_decode() {
        let mut bytes = vec![3, 0];
        for number in [5u64, 3, 1, 1, 0] {
            bytes.extend_from_slice(&number.to_le_bytes()); // version, next queue, exchange, binding, topic ids
        }
        bytes.extend_from_slice(&[0, 1, 1, b'/', 0]); // no groups, a virtual host, no exchanges
        bytes.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1, b'/', 1, b't', 1, 0, 0, 0, 0b001, 0, 0]);
        bytes.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, b'c', 1, 0, 0, 0, 0b001, 0, 0]);
        bytes.extend_from_slice(&[0, 1]); // no bindings, one topic
        bytes.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // its id
        bytes.extend_from_slice(&[1, b'/', 1, b't', 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, b'a', 1, b'b']);
        let topology = Topology::decode(&bytes, &Limits::default()).expect("the layout as drawn");
        let topic = topology.topic("/", "t").expect("it is in the bytes");
        assert_eq!((topic.id.0, topic.partitions.as_slice()), (9, &[QueueId(1)][..]));
        assert_eq!(topic.configs, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert_eq!(topology.coordinators().iter().map(|at| at.queue).collect::<Vec<_>>(), [QueueId(2)]);
        assert_eq!(bytes_of(&topology), bytes);
        let without_topic = [&bytes[..bytes.len() - 35], &[0]].concat();
        assert!(Topology::decode(&without_topic, &Limits::default()).is_err(), "a stream without a topic");
    }

    #[test]
    fn older_formats_are_still_read() {
        let mut bytes = vec![1, 0];
        for number in [1u64, 2, 1, 1] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&[0, 1, 1, b'/', 0]);
        bytes.extend_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 1, b'/', 1, b'q', 3, 0, 0, 0, 0b001, 0, 0, 0]);
        let topology = Topology::decode(&bytes, &Limits::default()).expect("as it was");
        let queue = topology.queue("/", "q").expect("it is in the bytes");
        assert_eq!((queue.kind, queue.group), (QueueKind::Queue, GroupId(3)));
        bytes[0] = 4;
        assert!(Topology::decode(&bytes, &Limits::default()).is_err(), "newer than known");
    }

    #[test]
    fn a_checkpoint_without_a_start_of_topic_ids_keeps_the_ids_it_has() {
        let mut bytes = vec![2, 0];
        for number in [5u64, 2, 1, 1] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&[0, 1, 1, b'/', 0]);
        bytes.extend_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1, b'/', 1, b't', 1, 0, 0, 0, 0b001, 0, 0]);
        bytes.extend_from_slice(&[0, 1]);
        bytes.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[1, b'/', 1, b't', 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut topology = Topology::decode(&bytes, &Limits::default()).expect("as it was");
        assert!(!topology.names_topics());
        topology.apply_command(Command::NameTopics(8));
        assert_eq!(topology.topic("/", "t").map(|topic| topic.id.0), Some(9));
        assert!(topology.names_topics());
    }

    #[test]
    fn the_hash_is_that_of_the_bytes() {
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        hash.put(b"a");
        assert_eq!(hash.0, 0xaf63_dc4c_8601_ec8c, "the published value of FNV-1a");
    }

    proptest! {
        #[test]
        fn damaged_checkpoints_are_refused_or_whole(
            commands in proptest::collection::vec(any_command(), 0..20),
            at in any::<usize>(),
            with in 0..=255u8,
            cut in any::<usize>(),
        ) {
            let mut topology = Topology::new(&Limits::default());
            topology.apply_command(Command::CreateGroups(3));
            for command in commands {
                // A group count drawn at random would only make the state large.
                if !matches!(command, Command::CreateGroups(_)) {
                    topology.apply_command(command);
                }
            }
            let mut bytes = bytes_of(&topology);
            let copy = Topology::decode(&bytes, &Limits::default()).expect("it was just written");
            prop_assert_eq!(copy.hash(), topology.hash());
            prop_assert!(Topology::decode(&bytes[..cut % bytes.len()], &Limits::default()).is_err());
            let at = at % bytes.len();
            bytes[at] ^= with;
            if let Ok(other) = Topology::decode(&bytes, &Limits::default()) {
                // Whatever it says now, it holds together: everything can be taken down again.
                let mut other = other;
                let queues: Vec<_> = other.queues().map(|queue| queue.id).collect();
                other.remove_queues(queues);
                let exchanges: Vec<_> = other.exchanges().map(|exchange| exchange.id).collect();
                exchanges.into_iter().for_each(|id| other.remove_exchange(id));
                prop_assert_eq!((other.bindings().count(), other.topics("/").count()), (0, 0));
            }
        }
    }
}
