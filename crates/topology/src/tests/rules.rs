//! What may be declared, again and differently, and what is refused how.

use model::{
    Arguments, Change as Wanted, Entity, ExchangeDeclaration, Limits, QueueDeclaration, Refusal, Value,
};

use super::fixture::*;
use crate::{Answer, Command, Topology};

#[test]
fn a_queue_is_created_once_and_found_again() {
    let mut topology = fresh();
    let Answer::Declared { queue: first, created: true } = change(&mut topology, queue("q")) else {
        panic!()
    };
    let version = topology.version();
    let Answer::Declared { queue: again, created: false } = change(&mut topology, queue("q")) else {
        panic!()
    };
    assert_eq!((first.id, first.group), (again.id, LOGGED));
    assert_eq!(topology.version(), version, "nothing changed");
    assert_eq!(topology.queue("/", "q"), Some(&first));
    assert_eq!(topology.passive_queue("/", "q", None), Ok(&first));
    assert_eq!(deleted(change(&mut topology, delete("q"))), ["q"]);
    assert_eq!(deleted(change(&mut topology, delete("q"))), [""; 0], "deleting nothing is fine");
    let next = declared(change(&mut topology, queue("q")));
    assert!(next.id > first.id, "ids are never given twice");
}

#[test]
fn a_queue_declared_differently_is_refused_with_what_differs() {
    let mut topology = with([queue("q")]);
    let differs = |argument, given: &str, had: &str| {
        Refusal::Inequivalent(Entity::Queue, "q".into(), argument, given.into(), had.into())
    };
    let transient = QueueDeclaration { durable: false, ..a_queue("q") };
    assert_eq!(refused(&mut topology, Wanted::DeclareQueue(transient)), differs("durable", "false", "true"));
    let fleeting = QueueDeclaration { auto_delete: true, ..a_queue("q") };
    assert_eq!(
        refused(&mut topology, Wanted::DeclareQueue(fleeting)),
        differs("auto_delete", "true", "false")
    );
    let exclusive = QueueDeclaration { exclusive: true, ..a_queue("q") };
    assert_eq!(refused(&mut topology, Wanted::DeclareQueue(exclusive)), Refusal::Locked("q".into()));
    let arguments = table(&[("x-message-ttl", Value::Int(5))]);
    let expiring = QueueDeclaration { arguments, ..a_queue("q") };
    assert_eq!(
        refused(&mut topology, Wanted::DeclareQueue(expiring)),
        Refusal::InequivalentArgument(
            Entity::Queue,
            "q".into(),
            "x-message-ttl".into(),
            "5".into(),
            "none".into()
        )
    );
}

#[test]
fn an_exchange_declared_differently_is_refused_with_what_differs() {
    let mut topology = with([exchange("e", "topic")]);
    assert_eq!(change(&mut topology, exchange("e", "topic")), Answer::Done);
    let differs = |argument, given: &str, had: &str| {
        Refusal::Inequivalent(Entity::Exchange, "e".into(), argument, given.into(), had.into())
    };
    let mut refuse = |declaration| refused(&mut topology, Wanted::DeclareExchange(declaration));
    let given = || an_exchange("e", "topic");
    assert_eq!(refuse(an_exchange("e", "fanout")), differs("type", "fanout", "topic"));
    assert_eq!(
        refuse(ExchangeDeclaration { durable: false, ..given() }),
        differs("durable", "false", "true")
    );
    let auto_delete = ExchangeDeclaration { auto_delete: true, ..given() };
    assert_eq!(refuse(auto_delete), differs("auto_delete", "true", "false"));
    assert_eq!(
        refuse(ExchangeDeclaration { internal: true, ..given() }),
        differs("internal", "true", "false")
    );
    let arguments = table(&[("alternate-exchange", Value::text("other"))]);
    assert!(matches!(
        refuse(ExchangeDeclaration { arguments, ..given() }),
        Refusal::InequivalentArgument(Entity::Exchange, _, argument, _, _) if argument == "alternate-exchange"
    ));
    let other = ExchangeDeclaration { arguments: table(&[("x-own", Value::Int(1))]), ..given() };
    assert_eq!(change(&mut topology, Wanted::DeclareExchange(other)), Answer::Done);
}

