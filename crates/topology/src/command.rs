//! The commands of the metadata group and their bytes.
//!
//! ```text
//! 0 format u8     1
//! 1 kind u8
//! 2 by kind
//!   1 change          vhost text, owner, group u32, name text, change
//!   2 end connection  origin u64, connection u64
//!   3 boot            origin u64
//!   4 create groups   count u32
//!   5 place group     group u32, varint count, per replica: node u16, shard u16
//!   6 unused          queue u64
//!   7 create topic    vhost text, name text, flags (has partitions, has replicas), partitions u32, replicas u16,
//!                     varint count of configurations, per one: name text, value text, groups
//!   8 add partitions  vhost text, name text, count u32, groups
//!   9 delete topic    vhost text, id u128
//!  10 alter topic     vhost text, name text, varint count, per configuration: name text, flags (has value), value text
//!  11 coordinators    groups
//!  12 name topics     u64
//!
//! groups     varint count, per group: u32
//! owner      u8 0, or u8 1, origin u64, connection u64
//! change     u8, then
//!   1 declare exchange  name, kind text, flags (passive, durable, auto-delete, internal), arguments
//!   2 delete exchange   name, flags (if unused)
//!   3 bind exchange     source, destination, key text, arguments         4 unbind exchange   likewise
//!   5 declare queue     name, flags (passive, durable, exclusive, auto-delete), arguments
//!   6 delete queue      name, flags (if unused, if empty)
//!   7 bind queue        exchange, queue, key text, arguments             8 unbind queue      likewise
//!   9 purge queue       name
//! ```
//! Numbers are little endian; texts, flags and arguments as in `values`. A newer format or an unknown kind is not
//! skipped: it halts the machine, which is older than the log it reads.

use base::{Put, Reader};
use model::topic::TopicDeclaration;
use model::{
    Change as Wanted, ConnId, Damaged, ExchangeDeclaration, GroupId, NodeId, Origin, QueueDeclaration,
    QueueId, ShardId, TopicId,
};

use crate::alter::ConfigValues;
use crate::command_topics::{
    put_create, put_groups, put_topic_id, put_values, read_add, read_alter, read_create, read_delete,
    read_groups,
};
use crate::topology::Halt;
use crate::values::{put_arguments, put_flags, put_text, read_arguments, read_flags, read_text};
use crate::{Owner, Replica};

const FORMAT: u8 = 1;

/// One change a client asked for, with what was chosen when it was proposed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The virtual host.
    pub vhost: String,
    /// What the client asked for.
    pub change: Wanted,
    /// The connection that asked; `None` where an operator did, who can hold nothing exclusively.
    pub owner: Option<Owner>,
    /// The logged group that takes the queue if one is created that is logged.
    pub group: GroupId,
    /// The name of the queue if it is to be named by the broker.
    pub name: String,
}

/// One command.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A client's change.
    Change(Change),
    /// A connection has ended: its exclusive queues go.
    EndConnection(Owner),
    /// A shard has started: what older starts of the same place kept in memory is gone.
    Boot(Origin),
    /// Groups 1 to this number exist; fewer than there are changes nothing.
    CreateGroups(u32),
    /// Where a group's replicas are.
    PlaceGroup(GroupId, Vec<Replica>),
    /// The last consumer of an auto-delete queue has left.
    UnusedAutoDelete(QueueId),
    /// A topic is to be.
    CreateTopic {
        /// The virtual host.
        vhost: String,
        /// As it was resolved when it was proposed.
        declaration: TopicDeclaration,
        /// Where each partition goes.
        groups: Vec<GroupId>,
    },
    /// A topic is to have more partitions.
    AddPartitions {
        /// The virtual host.
        vhost: String,
        /// The topic.
        name: String,
        /// How many it is to have in all.
        count: u32,
        /// Where each new one goes.
        groups: Vec<GroupId>,
    },
    /// A topic is to go.
    DeleteTopic {
        /// The virtual host.
        vhost: String,
        /// The topic.
        id: TopicId,
    },
    /// A topic is to be configured otherwise.
    AlterTopic {
        /// The virtual host.
        vhost: String,
        /// The topic.
        name: String,
        /// What changes, see [`crate::Topology::altered`].
        configs: ConfigValues,
    },
    /// There are to be coordinators of consumer groups; changes nothing where there are some.
    CreateCoordinators {
        /// Where each one goes.
        groups: Vec<GroupId>,
    },
    /// What the ids of new topics begin with, drawn when the cluster began so that they differ from those of another
    /// cluster; changes nothing once it is chosen, and 0 is no choice.
    NameTopics(u64),
}

