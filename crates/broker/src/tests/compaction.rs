//! What compaction gives back: batches of which little is left are rewritten, and nobody can tell but by their size.

use std::collections::BTreeMap;

use commitlog::Location;
use model::topic::{AppendBatch, ConfigChange, Cursor, Fetch, OffsetAt, PartitionRef, TopicRef};
use model::{
    Arguments, Change, ConsumerId, Event, Index, LogAnswer, LogRequest, QueueDeclaration, QueueId, Request,
    StreamStart, Subscribe, Value,
};
use recordbatch::{BatchWriter, Codec, Headers, KafkaRecord};

use super::node::{Client, LANE, Node, delivered};

const TOPIC: &str = "t";
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
/// Records of a batch.
const RECORDS: usize = 100;

/// A node whose only topic is compacted.
fn with_topic() -> (Node, Client, QueueId) {
    let mut node = Node::start(1, 2);
    let client = node.connect(0);
    let log = declare(&mut node, client, TOPIC);
    let set = |name: &str, value: &str| ConfigChange::Set(name.into(), value.into());
    let changes = vec![
        set("cleanup.policy", "compact"),
        set("min.cleanable.dirty.ratio", "0.01"),
        set("segment.ms", "1"),
    ];
    let topics = vec![(TOPIC.into(), changes)];
    let request = LogRequest::AlterTopics { topics, validate_only: false, replace: false };
    node.ask(client, Request::Log { token: 7, request });
    node.run();
    node.heard(client);
    (node, client, log)
}

fn declare(node: &mut Node, client: Client, name: &str) -> QueueId {
    let kind = Arguments(vec![("x-queue-type".into(), Value::text("stream"))]);
    let declaration = QueueDeclaration { arguments: kind, ..Node::declaration(name) };
    node.ask_change(client, Change::DeclareQueue(declaration));
    node.run();
    assert!(matches!(node.heard(client)[..], [Event::Declared(..)]));
    node.brokers[0].topology.queue("/", name).expect("it was declared").id
}

fn append(node: &mut Node, client: Client, batch: &[u8]) -> u64 {
    let append = AppendBatch { topic: TOPIC, id: None, partition: 0, batch, required: -1, timeout_ms: 1000 };
    node.ask(client, Request::Log { token: 1, request: LogRequest::Append(append) });
    node.run();
    let [Event::Log(1, answer), ..] = &node.heard(client)[..] else { panic!("one answer") };
    let LogAnswer::Appended(Ok(appended)) = &**answer else { panic!("{answer:?}") };
    appended.base_offset
}

/// A batch of records with these keys; what they say tells them apart, and its half is hard to compress.
fn batch(number: usize, keys: impl ExactSizeIterator<Item = String>, codec: Codec) -> Vec<u8> {
    // Whole ones come from a producer that numbers them.
    let numbered = |writer: BatchWriter| writer.by_producer(5, 0, (number * RECORDS) as i32);
    let writer = BatchWriter::new(0);
    let mut writer = if keys.len() == RECORDS { numbered(writer) } else { writer };
    for (place, key) in keys.enumerate() {
        let noise: String =
            (0..8).map(|n| format!("{:08x}", base::crc32c(&[number as u8, place as u8, n]))).collect();
        let value = format!("{number}-{place}-{noise}-{}", "x".repeat(64));
        let timestamp = 1_000_000 + (number * RECORDS + place) as i64;
        writer.push(&KafkaRecord {
            offset_delta: place as i32,
            timestamp,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: Headers::NONE,
        });
    }
    writer.finish(codec)
}

/// Batches of which the record in the middle has a key of its own and all others have keys that come again.
fn fill(node: &mut Node, client: Client, numbers: std::ops::Range<usize>) {
    let end = numbers.end;
    for number in numbers {
        let key = |place| if place == RECORDS / 2 { format!("own-{number}") } else { format!("key-{place}") };
        append(node, client, &batch(number, (0..RECORDS).map(key), CODECS[number % CODECS.len()]));
    }
    close(node, client, end);
}

/// A record behind all others: the last batch is never compacted.
fn close(node: &mut Node, client: Client, number: usize) {
    append(node, client, &batch(number, std::iter::once("behind".to_owned()), Codec::None));
}

/// Offset, time, key and value.
type Flat = (u64, i64, Vec<u8>, Vec<u8>);

