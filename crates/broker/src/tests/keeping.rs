//! How long records stay, whatever ages a topic names and whatever times their writers give them.

use model::topic::{AppendBatch, Cursor, Fetch, OffsetAt, PartitionRef, TopicDeclaration, TopicRef};
use model::{
    Arguments, Change, Event, LogAnswer, LogRequest, Protocol, Publish, QueueDeclaration, Record, Request,
    Value,
};
use recordbatch::{BatchWriter, Codec, Headers, KafkaRecord};

use super::node::{Client, LANE, Node};

/// What the clock of a node says when it starts, milliseconds.
pub(super) const NOW_MS: i64 = 1_700_000_000_000;
const FOREVER: &str = "9223372036854775807";

pub(super) fn create(node: &mut Node, client: Client, name: &str, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let topic = TopicDeclaration { name: name.into(), partitions: None, replicas: None, configs };
    let request = LogRequest::CreateTopics { topics: vec![topic], validate_only: false };
    node.ask(client, Request::Log { token: 1, request });
    node.run();
    let [Event::Log(1, answer)] = &node.heard(client)[..] else { panic!("one answer") };
    assert!(matches!(&**answer, LogAnswer::Changed(all) if all.iter().all(Result::is_ok)), "{answer:?}");
}

/// Appends records as one batch, as a Kafka client does.
fn append(node: &mut Node, client: Client, topic: &str, records: &[(&str, Option<&str>, i64)]) {
    let mut writer = BatchWriter::new(0);
    for (offset_delta, (key, value, timestamp)) in (0..).zip(records) {
        let (key, value) = (Some(key.as_bytes()), value.map(str::as_bytes));
        let (timestamp, headers) = (*timestamp, Headers::NONE);
        writer.push(&KafkaRecord { offset_delta, timestamp, key, value, headers });
    }
    let batch = writer.finish(Codec::None);
    let append = AppendBatch { topic, id: None, partition: 0, batch: &batch, required: -1, timeout_ms: 1000 };
    node.ask(client, Request::Log { token: 2, request: LogRequest::Append(append) });
    node.run();
    let [Event::Log(2, answer)] = &node.heard(client)[..] else { panic!("one answer") };
    assert!(matches!(**answer, LogAnswer::Appended(Ok(_))), "{answer:?}");
}

/// Publishes as an AMQP client does, with its time or without any.
pub(super) fn publish(node: &mut Node, client: Client, queue: &str, timestamp_ms: Option<i64>) {
    let record = Record {
        timestamp_ms,
        routing_key: queue,
        prefix: &[0, 0],
        body: Some(b"b"),
        ..Record::bare(Protocol::Amqp091)
    };
    let publish = Publish { lane: LANE, token: 0, mandatory: false, record, also: &[], headers: |_| None };
    node.ask(client, Request::Publish(publish));
    node.run();
    assert_eq!(node.heard(client).len(), 0);
}

/// Declares a stream of AMQP with a greatest age.
fn stream(node: &mut Node, client: Client, name: &str, age: &str) {
    let arguments = [("x-queue-type", "stream"), ("x-max-age", age)];
    let arguments = arguments.map(|(name, value)| (name.to_owned(), Value::text(value)));
    let declaration =
        QueueDeclaration { arguments: Arguments(arguments.to_vec()), ..Node::declaration(name) };
    node.ask_change(client, Change::DeclareQueue(declaration));
    node.run();
    assert!(matches!(node.heard(client)[..], [Event::Declared(..)]));
}