impl Command {
    /// Appends the command.
    pub fn encode<P: Put>(&self, out: &mut P) {
        out.put_u8(FORMAT);
        match self {
            Command::Change(change) => {
                out.put_u8(1);
                put_change(out, change);
            }
            Command::EndConnection(owner) => {
                out.put_u8(2);
                put_owner(out, *owner);
            }
            Command::Boot(origin) => {
                out.put_u8(3);
                out.put_u64_le(origin.0);
            }
            Command::CreateGroups(count) => {
                out.put_u8(4);
                out.put_u32_le(*count);
            }
            Command::PlaceGroup(group, replicas) => {
                out.put_u8(5);
                out.put_u32_le(group.0);
                put_replicas(out, replicas);
            }
            Command::UnusedAutoDelete(queue) => {
                out.put_u8(6);
                out.put_u64_le(queue.0);
            }
            Command::CreateTopic { vhost, declaration, groups } => {
                put_on(out, 7, vhost);
                put_create(out, declaration, groups);
            }
            Command::AddPartitions { vhost, name, count, groups } => {
                put_on(out, 8, vhost);
                put_text(out, name);
                out.put_u32_le(*count);
                put_groups(out, groups);
            }
            Command::DeleteTopic { vhost, id } => {
                put_on(out, 9, vhost);
                put_topic_id(out, *id);
            }
            Command::AlterTopic { vhost, name, configs } => {
                put_on(out, 10, vhost);
                put_text(out, name);
                put_values(out, configs);
            }
            Command::CreateCoordinators { groups } => {
                out.put_u8(11);
                put_groups(out, groups);
            }
            Command::NameTopics(first) => {
                out.put_u8(12);
                out.put_u64_le(*first);
            }
        }
    }

    /// The bytes of the command.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// The command of these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Command, Halt> {
        let mut reader = Reader::new(bytes);
        let command = read_command(&mut reader)?;
        if !reader.is_empty() {
            return Err(Halt("a metadata command has more bytes than it should".into()));
        }
        Ok(command)
    }
}

fn read_command(reader: &mut Reader<'_>) -> Result<Command, Halt> {
    let format = reader.u8().map_err(Damaged::from)?;
    if format != FORMAT {
        return Err(Halt(format!("a metadata command has format {format}, this program knows {FORMAT}")));
    }
    let kind = reader.u8().map_err(Damaged::from)?;
    Ok(match kind {
        1 => Command::Change(read_change(reader)?),
        2 => Command::EndConnection(read_owner(reader)?),
        3 => Command::Boot(Origin(reader.u64_le().map_err(Damaged::from)?)),
        4 => Command::CreateGroups(reader.u32_le().map_err(Damaged::from)?),
        5 => {
            let group = GroupId(reader.u32_le().map_err(Damaged::from)?);
            Command::PlaceGroup(group, read_replicas(reader)?)
        }
        6 => Command::UnusedAutoDelete(QueueId(reader.u64_le().map_err(Damaged::from)?)),
        7 => read_create(reader)?,
        8 => read_add(reader)?,
        9 => read_delete(reader)?,
        10 => read_alter(reader)?,
        11 => Command::CreateCoordinators { groups: read_groups(reader)? },
        12 => Command::NameTopics(reader.u64_le().map_err(Damaged::from)?),
        kind => return Err(Halt(format!("a metadata command is of kind {kind}, which is not known here"))),
    })
}

