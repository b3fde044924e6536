//! Consumers of streams: where they begin, what they are handed, and that nobody takes anything away.

use std::sync::Arc;

use model::topic::{
    AppendBatch, ConfigChange, Cursor, Fetch, OffsetAt, PartitionRef, TopicDeclaration, TopicRef,
    TopicsWanted,
};
use model::{
    Arguments, Change, ConsumerId, Event, Lane, Limits, LogAnswer, LogRefusal, LogRequest, OperationKind,
    Outcome, QueueDeclaration, QueueId, Record, Refusal, Request, Seq, StreamFilter, StreamStart, Subscribe,
    Value,
};
use recordbatch::{BatchWriter, Codec, Headers, KafkaRecord};

use super::node::{Client, LANE, Node, bodies, delivered};

const STREAM: &str = "s";

fn declare(node: &mut Node, client: Client) -> QueueId {
    let kind = Arguments(vec![("x-queue-type".into(), Value::text("stream"))]);
    let declaration = QueueDeclaration { arguments: kind, ..Node::declaration(STREAM) };
    node.ask_change(client, Change::DeclareQueue(declaration));
    node.run();
    assert!(matches!(node.heard(client)[..], [Event::Declared(..)]));
    node.brokers[0].topology.queue("/", STREAM).expect("it was declared").id
}

/// A node with a stream, in which each of these is an append of its own.
fn with_stream(shards: u16, published: &[&str]) -> (Node, Client, QueueId) {
    let mut node = Node::start(shards, 2);
    let client = node.connect(usize::from(shards) - 1);
    let log = declare(&mut node, client);
    for body in published {
        node.publish(client, STREAM, 0, body);
        node.run();
    }
    node.heard(client);
    (node, client, log)
}

fn wanted(consumer: u32, start: Option<StreamStart>, credit: u32) -> Subscribe<'static> {
    Subscribe {
        lane: LANE,
        consumer: ConsumerId(consumer),
        queue: STREAM,
        settled: false,
        exclusive: false,
        priority: 0,
        credit: Some(credit),
        start,
        filter: None,
    }
}

fn follow(node: &mut Node, client: Client, consumer: u32, start: StreamStart, credit: u32) -> Vec<Event> {
    node.ask(client, Request::Subscribe(wanted(consumer, Some(start), credit)));
    node.run();
    node.heard(client)
}

fn places(events: &[Event]) -> Vec<u64> {
    delivered(events).into_iter().map(|((_, seq), ..)| seq.0).collect()
}

fn refusal(node: &mut Node, client: Client, subscribe: Subscribe<'_>) -> Refusal {
    node.ask(client, Request::Subscribe(subscribe));
    node.run();
    match &node.heard(client)[..] {
        [Event::Refused(Some(LANE), refusal)] => refusal.clone(),
        other => panic!("{other:?}"),
    }
}

/// Records that a Kafka client writes, the first at offset delta 0.
fn batch(values: &[(i32, &str)], timestamp: i64, codec: Codec) -> Vec<u8> {
    let mut writer = BatchWriter::new(0);
    for (offset_delta, value) in values {
        let (offset_delta, value) = (*offset_delta, Some(value.as_bytes()));
        writer.push(&KafkaRecord { offset_delta, timestamp, key: Some(b"k"), value, headers: Headers::NONE });
    }
    writer.finish(codec)
}