/// Where a log begins and ends.
fn bounds(node: &mut Node, client: Client, topic: &str) -> (u64, u64) {
    let at = PartitionRef { topic: TopicRef::Name(topic.into()), partition: 0 };
    let cursor = Cursor { at, offset: u64::MAX, max_bytes: 1, epoch: None };
    let fetch = Fetch { max_wait_ms: 0, min_bytes: 1, max_bytes: 1, cursors: vec![cursor] };
    node.ask(client, Request::Log { token: 3, request: LogRequest::Fetch(fetch) });
    node.run();
    let [Event::Log(3, answer)] = &node.heard(client)[..] else { panic!("one answer") };
    let LogAnswer::Fetched(found) = &**answer else { panic!("{answer:?}") };
    match found[0] {
        Err(model::LogRefusal::OutOfRange(start, end)) => (start, end),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn no_age_and_no_time_is_too_large_to_be_kept_and_started_with() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    let after = ("message.timestamp.after.max.ms", FOREVER);
    create(&mut node, client, "forever", &[("retention.ms", FOREVER), after]);
    create(&mut node, client, "moment", &[("retention.ms", "0"), after]);
    stream(&mut node, client, "old", "9223372036854775s");
    stream(&mut node, client, "young", "1s");
    for (topic, times) in
        [("forever", [NOW_MS, i64::MAX, 0, -1]), ("moment", [i64::MAX, i64::MAX, NOW_MS, -1])]
    {
        for time in times {
            append(&mut node, client, topic, &[("k", Some("v"), time)]);
        }
    }
    for queue in ["old", "young", "forever"] {
        for time in [None, Some(i64::MAX), Some(0)] {
            publish(&mut node, client, queue, time);
        }
    }
    for _ in 0..3 {
        node.run_after(2_000);
        let client = node.connect(0);
        assert_eq!(bounds(&mut node, client, "forever"), (0, 7), "for ever is for ever");
        assert_eq!(bounds(&mut node, client, "old"), (0, 3));
        assert_eq!(bounds(&mut node, client, "moment"), (0, 4), "nothing goes before what is in front of it");
        node.restart();
    }
}

/// Everything a Kafka client gets that reads from an offset to the end: the offsets of all records.
fn read(node: &mut Node, client: Client, topic: &str, from: u64) -> Vec<u64> {
    let (mut next, mut offsets) = (from, Vec::new());
    loop {
        let at = PartitionRef { topic: TopicRef::Name(topic.into()), partition: 0 };
        let cursor = Cursor { at, offset: next, max_bytes: 1, epoch: None };
        let fetch = Fetch { max_wait_ms: 0, min_bytes: 1, max_bytes: 1, cursors: vec![cursor] };
        node.ask(client, Request::Log { token: 4, request: LogRequest::Fetch(fetch) });
        node.run();
        let [Event::Log(4, answer)] = &node.heard(client)[..] else { panic!("one answer") };
        let LogAnswer::Fetched(found) = &**answer else { panic!("{answer:?}") };
        let found = found[0].as_ref().expect("it is there");
        if next == found.end {
            return offsets;
        }
        assert!(!found.batches.is_empty(), "nobody gets from {next} to {}", found.end);
        for batch in &found.batches {
            let opened =
                recordbatch::open(&batch.block.as_slice()[batch.range.clone()], 1 << 20).expect("sound");
            let all =
                opened.records().map(|record| batch.base_offset + record.expect("sound").offset_delta as u64);
            offsets.extend(all.filter(|offset| *offset >= next));
            next = batch.base_offset + opened.header().span();
        }
    }
}

/// Offset and time of the record with the highest time.
fn latest(node: &mut Node, client: Client, topic: &str) -> (Option<u64>, Option<i64>) {
    let at = PartitionRef { topic: TopicRef::Name(topic.into()), partition: 0 };
    let request = LogRequest::Offsets(vec![(at, OffsetAt::MaxTimestamp)]);
    node.ask(client, Request::Log { token: 5, request });
    node.run();
    let [Event::Log(5, answer)] = &node.heard(client)[..] else { panic!("one answer") };
    let LogAnswer::Offsets(found) = &**answer else { panic!("{answer:?}") };
    let found = found[0].as_ref().expect("it is there");
    (found.offset, found.timestamp_ms)
}

/// Lets compaction do what it can.
fn settle(node: &mut Node, ms: u64) {
    node.run_after(ms);
    (0..3).for_each(|_| node.run_after(1_000));
}

const EAGER: [(&str, &str); 3] =
    [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0"), ("delete.retention.ms", "0")];

#[test]
fn a_reader_gets_to_the_end_of_what_compaction_has_left() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    create(&mut node, client, "t", &[&EAGER[..], &[("segment.ms", "1")]].concat());
    append(&mut node, client, "t", &[("a", Some("1"), 5)]);
    append(&mut node, client, "t", &[("b", Some("1"), 5), ("c", Some("1"), 5), ("b", Some("2"), 5)]);
    append(&mut node, client, "t", &[("d", Some("1"), 5), ("a", None, 5), ("d", None, 5)]);
    append(&mut node, client, "t", &[("b", None, 5), ("c", None, 5)]);
    settle(&mut node, 2_000);
    for from in 0..=9 {
        let left = [2, 3, 7, 8].into_iter().filter(|offset| *offset >= from);
        assert_eq!(read(&mut node, client, "t", from), left.collect::<Vec<_>>(), "from {from}");
    }
    // What was last goes once it is not last any more.
    append(&mut node, client, "t", &[("e", Some("1"), 5)]);
    settle(&mut node, 2_000);
    for from in 0..=10 {
        assert_eq!(read(&mut node, client, "t", from), [9].repeat(usize::from(from < 10)), "from {from}");
    }
}

#[test]
fn a_batch_keeps_its_end_whatever_was_removed_of_it() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    create(&mut node, client, "t", &[&EAGER[..], &[("segment.ms", "1")]].concat());
    append(&mut node, client, "t", &[("a", Some("1"), 5), ("b", Some("1"), 5), ("c", Some("1"), 5)]);
    append(&mut node, client, "t", &[("c", Some("2"), 5)]);
    append(&mut node, client, "t", &[("b", Some("2"), 5)]);
    append(&mut node, client, "t", &[("c", Some("3"), 5)]);
    append(&mut node, client, "t", &[("z", Some("1"), 5)]);
    settle(&mut node, 2_000);
    for from in 0..=7 {
        let left = [0, 4, 5, 6].into_iter().filter(|offset| *offset >= from);
        assert_eq!(read(&mut node, client, "t", from), left.collect::<Vec<_>>(), "from {from}");
    }
}

