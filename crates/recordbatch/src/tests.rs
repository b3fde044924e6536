//! Batches as Kafka's own clients write them, damaged ones, and bombs.
//!
//! The golden batches were written by a Kafka client library for Python with each codec.

use base::Prng;
use proptest::prelude::*;

use crate::header::{COVERED, HEADER, Header};
use crate::*;
use model::LogRefusal;

const PLAIN: &str = "\
    0000000000000000000000560000000002c55396b50000000000020000018bcfe568000000018bcfe568070000000000\
    00000700030000000b0000000326000000026b0a76616c756504026802310268010c000e020100001200060400010202\
    7800";

const GZIP: &str = "\
    0000000000000000000000d500000000026cddfd2c00010000001d0000018bcfe568000000018bcfe56807ffffffffff\
    ffffffffffffffffff0000001e1f8b0800ca0b016b02ff8dcadd0602411880e16f3e6b64ad95952459235949524992ae\
    a17b187634d9da937ed4dda7ba81f7ec39782a11d1267dfacb23241a75a5d16492ab1129c42662545f72146b6d13de87\
    7b0ceee6afc1fdbef3277f6e9d6febbfbeaf035f0a5f065f0e5f17be02be1e7c7df806f00de11bc157c2e7e01bc33781\
    af826f0adf0cbe397c0bf896f0ade1dbc0b7856f07df9ebc0f3cfc31b25d040000";

const SNAPPY: &str = "\
    0000000000000000000001140000000002af943d2a00020000001d0000018bcfe568000000018bcfe56807ffffffffff\
    ffffffffffffffffff0000001e82534e41505059000000000100000001000000cfdd08d826000000026b0a76616c7565\
    04026802310268010c000e02010000120006040001020278004e000606066b65793c7468652073616d65200530242061\
    6761696e20616e64090a10004e0006089a2800000a9a2800000c9a2800000e9a280000109a280000129a280000149a28\
    0000169a280000189a2800001a9a2800001c9a2800001e9a280000209a280000229a280000249a280000269a28000028\
    9a2800002a9a2800002c9a2800002e9a280000309a280000329a280000349a280000369a280000389a2800003a8e2800";

const LZ4: &str = "\
    00000000000000000000011b0000000002c82fa2a500030000001d0000018bcfe568000000018bcfe56807ffffffffff\
    ffffffffffffffffff0000001e04224d1868405d040000000000002bd3000000f12826000000026b0a76616c75650402\
    6802310268010c000e02010000120006040001020278004e000606066b65793c7468652073616d65203000a220616761\
    696e20616e640a000028001f082800141f0a2800141f0c2800141f0e2800141f102800141f122800141f142800141f16\
    2800141f182800141f1a2800141f1c2800141f1e2800141f202800141f222800141f242800141f262800141f28280014\
    1f2a2800141f2c2800141f2e2800141f302800141f322800141f342800141f362800141f382800141f3a28000c506761\
    696e0000000000";

const ZSTD: &str = "\
    0000000000000000000000d70000000002ad653c9f00040000001d0000018bcfe568000000018bcfe56807ffffffffff\
    ffffffffffffffffff0000001e28b52ffd605d03e50400b40526000000026b0a76616c756504026802310268010c000e\
    02010000120006040001020278004e000606066b65793c7468652073616d652020616761696e20616e64080a0c0e1012\
    1416181a1c1e20222426282a2c2e30323436383a1d000129407940c9805280f2809201a500e50125034a01ca034a0694\
    029407940c2805280f2819500a501e5032a014a03ca064402940dd522bb420bad92a28";

const BUDGET: usize = 1 << 20;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn goldens() -> impl Iterator<Item = Vec<u8>> {
    [PLAIN, GZIP, SNAPPY, LZ4, ZSTD].into_iter().map(bytes)
}

/// Makes length and checksum right again, so that what was changed is judged for itself.
fn reseal(batch: &mut [u8]) {
    header::seal(batch);
}

