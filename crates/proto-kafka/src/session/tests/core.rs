//! Versions, metadata, offsets, appends and fetches in every version.

use base::Pool;
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use model::topic::{Appended, BadRecord, Fetched, FetchedBatch, FoundOffset, LogRefusal, OffsetAt, Topic};
use model::topic::{TopicRef, TopicsWanted};
use model::{LogAnswer, LogRequest, QueueId, TopicId};

use super::harness::{Asked, Rig, decode, text};
use crate::wire::{APIS, api};

const ID: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
const ID_TEXT: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";

fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn topic() -> Topic {
    let partitions = vec![QueueId(1), QueueId(2)];
    Topic { name: "t".to_owned(), id: TopicId(ID), partitions, ..Topic::default() }
}

/// The header of a batch with this codec, and some bytes.
pub(super) fn batch(codec: u8, length: usize) -> Vec<u8> {
    let mut batch = vec![0xaa; length];
    batch[8..12].copy_from_slice(&(length as u32 - 12).to_be_bytes());
    batch[16] = 2;
    batch[21..23].copy_from_slice(&[0, codec]);
    batch
}

#[test]
fn versions_are_told_in_every_version_and_to_who_asks_in_a_later_one() {
    for version in 0..=4 {
        let mut rig = Rig::fresh();
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request = request.with_client_software_name(text("t")).with_client_software_version(text("1"));
        }
        assert!(rig.send(api::API_VERSIONS, version, &request).is_empty());
        let (_, response) = rig.response::<ApiVersionsResponse>(api::API_VERSIONS, version);
        assert_eq!((response.error_code, response.api_keys.len()), (0, APIS.len()));
    }
    let mut rig = Rig::fresh();
    let mut frame = vec![0, 0, 0, 12, 0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff];
    assert!(rig.feed(&frame).is_empty());
    let (correlation, response) = rig.response::<ApiVersionsResponse>(api::API_VERSIONS, 0);
    assert_eq!((correlation, response.error_code), (5, 35));
    let own = response.api_keys.iter().find(|range| range.api_key == 18).expect("its own range");
    assert_eq!((own.min_version, own.max_version), (0, 4));
    // Any other request in a version nobody knows ends the connection.
    frame[5] = 3;
    let mut rig = Rig::open();
    assert!(rig.feed(&frame).is_empty());
    assert!(rig.session.is_ended() && rig.sent().is_empty());
}

#[test]
fn metadata_tells_one_leader_for_everything_in_every_version() {
    for version in 0..=13 {
        let mut rig = Rig::open();
        let wanted = vec![MetadataRequestTopic::default().with_name(Some(name("t")))];
        let asks = version >= 8;
        let request = MetadataRequest::default()
            .with_topics(Some(wanted))
            .with_include_topic_authorized_operations(asks)
            .with_include_cluster_authorized_operations(asks && version <= 10);
        let asked = rig.send(api::METADATA, version, &request);
        let [(token, Asked::Log(LogRequest::Topics(TopicsWanted::Named { topics, create: true })))] =
            &asked[..]
        else {
            unreachable!("{asked:?}")
        };
        assert_eq!(topics[..], [TopicRef::Name("t".to_owned())]);
        let missing = (TopicRef::Name("u".to_owned()), LogRefusal::UnknownPartition);
        rig.answer(*token, LogAnswer::Topics(vec![Ok(topic()), Err(missing)]));
        let (_, response) = rig.response::<MetadataResponse>(api::METADATA, version);
        let broker = &response.brokers[0];
        assert_eq!((broker.node_id.0, &*broker.host, broker.port), (3, "localhost", 9092));
        let found = &response.topics[0];
        assert_eq!((found.error_code, found.partitions.len()), (0, 2));
        assert_eq!((found.partitions[1].partition_index, found.partitions[1].leader_id.0), (1, 3));
        assert_eq!(found.partitions[1].replica_nodes, [BrokerId(3)]);
        assert_eq!(found.topic_id.as_u128(), if version >= 10 { ID } else { 0 });
        assert_eq!(response.topics[1].error_code, 3);
        assert_eq!(found.topic_authorized_operations, if asks { 0b1101_1111_1000 } else { i32::MIN });
        let in_cluster = response.cluster_authorized_operations;
        assert_eq!(in_cluster, if (8..=10).contains(&version) { 0b1_0101_0010_0000 } else { i32::MIN });
        assert!(version < 2 || response.cluster_id.as_deref() == Some("the-cluster"));
    }
}

