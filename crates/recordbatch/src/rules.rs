//! What a topic asks of single records: that they have keys, that their times are near enough.
//!
//! The header of an uncompressed batch was compared with its records, so that most batches pass without another look.
//! A compressed one is opened where its header does not settle the question: its lowest time is not in it, and
//! neither is whether there are keys.
//!
//! In: a checked batch and the rules. Out: the refusal with the records it is for. Never: changes a batch.

use model::LogRefusal;
use model::topic::BadRecord;

use crate::admission::Checked;
use crate::compression::Codec;
use crate::fields::KafkaRecord;
use crate::opened::open;

/// Records named in one refusal: what is told must not grow far beyond what is refused.
const NAMED_MAX: usize = 100;
/// The timestamp of a record that has none.
const NO_TIME: i64 = -1;

/// What every record of a batch must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// It has a key.
    pub keyed: bool,
    /// Its writer's time, where it has one, is within these, in milliseconds. `None`: the time is the log's, and
    /// writers must not claim to give it.
    pub times: Option<(i64, i64)>,
}

impl Rules {
    /// The times that lie no further before and behind `now` than this.
    pub fn times_around(now_ms: i64, before_ms: u64, after_ms: u64) -> (i64, i64) {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        (now_ms.saturating_sub(signed(before_ms)), now_ms.saturating_add(signed(after_ms)))
    }

    /// Refuses the batch if one of its records is not so. What is compressed may become `budget` bytes at most.
    pub fn check(&self, batch: &[u8], checked: &Checked, budget: usize) -> Result<(), LogRefusal> {
        if self.settled(checked) {
            return Ok(());
        }
        let mut bad = Vec::new();
        let mut of_time = None;
        let opened = open(batch, budget)?;
        for (number, record) in (0..).zip(opened.records()) {
            let record = record?;
            if let Some((is_time, text)) = self.flaw(checked, &record) {
                of_time.get_or_insert(is_time);
                bad.push(BadRecord { number, text });
            }
            if bad.len() == NAMED_MAX {
                break;
            }
        }
        match of_time {
            None => Ok(()),
            Some(true) => Err(LogRefusal::InvalidTimestamp(bad)),
            Some(false) => {
                let text = "a compacted topic takes no record without a key".to_owned();
                Err(LogRefusal::InvalidRecord(text, bad))
            }
        }
    }

    /// Whether all records are as they must be by what is known of them already.
    fn settled(&self, checked: &Checked) -> bool {
        let has_keys = !self.keyed || checked.is_keyed() == Some(true);
        let is_timely = match self.times {
            None => !checked.header.is_log_time(),
            Some((lowest, highest)) => {
                let is_known = checked.codec == Codec::None || lowest <= NO_TIME;
                checked.timestamp_max <= highest && is_known && checked.timestamp_min >= lowest
            }
        };
        has_keys && is_timely
    }

    /// What is wrong with a record, and whether it is its time.
    fn flaw(&self, checked: &Checked, record: &KafkaRecord<'_>) -> Option<(bool, String)> {
        if self.keyed && record.key.is_none() {
            return Some((false, "it has no key".to_owned()));
        }
        let time = record.timestamp;
        match self.times {
            None if checked.header.is_log_time() => {
                Some((true, "its time is said to be the log's, which only the log gives".to_owned()))
            }
            Some((lowest, highest)) if time != NO_TIME && !(lowest..=highest).contains(&time) => {
                Some((true, format!("its time {time} is outside of {lowest} to {highest}")))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchWriter, Headers, check};

    const BUDGET: usize = 1 << 20;
    const NOW: i64 = 1_700_000_000_000;

    fn batch(records: &[(Option<&[u8]>, i64)], codec: Codec) -> Vec<u8> {
        let mut writer = BatchWriter::new(0);
        for (offset_delta, (key, timestamp)) in (0..).zip(records) {
            let record = KafkaRecord {
                offset_delta,
                timestamp: *timestamp,
                key: *key,
                value: Some(b"v"),
                headers: Headers::NONE,
            };
            writer.push(&record);
        }
        writer.finish(codec)
    }

    fn judged(rules: Rules, batch: &[u8]) -> Result<(), LogRefusal> {
        rules.check(batch, &check(batch).unwrap(), BUDGET)
    }

    fn numbers(refusal: Result<(), LogRefusal>) -> (bool, Vec<u32>) {
        match refusal {
            Err(LogRefusal::InvalidTimestamp(bad)) => (true, bad.iter().map(|bad| bad.number).collect()),
            Err(LogRefusal::InvalidRecord(_, bad)) => (false, bad.iter().map(|bad| bad.number).collect()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn times_are_taken_up_to_the_bound_and_refused_behind_it_compressed_or_not() {
        let times = Some(Rules::times_around(NOW, 1000, 2000));
        let rules = Rules { keyed: false, times };
        for codec in [Codec::None, Codec::Gzip, Codec::Zstd] {
            let sound = [(None, NOW - 1000), (None, NOW + 2000), (None, -1)];
            assert_eq!(judged(rules, &batch(&sound, codec)), Ok(()), "{codec:?}");
            let mixed = [(None, NOW), (None, NOW - 1001), (None, NOW + 2001), (None, NOW)];
            assert_eq!(numbers(judged(rules, &batch(&mixed, codec))), (true, vec![1, 2]), "{codec:?}");
        }
    }

    #[test]
    fn a_bound_of_for_ever_is_none() {
        let times = Rules::times_around(NOW, u64::MAX, i64::MAX as u64);
        let rules = Rules { keyed: false, times: Some(times) };
        assert_eq!(judged(rules, &batch(&[(None, 0), (None, i64::MAX)], Codec::Gzip)), Ok(()));
        assert_eq!(Rules::times_around(NOW, 0, 0), (NOW, NOW));
    }

    #[test]
    fn the_first_flaw_tells_what_kind_of_refusal_it_is() {
        let rules = Rules { keyed: true, times: Some(Rules::times_around(NOW, 5, 5)) };
        let keyless_first = batch(&[(Some(b"k"), NOW), (None, NOW), (Some(b"k"), 0)], Codec::None);
        assert_eq!(numbers(judged(rules, &keyless_first)), (false, vec![1, 2]));
        let late_first = batch(&[(Some(b"k"), 0), (None, NOW)], Codec::Gzip);
        assert_eq!(numbers(judged(rules, &late_first)), (true, vec![0, 1]));
        assert_eq!(judged(rules, &batch(&[(Some(b"k"), NOW)], Codec::Gzip)), Ok(()));
    }

    #[test]
    fn only_the_log_gives_the_time_of_the_log() {
        let rules = Rules { keyed: false, times: None };
        let mut claimed = batch(&[(None, 0), (None, 0)], Codec::None);
        assert_eq!(judged(rules, &claimed), Ok(()), "any time of the writer's will be replaced");
        crate::append_time(&mut claimed, NOW);
        assert_eq!(numbers(judged(rules, &claimed)), (true, vec![0, 1]));
        let writers = Rules { keyed: false, times: Some((0, i64::MAX)) };
        assert_eq!(judged(writers, &claimed), Ok(()));
    }

    #[test]
    fn a_refusal_does_not_grow_with_the_batch() {
        let rules = Rules { keyed: true, times: None };
        let many = vec![(None, NOW); 5000];
        assert_eq!(numbers(judged(rules, &batch(&many, Codec::Zstd))).1.len(), NAMED_MAX);
    }
}