#[test]
fn the_drawing_of_the_header_holds() {
    let batch = bytes(PLAIN);
    let header = Header {
        base_offset: 0,
        size: 98,
        leader_epoch: 0,
        checksum: 0xc553_96b5,
        attributes: 0,
        last_offset_delta: 2,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_007,
        producer_id: 7,
        producer_epoch: 3,
        base_sequence: 11,
        count: 3,
    };
    assert_eq!(Header::read(&batch), Ok(header));
    let checked = check(&batch).unwrap();
    assert_eq!((checked.header, checked.codec, checked.keyed), (header, Codec::None, Some(2)));
    assert_eq!(checked.is_keyed(), Some(false));
    assert_eq!((checked.timestamp_min, checked.timestamp_max), (1_700_000_000_000, 1_700_000_000_007));
    assert_eq!((checked.largest, header.producer(), header.span()), (20, Some((7, 3, 11)), 3));
}

#[test]
fn our_header_says_what_theirs_says() {
    use model::batch::{COMPRESSED, Encoding, IDEMPOTENT, KEYED, LOG_APPEND_TIME, Producer};
    let summary = check(&bytes(PLAIN)).unwrap().summary(5);
    assert_eq!((summary.encoding, summary.flags), (Encoding::KafkaV2, KEYED | IDEMPOTENT));
    assert_eq!((summary.count, summary.span, summary.ingest, summary.largest), (3, 3, 5, 20));
    assert_eq!(summary.producer, Some(Producer { id: 7, epoch: 3, base_sequence: 11 }));
    let mut batch = bytes(ZSTD);
    append_time(&mut batch, 9);
    let summary = check(&batch).unwrap().summary(9);
    assert_eq!((summary.flags, summary.producer), (COMPRESSED | LOG_APPEND_TIME, None));
    assert_eq!((summary.timestamp_min, summary.timestamp_max), (9, 9));
}