#[test]
fn no_topics_and_all_topics_are_told_apart_as_each_version_does() {
    for (version, topics, all) in
        [(0, Some(vec![]), true), (1, Some(vec![]), false), (1, None, true), (9, None, true)]
    {
        let mut rig = Rig::open();
        let asked = rig.send(api::METADATA, version, &MetadataRequest::default().with_topics(topics));
        match all {
            true => assert!(matches!(asked[..], [(_, Asked::Log(LogRequest::Topics(TopicsWanted::All)))])),
            false => assert!(rig.response::<MetadataResponse>(api::METADATA, version).1.topics.is_empty()),
        }
    }
}

#[test]
fn offsets_are_found_in_every_version() {
    for version in 1..=10 {
        let mut rig = Rig::open();
        let at = |partition, timestamp| {
            ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp)
        };
        let partitions = vec![at(0, -1), at(1, -2), at(2, 1234), at(3, -5)];
        let topics = vec![ListOffsetsTopic::default().with_name(name("t")).with_partitions(partitions)];
        let asked = rig.send(api::LIST_OFFSETS, version, &ListOffsetsRequest::default().with_topics(topics));
        let [(token, Asked::Log(LogRequest::Offsets(questions)))] = &asked[..] else {
            unreachable!("{asked:?}")
        };
        let kinds: Vec<_> = questions.iter().map(|(_, at)| *at).collect();
        assert_eq!(kinds, [OffsetAt::Latest, OffsetAt::Earliest, OffsetAt::Timestamp(1234)]);
        let found = |offset| Ok(FoundOffset { offset, timestamp_ms: Some(5), epoch: 0 });
        rig.answer(
            *token,
            LogAnswer::Offsets(vec![found(Some(9)), found(None), Err(LogRefusal::UnknownPartition)]),
        );
        let (_, response) = rig.response::<ListOffsetsResponse>(api::LIST_OFFSETS, version);
        let partitions = &response.topics[0].partitions;
        let told: Vec<_> = partitions.iter().map(|p| (p.error_code, p.timestamp, p.offset)).collect();
        let tiered = if version >= 9 { (0, -1, -1) } else { (35, -1, -1) };
        assert_eq!(told, [(0, 5, 9), (0, -1, -1), (3, -1, -1), tiered]);
    }
}

#[test]
fn ends_of_epochs_are_told_in_every_version() {
    for version in 2..=4 {
        let mut rig = Rig::open();
        let partition = OffsetForLeaderPartition::default().with_partition(1).with_leader_epoch(0);
        let topics =
            vec![OffsetForLeaderTopic::default().with_topic(name("t")).with_partitions(vec![partition])];
        let request = OffsetForLeaderEpochRequest::default().with_topics(topics);
        let asked = rig.send(api::OFFSET_FOR_LEADER_EPOCH, version, &request);
        let [(token, Asked::Log(LogRequest::EpochEnds(_)))] = &asked[..] else { unreachable!("{asked:?}") };
        rig.answer(*token, LogAnswer::EpochEnds(vec![Ok((0, 77))]));
        let (_, response) =
            rig.response::<OffsetForLeaderEpochResponse>(api::OFFSET_FOR_LEADER_EPOCH, version);
        let end = &response.topics[0].partitions[0];
        assert_eq!((end.partition, end.leader_epoch, end.end_offset), (1, 0, 77));
        for nobodys in [-1, 1] {
            let partition = OffsetForLeaderPartition::default().with_partition(1).with_leader_epoch(nobodys);
            let topics =
                vec![OffsetForLeaderTopic::default().with_topic(name("t")).with_partitions(vec![partition])];
            let request = OffsetForLeaderEpochRequest::default().with_topics(topics);
            let asked = rig.send(api::OFFSET_FOR_LEADER_EPOCH, version, &request);
            rig.answer(asked[0].0, LogAnswer::EpochEnds(vec![Ok((0, 77))]));
            let (_, response) =
                rig.response::<OffsetForLeaderEpochResponse>(api::OFFSET_FOR_LEADER_EPOCH, version);
            let end = &response.topics[0].partitions[0];
            assert_eq!((end.error_code, end.leader_epoch, end.end_offset), (0, -1, -1), "epoch {nobodys}");
        }
    }
}

pub(super) fn produce(version: i16, acks: i16, batches: &[Option<Vec<u8>>]) -> ProduceRequest {
    let parts = batches.iter().zip(0..).map(|(batch, index)| {
        PartitionProduceData::default().with_index(index).with_records(batch.clone().map(Bytes::from))
    });
    let mut topic = TopicProduceData::default().with_partition_data(parts.collect());
    match version >= 13 {
        true => topic.topic_id = ID_TEXT.parse().expect("an id"),
        false => topic.name = name("t"),
    }
    ProduceRequest::default().with_acks(acks).with_timeout_ms(1000).with_topic_data(vec![topic])
}

