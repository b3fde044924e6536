//! Where messages go, rule by rule, and what that costs.

use model::{Arguments, Change as Wanted, ExchangeDeclaration, Refusal, Value};

use super::fixture::*;
use crate::Topology;

fn with_alternate(name: &str, kind: &str, alternate: &str) -> Wanted {
    let arguments = table(&[("alternate-exchange", Value::text(alternate))]);
    Wanted::DeclareExchange(ExchangeDeclaration { arguments, ..an_exchange(name, kind) })
}

#[test]
fn the_default_exchange_leads_to_the_queue_of_that_name() {
    let topology = with([queue("a"), queue("b")]);
    assert_eq!(routed(&topology, "", "b"), ["b"]);
    assert_eq!(routed(&topology, "", "c"), [""; 0]);
}

#[test]
fn direct_goes_by_key_and_fanout_everywhere() {
    let mut topology =
        with([queue("a"), queue("b"), bind("amq.direct", "a", "k"), bind("amq.direct", "b", "k")]);
    change(&mut topology, bind("amq.direct", "b", "l"));
    change(&mut topology, bind("amq.fanout", "b", "ignored"));
    assert_eq!(routed(&topology, "amq.direct", "k"), ["a", "b"]);
    assert_eq!(routed(&topology, "amq.direct", "l"), ["b"]);
    assert_eq!(routed(&topology, "amq.direct", "m"), [""; 0]);
    assert_eq!(routed(&topology, "amq.fanout", "m"), ["b"]);
}

#[test]
fn a_queue_gets_a_message_once_however_often_it_is_bound() {
    let topology = with([
        queue("a"),
        bind("amq.topic", "a", "#"),
        bind("amq.topic", "a", "x.*"),
        bind_with("amq.direct", "a", "k", &[("n", Value::Int(1))]),
        bind_with("amq.direct", "a", "k", &[("n", Value::Int(2))]),
    ]);
    assert_eq!(routed(&topology, "amq.topic", "x.y"), ["a"]);
    assert_eq!(routed(&topology, "amq.direct", "k"), ["a"]);
    assert_eq!(topology.bindings().count(), 4);
}

