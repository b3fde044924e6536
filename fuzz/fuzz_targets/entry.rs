//! Any bytes as an entry, as a batch and as a row: what is read lies within them, counts are not believed, and a row
//! that is written again reads the same.
#![no_main]

use base::crc32c;
use libfuzzer_sys::fuzz_target;
use model::batch::{Encoding, HEADER, KAFKA_MIN};
use model::rewrite::REWRITE_HEADER;
use model::{Batch, Entry, OperationKind, Record, Replaced};

fn row(bytes: &[u8]) {
    let Ok((record, length)) = Record::decode(bytes) else { return };
    assert!(length <= bytes.len());
    let mut again = Vec::new();
    record.encode(&mut again);
    assert_eq!(again.len(), record.encoded_len());
    assert_eq!(Record::decode(&again), Ok((record, again.len())));
}

fn batch(bytes: &[u8]) {
    let Ok(batch) = Batch::decode(bytes) else { return };
    if batch.summary.encoding == Encoding::KafkaV2 {
        assert!(!batch.is_intact() || batch.body.len() >= KAFKA_MIN);
        return;
    }
    assert_eq!(batch.is_intact(), crc32c(batch.body) == batch.checksum);
    let mut end = 0;
    for record in batch.records() {
        let Ok((at, record)) = record else { break };
        assert_eq!(at, end, "rows stand one behind the other");
        end = at + Record::decode(&batch.body[at..]).map_or(0, |(_, length)| length);
        assert!(record.prefix.len() + record.suffix.len() < end - at);
    }
    assert!(end <= batch.body.len());
}

fn entry(bytes: &[u8]) {
    let Ok(entry) = Entry::decode(bytes) else { return };
    for operation in entry.operations() {
        let Ok(operation) = operation else { break };
        assert_eq!(&bytes[operation.at..operation.at + operation.body.len()], operation.body);
        let mut next = 0;
        for range in operation.ranges() {
            let Ok((first, last)) = range else { break };
            assert!(next <= first.0 && first <= last, "ranges ascend");
            next = last.0 + 1;
        }
        if operation.kind == OperationKind::Rewrite
            && let Ok((replaced, found)) = Replaced::decode(operation.body)
        {
            assert_eq!(replaced.encode(), operation.body[..REWRITE_HEADER]);
            assert_eq!(found.body.len() + HEADER + REWRITE_HEADER, operation.body.len());
        }
        if operation.kind == OperationKind::Append
            && let Ok((queues, found)) = operation.append()
        {
            assert!(queues.iter().count() <= 1 + operation.body.len() / 8);
            if let Some((at, found)) = found {
                batch(&bytes[at..operation.at + operation.body.len()]);
                assert!(found.body.len() < operation.body.len());
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    entry(data);
    batch(data);
    row(data);
});