/// Begins a command about something in a virtual host.
fn put_on(out: &mut impl Put, kind: u8, vhost: &str) {
    out.put_u8(kind);
    put_text(out, vhost);
}

fn put_owner(out: &mut impl Put, owner: Owner) {
    out.put_u64_le(owner.origin.0);
    out.put_u64_le(owner.conn.0);
}

fn read_owner(reader: &mut Reader<'_>) -> Result<Owner, Damaged> {
    let origin = Origin(reader.u64_le()?);
    Ok(Owner { origin, conn: ConnId(reader.u64_le()?) })
}

pub(crate) fn put_optional_owner(out: &mut impl Put, owner: Option<Owner>) {
    out.put_u8(u8::from(owner.is_some()));
    if let Some(owner) = owner {
        put_owner(out, owner);
    }
}

pub(crate) fn read_optional_owner(reader: &mut Reader<'_>) -> Result<Option<Owner>, Damaged> {
    let [present] = read_flags(reader)?;
    present.then(|| read_owner(reader)).transpose()
}

pub(crate) fn put_replicas(out: &mut impl Put, replicas: &[Replica]) {
    out.put_varint(replicas.len() as u64);
    for replica in replicas {
        out.put_u16_le(replica.node.0);
        out.put_u16_le(replica.shard.0);
    }
}

pub(crate) fn read_replicas(reader: &mut Reader<'_>) -> Result<Vec<Replica>, Damaged> {
    let mut replicas = Vec::new();
    for _ in 0..reader.varint()? {
        let node = NodeId(reader.u16_le()?);
        replicas.push(Replica { node, shard: ShardId(reader.u16_le()?) });
    }
    Ok(replicas)
}

fn put_change<P: Put>(out: &mut P, change: &Change) {
    put_text(out, &change.vhost);
    put_optional_owner(out, change.owner);
    out.put_u32_le(change.group.0);
    put_text(out, &change.name);
    put_wanted(out, &change.change);
}

fn read_change(reader: &mut Reader<'_>) -> Result<Change, Damaged> {
    let vhost = read_text(reader)?;
    let owner = read_optional_owner(reader)?;
    let group = GroupId(reader.u32_le()?);
    let name = read_text(reader)?;
    Ok(Change { vhost, change: read_wanted(reader)?, owner, group, name })
}

fn put_wanted<P: Put>(out: &mut P, wanted: &Wanted) {
    match wanted {
        Wanted::DeclareExchange(declaration) => put_exchange(out, declaration),
        Wanted::DeleteExchange { name, if_unused } => put_named(out, 2, name, &[*if_unused]),
        Wanted::BindExchange { source, destination, key, arguments } => {
            put_binding(out, 3, [source, destination, key]);
            put_arguments(out, arguments);
        }
        Wanted::UnbindExchange { source, destination, key, arguments } => {
            put_binding(out, 4, [source, destination, key]);
            put_arguments(out, arguments);
        }
        Wanted::DeclareQueue(declaration) => put_queue(out, declaration),
        Wanted::DeleteQueue { name, if_unused, if_empty } => {
            put_named(out, 6, name, &[*if_unused, *if_empty])
        }
        Wanted::BindQueue { exchange, queue, key, arguments } => {
            put_binding(out, 7, [exchange, queue, key]);
            put_arguments(out, arguments);
        }
        Wanted::UnbindQueue { exchange, queue, key, arguments } => {
            put_binding(out, 8, [exchange, queue, key]);
            put_arguments(out, arguments);
        }
        Wanted::PurgeQueue { name } => {
            out.put_u8(9);
            put_text(out, name);
        }
    }
}

fn put_named(out: &mut impl Put, kind: u8, name: &str, flags: &[bool]) {
    out.put_u8(kind);
    put_text(out, name);
    put_flags(out, flags);
}

