//! Any bytes as record batches, with lengths and checksums made right so that what lies deeper is reached. Nothing
//! panics, no batch opens beyond its budget, and what was taken uncompressed can be read and thinned out.
#![no_main]

use base::crc32c;
use fuzzing::memory::{Counting, Mark};
use libfuzzer_sys::fuzz_target;
use recordbatch::{BatchWriter, Codec, HEADER, batches, check, open, retain};

#[global_allocator]
static COUNTING: Counting = Counting;

const BUDGET: usize = 64 << 10;
/// What a codec may hold beside what it puts out: its window and its tables.
const CODEC: usize = 24 << 20;

fn sealed(data: &[u8]) -> Vec<u8> {
    let mut batch = data.to_vec();
    batch[8..12].copy_from_slice(&(data.len() as u32 - 12).to_be_bytes());
    batch[16] = 2;
    let checksum = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch
}

fn judge(batch: &[u8]) {
    let checked = check(batch);
    let Ok(opened) = open(batch, BUDGET) else { return };
    let records: Result<Vec<_>, _> = opened.records().collect();
    assert_eq!(retain(batch, BUDGET, |_| true).is_ok(), records.is_ok());
    let Ok(records) = records else {
        assert!(checked.is_err() || checked.is_ok_and(|checked| checked.codec != Codec::None));
        return;
    };
    let header = opened.header();
    assert_eq!(records.len(), header.count as usize);
    if records.is_empty() || header.is_log_time() {
        return;
    }
    let mut writer = BatchWriter::new(header.base_offset as u64);
    records.iter().for_each(|record| writer.push(record));
    let again = writer.finish(Codec::None);
    let again = open(&again, 0).expect("what was written opens");
    assert!(again.records().eq(records.into_iter().map(Ok)));
}

fuzz_target!(|data: &[u8]| {
    let mark = Mark::set();
    batches(data).map_while(Result::ok).for_each(judge);
    if data.len() >= HEADER {
        judge(&sealed(data));
    }
    assert!(mark.highest() <= CODEC + 64 * (BUDGET + data.len()), "{} bytes were held", mark.highest());
});
