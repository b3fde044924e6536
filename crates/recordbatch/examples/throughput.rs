//! What admitting and opening a batch costs: nanoseconds per record and gigabytes per second.
//!
//! The best of many rounds, so that a busy machine does not show.
//!
//! `cargo run --release -p recordbatch --example throughput`
#![allow(clippy::disallowed_methods)] // A measurement reads the clock.

use std::hint::black_box;
use std::time::Instant;

use recordbatch::{BatchWriter, Codec, Headers, KafkaRecord, check, open, retain};

const ROUNDS: usize = 200;

fn batch(value: &[u8], size: usize, codec: Codec) -> (Vec<u8>, usize) {
    let mut writer = BatchWriter::new(0);
    let mut count = 0;
    while writer.len() < size {
        let timestamp = 1_700_000_000_000 + count as i64 / 100;
        writer.push(&KafkaRecord {
            offset_delta: count as i32,
            timestamp,
            key: None,
            value: Some(value),
            headers: Headers::NONE,
        });
        count += 1;
    }
    (writer.finish(codec), count)
}

fn measure(name: &str, bytes: usize, records: usize, mut act: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        act();
        best = best.min(start.elapsed().as_secs_f64());
    }
    let (per_record, rate) = (best * 1e9 / records as f64, bytes as f64 / best / 1e9);
    println!("{name:40} {per_record:8.2} ns/record {rate:8.2} GB/s");
}

fn main() {
    for size in [16, 1024] {
        let value = vec![b'x'; size];
        let (plain, count) = batch(&value, 512 << 10, Codec::None);
        measure(&format!("check, {size} bytes each"), plain.len(), count, || {
            black_box(check(black_box(&plain))).expect("the batch is sound");
        });
        measure(&format!("checksum alone, {size} bytes each"), plain.len(), count, || {
            black_box(base::crc32c(black_box(&plain)));
        });
        measure(&format!("read, {size} bytes each"), plain.len(), count, || {
            let opened = open(black_box(&plain), 1 << 20).expect("the batch opens");
            black_box(opened.records().filter(Result::is_ok).count());
        });
        measure(&format!("retain half, {size} bytes each"), plain.len(), count, || {
            let half = retain(black_box(&plain), 1 << 20, |record| record.offset_delta % 2 == 0);
            black_box(half).expect("the batch opens");
        });
    }
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let (batch, count) = batch(b"{\"some\": \"text\"}", 512 << 10, codec);
        measure(&format!("open {codec:?}"), 512 << 10, count, || {
            black_box(open(black_box(&batch), 1 << 20)).expect("the batch opens");
        });
    }
}