/// What a reader is given from an offset on: batches as (base, last offset), and the records not below that offset.
fn fetched(node: &mut Node, client: Client, offset: u64) -> (Vec<(u64, u64)>, Vec<Flat>) {
    let at = PartitionRef { topic: TopicRef::Name(TOPIC.into()), partition: 0 };
    let cursor = Cursor { at, offset, max_bytes: 8 << 20, epoch: None };
    let fetch = Fetch { max_wait_ms: 0, min_bytes: 1, max_bytes: 8 << 20, cursors: vec![cursor] };
    node.ask(client, Request::Log { token: 3, request: LogRequest::Fetch(fetch) });
    node.run();
    let [Event::Log(3, answer)] = &node.heard(client)[..] else { panic!("one answer") };
    let LogAnswer::Fetched(found) = &**answer else { panic!("{answer:?}") };
    let (mut batches, mut records) = (Vec::new(), Vec::new());
    for batch in &found[0].as_ref().expect("it is there").batches {
        let bytes = &batch.block.as_slice()[batch.range.clone()];
        assert!(model::batch::KAFKA_MIN < bytes.len());
        let opened = recordbatch::open(bytes, 1 << 20).expect("sound");
        assert_eq!(base::crc32c(&bytes[21..]), opened.header().checksum);
        batches.push((batch.base_offset, batch.base_offset + opened.header().last_offset_delta as u64));
        for record in opened.records().map(|record| record.expect("sound")) {
            let (key, value) = (record.key.expect("a key").to_vec(), record.value.expect("a value").to_vec());
            records.push((batch.base_offset + record.offset_delta as u64, record.timestamp, key, value));
        }
    }
    records.retain(|record| record.0 >= offset);
    (batches, records)
}

fn bytes(node: &Node, log: QueueId) -> u64 {
    let logs = || node.brokers.iter().flat_map(|broker| &broker.host.groups);
    logs().find_map(|group| group.machine.log(log)).expect("it is hosted").bytes()
}

fn rewritten(node: &Node) -> u64 {
    node.brokers.iter().map(|broker| broker.counters.rewritten).sum()
}

fn latest(records: &[Flat]) -> Vec<Flat> {
    let by_key: BTreeMap<&[u8], &Flat> = records.iter().map(|record| (&record.2[..], record)).collect();
    let mut latest: Vec<Flat> = by_key.into_values().cloned().collect();
    latest.sort_unstable();
    latest
}

/// Lets whole passes be made.
fn compact(node: &mut Node) {
    (0..3).for_each(|_| node.run_after(1100));
}

#[test]
fn what_little_is_left_of_batches_is_rewritten_and_reads_the_same() {
    let (mut node, client, log) = with_topic();
    fill(&mut node, client, 0..50);
    let (_, all) = fetched(&mut node, client, 0);
    assert_eq!(all.len(), 50 * RECORDS + 1);
    let before = bytes(&node, log);
    compact(&mut node);
    let (batches, left) = fetched(&mut node, client, 0);
    assert_eq!(left, latest(&all));
    let spans: Vec<_> =
        (0..50).map(|number| (number * 100, number * 100 + 99)).chain([(5000, 5000)]).collect();
    assert_eq!(batches, spans, "every batch ends where it did");
    assert_eq!(rewritten(&node), 49, "the last full one is all there");
    let after = bytes(&node, log);
    let most = 49 * 400 + before / 25;
    assert!(after <= most, "{before} bytes became {after}, more than {most}");
    node.restart();
    let client = node.connect(0);
    assert_eq!(bytes(&node, log), after);
    assert_eq!(fetched(&mut node, client, 0), (batches, left));
    compact(&mut node);
    assert_eq!((rewritten(&node), bytes(&node, log)), (0, after), "nothing more was removed from them");
}

#[test]
fn a_rewritten_batch_is_rewritten_again_when_half_of_the_rest_went() {
    let (mut node, client, log) = with_topic();
    let keys = |range: std::ops::Range<usize>| range.map(|key| format!("key-{key}"));
    append(&mut node, client, &batch(0, keys(0..100), Codec::None));
    let mut number = 0;
    let mut update = |node: &mut Node, range| {
        number += 1;
        append(node, client, &batch(number, keys(range), Codec::None));
        close(node, client, number);
        compact(node);
        rewritten(node)
    };
    assert_eq!(update(&mut node, 0..49), 0, "less than half");
    assert_eq!(update(&mut node, 49..60), 1);
    assert_eq!(update(&mut node, 60..75), 1, "of forty");
    assert_eq!(update(&mut node, 75..82), 2);
    let (_, mut left) = fetched(&mut node, client, 0);
    left.retain(|record| record.2 != b"behind");
    assert_eq!(left.len(), 100);
    assert_eq!(left.iter().filter(|record| record.0 < 100).count(), 18);
    let first =
        node.brokers[0].host.groups.iter().find_map(|group| group.machine.log(log)?.chunk(0)).unwrap();
    assert_eq!((first.records, first.left_out, first.span), (100, 82, 100));
}