fn appended(base_offset: u64) -> LogAnswer {
    LogAnswer::Appended(Ok(Appended { base_offset, log_append_ms: None, start: 1 }))
}

#[test]
fn every_partition_of_a_produce_is_an_append_and_one_response_tells_of_all() {
    for version in 3..=13 {
        let mut rig = Rig::open();
        let batches = [Some(batch(0, 100)), None, Some(batch(0, 70)), Some(batch(4, 70))];
        let asked = rig.send(api::PRODUCE, version, &produce(version, -1, &batches));
        let tokens: Vec<u64> = asked.iter().map(|(token, _)| *token).collect();
        let given: Vec<_> = asked
            .iter()
            .map(|(_, asked)| match asked {
                Asked::Append { topic, id, partition, batch, required: -1 } => {
                    assert_eq!(
                        (topic.as_str(), *id),
                        if version >= 13 { ("", Some(TopicId(ID))) } else { ("t", None) }
                    );
                    (*partition, batch.len())
                }
                other => unreachable!("{other:?}"),
            })
            .collect();
        let zstd = version >= 7;
        assert_eq!(given, if zstd { vec![(0, 100), (2, 70), (3, 70)] } else { vec![(0, 100), (2, 70)] });
        if zstd {
            rig.answer(tokens[2], appended(30));
        }
        rig.answer(tokens[1], LogAnswer::Appended(Err(LogRefusal::TooLarge("big".to_owned()))));
        assert!(rig.sent().is_empty(), "one answer is missing");
        rig.answer(tokens[0], appended(10));
        let (_, response) = rig.response::<ProduceResponse>(api::PRODUCE, version);
        let parts = &response.responses[0].partition_responses;
        let told: Vec<_> = parts.iter().map(|part| (part.index, part.error_code, part.base_offset)).collect();
        let last = if zstd { (3, 0, 30) } else { (3, 76, -1) };
        assert_eq!(told, [(0, 0, 10), (1, 87, -1), (2, 10, -1), last]);
    }
}

#[test]
fn a_refusal_names_the_records_it_is_for_where_the_version_has_them() {
    for version in 3..=13 {
        let mut rig = Rig::open();
        let batches = [Some(batch(0, 80)), Some(batch(0, 80)), Some(batch(0, 80))];
        let asked = rig.send(api::PRODUCE, version, &produce(version, -1, &batches));
        let bad = |number, text: &str| BadRecord { number, text: text.to_owned() };
        let refusals = [
            LogRefusal::InvalidTimestamp(vec![bad(1, "too late"), bad(7, "too early")]),
            LogRefusal::InvalidRecord("keys are needed".to_owned(), vec![bad(0, "no key")]),
            LogRefusal::OldFormat,
        ];
        for ((token, _), refusal) in asked.iter().zip(refusals) {
            rig.answer(*token, LogAnswer::Appended(Err(refusal)));
        }
        let (_, response) = rig.response::<ProduceResponse>(api::PRODUCE, version);
        let parts = &response.responses[0].partition_responses;
        assert_eq!(parts.iter().map(|part| part.error_code).collect::<Vec<_>>(), [32, 87, 87]);
        let told = |part: usize| -> Vec<(i32, String)> {
            let errors = parts[part].record_errors.iter();
            let text = |text: &StrBytes| text.to_string();
            errors
                .map(|bad| (bad.batch_index, bad.batch_index_error_message.as_ref().map_or("".into(), text)))
                .collect()
        };
        if version < 8 {
            assert!(told(0).is_empty() && parts[1].error_message.is_none());
            continue;
        }
        assert_eq!(told(0), [(1, "too late".to_owned()), (7, "too early".to_owned())]);
        assert_eq!(told(1), [(0, "no key".to_owned())]);
        assert_eq!(parts[1].error_message.as_deref(), Some("keys are needed"));
    }
}

#[test]
fn the_oldest_produce_is_refused_in_its_own_form() {
    for version in 0..=2i16 {
        let mut rig = Rig::open();
        let mut frame = vec![0, 0, 0, 0, 0, 0, 0, version as u8, 0, 0, 0, 9, 0xff, 0xff];
        frame.extend_from_slice(&[
            0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 1, 7,
        ]);
        frame[3] = frame.len() as u8 - 4;
        assert!(rig.feed(&frame).is_empty());
        let mut expected = vec![0, 0, 0, 9, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 5, 0, 35];
        expected.extend_from_slice(&[0xff; 8]);
        expected.extend_from_slice(if version >= 2 { &[0xff; 8] } else { &[] });
        expected.extend_from_slice(if version >= 1 { &[0; 4] } else { &[] });
        assert_eq!(rig.sent()[4..], expected);
    }
}