type Flat = (i32, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn flat(record: &KafkaRecord<'_>) -> Flat {
    let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
    let headers = record.headers.iter().map(|(name, value)| (name.to_vec(), owned(value)));
    (record.offset_delta, record.timestamp, owned(record.key), owned(record.value), headers.collect())
}

fn all(batch: &[u8]) -> Vec<Flat> {
    open(batch, BUDGET).unwrap().records().map(|record| flat(&record.unwrap())).collect()
}

#[test]
fn golden_batches_of_every_codec_open() {
    for batch in goldens() {
        assert!(check(&batch).is_ok());
        let records = all(&batch);
        let first = (Some(b"k".to_vec()), Some(b"value".to_vec()));
        let headers = vec![(b"h".to_vec(), Some(b"1".to_vec())), (b"h".to_vec(), None)];
        assert_eq!(records[0], (0, 1_700_000_000_000, first.0, first.1, headers));
        assert_eq!(records[1], (1, 1_700_000_000_007, None, Some(Vec::new()), Vec::new()));
        let headers = vec![(b"x".to_vec(), Some(Vec::new()))];
        assert_eq!(records[2], (2, 1_700_000_000_003, Some(Vec::new()), None, headers));
        for record in &records[3..] {
            assert_eq!(record.3.as_deref(), Some(&b"the same value again and again"[..]));
        }
        assert_eq!(records.len(), if batch.len() == 98 { 3 } else { 30 });
    }
}

#[test]
fn what_is_written_is_what_kafka_writes() {
    let mut writer = BatchWriter::new(0).by_producer(7, 3, 11);
    let batch = bytes(PLAIN);
    for record in open(&batch, BUDGET).unwrap().records() {
        writer.push(&record.unwrap());
    }
    assert_eq!(writer.len(), batch.len());
    assert_eq!(writer.finish(Codec::None), batch);
}

#[test]
fn several_batches_are_cut_apart_and_a_cut_one_is_not_taken() {
    let mut stream: Vec<u8> = goldens().flatten().collect();
    let cut: Vec<Vec<u8>> = batches(&stream).map(|batch| batch.unwrap().to_vec()).collect();
    assert_eq!(cut, goldens().collect::<Vec<_>>());
    stream.pop();
    assert_eq!(batches(&stream).filter(Result::is_err).count(), 1);
    assert_eq!(batches(&stream).filter(Result::is_ok).count(), 4);
}

#[test]
fn what_follows_a_sound_batch_is_refused_for_good_and_a_damaged_one_may_come_again() {
    let sound = bytes(PLAIN);
    for more in [&sound[..], &[0; 3]] {
        let longer = [&sound[..], more].concat();
        assert!(matches!(check(&longer), Err(LogRefusal::InvalidRecord(..))), "{} bytes more", more.len());
    }
    for damaged in [&sound[..sound.len() - 1], &[&sound[..sound.len() - 1], &[0xff; 9]].concat()] {
        assert!(matches!(check(damaged), Err(LogRefusal::CorruptBatch(_))));
    }
}

#[test]
fn every_broken_batch_has_its_refusal() {
    let with = |at: usize, value: &[u8]| {
        let mut batch = bytes(PLAIN);
        batch[at..at + value.len()].copy_from_slice(value);
        batch
    };
    let sealed = |at: usize, value: &[u8]| {
        let mut batch = with(at, value);
        reseal(&mut batch);
        check(&batch).unwrap_err()
    };
    assert!((0..2).all(|magic| check(&with(16, &[magic])) == Err(LogRefusal::OldFormat)));
    assert!(matches!(check(&with(16, &[3])), Err(LogRefusal::CorruptBatch(_))));
    assert!(matches!(check(&with(11, &[0x57])), Err(LogRefusal::CorruptBatch(_))));
    assert!(matches!(check(&with(8, &[0xff; 4])), Err(LogRefusal::CorruptBatch(_))));
    for at in COVERED..98 {
        let flipped = bytes(PLAIN)[at] ^ 1;
        assert!(matches!(check(&with(at, &[flipped])), Err(LogRefusal::CorruptBatch(_))), "byte {at}");
    }
    assert_eq!(sealed(22, &[5]), LogRefusal::UnknownCompression);
    assert!(matches!(sealed(22, &[0x20]), LogRefusal::InvalidRecord(..)), "control");
    assert!(matches!(sealed(22, &[0x40]), LogRefusal::InvalidRecord(..)), "horizon");
    assert!(matches!(sealed(22, &[0x10]), LogRefusal::Invalid(_)), "transactional");
    assert!(matches!(sealed(57, &[0; 4]), LogRefusal::InvalidRecord(..)), "no records");
    assert!(matches!(sealed(57, &[0xff; 4]), LogRefusal::InvalidRecord(..)), "fewer than none");
    assert!(matches!(sealed(26, &[3]), LogRefusal::InvalidRecord(..)), "offsets beyond the count");
    assert!(matches!(sealed(53, &[0xff; 4]), LogRefusal::InvalidRecord(..)), "no sequence");
    assert!(matches!(sealed(51, &[0xff; 2]), LogRefusal::InvalidRecord(..)), "no epoch");
    assert_eq!(sealed(35, &[0x80; 8]), LogRefusal::InvalidTimestamp(Vec::new()));
    assert_eq!(
        sealed(27, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        LogRefusal::InvalidTimestamp(Vec::new())
    );
    assert!(matches!(sealed(61, &[0x28]), LogRefusal::InvalidRecord(..)), "a record longer than it is");
    assert!(matches!(sealed(64, &[2]), LogRefusal::InvalidRecord(..)), "an offset twice");
    assert!(matches!(sealed(74, &[0x0e]), LogRefusal::InvalidRecord(..)), "more headers than there are");
}

#[test]
fn a_count_that_no_batch_can_have_is_refused_unopened() {
    let counted = |count: i32| {
        let mut writer = BatchWriter::new(0);
        let (value, headers) = (Some(&b"v"[..]), Headers::NONE);
        writer.push(&KafkaRecord { offset_delta: 0, timestamp: 5, key: None, value, headers });
        let mut batch = writer.finish(Codec::Zstd);
        batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        reseal(&mut batch);
        check(&batch)
    };
    assert!(counted((64 << 20) / 7).is_ok(), "nobody has looked");
    for count in [(64 << 20) / 7 + 1, i32::MAX] {
        assert!(matches!(counted(count), Err(LogRefusal::InvalidRecord(..))), "{count}");
    }
}

#[test]
fn a_count_that_is_not_the_records_is_refused() {
    for count in [2, 4] {
        let mut batch = bytes(PLAIN);
        (batch[26], batch[60]) = (count - 1, count);
        reseal(&mut batch);
        assert!(matches!(check(&batch), Err(LogRefusal::InvalidRecord(..))));
        assert!(open(&batch, BUDGET).unwrap().records().any(|record| record.is_err()));
    }
}

#[test]
fn place_does_not_touch_the_checksum_and_append_time_makes_it_anew() {
    let mut batch = bytes(PLAIN);
    place(&mut batch, 1 << 40, 5);
    let header = check(&batch).unwrap().header;
    assert_eq!((header.base_offset, header.leader_epoch), (1 << 40, 5));
    append_time(&mut batch, 9_000);
    let checked = check(&batch).unwrap();
    assert_eq!((checked.timestamp_min, checked.timestamp_max), (9_000, 9_000));
    assert!(checked.header.is_log_time());
    assert!(all(&batch).iter().all(|record| record.1 == 9_000));
    assert_eq!(open(&batch, BUDGET).unwrap().first_since(0, 9_000), Some((0, 9_000)));
    assert_eq!(open(&batch, BUDGET).unwrap().first_since(0, 9_001), None);
}

#[test]
fn times_are_found() {
    let batch = bytes(PLAIN);
    let opened = open(&batch, BUDGET).unwrap();
    assert_eq!(opened.first_since(0, 0), Some((0, 1_700_000_000_000)));
    assert_eq!(opened.first_since(0, 1_700_000_000_001), Some((1, 1_700_000_000_007)));
    assert_eq!(opened.first_since(0, 1_700_000_000_008), None);
    assert_eq!(opened.first_since(1, 0), Some((1, 1_700_000_000_007)));
    assert_eq!(opened.latest(0), Some((1, 1_700_000_000_007)));
    assert_eq!(opened.latest(i32::MAX), None);
}

#[test]
fn compaction_keeps_everything_but_the_records() {
    for batch in goldens() {
        let before = Header::read(&batch).unwrap();
        let thin = retain(&batch, BUDGET, |record| record.offset_delta != 1).unwrap().unwrap();
        let after = Header::read(&thin).unwrap();
        let (checksum, size, count) = (after.checksum, thin.len(), before.count - 1);
        let max_timestamp = 1_700_000_000_003;
        assert_eq!(after, Header { checksum, size, count, max_timestamp, ..before });
        assert_eq!(base::crc32c(&thin[COVERED..]), checksum);
        let expected: Vec<Flat> = all(&batch).into_iter().filter(|record| record.0 != 1).collect();
        assert_eq!(all(&thin), expected);
        assert_eq!(retain(&batch, BUDGET, |_| false), Ok(None));
        assert_eq!(retain(&thin, BUDGET, |_| true).unwrap().unwrap(), thin, "nothing goes twice");
    }
}

#[test]
fn one_record_of_a_hundred_takes_little_room_with_every_codec() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut writer = BatchWriter::new(9).by_producer(7, 3, 11);
        let mut noise = Prng::new(1);
        for offset_delta in 0..100 {
            let value: Vec<u8> = (0..50).map(|_| noise.draw() as u8).collect();
            let (timestamp, headers) = (1000 - i64::from(offset_delta), Headers::NONE);
            writer.push(&KafkaRecord {
                offset_delta,
                timestamp,
                key: Some(b"k"),
                value: Some(&value),
                headers,
            });
        }
        let mut whole = writer.finish(codec);
        for is_log_time in [false, true] {
            if is_log_time {
                append_time(&mut whole, 5000);
            }
            let before = Header::read(&whole).unwrap();
            let thin = retain(&whole, BUDGET, |record| record.offset_delta == 40).unwrap().unwrap();
            assert!(thin.len() < HEADER + 100, "{codec:?}: {}", thin.len());
            let after = Header::read(&thin).unwrap();
            assert_eq!(Codec::of(&after), Ok(codec));
            assert_eq!((after.producer(), after.span()), (Some((7, 3, 11)), 100));
            assert_eq!((after.attributes, after.base_timestamp), (before.attributes, before.base_timestamp));
            assert_eq!((after.count, after.max_timestamp), (1, if is_log_time { 5000 } else { 960 }));
            assert_eq!(all(&thin), all(&whole)[40..41]);
        }
    }
}

