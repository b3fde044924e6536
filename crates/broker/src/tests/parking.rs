//! A disk that answers nothing for long: what its groups cannot take waits, and is refused after a time.

use model::topic::{AppendBatch, TopicsWanted};
use model::{
    Arguments, Change, Event, Limits, LogAnswer, LogRefusal, LogRequest, Outcome, QueueDeclaration, Refusal,
    Request, Value,
};
use recordbatch::{BatchWriter, Codec, Headers, KafkaRecord};

use super::node::{Client, LANE, Node, bodies, confirmed, delivered};

const PARK_MS: u64 = 500;

/// One entry under way fills a group.
fn narrow(shards: u16, groups: u32) -> Node {
    let limits = Limits { uncommitted_bytes_max: 1, park_ms_max: PARK_MS, ..Limits::default() };
    Node::with_limits(shards, groups, limits)
}

/// What the client was told of its publishes: tokens confirmed, tokens rejected.
fn answers(node: &mut Node, client: Client) -> (Vec<u64>, Vec<u64>) {
    let (rejections, others): (Vec<_>, Vec<_>) =
        node.heard(client).into_iter().partition(|event| matches!(event, Event::Rejected(..)));
    let rejected = rejections.iter().flat_map(|event| match event {
        Event::Rejected(LANE, first, last) => *first..=*last,
        other => panic!("{other:?}"),
    });
    (confirmed(&others), rejected.collect())
}

#[test]
fn publishes_beyond_the_bound_are_refused_after_a_time_and_never_stored() {
    for shards in [1, 2] {
        let mut node = narrow(shards, 2);
        let client = node.connect(usize::from(shards) - 1);
        node.declare(client, "q");
        node.subscribe(client, 1, "q", Some(1));
        node.publish(client, "q", 1, "held");
        node.run();
        let heard = node.heard(client);
        let (held, ..) = delivered(&heard)[0];
        node.hold_up_disks(true);
        // The second fills the group; a settlement rides with the third and must not be lost with it.
        node.publish(client, "q", 2, "within");
        node.run();
        node.publish(client, "q", 3, "beyond");
        node.publish(client, "q", 4, "beyond");
        node.settle(client, held, Outcome::Accept);
        node.run_after(20);
        node.publish(client, "q", 5, "later");
        node.run_after(PARK_MS - 21);
        assert_eq!(answers(&mut node, client), (vec![], vec![]), "there is time left");
        node.run_after(1);
        node.run_after(20);
        assert_eq!(answers(&mut node, client), (vec![], vec![3, 4]));
        node.run_after(PARK_MS - 20);
        assert_eq!(answers(&mut node, client), (vec![], vec![5]));
        node.hold_up_disks(false);
        node.run_after(20);
        let (taken, refused) = answers(&mut node, client);
        assert_eq!((taken, refused), (vec![2], vec![]));
        node.publish(client, "q", 6, "after");
        node.run_after(20);
        assert_eq!(answers(&mut node, client), (vec![6], vec![]));
        node.assert_nothing_waits();
        assert!(node.brokers.iter().all(|broker| broker.is_quiet() && broker.deadline().is_none()));
        node.restart();
        let client = node.connect(0);
        node.subscribe(client, 1, "q", None);
        node.run();
        assert_eq!(bodies(&node.heard(client)), ["within", "after"]);
    }
}

#[test]
fn a_connection_is_not_read_while_it_has_too_much_unconfirmed_and_nobody_else_is_held_up() {
    for shards in [1, 2] {
        let limits = Limits { unconfirmed_bytes_max: 2500, ..Limits::default() };
        let mut node = Node::with_limits(shards, 2, limits);
        let last = usize::from(shards) - 1;
        let (client, other) = (node.connect(last), node.connect(last));
        node.declare(client, "q");
        node.hold_up_disks(true);
        let wants = |node: &Node, (shard, conn): Client| node.brokers[shard].wants_input(conn);
        let body = "x".repeat(1000);
        for token in 1..=3 {
            assert!(wants(&node, client), "{token} publishes are within the bound");
            node.publish(client, "q", token, &body);
            node.run();
        }
        assert!(!wants(&node, client) && wants(&node, other));
        node.publish(other, "q", 1, &body);
        node.run();
        assert!(!wants(&node, client) && wants(&node, other));
        node.hold_up_disks(false);
        node.run_after(20);
        assert_eq!(answers(&mut node, client), (vec![1, 2, 3], vec![]));
        assert!(wants(&node, client) && wants(&node, other));
        node.assert_nothing_waits();
    }
}