fn append(node: &mut Node, client: Client, batch: &[u8]) {
    let append = AppendBatch { topic: STREAM, id: None, partition: 0, batch, required: -1, timeout_ms: 1000 };
    node.ask(client, Request::Log { token: 1, request: LogRequest::Append(append) });
    node.run();
    match &node.heard(client)[..] {
        [Event::Log(1, answer), ..] => {
            assert!(matches!(**answer, LogAnswer::Appended(Ok(_))), "{answer:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// When the log says that a batch was appended.
fn append_time(node: &mut Node, client: Client, batch: &[u8]) -> Option<i64> {
    let append = AppendBatch { topic: STREAM, id: None, partition: 0, batch, required: -1, timeout_ms: 1000 };
    node.ask(client, Request::Log { token: 1, request: LogRequest::Append(append) });
    node.run();
    let [Event::Log(1, answer), ..] = &node.heard(client)[..] else { panic!("one answer") };
    let LogAnswer::Appended(Ok(appended)) = &**answer else { panic!("{answer:?}") };
    appended.log_append_ms
}

#[test]
fn a_repeat_has_the_time_of_what_it_repeats() {
    let (mut node, client, _) = with_stream(2, &[]);
    let changes = vec![ConfigChange::Set("message.timestamp.type".into(), "LogAppendTime".into())];
    let request = LogRequest::AlterTopics {
        topics: vec![(STREAM.into(), changes)],
        validate_only: false,
        replace: false,
    };
    node.ask(client, Request::Log { token: 7, request });
    node.run();
    node.heard(client);
    let mut writer = BatchWriter::new(0).by_producer(9, 0, 0);
    let value = Some(b"v".as_slice());
    writer.push(&KafkaRecord { offset_delta: 0, timestamp: 5, key: None, value, headers: Headers::NONE });
    let batch = writer.finish(Codec::None);
    let first = append_time(&mut node, client, &batch);
    assert!(first.is_some_and(|time| time > 5), "{first:?}");
    node.run_after(5000);
    assert_eq!(append_time(&mut node, client, &batch), first);
    let mut writer = BatchWriter::new(0).by_producer(9, 0, 1);
    writer.push(&KafkaRecord { offset_delta: 0, timestamp: 6, key: None, value, headers: Headers::NONE });
    let behind = append_time(&mut node, client, &writer.finish(Codec::None));
    assert!(behind > first, "{behind:?}");
    trim(&mut node, client, 1);
    assert_eq!(append_time(&mut node, client, &batch), Some(-1), "nobody knows it any more");
}

/// Lets the log begin at an offset.
fn trim(node: &mut Node, client: Client, below: u64) {
    let at = PartitionRef { topic: TopicRef::Name(STREAM.into()), partition: 0 };
    node.ask(client, Request::Log { token: 2, request: LogRequest::Trim(vec![(at, below)]) });
    node.run();
    node.heard(client);
}

/// Removes single offsets, as compaction does.
fn remove(node: &mut Node, log: QueueId, ranges: &[(u64, u64)]) {
    let broker = &mut node.brokers[0];
    let group = broker.topology.queue_by_id(log).expect("it is there").group;
    let ranges = ranges.iter().map(|(first, last)| (Seq(*first), Seq(*last))).collect();
    let outgoing = broker.door.outgoing(group).expect("it is hosted");
    outgoing.ranges(&broker.pool, OperationKind::Drop, log, ranges);
    node.run();
}

/// The offsets of all records that a Kafka client is given.
fn fetched(node: &mut Node, client: Client) -> Vec<u64> {
    let at = PartitionRef { topic: TopicRef::Name(STREAM.into()), partition: 0 };
    let cursor = Cursor { at, offset: 0, max_bytes: 1 << 20, epoch: None };
    let fetch = Fetch { max_wait_ms: 0, min_bytes: 1, max_bytes: 1 << 20, cursors: vec![cursor] };
    node.ask(client, Request::Log { token: 3, request: LogRequest::Fetch(fetch) });
    node.run();
    let [Event::Log(3, answer)] = &node.heard(client)[..] else { panic!("one answer") };
    let LogAnswer::Fetched(found) = &**answer else { panic!("{answer:?}") };
    let mut offsets = Vec::new();
    for batch in &found[0].as_ref().expect("it is there").batches {
        let opened = recordbatch::open(&batch.block.as_slice()[batch.range.clone()], 1 << 20).expect("sound");
        let deltas = opened.records().map(|record| record.expect("sound").offset_delta as u64);
        offsets.extend(deltas.map(|delta| batch.base_offset + delta));
    }
    offsets
}

/// Where the first record of this time or a later one is.
fn offset_at(node: &mut Node, client: Client, time_ms: i64) -> Option<u64> {
    let at = PartitionRef { topic: TopicRef::Name(STREAM.into()), partition: 0 };
    let request = LogRequest::Offsets(vec![(at, OffsetAt::Timestamp(time_ms))]);
    node.ask(client, Request::Log { token: 4, request });
    node.run();
    let [Event::Log(4, answer)] = &node.heard(client)[..] else { panic!("one answer") };
    let LogAnswer::Offsets(found) = &**answer else { panic!("{answer:?}") };
    found[0].as_ref().expect("it is there").offset
}

#[test]
fn a_batch_of_which_more_was_removed_is_not_shown_as_it_was() {
    let (mut node, client, log) = with_stream(1, &[]);
    append(&mut node, client, &batch(&[(0, "a"), (1, "b"), (2, "c")], 1_000, Codec::None));
    remove(&mut node, log, &[(0, 0)]);
    assert_eq!(fetched(&mut node, client), [1, 2]);
    // As many records in all as before.
    remove(&mut node, log, &[(1, 1)]);
    append(&mut node, client, &batch(&[(0, "d")], 1_000, Codec::None));
    assert_eq!(fetched(&mut node, client), [2, 3]);
}

#[test]
fn times_are_looked_for_among_what_is_left() {
    let (mut node, client, log) = with_stream(1, &[]);
    let mut writer = BatchWriter::new(0);
    for (offset_delta, timestamp) in [(0, 1_000), (1, 3_000), (2, 2_000)] {
        let (key, value, headers) = (Some(&b"k"[..]), Some(&b"v"[..]), Headers::NONE);
        writer.push(&KafkaRecord { offset_delta, timestamp, key, value, headers });
    }
    append(&mut node, client, &writer.finish(Codec::None));
    append(&mut node, client, &batch(&[(0, "d")], 4_000, Codec::None));
    assert_eq!(offset_at(&mut node, client, 500), Some(0));
    assert_eq!(offset_at(&mut node, client, 2_500), Some(1));
    trim(&mut node, client, 1);
    assert_eq!(offset_at(&mut node, client, 500), Some(1));
    remove(&mut node, log, &[(1, 1)]);
    assert_eq!(offset_at(&mut node, client, 500), Some(2));
    assert_eq!(offset_at(&mut node, client, 2_500), Some(3), "the batch had a later record");
    assert_eq!(offset_at(&mut node, client, 4_001), None);
}

#[test]
fn where_readers_begin() {
    for shards in [1, 2] {
        let (mut node, client, _) = with_stream(shards, &["a", "b"]);
        node.run_after(10_000);
        // In one turn: one append.
        for body in ["c", "d", "e"] {
            node.publish(client, STREAM, 0, body);
        }
        node.run();
        node.heard(client);
        let now = 1_700_000_010;
        let cases = [
            (StreamStart::First, "abcde"),
            (StreamStart::Last, "cde"),
            (StreamStart::Next, ""),
            (StreamStart::Offset(0), "abcde"),
            (StreamStart::Offset(3), "de"),
            (StreamStart::Offset(5), ""),
            (StreamStart::Offset(6), ""),
            (StreamStart::Timestamp(0), "abcde"),
            (StreamStart::Timestamp(now - 9), "cde"),
            (StreamStart::Timestamp(now + 1), ""),
            (StreamStart::Interval(0), "cde"),
            (StreamStart::Interval(11_000), "abcde"),
            (StreamStart::Interval(u64::MAX), "abcde"),
        ];
        for (number, (start, expected)) in cases.into_iter().enumerate() {
            let heard = follow(&mut node, client, number as u32, start, 100);
            assert_eq!(bodies(&heard).concat(), expected, "{start:?} of {shards} shards");
            assert_eq!(places(&heard), (5 - expected.len() as u64..5).collect::<Vec<_>>());
            assert!(delivered(&heard).iter().all(|(_, _, redelivered)| !redelivered));
        }
        node.ask(client, Request::Subscribe(wanted(99, None, 100)));
        node.run();
        assert!(matches!(node.heard(client)[..], [Event::Subscribed(LANE, ConsumerId(99))]));
        node.publish(client, STREAM, 0, "f");
        node.run();
        // All but the one that waits for the offset behind this.
        assert_eq!(delivered(&node.heard(client)).len(), cases.len() + 1 - 1);
        node.assert_nothing_waits();
    }
}

#[test]
fn credit_is_kept_and_settling_takes_nothing_away() {
    let (mut node, client, log) = with_stream(2, &[]);
    for number in 0..10 {
        node.publish(client, STREAM, 0, &number.to_string());
    }
    node.run();
    node.heard(client);
    let heard = follow(&mut node, client, 1, StreamStart::First, 3);
    assert_eq!(bodies(&heard).concat(), "012");
    let frames = |node: &Node| node.brokers.iter().map(|broker| broker.log.stats().frames).sum::<u64>();
    let before = frames(&node);
    for outcome in [Outcome::Accept, Outcome::Reject, Outcome::Return { failed: true }] {
        node.settle(client, (log, Seq(0)), outcome);
    }
    node.settle(client, (log, Seq(1)), Outcome::Return { failed: false });
    node.run_after(1000);
    assert_eq!(bodies(&node.heard(client)).len(), 0, "settling alone grants nothing and returns nothing");
    assert_eq!(frames(&node), before, "there is nothing to be remembered of it");
    node.ask(client, Request::Grant(&[(ConsumerId(1), 2)]));
    node.run();
    assert_eq!(bodies(&node.heard(client)).concat(), "34");
    // Another one begins anew, and neither heeds the other.
    let heard = follow(&mut node, client, 2, StreamStart::First, 100);
    assert_eq!(bodies(&heard).concat(), "0123456789");
    node.ask(client, Request::Unsubscribe { lane: LANE, consumer: ConsumerId(2) });
    node.ask(client, Request::Grant(&[(ConsumerId(1), 9)]));
    node.run();
    assert_eq!(bodies(&node.heard(client)).concat(), "56789");
    assert_eq!(node.passive(client, STREAM).len(), 1);
    node.assert_nothing_waits();
}

#[test]
fn a_reader_that_does_not_send_on_is_given_no_more_bytes() {
    let limits = Limits { send_bytes_max: 64 << 10, ..Limits::default() };
    let mut node = Node::with_limits(1, 2, limits);
    let client = node.connect(0);
    declare(&mut node, client);
    let body = "x".repeat(10_000);
    for _ in 0..40 {
        node.publish(client, STREAM, 0, &body);
    }
    node.run();
    node.heard(client);
    // The connection's buffer stays full: what is handed out is not made up for.
    node.ask(client, Request::Subscribe(wanted(1, Some(StreamStart::First), 1000)));
    let broker = &mut node.brokers[0];
    let mut count = 0;
    for _ in 0..10 {
        broker.unsent(client.1, 1 << 20);
        broker.finish(base::Now { mono_us: 9_000_000, wall_ms: 1_700_000_000_000 });
        while let Some((_, event)) = broker.poll_event() {
            count += delivered(&[event]).len();
        }
    }
    assert!((6..=8).contains(&count), "{count} messages of 10 kB in 64 KiB");
    broker.unsent(client.1, 0);
    node.run();
    assert_eq!(count + delivered(&node.heard(client)).len(), 40);
}

#[test]
fn what_was_trimmed_is_passed_over() {
    let (mut node, client, _) = with_stream(1, &["a", "b", "c", "d"]);
    let heard = follow(&mut node, client, 1, StreamStart::First, 1);
    assert_eq!(bodies(&heard), ["a"]);
    trim(&mut node, client, 3);
    node.ask(client, Request::Grant(&[(ConsumerId(1), 9)]));
    node.run();
    assert_eq!(places(&node.heard(client)), [3]);
    let heard = follow(&mut node, client, 2, StreamStart::Offset(1), 9);
    assert_eq!(places(&heard), [3]);
    trim(&mut node, client, 4);
    assert_eq!(places(&follow(&mut node, client, 3, StreamStart::Last, 9)), [0; 0]);
    for body in ["e", "f", "g"] {
        node.publish(client, STREAM, 0, body);
    }
    node.run();
    assert_eq!(places(&node.heard(client)), [4, 5, 6, 4, 5, 6, 4, 5, 6]);
    // The start now lies within what one turn has appended.
    trim(&mut node, client, 5);
    assert_eq!(places(&follow(&mut node, client, 4, StreamStart::First, 1)), [5]);
    assert_eq!(places(&follow(&mut node, client, 5, StreamStart::Offset(0), 9)), [5, 6]);
    assert_eq!(places(&follow(&mut node, client, 6, StreamStart::Last, 9)), [5, 6]);
}

#[test]
fn what_was_removed_is_passed_over_in_rows_and_in_batches() {
    let (mut node, client, log) = with_stream(1, &[]);
    for number in 0..6 {
        node.publish(client, STREAM, 0, &number.to_string());
    }
    node.run();
    append(&mut node, client, &batch(&[(0, "6"), (1, "7"), (2, "8"), (3, "9")], 1, Codec::None));
    remove(&mut node, log, &[(0, 1), (3, 3), (5, 6), (8, 8)]);
    let heard = follow(&mut node, client, 1, StreamStart::First, 2);
    assert_eq!(places(&heard), [2, 4]);
    node.ask(client, Request::Grant(&[(ConsumerId(1), 9)]));
    node.run();
    let heard = node.heard(client);
    assert_eq!((places(&heard), bodies(&heard).concat()), (vec![7, 9], "79".into()));
    // Nothing is left of what was appended last.
    remove(&mut node, log, &[(7, 9)]);
    assert_eq!(places(&follow(&mut node, client, 2, StreamStart::Last, 9)), [2, 4]);
}

#[test]
fn what_kafka_wrote_is_mapped_whatever_way_it_was_compressed() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let (mut node, client, _) = with_stream(1, &["first"]);
        append(&mut node, client, &batch(&[(0, "a"), (1, "b"), (2, "c")], 5_000, codec));
        node.publish(client, STREAM, 0, "last");
        node.run();
        node.heard(client);
        let heard = follow(&mut node, client, 1, StreamStart::Offset(2), 1);
        assert_eq!((places(&heard), bodies(&heard).concat()), (vec![2], "b".into()), "{codec:?}");
        node.ask(client, Request::Grant(&[(ConsumerId(1), 9)]));
        node.run();
        let heard = node.heard(client);
        assert_eq!(bodies(&heard), ["c", "last"]);
        let Some(Event::Delivered(delivered)) = heard.first() else { panic!("{heard:?}") };
        assert!(delivered.stream);
        let row = &delivered.block.as_slice()[delivered.items[0].at as usize..];
        let (record, _) = Record::decode(row).expect("a row");
        assert_eq!((record.exchange, record.routing_key), ("", STREAM));
        let properties = String::from_utf8_lossy(record.prefix);
        assert!(properties.contains("x-key") && properties.contains("timestamp: Some(5)"), "{properties}");
    }
}

#[test]
fn a_batch_that_unpacks_to_much_is_converted_in_stretches() {
    let (mut node, client, _) = with_stream(1, &[]);
    let body = "y".repeat(40_000);
    let values: Vec<(i32, &str)> = (0..150).map(|delta| (delta, body.as_str())).collect();
    append(&mut node, client, &batch(&values, 1, Codec::Zstd));
    let heard = follow(&mut node, client, 1, StreamStart::First, 1000);
    assert_eq!(places(&heard), (0..150).collect::<Vec<_>>());
    assert!(bodies(&heard).iter().all(|found| *found == body));
    // From where the first stretch does not reach.
    let heard = follow(&mut node, client, 2, StreamStart::Offset(120), 1000);
    assert_eq!(places(&heard), (120..150).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_opened_is_passed_over_by_all_and_stops_nobody() {
    let (mut node, client, _) = with_stream(1, &["before"]);
    let body = "y".repeat(40_000);
    let values: Vec<(i32, &str)> = (0..1700).map(|delta| (delta, body.as_str())).collect();
    append(&mut node, client, &batch(&values, 1, Codec::Zstd));
    node.publish(client, STREAM, 0, "behind");
    node.run();
    node.heard(client);
    for consumer in 1..3 {
        let heard = follow(&mut node, client, consumer, StreamStart::First, 100);
        assert_eq!((places(&heard), bodies(&heard).concat()), (vec![0, 1701], "beforebehind".into()));
    }
}

#[test]
fn a_log_that_is_read_from_disk() {
    let body = "z".repeat(3000);
    let (mut node, client, log) = with_stream(2, &vec![body.as_str(); 100]);
    append(&mut node, client, &batch(&[(0, &body), (1, &body)], 1, Codec::Lz4));
    // More than the ring keeps: what was written first is in runs.
    for _ in 102..300 {
        node.publish(client, STREAM, 0, &body);
        node.run();
    }
    node.restart();
    let group = node.brokers[0].topology.queue_by_id(log).expect("it is there").group;
    let is_in_runs = |broker: &crate::Broker| {
        let log = broker.host.by_group.contains_key(&group).then_some(&broker.log);
        log.is_some_and(|log| log.location(group, model::Index(10)) == commitlog::Location::Runs)
    };
    assert!(node.brokers.iter().any(is_in_runs));
    let client = node.connect(client.0);
    let heard = follow(&mut node, client, 1, StreamStart::First, 10);
    assert_eq!(places(&heard), (0..10).collect::<Vec<_>>());
    node.ask(client, Request::Grant(&[(ConsumerId(1), 1000)]));
    node.run();
    let heard = node.heard(client);
    assert_eq!(places(&heard), (10..300).collect::<Vec<_>>());
    assert!(delivered(&heard).iter().all(|(_, found, redelivered)| *found == body && !redelivered));
    node.publish(client, STREAM, 0, "more");
    node.run();
    assert_eq!(bodies(&node.heard(client)), ["more"]);
    node.assert_nothing_waits();
}

#[test]
fn what_consumers_of_streams_may_not_ask_for() {
    let (mut node, client, _) = with_stream(1, &["a"]);
    node.declare(client, "q");
    let named = |refusal: Refusal| match refusal {
        Refusal::Invalid(text) => format!("invalid: {text}"),
        Refusal::NotImplemented(text) => format!("not implemented: {text}"),
        other => panic!("{other:?}"),
    };
    let unbounded = Subscribe { credit: None, ..wanted(1, None, 1) };
    let expected = "invalid: consumer prefetch count is not set for stream queue 's' in vhost '/'";
    assert_eq!(named(refusal(&mut node, client, unbounded)), expected);
    let automatic = Subscribe { settled: true, ..wanted(1, None, 1) };
    let expected =
        "not implemented: automatic acknowledgement not supported by stream queue 's' in vhost '/'";
    assert_eq!(named(refusal(&mut node, client, automatic)), expected);
    let of_queue = Subscribe { queue: "q", ..wanted(1, Some(StreamStart::First), 1) };
    let expected =
        "invalid: a consumer of queue 'q' in vhost '/' cannot say where it begins: it is not a stream";
    assert_eq!(named(refusal(&mut node, client, of_queue)), expected);
    let filtered = Subscribe { queue: "q", filter: Some(Default::default()), ..wanted(1, None, 1) };
    let expected = "invalid: a consumer of queue 'q' in vhost '/' cannot filter: it is not a stream";
    assert_eq!(named(refusal(&mut node, client, filtered)), expected);
    node.ask(client, Request::Window { lane: LANE, messages: Some(5) });
    let expected = "not implemented: queue 's' in vhost '/' does not support global qos";
    assert_eq!(named(refusal(&mut node, client, wanted(1, None, 1))), expected);
    let elsewhere = Subscribe { lane: Lane(2), ..wanted(1, Some(StreamStart::First), 1) };
    node.ask(client, Request::Subscribe(elsewhere));
    node.run();
    assert_eq!(bodies(&node.heard(client)), ["a"]);
    node.assert_nothing_waits();
}

#[test]
fn readers_go_with_their_stream_and_with_their_connection() {
    let (mut node, client, _) = with_stream(2, &["a"]);
    let other = node.connect(0);
    follow(&mut node, client, 1, StreamStart::Next, 9);
    follow(&mut node, other, 1, StreamStart::Next, 9);
    node.disconnect(other);
    node.publish(client, STREAM, 0, "b");
    node.run();
    assert_eq!(bodies(&node.heard(client)), ["b"]);
    let gone = Change::DeleteQueue { name: STREAM.into(), if_unused: false, if_empty: false };
    node.ask_change(client, gone);
    node.run();
    let heard = node.heard(client);
    assert!(matches!(heard[..], [Event::Revoked(LANE, ConsumerId(1)), Event::Deleted(LANE, 2)]), "{heard:?}");
    node.assert_nothing_waits();
}

#[test]
fn a_consumer_that_filters_passes_over_what_it_does_not_want_without_spending_credit() {
    let filter = |unfiltered| Some(Arc::new(StreamFilter { unfiltered, ..StreamFilter::default() }));
    let (mut node, client, _) = with_stream(2, &["a", "b"]);
    append(&mut node, client, &batch(&[(0, "c"), (1, "d")], 5, Codec::None));
    // Nothing here has a value to be filtered by.
    for (consumer, unfiltered, expected) in [(1, false, ""), (2, true, "abcd")] {
        let first = wanted(consumer, Some(StreamStart::First), 4);
        node.ask(client, Request::Subscribe(Subscribe { filter: filter(unfiltered), ..first }));
        node.run();
        assert_eq!(bodies(&node.heard(client)).concat(), expected);
    }
    node.assert_nothing_waits();
}

/// A producer id, or whether it was refused for a while.
fn producer(node: &mut Node, client: Client) -> Result<u64, bool> {
    node.ask(client, Request::Log { token: 5, request: LogRequest::Producer });
    node.run();
    let [Event::Log(5, answer)] = &node.heard(client)[..] else { panic!("one answer") };
    match &**answer {
        LogAnswer::Producer(Ok(id)) => Ok(*id),
        LogAnswer::Producer(Err(LogRefusal::Unavailable(_, may_happen))) => Err(*may_happen),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_producer_id_is_given_out_twice() {
    let mut node = Node::start(2, 2);
    let mut given = Vec::new();
    for _ in 0..2 {
        for shard in 0..2 {
            let client = node.connect(shard);
            given.extend([0, (1 << 24) - 1, (1 << 24), (1 << 31) - 1].map(|count| {
                node.brokers[shard].door.producers = count;
                producer(&mut node, client).expect("there are some left")
            }));
            assert_eq!(producer(&mut node, client), Err(false), "rather none than one that another has");
        }
        node.restart();
    }
    assert!(given.iter().all(|id| i64::try_from(*id).is_ok()));
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 16);
}

#[test]
fn a_trial_tells_what_would_be_made() {
    let mut node = Node::start(2, 2);
    let client = node.connect(1);
    let configs = vec![("retention.ms".to_owned(), "5000".to_owned())];
    for (partitions, counted) in [(Some(3), 3), (None, 1)] {
        let (name, configs) = ("planned".to_owned(), configs.clone());
        let topics = vec![TopicDeclaration { name, partitions, replicas: None, configs: configs.clone() }];
        let request = LogRequest::CreateTopics { topics, validate_only: true };
        node.ask(client, Request::Log { token: 6, request });
        node.run();
        let [Event::Log(6, answer)] = &node.heard(client)[..] else { panic!("one answer") };
        let LogAnswer::Changed(changed) = &**answer else { panic!("{answer:?}") };
        let [Ok(topic)] = &changed[..] else { panic!("{changed:?}") };
        assert_eq!(
            (topic.name.as_str(), topic.partitions.len(), &topic.configs),
            ("planned", counted, &configs)
        );
        assert!(node.brokers.iter().all(|broker| broker.topology.topic("/", "planned").is_none()));
    }
}

#[test]
fn a_name_that_no_topic_can_have_is_refused_even_where_none_is_to_be_created() {
    let (mut node, client, _) = with_stream(1, &[]);
    for create in [false, true] {
        let named = |name: &str| TopicRef::Name(name.into());
        let topics = vec![named("a b"), named(STREAM), named("amq.t")];
        let request = LogRequest::Topics(TopicsWanted::Named { topics, create });
        node.ask(client, Request::Log { token: 3, request });
        node.run();
        let [Event::Log(3, answer)] = &node.heard(client)[..] else { panic!("one answer") };
        let LogAnswer::Topics(found) = &**answer else { panic!("{answer:?}") };
        let is_bad = |at: usize| matches!(&found[at], Err((_, LogRefusal::BadName(_))));
        assert!(is_bad(0) && found[1].is_ok() && is_bad(2), "{found:?}");
    }
}