fn put_binding(out: &mut impl Put, kind: u8, texts: [&String; 3]) {
    out.put_u8(kind);
    texts.into_iter().for_each(|text| put_text(out, text));
}

fn put_exchange<P: Put>(out: &mut P, declaration: &ExchangeDeclaration) {
    let ExchangeDeclaration { name, kind, passive, durable, auto_delete, internal, arguments } = declaration;
    out.put_u8(1);
    put_text(out, name);
    put_text(out, kind);
    put_flags(out, &[*passive, *durable, *auto_delete, *internal]);
    put_arguments(out, arguments);
}

fn put_queue<P: Put>(out: &mut P, declaration: &QueueDeclaration) {
    let QueueDeclaration { name, passive, durable, exclusive, auto_delete, arguments } = declaration;
    out.put_u8(5);
    put_text(out, name);
    put_flags(out, &[*passive, *durable, *exclusive, *auto_delete]);
    put_arguments(out, arguments);
}

fn read_wanted(reader: &mut Reader<'_>) -> Result<Wanted, Damaged> {
    let kind = reader.u8()?;
    let first = read_text(reader)?;
    Ok(match kind {
        1 => read_exchange(reader, first)?,
        2 => {
            let [if_unused] = read_flags(reader)?;
            Wanted::DeleteExchange { name: first, if_unused }
        }
        5 => read_queue(reader, first)?,
        6 => {
            let [if_unused, if_empty] = read_flags(reader)?;
            Wanted::DeleteQueue { name: first, if_unused, if_empty }
        }
        3 | 4 | 7 | 8 => read_binding(reader, kind, first)?,
        9 => Wanted::PurgeQueue { name: first },
        _ => return Err(Damaged("a change is of an unknown kind")),
    })
}

fn read_exchange(reader: &mut Reader<'_>, name: String) -> Result<Wanted, Damaged> {
    let kind = read_text(reader)?;
    let [passive, durable, auto_delete, internal] = read_flags(reader)?;
    let arguments = read_arguments(reader)?;
    Ok(Wanted::DeclareExchange(ExchangeDeclaration {
        name,
        kind,
        passive,
        durable,
        auto_delete,
        internal,
        arguments,
    }))
}

fn read_queue(reader: &mut Reader<'_>, name: String) -> Result<Wanted, Damaged> {
    let [passive, durable, exclusive, auto_delete] = read_flags(reader)?;
    let arguments = read_arguments(reader)?;
    Ok(Wanted::DeclareQueue(QueueDeclaration { name, passive, durable, exclusive, auto_delete, arguments }))
}