#[test]
fn what_is_missing_is_named() {
    let mut topology = fresh();
    let no_queue = Refusal::NotFound(Entity::Queue, "none".into());
    let no_exchange = Refusal::NotFound(Entity::Exchange, "none".into());
    let passive = QueueDeclaration { passive: true, ..a_queue("none") };
    assert_eq!(refused(&mut topology, Wanted::DeclareQueue(passive)), no_queue);
    let passive = ExchangeDeclaration { passive: true, ..an_exchange("none", "") };
    assert_eq!(refused(&mut topology, Wanted::DeclareExchange(passive)), no_exchange);
    assert_eq!(refused(&mut topology, bind("none", "none", "")), no_exchange);
    assert_eq!(refused(&mut topology, bind("amq.direct", "none", "")), no_queue);
    assert_eq!(refused(&mut topology, chain("amq.direct", "none", "")), no_exchange);
    assert_eq!(refused(&mut topology, Wanted::PurgeQueue { name: "none".into() }), no_queue);
    let elsewhere = Command::Change(crate::Change {
        vhost: "elsewhere".into(),
        change: queue("q"),
        owner: None,
        group: LOGGED,
        name: String::new(),
    });
    let no_vhost = Refusal::NotFound(Entity::Vhost, "elsewhere".into());
    assert_eq!(apply(&mut topology, elsewhere), Answer::Refused(no_vhost.clone()));
    assert_eq!(topology.route("elsewhere", "", "q", &mut || None, &mut Vec::new()), Err(no_vhost));
    assert_eq!(topology.route("/", "none", "q", &mut || None, &mut Vec::new()), Err(no_exchange));
}

#[test]
fn undoing_what_is_not_there_is_fine() {
    let mut topology = with([queue("q")]);
    let version = topology.version();
    for wanted in [
        unbind("amq.direct", "q", "k"),
        unbind("amq.direct", "none", "k"),
        unbind("none", "q", "k"),
        unchain("none", "amq.direct", "k"),
        delete_exchange("none"),
    ] {
        assert_eq!(change(&mut topology, wanted), Answer::Done);
    }
    assert_eq!(topology.version(), version);
}

#[test]
fn the_default_exchange_cannot_be_touched() {
    let mut topology = with([queue("q")]);
    for wanted in [
        exchange("", "direct"),
        delete_exchange(""),
        bind("", "q", "k"),
        unbind("", "q", "q"),
        chain("", "amq.direct", "k"),
        chain("amq.direct", "", "k"),
        Wanted::DeclareExchange(ExchangeDeclaration { passive: true, ..an_exchange("", "direct") }),
    ] {
        assert!(matches!(refused(&mut topology, wanted), Refusal::AccessRefused(_)));
    }
}

#[test]
fn reserved_names_are_refused_unless_they_are_there_already() {
    let mut topology = fresh();
    assert_eq!(change(&mut topology, exchange("amq.topic", "topic")), Answer::Done);
    assert!(matches!(refused(&mut topology, exchange("amq.topic", "direct")), Refusal::Inequivalent(..)));
    for wanted in [exchange("amq.mine", "topic"), queue("amq.mine"), delete_exchange("amq.topic")] {
        assert!(matches!(refused(&mut topology, wanted), Refusal::AccessRefused(_)));
    }
    let long = "q".repeat(256);
    assert!(matches!(refused(&mut topology, queue(&long)), Refusal::Invalid(_)));
    assert!(matches!(change(&mut topology, queue(&long[1..])), Answer::Declared { created: true, .. }));
}

