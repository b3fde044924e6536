//! Requests larger than what is held of one: batches leave as they come, in any cut, and one response tells of all.

use base::Prng;
use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use model::topic::Appended;
use model::{Limits, LogAnswer, LogRefusal};

use super::core::{batch, produce};
use super::harness::{Asked, Rig, decode, text};
use crate::wire::api;

/// More than a frame that is held, of which hardly anything is handed over.
const LARGE: usize = 2 << 20;

fn narrow() -> Rig {
    let limits = Limits { message_bytes_max: 1000, request_bytes_max: 8 << 20, ..Limits::default() };
    Rig::open_with(limits)
}

/// One topic without partitions, then one with all kinds of batches.
fn request(version: i16, acks: i16) -> ProduceRequest {
    let batches =
        [Some(batch(0, 100)), Some(batch(0, LARGE)), None, Some(batch(0, 1001)), Some(batch(4, 1000))];
    let mut request = produce(version, acks, &batches);
    request.topic_data.insert(0, TopicProduceData::default().with_name(TopicName(text("empty"))));
    let minus = PartitionProduceData::default().with_index(-1).with_records(Some(Bytes::from(batch(0, 70))));
    let mut more = TopicProduceData::default().with_partition_data(vec![minus]);
    (more.name, more.topic_id) = (request.topic_data[1].name.clone(), request.topic_data[1].topic_id);
    request.topic_data.push(more);
    request
}

fn appended(base_offset: u64) -> LogAnswer {
    LogAnswer::Appended(Ok(Appended { base_offset, log_append_ms: None, start: 0 }))
}

/// Gives the frame in pieces; the rest of each stays in front of the next. What is kept stays small.
fn feed_in_pieces(rig: &mut Rig, frame: &[u8], prng: &mut Prng) -> Vec<(u64, Asked)> {
    let (mut kept, mut at, mut all) = (Vec::new(), 0, Vec::new());
    while at < frame.len() {
        let most = if prng.chance(1, 2) { 10 } else { 300_000 };
        let piece = (1 + prng.below(most) as usize).min(frame.len() - at);
        kept.extend_from_slice(&frame[at..at + piece]);
        at += piece;
        loop {
            let (used, asked) = rig.feed_some(&kept, prng);
            kept.drain(..used);
            let is_done = asked.is_empty();
            all.extend(asked);
            if is_done {
                break;
            }
        }
        assert!(kept.len() < 1100, "{} bytes are kept", kept.len());
    }
    assert!(kept.is_empty());
    all
}

#[test]
fn what_is_too_large_is_passed_over_and_the_rest_is_taken() {
    for version in 3..=13 {
        let mut rig = narrow();
        let mut prng = Prng::new(version as u64);
        let frame = rig.frame(api::PRODUCE, version, &request(version, -1));
        let asked = feed_in_pieces(&mut rig, &frame, &mut prng);
        let zstd = version >= 7;
        let given: Vec<_> = asked
            .iter()
            .map(|(_, asked)| match asked {
                Asked::Append { topic, id, partition, batch, required: -1 } => {
                    assert_eq!((topic == "t", id.is_some()), (version < 13, version >= 13));
                    (*partition, batch.clone())
                }
                other => unreachable!("{other:?}"),
            })
            .collect();
        let mut expected = vec![(0, batch(0, 100))];
        expected.extend(zstd.then(|| (4, batch(4, 1000))));
        assert_eq!(given, expected);
        assert!(rig.sent().is_empty(), "nothing was answered yet");
        for (at, (token, _)) in asked.iter().enumerate().rev() {
            rig.answer(*token, appended(10 * at as u64));
        }
        let (_, response) = rig.response::<ProduceResponse>(api::PRODUCE, version);
        let told = |topic: usize| -> Vec<(i32, i16, i64)> {
            let parts = response.responses[topic].partition_responses.iter();
            parts.map(|part| (part.index, part.error_code, part.base_offset)).collect()
        };
        assert_eq!(told(0), []);
        let last = if zstd { (4, 0, 10) } else { (4, 76, -1) };
        assert_eq!(told(1), [(0, 0, 0), (1, 10, -1), (2, 87, -1), (3, 10, -1), last]);
        assert_eq!(told(2), [(-1, 3, -1)]);
        // The connection goes on, and answers keep their order.
        let asked = rig.send(api::PRODUCE, version, &produce(version, -1, &[Some(batch(0, 80))]));
        rig.answer(asked[0].0, LogAnswer::Appended(Err(LogRefusal::OutOfSequence)));
        let (_, response) = rig.response::<ProduceResponse>(api::PRODUCE, version);
        assert_eq!(response.responses[0].partition_responses[0].error_code, 45);
    }
}

