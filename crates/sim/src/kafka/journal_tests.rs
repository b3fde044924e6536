//! The journal notices each broken promise, and none where nothing is broken.

use super::*;
use crate::kafka::batch::GotRecord;
use crate::kafka::plan::{BEHIND_MS, DRAWN_MS};
use crate::kafka::wire::code;

const KEPT: usize = 0;
const KEYED: usize = 1;

/// Two partitions; the first has records 0, 1 and 2, known at offsets 0, 1 and 2, of times 0, 10 and 20.
fn journal() -> Journal {
    let topic = |name: &str, keeping| Topic {
        name: name.to_owned(),
        partitions: 1,
        keeping,
        by_itself: false,
        is_stamped: false,
        grows: false,
    };
    let mut journal = Journal::new(&[topic("kept", Keeping::All), topic("keyed", Keeping::Keys(0))], false);
    let ids: Vec<RecordId> = (0..3).map(|at| journal.write(KEPT, 1, None, Some(5), at * 10)).collect();
    journal.acked(KEPT, 0, &ids).unwrap();
    journal
}

fn batch(journal: &Journal, base: u64, ids: &[RecordId]) -> GotBatch {
    let record = |(offset, id): (u64, &RecordId)| {
        let (key, time_ms) = journal.key_and_time(*id);
        GotRecord { offset, number: *id, time_ms, key: key.map(key_of), value: journal.value(*id) }
    };
    let records: Vec<GotRecord> = (base..).zip(ids).map(record).collect();
    GotBatch { base, end: base + ids.len() as u64, crc: [7; 4], records }
}

fn found(start: u64, end: u64, batches: Vec<GotBatch>) -> Found {
    Found { start, end, stable: end, batches, is_alone: true }
}

fn read(journal: &mut Journal, spot: usize, offset: u64, found: &Found) -> &'static str {
    let glance = journal.glance(spot);
    broken(journal.fetched(spot, offset, glance, found))
}

fn broken<T>(checked: Checked<T>) -> &'static str {
    checked.err().map_or("", |fault| fault.0)
}

#[test]
fn a_good_life_breaks_nothing() {
    let mut journal = journal();
    let all = found(0, 3, vec![batch(&journal, 0, &[0, 1]), batch(&journal, 2, &[2])]);
    assert_eq!(read(&mut journal, KEPT, 1, &all), "");
    journal.delete(KEPT, 2);
    let rest = found(2, 3, vec![batch(&journal, 2, &[2])]);
    assert_eq!(read(&mut journal, KEPT, 2, &rest), "");
    let glance = journal.glance(KEPT);
    assert_eq!(broken(journal.looked_up(KEPT, 15, glance, Some((2, 20)))), "");
    assert_eq!(broken(journal.fetch_refused(KEPT, 1, code::OFFSET_OUT_OF_RANGE)), "");
}

#[test]
fn an_offset_has_one_record_and_a_record_one_offset() {
    let mut one = journal();
    let other = one.write(KEPT, 2, None, Some(5), 0);
    assert_eq!(broken(one.acked(KEPT, 1, &[other])), "K1");
    assert_eq!(broken(journal().acked(KEPT, 3, &[1])), "K6");
    let mut refused = journal();
    let id = refused.write(KEPT, 2, None, Some(5), 0);
    refused.refused("K6", &[id]);
    assert_eq!(broken(refused.acked(KEPT, 3, &[id])), "K6");
    let mut never = journal();
    let id = never.write(KEPT, 2, None, Some(5), 0);
    never.refused("K4", &[id]);
    let batches = vec![batch(&never, 3, &[id])];
    assert_eq!(read(&mut never, KEPT, 3, &found(0, 4, batches)), "K4");
}