#[test]
fn the_deadline_is_when_patience_ends() {
    let mut node = narrow(1, 1);
    let client = node.connect(0);
    node.declare(client, "q");
    node.hold_up_disks(true);
    node.publish(client, "q", 1, "within");
    node.run();
    assert_eq!(node.brokers[0].deadline(), None);
    node.publish(client, "q", 2, "beyond");
    node.run();
    let deadline = node.brokers[0].deadline().expect("somebody waits");
    node.run_after(PARK_MS);
    assert_eq!(answers(&mut node, client), (vec![], vec![2]));
    assert_eq!(node.brokers[0].deadline(), None, "nobody does any more");
    assert_eq!(deadline, node.mono_us());
}

#[test]
fn whoever_asks_for_no_answers_loses_the_lane() {
    let mut node = narrow(1, 1);
    let client = node.connect(0);
    node.declare(client, "q");
    node.hold_up_disks(true);
    for _ in 0..2 {
        node.publish(client, "q", 0, "m");
        node.run();
    }
    node.run_after(PARK_MS);
    let heard = node.heard(client);
    assert!(matches!(&heard[..], [Event::PublishRefused(LANE, Refusal::Unavailable(_, false))]), "{heard:?}");
}

#[test]
fn a_copy_that_one_group_refuses_is_answered_once() {
    let mut node = narrow(1, 2);
    let client = node.connect(0);
    for queue in ["a", "b"] {
        node.declare(client, queue);
        node.bind(client, "amq.fanout", queue);
    }
    node.hold_up_disks(true);
    node.publish(client, "a", 1, "within");
    node.run();
    node.publish_to(client, "amq.fanout", "", 2, b"both");
    node.run();
    node.run_after(PARK_MS);
    assert_eq!(answers(&mut node, client), (vec![], vec![2]));
    node.hold_up_disks(false);
    node.run();
    assert_eq!(answers(&mut node, client), (vec![1], vec![]));
    assert_eq!((node.declare(client, "a"), node.declare(client, "b")), ((1, 0), (1, 0)));
    node.assert_nothing_waits();
}

#[test]
fn a_message_in_parts_is_refused_whole_or_not_at_all() {
    let large = |byte: char| byte.to_string().repeat(2 << 20);
    for begun in [true, false] {
        let mut node = narrow(1, 1);
        let client = node.connect(0);
        node.declare(client, "q");
        node.hold_up_disks(true);
        if !begun {
            node.publish(client, "q", 1, "within");
            node.run();
        }
        // Where nothing is in front of it, its first part leaves.
        node.publish(client, "q", 2, &large('a'));
        node.publish(client, "q", 3, "behind");
        node.run();
        node.run_after(PARK_MS);
        let expected = if begun { vec![3] } else { vec![2, 3] };
        assert_eq!(answers(&mut node, client), (vec![], expected));
        node.hold_up_disks(false);
        node.run();
        assert_eq!(answers(&mut node, client), (vec![if begun { 2 } else { 1 }], vec![]));
        node.publish(client, "q", 4, &large('b'));
        node.subscribe(client, 1, "q", None);
        node.run();
        let found = bodies(&node.heard(client));
        let first = if begun { large('a') } else { "within".to_owned() };
        assert!(found == [first, large('b')], "{} messages", found.len());
        node.assert_nothing_waits();
    }
}