#[test]
fn the_latest_record_is_the_latest_of_what_compaction_has_left() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    create(&mut node, client, "t", &[&EAGER[..], &[("segment.ms", "1")]].concat());
    append(&mut node, client, "t", &[("a", Some("1"), 10), ("b", Some("1"), 90)]);
    append(&mut node, client, "t", &[("c", Some("1"), 50), ("d", Some("1"), 70), ("e", Some("1"), 50)]);
    assert_eq!(latest(&mut node, client, "t"), (Some(1), Some(90)));
    append(&mut node, client, "t", &[("b", Some("2"), 30)]);
    append(&mut node, client, "t", &[("d", Some("2"), 20)]);
    append(&mut node, client, "t", &[("z", Some("1"), 5)]);
    settle(&mut node, 2_000);
    assert_eq!(read(&mut node, client, "t", 0), [0, 2, 4, 5, 6, 7]);
    assert_eq!(latest(&mut node, client, "t"), (Some(2), Some(50)), "the first that is left of its time");
    // Then all of that batch is gone, too.
    append(&mut node, client, "t", &[("c", Some("2"), 6), ("e", Some("2"), 7)]);
    append(&mut node, client, "t", &[("z", Some("2"), 5)]);
    settle(&mut node, 2_000);
    assert_eq!(read(&mut node, client, "t", 0), [0, 5, 6, 7, 8, 9, 10]);
    assert_eq!(latest(&mut node, client, "t"), (Some(5), Some(30)));
}