#[test]
fn what_is_missing_altered_or_out_of_order_is_noticed() {
    let mut one = journal();
    let some = found(0, 3, vec![batch(&one, 0, &[0])]);
    assert_eq!(read(&mut one, KEPT, 0, &some), "");
    assert_eq!(read(&mut one, KEPT, 1, &found(0, 3, Vec::new())), "K2");
    one.is_audited = true;
    assert_eq!(read(&mut one, KEPT, 1, &found(0, 3, Vec::new())), "K3");
    let gap = found(0, 3, vec![batch(&one, 0, &[0]), batch(&one, 2, &[2])]);
    assert_eq!(read(&mut one, KEPT, 0, &gap), "K8");
    let gap = found(0, 3, vec![batch(&one, 1, &[1]), batch(&one, 2, &[2])]);
    assert_eq!(read(&mut one, KEPT, 0, &gap), "K7");
    let mut altered = batch(&one, 0, &[0, 1, 2]);
    altered.records[1].value = Some(b"other".to_vec());
    assert_eq!(read(&mut one, KEPT, 0, &found(0, 3, vec![altered])), "L11");
    let (first, second) = (one.write(KEPT, 3, None, None, 0), one.write(KEPT, 3, None, None, 0));
    one.acked(KEPT, 3, &[second]).unwrap();
    assert_eq!(broken(one.acked(KEPT, 4, &[first])), "K9");
}

#[test]
fn bounds_that_fall_or_rise_unasked_are_noticed() {
    let all = |journal: &Journal| vec![batch(journal, 0, &[0, 1, 2])];
    let mut one = journal();
    assert_eq!(read(&mut one, KEPT, 0, &found(0, 2, Vec::new())), "K14");
    assert_eq!(read(&mut one, KEPT, 3, &Found { stable: 2, ..found(0, 3, Vec::new()) }), "K14");
    let batches = all(&one);
    assert_eq!(read(&mut one, KEPT, 2, &found(1, 3, batches)), "K2");
    one.delete(KEPT, 2);
    let glance = one.glance(KEPT);
    one.bounds(KEPT, glance, Some(2), None).unwrap();
    let batches = all(&one);
    assert_eq!(read(&mut one, KEPT, 0, &found(0, 3, batches)), "K14");
    assert_eq!(broken(one.fetch_refused(KEPT, 2, code::OFFSET_OUT_OF_RANGE)), "G7");
}

#[test]
fn a_time_is_where_it_is_first() {
    let mut one = journal();
    let glance = one.glance(KEPT);
    assert_eq!(broken(one.looked_up(KEPT, 5, glance, Some((2, 20)))), "K15");
    assert_eq!(broken(one.looked_up(KEPT, 5, glance, None)), "K15");
    assert_eq!(broken(one.looked_up(KEPT, 5, glance, Some((1, 11)))), "K15");
    assert_eq!(broken(one.looked_up(KEPT, 21, glance, None)), "");
}

#[test]
fn compaction_keeps_the_last_of_a_key_and_brings_nothing_back() {
    let mut one = journal();
    let write = |one: &mut Journal, bytes| one.write(KEYED, 1, Some(7), bytes, 0);
    let (old, new) = (write(&mut one, Some(3)), write(&mut one, Some(3)));
    one.acked(KEYED, 0, &[old, new]).unwrap();
    let last = found(0, 2, vec![batch(&one, 1, &[new])]);
    assert_eq!(read(&mut one, KEYED, 0, &last), "", "the older one may go");
    let back = found(0, 2, vec![batch(&one, 0, &[old, new])]);
    assert_eq!(read(&mut one, KEYED, 0, &back), "K15");
    assert_eq!(read(&mut one, KEYED, 0, &found(0, 2, Vec::new())), "K2", "the last one stays");
    let mark = write(&mut one, None);
    one.acked(KEYED, 2, &[mark]).unwrap();
    let value = found(0, 3, vec![batch(&one, 1, &[new])]);
    one.wall_max_ms = BEHIND_MS - DRAWN_MS;
    assert_eq!(read(&mut one, KEYED, 2, &found(0, 3, Vec::new())), "K2", "the mark must stay for a while");
    one.wall_max_ms = BEHIND_MS - DRAWN_MS + 1;
    assert_eq!(read(&mut one, KEYED, 2, &found(0, 3, Vec::new())), "");
    assert_eq!(read(&mut one, KEYED, 0, &value), "K15", "its key was deleted");
}