/// A batch of two records, of a producer's number where one is given.
fn batch(value: &str, sequence: Option<i32>) -> Vec<u8> {
    let mut writer = BatchWriter::new(0);
    if let Some(sequence) = sequence {
        writer = writer.by_producer(9, 0, sequence);
    }
    for offset_delta in 0..2 {
        let value = Some(value.as_bytes());
        writer.push(&KafkaRecord { offset_delta, timestamp: -1, key: None, value, headers: Headers::NONE });
    }
    writer.finish(Codec::None)
}

fn append(node: &mut Node, client: Client, token: u64, batch: &[u8], timeout_ms: u32) {
    let append = AppendBatch { topic: "t", id: None, partition: 0, batch, required: -1, timeout_ms };
    node.ask(client, Request::Log { token, request: LogRequest::Append(append) });
    node.run();
}

/// What became of appends: token, and the base offset or nothing where it is to be sent again.
fn appended(node: &mut Node, client: Client) -> Vec<(u64, Option<u64>)> {
    let outcome = |event: Event| match event {
        Event::Log(token, answer) => match *answer {
            LogAnswer::Appended(Ok(appended)) => (token, Some(appended.base_offset)),
            LogAnswer::Appended(Err(LogRefusal::Unavailable(_, false))) => (token, None),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    node.heard(client).into_iter().map(outcome).collect()
}

fn with_topic(shards: u16) -> (Node, Client) {
    let mut node = narrow(shards, 2);
    let client = node.connect(usize::from(shards) - 1);
    let kind = Arguments(vec![("x-queue-type".into(), Value::text("stream"))]);
    let declaration = QueueDeclaration { arguments: kind, ..Node::declaration("t") };
    node.ask_change(client, Change::DeclareQueue(declaration));
    node.run();
    node.heard(client);
    (node, client)
}

#[test]
fn batches_beyond_the_bound_are_refused_after_their_time_and_never_stored() {
    for shards in [1, 2] {
        let (mut node, client) = with_topic(shards);
        node.hold_up_disks(true);
        append(&mut node, client, 1, &batch("within", None), 100);
        append(&mut node, client, 2, &batch("soon", None), 100);
        append(&mut node, client, 3, &batch("late", None), 60_000);
        append(&mut node, client, 4, &batch("second", None), 200);
        node.run_after(99);
        assert_eq!(appended(&mut node, client), [], "there is time left");
        node.run_after(1);
        assert_eq!(appended(&mut node, client), [(2, None)]);
        node.run_after(100);
        assert_eq!(appended(&mut node, client), [(4, None)]);
        node.run_after(PARK_MS - 201);
        assert_eq!(appended(&mut node, client), []);
        node.run_after(1);
        assert_eq!(appended(&mut node, client), [(3, None)], "no longer than publishes");
        let limits = Limits::default();
        let mut outgoing = node.brokers.iter().flat_map(|broker| &broker.door.outgoing);
        assert!(outgoing.all(|outgoing| outgoing.deadline_us(&limits).is_none()), "nobody waits any more");
        node.hold_up_disks(false);
        node.run_after(20);
        append(&mut node, client, 5, &batch("after", None), 100);
        assert_eq!(appended(&mut node, client), [(1, Some(0)), (5, Some(2))]);
        node.assert_nothing_waits();
        node.restart();
        let client = node.connect(0);
        append(&mut node, client, 6, &batch("again", None), 100);
        assert_eq!(appended(&mut node, client), [(6, Some(4))], "nothing that was refused came up");
    }
}

#[test]
fn batches_of_one_producer_are_refused_together_and_come_again_in_order() {
    for shards in [1, 2] {
        let (mut node, client) = with_topic(shards);
        node.hold_up_disks(true);
        append(&mut node, client, 1, &batch("other", None), 100);
        append(&mut node, client, 2, &batch("a", Some(0)), 100);
        append(&mut node, client, 3, &batch("b", Some(2)), 400);
        append(&mut node, client, 4, &batch("other", None), 400);
        node.run_after(100);
        assert_eq!(appended(&mut node, client), [(2, None), (3, None)]);
        // Sent before the client heard of it: without its predecessor it must not be the log's first.
        append(&mut node, client, 5, &batch("c", Some(4)), 400);
        assert_eq!(appended(&mut node, client), [(5, None)]);
        node.hold_up_disks(false);
        node.run_after(20);
        assert_eq!(appended(&mut node, client), [(1, Some(0)), (4, Some(2))]);
        append(&mut node, client, 6, &batch("c", Some(4)), 400);
        assert_eq!(appended(&mut node, client), [(6, None)], "still before its predecessors");
        for (token, sequence) in [(7, 0), (8, 2), (9, 4), (10, 2)] {
            append(&mut node, client, token, &batch("again", Some(sequence)), 400);
        }
        let expected = [(7, Some(4)), (8, Some(6)), (9, Some(8)), (10, Some(6))];
        assert_eq!(appended(&mut node, client), expected);
    }
}

#[test]
fn an_entry_keeps_what_has_time_left_and_what_is_no_publish() {
    let (mut node, client) = with_topic(1);
    node.declare(client, "q");
    node.hold_up_disks(true);
    append(&mut node, client, 1, &batch("within", None), 100);
    // In one turn: one entry.
    for (token, timeout_ms) in [(2, 100), (3, 300)] {
        let batch = batch("same", None);
        let append =
            AppendBatch { topic: "t", id: None, partition: 0, batch: &batch, required: -1, timeout_ms };
        node.ask(client, Request::Log { token, request: LogRequest::Append(append) });
    }
    node.publish(client, "q", 1, "kept");
    node.run_after(100);
    assert_eq!(appended(&mut node, client), [(2, None)]);
    node.hold_up_disks(false);
    node.run_after(20);
    let heard = node.heard(client);
    assert_eq!(confirmed(&heard), [1]);
    let logs = heard.iter().filter(|event| matches!(event, Event::Log(..))).count();
    assert_eq!(logs, 2);
    assert_eq!(node.declare(client, "q"), (1, 0));
    append(&mut node, client, 4, &batch("next", None), 100);
    assert_eq!(appended(&mut node, client), [(4, Some(4))]);
    node.assert_nothing_waits();
}

#[test]
fn while_the_disk_is_full_batches_are_refused_at_once_and_only_publishers_are_not_read() {
    for shards in [1, 2] {
        let (mut node, client) = with_topic(shards);
        let publisher = node.connect(client.0);
        node.declare(publisher, "q");
        node.publish(publisher, "q", 1, "before");
        append(&mut node, client, 1, &batch("before", Some(0)), 60_000);
        assert_eq!(appended(&mut node, client), [(1, Some(0))]);
        node.heard(publisher);
        node.set_alarm(Some("the disk is full"));
        let heard = node.heard(client);
        assert!(matches!(heard[..], [Event::Blocked("the disk is full")]), "{heard:?}");
        let wants = |node: &Node, (shard, conn): Client| node.brokers[shard].wants_input(conn);
        assert!(wants(&node, client) && !wants(&node, publisher));
        append(&mut node, client, 2, &batch("refused", Some(2)), 60_000);
        assert_eq!(appended(&mut node, client), [(2, None)]);
        let wanted = TopicsWanted::All;
        node.ask(client, Request::Log { token: 3, request: LogRequest::Topics(wanted) });
        node.run();
        let heard = node.heard(client);
        let [Event::Log(3, answer)] = &heard[..] else { panic!("{heard:?}") };
        assert!(matches!(&**answer, LogAnswer::Topics(all) if all.len() == 1), "{answer:?}");
        node.set_alarm(None);
        assert!(wants(&node, client) && wants(&node, publisher));
        node.heard(client);
        append(&mut node, client, 4, &batch("later", Some(4)), 60_000);
        assert_eq!(appended(&mut node, client), [(4, None)], "an earlier one was refused");
        append(&mut node, client, 5, &batch("again", Some(2)), 60_000);
        assert_eq!(appended(&mut node, client), [(5, Some(2))]);
        node.assert_nothing_waits();
    }
}