#[test]
fn exchange_types_and_arguments_that_mean_nothing_are_refused() {
    let mut topology = with([queue("q")]);
    let unknown = refused(&mut topology, exchange("e", "x-sorted"));
    assert!(matches!(unknown, Refusal::Unsupported(text) if text.contains("x-sorted")));
    let arguments = table(&[("alternate-exchange", Value::Int(1))]);
    let wrong = ExchangeDeclaration { arguments, ..an_exchange("e", "direct") };
    assert!(matches!(refused(&mut topology, Wanted::DeclareExchange(wrong)), Refusal::Invalid(_)));
    let wrong = bind_with("amq.headers", "q", "", &[("x-match", Value::text("most"))]);
    assert!(matches!(refused(&mut topology, wrong), Refusal::Invalid(text) if text.contains("x-match")));
}

#[test]
fn a_queue_without_a_name_takes_the_one_that_was_drawn() {
    let mut topology = fresh();
    let queue_record = declared(change(&mut topology, queue("")));
    assert_eq!(queue_record.name, "amq.gen-1");
    assert_eq!(routed(&topology, "", "amq.gen-1"), ["amq.gen-1"]);
    assert!(matches!(refused(&mut topology, queue("")), Refusal::Unavailable(_, true)), "drawn twice");
    let passive = QueueDeclaration { passive: true, ..a_queue("amq.gen-1") };
    assert_eq!(declared(change(&mut topology, Wanted::DeclareQueue(passive))), queue_record);
}

#[test]
fn a_logged_queue_needs_a_group_that_exists() {
    let mut topology = Topology::new(&Limits::default());
    assert!(matches!(refused(&mut topology, queue("q")), Refusal::Unavailable(_, true)));
    assert_eq!(apply(&mut topology, Command::CreateGroups(2)), Answer::Done);
    let version = topology.version();
    assert_eq!(apply(&mut topology, Command::CreateGroups(1)), Answer::Done);
    assert_eq!((topology.version(), topology.groups().count()), (version, 2));
    assert!(matches!(apply(&mut topology, Command::CreateGroups(u32::MAX)), Answer::Refused(_)));
    declared(change(&mut topology, queue("q")));
}

#[test]
fn limits_hold_for_what_is_new_only() {
    let limits = Limits { queues_max: 1, bindings_max: 1, exchanges_max: 8, ..Limits::default() };
    let mut topology = Topology::new(&limits);
    apply(&mut topology, Command::CreateGroups(1));
    for wanted in [queue("q"), exchange("e", "direct"), bind("e", "q", "k")] {
        change(&mut topology, wanted.clone());
        assert!(!matches!(change(&mut topology, wanted), Answer::Refused(_)), "again is not more");
    }
    for wanted in [queue("r"), exchange("f", "direct"), bind("e", "q", "l")] {
        assert!(matches!(refused(&mut topology, wanted), Refusal::LimitReached(_)));
    }
}

#[test]
fn an_exchange_in_use_stays_if_asked() {
    let mut topology = with([queue("q"), exchange("e", "direct"), bind("e", "q", "k")]);
    let gently = || Wanted::DeleteExchange { name: "e".into(), if_unused: true };
    assert_eq!(refused(&mut topology, gently()), Refusal::InUse(Entity::Exchange, "e".into()));
    change(&mut topology, unbind("e", "q", "k"));
    assert_eq!(change(&mut topology, gently()), Answer::Done);
    assert_eq!(topology.exchange("/", "e"), None);
}

#[test]
fn arguments_are_kept_as_they_were_given() {
    let arguments = table(&[("x-own", Value::Int(1)), ("x-queue-type", Value::text("classic"))]);
    let mut topology = fresh();
    let wanted = QueueDeclaration { arguments: arguments.clone(), ..a_queue("q") };
    assert_eq!(declared(change(&mut topology, Wanted::DeclareQueue(wanted))).arguments, arguments);
    assert_eq!(declared(change(&mut topology, queue("q"))).arguments, arguments);
    assert_eq!(Arguments::default(), a_queue("q").arguments);
}