#[test]
fn several_keys_lead_where_any_of_them_does_and_to_each_queue_once() {
    let topology = with([
        queue("a"),
        queue("b"),
        queue("lost"),
        exchange("alternate", "fanout"),
        bind("alternate", "lost", ""),
        with_alternate("direct", "direct", "alternate"),
        bind("direct", "a", "k"),
        bind("direct", "b", "l"),
        bind("amq.topic", "a", "x.*"),
        bind("amq.topic", "b", "*.y"),
    ]);
    let by_any = |exchange: &str, keys: &[&str]| {
        let mut targets = Vec::new();
        topology.route_by_any("/", exchange, keys, &mut || None, &mut targets).expect("it exists");
        let name =
            |target: &crate::Target| topology.queue_by_id(target.queue).expect("it exists").name.clone();
        targets.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(by_any("", &["b", "a", "none", "b"]), ["a", "b"]);
    assert_eq!(by_any("direct", &["l", "k", "k"]), ["a", "b"]);
    assert_eq!(by_any("direct", &["none", "k"]), ["a"], "one that leads somewhere is enough");
    assert_eq!(by_any("direct", &["none", "nothing"]), ["lost"]);
    assert_eq!(by_any("amq.topic", &["x.y", "x.z"]), ["a", "b"]);
}

#[test]
fn bindings_that_differ_in_arguments_are_two() {
    let one = || bind_with("amq.direct", "a", "k", &[("n", Value::Int(1))]);
    let mut topology = with([queue("a"), one(), one(), bind("amq.direct", "a", "k")]);
    assert_eq!(topology.bindings().count(), 2);
    change(&mut topology, unbind("amq.direct", "a", "k"));
    assert_eq!(routed(&topology, "amq.direct", "k"), ["a"], "the other one is left");
}

#[test]
fn what_was_unbound_can_be_bound_again() {
    let mut topology = with([queue("a"), bind("amq.direct", "a", "k"), unbind("amq.direct", "a", "k")]);
    assert_eq!(routed(&topology, "amq.direct", "k"), [""; 0]);
    change(&mut topology, bind("amq.direct", "a", "k"));
    assert_eq!(routed(&topology, "amq.direct", "k"), ["a"]);
}

#[test]
fn headers_decide_and_are_read_once_and_only_where_needed() {
    let mut topology = with([queue("a"), queue("b"), exchange("e", "fanout"), chain("e", "amq.match", "")]);
    let any = ("x-match", Value::text("any"));
    let (h, i) = (("h", Value::Int(1)), ("i", Value::Int(2)));
    change(&mut topology, bind_with("amq.headers", "a", "", &[h.clone(), i.clone()]));
    change(&mut topology, bind_with("amq.headers", "b", "", &[any, h.clone(), i.clone()]));
    assert_eq!(routed_with(&topology, "amq.headers", "", &table(&[h.clone(), i])), ["a", "b"]);
    assert_eq!(routed_with(&topology, "amq.headers", "", &table(&[h])), ["b"]);
    assert_eq!(routed(&topology, "amq.headers", ""), [""; 0]);
    assert!(topology.needs_headers("/", "amq.headers") && topology.needs_headers("/", "e"));
    assert!(!topology.needs_headers("/", "amq.topic") && !topology.needs_headers("/", ""));
    change(&mut topology, with_alternate("f", "direct", "amq.headers"));
    assert!(topology.needs_headers("/", "f"), "through its alternate");
    change(&mut topology, chain("amq.headers", "amq.match", ""));
    let mut reads = 0;
    let mut count = || {
        reads += 1;
        None
    };
    topology.route("/", "amq.headers", "", &mut count, &mut Vec::new()).expect("it exists");
    topology.route("/", "amq.direct", "", &mut count, &mut Vec::new()).expect("it exists");
    assert_eq!(reads, 1);
}

#[test]
fn exchanges_lead_to_exchanges_without_end() {
    let mut topology = with([queue("q"), queue("r"), exchange("a", "fanout"), exchange("b", "topic")]);
    for wanted in [
        chain("a", "b", ""),
        chain("b", "a", "#"),
        chain("b", "b", "#"),
        bind("a", "q", ""),
        bind("b", "q", "x"),
        bind("b", "r", "y"),
    ] {
        change(&mut topology, wanted);
    }
    assert_eq!(routed(&topology, "a", "y"), ["q", "r"]);
    assert_eq!(routed(&topology, "b", "x"), ["q"]);
    change(&mut topology, unchain("a", "b", ""));
    assert_eq!(routed(&topology, "a", "y"), ["q"]);
}

#[test]
fn what_leads_nowhere_goes_to_the_alternate() {
    let mut topology = with([
        queue("q"),
        queue("k"),
        bind("amq.fanout", "q", ""),
        with_alternate("a", "direct", "amq.fanout"),
        with_alternate("to-default", "topic", ""),
        with_alternate("to-none", "direct", "never declared"),
        with_alternate("round", "direct", "round"),
        exchange("dead end", "direct"),
    ]);
    assert_eq!(routed(&topology, "a", "unbound"), ["q"]);
    assert_eq!(routed(&topology, "to-default", "k"), ["k"]);
    assert_eq!(routed(&topology, "to-none", "k"), [""; 0]);
    assert_eq!(routed(&topology, "round", "k"), [""; 0]);
    change(&mut topology, bind("a", "k", "bound"));
    assert_eq!(routed(&topology, "a", "bound"), ["k"]);
    change(&mut topology, chain("a", "dead end", "chained"));
    assert_eq!(routed(&topology, "a", "chained"), [""; 0], "it did lead somewhere");
}

#[test]
fn internal_exchanges_are_for_other_exchanges() {
    let mut topology = with([queue("q"), exchange("outer", "fanout")]);
    let inner = ExchangeDeclaration { internal: true, ..an_exchange("inner", "fanout") };
    change(&mut topology, Wanted::DeclareExchange(inner));
    change(&mut topology, chain("outer", "inner", ""));
    change(&mut topology, bind("inner", "q", ""));
    assert_eq!(routed(&topology, "outer", ""), ["q"]);
    for name in ["inner", "amq.rabbitmq.trace"] {
        let refused = topology.route("/", name, "", &mut || None, &mut Vec::new());
        assert!(matches!(refused, Err(Refusal::AccessRefused(_))));
    }
}

#[test]
fn a_deleted_queue_leaves_nothing_behind() {
    let mut topology = with([queue("q"), queue("r")]);
    for exchange in ["amq.direct", "amq.fanout", "amq.topic", "amq.headers"] {
        change(&mut topology, bind(exchange, "q", "k"));
        change(&mut topology, bind(exchange, "r", "k"));
    }
    change(&mut topology, delete("q"));
    change(&mut topology, queue("q"));
    for exchange in ["amq.direct", "amq.fanout", "amq.topic", "amq.headers"] {
        assert_eq!(routed(&topology, exchange, "k"), ["r"], "a new queue has no old bindings");
    }
    assert_eq!(topology.bindings().count(), 4);
}

#[test]
fn twenty_thousand_queues_are_declared_bound_and_deleted_in_any_order() {
    const COUNT: u64 = 20_000;
    let mut topology = fresh();
    for number in 0..COUNT {
        let name = format!("q{number}");
        change(&mut topology, queue(&name));
        change(&mut topology, bind("amq.fanout", &name, ""));
        change(&mut topology, bind("amq.direct", &name, "shared"));
        change(&mut topology, bind("amq.topic", &name, &format!("device.{number}.#")));
    }
    let mut targets = Vec::new();
    topology.route("/", "amq.fanout", "", &mut || None, &mut targets).expect("it exists");
    assert_eq!(targets.len() as u64, COUNT);
    assert!(targets.is_sorted(), "in the order of ids");
    assert_eq!(routed(&topology, "amq.topic", "device.777.state"), ["q777"]);
    // Every other one, from the middle outwards: a structure that scans would visit hundreds of millions of entries.
    for number in (0..COUNT).map(|step| (COUNT / 2 + step * 7_919) % COUNT).filter(|number| number % 2 == 0) {
        assert_eq!(deleted(change(&mut topology, delete(&format!("q{number}")))).len(), 1);
    }
    assert_eq!(topology.bindings().count() as u64, COUNT / 2 * 3);
    assert_eq!(routed(&topology, "amq.direct", "shared").len() as u64, COUNT / 2);
}

#[test]
fn a_copy_routes_like_the_original() {
    let topology = with([
        queue("q"),
        bind("amq.topic", "q", "a.#"),
        exchange("e", "fanout"),
        chain("e", "amq.topic", ""),
    ]);
    let mut bytes = Vec::new();
    topology.encode(&mut bytes);
    let copy = Topology::decode(&bytes, &Default::default()).expect("it was just written");
    assert_eq!(routed(&copy, "e", "a.b"), ["q"]);
    assert_eq!((copy.hash(), copy.version()), (topology.hash(), topology.version()));
    assert_eq!(Arguments::default(), copy.exchange("/", "e").expect("it was declared").arguments);
}