#[test]
fn answers_may_come_before_the_request_is_whole_and_it_keeps_its_place() {
    let mut rig = narrow();
    let before = rig.send(api::PRODUCE, 9, &produce(9, -1, &[Some(batch(0, 80))]));
    let frame = rig.frame(api::PRODUCE, 9, &request(9, 1));
    let (half, rest) = frame.split_at(LARGE / 2);
    let asked = rig.feed(half);
    assert_eq!(asked.len(), 1);
    rig.answer(asked[0].0, appended(7));
    rig.answer(before[0].0, appended(6));
    let (correlation, _) = rig.response::<ProduceResponse>(api::PRODUCE, 9);
    let asked = rig.feed(rest);
    assert!(rig.sent().is_empty());
    rig.answer(asked[0].0, appended(8));
    let (behind, response) = rig.response::<ProduceResponse>(api::PRODUCE, 9);
    assert_eq!(behind, correlation + 1);
    let offsets = response.responses[1].partition_responses.iter().map(|part| part.base_offset);
    assert_eq!(offsets.collect::<Vec<_>>(), [7, -1, -1, -1, 8]);
}

#[test]
fn a_request_of_nothing_but_what_is_refused_is_answered_at_its_end() {
    for (acks, ends) in [(-1, false), (0, true), (5, false)] {
        let mut rig = narrow();
        let asked = rig.send(api::PRODUCE, 8, &produce(8, acks, &[Some(batch(0, LARGE))]));
        assert!(asked.is_empty());
        let sent = rig.sent();
        assert_eq!((sent.is_empty(), rig.session.is_ended()), (ends, ends), "acks {acks}");
        if !ends {
            let (_, response, _) = decode::<ProduceResponse>(&sent, api::PRODUCE, 8);
            let code = response.responses[0].partition_responses[0].error_code;
            assert_eq!(code, if acks == 5 { 21 } else { 10 });
        }
    }
}

#[test]
fn only_records_may_be_that_large_and_nothing_may_be_larger() {
    let announced = |size: u32, key: u8| [&size.to_be_bytes()[..], &[0, key, 0, 9, 0, 0, 0, 1]].concat();
    for (size, key, ends) in
        [(LARGE as u32, 0, false), (LARGE as u32, 3, true), (8 << 20, 0, false), ((8 << 20) + 1, 0, true)]
    {
        let mut rig = narrow();
        rig.feed(&announced(size, key));
        assert_eq!(rig.session.is_ended(), ends, "{size} bytes of {key}");
    }
    let limits = Limits { message_bytes_max: 1000, ..Limits::default() };
    let mut rig = Rig::fresh_with(limits);
    rig.feed(&announced(LARGE as u32, 18));
    assert!(rig.session.is_ended(), "nobody came in");
}

#[test]
fn whatever_the_bytes_are_little_of_them_is_kept() {
    let mut prng = Prng::new(5);
    let mut rig = narrow();
    let frame = rig.frame(api::PRODUCE, 9, &request(9, -1));
    // Fields stand at the front and behind the large batch.
    let places = (4..80).chain(frame.len() - 2200..frame.len()).collect::<Vec<_>>();
    let mut ended = 0;
    for _ in 0..400 {
        let mut rig = narrow();
        let mut broken = frame.clone();
        broken[places[prng.below(places.len() as u64) as usize]] = prng.draw() as u8;
        broken.extend_from_slice(&[0; 70_000]);
        let mut used = 0;
        loop {
            let (taken, asked) = rig.feed_some(&broken[used..], &mut prng);
            used += taken;
            asked.iter().for_each(|(token, _)| rig.answer(*token, appended(0)));
            if asked.is_empty() {
                break;
            }
        }
        assert!(broken.len() - used < 70_000, "{} bytes are kept", broken.len() - used);
        ended += usize::from(rig.session.is_ended());
    }
    assert!(ended > 40, "{ended} of 400 made no sense");
}