#[test]
fn readers_begin_within_gaps_and_behind_the_last_record_of_a_rewritten_batch() {
    let (mut node, client, _) = with_topic();
    fill(&mut node, client, 0..4);
    let (_, all) = fetched(&mut node, client, 0);
    compact(&mut node);
    let left = latest(&all);
    assert!(rewritten(&node) == 3 && left.len() == 3 + 100 + 1);
    for offset in [0, 1, 49, 50, 51, 99, 100, 151, 249, 251, 299, 300, 350] {
        let (batches, found) = fetched(&mut node, client, offset);
        assert!(batches[0].0 <= offset && offset <= batches[0].1, "from {offset}: {batches:?}");
        let expected: Vec<_> = left.iter().filter(|record| record.0 >= offset).cloned().collect();
        assert_eq!(found, expected, "from {offset}");
    }
    let at = || PartitionRef { topic: TopicRef::Name(TOPIC.into()), partition: 0 };
    for (time, expected) in [(0, 50), (1_000_050, 50), (1_000_051, 150), (1_000_260, 300)] {
        let request = LogRequest::Offsets(vec![(at(), OffsetAt::Timestamp(time))]);
        node.ask(client, Request::Log { token: 4, request });
        node.run();
        let [Event::Log(4, answer)] = &node.heard(client)[..] else { panic!("one answer") };
        let LogAnswer::Offsets(found) = &**answer else { panic!("{answer:?}") };
        assert_eq!(found[0].as_ref().unwrap().offset, Some(expected), "since {time}");
    }
    // Into the middle of a rewritten batch, behind its record: it is gone then.
    for (below, first) in [(120, 150), (160, 250)] {
        node.ask(client, Request::Log { token: 2, request: LogRequest::Trim(vec![(at(), below)]) });
        node.run();
        node.heard(client);
        assert_eq!(fetched(&mut node, client, below).1[0].0, first);
    }
}

fn follow(node: &mut Node, client: Client, start: StreamStart, credit: u32) -> Vec<u64> {
    node.ask(
        client,
        Request::Subscribe(Subscribe {
            lane: LANE,
            consumer: ConsumerId(1),
            queue: TOPIC,
            settled: false,
            exclusive: false,
            priority: 0,
            credit: Some(credit),
            start: Some(start),
            filter: None,
        }),
    );
    node.run();
    places(node, client)
}

fn places(node: &mut Node, client: Client) -> Vec<u64> {
    delivered(&node.heard(client)).into_iter().map(|((_, seq), ..)| seq.0).collect()
}

#[test]
fn consumers_of_streams_go_on_in_a_batch_that_was_rewritten_meanwhile() {
    let (mut node, client, _) = with_topic();
    fill(&mut node, client, 0..3);
    assert_eq!(follow(&mut node, client, StreamStart::First, 30), (0..30).collect::<Vec<_>>());
    compact(&mut node);
    assert_eq!(rewritten(&node), 2);
    node.ask(client, Request::Grant(&[(ConsumerId(1), 1000)]));
    node.run();
    let expected: Vec<u64> = [50, 150].into_iter().chain(200..301).collect();
    assert_eq!(places(&mut node, client), expected, "what was converted before is shown without what went");
    node.assert_nothing_waits();
}

/// Messages for another log: what was there before leaves the ring.
fn push_out(node: &mut Node, client: Client) {
    for _ in 0..300 {
        node.publish(client, "other", 0, &"z".repeat(3000));
        node.run();
    }
    node.heard(client);
}

#[test]
fn rewritten_batches_are_read_from_disk_and_what_they_replaced_is_given_back() {
    let (mut node, mut client, log) = with_topic();
    declare(&mut node, client, "other");
    fill(&mut node, client, 0..20);
    let (_, all) = fetched(&mut node, client, 0);
    // Before they are rewritten, what they are in has left the ring.
    push_out(&mut node, client);
    let dead = |node: &Node| {
        let stats = node.brokers[0].log.stats();
        stats.punched_bytes + stats.dead_bytes
    };
    let before = dead(&node);
    compact(&mut node);
    assert_eq!(rewritten(&node), 19);
    push_out(&mut node, client);
    let freed = dead(&node) - before;
    assert!(freed > 50_000, "only {freed} bytes");
    for _ in 0..2 {
        push_out(&mut node, client);
        let broker = &node.brokers[0];
        let group = broker.topology.queue_by_id(log).expect("it is there").group;
        let state = broker.host.groups[broker.host.by_group[&group]].machine.log(log).expect("it is hosted");
        let places: Vec<Index> = state.chunks_from(0).map(|chunk| chunk.index).collect();
        assert!(places[..19].iter().all(|index| *index > places[20]), "they are younger: {places:?}");
        let is_in_runs = |index: &Index| broker.log.location(group, *index) == Location::Runs;
        assert!(places.iter().all(is_in_runs), "{places:?}");
        assert_eq!(fetched(&mut node, client, 0).1, latest(&all));
        node.restart();
        client = node.connect(0);
        assert_eq!(fetched(&mut node, client, 0).1, latest(&all));
    }
}

#[test]
fn nothing_is_rewritten_while_publishing_is_held_back_and_then_it_is() {
    let (mut node, client, log) = with_topic();
    fill(&mut node, client, 0..10);
    let before = bytes(&node, log);
    node.brokers[0].set_alarm(Some("the disk is nearly full"));
    compact(&mut node);
    node.heard(client);
    assert_eq!((rewritten(&node), bytes(&node, log)), (0, before));
    assert_eq!(fetched(&mut node, client, 0).1.len(), 110, "what was removed is not shown");
    node.brokers[0].set_alarm(None);
    compact(&mut node);
    node.heard(client);
    assert_eq!(rewritten(&node), 9);
    assert!(bytes(&node, log) < before / 4);
    assert_eq!(fetched(&mut node, client, 0).1.len(), 110);
}