#[test]
fn bombs_are_refused_and_not_expanded() {
    let value = vec![0; 8 << 20];
    let record =
        KafkaRecord { offset_delta: 0, timestamp: 1, key: None, value: Some(&value), headers: Headers::NONE };
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut writer = BatchWriter::new(0);
        writer.push(&record);
        let batch = writer.finish(codec);
        assert!(batch.len() < value.len() / 20);
        for budget in [0, 1, 1 << 10, value.len()] {
            assert_eq!(open(&batch, budget).map(|_| ()), Err(BatchError::OverBudget), "{codec:?}");
        }
        assert_eq!(open(&batch, value.len() + 16).unwrap().records().next(), Some(Ok(record)));
    }
}

#[test]
fn a_length_that_snappy_claims_is_not_believed() {
    let mut batch = bytes(PLAIN);
    batch.truncate(HEADER);
    batch[22] = Codec::Snappy as u8;
    batch.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0x04, 0, 0]);
    reseal(&mut batch);
    assert_eq!(
        open(&batch, usize::MAX).map(|_| ()),
        Err(BatchError::Corrupt("the records of a batch cannot be decompressed"))
    );
}

#[test]
fn bare_snappy_and_frames_behind_each_other_open() {
    let plain = bytes(PLAIN);
    let records = &plain[HEADER..];
    let (one, two) = records.split_at(20);
    let mut cases = vec![(Codec::Snappy, snap::raw::Encoder::new().compress_vec(records).unwrap())];
    for codec in [Codec::Gzip, Codec::Zstd] {
        let mut both = compression::compress(codec, one);
        both.extend(compression::compress(codec, two));
        cases.push((codec, both));
    }
    for (codec, compressed) in cases {
        let mut batch = plain[..HEADER].to_vec();
        batch[22] = codec as u8;
        batch.extend(compressed);
        reseal(&mut batch);
        assert_eq!(all(&batch), all(&plain), "{codec:?}");
    }
}

