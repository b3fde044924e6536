//! How long records stay, whatever ages a topic names and whatever times their writers give them.

use model::topic::{AppendBatch, Cursor, Fetch, PartitionRef, TopicDeclaration, TopicRef};
use model::{
    Arguments, Change, Event, LogAnswer, LogRequest, Protocol, Publish, QueueDeclaration, Record, Request,
    Value,
};
use recordbatch::{BatchWriter, Codec, Headers, KafkaRecord};

use super::node::{Client, LANE, Node};

/// What the clock of a node says when it starts, milliseconds.
const NOW_MS: i64 = 1_700_000_000_000;
const FOREVER: &str = "9223372036854775807";

fn create(node: &mut Node, client: Client, name: &str, configs: &[(&str, &str)]) {
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
fn publish(node: &mut Node, client: Client, queue: &str, timestamp_ms: Option<i64>) {
    let record = Record {
        protocol: Protocol::Amqp091,
        priority: 0,
        timestamp_ms,
        expiry_ms: None,
        due_ms: None,
        key: None,
        dedup: None,
        exchange: "",
        routing_key: queue,
        prefix: &[0, 0],
        body: Some(b"b"),
        suffix: &[],
    };
    let publish = Publish { lane: LANE, token: 0, mandatory: false, record, headers: |_| None };
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
