//! What goes with a connection, a start of a shard, a last consumer or a last binding.

use model::{
    Change as Wanted, ExchangeDeclaration, GroupId, NodeId, Origin, QueueDeclaration, Refusal, ShardId,
};

use super::fixture::*;
use crate::{Answer, Command, Replica};

fn exclusive(name: &str) -> Wanted {
    Wanted::DeclareQueue(QueueDeclaration { exclusive: true, ..a_queue(name) })
}

fn auto_delete(name: &str) -> Wanted {
    Wanted::DeclareQueue(QueueDeclaration { auto_delete: true, ..a_queue(name) })
}

fn transient(name: &str) -> Wanted {
    Wanted::DeclareQueue(QueueDeclaration { durable: false, ..a_queue(name) })
}

fn fleeting_exchange(name: &str) -> Wanted {
    Wanted::DeclareExchange(ExchangeDeclaration { auto_delete: true, ..an_exchange(name, "fanout") })
}

#[test]
fn an_exclusive_queue_is_of_one_connection() {
    let mut topology = with([exclusive("mine")]);
    let locked = Answer::Refused(Refusal::Locked("mine".into()));
    let passive = Wanted::DeclareQueue(QueueDeclaration { passive: true, ..a_queue("mine") });
    for wanted in [
        exclusive("mine"),
        queue("mine"),
        passive,
        delete("mine"),
        bind("amq.direct", "mine", "k"),
        unbind("amq.direct", "mine", "k"),
        Wanted::PurgeQueue { name: "mine".into() },
    ] {
        assert_eq!(change_by(&mut topology, 2, wanted), locked);
    }
    assert_eq!(topology.passive_queue("/", "mine", None), Err(Refusal::Locked("mine".into())));
    assert!(matches!(change(&mut topology, exclusive("mine")), Answer::Declared { created: false, .. }));
    assert_eq!(change(&mut topology, queue("mine")), locked, "not even for its own connection");
    let Answer::Purge(queue) = change(&mut topology, Wanted::PurgeQueue { name: "mine".into() }) else {
        panic!()
    };
    assert_eq!(queue.exclusive, Some(owner(1)));
}

#[test]
fn exclusive_queues_end_with_their_connection() {
    let mut topology = with([exclusive("a"), transient("b"), exclusive("c"), bind("amq.fanout", "c", "")]);
    declared(change_by(&mut topology, 2, exclusive("d")));
    assert_eq!(topology.queues_of(owner(1)).count(), 2);
    assert_eq!(deleted(apply(&mut topology, Command::EndConnection(owner(1)))), ["a", "c"]);
    assert_eq!(deleted(apply(&mut topology, Command::EndConnection(owner(1)))), [""; 0]);
    assert_eq!(topology.bindings().count(), 0);
    let left: Vec<_> = topology.queues().map(|queue| queue.name.as_str()).collect();
    assert_eq!(left, ["b", "d"]);
}

#[test]
fn queues_in_memory_live_on_the_shard_that_declared_them() {
    let mut topology = fresh();
    for wanted in [exclusive("a"), auto_delete("b"), transient("c")] {
        let queue = declared(change(&mut topology, wanted.clone()));
        assert_eq!(queue.group, GroupId::memory(ShardId(2)));
        assert!(queue.in_memory());
        let by_nobody = apply(&mut topology, command_by(None, rename(wanted)));
        assert!(matches!(by_nobody, Answer::Refused(Refusal::Invalid(_))));
    }
    assert!(!topology.queue("/", "a").expect("it was declared").durable, "exclusive ones are never durable");
    assert!(!declared(change(&mut topology, queue("d"))).in_memory());
}

fn rename(wanted: Wanted) -> Wanted {
    let Wanted::DeclareQueue(declaration) = wanted else { panic!("not a queue") };
    Wanted::DeclareQueue(QueueDeclaration { name: "other".into(), ..declaration })
}