#[test]
fn who_reads_to_the_end_gets_there_once_nobody_writes() {
    let mut one = journal();
    let first = batch(&one, 0, &[0, 1, 2]);
    assert_eq!(read(&mut one, KEPT, 0, &found(0, 4, vec![first])), "");
    assert_eq!(read(&mut one, KEPT, 3, &found(0, 4, Vec::new())), "", "more may be under way");
    one.begin_audit();
    assert_eq!(read(&mut one, KEPT, 3, &found(0, 4, Vec::new())), "K14");
    assert_eq!(read(&mut one, KEPT, 4, &found(0, 4, Vec::new())), "");
}

#[test]
fn the_latest_is_the_one_with_the_highest_time() {
    let mut one = journal();
    let latest = |one: &mut Journal, found| {
        let glance = one.glance(KEPT);
        broken(one.is_latest(KEPT, glance, found))
    };
    assert_eq!(latest(&mut one, Some((2, 20))), "");
    assert_eq!(latest(&mut one, Some((2, 19))), "K15", "that is not its time");
    assert_eq!(latest(&mut one, Some((1, 10))), "K15", "a later one is there");
    assert_eq!(latest(&mut one, None), "K15");
}

/// One partition of that keeping with two batches, each of one record of 400 bytes, at the offsets 0 and 1.
fn two_batches(keeping: Keeping) -> Journal {
    let mut one = journal();
    one.topics[KEPT].keeping = keeping;
    one.spots[KEPT] = Spot::default();
    one.records.clear();
    for offset in 0..2 {
        let id = one.write(KEPT, 2, None, Some(5), 0);
        one.sealed(&[id], &[7; 400 - model::batch::HEADER]);
        one.acked(KEPT, offset, &[id]).unwrap();
    }
    one
}

#[test]
fn as_many_bytes_stay_as_a_topic_keeps() {
    let starts_at = |one: &mut Journal, start| {
        let glance = one.glance(KEPT);
        broken(one.bounds(KEPT, glance, Some(start), None))
    };
    assert_eq!(starts_at(&mut two_batches(Keeping::Size(400)), 1), "");
    assert_eq!(starts_at(&mut two_batches(Keeping::Size(401)), 1), "K2");
    assert_eq!(starts_at(&mut two_batches(Keeping::Size(1)), 2), "K2");
    let mut asked = two_batches(Keeping::Size(1));
    asked.delete(KEPT, 2);
    assert_eq!(starts_at(&mut asked, 2), "");
    // What nobody has heard of may be there, until everything was read.
    let mut unheard = two_batches(Keeping::Size(401));
    unheard.write(KEPT, 2, None, Some(5), 0);
    assert_eq!(starts_at(&mut unheard, 1), "");
    assert_eq!(broken(unheard.has_no_holes(&BTreeMap::new())), "K2");
}

#[test]
fn nothing_young_goes_whether_it_was_heard_of_before_or_after() {
    let old = BEHIND_MS + 11;
    let mut one = Journal { wall_max_ms: old, ..two_batches(Keeping::Age(10)) };
    let glance = one.glance(KEPT);
    assert_eq!(broken(one.bounds(KEPT, glance, Some(2), None)), "");
    let mut one = Journal { wall_max_ms: old - 1, ..two_batches(Keeping::Age(10)) };
    assert_eq!(broken(one.bounds(KEPT, glance, Some(1), None)), "K2");
    let mut one = two_batches(Keeping::Age(10));
    one.spots[KEPT].start = 5;
    let id = one.write(KEPT, 2, None, Some(5), 0);
    assert_eq!(broken(one.acked(KEPT, 4, &[id])), "K2");
}

#[test]
fn a_hole_in_what_a_numbered_writer_wrote_is_noticed() {
    let mut one = journal();
    let ids: Vec<RecordId> = (0..3).map(|_| one.write(KEPT, 9, None, None, 0)).collect();
    one.acked(KEPT, 3, &ids[..1]).unwrap();
    let written = BTreeMap::from([(9, ids.clone())]);
    assert_eq!(broken(one.has_no_holes(&written)), "");
    one.acked(KEPT, 4, &ids[2..]).unwrap();
    assert_eq!(broken(one.has_no_holes(&written)), "K9");
}