#[test]
fn a_producer_that_wants_no_answer_gets_none_and_loses_its_connection_on_a_refusal() {
    let mut rig = Rig::open();
    let asked = rig.send(api::PRODUCE, 9, &produce(9, 0, &[Some(batch(0, 80)), Some(batch(0, 80))]));
    assert_eq!(asked.len(), 2);
    let behind = rig.send(api::METADATA, 9, &MetadataRequest::default().with_topics(None));
    rig.answer(asked[1].0, LogAnswer::Appended(Err(LogRefusal::UnknownPartition)));
    assert!(!rig.session.is_ended() && rig.sent().is_empty());
    assert!(rig.send(api::METADATA, 9, &MetadataRequest::default()).is_empty(), "nothing more is read");
    rig.answer(behind[0].0, LogAnswer::Topics(vec![]));
    assert!(rig.session.is_ended() && !rig.sent().is_empty());
    let mut rig = Rig::open();
    rig.send(api::PRODUCE, 9, &produce(9, 5, &[Some(batch(0, 80))]));
    let (_, response) = rig.response::<ProduceResponse>(api::PRODUCE, 9);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 21);
}

pub(super) fn fetch_topic(version: i16, partitions: &[(i32, i64)]) -> FetchTopic {
    let partitions = partitions.iter().map(|(partition, offset)| {
        FetchPartition::default()
            .with_partition(*partition)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1000)
    });
    let mut topic = FetchTopic::default().with_partitions(partitions.collect());
    match version >= 13 {
        true => topic.topic_id = ID_TEXT.parse().expect("an id"),
        false => topic.topic = name("t"),
    }
    topic
}

fn fetch(version: i16, partitions: &[(i32, i64)], session: (i32, i32)) -> FetchRequest {
    let mut request =
        FetchRequest::default().with_max_wait_ms(100).with_min_bytes(1).with_max_bytes(9_000_000);
    if version >= 7 {
        request = request.with_session_id(session.0).with_session_epoch(session.1);
    }
    if !partitions.is_empty() {
        request = request.with_topics(vec![fetch_topic(version, partitions)]);
    }
    request
}

fn found(end: u64, batches: &[Vec<u8>]) -> Result<Fetched, LogRefusal> {
    let pool = Pool::default();
    let batches = batches.iter().map(|batch| {
        let mut bytes = vec![0xee; 5];
        bytes.extend_from_slice(batch);
        let range = 5..bytes.len();
        FetchedBatch { block: pool.block(&bytes), range, base_offset: 7, epoch: 1 }
    });
    Ok(Fetched { start: 2, end, batches: batches.collect() })
}

/// What the client must see of a batch.
fn rewritten(batch: &[u8]) -> Vec<u8> {
    [&7u64.to_be_bytes(), &batch[8..12], &1u32.to_be_bytes(), &batch[16..]].concat()
}

#[test]
fn batches_small_and_large_are_fetched_in_every_version() {
    for version in 4..=16 {
        let mut rig = Rig::open();
        let asked =
            rig.send(api::FETCH, version, &fetch(version, &[(0, 5), (1, -7), (2, 0), (3, 0)], (0, -1)));
        let [(token, Asked::Log(LogRequest::Fetch(fetch)))] = &asked[..] else { unreachable!("{asked:?}") };
        assert_eq!((fetch.max_wait_ms, fetch.min_bytes, fetch.max_bytes), (100, 1, 9_000_000));
        assert_eq!(fetch.cursors[0].offset, 5);
        assert_eq!(fetch.cursors[1].offset, u64::MAX);
        let batches = [batch(0, 90), batch(1, 70_000), batch(0, 61)];
        let zstd = [batch(4, 90)];
        let results =
            vec![found(9, &batches), Err(LogRefusal::OutOfRange(2, 9)), found(0, &[]), found(9, &zstd)];
        rig.answer(*token, LogAnswer::Fetched(results));
        let (_, response) = rig.response::<FetchResponse>(api::FETCH, version);
        let parts = &response.responses[0].partitions;
        let expected: Vec<u8> = batches.iter().flat_map(|batch| rewritten(batch)).collect();
        assert_eq!(parts[0].records.as_deref(), Some(&expected[..]));
        assert_eq!((parts[0].high_watermark, parts[0].last_stable_offset), (9, 9));
        assert_eq!(parts[0].log_start_offset, if version >= 5 { 2 } else { -1 });
        assert_eq!((parts[1].error_code, parts[1].high_watermark), (1, -1));
        assert_eq!(parts[2].records.as_deref(), Some(&[][..]));
        assert_eq!(parts[3].records.as_deref(), Some(&rewritten(&zstd[0])[..]), "as it is stored");
    }
}