#[test]
fn damaged_batches_never_panic_and_no_cut_is_taken() {
    let mut prng = Prng::new(3);
    for batch in goldens() {
        for cut in 0..batch.len() {
            assert!(check(&batch[..cut]).is_err());
            assert!(batches(&batch[..cut]).all(|batch| batch.is_err()));
        }
        for _ in 0..3000 {
            let mut damaged = batch.clone();
            for _ in 0..1 + prng.below(4) {
                let at = 17 + prng.below(damaged.len() as u64 - 17) as usize;
                damaged[at] = prng.draw() as u8;
            }
            if prng.chance(1, 4) {
                damaged.truncate(HEADER + prng.below((batch.len() - HEADER) as u64 + 1) as usize);
            }
            reseal(&mut damaged);
            let taken = check(&damaged).is_ok();
            let Ok(opened) = open(&damaged, BUDGET) else { continue };
            let sound = opened.records().all(|record| record.is_ok());
            // What was walked over when it was taken can be read.
            let walked = Codec::of(opened.header()) == Ok(Codec::None);
            assert!(sound || !(taken && walked));
            assert_eq!(retain(&damaged, BUDGET, |_| true).is_ok(), sound);
            opened.records().map_while(Result::ok).for_each(|record| drop(flat(&record)));
        }
    }
}

fn part() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))
}

prop_compose! {
    fn record()(timestamp in any::<i64>(), gap in 0..300, key in part(), value in part(),
        headers in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..4), part()), 0..4))
        -> (i64, i32, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>) {
        (timestamp, gap, key, value, encode_headers(&headers))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_records_come_back_with_every_codec(records in proptest::collection::vec(record(), 1..30)) {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut writer = BatchWriter::new(7);
            let mut written = Vec::new();
            let mut delta = -1;
            for (timestamp, gap, key, value, headers) in &records {
                delta += 1 + gap;
                let headers = Headers::decode(headers).unwrap();
                let (key, value) = (key.as_deref(), value.as_deref());
                let record = KafkaRecord { offset_delta: delta, timestamp: *timestamp, key, value, headers };
                writer.push(&record);
                written.push(flat(&record));
            }
            let batch = writer.finish(codec);
            prop_assert_eq!(all(&batch), written);
        }
    }
}