fn read_binding(reader: &mut Reader<'_>, kind: u8, from: String) -> Result<Wanted, Damaged> {
    let to = read_text(reader)?;
    let key = read_text(reader)?;
    let arguments = read_arguments(reader)?;
    Ok(match kind {
        3 => Wanted::BindExchange { source: from, destination: to, key, arguments },
        4 => Wanted::UnbindExchange { source: from, destination: to, key, arguments },
        7 => Wanted::BindQueue { exchange: from, queue: to, key, arguments },
        _ => Wanted::UnbindQueue { exchange: from, queue: to, key, arguments },
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::values::tests::any_arguments;
    use model::Arguments;
    use proptest::prelude::*;

    fn any_wanted() -> impl Strategy<Value = Wanted> {
        let texts = ("[a-z.#*]{0,6}", "[a-z]{0,6}", "[a-z]{0,6}");
        (0..9u8, texts, any::<[bool; 4]>(), any_arguments()).prop_map(
            |(kind, (a, b, c), flags, arguments)| {
                let [f, g, h, i] = flags;
                match kind {
                    0 => Wanted::DeclareExchange(ExchangeDeclaration {
                        name: a,
                        kind: b,
                        passive: f,
                        durable: g,
                        auto_delete: h,
                        internal: i,
                        arguments,
                    }),
                    1 => Wanted::DeleteExchange { name: a, if_unused: f },
                    2 => Wanted::BindExchange { source: a, destination: b, key: c, arguments },
                    3 => Wanted::UnbindExchange { source: a, destination: b, key: c, arguments },
                    4 => Wanted::DeclareQueue(QueueDeclaration {
                        name: a,
                        passive: f,
                        durable: g,
                        exclusive: h,
                        auto_delete: i,
                        arguments,
                    }),
                    5 => Wanted::DeleteQueue { name: a, if_unused: f, if_empty: g },
                    6 => Wanted::BindQueue { exchange: a, queue: b, key: c, arguments },
                    7 => Wanted::UnbindQueue { exchange: a, queue: b, key: c, arguments },
                    _ => Wanted::PurgeQueue { name: a },
                }
            },
        )
    }

    fn any_owner() -> impl Strategy<Value = Owner> {
        (any::<u64>(), any::<u64>())
            .prop_map(|(origin, conn)| Owner { origin: Origin(origin), conn: ConnId(conn) })
    }

    fn any_groups() -> impl Strategy<Value = Vec<GroupId>> {
        proptest::collection::vec((0..4u32).prop_map(GroupId), 0..5)
    }

    fn any_configs() -> impl Strategy<Value = Vec<(String, String)>> {
        let name = prop_oneof![Just("retention.ms"), Just("cleanup.policy"), Just("no.such")];
        let value = prop_oneof![Just("-1"), Just("5"), Just("compact"), Just("")];
        proptest::collection::vec((name.prop_map(String::from), value.prop_map(String::from)), 0..3)
    }

    /// Commands about topics with names that meet those of `any_wanted` now and then.
    fn any_topic_command() -> impl Strategy<Value = Command> {
        let asked = ("[a-b]{0,1}", any_groups(), any_configs(), proptest::option::of(0..4u32));
        (0..5u8, asked, any::<[bool; 2]>(), 0..9u128).prop_map(|(kind, asked, flags, id)| {
            let (name, groups, configs, partitions) = asked;
            let vhost = "/".to_owned();
            match kind {
                0 => {
                    let replicas = flags[0].then_some(1);
                    let declaration = TopicDeclaration { name, partitions, replicas, configs };
                    Command::CreateTopic { vhost, declaration, groups }
                }
                1 => Command::AddPartitions { vhost, name, count: partitions.unwrap_or(0), groups },
                2 => Command::DeleteTopic { vhost, id: TopicId(0x5761_7973_7461_7469 << 64 | id) },
                3 => {
                    let set = |(name, value)| (name, flags[0].then_some(value));
                    Command::AlterTopic { vhost, name, configs: configs.into_iter().map(set).collect() }
                }
                _ => Command::CreateCoordinators { groups },
            }
        })
    }

    pub(crate) fn any_command() -> impl Strategy<Value = Command> {
        let replica = any::<(u16, u16)>()
            .prop_map(|(node, shard)| Replica { node: NodeId(node), shard: ShardId(shard) });
        let asked = (any_wanted(), proptest::option::of(any_owner()), any::<u32>(), "[a-z]{0,4}");
        prop_oneof![
            4 => asked.prop_map(|(change, owner, group, name)| {
                Command::Change(Change { vhost: "/".into(), change, owner, group: GroupId(group), name })
            }),
            3 => any_topic_command(),
            1 => any_owner().prop_map(Command::EndConnection),
            1 => any::<u64>().prop_map(|origin| Command::Boot(Origin(origin))),
            1 => any::<u32>().prop_map(Command::CreateGroups),
            1 => (any::<u32>(), proptest::collection::vec(replica, 0..4))
                .prop_map(|(group, replicas)| Command::PlaceGroup(GroupId(group), replicas)),
            1 => any::<u64>().prop_map(Command::NameTopics),
            1 => any::<u64>().prop_map(|queue| Command::UnusedAutoDelete(QueueId(queue))),
        ]
    }

    proptest! {
        #[test]
        fn commands_come_back(command in any_command()) {
            let bytes = command.to_bytes();
            let read = Command::decode(&bytes).expect("what was written can be read");
            prop_assert_eq!(format!("{read:?}"), format!("{command:?}"));
            prop_assert!(Command::decode(&bytes[..bytes.len() - 1]).is_err(), "a command cut short");
        }

        #[test]
        fn damaged_commands_halt_or_are_other_commands(
            command in any_command(),
            flips in proptest::collection::vec((any::<usize>(), 1..=255u8), 1..4),
        ) {
            let mut bytes = command.to_bytes();
            for (at, with) in flips {
                let at = at % bytes.len();
                bytes[at] ^= with;
            }
            let mut topology = crate::Topology::new(&Default::default());
            if let (Ok(_), Ok(read)) = (topology.apply(&bytes), Command::decode(&bytes)) {
                let again = Command::decode(&read.to_bytes()).expect("what was written can be read");
                prop_assert_eq!(format!("{read:?}"), format!("{again:?}"));
            }
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..12u8) {
            let mut topology = crate::Topology::new(&Default::default());
            let _ = topology.apply(&bytes);
            let _ = topology.apply(&[&[FORMAT, kind], bytes.as_slice()].concat());
        }
    }

    #[test]
    fn example_bytes_decode() {
        let bytes = [
            1, 1, // format, change
            1, b'/', // virtual host
            1, 7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, // owner
            3, 0, 0, 0, // group
            0, // no drawn name
            5, 1, b'q', 0b0010, // declare queue q, durable
            1, 1, b'n', 2, // n: true
        ];
        let change = Wanted::DeclareQueue(QueueDeclaration {
            name: "q".into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Arguments(vec![("n".into(), model::Value::Bool(true))]),
        });
        let owner = Some(Owner { origin: Origin(7), conn: ConnId(9) });
        let command = Command::Change(Change {
            vhost: "/".into(),
            change,
            owner,
            group: GroupId(3),
            name: String::new(),
        });
        assert_eq!(Command::decode(&bytes), Ok(command.clone()));
        assert_eq!(command.to_bytes(), bytes);
    }

    #[test]
    fn example_bytes_of_topics_decode() {
        let bytes = [
            1, 7, 1, b'/', 1, b't', // create topic t
            0b01, 2, 0, 0, 0, // two partitions, replicas as usual
            1, 1, b'n', 1, b'v', // n is v
            2, 1, 0, 0, 0, 2, 0, 0, 0, // in groups 1 and 2
        ];
        let declaration = TopicDeclaration {
            name: "t".into(),
            partitions: Some(2),
            replicas: None,
            configs: vec![("n".into(), "v".into())],
        };
        let groups = vec![GroupId(1), GroupId(2)];
        let create = Command::CreateTopic { vhost: "/".into(), declaration, groups };
        assert_eq!((Command::decode(&bytes), create.to_bytes()), (Ok(create), bytes.to_vec()));
        let bytes = [1, 10, 1, b'/', 1, b't', 2, 1, b'a', 1, 1, b'x', 1, b'b', 0];
        let configs = vec![("a".into(), Some("x".into())), ("b".into(), None)];
        let alter = Command::AlterTopic { vhost: "/".into(), name: "t".into(), configs };
        assert_eq!((Command::decode(&bytes), alter.to_bytes()), (Ok(alter), bytes.to_vec()));
    }

    #[test]
    fn what_is_newer_halts_with_its_reason() {
        for bytes in [&[2, 1][..], &[1, 200], &[1, 3, 0], &[1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]] {
            let Err(Halt(reason)) = Command::decode(bytes) else { panic!("taken: {bytes:?}") };
            assert!(reason.contains("metadata command"), "{reason}");
        }
    }
}