#[test]
fn the_open_end_of_a_log_is_not_compacted() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    create(&mut node, client, "old", &[&EAGER[..], &[("segment.ms", "60000")]].concat());
    // A batch of one such record takes some 165 bytes.
    create(&mut node, client, "much", &[&EAGER[..], &[("segment.bytes", "400")]].concat());
    create(&mut node, client, "plain", &EAGER);
    create(&mut node, client, "forced", &[&EAGER[..], &[("max.compaction.lag.ms", "60000")]].concat());
    let all = ["old", "much", "plain", "forced"];
    let append_all = |node: &mut Node| {
        all.iter().for_each(|topic| append(node, client, topic, &[("k", Some("v"), NOW_MS)]));
    };
    for _ in 0..4 {
        append_all(&mut node);
    }
    settle(&mut node, 10_000);
    let left = |node: &mut Node| all.map(|topic| read(node, client, topic, 0));
    let [old, much, plain, forced] = left(&mut node);
    assert_eq!([old, plain, forced], [[0, 1, 2, 3]; 3]);
    assert_eq!(much, [1, 2, 3], "what is behind the last 400 bytes, where one of the key stays");
    settle(&mut node, 60_000);
    let [old, much, plain, forced] = left(&mut node);
    assert_eq!([old, forced], [[2, 3], [2, 3]], "as old as the topics say");
    assert_eq!(much, [1, 2, 3]);
    assert_eq!(plain, [0, 1, 2, 3]);
    append_all(&mut node);
    settle(&mut node, 10_000);
    let [old, much, plain, _] = left(&mut node);
    assert_eq!([old, much, plain].map(|left| left.len()), [2, 3, 5]);
    settle(&mut node, 7 * 86_400_000);
    assert_eq!(left(&mut node)[2], [3, 4], "a week is the default");
}

#[test]
fn a_mark_stays_for_its_time_from_when_it_came() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    let configs =
        [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0"), ("delete.retention.ms", "60000")];
    create(&mut node, client, "t", &[&configs[..], &[("segment.ms", "1")]].concat());
    append(&mut node, client, "t", &[("k", Some("v"), 0)]);
    append(&mut node, client, "t", &[("k", None, 0)]);
    append(&mut node, client, "t", &[("l", Some("v"), 0)]);
    settle(&mut node, 30_000);
    assert_eq!(read(&mut node, client, "t", 0), [1, 2], "its value is gone, the mark is there");
    node.run_after(40_000);
    append(&mut node, client, "t", &[("m", Some("v"), 0)]);
    settle(&mut node, 2_000);
    assert_eq!(read(&mut node, client, "t", 0), [2, 3]);
}

#[test]
fn what_has_no_time_of_its_own_ages_from_when_it_came() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    create(&mut node, client, "timeless", &[("retention.ms", "3600000")]);
    create(&mut node, client, "history", &[("retention.ms", "3600000")]);
    stream(&mut node, client, "s", "1h");
    append(&mut node, client, "timeless", &[("k", Some("v"), -1)]);
    append(&mut node, client, "history", &[("k", Some("v"), 0)]);
    for time in [None, Some(0), Some(NOW_MS * 2)] {
        publish(&mut node, client, "s", time);
    }
    let starts = |node: &mut Node| ["timeless", "history", "s"].map(|topic| bounds(node, client, topic).0);
    settle(&mut node, 290_000);
    assert_eq!(starts(&mut node), [0, 0, 0], "nothing goes as soon as it has come");
    settle(&mut node, 10_000);
    assert_eq!(starts(&mut node), [0, 1, 0], "what its writer calls old goes");
    settle(&mut node, 3_200_000);
    assert_eq!(starts(&mut node), [0, 1, 0]);
    settle(&mut node, 100_000);
    assert_eq!(starts(&mut node), [1, 1, 3]);
}

#[test]
fn a_large_message_after_a_long_stop_is_not_taken_for_old() {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    stream(&mut node, client, "s", "1h");
    publish(&mut node, client, "s", None);
    node.stop_for(2 * 3_600_000);
    let client = node.connect(0);
    settle(&mut node, 2_000);
    node.publish(client, "s", 0, &"x".repeat(2 << 20));
    settle(&mut node, 2_000);
    assert_eq!(bounds(&mut node, client, "s"), (1, 2));
    settle(&mut node, 3_600_000);
    assert_eq!(bounds(&mut node, client, "s"), (2, 2));
}