#[test]
fn a_start_ends_what_older_starts_of_the_place_kept_in_memory() {
    let mut topology = with([exclusive("a"), auto_delete("b"), transient("c"), queue("stays")]);
    let passing =
        Wanted::DeclareExchange(ExchangeDeclaration { durable: false, ..an_exchange("e", "fanout") });
    change(&mut topology, passing);
    change(&mut topology, bind("e", "stays", ""));
    apply(&mut topology, command_by(Some(owner_in(2, 1)), transient("newer")));
    let elsewhere = Origin::new(NodeId(1), ShardId(3), 9);
    assert_eq!(deleted(apply(&mut topology, Command::Boot(elsewhere))), [""; 0]);
    assert_eq!(deleted(apply(&mut topology, Command::Boot(owner_in(1, 0).origin))), [""; 0]);
    assert_eq!(deleted(apply(&mut topology, Command::Boot(owner_in(2, 0).origin))), ["a", "b", "c"]);
    assert_eq!(topology.exchange("/", "e"), None);
    assert_eq!(topology.bindings().count(), 0);
    let left: Vec<_> = topology.queues().map(|queue| queue.name.as_str()).collect();
    assert_eq!(left, ["stays", "newer"]);
}

#[test]
fn what_was_deleted_before_a_start_is_not_missed() {
    let passing = || ExchangeDeclaration { durable: false, ..an_exchange("e", "fanout") };
    let mut topology = with([transient("a"), Wanted::DeclareExchange(passing())]);
    change(&mut topology, delete("a"));
    change(&mut topology, delete_exchange("e"));
    assert_eq!(deleted(apply(&mut topology, Command::Boot(owner_in(2, 0).origin))), [""; 0]);
    change(&mut topology, Wanted::DeclareExchange(passing()));
    assert!(topology.exchange("/", "e").is_some());
}

#[test]
fn an_unused_queue_goes_only_if_it_was_declared_so() {
    let mut topology = with([auto_delete("a"), queue("q")]);
    let id = |topology: &crate::Topology, name| topology.queue("/", name).expect("it was declared").id;
    let (a, q) = (id(&topology, "a"), id(&topology, "q"));
    assert_eq!(deleted(apply(&mut topology, Command::UnusedAutoDelete(q))), [""; 0]);
    assert_eq!(deleted(apply(&mut topology, Command::UnusedAutoDelete(a))), ["a"]);
    assert_eq!(deleted(apply(&mut topology, Command::UnusedAutoDelete(a))), [""; 0]);
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_binding() {
    let mut topology = with([queue("q"), queue("r"), fleeting_exchange("e")]);
    assert!(topology.exchange("/", "e").is_some(), "not before it had one");
    for wanted in [bind("e", "q", ""), bind("e", "r", ""), unbind("e", "q", "")] {
        change(&mut topology, wanted);
    }
    assert!(topology.exchange("/", "e").is_some());
    change(&mut topology, delete("r"));
    assert_eq!(topology.exchange("/", "e"), None, "deleting the queue unbound it");
}

#[test]
fn a_chain_of_auto_delete_exchanges_goes_together() {
    let names: Vec<_> = (0..1000).map(|number| format!("e{number}")).collect();
    let mut topology = fresh();
    change(&mut topology, queue("q"));
    names.iter().for_each(|name| drop(change(&mut topology, fleeting_exchange(name))));
    names.windows(2).for_each(|pair| drop(change(&mut topology, chain(&pair[0], &pair[1], ""))));
    change(&mut topology, bind("e999", "q", ""));
    assert_eq!(routed(&topology, "e0", ""), ["q"]);
    change(&mut topology, delete("q"));
    assert_eq!((topology.exchanges().count(), topology.bindings().count()), (7, 0));
}

#[test]
fn an_exchange_bound_to_itself_can_be_deleted() {
    let mut topology = with([fleeting_exchange("e"), chain("e", "e", ""), exchange("f", "direct")]);
    change(&mut topology, chain("f", "e", "k"));
    change(&mut topology, delete_exchange("e"));
    assert_eq!((topology.exchange("/", "e"), topology.bindings().count()), (None, 0));
    assert!(topology.exchange("/", "f").is_some());
}

#[test]
fn placement_is_remembered() {
    let mut topology = fresh();
    let replicas = vec![Replica { node: NodeId(1), shard: ShardId(0) }];
    assert_eq!(apply(&mut topology, Command::PlaceGroup(LOGGED, replicas.clone())), Answer::Done);
    assert_eq!(topology.groups().collect::<Vec<_>>(), [(LOGGED, replicas.as_slice())]);
    let unknown = apply(&mut topology, Command::PlaceGroup(GroupId(9), replicas));
    assert!(matches!(unknown, Answer::Refused(Refusal::Invalid(_))));
}
