//! Short words for tests: commands as bytes, routes as names of queues.

use model::{Arguments, Change as Wanted, ConnId, ExchangeDeclaration, GroupId, Limits, NodeId, Origin};
use model::{QueueDeclaration, Refusal, ShardId, Value};

use crate::{Answer, Change, Command, Owner, QueueRecord, Topology};

pub(super) const LOGGED: GroupId = GroupId(1);

/// A topology with one group.
pub(super) fn fresh() -> Topology {
    let mut topology = Topology::new(&Limits::default());
    assert_eq!(topology.apply(&Command::CreateGroups(1).to_bytes()), Ok(Answer::Done));
    topology
}

/// Connection `conn` of shard 2 of node 1 in its start `boot`.
pub(super) fn owner_in(boot: u32, conn: u64) -> Owner {
    Owner { origin: Origin::new(NodeId(1), ShardId(2), boot), conn: ConnId(conn) }
}

pub(super) fn owner(conn: u64) -> Owner {
    owner_in(1, conn)
}

pub(super) fn command_by(owner: Option<Owner>, change: Wanted) -> Command {
    Command::Change(Change { vhost: "/".into(), change, owner, group: LOGGED, name: "amq.gen-1".into() })
}

pub(super) fn apply(topology: &mut Topology, command: Command) -> Answer {
    topology.apply(&command.to_bytes()).expect("a command of this program is understood")
}

pub(super) fn change_by(topology: &mut Topology, conn: u64, change: Wanted) -> Answer {
    apply(topology, command_by(Some(owner(conn)), change))
}

pub(super) fn change(topology: &mut Topology, wanted: Wanted) -> Answer {
    change_by(topology, 1, wanted)
}

pub(super) fn refused(topology: &mut Topology, wanted: Wanted) -> Refusal {
    let before = topology.hash();
    let Answer::Refused(refusal) = change(topology, wanted.clone()) else { panic!("granted: {wanted:?}") };
    assert_eq!(topology.hash(), before, "a refusal changes nothing");
    refusal
}

pub(super) fn declared(answer: Answer) -> QueueRecord {
    let Answer::Declared { queue, .. } = answer else { panic!("not declared: {answer:?}") };
    queue
}

pub(super) fn deleted(answer: Answer) -> Vec<String> {
    let Answer::DeletedQueues { queues } = answer else { panic!("not deleted: {answer:?}") };
    queues.into_iter().map(|queue| queue.name).collect()
}

pub(super) fn table(entries: &[(&str, Value)]) -> Arguments {
    Arguments(entries.iter().map(|(name, value)| (name.to_string(), value.clone())).collect())
}

pub(super) fn a_queue(name: &str) -> QueueDeclaration {
    QueueDeclaration {
        name: name.into(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: Arguments::default(),
    }
}

pub(super) fn an_exchange(name: &str, kind: &str) -> ExchangeDeclaration {
    ExchangeDeclaration {
        name: name.into(),
        kind: kind.into(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Arguments::default(),
    }
}

pub(super) fn queue(name: &str) -> Wanted {
    Wanted::DeclareQueue(a_queue(name))
}

pub(super) fn exchange(name: &str, kind: &str) -> Wanted {
    Wanted::DeclareExchange(an_exchange(name, kind))
}

pub(super) fn bind(exchange: &str, queue: &str, key: &str) -> Wanted {
    bind_with(exchange, queue, key, &[])
}

pub(super) fn bind_with(exchange: &str, queue: &str, key: &str, arguments: &[(&str, Value)]) -> Wanted {
    let (exchange, queue, key) = (exchange.into(), queue.into(), key.into());
    Wanted::BindQueue { exchange, queue, key, arguments: table(arguments) }
}

pub(super) fn unbind(exchange: &str, queue: &str, key: &str) -> Wanted {
    let (exchange, queue, key) = (exchange.into(), queue.into(), key.into());
    Wanted::UnbindQueue { exchange, queue, key, arguments: Arguments::default() }
}

pub(super) fn chain(source: &str, destination: &str, key: &str) -> Wanted {
    let (source, destination, key) = (source.into(), destination.into(), key.into());
    Wanted::BindExchange { source, destination, key, arguments: Arguments::default() }
}

pub(super) fn unchain(source: &str, destination: &str, key: &str) -> Wanted {
    let (source, destination, key) = (source.into(), destination.into(), key.into());
    Wanted::UnbindExchange { source, destination, key, arguments: Arguments::default() }
}

pub(super) fn delete(name: &str) -> Wanted {
    Wanted::DeleteQueue { name: name.into(), if_unused: false, if_empty: false }
}

pub(super) fn delete_exchange(name: &str) -> Wanted {
    Wanted::DeleteExchange { name: name.into(), if_unused: false }
}

/// Applies changes that must all be granted.
pub(super) fn with(changes: impl IntoIterator<Item = Wanted>) -> Topology {
    let mut topology = fresh();
    for wanted in changes {
        let answer = change(&mut topology, wanted.clone());
        assert!(!matches!(answer, Answer::Refused(_)), "{wanted:?}: {answer:?}");
    }
    topology
}

/// The names of the queues that a message goes to, as they come.
pub(super) fn routed_with(
    topology: &Topology,
    exchange: &str,
    key: &str,
    headers: &Arguments,
) -> Vec<String> {
    let mut targets = Vec::new();
    let routed = topology.route("/", exchange, key, &mut || Some(headers.clone()), &mut targets);
    assert_eq!(routed, Ok(()));
    let name = |target: &crate::Target| {
        let queue = topology.queue_by_id(target.queue).expect("only existing queues are routed to");
        assert_eq!(queue.group, target.group);
        queue.name.clone()
    };
    targets.iter().map(name).collect()
}

pub(super) fn routed(topology: &Topology, exchange: &str, key: &str) -> Vec<String> {
    routed_with(topology, exchange, key, &Arguments::default())
}