#[test]
fn a_fetch_session_tells_only_what_changed() {
    for version in [7, 12, 13, 16] {
        let mut rig = Rig::open();
        let asked = rig.send(api::FETCH, version, &fetch(version, &[(0, 0), (1, 0), (2, 0)], (0, 0)));
        rig.answer(asked[0].0, LogAnswer::Fetched(vec![found(5, &[]), found(5, &[]), found(5, &[])]));
        let (_, first) = rig.response::<FetchResponse>(api::FETCH, version);
        let id = first.session_id;
        assert!(id > 0 && first.responses[0].partitions.len() == 3);
        // Nothing is named: everything is read, and only what is new is told.
        let asked = rig.send(api::FETCH, version, &fetch(version, &[], (id, 1)));
        let Asked::Log(LogRequest::Fetch(cursors)) = &asked[0].1 else { unreachable!("{asked:?}") };
        assert_eq!(cursors.cursors.len(), 3);
        rig.answer(
            asked[0].0,
            LogAnswer::Fetched(vec![found(5, &[batch(0, 80)]), found(5, &[]), found(6, &[])]),
        );
        let (_, second) = rig.response::<FetchResponse>(api::FETCH, version);
        let told = |response: &FetchResponse| -> Vec<i32> {
            let topics = response.responses.iter().flat_map(|topic| &topic.partitions);
            topics.map(|part| part.partition_index).collect()
        };
        assert_eq!(told(&second), [0, 2]);
        // Partition 0 got something and is read last; partition 1 is forgotten.
        let mut forgotten = ForgottenTopic::default().with_partitions(vec![1]);
        match version >= 13 {
            true => forgotten.topic_id = ID_TEXT.parse().expect("an id"),
            false => forgotten.topic = name("t"),
        }
        let request = fetch(version, &[(0, 9)], (id, 2)).with_forgotten_topics_data(vec![forgotten]);
        let asked = rig.send(api::FETCH, version, &request);
        let Asked::Log(LogRequest::Fetch(cursors)) = &asked[0].1 else { unreachable!("{asked:?}") };
        let order: Vec<_> =
            cursors.cursors.iter().map(|cursor| (cursor.at.partition, cursor.offset)).collect();
        assert_eq!(order, [(2, 0), (0, 9)]);
        rig.answer(asked[0].0, LogAnswer::Fetched(vec![found(6, &[]), found(5, &[])]));
        assert!(told(&rig.response::<FetchResponse>(api::FETCH, version).1).is_empty());
        // A number that does not follow, and a session nobody knows.
        for ((id, epoch), code) in [((id, 9), 71), ((id ^ 1, 4), 70)] {
            assert!(rig.send(api::FETCH, version, &fetch(version, &[], (id, epoch))).is_empty());
            let (_, response) = rig.response::<FetchResponse>(api::FETCH, version);
            assert_eq!((response.error_code, response.session_id), (code, 0));
        }
    }
}

#[test]
fn responses_leave_in_the_order_of_requests_however_answers_come() {
    let mut rig = Rig::open();
    let first = rig.send(api::FETCH, 11, &fetch(11, &[(0, 0)], (0, -1)));
    let second = rig.send(api::METADATA, 1, &MetadataRequest::default().with_topics(None));
    rig.send(api::API_VERSIONS, 0, &ApiVersionsRequest::default());
    let fourth = rig.send(api::PRODUCE, 9, &produce(9, 1, &[Some(batch(0, 80))]));
    rig.answer(fourth[0].0, appended(1));
    rig.answer(second[0].0, LogAnswer::Topics(vec![]));
    assert!(rig.sent().is_empty());
    rig.answer(first[0].0, LogAnswer::Fetched(vec![found(1, &[batch(0, 20_000)])]));
    let sent = rig.sent();
    let (a, fetched, rest) = decode::<FetchResponse>(&sent, api::FETCH, 11);
    let (b, _, rest) = decode::<MetadataResponse>(rest, api::METADATA, 1);
    let (c, _, rest) = decode::<ApiVersionsResponse>(rest, api::API_VERSIONS, 0);
    let (d, _, rest) = decode::<ProduceResponse>(rest, api::PRODUCE, 9);
    assert_eq!([a, b, c, d], [1, 2, 3, 4]);
    assert!(rest.is_empty());
    assert_eq!(fetched.responses[0].partitions[0].records.as_ref().map(Bytes::len), Some(20_000));
}
